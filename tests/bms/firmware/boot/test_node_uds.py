"""The side of UDS that is in the boot loader, asked frame by frame, in a time that the test makes."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.firmware import keys
from bms.firmware.boot.host import NO_SLOT, Controller, Event, Outcome, PowerLost, Verdict
from bms.firmware.boot.node import Node

ED25519 = bytes.fromhex("06032b6570").ljust(16, b"\0")
PURPOSE = b"rackbms: open for an update\0"
PROGRAM = bytes(range(256)) * 12
PENDING = 0x78


class Desk:
    """The other side of ISO-TP, in a few lines of its own."""

    def __init__(self, node: Node, sign: Callable[[bytes], bytes]) -> None:
        self.node, self.sign, self.now_ms = node, sign, 0

    def frames(self, frame: bytes) -> list[bytes]:
        self.node.frame(frame, self.now_ms)
        return list(self.node.poll(self.now_ms))

    def ask(self, request: bytes) -> list[bytes]:
        """All answers to a request, 'pending' among them."""
        if len(request) < 8:
            return self._answers(self.frames(bytes([len(request)]) + request))
        got = self.frames(bytes([0x10 | len(request) >> 8, len(request) & 0xFF]) + request[:6])
        assert [frame[:3] for frame in got] == [b"\x30\x20\x00"]  # go on, 32 frames, no gap
        rest = [request[k : k + 7] for k in range(6, len(request), 7)]
        for number, piece in enumerate(rest, start=1):
            got = self.frames(bytes([0x20 | number & 15]) + piece)
            if number < len(rest):
                assert [frame[:1] for frame in got] == ([b"\x30"] if number % 32 == 0 else [])
        return self._answers(got)

    def _answers(self, frames: list[bytes]) -> list[bytes]:
        answers = []
        for frame in frames:
            if frame[0] >> 4 == 0:
                answers.append(frame[1 : 1 + frame[0]])
            else:
                assert frame[0] >> 4 == 1
                size, message = (frame[0] & 15) << 8 | frame[1], frame[2:]
                for number, more in enumerate(self.frames(b"\x30\0\0"), start=1):
                    assert more[0] == 0x20 | number & 15
                    message += more[1:]
                answers.append(message[:size])
        return answers

    def answer(self, request: bytes) -> bytes:
        """The last answer, which is no longer 'pending'."""
        *before, last = self.ask(request)
        assert all(answer == bytes([0x7F, request[0], PENDING]) for answer in before)
        return last

    def refused(self, request: bytes) -> int:
        """The code of a negative answer."""
        answer = self.answer(request)
        assert answer[:2] == bytes([0x7F, request[0]]), answer.hex()
        return answer[2]

    def challenge(self) -> bytes:
        answer = self.answer(b"\x29\x05\0" + ED25519)
        assert answer[:3] + answer[19:21] == b"\x69\x05\0\0\x20"
        assert len(answer) == 55
        return answer[21:53]

    def proof(self, message: bytes) -> bytes:
        return b"\x29\x06" + ED25519 + b"\0\x40" + self.sign(message) + bytes(4)

    def let_in(self) -> None:
        assert self.answer(b"\x10\x02")[:2] == b"\x50\x02"
        proof = self.proof(PURPOSE + b"host".ljust(16, b"\0") + self.challenge())
        assert self.answer(proof) == b"\x69\x06\x12" + ED25519 + b"\0\0"

    def download(self, image: bytes, offset: int = 0) -> bytes:
        return self.answer(b"\x34\0\x44" + offset.to_bytes(4, "big") + (len(image) - offset).to_bytes(4, "big"))

    def flash(self, image: bytes, offset: int = 0) -> bytes:
        """Everything; gives the verdict."""
        self.let_in()
        assert self.download(image, offset) == b"\x74\x20\x08\x02"
        for number, at in enumerate(range(offset, len(image), 2048), start=1):
            assert self.answer(bytes([0x36, number]) + image[at : at + 2048]) == bytes([0x76, number])
        assert self.answer(b"\x37") == b"\x77"
        answer = self.answer(b"\x31\x01\xff\x01")
        assert answer[:4] == b"\x71\x01\xff\x01"
        return answer[4:]


@pytest.fixture(scope="module")
def module_controller(workshop) -> Controller:
    return workshop.controller()


@pytest.fixture
def tester(module_controller: Controller, workshop) -> Desk:
    """Before a controller that runs an image from slot 0."""
    controller = module_controller
    controller.new()
    assert controller.update(NO_SLOT, workshop.image("1.0.0", 1, b"one")) is Outcome.GOOD
    assert controller.arm(0) is Verdict.GOOD
    assert controller.confirm(controller.boot().slot)
    node = Node(controller)
    node.contactors(True)
    node.start(0)
    return Desk(node, keys.private_key(workshop.key).sign)


def test_a_whole_update(tester: Desk, workshop) -> None:
    image = workshop.image("2.0.0+9", 2, PROGRAM)
    assert tester.answer(b"\x22\xf1\x95") == b"\x62\xf1\x95\1\0\0\0\0\0\0\0"
    assert tester.flash(image) == bytes([Verdict.GOOD])
    starts = tester.node.starts
    assert tester.ask(b"\x11\x01") == [b"\x51\x01"]  # first the answer, then the start
    assert tester.node.starts == starts + 1
    assert tester.answer(b"\x22\xf1\x95") == b"\x62\xf1\x95\2\0\0\0\0\0\0\x09"
    list(tester.node.poll(1))
    assert Event(tester.node.controller.boot().record.event) is Event.CONFIRMED
    assert tester.node.controller.counters.violations == 0


def test_the_state_is_told(tester: Desk, workshop) -> None:
    state = tester.answer(b"\x22\xfd\x00")[3:]
    assert list(state[:8]) == [0, 0, 0xFF, 0xFF, 1, Event.CONFIRMED, Verdict.GOOD, 1]
    assert [int.from_bytes(state[k : k + 4], "big") for k in (8, 12, 16, 20)] == [1, 1024, 8192, 1]
    assert state[24:] == bytes(range(8, 16)) + bytes(range(8)) + b"host".ljust(16, b"\0")
    tester.node.controller.crash(range(8))
    tester.node.start(0)
    assert tester.answer(b"\x22\xfd\x01")[3:] == b"".join(k.to_bytes(4, "big") for k in range(8))


def test_sessions(tester: Desk) -> None:
    assert tester.answer(b"\x10\x03") == b"\x50\x03" + (50).to_bytes(2, "big") + (500).to_bytes(2, "big")
    assert tester.ask(b"\x10\x83") == []  # a positive answer is not wanted
    assert tester.refused(b"\x10\x04") == 0x12
    assert tester.refused(b"\x10") == 0x13
    assert tester.refused(b"\x27\x01") == 0x11
    assert tester.answer(b"\x3e\x00") == b"\x7e\x00"
    assert tester.ask(b"\x3e\x80") == []
    assert tester.refused(b"\x3e\x01") == 0x12
    assert tester.refused(b"\x22\x12\x34") == 0x31
    assert tester.refused(b"\x22\x12") == 0x13


def test_what_was_allowed_ends_with_the_session(tester: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    for ending, expected in (
        (lambda: tester.answer(b"\x10\x01"), 0x7F),
        (lambda: tester.answer(b"\x10\x02"), 0x34),
        (lambda: tester.answer(b"\x29\x00"), 0x34),
        (lambda: setattr(tester, "now_ms", tester.now_ms + 15001), 0x7F),
    ):
        tester.let_in()
        assert tester.download(image)[0] == 0x74
        ending()
        list(tester.node.poll(tester.now_ms))
        for request in (
            b"\x36\x01" + image[:64],
            b"\x37",
            b"\x31\x01\xff\x01",
            b"\x31\x01\x02\x10\0\0\0\1",
            b"\x11\x01",
        ):
            assert tester.refused(request) == expected
        assert tester.refused(b"\x34\0\x44" + bytes(4) + b"\0\0\1\0") == expected


def test_a_session_that_is_used_goes_on(tester: Desk) -> None:
    tester.let_in()
    for _ in range(5):
        tester.now_ms += 14999
        list(tester.node.poll(tester.now_ms))
        assert tester.ask(b"\x3e\x80") == []
    assert tester.refused(b"\x37") == 0x24  # still let in


def test_who_has_no_key_is_not_let_in(tester: Desk, workshop) -> None:
    assert tester.refused(b"\x29\x05\0" + ED25519) == 0x7F
    tester.answer(b"\x10\x02")
    assert tester.answer(b"\x29\x08") == b"\x69\x08\x03"
    assert tester.refused(b"\x29\x05\0" + bytes(16)) == 0x31
    assert tester.refused(b"\x29\x05") == 0x13
    assert tester.refused(b"\x29\x01") == 0x12
    assert tester.refused(tester.proof(b"before a challenge")) == 0x24
    good, own = PURPOSE + b"host".ljust(16, b"\0"), tester.sign
    for message in (lambda c: c, lambda c: PURPOSE + b"hosts".ljust(16, b"\0") + c, lambda c: good + bytes(32)):
        assert tester.refused(tester.proof(message(tester.challenge()))) == 0x58
    tester.sign = keys.private_key(workshop.other_key).sign
    challenge = tester.challenge()
    assert tester.refused(tester.proof(good + challenge)) == 0x58
    tester.sign = own
    assert tester.refused(tester.proof(good + challenge)) == 0x24  # one attempt for each challenge
    assert tester.challenge() != challenge
    assert tester.download(b"x" * 100)[2] == 0x34


def test_nothing_is_written_while_contactors_are_closed(tester: Desk, workshop) -> None:
    image, node = workshop.image("2.0.0", 2, PROGRAM), tester.node
    node.contactors(False)
    assert tester.refused(b"\x10\x02") == 0x22
    assert tester.answer(b"\x10\x03")[0] == 0x50
    node.contactors(True)
    tester.let_in()
    assert tester.download(image)[0] == 0x74
    assert tester.answer(b"\x36\x01" + image[:1000]) == b"\x76\x01"
    node.contactors(False)
    before = node.controller.counters.operations
    for request in (
        b"\x36\x02" + image[1000:2000],
        b"\x37",
        b"\x31\x01\xff\x01",
        b"\x11\x01",
        b"\x34\0\x44" + bytes(7) + b"\1",
    ):
        assert tester.refused(request) == 0x22
    assert node.controller.counters.operations == before
    assert node.starts == 1


def test_blocks_come_in_order_and_may_be_repeated(tester: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    tester.let_in()
    assert tester.refused(b"\x36\x01" + image[:32]) == 0x24
    assert tester.download(image)[0] == 0x74
    assert tester.refused(b"\x36\x02" + image[:32]) == 0x73
    assert tester.refused(b"\x36\x01" + bytes(2049)) == 0x13
    assert tester.answer(b"\x36\x01" + image[:512]) == b"\x76\x01"
    before = tester.node.controller.counters.operations
    assert tester.answer(b"\x36\x01" + image[:512]) == b"\x76\x01"  # the answer was lost
    assert tester.node.controller.counters.operations == before
    assert tester.refused(b"\x37") == 0x24
    assert tester.answer(b"\x36\x02" + image[512:2560]) == b"\x76\x02"
    assert tester.refused(b"\x36\x03" + bytes(2048)) == 0x31  # more than was announced
    assert tester.answer(b"\x36\x03" + image[2560:]) == b"\x76\x03"
    assert tester.answer(b"\x37") == b"\x77"
    assert tester.answer(b"\x31\x01\xff\x01")[4] == Verdict.GOOD


def test_numbers_of_blocks_begin_again_after_255(tester: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    tester.let_in()
    assert tester.download(image)[0] == 0x74
    for k in range(300):
        block = bytes([0x36, (k + 1) & 0xFF]) + image[k * 8 : k * 8 + 8]
        assert tester.answer(block) == tester.answer(block) == bytes([0x76, (k + 1) & 0xFF])
    assert tester.node.controller.slot(1)[:2400] == image[:2400]


def test_long_operations_are_announced(tester: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    tester.let_in()
    start = b"\x34\0\x44" + bytes(4) + len(image).to_bytes(4, "big")
    assert tester.ask(start) == [b"\x7f\x34\x78", b"\x74\x20\x08\x02"]
    assert tester.ask(b"\x36\x01" + image[:96]) == [b"\x7f\x36\x78", b"\x76\x01"]  # a sector is erased
    assert tester.ask(b"\x36\x02" + image[96:192]) == [b"\x76\x02"]
    assert tester.ask(b"\x31\x01\xff\x01")[0] == b"\x7f\x31\x78"


def test_downloads_that_do_not_fit(tester: Desk) -> None:
    tester.let_in()
    for offset, size in ((0, 8193), (8192, 1), (100, 10), (0, 0), (2**32 - 1024, 2048)):
        assert tester.refused(b"\x34\0\x44" + offset.to_bytes(4, "big") + size.to_bytes(4, "big")) == 0x31
    assert tester.refused(b"\x34\x11\x44" + bytes(7) + b"\1") == 0x31  # compressed and encrypted
    assert tester.refused(b"\x34\0\x33" + bytes(7) + b"\1") == 0x31
    assert tester.refused(b"\x34\0\x44") == 0x13


def test_sums_of_what_is_there(tester: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    tester.flash(image)
    answer = tester.answer(b"\x31\x01\x02\x10\0\1\0\4")
    padded = image.ljust(8192, b"\xff")
    assert answer == b"\x71\x01\x02\x10" + b"".join(
        zlib.crc32(padded[k * 1024 : (k + 1) * 1024]).to_bytes(4, "big") for k in range(1, 5)
    )
    for first, count in ((0, 33), (7, 2), (9, 0), (65535, 1)):
        assert tester.refused(b"\x31\x01\x02\x10" + first.to_bytes(2, "big") + count.to_bytes(2, "big")) == 0x31
    assert tester.refused(b"\x31\x01\x02\x10") == 0x13
    assert tester.refused(b"\x31\x01\xff\x01\0") == 0x13
    assert tester.refused(b"\x31\x01\x12\x34") == 0x31
    assert tester.refused(b"\x31\x02\xff\x01") == 0x12


def test_no_more_sums_than_an_answer_holds(workshop) -> None:
    node = Node(workshop.controller(slot_sectors=64))
    node.contactors(True)
    node.start(0)
    desk = Desk(node, keys.private_key(workshop.key).sign)
    desk.let_in()
    assert len(desk.answer(b"\x31\x01\x02\x10\0\0\0\x20")) == 4 + 32 * 4
    assert desk.refused(b"\x31\x01\x02\x10\0\0\0\x21") == 0x31


def test_while_an_image_is_on_trial_the_other_one_stays(tester: Desk, workshop) -> None:
    tester.node.healthy = False
    assert tester.flash(workshop.image("2.0.0", 2, PROGRAM)) == bytes([Verdict.GOOD])
    assert tester.answer(b"\x11\x01") == b"\x51\x01"
    tester.let_in()
    for request in (b"\x34\0\x44" + bytes(4) + b"\0\0\1\0", b"\x31\x01\xff\x01", b"\x31\x01\x02\x10\0\0\0\1"):
        assert tester.refused(request) == 0x22
    tester.node.start(0)
    assert tester.node.choice.slot == 0
    assert "runs 1.0.0+0 in slot 0" in tester.node.told()


def test_power_is_cut_at_every_operation_of_an_update(tester: Desk, workshop) -> None:
    """The old image runs, and the update goes on from a sector that is there, or from the first."""
    image, node = workshop.image("2.0.0", 2, PROGRAM), tester.node
    start = node.controller.counters.operations
    tester.flash(image)
    total = node.controller.counters.operations - start
    assert total > 100
    for at in range(total):
        node.controller.new()
        old = workshop.image("1.0.0", 1, b"one")
        node.controller.slot(0)[: len(old)] = old
        node.start(0)
        before = node.controller.counters.operations
        node.controller.cut(at, at)
        with pytest.raises(PowerLost):
            tester.flash(image)
        written = node.controller.counters.operations - before
        assert written == at + 1
        node.start(0)
        running = node.choice.slot
        assert node.controller.slot(running)[: len((old, image)[running])] == (old, image)[running]
        if running == 0:
            there = sum(node.controller.slot(1)[k : k + 1024] == image[k : k + 1024] for k in range(0, 3072, 1024))
            assert tester.flash(image, 1024 * max(there - 1, 0)) == bytes([Verdict.GOOD])
            node.start(0)
        assert node.choice.slot == 1
        assert node.controller.counters.violations == 0


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=30))
def test_no_frames_do_harm(module_controller: Controller, frames: list[bytes]) -> None:
    """Whoever is not let in changes nothing, whatever is sent."""
    node = Node(module_controller)
    module_controller.new()
    node.start(0)
    for now_ms, frame in enumerate(frames):
        node.frame(frame, now_ms)
        assert all(len(sent) == 8 for sent in node.poll(now_ms))
    assert module_controller.counters.operations == module_controller.counters.violations == 0


def test_messages_that_are_cut_off_are_forgotten(tester: Desk) -> None:
    assert tester.frames(b"\x10\x14\x22" + bytes(5))[0][0] == 0x30
    assert tester.frames(b"\x22" + bytes(7)) == []  # the second before the first
    assert tester.frames(b"\x21" + bytes(7)) == []
    assert tester.frames(b"\x10\x09\x22" + bytes(5))[0][0] == 0x30
    tester.now_ms += 1001
    assert list(tester.node.poll(tester.now_ms)) == []
    assert tester.frames(b"\x21" + bytes(3)) == []  # too late
    assert tester.frames(b"\x10\x05\x22" + bytes(5)) == []  # would have fitted into a single frame
    assert tester.frames(b"\x03\x22\xf1") == []  # shorter than it says
    assert tester.answer(b"\x22\xf1\x95")[0] == 0x62


def test_an_answer_of_many_frames_keeps_to_the_flow_control(tester: Desk) -> None:
    (first,) = tester.frames(b"\x03\x22\xfd\x00")
    size = (first[0] & 15) << 8 | first[1]
    assert tester.frames(b"\x31\0\0") == []  # wait
    assert len(tester.frames(b"\x30\x02\x00")) == 2  # two, then wait for us
    assert list(tester.node.poll(tester.now_ms)) == []
    assert len(tester.frames(b"\x30\x00\x0a")) == 0  # a gap of 10 ms
    for _ in range(2):
        tester.now_ms += 10
        assert len(list(tester.node.poll(tester.now_ms))) == 1
    rest = -(-(size - 6) // 7) - 4
    assert rest > 0
    tester.now_ms += 1001
    assert list(tester.node.poll(tester.now_ms)) == []  # given up
    assert tester.frames(b"\x30\0\0") == []
