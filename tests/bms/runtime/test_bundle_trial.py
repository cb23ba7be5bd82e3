"""When a bundle on trial confirms itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bms.runtime.bundle_trial import AGAIN_S, HEALTHY_S, PASSED, BundleTrial
from hal.contract import RackState


class Bench:
    """A trial in steps of a second, without a rack."""

    def __init__(self, *answers: bool | OSError) -> None:
        self.answers = list(answers)
        self.asked_s: list[int] = []
        command = SimpleNamespace(head=np.zeros(1, [("state", "u1")]), fault_fatal=np.zeros(4, np.uint32))
        self.command = command
        self.trial = BundleTrial(SimpleNamespace(command=command), self.confirm)  # type: ignore[arg-type]
        self.now_s = 0

    def confirm(self) -> bool:
        self.asked_s.append(self.now_s)
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def run(self, seconds: float, state: RackState, fault: int = 0) -> None:
        for _ in range(int(seconds)):
            self.now_s += 1
            self.command.head["state"] = state
            self.command.fault_fatal[:] = fault
            self.trial(self.now_s, self.now_s, 1.0, None)
            self.trial.close()


def test_after_a_minute_of_health_once() -> None:
    bench = Bench(True)
    bench.run(2, RackState.SELF_TEST)
    bench.run(3 * HEALTHY_S, RackState.CONNECTED)
    assert bench.asked_s == [2 + HEALTHY_S]


@pytest.mark.parametrize("state", sorted(set(RackState) - PASSED))
def test_no_other_state_counts(state: RackState) -> None:
    bench = Bench()
    bench.run(2 * HEALTHY_S, state)
    for _ in range(4):
        bench.run(HEALTHY_S - 1, RackState.STANDBY)
        bench.run(1, state)
    assert bench.asked_s == []


def test_a_fatal_fault_starts_the_minute_again() -> None:
    bench = Bench(True)
    bench.run(HEALTHY_S - 1, RackState.STANDBY)
    bench.run(1, RackState.STANDBY, fault=1)
    bench.run(HEALTHY_S - 1, RackState.STANDBY)
    assert bench.asked_s == []
    bench.run(1, RackState.CONNECTED)
    assert bench.asked_s == [2 * HEALTHY_S]


def test_a_disk_that_fails_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(OSError(28, "No space left on device", "state-0.new"), True)
    bench.run(HEALTHY_S + 3 * AGAIN_S, RackState.CONNECTED)
    assert bench.asked_s == [HEALTHY_S, HEALTHY_S + AGAIN_S]
    told = "the bundle could not be confirmed: state-0.new: No space left on device\nthe bundle is confirmed\n"
    assert capsys.readouterr().err == told


def test_one_that_is_not_on_trial_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(False)
    bench.run(3 * HEALTHY_S, RackState.CONNECTED)
    assert capsys.readouterr().err == "the bundle is not on trial\n"
