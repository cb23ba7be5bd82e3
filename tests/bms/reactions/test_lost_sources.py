"""A source that is lost: the limits are cut, then ramp to zero, then the contactors open, each in its time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from bms.core.faults import Fault, Reaction, row_id
from bms.core.machine_table import Request
from hal.backends.chaos import Change
from hal.contract import Constraint, RackState, Severity

AT_S = 39.01
INFO, WARNING, FATAL = Severity.INFO, Severity.WARNING, Severity.FATAL
F = Fault

SOURCES: dict[str, tuple[Fault, Mapping[str, Any]]] = {
    "cell_voltage": (F.CELL_VOLTAGE_LOST, {"kind": "cell_v_missing", "index": [7]}),
    "temperature": (F.TEMPERATURE_LOST, {"kind": "sensor_missing", "index": [2]}),
    "current": (F.CURRENT_LOST, {"kind": "current_missing"}),
    "pack_voltage": (F.PACK_VOLTAGE_LOST, {"kind": "pack_v_missing"}),
    "bus_voltage": (F.BUS_VOLTAGE_LOST, {"kind": "bus_v_missing"}),
    "feedback": (F.FEEDBACK_LOST, {"kind": "feedback_missing"}),
    "gas": (F.GAS_LOST, {"kind": "gas_missing"}),
    "coolant_flow": (F.COOLANT_LOST, {"kind": "coolant_flow_missing"}),
    "bleeding": (F.BLEED_LOST, {"kind": "bleed_feedback_missing"}),
    "insulation": (F.INSULATION_INVALID, {"kind": "insulation_missing"}),
    "sample": (F.SAMPLE_LOST, {"kind": "scan_stalled"}),
}
"""Every source, the fault that tells that it is lost, and how the twin loses it."""

WATCHED_S = {F.GAS_LOST: 3700.0, F.INSULATION_INVALID: 1900.0, F.TEMPERATURE_LOST: 90.0, F.SAMPLE_LOST: 40.0}
STEPS = {
    # tier: share of the rated limits that is left, once the ramp is over
    F.CELL_VOLTAGE_LOST: {INFO: 0.5, WARNING: 0.0},
    F.TEMPERATURE_LOST: {INFO: 0.5, WARNING: 0.0},
    F.CURRENT_LOST: {INFO: 0.5, WARNING: 0.0},
    F.SAMPLE_LOST: {INFO: 0.5, WARNING: 0.0},
    F.PACK_VOLTAGE_LOST: {INFO: 0.5, WARNING: 0.5},
    F.FEEDBACK_LOST: {INFO: 0.5, WARNING: 0.5},
    F.BUS_VOLTAGE_LOST: {INFO: 1.0, WARNING: 0.5},
    F.GAS_LOST: {INFO: 1.0, WARNING: 0.5},
    F.COOLANT_LOST: {INFO: 1.0, WARNING: 0.5},
    F.BLEED_LOST: {INFO: 1.0, WARNING: 1.0},
    F.INSULATION_INVALID: {INFO: 1.0, WARNING: 1.0},
}
"""What each tier leaves: sources without which limits cannot be kept end at zero, others are replaced by another."""


def test_each_lost_source_is_tried() -> None:
    lost = {fault for fault in Fault if fault.name.endswith("_LOST")} | {F.INSULATION_INVALID}
    assert {fault for fault, _ in SOURCES.values()} == lost == set(STEPS)


def _lose(trial: Any, fault: Fault, wrong: Mapping[str, Any], **setup: Any) -> Any:
    t = trial(faults=[{"at_s": AT_S, **wrong}], duty={"current_a": 60.0}, **setup)
    before = t.connected()
    assert before.discharge_a == before.charge_a == pytest.approx(280.0)
    t.run(AT_S + WATCHED_S.get(fault, 330.0))
    return t


@pytest.mark.parametrize("source", SOURCES)
def test_limits_fall_step_by_step_and_then_the_contactors_open(source: str, trial: Any) -> None:
    fault, wrong = SOURCES[source]
    t = _lose(trial, fault, wrong)
    ramp_s, rated_a = t.settings.limits.ramp_s, t.settings.basis.discharge_a
    reached = {tier: t.first(lambda m, tier=tier: m.shows(fault, tier)) for tier in (INFO, WARNING, FATAL)}

    for tier, left in STEPS[fault].items():
        at, row = reached[tier], t.row(fault, tier)
        assert at is not None
        # no sooner than the row says, no later than two steps more
        assert row.threshold <= at.time_s - AT_S + t.period_s <= row.threshold + 3.0 * t.period_s
        then = t.first(lambda m, at=at: m.time_s >= at.time_s + ramp_s, at.time_s)
        if tier == INFO and reached[WARNING].time_s <= at.time_s + ramp_s:
            then = at
        limits = (then.discharge_a, then.charge_a)
        assert max(limits) <= left * rated_a + 0.01
        if fault != F.SAMPLE_LOST:  # of nothing is nothing left, at once
            assert min(limits) >= min(left, t.settings.limits.derate) * rated_a - 0.01
        if left < 1.0 and then.discharge_a > 0.0:
            told = row_id(fault, tier)
            assert (Constraint.FAULT, told) in set(zip(then.reason[8:], then.reason_index[8:], strict=True))
    # falls and never rises
    since = reached[INFO].time_s
    limits = [m.discharge_a for m in t.log if m.time_s >= since]
    assert all(b <= a + 0.01 for a, b in pairwise(limits))

    if (fault, FATAL) not in t.rows:
        assert reached[FATAL] is None
        assert t.log[-1].state == RackState.CONNECTED  # others tell in time what this source would have told
        return
    at, row = reached[FATAL], t.row(fault, FATAL)
    assert row.threshold <= at.time_s - AT_S + t.period_s <= row.threshold + 3.0 * t.period_s
    opened = t.first(lambda m: not m.path, at.time_s)
    assert opened.time_s - AT_S <= row.ftti_s
    assert at.cause == row_id(fault, FATAL)
    assert at.state == RackState.RAMP_DOWN
    # what is interrupted is no more than what the last step of the ramp takes away
    broken_a = abs(next(m for m in t.log if m.time_s == opened.time_s - t.period_s).true_a)
    assert broken_a <= max(1.001 * rated_a * t.period_s / ramp_s, 0.02 * t.info.capacity_ah)
    t.check_truth()


@pytest.mark.parametrize("source", [name for name, (fault, _) in SOURCES.items() if fault != F.SAMPLE_LOST])
def test_what_comes_back_in_time_leads_back_to_the_whole_limits(source: str, trial: Any) -> None:
    fault, wrong = SOURCES[source]
    row = trial().row(fault, INFO)
    back_s = AT_S + row.threshold + 2.0
    t = trial(faults=[{"at_s": AT_S, "until_s": back_s, **wrong}])
    t.connected()
    t.run(back_s + 0.75 * row.threshold + row.clear_s + 40.0)  # the time without it fades first
    assert t.first(lambda m: m.shows(fault, INFO)) is not None
    last = t.log[-1]
    assert not last.shows(fault, INFO)
    assert last.state == RackState.CONNECTED
    assert last.discharge_a == pytest.approx(280.0)
    assert last.charge_a == pytest.approx(280.0)


@pytest.mark.parametrize(
    "channel",
    ["cell_v", "sensor_degc", "current_a", "pack_v", "bus_v", "insulation_ohm", "coolant_in_degc", "coolant_flow_lpm"],
)
def test_a_value_that_grows_old_is_lost_as_one_that_is_missing(channel: str, trial: Any) -> None:
    faults = {
        "cell_v": F.CELL_VOLTAGE_LOST, "sensor_degc": F.TEMPERATURE_LOST, "current_a": F.CURRENT_LOST,
        "pack_v": F.PACK_VOLTAGE_LOST, "bus_v": F.BUS_VOLTAGE_LOST, "insulation_ohm": F.INSULATION_INVALID,
        "coolant_in_degc": F.COOLANT_LOST, "coolant_flow_lpm": F.COOLANT_LOST,
    }  # fmt: skip
    fault = faults[channel]
    index = 3 if channel in ("cell_v", "sensor_degc") else None
    t = trial(changes=[Change(channel, "stale", index=index, from_s=AT_S)])
    t.connected()
    row, signals = t.row(fault, WARNING), t.settings.signals
    old_s = signals.insulation_max_age_s if channel == "insulation_ohm" else signals.max_age_s
    t.run(AT_S + old_s + row.threshold + 5.0)
    seen = t.first(lambda m: m.shows(fault, WARNING))
    assert seen is not None
    assert seen.time_s - AT_S >= old_s + row.threshold - 2.0 * t.period_s
    if index is not None:
        assert seen.where[fault] == index


@pytest.mark.parametrize(
    ("channel", "index"),
    [
        *(("cell_v", 3), ("sensor_degc", 1), ("current_a", None), ("pack_v", None), ("bus_v", None)),
        *(("insulation_ohm", None), ("coolant_flow_lpm", None), ("coolant_in_degc", None), ("contactors", None)),
        *(("gas_alarm", None), ("bleeding", None)),
        *(("cell_v", None), ("sensor_degc", None)),
    ],
)
def test_one_sample_that_is_missing_changes_nothing(channel: str, index: int | None, trial: Any) -> None:
    t = trial(changes=[Change(channel, "missing", index=index, from_s=45.5, until_s=46.5)])
    t.connected()
    t.run(60.0)
    assert not any(m.bits != (0, 0, 0) for m in t.log)
    assert all(m.discharge_a == m.charge_a == pytest.approx(280.0) for m in t.log if m.time_s >= 40.0)


def test_a_flickering_source_is_not_used_for_ever(trial: Any) -> None:
    """Half of the samples are missing, for four seconds at a time: limits are cut each time, and rise slowly in between; nothing closes on it."""
    t = trial(changes=[Change("cell_v", "flicker", index=5, value=8.0, from_s=AT_S)])
    t.connected()
    t.run(120.0)
    assert t.first(lambda m: m.shows(F.CELL_VOLTAGE_LOST, INFO)) is not None
    assert all(m.discharge_a <= 0.7 * 280.0 for m in t.log if m.time_s >= 60.0)
    t.run(t.next_s + 30.0, Request.OPEN)
    since = len(t.log)
    t.run(t.next_s + 60.0)
    assert not any(m.path for m in t.log[since:])


def test_reactions_of_lost_sources_are_those_of_the_table(trial: Any) -> None:
    """STEPS is what the rows demand: a change there must be thought over here."""
    t = trial()
    for fault, tiers in STEPS.items():
        for tier, left in tiers.items():
            demanded = t.row(fault, tier).reaction
            stops = Reaction.NO_CHARGE | Reaction.NO_DISCHARGE
            share = 0.0 if demanded & stops == stops else 0.5 if demanded & Reaction.DERATE else 1.0
            assert share == left, (fault, tier)


@pytest.mark.parametrize("kind", ["zero", "missing"])
def test_nothing_closes_on_an_insulation_that_is_bad_or_not_known(kind: str, trial: Any) -> None:
    t = trial(changes=[Change("insulation_ohm", kind)])
    t.run(50.0)
    assert not any(m.path for m in t.log)


def test_nothing_closes_without_the_gas_detector(trial: Any) -> None:
    t = trial(faults=[{"kind": "gas_missing"}])
    t.run(50.0)
    assert not any(m.path for m in t.log)


def test_the_ramp_ends_before_the_contactors_open(trial: Any) -> None:
    """A first fault to ground at full current: nothing is broken under load, although there is a time-out."""
    t = trial(faults=[{"kind": "insulation", "value": 3000.0, "at_s": AT_S}], duty={"current_a": 280.0})
    t.connected()
    t.run(80.0)
    opened = next(k for k, m in enumerate(t.log) if m.time_s > AT_S and not m.path)
    assert abs(t.log[opened].true_a) <= 0.02 * t.info.capacity_ah, "as it is when they are asked to open"
    assert [m.discharge_a for m in t.log[opened - 3 : opened]] == pytest.approx([187.0, 93.0, 0.0], abs=3.0)
