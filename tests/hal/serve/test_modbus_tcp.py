"""Modbus/TCP on real sockets: portions, coalescing, too many and silent clients, and a hundred thousand damaged requests."""

import contextlib
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.codec.modbus import FramingError, MbapStream, Refused, mbap
from hal.contract import Command
from hal.errors import LinkError
from hal.serve.modbus import ModbusServer
from hal.serve.modbus_tcp import TcpWire
from hal.serve.registers import followable

READ_MARK = struct.pack(">BHH", 3, 40000, 2)
MARK = b"\x03\x04SunS"


@pytest.fixture
def server(serving: Callable[..., ModbusServer]) -> ModbusServer:
    return serving()


def test_every_coalesced_request_has_its_answer_and_every_write_is_applied(
    site: Any, server: ModbusServer, wire: Any
) -> None:
    one, command = wire(server), site.commanded(site.info)
    (whole,) = site.requests(command)
    at = site.address(64802, "Cause")
    data = mbap(1, 1, whole) + mbap(2, 1, struct.pack(">BHH", 6, at, 7)) + mbap(3, 1, struct.pack(">BHH", 6, at + 1, 8))
    one.send(data + mbap(4, 1, struct.pack(">BHH", 3, at, 2)) + mbap(5, 1, READ_MARK))
    replies = [one.frame() for _ in range(5)]
    assert [number for number, _ in replies] == [1, 2, 3, 4, 5]
    assert [reply[0] for _, reply in replies] == [16, 6, 6, 3, 3]
    assert replies[3][1] == struct.pack(">BBHH", 3, 4, 7, 8)


def test_requests_may_be_split_at_every_byte(site: Any, server: ModbusServer, wire: Any) -> None:
    one = wire(server)
    (write,) = site.requests(site.commanded(site.info))
    data = mbap(1, 1, write) + mbap(2, 1, READ_MARK)
    for place in range(1, len(data)):
        one.send(data[:place])
        if place >= len(mbap(1, 1, write)):
            assert one.frame() == (1, write[:5])  # the second part is not on its way before this answer
            one.send(data[place:])
        else:
            one.send(data[place:])
            assert one.frame() == (1, write[:5])
        assert one.frame() == (2, MARK)
    assert server.registers.commands == len(data) - 1
    for byte in data:
        one.send(bytes((byte,)))
    assert [one.frame() for _ in range(2)] == [(1, write[:5]), (2, MARK)]


@pytest.mark.parametrize(
    ("unit", "reply"), [(1, MARK), (0, MARK), (255, MARK), (2, bytes((0x83, Refused.NO_SUCH_UNIT)))]
)
def test_the_unit_is_looked_at(server: ModbusServer, wire: Any, unit: int, reply: bytes) -> None:
    assert wire(server).ask(READ_MARK, unit=unit) == reply


def test_what_is_no_modbus_is_cut_off_after_the_answers_that_are_due(server: ModbusServer, wire: Any) -> None:
    one = wire(server)
    one.send(mbap(9, 1, READ_MARK) + b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionError):  # the system may drop what was sent when a connection is cut
        assert one.frame() == (9, MARK)
    assert one.closed()
    assert wire(server).ask(READ_MARK) == MARK
    assert server.counts.damaged == 1


def test_too_many_connections_are_refused_and_the_old_ones_served(
    serving: Callable[..., ModbusServer], wire: Any
) -> None:
    server = serving(connections=3)
    old = [wire(server) for _ in range(3)]
    for one in old:
        assert one.ask(READ_MARK) == MARK
    for _ in range(20):
        extra = wire(server)
        assert extra.closed()
    for one in old:
        assert one.ask(READ_MARK) == MARK
    assert server.counts.refused_connections == 20
    old[0].close()
    assert any(_served(wire(server)) for _ in range(100)), "a place that is free again can be had"


def _served(one: Any) -> bool:
    try:
        return bool(one.ask(READ_MARK) == MARK)
    except (AssertionError, ConnectionError):
        return False


def test_nine_hundred_idle_connections(serving: Callable[..., ModbusServer], wire: Any) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2500:
        pytest.skip(f"the system allows {hard} open files, this takes 2,500")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500), hard))
    try:
        server = serving(connections=900)
        old = [wire(server) for _ in range(900)]
        for one in old:
            assert one.ask(READ_MARK) == MARK
        for _ in range(50):
            assert wire(server).closed()
        for one in old:
            assert one.ask(READ_MARK) == MARK
        assert server.counts.refused_connections == 50
        for one in old:
            one.close()
        server.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_asks_nothing_is_closed_and_half_a_request_is_nothing(
    serving: Callable[..., ModbusServer], wire: Any
) -> None:
    server = serving(idle=0.2)
    silent, half = wire(server), wire(server)
    half.send(mbap(1, 1, READ_MARK)[:7])
    assert silent.closed()
    assert half.closed()
    assert server.counts.idle_closed == 2


def test_who_does_not_read_is_not_waited_for(server: ModbusServer, wire: Any) -> None:
    """A client that only asks fills its own buffers, not the server's memory; others are served meanwhile."""
    greedy = wire(server)
    greedy.socket.settimeout(1.0)
    many = mbap(1, 1, struct.pack(">BHH", 3, 40000, 125)) * 2000
    with pytest.raises(TimeoutError):
        greedy.send(2000 * many)
    assert wire(server).ask(READ_MARK) == MARK
    assert server.counts.requests < 2000 * 2000
    assert isinstance(server.wire, TcpWire)
    assert max(len(one._stream._buffer) for one in server.wire.open) < 2**20
    greedy.socket.settimeout(10.0)
    assert greedy.frame()[1][:2] == b"\x03\xfa"


def test_a_port_that_is_taken_is_told_in_one_line(site: Any, server: ModbusServer) -> None:
    assert isinstance(server.wire, TcpWire)
    second = ModbusServer(f"tcp://127.0.0.1:{server.wire.port}", site.info, site.clock)
    with pytest.raises(LinkError, match=r"cannot listen on 127.0.0.1:\d+: .*choose another port") as error:
        second.start()
    assert "\n" not in str(error.value)
    second.stop()


class Oracle:
    """What must happen, worked out apart from the server: the frames of a stream, and the writes that are allowed."""

    def __init__(self, site: Any) -> None:
        self.map = site.map
        self.live = bytearray(self.map.encode())
        self.staged: bytearray | None = None
        self.commands = 0

    def connected(self) -> None:
        self.staged = None

    def wrote(self, pdu: bytes) -> bool:
        """Apply a request if it is a write that is allowed; returns whether it takes effect or is staged."""
        if pdu[0] == 6 and len(pdu) == 5:
            start, values = struct.unpack(">H", pdu[1:3])[0], pdu[3:]
        elif pdu[0] == 16 and len(pdu) >= 8 and pdu[5] == len(pdu) - 6 == 2 * struct.unpack(">H", pdu[3:5])[0]:
            start, values = struct.unpack(">H", pdu[1:3])[0], pdu[6:]
            if len(values) > 246:
                return False
        else:
            return False
        touched = range(start, start + len(values) // 2)
        if not set(touched) <= self.map.writable:
            return False
        staged = bytearray(self.live if self.staged is None else self.staged)
        at = 2 * (start - self.map.base)
        staged[at : at + len(values)] = values
        if not self.map.commit & set(touched):
            self.staged = staged
            return True
        self.staged = None
        command = Command(self.map.info.n_cells, self.map.info.n_sensors)
        try:
            self.map.decode_command(bytes(staged), command)
        except ValueError:
            return False
        if not followable(command):
            return False
        self.live, self.commands, self.newest = staged, self.commands + 1, command
        return True


def mutated(rng: random.Random, good: bytes) -> bytes:
    """A request with something wrong with it, or by luck still a good one."""
    data = bytearray(good)
    for _ in range(rng.randint(1, 3)):
        kind = rng.random()
        # most damage is behind the header, where it gets further
        place = rng.randrange(len(data)) if rng.random() < 0.15 or len(data) < 9 else rng.randrange(7, len(data))
        if kind < 0.5:
            data[place] = rng.randrange(256)
        elif kind < 0.7:
            data[place] ^= 1 << rng.randrange(8)
        elif kind < 0.8:
            del data[place : place + rng.randint(1, 4)]
        elif kind < 0.9:
            data[place:place] = rng.randbytes(rng.randint(1, 4))
        else:
            data[7:12] = struct.pack(">BHH", rng.choice((3, 4, 6, 16, 1, 23)), rng.randrange(65536), rng.randrange(130))
        if len(data) < 9:
            break
    if len(data) >= 8 and rng.random() < 0.8:
        data[4:6] = struct.pack(">H", min(len(data) - 6, 254))  # the header fits again
    return bytes(data)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_hundred_thousand_damaged_requests(site: Any, server: ModbusServer, wire: Any) -> None:
    """Alive, memory flat, and not one write applied that the rules do not allow."""
    seed, total = 20261126, 100_000
    rng, oracle = random.Random(seed), Oracle(site)
    oracle.live[:] = server.registers.now
    (write,) = site.requests(site.commanded(site.info))
    at = site.address(64802, "Con")
    good = [
        mbap(1, 1, write),
        mbap(2, 1, READ_MARK),
        mbap(3, 1, struct.pack(">BHH", 6, at, 3)),
        mbap(4, 1, struct.pack(">BHHB3H", 16, at, 3, 6, 1, 2, 3)),
        mbap(5, 1, struct.pack(">BHHB2H", 16, site.address(64802, "Hb"), 2, 4, 0, 9)),
    ]
    received = site.commanded(site.info)
    one, taken, before = wire(server), 0, 0
    for number in range(total):
        data = mutated(rng, rng.choice(good))
        stream, broken, pdus = MbapStream(), False, []
        stream.feed(data)
        try:
            for _, unit, pdu in stream.frames():
                pdus.append((unit, pdu))  # those before a broken header are answered
        except FramingError:
            broken = True
        expected = oracle.commands
        one.send(data)
        for unit, pdu in pdus:
            _, reply = one.frame()
            accepted = reply[0] in (6, 16)
            assert accepted == (unit in (0, 1, 255) and oracle.wrote(pdu)), (
                f"seed {seed}, number {number}: {data.hex()}"
            )
        if oracle.commands > expected:
            assert server.take(received), f"seed {seed}, number {number}"
            assert received.bytes.tobytes() == oracle.newest.bytes.tobytes(), f"seed {seed}, number {number}"
            taken += 1
        if broken or stream._buffer:
            if broken:
                assert one.closed(), f"seed {seed}, number {number}"
            one.close()
            one = wire(server)
            assert one.ask(READ_MARK) == MARK
            oracle.connected()
        if number == total // 5 and Path("/proc/self/statm").exists():
            before = resident_bytes()
    assert server.registers.commands == oracle.commands == taken > 1000
    assert bytes(oracle.live)[-400:] == server.registers.now[-400:]
    assert wire(server).ask(READ_MARK) == MARK
    if before:
        assert resident_bytes() - before < 16 * 2**20
    assert np.isfinite(received.head["cooling_degc"]).all()
