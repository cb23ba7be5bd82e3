"""SLCAN of the firmware: lines that are none, frames there and back, and python-can at the other end."""

from __future__ import annotations

import ctypes
import os
import select
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import can
import pytest
from can.interfaces.slcan import slcanBus
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.codec.dbc import EXTENDED
from tests.bms.firmware.hosted import Hosted, compiled

OPEN, OK, NO = b"O\r", b"\r", b"\a"


class Frame(ctypes.Structure):
    """`slcan_frame`."""

    _fields_ = (
        ("identifier", ctypes.c_uint32),
        ("remote", ctypes.c_bool),
        ("length", ctypes.c_uint8),
        ("data", ctypes.c_uint8 * 8),
    )


class Counts(ctypes.Structure):
    """`slcan_counts`."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("opened", "received", "refused", "sent", "unsent"))


@dataclass(frozen=True)
class Told:
    """A frame, as the tests compare it."""

    identifier: int
    remote: bool
    data: bytes  # of a frame that asks: its length alone counts

    @property
    def c(self) -> Frame:
        """As the C has it."""
        room = (ctypes.c_uint8 * 8)(*(b"" if self.remote else self.data))
        return Frame(self.identifier, self.remote, len(self.data), room)

    @property
    def line(self) -> bytes:
        """As python-can writes it."""
        kind, wide = (
            ("r" if self.remote else "t", 3) if self.identifier < EXTENDED else ("R" if self.remote else "T", 8)
        )
        content = "" if self.remote else self.data.hex().upper()
        return f"{kind}{self.identifier & ~EXTENDED:0{wide}X}{len(self.data)}{content}\r".encode()


class Slcan(Hosted):
    """The C, with the channel closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.c.slcan_poll.restype = self.c.slcan_send.restype = self.c.slcan_is_open.restype = ctypes.c_bool
        self.c.slcan_count.restype = Counts
        self.new()

    def new(self) -> None:
        self.c.host_new()
        self.c.slcan_start()

    def frames(self, data: bytes) -> list[Told]:
        """The frames of what arrives."""
        self.arrive(data)
        found, frame = [], Frame()
        while self.c.slcan_poll(ctypes.byref(frame)):
            content = bytes(frame.length) if frame.remote else bytes(frame.data[: frame.length])
            found.append(Told(frame.identifier, frame.remote, content))
        return found

    def asked(self, line: bytes) -> bytes:
        """The answer to a line that is no frame."""
        assert self.frames(line) == []
        return self.said()

    def send(self, frame: Told) -> bool:
        return bool(self.c.slcan_send(ctypes.byref(frame.c)))

    @property
    def counts(self) -> dict[str, int]:
        counts = self.c.slcan_count()
        return {name: getattr(counts, name) for name, _ in Counts._fields_}


@pytest.fixture(scope="session")
def slcan(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Slcan:
    return Slcan(compiled(cc, tmp_path_factory.mktemp("slcan"), ["slcan.c"]))


@pytest.fixture
def fresh(slcan: Slcan) -> Slcan:
    slcan.new()
    return slcan


identifiers = st.one_of(st.integers(0, 0x7FF), st.integers(EXTENDED, EXTENDED + 0x1FFFFFFF))
frames = st.builds(
    lambda identifier, remote, data: Told(identifier, remote, bytes(len(data)) if remote else data),
    identifiers,
    st.booleans(),
    st.binary(max_size=8),
)


@given(st.lists(frames, max_size=20), st.booleans())
def test_frames_there_and_back(slcan: Slcan, sent: list[Told], lower: bool) -> None:
    slcan.new()
    assert slcan.asked(OPEN) == OK
    lines = b"".join(frame.line for frame in sent)
    if lower:  # digits alone: the first letter says what the line is
        lines = b"\r".join(line[:1] + line[1:].lower() for line in lines.split(b"\r"))
    assert slcan.frames(lines) == sent
    assert slcan.said() == OK * len(sent)
    assert all(slcan.send(frame) for frame in sent)
    assert slcan.said() == b"".join(frame.line for frame in sent)
    assert slcan.counts == {"opened": 1, "received": len(sent), "refused": 0, "sent": len(sent), "unsent": 0}


@given(st.lists(st.one_of(st.binary(max_size=40), frames.map(lambda f: f.line)), max_size=20), frames)
@settings(max_examples=300)
def test_whatever_comes_before_the_next_frame_is_good(slcan: Slcan, noise: list[bytes], last: Told) -> None:
    slcan.new()
    slcan.frames(b"".join(noise) + b"\rC\rO\r")
    answers = slcan.said()
    assert set(answers.replace(b"V1013", b"").replace(b"NRBMS", b"")) <= {*OK, *NO}
    assert slcan.frames(last.line) == [last]


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ("V", b"V1013\r"),
        ("N", b"NRBMS\r"),
        ("", OK),  # python-can says so instead of a rate for data
        *((f"S{rate}", OK) for rate in range(9)),
        ("S9", NO),
        ("S", NO),
        ("s031C", OK),
        ("Z0", OK),
        ("Z1", NO),  # no time stamps
        ("C", NO),
        ("O|O", OK + NO),
        ("O|S6", OK + NO),
        ("O|C|S6|L|C", OK * 5),
        ("t1000", NO),  # closed
        ("L|t1000", OK + NO),  # it may only listen
        ("O|t8000", OK + NO),
        ("O|T200000000", OK + NO),
        ("O|t1009" + "00" * 9, OK + NO),
        ("O|t100200", OK + NO),
        ("O|t1001000A1B", OK + NO),  # with a time stamp
        ("O|t10020G00", OK + NO),
        ("O|r1008" + "00" * 8, OK + NO),
        ("O|T000001008" + "00" * 8 + "0", OK + NO),
        ("x", NO),
    ],
)
def test_a_line_is_answered(fresh: Slcan, lines: str, answers: bytes) -> None:
    assert b"".join(fresh.asked(line.encode() + b"\r") for line in lines.split("|")) == answers
    assert fresh.counts["refused"] == answers.count(NO)


def test_what_is_sent_while_closed_or_without_room_is_not_kept(fresh: Slcan) -> None:
    frame = Told(0x20, False, b"12345678")
    assert not fresh.send(frame)
    assert fresh.asked(b"L\r") == OK
    assert fresh.c.slcan_is_open()
    assert fresh.send(frame)
    assert fresh.said() == frame.line
    fresh.c.host_can_room(ctypes.c_size_t(len(frame.line) + 21))
    assert [fresh.send(frame), fresh.send(frame)] == [True, False]
    assert fresh.said() == frame.line, "no half of a frame"
    assert fresh.counts == {"opened": 1, "received": 0, "refused": 0, "sent": 2, "unsent": 1}


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: this end, and the name of the other."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_python_can_at_the_other_end(fresh: Slcan, line: tuple[int, str]) -> None:
    ours, name = line
    sent = [
        can.Message(arbitration_id=0x7FF, is_extended_id=False, data=b"\x00\xff"),
        can.Message(arbitration_id=0x1FFFFFFF, data=bytes(range(8))),
        can.Message(arbitration_id=0x123, is_extended_id=False, is_remote_frame=True, dlc=4),
    ]
    with slcanBus(name, bitrate=500000, sleep_after_open=0) as bus:
        for message in sent:
            bus.send(message)
        found = []
        while select.select([ours], [], [], 0.2)[0]:  # it comes in pieces
            found += fresh.frames(os.read(ours, 4096))
        assert [(f.identifier & ~EXTENDED, f.identifier >= EXTENDED, f.remote, f.data) for f in found] == [
            (m.arbitration_id, m.is_extended_id, m.is_remote_frame, bytes(m.data) or bytes(m.dlc)) for m in sent
        ]
        assert all(fresh.send(frame) for frame in found)
        os.write(ours, fresh.said())
        heard = [bus.recv(1.0) for _ in sent]
        assert all(
            a is not None and a.equals(b, timestamp_delta=None, check_channel=False)
            for a, b in zip(heard, sent, strict=True)
        )
    fresh.frames(os.read(ours, 4096))
    assert not fresh.c.slcan_is_open()
