"""A finding is one line that names file, key, value, what is wrong and what to do."""

from bms import racks
from bms.core.faults import Fault
from bms.racks.findings import Finding, Findings
from hal.contract import Severity


def test_a_finding_reads_as_a_line() -> None:
    finding = Finding("error", "rack.toml", "limits.soc_max", "0.2", "leaves nothing", "take 1")
    assert str(finding) == "rack.toml: limits.soc_max = 0.2: leaves nothing; take 1"


def test_rows_are_found_by_fault_and_tier(lfp: racks.RackConfig) -> None:
    found = Findings(lfp)
    row = found.row(Fault.GAS_ALARM, Severity.FATAL)
    assert row is not None
    assert found.row(Fault.GAS_ALARM, Severity.INFO) is None
    assert [r.severity for r in found.tiers(Fault.CURRENT_LOST)] == [Severity.INFO, Severity.WARNING, Severity.FATAL]
    found.row_error(row, "set_s", 1.23456789, "text", "remedy")
    found.row_warning(row, "latch", False, "text", "remedy")
    assert [(f.severity, f.key, f.value) for f in found.found] == [
        ("error", "fault.gas_alarm.fatal.set_s", "1.23457"),
        ("warning", "fault.gas_alarm.fatal.latch", "false"),
    ]
