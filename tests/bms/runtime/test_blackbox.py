"""The black box: the file around a trip starts a controller where it was and repeats every step; it never costs the run."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core.faults import Fault
from bms.core.machine_table import Request
from bms.runtime import blackbox
from bms.runtime.blackbox import BlackBox
from bms.runtime.recording import Recorder, header_of, packed, unpack
from bms.runtime.replay import replay
from hal.backends.replay import Recording
from hal.contract import Command, Field, Layout, Measurement, RackInfo, Record, Severity, Truth

N_CELLS, N_SENSORS = 20, 3
INFO = RackInfo("fake", N_CELLS, N_SENSORS, 1, 280.0, "", np.zeros(N_CELLS, np.uint16))
FATAL = int(Severity.FATAL)


class Memory(Record):
    """What the controller below remembers."""

    layout = Layout(
        "Memory",
        (
            Field("count", "u4", ""),
            Field("charge", "f8", ""),
            Field("out", "f4", "", "cells"),
            Field("flags", "u1", "", "cells"),
        ),
    )


class Settings(Record):
    layout = Layout("Settings", (Field("gain", "f4", ""),))


class Fake:
    """A controller whose every decision depends on all that it has seen."""

    def __init__(self) -> None:
        size = N_CELLS, N_SENSORS
        self.config, self.state = Settings(*size), Memory(*size)
        self.measurement, self.command = Measurement(*size), Command(*size)
        self.config.head["gain"] = 0.3

    def step(self, request: int, dt_s: float) -> int:
        state, command = self.state, self.command
        state.head["count"] += 1
        state.head["charge"] += self.measurement.head["current_a"] * dt_s
        state.out += self.config.head["gain"] * (self.measurement.cell_v - state.out)
        state.flags[:] = state.out > 3.3
        command.head["heartbeat"] = state.head["count"]
        command.head["limit_charge_a"] = state.head["charge"]
        command.head["soc_mean"] = state.out.mean()
        command.head["time_s"] = self.measurement.head["time_s"]
        command.balance[:] = state.flags
        return int(state.head["count"][0]) % 3


class Rig:
    """Runs a `Fake` with a black box; `fault` makes its command fatal from the next step on."""

    def __init__(self, folder: Path, period_s: float = 1.0, sample_every: int = 0, **options) -> None:
        self.controller = Fake()
        self.period_s, self.sample_every = period_s, sample_every
        self.rng = np.random.default_rng(1)
        self.steps = 0
        self.fault = 0
        self.box = BlackBox(folder, INFO, self.controller, {"scenario": {"name": "x"}}, period_s, **options)
        self.also: list[Recorder] = []
        self.truths: dict[int, bytes] = {}

    def run(self, n: int) -> None:
        controller = self.controller
        for _ in range(n):
            self.steps += 1
            head = controller.measurement.head
            head["time_s"], head["current_a"] = self.steps * self.period_s, 100 * self.rng.standard_normal()
            controller.measurement.cell_v[:] = 3.3 + 0.01 * self.rng.standard_normal(N_CELLS)
            status = controller.step(1, self.period_s)
            controller.command.head["severity"] = FATAL if self.fault else 0
            controller.command.head["cause"] = self.fault
            truth = None
            if self.sample_every and self.steps % self.sample_every == 0:
                truth = Truth(N_CELLS, N_SENSORS)
                truth.soc[:] = self.rng.random(N_CELLS)
                truth.head["time_s"] = self.steps
                self.truths[self.steps] = truth.bytes.tobytes()
            for taker in (self.box, *self.also):
                taker.add(self.period_s, 1, status, controller, truth)


def replayed(path: Path) -> list[int]:
    """Run the file through a `Fake` and compare every decision; returns the heartbeats of its steps."""
    recording = Recording(path)
    controller = Fake()
    controller.config.head["gain"] = 0
    unpack(recording.header["config"], controller.config)
    unpack(recording.header["state"], controller.state)
    beats = []
    for step in recording:
        controller.measurement.raw[...] = step.measurement
        assert controller.step(step.request, step.dt_s) == step.status
        for name in ("severity", "cause"):
            controller.command.head[name] = step.command["head"][name]
        assert controller.command.bytes.tobytes() == step.command.tobytes(), step.number
        beats.append(int(controller.state.head["count"][0]))
    assert recording.truncated_bytes == 0
    return beats


def numbers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_for(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("nothing happened")


def test_a_fault_leaves_the_minutes_around_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(500)
    rig.fault = 17
    rig.run(200)
    rig.box.close()
    assert numbers(tmp_path) == ["blackbox-001.bms"]
    beats = replayed(tmp_path / "blackbox-001.bms")
    # the fault shows in step 501: 120 s before it, with the block that this falls into, and 60 s after
    assert beats == list(range(beats[0], 562))
    assert 501 - 150 <= beats[0] <= 501 - 119
    recording = Recording(tmp_path / "blackbox-001.bms")
    about = recording.header["about"]
    assert about["scenario"] == {"name": "x"}
    assert about["blackbox"]["reason"] == "fault 17 at 0: 0"
    assert about["blackbox"]["time_s"] == 501.0
    assert beats[about["blackbox"]["step"] - 1] == 501
    assert [int(s.command["head"]["cause"][0]) for s in recording][: len(beats) - 61] == [0] * (len(beats) - 61)
    assert recording.end == {"ended_by": "black box", "trips": []}
    assert rig.box.error is None


@given(
    period_s=st.sampled_from([0.1, 0.5, 1.0, 7.0]),
    before_s=st.floats(1, 40),
    after_s=st.floats(1, 20),
    trip=st.integers(1, 150),
    sample_every=st.sampled_from([0, 1, 3, 40, 90]),
)
@settings(max_examples=40, deadline=None)
def test_every_file_repeats_its_steps(tmp_path_factory, period_s, before_s, after_s, trip, sample_every) -> None:
    folder = tmp_path_factory.mktemp("box")
    rig = Rig(folder, period_s, sample_every, before_s=before_s, after_s=after_s)
    rig.run(trip)
    rig.box.trip("asked")
    n_before, n_after = math.ceil(before_s / period_s - 1e-9), math.ceil(after_s / period_s - 1e-9)
    rig.run(n_after + 5)
    rig.box.close()
    beats = replayed(folder / "blackbox-001.bms")
    assert beats == list(range(beats[0], trip + n_after + 1))
    assert (
        max(1, trip - n_before - math.ceil(n_before / blackbox.BLOCKS) + 1) <= beats[0] <= max(1, trip - n_before + 1)
    )
    truths = {
        beats[step.number - 1]: step.truth.tobytes()
        for step in Recording(folder / "blackbox-001.bms")
        if step.truth is not None
    }
    assert truths == {number: data for number, data in rig.truths.items() if beats[0] <= number <= beats[-1]}


def test_from_the_start_of_a_run_it_is_what_a_recorder_writes(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "box", sample_every=4)
    recorder = Recorder(tmp_path / "r.bms", header_of(INFO, rig.controller, {}), N_CELLS, N_SENSORS)
    rig.also.append(recorder)
    rig.run(30)
    rig.box.trip("asked")
    rig.run(60)
    rig.box.close()
    recorder.close()
    ours, theirs = (list(Recording(p).frames()) for p in (tmp_path / "box" / "blackbox-001.bms", tmp_path / "r.bms"))
    assert ours[1:-1] == theirs[1:-1]


def test_memory_is_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, before_s=40, after_s=5)
    held = []
    for _ in range(30):
        rig.run(10)
        held.append(sum(len(block.steps) for block in rig.box._blocks))
    rig.box.close()
    assert max(held) < 40 + 10
    assert min(held[5:]) >= 40
    assert len(rig.box._blocks) <= blackbox.BLOCKS + 1
    assert numbers(tmp_path) == []


def test_trips_have_a_file_each_and_overlap(tmp_path: Path) -> None:
    rig = Rig(tmp_path, before_s=20, after_s=10)
    rig.run(50)
    rig.fault = 3
    rig.run(4)
    rig.fault = 4  # another cause, still fatal
    rig.run(4)
    rig.fault = 0
    rig.run(4)
    rig.fault = 4  # came back
    rig.run(20)
    rig.box.close()
    assert numbers(tmp_path) == [f"blackbox-{n:03d}.bms" for n in (1, 2, 3)]
    ends = [replayed(tmp_path / name)[-1] for name in numbers(tmp_path)]
    assert ends == [61, 65, 73]
    reasons = [Recording(tmp_path / n).header["about"]["blackbox"]["reason"] for n in numbers(tmp_path)]
    assert [reason.split()[1] for reason in reasons] == ["3", "4", "4"]


def test_a_fault_that_the_run_begins_with_is_no_trip(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.fault = 9
    rig.run(100)
    rig.fault = 0
    rig.run(5)
    assert rig.box.trips == 0
    rig.fault = 9
    rig.run(1)
    assert rig.box.trips == 1
    rig.box.close()


def test_nothing_is_written_of_a_trip_before_the_first_step(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.box.trip("too early")
    rig.run(3)
    rig.box.close()
    assert numbers(tmp_path) == []


def test_the_newest_files_are_kept_and_numbers_go_on(tmp_path: Path) -> None:
    (tmp_path / "blackbox-oops.bms").write_bytes(b"")
    for run in range(2):
        rig = Rig(tmp_path, before_s=3, after_s=1)
        rig.run(4)
        for _ in range(13):
            rig.box.trip("again")
            rig.run(3)
            wait_for(lambda box=rig.box: box._unwritten == 0)
        rig.box.close()
        assert len(list(tmp_path.glob("blackbox-0*.bms"))) == (13, blackbox.KEPT_FILES)[run]
    assert numbers(tmp_path) == [*(f"blackbox-{n:03d}.bms" for n in range(7, 27)), "blackbox-oops.bms"]


def test_what_was_before_the_trip_is_on_the_disk_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may not live until the end of the minute after."""
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size) or real(handle))
    rig = Rig(tmp_path)
    rig.run(40)
    rig.box.trip("asked")
    wait_for(lambda: len(synced) == 2)  # the file, and the name in its folder
    path = tmp_path / "blackbox-001.bms"
    assert synced[0] == path.stat().st_size
    assert replayed(path) == list(range(1, 41))
    rig.run(10)
    wait_for(lambda: len(replayed(path)) == 50)
    rig.box.close()
    assert synced[-1] == path.stat().st_size


def test_a_disk_that_hangs_holds_nothing_up_and_memory_stays_bounded(tmp_path: Path, monkeypatch) -> None:
    gate = threading.Event()
    put = blackbox._put

    def slow(*args) -> None:
        gate.wait(10)
        put(*args)

    monkeypatch.setattr(blackbox, "_put", slow)
    rig = Rig(tmp_path, before_s=10, after_s=5)
    rig.run(20)
    for _ in range(blackbox.OPEN_FILES + 3):
        rig.box.trip("again")
        rig.run(1)
    rig.run(100)  # none of this waits for the disk
    assert rig.box._unwritten == blackbox.OPEN_FILES
    assert rig.box._queue.qsize() <= blackbox.OPEN_FILES * 7
    gate.set()
    rig.box.close()
    files = numbers(tmp_path)
    assert len(files) == blackbox.OPEN_FILES
    assert [replayed(tmp_path / name)[-1] for name in files] == [25, 26, 27, 28]
    last = Recording(tmp_path / files[-1])
    list(last)
    assert last.end["trips"] == [[1, "again"], [2, "again"], [3, "again"]]


def test_a_disk_that_fails_costs_the_file_and_not_the_run(tmp_path: Path) -> None:
    place = tmp_path / "box"
    place.write_bytes(b"in the way")
    rig = Rig(place, before_s=10, after_s=5)
    rig.run(20)
    rig.box.trip("asked")
    rig.run(20)
    wait_for(lambda: rig.box._unwritten == 0)
    assert "the black box cannot be written" in str(rig.box.error)
    place.unlink()
    rig.box.trip("again")
    rig.run(20)
    rig.box.close()
    assert numbers(place) == ["blackbox-002.bms"]
    assert replayed(place / "blackbox-002.bms")[-1] == 45


def test_a_disk_that_fills_up_ends_the_file(tmp_path: Path, monkeypatch) -> None:
    calls = []
    put = blackbox._put

    def full(file, data) -> None:
        calls.append(len(data))
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        put(file, data)

    monkeypatch.setattr(blackbox, "_put", full)
    rig = Rig(tmp_path, before_s=10, after_s=5)
    rig.run(20)
    rig.box.trip("asked")
    rig.run(20)
    rig.box.close()
    assert "No space left" in str(rig.box.error)
    assert len(calls) == 4  # header, steps before, one after; then no more of this file
    assert replayed(tmp_path / "blackbox-001.bms")[-1] == 21


def test_a_step_is_taken_down_as_it_was_given(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(1)
    controller = SimpleNamespace(**vars(rig.controller))
    rig.box.add(0.25, 5, 0xFFFFFFFF, controller, None)
    rig.box.trip("asked")
    rig.box.close()
    first, second = ((s.dt_s, s.request, s.status) for s in Recording(tmp_path / "blackbox-001.bms"))
    assert first == (1.0, 1, 1)
    assert second == (0.25, 5, 0xFFFFFFFF)


# ------------------------------------------------------------------------------------------- with the real controller


def watched(bench, folder: Path, plan: dict[int, int], n: int, *faults: dict) -> BlackBox:
    """Run the controller on its small twin for `n` steps of a second, with a black box.

    `plan`: from which step on what is requested; `faults`: what breaks.
    """
    rack, controller, clock = bench(fault=list(faults))
    box = BlackBox(folder, rack.info, controller, {"scenario": {"name": "small"}}, 1.0, before_s=30.0, after_s=15.0)
    request = int(Request.CONNECT)
    for k in range(n):
        request = plan.get(k, request)
        clock.wait_until(float(k), lambda: False)
        rack.read(controller.measurement)
        status = controller.step(request, 1.0)
        rack.write(controller.command)
        box.add(1.0, request, status, controller, None)
    box.close()
    assert box.error is None
    return box


def told(path: Path) -> tuple[int, int, str, float]:
    """Steps of a file, how many its replay decides otherwise, the reason, and the time of the trip."""
    recording = Recording(path)
    outcome = replay(recording)
    assert outcome.damage == ""
    assert outcome.closed
    about = recording.header["about"]["blackbox"]
    return outcome.steps, outcome.steps_differing, about["reason"], about["time_s"]


def test_the_file_of_a_trip_of_the_twin_replays_without_a_difference(bench, tmp_path: Path) -> None:
    """Long after the start: the controller begins the replay with what it had learnt by then."""
    box = watched(bench, tmp_path, {}, 200, {"kind": "interlock_open", "at_s": 150.0})
    assert box.trips == 1
    assert numbers(tmp_path) == ["blackbox-001.bms"]
    steps, differing, reason, time_s = told(tmp_path / "blackbox-001.bms")
    assert differing == 0
    assert 30 + 15 < steps <= 30 + 30 // blackbox.BLOCKS + 1 + 15 + 1
    assert reason.startswith(f"fault {10 * int(Fault.INTERLOCK_OPEN) + 3} ")
    assert time_s == pytest.approx(150.0, abs=2.0)
    first = next(iter(Recording(tmp_path / "blackbox-001.bms")))
    assert first.command["head"]["heartbeat"][0] > 100, "it does not begin with the run"
    # and not with a fresh controller either: without the state of its header it would decide otherwise
    recording = Recording(tmp_path / "blackbox-001.bms")
    _, fresh, _ = bench()
    recording.header["state"] = packed(fresh.state)
    assert replay(recording).steps_differing > 0


def test_a_trip_within_the_first_seconds_begins_with_the_run(bench, tmp_path: Path) -> None:
    box = watched(bench, tmp_path, {}, 40, {"kind": "emergency_stop", "at_s": 3.0})
    assert box.trips == 1
    steps, differing, reason, time_s = told(tmp_path / "blackbox-001.bms")
    assert (differing, time_s) == (0, pytest.approx(3.0, abs=2.0))
    assert steps == round(time_s) + 1 + 15, "from the first step on"
    assert reason.startswith(f"fault {10 * int(Fault.EMERGENCY_STOP) + 3} ")
    assert next(iter(Recording(tmp_path / "blackbox-001.bms"))).command["head"]["heartbeat"][0] == 1


def test_two_trips_have_two_files_that_replay(bench, tmp_path: Path) -> None:
    box = watched(
        bench,
        tmp_path,
        {70: int(Request.RESET), 90: int(Request.CONNECT)},
        150,
        {"kind": "interlock_open", "at_s": 50.0, "until_s": 60.0},
        {"kind": "emergency_stop", "at_s": 120.0},
    )
    assert box.trips == 2
    assert numbers(tmp_path) == ["blackbox-001.bms", "blackbox-002.bms"]
    files = [told(tmp_path / name) for name in numbers(tmp_path)]
    assert [differing for _, differing, _, _ in files] == [0, 0]
    faults = [10 * int(fault) + 3 for fault in (Fault.INTERLOCK_OPEN, Fault.EMERGENCY_STOP)]
    assert [int(reason.split()[1]) for _, _, reason, _ in files] == faults
    assert [time_s for *_, time_s in files] == [pytest.approx(50.0, abs=2.0), pytest.approx(120.0, abs=2.0)]
