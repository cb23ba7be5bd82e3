"""Cells and sensors beside each other: bleeding and who is compared, spread, sum, values that stand still."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core.faults import Fault
from bms.core.signals_layout import CALM, HELD, USABLE
from hal.contract import Quality

F = Fault
f4 = np.float32


# bleeding


def test_a_bleeding_cell_and_its_neighbours_are_kept_from_the_estimator(bench: Any) -> None:
    bench.asked[[0, 10, 23]] = 1
    bench.m.bleeding[:] = bench.asked
    seen = bench.look()
    disturbed = {0, 1, 9, 10, 11, 22, 23}
    for k in range(24):
        assert bool(bench.state.cell_quality[k]) == (k in disturbed), k
        assert bench.state.cell_use[k] == (USABLE | HELD if k in disturbed else USABLE | CALM | HELD)
    assert seen.complete
    assert bench.value(F.CELL_VOLTAGE_LOST) == 0.0


@pytest.mark.parametrize("cell", range(24))
def test_neighbours_of_any_cell_are_disturbed(bench: Any, cell: int) -> None:
    bench.asked[cell] = 1
    bench.look()
    assert set(np.flatnonzero(bench.state.cell_use == USABLE | HELD)) == {cell - 1, cell, cell + 1} & set(range(24))


def test_a_bleeding_cell_is_still_watched_for_its_limits_and_for_spread(bench: Any) -> None:
    bench.head["current_a"] = 0.0
    bench.look()
    bench.asked[10] = 1
    bench.m.cell_v[10] = 3.7
    bench.m.cell_v[9] = 2.9
    seen = bench.look()
    assert (seen.cell_v_high, seen.cell_high_at) == (pytest.approx(3.7), 10)
    assert bench.value(F.CELL_OVERVOLTAGE) == pytest.approx(3.7)
    assert bench.value(F.CELL_UNDERVOLTAGE) == pytest.approx(2.9)
    assert bench.value(F.VOLTAGE_SPREAD) == pytest.approx(0.8)
    apart_v = bench.value(F.OPEN_SENSE_WIRE)
    bench.asked[10] = 0
    bench.look()
    assert bench.value(F.VOLTAGE_SPREAD) == pytest.approx(0.8)
    assert bench.value(F.OPEN_SENSE_WIRE) == pytest.approx(0.4)
    assert apart_v == pytest.approx(0.3, abs=1e-5)  # what bleeding may do is taken off


@pytest.mark.parametrize("bled", [9, 10, 11])
def test_a_wire_that_breaks_beside_a_cell_that_is_bled_is_told(bench: Any, bled: int) -> None:
    bench.asked[bled] = 1
    bench.m.cell_v[[9, 10]] = 4.1, 2.5
    bench.look()
    assert bench.value(F.OPEN_SENSE_WIRE) == pytest.approx(0.7, abs=1e-5)
    assert bench.where(F.OPEN_SENSE_WIRE) == 9


def test_where_every_cell_bleeds_none_is_compared(bench: Any) -> None:
    bench.asked[:] = 1
    bench.head["current_a"] = 0.0
    seen = bench.look()
    assert seen.cell_v_mean == pytest.approx(3.3)
    assert bench.value(F.VOLTAGE_SPREAD) == bench.value(F.OPEN_SENSE_WIRE) == 0.0  # these need no such care
    assert math.isnan(bench.value(F.CELL_VOLTAGE_FROZEN))


def test_a_single_cell_and_sensor_can_be_looked_at(make_signals: Any) -> None:
    bench = make_signals(1, 1)
    bench.asked[0] = 1
    assert bench.look().complete
    bench.judge()
    assert math.isnan(bench.value(F.TEMPERATURE_NEIGHBOUR))
    assert math.isnan(bench.value(F.OPEN_SENSE_WIRE))


# spread, sum, frozen values


def test_the_spread_is_looked_at_near_rest_and_between_the_ends_only(bench: Any) -> None:
    low_v, high_v = bench.cell.ocv(0.2), bench.cell.ocv(0.9)
    for current_a, mean_v, looked_at in (
        (100.0, 3.30, False),
        (5.0, 3.30, True),
        (-5.0, 3.30, True),
        (5.7, 3.30, False),  # 0.02 C is 5.6 A
        (0.0, low_v - 0.01, False),
        (0.0, low_v + 0.01, True),
        (0.0, high_v - 0.01, True),
        (0.0, high_v + 0.01, False),
        (math.nan, 3.30, False),
    ):
        bench.head["current_a"] = current_a
        bench.m.cell_v[:] = mean_v
        bench.m.cell_v[3] += 0.02
        bench.m.cell_v[4] -= 0.04
        bench.m.cell_v[5] += 0.02
        bench.look()
        value = bench.value(F.VOLTAGE_SPREAD)
        assert (value == pytest.approx(0.06, abs=1e-5)) if looked_at else math.isnan(value), (current_a, mean_v)
        assert bench.where(F.VOLTAGE_SPREAD) == 4  # farther from the mean than the highest


def test_spread_is_looked_at_up_to_its_bounds(make_signals: Any) -> None:
    """Sixteen equal cells have exactly their mean; at the current itself, 0.02 C, nothing is at rest any more."""
    bench = make_signals(16)
    low_v, high_v = bench.config.number[y.SPREAD_V_LOW], bench.config.number[y.SPREAD_V_HIGH]
    for v, looked_at in (
        (low_v, True), (high_v, True), (np.nextafter(low_v, f4(0)), False), (np.nextafter(high_v, f4(9)), False),
    ):  # fmt: skip
        bench.head["current_a"] = 0.0
        bench.m.cell_v[:] = v
        bench.look()
        assert math.isnan(bench.value(F.VOLTAGE_SPREAD)) != looked_at, v
    bench.m.cell_v[:] = low_v
    for current_a, looked_at in ((bench.config.number[y.SPREAD_A], False), (5.5, True)):
        bench.head["current_a"] = current_a
        bench.look()
        assert math.isnan(bench.value(F.VOLTAGE_SPREAD)) != looked_at, current_a


def test_where_both_ends_are_as_far_from_the_mean_the_lower_is_named(bench: Any) -> None:
    """Thirty-seconds of a volt and whole degrees: there is no rounding."""
    bench.head["current_a"] = 0.0
    bench.m.cell_v[:] = 3.28125
    bench.m.cell_v[[7, 15]] = 3.3125, 3.25
    bench.m.sensor_degc[[2, 4]] = 30.0, 20.0
    bench.look()
    assert (bench.value(F.VOLTAGE_SPREAD), bench.where(F.VOLTAGE_SPREAD)) == (0.0625, 15)
    assert (bench.value(F.TEMPERATURE_SPREAD), bench.where(F.TEMPERATURE_SPREAD)) == (10.0, 4)


def test_spread_names_the_cell_above_where_that_is_farther_from_the_mean(bench: Any) -> None:
    bench.head["current_a"] = 0.0
    bench.m.cell_v[9] += 0.03
    bench.look()
    assert bench.where(F.VOLTAGE_SPREAD) == 9
    bench.m.sensor_degc[3] = 20.0
    bench.look()
    assert (bench.value(F.TEMPERATURE_SPREAD), bench.where(F.TEMPERATURE_SPREAD)) == (5.0, 3)


def test_the_sum_of_the_cells_is_compared_with_the_string(bench: Any) -> None:
    bench.look()
    assert bench.value(F.SUM_IMPLAUSIBLE) < 1e-6
    bench.head["pack_v"] = 24 * 3.3 * 1.1
    bench.look()
    assert bench.value(F.SUM_IMPLAUSIBLE) == pytest.approx(0.1 / 1.1, rel=1e-4)
    bench.m.cell_v_quality[0] = Quality.MISSING  # a sum of all but one is none
    bench.look()
    assert math.isnan(bench.value(F.SUM_IMPLAUSIBLE))


def test_the_sum_of_empty_cells_is_compared_on_a_floor(bench: Any) -> None:
    """At 0 V, which sodium-ion allows, noise over nothing would be anything: 0.5 V a cell is the least."""
    bench.m.cell_v[:] = 0.0
    bench.head["pack_v"] = 0.12
    bench.look()
    assert bench.value(F.SUM_IMPLAUSIBLE) == pytest.approx(0.01)


def test_a_frozen_cell_is_seen_by_how_far_the_others_have_moved(bench: Any) -> None:
    rng = np.random.default_rng(1)
    v = 3.3
    for _ in range(20):
        v -= 2.5e-3
        bench.m.cell_v[:] = v + rng.normal(0.0, 3e-4, 24)
        bench.m.cell_v[6] = 3.31
        bench.look()
    # the mean has moved 47.5 mV since the first of its samples, of which 1/24 was its own
    assert bench.value(F.CELL_VOLTAGE_FROZEN) == pytest.approx(0.0475 * 23 / 24, abs=1e-3)
    assert bench.where(F.CELL_VOLTAGE_FROZEN) == 6
    bench.m.cell_v[6] = 3.309
    bench.look()
    assert bench.value(F.CELL_VOLTAGE_FROZEN) < 2e-3


def test_a_value_that_comes_back_after_a_loss_is_not_frozen(bench: Any) -> None:
    bench.look()
    bench.m.cell_v_quality[6] = Quality.MISSING
    bench.m.cell_v[:] -= 0.1
    bench.m.cell_v[6] = 3.3
    bench.look()
    bench.m.cell_v_quality[6] = 0
    bench.look()
    assert bench.value(F.CELL_VOLTAGE_FROZEN) == 0.0  # 0.1 V if it counted on from before
    bench.m.cell_v[:] += 0.001
    bench.m.cell_v[6] = 3.3
    bench.look()
    assert bench.value(F.CELL_VOLTAGE_FROZEN) < 0.0015


def test_a_frozen_cell_is_remembered_while_it_bleeds(bench: Any) -> None:
    bench.look()
    bench.asked[6] = 1
    for _ in range(10):
        bench.m.cell_v[:] -= 0.01
        bench.m.cell_v[6] = 3.3
        bench.look()
    bench.asked[6] = 0
    bench.look()
    # half of what the mean has moved by, as it is beyond its window
    assert bench.value(F.CELL_VOLTAGE_FROZEN) == pytest.approx(0.5 * 0.1 * 23 / 24, abs=1e-5)
    assert bench.where(F.CELL_VOLTAGE_FROZEN) == 6


def test_cells_at_rest_do_not_look_frozen_when_the_highest_begin_to_bleed(bench: Any) -> None:
    """Coarse steps, no current: nothing moves but who is compared with whom."""
    bench.m.cell_v[:] = 3.3
    bench.m.cell_v[:6] = 3.5
    bench.look()
    bench.asked[:6] = 1
    for _ in range(5):
        bench.look()
        assert bench.value(F.CELL_VOLTAGE_FROZEN) < 1e-6


def test_a_frozen_sensor_is_seen(bench: Any) -> None:
    for k in range(20):
        bench.m.sensor_degc[:] = 25.0 + 0.5 * k
        bench.m.sensor_degc[4] = 25.0
        bench.look()
    assert bench.value(F.TEMPERATURE_FROZEN) == pytest.approx(9.5 * 5 / 6, abs=1e-3)
    assert bench.where(F.TEMPERATURE_FROZEN) == 4


def test_thermometers_without_noise_are_told(make_signals: Any) -> None:
    """They have stood still beyond chance for 5 s, and do for one more; no heat has moved any."""
    bench = make_signals(24, 8)
    bench.look()
    bench.state.degc_looks[[y.LOOKS, y.LOOK_S, y.SAME_SHARE, y.BACK_SHARE]] = 100, 1.0, 0.3, 1.0
    bench.state.degc_doubt[:] = 40.0
    bench.look()
    assert bench.value(F.TEMPERATURE_FROZEN) == pytest.approx(0.06, abs=1e-4)
    assert bench.where(F.TEMPERATURE_FROZEN) == 0


@pytest.mark.parametrize(("moved", "told", "at"), [(0.25, 0.5, 2), (0.75, 0.75, 5)])
def test_of_what_the_mean_has_moved_and_what_may_be_unseen_the_larger_is_told(
    make_signals: Any, moved: float, told: float, at: int
) -> None:
    """Of a temperature beyond chance for 50 s, 0.5 K; of a voltage for 100 s, 0.5 V."""
    bench = make_signals(24, 8)
    bench.look()
    state = bench.state
    for looks, doubt, still, seconds in (
        (state.cell_looks, state.cell_doubt, state.cell_mean_v, 100.0),
        (state.degc_looks, state.degc_doubt, state.degc_mean, 50.0),
    ):
        looks[[y.SAME_SHARE, y.BACK_SHARE, y.LOOKS, y.LOOK_S]] = 0.3, 1.0, 100, 1.0
        doubt[2] = 35.0 + seconds - 1.0
        still[5] -= moved
    bench.look()
    for fault in (F.CELL_VOLTAGE_FROZEN, F.TEMPERATURE_FROZEN):
        assert (bench.value(fault), bench.where(fault)) == (pytest.approx(told, abs=1e-4), at)
