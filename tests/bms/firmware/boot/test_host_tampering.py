"""What is not exactly what was signed for this controller is refused, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bms.firmware.boot.host import NO_SLOT, Controller, Event, Outcome, Verdict
from bms.firmware.sign import HEADER_SIZE
from hal.flash.image import AREA, ENTRY, HEADER, Kind, parse

PROGRAM = bytes(range(256)) * 8
NOTHING = bytes([0xFF])


@dataclass
class Target:
    """A controller, and an image that it takes."""

    controller: Controller
    image: bytes

    def put(self, image: bytes, slot: int = 0) -> None:
        """Into a slot, past everything that could object."""
        place = self.controller.slot(slot)
        place[:] = image.ljust(len(place), NOTHING)[: len(place)]

    def verdict(self, image: bytes) -> Verdict:
        self.put(image)
        return self.controller.check(0)[0]


@pytest.fixture(scope="module")
def target(workshop) -> Target:
    return Target(workshop.controller(), workshop.image("1.2.3", 5, PROGRAM))


@pytest.fixture(autouse=True)
def _new(target: Target) -> None:
    target.controller.new()


def test_the_image_as_it_was_signed_is_good(target: Target, workshop) -> None:
    target.put(target.image)
    verdict, facts = target.controller.check(0)
    assert verdict is Verdict.GOOD
    assert (list(facts.version), facts.counter, facts.size, facts.board) == (
        [1, 2, 3, 0],
        5,
        len(target.image),
        b"host",
    )
    assert facts.start == target.controller.board.slots[0] + HEADER_SIZE
    assert target.controller.boot().slot == 0
    assert target.verdict(workshop.image("255.255.65535+4294967295", 2**32 - 1, b"x")) is Verdict.GOOD


def test_every_byte_of_header_and_tlvs_and_a_sample_of_the_program(target: Target) -> None:
    image = bytearray(target.image)
    program = range(HEADER_SIZE, HEADER_SIZE + len(PROGRAM))
    for at in range(len(image)):
        if at in program and at % 23:
            continue
        for flip in (1 << at % 8, 0xFF) if HEADER.size <= at < program.stop else (1, 2, 4, 8, 16, 32, 64, 128, 0xFF):
            image[at] ^= flip
            verdict = target.verdict(bytes(image))
            assert verdict is not Verdict.GOOD, f"byte {at}, bits {flip:#x}"
            if HEADER.size <= at < program.stop:
                assert verdict is Verdict.CHANGED
            assert target.controller.boot().slot == NO_SLOT
            image[at] ^= flip
    assert target.verdict(bytes(image)) is Verdict.GOOD


def test_cut_short_anywhere(target: Target) -> None:
    for size in range(len(target.image)):
        if size % 37 == 0 or size > len(target.image) - 300:
            assert target.verdict(target.image[:size]) is not Verdict.GOOD, size
    assert target.verdict(b"") is Verdict.ABSENT
    assert target.verdict(target.image[1:]) is Verdict.ABSENT
    assert target.verdict(target.image[: HEADER_SIZE + 100]) is Verdict.MALFORMED


def test_what_is_meant_for_another_controller(target: Target, workshop) -> None:
    for expected, changes in (
        (Verdict.OTHER_BOARD, {"board": "hosts"}),
        (Verdict.OTHER_BOARD, {"board": "hos"}),
        (Verdict.OTHER_LAYOUTS, {"layouts": bytes(8)}),
        (Verdict.OTHER_SLOT, {"address": target.controller.board.slots[1]}),
        (Verdict.OTHER_KEY, {"key": workshop.other_key}),
        (Verdict.GOOD, {"address": target.controller.board.slots[0]}),
        (Verdict.GOOD, {"config": bytes(8)}),
    ):
        assert target.verdict(workshop.image("1.2.3", 5, PROGRAM, **changes)) is expected, changes


def test_a_signature_by_another_key_under_the_name_of_ours(target: Target, workshop) -> None:
    other = workshop.image("1.2.3", 5, PROGRAM, key=workshop.other_key)
    ours, theirs = (next(t.value for t in parse(i).tlvs if t.kind == Kind.ED25519) for i in (target.image, other))
    assert target.verdict(target.image.replace(ours, theirs)) is Verdict.FORGED
    hashes = [next(t.value for t in parse(i).tlvs if t.kind == Kind.KEY_HASH) for i in (target.image, other)]
    assert target.verdict(other.replace(hashes[1], hashes[0])) is Verdict.FORGED


def test_a_signature_with_a_scalar_that_is_too_large(target: Target) -> None:
    """S + L fits the equation as S does: RFC 8032, 5.1.7 demands that it is refused."""
    signature = next(tlv.value for tlv in parse(target.image).tlvs if tlv.kind == Kind.ED25519)
    order = 2**252 + 27742317777372353535851937790883648493
    malleable = int.from_bytes(signature[32:], "little") + order
    assert target.verdict(target.image.replace(signature[32:], malleable.to_bytes(32, "little"))) is Verdict.FORGED


def test_tlvs_that_are_missing_twice_or_strange(target: Target) -> None:
    inner = HEADER_SIZE + len(PROGRAM)
    kinds = [inner + AREA.size]
    for _ in range(3):
        kinds.append(kinds[-1] + ENTRY.size + ENTRY.unpack_from(target.image, kinds[-1])[1])
    for at, kind in ((kinds[1], Kind.LAYOUTS), (kinds[1], 0xA9), (kinds[0], Kind.SHA512), (kinds[3], Kind.DEPENDENCY)):
        image = bytearray(target.image)
        image[at : at + 2] = kind.to_bytes(2, "little")
        assert target.verdict(bytes(image)) is Verdict.MALFORMED


def test_what_only_the_right_key_could_sign_and_is_wrong_all_the_same(target: Target, workshop, good_facts) -> None:
    assert target.verdict(workshop.forged(PROGRAM, good_facts)) is Verdict.GOOD
    assert target.verdict(workshop.forged(PROGRAM, good_facts[::-1])) is Verdict.GOOD
    for flags in (0x1, 0x4, 0x10, 0x20, 0x200):  # it would have to be decrypted, moved, unpacked, or not started at all
        assert target.verdict(workshop.forged(PROGRAM, good_facts, flags)) is Verdict.MALFORMED
    for k in range(len(good_facts)):
        assert target.verdict(workshop.forged(PROGRAM, good_facts[:k] + good_facts[k + 1 :])) is Verdict.MALFORMED
    shorter = [*good_facts[:3], (Kind.BOARD, b"h"), (Kind.BOARD, b"host")]
    assert target.verdict(workshop.forged(PROGRAM, shorter)) is Verdict.MALFORMED
    assert target.verdict(workshop.forged(PROGRAM, [*good_facts, good_facts[0]])) is Verdict.MALFORMED
    assert target.verdict(workshop.forged(b"", good_facts)) is Verdict.MALFORMED


def test_too_large(target: Target, workshop) -> None:
    slot = target.controller.board.slot_size
    around = len(target.image) - len(PROGRAM)
    full, over = (workshop.image("1.2.3", 5, bytes(slot - around + more)) for more in (0, 1))
    assert len(full) == slot
    assert target.verdict(full) is Verdict.GOOD
    assert target.verdict(over) is Verdict.TOO_LARGE
    target.controller.new()
    assert target.controller.update(NO_SLOT, over) is Outcome.OUT_OF_RANGE
    assert target.controller.update(NO_SLOT, full) is Outcome.GOOD
    for place in (12, 8, 10):  # the largest program, header and protected area that can be written down
        image = bytearray(full)
        image[place : place + 2] = b"\xff\xff"
        if place == 12:
            image[place : place + 4] = b"\xff\xff\xff\xff"
        assert target.verdict(bytes(image)) in (Verdict.TOO_LARGE, Verdict.MALFORMED)


def test_no_way_back_behind_a_confirmed_counter(target: Target, workshop) -> None:
    controller = target.controller
    newer = workshop.image("1.3.0", 6, PROGRAM)
    for running, image in ((NO_SLOT, target.image), (0, newer)):
        assert controller.update(running, image) is Outcome.GOOD
        assert controller.arm(controller.free_slot(running)) is Verdict.GOOD
        assert controller.confirm(controller.boot().slot)
    assert controller.boot().slot == 1
    assert controller.update(1, target.image) is Outcome.GOOD
    assert controller.arm(0) is Verdict.OLDER
    assert controller.update(1, workshop.image("1.0.0", 6, PROGRAM)) is Outcome.GOOD
    assert controller.arm(0) is Verdict.GOOD  # an older version with the same counter is a way back that is left open
    target.put(target.image, slot=0)  # exchanged behind the back of the boot loader
    choice = controller.boot()
    assert choice.slot == 1
    assert (Event(choice.record.event), Verdict(choice.record.verdict)) == (Event.REFUSED, Verdict.OLDER)
    controller.slot(1)[100] ^= 1  # even where nothing else is left
    assert controller.boot().slot == NO_SLOT
