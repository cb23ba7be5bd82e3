"""What a controller answers, in words."""

from __future__ import annotations

import pytest

from hal.errors import LinkError
from hal.flash import answers as answers_module
from hal.flash.answers import EVENTS, REFUSED, STATE, VERDICTS, VERSION, State, state, wait_until_settled
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


class Controller:
    """Answers one after the other, the last one again and again; None is silence."""

    def __init__(self, *answers: State | None) -> None:
        self.answers = list(answers)
        self.told: list[float] = []

    def ask(self) -> State:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            raise LinkError("silent")
        return found


ON_TRIAL, CONFIRMED, BEFORE = answered((1, 0, 1, 255, 255)), answered((1, 1, 255, 255, 0)), answered()


@pytest.mark.parametrize(
    ("answers", "before", "told"),
    [
        ((ON_TRIAL, None, ON_TRIAL, CONFIRMED), 0, 3),
        ((ON_TRIAL, BEFORE), 0, 1),
        ((None, BEFORE), 0, 1),
        ((ON_TRIAL, answered((255, 255, 255, 1, 0))), None, 1),
        ((answered((0, 255, 0, 255, 255)), BEFORE), None, 1),  # the first image of a controller
    ],
)
def test_it_is_waited_for_until_something_is_certain(
    answers: tuple[State | None, ...], before: int | None, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "PAUSE_S", 0.0)
    controller = Controller(*answers)
    assert wait_until_settled(controller.ask, before, 1e3, controller.told.append) is answers[-1]
    assert len(controller.told) == told


def test_it_is_not_waited_for_for_ever() -> None:
    assert wait_until_settled(Controller(ON_TRIAL).ask, 0, 0.0, [].append) is ON_TRIAL
    with pytest.raises(LinkError, match="silent"):
        wait_until_settled(Controller(None).ask, 0, 0.0, [].append)


def test_every_number_has_words() -> None:
    assert list(VERDICTS) == list(range(12))
    assert list(EVENTS) == list(range(8))


def test_an_answer_of_another_size() -> None:
    with pytest.raises(LinkError, match="its state has 5 bytes"):
        state(bytes(5), bytes(8))
