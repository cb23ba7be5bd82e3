"""Every fault at every severity has events of SunSpec, every state of the controller a state."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sunspec2 import device

from bms.core.faults import Fault
from hal.contract import N_FAULT_WORDS, Command, RackState, Severity
from hal.errors import ConfigError
from hal.pcs import events
from hal.pcs.events import Events, bits

TABLE = events.load()
WORDS = {Severity.INFO: "fault_info", Severity.WARNING: "fault_warning", Severity.FATAL: "fault_fatal"}


def with_fault(fault: int, severity: Severity) -> Command:
    command = Command(4, 1)
    getattr(command, WORDS[severity])[fault // 32] = 1 << fault % 32
    if severity == Severity.FATAL:
        command.head["cause"] = 10 * fault + 3
    return command


def names_of(word: int, point: str = "Evt1") -> set[str]:
    """Names of the bits, as pysunspec2's definition has them."""
    points = device.get_model_def(802)["group"]["points"]
    symbols = next(p for p in points if p["name"] == point)["symbols"]
    named = {s["value"]: s["name"] for s in symbols}
    return {named[k] for k in range(32) if word >> k & 1}


def test_the_table_has_every_fault_under_its_name_and_no_other() -> None:
    assert TABLE.names == {int(fault): fault.name.lower() for fault in Fault}


@pytest.mark.parametrize("severity", list(WORDS))
@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_has_an_event_at_every_severity(fault: Fault, severity: Severity) -> None:
    shown = TABLE.shown(with_fault(fault, severity))
    words = {"evt1": shown.evt1, "near": shown.near}
    own = "near" if severity == Severity.INFO else "evt1"
    assert words.pop(own)
    assert not any(words.values())
    names = names_of(getattr(shown, own))
    pairs = {name for name in names if name.endswith(("_ALARM", "_WARNING"))}
    if severity == Severity.FATAL:
        assert any(name.endswith("_ALARM") for name in pairs)
        assert pairs - {"VOLTAGE_IMBALANCE_WARNING"} == {name for name in pairs if name.endswith("_ALARM")}
        assert shown.con_fail
    else:
        assert pairs
        assert all(name.endswith("_WARNING") for name in pairs)
    assert bool(shown.vendor) == (severity != Severity.INFO and TABLE.of(fault).vendor != 0)


@pytest.mark.parametrize(
    ("fault", "alarm", "warning", "fail"),
    [
        (Fault.CELL_OVERVOLTAGE, {"OVER_VOLT_ALARM"}, {"OVER_VOLT_WARNING"}, 3),
        (Fault.DEEP_DISCHARGE, {"UNDER_VOLT_ALARM"}, {"UNDER_VOLT_WARNING"}, 3),
        (Fault.CHARGE_HOT, {"OVER_TEMP_ALARM"}, {"OVER_TEMP_WARNING"}, 8),
        (Fault.DISCHARGE_COLD, {"UNDER_TEMP_ALARM"}, {"UNDER_TEMP_WARNING"}, 8),
        (Fault.CHARGE_LIMIT, {"OVER_CHARGE_CURRENT_ALARM"}, {"OVER_CHARGE_CURRENT_WARNING"}, 8),
        (Fault.DISCHARGE_I2T, {"OVER_DISCHARGE_CURRENT_ALARM"}, {"OVER_DISCHARGE_CURRENT_WARNING"}, 8),
        (Fault.SOC_LOW, {"UNDER_SOC_MIN_ALARM"}, {"UNDER_SOC_MIN_WARNING"}, 8),
        (Fault.INSULATION_NEGATIVE, {"GROUND_FAULT", "OTHER_ALARM"}, {"GROUND_FAULT", "OTHER_WARNING"}, 2),
        (Fault.CONTACTOR_WELDED, {"CONTACTOR_ERROR", "OTHER_ALARM"}, {"CONTACTOR_ERROR", "OTHER_WARNING"}, 6),
        (Fault.EMERGENCY_STOP, {"OTHER_ALARM"}, {"OTHER_WARNING"}, 1),
        (Fault.PRECHARGE_TIMEOUT, {"OTHER_ALARM"}, {"OTHER_WARNING"}, 7),
        (Fault.SAMPLE_LOST, {"COMMUNICATION_ERROR", "OTHER_ALARM"}, {"COMMUNICATION_ERROR", "OTHER_WARNING"}, 8),
    ],
)
def test_what_the_better_known_ones_are_called(fault: Fault, alarm: set[str], warning: set[str], fail: int) -> None:
    fatal = TABLE.shown(with_fault(fault, Severity.FATAL))
    assert (names_of(fatal.evt1), fatal.con_fail) == (alarm, fail)
    assert names_of(TABLE.shown(with_fault(fault, Severity.WARNING)).evt1) == warning
    assert names_of(TABLE.shown(with_fault(fault, Severity.INFO)).near) == warning


def test_a_runaway_has_a_bit_of_the_vendor_and_no_other_fault_has_that() -> None:
    for fault, bit in ((Fault.RUNAWAY, 3), (Fault.RUNAWAY_RATES, 4)):
        having = [other for other in Fault if TABLE.of(other).vendor >> bit & 1]
        assert having == [fault]


@pytest.mark.parametrize(("cause", "fail"), [(313, 1), (353, 6), (0, 3), (993, 3)])
def test_the_fault_that_came_first_says_why_it_failed(cause: int, fail: int) -> None:
    command = Command(4, 1)
    for fault in (Fault.CELL_OVERVOLTAGE, Fault.EMERGENCY_STOP, Fault.CONTACTOR_STUCK_OPEN):
        command.fault_fatal[fault // 32] |= np.uint32(1 << fault % 32)
    command.head["cause"] = cause
    assert TABLE.shown(command).con_fail == fail


def test_what_prevents_connecting_is_told_already_as_a_warning() -> None:
    told = {fault: TABLE.shown(with_fault(fault, Severity.WARNING)).con_fail for fault in Fault}
    assert told[Fault.PRECHARGE_ATTEMPTS] == 7
    assert told[Fault.INSULATION] == 2
    assert told[Fault.CELL_OVERVOLTAGE] == told[Fault.CONTACTOR_WORN] == 0


@given(st.lists(st.integers(0, 95)), st.lists(st.integers(0, 95)), st.lists(st.integers(0, 95)), st.integers(0, 65535))
def test_events_of_several_faults_are_those_of_each(
    info: list[int], warning: list[int], fatal: list[int], cause: int
) -> None:
    command, expected = Command(4, 1), [0, 0, 0]
    command.head["cause"] = cause
    for severity, faults in ((Severity.INFO, info), (Severity.WARNING, warning), (Severity.FATAL, fatal)):
        for fault in faults:
            getattr(command, WORDS[severity])[fault // 32] |= np.uint32(1 << fault % 32)
            one = TABLE.shown(with_fault(fault, severity))
            expected = [a | b for a, b in zip(expected, (one.evt1, one.vendor, one.near), strict=True)]
    shown = TABLE.shown(command)
    assert [shown.evt1, shown.vendor, shown.near] == expected
    assert (shown.con_fail != 0) >= bool(fatal)


@given(st.lists(st.integers(0, 32 * N_FAULT_WORDS - 1), unique=True))
def test_bits_are_found(faults: list[int]) -> None:
    words = np.zeros(N_FAULT_WORDS, np.uint32)
    for fault in faults:
        words[fault // 32] |= np.uint32(1 << fault % 32)
    assert list(bits(words)) == sorted(faults)


STATES = {
    1: {"STANDBY", "LOCKOUT", "MAINTENANCE", "TRANSPORT_DRAIN", "TRANSPORT"},
    2: {"INIT", "SELF_TEST", "PRECHARGE", "TRANSPORT_PRECHARGE"},
    3: {"CONNECTED"},
    5: {"TRANSPORT_CHARGE"},
    6: {"RAMP_DOWN", "OPENING"},
    99: {"FAULT", "EMERGENCY_STOP"},
}


def test_every_state_has_its_number() -> None:
    assert {code: {s.name for s in RackState if TABLE.state[s] == code} for code in STATES} == STATES
    assert sum(len(names) for names in STATES.values()) == len(RackState)


def test_a_fault_that_the_table_does_not_know_is_some_other_one() -> None:
    assert names_of(TABLE.shown(with_fault(95, Severity.FATAL)).evt1) == {"OTHER_ALARM"}
    assert names_of(TABLE.shown(with_fault(95, Severity.WARNING)).evt1) == {"OTHER_WARNING"}
    assert TABLE.shown(with_fault(95, Severity.FATAL)).con_fail == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["state"].pop("FAULT"), "[state] FAULT: 'None' has no number"),
        (lambda t: t["state"].update(FAULT="BROKEN"), "[state] FAULT: 'BROKEN' has no number"),
        (lambda t: t["event"][0].update(alarm=["OVER_VOLTAGE_ALARM"]), "did you mean 'OVER_VOLT_ALARM'"),
        (lambda t: t["event"][1].update(warning=["X"]), "[[event]] number 2, warning: 'X'"),
        (lambda t: t["event"][0].update(vendor="x"), "[[event]] number 1, vendor: 'x'"),
        (lambda t: t["event"][0].update(con_fail="x"), "con_fail: 'x'"),
        (lambda t: t["event"][0].update(state="x"), "state: 'x'"),
        (lambda t: t["event"][0]["faults"].update(again=2), "the fault 2 (cell_undervoltage) stands there twice"),
        (lambda t: t["vendor"].pop("energy_manager_silent"), "[vendor]: 'energy_manager_silent'"),
    ],
)
def test_mistakes_in_the_table_are_told_with_their_place(change: Any, said: str) -> None:
    table = copy.deepcopy(tomllib.loads(events.FOLDER.joinpath("events.toml").read_text()))
    change(table)
    with pytest.raises(ConfigError) as error:
        Events(table, "events.toml")
    assert said in str(error.value)
