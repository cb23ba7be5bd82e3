"""Frames and requests of Modbus, in any portions."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU

from hal.codec import modbus
from hal.codec.modbus import FramingError, MbapStream, Refusal, Refused, RtuStream, answer, crc16, mbap, rtu

PDUS = st.binary(min_size=1, max_size=modbus.LONGEST_PDU)


class Memory:
    """100 registers from address 10, of which those below 60 can be written."""

    def __init__(self) -> None:
        self.words = bytearray(200)
        self.writes: list[tuple[int, bytes]] = []

    def read(self, start: int, count: int) -> bytes:
        if start < 10 or start + count > 110:
            raise Refusal(Refused.ILLEGAL_ADDRESS)
        return bytes(self.words[2 * (start - 10) : 2 * (start - 10 + count)])

    def write(self, start: int, values: bytes) -> None:
        if start < 10 or start + len(values) // 2 > 60:
            raise Refusal(Refused.ILLEGAL_ADDRESS)
        self.writes.append((start, values))
        self.words[2 * (start - 10) : 2 * (start - 10) + len(values)] = values


def read(start: int, count: int, function: int = 3) -> bytes:
    return struct.pack(">BHH", function, start, count)


def write(start: int, *values: int) -> bytes:
    return struct.pack(f">BHHB{len(values)}H", 16, start, len(values), 2 * len(values), *values)


@pytest.mark.parametrize("function", [3, 4])
def test_registers_are_read(function: int) -> None:
    memory = Memory()
    memory.words[0:4] = b"\x12\x34\x56\x78"
    assert answer(read(10, 2, function), memory) == bytes((function, 4)) + b"\x12\x34\x56\x78"
    assert len(answer(read(10, 100, function), memory)) == 202


def test_registers_are_written_and_the_answer_says_so() -> None:
    memory = Memory()
    assert answer(write(12, 7, 8), memory) == bytes.fromhex("10000c0002")
    assert answer(struct.pack(">BHH", 6, 11, 99), memory) == bytes.fromhex("06000b0063")
    assert memory.read(11, 3) == struct.pack(">3H", 99, 7, 8)


@pytest.mark.parametrize(
    ("pdu", "code"),
    [
        (bytes((1,)) + bytes(4), Refused.ILLEGAL_FUNCTION),
        (bytes((5,)), Refused.ILLEGAL_FUNCTION),
        (bytes((43, 14, 1, 0)), Refused.ILLEGAL_FUNCTION),
        (bytes((0x83,)), Refused.ILLEGAL_FUNCTION),
        (read(10, 0), Refused.ILLEGAL_VALUE),
        (read(10, 126), Refused.ILLEGAL_VALUE),
        (read(10, 2)[:-1], Refused.ILLEGAL_VALUE),
        (read(10, 2) + b"\0", Refused.ILLEGAL_VALUE),
        (read(9, 2), Refused.ILLEGAL_ADDRESS),
        (read(10, 101), Refused.ILLEGAL_ADDRESS),
        (read(65535, 2), Refused.ILLEGAL_ADDRESS),
        (write(59, 1, 2), Refused.ILLEGAL_ADDRESS),
        (write(10), Refused.ILLEGAL_VALUE),
        (write(10, 1)[:-1], Refused.ILLEGAL_VALUE),
        (struct.pack(">BHHB2H", 16, 10, 1, 4, 1, 2), Refused.ILLEGAL_VALUE),
        (struct.pack(">BHHB2H", 16, 10, 2, 2, 1, 2), Refused.ILLEGAL_VALUE),
        (struct.pack(">BHHB124H", 16, 10, 124, 248, *range(124)), Refused.ILLEGAL_VALUE),
        (struct.pack(">BHHB", 16, 10, 2, 4), Refused.ILLEGAL_VALUE),
        (struct.pack(">BH", 6, 10), Refused.ILLEGAL_VALUE),
        (struct.pack(">BHH", 6, 60, 1), Refused.ILLEGAL_ADDRESS),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(pdu: bytes, code: Refused) -> None:
    memory = Memory()
    assert answer(pdu, memory) == bytes((pdu[0] | 0x80, code))
    assert memory.writes == []


@given(PDUS)
def test_any_request_gets_an_answer_of_its_function(pdu: bytes) -> None:
    reply = answer(pdu, Memory())
    assert reply[0] & 0x7F == pdu[0] & 0x7F
    assert 2 <= len(reply) <= modbus.LONGEST_PDU


# ----------------------------------------------------------------------------------------------------------------- TCP


def cut(data: bytes, stream: MbapStream, *places: int) -> list[tuple[int, int, bytes]]:
    """What comes out of `data` that arrives in portions."""
    found = []
    for start, end in zip((0, *places), (*places, len(data)), strict=True):
        stream.feed(data[start:end])
        found += list(stream.frames())
    return found


def test_coalesced_requests_come_apart_at_every_byte_boundary() -> None:
    expected = [(1, 1, write(10, 1, 2)), (2, 1, read(10, 2)), (3, 255, write(12, 3))]
    data = b"".join(mbap(*frame) for frame in expected)
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert cut(data, MbapStream(), first, second) == expected
    assert cut(data, MbapStream(), *range(1, len(data))) == expected


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 255), PDUS), max_size=6), st.data())
def test_frames_survive_any_segmentation(frames: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    whole = b"".join(mbap(*frame) for frame in frames)
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    assert cut(whole, MbapStream(), *places) == frames


@pytest.mark.parametrize("header", ["0001 0001 0006 01", "0001 0000 0001 01", "0001 0000 00ff 01", "0001 0000 ffff 01"])
def test_what_is_no_modbus_is_found_out_by_its_header(header: str) -> None:
    stream = MbapStream()
    stream.feed(mbap(7, 1, b"\x03") + bytes.fromhex(header))
    frames = stream.frames()
    assert next(frames) == (7, 1, b"\x03")
    with pytest.raises(FramingError):
        next(frames)


# ----------------------------------------------------------------------------------------------------------------- RTU


def test_the_checksum_is_that_of_the_standard() -> None:
    """Appendix B of the serial line specification: the CRC of 02 07 is sent as 41 12."""
    assert crc16(b"\x02\x07").to_bytes(2, "little") == b"\x41\x12"
    assert crc16(b"123456789") == 0x4B37  # catalogue of parametrised CRC algorithms: CRC-16/MODBUS


def test_serial_requests_come_apart_at_every_byte_boundary() -> None:
    expected = [(1, write(10, 1, 2)), (1, read(10, 2)), (9, struct.pack(">BHH", 6, 1, 2))]
    data = b"".join(rtu(*frame) for frame in expected)
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            stream = RtuStream()
            found = stream.feed(data[:first]) + stream.feed(data[first:second]) + stream.feed(data[second:])
            assert found == expected
            assert stream.pause() == []
            assert stream.damaged == 0


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_damaged_frame_and_what_follows_it_is_dropped_until_the_pause(place: int, flip: int) -> None:
    """A changed byte never lets a request through, and the next one after a pause is heard."""
    good = rtu(1, write(10, *range(20)))
    damaged = bytearray(good)
    damaged[place % len(good)] ^= flip
    stream = RtuStream()
    found = stream.feed(bytes(damaged) + rtu(1, read(10, 1))) + stream.pause()
    assert (1, write(10, *range(20))) not in found
    assert all(pdu == read(10, 1) for _, pdu in found)
    assert stream.feed(good) == [(1, write(10, *range(20)))]


def test_a_function_of_unknown_length_ends_at_the_pause() -> None:
    stream = RtuStream()
    assert stream.feed(rtu(1, bytes((43, 14, 1, 0)))) == []
    assert stream.pause() == [(1, bytes((43, 14, 1, 0)))]
    assert stream.feed(bytes(300)) == []
    assert stream.pause() == []
    assert stream.damaged == 1


def test_half_a_request_is_forgotten_at_the_pause() -> None:
    stream = RtuStream()
    stream.feed(rtu(1, read(10, 2))[:5])
    assert stream.pause() == []
    assert stream.feed(rtu(1, read(11, 2))) == [(1, read(11, 2))]


def test_a_hundred_thousand_damaged_serial_frames() -> None:
    """A write is applied only from a frame whose checksum pymodbus, too, finds good."""
    seed = 20261127
    rng = random.Random(seed)
    memory, stream = Memory(), RtuStream()
    good = [
        rtu(1, write(10, *range(8))),
        rtu(1, struct.pack(">BHH", 6, 11, 99)),
        rtu(1, read(10, 2)),
        rtu(1, bytes((43, 14, 1, 0))),
    ]
    writes = 0
    for number in range(100_000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randint(0, 3)):
            place = rng.randrange(len(data))
            kind = rng.random()
            if kind < 0.6:
                data[place] ^= 1 << rng.randrange(8)
            elif kind < 0.8 and len(data) > 1:
                del data[place]
            else:
                data[place:place] = rng.randbytes(1)
        cut_at = rng.randrange(len(data) + 1)
        for unit, pdu in [*stream.feed(bytes(data[:cut_at])), *stream.feed(bytes(data[cut_at:])), *stream.pause()]:
            frame = rtu(unit, pdu)
            assert frame in data, f"seed {seed}, number {number}"
            assert FramerRTU.compute_CRC(frame[:-2]).to_bytes(2, "big") == frame[-2:], f"seed {seed}, number {number}"
            writes += answer(pdu, memory)[0] in (6, 16)
    assert len(memory.writes) == writes > 10_000
    assert stream.damaged > 10_000
    assert len(stream._buffer) == 0
