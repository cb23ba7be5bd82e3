"""Clocks of the loop: virtual, as fast as it can, or real, at a chosen speed. The loop cannot tell which it has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from hal.contract import Clock


class LoopClock(Clock, Protocol):
    """A clock that can also be waited on."""

    def wait_until(self, time_s: float, interrupted: Callable[[], bool]) -> None:
        """Return at `time_s`, at once if it has passed, or early when `interrupted()` becomes true."""
        ...


class VirtualClock:
    """Time that passes only while the loop waits, and then at once."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        """Seconds since the start of the run."""
        return self._now_s

    def wait_until(self, time_s: float, interrupted: Callable[[], bool]) -> None:
        """Jump to `time_s`."""
        self._now_s = max(self._now_s, time_s)


class RealClock:
    """The computer's monotonic clock, from 0, running `speed` times as fast.

    `monotonic` and `sleep` are those of `time` unless a test brings its own.
    """

    LONGEST_NAP_S = 0.05  # a signal must be answered soon, and a handler cannot wake a sleep safely

    def __init__(
        self,
        speed: float = 1.0,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._speed = speed
        self._monotonic = monotonic
        self._sleep = sleep
        self._start_s = monotonic()

    def now_s(self) -> float:
        """Seconds since the start of the run, times the speed."""
        return (self._monotonic() - self._start_s) * self._speed

    def wait_until(self, time_s: float, interrupted: Callable[[], bool]) -> None:
        """Sleep until `time_s`, in naps."""
        while not interrupted():
            rest_s = (time_s - self.now_s()) / self._speed
            if rest_s <= 0:
                return
            self._sleep(min(rest_s, self.LONGEST_NAP_S))
