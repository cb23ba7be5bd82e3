"""Many trials on several processes, with progress."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bms.runtime import engine
from bms.trial import play
from bms.trial.case import Trial
from bms.trial.outcome import FAILED, Outcome, run_one
from hal.errors import DataError, RackBmsError

log = logging.getLogger(__name__)

PLAIN_EVERY = 20  # trials between two lines where there is no terminal

Job = tuple[Trial, Mapping[str, Any] | None]


def prepare(urls: Sequence[str], engine_text: str, *, quiet: bool) -> None:
    """Have the kernels at hand that trials on these racks need. Raises `ConfigError`."""
    from bms.core.jit import PROGRAM as CORE
    from hal.registry import programs

    needed = {program.prefix: program for url in sorted(set(urls)) for program in programs(url)}
    engine.ready(engine_text, (CORE, *needed.values()), quiet=quiet)


def check(trials: Iterable[Trial], engine_text: str, *, quiet: bool = False) -> None:
    """Raise `ConfigError` for the first of `trials` that cannot be played, before any of them is.

    A trial that breaks down is none: it fails when it is played, and no other.
    """
    trials = list({id(trial): trial for trial in trials}.values())
    prepare([trial.scenario.rack for trial in trials], engine_text, quiet=quiet)
    for trial in trials:
        try:
            play.check(trial)
        except RackBmsError:
            raise
        except Exception:
            log.debug("trial '%s'", trial.id, exc_info=True)


def writable(folder: Path) -> Path:
    """Make `folder`, so that nobody works for results that have no place. Raises `DataError` if it takes no file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"--out {folder}: cannot be written: {error.strerror}; name a folder, which is made if it is not there"
        ) from error
    return folder


def run_all(
    jobs: Sequence[Job],
    *,
    processes: int = 1,
    engine_text: str = engine.JIT,
    curves: bool = True,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run all `jobs`, trials each with changes of the configuration or None; outcomes in the same order.

    `told` is called as each ends. The outcomes do not depend on `processes`. Raises `ConfigError`.
    """
    work = functools.partial(_run_job, curves=curves)
    return run_each(work, jobs, [trial for trial, _ in jobs], processes, engine_text, told)


def _run_job(job: Job, *, curves: bool) -> Outcome:
    return run_one(*job, curves=curves)


T = TypeVar("T")


def run_each(
    work: Callable[[T], Outcome],
    items: Sequence[T],
    trials: Sequence[Trial],
    processes: int,
    engine_text: str,
    told: Callable[[Outcome], None],
) -> list[Outcome]:
    """`work` for each of `items`, in as many processes; `trials` are those that they are of. See `run_all`."""
    urls = sorted({trial.scenario.rack for trial in trials})
    prepare(urls, engine_text, quiet=True)  # `check` has told of what takes long
    if processes <= 1 or len(items) <= 1:
        outcomes = []
        for item in items:
            outcomes.append(work(item))
            told(outcomes[-1])
        return outcomes
    found: dict[int, Outcome] = {}
    # the longest first, so that no process is left alone with one at the end
    order = sorted(range(len(items)), key=lambda k: -trials[k].scenario.duration_s / trials[k].scenario.period_s)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, prepare_worker, (urls, engine_text)) as pool:
        futures = {pool.submit(work, items[k]): k for k in order}
        try:
            for future in as_completed(futures):
                outcome = future.result()
                found[futures[future]] = outcome
                told(outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[k] for k in range(len(items))]


def prepare_worker(urls: Sequence[str], engine_text: str) -> None:
    """Load the kernels in a process that has just begun."""
    prepare(urls, engine_text, quiet=True)


@contextmanager
def progress(
    total: int, what: str, *, quiet: bool = False, failing: bool = True
) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal, plain lines elsewhere; gives what is to be called with each outcome.

    `failing`: how many have failed is told, too.
    """
    if quiet:
        yield lambda outcome: None
        return
    failed = done = 0
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)

            def show(outcome: Outcome) -> None:
                nonlocal failed
                failed += outcome.status == FAILED
                bar.update(task, advance=1, description=f"{failed} failed" if failing and failed else "")

            yield show
        return

    def tell(outcome: Outcome) -> None:
        nonlocal done, failed
        done, failed = done + 1, failed + (outcome.status == FAILED)
        if done % PLAIN_EVERY == 0 or done == total:
            text = f", {failed} failed" if failing else ""
            print(f"{what}: {done} of {total}{text}", file=sys.stderr, flush=True)

    yield tell
