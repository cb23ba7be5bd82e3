"""The wire of `modbus:` racks: registers read and written through pymodbus, with failures of two kinds told apart.

`Down`: nobody answers, or not in time; the connection is given up, so that no late answer is taken for another's.
`RefusedError`: the device answers that it will not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from hal.codec.modbus import Refused
from hal.codec.modbus_url import Place
from hal.errors import ConfigError

TLS_OPTIONS = ("ca", "cert", "key", "name")


class Down(Exception):
    """The device cannot be reached; `str` says why."""


class RefusedError(Exception):
    """The device answered with an exception; `code` is its number, `str` what was asked and what it said."""

    def __init__(self, asked: str, code: int) -> None:
        self.code = code
        name = Refused(code).name.lower().replace("_", " ") if code in set(Refused) else "unknown code"
        super().__init__(f"the device refuses to {asked}: {name} (exception {code})")


class Link:
    """A connection to the device at `place`. Not thread-safe."""

    def __init__(self, place: Place, unit: int, timeout_s: float) -> None:
        """Prepare. Raises `ConfigError`: certificates that cannot be read."""
        self.place, self.unit, self.timeout_s = place, unit, timeout_s
        self._client: Any = None
        self._context = tls_context(place) if place.wire == "tls" else None
        self._line = place.line() if place.wire == "rtu" else None
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what fails is told here, once

    def connect(self) -> None:
        """Connect anew. Raises `Down`."""
        self.close()
        try:
            self._client = self._serial() if self._line is not None else self._tcp()
        except (OSError, ValueError) as error:
            raise Down(_reason(error)) from None

    def _serial(self) -> Any:
        import serial
        from pymodbus.client import ModbusSerialClient

        line = self._line
        assert line is not None
        client = ModbusSerialClient(
            self.place.where,
            baudrate=line.baud,
            parity=line.parity,
            stopbits=line.stop_bits,
            timeout=self.timeout_s,
            retries=0,
        )
        client.socket = serial.Serial(
            self.place.where,
            line.baud,
            parity=line.parity,
            stopbits=line.stop_bits,
            timeout=self.timeout_s,
            write_timeout=self.timeout_s,
            exclusive=True,
        )
        return client

    def _tcp(self) -> Any:
        from pymodbus.client import ModbusTcpClient

        place = self.place
        raw = socket.create_connection((place.where, place.port), self.timeout_s)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            try:
                raw = self._context.wrap_socket(raw, server_hostname=place.query.get("name", place.where))
            except OSError:
                raw.close()
                raise
        client = ModbusTcpClient(place.where, port=place.port, timeout=self.timeout_s, retries=0)
        client.socket = raw
        return client

    def read(self, start: int, count: int) -> list[int]:
        """Registers from `start`. Raises `Down` or `RefusedError`."""
        reply = self._ask(
            f"read {count} registers from {start}",
            lambda client: client.read_holding_registers(start, count=count, device_id=self.unit),
        )
        if len(reply.registers) != count:
            self.close()
            raise Down(f"answered {len(reply.registers)} registers where {count} were asked for")
        return list(reply.registers)

    def write(self, start: int, values: Sequence[int]) -> None:
        """Write registers from `start`. Raises `Down` or `RefusedError`."""
        self._ask(
            f"write {len(values)} registers from {start}",
            lambda client: client.write_registers(start, list(values), device_id=self.unit),
        )

    def _ask(self, what: str, ask: Any) -> Any:
        from pymodbus.exceptions import ModbusException

        if self._client is None:
            raise Down("not connected")
        try:
            reply = ask(self._client)
        except (ModbusException, OSError, ValueError, ArithmeticError, LookupError) as error:
            self.close()
            if "closed" in str(error):  # pymodbus tells so in two lines
                raise Down(
                    "the device closes the connection: it has no room, or wants TLS with a certificate"
                ) from None
            raise Down(f"no answer within {self.timeout_s:g} s ({_reason(error)})") from None
        if reply.isError():
            raise RefusedError(what, reply.exception_code)
        return reply

    def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError):
                client.close()


def tls_context(place: Place) -> ssl.SSLContext:
    """How to talk TLS as the options of `place` say it. Raises `ConfigError`."""
    ca, cert, key = (place.query.get(name) for name in ("ca", "cert", "key"))
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{place.text}: ca, cert or key cannot be used: {_reason(error)}") from None
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    code = getattr(error, "errno", None)
    if isinstance(code, int) and code > 0:
        return os.strerror(code)
    return " ".join(str(error).split()) or type(error).__name__
