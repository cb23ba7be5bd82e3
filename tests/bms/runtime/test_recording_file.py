"""Recordings on disk: complete, survive a killed process, and say when the disk fails."""

from __future__ import annotations

import base64
import errno
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bms.runtime import recording as rec
from bms.runtime.loop import Loop
from hal.backends.replay import FILE_NAME, Recording
from hal.codec import recording as codec
from hal.errors import DataError


def record(bench, path: Path, duration_s: float = 20.0) -> list[bytes]:
    """Record a short run; returns measurement and command of every step as they were."""
    rack, controller, clock = bench()
    seen = []
    observer = lambda *a: seen.append(controller.measurement.raw.tobytes() + controller.command.raw.tobytes())  # noqa: E731
    recorder = rec.Recorder(
        path, rec.header_of(rack.info, controller, {"scenario": {}}), rack.info.n_cells, rack.info.n_sensors
    )
    Loop(rack, controller, clock, 1.0, recorder=recorder, observers=(observer,), sample_every=4).run(duration_s)
    recorder.close({"why": "test"})
    return seen


def test_what_was_recorded_comes_back(bench, tmp_path: Path) -> None:
    path = tmp_path / "r.bms"
    seen = record(bench, path)
    recording = Recording(path)
    steps, truths = [], []
    for step in recording:
        steps.append(step.measurement.tobytes() + step.command.tobytes())
        truths.append(step.truth is not None)
    assert steps == seen
    assert [k for k, there in enumerate(truths) if there] == list(range(0, len(seen), 4))
    assert recording.end == {"why": "test"}
    assert recording.truncated_bytes == 0
    assert recording.size_bytes == path.stat().st_size


def write_header(folder: Path, header: dict[str, Any]) -> Path:
    """A recording that holds nothing but its header."""
    (folder / FILE_NAME).write_bytes(codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, header)))
    return folder


def test_the_header_holds_the_whole_controller(bench, tmp_path: Path) -> None:
    rack, controller, _ = bench()
    header = rec.header_of(rack.info, controller, {})
    found = rec.controller_of(Recording(write_header(tmp_path, header)))
    for mine, theirs in ((found.config, controller.config), (found.state, controller.state)):
        assert mine.bytes.tobytes() == theirs.bytes.tobytes()
        assert mine.bytes.flags.writeable
        assert mine.bytes.ctypes.data % mine.layout.align == 0
    assert found.measurement.bytes.size == controller.measurement.bytes.size
    assert found.config.head["n_cells"] == rack.info.n_cells


@pytest.mark.parametrize("layout", ["Config", "State"])
def test_another_version_of_the_controller_is_refused(bench, tmp_path: Path, layout: str) -> None:
    rack, controller, _ = bench()
    header = rec.header_of(rack.info, controller, {})
    assert set(header["core"]) == {"Config", "State"}
    header["core"][layout] = "0" * 16
    with pytest.raises(DataError, match="another version of the controller"):
        rec.controller_of(Recording(write_header(tmp_path, header)))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (base64.b64encode(zlib.compress(b"short")).decode(), "its State has 5 bytes, not"),
        (base64.b64encode(b"not compressed").decode(), "incorrect header check"),
        ("not base 64", "[Ii]ncorrect padding|Invalid base64"),
    ],
)
def test_a_memory_that_cannot_be_read_is_one_line(bench, tmp_path: Path, value: str, match: str) -> None:
    rack, controller, _ = bench()
    header = rec.header_of(rack.info, controller, {})
    header["state"] = value
    with pytest.raises(DataError, match=match):
        rec.controller_of(Recording(write_header(tmp_path, header)))


def test_another_layout_is_refused(bench, tmp_path: Path) -> None:
    rack, controller, _ = bench()
    header = rec.header_of(rack.info, controller, {})
    for change in ({"format": 2}, {"layouts": {**header["layouts"], "Command": "0" * 16}}):
        path = tmp_path / "other.bms"
        path.write_bytes(codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, {**header, **change})))
        with pytest.raises(DataError, match="other layouts"):
            Recording(path)


def test_what_is_flushed_survives_a_kill(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `close`, as after SIGKILL: every flushed step can be read, and the file says that it has no end."""
    monkeypatch.setattr("hal.backends.record.FLUSH_BYTES", 1)
    rack, controller, clock = bench()
    path = tmp_path / "killed.bms"
    recorder = rec.Recorder(path, rec.header_of(rack.info, controller, {}), rack.info.n_cells, rack.info.n_sensors)
    loop = Loop(rack, controller, clock, 1.0, recorder=recorder)
    loop.run(10.0)
    recorder._queue.put(None)  # the writer catches up, nothing more is written
    recorder._thread.join()
    recording = Recording(path)
    assert len(list(recording)) == loop.stats.steps
    assert recording.end is None


def test_the_header_is_written_at_once(bench, tmp_path: Path) -> None:
    rack, controller, _ = bench()
    recorder = rec.Recorder(tmp_path / "r.bms", rec.header_of(rack.info, controller, {}), 8, rack.info.n_sensors)
    recorder._queue.put(None)
    recorder._thread.join()
    assert Recording(tmp_path / "r.bms").info.n_cells == 8


def test_a_full_disk_ends_the_recording_not_the_run(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hal.backends.record.FLUSH_BYTES", 1)
    rack, controller, clock = bench()
    recorder = rec.Recorder(tmp_path / "r.bms", rec.header_of(rack.info, controller, {}), 8, rack.info.n_sensors)

    class Full:
        closed = False

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            self.closed = True

    recorder._file = Full()
    stats = Loop(rack, controller, clock, 1.0, recorder=recorder).run(20.0)
    assert stats.opened
    assert stats.ended_by == "duration"
    recorder.close()
    assert recorder.error is not None
    assert recorder.error.errno == errno.ENOSPC


def test_a_file_that_cannot_be_made_is_one_line(bench, tmp_path: Path) -> None:
    rack, controller, _ = bench()
    with pytest.raises(DataError, match="cannot be written"):
        rec.Recorder(tmp_path / "no" / "r.bms", rec.header_of(rack.info, controller, {}), 8, rack.info.n_sensors)


def test_rewriting_changes_what_it_is_told_and_nothing_else(bench, tmp_path: Path) -> None:
    source, target = tmp_path / FILE_NAME, tmp_path / "changed.bms"
    seen = record(bench, source)

    def change(number: int, row) -> None:
        if number == 7:
            row["measurement"]["cell_v"][0, 2] += np.float32(0.5)

    rec.rewrite(tmp_path, target, change)
    rec.rewrite(target, tmp_path / "same.bms", lambda number, row: None)
    assert (tmp_path / "same.bms").read_bytes() == target.read_bytes()
    for number, (step, before) in enumerate(zip(Recording(target), seen, strict=True), 1):
        same = step.measurement.tobytes() + step.command.tobytes() == before
        assert same == (number != 7)
