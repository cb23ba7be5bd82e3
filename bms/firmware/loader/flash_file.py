"""The flash of an emulated board, kept in a file: new, with the image that it leaves the factory with, or as it was."""

from __future__ import annotations

import os
from pathlib import Path

from bms.firmware.boards import SLOT_SIZE, SLOTS_AT, WRITE_SIZE, Board
from hal.engine.emulator import STORE_BYTES
from hal.errors import ConfigError
from hal.flash.image import Image

SIZE = 4 << 20
MARKS_AT = SLOTS_AT + (3 << 20)
SEED_AT, SEED_BYTES = SLOTS_AT + SIZE - 64, 64
"""Places in the file, which is the board's large memory: see `loader/mps2_boot.c`."""


def flash_file(path: Path, board: Board, image: tuple[bytes, Image] | None = None) -> bool:
    """See to it that `path` holds the flash of `board`; true where it is new, and has `image` in its slot.

    A file that is there keeps what it holds. Each time it gets new randomness, of which the board has none of its own.
    Raises `ConfigError`.
    """
    try:
        is_new = not path.exists()
        if is_new:
            _make(path, board, image)
        elif path.stat().st_size != STORE_BYTES:
            raise ConfigError(
                f"{path}: {path.stat().st_size} bytes, a board's flash has {STORE_BYTES}; give another name"
            )
        with path.open("r+b") as file:
            file.seek(SEED_AT)
            file.write(os.urandom(SEED_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    return is_new


def _make(path: Path, board: Board, image: tuple[bytes, Image] | None) -> None:
    content = bytearray(b"\xff" * SIZE)
    if image is not None:
        data, facts = image
        if facts.address not in board.slots or facts.size > SLOT_SIZE:
            slots = " and ".join(f"0x{address:08x}" for address in board.slots)
            raise ConfigError(
                f"the image is linked for 0x{facts.address:08x}, the slots of {board.machine} are at {slots}: "
                "sign it with --slot a or b"
            )
        at = facts.address - board.slots[0]
        content[at : at + facts.size] = data[: facts.size]
        first, count = MARKS_AT - SLOTS_AT + at // WRITE_SIZE, -(-facts.size // WRITE_SIZE)
        content[first : first + count] = bytes(count)
    with path.open("wb") as file:
        file.truncate(STORE_BYTES)
        file.seek(SLOTS_AT)
        file.write(content)
