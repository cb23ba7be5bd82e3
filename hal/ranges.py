"""Ranges of racks given to threads: kernels let go of Python's global lock, so that two threads do twice the work.

The ranges depend on the number of racks alone, and every range is worked on by one thread from its first rack to its
last: what comes out has the same bits whatever the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

Job = Callable[[int, int, int, int], int]
"""Works on the racks lo..hi - 1, with the number of the thread and that of the range; returns -1, or why it stops."""


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Ranges:
    """Threads that share the ranges of a job, the calling one among them. Used as a context manager, or closed."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(n_threads - 1, thread_name_prefix="ranges") if n_threads > 1 else None

    def __call__(self, job: Job, n_racks: int, size: int) -> int:
        """Give `job` the ranges of `n_racks` racks, `size` in each. Returns the answer of the first that is not -1."""
        n_ranges = -(-n_racks // size)
        numbers = iter(range(n_ranges))
        answers = [-1] * n_ranges

        def work(thread: int) -> None:
            for number in self._each(numbers):
                answers[number] = job(number * size, min((number + 1) * size, n_racks), thread, number)

        n_threads = min(self.n_threads, n_ranges)
        others = [self._pool.submit(work, thread) for thread in range(1, n_threads)] if self._pool is not None else []
        try:
            work(0)
        finally:
            for other in others:
                other.result()
        return next((answer for answer in answers if answer >= 0), -1)

    def _each(self, numbers: Iterator[int]) -> Iterator[int]:
        """The numbers that are left, one by one, never the same to two threads."""
        while True:
            with self._lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
