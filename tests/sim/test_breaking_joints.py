"""Joints that gain resistance and cells that lose capacity: against Ohm, Joule and the clock, and who pays for it."""

from typing import Any

import numpy as np
import pytest

from sim import layout as Y
from sim.config import TwinError
from tests.sim.test_breaking import MAINS, PRECHARGE, Bench, N

AMPERE, OHM = 100.0, 2e-3
EVEN = {f"{name}_spread": 0.0 for name in ("capacity", "resistance", "soc", "degc", "coolant", "self_discharge")}
ISOLATED = {**EVEN, "coolant_w_per_k_flow": 1e-9}


def at_work(*faults: dict[str, Any], n_racks: int = 1, **rack: Any) -> Bench:
    """A rack of even cells that gives 100 A from the tenth second on, its faults included."""
    tables = {"rack": {**ISOLATED, "initial_soc": 0.6, **rack}, "duty": {"kind": "constant", "current_a": AMPERE}}
    bench = Bench(*faults, n_racks=n_racks, **tables)
    bench.command(PRECHARGE)
    bench.run(8.0)
    bench.command(MAINS)
    bench.run(2.0)
    return bench


def joint(*index: int, value: float = OHM, **keys: Any) -> dict[str, Any]:
    return {"kind": "joint_resistance", "index": list(index), "value": value, "at_s": 10.0, **keys}


def test_the_drop_is_seen_by_one_group_and_by_the_string() -> None:
    sound, loose = at_work(), at_work(joint(3))
    for bench in (sound, loose):
        bench.run(5.0)
    drop_v = sound.read("cell_v") - loose.read("cell_v")
    assert loose.read("current_a") == pytest.approx(AMPERE, rel=1e-3)
    np.testing.assert_allclose(drop_v, [0, 0, 0, AMPERE * OHM, 0, 0, 0, 0], atol=2e-4)
    assert sound.read("pack_v") - loose.read("pack_v") == pytest.approx(AMPERE * OHM, rel=0.01)
    # nothing of it without a current
    loose.command(0)
    loose.run(1.0)
    sound.command(0)
    sound.run(1.0)
    np.testing.assert_allclose(loose.read("cell_v"), sound.read("cell_v"), atol=1e-4)


@pytest.mark.parametrize(("index", "shares"), [(3, {3: 0.5, 4: 0.5}), (N - 1, {N - 1: 1.0}), (0, {0: 0.5, 1: 0.5})])
@pytest.mark.parametrize("n_parallel", [1, 2])
def test_its_heat_is_in_the_groups_beside_it(index: int, shares: dict[int, float], n_parallel: int) -> None:
    """Joule's law to 1 %: nothing cools the cells, but what the warm ones conduct and what resistance they lose."""
    sound, loose = (at_work(*faults, n_parallel=n_parallel) for faults in ((), (joint(index),)))
    before = loose.books()
    for bench in (sound, loose):
        bench.run(60.0)
    heat_j = AMPERE**2 * OHM * 60.0
    warmer = (loose.twin.cells[Y.C_DEGC] - sound.twin.cells[Y.C_DEGC]).reshape(N, n_parallel)
    gained_j = warmer.sum(axis=1) * loose.twin.cell.thermal.heat_capacity_j_per_k
    assert gained_j.sum() == pytest.approx(heat_j, rel=0.01)
    for group in range(N):
        assert gained_j[group] == pytest.approx(shares.get(group, 0.0) * heat_j, abs=0.03 * heat_j)
    assert np.ptp(warmer[index]) < 0.01 * warmer[index].mean()  # parallel cells alike, but for their neighbours
    books = loose.books()
    assert books.heat_j - sound.books().heat_j == pytest.approx(heat_j, rel=0.01)
    assert books.path_j - before.path_j == pytest.approx(sound.books().path_j - before.path_j, rel=0.01)
    assert abs(books.residual_j) < 1e-6 * books.released_j


def test_it_comes_little_by_little_and_goes() -> None:
    bench = at_work(joint(3, ramp_s=10.0, until_s=25.0))
    drops = []
    for _ in range(20):
        bench.run(1.0)
        cell_v = bench.read("cell_v")
        drops.append(float(cell_v[2] - cell_v[3]))
    np.testing.assert_allclose(drops[:10], AMPERE * OHM * np.arange(10) / 10, atol=AMPERE * OHM * 0.11)
    assert np.all(np.diff(drops[:10]) > 0.0)
    np.testing.assert_allclose(drops[11:14], AMPERE * OHM, rtol=0.01)
    np.testing.assert_allclose(drops[16:], 0.0, atol=1e-3)
    assert bench.twin.string[Y.S_JOINT_OHM] == 0.0


def test_a_joint_without_resistance_changes_no_bit_and_a_sound_twin_has_no_place_for_one() -> None:
    sound, fitted = at_work(), at_work(joint(3, value=0.0))
    for bench in (sound, fitted):
        bench.run(10.0)
    assert sound.record.tobytes() == fitted.record.tobytes()
    np.testing.assert_array_equal(sound.site.bank.cells, fitted.site.bank.cells)
    assert sound.site.bank.groups.shape[1] == Y.blocks(N) * Y.G_BLOCK
    with pytest.raises(TwinError, match="'joint_resistance': a twin can have this only if its scenario has a fault"):
        sound.site.set_faults([joint(3)])
    fitted.site.set_faults([joint(2)])


@pytest.mark.parametrize("n_parallel", [1, 2])
def test_the_time_of_discharge_scales_with_the_capacity(n_parallel: int) -> None:
    left = 0.6
    bench = at_work(
        {"kind": "cell_capacity", "index": [2], "value": left, "at_s": 10.0, "until_s": 12.0}, n_parallel=n_parallel
    )
    volt = bench.read("cell_v")
    assert volt[2] == pytest.approx(volt[1], abs=1e-4)  # its state of charge is what it was
    begun = bench.truth()["soc"][0].copy()
    bench.run(600.0, 5.0)
    fell = begun - bench.truth()["soc"][0]
    assert fell[1] == pytest.approx(AMPERE * 600.0 / (n_parallel * 280.0 * 3600.0), rel=0.01)
    assert fell[2] / fell[1] == pytest.approx(1.0 / left, rel=0.001)  # lost for good, although the fault is over


def test_what_is_cut_off_is_booked_with_the_charge_that_it_held() -> None:
    bench = at_work(
        {"kind": "cell_capacity", "index": [2], "value": 0.5, "at_s": 10.0, "ramp_s": 20.0},
        {"kind": "cell_capacity", "index": [5], "value": 0.9, "at_s": 15.0},
        {"kind": "cell_capacity", "index": [5], "value": 0.8, "at_s": 20.0, "until_s": 22.0},
    )
    soc = bench.truth()["soc"][0, 2]
    bench.run(60.0)
    held_j = float(bench.twin.cell.stored_energy_j_per_as(np.array([soc]))[0]) * 280.0 * 3600.0
    books = bench.books()
    assert books.consumed_j == pytest.approx((0.5 + 0.2) * held_j, rel=0.01)
    assert abs(books.residual_j) < 1e-6 * books.released_j
    np.testing.assert_allclose(bench.twin.cells[Y.C_CAPACITY_AS] / (280.0 * 3600.0), [1, 1, 0.5, 1, 1, 0.8, 1, 1])


def test_one_rack_of_a_site_has_them() -> None:
    faults = joint(3, rack=[1]), {"kind": "cell_capacity", "index": [2], "value": 0.5, "rack": [1], "at_s": 10.0}
    sound, broken = at_work(n_racks=2), at_work(*faults, n_racks=2)
    for bench in (sound, broken):
        bench.run(10.0)
    assert sound.record[0].tobytes() == broken.record[0].tobytes()
    assert sound.record["cell_v"][1, 3] - broken.record["cell_v"][1, 3] == pytest.approx(AMPERE * OHM, abs=2e-3)
