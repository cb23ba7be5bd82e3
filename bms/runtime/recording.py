"""Recordings of a run: written while it runs, read again for replay, report and repair.

The bytes are those of `hal.codec.recording`. The header holds all that a replay needs: the description of the rack, the
arrays of the controller's configuration and of its initial state, the digests of the layouts, and, for people, the
scenario. See docs/recording.md.
"""

from __future__ import annotations

import base64
import queue
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.control import ControlConfig, ControlState
from bms.core.estimator import EstimatorConfig, EstimatorState
from bms.core.step import Controller, StepConfig, StepState
from hal.backends.replay import FORMAT, Recording, info_to_json, layout_digests
from hal.codec import recording as codec
from hal.contract import Command, Measurement, RackInfo, Truth
from hal.errors import DataError

FLUSH_BYTES = 256 * 1024
FLUSH_S = 1.0  # a killed process loses at most this much, or FLUSH_BYTES

_NESTED: dict[str, type[NamedTuple]] = {
    "StepConfig.estimator": EstimatorConfig,
    "StepConfig.control": ControlConfig,
    "StepState.estimator": EstimatorState,
    "StepState.control": ControlState,
}


def arrays_of(tree: Any) -> dict[str, Any]:
    """The arrays of a (nested) NamedTuple, by name, as JSON: bytes in base64 with dtype and shape."""
    found: dict[str, Any] = {}
    for name, value in zip(tree._fields, tree, strict=True):
        if isinstance(value, tuple):
            found[name] = arrays_of(value)
        else:
            kind = value.dtype.descr if value.dtype.names else value.dtype.str
            packed = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes())).decode()
            found[name] = {"dtype": kind, "shape": list(value.shape), "bytes": packed}
    return found


def tree_of(kind: type[Any], found: dict[str, Any]) -> Any:
    """Undo `arrays_of` for the NamedTuple `kind`. Raises `DataError` where the recording has other arrays."""
    if set(found) != set(kind._fields):
        odd = ", ".join(sorted(set(found) ^ set(kind._fields)))
        raise DataError(
            f"its {kind.__name__} differs from this version's in {odd}: replay with the version that recorded"
        )
    values = []
    for name in kind._fields:
        nested = _NESTED.get(f"{kind.__name__}.{name}")
        if nested is not None:
            values.append(tree_of(nested, found[name]))
            continue
        entry = found[name]
        descr = entry["dtype"]
        dtype = np.dtype([tuple(part) for part in descr] if isinstance(descr, list) else descr)
        data = zlib.decompress(base64.b64decode(entry["bytes"]))
        values.append(np.frombuffer(data, dtype).reshape(entry["shape"]).copy())
    return kind(*values)


def estimate_crc(controller: Controller) -> int:
    """CRC-32 of the estimates of all cells, as a step records it: SoC, deviation, model voltage, innovation, flags."""
    estimator = controller.state.estimator
    return zlib.crc32(estimator.flags.data, zlib.crc32(estimator.out.data))


def header_of(info: RackInfo, controller: Controller, about: dict[str, Any]) -> dict[str, Any]:
    """The header of a recording; to be taken before the first step, since it holds the initial state."""
    return {
        "format": FORMAT,
        "layouts": layout_digests(),
        "rack": info_to_json(info),
        "config": arrays_of(controller.config),
        "state": arrays_of(controller.state),
        "about": about,
    }


class Recorder:
    """Writes a recording: steps are packed by the caller's thread, and reach the file through a thread of its own.

    A slow disk therefore does not hold up the loop, and a failing one ends the recording, not the run: `error` tells.
    Raises `DataError` if the file cannot be created.
    """

    def __init__(self, path: Path, header: dict[str, Any], n_cells: int, n_sensors: int) -> None:
        self.path = path
        self.steps = 0
        self.bytes_written = 0
        self.error: OSError | None = None
        self._codec = codec.StepCodec(n_cells, n_sensors)
        self._buffer = bytearray(codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, header)))
        self._flushed_s = time.monotonic()
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()
        self._flush()  # the header at once: without it nothing can be read

    def add(self, dt_s: float, request: int, status: int, controller: Controller, truth: Truth | None) -> None:
        """Append the step that `controller` has just made."""
        self.steps += 1
        row = self._codec.row
        row["dt_s"], row["request"], row["status"] = dt_s, request, status
        row["estimate_crc"] = estimate_crc(controller)
        self._buffer += codec.frame(self.steps, self._codec.encode(controller.measurement, controller.command, truth))
        if len(self._buffer) >= FLUSH_BYTES or time.monotonic() - self._flushed_s >= FLUSH_S:
            self._flush()

    def close(self, summary: dict[str, Any] | None = None) -> None:
        """Write the END frame and close the file; `error` tells whether all of it could be written."""
        self._buffer += codec.frame(self.steps + 1, codec.json_payload(codec.Kind.END, summary or {}))
        self._flush()
        self._queue.put(None)
        self._thread.join()
        self._file.close()

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        self._queue.put(bytes(self._buffer))
        self._buffer.clear()

    def _write(self) -> None:
        while (block := self._queue.get()) is not None:
            rest = memoryview(block)
            while rest and self.error is None:
                try:
                    written = self._file.write(rest)
                except OSError as error:
                    self.error = error
                else:
                    self.bytes_written += written or 0
                    rest = rest[written:]


def controller_of(recording: Recording) -> Controller:
    """The controller as it was before the first recorded step, with records of its own. Raises `DataError`."""
    size = recording.info.n_cells, recording.info.n_sensors
    try:
        config = tree_of(StepConfig, recording.header["config"])
        state = tree_of(StepState, recording.header["state"])
    except DataError as error:
        raise DataError(f"{recording.path}: {error}") from error
    return Controller(config, state, Measurement(*size), Command(*size))


def rewrite(source: Path, target: Path, change: Callable[[int, npt.NDArray[np.void]], None]) -> None:
    """Copy the recording `source` to `target` with valid checksums, after `change(number, row)` for every step.

    `row` is (1,) of `hal.codec.recording.step_dtype`: what `change` alters in place is what `target` holds. To cut out,
    anonymise or spoil (a test of `bms replay`: flip a bit of `row["measurement"]["cell_v"]`).
    """
    recording = Recording(source)
    size = recording.info.n_cells, recording.info.n_sensors
    reader, writer = codec.StepCodec(*size), codec.StepCodec(*size)
    measurement, command, truth = Measurement(*size), Command(*size), Truth(*size)
    with target.open("wb") as file:
        file.write(codec.MAGIC)
        for sequence, payload in recording.frames():
            if payload[0] == codec.Kind.STEP:
                reader.decode(payload)
                row = reader.row.copy()
                change(sequence, row)
                measurement.raw[...], command.raw[...] = row["measurement"], row["command"]
                truth.raw[...] = reader.truth_row
                for name in ("dt_s", "request", "status", "estimate_crc"):
                    writer.row[name] = row[name]
                payload = writer.encode(measurement, command, truth if reader.has_truth else None)
            file.write(codec.frame(sequence, payload))
