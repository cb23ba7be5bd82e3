"""Checksum and alive counter of CAN frames: what they are, and where a message has them. No arrays, no sockets.

A protected frame carries a CRC-8 (SAE J1850: polynomial 0x1D, start 0xFF, inverted) over the two low bytes of its
identifier, low byte first, and all of its bytes but the CRC itself, and an alive counter 0..14: what AUTOSAR,
*Specification of SW-C End-to-End Communication Protection Library* (profile 1), asks for, with the identifier as data
ID. A sensor may have a counter alone, and one that runs 0..15.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hal.codec.dbc import Message, Signal
from hal.errors import ConfigError

COUNTER_VALUES = 15
"""The alive counter runs 0..14, as in AUTOSAR's profile 1."""

MAX_STEP = 7
"""A counter that went further is of an old frame, or the sender has been away: it is the new start, and not used."""

NO_CRC = 255
"""The byte of the CRC where there is none."""


def _crc_table() -> bytes:
    table = bytearray(256)
    for start in range(256):
        crc = start
        for _ in range(8):
            crc = (crc << 1 ^ 0x1D if crc & 0x80 else crc << 1) & 0xFF
        table[start] = crc
    return bytes(table)


CRC_TABLE = _crc_table()


def crc8(data: bytes | bytearray | memoryview, start: int = 0xFF) -> int:
    """CRC-8 SAE J1850 of `data`, going on from `start` (the inverted result of what came before, 0xFF for nothing)."""
    for byte in data:
        start = CRC_TABLE[start ^ byte]
    return start ^ 0xFF


@dataclass(frozen=True)
class Protection:
    """Names of the signals that hold CRC and alive counter in every protected message.

    `crc` is '' where frames have none. The counter has `values` values, 15 or 16.
    """

    crc: str
    counter: str
    values: int = COUNTER_VALUES

    @property
    def mark(self) -> str:
        """The signal by which a message is seen to be protected."""
        return self.crc or self.counter


@dataclass(frozen=True)
class Places:
    """Where a message has its protection: bytes of CRC (or `NO_CRC`) and counter, shift and values of the counter."""

    crc_at: int
    counter_at: int
    shift: int
    values: int


def places_of(message: Message, protections: Sequence[Protection], source: str) -> Places | None:
    """Where `message` has the first of `protections` that it has; None if it has none. Raises `ConfigError`."""
    by_name = {s.name: s for s in message.signals}
    protection = next((p for p in protections if p.mark in by_name), None)
    if protection is None:
        return None
    where = f"{source}: message {message.name}"
    crc_at = NO_CRC
    if protection.crc:
        crc = by_name[protection.crc]
        lowest, _ = _ends(crc)
        if crc.length != 8 or lowest % 8 != 0:
            raise ConfigError(f"{where}: signal {crc.name} is not one whole byte; write it as N*8|8@1+")
        crc_at = lowest // 8
    counter = by_name.get(protection.counter)
    if counter is None:
        raise ConfigError(f"{where}: has a CRC and no signal {protection.counter}; add it, 4 bits")
    lowest, highest = _ends(counter)
    if counter.length != 4 or lowest // 8 != highest // 8:
        raise ConfigError(f"{where}: signal {counter.name} is not 4 bits of one byte; write it as N*8|4@1+")
    return Places(crc_at, lowest // 8, lowest % 8, protection.values)


def _ends(signal: Signal) -> tuple[int, int]:
    """Numbers of its lowest and highest bit."""
    bits = list(signal.bits())
    return (bits[0], bits[-1]) if signal.little_endian else (bits[-1], bits[0])
