"""A wrapper around any rack that writes down what passes: `record+URL?record.to=FILE`.

The file is a recording (docs/recording.md): `replay:FILE` plays its measurements back. A step is a command with the
measurement that it answers, and the truth where the rack is a twin; measurements that no command answers are steps
with the command before. A loop that tells who decides (`steered`) and why (`decided`), as `bms run` and the bench do,
leaves a recording that `bms replay` decides again, bit for bit.

An existing file is replaced when the rack is opened; each further opening, and each further controller, writes a file
of its own: `FILE-2.bms`, `FILE-3.bms`, ...
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hal.backends.replay import FILE_NAME, FORMAT, info_to_json, layout_digests
from hal.backends.wrapper import Wrapper
from hal.codec import recording as codec
from hal.contract import Clock, Command, HasTruth, Measurement, Rack, Truth
from hal.errors import ConfigError, DataError, nearest

FLUSH_BYTES = 256 * 1024
FLUSH_S = 1.0  # a killed process loses at most this much, or FLUSH_BYTES


@runtime_checkable
class Listener(Protocol):
    """A rack that wants to know who steers it: a recorder."""

    def steered(self, header: Mapping[str, Any]) -> None:
        """Begin again, with `header` of a recording, which holds the controller before its first step."""
        ...

    def decided(self, dt_s: float, request: int, status: int, estimate_crc: int) -> None:
        """What belongs to the command written last."""
        ...


class StepWriter:
    """Writes a recording: steps are packed by the caller's thread, and reach the file through a thread of its own.

    A slow disk therefore does not hold up the loop, and a failing one ends the recording, not the run: `error` tells.
    Raises `DataError` if the file cannot be created.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], n_cells: int, n_sensors: int) -> None:
        self.path = path
        self.steps = 0
        self.bytes_written = 0
        self.error: OSError | None = None
        self.codec = codec.StepCodec(n_cells, n_sensors)
        self._buffer = bytearray(codec.MAGIC + codec.frame(0, codec.json_payload(codec.Kind.HEADER, dict(header))))
        self._flushed_s = time.monotonic()
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()
        self._flush()  # the header at once: without it nothing can be read

    def append(self, step: bytes) -> None:
        """Append a step that `codec` has just packed."""
        self.steps += 1
        self._buffer += codec.frame(self.steps, step)
        if len(self._buffer) >= FLUSH_BYTES or time.monotonic() - self._flushed_s >= FLUSH_S:
            self._flush()

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Write the END frame and close the file; `error` tells whether all of it could be written."""
        self._buffer += codec.frame(self.steps + 1, codec.json_payload(codec.Kind.END, dict(summary or {})))
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


class Record(Wrapper):
    """A rack (`hal.contract.Rack`) whose measurements and commands are written to `path` (see the module).

    Raises `DataError` from `open` if the file cannot be created, and from `close` if the disk did not take all of it.
    """

    def __init__(self, rack: Rack, path: Path) -> None:
        super().__init__(rack)
        self.path = path
        self._writer: StepWriter | None = None
        self._first: Path | None = None
        self._files = 1
        self._steered = False

    def open(self) -> None:
        """Reach the device and begin the file."""
        super().open()
        if self._writer is not None:
            return
        if self._first is None:
            self._first = self.path
        else:
            self._next_file()
        try:
            self._begin({"about": {}})
        except DataError:
            super().close()
            raise

    def _next_file(self) -> None:
        """Name the next file: FILE-2.bms, FILE-3.bms, ..."""
        assert self._first is not None
        self._files += 1
        self.path = self._first.with_name(f"{self._first.stem}-{self._files}{self._first.suffix}")

    def _begin(self, header: Mapping[str, Any]) -> None:
        info = self.info
        size = info.n_cells, info.n_sensors
        own = {"format": FORMAT, "layouts": layout_digests(), "rack": info_to_json(info)}
        self._writer = StepWriter(self.path, {**header, **own}, *size)
        self._steered = False
        self._seen, self._command, self._truth = Measurement(*size), Command(*size), Truth(*size)
        self._teller = self._rack if info.capabilities.truth and isinstance(self._rack, HasTruth) else None
        self._before_s: float | None = None
        self._waiting = False  # there is a measurement that is not in the file
        self._details: tuple[float, int, int, int] | None = None

    def read(self, out: Measurement) -> None:
        """Fill `out`; what was read before is written down first, if that has not been done."""
        answered = self._details is not None
        if self._writer is not None and answered:
            self._put()
        self._rack.read(out)
        if self._writer is None:
            return
        if self._waiting and self._seen.bytes.tobytes() != out.bytes.tobytes():
            self._put()
        self._waiting = self._waiting or self._seen.bytes.tobytes() != out.bytes.tobytes()
        self._seen.copy_from(out)
        if self._teller is not None:
            self._teller.truth(self._truth)

    def write(self, command: Command) -> None:
        """Pass the command on, and write it down with the measurement that it answers."""
        if self._writer is not None and self._details is not None:
            self._put()
        self._rack.write(command)
        if self._writer is not None:
            self._command.copy_from(command)
            self._details = (self._passed_s(), 0, 0, 0)

    def steered(self, header: Mapping[str, Any]) -> None:
        """Begin the file again with the controller in it; what was read before is left out.

        A second controller gets a file of its own.
        """
        if self._writer is None:
            return
        if self._steered:
            self._end()
            self._next_file()
        else:
            self._writer.close()
        self._begin(header)
        self._steered = True

    def decided(self, dt_s: float, request: int, status: int, estimate_crc: int) -> None:
        """What belongs to the command written last."""
        if self._details is not None:
            self._details = (dt_s, request, status, estimate_crc)

    def _passed_s(self) -> float:
        """Time from the measurement of the step before to that of this one."""
        now_s = float(self._seen.head["time_s"][0])
        return 0.0 if self._before_s is None else now_s - self._before_s

    def _put(self) -> None:
        """Write the step down."""
        writer = self._writer
        assert writer is not None
        row = writer.codec.row
        details = self._details or (self._passed_s(), 0, 0, 0)
        for name, value in zip(("dt_s", "request", "status", "estimate_crc"), details, strict=True):
            row[name] = value
        truth = self._truth if self._teller is not None else None
        writer.append(writer.codec.encode(self._seen, self._command, truth))
        self._before_s = float(self._seen.head["time_s"][0])
        self._details, self._waiting = None, False

    def close(self) -> None:
        """Open the contactors, release the device and end the file. Raises `DataError` if the file is not complete."""
        super().close()
        if self._writer is not None:
            self._end()

    def _end(self) -> None:
        """Write what is left, and close the file."""
        writer = self._writer
        assert writer is not None
        if self._waiting or self._details is not None:
            self._put()
        self._writer = None
        writer.close()
        if writer.error is not None:
            raise DataError(f"{writer.path}: the recording is incomplete: {writer.error.strerror or writer.error}")


def wrap(rack: Rack, *, keys: Mapping[str, str], clock: Clock | None, options: Mapping[str, Any], url: str) -> Record:
    """`rack` under a recorder: the key `to`, or `to` in the table `[record]`, names the file or its folder.

    Raises `ConfigError`.
    """
    given = {**options, **keys}
    for key in given:
        if key != "to":
            raise ConfigError(f"rack URL '{url}': the recorder has no key 'record.{key}'{nearest(key, ('to',))}")
    if not given.get("to"):
        raise ConfigError(f"rack URL '{url}': record to which file? Add record.to=FILE, for example record.to=run.bms")
    path = Path(str(given["to"]))
    return Record(rack, path / FILE_NAME if path.is_dir() or str(given["to"]).endswith("/") else path)
