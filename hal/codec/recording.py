"""Bytes of a recording: frames with checksums, and step records packed against the previous one. No file access.

A recording is MAGIC and then frames; all numbers are little-endian::

    frame  = u32 length, u32 sequence, u32 crc32(payload), u32 crc32(the 12 bytes before), payload[length]
    HEADER = u8 0, zlib(JSON)                      sequence 0: what the controller was, see `bms.runtime.recording`
    STEP   = u8 1, u8 parts, u16 0, packed(step record), [packed(truth record)] if parts has bit 1    sequence 1, 2, ...
    END    = u8 2, zlib(JSON)                      the run was closed in order

Every bit of the file is under a CRC-32, which finds any single flipped bit and any burst up to 32 bits.

A record is packed as differences to the record before, taken as a row of 32-bit words (padded with zeros to a
multiple of 32): d = word - previous word, modulo 2^32 and signed, in groups of 32 words. A group gets the smallest
of its d as base and the bits that its largest d - base needs (frame of reference; D. Lemire, L. Boytsov, *Decoding
billions of integers per second through vectorization*, Software: Practice and Experience 45(1), 2015)::

    packed = u8 codes[groups], padded with zeros to a multiple of 4; then per group
             code 0: nothing, no d differs from 0
             code 1 + w: u32 base, w words of 32 bits: the 32 values d - base in a row, lowest bit first

Against zlib (level 1, bytes transposed) on a rack of 416 cells: about the same size in a tenth of the time, because
neighbouring cells move together; and it is small enough for firmware.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.codec.jit import kernel
from hal.contract import COMMAND, MEASUREMENT, TRUTH, Command, Measurement, Truth
from hal.errors import DataError

MAGIC = b"RBMSREC1"
FRAME = struct.Struct("<IIII")
GROUP = 32  # words that share a width
TRUTH_PART = 1

Words = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]


class Kind(IntEnum):
    """First byte of a payload."""

    HEADER = 0
    STEP = 1
    END = 2


class DamagedError(DataError):
    """A frame whose checksum does not fit. `step` is the step that it held (0: the header)."""

    def __init__(self, step: int, what: str) -> None:
        place = f"step {step}" if step else "the header"
        super().__init__(f"{place} is damaged: {what}")
        self.step = step


@kernel("i8(u4[::1], u4[::1], i4[::1], u1[::1], u4[::1])")
def pack(words: Words, previous: Words, delta: npt.NDArray[np.int32], codes: Bytes, target: Words) -> int:
    """Pack `words` against `previous`, which then becomes `words`; returns the number of words of `target` used.

    `words` and `previous` u4[32 g], `codes` u1[g] padded with zeros to a multiple of 4, `target` u4 of at least 33 g,
    `delta` i4[32] of scratch. A packed record is `codes`, then what was used of `target`.
    """
    groups = words.size // GROUP
    for k in range(groups, codes.size):
        codes[k] = 0
    at = 0
    for g in range(groups):
        low, high = np.int32(2147483647), np.int32(-2147483648)
        for k in range(GROUP):
            j = g * GROUP + k
            d = np.int32(words[j] - previous[j])
            previous[j] = words[j]
            delta[k] = d
            low = min(low, d)
            high = max(high, d)
        if low == 0 and high == 0:
            codes[g] = 0
            continue
        span, width = np.int64(high) - np.int64(low), 0
        while span != 0:
            span >>= 1
            width += 1
        codes[g] = 1 + width
        target[at] = np.uint32(low)
        at += 1
        held, fill = np.int64(0), 0  # at most 31 + 32 bits are held
        for k in range(GROUP):
            held |= (np.int64(delta[k]) - np.int64(low)) << fill
            fill += width
            if fill >= 32:
                target[at] = np.uint32(held & 0xFFFFFFFF)
                at += 1
                held >>= 32
                fill -= 32
    return at


@kernel("i8(u1[::1], u4[::1])")
def unpack(packed: Bytes, words: Words) -> int:
    """Undo `pack`: `words` u4[32 g] holds the previous record and becomes the next.

    Returns the number of bytes used, or -1 if `packed` is too short or a code is not one.
    """
    groups = words.size // GROUP
    at = 4 * ((groups + 3) // 4)
    if packed.size < at:
        return -1
    for g in range(groups):
        width = int(packed[g]) - 1
        if width < 0:
            continue
        if width > 32 or packed.size < at + 4 + 4 * width:
            return -1
        base = np.int64(0)
        for b in range(4):
            base |= np.int64(packed[at + b]) << (8 * b)
        at += 4
        mask = (np.int64(1) << width) - 1
        held, fill = np.int64(0), 0
        for k in range(GROUP):
            if fill < width:
                word = np.int64(0)
                for b in range(4):
                    word |= np.int64(packed[at + b]) << (8 * b)
                at += 4
                held |= word << fill
                fill += 32
            z = held & mask
            held >>= width
            fill -= width
            words[g * GROUP + k] = np.uint32((np.int64(words[g * GROUP + k]) + base + z) & 0xFFFFFFFF)
    return at


def frame(sequence: int, payload: bytes) -> bytes:
    """`payload` in a frame."""
    head = struct.pack("<III", len(payload), sequence, zlib.crc32(payload))
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def json_payload(kind: Kind, content: dict[str, Any]) -> bytes:
    """Payload of a HEADER or END frame."""
    return bytes([kind]) + zlib.compress(json.dumps(content, allow_nan=False).encode())


def json_content(payload: bytes) -> dict[str, Any]:
    """Content of a HEADER or END payload."""
    content: dict[str, Any] = json.loads(zlib.decompress(payload[1:]))
    return content


@dataclass
class Frames:
    """Iterate over the (sequence, payload) of all whole frames in `data`, a recording without or with an end.

    Raises `DataError` if `data` is not a recording, `DamagedError` at a frame whose checksum does not fit. After the
    iteration `truncated_bytes` tells how many bytes of an unfinished frame were left over.
    """

    data: bytes | memoryview
    truncated_bytes: int = 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        data = memoryview(self.data)
        if bytes(data[: len(MAGIC)]) != MAGIC:
            raise DataError("not a recording of bms run (the first bytes are not RBMSREC1)")
        at, expected = len(MAGIC), 0
        while at < len(data):
            if len(data) - at < FRAME.size:
                self.truncated_bytes = len(data) - at
                return
            length, sequence, crc, head_crc = FRAME.unpack_from(data, at)
            if zlib.crc32(data[at : at + 12]) != head_crc:
                raise DamagedError(expected, "checksum of the frame's head")
            if sequence != expected:
                raise DamagedError(expected, f"frame {sequence} stands in its place")
            if len(data) - at - FRAME.size < length:
                self.truncated_bytes = len(data) - at
                return
            payload = bytes(data[at + FRAME.size : at + FRAME.size + length])
            if zlib.crc32(payload) != crc:
                raise DamagedError(expected, "checksum of the payload")
            yield sequence, payload
            at, expected = at + FRAME.size + length, expected + 1


class _Row:
    """A record as 32-bit words, padded to whole groups: `bytes_` and `words` share memory."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        n_words = -(-dtype.itemsize // (4 * GROUP)) * GROUP
        self.words: Words = np.zeros(n_words, np.uint32)
        self.record = self.words.view(np.uint8)[: dtype.itemsize].view(dtype)
        self.previous = np.zeros_like(self.words)
        groups = n_words // GROUP
        self.packed: Words = np.zeros((groups + 3) // 4 + 33 * groups, np.uint32)
        self._n_codes = (groups + 3) // 4
        codes = self.packed[: self._n_codes].view(np.uint8)
        scratch = np.zeros(GROUP, np.int32)
        self._pack = pack.bind(self.words, self.previous, scratch, codes, self.packed[self._n_codes :])

    def pack(self) -> bytes:
        return self.packed[: self._n_codes + self._pack()].tobytes()

    def unpack(self, packed: Bytes) -> int:
        return int(unpack(packed, self.words))


def step_dtype(n_cells: int, n_sensors: int) -> np.dtype[np.void]:
    """One step of the controller: what went in, and what came out."""
    return np.dtype(
        [
            ("dt_s", "f4"),  # time since the last step, as the controller was given it
            ("request", "u4"),  # `bms.core.control.Request`
            ("status", "u4"),  # of `bms.core.step.step`
            ("estimate_crc", "u4"),  # CRC-32 of the estimates of all cells
            ("measurement", MEASUREMENT.dtype(n_cells, n_sensors)),
            ("command", COMMAND.dtype(n_cells, n_sensors)),
        ],
        align=True,
    )


class StepCodec:
    """Steps to payloads and back, in order: each is packed against the one before.

    `row` is the current step (`step_dtype`), to be filled before `encode`, or filled by `decode`.
    """

    def __init__(self, n_cells: int, n_sensors: int) -> None:
        self._step = _Row(step_dtype(n_cells, n_sensors))
        self._truth = _Row(TRUTH.dtype(n_cells, n_sensors))
        self.row = self._step.record
        self.truth_row = self._truth.record
        self.has_truth = False
        self._measurement = self.row["measurement"].view(np.uint8)
        self._command = self.row["command"].view(np.uint8)
        self._true = self.truth_row.view(np.uint8)

    def encode(self, measurement: Measurement, command: Command, truth: Truth | None) -> bytes:
        """Payload of a STEP; the four leading fields of `row` are the caller's to set."""
        # as bytes: numpy copies structures field by field, which takes ten times as long
        self._measurement[...] = measurement.raw.view(np.uint8)
        self._command[...] = command.raw.view(np.uint8)
        self.has_truth = truth is not None
        if truth is None:
            return b"\x01\x00\x00\x00" + self._step.pack()
        self._true[...] = truth.raw.view(np.uint8)
        return b"\x01\x01\x00\x00" + self._step.pack() + self._truth.pack()

    def decode(self, payload: bytes) -> None:
        """Fill `row` (and `truth_row`, if `has_truth`) from the payload of the next STEP. Raises `DataError`."""
        packed = np.frombuffer(payload, np.uint8, offset=4)
        self.has_truth = payload[1] & TRUTH_PART != 0
        used = self._step.unpack(packed)
        if used >= 0 and self.has_truth:
            more = self._truth.unpack(packed[used:])
            used = used + more if more >= 0 else -1
        if used != len(packed):
            raise DataError("its content does not fit the size of the rack")
