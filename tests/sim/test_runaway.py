"""Cells that burn: what is conserved, that no step is too long, what spreads and what does not, and who pays for it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import cell, reactions, runaway
from sim import layout as Y
from sim.burning import burning
from sim.rack import RackTwin, rack_config
from sim.runaway import GAS_J_PER_MOL_K, KELVIN

NO_LIMIT = np.full(4, 1e12)
EVEN = {f"{name}_spread": 0.0 for name in ("capacity", "resistance", "soc", "degc", "coolant", "self_discharge")}


def module(name: str = "lfp_280", n: int = 6, touching: bool = True, **table: Any) -> RackTwin:
    """A module of `n` groups that are all alike, full; large cells touch each other, without a pad between."""
    data = cell.load(name)
    if touching and name != "nmc_ev":
        data = replace(data, thermal=replace(data.thermal, conduction_w_per_k=0.5))
    table = {"n_series": n, "module_groups": n, "initial_soc": 1.0, **EVEN, **table}
    return RackTwin(data, rack_config(data, table))


def heat(rack: RackTwin, watt: float, at: int = 0) -> None:
    rack.burn[Y.B_HEATER_W, at] = watt
    rack.string[Y.S_AWAKE] = 1.0


def wait(rack: RackTwin, seconds: float, dt_s: float = 1.0, chunk_s: float = 60.0) -> None:
    for _ in range(round(seconds / chunk_s)):
        rack.advance(Y.OPEN, np.zeros(round(chunk_s / dt_s)), False, NO_LIMIT, dt_s)


def light(rack: RackTwin, watt: float, seconds: float) -> None:
    """Heat the first cell until it burns, and wait until `seconds` are over."""
    heat(rack, watt)
    for _ in range(round(seconds / 60)):
        wait(rack, 60.0)
        if burning(rack).burnt[0, 0]:
            heat(rack, 0.0)


def unbalanced_j(rack: RackTwin, warm_j: float) -> float:
    """What the heat accounts do not explain of the heat in the cells."""
    s = rack.string
    return rack.thermal_j() - warm_j - float(s[Y.S_HEAT_J] - s[Y.S_COOLANT_J] - s[Y.S_AMBIENT_J] - s[Y.S_VENT_J])


# ------------------------------------------------------------------------------------------------------ conservation


@pytest.mark.parametrize(("name", "watt"), [("lfp_280", 2000.0), ("na_185", 2000.0), ("nmc_ev", 600.0)])
def test_energy_is_conserved_while_a_module_burns(name: str, watt: float) -> None:
    """Rounding alone: 1e-9 of the heat in the thermal books, 1e-6 in those of the stored energy (currents to 30 C)."""
    rack = module(name, 4)
    warm = rack.thermal_j()
    light(rack, watt, 3600.0)
    truth, books = burning(rack), rack.balance()
    assert truth.burnt[:2].all()
    assert books.side_j > 1e5
    assert books.consumed_j > 1e5
    assert books.vented_j > 1e3
    assert abs(unbalanced_j(rack, warm)) < 1e-9 * books.heat_j
    assert abs(books.residual_j) < 1e-6 * books.released_j
    assert truth.side_j.sum() == pytest.approx(books.side_j, rel=1e-12)


def alone(name: str, degc: float, soc: float = 1.0) -> RackTwin:
    """One cell without neighbours, air or coolant that matters, at `degc`."""
    rack = module(name, 1, n_parallel=1)
    rack.cells[Y.C_DEGC], rack.cells[Y.C_SOC] = degc, soc
    rack.settle()
    return rack


@pytest.mark.parametrize(("name", "degc"), [("lfp_280", 240.0), ("na_185", 190.0), ("nmc_ev", 190.0)])
def test_heat_is_what_was_converted_and_nothing_is_converted_twice(name: str, degc: float) -> None:
    rack = alone(name, degc)
    q = rack.bank.chemistry
    before = rack.burn[Y.B_SEI][0], rack.burn[Y.B_CATHODE][0], rack.burn[Y.B_LOST][0]
    for _ in range(300):
        rack.react(1.0)
        x = burning(rack)
        now = x.sei[0, 0], x.cathode[0, 0], x.charge_lost[0, 0]
        assert all(0.0 <= a <= b <= 1.0 + 1e-12 for a, b in zip(before, now, strict=True))
        before = now
    x = burning(rack)
    assert x.ignited_s[0, 0] > 0.0
    assert rack.cells[Y.C_SOC][0] + x.charge_lost[0, 0] == pytest.approx(1.0, abs=1e-12) or x.separator_shrunk > 0.5
    expected = (
        q[Y.Q_SEI_J] * x.sei + q[Y.Q_ANODE_J] * x.charge_lost + q[Y.Q_CATHODE_J] * x.cathode
        + q[Y.Q_ELECTROLYTE_J] * x.electrolyte - q[Y.Q_MELT_J] * x.separator_melted - q[Y.Q_METAL_J] * x.aluminium_melted
    )[0, 0]  # fmt: skip
    assert x.side_j[0, 0] == pytest.approx(expected, rel=1e-9)
    gained = (rack.cells[Y.C_DEGC][0] - degc) * rack.cell.thermal.heat_capacity_j_per_k
    assert gained == pytest.approx(expected - rack.string[Y.S_VENT_J], rel=1e-9)
    made = (
        q[Y.Q_SEI_MOL] * x.sei + q[Y.Q_ANODE_MOL] * x.charge_lost + q[Y.Q_CATHODE_MOL] * x.cathode
        + q[Y.Q_ELECTROLYTE_MOL] * x.electrolyte
    )[0, 0]  # fmt: skip
    assert x.gas_mol[0, 0] == pytest.approx(made, rel=1e-9)
    # all of it went through the vent, and the vapour with it: what stood above the solvent, and what boiled off since
    boiled = rack.burn[Y.B_BOILED][0] * q[Y.Q_BOIL_J] / (q[Y.Q_VAPOUR_K] * GAS_J_PER_MOL_K)
    stood = rack.string[Y.S_GAS_MOL] - made - boiled
    assert stood == pytest.approx(vapour_mol(q, degc), rel=0.05)  # it vents in the first second, hardly warmer yet


def vapour_mol(q: np.ndarray, degc: float) -> float:
    """Vapour above the solvent of a closed cell [Clausius, Clapeyron; ideal gas]."""
    kelvin = degc + KELVIN
    return float(q[Y.Q_VAPOUR_PA] * np.exp(-q[Y.Q_VAPOUR_K] / kelvin) / (GAS_J_PER_MOL_K * kelvin * q[Y.Q_PER_FREE_M3]))


def test_what_pressed_on_the_vent_is_what_leaves_when_it_opens() -> None:
    """A trickle past full: hardly any heat, and a millimole, of which the vapour is more than the tolerance."""
    rack = alone("nmc_ev", 25.0, soc=1.02)
    q = rack.bank.chemistry
    while not (burning(rack).vented_s > 0.0).any():
        rack.advance(Y.CLOSED, np.full(10, -2.0), True, NO_LIMIT, 1.0)
        assert rack.string[Y.S_TIME_S] < 20_000.0
    degc = rack.cells[Y.C_DEGC][0]
    assert degc < 60.0
    pressed = q[Y.Q_VENT_PA] / (GAS_J_PER_MOL_K * (degc + KELVIN) * q[Y.Q_PER_FREE_M3])
    assert rack.string[Y.S_GAS_MOL] == pytest.approx(pressed, rel=0.01)  # 10 s of what is made since are 0.4 %
    assert vapour_mol(q, degc) > 0.02 * pressed


# -------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(("name", "degc"), [("lfp_280", 225.0), ("nmc_ev", 165.0), ("na_185", 185.0)])
def test_reactions_do_not_depend_on_the_step(name: str, degc: float) -> None:
    """1 ms to 60 s: before ignition within 0.05 K, ignition within the second of a sub-step, afterwards within 0.5 K."""
    ends, times = [], []
    for dt_s in (0.001, 0.1, 1.0, 60.0):
        rack = alone(name, degc)
        react = rack.react
        for _ in range(round((60.0 if dt_s == 0.001 else 600.0) / dt_s)):
            react(dt_s)
        if dt_s == 0.001:
            fine = rack.cells[Y.C_DEGC][0]
            coarse = alone(name, degc)
            coarse.react(60.0)
            assert coarse.cells[Y.C_DEGC][0] == pytest.approx(fine, abs=0.05)
            continue
        ends.append(float(rack.cells[Y.C_DEGC][0]))
        times.append(float(burning(rack).ignited_s[0, 0]))
    np.testing.assert_allclose(times, times[0], atol=1.5)
    np.testing.assert_allclose(ends, ends[0], atol=0.5)
    assert ends[0] > degc + 80.0


@pytest.mark.parametrize("dt_s", [0.001, 0.1])
def test_a_burning_rack_does_not_depend_on_the_control_step(dt_s: float) -> None:
    """A read every 60 s makes sub-steps of 1 s, one every millisecond those of a millisecond. First order in between."""
    runs = []
    for step_s in (1.0, dt_s):
        rack = module("nmc_ev", 2)
        rack.cells[Y.C_DEGC] = [185.0, 170.0, 60.0, 25.0]
        rack.settle()
        wait(rack, 240.0, step_s, 10.0)
        runs.append((burning(rack), rack.cells[Y.C_DEGC], float(rack.string[Y.S_GAS_MOL])))
    (coarse, coarse_degc, coarse_mol), (fine, fine_degc, fine_mol) = runs
    assert fine.burnt[0].all()
    np.testing.assert_allclose(coarse.ignited_s[0], fine.ignited_s[0], atol=2.0)
    np.testing.assert_allclose(coarse_degc, fine_degc, rtol=0.02)
    assert coarse_mol == pytest.approx(fine_mol, rel=0.02)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["lfp", "nmc", "na_layered", "na_nfpp", "na_pba"]), st.floats(-0.03, 1.5), st.floats(-40.0, 1500.0),
    st.floats(-2e4, 1e5), st.sampled_from([1e-3, 0.1, 1.0, 60.0]),
)  # fmt: skip
def test_no_state_breaks_it(name: str, soc: float, degc: float, watt: float, dt_s: float) -> None:
    rack = module("lfp_280", 2, side_reactions=name)
    rack.cells[Y.C_DEGC], rack.cells[Y.C_SOC] = [degc, 25.0], [soc, 0.5]
    rack.settle()
    heat(rack, watt)
    rack.react(dt_s)
    heat(rack, 0.0)
    warm = rack.thermal_j()
    heat_j = rack.string[Y.S_HEAT_J] - rack.string[Y.S_VENT_J] - rack.string[Y.S_COOLANT_J] - rack.string[Y.S_AMBIENT_J]
    wait(rack, 2 * min(dt_s, 1.0), min(dt_s, 1.0), min(dt_s, 1.0))
    for values in (rack.bank.cells, rack.bank.burn, rack.bank.work, rack.bank.string):
        known = np.delete(values.ravel(), Y.S_FORCED_A) if values is rack.bank.string else values
        assert np.isfinite(known).all()
    assert unbalanced_j(rack, warm - heat_j) == pytest.approx(0.0, abs=1e-3)


# ------------------------------------------------------------------------------------------------------------- healthy


def test_a_healthy_rack_is_the_same_to_the_last_bit_and_never_wakes_up() -> None:
    runs = []
    for chemistry in ("", "none"):
        data = cell.load("lfp_280")
        rack = RackTwin(data, rack_config(data, {"n_series": 40, "side_reactions": chemistry, "initial_degc": 45.0}))
        rng = np.random.default_rng(2)
        for _ in range(20):
            rack.advance(Y.CLOSED, rng.normal(0, 280, 60), True, NO_LIMIT, 1.0)
        bank = rack.bank
        assert not bank.burn.any()
        assert rack.string[Y.S_AWAKE] == 0.0
        # rows that only the look for hot cells has touched are written over before they are read
        spare = slice(int(rack.p[Y.P_SPARE_AT]), int(rack.p[Y.P_SPARE_AT]) + Y.T_SIZE)
        bank.work[:, spare] = 0.0
        bank.string[:, Y.S_LOOK_S] = 0.0
        runs.append(bank.cells.tobytes() + bank.groups.tobytes() + bank.string.tobytes() + bank.work.tobytes())
    assert runs[0] == runs[1]


def test_it_wakes_when_hot_or_charged_past_full_and_falls_asleep_again() -> None:
    rack = module(n=3)
    rack.cells[Y.C_DEGC, 1] = 61.0
    wait(rack, 2.0, 1.0, 2.0)
    assert rack.string[Y.S_AWAKE] == 1.0
    assert rack.burn[Y.B_SEI][1] > 0.0
    assert not rack.burn[Y.B_SEI][[0, 2]].any()
    wait(rack, 600.0)
    assert rack.cells[Y.C_DEGC].max() < 60.0
    assert rack.string[Y.S_AWAKE] == 0.0
    rack.cells[Y.C_SOC, 2] = 1.03
    rack.settle()
    wait(rack, 2.0, 1.0, 2.0)
    assert rack.string[Y.S_AWAKE] == 1.0
    assert rack.burn[Y.B_LOST][2] > 0.0


# -------------------------------------------------------------------------------------------------------------- spread


def test_fire_goes_from_neighbour_to_neighbour() -> None:
    rack = module("na_185", 5)
    rack.string[Y.S_FLOW_W_PER_K] = 0.0
    light(rack, 2000.0, 3 * 3600.0)
    times = burning(rack).ignited_s[:, 0]
    assert np.all(np.diff(times) > 120.0)
    assert np.all(np.diff(times) < 1800.0)
    vented = burning(rack).vented_s[:, 0]
    assert np.all(vented < times)


def test_cooling_and_barriers_hold_it_back() -> None:
    """The second cell: touching, behind a barrier, cooled."""
    reached = {}
    for name, every, flow in (("bare", 0, 0.0), ("barrier", 1, 0.0), ("cooled", 0, 290.0)):
        rack = module("lfp_280", 3, barrier_every=every)
        rack.string[Y.S_FLOW_W_PER_K] = flow
        light(rack, 2000.0, 2 * 3600.0)
        reached[name] = burning(rack)
    assert np.isfinite(reached["bare"].ignited_s[1, 0])
    assert not np.isfinite(reached["barrier"].ignited_s[1, 0])
    assert reached["barrier"].hottest_degc[1, 0] < 200.0
    assert not np.isfinite(reached["cooled"].ignited_s[2, 0])
    assert np.isfinite(reached["bare"].ignited_s[2, 0])


def test_a_barrier_stands_after_every_so_many_cells_of_a_module(plain: Callable[..., RackTwin]) -> None:
    rack = plain(
        rack={"n_series": 8, "module_groups": 5, "barrier_every": 2, "barrier_k_per_w": 1e9},
        thermal={"conduction_w_per_k": 1.0},
    )
    rack.cells[Y.C_DEGC] = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    wait(rack, 1.0, 1.0, 1.0)
    moved = (rack.cells[Y.C_DEGC] - np.arange(8) * 10.0) * 1000.0
    np.testing.assert_allclose(moved, [10, -10, 10, -10, 0, 10, -10, 0], atol=1e-4)


def test_radiation_and_busbars_carry_heat_between_hot_neighbours() -> None:
    """Against the law of Stefan and Boltzmann; only where a cell is hot, so that a healthy rack knows nothing of it."""
    data = cell.load("lfp_280")
    only = {"conduction_w_per_k": 0.0, "coolant_w_per_k": 1e-9, "ambient_w_per_k": 0.0, "skin_k_per_w": 0.0}
    for thermal, watt in (
        ({"terminal_w_per_k": 0.25, "radiating_m2": 0.0}, 0.25 * 200.0),
        ({"terminal_w_per_k": 0.0, "radiating_m2": 0.003}, 0.003 * 5.670374419e-8 * (523.15**4 - 323.15**4)),
    ):
        data = replace(data, thermal=replace(data.thermal, **only, **thermal))
        table = {"n_series": 2, "module_groups": 2, "initial_soc": 0.0, "initial_degc": 50.0, **EVEN}
        rack = RackTwin(data, rack_config(data, table))
        rack.cells[Y.C_DEGC, 0] = 250.0
        rack.string[Y.S_AWAKE] = 1.0
        rack.settle()
        wait(rack, 1.0, 1.0, 1.0)
        assert (rack.cells[Y.C_DEGC][1] - 50.0) * 5400.0 == pytest.approx(watt, rel=1e-3)


# ------------------------------------------------------------------------------------------------- shorts, burnt cells


def test_a_short_gives_off_all_that_is_stored_in_the_cell_that_has_it() -> None:
    """E^2 / R until empty, in the first of two parallel cells; its neighbour empties through it and stays cooler."""
    rack = module("nmc_ev", 1, side_reactions="nmc", initial_soc=0.6)
    rack.burn[Y.B_FAULT_S, 0] = rack.burn[Y.B_ADDED_S, 0] = 1.0
    rack.groups[Y.G_LEAK_S] = 1.0
    rack.string[Y.S_AWAKE] = 1.0
    rack.settle()
    watt = 1.0 * float(rack.levels[Y.V_NOW, 0]) ** 2
    wait(rack, 10.0, 0.1, 10.0)
    warmed = (rack.cells[Y.C_DEGC] - 25.0) * 920.0
    assert warmed[0] == pytest.approx(10.0 * watt, rel=0.05)
    assert warmed[1] < 0.1 * warmed[0]
    wait(rack, 30 * 3600.0)
    assert np.all(rack.cells[Y.C_SOC] < 0.01)
    assert not burning(rack).burnt.any()
    assert abs(rack.balance().residual_j) < 1e-6 * rack.balance().released_j


def test_a_burnt_cell_is_a_resistor_without_voltage() -> None:
    rack = module("lfp_280", 2, barrier_every=1)
    light(rack, 2500.0, 1800.0)
    assert abs(rack.levels[Y.V_NOW, 0]) < 0.3
    assert rack.levels[Y.V_NOW, 1] > 3.2
    assert 0.0 < rack.levels[Y.V_EFF_OHM, 0] < 0.01
    rack.advance(Y.CLOSED, np.full(10, 100.0), True, NO_LIMIT, 1.0)
    assert rack.string[Y.S_AMPERE] == pytest.approx(100.0)
    assert -1.0 < rack.levels[Y.V_NOW, 0] < 0.3


def test_a_cell_whose_aluminium_melts_is_open() -> None:
    rack = module("lfp_280", 3)
    heat(rack, 20000.0)
    wait(rack, 300.0)
    truth = burning(rack)
    assert truth.aluminium_melted[0, 0] > 0.5
    assert truth.open_circuit.tolist() == [[True], [False], [False]]
    heat(rack, 0.0)
    rack.advance(Y.CLOSED, np.full(10, 100.0), True, NO_LIMIT, 1.0)
    assert abs(rack.string[Y.S_AMPERE]) < 1e-3  # hundreds of volts are not there to drive more
    assert rack.levels[Y.V_NOW, 0] < -1.0  # all that the others have lies across it
    wait(rack, 60.0)
    assert np.isfinite(rack.bank.cells).all()


def test_overcharge_burns_and_metal_grows_through() -> None:
    """1C past full without anybody who stops it. Cooled well enough that it does not burn before, it ends in a short."""
    rack = module("lfp_280", 1)
    rack.string[Y.S_FLOW_W_PER_K] = 0.0
    warm = rack.thermal_j()
    while not burning(rack).burnt[0, 0]:
        rack.advance(Y.CLOSED, np.full(1, -280.0), True, NO_LIMIT, 1.0)
        assert rack.string[Y.S_TIME_S] < 3600.0
    x, books = burning(rack), rack.balance()
    assert x.vented_s[0, 0] < x.ignited_s[0, 0]
    assert x.charge_lost[0, 0] > 0.05
    assert books.side_j > 0.3 * float(rack.string[Y.S_IN_J])
    assert abs(books.residual_j) < 1e-6 * rack.string[Y.S_IN_J]
    assert abs(unbalanced_j(rack, warm)) < 1e-9 * books.heat_j
    cold = module("lfp_280", 1, initial_soc=1.0, initial_degc=0.0)
    cold.advance(Y.CLOSED, np.full(500, -280.0), True, NO_LIMIT, 1.0)
    assert burning(cold).short_s[0, 0] == 0.0
    cold.advance(Y.CLOSED, np.full(100, -280.0), True, NO_LIMIT, 1.0)
    assert burning(cold).short_s[0, 0] > 10.0


def test_gas_reaches_the_air_and_goes_again() -> None:
    rack = module("lfp_280", 1)
    light(rack, 2500.0, 1200.0)
    s = rack.string
    assert s[Y.S_GAS_MOL] == pytest.approx(0.02 * 280.0, rel=0.1)
    peak = float(s[Y.S_AIR_PPM])
    assert peak > 1e4
    wait(rack, 600.0)
    assert s[Y.S_AIR_PPM] == pytest.approx(peak * np.exp(-1.0), rel=0.1)
    assert s[Y.S_DETECTOR_PPM] == pytest.approx(s[Y.S_AIR_PPM], rel=0.1)


@given(st.floats(-0.5, 1.5))
def test_stored_energy_is_that_of_the_cell_data(soc: float) -> None:
    for name, chemistry in (("lfp_280", "lfp"), ("na_185", "na_layered")):
        data = cell.load(name)
        q = reactions.load(chemistry).constants(data)
        assert runaway.stored_j_per_as(q, soc) == pytest.approx(float(data.stored_energy_j_per_as(soc)), abs=1e-9)
