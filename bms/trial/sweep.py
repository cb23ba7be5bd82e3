"""`bms trial sweep`: the faults of one trial at every tick of a short connect-run-stop sequence, none left out.

A fault that comes while the contactors are closed, or before they close, must lead to open contactors within the budget
of its row; one that comes when they are open already must not let them close. What the conditions of a row leave out (a
current that flows while nothing is closed) cannot be seen then, and need not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bms.core.machine_table import Request
from bms.runtime.scenario import seconds
from bms.trial import case, pool
from bms.trial.case import Trial
from bms.trial.expect import Expect, ExpectRow
from bms.trial.ledger import judge
from bms.trial.outcome import PASSED, Outcome, attempted, outcome_of
from bms.trial.play import play
from bms.trial.screen import ms
from hal.contract import Severity
from hal.errors import ConfigError, DataError

GOOD, FAILED = 0, 1


@dataclass(frozen=True)
class Tick:
    """A trial with its faults at one tick."""

    at_s: float
    trial: Trial


def ticks(trial: Trial, stop_s: float, end_s: float) -> list[Tick]:
    """`trial` once for each step of the sequence: connect at 0, open at `stop_s`, over at `end_s`.

    All of its faults move together, so that the first of them begins at the tick. Raises `ConfigError` for a trial
    without faults, or with faults that wait for a state.
    """
    where = f"{trial.source}: trial '{trial.id}'"
    if not trial.injected:
        raise ConfigError(f"{where}: nothing goes wrong in it: a sweep needs a [[fault]], [[change]] or [[internal]]")
    if any("at_state" in entry for entry in trial.injected):
        raise ConfigError(f"{where}: a fault has at_state: a sweep is over all times anyway; give at_s instead")
    if not 0 < stop_s < end_s:
        raise ConfigError(f"--stop {stop_s:g} --end {end_s:g}: the sequence must end after its stop")
    period_s = trial.scenario.period_s
    scenario = replace(trial.scenario, duration_s=end_s, requests=((0.0, Request.CONNECT), (stop_s, Request.OPEN)))
    first_s = min(float(entry.get("at_s", 0.0)) for entry in trial.injected)

    def moved(entries: tuple[Mapping[str, Any], ...], by_s: float) -> tuple[Mapping[str, Any], ...]:
        result = []
        for entry in entries:
            shifted = {**entry, "at_s": float(entry.get("at_s", 0.0)) + by_s}
            if "until_s" in entry:
                shifted["until_s"] = float(entry["until_s"]) + by_s
            result.append(shifted)
        return tuple(result)

    found = []
    for k in range(round(end_s / period_s)):
        by_s = k * period_s - first_s
        found.append(
            Tick(
                k * period_s,
                replace(
                    trial,
                    id=f"{trial.id}@{k * period_s:g}s",
                    scenario=scenario,
                    faults=moved(trial.faults, by_s),
                    changes=moved(trial.changes, by_s),
                    internals=moved(trial.internals, by_s),
                    expect=_expected(trial.expect),
                    gap="",
                ),
            )
        )
    return found


def _expected(expect: Expect) -> Expect:
    """What still holds when the fault comes at any time: the fatal rows, from the injection on."""
    rows = tuple(
        ExpectRow(
            row.fault, row.severity, "threshold" if row.since == "threshold" else "injection", open_ms=row.open_ms
        )
        for row in expect.rows
        if row.severity == Severity.FATAL
    )
    contactors = expect.contactors if expect.contactors == "welded" else "open"
    return Expect(rows=rows, allow=expect.allow, contactors=contactors)


def run_tick(tick: Tick) -> Outcome:
    """Play one tick. The budget runs while something is closed: a row that was never exposed so long is forgiven."""
    return attempted(tick.trial, lambda: _run_tick(tick))


def _run_tick(tick: Tick) -> Outcome:
    begun = time.perf_counter()
    played = play(tick.trial)
    verdict = judge(played)
    log = played.log
    exposed_s = log.time_s[log.closed & (log.time_s >= tick.at_s)]
    forgiven: set[str] = set()
    for entry in verdict.entries:
        if not exposed_s.size:
            forgiven.update(entry.failures)
            continue
        budget_ms = entry.budget_ms or 0.0
        late_ms = 1e3 * max(float(exposed_s[0]) - entry.inject_s, 0.0)
        left_ms = 1e3 * float(exposed_s[-1] - exposed_s[0])
        if entry.open_ms is None and left_ms <= budget_ms:
            forgiven.update(entry.failures)
        elif entry.open_ms is not None and entry.open_ms - late_ms <= budget_ms:
            forgiven.update(text for text in entry.failures if "allowed" in text)
    failures = [text for text in verdict.failures if text not in forgiven]
    return outcome_of(played, replace(verdict, failures=failures), time.perf_counter() - begun, curves=False)


def find(name: str) -> Trial:
    """A trial of the library by its id, or the only one of a file. Raises `ConfigError`."""
    if name.endswith(".toml") or "/" in name:
        trials = case.load(name)
        if len(trials) != 1:
            ids = ", ".join(trial.id for trial in trials[:5])
            raise ConfigError(
                f"{name}: {len(trials)} trials ({ids}, ...): a sweep is of one; put it into a file of its own"
            )
        return trials[0]
    trials = case.load_all(case.library())
    for trial in trials:
        if trial.id == name:
            return trial
    raise ConfigError(f"'{name}': no trial of the library has this id{case.hint(name, trials)}")


def command(args: argparse.Namespace) -> int:
    """Run `bms trial sweep`."""
    trial = find(args.scenario)
    all_ticks = ticks(trial, seconds(args.stop, "--stop"), seconds(args.end, "--end"))
    pool.check([trial], args.engine)
    if args.out is not None:
        pool.writable(args.out)
    with pool.progress(len(all_ticks), "ticks", quiet=args.quiet) as told:
        outcomes = pool.run_each(run_tick, all_ticks, [tick.trial for tick in all_ticks], args.jobs, args.engine, told)
    print(f"{'tick':>8} {'detect':>9} {'react':>9} {'open':>9} {'budget':>9}  result")
    for tick, outcome in zip(all_ticks, outcomes, strict=True):
        entry = outcome.entries[0] if outcome.entries else None
        times = [None] * 4 if entry is None else [entry.detect_ms, entry.react_ms, entry.open_ms, entry.budget_ms]
        told_ = "good" if outcome.status == PASSED else "; ".join(outcome.failures)
        print(f"{tick.at_s:>7g}s " + " ".join(f"{ms(value):>9}" for value in times) + f"  {told_}")
    failed = sum(outcome.status != PASSED for outcome in outcomes)
    opened = [e.open_ms for o in outcomes for e in o.entries if e.open_ms is not None]
    worst = f"; open after {max(opened):,.0f} ms at most" if opened else ""
    print(f"{trial.id}: {len(outcomes)} ticks, {failed} failed{worst}")
    if args.out is not None:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
            text = json.dumps([outcome.to_json() for outcome in outcomes], indent=1)
            (args.out / "sweep.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"--out {args.out}: cannot be written: {error.strerror}") from error
    return FAILED if failed else GOOD
