"""The black box: the minutes before and after a trip, as a recording that `bms replay` runs as it is.

The steps of the last minutes are kept in memory, packed as a recording packs them, in blocks. With each block goes the
memory of the controller as it was before its first step, which is what a replay starts from. Steps are packed one
against the other without regard to blocks; only those at the start of the oldest block, whose predecessor is gone by
then, are packed anew when a file is written, by the thread that writes it.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from bms.runtime.recording import header_of, packed_step
from bms.runtime.store_file import sync_folder
from hal.codec import recording as codec
from hal.contract import Command, Measurement, RackInfo, Severity, Truth
from hal.errors import DataError

if TYPE_CHECKING:
    from bms.core.step import Controller

log = logging.getLogger(__name__)

KEPT_FILES = 20
OPEN_FILES = 4  # trips that are being written at a time; memory is bounded by it, however slow the disk
BLOCKS = 4  # that the time before a trip is divided into
PIECE = 32  # steps that are written at a time
FLUSH_S = 1.0  # a process killed after a trip loses this much of what followed

_NAME = re.compile(r"blackbox-(\d+)\.bms")


@dataclass
class _Block:
    """Steps in a row, and what is needed to begin with them."""

    state: npt.NDArray[np.uint8]  # bytes of the controller's memory before the first step
    row: bytes  # the record before, which the first step is packed against
    truth_row: bytes
    steps: list[bytes] = field(default_factory=list)


@dataclass
class _Capture:
    """A file in the making."""

    path: Path
    reason: str
    first: _Block
    before: list[bytes]  # steps up to the trip, packed
    trip_time_s: float  # on the rack's clock
    wall_time_s: float
    left: int  # steps to come
    more: list[bytes] = field(default_factory=list)  # steps since the last flush
    trips: list[tuple[int, str]] = field(default_factory=list)  # further ones without a file: steps later, reason
    file: FileIO | None = None  # this and what follows belongs to the thread
    packer: _Packer | None = None
    written: int = 0  # steps
    failed: bool = False


@dataclass(frozen=True)
class _Then:
    """A controller as it was, for `header_of`."""

    config: Any
    state: Any


class BlackBox:
    """Takes down every step, as a `Recorder` does, and writes `blackbox-NNN.bms` into `folder` around each trip.

    A trip is a fatal fault that was not there a step before, or a call of `trip`; a fault that the run begins with is
    none, since it is what was latched by the run before. The file begins at least `before_s`
    before the trip (as far as the run goes back) and ends `after_s` after it. What lies before the trip is written at
    once, the rest as it comes, by a thread of its own: a slow disk does not hold up the loop, a failing one costs the
    file (`error`), not the run. The `KEPT_FILES` newest files are kept.
    """

    def __init__(
        self,
        folder: Path,
        info: RackInfo,
        controller: Controller,
        about: dict[str, Any],
        period_s: float,
        before_s: float = 120.0,
        after_s: float = 60.0,
        packer: codec.StepCodec | None = None,
    ) -> None:
        """`packer`: that of a `Recorder`, if there is one: each step is then packed once, and given to `keep`."""
        self.error: DataError | None = None
        self.trips = 0
        self._folder, self._info, self._about = folder, info, about
        self._before = max(1, math.ceil(before_s / period_s - 1e-9))
        self._after = max(1, math.ceil(after_s / period_s - 1e-9))
        self._block_steps = max(1, math.ceil(self._before / BLOCKS))
        self._flush_steps = max(1, round(FLUSH_S / period_s))
        self._codec = packer or codec.StepCodec(info.n_cells, info.n_sensors)
        self._config = controller.config.blank()
        self._config.copy_from(controller.config)
        self._state = controller.state
        self._blocks: deque[_Block] = deque([self._new_block()])
        self._held = 0  # steps in all blocks
        self._captures: list[_Capture] = []
        self._seen: tuple[bool, int] | None = None  # fatal, cause of the last step
        self._time_s = 0.0
        self._unwritten = 0  # files that the thread has not finished
        self._count = threading.Lock()
        self._number = max((number for number, _ in self._files()), default=0)
        self._queue: queue.SimpleQueue[tuple[_Capture, list[bytes], bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="black box", daemon=True)
        self._thread.start()

    def add(self, dt_s: float, request: int, status: int, controller: Controller, truth: Truth | None) -> None:
        """Take down the step that `controller` has just made; a new fatal fault in it is a trip."""
        self.keep(packed_step(self._codec, dt_s, request, status, controller, truth), controller.command)

    def keep(self, step: bytes, command: Command) -> None:
        """Take down a step that has just been packed, and answered with `command`."""
        block = self._blocks[-1]
        block.steps.append(step)
        self._held += 1
        if self._held - len(self._blocks[0].steps) >= self._before:
            self._held -= len(self._blocks.popleft().steps)
        if self._captures:
            self._follow(step)
        self._look(command)
        if len(block.steps) >= self._block_steps:
            self._blocks.append(self._new_block())

    def trip(self, reason: str) -> None:
        """Keep the minutes around the last step; before the first step there is nothing to keep."""
        steps = [step for block in self._blocks for step in block.steps]
        if not steps:
            return
        self.trips += 1
        with self._count:
            busy = self._unwritten >= OPEN_FILES
            self._unwritten += not busy
        if busy:
            log.warning("black box: no file for '%s', %d are still being written", reason, OPEN_FILES)
            if self._captures:
                self._captures[-1].trips.append((self._after - self._captures[-1].left, reason))
            return
        self._number += 1
        path = self._folder / f"blackbox-{self._number:03d}.bms"
        capture = _Capture(path, reason, self._blocks[0], steps, self._time_s, time.time(), self._after)
        self._captures.append(capture)
        self._queue.put((capture, [], False))

    def close(self) -> None:
        """Finish the files of trips whose time after is not over yet, and end the thread."""
        for capture in self._captures:
            self._queue.put((capture, capture.more, True))
        self._captures.clear()
        self._queue.put(None)
        self._thread.join()

    def _new_block(self) -> _Block:
        return _Block(self._state.bytes.copy(), self._codec.row.tobytes(), self._codec.truth_row.tobytes())

    def _follow(self, step: bytes) -> None:
        """Pass `step` on to the files that are open."""
        for capture in self._captures:
            capture.more.append(step)
            capture.left -= 1
            if capture.left == 0 or len(capture.more) >= self._flush_steps:
                self._queue.put((capture, capture.more, capture.left == 0))
                capture.more = []
        if not self._captures[0].left:  # all have the same time after: the first one ends first
            self._captures.pop(0)

    def _look(self, command: Command) -> None:
        head = command.head[0]
        self._time_s = float(head["time_s"])
        fatal, cause = int(head["severity"]) == Severity.FATAL, int(head["cause"])
        was_fatal, last_cause = self._seen or (fatal, cause)
        self._seen = fatal, cause
        if (fatal and not was_fatal) or (cause and cause != last_cause):
            self.trip(f"fault {cause} at {int(head['cause_index'])}: {float(head['cause_value']):g}")

    def _files(self) -> list[tuple[int, Path]]:
        """The files of the folder, oldest first."""
        found = [(match, path) for path in self._folder.glob("*.bms") if (match := _NAME.fullmatch(path.name))]
        return sorted((int(match[1]), path) for match, path in found)

    def _write(self) -> None:
        """What the thread does."""
        while (job := self._queue.get()) is not None:
            capture, steps, last = job
            try:
                if capture.file is None and not capture.failed:
                    self._begin(capture)
                if capture.file is not None:
                    _append(capture.file, capture, steps)
                    if last:
                        _end(capture.file, capture)
            except (OSError, DataError) as error:
                self.error = DataError(f"{capture.path}: the black box cannot be written: {error}")
                log.warning("%s", self.error)
                capture.failed, last_file, capture.file = True, capture.file, None
                if last_file is not None:
                    last_file.close()
            if last:
                with self._count:
                    self._unwritten -= 1

    def _begin(self, capture: _Capture) -> None:
        """Write the header and all steps up to the trip."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for _, path in self._files()[: -(KEPT_FILES - 1)]:
            path.unlink()
        state = self._state.blank()
        state.bytes[...] = capture.first.state
        trip = {"reason": capture.reason, "step": len(capture.before), "time_s": capture.trip_time_s}
        about = {**self._about, "blackbox": {**trip, "wall_time_s": capture.wall_time_s}}
        header = header_of(self._info, cast("Controller", _Then(self._config, state)), about)
        capture.packer = _Packer(self._info, capture.first)
        capture.file = capture.path.open("xb", buffering=0)
        _put(capture.file, codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, header)))
        _append(capture.file, capture, capture.before)
        os.fsync(capture.file.fileno())
        sync_folder(self._folder)
        capture.before = []


class _Packer:
    """Packs steps anew until none leans on what came before the file: the first one, and the first one with a truth."""

    def __init__(self, info: RackInfo, block: _Block) -> None:
        size = info.n_cells, info.n_sensors
        self._reader, self._writer = codec.StepCodec(*size), codec.StepCodec(*size)
        self._reader.row.view(np.uint8)[...] = np.frombuffer(block.row, np.uint8)
        self._reader.truth_row.view(np.uint8)[...] = np.frombuffer(block.truth_row, np.uint8)
        self._measurement, self._command, self._truth = Measurement(*size), Command(*size), Truth(*size)
        self._step_due, self._truth_due = True, any(block.truth_row)

    def __call__(self, step: bytes) -> bytes:
        if not self._step_due and not self._truth_due:
            return step
        self._reader.decode(step)
        row, has_truth = self._reader.row, self._reader.has_truth
        self._measurement.raw[...], self._command.raw[...] = row["measurement"], row["command"]
        self._truth.raw[...] = self._reader.truth_row
        for name in ("dt_s", "request", "status", "estimate_crc"):
            self._writer.row[name] = row[name]
        self._step_due = False
        self._truth_due = self._truth_due and not has_truth
        return self._writer.encode(self._measurement, self._command, self._truth if has_truth else None)


def _append(file: FileIO, capture: _Capture, steps: list[bytes]) -> None:
    packer = capture.packer
    assert packer is not None
    # a write lets the loop's thread run: in pieces, so that it never waits for the whole
    for at in range(0, len(steps), PIECE):
        data = bytearray()
        for step in steps[at : at + PIECE]:
            capture.written += 1
            data += codec.frame(capture.written, packer(step))
        _put(file, data)


def _end(file: FileIO, capture: _Capture) -> None:
    summary = {"ended_by": "black box", "trips": capture.trips}
    _put(file, codec.frame(capture.written + 1, codec.json_payload(codec.Kind.END, summary)))
    os.fsync(file.fileno())
    file.close()


def _put(file: FileIO, data: bytes | bytearray) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
