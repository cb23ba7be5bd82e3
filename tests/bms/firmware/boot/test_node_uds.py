"""The side of UDS that is in the boot loader, asked frame by frame, in a time that the test makes."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uds_desk import ED25519, PURPOSE, Desk

from bms.firmware import keys
from bms.firmware.boot.host import NO_SLOT, Controller, Event, Outcome, PowerLost, Verdict
from bms.firmware.boot.node import Node

PROGRAM = bytes(range(256)) * 12


@pytest.fixture(scope="module")
def module_controller(workshop) -> Controller:
    return workshop.controller()


@pytest.fixture
def desk(module_controller: Controller, workshop) -> Desk:
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


def test_a_whole_update(desk: Desk, workshop) -> None:
    image = workshop.image("2.0.0+9", 2, PROGRAM)
    assert desk.answer(b"\x22\xf1\x95") == b"\x62\xf1\x95\1\0\0\0\0\0\0\0"
    assert desk.flash(image) == bytes([Verdict.GOOD])
    starts = desk.node.starts
    assert desk.ask(b"\x11\x01") == [b"\x51\x01"]  # first the answer, then the start
    assert desk.node.starts == starts + 1
    assert desk.answer(b"\x22\xf1\x95") == b"\x62\xf1\x95\2\0\0\0\0\0\0\x09"
    list(desk.node.poll(1))
    assert Event(desk.node.controller.boot().record.event) is Event.CONFIRMED
    assert desk.node.controller.counters.violations == 0


def test_the_state_is_told(desk: Desk, workshop) -> None:
    state = desk.answer(b"\x22\xfd\x00")[3:]
    assert list(state[:8]) == [0, 0, 0xFF, 0xFF, 1, Event.CONFIRMED, Verdict.GOOD, 1]
    assert [int.from_bytes(state[k : k + 4], "big") for k in (8, 12, 16, 20)] == [1, 1024, 8192, 1]
    assert state[24:] == bytes(range(8, 16)) + bytes(range(8)) + b"host".ljust(16, b"\0")
    slots = desk.answer(b"\x22\xfd\x02")[3:]
    assert slots == b"".join(address.to_bytes(4, "big") for address in desk.node.controller.board.slots)
    desk.node.controller.crash(range(8))
    desk.node.start(0)
    assert desk.answer(b"\x22\xfd\x01")[3:] == b"".join(k.to_bytes(4, "big") for k in range(8))


def test_sessions(desk: Desk) -> None:
    assert desk.answer(b"\x10\x03") == b"\x50\x03" + (50).to_bytes(2, "big") + (500).to_bytes(2, "big")
    assert desk.ask(b"\x10\x83") == []  # a positive answer is not wanted
    assert desk.refused(b"\x10\x04") == 0x12
    assert desk.refused(b"\x10") == 0x13
    assert desk.refused(b"\x27\x01") == 0x11
    assert desk.answer(b"\x3e\x00") == b"\x7e\x00"
    assert desk.ask(b"\x3e\x80") == []
    assert desk.refused(b"\x3e\x01") == 0x12
    assert desk.refused(b"\x22\x12\x34") == 0x31
    assert desk.refused(b"\x22\x12") == 0x13


def test_what_was_allowed_ends_with_the_session(desk: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    for ending, expected in (
        (lambda: desk.answer(b"\x10\x01"), 0x7F),
        (lambda: desk.answer(b"\x10\x02"), 0x34),
        (lambda: desk.answer(b"\x29\x00"), 0x34),
        (lambda: setattr(desk, "now_ms", desk.now_ms + 15001), 0x7F),
    ):
        desk.let_in()
        assert desk.download(image)[0] == 0x74
        ending()
        list(desk.node.poll(desk.now_ms))
        for request in (
            b"\x36\x01" + image[:64],
            b"\x37",
            b"\x31\x01\xff\x01",
            b"\x31\x01\x02\x10\0\0\0\1",
            b"\x11\x01",
        ):
            assert desk.refused(request) == expected
        assert desk.refused(b"\x34\0\x44" + bytes(4) + b"\0\0\1\0") == expected


def test_a_session_that_is_used_goes_on(desk: Desk) -> None:
    desk.let_in()
    for _ in range(5):
        desk.now_ms += 14999
        list(desk.node.poll(desk.now_ms))
        assert desk.ask(b"\x3e\x80") == []
    assert desk.refused(b"\x37") == 0x24  # still let in


def test_who_has_no_key_is_not_let_in(desk: Desk, workshop) -> None:
    assert desk.refused(b"\x29\x05\0" + ED25519) == 0x7F
    desk.answer(b"\x10\x02")
    assert desk.answer(b"\x29\x08") == b"\x69\x08\x03"
    assert desk.refused(b"\x29\x05\0" + bytes(16)) == 0x31
    assert desk.refused(b"\x29\x05") == 0x13
    assert desk.refused(b"\x29\x01") == 0x12
    assert desk.refused(desk.proof(b"before a challenge")) == 0x24
    good, own = PURPOSE + b"host".ljust(16, b"\0"), desk.sign
    for message in (lambda c: c, lambda c: PURPOSE + b"hosts".ljust(16, b"\0") + c, lambda c: good + bytes(32)):
        assert desk.refused(desk.proof(message(desk.challenge()))) == 0x58
    desk.sign = keys.private_key(workshop.other_key).sign
    challenge = desk.challenge()
    assert desk.refused(desk.proof(good + challenge)) == 0x58
    desk.sign = own
    assert desk.refused(desk.proof(good + challenge)) == 0x24  # one attempt for each challenge
    assert desk.challenge() != challenge
    assert desk.download(b"x" * 100)[2] == 0x34


def test_nothing_is_written_while_contactors_are_closed(desk: Desk, workshop) -> None:
    image, node = workshop.image("2.0.0", 2, PROGRAM), desk.node
    node.contactors(False)
    assert desk.refused(b"\x10\x02") == 0x22
    assert desk.answer(b"\x10\x03")[0] == 0x50
    node.contactors(True)
    desk.let_in()
    assert desk.download(image)[0] == 0x74
    assert desk.answer(b"\x36\x01" + image[:1000]) == b"\x76\x01"
    node.contactors(False)
    before = node.controller.counters.operations
    for request in (
        b"\x36\x02" + image[1000:2000],
        b"\x37",
        b"\x31\x01\xff\x01",
        b"\x11\x01",
        b"\x34\0\x44" + bytes(7) + b"\1",
    ):
        assert desk.refused(request) == 0x22
    assert node.controller.counters.operations == before
    assert node.starts == 1


def test_blocks_come_in_order_and_may_be_repeated(desk: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    desk.let_in()
    assert desk.refused(b"\x36\x01" + image[:32]) == 0x24
    assert desk.download(image)[0] == 0x74
    assert desk.refused(b"\x36\x02" + image[:32]) == 0x73
    assert desk.refused(b"\x36\x01" + bytes(2049)) == 0x13
    assert desk.answer(b"\x36\x01" + image[:512]) == b"\x76\x01"
    before = desk.node.controller.counters.operations
    assert desk.answer(b"\x36\x01" + image[:512]) == b"\x76\x01"  # the answer was lost
    assert desk.node.controller.counters.operations == before
    assert desk.refused(b"\x37") == 0x24
    assert desk.answer(b"\x36\x02" + image[512:2560]) == b"\x76\x02"
    assert desk.refused(b"\x36\x03" + bytes(2048)) == 0x31  # more than was announced
    assert desk.answer(b"\x36\x03" + image[2560:]) == b"\x76\x03"
    assert desk.answer(b"\x37") == b"\x77"
    assert desk.answer(b"\x31\x01\xff\x01")[4] == Verdict.GOOD


def test_numbers_of_blocks_begin_again_after_255(desk: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    desk.let_in()
    assert desk.download(image)[0] == 0x74
    for k in range(300):
        block = bytes([0x36, (k + 1) & 0xFF]) + image[k * 8 : k * 8 + 8]
        assert desk.answer(block) == desk.answer(block) == bytes([0x76, (k + 1) & 0xFF])
    assert desk.node.controller.slot(1)[:2400] == image[:2400]


def test_long_operations_are_announced(desk: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    desk.let_in()
    start = b"\x34\0\x44" + bytes(4) + len(image).to_bytes(4, "big")
    assert desk.ask(start) == [b"\x7f\x34\x78", b"\x74\x20\x08\x02"]
    assert desk.ask(b"\x36\x01" + image[:96]) == [b"\x7f\x36\x78", b"\x76\x01"]  # a sector is erased
    assert desk.ask(b"\x36\x02" + image[96:192]) == [b"\x76\x02"]
    assert desk.ask(b"\x31\x01\xff\x01")[0] == b"\x7f\x31\x78"


def test_downloads_that_do_not_fit(desk: Desk) -> None:
    desk.let_in()
    for offset, size in ((0, 8193), (8192, 1), (100, 10), (0, 0), (2**32 - 1024, 2048)):
        assert desk.refused(b"\x34\0\x44" + offset.to_bytes(4, "big") + size.to_bytes(4, "big")) == 0x31
    assert desk.refused(b"\x34\x11\x44" + bytes(7) + b"\1") == 0x31  # compressed and encrypted
    assert desk.refused(b"\x34\0\x33" + bytes(7) + b"\1") == 0x31
    assert desk.refused(b"\x34\0\x44") == 0x13


def test_sums_of_what_is_there(desk: Desk, workshop) -> None:
    image = workshop.image("2.0.0", 2, PROGRAM)
    desk.flash(image)
    answer = desk.answer(b"\x31\x01\x02\x10\0\1\0\4")
    padded = image.ljust(8192, b"\xff")
    assert answer == b"\x71\x01\x02\x10" + b"".join(
        zlib.crc32(padded[k * 1024 : (k + 1) * 1024]).to_bytes(4, "big") for k in range(1, 5)
    )
    for first, count in ((0, 33), (7, 2), (9, 0), (65535, 1)):
        assert desk.refused(b"\x31\x01\x02\x10" + first.to_bytes(2, "big") + count.to_bytes(2, "big")) == 0x31
    assert desk.refused(b"\x31\x01\x02\x10") == 0x13
    assert desk.refused(b"\x31\x01\xff\x01\0") == 0x13
    assert desk.refused(b"\x31\x01\x12\x34") == 0x31
    assert desk.refused(b"\x31\x02\xff\x01") == 0x12


def test_no_more_sums_than_an_answer_holds(workshop) -> None:
    node = Node(workshop.controller(slot_sectors=64))
    node.contactors(True)
    node.start(0)
    desk = Desk(node, keys.private_key(workshop.key).sign)
    desk.let_in()
    assert len(desk.answer(b"\x31\x01\x02\x10\0\0\0\x20")) == 4 + 32 * 4
    assert desk.refused(b"\x31\x01\x02\x10\0\0\0\x21") == 0x31


def test_while_an_image_is_on_trial_the_other_one_stays(desk: Desk, workshop) -> None:
    desk.node.healthy = False
    assert desk.flash(workshop.image("2.0.0", 2, PROGRAM)) == bytes([Verdict.GOOD])
    assert desk.answer(b"\x11\x01") == b"\x51\x01"
    desk.let_in()
    for request in (b"\x34\0\x44" + bytes(4) + b"\0\0\1\0", b"\x31\x01\xff\x01", b"\x31\x01\x02\x10\0\0\0\1"):
        assert desk.refused(request) == 0x22
    desk.node.start(0)
    assert desk.node.choice.slot == 0
    assert "runs 1.0.0+0 in slot 0" in desk.node.told()


def test_power_is_cut_at_every_operation_of_an_update(desk: Desk, workshop) -> None:
    """The old image runs, and the update goes on from a sector that is there, or from the first."""
    image, node = workshop.image("2.0.0", 2, PROGRAM), desk.node
    start = node.controller.counters.operations
    desk.flash(image)
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
            desk.flash(image)
        written = node.controller.counters.operations - before
        assert written == at + 1
        node.start(0)
        running = node.choice.slot
        assert node.controller.slot(running)[: len((old, image)[running])] == (old, image)[running]
        if running == 0:
            there = sum(node.controller.slot(1)[k : k + 1024] == image[k : k + 1024] for k in range(0, 3072, 1024))
            assert desk.flash(image, 1024 * max(there - 1, 0)) == bytes([Verdict.GOOD])
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


def test_messages_that_are_cut_off_are_forgotten(desk: Desk) -> None:
    assert desk.frames(b"\x10\x14\x22" + bytes(5))[0][0] == 0x30
    assert desk.frames(b"\x22" + bytes(7)) == []  # the second before the first
    assert desk.frames(b"\x21" + bytes(7)) == []
    assert desk.frames(b"\x10\x09\x22" + bytes(5))[0][0] == 0x30
    desk.now_ms += 1001
    assert list(desk.node.poll(desk.now_ms)) == []
    assert desk.frames(b"\x21" + bytes(3)) == []  # too late
    assert desk.frames(b"\x10\x05\x22" + bytes(5)) == []  # would have fitted into a single frame
    assert desk.frames(b"\x03\x22\xf1") == []  # shorter than it says
    assert desk.answer(b"\x22\xf1\x95")[0] == 0x62


def test_an_answer_of_many_frames_keeps_to_the_flow_control(desk: Desk) -> None:
    (first,) = desk.frames(b"\x03\x22\xfd\x00")
    size = (first[0] & 15) << 8 | first[1]
    assert desk.frames(b"\x31\0\0") == []  # wait
    assert len(desk.frames(b"\x30\x02\x00")) == 2  # two, then wait for us
    assert list(desk.node.poll(desk.now_ms)) == []
    assert len(desk.frames(b"\x30\x00\x0a")) == 0  # a gap of 10 ms
    for _ in range(2):
        desk.now_ms += 10
        assert len(list(desk.node.poll(desk.now_ms))) == 1
    rest = -(-(size - 6) // 7) - 4
    assert rest > 0
    desk.now_ms += 1001
    assert list(desk.node.poll(desk.now_ms)) == []  # given up
    assert desk.frames(b"\x30\0\0") == []
