"""Modbus/TCP Security: certificates on both sides, and roles that say what a client may do."""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
from certificates import Authority, utf8

from hal.backends.modbus import ModbusRack
from hal.codec.modbus import Refused
from hal.codec.modbus_url import parse
from hal.contract import Command, Measurement
from hal.errors import ConfigError, LinkError
from hal.serve.modbus import ModbusServer
from hal.serve.modbus_tls import CONTROLLING, READING, Roles, role

READ_MARK = struct.pack(">BHH", 3, 40000, 2)
MARK = b"\x03\x04SunS"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def secured(site: Any, authority: Authority) -> Iterator[Callable[..., ModbusServer]]:
    started: list[ModbusServer] = []

    def start(**options: Any) -> ModbusServer:
        cert, key = authority.issue("server")
        query = "".join(f"&{name}={value}" for name, value in options.items())
        url = f"tls://127.0.0.1:0?cert={cert}&key={key}&ca={authority.path}{query}"
        started.append(ModbusServer(url, site.info, site.clock))
        started[-1].publish(site.measured(site.info))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def connect(authority: Authority, wire: Any) -> Callable[..., Any]:
    """A client with a certificate of that extension."""

    def make(server: ModbusServer, extension: bytes | None, signer: Authority | None = None) -> Any:
        cert, key = (signer or authority).issue("client", extension)
        context = ssl.create_default_context(cafile=str(authority.path))
        context.load_cert_chain(cert, key)
        one = wire(server)
        one.socket = context.wrap_socket(one.socket, server_hostname="rack")
        return one

    return make


def test_a_controller_may_write(site: Any, secured: Any, connect: Any) -> None:
    server = secured()
    one = connect(server, utf8("controller"))
    assert one.ask(READ_MARK) == MARK
    (write,) = site.requests(site.commanded(site.info))
    assert one.ask(write) == write[:5]
    assert server.take(site.commanded(site.info))


@pytest.mark.parametrize(
    "extension", [None, utf8("operator"), b"\x13\x0acontroller", utf8("controller") + b"\0", b"", b"\x0c\x80"]
)
def test_everybody_else_may_read(site: Any, secured: Any, connect: Any, extension: bytes | None) -> None:
    server = secured()
    one = connect(server, extension)
    (write,) = site.requests(site.commanded(site.info))
    assert one.ask(READ_MARK) == MARK
    assert one.ask(write) == bytes((0x90, Refused.ILLEGAL_FUNCTION))
    assert not server.take(site.commanded(site.info))


def test_the_rules_of_a_file(secured: Any, connect: Any, tmp_path: Path) -> None:
    rules = tmp_path / "roles.toml"
    rules.write_text("[roles]\nauditor = [4]\n")
    server = secured(roles=rules)
    assert connect(server, utf8("auditor")).ask(struct.pack(">BHH", 4, 40000, 2)) == b"\x04\x04SunS"
    refused = bytes((0x83, Refused.ILLEGAL_FUNCTION))
    assert connect(server, utf8("auditor")).ask(READ_MARK) == refused
    assert connect(server, utf8("controller")).ask(READ_MARK) == refused
    assert connect(server, None).ask(READ_MARK) == refused


def test_strangers_are_not_let_in(secured: Any, connect: Any, wire: Any, tmp_path: Path) -> None:
    server = secured()
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "authority")
    with pytest.raises(OSError):
        connect(server, utf8("controller"), stranger).ask(READ_MARK)
    plain = wire(server)
    plain.send(b"\0\1\0\0\0\6\1" + READ_MARK)
    with contextlib.suppress(ConnectionError):
        assert MARK not in plain.socket.recv(100)  # at most an alert
    assert server.counts.connections == 0
    assert connect(server, None).ask(READ_MARK) == MARK


def test_the_rack_over_tls(site: Any, secured: Any, authority: Authority) -> None:
    server = secured()
    cert, key = authority.issue("loop", utf8("controller"))
    query = {"ca": str(authority.path), "cert": str(cert), "key": str(key), "name": "rack"}
    address = server.address.partition("?")[0]
    with ModbusRack(address, query=query, clock=site.clock) as rack:
        m = Measurement(site.info.n_cells, site.info.n_sensors)
        rack.read(m)
        assert abs(m.cell_v - site.measured(site.info).cell_v).max() < 1e-6
        rack.write(Command(site.info.n_cells, site.info.n_sensors))
    assert server.registers.commands >= 1
    with pytest.raises(LinkError, match="TLS: "):
        ModbusRack(address, query={}, clock=site.clock).open()
    with pytest.raises(ConfigError, match="cannot be used"):
        ModbusRack(address, query={"ca": "/nowhere"}, clock=site.clock)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reader = [3]", "expected one table, [roles]"),
        ("[roles]\nreader = 3", "reader = 3"),
        ("[roles]\nreader = [5]", "reader = [5]"),
        ("[roles", "cannot be read"),
    ],
)
def test_mistakes_in_the_rules_are_told(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_text(text)
    place = parse("tls:a", {"roles": str(tmp_path / "roles.toml")}, "tls:a")
    with pytest.raises(ConfigError) as error:
        Roles.of(place)
    assert said in str(error.value)


def test_files_are_needed(site: Any, authority: Authority) -> None:
    with pytest.raises(ConfigError, match="cert is missing"):
        ModbusServer("tls://127.0.0.1:0", site.info, site.clock)
    url = f"tls://127.0.0.1:0?cert=/nowhere&key=/nowhere&ca={authority.path}"
    with pytest.raises(ConfigError, match="cannot be used"):
        ModbusServer(url, site.info, site.clock)


def test_what_is_no_certificate_has_no_role() -> None:
    assert role(b"") == role(b"\x30\x03abc") == ""
    assert CONTROLLING > READING
