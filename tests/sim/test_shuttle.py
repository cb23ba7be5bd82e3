"""The active balancer: charge from neighbour to neighbour, its efficiency, and its place in the books."""

from typing import Any

import numpy as np
import pytest

from hal.contract import COMMAND, MEASUREMENT, Shuttle
from sim import cell, shuttle
from sim import electronics as E
from sim import layout as Y
from sim.config import TwinError
from sim.rack import RackTwin, rack_config
from sim.site import Site

NO_LIMIT = np.full(4, 1e12)
EVEN = {f"{name}_spread": 0.0 for name in ("capacity", "resistance", "soc", "degc", "self_discharge")}


def make(name: str = "lfp_280", **table: Any) -> RackTwin:
    data = cell.load(name)
    return RackTwin(data, rack_config(data, {"n_series": 6, "shuttle": True, **table}))


def ask(rack: RackTwin, **codes: int) -> None:
    """`ask(rack, g2=1)`: what the balancer does with single groups."""
    first = Y.blocks(rack.n_series) * Y.LANES
    for group, code in codes.items():
        rack.bank.balance[0, first + int(group[1:])] = code


def charge_ah(rack: RackTwin) -> Any:
    capacity = rack.by_group(Y.C_CAPACITY_AS)
    return (rack.by_group(Y.C_SOC) * capacity).sum(axis=1) / 3600


def test_codes_are_those_of_the_contract() -> None:
    assert (shuttle.NONE, shuttle.TO_NEXT, shuttle.FROM_NEXT) == (Shuttle.NONE, Shuttle.TO_NEXT, Shuttle.FROM_NEXT)


@pytest.mark.parametrize(("name", "n_parallel"), [("lfp_280", 1), ("nmc_ev", 2)])
def test_charge_goes_from_one_neighbour_to_the_other(name: str, n_parallel: int) -> None:
    rack = make(name, n_parallel=n_parallel, shuttle_a=3.0, shuttle_efficiency=0.8, initial_soc=0.6, **EVEN)
    rack.p[Y.P_ETA] = 1.0  # as much arrives as flows in
    before = charge_ah(rack)
    ask(rack, g0=1, g3=2)
    rack.advance(Y.OPEN, np.zeros(3600), False, NO_LIMIT, 1.0)
    moved = charge_ah(rack) - before
    leak = moved[2]  # of a group that nobody touches
    # voltages are the same within 1 %, which the currents themselves move: so much out, 0.8 of it in
    np.testing.assert_allclose(moved[[0, 4]] - leak, -3.0, atol=2e-3)
    np.testing.assert_allclose(moved[[1, 3]] - leak, 2.4, rtol=0.01)
    assert moved[5] == pytest.approx(leak, abs=1e-3)


def test_what_arrives_is_the_energy_and_not_the_charge() -> None:
    rack = make("na_185", n_series=2, shuttle_efficiency=0.9, **EVEN)
    rack.cells[Y.C_SOC] = [0.9, 0.15]
    rack.settle()
    volt = rack.levels[Y.V_NOW]
    assert volt[0] > 1.4 * volt[1]
    before = charge_ah(rack)
    ask(rack, g0=1)
    rack.advance(Y.OPEN, np.zeros(60), False, NO_LIMIT, 1.0)
    moved = charge_ah(rack) - before
    efficiency = 0.9 * rack.p[Y.P_ETA]  # some of what flows into a cell is lost in it
    assert moved[1] / -moved[0] == pytest.approx(efficiency * volt[0] / volt[1], rel=0.01)
    books = rack.balance()
    assert books.shuttle_j == pytest.approx(0.1 * 2.0 * volt[0] * 60, rel=0.02)


@pytest.mark.parametrize(("name", "n_parallel"), [("lfp_280", 1), ("na_185", 1), ("nmc_ev", 2)])
@pytest.mark.parametrize("path", [Y.OPEN, Y.PRECHARGE, Y.CLOSED])
def test_the_books_close_while_it_works(name: str, n_parallel: int, path: int) -> None:
    rack = make(name, n_series=40, n_parallel=n_parallel, soc_spread=0.05)
    ask(rack, **{f"g{k}": (k % 3) for k in range(39)})
    rack.bank.balance[0, [5, 33]] = 1
    watt = 0.3 * rack.cell.head.capacity_ah * n_parallel * rack.string[Y.S_PACK_V]
    rack.advance(path, watt * np.sin(np.arange(1800) / 50.0), False, NO_LIMIT, 1.0)
    books = rack.balance()
    moved_j = 2.0 * 1800 * 26 * rack.levels[Y.V_NOW].mean()
    assert books.shuttle_j == pytest.approx(0.1 * moved_j, rel=0.05)
    assert abs(books.residual_j) < 1e-6 * (moved_j + rack.string[Y.S_OUT_J] + rack.string[Y.S_IN_J])


def test_the_terminals_feel_its_current() -> None:
    still, busy = make(**EVEN), make(**EVEN)
    ask(busy, g2=1)
    for rack in (still, busy):
        rack.settle()
    fall = still.levels[Y.V_NOW] - busy.levels[Y.V_NOW]
    ohm = still.levels[Y.V_EFF_OHM]
    np.testing.assert_allclose(fall, [0, 0, 2.0 * ohm[2], -1.8 * ohm[3], 0, 0], rtol=1e-9, atol=1e-12)
    assert busy.string[Y.S_PACK_V] == pytest.approx(still.string[Y.S_PACK_V] - fall.sum(), abs=1e-12)


def test_without_voltage_it_stops() -> None:
    rack = make("na_185", **EVEN)
    rack.cells[Y.C_SOC, 3] = -0.03  # below 0.5 V
    rack.settle()
    assert rack.levels[Y.V_NOW, 3] < 0.5
    ask(rack, g2=1, g3=1, g4=1)
    before = charge_ah(rack)
    rack.advance(Y.OPEN, np.zeros(100), False, NO_LIMIT, 1.0)
    moved = charge_ah(rack) - before
    assert np.all(np.abs(moved[:4]) < 1e-3)
    assert moved[4] < -0.05 < 0.04 < moved[5]


def test_a_rack_without_one_is_the_same_bit_for_bit_as_one_that_rests() -> None:
    runs = []
    for has in (False, True):
        rack = make(shuttle=has, n_series=33)
        rack.advance(Y.CLOSED, np.full(50, 3000.0), False, NO_LIMIT, 1.0)
        runs.append(rack.bank.cells.tobytes() + rack.string.tobytes())
    assert runs[0] == runs[1]
    assert make(shuttle=False).bank.balance.shape == (1, Y.LANES)


def test_a_command_switches_it_and_nonsense_is_refused() -> None:
    def site_with(has: bool) -> tuple[Site, Any]:
        site = Site("lfp_280", {"rack": {"n_series": 6, "shuttle": has}, "duty": {"kind": "constant"}})
        n_sensors = site.sensors.n_sensors
        commands = np.zeros(1, COMMAND.dtype(6, n_sensors))
        site.attach(np.zeros(1, MEASUREMENT.dtype(6, n_sensors)), commands)
        site.start(0.0)
        return site, commands["shuttle"][0]

    site, codes = site_with(True)
    codes[:] = [1, 2, 0, 0, 1, 0]
    assert site.command() == (-1, 0)
    assert site.bank.balance[0, Y.LANES : Y.LANES + 6].tolist() == [1, 2, 0, 0, 1, 0]
    assert not site.bank.balance[0, : Y.LANES].any()
    codes[2] = 3
    assert site.command() == (0, E.WRONG_SHUTTLE)
    codes[2], codes[5] = 0, 2
    assert site.command() == (0, E.WRONG_SHUTTLE_LAST)
    site.stop()
    assert not site.bank.balance.any()
    site, codes = site_with(False)
    codes[1] = 1
    assert site.command() == (0, E.WRONG_SHUTTLE_ABSENT)


@pytest.mark.parametrize(
    ("key", "value"), [("shuttle_a", 0.0), ("shuttle_efficiency", 0.0), ("shuttle_efficiency", 1.1)]
)
def test_bad_tables_are_refused(key: str, value: float) -> None:
    with pytest.raises(TwinError, match=rf"\[rack\] {key} = {value}"):
        make(**{key: value})
