"""Modbus on the wire, without any socket: frames of TCP (MBAP) and of serial lines (RTU), requests and their answers.

After "MODBUS Application Protocol Specification V1.1b3" (sections 6.3, 6.4, 6.6, 6.12 and 7), "MODBUS Messaging on
TCP/IP Implementation Guide V1.0b" (section 3.1.3) and "MODBUS over Serial Line V1.02" (section 2.5.1, appendix B).
Streams take bytes in any portions: where a transport splits or joins requests does not matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol

READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY = 3, 4, 6, 16

MOST_READ = 125
"""Registers that one request may read."""

MOST_WRITTEN = 123
"""Registers that one request may write."""

LONGEST_PDU = 253
BROADCAST = 0
"""Unit that means every device of a serial line; nobody answers."""

_HEADER = struct.Struct(">HHHB")
_REQUEST = struct.Struct(">BHH")


class Refused(IntEnum):
    """Exception codes."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    DEVICE_FAILURE = 4
    BUSY = 6
    NO_SUCH_UNIT = 11  # gateway target device failed to respond


class Refusal(Exception):
    """A request that gets an exception for an answer."""

    def __init__(self, code: Refused) -> None:
        super().__init__(code.name)
        self.code = code


class FramingError(ValueError):
    """The bytes are no Modbus/TCP, and where the next frame begins cannot be told."""


class Registers(Protocol):
    """What a request reads and writes: 16-bit registers, high byte first."""

    def read(self, start: int, count: int) -> bytes:
        """`count` registers from `start`, 2 bytes each. Raises `Refusal`."""
        ...

    def write(self, start: int, values: bytes) -> None:
        """Write registers from `start`, all of them or none. Raises `Refusal`."""
        ...


def answer(pdu: bytes, registers: Registers) -> bytes:
    """The answer to the request `pdu` (function code and data): data, or an exception."""
    try:
        return _answer(pdu, registers)
    except Refusal as refusal:
        return bytes((pdu[0] | 0x80, refusal.code))


def refusal(pdu: bytes, code: Refused) -> bytes:
    """The exception `code` as the answer to the request `pdu`."""
    return bytes((pdu[0] | 0x80, code))


def _answer(pdu: bytes, registers: Registers) -> bytes:
    function = pdu[0]
    if function not in (READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY):
        raise Refusal(Refused.ILLEGAL_FUNCTION)
    if len(pdu) < _REQUEST.size:
        raise Refusal(Refused.ILLEGAL_VALUE)
    _, start, number = _REQUEST.unpack_from(pdu)
    if function in (READ_HOLDING, READ_INPUT):
        if len(pdu) != _REQUEST.size or not 1 <= number <= MOST_READ:
            raise Refusal(Refused.ILLEGAL_VALUE)
        return bytes((function, 2 * number)) + registers.read(start, number)
    if function == WRITE_ONE:
        if len(pdu) != _REQUEST.size:
            raise Refusal(Refused.ILLEGAL_VALUE)
        registers.write(start, pdu[3:5])
        return pdu
    if not 1 <= number <= MOST_WRITTEN or len(pdu) != 6 + 2 * number or pdu[5] != 2 * number:
        raise Refusal(Refused.ILLEGAL_VALUE)
    registers.write(start, pdu[6:])
    return pdu[:5]


# ----------------------------------------------------------------------------------------------------------------- TCP


def mbap(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A frame of Modbus/TCP."""
    return _HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu


class MbapStream:
    """Cuts a stream of bytes into frames of Modbus/TCP."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Append what has been received."""
        self._buffer += data

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Complete frames, (transaction, unit, pdu), each removed as it is handed out. Raises `FramingError`."""
        buffer = self._buffer
        while len(buffer) >= _HEADER.size:
            transaction, protocol, length, unit = _HEADER.unpack_from(buffer)
            if protocol != 0 or not 2 <= length <= LONGEST_PDU + 1:
                raise FramingError(f"protocol {protocol}, length {length}")
            end = _HEADER.size - 1 + length
            if len(buffer) < end:
                return
            pdu = bytes(buffer[_HEADER.size : end])
            del buffer[:end]
            yield transaction, unit, pdu


# ----------------------------------------------------------------------------------------------------------------- RTU


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16 of a serial frame (polynomial 0xA001 reflected, start 0xFFFF); it is sent low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


def rtu(unit: int, pdu: bytes) -> bytes:
    """A frame of a serial line."""
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


class RtuStream:
    """Cuts the bytes of a serial line into requests.

    The length of a request follows from its function. A frame with a wrong CRC, and all that follows it without a
    pause, is dropped: nothing inside it can be taken for a request. A function of unknown length ends at the pause.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lost = False
        self.damaged = 0
        """Frames that were dropped."""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take `data`; returns the requests that are complete now, (unit, pdu)."""
        if self._lost:
            return []
        self._buffer += data
        found = []
        while (length := self._length()) and len(self._buffer) >= length:
            frame = bytes(self._buffer[:length])
            if crc16(frame) != 0:
                self._drop()
                break
            del self._buffer[:length]
            found.append((frame[0], frame[1:-2]))
        if len(self._buffer) > LONGEST_PDU + 3:
            self._drop()
        return found

    def _length(self) -> int:
        """Bytes of the request that the buffer begins with, 0 where that is not known (yet)."""
        buffer = self._buffer
        if len(buffer) < 2:
            return 0
        if buffer[1] in (READ_HOLDING, READ_INPUT, WRITE_ONE):
            return 8
        if buffer[1] == WRITE_MANY and len(buffer) >= 7:
            return 9 + buffer[6]
        return 0

    def _drop(self) -> None:
        self._buffer.clear()
        self._lost = True
        self.damaged += 1

    def pause(self) -> list[tuple[int, bytes]]:
        """The line was silent: what is left is a whole frame or nothing."""
        frame = bytes(self._buffer)
        self._buffer.clear()
        lost, self._lost = self._lost, False
        if lost or not frame:
            return []
        known = len(frame) > 1 and frame[1] in (READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY)
        if known or len(frame) < 4 or crc16(frame) != 0:
            self.damaged += 1
            return []
        return [(frame[0], frame[1:-2])]
