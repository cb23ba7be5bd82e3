"""Modbus RTU over a pseudo-terminal: framing, silence, broadcasts, and the time that the baud rate takes."""

import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hal.codec.modbus import Refused, rtu
from hal.codec.modbus_url import Line
from hal.errors import ConfigError, LinkError
from hal.serve.modbus import ModbusServer
from hal.serve.modbus_rtu import Pace, RtuWire

READ_MARK = struct.pack(">BHH", 3, 40000, 2)
MARK = b"\x03\x04SunS"

Serve = Callable[..., tuple[ModbusServer, "Port"]]


class Port:
    """The other end of the line; every wait is bounded."""

    def __init__(self, device: str) -> None:
        self.fd = os.open(device, os.O_RDWR | os.O_NOCTTY)

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            ready, _, _ = select.select([self.fd], [], [], 10.0)
            assert ready, f"silence after {data!r}"
            data += os.read(self.fd, count - len(data))
        return data

    def silent(self, seconds: float) -> bool:
        return not select.select([self.fd], [], [], seconds)[0]

    def ask(self, pdu: bytes, size: int, unit: int = 1) -> bytes:
        os.write(self.fd, rtu(unit, pdu))
        frame = self.receive(size + 3)
        assert frame == rtu(frame[0], frame[1:-2])
        return frame[1:-2]


@pytest.fixture
def line(site: Any) -> Iterator[Serve]:
    opened: list[tuple[ModbusServer, Port]] = []

    def start(options: str = "baud=1000000") -> tuple[ModbusServer, Port]:
        server = ModbusServer(f"rtu://pty?{options}", site.info, site.clock)
        server.publish(site.measured(site.info))
        server.start()
        assert isinstance(server.wire, RtuWire)
        opened.append((server, Port(server.wire.device)))
        return opened[-1]

    yield start
    for server, port in opened:
        os.close(port.fd)
        server.stop()


def test_requests_are_answered(line: Serve) -> None:
    server, port = line()
    assert port.ask(READ_MARK, 6) == MARK
    assert port.ask(struct.pack(">BHH", 3, 1, 1), 2) == bytes((0x83, Refused.ILLEGAL_ADDRESS))
    assert server.counts.requests == 2
    assert server.counts.exceptions == 1


def test_split_and_coalesced_at_every_byte(site: Any, line: Serve) -> None:
    server, port = line()
    (write,) = site.requests(site.commanded(site.info))
    data = rtu(1, write) + rtu(1, READ_MARK)
    expected = rtu(1, write[:5]) + rtu(1, MARK)
    for place in range(1, len(data), 7):
        os.write(port.fd, data[:place])
        os.write(port.fd, data[place:])
        assert port.receive(len(expected)) == expected
    assert server.registers.commands == len(range(1, len(data), 7))


def test_a_damaged_request_is_not_answered_and_the_next_one_is(line: Serve) -> None:
    server, port = line()
    os.write(port.fd, rtu(1, READ_MARK)[:-1] + b"\0")
    assert port.silent(0.1)
    assert port.ask(READ_MARK, 6) == MARK
    assert server.counts.damaged == 1


def test_other_units_are_not_answered_for_and_broadcasts_not_at_all(site: Any, line: Serve) -> None:
    server, port = line("baud=1000000&unit=7")
    (write,) = site.requests(site.commanded(site.info))
    os.write(port.fd, rtu(1, READ_MARK) + rtu(0, READ_MARK) + rtu(0, write))
    assert port.silent(0.1)
    assert server.registers.commands == 1, "a broadcast write is applied"
    assert port.ask(READ_MARK, 6, unit=7) == MARK


def test_an_unknown_function_is_refused_after_the_pause(line: Serve) -> None:
    _, port = line()
    assert port.ask(bytes((43, 14, 1, 0)), 2) == bytes((43 | 0x80, Refused.ILLEGAL_FUNCTION))


def test_the_line_takes_its_time(line: Serve) -> None:
    """125 registers at 19,200 baud: (8 + 255) bytes of 10 bits and the pause are 139 ms."""
    _, port = line("baud=19200")
    began = time.monotonic()
    assert port.ask(struct.pack(">BHH", 3, 40000, 125), 252)[:2] == b"\x03\xfa"
    took_s = time.monotonic() - began
    expected_s = (8 + 255) * 10 / 19200 + 3.5 * 10 / 19200
    assert expected_s - 0.005 < took_s < expected_s + 2.0  # a busy machine is late, but never early


def test_the_pace_adds_up_whatever_the_portions() -> None:
    now, waits = [100.0], []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    pace = Pace(Line(9600, "N", 1), lambda: now[0], wait)
    for n_bytes in (8, 64, 64, 12):
        pace.passed(n_bytes)
    pace.pause()
    assert sum(waits) == pytest.approx((148 + 3.5) * 10 / 9600)
    now[0] += 5.0
    pace.passed(1)
    assert waits[-1] == pytest.approx(10 / 9600), "a line that was idle is free at once"


def test_a_link_names_the_line(line: Serve, tmp_path: Path) -> None:
    name = tmp_path / "rack"
    server, _ = line(f"baud=1000000&link={name}")
    assert os.readlink(name) == server.wire.device  # type: ignore[union-attr]
    server.stop()
    assert not name.is_symlink()


def test_a_port_that_does_not_exist_is_told_in_one_line(site: Any, tmp_path: Path) -> None:
    server = ModbusServer(f"rtu://{tmp_path}/tty?baud=9600", site.info, site.clock)
    with pytest.raises(LinkError, match=r"cannot be opened: No such file or directory; is it plugged in") as error:
        server.start()
    assert "\n" not in str(error.value)
    linked = ModbusServer(f"rtu://pty?link={tmp_path}/a/b", site.info, site.clock)
    with pytest.raises(LinkError, match="cannot be made"):
        linked.start()
    with pytest.raises(ConfigError, match="baud = 5"):
        ModbusServer("rtu://pty?baud=5", site.info, site.clock)


def test_a_port_that_is_pulled_out_is_told(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    master, slave = os.openpty()
    server = ModbusServer(f"rtu://{os.ttyname(slave)}?baud=115200", site.info, site.clock)
    server.start()
    try:
        os.close(slave)
        os.close(master)
        deadline = time.monotonic() + 10.0
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "the serial port is gone" in caplog.text
    finally:
        server.stop()


def test_a_real_port_is_opened_through_pyserial(site: Any, line: Serve) -> None:
    """The far end of a pseudo-terminal of our own stands in for the port."""
    master, slave = os.openpty()
    server = ModbusServer(f"rtu://{os.ttyname(slave)}?baud=115200", site.info, site.clock)
    server.publish(site.measured(site.info))
    server.start()
    try:
        os.write(master, rtu(1, READ_MARK))
        data = b""
        while len(data) < 9:
            assert select.select([master], [], [], 10.0)[0]
            data += os.read(master, 9 - len(data))
        assert data == rtu(1, MARK)
    finally:
        server.stop()
        os.close(master)
        os.close(slave)
