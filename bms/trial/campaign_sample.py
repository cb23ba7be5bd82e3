"""One sample of a campaign: its trial played, and the row of results that comes of it."""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bms.core.faults import Fault, row_of
from bms.trial import pool
from bms.trial.campaign import Campaign
from bms.trial.campaign_margin import margins, told
from bms.trial.ledger import Verdict, judge
from bms.trial.log import Log
from bms.trial.play import Played, play
from hal.contract import Severity
from hal.errors import ConfigError, RackBmsError

Row = dict[str, Any]

RESULTS: dict[str, type] = {
    "injected_s": float, "detect_s": float, "detected_by": str, "open_s": float, "cause": str,
    "vented_s": float, "ignited_s": float, "lead_venting_s": float, "lead_ignition_s": float, "burnt_cells": int,
    "false_warnings": int, "false_trips": int, "false_rows": str, "margins": str,
    "sound_s": float, "max_degc": float, "passed": bool, "failure": str,
    "simulated_s": float, "capacity_factor": float, "resistance_factor": float, "rack_seed": int, "digest": str,
}  # fmt: skip
"""Columns of the results beside `sample`, `id` and what is varied. Any of them may be missing in a row."""


def columns(campaign: Campaign) -> dict[str, type]:
    """All columns of the results: `sample`, `id`, `vary.NAME` for what is varied, and `RESULTS`."""
    return {"sample": int, "id": str, **{f"vary.{vary.name}": vary.type for vary in campaign.varied}, **RESULTS}


@functools.cache
def warm(urls: tuple[str, ...], engine_text: str) -> None:
    """Have the kernels of these racks in this process; the first call does it, further ones do nothing."""
    pool.prepare(urls, engine_text, quiet=True)


class SampleError(ConfigError):
    """A sample cannot be played: the campaign's file is wrong, though not for every sample."""


def run_sample(campaign: Campaign, k: int, record: Path | None = None) -> Row:
    """Play sample `k`; `record` is a folder for a recording. Raises `SampleError`."""
    row, _ = played_sample(campaign, k, record)
    return row


def played_sample(campaign: Campaign, k: int, record: Path | None = None) -> tuple[Row, tuple[Played, Verdict] | None]:
    """The row, and what was played; None where the trial broke, which is a finding and ends no campaign."""
    row: Row = dict.fromkeys(columns(campaign))
    row.update(sample=k, id=campaign.id_of(k))
    row.update({f"vary.{name}": value for name, value in campaign.shown(k).items()})
    try:
        played = play(campaign.trial(k), record=record)
        verdict = judge(played)
    except ConfigError as error:
        raise SampleError(str(error)) from error
    except RackBmsError:
        raise
    except Exception as error:
        row.update(passed=False, failure=f"broke: {type(error).__name__}: {error}", digest="")
        return row, None
    row.update(_results(campaign, played, verdict))
    return row, (played, verdict)


def _results(campaign: Campaign, played: Played, verdict: Verdict) -> Row:
    log, rack = played.log, played.trial.scenario.tables.get("rack", {})
    found: Row = {
        "passed": verdict.passed,
        "failure": "; ".join(verdict.failures),
        "simulated_s": float(log.dt_s.sum()),
        "capacity_factor": float(rack.get("capacity_factor", 1.0)),
        "resistance_factor": float(rack.get("resistance_factor", 1.0)),
        "rack_seed": played.seed,
        "digest": digest(log),
    }
    causes = np.flatnonzero(log.cause)
    if causes.size:
        found["cause"] = row_name(*row_of(int(log.cause[causes[0]])))
    start = len(log)
    if played.injected:
        injected_s = played.injected[0][0]
        found["injected_s"] = injected_s
        start = int(np.searchsorted(log.time_s, injected_s))
        found.update(_reaction(campaign, played, injected_s, start))
    found.update(_false_alarms(log, start))
    found["margins"] = told(margins(log, played.settings.rows, start, played.trial.scenario.period_s))
    found.update(_fire(played, found.get("injected_s"), found.get("detect_s")))
    return found


def row_name(fault: Fault, severity: Severity) -> str:
    """Name of a row of the fault table, such as `cell_leak.fatal`."""
    return f"{fault.name.lower()}.{severity.name.lower()}"


def digest(log: Log) -> str:
    """Of every number of every step: two runs with this in common are the same, bit for bit."""
    whole = hashlib.sha256()
    for name in sorted(log._columns):
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(getattr(log, name)).tobytes())
    return whole.hexdigest()[:16]


def _reaction(campaign: Campaign, played: Played, injected_s: float, start: int) -> Row:
    """First new row after the injection, and open contactors, in s since then."""
    log, found = played.log, Row()
    first: tuple[int, int, int] | None = None
    for severity in (Severity.FATAL, Severity.WARNING, Severity.INFO):
        if severity < campaign.tier:
            continue
        for fault in campaign.faults or tuple(Fault):
            shown = log.shows(fault, severity)[max(start - 1, 0) :]
            if shown.any() and not (shown[0] and start):
                hit = max(start - 1, 0) + int(np.argmax(shown))
                if first is None or (hit, -severity) < first[:2]:
                    first = hit, -severity, fault
    if first is not None:
        found["detect_s"] = float(log.time_s[first[0]]) - injected_s
        found["detected_by"] = row_name(Fault(first[2]), Severity(-first[1]))
    opened = np.flatnonzero(log.asked[start:] == 0)
    if opened.size:
        actuation_s = played.settings.machine.contactor_actuation_s
        found["open_s"] = float(log.time_s[start + opened[0]]) + actuation_s - injected_s
    return found


def _false_alarms(log: Log, start: int) -> Row:
    """Rows that are shown while nothing is wrong: before step `start`. Each counts once."""
    shown = {
        severity: [row_name(fault, severity) for fault in Fault if log.shows(fault, severity)[:start].any()]
        for severity in (Severity.FATAL, Severity.WARNING)
    }
    return {
        "false_warnings": len(shown[Severity.WARNING]),
        "false_trips": len(shown[Severity.FATAL]),
        "false_rows": ", ".join((*shown[Severity.FATAL], *shown[Severity.WARNING])),
        "sound_s": float(log.dt_s[:start].sum()),
    }


def _fire(played: Played, injected_s: float | None, detect_s: float | None) -> Row:
    """What burnt, of the twin's truth; times in s since the injection (since the start, where there was none)."""
    if not played.has_truth:
        return {}
    found: Row = {"max_degc": float(played.log.true_degc.max()), "burnt_cells": 0}
    burning = played.burning
    if burning is None:
        return found
    found["burnt_cells"] = int(burning.burnt.sum())
    found["max_degc"] = max(found["max_degc"], _largest(burning.hottest_degc))
    for name, lead, times in (
        ("vented_s", "lead_venting_s", burning.vented_s),
        ("ignited_s", "lead_ignition_s", burning.ignited_s),
    ):
        if np.isfinite(times).any():
            found[name] = float(np.nanmin(times)) - (injected_s or 0.0)
            if detect_s is not None:
                found[lead] = found[name] - detect_s
    return found


def _largest(values: npt.NDArray[np.float64]) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else -math.inf
