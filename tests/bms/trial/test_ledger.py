"""The arithmetic of the ledger, and that each rule bites when the log is made to break it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bms.core.faults import Fault, Reaction
from bms.trial import ledger
from bms.trial.expect import Expect, ExpectRow
from bms.trial.ledger import judge
from bms.trial.log import MAINS
from bms.trial.play import Played, play
from hal.contract import Severity

ROW = ExpectRow(Fault.INTERLOCK_OPEN, Severity.FATAL)


@pytest.fixture
def played(make) -> Played:
    return play(make())


def expecting(played: Played, *rows: ExpectRow, **more: object) -> Played:
    played.trial = replace(played.trial, expect=Expect(rows=rows, **more))
    return played


def test_a_line_of_the_ledger(played: Played) -> None:
    verdict = judge(played)
    (entry,) = verdict.entries
    assert verdict.passed
    assert (entry.row, entry.fault, entry.tier) == (303, "interlock_open", "fatal")
    # injected at 39.01 s, seen and asked to open at 40 s, contacts after 0.1 s
    assert entry.detect_ms == pytest.approx(990.0)
    assert entry.react_ms == pytest.approx(990.0)
    assert entry.open_ms == pytest.approx(1090.0)
    assert entry.budget_ms == 2000.0
    assert entry.spent_ms == entry.open_ms
    assert entry.value == 1.0
    assert verdict.cells == [(303, "connected", "lfp", "mild", "middle")]


def test_times_count_from_where_they_are_told_to(played: Played) -> None:
    (entry,) = judge(expecting(played, replace(ROW, since=38.0))).entries
    assert entry.detect_ms == pytest.approx(2000.0)
    (entry,) = judge(expecting(played, replace(ROW, since="threshold"))).entries
    assert entry.detect_ms == pytest.approx(0.0)
    assert any("before the injection" in text for text in judge(expecting(played, replace(ROW, since=50.0))).failures)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (replace(ROW, detect_ms=900.0), "detected after 990 ms, 900 ms allowed"),
        (replace(ROW, react_ms=900.0), "reaction after 990 ms, 900 ms allowed"),
        (replace(ROW, open_ms=1000.0), "contactors open after 1090 ms, 1000 ms allowed"),
        (replace(ROW, at=(3,)), "expected at 3"),
        (replace(ROW, value=(2.0, 3.0)), "value 1, expected 2..3"),
        (replace(ROW, reaction=Reaction.NO_BALANCING | Reaction.COOL), "the coolant is not asked"),
        (ExpectRow(Fault.GAS_ALARM, Severity.FATAL), "gas alarm fatal: not seen"),
        (ExpectRow(Fault.GAS_ALARM, Severity.INFO), "this row is not in the fault table"),
    ],
)
def test_an_expectation_that_is_not_met_is_told(row: ExpectRow, complaint: str, played: Played) -> None:
    verdict = judge(expecting(played, row, allow=frozenset({Fault.INTERLOCK_OPEN})))
    assert any(complaint in text for text in verdict.failures), verdict.failures
    assert not verdict.cells


def test_a_fatal_row_that_opens_nothing_is_never_in_time(make) -> None:
    own = {"fault": {"interlock_open": {"fatal": {"reaction": ["no_close"]}}}}
    played = play(make(controller=own))
    assert judge(expecting(played, ROW)).passed
    (text,) = judge(expecting(played, replace(ROW, open_ms=500.0))).failures
    assert text.endswith("it does not open the contactors, 500 ms allowed")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({}, "unexpected: interlock open fatal at 40 s"),
        ({"allow": frozenset({Fault.INTERLOCK_OPEN}), "state": (3,)}, "the state at the end is fault"),
        ({"allow": frozenset({Fault.INTERLOCK_OPEN}), "contactors": "closed"}, "open at the end, expected closed"),
        ({"allow": frozenset({Fault.INTERLOCK_OPEN}), "never_closed": True}, "the contactors are closed at"),
        ({"forbid": ((Fault.INTERLOCK_OPEN, Severity.FATAL),)}, "interlock open fatal was shown"),
        ({"bounds": (("cell_v_max", 3.0),)}, "cell_v_max = 3."),
        ({"bounds": (("cell_v_min", "v_max"),)}, "cell_v_min = 3."),
        ({"bounds": (("current_at_end_a", -1),)}, "current_at_end_a = 0, at most -1"),
    ],
)
def test_what_else_is_expected(more: dict, complaint: str, played: Played) -> None:
    if "state" in more:
        from hal.contract import RackState

        more = {**more, "state": (RackState.CONNECTED,)}
    failures = judge(expecting(played, **more)).failures
    assert any(complaint in text for text in failures), failures


def _closes(played: Played) -> None:
    played.log.asked[50:] = MAINS


def _stays_closed(played: Played) -> None:
    played.log.asked[40:] = MAINS


def _does_not_part(played: Played) -> None:
    played.log.closed[38:] = True


def _other_cause(played: Played) -> None:
    played.log.cause[40:] = 323


def _too_hot(played: Played) -> None:
    played.log.true_degc[20, 3] = 66.0


def _too_strong(played: Played) -> None:
    played.log.true_a[20] = 1000.0


def _bled(played: Played) -> None:
    played.events = ["tried to break 900 A: main contactors welded"]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_closes, "a contactor is closed at 50 s although interlock open forbids it"),
        (_stays_closed, "the contactors stay closed"),
        (_stays_closed, "interlock open: shown at 40 s, but the contactors are not asked to open"),
        (_does_not_part, "were asked to open and did not part"),
        (_other_cause, "the cause is told as gas alarm"),
        (_too_hot, "a cell reached 66.0 degC"),
        (_too_strong, "1000 A flowed at 20 s"),
        (_bled, "the contactors were harmed: tried to break 900 A"),
    ],
)
def test_what_must_never_happen_is_found(spoil, complaint: str, played: Played) -> None:
    spoil(played)
    failures = judge(played).failures
    assert any(complaint in text for text in failures), failures


def test_limits_that_do_not_fall_are_found(make) -> None:
    tables = {
        "run": {"duration": "75s"},
        "fault": [{"kind": "cell_v_missing", "index": [7], "at_s": 39.01}],
        "expect": {"row": [{"fault": "cell_voltage_lost", "tiers": ["info", "warning", "fatal"]}]},
    }
    played = play(make(tables))
    verdict = judge(played)
    info, warning, fatal = verdict.entries
    assert verdict.passed
    assert info.detect_ms < warning.detect_ms < fatal.detect_ms < fatal.open_ms
    assert info.budget_ms == 1e3 * (3.0 + ledger.SLACK_STEPS)  # the value is the time itself
    played.log.discharge_a[:] = 280.0
    failures = judge(played).failures
    assert "cell voltage lost info: the discharge limit is 280.0 A, not derated to 140.0 A" in failures
    assert any("cell voltage lost warning: the discharge limit is 280.0 A" in text for text in failures)


def test_an_interrupted_excursion_does_not_start_the_clock(make) -> None:
    played = play(make())
    fault = Fault.INTERLOCK_OPEN
    played.log.value[20, fault] = 1.0  # for one sample
    played.log.value[39, fault] = np.nan  # holds what was
    (entry,) = judge(expecting(played, replace(ROW, since="threshold"))).entries
    assert entry.inject_s == 40.0


def test_bands() -> None:
    assert [ledger.degc_band(x) for x in (-5.0, 5.0, 40.0, 41.0)] == ["cold", "mild", "mild", "hot"]
    assert [ledger.soc_band(x) for x in (0.1, 0.15, 0.85, 0.9)] == ["empty", "middle", "middle", "full"]
    assert set(ledger.BANDS) == {"cold", "mild", "hot", "empty", "middle", "full"}


def test_a_row_that_comes_twice_is_followed_twice(make) -> None:
    """Each time the limits have their ramp; the second is not held against the first."""
    change = {"channel": "cell_v", "kind": "nan", "index": 7}
    tables = {
        "run": {"duration": "110s"},
        "fault": [],
        "change": [change | {"at_s": 39.01, "until_s": 45.6}, change | {"at_s": 80.01, "until_s": 86.6}],
        "expect": {"row": [{"fault": "cell_voltage_lost", "tiers": ["warning"]}]},
    }
    played = play(make(tables))
    assert judge(played).failures == []
    shown = played.log.shows(Fault.CELL_VOLTAGE_LOST, Severity.WARNING)
    first, second = ledger._begins(shown)
    assert first == 45
    limit_a = played.log.discharge_a
    assert limit_a[second] > limit_a[second + 1]
    limit_a[second:] = limit_a[second - 1]
    (text,) = judge(played).failures
    assert "cell voltage lost warning: the discharge limit is" in text
    assert text.endswith(" s after")
    assert float(text.split()[-3]) < 5.0  # since it came again


def test_what_comes_again_after_a_reset_must_open_again(make) -> None:
    tables = {
        "run": {"duration": "90s"},
        "request": [{"request": "connect"}, {"at": 50, "request": "reset"}, {"at": 52, "request": "connect"}],
        "fault": [
            {"kind": "interlock_open", "at_s": 39.01, "until_s": 42.0}, {"kind": "interlock_open", "at_s": 80.01},
        ],
        "expect": {"row": [{"fault": "interlock_open"}]},
    }  # fmt: skip
    played = play(make(tables))
    assert judge(played).failures == []
    asked = played.log.asked
    assert asked[79] == MAINS
    assert asked[81] == 0
    asked[45] = MAINS
    assert "interlock open fatal: a contactor is asked to close at 45 s while it is shown" in judge(played).failures
    asked[45] = 0
    asked[81:] = MAINS
    assert "interlock open: shown at 81 s, but the contactors are not asked to open" in judge(played).failures
