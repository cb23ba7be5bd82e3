"""Where a Modbus device is: `tcp://HOST:PORT`, `tls://HOST:PORT` or `rtu://DEVICE`, with options behind `?`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hal.errors import ConfigError, nearest

WIRES = ("tcp", "tls", "rtu")
PORTS = {"tcp": 502, "tls": 802}
PARITIES = ("N", "E", "O")


@dataclass(frozen=True)
class Line:
    """How a serial line is set: `character_s` is the time of a character with its start, parity and stop bits."""

    baud: int
    parity: str
    stop_bits: int

    @property
    def character_s(self) -> float:
        """Seconds that one character takes."""
        return (9 + (self.parity != "N") + self.stop_bits) / self.baud

    @property
    def pause_s(self) -> float:
        """Silence that ends a frame: 3.5 characters, 1.75 ms above 19,200 baud (MODBUS over Serial Line, 2.5.1.1)."""
        return 3.5 * self.character_s if self.baud <= 19200 else 1.75e-3


@dataclass(frozen=True)
class Place:
    """A wire and its options. `text` is what the user wrote, for messages; `where` the host or the serial device."""

    text: str
    wire: str
    where: str
    port: int = 0
    query: Mapping[str, str] = field(default_factory=dict)

    def check(self, known: tuple[str, ...]) -> None:
        """Raises `ConfigError` for an option that nobody knows."""
        for key in self.query:
            if key not in known:
                raise ConfigError(f"{self.text}: unknown option '{key}'{nearest(key, known)}")

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """An option that is a number in low..high. Raises `ConfigError`."""
        text = self.query.get(key)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ConfigError(f"{self.text}: {key} = {text}: expected a number in {low:g}..{high:g}")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """An option that is a whole number. Raises `ConfigError`."""
        value = self.number(key, default, low, high)
        if value != int(value):
            raise ConfigError(f"{self.text}: {key} = {self.query[key]}: expected a whole number")
        return int(value)

    def line(self) -> Line:
        """The settings of a serial line: `baud`, `parity` and `stop`. Raises `ConfigError`."""
        parity = self.query.get("parity", "N")
        if parity not in PARITIES:
            raise ConfigError(f"{self.text}: parity = {parity}: expected N, E or O")
        return Line(self.whole("baud", 19200, 300, 4_000_000), parity, self.whole("stop", 1, 1, 2))


def parse(address: str, query: Mapping[str, str], text: str) -> Place:
    """Take an address apart; `text` is the whole URL, for messages. Raises `ConfigError`."""
    wire, colon, rest = address.partition(":")
    if not colon or wire not in WIRES or not rest.strip("/"):
        raise ConfigError(
            f"{text}: expected tcp://HOST:PORT, tls://HOST:PORT or rtu://DEVICE?baud=N, "
            f"for example tcp://127.0.0.1:5020 or rtu:///dev/ttyUSB0?baud=115200"
        )
    rest = rest.removeprefix("//")
    if wire == "rtu":
        return Place(text, wire, rest, 0, query)
    host, colon, number = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        host, number = rest, str(PORTS[wire])
    host = host.strip("[]")
    if not host or not number.isdigit() or not 0 <= int(number) <= 65535:
        raise ConfigError(f"{text}: '{rest}': expected HOST:PORT with a port in 0..65535")
    return Place(text, wire, host, int(number), query)
