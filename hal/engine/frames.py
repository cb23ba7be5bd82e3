"""Frames on the link to a controller on another processor, as bytes: no port, no clock.

    two bytes A5 5A | kind | sequence number | length of the content, 32 bits | content | CRC-32

Numbers are little-endian; the CRC, that of zlib, is of all between the first two bytes and itself. What has a wrong
CRC counts as noise: what follows its first byte is looked through again. A measurement travels as what has changed
since the last one, with the CRC of the whole, because links are slow and most values stand still.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np

from hal.contract import U1

START = b"\xa5\x5a"
HEAD = struct.Struct("<2sBBI")
CRC = struct.Struct("<I")
LARGEST = 1 << 20
"""Bytes of the longest content that anybody sends; more is noise."""

PROTOCOL = 1


class Kind(IntEnum):
    """What a frame is. An answer has the kind and the sequence number of its question, with `ANSWER` added."""

    HELLO = 1  # nothing -> `Identity`
    START = 2  # SoC of each cell, then its deviation -> nothing; from then on in lock-step
    STEP = 3  # `Question`, runs -> `Answer`, command
    RUN = 4  # nothing -> nothing; from then on by its own timer, and a MEASURE | ANSWER after each step
    MEASURE = 5  # as STEP, without an answer of its own
    NODE = 6  # nothing, or a request -> `NodeStatus`, head of the command


ANSWER = 0x80
REFUSED = 0xFF

REFUSALS = {
    1: "does not know such frames",
    2: "finds the frame too short or too long",
    3: "has not been started",
    4: "has another measurement",
}
"""Reasons of a frame that is refused, as the firmware numbers them."""

NOT_STARTED, OTHER_MEASUREMENT = 3, 4


class Flag(IntFlag):
    """Flags of an answer."""

    OVERRUN = 1  # the step took longer than its budget: the outputs are safe until the next start


@dataclass(frozen=True)
class Frame:
    """A frame that has arrived."""

    kind: int
    sequence: int
    content: bytes


def pack(kind: int, sequence: int, content: bytes = b"") -> bytes:
    """A frame as bytes."""
    frame = HEAD.pack(START, kind, sequence & 0xFF, len(content)) + content
    return frame + CRC.pack(zlib.crc32(frame[2:]))


class Parser:
    """Finds frames in a stream of bytes; `noise` counts bytes that belonged to none."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.noise = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes; returns the frames that are complete with them."""
        self._buffer += data
        found = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def _next(self) -> Frame | None:
        buffer = self._buffer
        while True:
            at = buffer.find(START)
            if at < 0:
                at = len(buffer) - buffer.endswith(START[:1])
            if at:
                self.noise += at
                del buffer[:at]
            if len(buffer) < HEAD.size:
                return None
            _, kind, sequence, length = HEAD.unpack_from(buffer)
            end = HEAD.size + length
            if length <= LARGEST and len(buffer) < end + CRC.size:
                return None
            if length <= LARGEST and CRC.unpack_from(buffer, end)[0] == zlib.crc32(buffer[2:end]):
                content = bytes(buffer[HEAD.size : end])
                del buffer[: end + CRC.size]
                return Frame(kind, sequence, content)
            self.noise += 1
            del buffer[:1]


# ----------------------------------------------------------------------------------------------------------- contents

_LONGEST_RUN = 255
_MERGED = 2  # so many bytes that stand still are sent along: a new run costs as much


def runs(before: U1, after: U1) -> bytes:
    """What makes `after` of `before`, both (n,): for each run the bytes to skip, the number of bytes, the bytes."""
    changed = np.flatnonzero(before != after)
    if not changed.size:
        return b""
    breaks = np.flatnonzero(np.diff(changed) > _MERGED + 1) + 1
    starts = changed[np.concatenate([[0], breaks])].tolist()
    ends = (changed[np.concatenate([breaks - 1, [changed.size - 1]])] + 1).tolist()
    data = after.tobytes()
    parts: list[bytes] = []
    at = 0
    for start, end in zip(starts, ends, strict=True):
        skip = start - at
        while skip > _LONGEST_RUN:
            parts.append(bytes((_LONGEST_RUN, 0)))
            skip -= _LONGEST_RUN
        for first in range(start, end, _LONGEST_RUN):
            piece = data[first : min(first + _LONGEST_RUN, end)]
            parts.append(bytes((skip, len(piece))) + piece)
            skip = 0
        at = end
    return b"".join(parts)


def applied(before: U1, content: bytes) -> U1:
    """Undo `runs`. Raises `ValueError` for runs that do not fit."""
    after = before.copy()
    at = place = 0
    while place < len(content):
        if place + 2 > len(content) or place + 2 + content[place + 1] > len(content):
            raise ValueError("a run is cut off")
        skip, count = content[place], content[place + 1]
        at += skip
        if at + count > after.size:
            raise ValueError("a run goes beyond the end")
        after[at : at + count] = np.frombuffer(content, np.uint8, count, place + 2)
        at, place = at + count, place + 2 + count
    return after


_QUESTION = struct.Struct("<ifIII")
_ANSWER = struct.Struct("<iII")
_WHOLE = 1


def question(request: int, dt_s: float, budget_ms: int, before: U1 | None, measurement: U1) -> bytes:
    """Content of a STEP: `before` is the measurement that the other side has, None where that is not known."""
    flags = _WHOLE if before is None else 0
    known = np.zeros_like(measurement) if before is None else before
    head = _QUESTION.pack(request, dt_s, budget_ms, flags, zlib.crc32(measurement.data))
    return head + runs(known, measurement)


@dataclass(frozen=True)
class Answer:
    """What a step gave; `ticks` of the controller's timer that it took."""

    status: int
    flags: Flag
    ticks: int
    command: bytes

    @classmethod
    def parse(cls, content: bytes) -> Answer:
        """From the content of a frame. Raises `ValueError`."""
        if len(content) < _ANSWER.size:
            raise ValueError("the answer to a step is too short")
        status, flags, ticks = _ANSWER.unpack_from(content)
        return cls(status, Flag(flags), ticks, content[_ANSWER.size :])


class NodeState(IntEnum):
    """What a controller does on the rack's bus."""

    WAITING = 0  # for messages that have not come yet
    OTHER_RACK = 1  # the rack says that it has another size or layout
    RUNNING = 2
    OFF = 3  # somebody measures for it over the link


_NODE = struct.Struct("<Ii19I")


@dataclass(frozen=True)
class NodeStatus:
    """What a controller says of itself as a node: `command` is the head of its last one, as bytes.

    `missing` messages have not come yet; `unfit` commands could not be sent; `port_lost` bytes were not taken in time,
    `refused` lines were none. Frames by what became of them, as `hal.codec.frames.Verdict` has it, are `frames`; the
    counters tell that `lost` more never came. Times are ticks of `Identity.timer_hz`.
    """

    state: NodeState
    request: int
    missing: int
    steps: int
    ticks: int
    longest_ticks: int
    flags: Flag
    unfit: int
    port_lost: int
    opened: int
    received: int
    refused: int
    sent: int
    unsent: int
    frames: tuple[int, ...]
    lost: int
    command: bytes

    @classmethod
    def parse(cls, content: bytes) -> NodeStatus:
        """From the content of a frame. Raises `ValueError`."""
        if len(content) < _NODE.size:
            raise ValueError("what it says of itself as a node is too short")
        state, request, missing, steps, ticks, longest, flags, unfit, lost, *rest = _NODE.unpack_from(content)
        told = NodeState(state), request, missing, steps, ticks, longest, Flag(flags), unfit, lost
        fields: tuple[Any, ...] = (*told, *rest[:5], tuple(rest[5:11]), rest[11], content[_NODE.size :])
        return cls(*fields)


_IDENTITY = struct.Struct("<11I16s16s16s8I")

CAUSES = {2: "the watchdog", 3: "a hard fault", 4: "a fault of memory protection", 5: "a bus fault", 6: "a usage fault"}
"""Exceptions of a Cortex-M processor that end a program, by number."""


@dataclass(frozen=True)
class Crash:
    """What a controller took down before it started again: addresses of the program, status of the fault."""

    cause: int
    pc: int
    lr: int
    status: int
    address: int
    steps: int

    def __str__(self) -> str:
        cause = CAUSES.get(self.cause, f"exception {self.cause}")
        where = f"at 0x{self.pc:x}, called from 0x{self.lr & ~1:x}" if self.pc else "where the stack had no room"
        about = f", address 0x{self.address:x}" if self.address else ""
        return f"{cause} {where}{about}, status 0x{self.status:x}, after {self.steps} steps"


@dataclass(frozen=True)
class Identity:
    """What a controller says of itself: sizes in bytes, addresses of its records, short hashes, its last crash."""

    protocol: int
    n_cells: int
    n_sensors: int
    config_size: int
    state_size: int
    measurement_size: int
    command_size: int
    config_address: int
    state_address: int
    timer_hz: int
    period_us: int
    kernels: str
    layouts: str
    config: str
    crash: Crash | None

    @classmethod
    def parse(cls, content: bytes) -> Identity:
        """From the content of a frame. Raises `ValueError`."""
        if len(content) != _IDENTITY.size:
            raise ValueError(f"it introduces itself with {len(content)} bytes, expected {_IDENTITY.size}")
        fields: tuple[Any, ...] = _IDENTITY.unpack(content)
        hashes = [text.decode("ascii", "replace") for text in fields[11:14]]
        crash = Crash(*fields[15:21]) if fields[15] else None  # between its magic word and its sum
        return cls(*fields[:11], *hashes, crash)  # type: ignore[call-arg]
