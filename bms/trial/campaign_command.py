"""`bms trial campaign`: many samples of one trial, and what they say together."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bms.runtime import engine
from bms.trial import campaign_pool, pool
from bms.trial.campaign import Campaign, load, shipped
from hal.errors import ConfigError, DataError
from hal.registry import programs

if TYPE_CHECKING:
    from bms.trial.campaign_store import Store

GOOD, FAILED, INTERRUPTED = 0, 1, 130
SUMMARY, PAGE = "summary.json", "summary.html"

EXAMPLES = """\
examples:
  bms trial campaign short_circuits --n 200 --out runs/shorts   one that comes with the package
  bms trial campaign my_campaign.toml --jobs 4 --out runs/mine
  bms trial campaign my_campaign.toml --out runs/mine --resume  goes on where it was interrupted, or with a larger --n
  bms trial campaign my_campaign.toml --only my_campaign-000042 --out runs/mine
                                                                one sample again, bit for bit, with a recording
  bms trial campaign my_campaign.toml --scheduler tcp://10.0.0.1:8786
                                                                on a Dask cluster: pip install 'rackbms[dask]'

A campaign leaves samples.parquet, summary.json and summary.html. docs/campaign.md tells what its file holds. Exit
codes: 0 what it requires is reached, 1 it is not, 2 a file or an option is wrong, 130 interrupted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms trial campaign`."""
    parser.add_argument(
        "file", metavar="FILE", help=f"a campaign, or the name of a shipped one: {', '.join(shipped())}"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the results (default: runs/...)")
    parser.add_argument("--resume", action="store_true", help="go on in --out with what is missing there")
    parser.add_argument("--only", metavar="ID", help="play this sample alone, once more, and record it")
    parser.add_argument("--n", metavar="N", type=int, help="samples at each point of the grids (default: the file's)")
    parser.add_argument("--seed", metavar="N", type=int, help="what all is drawn from (default: the file's)")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="processes (default: all)")
    parser.add_argument(
        "--scheduler", metavar="URL", help="a Dask scheduler, tcp://host:port, instead of processes here"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    engine.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run it. Returns the exit code."""
    _check_options(args)
    import pyarrow  # noqa: F401, what is missing is said before hours of work

    campaign = load(args.file, args.n, args.seed)
    if args.only is not None:
        return _only(args, campaign)
    return _all(args, campaign)


def _check_options(args: argparse.Namespace) -> None:
    if args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: at least one process is needed")
    for key, least in (("n", 1), ("seed", 0)):
        value = getattr(args, key)
        if value is not None and value < least:
            raise ConfigError(f"--{key} {value}: must be at least {least}")
    if args.resume and args.out is None:
        raise ConfigError("--resume: give the folder to go on in with --out DIR")
    if args.scheduler is not None and "://" not in args.scheduler:
        raise ConfigError(f"--scheduler {args.scheduler}: expected an address such as tcp://10.0.0.1:8786")


def _all(args: argparse.Namespace, campaign: Campaign) -> int:
    from bms.trial.campaign_sample import SampleError
    from bms.trial.campaign_store import Store
    from bms.trial.command import made_with

    begun_s = time.perf_counter()
    folder = args.out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{campaign.name}"
    made = {**made_with(args.engine), **_twins(campaign)}
    pool.check((campaign.trial(k) for k in campaign.first), args.engine, quiet=args.quiet)
    store = Store(folder, campaign, made, resume=args.resume)
    missing = [k for k in range(campaign.total) if k not in store.rows]
    interrupted, lost = False, list[int]()
    try:
        with (
            _ended_by_terminate(),
            campaign_pool.progress(campaign.total, campaign.total - len(missing), quiet=args.quiet) as told,
        ):

            def done(row: dict[str, object]) -> None:
                store.add(row)
                told(row)

            if missing and args.scheduler is not None:
                lost = campaign_pool.run_dask(campaign, missing, args.scheduler, args.engine, done)
            elif missing:
                lost = campaign_pool.run_local(campaign, missing, args.jobs, args.engine, done)
    except KeyboardInterrupt:
        interrupted = True
    except SampleError:  # whoever mends the file must not be kept from the folder
        store.give_up()
        raise
    finally:
        store.flush()
    if interrupted:
        n = sum(k < campaign.total for k in store.rows)
        print(f"interrupted: {n} of {campaign.total} samples are in {folder}; go on with --out {folder} --resume")
        return INTERRUPTED
    store.finish()
    return _told(campaign, store, lost, made, time.perf_counter() - begun_s, len(missing) - len(lost))


def _twins(campaign: Campaign) -> dict[str, str]:
    """Digests of the native programs of the campaign's racks: results of two twins must not mix either."""
    found = {program.prefix: program for url in campaign.racks() for program in programs(url)}
    return {f"kernels {prefix}": program.table.digest[:16] for prefix, program in sorted(found.items())}


def _told(campaign: Campaign, store: Store, lost: list[int], made: dict[str, str], wall_s: float, played: int) -> int:
    """Write the summary, and print it."""
    from bms.trial import campaign_page, campaign_summary
    from bms.trial.campaign_store import replace_with

    rows = [store.rows[k] for k in sorted(store.rows) if k < campaign.total]
    summary = campaign_summary.summarise(campaign, rows, lost, made)
    summary["missed"] = campaign_summary.missed(campaign, summary)
    page = store.folder / PAGE
    try:
        replace_with(store.folder / SUMMARY, json.dumps(summary, indent=1).encode() + b"\n")
        replace_with(page, campaign_page.render(summary, rows).encode())
    except OSError as error:
        raise DataError(f"--out {store.folder}: cannot be written: {error.strerror}") from error
    print("\n".join(campaign_summary.lines(summary)))
    print(f"{played} samples in {wall_s:.1f} s")
    for text in summary["missed"]:
        print(f"not reached: {text}")
    print(page)
    return FAILED if summary["missed"] else GOOD


def _only(args: argparse.Namespace, campaign: Campaign) -> int:
    """One sample again: its row, a recording, its page."""
    from bms.trial import command, coverage, pool
    from bms.trial.campaign_sample import played_sample
    from bms.trial.outcome import outcome_of

    k = campaign.number_of(args.only)
    folder = args.out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{campaign.name}"
    held = _digest_in(folder)
    if held not in (None, campaign.digest):
        raise DataError(
            f"--out {folder}: holds samples of another campaign, or of another --seed (digest = {held}, now it is "
            f"{campaign.digest}); give theirs, or name another folder"
        )
    pool.check([campaign.trial(k)], args.engine, quiet=args.quiet)
    begun_s = time.perf_counter()
    row, played = played_sample(campaign, k, folder / campaign.id_of(k))
    wall_s = time.perf_counter() - begun_s
    for name, value in row.items():
        if value is not None and value != "":
            print(f"  {name:24} {value:g}" if isinstance(value, float) else f"  {name:24} {value}")
    if played is not None:
        outcome = outcome_of(*played, wall_s, curves=True)
        target = folder / campaign.id_of(k)
        command.write(target, [outcome], coverage.covered(outcome.cells), wall_s, False, command.made_with(args.engine))
        print(f"bms replay {target}")
        print(target / command.PAGE)
    same = None if held is None else _same_as_before(folder, row)
    if same is not None:
        print("the same as in the results, bit for bit" if same else "NOT the same as in the results")
    return FAILED if same is False or not row["passed"] else GOOD


def _digest_in(folder: Path) -> str | None:
    """Digest of the campaign that `folder` holds; None where it holds none."""
    from bms.trial.campaign_store import ABOUT

    try:
        return str(json.loads((folder / ABOUT).read_bytes())["digest"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _same_as_before(folder: Path, row: dict[str, object]) -> bool | None:
    """Whether the sample came out as it stands in the results of `folder`; None where it does not stand there."""
    from bms.trial.campaign_store import read

    for path in sorted(folder.glob("*.parquet")):
        with contextlib.suppress(OSError, ValueError):  # of a part that is torn; errors of pyarrow are some of these
            for before in read(path):
                if before["sample"] == row["sample"]:
                    return bool(before == row)
    return None


@contextlib.contextmanager
def _ended_by_terminate() -> Iterator[None]:
    """While it holds, SIGTERM ends the campaign as Ctrl-C does, so that what is done is kept."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
