"""What a controller answers, in words."""

from __future__ import annotations

import pytest

from hal.errors import LinkError
from hal.flash.answers import EVENTS, REFUSED, STATE, VERDICTS, VERSION, State, state
from hal.flash.image import Version

HASHES = (b"\1" * 8, b"\2" * 8, b"mps2".ljust(16, b"\0"))


def answered(slots: tuple[int, ...] = (0, 0, 255, 1, 1), event: int = 0, verdict: int = 0) -> State:
    raw = STATE.pack(*slots, event, verdict, 1, 7, 4096, 65536, 6, *HASHES)
    return state(raw, VERSION.pack(1, 2, 3, 4))


def test_numbers_come_back() -> None:
    found = answered()
    assert (found.running, found.active, found.trial, found.failed, found.free) == (0, 0, None, 1, 1)
    assert (found.counter, found.sector_size, found.slot_size, found.contactors_open) == (7, 4096, 65536, True)
    assert (found.version, found.board) == (Version(1, 2, 3, 4), "mps2")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (answered(), "mps2: runs 1.2.3+4 from slot 0, configuration 0101010101010101"),
        (answered(event=4), "configuration 0101010101010101; confirmed"),
        (answered(event=REFUSED, verdict=8), "; a new image was refused: the image is for another board"),
        (answered(event=99), "; event 99"),
        (answered((255, 255, 255, 255, 0)), "mps2: no image is good; the boot loader waits for one"),
    ],
)
def test_in_words(found: State, words: str) -> None:
    assert words in found.told()


def test_every_number_has_words() -> None:
    assert list(VERDICTS) == list(range(12))
    assert list(EVENTS) == list(range(8))


def test_an_answer_of_another_size() -> None:
    with pytest.raises(LinkError, match="its state has 5 bytes"):
        state(bytes(5), bytes(8))
