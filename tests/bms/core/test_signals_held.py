"""What a single lost sample does to the extremes, and what bleeding does to the voltages: nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core.faults import Fault
from bms.core.signals_layout import CALM, HELD, MOVED, USABLE
from hal.contract import Quality

F = Fault


def _lose_all(bench: Any) -> None:
    bench.m.cell_v_quality[:] = Quality.MISSING
    bench.m.sensor_degc_quality[:] = Quality.MISSING


def test_extremes_go_on_for_three_seconds_without_any_value(bench: Any) -> None:
    bench.m.cell_v[[5, 17]] = 3.1, 3.6
    bench.m.sensor_degc[[1, 4]] = 12.0, 40.0
    before = bench.look()
    _lose_all(bench)
    for lost_s in (1.0, 2.0, 3.0):
        seen = bench.look()
        assert not seen.complete
        for name in (
            "cell_v_low", "cell_v_high", "cell_v_mean", "cell_low_at", "cell_high_at", "degc_low", "degc_high",
            "degc_mean", "sensor_low_at", "sensor_high_at",
        ):  # fmt: skip
            assert getattr(seen, name) == getattr(before, name), name
        assert bench.value(F.CELL_OVERVOLTAGE) == pytest.approx(3.6)
        assert bench.value(F.DISCHARGE_HOT) == 40.0
        # while the loss itself is told, and nothing of it is used for anything finer
        assert bench.value(F.CELL_VOLTAGE_LOST) == bench.value(F.TEMPERATURE_LOST) == lost_s
        assert math.isnan(bench.value(F.CELL_VOLTAGE_FROZEN))
        assert math.isnan(bench.value(F.TEMPERATURE_FROZEN))
        assert math.isnan(bench.value(F.TEMPERATURE_RISE))
        assert (bench.state.cell_use == HELD).all()
        assert (bench.state.sensor_use == HELD).all()
    seen = bench.look()
    assert all(math.isnan(x) for x in (seen.cell_v_low, seen.cell_v_high, seen.cell_v_mean, seen.degc_low))
    assert (bench.state.cell_use == 0).all()
    assert (bench.state.sensor_use == 0).all()


def test_one_cell_and_one_sensor_count_as_long(bench: Any) -> None:
    bench.m.cell_v[5], bench.m.sensor_degc[1] = 3.1, 12.0
    bench.look()
    bench.m.cell_v_quality[5] = bench.m.sensor_degc_quality[1] = Quality.MISSING
    for held in (True, True, True, False):
        seen = bench.look()
        assert seen.cell_v_low == (pytest.approx(3.1) if held else pytest.approx(3.3))
        assert seen.degc_low == (12.0 if held else 25.0)
        assert math.isnan(bench.value(F.SUM_IMPLAUSIBLE)) or not held  # a sum is of values of one time
        assert bench.state.cell_use[4] == USABLE | CALM | HELD


@pytest.mark.parametrize(("hold_s", "period_s", "held_s"), [(0.0, 1.0, 1.2), (7.0, 1.0, 7.0), (3.0, 10.0, 12.0)])
def test_one_lost_sample_is_none_too_many(make_signals: Any, hold_s: float, period_s: float, held_s: float) -> None:
    bench = make_signals(hold_s=hold_s, period_s=period_s)
    bench.look()
    _lose_all(bench)
    seen = bench.look(0.99 * held_s)
    assert (seen.cell_v_low, seen.degc_low) == (pytest.approx(3.3), 25.0)
    seen = bench.look(0.02 * held_s)
    assert math.isnan(seen.cell_v_low)
    assert math.isnan(seen.degc_low)


def test_what_was_never_there_is_not_held(bench: Any) -> None:
    _lose_all(bench)
    bench.m.cell_v_quality[3] = bench.m.sensor_degc_quality[2] = 0
    seen = bench.look()
    assert (seen.cell_low_at, seen.cell_high_at, seen.sensor_low_at, seen.sensor_high_at) == (3, 3, 2, 2)
    assert (seen.cell_v_mean, seen.degc_mean) == (pytest.approx(3.3), 25.0)


# bleeding

OHM, BLEED_OHM = 0.1, 33.0


def _read(v: Any, on: Any, chip: int) -> Any:
    """What front ends of `chip` cells read: wire by wire, each with the current that really flows in it."""
    amps = np.where(on, v / BLEED_OHM, 0.0)
    seen = v.astype(np.float64)
    for first in range(0, v.size, chip):
        last = min(first + chip, v.size)
        wire_a = np.zeros(last - first + 1)  # upwards into the chip
        wire_a[1:] += amps[first:last]
        wire_a[:-1] -= amps[first:last]
        seen[first:last] -= OHM * np.diff(wire_a)
    return seen


@pytest.mark.parametrize("chip", [1, 7, 12, 16, 24, 100])
@pytest.mark.parametrize("seed", range(3))
def test_the_drop_of_the_sense_wires_is_put_back(make_signals: Any, chip: int, seed: int) -> None:
    """To what the current is read wrongly by: the drop's own share of it, 20 mV of 3.3 V."""
    rng = np.random.default_rng(seed)
    bench = make_signals(sense_ohm=OHM, bleed_ohm=BLEED_OHM, cells_per_chip=chip)
    v = rng.uniform(3.2, 3.4, 24)
    bench.asked[:] = rng.integers(0, 2, 24)
    bench.m.cell_v[:] = _read(v, bench.asked, chip)
    worst_v = float(np.abs(bench.m.cell_v - v).max())
    assert worst_v > (0.009 if chip > 1 else 0.018)
    seen = bench.look()
    assert np.abs(bench.state.cell_v - v).max() < 2e-4
    assert seen.cell_v_high == pytest.approx(v.max(), abs=2e-4)
    assert bench.value(F.CELL_UNDERVOLTAGE) == pytest.approx(v.min(), abs=2e-4)
    bench.asked[:] = 0
    bench.m.cell_v[:] = v
    bench.look()
    assert (bench.state.cell_v == v.astype(np.float32)).all()


def test_wires_that_are_not_known_change_nothing(bench: Any) -> None:
    bench.asked[::3] = 1
    bench.look()
    assert (bench.state.cell_v == np.float32(3.3)).all()


def test_a_lost_cell_that_bleeds_spoils_no_other(make_signals: Any) -> None:
    bench = make_signals(sense_ohm=OHM, bleed_ohm=BLEED_OHM)
    bench.asked[7] = 1
    bench.m.cell_v[7] = math.nan
    bench.look()
    others = np.delete(bench.state.cell_v, 7)
    assert (others == np.float32(3.3)).all()
    assert math.isnan(bench.state.cell_v[7])


def test_a_value_that_stands_still_does_so_while_bled(make_signals: Any) -> None:
    """What is compared is what was read: the drop that is put back comes and goes."""
    bench = make_signals(sense_ohm=OHM, bleed_ohm=BLEED_OHM)
    bench.look()
    for k in range(20):
        bench.asked[12] = k // 5 % 2
        bench.m.cell_v[:] += np.float32(0.005)
        bench.m.cell_v[3] = 3.3
        bench.look()
    bench.asked[12] = 0
    bench.look()
    assert bench.where(F.CELL_VOLTAGE_FROZEN) == 3
    # half of it: the mean cell is beyond the window in which it says much of each
    assert bench.value(F.CELL_VOLTAGE_FROZEN) == pytest.approx(0.5 * 0.1 * 23 / 24, abs=2e-3)


@pytest.mark.parametrize("cells", [[10], [0], list(range(24))])
def test_the_drop_is_put_back_for_one_cell_as_for_all(make_signals: Any, cells: list[int]) -> None:
    """A cell that is bled alone drives its current through both of its wires, an end of a chip through its own."""
    bench = make_signals(sense_ohm=OHM, bleed_ohm=BLEED_OHM, cells_per_chip=24)
    bench.asked[cells] = 1
    bench.look()
    share = 3.3 * OHM / BLEED_OHM
    expected = np.full(24, 3.3)
    if len(cells) == 1:
        expected[cells[0]] += 2.0 * share
        for k in {cells[0] - 1, cells[0] + 1} & set(range(24)):
            expected[k] -= share
    else:
        expected[[0, -1]] += share  # in the wires between two cells the currents of both cancel
    np.testing.assert_allclose(bench.state.cell_v, expected, atol=2e-5)


def test_what_is_held_is_left_as_it_was(make_signals: Any) -> None:
    bench = make_signals(sense_ohm=OHM, bleed_ohm=BLEED_OHM, cells_per_chip=24)
    bench.asked[10] = 1
    bench.look()
    before = bench.state.cell_v[10]
    assert before > 3.31
    bench.m.cell_v_quality[10] = Quality.MISSING
    bench.asked[10], bench.asked[11] = 0, 1
    bench.look()
    assert bench.state.cell_v[10] == before


@pytest.mark.parametrize(("dt_s", "counted_s"), [(0.1, 0.1), (1.0, 1.0), (2.0, 2.0), (60.0, 2.0)])
def test_a_reading_that_is_the_same_stands_still_and_a_long_step_counts_as_two_seconds(
    bench: Any, dt_s: float, counted_s: float
) -> None:
    """A fifth of the ten seconds after which it is suspect: a few equal samples are chance, however far apart."""
    bench.look(dt_s)
    assert not bench.state.cell_still_s.any()  # the first is the same as none
    for k in (1, 2, 3):
        bench.m.cell_v[4] += 1e-3
        bench.look(dt_s)
        assert float(bench.state.cell_still_s[3]) == pytest.approx(k * counted_s)
        assert float(bench.state.cell_still_s[4]) == 0.0


@pytest.mark.parametrize("dt_s", [0.1, 60.0])
def test_a_temperature_that_is_the_same_stands_still_and_those_that_change_are_counted(bench: Any, dt_s: float) -> None:
    """One that is not read has not changed, and does not stand still."""
    bench.m.sensor_degc[:] = 26.0
    bench.look(dt_s)
    bench.m.sensor_degc_quality[5] = Quality.MISSING
    for k in (1, 2, 3):
        bench.m.sensor_degc[[1, 4, 5]] += 0.5
        bench.look(dt_s)
        assert bench.state.degc_still_s.tolist() == pytest.approx([k * dt_s, 0.0, k * dt_s, k * dt_s, 0.0, 0.0])
        assert bench.state.word[MOVED] == 2
    bench.look(dt_s)
    assert bench.state.word[MOVED] == 0
