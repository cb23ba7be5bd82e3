"""`bms trial run | list | sweep | weaken | campaign`: faults and expectations, and the ledger of what came of them."""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bms.runtime import engine
from bms.runtime.scenario import seconds
from bms.trial import adapt, case
from bms.trial.case import Trial
from hal.errors import ConfigError, DataError, GoneError, nearest

if TYPE_CHECKING:
    from bms.trial.coverage import Coverage
    from bms.trial.outcome import Outcome

GOOD, FAILED = 0, 1
LEDGER, JUNIT, PAGE = "ledger.json", "junit.xml", "ledger.html"

EXAMPLES = """\
examples:
  bms trial run --all                          the whole library; fails, too, if a row of the fault table is never tried
  bms trial run --all --filter cell_overvoltage
  bms trial run --pack clauses                 trials after clauses of standards
  bms trial run my_faults.toml --out ledger    your own, as docs/trial.md tells
  bms trial run --all --config my_rack.toml    the library on your configuration of a rack
  bms trial list --filter thermal
  bms trial sweep interlock_open-lfp           the fault at every tick of connect, run, stop
  bms trial weaken                             each protection switched off in turn: does the library notice?
  bms trial campaign healthy --n 20            one trial many times, drawn from a seed: false alarms per rack-year

A run leaves ledger.html, ledger.json and junit.xml. Exit codes: 0 all passed, 1 a trial failed, 2 a file is wrong.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms trial`."""
    parser.epilog = EXAMPLES
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = commands.add_parser("run", help="run trials and write the ledger", description="Run trials.", epilog=EXAMPLES)
    _choice(run)
    run.add_argument("--out", metavar="DIR", type=Path, help="folder for the ledger (default: runs/...)")
    run.add_argument(
        "--config",
        metavar="FILE",
        help="the trials on racks of its cell, with the settings and the fault table of this file",
    )
    run.add_argument("--period", metavar="TIME", help="time between two steps (default: that of each trial)")
    run.add_argument(
        "--record",
        action="store_true",
        help="leave a recording of each trial that fails, for bms replay and bms report",
    )
    run.add_argument("--ledger", action="store_true", help="print every line of the ledger, not the tightest alone")
    run.add_argument("--matrix", action="store_true", help="print the coverage matrix")
    _processes(run)
    listing = commands.add_parser("list", help="list trials", description="List trials.", epilog=EXAMPLES)
    _choice(listing)
    sweep = commands.add_parser(
        "sweep",
        help="inject at every tick of a short run",
        description="Inject the faults of a trial at every tick of a short connect-run-stop sequence.",
        epilog=EXAMPLES,
    )
    sweep.add_argument("scenario", metavar="SCENARIO", help="id of a trial of the library, or a .toml file with one")
    sweep.add_argument("--stop", metavar="TIME", default="60s", help="when the rack is asked to open (default: 60s)")
    sweep.add_argument("--end", metavar="TIME", default="100s", help="when the sequence ends (default: 100s)")
    sweep.add_argument("--out", metavar="DIR", type=Path, help="folder for sweep.json (default: none is written)")
    _processes(sweep)
    weaken = commands.add_parser(
        "weaken",
        help="switch each row off in turn: what notices?",
        description="Switch each row of the fault table off in turn, and tell which trials notice.",
        epilog=EXAMPLES,
    )
    _choice(weaken)
    weaken.add_argument(
        "--how",
        choices=("off", "slow"),
        default="off",
        help="off: the row is switched off, the default; slow: it takes as long again as its whole budget (fatal rows)",
    )
    weaken.add_argument("--out", metavar="DIR", type=Path, help="folder for weaken.json (default: none is written)")
    _processes(weaken)
    from bms.trial import campaign_command

    many = commands.add_parser(
        "campaign",
        help="many samples of one trial: detection probability, lead times, false alarms",
        description="Play a trial many times with what is varied drawn from a seed, or over grids.",
        epilog=campaign_command.EXAMPLES,
    )
    campaign_command.add_arguments(many)


def _choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="*", help="files with trials (default: the library)")
    parser.add_argument("--all", action="store_true", help="the whole library; every row must be exercised")
    parser.add_argument("--filter", metavar="TEXT", help="only trials whose id or tag has TEXT, or matches it (*, ?)")
    parser.add_argument("--pack", metavar="NAME", help="only trials with this tag, for example clauses")


def _processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="processes (default: all)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    engine.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run `bms trial`. Returns the exit code."""
    if getattr(args, "jobs", 1) < 1:
        raise ConfigError(f"--jobs {args.jobs}: at least one process is needed")
    if args.action != "run" and engine.alone(getattr(args, "engine", engine.JIT)):
        raise ConfigError(
            f"--engine {args.engine}: a board has one configuration: bms trial run takes it, and no other"
        )
    if args.action == "campaign":
        from bms.trial import campaign_command

        return campaign_command.run(args)
    if args.action == "sweep":
        from bms.trial import sweep

        return sweep.command(args)
    trials = chosen(args.files, whole=args.all, pattern=args.filter, pack=args.pack)
    if getattr(args, "config", None) is None:  # else the table is that of the file, and the ledger tells
        case.check_rows(trials)
    if args.action == "list":
        return _list(trials)
    if args.action == "weaken":
        from bms.trial import weaken

        return weaken.command(args, trials)
    if args.period is not None:
        trials = adapt.with_period(trials, seconds(args.period, "--period"))
    if args.config is not None:
        trials = adapt.with_config(trials, args.config)
    return _run(args, trials)


def chosen(files: Sequence[str], *, whole: bool, pattern: str | None, pack: str | None) -> list[Trial]:
    """The trials that the options ask for. Raises `ConfigError` if there is none."""
    if whole and files:
        raise ConfigError(f"--all is the library: give no file beside it ({files[0]})")
    trials = case.load_all(files or case.library())
    tags = sorted({tag for trial in trials for tag in trial.tags})
    if pack is not None and pack not in tags:
        raise ConfigError(f"--pack {pack}: no trial has this tag{nearest(pack, tags)}")
    found = [
        trial
        for trial in trials
        if (pack is None or pack in trial.tags) and (pattern is None or _matches(trial, pattern))
    ]
    if found or pattern is None:  # a tag is never without trials
        return found
    others = [trial for trial in trials if _matches(trial, pattern)]
    if not others:
        raise ConfigError(f"--filter {pattern}: no trial has this in its id or tags{case.hint(pattern, trials)}")
    raise ConfigError(
        f"--filter {pattern} --pack {pack}: {len(others)} trials have this in their id or tags, such as "
        f"'{others[0].id}', but none of them is in this pack; leave out one of the two"
    )


def _matches(trial: Trial, pattern: str) -> bool:
    if any(c in pattern for c in "*?"):
        return any(fnmatch.fnmatch(name, pattern) for name in (trial.id, *trial.tags))
    return pattern in trial.id or pattern in trial.tags


def _list(trials: Sequence[Trial]) -> int:
    wide = max(len(trial.id) for trial in trials)
    for trial in trials:
        about = ". ".join(text for text in (trial.clause, trial.scenario.description) if text)
        print(f"{trial.id:{wide}}  {Path(trial.source).stem:10}  {about}")
    print(f"{len(trials)} trials")
    return GOOD


def _run(args: argparse.Namespace, trials: Sequence[Trial]) -> int:
    from bms.trial import coverage as matrix
    from bms.trial import outcome, pool, screen

    begun = time.perf_counter()
    left = ""
    if engine.alone(args.engine):
        from bms.trial import board

        args.jobs = 1
        trials, left = board.fitting(trials, args.engine)
    jobs = [(trial, None) for trial in trials]
    pool.check(trials, args.engine)
    folder, ended = pool.writable(_folder(args.out)), list[outcome.Outcome]()
    with pool.progress(len(trials), "trials", quiet=args.quiet) as show:

        def told(found: outcome.Outcome) -> None:
            ended.append(found)
            show(found)

        try:
            outcomes = pool.run_all(jobs, processes=args.jobs, engine_text=args.engine, told=told)
        except GoneError:  # what has ended before is not lost
            coverage = matrix.covered(cell for found in ended for cell in found.cells)
            write(folder, ended, coverage, time.perf_counter() - begun, False, made_with(args.engine))
            raise
    wall_s = time.perf_counter() - begun
    coverage = matrix.covered(cell for found in outcomes for cell in found.cells)
    complete = args.all and args.filter is None and args.pack is None and args.config is None and not left
    write(folder, outcomes, coverage, wall_s, complete, made_with(args.engine))
    print("\n".join(screen.ledger(outcomes, everything=args.ledger)))
    if args.matrix or (complete and coverage.missing):
        print("\n".join(["", *matrix.lines(coverage)]))
    print()
    print(screen.totals(outcomes, coverage, wall_s))
    print(screen.DISCLAIMER)
    if left:
        print(left)
    print(folder / PAGE, flush=True)
    if args.record:
        _record(trials, outcomes, folder, quiet=args.quiet)
    if complete and coverage.missing:
        print(f"{len(coverage.missing)} rows of the fault table were never exercised")
        return FAILED
    return FAILED if any(found.status == outcome.FAILED for found in outcomes) else GOOD


def _record(trials: Sequence[Trial], outcomes: Sequence[Outcome], folder: Path, *, quiet: bool) -> None:
    """Play the trials that failed once more, which leads to the same, record them, and name each recording."""
    from bms.trial import pool
    from bms.trial.play import play

    failed = [
        (trial, found)
        for trial, found in zip(trials, outcomes, strict=True)
        if found.status == "failed" and found.state_at_end  # else it broke down, and would again
    ]
    if failed and not quiet:
        print(f"playing {len(failed)} failed trials once more, to record them", file=sys.stderr, flush=True)
    with pool.progress(len(failed), "recordings", quiet=quiet, failing=False) as show:
        for trial, found in failed:
            play(trial, record=folder / trial.id)
            show(found)
    for trial, _ in failed:
        print(f"bms replay {folder / trial.id}")


def _folder(out: Path | None) -> Path:
    if out is not None:
        return out
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-trial"


def made_with(engine_text: str) -> dict[str, str]:
    """What was tried: the engine, the digest of the controller's kernels, and of the files of its libraries."""
    from bms.core.jit import PROGRAM

    found = {"engine": engine_text, "kernels": PROGRAM.table.digest[:16]}
    for path in engine.libraries(engine_text):
        found[f"library {path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def write(
    folder: Path,
    outcomes: Sequence[Outcome],
    coverage: Coverage,
    wall_s: float,
    complete: bool,
    made: dict[str, str],
) -> None:
    """Write page, JSON and JUnit XML into `folder`. Raises `DataError`."""
    from bms.trial import junit, page
    from bms.trial import lead as leads
    from bms.trial.screen import DISCLAIMER

    document = {
        "note": DISCLAIMER,
        "made_with": made,
        "wall_s": wall_s,
        "coverage": coverage.to_json(),
        "leads": [
            dict(zip(leads.COLUMNS, row, strict=True))
            for row in leads.table([outcome.lead for outcome in outcomes if outcome.lead is not None])
        ],
        "trials": [outcome.to_json() for outcome in outcomes],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LEDGER).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (folder / JUNIT).write_text(junit.document(outcomes, made), encoding="utf-8")
        text = page.render(outcomes, coverage, wall_s, "Fault trials", complete=complete, made=made)
        (folder / PAGE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out {folder}: cannot be written: {error.strerror}") from error
