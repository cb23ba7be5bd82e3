"""Many trials on several processes, with progress."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from bms.runtime import engine
from bms.trial.case import Trial
from bms.trial.outcome import FAILED, Outcome, run_one

PLAIN_EVERY = 20  # trials between two lines where there is no terminal

Job = tuple[Trial, Mapping[str, Any] | None]


def prepare(urls: Sequence[str], engine_text: str, *, quiet: bool) -> None:
    """Have the kernels at hand that trials on these racks need. Raises `ConfigError`."""
    from bms.core.jit import PROGRAM as CORE
    from hal.registry import programs

    needed = {program.prefix: program for url in sorted(set(urls)) for program in programs(url)}
    engine.ready(engine_text, (CORE, *needed.values()), quiet=quiet)


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
    urls = [trial.scenario.rack for trial, _ in jobs]
    prepare(urls, engine_text, quiet=False)
    if processes <= 1 or len(jobs) <= 1:
        outcomes = []
        for trial, changes in jobs:
            outcomes.append(run_one(trial, changes, curves=curves))
            told(outcomes[-1])
        return outcomes
    found: dict[int, Outcome] = {}
    # the longest first, so that no process is left alone with one at the end
    order = sorted(range(len(jobs)), key=lambda k: -_steps(jobs[k][0]))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, prepare_worker, (urls, engine_text)) as pool:
        futures = {pool.submit(run_one, *jobs[k], curves=curves): k for k in order}
        try:
            for future in as_completed(futures):
                outcome = future.result()
                found[futures[future]] = outcome
                told(outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[k] for k in range(len(jobs))]


def prepare_worker(urls: Sequence[str], engine_text: str) -> None:
    """Load the kernels in a process that has just begun."""
    prepare(urls, engine_text, quiet=True)


def _steps(trial: Trial) -> float:
    return trial.scenario.duration_s / trial.scenario.period_s


@contextmanager
def progress(total: int, what: str, *, quiet: bool = False) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal, plain lines elsewhere; gives what is to be called with each outcome."""
    if quiet:
        yield lambda outcome: None
        return
    failed = done = 0
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)

            def show(outcome: Outcome) -> None:
                nonlocal failed
                failed += outcome.status == FAILED
                bar.update(task, advance=1, description=f"{failed} failed" if failed else "")

            yield show
        return

    def tell(outcome: Outcome) -> None:
        nonlocal done, failed
        done, failed = done + 1, failed + (outcome.status == FAILED)
        if done % PLAIN_EVERY == 0 or done == total:
            print(f"{what}: {done} of {total}, {failed} failed", file=sys.stderr, flush=True)

    yield tell
