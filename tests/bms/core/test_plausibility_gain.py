"""A current sensor of the wrong gain, or with an offset: what goes missing as the current changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import missing_current as m
from bms.core import plausibility_model as p
from bms.core import signals_layout as y
from bms.core.faults import Fault
from bms.core.health_setup import HealthSettings
from hal.contract import Quality

F = Fault
f4 = np.float32
GAIN_TAU_S = 600.0
LEAST = 0.15  # the resistance is never known better, nor is it ever smaller by more


def ohm_of(bench: Any) -> float:
    """What a cell answers within seconds, at 25 degC."""
    return float(bench.config.number[y.FAST_OHM])


def change(bench: Any, seconds: float, gain: float = 1.0, resistance: float = 1.0, step_a: float = 200.0) -> float:
    """A current that steps every 20 s, measured times `gain` by cells of `resistance` times the believed."""
    bench.soc_std[:] = 0.0
    for k in range(round(seconds)):
        true_a = 100.0 + step_a * (k // 20 % 2)
        bench.head["current_a"] = gain * true_a
        # the filter expects what the measured current does with the resistance that it believes in
        bench.innovation[:] = -ohm_of(bench) * (resistance * true_a - gain * true_a)
        bench.look()
        bench.judge()
    return bench.value(F.CURRENT_GAIN)


def certain(bench: Any) -> Any:
    """With resistances that are known to 4 %."""
    bench.resistance_std[:] = 0.04 * bench.resistance
    return bench


def fading(seconds: float) -> float:
    """What the memory holds of something that has been there for so long."""
    return 1.0 - math.exp(-seconds / GAIN_TAU_S)


@pytest.mark.parametrize("gain", [0.3, 0.5, -1.0, -0.5, 2.0])
def test_a_wrong_gain_is_what_goes_missing_for_each_ampere_that_changes(bench: Any, gain: float) -> None:
    """All that changes goes missing in proportion: there is no deviation, and what is doubted is taken off."""
    wrong = change(certain(bench), 1200.0, gain)
    doubt = max(1.5 / 3.0, LEAST) if gain > 1e-9 and gain < 1.0 else LEAST
    assert wrong == pytest.approx(abs(1.0 / gain - 1.0) - doubt, abs=0.02)


def test_a_right_gain_is_right(bench: Any) -> None:
    assert change(certain(bench), 1200.0) == 0.0


@pytest.mark.parametrize("resistance", [2.4, 1.6, 0.87])
def test_before_the_resistance_is_known_it_explains_as_much_as_it_may_be(bench: Any, resistance: float) -> None:
    assert change(bench, 1200.0, resistance=resistance) == 0.0


def test_once_it_is_known_it_explains_little(bench: Any) -> None:
    assert change(certain(bench), 1200.0, resistance=1.6) == pytest.approx(0.6 - 1.5 / 3.0, abs=0.02)
    assert change(certain(bench), 1200.0, resistance=1.1) < 0.05


def test_the_allowance_falls_with_the_deviation() -> None:
    one = np.ones(7, np.float32)
    for std, allowance in ((0.12, 1.5), (0.5, 1.5), (0.06, 0.75), (0.04, 1.5 / 3.0), (0.012, LEAST), (0.0, LEAST)):
        assert p._more(one, one * f4(std)) == pytest.approx(allowance, rel=1e-5)
        assert p._more(2.0 * one, 2.0 * one * f4(std)) == pytest.approx(allowance, rel=1e-5)
    assert p._more(one, one * f4(np.nan)) == 1.5  # what is not known may be anything
    assert p._more(0.0 * one, 0.0 * one) == 1.5


def test_what_is_not_known_is_what_health_publishes_at_first() -> None:
    fresh = HealthSettings()
    assert fresh.resistance_std + fresh.capacity_prior_std == pytest.approx(float(p._UNKNOWN_STD), rel=1e-6)


def test_it_is_remembered_for_ten_minutes(bench: Any) -> None:
    """Half a minute of reversed current weighs little beside ten minutes of the right one; all of it after as many."""
    change(certain(bench), 1800.0)
    early = change(bench, 60.0, -1.0)
    late = change(bench, 1800.0, -1.0)
    assert early < 0.3 * late
    squares = float(bench.state.number[y.CHANGED_A2])
    bench.config.number[y.GAIN_TAU_S] = 1e6  # now nothing more is learnt
    change(bench, 20.0, -1.0)
    assert float(bench.state.number[y.CHANGED_A2]) == pytest.approx(squares, rel=1e-3)


@pytest.mark.parametrize("step_a", [0.5, 1.0])
def test_noise_is_no_change_to_tell_a_gain_from(bench: Any, step_a: float) -> None:
    change(certain(bench), 5000.0, step_a=0.0)
    assert change(bench, 3000.0, 0.3, step_a=step_a) < 0.1


def test_the_knee_of_a_curve_is_no_gain(bench: Any) -> None:
    """80 mV come within a minute and go, while the current hardly changes: four times of that counts, and a little."""
    change(certain(bench), 5000.0, step_a=0.0)
    rng = np.random.default_rng(5)
    for k in range(2400):
        bench.head["current_a"] = 100.0 + 3.0 * rng.standard_normal() + 10.0 * (k // 20 % 2)
        bench.innovation[:] = 0.08 * math.sin(math.pi * (k % 600) / 60.0) if k % 600 < 60 else 0.0
        bench.look()
        bench.judge()
        assert bench.value(F.CURRENT_GAIN) < 0.2  # no info


def test_without_a_current_or_cells_nothing_is_known_of_the_gain(bench: Any) -> None:
    change(certain(bench), 1200.0, 0.3)
    held = [float(bench.state.number[k]) for k in (y.CHANGED_A2, y.BOTH_A2, y.MISSING_A2)]
    bench.head["current_a_quality"] = Quality.MISSING
    bench.look()
    bench.judge()
    assert math.isnan(bench.value(F.CURRENT_GAIN))
    assert [float(bench.state.number[k]) for k in (y.CHANGED_A2, y.BOTH_A2, y.MISSING_A2)] == held


@pytest.mark.parametrize("n_parallel", [1, 4])
@pytest.mark.parametrize("bias_a", [3.0, -3.0])
def test_the_offset_is_the_filters_for_the_string(make_signals: Any, bias_a: float, n_parallel: int) -> None:
    bench = make_signals(n_parallel=n_parallel)
    bench.bias_a = bias_a
    bench.look()
    bench.judge()
    assert bench.value(F.CURRENT_OFFSET) == 3.0 * n_parallel


def test_the_regression_is_what_it_says(bench: Any) -> None:
    """Against float64, with steps of any length: sums that fade, a deviation from what is left, both allowances."""
    rng = np.random.default_rng(11)
    rest_a, tau_s = float(bench.config.number[y.REST_A]), GAIN_TAU_S
    xx = xy = yy = x4 = 0.0
    signs = set()
    for k in range(1500):
        dt_s = float(rng.choice([0.5, 1.0, 30.0]))
        x = float(rng.normal(0.0, 2.0 if k % 300 < 150 else 40.0))
        true = 2.5 if k < 700 else -1.8
        miss = true * x + float(rng.normal(0.0, 3.0 if k % 100 else 400.0))
        found = float(m._wrong_gain(bench.config, bench.state, f4(x), f4(miss), f4(0.4), f4(dt_s)))
        most = 4.0 * abs(x) + rest_a / 2
        miss = float(np.clip(miss, -most, most))
        share = dt_s / (tau_s + dt_s)
        xx += share * (x * x - xx)
        xy += share * (x * miss - xy)
        yy += share * (miss * miss - yy)
        x4 += share * (x**4 - x4)
        n = min(3.0 * xx * xx / x4, 1.0) * tau_s / 35.0
        slope = (abs(xy) - 2.0 * math.sqrt(max(yy * xx - xy * xy, 0.0) / n)) / (xx + rest_a**2 / 4)
        wanted = max(slope - (0.4 if xy > 0.0 else 0.15), 0.0)
        assert found == pytest.approx(wanted, rel=2e-3, abs=2e-3), k
        signs |= {(xy > 0.0, wanted > 0.1)}
    assert {(True, True), (False, True)} <= signs
    assert rest_a == pytest.approx(2.8)
