"""The two rules of a runaway, and the heat that current and resistance do not explain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import runaway as r
from bms.core import signals_layout as y
from bms.core.faults import Fault
from bms.core.runaway_setup import RunawaySettings, runaway_config, runaway_state
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
HOT_DEGC = 55.0
SENSOR = 2  # stands for cells 8 to 11


class Hot:
    """A rack (`SignalBench`) and its runaway detection."""

    def __init__(self, bench: Any, **settings: Any) -> None:
        self.bench = bench
        self.config = runaway_config(HOT_DEGC, RunawaySettings(**settings))
        self.state = runaway_state(bench.info.n_sensors)
        r.runaway_init(self.state)

    @property
    def degc(self) -> Any:
        return self.bench.m.sensor_degc

    def step(self, dt_s: float = 1.0, factor: float = 1.0) -> None:
        b = self.bench
        b.look(dt_s)
        r.runaway_step(
            self.config, self.state, b.config, b.state, b.seen, f4(factor), b.soc, b.values, b.places, f4(dt_s)
        )

    def rise(self, k_per_s: float, seconds: float, dt_s: float = 1.0, sensor: int = SENSOR) -> None:
        for _ in range(round(seconds / dt_s)):
            self.degc[sensor] += k_per_s * dt_s
            self.step(dt_s)

    def value(self, fault: Fault) -> float:
        return float(self.bench.value(fault))

    def where(self, fault: Fault) -> int:
        return int(self.bench.where(fault))


@pytest.fixture
def hot(bench: Any) -> Hot:
    h = Hot(bench)
    h.step()
    return h


def test_a_hot_cell_that_rises_is_a_runaway_by_gb_38031(hot: Hot) -> None:
    hot.degc[SENSOR] = 60.0
    hot.bench.m.cell_v[9] = 3.29
    hot.step()
    for seconds in (1.0, 2.0, 3.0, 4.0):
        hot.rise(1.25, 1.0)
        assert hot.value(F.RUNAWAY) == seconds + 1.0  # the jump to 60 degC counts as one
        assert hot.where(F.RUNAWAY) == 9  # the lowest of its cells
    hot.rise(0.75, 1.0)
    assert hot.value(F.RUNAWAY) == 0.0
    assert hot.where(F.RUNAWAY) == NO_INDEX


@pytest.mark.parametrize(("volt", "counts"), [(2.4, True), (2.55, False)])
def test_a_cool_cell_must_have_lost_a_quarter_of_its_voltage(hot: Hot, volt: float, counts: bool) -> None:
    """3.3 V, the others; the mean is a little lower."""
    hot.bench.m.cell_v[10] = volt
    hot.rise(1.25, 4.0)
    assert hot.value(F.RUNAWAY) == (4.0 if counts else 0.0)
    assert hot.where(F.RUNAWAY) == (10 if counts else NO_INDEX)


def test_a_cell_of_another_sensor_does_not_count(hot: Hot) -> None:
    hot.bench.m.cell_v[3] = 1.0
    hot.rise(1.25, 5.0)
    assert hot.value(F.RUNAWAY) == 0.0


def test_hot_means_from_the_largest_temperature_on(hot: Hot) -> None:
    hot.degc[SENSOR] = HOT_DEGC - 1.25
    hot.step()
    hot.rise(1.25, 1.0)
    assert float(hot.bench.state.degc[SENSOR]) == HOT_DEGC
    assert hot.value(F.RUNAWAY) == 2.0
    cooler = Hot(hot.bench, hot_degc=80.0)
    cooler.step()
    cooler.rise(1.25, 5.0)
    assert cooler.value(F.RUNAWAY) == 0.0


def test_three_fast_rates_in_a_row_are_a_runaway_by_gb_36276(hot: Hot) -> None:
    for rates in (1.0, 2.0, 3.0):
        hot.rise(3.25, 1.0)
        assert hot.value(F.RUNAWAY_RATES) == rates
        assert hot.where(F.RUNAWAY_RATES) == 8
    hot.rise(2.75, 1.0)
    assert hot.value(F.RUNAWAY_RATES) == 0.0
    hot.rise(3.25, 2.0)
    assert hot.value(F.RUNAWAY_RATES) == 2.0
    assert hot.value(F.RUNAWAY) == 0.0  # neither hot nor without voltage


@pytest.mark.parametrize("jump_k", [50.0, -50.0, 300.0])
def test_a_sensor_that_jumps_is_no_runaway(hot: Hot, jump_k: float) -> None:
    hot.degc[:] = 60.0
    hot.step()
    hot.rise(0.0, 3.0)
    hot.degc[SENSOR] += jump_k
    for _ in range(6):
        hot.step()
        assert hot.value(F.RUNAWAY) <= 1.0
        assert hot.value(F.RUNAWAY_RATES) <= 1.0


def test_noise_of_a_hot_sensor_is_no_runaway(hot: Hot) -> None:
    rng = np.random.default_rng(3)
    for _ in range(3000):
        hot.degc[:] = 60.0 + 0.3 * rng.standard_normal(6)
        hot.step()
        assert hot.value(F.RUNAWAY) < 3.0
        assert hot.value(F.RUNAWAY_RATES) < 3.0


@pytest.mark.parametrize("dt_s", [0.0625, 0.25, 0.5, 1.0, 4.0])
def test_rates_are_those_of_a_second_or_a_longer_step(hot: Hot, dt_s: float) -> None:
    hot.degc[SENSOR] = 60.0
    hot.rise(0.0, 8.0, dt_s)
    hot.rise(1.25, 8.0, dt_s)
    assert hot.value(F.RUNAWAY) == 8.0 - max(dt_s - 1.0, 0.0)
    assert float(hot.state.number[r.SINCE_S]) == 0.0
    hot.step(0.5)
    assert hot.value(F.RUNAWAY) == 8.0 - max(dt_s - 1.0, 0.0)  # until the next look


def test_a_jump_within_a_long_step_is_no_runaway(hot: Hot) -> None:
    hot.degc[:] = 60.0
    hot.step(10.0)
    hot.step(10.0)
    hot.rise(2.0, 10.0, 10.0)
    assert hot.value(F.RUNAWAY) == 1.0
    hot.rise(2.0, 10.0, 10.0)
    assert hot.value(F.RUNAWAY) == 11.0


def test_a_sensor_that_is_lost_begins_anew(hot: Hot) -> None:
    hot.degc[SENSOR] = 60.0
    hot.step()
    hot.rise(1.25, 2.0)
    hot.bench.m.sensor_degc_quality[SENSOR] = Quality.MISSING
    hot.rise(1.25, 1.0)
    assert hot.value(F.RUNAWAY) == 0.0
    hot.bench.m.sensor_degc_quality[SENSOR] = Quality.GOOD
    hot.rise(1.25, 1.0)
    assert hot.value(F.RUNAWAY) == 0.0  # the first value is no rate
    hot.rise(1.25, 2.0)
    assert hot.value(F.RUNAWAY) == 2.0


def test_the_longest_is_told(hot: Hot) -> None:
    hot.degc[:] = 60.0
    hot.step()
    hot.rise(1.25, 2.0, sensor=4)
    hot.degc[4] += 1.25
    hot.rise(1.25, 1.0, sensor=1)
    assert hot.value(F.RUNAWAY) == 4.0
    assert hot.where(F.RUNAWAY) == 16


# heat


def lumps(hot: Hot, heat_w: Any, seconds: float, dt_s: float, current_a: float = 0.0, ambient_w: float = 0.0) -> None:
    """The sensors do what cells with a heat of their own do; each step of the equation is solved exactly."""
    number = hot.bench.config.number
    c, g = float(number[y.HEAT_CAPACITY_J_PER_K]), float(number[y.COOLANT_W_PER_K])
    coolant_degc = float(hot.bench.head["coolant_in_degc"][0])
    hot.bench.head["current_a"] = current_a
    degc = hot.degc.astype(np.float64)
    keep = math.exp(-dt_s * g / c)
    for _ in range(round(seconds / dt_s)):
        warm = np.exp(float(number[y.OHM_PER_KELVIN]) * (25.0 - degc))
        power_w = np.asarray(heat_w) + ambient_w + current_a**2 * float(number[y.CELL_OHM]) * warm
        ends_degc = coolant_degc + power_w / g
        degc = ends_degc + (degc - ends_degc) * keep
        hot.degc[:] = degc
        hot.step(dt_s)


@pytest.mark.parametrize("dt_s", [4.0, 10.0, 60.0])
@pytest.mark.parametrize("current_a", [0.0, 140.0, -280.0])
def test_heat_that_the_current_does_not_explain_is_found(bench: Any, dt_s: float, current_a: float) -> None:
    hot = Hot(bench, place_s=1e6)
    lumps(hot, 0.0, 1800.0, dt_s, current_a)
    assert hot.value(F.HEAT_RESIDUAL) < 0.5
    heat_w = np.zeros(6)
    heat_w[SENSOR] = 30.0
    lumps(hot, heat_w, 1800.0, dt_s, current_a)
    # the mean has a sixth of it
    assert hot.value(F.HEAT_RESIDUAL) == pytest.approx(25.0, rel=0.04)
    assert hot.where(F.HEAT_RESIDUAL) == SENSOR
    assert float(hot.state.heat_w[SENSOR]) == pytest.approx(30.0, rel=0.04)


def test_it_takes_a_few_times_the_observers_time(bench: Any) -> None:
    """Both poles at 1/120 s: of a step of the heat 1 - (1 + t/T) exp(-t/T) is there, 59 % at two times T."""
    hot = Hot(bench, place_s=1e6)
    lumps(hot, 0.0, 60.0, 1.0)
    lumps(hot, np.array([0, 0, 30.0, 0, 0, 0]), 240.0, 1.0)
    assert float(hot.state.heat_w[SENSOR]) == pytest.approx(30.0 * (1 - 3 * math.exp(-2)), rel=0.05)


def test_what_all_sensors_have_is_their_surroundings(bench: Any) -> None:
    hot = Hot(bench)
    lumps(hot, 0.0, 3600.0, 8.0, ambient_w=40.0)
    assert float(hot.state.heat_w[0]) == pytest.approx(40.0, rel=0.02)
    assert hot.value(F.HEAT_RESIDUAL) < 0.1


@pytest.mark.parametrize("jump_k", [20.0, -20.0])
def test_a_sensor_that_jumps_has_no_heat_and_leaves_that_of_the_others(bench: Any, jump_k: float) -> None:
    hot = Hot(bench, place_s=1e6)
    lumps(hot, 0.0, 600.0, 4.0)
    bench.m.sensor_degc[SENSOR] += jump_k
    number = bench.config.number
    lost_w = jump_k * float(number[y.COOLANT_W_PER_K])
    for _ in range(15):
        hot.step(4.0)
        # a cell of that temperature would give off more, or less, and has not changed since
        assert abs(float(hot.state.heat_w[SENSOR])) <= abs(lost_w)
        assert np.abs(np.delete(hot.state.heat_w, SENSOR)).max() < 1.0
        assert float(np.delete(hot.state.heat_w, SENSOR).max()) - float(hot.state.number[r.MEAN_W]) < 9.0


def test_what_stays_for_hours_is_the_sensors_place(bench: Any) -> None:
    hot = Hot(bench, place_s=3600.0)
    lumps(hot, np.array([0, 0, 6.0, 0, 0, 0]), 3600.0, 8.0)
    first = hot.value(F.HEAT_RESIDUAL)
    assert first == pytest.approx(5.0 * math.exp(-1), rel=0.1)
    lumps(hot, np.array([0, 0, 6.0, 0, 0, 0]), 3600.0, 8.0)
    assert hot.value(F.HEAT_RESIDUAL) == pytest.approx(first * math.exp(-1), rel=0.05)
    assert float(hot.state.place_w[SENSOR]) == pytest.approx(5.0 * (1 - math.exp(-2)), rel=0.05)


def test_resistance_that_has_grown_is_explained(bench: Any) -> None:
    """Twice the resistance, known: the same heat is expected."""
    hot = Hot(bench)
    number = bench.config.number
    bench.head["current_a"] = 280.0
    grown, kept = float(number[y.CELL_OHM]), number[y.CELL_OHM].copy()
    number[y.CELL_OHM] = f4(2.0 * grown)
    lumps(hot, 0.0, 1200.0, 1.0, 280.0)
    explained_w = float(hot.state.heat_w[0])
    number[y.CELL_OHM] = kept
    for _ in range(600):
        hot.step(1.0, factor=2.0)
    assert abs(explained_w) < 1.0
    assert float(hot.state.heat_w[0]) < 0.0  # it stands still now, where it was expected to become warmer


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_cells_heat_as_much_more_as_their_resistance_is_larger(bench: Any, factor: float) -> None:
    """Cells as cold as the coolant that stay so: all that is expected of the current is missing."""
    hot = Hot(bench)
    hot.degc[:] = 20.0
    bench.head["current_a"] = 140.0
    for _ in range(120):
        hot.step(10.0, factor)
    number = bench.config.number
    warm = math.exp(5.0 * float(number[y.OHM_PER_KELVIN]))
    expected_w = 140.0**2 * float(number[y.CELL_OHM]) * warm * factor
    assert float(hot.state.heat_w[0]) == pytest.approx(-expected_w, rel=0.01)


def test_a_lost_sensor_keeps_its_heat_and_does_not_count(bench: Any) -> None:
    hot = Hot(bench, place_s=1e6)
    heat_w = np.array([0, 0, 30.0, 0, 0, 0])
    lumps(hot, heat_w, 1200.0, 1.0)
    bench.m.sensor_degc_quality[SENSOR] = Quality.MISSING
    lumps(hot, heat_w, 300.0, 1.0)
    assert hot.value(F.HEAT_RESIDUAL) < 0.1
    assert float(hot.state.heat_w[SENSOR]) == pytest.approx(30.0, rel=0.05)
    bench.m.sensor_degc_quality[SENSOR] = Quality.GOOD
    lumps(hot, heat_w, 10.0, 1.0)
    assert hot.value(F.HEAT_RESIDUAL) == pytest.approx(25.0, rel=0.05)


def test_what_was_seen_of_a_lost_sensor_is_not_told(hot: Hot) -> None:
    hot.step()
    hot.state.heat_w[SENSOR] = 90.0
    hot.step()
    assert hot.where(F.HEAT_RESIDUAL) == SENSOR
    hot.bench.m.sensor_degc_quality[SENSOR] = Quality.MISSING
    hot.step()
    hot.step()
    assert hot.where(F.HEAT_RESIDUAL) != SENSOR
    assert hot.value(F.HEAT_RESIDUAL) < 1.0


def test_without_coolant_temperature_the_mean_still_tells(bench: Any) -> None:
    hot = Hot(bench, place_s=1e6)
    bench.head["coolant_in_degc_quality"] = Quality.MISSING
    lumps(hot, np.array([0, 0, 30.0, 0, 0, 0]), 1200.0, 1.0)
    assert 15.0 < hot.value(F.HEAT_RESIDUAL) < 26.0


def test_without_any_sensor_nothing_is_known_of_heat(bench: Any) -> None:
    hot = Hot(bench)
    hot.step()
    bench.m.sensor_degc_quality[:] = Quality.MISSING
    hot.step()
    assert math.isnan(hot.value(F.HEAT_RESIDUAL))
    assert hot.where(F.HEAT_RESIDUAL) == NO_INDEX
    assert hot.value(F.RUNAWAY) == 0.0


def test_a_step_of_no_time_changes_nothing(hot: Hot) -> None:
    before = [array.copy() for array in hot.state]
    hot.degc[SENSOR] += 20.0
    for dt_s in (0.0, -1.0, math.nan):
        hot.step(dt_s)
        for was, now in zip(before, hot.state, strict=True):
            np.testing.assert_allclose(was, now, rtol=1e-6)


_ANY = st.one_of(st.floats(width=32), st.sampled_from([25.0, 60.0, 124.0, math.nan, math.inf, -math.inf]))


@given(rows=st.lists(st.tuples(_ANY, st.integers(0, 5), st.sampled_from([0.0, 0.1, 1.0, 1e3, 1e30])), max_size=20))
@settings(max_examples=60, deadline=None)
def test_whatever_is_measured_the_values_are_numbers(make_signals: Any, rows: list[tuple[float, int, float]]) -> None:
    hot = Hot(make_signals())
    hot.step()
    for degc, sensor, dt_s in rows:
        hot.degc[sensor] = degc
        hot.step(dt_s)
        for fault in (F.RUNAWAY, F.RUNAWAY_RATES):
            assert hot.value(fault) >= 0.0
            assert hot.where(fault) < 24 or hot.where(fault) == NO_INDEX
        assert not math.isinf(hot.value(F.HEAT_RESIDUAL))
        assert all(np.isfinite(a).all() for a in (hot.state.heat_w, hot.state.place_w, hot.state.rising_s))


def test_a_sensor_that_was_never_read_is_not_known(bench: Any) -> None:
    hot = Hot(bench)
    bench.m.sensor_degc_quality[SENSOR] = Quality.MISSING
    lumps(hot, 0.0, 300.0, 10.0)
    assert math.isnan(float(hot.state.degc[SENSOR]))
    assert float(hot.state.heat_w[SENSOR]) == 0.0
    bench.m.sensor_degc_quality[SENSOR] = Quality.GOOD
    hot.step(10.0)
    assert float(hot.state.degc[SENSOR]) == float(bench.state.degc[SENSOR])


# bounds and ties


@pytest.mark.parametrize(
    ("dt_s", "jump_k", "jumps"), [(1.0, 5.8, False), (1.0, 6.2, True), (4.0, 8.8, False), (4.0, 9.2, True)]
)
def test_what_is_a_jump(bench: Any, dt_s: float, jump_k: float, jumps: bool) -> None:
    """5 K, and 1 K for each second of the step."""
    hot = Hot(bench)
    hot.degc[:] = 20.0  # as the coolant: nothing flows
    hot.step(dt_s)
    hot.step(dt_s)
    hot.degc[SENSOR] += jump_k
    hot.step(dt_s)
    assert (abs(float(hot.state.heat_w[SENSOR])) < 0.02) == jumps
    assert (float(hot.state.degc[SENSOR]) == float(hot.degc[SENSOR])) == jumps


def test_a_sensor_counts_for_the_mean_with_50_w_beyond_it(bench: Any) -> None:
    hot = Hot(bench)
    hot.degc[:] = 20.0
    hot.step()
    hot.state.heat_w[SENSOR] = 300.0
    hot.step(1e-3)
    assert float(hot.state.number[r.MEAN_W]) == pytest.approx(50.0 / 6.0, rel=1e-3)
    hot.state.heat_w[SENSOR] = -300.0
    hot.step(1e-3)
    assert float(hot.state.number[r.MEAN_W]) == pytest.approx((50.0 / 6.0 - 50.0) / 6.0, rel=1e-2)


def test_the_first_cell_may_be_the_lowest(hot: Hot) -> None:
    hot.degc[0] = 60.0
    hot.bench.m.cell_v[0] = 3.29
    hot.step()
    hot.rise(1.25, 2.0, sensor=0)
    assert hot.where(F.RUNAWAY) == 0


def test_a_rate_is_that_of_a_second(hot: Hot) -> None:
    """Half a kelvin a second, looked at every four seconds, is none."""
    hot.degc[:] = 60.0
    hot.step(4.0)
    hot.step(4.0)
    hot.rise(0.5, 16.0, 4.0)
    assert (hot.value(F.RUNAWAY), hot.value(F.RUNAWAY_RATES)) == (0.0, 0.0)
    assert hot.where(F.RUNAWAY_RATES) == hot.where(F.RUNAWAY) == NO_INDEX


def test_exactly_the_rate_counts(hot: Hot) -> None:
    hot.degc[:] = 60.0
    hot.step()
    hot.step()
    hot.rise(1.0, 2.0)
    assert (hot.value(F.RUNAWAY), hot.value(F.RUNAWAY_RATES)) == (2.0, 0.0)
    hot.rise(3.0, 2.0)
    assert (hot.value(F.RUNAWAY), hot.value(F.RUNAWAY_RATES)) == (4.0, 2.0)


def test_of_equals_the_first_is_named_and_the_faster_one_for_its_rates(hot: Hot) -> None:
    hot.degc[:] = 60.0
    hot.step()
    hot.step()
    for _ in range(3):
        hot.degc[1] += 1.25
        hot.degc[4] += 3.25
        hot.step()
    assert (hot.value(F.RUNAWAY), hot.where(F.RUNAWAY)) == (3.0, 4)
    assert (hot.value(F.RUNAWAY_RATES), hot.where(F.RUNAWAY_RATES)) == (3.0, 16)
    for _ in range(3):
        hot.degc[[1, 4]] += 3.25
        hot.step()
    hot.rise(0.0, 1.0)
    for _ in range(2):
        hot.degc[[1, 4]] += 3.25
        hot.step()
    assert hot.where(F.RUNAWAY_RATES) == 4


def test_cells_of_a_parallel_group_share_the_current(make_signals: Any) -> None:
    hot = Hot(make_signals(n_parallel=4), place_s=1e6)
    number = hot.bench.config.number
    hot.bench.head["current_a"] = 400.0
    hot.step(1.0)
    before = hot.state.degc.copy()
    hot.degc[:] = before
    c, g = float(number[y.HEAT_CAPACITY_J_PER_K]), float(number[y.COOLANT_W_PER_K])
    hot.step(1.0)
    gained = 100.0**2 * float(number[y.CELL_OHM]) - g * (25.0 - 20.0)
    share = 1.0 - (120.0 / 121.0) ** 2
    assert float(hot.state.degc[0]) - 25.0 == pytest.approx((1.0 - share) * gained / (c + g), rel=0.05, abs=1e-5)


def test_a_place_is_learnt_by_its_share_of_time(bench: Any) -> None:
    hot = Hot(bench, place_s=1300.0)
    hot.degc[:] = 20.0
    hot.step(600.0)
    hot.state.heat_w[[1, 3]] = 6.0
    hot.step(600.0)
    own_w = hot.state.heat_w - hot.state.number[r.MEAN_W]
    np.testing.assert_allclose(hot.state.place_w, 600.0 / 1900.0 * own_w, rtol=1e-5)
    assert hot.where(F.HEAT_RESIDUAL) == 1  # of two the first


def test_one_sensor_has_nothing_to_be_compared_with(make_signals: Any) -> None:
    hot = Hot(make_signals(n=4, m=1))
    lumps_w = np.array([30.0])
    lumps(hot, lumps_w, 600.0, 10.0)
    assert (hot.value(F.HEAT_RESIDUAL), hot.where(F.HEAT_RESIDUAL)) == (0.0, NO_INDEX)
