"""Cells that tell their own temperature: a hot one answers the current less than the others do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import signals_layout as y
from bms.core import thermometer as t
from bms.core.faults import Fault
from bms.core.plausibility import warmth
from bms.core.thermometer_setup import ThermometerSettings, thermometer_config, thermometer_state
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
HOT = 9  # of the cells of sensor 2
SWING_A = 200.0


class Cells:
    """A rack (`SignalBench`) whose cells answer the current by a resistance each, and nothing else."""

    def __init__(self, bench: Any, seen_before: bool = True, **settings: Any) -> None:
        self.bench = bench
        n = bench.info.n_cells
        self.config = thermometer_config(ThermometerSettings(**settings))
        self.state = thermometer_state(n)
        t.thermometer_init(self.state)
        if seen_before:
            self.state.number[t.KNOWN_S] = 1e3
        number = bench.config.number
        # of a second and of half a minute: a little more than at once
        self.ohm = 1.3 * float(number[y.FAST_OHM] * number[y.PER_CELL]) * np.ones(n)
        self.per_kelvin = float(number[y.OHM_PER_KELVIN])
        self.open_v = np.full(n, 3.3)
        self.noise_v = np.zeros(n)
        self.soc = np.full(n, 0.5, np.float32)
        self.model_ohm = self.ohm.copy()
        self.rng = np.random.default_rng(4)
        self.currents: list[float] = []
        self.volts: list[Any] = []

    def step(self, current_a: float, dt_s: float = 1.0, factor: float = 1.0) -> float:
        b = self.bench
        b.head["current_a"] = current_a
        noise_v = self.noise_v * self.rng.standard_normal(len(self.soc))
        b.m.cell_v[:] = self.open_v - self.ohm * current_a + noise_v
        b.look(dt_s)
        model_v = (3.3 - self.model_ohm * current_a).astype(np.float32)
        t.thermometer_step(
            self.config,
            self.state,
            b.config,
            b.state,
            b.seen,
            self.soc,
            model_v,
            f4(factor),
            b.values,
            b.places,
            f4(dt_s),
        )
        self.currents.append(float(f4(current_a)))
        self.volts.append(b.m.cell_v.astype(np.float64))
        return self.value

    def swing(self, seconds: float, dt_s: float = 1.0, period_s: float = 40.0, factor: float = 1.0) -> float:
        """Charge and discharge in turn; the largest value that was seen."""
        seen = []
        for k in range(round(seconds / dt_s)):
            sign = 1.0 if (k * dt_s) % period_s < period_s / 2 else -1.0
            seen.append(self.step(sign * SWING_A + 10.0 * math.sin(k), dt_s, factor))
        return max((v for v in seen if not math.isnan(v)), default=0.0)

    def heat(self, kelvin: float, cell: int = HOT) -> None:
        self.ohm[cell] *= math.exp(-self.per_kelvin * kelvin)

    @property
    def value(self) -> float:
        return float(self.bench.value(F.CELL_HOT))

    @property
    def where(self) -> int:
        return int(self.bench.where(F.CELL_HOT))


@pytest.fixture
def cells(bench: Any) -> Cells:
    return Cells(bench)


def told_k(cells: Cells, kelvin: float) -> float:
    """What a cell is told to be hotter by that is it by so much: the mean has its part of it, 24 cells."""
    share = math.exp(-cells.per_kelvin * kelvin)
    return -math.log(share / ((23 + share) / 24)) / cells.per_kelvin


@pytest.mark.parametrize("dt_s", [0.1, 1.0, 2.0])
def test_a_hot_cell_is_told_by_its_answer(bench: Any, dt_s: float) -> None:
    cells = Cells(bench, memory_s=50.0, usual_s=1e6)
    cells.swing(100.0, dt_s)
    assert cells.value == 0.0
    assert cells.where == NO_INDEX
    cells.heat(25.0)
    cells.swing(500.0, dt_s)
    # what the least noise leaves open is missing
    assert told_k(cells, 25.0) - 1.0 < cells.value < told_k(cells, 25.0)
    assert cells.where == HOT


def test_a_cold_cell_is_none(cells: Cells) -> None:
    cells.swing(200.0)
    cells.heat(-25.0)
    assert cells.swing(600.0) == 0.0


def test_what_its_sensor_shows_is_taken_off(cells: Cells) -> None:
    cells.heat(25.0)
    cells.swing(300.0)
    before = cells.value
    cells.bench.m.sensor_degc[2] = 31.0
    cells.swing(2.0)
    assert cells.value == pytest.approx(before - 5.0, abs=0.3)  # 6 K, of which the mean sensor has one
    cells.bench.m.sensor_degc[2] = 19.0  # colder: not added
    cells.swing(2.0)
    assert cells.value == pytest.approx(before, abs=0.3)
    cells.bench.m.sensor_degc[2] = 45.0
    cells.swing(2.0)
    assert cells.value == pytest.approx(before - 20.0 * 5 / 6, abs=0.6)
    cells.bench.m.sensor_degc_quality[2] = Quality.MISSING
    cells.swing(2.0)
    assert cells.value == pytest.approx(before, abs=0.4)


def test_what_it_answers_when_it_is_first_seen_is_its_own_resistance(bench: Any) -> None:
    """A cell with 40 % less than the others would look 17 K hotter for hours."""
    cells = Cells(bench, seen_before=False)
    cells.ohm[HOT] *= 0.6
    assert cells.swing(600.0) < 1.0
    cells.heat(25.0)
    cells.swing(600.0)
    assert told_k(cells, 25.0) - 2.0 < cells.value < told_k(cells, 25.0) + 2.0
    assert cells.where == HOT


def test_a_cell_past_a_bend_of_its_curve_teaches_nothing(cells: Cells) -> None:
    """It is full, though its SoC is believed to be a half: it rises while the charge current fades, as if it were hot."""
    cells.swing(200.0)
    most_k = 0.0
    for k in range(120):
        current_a = -SWING_A * math.exp(-k / 30)
        cells.open_v[HOT] = 3.3 + 0.12 + 0.001 * k
        most_k = max(most_k, cells.step(current_a))
    assert most_k == 0.0


def test_what_it_usually_answers_is_its_own_resistance(bench: Any) -> None:
    cells = Cells(bench, usual_s=1200.0)
    cells.heat(15.0)
    cells.swing(300.0)
    assert cells.value > 5.0
    cells.swing(3600.0)
    assert cells.value == 0.0  # less than a tenth is left
    cells.heat(20.0, 4)
    assert cells.swing(300.0) > 7.0
    assert cells.where == 4


def reference(cells: Cells, cell: int, dt_s: float) -> float:
    """The same in float64, from the whole history, for cells that are always measured in the same way."""
    c = ThermometerSettings()
    keep, gain = c.memory_s / (c.memory_s + dt_s), dt_s / (c.slow_s + dt_s)
    slow = dt_s / (c.usual_s + dt_s)
    volts = np.array(cells.volts)
    mean = volts.mean(axis=1)
    away = volts[:, cell] - mean
    slow_a, slow_v, apart, usual = cells.currents[0], mean[0], away[0], 0.0
    answer = a2s = vas = v2s = both_v2s = sums = 0.0
    since = 0.0
    less = unsure = 0.0
    for k, current_a in enumerate(cells.currents):
        change_a, moved_v, change_v = current_a - slow_a, mean[k] - slow_v, away[k] - apart
        jumped = k > 0 and abs(current_a - cells.currents[k - 1]) > 0.1 * cells.bench.config.number[y.DISCHARGE_RATED_A]
        if since == 0.0 or (since < 10.0 and not jumped):
            least = c.noise_v**2 * sums
            known = vas**2 * sums + 36 * max(v2s, least) * a2s
            expected_v = (answer * vas * sums / known if known > 0 else 0.0) * moved_v
            apart += dt_s / (since + dt_s) * (change_v - expected_v)
            since += dt_s
            change_v = expected_v
        else:
            since = 10.0
            apart += gain * change_v
        answer = keep * (answer + dt_s * change_a * change_v)
        v2s = keep * (v2s + dt_s * change_v**2)
        a2s = keep * (a2s + dt_s * change_a**2)
        vas = keep * (vas + dt_s * change_a * moved_v)
        both_v2s = keep * (both_v2s + dt_s * moved_v**2)
        sums = keep * (sums + dt_s)
        slow_v += gain * moved_v
        slow_a += gain * change_a
        per_v = 6 * math.sqrt(a2s) / abs(vas) if vas else math.inf
        if per_v * c.noise_v < 0.5:
            less = answer / vas
            usual += slow * (less - usual)
            less -= usual
            unsure = per_v * math.sqrt(max((v2s - (less + usual) ** 2 * both_v2s) / sums, c.noise_v**2))
    return -math.log((1 + usual + less + unsure) / (1 + usual)) / cells.per_kelvin


@pytest.mark.parametrize("noise_v", [0.0, 1e-3, 3e-3])
def test_it_is_the_same_in_double_precision(cells: Cells, noise_v: float) -> None:
    cells.noise_v[:] = noise_v
    cells.heat(30.0)
    cells.swing(400.0)
    assert cells.where == HOT
    assert cells.value == pytest.approx(reference(cells, HOT, 1.0), abs=0.02)


def test_a_noisy_cell_is_not_sure(cells: Cells) -> None:
    cells.heat(25.0)
    cells.swing(300.0)
    quiet = cells.value
    noisy = Cells(cells.bench)
    noisy.heat(25.0)
    noisy.noise_v[HOT] = 0.02
    noisy.swing(300.0)
    assert 5.0 < noisy.value < quiet - 3.0
    worse = Cells(cells.bench, memory_s=40.0)
    worse.noise_v[:] = 8e-3
    assert worse.swing(600.0) < 8.0
    worse.heat(25.0)
    worse.noise_v[HOT] = 0.05
    worse.swing(300.0)
    assert worse.value < 8.0


def test_without_a_change_of_the_current_nothing_is_known(cells: Cells) -> None:
    for _ in range(100):
        cells.step(SWING_A)
    assert math.isnan(cells.value)
    assert cells.where == NO_INDEX
    cells.heat(40.0)
    cells.swing(100.0)
    assert cells.value > 8.0
    for _ in range(2400):  # what was known fades
        cells.step(SWING_A)
    assert math.isnan(cells.value)


@pytest.mark.parametrize("soc", [0.1, 0.95, math.nan])
def test_at_the_ends_of_its_curve_nothing_is_learnt(cells: Cells, soc: float) -> None:
    cells.heat(30.0)
    cells.soc[3] = soc
    cells.swing(300.0)
    assert math.isnan(cells.value)
    cells.soc[3] = 0.5
    cells.swing(300.0)
    assert cells.value > 15.0


@pytest.mark.parametrize("times", [0.6, 6.0])
def test_what_no_resistance_explains_is_the_curve(cells: Cells, times: float) -> None:
    cells.heat(30.0)
    cells.ohm *= times
    cells.swing(300.0)
    assert math.isnan(cells.value)


def test_a_rack_that_has_aged_may_answer_more(cells: Cells) -> None:
    cells.heat(30.0)
    cells.ohm *= 6.0
    cells.swing(300.0, factor=6.0)
    assert cells.value > 20.0


def test_the_expected_resistance_is_that_of_the_temperature(cells: Cells) -> None:
    cells.bench.m.sensor_degc[:] = -10.0
    cells.heat(30.0)
    cells.ohm *= 4.0
    cells.swing(300.0)
    assert float(warmth(cells.bench.config, f4(-10.0))) > 2.0
    assert cells.value > 20.0


@pytest.mark.parametrize("standing_v", [3.3, 3.26])
def test_a_cell_that_stands_still_is_not_hot(cells: Cells, standing_v: float) -> None:
    def standing(seconds: int) -> None:
        for k in range(seconds):
            current_a = SWING_A if k % 40 < 20 else -SWING_A
            cells.open_v[HOT] = standing_v + cells.ohm[HOT] * current_a
            assert not cells.step(current_a) > 3.0

    standing(300)
    cells.open_v[HOT] = 3.3
    assert cells.swing(300.0) < 3.0
    standing(300)
    cells.open_v[HOT] = 3.3
    assert cells.swing(300.0) < 3.0


@pytest.mark.parametrize("to_v", [0.0, 3.2, 3.27, 3.34, 3.5])
def test_a_cell_that_jumps_is_not_hot(cells: Cells, to_v: float) -> None:
    cells.swing(300.0)
    for cycle in range(4):
        cells.open_v[HOT] = to_v if cycle % 2 == 0 else 3.3
        assert cells.swing(105.0) < 3.0


def test_a_jump_does_not_hide_what_is_known(cells: Cells) -> None:
    cells.heat(30.0)
    cells.swing(300.0)
    before = cells.value
    cells.open_v[HOT] = 2.5
    for _ in range(4):
        cells.swing(5.0)
        assert cells.value == pytest.approx(before, abs=2.0)


@pytest.mark.parametrize("every_s", [1, 7, 30])
def test_cells_that_are_bled_are_measured_all_the_same(cells: Cells, every_s: int) -> None:
    """Each is bled in turn, and reads 8 mV less then."""
    for k in range(600):
        cells.bench.asked[:] = 0
        if k // every_s % 2:
            cells.bench.asked[5::4] = 1
        cells.open_v[:] = 3.3 - 0.008 * cells.bench.asked
        assert not cells.step(SWING_A if k % 40 < 20 else -SWING_A) > 3.0


def test_a_cell_that_is_lost_is_not_told(cells: Cells) -> None:
    cells.heat(30.0)
    cells.swing(300.0)
    cells.bench.m.cell_v_quality[HOT] = Quality.MISSING
    cells.swing(60.0)
    assert cells.value == 0.0
    assert cells.where == NO_INDEX
    cells.bench.m.cell_v_quality[HOT] = Quality.GOOD
    cells.swing(200.0)
    assert cells.value > 20.0


def test_a_cell_that_was_never_read_is_awaited(bench: Any) -> None:
    cells = Cells(bench)
    bench.m.cell_v_quality[3] = Quality.MISSING
    cells.heat(30.0)
    cells.heat(40.0, 3)
    cells.swing(300.0)
    assert cells.where == HOT
    bench.m.cell_v_quality[3] = Quality.GOOD
    cells.swing(600.0)
    assert cells.where == 3


def test_without_the_current_it_begins_anew(cells: Cells) -> None:
    cells.heat(30.0)
    cells.swing(300.0)
    cells.bench.head["current_a_quality"] = Quality.MISSING
    for _ in range(30):
        cells.step(0.0)
    assert math.isnan(cells.value)
    cells.bench.head["current_a_quality"] = Quality.GOOD
    cells.swing(200.0)
    assert cells.value > 20.0


def test_without_any_cell_nothing_is_known(cells: Cells) -> None:
    cells.bench.m.cell_v_quality[:] = Quality.MISSING
    cells.swing(50.0)
    assert math.isnan(cells.value)


def test_a_resistance_that_does_not_fall_with_temperature_tells_nothing(cells: Cells) -> None:
    cells.heat(30.0)
    cells.bench.config.number[y.OHM_PER_KELVIN] = 0.0
    cells.swing(300.0)
    assert math.isnan(cells.value)


def test_a_cell_that_hardly_answers_is_not_measured(cells: Cells) -> None:
    cells.ohm[HOT] *= 0.1
    assert cells.swing(400.0) == 0.0


def test_a_step_of_no_time_changes_nothing(cells: Cells) -> None:
    cells.swing(100.0)
    before = [array.copy() for array in cells.state]
    for dt_s in (0.0, -1.0, math.nan):
        cells.step(cells.currents[-1], dt_s)
        for was, now in zip(before, cells.state, strict=True):
            np.testing.assert_allclose(was, now, rtol=1e-6)


_ANY = st.one_of(st.floats(width=32), st.sampled_from([0.0, 3.3, 3.2, 3.4, 200.0, -200.0, math.nan, math.inf]))
_ROW = st.tuples(_ANY, _ANY, _ANY, st.integers(0, 23), st.sampled_from([0.0, 0.1, 1.0, 1e3, 1e30]), st.booleans())


@given(rows=st.lists(_ROW, max_size=20), soc=_ANY, factor=_ANY)
@settings(max_examples=60, deadline=None)
def test_whatever_is_measured_the_value_is_a_number_or_unknown(
    make_signals: Any, rows: list[Any], soc: float, factor: float
) -> None:
    b = make_signals()
    cells = Cells(b)
    model_v = np.full(24, 3.3, np.float32)
    cells.swing(30.0)
    for current_a, volt, degc, cell, dt_s, bled in rows:
        b.head["current_a"] = current_a
        b.m.cell_v[:] = 3.3 - cells.ohm * (current_a if abs(current_a) < 1e3 else 0.0)
        b.m.cell_v[cell] = volt
        b.m.sensor_degc[cell // 4] = degc
        b.asked[cell] = bled
        cells.soc[cell] = soc
        b.look(dt_s)
        t.thermometer_step(
            cells.config,
            cells.state,
            b.config,
            b.state,
            b.seen,
            cells.soc,
            model_v,
            f4(factor),
            b.values,
            b.places,
            f4(dt_s),
        )
        assert math.isnan(cells.value) or 0.0 <= cells.value < 200.0
        assert cells.where < 24 or cells.where == NO_INDEX
        assert all(np.isfinite(a).all() for a in (cells.state.answer, cells.state.apart_v, cells.state.usual))
