"""A served rack on paper, clocks that tests move, and a client that speaks bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hal.codec.modbus import mbap
from hal.codec.register_map import RegisterMap
from hal.codec.register_profile import load
from hal.codec.register_reader import Image, Reader
from hal.contract import Command, Measurement, RackInfo
from hal.serve.modbus import ModbusServer
from hal.serve.registers import ServedRegisters


class Time:
    """A clock that tests move, of the rack and of the computer alike."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


class Wire:
    """A connection that sends and receives bytes; every wait is bounded."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError(f"closed after {data!r}")
            data += more
        return data

    def frame(self) -> tuple[int, bytes]:
        """The next answer: (transaction, pdu)."""
        transaction, _, length, _ = struct.unpack(">HHHB", self.receive(7))
        return transaction, self.receive(length - 1)

    def ask(self, pdu: bytes, transaction: int = 1, unit: int = 1) -> bytes:
        self.send(mbap(transaction, unit, pdu))
        number, reply = self.frame()
        assert number == transaction
        return reply

    def closed(self) -> bool:
        """Whether the other end closes, which is waited for."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()


class Site:
    """A rack of `n_cells` on paper, its registers, and requests that fit them."""

    def __init__(self, info: RackInfo, measured: Callable[..., Measurement], commanded: Callable[..., Command]) -> None:
        self.info, self.measured, self.commanded = info, measured, commanded
        self.clock = Time()
        profile = load("sunspec")
        self.map = RegisterMap(profile, info)
        image = Image()
        words = memoryview(self.map.encode())
        image.put(self.map.base, [words[k] << 8 | words[k + 1] for k in range(0, len(words), 2)])
        self.reader = Reader(profile, self.map.placed, image, "paper")

    def served(self, *, hold_s: float = 2.0, control_s: float = 5.0) -> ServedRegisters:
        profile = load("sunspec")
        return ServedRegisters(
            RegisterMap(profile, self.info), self.clock, hold_s=hold_s, control_s=control_s, monotonic=self.clock.now_s
        )

    def address(self, model: int, point: str) -> int:
        placed = next(p for p in self.map.placed if p.model.id == model)
        return placed.address + placed.model.fixed.points[point].offset

    def requests(self, command: Command) -> list[bytes]:
        """PDUs that pass a command on."""
        return [struct.pack(f">BHHB{len(v)}H", 16, at, len(v), 2 * len(v), *v) for at, v in self.reader.writes(command)]

    def server(self, **options: Any) -> ModbusServer:
        query = "&".join(f"{key}={value}" for key, value in options.items())
        return ModbusServer(f"tcp://127.0.0.1:0?{query}" if query else "tcp://127.0.0.1:0", self.info, self.clock)


@pytest.fixture
def site(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement], commanded: Callable[..., Command]
) -> Site:
    return Site(info_of(20), measured, commanded)


@pytest.fixture
def serving(site: Site) -> Iterator[Callable[..., ModbusServer]]:
    """Starts servers, which are stopped at the end."""
    started: list[ModbusServer] = []

    def start(**options: Any) -> ModbusServer:
        server = site.server(**options)
        server.publish(site.measured(site.info))
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def wire() -> Iterator[Callable[[ModbusServer], Wire]]:
    """Opens connections, which are closed at the end."""
    opened: list[Wire] = []

    def connect(server: ModbusServer) -> Wire:
        opened.append(Wire(server.wire.port))  # type: ignore[union-attr]
        return opened[-1]

    yield connect
    for one in opened:
        one.close()
