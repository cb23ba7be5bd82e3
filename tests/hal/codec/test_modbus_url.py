"""Addresses of Modbus devices and their options."""

import pytest

from hal.codec.modbus_url import Line, Place, parse
from hal.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "wire", "where", "port"),
    [
        ("tcp://127.0.0.1:5020", "tcp", "127.0.0.1", 5020),
        ("tcp://rack.local", "tcp", "rack.local", 502),
        ("tls://rack.local", "tls", "rack.local", 802),
        ("tcp:localhost:0", "tcp", "localhost", 0),
        ("tcp://[::1]:1502", "tcp", "::1", 1502),
        ("tcp://[::1]", "tcp", "::1", 502),
        ("rtu:///dev/ttyUSB0", "rtu", "/dev/ttyUSB0", 0),
        ("rtu:/dev/ttyUSB0", "rtu", "/dev/ttyUSB0", 0),
        ("rtu://COM3", "rtu", "COM3", 0),
    ],
)
def test_addresses(address: str, wire: str, where: str, port: int) -> None:
    place = parse(address, {}, address)
    assert (place.wire, place.where, place.port) == (wire, where, port)


@pytest.mark.parametrize(
    "address", ["", "tcp", "tcp:", "tcp://", "udp://a:1", "tcp://a:b", "tcp://a:70000", "tcp://:1"]
)
def test_what_is_no_address_is_told_with_an_example(address: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        parse(address, {}, f"modbus:{address}")


def test_options_are_checked() -> None:
    place = Place("x", "tcp", "a", 1, {"unit": "300", "poll": "a", "nan": "nan", "half": "1.5", "good": "7"})
    assert place.whole("good", 1, 1, 247) == 7
    assert place.number("absent", 2.5, 0, 10) == 2.5
    for ask in (
        lambda: place.whole("unit", 1, 1, 247),
        lambda: place.number("poll", 1, 0, 10),
        lambda: place.number("nan", 1, 0, 10),
        lambda: place.whole("half", 1, 0, 10),
        lambda: place.check(("unit", "poll")),
    ):
        with pytest.raises(ConfigError, match="x: "):
            ask()
    with pytest.raises(ConfigError, match="did you mean 'unit'"):
        Place("x", "tcp", "a", 1, {"unti": "1"}).check(("unit", "poll"))


def test_a_line_knows_how_long_a_character_takes() -> None:
    assert parse("rtu:a", {}, "x").line() == Line(19200, "N", 1)
    line = parse("rtu:a", {"baud": "9600", "parity": "E", "stop": "1"}, "x").line()
    assert line.character_s == pytest.approx(11 / 9600)
    assert line.pause_s == pytest.approx(3.5 * 11 / 9600)
    assert Line(115200, "N", 1).pause_s == 1.75e-3
    with pytest.raises(ConfigError, match="parity = X"):
        parse("rtu:a", {"parity": "X"}, "x").line()
