"""Recorder and black box behind one another: each step is packed once, and the failure of either is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bms.core.machine_table import Request
from bms.core.step import Controller
from bms.runtime import recording
from bms.runtime.clock import VirtualClock
from bms.runtime.recording import Recorder
from bms.runtime.replay import replay
from bms.runtime.takedown import TakeDown
from hal.backends.replay import Recording
from hal.contract import Truth
from hal.errors import DataError


class Run:
    """The controller on its small twin, and what takes it down."""

    def __init__(self, bench: Any, folder: Path, target: Path | None) -> None:
        self.rack, self.controller, self.clock = bench()
        self.clock: VirtualClock
        self.controller: Controller
        self.truth = Truth(self.rack.info.n_cells, self.rack.info.n_sensors)
        self.taken = TakeDown(folder, target, self.rack.info, self.controller, {"scenario": {"name": "x"}}, 1.0)
        self.steps = 0

    def go(self, n: int) -> None:
        for _ in range(n):
            self.clock.wait_until(float(self.steps), lambda: False)
            self.steps += 1
            self.rack.read(self.controller.measurement)
            status = self.controller.step(Request.CONNECT, 1.0)
            self.rack.write(self.controller.command)
            self.rack.truth(self.truth)
            self.taken.add(1.0, Request.CONNECT, status, self.controller, self.truth if self.steps % 10 == 0 else None)


def test_recording_and_black_box_hold_the_same_steps(bench: Any, tmp_path: Path) -> None:
    """From the start of a run the file of a trip is what the recording holds, byte for byte, and both replay."""
    run = Run(bench, tmp_path / "box", tmp_path / "run.bms")
    run.go(30)
    run.taken.box.trip("asked")
    run.go(70)
    run.taken.close({"ended_by": "test"})
    run.taken.complain()
    whole, trip = Recording(tmp_path / "run.bms"), Recording(tmp_path / "box" / "blackbox-001.bms")
    ours, theirs = list(whole.frames()), list(trip.frames())
    assert (len(ours), len(theirs)) == (1 + 100 + 1, 1 + 90 + 1), "header, steps, end; the box keeps a minute after"
    assert ours[1:91] == theirs[1:91]
    for path, steps in ((tmp_path / "run.bms", 100), (tmp_path / "box" / "blackbox-001.bms", 90)):
        outcome = replay(Recording(path))
        assert (outcome.steps, outcome.steps_differing, outcome.closed) == (steps, 0, True)
    list(whole)
    assert whole.end == {"ended_by": "test"}


def test_a_trip_late_in_the_run_replays_from_the_middle_of_it(bench: Any, tmp_path: Path) -> None:
    """Steps are packed one against the other: the file of a trip begins with one that stands by itself."""
    run = Run(bench, tmp_path / "box", tmp_path / "run.bms")
    run.go(200)
    run.taken.box.trip("asked")
    run.taken.close({})
    whole, trip = (list(Recording(p)) for p in (tmp_path / "run.bms", tmp_path / "box" / "blackbox-001.bms"))
    assert 120 <= len(trip) < 200
    for ours, theirs in zip(trip, whole[-len(trip) :], strict=True):
        assert ours.command.tobytes() == theirs.command.tobytes()
        assert ours.measurement.tobytes() == theirs.measurement.tobytes()
    assert replay(Recording(tmp_path / "box" / "blackbox-001.bms")).steps_differing == 0


def test_a_step_is_packed_once(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    packed = recording.packed_step
    for module in ("takedown", "recording", "blackbox"):
        monkeypatch.setattr(
            f"bms.runtime.{module}.packed_step", lambda *args: calls.append(1) or packed(*args), raising=True
        )
    run = Run(bench, tmp_path / "box", tmp_path / "run.bms")
    run.go(5)
    run.taken.close({})
    assert len(calls) == 5


def test_without_a_recording_the_box_goes_on_alone(bench: Any, tmp_path: Path) -> None:
    run = Run(bench, tmp_path / "box", None)
    run.go(20)
    run.taken.box.trip("asked")
    run.taken.close({})
    run.taken.complain()
    assert (run.taken.recorder, run.taken.bytes_written) == (None, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["box"], "nothing else is written"
    outcome = replay(Recording(tmp_path / "box" / "blackbox-001.bms"))
    assert (outcome.steps, outcome.steps_differing) == (20, 0)


def test_bytes_written_are_those_of_the_recording(bench: Any, tmp_path: Path) -> None:
    run = Run(bench, tmp_path / "box", tmp_path / "run.bms")
    run.go(3)
    run.taken.close({})
    assert run.taken.bytes_written == (tmp_path / "run.bms").stat().st_size > 1000


def test_a_file_that_cannot_be_made_is_told_at_once(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no/run.bms: cannot be written: No such file or directory"):
        Run(bench, tmp_path / "box", tmp_path / "no" / "run.bms")


def test_a_recording_that_failed_on_the_way_is_told_and_the_box_is_whole(bench: Any, tmp_path: Path) -> None:
    run = Run(bench, tmp_path / "box", tmp_path / "run.bms")
    run.go(20)
    recorder = run.taken.recorder
    assert isinstance(recorder, Recorder)
    recorder.error = OSError(28, "No space left on device")  # as its thread would note it
    run.taken.box.trip("asked")
    run.taken.close({})
    with pytest.raises(DataError) as error:
        run.taken.complain()
    assert str(error.value) == f"{tmp_path / 'run.bms'}: the recording is incomplete: No space left on device"
    assert replay(Recording(tmp_path / "box" / "blackbox-001.bms")).steps == 20


def test_a_box_that_failed_is_told_and_the_recording_is_whole(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "box").write_bytes(b"in the way")
    run = Run(bench, tmp_path / "box", tmp_path / "run.bms")
    run.go(20)
    run.taken.box.trip("asked")
    run.go(5)
    run.taken.close({})
    with pytest.raises(DataError, match=r"box/blackbox-001.bms: the black box cannot be written"):
        run.taken.complain()
    outcome = replay(Recording(tmp_path / "run.bms"))
    assert (outcome.steps, outcome.steps_differing) == (25, 0)
