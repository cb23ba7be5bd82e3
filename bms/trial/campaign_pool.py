"""Samples of a campaign played on processes of this machine, or on a Dask cluster. What comes of them is the same."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from bms.trial import pool
from bms.trial.campaign import Campaign
from bms.trial.campaign_sample import Row, run_sample, warm
from hal.errors import ConfigError, DataError, RackBmsError

TRIES = 3
"""How often a sample is given to a worker before it counts as one that kills workers."""
DEATHS = 12  # in a row, after which it is no use to start another
IN_FLIGHT = 8  # samples for each worker of a cluster that are handed out at a time
CONNECT_S = 10
SAY_S = 10.0  # between two lines of progress where there is no terminal

Done = Callable[[Row], None]


def run_local(campaign: Campaign, samples: Sequence[int], jobs: int, engine_text: str, done: Done) -> list[int]:
    """Play `samples` in `jobs` processes; `done` is called with each row as it comes.

    Returns the samples that are lost because their process died `TRIES` times. Raises `ConfigError`, and
    `DataError` where processes do nothing but die.
    """
    urls = tuple(campaign.racks())
    pool.prepare(urls, engine_text, quiet=True)  # the check of the first samples has told of what takes long
    jobs = min(jobs, len(samples))
    if jobs <= 1:
        for k in samples:
            done(run_sample(campaign, k))
        return []
    team = _Team(campaign, urls, engine_text)
    try:
        return team.play(samples, jobs, done)
    finally:
        team.end()


class _Worker:
    """A process with a pipe to it, and the sample that it plays."""

    def __init__(self, campaign: Campaign, urls: tuple[str, ...], engine_text: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far, campaign, urls, engine_text), daemon=True)
        self.process.start()
        far.close()
        self.sample: int | None = None

    def give(self, sample: int | None) -> None:
        """Hand it the next sample; None ends it."""
        self.sample = sample
        with suppress(OSError):  # it has died, which shows when it is heard
            self.pipe.send(sample)


class _Team:
    """Workers of this machine. One that dies takes nothing along but its sample, which is tried again."""

    def __init__(self, campaign: Campaign, urls: tuple[str, ...], engine_text: str) -> None:
        self.with_ = campaign, urls, engine_text
        self.workers: list[_Worker] = []

    def play(self, samples: Sequence[int], jobs: int, done: Done) -> list[int]:
        """See `run_local`."""
        left, tries, lost = deque(samples), dict.fromkeys(samples, 0), list[int]()
        deaths = 0  # since the last row
        for _ in range(jobs):
            self._start(left)
        while busy := [worker for worker in self.workers if worker.sample is not None]:
            heard = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in heard:
                    continue
                assert worker.sample is not None
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    k, deaths = worker.sample, deaths + 1
                    if deaths >= DEATHS:
                        raise DataError(
                            f"{DEATHS} workers died one after another, the last at {self.with_[0].id_of(k)}; play it "
                            "with --only to see why"
                        ) from None
                    tries[k] += 1
                    if tries[k] < TRIES:
                        left.append(k)
                    else:
                        lost.append(k)
                    self._bury(worker)
                    if left:
                        self._start(left)
                    continue
                if isinstance(answer, RackBmsError):
                    raise answer
                deaths = 0
                worker.give(left.popleft() if left else None)
                done(answer)
        return sorted(lost)

    def _start(self, left: deque[int]) -> None:
        worker = _Worker(*self.with_)
        self.workers.append(worker)
        worker.give(left.popleft() if left else None)

    def _bury(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join(1.0)
        self.workers.remove(worker)

    def end(self) -> None:
        """End all processes, whatever they do."""
        for worker in self.workers:
            if worker.sample is not None:
                worker.process.terminate()
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join()


def _serve(pipe: Connection, campaign: Campaign, urls: tuple[str, ...], engine_text: str) -> None:
    """What a worker does: kernels once, then a sample for each number that comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    try:
        warm(urls, engine_text)
        while (k := pipe.recv()) is not None:
            pipe.send(run_sample(campaign, k))
    except RackBmsError as error:
        pipe.send(error)
    except (EOFError, OSError):
        pass  # nobody is there any more


# --- a cluster ------------------------------------------------------------------------------------------------------

_ONE_AT_A_TIME = threading.Lock()
"""A worker of a cluster may have several threads; the kernels of a rack want a processor for themselves."""


def on_worker(campaign: Campaign, k: int, engine_text: str) -> Row:
    """What a worker of a cluster does for a sample; its kernels are made ready by the first one."""
    with _ONE_AT_A_TIME:
        warm(tuple(campaign.racks()), engine_text)
        return run_sample(campaign, k)


def run_dask(campaign: Campaign, samples: Sequence[int], address: str, engine_text: str, done: Done) -> list[int]:
    """The same as `run_local` on the workers of the scheduler at `address`, `tcp://host:port`. Raises `ConfigError`."""
    from distributed import Client, KilledWorker, as_completed

    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"--scheduler {address}: cannot be reached ({str(error).splitlines()[0]}); start one with: dask scheduler"
        ) from None
    with client:
        n_workers = len(client.nthreads())
        if not n_workers:
            raise ConfigError(f"--scheduler {address}: has no workers; start some with: dask worker {address}")
        left, lost = deque(samples), list[int]()

        def submit() -> Any:
            k = left.popleft()
            # a key of its own: the scheduler must not remember what an earlier campaign made of it
            key = f"{campaign.id_of(k)}-{time.time_ns()}"
            future = client.submit(on_worker, campaign, k, engine_text, key=key, pure=False)
            future.sample = k
            return future

        first = [submit() for _ in range(min(len(left), IN_FLIGHT * n_workers))]
        working = as_completed(first, loop=client.loop)
        for future in working:
            wrong = future.exception()
            if isinstance(wrong, KilledWorker):
                lost.append(future.sample)
            elif wrong is not None:
                if isinstance(wrong, RackBmsError):
                    raise wrong
                raise ConfigError(f"--scheduler {address}: a worker cannot play samples: {wrong!r}") from wrong
            else:
                done(future.result())
            future.release()
            if left:
                working.add(submit())
        return sorted(lost)


# --- progress -------------------------------------------------------------------------------------------------------


@contextmanager
def progress(total: int, before: int = 0, *, quiet: bool = False) -> Iterator[Done]:
    """A bar with the time left on a terminal, a line now and then elsewhere; gives what is to be called with each row.

    `before`: samples that are done already.
    """
    if quiet:
        yield lambda row: None
        return
    failed = 0
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        shown = (
            TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )  # fmt: skip
        with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total, completed=before)

            def show(row: Row) -> None:
                nonlocal failed
                failed += not row["passed"]
                bar.update(task, advance=1, description=f"{failed} failed" if failed else "")

            yield show
        return
    begun = said = time.monotonic()
    count = 0

    def tell(row: Row) -> None:
        nonlocal failed, count, said
        failed, count = failed + (not row["passed"]), count + 1
        now = time.monotonic()
        if now - said < SAY_S and before + count < total:
            return
        said = now
        left_s = (now - begun) / count * (total - before - count)
        failures = f", {failed} failed" if failed else ""
        print(f"samples: {before + count} of {total}{failures}, {left_s:.0f} s left", file=sys.stderr, flush=True)

    yield tell
