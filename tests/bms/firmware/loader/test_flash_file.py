"""The file that holds a board's flash: made once, kept, with the factory's image as if it had been written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bms.firmware.boards import BOARDS, SLOT_SIZE, SLOTS_AT, WRITE_SIZE
from bms.firmware.loader.flash_file import MARKS_AT, SEED_AT, SEED_BYTES, flash_file
from hal.engine.emulator import STORE_BYTES
from hal.errors import ConfigError
from hal.flash.image import AREA, HEADER, MAGIC, UNPROTECTED, Image, parse

BOARD = BOARDS["cortex-m4f"]


def image(address: int, program: bytes = b"program") -> tuple[bytes, Image]:
    head = HEADER.pack(MAGIC, address, HEADER.size, 0, len(program), 0x100, 1, 0, 0, 0, 0)
    data = head + program + AREA.pack(UNPROTECTED, AREA.size)
    return data, parse(data)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_new_one_has_the_image_and_nothing_else(tmp_path: Path, slot: int) -> None:
    path, (data, facts) = tmp_path / "flash", image(BOARD.slots[slot], bytes(1000))
    assert flash_file(path, BOARD, (data + b"what follows", facts))
    content = path.read_bytes()
    assert len(content) == STORE_BYTES
    at = SLOTS_AT + slot * SLOT_SIZE
    assert content[at : at + len(data)] == data
    written = -(-len(data) // WRITE_SIZE)
    first = MARKS_AT + slot * SLOT_SIZE // WRITE_SIZE
    rest = bytearray(content[SLOTS_AT:SEED_AT])
    for start, size in ((at - SLOTS_AT, len(data)), (first - SLOTS_AT, written)):
        rest[start : start + size] = b"\xff" * size
    assert content[first : first + written] == bytes(written)
    assert rest == b"\xff" * len(rest)


def test_one_that_is_there_keeps_all_but_its_seed(tmp_path: Path) -> None:
    path = tmp_path / "flash"
    assert flash_file(path, BOARD)
    before = path.read_bytes()
    assert not flash_file(path, BOARD, image(BOARD.slots[0]))
    after = path.read_bytes()
    seed = slice(SEED_AT, SEED_AT + SEED_BYTES)
    assert before[seed] != after[seed]
    assert before[:SEED_AT] + before[seed.stop :] == after[:SEED_AT] + after[seed.stop :]


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    short, nowhere = tmp_path / "short", tmp_path / "no" / "folder"
    short.write_bytes(b"12345")
    with pytest.raises(ConfigError, match=r"short: 5 bytes, a board's flash has 16777216; give another name"):
        flash_file(short, BOARD)
    with pytest.raises(ConfigError, match="folder: cannot be written: No such file or directory"):
        flash_file(nowhere, BOARD)
    slots = "0x21800000 and 0x21900000: sign it with --slot a or b"
    with pytest.raises(ConfigError, match=rf"linked for 0x60800000, the slots of mps2-an386 are at {slots}"):
        flash_file(tmp_path / "new", BOARD, image(BOARDS["cortex-m7"].slots[0]))
    assert not (tmp_path / "new").exists()
