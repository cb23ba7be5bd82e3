"""Recordings on disk: read step by step, or played back as a rack (`replay:FILE`).

A recording cannot react: what is written to the rack is accepted and has no effect, which is what one wants for trying
a changed controller on recorded measurements, and no more. `bms replay` compares decisions instead.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from hal.codec import recording as codec
from hal.contract import (
    COMMAND,
    MEASUREMENT,
    TRUTH,
    Capabilities,
    Clock,
    Command,
    Measurement,
    Quality,
    Rack,
    RackInfo,
    Truth,
)
from hal.errors import ConfigError, DataError

FILE_NAME = "recording.bms"
FORMAT = 1
LOGS = (".log", ".blf", ".asc")
"""Logs of a CAN bus (`hal.backends.log`); everything else is a recording of ours."""


class Step(NamedTuple):
    """One recorded step; the arrays are views that the next step overwrites."""

    number: int
    dt_s: float
    request: int
    status: int
    estimate_crc: int
    measurement: npt.NDArray[np.void]  # (1,) as `Measurement.raw`
    command: npt.NDArray[np.void]  # (1,) as `Command.raw`
    truth: npt.NDArray[np.void] | None  # (1,) as `Truth.raw`, in the steps that have one


def info_to_json(info: RackInfo) -> dict[str, Any]:
    """The description of a rack as the header of a recording holds it."""
    return {
        **{name: getattr(info, name) for name in ("name", "n_cells", "n_sensors", "n_parallel", "capacity_ah", "cell")},
        "sensor_of_cell": info.sensor_of_cell.tolist(),
        "capabilities": {name: getattr(info.capabilities, name) for name in info.capabilities.__dataclass_fields__},
    }


def info_from_json(rack: Mapping[str, Any]) -> RackInfo:
    """Undo `info_to_json`."""
    sensor_of_cell = np.array(rack["sensor_of_cell"], np.uint16)
    return RackInfo(**{**rack, "sensor_of_cell": sensor_of_cell, "capabilities": Capabilities(**rack["capabilities"])})


def layout_digests() -> dict[str, str]:
    """What the header of a recording says about the layouts of its records."""
    return {layout.name: layout.digest() for layout in (MEASUREMENT, COMMAND, TRUTH)}


class Recording:
    """A recording on disk: `header`, `info`, and, by iteration, its steps in order.

    `path` is the file or the folder of a run. Raises `DataError` if it is not a recording, or one of another version.
    Iterating raises `codec.DamagedError` at the first step whose checksum does not fit, after those before it. When it
    has ended, `end` is the summary written when the run was closed (None if it was cut short) and `truncated_bytes`
    counts what is left of an unfinished step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / FILE_NAME if path.is_dir() else path
        self.end: dict[str, Any] | None = None
        self.truncated_bytes = 0
        try:
            with self.path.open("rb") as file:
                self.size_bytes = file.seek(0, 2)
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size_bytes else b""
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}; give the folder of a `bms run`") from error
        self._data = memoryview(whole)
        try:
            first = next(iter(codec.Frames(self._data)), None)
            if first is None:
                raise DataError("cut off inside the header: nothing of it can be used")
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error
        self.header = codec.json_content(first[1])
        if self.header.get("format") != FORMAT or self.header.get("layouts") != layout_digests():
            raise DataError(f"{self.path}: recorded with other layouts; use the version of rackbms that recorded it")
        self.info = info_from_json(self.header["rack"])

    def frames(self) -> codec.Frames:
        """The frames, from the header on."""
        return codec.Frames(self._data)

    def __iter__(self) -> Iterator[Step]:
        decoder = codec.StepCodec(self.info.n_cells, self.info.n_sensors)
        frames = self.frames()
        for sequence, payload in frames:
            if payload[0] == codec.Kind.STEP:
                try:
                    decoder.decode(payload)
                except DataError as error:
                    raise codec.DamagedError(sequence, str(error)) from error
                row = decoder.row
                yield Step(
                    sequence,
                    float(row["dt_s"][0]),
                    int(row["request"][0]),
                    int(row["status"][0]),
                    int(row["estimate_crc"][0]),
                    row["measurement"],
                    row["command"],
                    decoder.truth_row if decoder.has_truth else None,
                )
            elif payload[0] == codec.Kind.END:
                self.end = codec.json_content(payload)
        self.truncated_bytes = frames.truncated_bytes


class ReplayRack:
    """A recorded rack: `read` gives the newest recorded measurement that is not in the future of the clock.

    The clock's zero is the first recorded measurement. Past the end the last one is repeated with quality STALE and
    growing ages. Implements `hal.contract.Rack`, and `HasTruth` as far as truth was recorded.
    """

    def __init__(
        self,
        address: str,
        *,
        query: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Play back `address`, a file or the folder of a run. Raises `ConfigError` for any query or option."""
        if not address:
            raise ConfigError("rack URL 'replay:': which recording? Write replay:FILE, or replay:DIR of a `bms run`")
        for name in [*(query or {}), *(table for table, content in (options or {}).items() if content)]:
            raise ConfigError(f"rack URL 'replay:{address}': a recording has no option or table '{name}'")
        if clock is None:
            raise ConfigError(f"rack URL 'replay:{address}': a recording needs the clock of a loop")
        self._path = Path(address)
        self._clock = clock
        self._recording: Recording | None = None
        self._steps: Iterator[Step] = iter(())
        self._opened_s = 0.0

    @property
    def info(self) -> RackInfo:
        """Description of the recorded rack; valid after `open`."""
        return self._opened().info

    def open(self) -> None:
        """Open the file and go to its beginning. Raises `DataError`."""
        self._recording = Recording(self._path)
        size = self._recording.info.n_cells, self._recording.info.n_sensors
        self._now, self._ahead, self._truth = Measurement(*size), Measurement(*size), Truth(*size)
        self._ahead_truth: Truth | None = None
        self._steps = iter(self._recording)
        self._opened_s = self._clock.now_s()
        if not self._advance():
            raise DataError(f"{self._recording.path}: holds no step")
        self._first_s = float(self._ahead.head["time_s"][0])
        self._more = True

    def _opened(self) -> Recording:
        if self._recording is None:
            raise RuntimeError("the rack is not open")
        return self._recording

    def _advance(self) -> bool:
        step = next(self._steps, None)
        if step is None:
            return False
        self._ahead.raw[...] = step.measurement
        self._ahead_truth = None
        if step.truth is not None:
            self._ahead_truth = Truth(self._ahead.n_cells, self._ahead.n_sensors)
            self._ahead_truth.raw[...] = step.truth
        return True

    def read(self, out: Measurement) -> None:
        """Fill `out` with the newest recorded measurement up to now."""
        self._opened()
        now_s = self._first_s + (self._clock.now_s() - self._opened_s)
        while self._more and self._ahead.head["time_s"][0] <= now_s + 1e-6:
            self._now.copy_from(self._ahead)
            if self._ahead_truth is not None:
                self._truth.copy_from(self._ahead_truth)
            self._more = self._advance()
        out.copy_from(self._now)
        if not self._more:
            self._mark_stale(out, now_s - float(self._now.head["time_s"][0]))

    @staticmethod
    def _mark_stale(out: Measurement, late_s: float) -> None:
        if late_s <= 0:
            return
        for field in MEASUREMENT.fields:
            values = out.raw[field.name] if field.dims else out.head[field.name]
            if field.name.endswith("_age_s"):
                values += np.float32(late_s)
            elif field.name.endswith("_quality"):
                values |= np.uint8(Quality.STALE)

    def write(self, command: Command) -> None:
        """Accept `command`; a recording cannot react to it."""
        self._opened()

    def truth(self, out: Truth) -> None:
        """Fill `out` with the last truth recorded up to now; all zeros before the first."""
        out.copy_from(self._truth)

    def close(self) -> None:
        """Let go of the file."""
        self._recording = None
        self._steps = iter(())

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_replay(
    address: str, *, query: Mapping[str, str], clock: Clock | None = None, options: Mapping[str, Any] | None = None
) -> Rack:
    """What is recorded in `address`, as a rack: a recording of ours, or a log of a CAN bus. Raises `ConfigError`."""
    if Path(address).suffix.lower() in LOGS:
        from hal.backends.log import LogRack  # the codec of a bus is not needed for a recording

        return LogRack(address, query=query, clock=clock, options=options)
    return ReplayRack(address, query=query, clock=clock, options=options)
