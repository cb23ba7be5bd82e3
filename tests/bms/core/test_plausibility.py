"""What contradicts what: each check against numbers that follow from its definition, and against healthy noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import estimator_layout as e
from bms.core import plausibility as p
from bms.core import signals_layout as y
from bms.core.faults import Fault
from bms.core.signals_layout import CALM, USABLE
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
ALL = USABLE | CALM


def use_of(n: int, *without: int) -> Any:
    use = np.full(n, ALL, np.uint8)
    use[list(without)] = 0
    return use


# comparisons


def test_extremes_of_what_may_be_used() -> None:
    values = np.array([9.0, 2.0, 3.0, -5.0, 4.0], np.float32)
    low, high, total, count, low_at, high_at = p.extremes(values, use_of(5, 0, 3), CALM)
    assert (low, high, total, count, low_at, high_at) == (2.0, 4.0, 9.0, 3, 1, 4)
    low, high, total, count, low_at, high_at = p.extremes(values, use_of(5, *range(5)), CALM)
    assert all(math.isnan(x) for x in (low, high, total))
    assert (count, low_at, high_at) == (0, -1, -1)


def test_a_sum_keeps_the_digits_that_tell_cells_apart() -> None:
    """Four hundred cells of 3.3 V in float32: a plain sum is off by up to a millivolt for each thousand volts."""
    v = (3.3 + 1e-4 * np.arange(400) / 400).astype(np.float32)
    total = p.extremes(v, use_of(400), CALM)[2]
    assert float(total) == pytest.approx(float(v.astype(np.float64).sum()), abs=1e-4)


def test_equal_values_name_the_first() -> None:
    assert p.extremes(np.ones(4, np.float32), use_of(4), CALM)[4:] == (0, 0)


@pytest.mark.parametrize(
    ("deviation", "value"),
    [
        ((0.5, -0.5), 0.5),  # the border between the two has drifted
        ((0.5, -0.3), 0.3 - 0.2),  # 0.2 V are not common
        ((0.5, 0.5), 0.0),  # both high is no open wire
        ((0.5, 0.0), 0.0),
        ((-0.4, 0.4), 0.4),
    ],
)
def test_an_open_wire_sets_neighbours_apart_in_opposite_directions(
    deviation: tuple[float, float], value: float
) -> None:
    v = np.full(10, 3.3, np.float32)
    v[4:6] += deviation
    seen, at = p.open_wire(v, use_of(10), f4(3.3))
    assert float(seen) == pytest.approx(value, abs=1e-5)
    assert at == (4 if value > 0 else at)


def test_of_equally_open_wires_the_first_is_named() -> None:
    v = np.full(10, 3.25, np.float32)
    v[[2, 7]] += f4(0.5)
    v[[3, 8]] -= f4(0.5)
    assert p.open_wire(v, use_of(10), f4(3.25)) == (0.5, 2)


@pytest.mark.parametrize("pair", range(9))
def test_every_pair_of_neighbours_is_looked_at(pair: int) -> None:
    v = np.full(10, 3.25, np.float32)
    v[pair : pair + 2] += np.float32([0.25, -0.25])
    assert p.open_wire(v, use_of(10), f4(3.25)) == (0.25, pair)


def test_an_open_wire_next_to_a_lost_cell_is_not_judged() -> None:
    v = np.array([3.3, 3.8, 2.8, 3.3], np.float32)
    assert p.open_wire(v, use_of(4, 2), f4(3.3))[0] == 0.0
    seen, at = p.open_wire(v, use_of(4, 1, 3), f4(3.3))
    assert math.isnan(seen)
    assert at == -1
    assert math.isnan(p.open_wire(v, use_of(4), f4(math.nan))[0])
    assert p.open_wire(v, use_of(4, 0, 1), f4(3.3)) == (0.0, -1)  # the last two can be judged


def test_a_sensor_is_compared_with_the_mean_of_its_neighbours() -> None:
    degc = np.array([20.0, 21.0, 30.0, 23.0, 24.0], np.float32)
    assert p.neighbours(degc, use_of(5)) == (8.0, 2)
    assert p.neighbours(degc, use_of(5, 1)) == (7.0, 2)  # one neighbour alone
    assert p.neighbours(degc, use_of(5, 3)) == (9.0, 2)
    assert p.neighbours(degc, use_of(5, 2)) == (1.0, 0)
    seen, at = p.neighbours(degc, use_of(5, 1, 3))
    assert math.isnan(seen)  # nobody has a neighbour left
    assert at == -1


@pytest.mark.parametrize(("sensor", "named"), [(0, 0), (1, 0), (2, 2), (3, 3), (4, 4)])
def test_every_sensor_is_compared_with_its_neighbours(sensor: int, named: int) -> None:
    """An end has one neighbour, from which it is as far as that neighbour from the rest: the first is named."""
    degc = np.full(5, 20.0, np.float32)
    degc[sensor] = 30.0
    assert p.neighbours(degc, use_of(5)) == (10.0, named)


def test_a_sensor_between_two_others_is_in_order() -> None:
    """A slope along the string sets its ends apart, which have one neighbour only."""
    assert p.neighbours(np.float32([20, 20, 20, 30, 40]), use_of(5)) == (10.0, 4)
    assert p.neighbours(np.float32([40, 30, 20, 20, 20]), use_of(5)) == (10.0, 0)


def test_equal_sensors_name_the_first() -> None:
    assert p.neighbours(np.full(4, 25.0, np.float32), use_of(4)) == (0.0, 0)


def test_frozen_is_how_far_the_mean_has_moved() -> None:
    then = np.array([3.0, 3.2, math.nan, 3.1], np.float32)
    moved, at = p.frozen(then, use_of(4, 0), CALM, f4(3.25))
    assert moved == pytest.approx(0.15)
    assert at == 3
    assert then[2] == f4(3.25)  # has just changed
    for use, mean in ((use_of(4), f4(math.nan)), (use_of(4, 0, 1, 2, 3), f4(3.0))):
        moved, at = p.frozen(then, use, CALM, mean)
        assert math.isnan(moved)
        assert at == -1


# rise and thermal model


@pytest.mark.parametrize("dt_s", [0.1, 1.0, 20.0, 60.0])
def test_a_ramp_is_seen_with_its_slope(bench: Any, dt_s: float) -> None:
    """Backward Euler of the two low-passes is exact for a ramp, at any length of step."""
    rate = 6.0  # K/min
    time_s = 0.0
    while time_s < max(200.0, 8.0 * dt_s):
        time_s += dt_s
        bench.m.sensor_degc[:] = 20.0
        bench.m.sensor_degc[3] = 20.0 + rate * time_s / 60.0
        bench.look(dt_s)
    assert bench.value(F.TEMPERATURE_RISE) == pytest.approx(rate, rel=0.02)
    assert bench.where(F.TEMPERATURE_RISE) == 3


def test_noise_and_steps_of_a_sensor_are_no_rise(make_signals: Any) -> None:
    """0.05 K of noise, steps of 0.1 K: 0.06 K sqrt(dt / 4 tau) / tau is 0.03 K/min, five times that for the worst."""
    bench = make_signals(24, 24)
    rng = np.random.default_rng(2)
    worst = 0.0
    for _ in range(300):
        bench.m.sensor_degc[:] = np.round((25.0 + rng.normal(0.0, 0.05, 24)) / 0.1) * 0.1
        bench.look()
        worst = max(worst, bench.value(F.TEMPERATURE_RISE))
    assert 0.02 < worst < 0.3


def test_a_rise_starts_anew_after_a_long_loss_but_not_after_a_short_one(bench: Any) -> None:
    bench.look()
    bench.m.sensor_degc_quality[2] = Quality.MISSING
    bench.look(20.0)
    bench.m.sensor_degc_quality[2], bench.m.sensor_degc[2] = 0, 45.0
    bench.look()
    assert bench.value(F.TEMPERATURE_RISE) == 0.0
    bench.m.sensor_degc_quality[2] = Quality.MISSING
    bench.look(10.0)
    bench.m.sensor_degc_quality[2], bench.m.sensor_degc[2] = 0, 55.0
    bench.look()
    assert bench.value(F.TEMPERATURE_RISE) > 1.0


def test_after_a_loss_of_just_its_time_constant_a_rise_goes_on(bench: Any) -> None:
    """15 s; the low-passes are fed with what has happened in the meantime, and the step counts with its length."""
    bench.look()
    bench.m.sensor_degc_quality[2] = Quality.MISSING
    bench.look(15.0)
    bench.m.sensor_degc_quality[2], bench.m.sensor_degc[2] = 0, 45.0
    bench.look(15.0)
    # half of 20 K arrives in the first, a quarter in the second: 5 K apart, over 15 s
    assert bench.value(F.TEMPERATURE_RISE) == pytest.approx(5.0 * 60.0 / 15.0)


@pytest.mark.parametrize("sensor", range(6))
def test_the_fastest_sensor_is_named(bench: Any, sensor: int) -> None:
    bench.look()
    assert (bench.value(F.TEMPERATURE_RISE), bench.where(F.TEMPERATURE_RISE)) == (0.0, 0)  # all of them stand still
    bench.m.sensor_degc[:] += 1.0
    bench.m.sensor_degc[sensor] += 1.0
    bench.look(15.0)
    assert (bench.value(F.TEMPERATURE_RISE), bench.where(F.TEMPERATURE_RISE)) == (pytest.approx(2.0), sensor)
    bench.m.sensor_degc[:] -= 9.0
    bench.m.sensor_degc[sensor] += 5.0
    bench.look(15.0)  # falling is a rise below 0
    assert bench.value(F.TEMPERATURE_RISE) < 0.0
    assert bench.where(F.TEMPERATURE_RISE) == sensor


def test_resistance_falls_with_temperature(bench: Any) -> None:
    assert p.warmth(bench.config, f4(25.0)) == pytest.approx(1.0)
    assert p.warmth(bench.config, f4(math.nan)) == 1.0
    cold, warm = float(p.warmth(bench.config, f4(-5.0))), float(p.warmth(bench.config, f4(45.0)))
    assert 2.0 < cold < 3.0  # the cell file: 0.60 mohm at -1 degC, 0.28 at 26 degC
    assert 0.4 < warm < 0.8
    assert p.warmth(bench.config, f4(-1e9)) == p.warmth(bench.config, f4(-40.0))
    assert p.warmth(bench.config, f4(1e9)) == p.warmth(bench.config, f4(80.0))
    assert p.warmth(bench.config, f4(-40.0)) > p.warmth(bench.config, f4(-39.5))
    assert p.warmth(bench.config, f4(80.0)) < p.warmth(bench.config, f4(79.5))


def test_a_cell_that_warms_as_it_should_is_no_deviation(make_signals: Any) -> None:
    """The same equation, integrated here in steps of 0.1 s: heat of the current, cooling, nothing else."""
    bench = make_signals(heat_capacity_j_per_k=5000.0, coolant_w_per_k=2.5)
    bench.head["current_a"] = 280.0
    ohm = float(
        np.interp(
            25.0, bench.cell.degc, np.median(bench.cell.r0_ohm + bench.cell.rct_ohm + bench.cell.r_ohm.sum(0), axis=1)
        )
    )
    degc = 25.0
    bench.soc_std[:] = 0.01
    for _ in range(600):
        for _ in range(10):
            power_w = 280.0**2 * ohm * float(p.warmth(bench.config, f4(degc))) - 2.5 * (degc - 20.0)
            degc += 0.1 * power_w / 5000.0
        bench.m.sensor_degc[:] = degc
        bench.look()
        bench.judge()
    assert degc > 27.0
    assert bench.value(F.TEMPERATURE_MODEL) < 0.05


def test_one_step_of_the_model_is_backward_euler(make_signals: Any) -> None:
    """C T' = I^2 r + G (T_coolant - T) + C (T_measured - T) / 300 s, solved for the end of a step of 20 s."""
    bench = make_signals(heat_capacity_j_per_k=5000.0, coolant_w_per_k=2.5, n_parallel=2)
    bench.head["current_a"] = 560.0
    bench.m.sensor_degc_quality[5] = Quality.MISSING
    bench.look(0.01)
    bench.state.degc_model[:] = 30.0
    bench.state.degc_error[:] = -1.0
    bench.judge(20.0)
    ohm = float(bench.config.number[y.CELL_OHM])
    gained = 20.0 * (280.0**2 * ohm + 2.5 * 20.0) / 5000.0
    model = (30.0 + gained + 20.0 / 300.0 * 25.0) / (1.0 + 20.0 * (2.5 / 5000.0 + 1.0 / 300.0))
    assert bench.state.degc_model[0] == pytest.approx(model, rel=1e-6)
    alone = (30.0 + gained) / (1.0 + 20.0 * 2.5 / 5000.0)
    assert bench.state.degc_model[5] == pytest.approx(alone, rel=1e-6)
    error = -1.0 + 0.5 * (25.0 - model + 1.0)  # averaged over 20 s
    assert bench.value(F.TEMPERATURE_MODEL) == pytest.approx(-error, rel=1e-5)
    assert bench.where(F.TEMPERATURE_MODEL) == 0  # the first of those that are equally far from it
    assert bench.state.degc_error[5] == -1.0


def test_without_coolant_the_model_keeps_its_heat(bench: Any) -> None:
    """And a sensor that was never usable has no model that could be wrong."""
    bench.head["current_a"] = 280.0
    bench.head["coolant_in_degc_quality"] = Quality.MISSING
    bench.m.sensor_degc_quality[5] = Quality.MISSING
    bench.look(1.0)
    bench.state.degc_model[:4] = 25.0
    bench.judge(20.0)
    c = bench.config.number
    gained = 20.0 * 280.0**2 * float(c[y.CELL_OHM] / c[y.HEAT_CAPACITY_J_PER_K])
    assert bench.state.degc_model[0] == pytest.approx(25.0 + gained / (1.0 + 20.0 / 300.0), rel=1e-6)
    assert math.isnan(bench.state.degc_model[5])


@pytest.mark.parametrize("sensor", range(6))
def test_the_sensor_farthest_from_its_model_is_named(bench: Any, sensor: int) -> None:
    bench.look()
    bench.judge()
    bench.state.degc_error[:] = 1.0
    bench.state.degc_error[sensor] = -3.0
    bench.judge(0.0)
    assert (bench.value(F.TEMPERATURE_MODEL), bench.where(F.TEMPERATURE_MODEL)) == (3.0, sensor)


def test_a_sensor_that_leaves_its_model_is_seen_for_minutes(bench: Any) -> None:
    bench.head["current_a"] = 0.0
    bench.head["coolant_in_degc"] = 25.0
    for _ in range(5):
        bench.look()
        bench.judge()
    bench.m.sensor_degc[4] = 45.0
    for _ in range(60):
        bench.look()
        bench.judge()
    # drawn within 300 s, seen with a lag of 20 s
    assert bench.value(F.TEMPERATURE_MODEL) == pytest.approx(20.0 * (math.exp(-60 / 300)), rel=0.05)
    assert bench.where(F.TEMPERATURE_MODEL) == 4


def test_without_a_usable_sensor_the_model_goes_on_alone(bench: Any) -> None:
    bench.look()
    bench.judge()
    bench.m.sensor_degc_quality[:] = Quality.MISSING
    bench.head["coolant_in_degc_quality"] = Quality.MISSING
    before = bench.state.degc_model.copy()
    bench.look(60.0)
    bench.judge(60.0)
    assert math.isnan(bench.value(F.TEMPERATURE_MODEL))
    assert bench.where(F.TEMPERATURE_MODEL) == NO_INDEX
    assert (bench.state.degc_model > before).all()  # current still flows, and no coolant is known
    assert np.isfinite(bench.state.degc_model).all()


# the estimator's innovation


def settle(bench: Any, innovation_v: float, seconds: float, dt_s: float = 0.5) -> None:
    bench.innovation[:] = innovation_v
    for _ in range(round(seconds / dt_s)):
        bench.look(dt_s)
        bench.judge(dt_s)


def flat_v(bench: Any) -> float:
    """What a hundredth of SoC explains in the middle of the plateau."""
    nodes = bench.estimator.nodes
    row = int(p._row_of(bench.estimator, f4(25.0)))
    return float(p.explained(nodes, row, f4(0.5), f4(0.01)))


def test_a_common_response_is_a_current(bench: Any) -> None:
    """Low-passes of 5 s and 30 s in a row: their difference, after a step, is 0.58 of it at most, at about 11 s."""
    ohm = float(
        np.interp(
            25.0, bench.cell.degc, np.median(bench.cell.r0_ohm + bench.cell.rct_ohm + bench.cell.r_ohm[0], axis=1)
        )
    )
    settle(bench, 0.0, 5.0)
    largest = 0.0
    for _ in range(80):
        settle(bench, -0.05, 0.5)
        largest = max(largest, bench.value(F.CURRENT_IMPLAUSIBLE))
    share = max(_band_pass(t / 10) for t in range(1, 400))
    assert largest == pytest.approx((0.05 * share - flat_v(bench)) / ohm, rel=0.05)
    settle(bench, -0.05, 200.0)  # an error that stays is the model's
    assert bench.value(F.CURRENT_IMPLAUSIBLE) == 0.0


def _band_pass(time_s: float, fast_s: float = 5.0, slow_s: float = 30.0) -> float:
    """Step response of f - s with f' = (1 - f)/fast, s' = (f - s)/slow."""
    f = 1.0 - math.exp(-time_s / fast_s)
    s = 1.0 - (slow_s * math.exp(-time_s / slow_s) - fast_s * math.exp(-time_s / fast_s)) / (slow_s - fast_s)
    return f - s


def test_parallel_cells_share_the_current_that_is_missing(make_signals: Any) -> None:
    one, four = make_signals(), make_signals(n_parallel=4)
    for bench in (one, four):
        settle(bench, 0.05, 10.0)
    assert four.value(F.CURRENT_IMPLAUSIBLE) == pytest.approx(4 * one.value(F.CURRENT_IMPLAUSIBLE), rel=1e-4)


def test_the_same_response_asks_for_less_current_in_the_cold(make_signals: Any) -> None:
    warm, cold = make_signals(), make_signals()
    cold.m.sensor_degc[:] = 0.0
    for bench in (warm, cold):
        settle(bench, 0.05, 10.0)
    assert cold.value(F.CURRENT_IMPLAUSIBLE) < 0.6 * warm.value(F.CURRENT_IMPLAUSIBLE)


def test_without_a_current_nothing_is_said_of_it(bench: Any) -> None:
    bench.head["current_a_quality"] = Quality.MISSING
    settle(bench, 0.05, 2.0)
    assert math.isnan(bench.value(F.CURRENT_IMPLAUSIBLE))
    assert bench.value(F.MODEL_RESIDUAL) == 0.0


def test_one_cells_own_response_is_its_residual(bench: Any) -> None:
    settle(bench, 0.0, 1.0)
    bench.innovation[13] = -0.1
    for _ in range(60):
        bench.look(0.5)
        bench.judge(0.5)
    own_v = 0.1 * 23 / 24 * (1 - math.exp(-30 / 30))
    assert bench.value(F.MODEL_RESIDUAL) == pytest.approx(own_v - flat_v(bench), rel=0.02)
    assert bench.where(F.MODEL_RESIDUAL) == 13


@pytest.mark.parametrize(("own_v", "told"), [(0.004, False), (0.005, False), (0.006, True), (-0.006, True)])
def test_what_is_less_than_usual_is_no_residual(bench: Any, own_v: float, told: bool) -> None:
    """5 mV are the errors of sensors and model."""
    bench.look()
    bench.soc_std[:] = 0.0
    bench.state.residual_v[[0, 9]] = own_v, own_v / 2
    bench.judge(0.0)
    assert bench.value(F.MODEL_RESIDUAL) == (pytest.approx(abs(own_v)) if told else 0.0)
    assert bench.where(F.MODEL_RESIDUAL) == (0 if told else NO_INDEX)


def test_of_equal_residuals_the_first_is_named(bench: Any) -> None:
    bench.look()
    bench.soc_std[:] = 0.0
    bench.state.residual_v[[4, 9, 11]] = -0.0625, 0.0625, 0.03125
    bench.judge(0.0)
    assert (bench.value(F.MODEL_RESIDUAL), bench.where(F.MODEL_RESIDUAL)) == (0.0625, 4)


def test_the_residual_that_is_explained_least_is_named(bench: Any) -> None:
    """The larger one lies where the curve is steep and its SoC is not known well."""
    bench.look()
    bench.soc_std[:] = 0.0
    bench.soc[4], bench.soc_std[4] = 0.01, 0.02
    bench.state.residual_v[[4, 9]] = 0.1, 0.05
    bench.judge(0.0)
    assert (bench.value(F.MODEL_RESIDUAL), bench.where(F.MODEL_RESIDUAL)) == (pytest.approx(0.05), 9)


@pytest.mark.parametrize(
    ("name", "number", "compared"),
    [
        ("innovation", 99.0, True),
        ("innovation", -99.0, True),
        ("innovation", 100.0, False),
        ("innovation", -120.0, False),
        ("soc", 9.5, True),
        ("soc", 10.0, False),
        ("soc", -12.0, False),
        ("soc_std", 10.0, False),
        ("soc_std", 12.0, False),
    ],
)
def test_absurd_numbers_of_the_estimator_are_left_out(bench: Any, name: str, number: float, compared: bool) -> None:
    """100 V of innovation, an SoC or a deviation of 10: what is finite, but cannot be meant."""
    bench.look()
    bench.state.residual_v[7] = 9.0  # more than any curve explains
    getattr(bench, name)[7] = number
    bench.judge(0.0)
    n = p._common(bench.innovation, bench.soc, bench.soc_std, bench.state.cell_use)[3]
    assert n == (24 if compared else 23)
    if name == "innovation":
        before = bench.state.residual_v[7]
        bench.judge(30.0)
        assert (bench.state.residual_v[7] != before) == compared
    else:
        assert (bench.value(F.MODEL_RESIDUAL) > 0.0) == compared


def test_where_the_curve_is_steep_an_uncertain_cell_may_deviate(bench: Any) -> None:
    bench.innovation[13] = -0.1
    bench.soc[13], bench.soc_std[13] = 0.01, 0.02
    for _ in range(200):
        bench.look()
        bench.judge()
    assert bench.value(F.MODEL_RESIDUAL) < 0.01
    bench.soc_std[13] = 0.0
    bench.look()
    bench.judge()
    assert bench.value(F.MODEL_RESIDUAL) > 0.09


def test_a_bleeding_cell_keeps_its_residual(bench: Any) -> None:
    bench.look()
    bench.asked[13] = 1
    bench.innovation[13] = 5.0
    bench.innovation[[0, 1]] = math.nan, math.inf  # skipped by the estimator, and broken
    bench.look()
    bench.judge()
    assert not bench.state.residual_v.any()
    assert bench.value(F.MODEL_RESIDUAL) == 0.0


def test_the_residual_of_a_bleeding_cell_is_kept_but_not_told(bench: Any) -> None:
    bench.asked[13] = 1
    bench.look()
    bench.state.residual_v[13] = 0.5
    bench.judge(0.0)
    assert (bench.value(F.MODEL_RESIDUAL), bench.where(F.MODEL_RESIDUAL)) == (0.0, NO_INDEX)
    bench.asked[13] = 0
    bench.look()
    bench.judge(0.0)
    assert bench.where(F.MODEL_RESIDUAL) == 13


def test_one_cell_is_enough_to_compare(bench: Any) -> None:
    """With itself, in which case it is in order; and it speaks for all of them about the current."""
    bench.innovation[1:] = math.nan
    bench.innovation[0] = 0.125
    bench.look()
    bench.judge(5.0)
    assert bench.value(F.MODEL_RESIDUAL) == 0.0
    assert bench.value(F.CURRENT_IMPLAUSIBLE) > 0.0


def test_without_a_cell_to_compare_nothing_is_known(bench: Any) -> None:
    bench.innovation[:] = math.nan
    bench.look()
    bench.judge()
    assert math.isnan(bench.value(F.CURRENT_IMPLAUSIBLE))
    assert math.isnan(bench.value(F.MODEL_RESIDUAL))
    assert bench.where(F.MODEL_RESIDUAL) == NO_INDEX


@pytest.mark.parametrize("dt_s", [60.0, math.inf])
def test_a_step_longer_than_every_time_constant_is_stable(bench: Any, dt_s: float) -> None:
    for sign in (1, -1) * 10:
        bench.innovation[:] = 0.05 * sign
        bench.innovation[3] = 0.5 * sign
        bench.look(dt_s)
        bench.judge(dt_s)
        assert abs(bench.state.number).max() < 1e3
        assert abs(bench.state.residual_v).max() <= 0.45 * 23 / 24 + 1e-5


# estimates


def test_extremes_of_the_estimates(bench: Any) -> None:
    bench.soc[[3, 8]] = 0.1, 0.9
    bench.soc_std[5] = 0.2
    bench.look()
    bench.judge()
    for fault, value, where in (
        (F.SOC_LOW, 0.1, 3),
        (F.SOC_HIGH, 0.9, 8),
        (F.SOC_UNCERTAIN, 0.2, 5),
        (F.ESTIMATE_INVALID, 0.0, NO_INDEX),
    ):
        assert bench.value(fault) == pytest.approx(value)
        assert bench.where(fault) == where


def test_equal_estimates_name_the_first(bench: Any) -> None:
    bench.look()
    bench.judge()
    told = [(bench.value(f), bench.where(f)) for f in (F.SOC_LOW, F.SOC_HIGH, F.SOC_UNCERTAIN)]
    assert told == [(0.5, 0), (0.5, 0), (pytest.approx(0.01), 0)]


def test_the_first_broken_estimate_is_named(bench: Any) -> None:
    bench.soc[[0, 9]] = math.nan
    bench.look()
    bench.judge()
    assert (bench.value(F.ESTIMATE_INVALID), bench.where(F.ESTIMATE_INVALID)) == (2.0, 0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_estimate_that_is_no_number_is_counted_and_left_out(bench: Any, broken: float) -> None:
    bench.soc[[7, 9]] = broken
    bench.soc_std[4] = broken
    bench.look()
    bench.judge()
    assert (bench.value(F.ESTIMATE_INVALID), bench.where(F.ESTIMATE_INVALID)) == (3.0, 4)
    assert bench.value(F.SOC_LOW) == bench.value(F.SOC_HIGH) == 0.5
    bench.soc[:] = broken
    bench.look()
    bench.judge()
    assert bench.value(F.ESTIMATE_INVALID) == 24.0
    for fault in (F.SOC_LOW, F.SOC_HIGH, F.SOC_UNCERTAIN):
        assert math.isnan(bench.value(fault))
        assert bench.where(fault) == NO_INDEX


def test_what_a_curve_explains_is_its_steeper_side(bench: Any) -> None:
    nodes = bench.estimator.nodes
    row = int(p._row_of(bench.estimator, f4(25.0)))
    curve = nodes[row : row + e.N_SOC * e.NODE].reshape(e.N_SOC, e.NODE)[:, e.OCV]
    assert p.explained(nodes, row, f4(0.05), f4(0.05)) == pytest.approx(curve[10] - curve[0], abs=1e-5)
    assert p.explained(nodes, row, f4(0.5), f4(0.0)) == 0.0
    assert p.explained(nodes, row, f4(2.0), f4(0.005)) == 0.0  # beyond the end of the curve it goes on flat
    assert p.explained(nodes, row, f4(0.5), f4(9.0)) == pytest.approx(
        max(curve[-1] - curve[100], curve[100] - curve[0])
    )


@pytest.mark.parametrize("degc", [-30.0, 25.0, 60.0])
def test_the_curve_is_linear_between_its_nodes(bench: Any, degc: float) -> None:
    """And flat beyond its ends; also in the last row, behind which there is nothing."""
    nodes, row = bench.estimator.nodes, int(p._row_of(bench.estimator, f4(degc)))
    curve = nodes[row : row + e.N_SOC * e.NODE].reshape(e.N_SOC, e.NODE)[:, e.OCV]
    soc = np.concatenate([np.linspace(-0.1, 1.1, 97), [0.0, 1e-3, 0.9985, 1.0]])
    volt = [float(p._ocv(nodes, row, f4(z))) for z in soc]
    np.testing.assert_allclose(volt, np.interp(soc, np.linspace(0.0, 1.0, e.N_SOC), curve), atol=5e-6)
    assert p._ocv(nodes, row, f4(math.nan)) == curve[0]


def test_the_upper_side_counts_where_it_is_steeper(bench: Any) -> None:
    nodes, row = bench.estimator.nodes, int(p._row_of(bench.estimator, f4(25.0)))
    up_v = float(p._ocv(nodes, row, f4(1.0)) - p._ocv(nodes, row, f4(0.98)))
    assert up_v > float(p._ocv(nodes, row, f4(0.98)) - p._ocv(nodes, row, f4(0.96)))
    assert p.explained(nodes, row, f4(0.98), f4(0.02)) == pytest.approx(up_v, abs=1e-6)


def test_the_curve_is_that_of_the_temperature(bench: Any) -> None:
    degc = (-99.0, -30.0, 23.0, 25.0, 26.0, 27.0, 28.0, 60.0, 1e9, math.nan)
    rows = [int(p._row_of(bench.estimator, f4(t))) for t in degc]
    assert [r // (e.N_SOC * e.NODE) for r in rows] == [0, 0, 11, 11, 11, 11, 12, 18, 18, 11]


@pytest.mark.parametrize(("dt_s", "used"), [(0.5, 0.5), (0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 1e6)])
def test_the_length_of_a_step(dt_s: float, used: float) -> None:
    assert p.elapsed(f4(dt_s)) == used
