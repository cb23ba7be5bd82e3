"""Many trials: order, progress, and the same outcomes with any number of processes."""

from __future__ import annotations

import pytest

from bms.trial import outcome, pool
from hal.errors import ConfigError


def numbers(outcomes: list) -> list:
    return [(o.id, o.status, o.digest, [(e.detect_ms, e.open_ms) for e in o.entries]) for o in outcomes]


def test_two_processes_come_to_what_one_does(make) -> None:
    off = {"fault": {"interlock_open": {"fatal": {"enabled": False}}}}
    jobs = [(make(name="a"), None), (make(name="b", run={"duration": "80s"}), None), (make(name="c"), off)]
    told: list[str] = []
    one = pool.run_all(jobs, curves=False, told=lambda outcome: told.append(outcome.id))
    two = pool.run_all(jobs, processes=2, curves=False)
    assert told == ["a", "b", "c"]
    assert numbers(one) == numbers(two)
    assert [o.status for o in one] == ["passed", "passed", "failed"]
    assert one[0].curves is None


def test_a_wrong_file_ends_it(make) -> None:
    with pytest.raises(ConfigError, match="trial 'mine'"):
        pool.run_all([(make(), None), (make(fault=[{"kind": "none"}]), None)])


def test_progress_in_a_pipe(passed, failed, capsys: pytest.CaptureFixture[str]) -> None:
    with pool.progress(2, "trials") as told:
        told(passed)
        told(failed)
    assert capsys.readouterr().err == "trials: 2 of 2, 1 failed\n"
    with pool.progress(1, "weakened", failing=False) as told:
        told(failed)
    assert capsys.readouterr().err == "weakened: 1 of 1\n"
    with pool.progress(1, "trials", quiet=True) as told:
        told(failed)
    assert capsys.readouterr().err == ""


def test_one_that_breaks_down_fails_alone(make, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = outcome.play

    def play(trial, controller=None):
        if trial.id == "b":
            raise RuntimeError("the rack is not open")
        return plain(trial, controller)

    monkeypatch.setattr(outcome, "play", play)
    found = pool.run_all([(make(name=name, gap="known" if name == "b" else ""), None) for name in "abc"], curves=False)
    assert [o.status for o in found] == ["passed", "failed", "passed"]
    assert found[1].failures == [
        "mine.toml: broke down: RuntimeError: the rack is not open; this is an error of the program"
    ]
