"""Readings that stand still, current and temperatures, and what a measured change of the current explains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import plausibility as p
from bms.core import signals_layout as y
from bms.core.faults import Fault
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32


def run(bench: Any, seconds: float, innovation_v: float = 0.0, current_a: float = 0.0, noise_a: float = 0.0) -> float:
    """Half a second a step; returns the last value of the current's check."""
    bench.innovation[:] = innovation_v
    for k in range(round(2 * seconds)):
        bench.head["current_a"] = current_a + noise_a * (k % 2)
        bench.look(0.5)
        bench.judge(0.5)
    return bench.value(F.CURRENT_IMPLAUSIBLE)


# current


def test_of_a_reading_that_stands_still_the_largest_value_is_held_and_weighs_three_times(make_signals: Any) -> None:
    still, alive = make_signals(), make_signals()
    run(still, 1.0)
    run(alive, 1.0, noise_a=0.02)
    peak = 0.0
    for _ in range(20):  # until the filters are past their peak, at 11 s
        run(still, 1.0, -0.05)
        peak = max(peak, run(alive, 1.0, -0.05, noise_a=0.02))
    assert still.value(F.CURRENT_IMPLAUSIBLE) == pytest.approx(3 * peak, rel=0.01)
    assert run(alive, 200.0, -0.05, noise_a=0.02) < 0.05 * peak
    assert run(still, 200.0, -0.05) == pytest.approx(3 * peak, rel=0.01)
    assert run(still, 0.5, -0.05, current_a=0.02) < 0.05 * peak  # one change is enough


def test_a_reading_is_suspect_after_ten_seconds(bench: Any) -> None:
    run(bench, 0.5)
    before = run(bench, 9.0, -0.05)
    assert bench.state.number[y.CURRENT_STILL_S] == 9.5
    assert run(bench, 0.5, -0.05) > 2.9 * before


@pytest.mark.parametrize(("dt_s", "samples"), [(2.0, 5), (60.0, 5), (1.0, 10)])
def test_equal_samples_far_apart_are_chance(bench: Any, dt_s: float, samples: int) -> None:
    number = bench.state.number
    for k in range(samples + 1):
        assert (number[y.CURRENT_STILL_S] >= 10.0) == (k > samples)
        bench.look(dt_s)
        bench.judge(dt_s)
    assert number[y.CURRENT_STILL_S] == pytest.approx(10.0)


def test_a_sample_that_is_not_new_does_not_stand_still(bench: Any) -> None:
    bench.look()
    bench.judge()
    for _ in range(30):
        bench.look(0.05, new=False)
        bench.judge(0.05)
    assert bench.state.number[y.CURRENT_STILL_S] == 0.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("factor", [2.0, 2.5])
def test_a_larger_resistance_is_no_current(bench: Any, sign: float, factor: float) -> None:
    """The cells answer a step of 200 A by more than was expected: what they miss is the voltage over r - 1."""
    run(bench, 60.0)
    ohm = bench.config.number[y.FAST_OHM]
    for _ in range(60):
        value = run(bench, 1.0, -sign * 200.0 * ohm * (factor - 1.0), sign * 200.0, 0.02)
        assert value < 0.01 * 200.0


def test_beyond_two_and_a_half_times_the_resistance_it_is_a_current(bench: Any) -> None:
    """Three times: of a step of 200 A the filters leave 0.70, and half of that is explained no more."""
    run(bench, 60.0)
    ohm = bench.config.number[y.FAST_OHM]
    value = max(run(bench, 1.0, -200.0 * ohm * 2.0, 200.0, 0.02) for _ in range(20))
    assert value == pytest.approx(0.5 * 0.70 * 200.0, rel=0.05)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_response_against_the_measured_change_is_a_wrong_current(bench: Any, sign: float) -> None:
    """The sensor tells of 200 A that do not flow: the cells stay where they are, the model goes."""
    run(bench, 60.0)
    ohm = bench.config.number[y.FAST_OHM]
    value = max(run(bench, 1.0, sign * 200.0 * ohm, sign * 200.0, 0.02) for _ in range(20))
    # the filters leave 0.70 of it, and 0.15 may be resistance
    assert value == pytest.approx(0.85 * 0.70 * 200.0, rel=0.05)


def test_known_resistances_ask_for_less_current(make_signals: Any) -> None:
    one, aged = make_signals(), make_signals()
    aged.resistance[:] = 2.0
    assert run(aged, 5.0, 0.05) == pytest.approx(0.5 * run(one, 5.0, 0.05), rel=1e-4)


@pytest.mark.parametrize(
    ("resistance", "factor"),
    [([1.0, 2.0], 1.5), ([math.nan, 1.0], 1.0), ([0.0, 0.0], 1.0), ([-3.0, 1.0], 1.0), ([0.1, 0.1], 0.5),
     ([9.0, 9.0], 5.0), ([math.inf, 1.0], 5.0)],
)  # fmt: skip
def test_the_mean_resistance_is_within_reason(resistance: list[float], factor: float) -> None:
    assert p.mean_factor(np.float32(resistance)) == f4(factor)


# temperatures


def heat(bench: Any, seconds: float, current_a: float, move: bool = False) -> float:
    """Ten seconds a step; returns the rise that is expected since a sensor moved."""
    for k in range(round(seconds / 10)):
        if move:
            bench.m.sensor_degc[k % 6] += np.float32(0.1 * (-1) ** k)
        bench.head["current_a"] = current_a + 0.01 * (k % 2)
        bench.look(10.0)
        bench.judge(10.0)
    return float(bench.state.number[y.STILL_RISE_K])


def watt(bench: Any, current_a: float) -> float:
    return float(current_a**2 * bench.config.number[y.CELL_OHM])


def test_without_coolant_the_rise_is_adiabatic(bench: Any) -> None:
    bench.head["coolant_in_degc_quality"] = Quality.MISSING
    bench.look(0.0)
    bench.judge(0.0)
    rise_k = heat(bench, 100.0, 280.0)
    assert rise_k == pytest.approx(100.0 * watt(bench, 280.0) / (19.0 * 280.0), rel=1e-3)
    bench.resistance[:] = 2.0
    assert heat(bench, 100.0, 280.0) == pytest.approx(3.0 * rise_k, rel=1e-3)


def test_cold_cells_in_parallel_are_heated_by_their_own_share(make_signals: Any) -> None:
    """Half of the current each, at a resistance that is larger at 5 degC."""
    bench = make_signals(n_parallel=2)
    bench.head["coolant_in_degc_quality"] = Quality.MISSING
    bench.m.sensor_degc[:] = 5.0
    bench.look(0.0)
    bench.judge(0.0)
    warmth = float(p.warmth(bench.config, f4(5.0)))
    assert warmth > 1.5
    expected_k = 100.0 * watt(bench, 280.0) * warmth / (19.0 * 280.0)
    assert heat(bench, 100.0, 560.0) == pytest.approx(expected_k, rel=1e-3)


def test_a_colder_coolant_takes_its_share(bench: Any) -> None:
    """At the end, what is made is what flows to the coolant: T + x = T_coolant + P / G."""
    bench.head["coolant_in_degc"] = 20.0
    end_k = watt(bench, 280.0) / (0.009 * 280.0) - 5.0
    assert end_k > 3.0
    assert heat(bench, 30000.0, 280.0) == pytest.approx(end_k, rel=0.01)
    # a current that the coolant bears leaves nothing
    assert heat(bench, 30000.0, 10.0) == 0.0


def test_a_warmer_coolant_gives_nothing(bench: Any) -> None:
    bench.head["coolant_in_degc"] = 45.0
    assert heat(bench, 300.0, 0.0) < 1e-6
    assert heat(bench, 300.0, 280.0) == pytest.approx(300.0 * watt(bench, 280.0) / (19.0 * 280.0), rel=1e-3)


def test_sensors_that_all_stand_still_are_wrong_beyond_three_kelvin(bench: Any) -> None:
    bench.head["coolant_in_degc"] = 45.0
    bench.look(0.0)
    bench.judge(0.0)
    rate = watt(bench, 280.0) / (19.0 * 280.0)
    heat(bench, 10.0 * math.floor(0.3 / rate), 280.0)
    assert bench.value(F.TEMPERATURE_FROZEN) == 0.0
    rise_k = heat(bench, 20.0, 280.0)
    assert bench.value(F.TEMPERATURE_FROZEN) == f4(rise_k) > 3.0
    assert bench.where(F.TEMPERATURE_FROZEN) == NO_INDEX
    bench.m.sensor_degc[4] += np.float32(0.1)
    assert heat(bench, 10.0, 280.0) == 0.0
    assert bench.value(F.TEMPERATURE_FROZEN) < 0.1


def test_one_sensor_that_moves_is_enough(bench: Any) -> None:
    bench.head["coolant_in_degc"] = 45.0
    assert heat(bench, 3000.0, 280.0, move=True) == 0.0


def test_without_any_sensor_nothing_is_counted(bench: Any) -> None:
    bench.look(0.0)
    bench.judge(0.0)
    before = heat(bench, 100.0, 280.0)
    bench.m.sensor_degc_quality[:] = Quality.MISSING
    assert heat(bench, 1000.0, 280.0) == before > 0.0  # lost sensors have a fault of their own
