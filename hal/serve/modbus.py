"""A rack offered on Modbus, on TCP or a serial line: `ModbusServer("tcp://127.0.0.1:5020", info, clock)`.

| option | |
| --- | --- |
| `unit` | the device's unit, 1 |
| `profile` | the register map: name or .toml file, `sunspec` |
| `cells_per_module` | series groups of a module (model 805), the profile's |
| `hold` | longest age of a walk in s: 2 on TCP, 30 on a serial line |
| `control` | silence in s of the rack's clock after which another connection may take control, 5 |
| `connections`, `idle` | TCP: most connections, 32; silence in s after which one is closed, 60 |
| `cert`, `key`, `ca`, `roles` | TLS: files of the server, of those who sign clients, and what each role may do |
| `baud`, `parity`, `stop` | serial line: 19200, N, 1 |
| `link` | pseudo-terminal (`rtu://pty`): a symbolic link to its name |
"""

from __future__ import annotations

from hal.codec.modbus_url import Place, parse
from hal.codec.register_map import RegisterMap
from hal.codec.register_profile import load
from hal.contract import Clock, Command, Measurement, RackInfo
from hal.registry import parse_url
from hal.serve.modbus_rtu import RtuWire
from hal.serve.modbus_tcp import Counts, TcpWire
from hal.serve.modbus_tls import TLS_OPTIONS, Roles, server_context
from hal.serve.registers import ServedRegisters
from hal.serve.sessions import Shared

_COMMON = ("unit", "cells_per_module", "hold", "control")
WIRE_OPTIONS = {
    "tcp": (*_COMMON, "connections", "idle"),
    "tls": (*_COMMON, "connections", "idle", *TLS_OPTIONS),
    "rtu": (*_COMMON, "baud", "parity", "stop", "link"),
}
"""Options of each wire, whatever is served on it."""


def hold_s(place: Place) -> float:
    """Longest age of a walk at `place`. Raises `ConfigError`."""
    return place.number("hold", 30.0 if place.wire == "rtu" else 2.0, 0.0, 3600.0)


def control_s(place: Place) -> float:
    """Silence after which another connection may take control at `place`. Raises `ConfigError`."""
    return place.number("control", 5.0, 0.1, 3600.0)


def wire_at(place: Place, registers: Shared) -> TcpWire | RtuWire:
    """What serves `registers` at `place`. Raises `ConfigError`."""
    unit = place.whole("unit", 1, 1, 247)
    if place.wire == "rtu":
        return RtuWire(place.text, place.where, place.line(), registers, unit=unit, link=place.query.get("link", ""))
    secured = place.wire == "tls"
    return TcpWire(
        place.text,
        place.where,
        place.port,
        registers,
        unit=unit,
        most=place.whole("connections", 32, 1, 10_000),
        idle_s=place.number("idle", 60.0, 0.05, 86400.0),
        context=server_context(place) if secured else None,
        rules=Roles.of(place) if secured else None,
    )


def address_of(wire: TcpWire | RtuWire) -> str:
    """Where a wire can be reached, as the address of a rack URL: `modbus:` and this."""
    if isinstance(wire, RtuWire):
        return f"rtu://{wire.device}?baud={wire.line.baud}"
    return f"{'tls' if wire.secured else 'tcp'}://{wire.host}:{wire.port}"


class ModbusServer:
    """`hal.serve.Server` for Modbus."""

    def __init__(self, url: str, info: RackInfo, clock: Clock) -> None:
        """Prepare to serve the rack `info` at `url`. Raises `ConfigError` for anything unknown in it."""
        parts = parse_url(url)
        place = parse(f"{parts.scheme}:{parts.address}", parts.query, url)
        place.check((*WIRE_OPTIONS[place.wire], "profile"))
        profile = load(place.query.get("profile", "sunspec"))
        per_module = place.whole("cells_per_module", profile.cells_per_module, 1, 1000)
        self.registers = ServedRegisters(
            RegisterMap(profile, info, cells_per_module=per_module),
            clock,
            hold_s=hold_s(place),
            control_s=control_s(place),
        )
        self.wire = wire_at(place, self.registers)

    @property
    def counts(self) -> Counts:
        """What has been seen on the wire."""
        return self.wire.counts

    @property
    def address(self) -> str:
        """Where it can be reached, as the address of a rack URL: `modbus:` and this."""
        return address_of(self.wire)

    def start(self) -> None:
        """Begin to serve. Raises `LinkError`."""
        self.wire.start()

    def publish(self, measurement: Measurement) -> None:
        """Offer a new measurement."""
        self.registers.publish(measurement)

    def take(self, out: Command) -> bool:
        """The newest command since the last call."""
        return self.registers.take(out)

    def stop(self) -> None:
        """Let go of the wire."""
        self.wire.stop()
