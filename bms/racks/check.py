"""`check(config)`: everything that is wrong, or probably not meant, in a configuration that can be read."""

from __future__ import annotations

from bms.racks import lint_parts, lint_rows, lint_thresholds
from bms.racks.config import RackConfig
from bms.racks.findings import ERROR, Finding, Findings


def check(config: RackConfig) -> list[Finding]:
    """All findings, errors first; within a severity in the order in which the lints run."""
    findings = Findings(config)
    for lint in (lint_rows.lint, lint_thresholds.lint, lint_parts.lint):
        lint(findings)
    return sorted(findings.found, key=lambda finding: finding.severity != ERROR)
