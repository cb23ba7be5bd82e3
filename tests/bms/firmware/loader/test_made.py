"""The boot loader's program: clean C, a table where programs look for it, and a flash that is strict."""

from __future__ import annotations

import struct

import pytest

from bms.firmware import boards
from bms.firmware.boards import BOARDS
from bms.firmware.identity import layouts_hash
from bms.firmware.loader import made

SIGNER, SENDER = bytes(range(32)), bytes(range(32, 64))
TABLE_AT = 512


@pytest.mark.parametrize("name", list(BOARDS))
def test_its_table_lies_where_programs_look_for_it(arm: None, name: str) -> None:
    loader, board = made.link(name, SIGNER, SENDER), BOARDS[name]
    sizes = boards.SECTOR_SIZE, boards.WRITE_SIZE, boards.SLOT_SIZE
    table = struct.pack("<7I", *sizes, *board.slots, *board.records) + SIGNER + SENDER + layouts_hash()
    table += board.machine.encode("ascii").ljust(16, b"\0")
    assert loader.flash[TABLE_AT : TABLE_AT + len(table)] == table
    assert len(loader.flash) < 40_000
    assert loader.stack[boards.PROGRAM].size < 8192
    assert loader.config == b""


def test_the_c_sources_are_clean(arm: None) -> None:
    made.link("cortex-m7", SIGNER, SENDER, ("-fanalyzer",))
