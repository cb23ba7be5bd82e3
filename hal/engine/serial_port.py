"""A serial port as the link to a controller."""

from __future__ import annotations

import errno
import time
from typing import Any

from hal.errors import GoneError

BAUD = 921_600
ANSWER_S = 5.0
LOOK_S = 0.05  # a wait is made of pieces: to alter the port's own time-out costs calls of the system

_REASONS = {
    errno.ENOENT: "there is no such device; is it plugged in?",
    errno.EACCES: "no permission: join the group that owns it (often dialout), or ask the administrator",
    errno.EPERM: "no permission: join the group that owns it (often dialout), or ask the administrator",
    errno.EBUSY: "another program uses it",
    errno.EAGAIN: "another program uses it",
    errno.ENOTTY: "it is no serial port",
    errno.EINVAL: "it is no serial port, or it cannot do {baud} baud",
}


class SerialPort:
    """The port `device`, such as `/dev/ttyACM0`, for this process alone. Raises `GoneError`."""

    answer_s = ANSWER_S

    def __init__(self, device: str, baud: int = BAUD) -> None:
        import serial

        self.name = f"serial:{device}"
        try:
            self._port: Any = serial.Serial(device, baud, timeout=LOOK_S, write_timeout=ANSWER_S, exclusive=True)
        except (OSError, ValueError) as error:  # what pyserial raises is an OSError, too
            reason = _REASONS.get(_number(error), " ".join(str(error).split()))
            raise GoneError(f"{self.name}: {reason.format(baud=baud)}") from None

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._port.write(data)
        except OSError:
            raise self._gone() from None

    def receive(self, timeout_s: float) -> bytes:
        """What has arrived; nothing after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                data: bytes = self._port.read(self._port.in_waiting or 1)
                if data or time.monotonic() >= deadline:
                    return data
        except (OSError, TypeError):  # pyserial trips over a port that is closed meanwhile
            raise self._gone() from None

    def _gone(self) -> GoneError:
        return GoneError(f"{self.name}: the port has gone: was it unplugged?")

    def close(self) -> None:
        """Close the port; may be called more than once."""
        self._port.close()


def _number(error: Exception) -> int:
    """The number of the system's error that is behind `error`, 0 without one."""
    found: BaseException | None = error
    while found is not None:  # pyserial's own errors carry text alone; before them was the system's
        number = found.args[0] if found.args else 0
        if isinstance(number, int) and number:
            return number
        found = found.__context__
    return 0
