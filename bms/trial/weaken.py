"""`bms trial weaken`: a controller with one row of its fault table spoilt, row by row. Does the library notice?

Only the trials that expect a row are run against the controller without it. They are held against the whole table, so
what counts is what the controller does, not what its file says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bms import racks
from bms.core.faults import Row
from bms.trial import pool
from bms.trial.case import Trial
from bms.trial.coverage import row_text
from bms.trial.outcome import FAILED as TRIAL_FAILED
from bms.trial.outcome import Outcome
from hal.contract import Severity
from hal.errors import ConfigError, DataError

GOOD, FAILED = 0, 1
SHOWN = 4  # names of trials in a line
HOW = {
    "off": "the row is switched off",
    "slow": "the row takes as long again as its whole budget (fatal rows)",
}
"""Ways to spoil a row."""


@dataclass
class Weakness:
    """A spoilt row and what came of it: `tried` trials, the ids of those that noticed, and in how many of them the
    contactors were open at the end all the same, because another row or the state machine had opened them.
    """

    row: int
    how: str
    tried: int
    caught_by: list[str]
    opened: int = 0


def overlay(row: Row, how: str) -> dict[str, Any] | None:
    """Changes of a configuration that spoil `row`; None where there is nothing to spoil."""
    if how == "off":
        columns: dict[str, Any] = {"enabled": False}
    elif row.ftti_s is None:
        return None
    else:
        columns = {"set_s": row.set_s + row.ftti_s}
    return {"fault": {row.fault.name.lower(): {row.severity.name.lower(): columns}}}


def jobs_of(trials: Sequence[Trial], how: str) -> list[tuple[Row, Trial, dict[str, Any]]]:
    """Each row with each trial that expects it, and the changes that spoil it. Known gaps prove nothing."""
    rows = {row.id: row for name in racks.names() for row in racks.load(name).rows}
    found = []
    for row in sorted(rows.values(), key=lambda row: row.id):
        changes = overlay(row, how)
        if changes is not None:
            expecting = [t for t in trials if not t.gap and any(wanted.id == row.id for wanted in t.expect.rows)]
            found += [(row, trial, changes) for trial in expecting]
    return found


def collect(jobs: Sequence[tuple[Row, Trial, dict[str, Any]]], outcomes: Sequence[Outcome], how: str) -> list[Weakness]:
    """What each spoilt row came to."""
    found: dict[int, Weakness] = {}
    for (row, trial, _), outcome in zip(jobs, outcomes, strict=True):
        weakness = found.setdefault(row.id, Weakness(row.id, how, 0, []))
        weakness.tried += 1
        weakness.opened += outcome.open_at_end
        if outcome.status == TRIAL_FAILED:
            weakness.caught_by.append(trial.id)
    return list(found.values())


def command(args: argparse.Namespace, trials: Sequence[Trial]) -> int:
    """Run `bms trial weaken`: 1 if a spoilt row is noticed by no trial."""
    jobs = jobs_of(trials, args.how)
    if not jobs:
        raise ConfigError("none of these trials expects a row of the fault table")
    pool.check((trial for _, trial, _ in jobs), args.engine)
    if args.out is not None:
        pool.writable(args.out)
    with pool.progress(len(jobs), "weakened", quiet=args.quiet, failing=False) as told:
        outcomes = pool.run_all(
            [(trial, changes) for _, trial, changes in jobs],
            processes=args.jobs,
            engine_text=args.engine,
            curves=False,
            told=told,
        )
    found = collect(jobs, outcomes, args.how)
    wide = max(len(row_text(weakness.row)) for weakness in found)
    print(f"{'row':{wide}} {'caught':>7} of  opened all the same  by")
    for weakness in found:
        names = weakness.caught_by[:SHOWN]
        more = f", and {len(weakness.caught_by) - SHOWN} more" if len(weakness.caught_by) > SHOWN else ""
        text = ", ".join(names) + more if names else "NOBODY"
        opened = str(weakness.opened) if weakness.row % 10 == Severity.FATAL else ""
        print(f"{row_text(weakness.row):{wide}} {len(weakness.caught_by):>7} {weakness.tried:>2} {opened:>20}  {text}")
    missed = [weakness for weakness in found if not weakness.caught_by]
    print(f"{HOW[args.how]}: {len(found) - len(missed)} of {len(found)} rows are noticed")
    if args.out is not None:
        _write(args, found)
    return FAILED if missed else GOOD


def _write(args: argparse.Namespace, found: Sequence[Weakness]) -> None:
    rows = [
        {"row": row_text(w.row), "how": w.how, "tried": w.tried, "opened": w.opened, "caught_by": w.caught_by}
        for w in found
    ]
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "weaken.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out {args.out}: cannot be written: {error.strerror}") from error
