"""Modbus RTU on a serial port, or on a pseudo-terminal that takes as long as the baud rate says."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hal.codec import modbus
from hal.codec.modbus import BROADCAST, READ_HOLDING, READ_INPUT, RtuStream
from hal.codec.modbus_url import Line
from hal.errors import LinkError
from hal.serve.modbus_tcp import Counts
from hal.serve.sessions import Shared

log = logging.getLogger(__name__)

PTY = "pty"
"""Device name that asks for a new pseudo-terminal."""

STOPPING_S = 5.0
PIECE = 64
"""Bytes of an answer that are sent at once; the time they take passes before they can be read."""

PTY_PAUSE_S = 0.02
"""Silence that ends a frame where bytes come in portions of the operating system, not at the line's pace."""


class Pace:
    """When the line is free again: every byte takes its time, as on a real line.

    `monotonic` and `wait` (which sleeps that long) are replaced by tests.
    """

    def __init__(self, line: Line, monotonic: Callable[[], float], wait: Callable[[float], object]) -> None:
        self._line, self._monotonic, self._wait = line, monotonic, wait
        self._free_s = monotonic()

    def passed(self, n_bytes: int) -> None:
        """So many bytes go over the line; returns when the last of them is through."""
        now_s = self._monotonic()
        self._free_s = max(self._free_s, now_s) + n_bytes * self._line.character_s
        self._wait(self._free_s - now_s)

    def pause(self) -> None:
        """The silence between two frames."""
        now_s = self._monotonic()
        self._free_s = max(self._free_s, now_s) + self._line.pause_s
        self._wait(self._free_s - now_s)


class RtuWire:
    """Serves on the serial port `device`, or on a pseudo-terminal of its own (`pty`) whose name is then `device`.

    `link`: a symbolic link to that name, made at the start and removed at the end.
    """

    def __init__(self, text: str, device: str, line: Line, served: Shared, *, unit: int, link: str = "") -> None:
        self.text, self.device, self.line, self.served, self.unit, self.link = text, device, line, served, unit, link
        self.counts = Counts()
        self._asked = device
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the port. Raises `LinkError`: no such device, not allowed, or in use."""
        if self._thread is not None:
            return
        self._stop.clear()
        self._port: Any = None
        self._held = -1
        if self._asked == PTY:
            self._open_pty()
        else:
            self._open_port()
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"modbus {self.text}", daemon=True)
        self._thread.start()

    def _open_pty(self) -> None:
        import tty

        self._fd, self._held = os.openpty()  # one end is held open: the other must not see a client leave
        tty.setraw(self._held)
        self.device = os.ttyname(self._held)
        if self.link:
            try:
                Path(self.link).unlink(missing_ok=True)
                Path(self.link).symlink_to(self.device)
            except OSError as error:
                os.close(self._fd)
                os.close(self._held)
                raise LinkError(f"{self.text}: link = {self.link}: cannot be made: {error.strerror}") from None

    def _open_port(self) -> None:
        import serial

        try:
            self._port = serial.Serial(
                self._asked,
                self.line.baud,
                parity=self.line.parity,
                stopbits=self.line.stop_bits,
                timeout=0,
                exclusive=True,
            )
        except (OSError, ValueError) as error:
            raise LinkError(
                f"{self.text}: the serial port {self._asked} cannot be opened: {_reason(error)}; "
                f"is it plugged in, free, and are you allowed to use it?"
            ) from None
        self._fd = self._port.fileno()

    def _run(self) -> None:
        try:
            self._serve()
        except OSError as error:
            log.warning("%s: the serial port is gone, nobody is served there any more: %s", self.text, _reason(error))
        finally:
            self._session.close()

    def _serve(self) -> None:
        self._session = self.served.session()
        stream, fd = RtuStream(), self._fd
        paced = self._port is None
        pace = Pace(self.line, time.monotonic, self._stop.wait)
        pause_s = PTY_PAUSE_S if paced else max(self.line.pause_s, PTY_PAUSE_S)
        waiting = False
        while not self._stop.is_set():
            ready, _, _ = select.select([fd, self._wake], [], [], pause_s if waiting else None)
            if self._wake in ready:
                break
            if fd in ready:
                data = os.read(fd, 4096)
                if not data:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))  # it would be ready for ever
                if paced:
                    pace.passed(len(data))
                found, waiting = stream.feed(data), True
            else:
                found, waiting = stream.pause(), False
            for unit, pdu in found:
                self._reply(unit, pdu, pace if paced else None)
            self.counts.damaged = stream.damaged

    def _reply(self, unit: int, pdu: bytes, pace: Pace | None) -> None:
        if unit not in (self.unit, BROADCAST) or (unit == BROADCAST and pdu[0] in (READ_HOLDING, READ_INPUT)):
            return
        self.counts.requests += 1
        reply = modbus.answer(pdu, self._session)
        self.counts.exceptions += reply[0] >> 7
        if unit == BROADCAST:
            return
        frame = modbus.rtu(unit, reply)
        if pace is None:
            self._send(frame)
            return
        pace.pause()
        for start in range(0, len(frame), PIECE):
            piece = frame[start : start + PIECE]
            pace.passed(len(piece))
            self._send(piece)

    def _send(self, data: bytes) -> None:
        """Write all of `data`; what nobody takes in time is dropped, as on a line without a listener."""
        rest = memoryview(data)
        while rest and not self._stop.is_set():
            _, writable, _ = select.select([], [self._fd], [], 1.0)
            if not writable:
                return
            rest = rest[os.write(self._fd, rest) :]

    def stop(self) -> None:
        """Let go of the port."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        os.write(self._waker, b"x")
        thread.join(STOPPING_S)
        for fd in (self._wake, self._waker, *([] if self._port is not None else [self._fd, self._held])):
            with contextlib.suppress(OSError):
                os.close(fd)
        if self._port is not None:
            self._port.close()
        if self.link:
            Path(self.link).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    code = getattr(error, "errno", None)
    return os.strerror(code) if code else str(error)
