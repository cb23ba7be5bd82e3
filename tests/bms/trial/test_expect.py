"""Expectations: what is understood, and one clear line for what is not."""

from __future__ import annotations

import pytest

from bms.core.faults import Fault, Reaction
from bms.trial.expect import ExpectLead, parse
from hal.contract import RackState, Severity
from hal.errors import ConfigError


def test_everything_arrives() -> None:
    row = {
        "fault": "cell_overvoltage", "tiers": ["info", "fatal"], "since": 40, "detect_ms": 1, "react_ms": 2, "open_ms": 3,
        "at": 5, "value": [3.6, "v_max"], "reaction": ["derate", "cool"],
    }  # fmt: skip
    expect = parse(
        {
            "row": [row],
            "state": ["fault", "lockout"],
            "contactors": "open",
            "allow": "gas_alarm",
            "forbid": ["deep_discharge", "soc_low.info"],
            "quiet": True,
            "never_closed": True,
            "bounds": {"cell_v_max": "v_max"},
            "lead": [{"before": "vented", "min_s": 30}, {"before": "neighbour_ignited", "of": "warning"}],
            "vented": [0, 2],
            "ignited": [1, 1],
            "cause": ["cell_sag"],
            "cause_at": 4,
        },
        "here",
    )
    info, fatal = expect.rows
    assert (info.severity, fatal.severity, fatal.id) == (Severity.INFO, Severity.FATAL, 13)
    assert (info.since, info.detect_ms, info.react_ms, info.open_ms, info.at) == (40.0, 1, 2, 3, (5,))
    assert info.reaction == Reaction.DERATE | Reaction.COOL
    assert expect.state == (RackState.FAULT, RackState.LOCKOUT)
    assert expect.allow == {Fault.GAS_ALARM}
    assert expect.forbid == ((Fault.DEEP_DISCHARGE, Severity.FATAL), (Fault.SOC_LOW, Severity.INFO))
    assert expect.bounds == (("cell_v_max", "v_max"),)
    assert expect.leads == (ExpectLead("vented", 30.0), ExpectLead("neighbour_ignited", 0.0, "warning"))
    assert (expect.vented, expect.ignited) == ((0, 2), (1, 1))
    assert (expect.cause, expect.cause_at) == ({Fault.CELL_SAG}, (4,))


def test_a_lead_time_may_be_one_table() -> None:
    assert parse({"lead": {"before": "ignited"}}, "here").leads == (ExpectLead("ignited"),)


def test_a_warning_may_be_forbidden_where_the_fatal_row_is_allowed() -> None:
    expect = parse({"forbid": ["cell_sag.warning"], "allow": ["cell_sag"]}, "here")
    assert expect.forbid == ((Fault.CELL_SAG, Severity.WARNING),)
    row = {"fault": "cell_sag", "tiers": ["warning", "fatal"]}
    assert len(parse({"quiet": True, "row": [row]}, "here").rows) == 2


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"rows": []}, r"unknown key 'rows' \(did you mean 'row'"),
        ({"row": {}}, r"expected \[\[expect.row\]\] tables"),
        ({"row": [{}]}, "row number 1: the key 'fault' is missing"),
        ({"row": [{"fault": "cell_overvolt"}]}, "did you mean 'cell_overvoltage'"),
        ({"row": [{"fault": "gas_alarm", "tiers": ["mild"]}]}, "tiers = 'mild'"),
        ({"row": [{"fault": "gas_alarm", "tiers": []}]}, "name at least one"),
        ({"row": [{"fault": "gas_alarm", "since": "soon"}]}, "since = 'soon'"),
        ({"row": [{"fault": "gas_alarm", "since": -10}]}, "since = -10: .* a time of the run in s, 0 or more"),
        ({"row": [{"fault": "gas_alarm", "open_ms": -1}]}, "open_ms = -1"),
        (
            {"row": [{"fault": "cell_sag", "tiers": ["info", "warning"], "open_ms": 9}]},
            "open_ms = 9: .* fatal tier alone",
        ),
        ({"row": [{"fault": "gas_alarm", "at": "x"}]}, "at = 'x'"),
        ({"row": [{"fault": "gas_alarm", "value": [1]}]}, r"expected \[lowest, highest\]"),
        ({"row": [{"fault": "gas_alarm", "reaction": "opn"}]}, "did you mean 'open'"),
        ({"state": "broken"}, "state = 'broken'"),
        ({"contactors": "ajar"}, "one of: open, closed, welded"),
        ({"quiet": 1}, "expected true or false"),
        ({"bounds": {"cell_v": 1}}, "unknown key 'cell_v'"),
        ({"bounds": {"cell_v_max": "v_mx"}}, "did you mean 'v_max'"),
        ({"allow": [3]}, "allow = 3"),
        ({"lead": 5}, r"expected a table, \[expect.lead\]"),
        ({"lead": {}}, "the key 'before' is missing; one of: vented, ignited, neighbour_ignited"),
        ({"lead": {"before": "melted"}}, "before = 'melted'"),
        ({"lead": {"before": "vented", "of": "info"}}, "of = 'info': one of: warning, fatal"),
        ({"lead": {"before": "vented", "min": 3}}, "unknown key 'min'"),
        ({"lead": {"before": "vented", "min_s": "x"}}, "min_s = 'x'"),
        ({"lead": {"before": "vented", "min_s": -3}}, "min_s = -3: expected a time in s, 0 or more"),
        ({"forbid": "cell_sag", "allow": "cell_sag"}, "forbid = 'cell_sag': allow has it, too"),
        (
            {"forbid": "gas_alarm", "row": [{"fault": "gas_alarm"}]},
            r"forbid = 'gas_alarm.fatal': \[\[expect.row\]\] exp",
        ),
        (
            {"never_closed": True, "contactors": "closed"},
            "contactors = 'closed': contradicts never_closed = true; remove one",
        ),
        (
            {"quiet": True, "row": [{"fault": "cell_sag", "tiers": ["warning"]}]},
            r"quiet = true: \[\[expect.row\]\] expects a warning of cell_sag; remove quiet, or allow 'cell_sag'",
        ),
        ({"vented": 1}, r"expected \[fewest, most\] cells"),
        ({"ignited": [0, -1]}, r"expected \[fewest, most\] cells"),
        ({"cause": ["fire"]}, "cause = 'fire'"),
        ({"cause_at": -1}, "cause_at = "),
        ({"forbid": ["gas_alarm.mild"]}, "forbid = 'mild'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(table: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        parse(table, "here")
    assert str(raised.value).startswith("here: [expect]")
    assert "\n" not in str(raised.value)
