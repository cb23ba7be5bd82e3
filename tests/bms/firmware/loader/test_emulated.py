"""Emulated boards with a boot loader, flashed over SLCAN while their controller runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from can.interfaces import slcan

from bms.cli import main
from bms.firmware.loader.flash_file import flash_file
from hal.contract import Quality
from hal.errors import LinkError
from hal.flash import answers, uds
from hal.flash.answers import State
from hal.flash.image import Version
from tests.bms.firmware.loader.emulated import BOARD, Bench, Workshop, bench, nearly_there, new_flash

T = TypeVar("T")

CRASH_DATA = 0xFD01  # of service 0x22
UNDEFINED_INSTRUCTION = 6, 0x10000  # exception and status


@pytest.fixture(scope="module", autouse=True)
def _paced() -> Iterator[None]:
    """python-can gives an adapter two seconds to start; a busy machine takes long to emulate a signature."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uds, "PENDING_S", uds.REQUEST_S)
        patch.setattr(slcan, "time", SimpleNamespace(time=time.time, sleep=lambda _: None))
        yield


@pytest.fixture(scope="module")
def flash(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leaves the factory with version 1."""
    return new_flash(tmp_path_factory.mktemp("flash"), workshop.image(0, "1.0.0", 1))


@pytest.fixture(scope="module")
def board(workshop: Workshop, qemu: None, flash: Path) -> Iterator[Bench]:
    """Runs version 1 at first; each test leaves what the next one finds."""
    with bench(workshop, flash) as made:
        yield made


def asked(ask: Callable[[], T]) -> T:
    """The answer; asked again where none comes, because a board that starts hears nothing for a while."""
    for _ in range(9):
        with contextlib.suppress(LinkError):
            return ask()
    return ask()


def state(board: Bench) -> State:
    def ask() -> State:
        with board.flasher() as flasher:
            return flasher.state()

    return asked(ask)


def state_when(board: Bench, fits: Callable[[State], bool]) -> State:
    """The state as soon as it fits, which takes a step of the controller, or a start."""
    for _ in range(200):
        found = state(board)
        if fits(found):
            return found
    pytest.fail(f"still {found}")


class Command:
    """`bms flash` with images, at a board."""

    def __init__(self, workshop: Workshop, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.workshop, self.folder, self.capsys = workshop, folder, capsys

    def __call__(self, board: Bench, *images: bytes, wait_s: float = 30.0) -> tuple[int, str, str]:
        """Exit code, the last line of what it prints, and what it complains of."""
        paths = [self.folder / f"{k}.bin" for k in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)
        words = ["--to", board.url, "--key", str(self.workshop.key), "--wait", str(wait_s), *map(str, paths)]
        code = main(["flash", *words])
        said = self.capsys.readouterr()
        assert code in (0, 1), said.err
        return code, said.out.strip().splitlines()[-1], said.err


@pytest.fixture
def command(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(workshop, tmp_path, capsys)


def test_a_good_image_runs_and_confirms_itself(workshop: Workshop, board: Bench, flash: Path, command: Command) -> None:
    images = workshop.image(0, "2.0.0", 2), workshop.image(1, "2.0.0", 2)
    nearly_there(flash, 1, images[1])
    code, last, _ = command(board, *images)
    assert code == 0
    assert "after:  mps2-an500: runs 2.0.0 from slot 1" in last
    assert last.endswith("; confirmed")
    assert (state(board).counter, state(board).confirmed) == (2, True)


def test_an_older_counter_is_refused(workshop: Workshop, board: Bench, flash: Path, command: Command) -> None:
    older = workshop.image(0, "1.9.0", 1)
    nearly_there(flash, 0, older)
    code, _, why = command(board, older)
    assert (code, "the security counter of the image is smaller" in why) == (1, True)
    assert state(board).version == Version(2, 0, 0)


def test_an_image_that_was_changed_is_refused(workshop: Workshop, board: Bench, flash: Path, command: Command) -> None:
    image = bytearray(workshop.image(0, "3.0.0", 2))
    image[-1000] ^= 1
    nearly_there(flash, 0, bytes(image))
    code, _, why = command(board, bytes(image))
    assert (code, "the image was changed after it was signed" in why) == (1, True)
    assert state(board).version == Version(2, 0, 0)


def test_an_image_for_the_other_slot_is_not_even_sent(workshop: Workshop, board: Bench, command: Command) -> None:
    code, last, why = command(board, workshop.image(1, "3.0.0", 2))
    assert (code, last.startswith("before:")) == (1, True)
    assert "its free slot is at 0x60800000: none of the images is linked for it (0x60900000)" in why


@pytest.fixture
def closed(board: Bench) -> Iterator[None]:
    """The contactors are seen to be closed."""
    board.record.head["contactors"] = 3
    yield
    board.record.head["contactors"] = 0


@pytest.mark.usefixtures("closed")
def test_nothing_is_flashed_while_a_contactor_is_closed(workshop: Workshop, board: Bench, command: Command) -> None:
    state_when(board, lambda found: not found.contactors_open)  # the measurement has to come first
    code, _, why = command(board, workshop.image(0, "3.0.0", 2))
    assert (code, "its contactors are closed: open them first" in why) == (1, True)


def test_a_crash_is_kept_and_flashers_get_more_time(board: Bench) -> None:
    board.silent = True
    with board.flasher() as flasher:
        asked(flasher.state)  # only a channel that was open goes on after the crash
        board.crash()
        with board.hurried() as program, pytest.raises(LinkError):  # the boot loader listens still
            program.hello()
        words = asked(lambda: flasher._read(CRASH_DATA))
        assert asked(flasher.state).version == Version(2, 0, 0)
    assert (int.from_bytes(words[4:8], "big"), int.from_bytes(words[16:20], "big")) == UNDEFINED_INSTRUCTION
    crash = board.hello().crash
    assert crash is not None
    assert (crash.cause, crash.status) == UNDEFINED_INSTRUCTION


def test_an_image_that_does_not_see_a_healthy_rack_is_reverted(
    workshop: Workshop, board: Bench, flash: Path, command: Command
) -> None:
    board.silent = False
    board.record.cell_v_quality[:] = Quality.MISSING
    image = workshop.image(0, "3.0.0", 3)
    nearly_there(flash, 0, image)
    code, last, _ = command(board, image, wait_s=5.0)  # five times as long as a healthy one takes
    assert (code, "runs 3.0.0 from slot 0" in last, "on trial" in last) == (0, True, True)
    with board.flasher(workshop.key) as flasher:
        flasher._client.change_session(2)
        flasher._prove_who("mps2-an500")
        flasher._client.ecu_reset(1)
    board.record.cell_v_quality[:] = Quality.GOOD
    found = state_when(board, lambda found: found.version != Version(3, 0, 0))
    assert (found.version, found.failed) == (Version(2, 0, 0), 0)
    assert "the new one did not confirm itself" in found.told()


def test_an_image_that_fails_while_it_is_awaited_is_told(
    workshop: Workshop, board: Bench, flash: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, back = workshop.image(0, "4.0.0", 3), answers.wait_until_back

    def and_crash(place: object, ask: Callable[[], State]) -> State:
        found = back(place, ask)
        assert found.trial == 0
        board.hello()
        board.crash()
        return found

    board.silent = True
    nearly_there(flash, 0, image)
    monkeypatch.setattr(answers, "wait_until_back", and_crash)
    code, last, _ = command(board, image)
    assert (code, "runs 2.0.0 from slot 1" in last) == (1, True)
    assert last.endswith("the image before: the new one did not confirm itself")


def test_whoever_only_asks_does_not_hold_the_start_up(board: Bench) -> None:
    with board.flasher() as flasher:
        asked(flasher.state)
        board.crash()
        for _ in range(2_000):  # a busy machine emulates slowly
            asked(flasher.state)
            with contextlib.suppress(LinkError), board.hurried(0.02) as program:
                program.hello()
                return
    pytest.fail("the boot loader answers for ever")


def test_all_of_it_survives_the_end_of_the_emulator(workshop: Workshop, board: Bench, flash: Path) -> None:
    def crash(board: Bench) -> bytes:
        with board.flasher() as flasher:
            return asked(lambda: flasher._read(CRASH_DATA))

    before = state(board), crash(board)
    board.__exit__()
    assert not flash_file(flash, BOARD)
    with bench(workshop, flash) as again:
        assert (state(again), crash(again)) == before
