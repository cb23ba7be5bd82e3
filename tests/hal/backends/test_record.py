import os
from pathlib import Path
from typing import Any

import pytest

from bms.cli import main
from hal.backends import record
from hal.backends.record import Listener, Record
from hal.backends.replay import Recording
from hal.contract import Command, Measurement, Truth
from hal.errors import ConfigError, DataError
from hal.registry import open_rack

DUTY = {"duty": {"kind": "constant", "c_rate": 0.3}}


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


def opened(path: Path, clock: Time, prefix: str = "record") -> Any:
    return open_rack(f"{prefix}+sim:lfp_280?n_series=4&seed=2&record.to={path}", clock=clock, options=DUTY)


def drive(rack: Any, clock: Time, steps: int, *, write: bool = True) -> list[tuple[bytes, bytes, bytes]]:
    """Read, and write a command of its own in each step; returns what passed."""
    m, command, truth = Measurement(4, 1), Command(4, 1), Truth(4, 1)
    command.head["cooling_degc"] = 25.0
    passed = []
    for k in range(steps):
        clock.now += 0.5
        rack.read(m)
        rack.truth(truth)
        if write:
            command.head["heartbeat"], command.head["contactors"] = k + 1, (0b110, 0b011)[k > 8]
            rack.write(command)
        passed.append((m.bytes.tobytes(), command.bytes.tobytes(), truth.bytes.tobytes()))
    return passed


def recorded(path: Path) -> list[tuple[bytes, bytes, bytes]]:
    return [
        (s.measurement.tobytes(), s.command.tobytes(), b"" if s.truth is None else s.truth.tobytes())
        for s in Recording(path)
    ]


def test_what_passes_is_what_is_written(tmp_path: Path) -> None:
    clock, path = Time(), tmp_path / "run.bms"
    with opened(path, clock) as rack:
        passed = drive(rack, clock, 20)
    recording = Recording(path)
    assert [s.dt_s for s in recording] == [0.0, *[0.5] * 19]
    assert recording.end == {}
    assert recording.truncated_bytes == 0
    assert recorded(path) == passed


def test_measurements_that_no_command_answers_are_written_once_each(tmp_path: Path) -> None:
    clock, path = Time(), tmp_path / "run.bms"
    m = Measurement(4, 1)
    with opened(path, clock) as rack:
        passed = drive(rack, clock, 5, write=False)
        rack.read(m)
        rack.read(m)  # nothing new
    assert [step[0] for step in recorded(path)] == [step[0] for step in passed]


def test_it_plays_back_as_a_rack(tmp_path: Path) -> None:
    clock, path = Time(), tmp_path / "run.bms"
    with opened(path, clock) as rack:
        passed = drive(rack, clock, 6)
    then = Time()
    with open_rack(f"replay:{path}", clock=then) as again:
        m = Measurement(4, 1)
        for k in range(6):
            again.read(m)
            assert m.bytes.tobytes() == passed[k][0]
            then.now += 0.5


def test_a_folder_gets_a_file_and_each_opening_one_of_its_own(tmp_path: Path) -> None:
    clock = Time()
    rack = opened(tmp_path, clock)
    for steps in (3, 4, 5):
        with rack:
            drive(rack, clock, steps)
    names = {"recording.bms": 3, "recording-2.bms": 4, "recording-3.bms": 5}
    assert {path.name: len(recorded(path)) for path in tmp_path.iterdir()} == names


def test_bms_run_leaves_the_same_decisions_in_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wire.bms"
    url = f"record+chaos+sim:lfp_280?n_series=16&chaos.drop=0.05&chaos.corrupt=0.01&chaos.seed=5&record.to={path}"
    code = main(["run", "--rack", url, "--duration", "90", "--out", str(tmp_path / "out"), "--no-report", "--quiet"])
    assert code in (0, 1)  # a bit may have been flipped where it opens the contactors
    assert main(["replay", str(path), "--quiet"]) == 0
    assert ", 0 differences" in capsys.readouterr().out
    ours, theirs = list(Recording(path)), list(Recording(tmp_path / "out"))
    assert len(ours) == len(theirs) > 80
    for a, b in zip(Recording(path), Recording(tmp_path / "out"), strict=True):
        assert a[:5] == b[:5]
        assert a.measurement.tobytes() == b.measurement.tobytes()
        assert a.command.tobytes() == b.command.tobytes()


def test_without_a_controller_nothing_can_be_decided_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock, path = Time(), tmp_path / "run.bms"
    with opened(path, clock) as rack:
        drive(rack, clock, 3)
    assert main(["replay", str(path), "--quiet"]) == 2
    assert f"play them back with --rack replay:{path}" in capsys.readouterr().err


def test_a_recorder_under_chaos_is_told_of_no_decision(tmp_path: Path) -> None:
    assert isinstance(opened(tmp_path / "a.bms", Time()), Listener)
    assert not isinstance(opened(tmp_path / "a.bms", Time(), "chaos+record"), Listener)


def test_a_killed_process_leaves_what_was_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FLUSH_BYTES", 1)
    clock, path = Time(), tmp_path / "run.bms"
    rack = opened(path, clock)
    rack.open()
    passed = drive(rack, clock, 10)
    rack._writer._queue.put(None)
    rack._writer._thread.join()
    assert recorded(path) == passed[:-1]  # the last step waits for what may be told of it


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_full_disk_is_told_when_the_rack_is_closed_and_open(tmp_path: Path) -> None:
    clock = Time()
    rack = opened(Path("/dev/full"), clock)
    rack.open()
    drive(rack, clock, 10)
    with pytest.raises(DataError, match="/dev/full: the recording is incomplete"):
        rack.close()
    rack.close()
    assert rack.contactors_closed == 0


def test_places_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"record to which file\? Add record.to=FILE"):
        open_rack("record+sim:lfp_280")
    with pytest.raises(ConfigError, match=r"no key 'record.too' \(did you mean 'to'\?\)"):
        open_rack("record+sim:lfp_280?record.too=x")
    rack = Record(open_rack("sim:lfp_280?n_series=4"), tmp_path / "none" / "run.bms")
    with pytest.raises(DataError, match="run.bms: cannot be written"):
        rack.open()


def test_a_table_names_the_place_too(tmp_path: Path) -> None:
    options = {"record": {"to": str(tmp_path / "a.bms")}, **DUTY}
    rack: Any = open_rack("record+sim:lfp_280?n_series=4", clock=Time(), options=options)
    assert rack.path == tmp_path / "a.bms"


def test_a_recording_without_a_scenario_runs_a_controller(tmp_path: Path) -> None:
    clock, path = Time(), tmp_path / "run.bms"
    with open_rack(f"record+sim:lfp_280?n_series=16&record.to={path}", clock=clock, options=DUTY) as rack:
        m, command = Measurement(16, rack.info.n_sensors), Command(16, rack.info.n_sensors)
        for _ in range(30):
            clock.now += 0.5
            rack.read(m)
            rack.write(command)
    words = ["--out", str(tmp_path / "out"), "--no-report", "--quiet"]
    assert main(["run", "--rack", f"chaos+replay:{path}?chaos.drop=0.01", *words]) in (0, 1)
    steps = list(Recording(tmp_path / "out"))
    assert len(steps) >= 29
    assert {round(step.dt_s, 3) for step in steps[1:]} == {0.5}
