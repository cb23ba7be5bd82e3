"""The physics against closed forms. Tolerances: rounding of float64 unless a comment says otherwise."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import layout as Y
from sim.rack import RackTwin

Plain = Callable[..., RackTwin]
Hold = Callable[..., None]
NO_LIMIT = np.full(4, 1e12)


TWICE_THERMAL_V = 2 * 8.617333262e-5 * 298.15


def transfer(volt: float) -> float:
    """Overpotential of the charge transfer whose linear one would be `volt`."""
    return float(TWICE_THERMAL_V * np.arcsinh(volt / TWICE_THERMAL_V))


@pytest.mark.parametrize("dt_s", [0.01, 0.37, 1.0, 30.0])
@pytest.mark.parametrize("pair", range(4))
def test_step_response_of_one_rc_pair(plain: Plain, hold: Hold, pair: int, dt_s: float) -> None:
    ohm = [0.0, 0.0, 0.0, 0.0]
    ohm[pair] = 3e-3
    rack = plain(resistance={"rc_ohm": ohm}, thermal={"heat_capacity_j_per_k": 1e15})
    law = transfer if pair == 0 else float
    tau, amp, steps = (1.0, 10.0, 100.0, 1000.0)[pair], 5.0, 20
    hold(rack, amp, steps, dt_s)
    t = steps * dt_s
    ocv = 3.0 + 0.6 * (0.5 - amp * t / 36000)
    closed = ocv - amp * 2e-3 - law(amp * 3e-3 * (1 - np.exp(-t / tau)))
    assert rack.levels[Y.V_NOW, 0] == pytest.approx(closed, abs=1e-12)
    hold(rack, 0.0, steps, dt_s)
    relaxed = ocv - law(amp * 3e-3 * (1 - np.exp(-t / tau)) * np.exp(-t / tau))
    assert rack.levels[Y.V_NOW, 0] == pytest.approx(relaxed, abs=1e-12)


@pytest.mark.parametrize("dt_s", [0.1, 1.0])
@pytest.mark.parametrize("amp", [5.0, -5.0])
def test_hysteresis_follows_the_charge(plain: Plain, hold: Hold, amp: float, dt_s: float) -> None:
    rack = plain(ocv={"discharge_v": [3.0, 3.6], "charge_v": [3.04, 3.64]}, rack={"initial_hysteresis": 0.3})
    steps = round(200 / dt_s)
    hold(rack, amp, steps, dt_s)
    moved = abs(amp) * 200 / 36000
    towards = -np.sign(amp)
    h = towards + (0.3 - towards) * np.exp(-50 * moved)
    # the Pade form of the exponential errs by a^3/12 a step, a = 50 * 5 / 36000 = 0.007 at 1 s: 200 steps of 3e-8
    assert rack.cells[Y.C_HYST, 0] == pytest.approx(h, abs=1e-5)
    ocv = 3.02 + 0.6 * (0.5 - amp * 200 / 36000)
    assert rack.levels[Y.V_NOW, 0] == pytest.approx(ocv + 0.02 * h - 2e-3 * amp, abs=1e-6)


def test_instantaneous_hysteresis_takes_the_sign_at_once_and_keeps_it(plain: Plain, hold: Hold) -> None:
    rack = plain(hysteresis={"instantaneous_v": 5e-3})
    for amp, sign in ((1.0, 1), (0.0, 1), (-1.0, -1), (0.0, -1)):
        hold(rack, amp, 1, 1.0)
        ocv = 3.0 + 0.6 * rack.cells[Y.C_SOC, 0]
        assert rack.levels[Y.V_NOW, 0] == pytest.approx(ocv - 5e-3 * sign - 2e-3 * amp, abs=1e-12)


def test_resistance_follows_arrhenius(plain: Plain, hold: Hold) -> None:
    rack = plain(
        resistance={"ohmic_activation_ev": 0.3, "polarisation_activation_ev": 0.4, "rc_ohm": [0.0, 1e-3, 0.0, 0.0]},
        rack={"initial_degc": -10.0},
        thermal={"heat_capacity_j_per_k": 1e15},
    )
    hold(rack, 1.0, 100, 1.0)
    inverse = 1 / 263.15 - 1 / 298.15
    ohm = 2e-3 * np.exp(0.3 / 8.617333262e-5 * inverse) + 1e-3 * np.exp(0.4 / 8.617333262e-5 * inverse) * (
        1 - np.exp(-10)
    )
    assert rack.levels[Y.V_NOW, 0] == pytest.approx(3.0 + 0.6 * rack.cells[Y.C_SOC, 0] - ohm, abs=1e-12)


def test_open_circuit_voltage_follows_its_entropy(plain: Plain) -> None:
    rack = plain(entropy={"du_dt_v_per_k": [2e-4, 2e-4]}, rack={"initial_degc": 45.0})
    assert rack.levels[Y.V_NOW, 0] == pytest.approx(3.3 + 20 * 2e-4, abs=1e-12)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_parallel=st.integers(2, 6),
    ampere=st.floats(-30, 30),
    spread=st.floats(0.01, 0.3),
)
def test_parallel_cells_share_the_current(
    plain: Plain, seed: int, n_parallel: int, ampere: float, spread: float
) -> None:
    rack = plain(
        resistance={"rc_ohm": [1e-3, 1e-3, 1e-3, 1e-3]},
        rack={
            "n_series": 3,
            "n_parallel": n_parallel,
            "seed": seed,
            "resistance_spread": spread,
            "capacity_spread": 0.1,
        },
    )
    rng = np.random.default_rng(seed)
    rack.cells[Y.C_SOC] = rng.uniform(0.3, 0.7, rack.n_cells)  # parallel cells out of step: circulating currents
    rack.settle()
    rack.advance(Y.CLOSED, np.full(3, ampere / 2), True, NO_LIMIT, 1.0)
    before = rack.cells[Y.C_SOC].copy()
    relaxing = np.array([rack.cells[row] for row in (Y.C_X1, Y.C_X2, Y.C_X3, Y.C_X4)])
    secant = rack.derived[Y.D_K1].copy()
    rack.advance(Y.CLOSED, np.full(1, ampere), True, NO_LIMIT, 1.0)
    amps = rack.derived[Y.D_AMPERE].reshape(3, -1)
    np.testing.assert_allclose(amps.sum(axis=1), ampere, atol=1e-9)
    # one mean voltage for all cells of a group: the currents are those that make it so
    v = (rack.derived[Y.D_EMEAN] - rack.derived[Y.D_AMPERE] / rack.derived[Y.D_MEAN_S]).reshape(3, n_parallel)
    np.testing.assert_allclose(v, np.repeat(v[:, :1], n_parallel, axis=1), atol=1e-12)
    # and that voltage is the truth: the mean over the step of each cell's own equations
    after = rack.cells[Y.C_SOC]
    u = 3.0 + 0.6 * (before + after) / 2
    tau = np.array([1.0, 10.0, 100.0, 1000.0])
    old = (tau * (1 - np.exp(-1 / tau)))[:, None]  # mean of the exponential
    means = old * relaxing + (1 - old) * rack.derived[Y.D_AMPERE]
    scale = rack.cells[Y.C_SCALE]
    own = u - scale * 2e-3 * rack.derived[Y.D_AMPERE] - 1e-3 * (secant * means[0] + scale * means[1:].sum(axis=0))
    np.testing.assert_allclose(own.reshape(3, n_parallel), v, atol=1e-12)


def test_parallel_cells_out_of_step_come_together(plain: Plain) -> None:
    rack = plain(rack={"n_parallel": 3})
    rack.cells[Y.C_SOC] = (0.2, 0.5, 0.8)
    rack.settle()
    for _ in range(20):
        rack.advance(Y.OPEN, np.zeros(3600), False, NO_LIMIT, 1.0)
    np.testing.assert_allclose(rack.cells[Y.C_SOC], 0.5, atol=1e-6)


def test_charge_is_conserved(plain: Plain, hold: Hold) -> None:
    rack = plain(
        rack={"n_series": 4, "n_parallel": 2, "capacity_spread": 0.05, "resistance_spread": 0.1},
        ageing={"coulombic_efficiency": 0.9},
    )
    before = rack.cells[Y.C_SOC] * rack.cells[Y.C_CAPACITY_AS]
    hold(rack, 3.0, 1000)
    after = rack.cells[Y.C_SOC] * rack.cells[Y.C_CAPACITY_AS]
    np.testing.assert_allclose((before - after).reshape(4, 2).sum(axis=1), 3000.0, rtol=1e-12)
    assert rack.string[Y.S_CHARGE_AS] == pytest.approx(3000.0, rel=1e-12)
    hold(rack, -4.0, 1000)
    last = rack.cells[Y.C_SOC] * rack.cells[Y.C_CAPACITY_AS]
    np.testing.assert_allclose((last - after).reshape(4, 2).sum(axis=1), 0.9 * 4000.0, rtol=1e-9)


def test_bleed_resistors_take_their_current(plain: Plain) -> None:
    rack = plain(rack={"n_series": 3}, resistance={"ohmic_ohm": 1e-9})
    rack.set_balance(np.array([0, 1, 0], np.uint8))
    rack.advance(Y.OPEN, np.zeros(3600), False, NO_LIMIT, 1.0)
    drop = 0.5 - rack.cells[Y.C_SOC]
    assert drop[0] == drop[2] == 0.0
    # the voltage falls along the line U = 3.3 - 0.6 q/Q while q' = U/R: exponential decay
    charge = 3.3 / 0.6 * (1 - np.exp(-0.6 * 3600 / (33.0 * 36000)))
    assert drop[1] == pytest.approx(charge, rel=1e-6)  # midpoint rule, steps of 1 s
    rack.set_balance(np.zeros(3, np.uint8))
    rack.advance(Y.OPEN, np.zeros(10), False, NO_LIMIT, 1.0)
    np.testing.assert_array_equal(0.5 - rack.cells[Y.C_SOC], drop)


def test_self_discharge_takes_its_share_in_a_month(plain: Plain) -> None:
    rack = plain(ageing={"self_discharge_per_month": 0.03})
    rack.advance(Y.OPEN, np.zeros(86400), False, NO_LIMIT, 1.0)
    # at mid SoC the leak takes the stated share; within a day the voltage, hence the leak, changes by 1e-4
    assert 0.5 - rack.cells[Y.C_SOC, 0] == pytest.approx(0.03 / 30.4375, rel=2e-4)


def test_thermal_steady_state_along_the_coolant(plain: Plain, hold: Hold) -> None:
    flow, contact, amp = 50.0, 2.0, 20.0
    rack = plain(
        cell={"capacity_ah": 1e9},
        thermal={"heat_capacity_j_per_k": 20.0, "coolant_w_per_k": contact},
        rack={"n_series": 8, "module_groups": 4, "coolant_w_per_k_flow": flow, "initial_degc": 20.0},
    )
    hold(rack, amp, 3600)
    heat = amp**2 * 2e-3
    plate = flow * (1 - np.exp(-contact / flow))  # a plate at one temperature with flow along it
    place = np.tile(np.arange(4), 2)  # two modules, one branch each
    np.testing.assert_allclose(rack.cells[Y.C_DEGC], 20.0 + place * heat / flow + heat / plate, rtol=1e-12)
    assert rack.string[Y.S_COOLANT_OUT] == pytest.approx(20.0 + 4 * heat / flow, rel=1e-12)
    assert rack.string[Y.S_HEAT_W] == pytest.approx(8 * heat, rel=1e-9)


def test_thermal_steady_state_of_neighbours(plain: Plain, hold: Hold) -> None:
    g, ambient_g, amp = 0.7, 0.3, 30.0
    rack = plain(
        cell={"capacity_ah": 1e9},
        thermal={"heat_capacity_j_per_k": 20.0, "conduction_w_per_k": g, "ambient_w_per_k": ambient_g},
        rack={"n_series": 5, "module_groups": 3, "resistance_spread": 0.3},
    )
    rack.string[Y.S_AMBIENT] = 10.0
    hold(rack, amp, 3600)
    heat = amp**2 * 2e-3 * rack.cells[Y.C_SCALE]
    conductance = np.diag(np.full(5, ambient_g))
    for a, b in ((0, 1), (1, 2), (3, 4)):  # the third and the fourth sit in different modules
        conductance[a, a] += g
        conductance[b, b] += g
        conductance[a, b] -= g
        conductance[b, a] -= g
    np.testing.assert_allclose(rack.cells[Y.C_DEGC], np.linalg.solve(conductance, heat + ambient_g * 10.0), rtol=1e-10)


def test_reversible_heat_changes_sign_with_the_current(plain: Plain, hold: Hold) -> None:
    rack = plain(entropy={"du_dt_v_per_k": [1e-4, 1e-4]}, cell={"capacity_ah": 1e9})
    for amp in (10.0, -10.0):
        hold(rack, amp, 1)
        kelvin = rack.cells[Y.C_DEGC, 0] + 273.15
        assert rack.string[Y.S_HEAT_W] == pytest.approx(100 * 2e-3 - amp * kelvin * 1e-4, rel=1e-4)


@pytest.mark.parametrize("dt_s", [0.01, 0.33, 1.0])
def test_precharge_of_the_link(plain: Plain, dt_s: float) -> None:
    rack = plain(
        cell={"capacity_ah": 1e9},
        rack={"n_series": 10, "dc_link_f": 5e-3, "dc_link_bleed_ohm": 5e3, "precharge_ohm": 100.0},
    )
    steps = 9
    rack.advance(Y.PRECHARGE, np.full(steps, 1e6), False, NO_LIMIT, dt_s)
    series = 100.0 + 10 * 2e-3 + 1e-9
    final = 33.0 * 5e3 / (5e3 + series)
    tau = 5e-3 * series * 5e3 / (series + 5e3)
    bus = final * (1 - np.exp(-steps * dt_s / tau))
    # the cells' slope dU/dz is in the source's resistance: nothing at this capacity
    assert rack.string[Y.S_BUS_V] == pytest.approx(bus, rel=1e-9)
    assert rack.string[Y.S_AMPERE] == pytest.approx((33.0 - bus) / series, rel=1e-8, abs=1e-10)
    energy = rack.string[Y.S_OUT_J]
    charge = rack.string[Y.S_CHARGE_AS]
    time = np.linspace(0, steps * dt_s, 200001)
    v = final * (1 - np.exp(-time / tau))
    i = (33.0 - v) / series
    assert charge == pytest.approx(np.trapezoid(i, time), rel=1e-8)
    assert energy == pytest.approx(np.trapezoid(i * v, time), rel=1e-8)
    rack.advance(Y.OPEN, np.zeros(1), False, NO_LIMIT, 7.0)
    assert rack.string[Y.S_BUS_V] == pytest.approx(bus * np.exp(-7.0 / 25.0), rel=1e-9)
    assert rack.string[Y.S_AMPERE] == 0.0


@pytest.mark.parametrize("watt", [300.0, -300.0, 1.0])
def test_power_is_delivered_at_the_terminals(plain: Plain, watt: float) -> None:
    rack = plain(
        rack={"n_series": 4, "main_path_ohm": 1e-3, "busbar_ohm": 1e-4}, resistance={"rc_ohm": [1e-3, 1e-3, 1e-3, 1e-3]}
    )
    for _ in range(10):
        rack.advance(Y.CLOSED, np.full(7, watt), False, NO_LIMIT, 0.7)
        assert rack.string[Y.S_POWER_W] == pytest.approx(watt, rel=1e-9)


def test_the_closed_link_takes_its_own_current(plain: Plain) -> None:
    rack = plain(rack={"dc_link_f": 0.5, "dc_link_bleed_ohm": 10.0, "main_path_ohm": 0.1})
    rack.string[Y.S_BUS_V] = 3.0
    rack.advance(Y.CLOSED, np.zeros(1), True, NO_LIMIT, 1.0)
    bus = rack.string[Y.S_BUS_V]
    assert rack.string[Y.S_AMPERE] == pytest.approx(bus / 10.0 + 0.5 * (bus - 3.0), rel=1e-12)
    rack.advance(Y.CLOSED, np.zeros(100), True, NO_LIMIT, 1.0)
    assert rack.string[Y.S_AMPERE] == pytest.approx(rack.string[Y.S_BUS_V] / 10.0, rel=1e-3)
    assert rack.string[Y.S_PCS_A] == 0.0


def test_limits_hold(plain: Plain) -> None:
    rack = plain(rack={"n_series": 4})
    for request, limits, expected in (
        (1e6, (8.0, 5.0, 1e6, 1e6), 8.0),
        (-1e6, (8.0, 5.0, 1e6, 1e6), -5.0),
        (1e6, (0.0, 5.0, 1e6, 1e6), 0.0),
        (-1e6, (8.0, 0.0, 1e6, 1e6), 0.0),
    ):
        rack.advance(Y.CLOSED, np.full(1, request), False, np.array(limits), 1.0)
        assert rack.string[Y.S_AMPERE] == pytest.approx(expected, abs=1e-9)
    for by_current, request in ((False, 1e6), (True, 1e3)):
        for sign in (1.0, -1.0):
            rack.advance(Y.CLOSED, np.full(1, sign * request), by_current, np.array([1e3, 1e3, 50.0, 60.0]), 1.0)
            assert rack.string[Y.S_POWER_W] == pytest.approx(50.0 if sign > 0 else -60.0, rel=1e-3)


def test_more_power_than_the_rack_has_gives_what_it_has(plain: Plain) -> None:
    rack = plain(rack={"n_series": 4})
    rack.advance(Y.CLOSED, np.full(1, 1e9), False, NO_LIMIT, 0.01)
    e, r = 4 * 3.3, 4 * 2e-3
    assert rack.string[Y.S_POWER_W] == pytest.approx(e * e / 4 / r, rel=1e-2)  # the slope dU/dz adds to r


@pytest.mark.parametrize("path", [Y.OPEN, Y.PRECHARGE])
def test_the_pcs_draws_nothing_unless_closed(plain: Plain, path: int) -> None:
    rack = plain()
    rack.string[Y.S_BUS_V] = rack.string[Y.S_PACK_V]
    rack.advance(path, np.full(10, 50.0), True, NO_LIMIT, 1.0)
    assert rack.string[Y.S_PCS_A] == 0.0
    assert abs(rack.string[Y.S_AMPERE]) < 1e-9
