"""Trials as JUnit XML, as build servers read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from bms.trial.outcome import FAILED, GAP, Outcome
from bms.trial.screen import DISCLAIMER, HEADER, line


def document(outcomes: Sequence[Outcome], made: Mapping[str, str]) -> str:
    """One suite for each file, with the properties `made`; each case has rack, seed, digest of the configuration, ...

    `made` says what was tried: engine, kernels, libraries.
    """
    root = ET.Element("testsuites", name="bms trial")
    for source in dict.fromkeys(outcome.source for outcome in outcomes):
        cases = [outcome for outcome in outcomes if outcome.source == source]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=Path(source).stem,
            tests=str(len(cases)),
            failures=str(sum(case.status == FAILED for case in cases)),
            errors="0",
            skipped=str(sum(case.status == GAP for case in cases)),
            time=f"{sum(case.wall_s for case in cases):.3f}",
        )
        properties = ET.SubElement(suite, "properties")
        for name, value in {"note": DISCLAIMER, **made}.items():
            ET.SubElement(properties, "property", name=name, value=value)
        for case in cases:
            _case(suite, case)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(suite: ET.Element, outcome: Outcome) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=Path(outcome.source).stem, name=outcome.id, time=f"{outcome.wall_s:.3f}"
    )
    properties = ET.SubElement(case, "properties")
    values = {
        "rack": outcome.rack, "seed": str(outcome.seed), "configuration": outcome.digest, "clause": outcome.clause,
        "tags": " ".join(outcome.tags), "simulated_s": f"{outcome.simulated_s:g}", "state_at_end": outcome.state_at_end,
    }  # fmt: skip
    if outcome.lead is not None:
        lead = outcome.lead.to_json()
        values["lead_row"] = outcome.lead.row
        values |= {name: f"{lead[name]:g}" for name in lead if name.startswith("lead_") and lead[name] is not None}
    for name, value in values.items():
        if value:
            ET.SubElement(properties, "property", name=name, value=value)
    if outcome.status == FAILED:
        failure = ET.SubElement(case, "failure", message=_clean("; ".join(outcome.failures)))
        failure.text = _clean("\n".join(outcome.failures))
    if outcome.status == GAP:
        ET.SubElement(case, "skipped", message=_clean(f"known gap: {outcome.gap}: {'; '.join(outcome.failures)}"))
    out = ET.SubElement(case, "system-out")
    out.text = _clean("\n".join([HEADER, *(line(outcome, entry) for entry in outcome.entries)]))


def _clean(text: str) -> str:
    """Without characters that XML has no way to write."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
