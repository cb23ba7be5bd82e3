"""A controller at the other end of a link that loses, repeats and refuses."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.engine.frames import (
    ANSWER,
    PIECE_MOST,
    PROTOCOL,
    REFUSED,
    Answer,
    Flag,
    Frame,
    Kind,
    Parser,
    Record,
    applied,
    pack,
)
from hal.engine.remote import ATTEMPTS, Remote
from hal.errors import LinkError

IDENTITY = struct.pack("<11I16s16s16s16s8I", PROTOCOL, 2, 1, 8, 8, 64, 16, 0, 64, 25, 100, b"m7", b"k" * 16, b"l" * 16, b"c" * 16,
                       *([0] * 8))  # fmt: skip
CRASHED = IDENTITY[:-32] + struct.pack("<8I", 0x43524153, 4, 0x1234, 0x5678, 1, 0, 9, 0)


class Board:
    """A firmware, and a channel to it; `lose`: which of the frames in either direction never arrive."""

    name = "board"
    answer_s = 0.01

    def __init__(self, lose: Callable[[int], bool] = lambda k: False, identity: bytes = IDENTITY) -> None:
        self.lose, self.identity = lose, identity
        self.parser = Parser()
        self.measurement = np.zeros(64, np.uint8)
        self.started, self.steps, self.frames = False, 0, 0
        self.last: tuple[int, bytes] = (-1, b"")
        self.waiting = b""
        self.memory = bytearray(np.random.default_rng(2).bytes(10_000))

    def send(self, data: bytes) -> None:
        self.frames += 1
        if self.lose(self.frames):
            return
        for frame in self.parser.feed(data):
            answer = self.answer(frame)
            self.frames += 1
            if not self.lose(self.frames):
                self.waiting += pack(frame.kind | ANSWER, frame.sequence - 1, b"an old one") + answer

    def receive(self, timeout_s: float) -> bytes:
        data, self.waiting = self.waiting, b""
        return data

    def answer(self, frame: Frame) -> bytes:
        content = b""
        if frame.kind == Kind.HELLO:
            content = self.identity
        elif frame.kind == Kind.START:
            self.started = True
        elif frame.kind == Kind.SUMS:
            content = struct.pack("<I", zlib.crc32(self.memory))
        elif frame.kind == Kind.READ:
            _, first, size = struct.unpack("<III", frame.content)
            assert size <= PIECE_MOST
            content = bytes(self.memory[first : first + size])
        elif frame.kind == Kind.WRITE:
            record, first = struct.unpack_from("<II", frame.content)
            assert len(frame.content) <= 8 + PIECE_MOST
            if record != Record.STATE:
                return pack(REFUSED, frame.sequence, struct.pack("<I", 5))
            self.memory[first : first + len(frame.content) - 8] = frame.content[8:]
        elif not self.started:
            return pack(REFUSED, frame.sequence, struct.pack("<I", 3))
        elif self.last[0] == frame.sequence:
            content = self.last[1]
        else:
            _, _, _, flags, crc = struct.unpack_from("<ifIII", frame.content)
            before = np.zeros_like(self.measurement) if flags else self.measurement
            self.measurement = applied(before, frame.content[20:])
            if zlib.crc32(self.measurement.tobytes()) != crc:
                return pack(REFUSED, frame.sequence, struct.pack("<I", 4))
            self.steps += 1
            content = struct.pack("<iII", self.steps, 0, 0) + self.measurement.tobytes()
            self.last = frame.sequence, content
        return pack(frame.kind | ANSWER, frame.sequence, content)


def steps(remote: Remote, n: int) -> list[int]:
    rng = np.random.default_rng(3)
    statuses = []
    for _ in range(n):
        measurement = rng.integers(0, 3, 64).astype(np.uint8)
        answer = remote.step(1, 0.1, measurement)
        assert answer.command == measurement.tobytes()
        statuses.append(answer.status)
    return statuses


def test_one_step_for_each_question_however_much_is_lost() -> None:
    for phase in range(5):
        board = Board(lose=lambda k, phase=phase: (k + phase) % 5 in (0, 2))  # type: ignore[misc]
        remote = Remote(board)
        remote.start(np.zeros(2, np.float32), np.ones(2, np.float32))
        assert steps(remote, 300) == list(range(1, 301))
        assert board.steps == 300


def test_a_board_that_is_silent_is_given_up() -> None:
    board = Board(lose=lambda k: True)
    with pytest.raises(LinkError, match=f"board: the controller has not answered {ATTEMPTS} times"):
        Remote(board).hello()
    assert board.frames == ATTEMPTS


def test_a_board_that_only_talks_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr(board, "receive", lambda timeout_s: pack(Kind.MEASURE | ANSWER, 1) if timeout_s else b"")
    with pytest.raises(LinkError, match="has not answered"):
        Remote(board).hello()


def test_a_board_that_has_not_been_started_refuses() -> None:
    with pytest.raises(LinkError, match="board: the controller has not been started"):
        Remote(Board()).step(1, 0.1, np.zeros(64, np.uint8))


def test_an_answer_that_is_too_short_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr(board, "answer", lambda frame: pack(frame.kind | ANSWER, frame.sequence, b"short"))
    with pytest.raises(LinkError, match="board: the answer to a step is too short"):
        Remote(board).step(1, 0.1, np.zeros(64, np.uint8))


def test_a_crash_is_told_when_it_refuses() -> None:
    with pytest.raises(LinkError, match=r"started anew after a fault of memory protection at 0x1234, .* after 9 steps"):
        Remote(Board(identity=CRASHED)).step(1, 0.1, np.zeros(64, np.uint8))


def test_another_measurement_is_refused_and_then_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    remote = Remote(board)
    remote.start(np.zeros(2, np.float32), np.ones(2, np.float32))
    measurement = np.arange(64, dtype=np.uint8)
    assert remote.step(1, 0.1, measurement).status == 1
    board.measurement[5] ^= 1
    assert remote.step(1, 0.1, measurement) == Answer(2, Flag(0), 0, measurement.tobytes())
    monkeypatch.setattr(board, "answer", lambda frame: pack(REFUSED, frame.sequence, struct.pack("<I", 4)))
    with pytest.raises(LinkError, match="board: the controller has another measurement"):
        remote.step(1, 0.1, measurement)


@pytest.mark.parametrize(
    ("identity", "complaint"),
    [
        (struct.pack("<I", PROTOCOL + 1) + IDENTITY[4:], f"it speaks version {PROTOCOL + 1} of the protocol"),
        (IDENTITY[:-1], "introduces itself with"),
        (b"", "version 0"),
    ],
)
def test_somebody_who_speaks_otherwise(identity: bytes, complaint: str) -> None:
    with pytest.raises(LinkError, match=complaint):
        Remote(Board(identity=identity)).hello()


@pytest.mark.parametrize(("dt_s", "budget_ms"), [(0.1, 100), (0.0, 1), (1e6, 10_000)])
def test_the_budget_of_a_step_is_its_time(dt_s: float, budget_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    board, remote = Board(), None
    seen = []
    original = board.answer
    monkeypatch.setattr(board, "answer", lambda frame: (seen.append(frame.content), original(frame))[1])
    remote = Remote(board)
    remote.start(np.zeros(2, np.float32), np.ones(2, np.float32))
    remote.step(1, dt_s, np.zeros(64, np.uint8))
    assert struct.unpack_from("<ifI", seen[-1])[2] == budget_ms


@given(first=st.integers(0, 9_000), size=st.integers(0, 10_000))
@settings(deadline=None)
def test_memory_is_read_and_written_in_pieces(first: int, size: int) -> None:
    board, size = Board(), min(size, 10_000 - first)
    remote, before = Remote(board), bytes(board.memory)
    assert remote.read(Record.STATE, first, size) == before[first : first + size]
    remote.write(Record.STATE, first, bytes(size))
    assert bytes(board.memory) == before[:first] + bytes(size) + before[first + size :]
    assert remote.sums(Record.STATE).tolist() == [zlib.crc32(board.memory)]


def test_memory_that_cannot_be_had() -> None:
    with pytest.raises(LinkError, match="board: 96 bytes of its memory, asked for 100"):
        Remote(Board()).read(Record.STATE, 9_904, 100)
    with pytest.raises(LinkError, match="board: the controller keeps what was to be written where nothing can be"):
        Remote(Board()).write(Record.CONFIG, 0, b"x")


def test_a_step_never_has_the_number_of_the_step_before() -> None:
    board = Board()
    remote = Remote(board)
    remote.start(np.zeros(2, np.float32), np.ones(2, np.float32))
    assert steps(remote, 1) == [1]
    for _ in range(255):
        remote.sums(Record.STATE)
    assert steps(remote, 1) == [2]


def test_bytes_that_are_no_frames_make_one_think_of_the_baud_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr(board, "receive", lambda timeout_s: b"\x80\xf8" if timeout_s else b"")
    with pytest.raises(LinkError, match="has not answered .*: is the baud rate right"):
        Remote(board).hello()
