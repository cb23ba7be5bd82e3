"""The loop on the twin: the same on both clocks, deadlines, and contactors open on every way out."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from bms.core.machine_table import Request
from bms.runtime.clock import RealClock
from bms.runtime.loop import SHUTDOWN_S, SHUTDOWN_STEPS, Loop, StopFlag, stop_on_signals
from bms.runtime.scenario import Scenario
from hal.contract import Command, Contactor, Measurement, RackState
from hal.errors import LinkError

ENDING_STEPS = 15  # at one a second: ramp, opening, and ten seconds in which the link must fall
MAINS = Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE


class Faulty:
    """A wrapper around a rack that fails, once or for good, at the call of a chosen number; it counts all calls."""

    def __init__(self, rack, fail_at: int = 0, for_good: bool = False, error: type[BaseException] = LinkError) -> None:
        self._rack = rack
        self._fail_at, self._for_good, self._error = fail_at, for_good, error
        self.calls = 0
        self.closed_at: list[int] = []

    @property
    def info(self):
        return self._rack.info

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._fail_at or (self._for_good and self._fail_at and self.calls > self._fail_at):
            raise self._error("the cable is out")

    def read(self, out: Measurement) -> None:
        self._count()
        self._rack.read(out)

    def write(self, command: Command) -> None:
        self._count()
        if command.head["contactors"][0] & Contactor.MAIN_POSITIVE:
            self.closed_at.append(self.calls)
        self._rack.write(command)

    def truth(self, out) -> None:
        self._rack.truth(out)


class Journal:
    """An observer that keeps commands, and can send a signal or raise at a chosen step."""

    def __init__(self, controller, at: int = 0, act=None) -> None:
        self.controller, self.at, self.act = controller, at, act
        self.commands: list[bytes] = []
        self.states: list[int] = []
        self.dt_s: list[float] = []

    def __call__(self, step, now_s, dt_s, truth) -> None:
        self.commands.append(self.controller.command.raw.tobytes())
        self.states.append(int(self.controller.command.head["state"][0]))
        self.dt_s.append(dt_s)
        if step == self.at:
            self.act()


class Machine:
    """Time that passes while it sleeps, and by `work_s` whenever somebody looks at it."""

    def __init__(self, work_s: float = 0.0) -> None:
        self.time_s, self.work_s = 0.0, work_s

    def monotonic(self) -> float:
        self.time_s += self.work_s
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds

    def clock(self, speed: float = 1.0) -> RealClock:
        return RealClock(speed, monotonic=self.monotonic, sleep=self.sleep)


def test_a_run_connects_works_and_opens(bench) -> None:
    rack, controller, clock = bench()
    journal = Journal(controller)
    stats = Loop(rack, controller, clock, 1.0, observers=(journal,)).run(60.0)
    assert stats.opened
    assert stats.ended_by == "duration"
    assert stats.missed_deadlines == 0
    assert stats.steps == len(journal.states)
    assert 60 < stats.steps <= 60 + ENDING_STEPS
    order = [s for k, s in enumerate(journal.states) if k == 0 or s != journal.states[k - 1]]
    assert [s.name for s in map(RackState, order)] == [
        "SELF_TEST", "STANDBY", "PRECHARGE", "CONNECTED", "RAMP_DOWN", "OPENING", "STANDBY",
    ]  # fmt: skip
    assert rack.contactors_closed == 0
    assert rack.events == []  # never under load, never onto an uncharged link
    assert set(journal.dt_s) == {1.0}


def test_both_clocks_give_the_same_decisions(bench) -> None:
    """Where the real clock is exact, nothing tells it from the virtual one."""
    journals = []
    for clock in (None, Machine().clock()):
        rack, controller, clock = bench(clock)
        journals.append(Journal(controller))
        Loop(rack, controller, clock, 0.5, observers=(journals[-1],)).run(20.0)
    assert journals[0].commands == journals[1].commands


@pytest.mark.parametrize(("work_s", "missed"), [(0.001, False), (0.6, True)])
def test_missed_deadlines_are_counted_and_skipped(bench, work_s: float, missed: bool) -> None:
    """Each look at the clock takes `work_s`; there are a few per step."""
    machine = Machine(work_s)
    rack, controller, clock = bench(machine.clock())
    journal = Journal(controller)
    stats = Loop(rack, controller, clock, 1.0, observers=(journal,)).run(40.0)
    assert stats.opened
    if missed:
        assert stats.missed_deadlines > 10
        assert stats.steps < 35
        assert stats.worst_late_s > 0
        assert max(journal.dt_s) > 1.5  # the controller is told the time that really passed
    else:
        assert stats.missed_deadlines == 0
        assert np.allclose(journal.dt_s, 1.0, atol=0.02)
    assert sum(journal.dt_s) == pytest.approx(clock.now_s(), abs=4.0)


def test_every_failing_call_ends_with_open_contactors(bench, monkeypatch) -> None:
    """A dry run counts the calls of the rack; then each of them fails, once and for good."""
    monkeypatch.setattr("bms.runtime.loop.gc.collect", lambda: 0)  # hundreds of runs, and the tests' own heap is large
    rack, controller, clock = bench()
    dry = Faulty(rack)
    Loop(dry, controller, clock, 1.0).run(12.0)
    assert dry.calls > 24
    assert dry.closed_at
    for for_good in (False, True):
        for fail_at in range(1, dry.calls + 1):
            rack, controller, clock = bench()
            faulty = Faulty(rack, fail_at, for_good)
            loop = Loop(faulty, controller, clock, 1.0)
            with pytest.raises(LinkError, match="cable"):
                loop.run(12.0)
            if not for_good:
                assert rack.contactors_closed == 0, fail_at
                assert loop.stats.opened
                assert rack.events == [], fail_at
            assert faulty.calls <= fail_at + 2 * SHUTDOWN_STEPS, "bounded"
            assert loop.stats.ended_by == "LinkError"
            rack.close()
            assert rack.contactors_closed == 0


@pytest.mark.parametrize("step", [1, 2, 4, 7, 11])
def test_an_error_in_an_observer_opens_too(bench, step: int) -> None:
    rack, controller, clock = bench()

    def fail() -> None:
        raise ZeroDivisionError

    loop = Loop(rack, controller, clock, 1.0, observers=(Journal(controller, step, fail),))
    with pytest.raises(ZeroDivisionError):
        loop.run(60.0)
    assert loop.stats.opened
    assert rack.contactors_closed == 0
    assert rack.events == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 3, 6, 20])
def test_signals_open_in_order(bench, number: signal.Signals, step: int) -> None:
    rack, controller, clock = bench()
    stop = StopFlag()
    before = signal.getsignal(number)
    journal = Journal(controller, step, lambda: signal.raise_signal(number))
    with stop_on_signals(stop):
        stats = Loop(rack, controller, clock, 1.0, stop=stop, observers=(journal,)).run(3600.0)
    assert signal.getsignal(number) is before
    assert stats.ended_by == number.name
    assert stats.opened
    assert step <= stats.steps <= step + ENDING_STEPS
    assert journal.states[-1] in (RackState.SELF_TEST, RackState.STANDBY)  # before and after there was anything to open
    assert rack.contactors_closed == 0
    assert rack.events == []


def test_a_second_signal_does_not_cut_the_shutdown_short(bench) -> None:
    rack, controller, clock = bench()
    stop = StopFlag()

    def impatient() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    class Again(Journal):
        def __call__(self, step, now_s, dt_s, truth) -> None:
            super().__call__(step, now_s, dt_s, truth)
            if step > self.at:
                signal.raise_signal(signal.SIGINT)

    with stop_on_signals(stop):
        stats = Loop(rack, controller, clock, 1.0, stop=stop, observers=(Again(controller, 15, impatient),)).run(3600.0)
    assert stats.opened
    assert rack.contactors_closed == 0


def test_welded_contactors_are_told_not_waited_for(bench) -> None:
    rack, controller, clock = bench(fault=[{"kind": "contactor_weld", "at_s": 10.0}])
    stats = Loop(rack, controller, clock, 1.0).run(20.0)
    assert not stats.opened
    assert rack.contactors_closed == MAINS
    assert stats.steps <= 20 + SHUTDOWN_S


def test_truth_is_sampled_as_asked(bench) -> None:
    rack, controller, clock = bench()
    seen = []
    observer = lambda step, now_s, dt_s, truth: seen.append((step, truth is not None))  # noqa: E731
    Loop(rack, controller, clock, 1.0, observers=(observer,), sample_every=5).run(20.0)
    assert [step for step, given in seen if given] == list(range(1, seen[-1][0] + 1, 5))


def test_no_time_at_all_still_ends_open(bench) -> None:
    rack, controller, clock = bench()
    stats = Loop(rack, controller, clock, 1.0).run(0.0)
    assert stats.opened
    assert stats.steps == 1


def test_scenario_defaults_are_a_day_at_one_second() -> None:
    assert (Scenario().duration_s, Scenario().period_s) == (86400.0, 1.0)


def test_who_steers_has_the_word_until_the_contactors_are_opened(bench) -> None:
    rack, controller, clock = bench()
    asked: list[tuple[Request, float]] = []

    def steer(request: Request, now_s: float) -> Request:
        asked.append((request, now_s))
        return Request.CONNECT if now_s >= 10.0 else Request.OPEN

    states = Journal(controller)
    requests = ((0.0, Request.OPEN), (5.0, Request.CONNECT))
    stats = Loop(rack, controller, clock, 1.0, observers=(states,), requests=requests, steer=steer).run(30.0)
    assert [now_s for _, now_s in asked] == [float(k) for k in range(30)]
    assert [request for request, _ in asked] == [Request.OPEN] * 5 + [Request.CONNECT] * 25
    assert RackState.CONNECTED not in states.states[:10]
    assert RackState.CONNECTED in states.states[10:30]
    assert stats.opened
