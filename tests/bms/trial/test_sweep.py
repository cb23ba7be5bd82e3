"""A fault at every tick."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bms.core.machine_table import Request
from bms.trial import sweep
from bms.trial.case import Trial
from hal.errors import ConfigError

FILE = """
[run]
duration = "60s"
[[fault]]
kind = "interlock_open"
at_s = 39.01
until_s = 59.01
[[fault]]
kind = "coolant_stop"
at_s = 42
[[expect.row]]
fault = "interlock_open"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return path


def test_all_faults_move_together(file: Path) -> None:
    ticks = sweep.ticks(sweep.find(str(file)), 30.0, 40.0)
    assert [tick.at_s for tick in ticks] == [float(k) for k in range(40)]
    last = ticks[-1].trial
    assert [entry["at_s"] for entry in last.faults] == [pytest.approx(39.0), pytest.approx(41.99)]
    assert last.faults[0]["until_s"] == pytest.approx(59.0)
    assert last.scenario.requests == ((0.0, Request.CONNECT), (30.0, Request.OPEN))
    assert last.expect.contactors == "open"


def test_every_tick_opens_in_time(file: Path) -> None:
    ticks = sweep.ticks(sweep.find(str(file)), 20.0, 30.0)
    outcomes = [sweep.run_tick(tick) for tick in ticks]
    assert [o.failures for o in outcomes] == [[]] * 30
    assert {o.cells[0][1] for o in outcomes if o.cells} >= {"self_test", "precharge", "connected", "opening"}


def test_a_controller_that_does_not_open_is_found(file: Path) -> None:
    trial = sweep.find(str(file))
    off = {"fault": {"interlock_open": {"fatal": {"enabled": False}}}}
    weak = replace(trial, scenario=replace(trial.scenario, controller=off))
    outcomes = [sweep.run_tick(tick) for tick in sweep.ticks(weak, 20.0, 30.0)[14:18]]
    assert all(o.failures for o in outcomes)


def test_what_cannot_be_swept_is_told(file: Path, make) -> None:
    with pytest.raises(ConfigError, match="nothing goes wrong in it"):
        sweep.ticks(make(fault=[]), 10.0, 20.0)
    with pytest.raises(ConfigError, match="a fault has at_state"):
        sweep.ticks(make(fault=[{"kind": "interlock_open", "at_state": "fault"}]), 10.0, 20.0)
    with pytest.raises(ConfigError, match="must end after its stop"):
        sweep.ticks(make(), 20.0, 20.0)
    with pytest.raises(ConfigError, match="did you mean 'interlock_open-lfp'"):
        sweep.find("interlock_open-lpf")
    file.write_text("[[trial]]\nname = 'a'\n[[trial]]\nname = 'b'\n")
    with pytest.raises(ConfigError, match="2 trials"):
        sweep.find(str(file))


def test_a_tick_that_breaks_down_fails_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(trial: Trial) -> None:
        raise RuntimeError("it is full")

    monkeypatch.setattr(sweep, "play", play)
    outcome = sweep.run_tick(sweep.ticks(sweep.find(str(file)), 20.0, 30.0)[3])
    assert outcome.status == "failed"
    assert "broke down: RuntimeError: it is full" in outcome.failures[0]
