"""Recordings of a run: written while it runs, read again for replay, report and repair.

The bytes are those of `hal.codec.recording`. The header holds all that a replay needs: the description of the rack, the
arrays of the controller's configuration and of its initial state, the digests of the layouts, and, for people, the
scenario. See docs/recording.md.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bms.core.layout import CONFIG, STATE, Config, State
from bms.core.step import Controller
from hal.backends.record import Listener, StepWriter
from hal.backends.replay import FORMAT, Recording, info_to_json, layout_digests
from hal.codec import recording as codec
from hal.contract import Command, Measurement, RackInfo, Record, Truth
from hal.errors import DataError


def packed(record: Record) -> str:
    """The bytes of a record as text."""
    return base64.b64encode(zlib.compress(record.bytes.tobytes())).decode()


def unpack(text: str, record: Record) -> None:
    """Undo `packed`. Raises `DataError` where the recording holds another number of bytes."""
    data = zlib.decompress(base64.b64decode(text))
    if len(data) != record.bytes.size:
        raise DataError(f"its {record.layout.name} has {len(data)} bytes, not {record.bytes.size}")
    record.bytes[:] = np.frombuffer(data, np.uint8)


def core_digests() -> dict[str, str]:
    """Digests of the layouts of the controller's configuration and memory."""
    return {layout.name: layout.digest() for layout in (CONFIG, STATE)}


def estimate_crc(controller: Controller) -> int:
    """CRC-32 of the estimates of all cells, as a step records it: SoC, deviation, model voltage, innovation, flags."""
    return zlib.crc32(controller.state.flags.data, zlib.crc32(controller.state.out.data))


def packed_step(
    packer: codec.StepCodec, dt_s: float, request: int, status: int, controller: Controller, truth: Truth | None
) -> bytes:
    """The step that `controller` has just made, packed against the one before."""
    row = packer.row
    row["dt_s"], row["request"], row["status"] = dt_s, request, status
    row["estimate_crc"] = estimate_crc(controller)
    return packer.encode(controller.measurement, controller.command, truth)


def header_of(info: RackInfo, controller: Controller, about: dict[str, Any]) -> dict[str, Any]:
    """The header of a recording; to be taken before the first step, since it holds the initial state."""
    return {
        "format": FORMAT,
        "layouts": layout_digests(),
        "rack": info_to_json(info),
        "core": core_digests(),
        "config": packed(controller.config),
        "state": packed(controller.state),
        "about": about,
    }


class Recorder(StepWriter):
    """Writes the recording of a run step by step: see `StepWriter`."""

    def add(self, dt_s: float, request: int, status: int, controller: Controller, truth: Truth | None) -> None:
        """Append the step that `controller` has just made."""
        self.append(packed_step(self.codec, dt_s, request, status, controller, truth))


class Telling:
    """Tells a rack that records itself who decides and what: the loop's recorder where nothing else is recorded."""

    def __init__(self, rack: object, info: RackInfo, controller: Controller, about: dict[str, Any]) -> None:
        self._listener = rack if isinstance(rack, Listener) else None
        if self._listener is not None:
            self._listener.steered(header_of(info, controller, about))

    def add(self, dt_s: float, request: int, status: int, controller: Controller, truth: Truth | None) -> None:
        """Tell of the step that `controller` has just made."""
        if self._listener is not None:
            self._listener.decided(dt_s, request, status, estimate_crc(controller))


def controller_of(recording: Recording) -> Controller:
    """The controller as it was before the first recorded step, with records of its own. Raises `DataError`."""
    size = recording.info.n_cells, recording.info.n_sensors
    if "core" not in recording.header:
        raise DataError(
            f"{recording.path}: measurements and commands without the controller that decided: play them back with "
            f"--rack replay:{recording.path}"
        )
    if recording.header["core"] != core_digests():
        raise DataError(
            f"{recording.path}: recorded by another version of the controller, whose configuration or memory is laid "
            "out differently: replay with the version that recorded"
        )
    config, state = Config(*size), State(*size)
    try:
        unpack(recording.header["config"], config)
        unpack(recording.header["state"], state)
    except (DataError, ValueError, zlib.error) as error:
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
