"""A serial port, with a pseudo-terminal in its place: bytes, and one line for each way in which it cannot be used."""

from __future__ import annotations

import errno
import os
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hal.engine.serial_port import SerialPort
from hal.errors import GoneError

serial = pytest.importorskip("serial")


@pytest.fixture
def ends() -> Iterator[tuple[int, str]]:
    """The other side, and the name of this one."""
    other, own = os.openpty()
    tty.setraw(own)
    yield other, os.ttyname(own)
    for number in (other, own):
        try:
            os.close(number)
        except OSError:
            assert number == other  # a test has closed it


def test_bytes_go_both_ways(ends: tuple[int, str]) -> None:
    port = SerialPort(ends[1])
    port.send(b"\x00\xa5\x5a\x0d\x0a")
    assert os.read(ends[0], 99) == b"\x00\xa5\x5a\x0d\x0a"  # one write, and no line discipline
    assert port.receive(0.0) == b""
    os.write(ends[0], b"\x11\x13\x03")
    said = b""
    while len(said) < 3:
        piece = port.receive(10.0)
        assert piece
        said += piece
    assert said == b"\x11\x13\x03"
    assert port.name == f"serial:{ends[1]}"
    port.close()
    port.close()


def test_a_port_that_goes_is_told(ends: tuple[int, str]) -> None:
    port = SerialPort(ends[1])
    os.close(ends[0])
    for work in (lambda: port.receive(1.0), lambda: port.send(b"x")):
        with pytest.raises(GoneError, match=f"serial:{ends[1]}: the port has gone: was it unplugged"):
            work()
    port.close()


def test_a_port_has_one_user(ends: tuple[int, str]) -> None:
    first = SerialPort(ends[1])
    with pytest.raises(GoneError, match=f"serial:{ends[1]}: another program uses it"):
        SerialPort(ends[1])
    first.close()
    SerialPort(ends[1]).close()


def test_what_is_no_port(tmp_path: Path) -> None:
    with pytest.raises(GoneError, match="there is no such device; is it plugged in"):
        SerialPort(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(GoneError, match="it is no serial port"):
        SerialPort(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "no permission: join the group"), (errno.EINVAL, "it cannot do 9 baud"), (0, "odd")],
)
def test_other_reasons(number: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any, **__: Any) -> None:
        try:
            raise OSError(number, "x") if number else ValueError("odd")
        except (OSError, ValueError):
            raise serial.SerialException("odd")  # as pyserial hides the system's error  # noqa: B904

    monkeypatch.setattr(serial, "Serial", opened)
    with pytest.raises(GoneError, match=f"serial:tty: .*{said}"):
        SerialPort("tty", 9)
