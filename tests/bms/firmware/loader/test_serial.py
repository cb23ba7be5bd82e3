"""The boot loader on its serial line: the first image of a board comes by SMP."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("smpclient", reason="pip install 'rackbms[firmware]'")

from bms.cli import main
from bms.firmware import sign
from bms.firmware.boards import BOARDS
from bms.firmware.boot.host import NO_SLOT, Event, Record
from bms.firmware.identity import layouts_hash
from bms.firmware.keys import public_key
from bms.firmware.loader import made
from bms.firmware.loader.flash_file import flash_file
from hal.engine.emulator import Emulator
from hal.errors import LinkError
from hal.flash import answers
from hal.flash.smp import SerialPlace, SmpFlasher

HEADER = 512
STILL = bytes.fromhex("fee7fee7")  # two instructions of Thumb that jump to themselves


@contextlib.contextmanager
def line(emulator: Emulator) -> Iterator[str]:
    """The first serial port as a pseudo-terminal; gives its name."""
    own, other = os.openpty()
    tty.setraw(other)
    ending = threading.Event()

    def carry() -> None:
        while not ending.is_set():
            if select.select([own], [], [], 0.01)[0]:
                emulator.send(os.read(own, 4096))
            if data := emulator.receive(0.0):
                os.write(own, data)

    thread = threading.Thread(target=carry)
    thread.start()
    try:
        yield os.ttyname(other)
    finally:
        ending.set()
        thread.join()
        os.close(own)
        os.close(other)


@pytest.mark.parametrize("name", list(BOARDS))
def test_the_first_image_comes_over_the_line(
    name: str, arm: None, qemu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, key, flash = BOARDS[name], tmp_path / "fleet.pem", tmp_path / "flash"
    assert main(["keygen", str(key)]) == 0
    loader = made.link(name, public_key(key), public_key(key)).elf
    start = board.slots[0] + HEADER
    assert flash_file(flash, board)
    program = (0x20001000).to_bytes(4, "little") + (start + 8 | 1).to_bytes(4, "little") + STILL
    image = sign.signed(
        program,
        key,
        version="1.0.0",
        counter=1,
        board=board.machine,
        config=bytes(8),
        layouts=layouts_hash(),
        address=board.slots[0],
    )
    monkeypatch.setattr(answers, "BACK_S", 0.0)
    with Emulator(board.emulator, board.machine, loader, board.store, None, kept=flash) as emulator:
        with line(emulator) as device, SmpFlasher(SerialPlace(device)) as flasher:
            assert flasher.state().running is None
            with contextlib.suppress(LinkError):  # the program only stands still, but the boot loader may answer before
                flasher.flash(image)
        raw = emulator.memory(board.records[0], 128).tobytes()
    record = Record.from_buffer_copy(raw)
    assert (record.active, record.trial, record.tries, record.event) == (NO_SLOT, 0, 1, Event.TRIED)
