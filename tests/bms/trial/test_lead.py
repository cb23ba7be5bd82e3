"""Lead times: from the first fatal row to what the twin says burnt, and what is told of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bms.core.faults import N_FAULTS, Fault
from bms.trial import junit, lead, page, screen
from bms.trial.coverage import covered
from bms.trial.expect import Expect, ExpectLead
from bms.trial.lead import Fire, Lead, fire_of, name_of
from bms.trial.ledger import judge
from bms.trial.outcome import Outcome, run_one
from bms.trial.play import Played, play
from hal.contract import NO_INDEX, Severity

NAN = math.nan
SHORT = {"kind": "internal_short", "index": [9], "value": 0.002, "at_s": 60}
BURNING = {
    "run": {"duration": "400s", "description": "a hard short"},
    "duty": {"kind": "constant"},
    "rack": {"initial_soc": 0.95},
    "fault": [SHORT],
    "expect": {
        "contactors": "open",
        "cause": ["cell_sag", "temperature_rise"],
        "cause_at": 9,
        "lead": {"before": "vented", "min_s": 100},
        "ignited": [1, 1],
        "allow": [
            "cell_sag", "temperature_rise", "temperature_neighbour", "temperature_spread", "temperature_model",
            "discharge_hot", "heat_residual", "gas_alarm", "cell_undervoltage", "deep_discharge", "model_residual",
            "current_implausible", "temperature_lost", "runaway",
        ],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def burnt(make) -> Outcome:
    return run_one(make(BURNING))


@pytest.fixture
def played(make) -> Played:
    return play(make(BURNING))


def fire(vented: list[float], ignited: list[float], lit: int | None = None) -> Fire:
    cells = np.zeros((len(vented), 1), np.bool_)
    if lit is not None:
        cells[lit] = True
    return Fire(np.array(vented)[:, None], np.array(ignited)[:, None], cells)


def test_events_of_a_fire() -> None:
    found = fire([50.0, 20.0, NAN], [NAN, 30.0, 90.0], lit=1)
    assert [found.at(event) for event in lead.EVENTS] == [20.0, 30.0, 90.0]
    assert (found.cells("vented"), found.cells("ignited")) == (2, 2)
    assert fire([NAN], [NAN]).at("vented") is None
    # where no cell was set on fire, the neighbour is the second to ignite
    assert fire([NAN, NAN], [40.0, 30.0]).at("neighbour_ignited") == 40.0
    assert fire([NAN], [40.0]).at("neighbour_ignited") is None


def test_what_was_set_on_fire_is_no_neighbour() -> None:
    times = np.full((3, 2), 7.0)
    rack = SimpleNamespace(burning=lambda: SimpleNamespace(vented_s=times, ignited_s=times))
    found = fire_of(rack, [SHORT | {"index": [1]}, {"kind": "cell_heat", "index": [2]}, {"kind": "coolant_stop"}])
    assert found is not None
    assert found.lit.tolist() == [[False, False], [True, False], [True, True]]
    assert fire_of(object(), []) is None


def test_names() -> None:
    ramp = SHORT | {"ramp_s": 600.0}
    assert name_of([]) == "none"
    assert name_of([ramp]) == "internal short 0.002 ohm within 600 s"
    assert name_of([{"kind": "gas_missing"}, {"kind": "heater"}, SHORT]) == (
        "heater + internal short 0.002 ohm, with gas missing"
    )


def test_a_cell_burns_and_was_told_of(burnt: Outcome) -> None:
    assert burnt.status == "passed", burnt.failures
    found = burnt.lead
    assert found is not None
    assert (found.fault, found.chemistry, found.n_vented, found.n_ignited) == ("internal short 0.002 ohm", "lfp", 1, 1)
    assert found.row in ("cell_sag.fatal", "temperature_rise.fatal")
    assert found.told_s is not None
    assert found.warned_s is not None
    assert found.vented_s is not None
    assert found.warned_s <= found.told_s < found.vented_s < found.ignited_s
    assert found.before("vented") == found.vented_s - found.told_s
    assert found.before("vented", "warning") >= found.before("vented")
    assert found.before("neighbour_ignited") == math.inf
    assert found.to_json()["lead_neighbour_ignited_s"] is None
    assert replace(found, told_s=None).before("vented") is None


def test_a_row_from_before_the_fault_is_no_lead() -> None:
    """Overtemperature is fatal all the time, rises again at 5 s; a sag comes at 4 s; the short began at 2 s."""
    shown = {Fault.DISCHARGE_HOT: [1, 1, 1, 1, 0, 1, 1], Fault.CELL_SAG: [0, 0, 0, 0, 1, 1, 1]}
    log = SimpleNamespace(
        time_s=np.arange(7.0),
        where=np.full((7, N_FAULTS), NO_INDEX),
        shows=lambda fault, severity: np.array(
            shown.get(fault, [0] * 7) if severity == Severity.FATAL else [0] * 7, bool
        ),
    )
    found = lead.lead_of(log, fire([6.0], [NAN], 0), 2.0, "short", "lfp")
    assert (found.row, found.told_s, found.before("vented")) == ("cell_sag.fatal", 2.0, 2.0)
    shown[Fault.CELL_SAG] = [0] * 7
    found = lead.lead_of(log, fire([6.0], [NAN], 0), 2.0, "short", "lfp")
    assert (found.row, found.told_s) == ("discharge_hot.fatal", 3.0)


def test_it_is_in_every_form_of_the_ledger(burnt: Outcome, passed: Outcome) -> None:
    found = burnt.lead
    assert found is not None
    value = json.loads(json.dumps(burnt.to_json()))["lead"]["lead_vented_s"]
    assert value == pytest.approx(found.before("vented"))
    text = "\n".join(screen.ledger([burnt, passed], everything=True))
    assert screen.LEAD_TITLE in text
    assert "internal short 0.002 ohm" in text
    assert screen.LEAD_TITLE not in "\n".join(screen.ledger([passed], everything=True))
    overcharged = replace(found, fault=lead.OVERCHARGE)
    assert lead.alone([found, overcharged, replace(found, fault=f"heater{lead.BESIDE}x")]) == [found, overcharged]
    beside = replace(burnt, lead=replace(found, fault=f"heater{lead.BESIDE}gas missing"))
    assert screen.LEAD_TITLE not in "\n".join(screen.ledger([beside], everything=False))
    root = ET.fromstring(junit.document([burnt], {}))
    properties = {p.get("name"): p.get("value") for p in root.findall(".//testcase/properties/property")}
    assert properties["lead_row"] == found.row
    assert float(properties["lead_vented_s"]) == pytest.approx(value, rel=1e-5)
    assert "lead_neighbour_ignited_s" not in properties
    shown = page.render([burnt, passed], covered([]), 1.0, "Title")
    assert "<h2>Lead times</h2>" in shown
    assert "1 cells vented, 1 ignited" in shown
    assert "burn at" in shown
    assert "<h2>Lead times</h2>" not in page.render([passed], covered([]), 1.0, "Title")


def test_the_table_takes_the_shortest() -> None:
    one = Lead("heater", "lfp", "gas_alarm.fatal", "", 1.0, 10.0, 100.0, None, None, 1, 0)
    other = replace(one, row="cell_sag.fatal", told_s=120.0)
    (line,) = lead.table([one, other])
    assert line == ("heater", "lfp", "2", "gas_alarm, cell_sag", "10..120", "-20 (1 of 2 too late)", "-", "-")
    (line,) = lead.table([replace(one, row="", told_s=None)])
    assert line[3:] == ("", "never", "never told", "-", "-")
    (line,) = lead.table([one, replace(one, row="", told_s=None)])
    assert line[4:6] == ("10..10 (1 of 2 never)", "90 (1 of 2 too late)")
    assert lead.markdown([one])[2].startswith("| heater | lfp | 1 | gas_alarm |")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"leads": (ExpectLead("vented", 1000.0),)}, "before vented, 1000 s expected"),
        ({"leads": (ExpectLead("ignited", 1000.0, "warning"),)}, "the first warning row is shown"),
        ({"vented": (2, 3)}, "1 cells have vented, expected 2..3"),
        ({"ignited": (0, 0)}, "1 cells have ignited, expected 0..0"),
        ({"cause": frozenset({Fault.GAS_ALARM})}, "the cause is told as"),
        ({"cause_at": (2,)}, "not where it is"),
    ],
)
def test_an_expectation_that_is_not_met_is_told(more: dict, complaint: str, played: Played) -> None:
    played.trial = replace(played.trial, expect=replace(Expect(allow=played.trial.expect.allow), **more))
    failures = judge(played).failures
    assert any(complaint in text for text in failures), failures


def test_what_is_not_told_is_a_failure(played: Played) -> None:
    played.log.bits[:] = 0
    played.log.cause[:] = 0
    failures = judge(played).failures
    assert "no fatal row is shown before vented" in failures
    assert "no cause is told" in failures
    played.fire = None
    assert any("nothing burns in this rack" in text for text in judge(played).failures)


def test_a_cause_without_its_place_and_warm_coolant_are_found(played: Played) -> None:
    played.log.cause_index[:] = NO_INDEX
    played.log.cooling_degc[-1] = 30.0
    failures = judge(played).failures
    assert any("not where it is" in text for text in failures), failures
    assert any("coolant of 30.0 degC is asked for" in text for text in failures), failures
