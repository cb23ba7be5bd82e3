"""Lints of the fault table at their edges; whole wrong files are in test_check.py."""

import dataclasses

import pytest

from bms import racks
from bms.core.faults import Fault
from bms.racks.findings import Findings
from bms.racks.lint_rows import detection_s, reaction_s
from hal.contract import Severity

from .conftest import Look


@pytest.mark.parametrize(
    ("fault", "detect_s", "react_s"),
    [
        (Fault.CELL_OVERVOLTAGE, 1.0 + 1.5, 0.2),  # set time and a period; opens at once
        (Fault.CELL_UNDERVOLTAGE, 1.0 + 1.5, 5.0 + 1.0 + 0.2),  # the ramp, and the step that notices its end
        (Fault.SAMPLE_LOST, 5.0 + 1.0, 6.2),  # the value itself is a time
        (Fault.CURRENT_LOST, 2.0 + 5.0 + 1.0, 6.2),  # and what is lost was usable for signals.max_age_s
        (Fault.EMERGENCY_STOP, 1.0, 0.2),
    ],
)
def test_times_from_fault_to_open_contacts(
    lfp: racks.RackConfig, fault: Fault, detect_s: float, react_s: float
) -> None:
    findings = Findings(lfp)
    row = findings.row(fault, Severity.FATAL)
    assert row is not None
    assert detection_s(findings, row) == pytest.approx(detect_s)
    assert reaction_s(findings, row) == pytest.approx(react_s)


def test_a_tenth_of_the_fault_tolerant_time_must_be_left(look: Look) -> None:
    """Over-voltage takes 1.5 s + period 1 s + 0.2 s = 2.7 s."""

    def severities(ftti_s: float) -> list[str]:
        return [f.severity for f in look(fault={"cell_overvoltage": {"fatal": {"ftti_s": ftti_s}}})]

    assert severities(3.1) == []
    assert severities(2.9) == ["warning"]
    assert severities(2.6) == ["error"]


def test_noise_counts_where_it_would_set_and_clear(look: Look) -> None:
    def keys(clear: float, clear_s: float) -> list[str]:
        change = {"cell_overvoltage": {"fatal": {"clear": clear, "clear_s": clear_s}}}
        return [f.key for f in look(fault=change)]

    assert keys(3.698, 10.0) == ["fault.cell_overvoltage.fatal.clear"]
    assert keys(3.696, 10.0) == []
    assert keys(3.698, 60.0) == []  # a minute inside is no noise


def test_equal_thresholds_are_fine_if_the_stricter_takes_longer(look: Look) -> None:
    assert look(fault={"value_out_of_range": {"warning": {"set_s": 2.0}}}) == []
    keys = [f.key for f in look(fault={"value_out_of_range": {"info": {"set_s": 5.0}}})]
    assert keys == ["fault.value_out_of_range.info.set_s"]


def test_low_values_are_ordered_the_other_way_round(look: Look) -> None:
    keys = [f.key for f in look(fault={"cell_undervoltage": {"info": {"threshold": 2.45}}})]
    assert keys == ["fault.cell_undervoltage.info.threshold"]


def test_an_info_row_that_stops_the_rack_is_told(look: Look) -> None:
    found = look(fault={"cell_leak": {"info": {"reaction": ["no_charge"]}}})
    assert [(f.severity, f.key) for f in found] == [("warning", "fault.cell_leak.info.reaction")]


def test_a_measured_value_needs_more_than_one_sample(look: Look) -> None:
    found = look(fault={"cell_overvoltage": {"fatal": {"set_s": 0.0}}})
    assert [(f.severity, f.key) for f in found] == [("warning", "fault.cell_overvoltage.fatal.set_s")]


def test_a_fatal_row_without_its_time_is_told(lfp: racks.RackConfig) -> None:
    from bms.racks.check import check

    rows = tuple(dataclasses.replace(row, ftti_s=None) if row.id == 13 else row for row in lfp.rows)
    found = check(dataclasses.replace(lfp, rows=rows))
    assert [(f.severity, f.key) for f in found] == [("error", "fault.cell_overvoltage.fatal.ftti_s")]
