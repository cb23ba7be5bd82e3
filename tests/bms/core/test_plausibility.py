"""What contradicts what: each check against numbers that follow from its definition, and against healthy noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

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


def test_a_sensor_is_compared_with_the_mean_of_its_neighbours() -> None:
    degc = np.array([20.0, 21.0, 30.0, 23.0, 24.0], np.float32)
    assert p.neighbours(degc, use_of(5)) == (8.0, 2)
    assert p.neighbours(degc, use_of(5, 1)) == (6.0, 2)  # the better one of the two nearest
    assert p.neighbours(degc, use_of(5, 3)) == (9.0, 2)
    assert p.neighbours(degc, use_of(5, 2)) == (1.0, 0)
    seen, at = p.neighbours(degc, use_of(5, 1, 3))
    assert math.isnan(seen)  # nobody has a neighbour left
    assert at == -1


@pytest.mark.parametrize(("sensor", "named"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)])
def test_every_sensor_is_compared_with_its_neighbours(sensor: int, named: int) -> None:
    """An end has neighbours on one side only: it is not blamed for one of them."""
    degc = np.full(5, 20.0, np.float32)
    degc[sensor] = 30.0
    assert p.neighbours(degc, use_of(5)) == (10.0, named)


def test_a_sensor_between_two_others_is_in_order() -> None:
    """A slope along the string sets its ends apart, which have one neighbour only."""
    assert p.neighbours(np.float32([20, 20, 20, 30, 40]), use_of(5)) == (10.0, 4)
    assert p.neighbours(np.float32([40, 30, 20, 20, 20]), use_of(5)) == (10.0, 0)


def test_a_sensor_with_neighbours_on_one_side_takes_the_better_of_two() -> None:
    """If both can be used: the fourth is lost here, then the third, and its value does not count."""
    assert p.neighbours(np.float32([20, 30, 19, 0]), use_of(4, 3)) == (10.5, 1)
    assert p.neighbours(np.float32([20, 30, 20, 0]), use_of(4, 2, 3)) == (10.0, 0)


def test_equal_sensors_name_the_first() -> None:
    assert p.neighbours(np.full(4, 25.0, np.float32), use_of(4)) == (0.0, 0)


def test_what_cannot_be_used_has_not_just_changed() -> None:
    then = np.array([math.nan, 3.25], np.float32)
    assert p.frozen(then, use_of(2, 0), CALM, f4(3.5), f4(0)) == (0.25, 1)
    assert math.isnan(then[0])


def test_frozen_is_how_far_the_mean_has_moved() -> None:
    then = np.array([3.0, 3.2, math.nan, 3.1], np.float32)
    moved, at = p.frozen(then, use_of(4, 0), CALM, f4(3.25), f4(0))
    assert moved == pytest.approx(0.15)
    assert at == 3
    assert then[2] == f4(3.25)  # has just changed
    for use, mean in ((use_of(4), f4(math.nan)), (use_of(4, 0, 1, 2, 3), f4(3.0))):
        moved, at = p.frozen(then, use, CALM, mean, f4(0))
        assert math.isnan(moved)
        assert at == -1


def test_frozen_is_what_lies_beyond_the_step_of_the_readings() -> None:
    then = np.array([3.0, 3.125], np.float32)
    assert p.frozen(then, use_of(2), CALM, f4(3.25), f4(0.0625)) == (0.1875, 0)
    assert p.frozen(then, use_of(2), CALM, f4(3.25), f4(0.25)) == (0.0, -1)


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


@pytest.mark.parametrize("to_degc", [80.0, -30.0])
@pytest.mark.parametrize("dt_s", [0.1, 1.0])
def test_a_jump_of_a_sensor_is_no_rise(bench: Any, to_degc: float, dt_s: float) -> None:
    """A loose contact: what it shows is believed, but no heat can have done it. The cell rises by 3 K/min all along."""

    def warm(seconds: float, jump_k: float) -> list[float]:
        seen = []
        for _ in range(round(seconds / dt_s)):
            bench.m.sensor_degc[2] += 3.0 / 60.0 * dt_s
            shown = bench.m.sensor_degc[2]
            bench.m.sensor_degc[2] += jump_k
            bench.look(dt_s)
            bench.m.sensor_degc[2] = shown
            seen.append(bench.value(F.TEMPERATURE_RISE))
        return seen

    warm(120.0, 0.0)
    shaken = warm(3.0, to_degc - 25.0) + warm(30.0, 0.0) + warm(60.0, to_degc - 25.0)
    assert shaken == pytest.approx([3.0] * len(shaken), abs=0.2)  # of the second of a jump nothing is known
    assert bench.value(F.DISCHARGE_HOT) > 80.0 or to_degc < 0.0


@pytest.mark.parametrize(("lost_s", "rise_k", "counts"), [
    (0.0, 9.5, True), (0.0, 10.5, False), (1.0, 19.5, True), (1.0, 20.5, False), (10.0, 100.0, True),
])  # fmt: skip
def test_a_sensor_that_was_lost_may_have_risen_meanwhile(
    bench: Any, lost_s: float, rise_k: float, counts: bool
) -> None:
    """By 10 K for each second that nothing was seen of it, and for that of the sample."""
    bench.m.sensor_degc[:] = 15.0
    bench.look()
    if lost_s > 0.0:
        bench.m.sensor_degc_quality[2] = Quality.MISSING
        bench.look(lost_s)
    bench.m.sensor_degc_quality[2] = 0
    bench.m.sensor_degc[2] += rise_k
    bench.look()
    assert (bench.value(F.TEMPERATURE_RISE) > 2.0) is counts


@pytest.mark.parametrize("dt_s", [0.01, 0.1, 1.0])
def test_stairs_of_a_coarse_sensor_are_a_rise(bench: Any, dt_s: float) -> None:
    """A step of 5 K each 10 s is no jump, however short the sample is."""
    for k in range(round(100.0 / dt_s)):
        bench.m.sensor_degc[3] = 20.0 + 5.0 * np.floor(k * dt_s / 10.0)
        bench.look(dt_s)
    assert bench.value(F.TEMPERATURE_RISE) == pytest.approx(30.0, rel=0.3)


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
    bench.resistance[:] = 1.5
    bench.judge(20.0)
    ohm = 1.5 * float(bench.config.number[y.CELL_OHM])
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


@pytest.mark.parametrize(("dt_s", "used"), [(0.5, 0.5), (0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 1e6)])
def test_the_length_of_a_step(dt_s: float, used: float) -> None:
    assert p.elapsed(f4(dt_s)) == used


@pytest.mark.parametrize(
    ("n_parallel", "flows", "times"),
    [(1, 0.0, 1.0), (3, 0.0, 3.0), (3, 0.5, 2.0), (3, 1.0, 1.0), (4, 0.0, 4.0), (9, 0.0, 4.0)],
)
def test_cells_in_parallel_share_the_current_of_a_short(
    make_signals: Any, n_parallel: int, flows: float, times: float
) -> None:
    """At rest the sag of one is as many times as large, up to four; where charge flows it is no larger."""
    config = make_signals(n_parallel=n_parallel).config
    assert float(p.of_one_cell(config, f4(0.01), f4(25), f4(flows))) == pytest.approx(0.01 * times)
    assert float(p.of_one_cell(config, f4(0.01), f4(90), f4(1))) == pytest.approx(0.02)  # in the heat at most twice
