"""Whole racks: energy accounts, efficiency, spread, determinism."""

from collections.abc import Callable

import numpy as np
import pytest

from sim import cell
from sim import layout as Y
from sim.config import TwinError
from sim.rack import RackTwin, rack_config

NO_LIMIT = np.full(4, 1e12)


def cycle(rack: RackTwin, c_rate: float) -> tuple[float, float]:
    """Charge to the upper and discharge to the lower voltage limit; energy (out, in) in J."""
    head, s = rack.cell.head, rack.string
    amp = c_rate * head.capacity_ah * rack.n_parallel
    before = s[Y.S_OUT_J], s[Y.S_IN_J]
    for sign in (-1.0, 1.0):
        for _ in range(round(1.3 * 180 / c_rate)):
            rack.advance(Y.CLOSED, np.full(20, sign * amp), True, NO_LIMIT, 1.0)
            if (rack.levels[Y.V_NOW].max() > head.v_max) if sign < 0 else (rack.levels[Y.V_NOW].min() < head.v_min):
                break
        else:
            pytest.fail("the rack never met its voltage limit")
    return float(s[Y.S_OUT_J] - before[0]), float(s[Y.S_IN_J] - before[1])


@pytest.mark.parametrize(("name", "n_parallel"), [("lfp_280", 1), ("na_185", 1), ("nmc_ev", 2), ("nmc_ev", 5)])
def test_energy_in_is_stored_or_heat_or_out(name: str, n_parallel: int) -> None:
    data = cell.load(name)
    table = {"n_series": 6, "n_parallel": n_parallel, "initial_soc": 0.3, "module_groups": 3, "resistance_spread": 0.2}
    rack = RackTwin(data, rack_config(data, table))
    rack.set_balance(np.array([1, 0, 0, 1, 0, 0], np.uint8))
    s = rack.string
    s[Y.S_AMBIENT], s[Y.S_COOLANT_SET] = 35.0, 18.0
    start, warm = rack.stored_j(), rack.thermal_j()
    cycle(rack, 0.8)
    rack.advance(Y.OPEN, np.zeros(7200), False, NO_LIMIT, 1.0)
    s[Y.S_BUS_V] = 0.0
    rack.advance(Y.PRECHARGE, np.zeros(5), False, NO_LIMIT, 1.0)
    watt = 0.7 * data.head.capacity_ah * n_parallel * s[Y.S_PACK_V]
    for sign in (1.0, -1.0, 0.3, -0.4):
        rack.advance(Y.CLOSED, np.full(600, sign * watt), False, NO_LIMIT, 1.0)
    books = rack.balance()
    throughput = s[Y.S_OUT_J] + s[Y.S_IN_J]
    assert abs(books.residual_j) < 1e-6 * throughput
    # the same without the class that keeps the books: what went in is stored, was heat, or came out
    out = s[Y.S_OUT_J] - s[Y.S_IN_J] + s[Y.S_HEAT_J] + s[Y.S_BLEED_J] + s[Y.S_PATH_J]
    assert start - rack.stored_j() == pytest.approx(out, abs=1e-6 * throughput)
    # every account took part
    assert s[Y.S_HEAT_J] > 0.02 * throughput
    assert s[Y.S_BLEED_J] > 1e-5 * throughput
    assert s[Y.S_PATH_J] > 1e-4 * throughput
    # and the heat is in the cells, the coolant or the air
    left = s[Y.S_HEAT_J] - s[Y.S_COOLANT_J] - s[Y.S_AMBIENT_J]
    assert rack.thermal_j() - warm == pytest.approx(left, abs=1e-9 * throughput)


@pytest.mark.parametrize(("name", "low", "high"), [("lfp_280", 0.93, 0.95), ("na_185", 0.88, 0.92)])
def test_round_trip_efficiency_at_half_c(name: str, low: float, high: float) -> None:
    """At the DC terminals of the whole rack, coolant at 20 degC; charge left over in the cells is accounted for."""
    data = cell.load(name)
    rack = RackTwin(data, rack_config(data, {"initial_soc": 0.02, "soc_spread": 0.0, "initial_hysteresis": -1.0}))
    rack.string[Y.S_COOLANT_SET] = 20.0
    cycle(rack, 0.5)  # warms up
    before = rack.stored_j()
    out, taken = cycle(rack, 0.5)
    assert low < out / (taken - (rack.stored_j() - before)) < high


@pytest.mark.parametrize("dt_s", [0.01, 1.0])
def test_no_instability_at_the_ends(dt_s: float) -> None:
    """Cold, empty and full, with parallel cells out of step and large currents that change sign at each step."""
    for name in cell.names():
        data = cell.load(name)
        for soc in (0.01, 0.99):
            rack = RackTwin(data, rack_config(data, {"n_series": 2, "n_parallel": 3, "initial_degc": -10.0}))
            rack.cells[Y.C_SOC] = soc + np.array([0.008, -0.009, 0.0, 0.005, -0.005, 0.0])
            rack.settle()
            amp = data.head.capacity_ah * 3
            rack.advance(Y.CLOSED, np.tile([amp, -amp], 300), True, NO_LIMIT, dt_s)
            rack.advance(Y.OPEN, np.zeros(2000), True, NO_LIMIT, 1.0)
            # at rest the circulating currents die out
            assert np.abs(rack.derived[Y.D_AMPERE]).max() < 0.02 * data.head.capacity_ah
            assert np.all((rack.levels[Y.V_NOW] > 1.0) & (rack.levels[Y.V_NOW] < 4.6))
            assert np.all(np.abs(rack.cells[Y.C_SOC] - soc) < 0.05)


def test_the_sub_step_hardly_matters() -> None:
    data = cell.load("lfp_280")
    runs = []
    for dt_s in (1.0, 0.05):
        rack = RackTwin(data, rack_config(data, {"n_series": 4}))
        for _ in range(5):
            for amp in (140.0, 0.0, -280.0, 0.0):
                rack.advance(Y.CLOSED, np.full(round(60 / dt_s), amp), True, NO_LIMIT, dt_s)
        runs.append((rack.levels[Y.V_NOW].copy(), rack.cells[Y.C_DEGC].copy(), rack.cells[Y.C_SOC].copy()))
    for coarse, fine, tolerance in zip(*runs, (2e-5, 2e-3, 1e-12), strict=True):
        np.testing.assert_allclose(coarse, fine, atol=tolerance)


def snapshot(seed: int) -> bytes:
    data = cell.load("nmc_ev")
    rack = RackTwin(data, rack_config(data, {"seed": seed, "n_series": 12}))
    rng = np.random.default_rng(5)
    for _ in range(50):
        rack.advance(Y.CLOSED, rng.normal(0, 5000, 60), False, NO_LIMIT, 1.0)
    return rack.bank.cells.tobytes() + rack.bank.work.tobytes() + rack.string.tobytes()


def test_the_same_seed_gives_the_same_bits() -> None:
    assert snapshot(3) == snapshot(3)
    assert snapshot(3) != snapshot(4)


def test_spread_is_as_asked_for() -> None:
    data = cell.load("lfp_280")
    config = rack_config(
        data, {"capacity_spread": 0.02, "resistance_spread": 0.08, "soc_spread": 0.03, "degc_spread": 1.0}
    )
    rack = RackTwin(data, config)
    n = rack.n_cells
    for values, mean, spread in (
        (rack.cells[Y.C_CAPACITY_AS] / 3600, 280.0, 5.6),
        (rack.cells[Y.C_SCALE], 1.0, 0.08),
        (rack.cells[Y.C_SOC], 0.5, 0.03),
        (rack.cells[Y.C_DEGC], 25.0, 1.0),
    ):
        assert values.mean() == pytest.approx(mean, abs=4 * spread / np.sqrt(n))
        assert values.std() == pytest.approx(spread, rel=0.15)
        assert np.abs(values - mean).max() <= 3 * spread * (1 + 1e-12)
    coolant = rack.cells[Y.C_COOLANT_SHARE]
    leak = rack.groups[Y.G_LEAK_S]
    assert 0.03 < coolant.std() / coolant.mean() < 0.07
    assert 0.2 < leak.std() / leak.mean() < 0.4


def test_an_aged_rack_has_so_much_less_charge_and_so_much_more_resistance() -> None:
    data = cell.load("nmc_ev")
    new, old = (
        RackTwin(data, rack_config(data, table)) for table in ({}, {"capacity_factor": 0.8, "resistance_factor": 1.5})
    )
    np.testing.assert_allclose(old.cells[Y.C_CAPACITY_AS], 0.8 * new.cells[Y.C_CAPACITY_AS], rtol=1e-14)
    np.testing.assert_allclose(old.cells[Y.C_SCALE], 1.5 * new.cells[Y.C_SCALE], rtol=1e-14)
    np.testing.assert_allclose(old.derived[Y.D_R0], 1.5 * new.derived[Y.D_R0], rtol=1e-12)
    np.testing.assert_allclose(old.derived[Y.D_KP], 1.5 * new.derived[Y.D_KP], rtol=1e-12)
    np.testing.assert_array_equal(old.cells[Y.C_SOC], new.cells[Y.C_SOC])


def test_what_is_drawn_for_one_quantity_tells_nothing_of_another() -> None:
    rack = RackTwin("lfp_280")
    rows = (Y.C_CAPACITY_AS, Y.C_SCALE, Y.C_SOC, Y.C_DEGC, Y.C_COOLANT_SHARE)
    related = np.corrcoef([*(rack.cells[row] for row in rows), rack.groups[Y.G_LEAK_S]]) - np.eye(6)
    assert np.abs(related).max() < 4 / np.sqrt(rack.n_cells)


def test_a_rack_may_start_below_empty_and_does_not_by_its_spread() -> None:
    data = cell.load("na_185")
    empty = RackTwin(data, rack_config(data, {"initial_soc": 0.0, "soc_spread": 0.02}))
    assert empty.cells[Y.C_SOC].min() == 0.0
    drained = RackTwin(data, rack_config(data, {"initial_soc": -0.033, "soc_spread": 0.0, "initial_degc": 25.0}))
    assert np.all(drained.cells[Y.C_SOC] == -0.033)
    assert np.all(np.abs(drained.levels[Y.V_NOW]) < 0.15)


def test_parallel_cells_start_at_one_soc() -> None:
    soc = RackTwin("nmc_ev").by_group(Y.C_SOC)
    np.testing.assert_array_equal(soc[:, 0], soc[:, 1])
    assert soc.std() > 0.005


def test_one_spread_does_not_disturb_the_others() -> None:
    data = cell.load("lfp_280")
    a = RackTwin(data, rack_config(data, {}))
    b = RackTwin(data, rack_config(data, {"capacity_spread": 0.03}))
    assert not np.array_equal(a.cells[Y.C_CAPACITY_AS], b.cells[Y.C_CAPACITY_AS])
    for row in (Y.C_SOC, Y.C_SCALE, Y.C_DEGC):
        np.testing.assert_array_equal(a.cells[row], b.cells[row])


def test_the_racks_are_those_of_the_task() -> None:
    sizes = {name: RackTwin(name) for name in cell.names()}
    lfp, car = sizes["lfp_280"], sizes["nmc_ev"]
    assert (lfp.n_series, lfp.n_parallel, car.n_series, car.n_parallel) == (416, 1, 96, 2)
    assert sizes["na_185"].string[Y.S_PACK_V] > 1000
    assert 300 < car.string[Y.S_PACK_V] < 400


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"n_seris": 4}, "unknown key 'n_seris' (did you mean 'n_series'?)"),
        ({"n_series": 0}, "n_series = 0"),
        ({"n_series": 4.5}, "expected a whole number"),
        ({"initial_soc": 1.5}, "initial_soc = 1.5"),
        ({"initial_soc": -0.06}, "initial_soc = -0.06: must be in -0.05..1"),
        ({"initial_soc": "half"}, "expected a finite number"),
        ({"initial_degc": float("nan")}, "expected a finite number"),
        ({"substep_s": 5.0}, "substep_s = 5.0"),
        ({"precharge_ohm": 0.0}, "precharge_ohm = 0.0: must be positive"),
        ({"busbar_ohm": -1.0}, "busbar_ohm"),
        ({"capacity_spread": 0.5}, "capacity_spread = 0.5"),
        ({"soc_spread": -0.1}, "soc_spread"),
        ({"degc_spread": 50.0}, "degc_spread"),
        ({"seed": -1}, "seed = -1"),
        ({"initial_hysteresis": 2.0}, "initial_hysteresis = 2.0"),
        ({"n_series": 70000}, "n_series = 70000: must be in 1..65535"),
        ({"sense_ohm": -0.1}, "sense_ohm = -0.1: must not be negative"),
        ({"capacity_factor": 0.0}, "capacity_factor = 0.0: must be positive"),
        ({"resistance_factor": -1.0}, "resistance_factor = -1.0: must be positive"),
        ({"coolant_flow_lpm": 0.0}, "coolant_flow_lpm = 0.0: must be positive"),
    ],
)
def test_bad_tables_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(TwinError) as caught:
        rack_config(cell.load("lfp_280"), table)
    assert message in str(caught.value)
    assert "[rack]" in str(caught.value)


def test_a_sub_step_too_long_for_the_heat_balance_is_refused(plain: Callable[..., RackTwin]) -> None:
    with pytest.raises(TwinError, match="substep_s = 1.0: too long .* at most 0.25 s"):
        plain(thermal={"heat_capacity_j_per_k": 1.0, "conduction_w_per_k": 1.0})


def test_changing_the_state_needs_settling_only(plain: Callable[..., RackTwin]) -> None:
    rack = plain(rack={"n_series": 3})
    rack.cells[Y.C_SOC] = 1.0
    rack.settle()
    assert rack.string[Y.S_PACK_V] == pytest.approx(3 * 3.6)
