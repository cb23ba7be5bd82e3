"""The boot loader of a board: its C, and the table of keys and places that is its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bms.firmware import boards
from bms.firmware.boards import BOARDS, Firmware
from bms.firmware.identity import layouts_hash

SOURCES = {
    "board": ("cortexm.c", "mail.c", "memory.c", "mps2.c", "slcan.c"),
    "loader": ("desk.c", "loader.c", "mps2_boot.c"),
    "boot": ("boot.c", "cbor.c", "crypto.c", "image.c", "isotp.c", "record.c", "smp.c", "uds.c", "update.c"),
}


def link(name: str, image_key: bytes, access_key: bytes, more: tuple[str, ...] = ()) -> Firmware:
    """The boot loader of the board `name`, for the public keys of whoever may sign images, and of whoever may send one.

    `more` are options for gcc. Raises `ConfigError` where the compiler is missing or complains.
    """
    with tempfile.TemporaryDirectory(prefix="rackbms-") as text:
        folder = Path(text)
        elf = folder / "loader.elf"
        names = ["facts.c"]
        for where, sources in SOURCES.items():
            names += boards.copied(where, folder, sources)
        (folder / "facts.c").write_text(facts_source(name, image_key, access_key))
        boards.compiled(elf, name, names, boards.cryptography(name, folder), "mps2_loader.ld", more=more)
        return boards.examined(elf, name)


def facts_source(name: str, image_key: bytes, access_key: bytes) -> str:
    """The boot loader's table as C: `port_facts` of port.h."""
    board = BOARDS[name]
    slots, records = (", ".join(f"0x{address:x}u" for address in pair) for pair in (board.slots, board.records))
    return f"""\
/* Made by `bms build`; do not edit. */
#include "port.h"

extern const port_facts link_facts;

/* aligned so that it lies behind the vectors, where programs look for it */
__attribute__((section(".facts"), aligned(512), used)) const port_facts link_facts = {{
    .sector_size = {boards.SECTOR_SIZE}u,
    .write_size = {boards.WRITE_SIZE}u,
    .slot_size = {boards.SLOT_SIZE}u,
    .slots = {{{slots}}},
    .records = {{{records}}},
    .image_key = {{{_bytes(image_key)}}},
    .access_key = {{{_bytes(access_key)}}},
    .layouts = {{{_bytes(layouts_hash())}}},
    .board = {{{_bytes(board.machine.encode("ascii"))}}},
}};
"""


def _bytes(values: bytes) -> str:
    return ", ".join(str(value) for value in values)
