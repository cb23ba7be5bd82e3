"""The time without a source that comes and goes: it adds up where a good part is missing, and is forgotten otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core.faults import Fault
from hal.contract import Quality

F = Fault
CELL, SENSOR = 5, 2
FADE_S = 4.0


def _of(name: str) -> Callable[[Any, bool], None]:
    """Lets a source of one value be missing, or not."""

    def lose(bench: Any, lost: bool) -> None:
        bench.head[name] = Quality.MISSING if lost else 0

    return lose


def _lose_cell(bench: Any, lost: bool) -> None:
    bench.m.cell_v_quality[CELL] = Quality.MISSING if lost else 0


def _lose_sensor(bench: Any, lost: bool) -> None:
    bench.m.sensor_degc_quality[SENSOR] = Quality.MISSING if lost else 0


SOURCES: dict[str, tuple[Callable[[Any, bool], None], Fault, int]] = {
    "cell_v": (_lose_cell, F.CELL_VOLTAGE_LOST, y.CELL_FADE_S),
    "sensor_degc": (_lose_sensor, F.TEMPERATURE_LOST, y.DEGC_FADE_S),
    **{
        name: (_of(f"{name}_quality"), fault, y.FADE_S + at - y.CURRENT_LOST_S)
        for name, fault, at in (
            ("current_a", F.CURRENT_LOST, y.CURRENT_LOST_S),
            ("pack_v", F.PACK_VOLTAGE_LOST, y.PACK_LOST_S),
            ("bus_v", F.BUS_VOLTAGE_LOST, y.BUS_LOST_S),
            ("contactors", F.FEEDBACK_LOST, y.FEEDBACK_LOST_S),
            ("insulation_ohm", F.INSULATION_INVALID, y.INSULATION_LOST_S),
            ("coolant_in_degc", F.COOLANT_LOST, y.COOLANT_LOST_S),
            ("coolant_flow_lpm", F.COOLANT_LOST, y.FLOW_LOST_S),
            ("gas_alarm", F.GAS_LOST, y.GAS_LOST_S),
            ("bleeding", F.BLEED_LOST, y.BLEED_LOST_S),
        )
    },
}


def seen_s(bench: Any, source: str, pattern: list[bool], seconds: float, dt_s: float = 1.0) -> list[float]:
    """What is told of `source` in each step while it is missing in a `pattern` of seconds, over and over."""
    lose, fault, _ = SOURCES[source]
    told = []
    for k in range(round(seconds / dt_s)):
        lose(bench, pattern[int(k * dt_s + 1e-6) % len(pattern)])
        bench.look(dt_s)
        told.append(bench.value(fault))
    return told


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_missing_half_of_the_time_is_told(bench: Any, source: str) -> None:
    """It comes to the time that it fades within, and what a gap adds; no other source is told, nor forgotten so late."""
    bench.config.number[SOURCES[source][2]] = FADE_S
    told = seen_s(bench, source, [True, True, False, False], 80.0)
    # 2 s in each round, of which four fifths twice are left
    assert max(told[-4:]) == pytest.approx(2.0 / (1.0 - 0.8**2), rel=1e-3)
    assert min(told[-4:]) == pytest.approx(2.0 / (1.0 - 0.8**2) - 2.0, rel=1e-3)
    for other in set(SOURCES) - {source}:
        assert bench.value(SOURCES[other][1]) == 0.0 or SOURCES[other][1] == SOURCES[source][1]
        assert max(seen_s(bench, other, [True, False], 10.0)) == 1.0 or SOURCES[other][1] == SOURCES[source][1]


@pytest.mark.parametrize("source", ["cell_v", "sensor_degc", "current_a"])
@pytest.mark.parametrize("dt_s", [0.1, 1.0])
@pytest.mark.parametrize(
    ("pattern", "above_s", "below_s"),
    [
        ([True] * 10 + [False] * 10, 3.0, 14.0),
        ([True, False], 3.0, 10.0),
        ([True] * 4 + [False] * 4, 3.0, 10.0),
        ([True, False, False], 0.0, 3.0),
        ([True, False, False, False], 0.0, 3.0),
        ([True] * 2 + [False] * 18, 0.0, 3.0),
        ([True, True, True, False], 10.0, 20.0),
    ],
)
def test_how_much_must_be_missing(
    bench: Any, source: str, dt_s: float, pattern: list[bool], above_s: float, below_s: float
) -> None:
    bench.config.number[SOURCES[source][2]] = FADE_S
    assert above_s < max(seen_s(bench, source, pattern, 120.0, dt_s)) < below_s


@pytest.mark.parametrize("source", ["cell_v", "sensor_degc", "gas_alarm"])
def test_what_is_back_for_good_is_forgotten(bench: Any, source: str) -> None:
    """A loss of an hour falls to 2 s within four times 7.5 s, and then to nothing."""
    bench.config.number[SOURCES[source][2]] = FADE_S
    assert seen_s(bench, source, [True], 3600.0, 10.0)[-1] == 3600.0
    told = np.array(seen_s(bench, source, [False], 60.0))
    assert (np.diff(told) <= 0.0).all()
    assert told[10] > 2.0 > told[34]
    assert told[-1] == 0.0
    assert seen_s(bench, source, [True], 2.0) == [1.0, 2.0]


@pytest.mark.parametrize("source", ["cell_v", "sensor_degc", "bus_v"])
def test_without_a_row_nothing_is_remembered(bench: Any, source: str) -> None:
    assert seen_s(bench, source, [True, True, True, False], 5.0) == [1.0, 2.0, 3.0, 0.0, 1.0]
    lose, fault, _ = SOURCES[source]
    lose(bench, False)
    bench.look(0.0)
    assert bench.value(fault) == 0.0


@pytest.mark.parametrize("source", ["cell_v", "sensor_degc", "bus_v"])
def test_in_a_step_of_no_length_nothing_fades(bench: Any, source: str) -> None:
    bench.config.number[SOURCES[source][2]] = FADE_S
    seen_s(bench, source, [True, True, False], 3.0)
    lose, fault, _ = SOURCES[source]
    before = bench.value(fault)
    for lost in (False, True):
        lose(bench, lost)
        bench.look(0.0)
        assert bench.value(fault) == before == pytest.approx(1.6)


def test_the_worst_of_several_is_named_although_it_is_there(bench: Any) -> None:
    bench.config.number[[y.CELL_FADE_S, y.DEGC_FADE_S]] = FADE_S
    bench.m.cell_v_quality[[3, 7]] = bench.m.sensor_degc_quality[[0, 4]] = Quality.MISSING
    bench.look()
    bench.m.cell_v_quality[3] = bench.m.sensor_degc_quality[0] = 0
    bench.look()
    bench.m.cell_v_quality[7] = bench.m.sensor_degc_quality[4] = 0
    seen = bench.look()
    assert seen.complete  # everything is used at once
    for fault, at in ((F.CELL_VOLTAGE_LOST, 7), (F.TEMPERATURE_LOST, 4)):
        assert (bench.value(fault), bench.where(fault)) == (pytest.approx(2.0 * 0.8), at)


def test_a_cell_is_held_by_the_time_since_it_was_seen_however_often_it_was_missing(bench: Any) -> None:
    bench.config.number[[y.CELL_FADE_S, y.DEGC_FADE_S]] = FADE_S
    for k in range(60):
        lost = k % 6 < 3
        _lose_cell(bench, lost)
        _lose_sensor(bench, lost)
        bench.look()
        if k > 3:
            assert bench.state.cell_use[CELL] & y.HELD
            assert bench.state.sensor_use[SENSOR] & y.HELD
    assert float(bench.state.cell_missed_s[CELL]) > 3.0
