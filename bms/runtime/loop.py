"""The fixed-rate loop: read, decide, write, on any rack and any clock, and an ordered end on every way out."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

from bms.core.machine_table import Request
from bms.runtime.clock import LoopClock
from hal.contract import Contactor, HasTruth, Rack, RackState, Truth

log = logging.getLogger(__name__)

SHUTDOWN_S = 60.0  # longer than the controller takes for ramp, feedback and weld test together
SHUTDOWN_STEPS = 10  # at the least, however long the period
ASKING_STEPS = 2  # of 0 A before opening without the controller
SETTLED = frozenset(RackState) - {
    RackState.PRECHARGE,
    RackState.CONNECTED,
    RackState.RAMP_DOWN,
    RackState.OPENING,
    RackState.TRANSPORT_PRECHARGE,
    RackState.TRANSPORT_CHARGE,
}


class Decider(Protocol):
    """What decides: `bms.core.step.Controller` for a rack, or one that decides for many racks at once.

    `measurement` and `command` are what the rack fills and takes; both have `head`, one row for each rack, and
    `command.blank()` makes another like it.
    """

    measurement: Any
    command: Any

    def step(self, request: int, dt_s: float) -> int:
        """Answer `measurement` in `command`; returns a status."""
        ...


class Observer(Protocol):
    """Told of every step, after the command has been written."""

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """`step` counts from 1; `truth` is given in the steps that sample it."""
        ...


class StepRecorder(Protocol):
    """What takes down every step."""

    def add(self, dt_s: float, request: int, status: int, controller: Any, truth: Truth | None) -> None:
        """Append the step that `controller` has just made."""
        ...


@dataclass
class StopFlag:
    """Set by a signal; the loop looks at it between steps and while it waits."""

    signal_number: int = 0

    def __bool__(self) -> bool:
        return self.signal_number != 0


@contextlib.contextmanager
def stop_on_signals(flag: StopFlag) -> Iterator[None]:
    """SIGINT and SIGTERM set `flag` instead of ending the process: contactors are opened first. Main thread only."""

    def handler(number: int, frame: FrameType | None) -> None:
        flag.signal_number = number

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@dataclass
class LoopStats:
    """How a run went. Seconds of wall time by part, and deadlines."""

    steps: int = 0
    missed_deadlines: int = 0
    worst_late_s: float = 0.0
    read_s: float = 0.0
    decide_s: float = 0.0
    write_s: float = 0.0
    record_s: float = 0.0
    observe_s: float = 0.0
    opened: bool = False  # the contactors' feedback said open at the end
    ended_by: str = ""


@dataclass
class Loop:
    """Runs `controller` on `rack`, or on all racks of a site, every `period_s` of `clock`.

    `sample_every`: every so many steps the truth of a twin is read, for the recording and the observers. A deadline is
    missed when a step's work ends after the next step should have begun; the loop then skips to the next slot that is
    still ahead, and `dt_s` tells the controller. `requests`: what is asked of the controller, each from its time on (s
    since the start, rising); before the first, and without any, to connect. `steer` makes of that and of the time what
    is asked in the end: it speaks for an energy manager, until the loop opens the contactors.
    """

    rack: Rack
    controller: Decider
    clock: LoopClock
    period_s: float
    stop: StopFlag = field(default_factory=StopFlag)
    recorder: StepRecorder | None = None
    observers: tuple[Observer, ...] = ()
    sample_every: int = 1
    requests: tuple[tuple[float, Request], ...] = ()
    steer: Callable[[Request, float], Request] | None = None

    def __post_init__(self) -> None:
        self.stats = LoopStats()
        self._slot = 0
        self._start_s = self.clock.now_s()
        self._last_s = self._start_s - self.period_s
        info = self.rack.info
        self._truth = Truth(info.n_cells, info.n_sensors)
        self._teller = self.rack if info.capabilities.truth and isinstance(self.rack, HasTruth) else None
        self._feedback = self.controller.measurement.head["contactors"]
        self._feedback_quality = self.controller.measurement.head["contactors_quality"]
        self._state = self.controller.command.head["state"]
        self._asked = Request.CONNECT
        self._later = list(self.requests)

    def run(self, duration_s: float = math.inf) -> LoopStats:
        """Connect and run for `duration_s`, or until `stop`; then open the contactors, whatever happened."""
        stats = self.stats
        gc.collect()
        gc.freeze()  # what exists now stays: a collection during the run need not look at it
        try:
            while not self.stop and self._slot * self.period_s < duration_s * (1 - 1e-12):
                self.step(self._request())
            stats.ended_by = signal.Signals(self.stop.signal_number).name if self.stop else "duration"
            self._open_in_order()
        except BaseException as error:
            stats.ended_by = type(error).__name__
            raise
        finally:
            gc.unfreeze()
            if not stats.opened:
                self._open_at_once()
        return stats

    def step(self, request: Request) -> None:
        """One step, and the wait for the next; for those who do not `run` but ask step by step, and `finish`."""
        self._step(request)
        self._wait(lambda: bool(self.stop))

    def finish(self) -> bool:
        """Open the contactors, in order where the controller can, else at once. Returns whether they are seen open."""
        self.stats.opened = False
        try:
            self._open_in_order()
        finally:
            if not self.stats.opened:
                self._open_at_once()
        return self.stats.opened

    def _request(self) -> Request:
        """What is asked now."""
        now_s = self.clock.now_s()
        while self._later and self._later[0][0] <= now_s - self._start_s:
            self._asked = self._later.pop(0)[1]
        return self._asked if self.steer is None else self.steer(self._asked, now_s)

    def _step(self, request: Request) -> None:
        stats, controller = self.stats, self.controller
        t0 = perf_counter()
        now_s = self.clock.now_s()
        dt_s = now_s - self._last_s
        self._last_s = now_s
        self.rack.read(controller.measurement)
        t1 = perf_counter()
        status = controller.step(request, dt_s)
        t2 = perf_counter()
        self.rack.write(controller.command)
        t3 = perf_counter()
        stats.steps += 1
        truth = None
        if self._teller is not None and (stats.steps - 1) % self.sample_every == 0:
            self._teller.truth(self._truth)
            truth = self._truth
        if self.recorder is not None:
            self.recorder.add(dt_s, request, status, controller, truth)
        t4 = perf_counter()
        for observer in self.observers:
            observer(stats.steps, now_s, dt_s, truth)
        stats.read_s += t1 - t0
        stats.decide_s += t2 - t1
        stats.write_s += t3 - t2
        stats.record_s += t4 - t3
        stats.observe_s += perf_counter() - t4

    def _wait(self, interrupted: Callable[[], bool]) -> None:
        """Wait for the next slot; one that has passed already is a missed deadline."""
        self._slot += 1
        late_s = self.clock.now_s() - (self._start_s + self._slot * self.period_s)
        if late_s > 0:
            self.stats.missed_deadlines += 1
            self.stats.worst_late_s = max(self.stats.worst_late_s, late_s)
            self._slot += math.ceil(late_s / self.period_s)
        self.clock.wait_until(self._start_s + self._slot * self.period_s, interrupted)

    def _is_open(self) -> bool:
        if not self.rack.info.capabilities.contactors:
            return True
        return bool((self._feedback == Contactor.NONE).all() and not self._feedback_quality.any())

    def _open_in_order(self) -> None:
        """Let the controller ask for 0 A, open, and see the feedback; a bounded number of steps."""
        for _ in range(max(SHUTDOWN_STEPS, math.ceil(SHUTDOWN_S / self.period_s))):
            self._step(Request.OPEN)
            if all(state in SETTLED for state in self._state.tolist()) and self._is_open():
                self.stats.opened = True
                return
            self._wait(lambda: False)

    def _open_at_once(self) -> None:
        """Without the controller: command 0 A, then open contactors, until the feedback says so or the steps are over.

        The rack or the controller has just failed, so nothing here may raise before every attempt is made.
        """
        measurement, last = self.controller.measurement, self.controller.command.head
        command = self.controller.command.blank()
        head = command.head
        for name in ("heartbeat", "severity", "cause", "cooling_degc", "soc_min", "soc_mean", "soc_max"):
            head[name] = last[name]
        head["state"] = RackState.FAULT
        for attempt in range(SHUTDOWN_STEPS):
            head["contactors"] = last["contactors"] if attempt < ASKING_STEPS else Contactor.NONE
            head["heartbeat"] += 1
            head["time_s"] = measurement.head["time_s"]
            try:
                self.rack.write(command)
                self.clock.wait_until(self.clock.now_s() + self.period_s, lambda: False)
                self.rack.read(measurement)
            except Exception as error:
                log.warning("while opening the contactors: %s", error)
                continue
            if attempt >= ASKING_STEPS and self._is_open():
                self.stats.opened = True
                return
