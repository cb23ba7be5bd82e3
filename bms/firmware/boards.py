"""Boards: from the object of the kernels and a configuration to a program that a microcontroller starts.

The C sources of the folder `board` are compiled together with the configuration and linked with the kernels; no C
library takes part. The result depends on nothing but these, and on the compiler. A program for a slot has, besides,
what remains of its boot loader: `loader/resident.c` and the folder `boot`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bms.firmware import can_tables
from bms.firmware.baked import Baked, config_header, config_source
from bms.firmware.boot import sources as third
from bms.firmware.toolchain import run
from hal.engine.elf import Elf
from hal.engine.stack import Depth, deepest, frames
from hal.errors import ConfigError

COMPILER = "arm-none-eabi-gcc"

FLAGS = (
    "-O2", "-std=c11", "-ffreestanding", "-ffp-contract=off", "-fno-strict-aliasing",
    "-fno-tree-loop-distribute-patterns", "-ffunction-sections", "-fdata-sections",
)  # fmt: skip
"""What is no sum of products may not become one, nor `memset` a call of itself."""

THUMB = ("-mthumb", "-mfloat-abi=softfp")
"""As the kernels of boards want to be called."""

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")

LINKING = ("-nostdlib", "-lgcc", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-S", "-Wl,-z,noexecstack")

PROGRAM = "the program"
ENTRIES = {
    PROGRAM: "start",
    "a step": "control_step",
    "the timer's interrupt": "board_millisecond",
    "the link's interrupt": "board_interrupt",
    "the CAN port's interrupt": "board_can_interrupt",
}
"""What runs, and the function that it begins with. The interrupts have a stack of their own."""

SAVED = 108
"""Bytes that an interrupt saves on the program's stack: 26 words, and one to align them (Armv7-M manual, B1.5.7)."""


SLOTS_AT = 8 << 20
"""Where in the large memory that begins which stands in for a flash: two slots, two sectors of records."""
SLOT_SIZE, SECTOR_SIZE, WRITE_SIZE = 1 << 20, 8192, 32
SLOTS = "ab"
"""Names of the slots."""


@dataclass(frozen=True)
class Board:
    """A board: its processor as the C compiler names it, its machine in the emulator, where its large memory is.

    Images name it as the emulator does, by its `machine`.
    """

    about: str
    cpu: str
    machine: str
    store: int
    emulator: str = "qemu-system-arm"

    @property
    def slots(self) -> tuple[int, int]:
        """Addresses of the slots that a boot loader knows."""
        first = self.store + SLOTS_AT
        return first, first + SLOT_SIZE

    @property
    def records(self) -> tuple[int, int]:
        """Addresses of the two sectors that a boot loader remembers in."""
        first = self.store + SLOTS_AT + 2 * SLOT_SIZE
        return first, first + SECTOR_SIZE


BOARDS: dict[str, Board] = {
    "cortex-m7": Board("Arm MPS2 with AN500, emulated by QEMU", "cortex-m7", "mps2-an500", 0x60000000),
    "cortex-m4f": Board("Arm MPS2 with AN386, emulated by QEMU", "cortex-m4", "mps2-an386", 0x21000000),
}
"""Boards by the name of their processor in `hal.engine.targets`."""


@dataclass(frozen=True)
class Firmware:
    """A linked program: the ELF file, the bytes of the flash and of the configuration, and how deep its stacks get."""

    elf: bytes
    flash: bytes
    config: bytes
    stack: Mapping[str, Depth]


def link(
    name: str,
    kernels: bytes,
    header: str,
    found: Baked,
    slot: int | None = None,
    *,
    main: str = "",
    more: Sequence[str] = (),
) -> Firmware:
    """The program of the board `name`, alone or for a slot; `main` and `more` as for `compile_to`.

    Raises `ConfigError` where the compiler is missing or complains.
    """
    with tempfile.TemporaryDirectory(prefix="rackbms-") as text:
        elf = Path(text) / "firmware.elf"
        compile_to(elf, name, kernels, header, found, main=main, slot=slot, more=more)
        return examined(elf, name, "config" if slot is None else "")


def examined(elf: Path, name: str, apart: str = "") -> Firmware:
    """A program that was linked; what lies in the section `apart` is no part of its flash. Raises `ConfigError`."""
    stack = stack_of(run(["arm-none-eabi-objdump", "-d", elf], "list the program"))
    parts = {"flash": [f"--remove-section=.{apart}"] if apart else [], "config": [f"--only-section=.{apart}"]}
    made = {}
    for part, words in parts.items():
        binary = elf.with_suffix(f".{part}")
        binary.write_bytes(b"")
        if apart or part == "flash":
            run(["arm-none-eabi-objcopy", "-O", "binary", *words, elf, binary], "make a binary of the program")
        made[part] = binary.read_bytes()
    found = Firmware(elf.read_bytes(), **made, stack=stack)
    at = {symbol.name: symbol.value for symbol in Elf(found.elf).symbols()}
    room, needed = at["link_stack_top"] - at["link_stack"], stack[PROGRAM].size + SAVED
    if needed > room:
        raise ConfigError(f"{name}: the program can take {needed} bytes of stack, program.ld has room for {room}")
    return found


def compile_to(
    elf: Path,
    name: str,
    kernels: bytes,
    header: str,
    found: Baked,
    *,
    main: str = "",
    slot: int | None = None,
    more: Sequence[str] = (),
) -> None:
    """Compile and link beside `elf`, alone or for a slot; `main` is C that takes the place of the program, `more` are
    options for gcc. Raises `ConfigError`.
    """
    folder = elf.parent
    sources = [*copied(BOARD, folder), *generated(folder, kernels, header, found)]
    objects = [folder / KERNELS]
    if main:
        (folder / "main.c").write_text(main)
    if slot is not None:
        sources += [*copied(LOADER, folder, RESIDENT), *copied(BOOT, folder, RESIDENT_BOOT)]
        objects += cryptography(name, folder)
        more = ["-DBOARD_SLOT", *more]
    compiled(elf, name, sources, objects, "mps2.ld" if slot is None else "mps2_slot.ld", slot or 0, more)


KERNELS = "rackbms.o"


def generated(folder: Path, kernels: bytes, header: str, found: Baked) -> list[str]:
    """Put what is made of kernels and configuration into `folder`; gives the sources' names. Raises `ConfigError`."""
    bus = can_tables.CanTables(can_tables.profile_of(found))
    for path, content in (
        ("rackbms.h", header),
        ("rackbms_config.h", config_header(found)),
        ("rackbms_config.c", config_source(found)),
        (can_tables.HEADER, bus.header),
        (can_tables.SOURCE, bus.source),
    ):
        (folder / path).write_text(content)
    (folder / KERNELS).write_bytes(kernels)
    return ["rackbms_config.c", can_tables.SOURCE]


BOARD, LOADER, BOOT = "board", "loader", "boot"
RESIDENT = ("desk.c", "mps2_boot.c", "resident.c")
RESIDENT_BOOT = ("boot.c", "crypto.c", "image.c", "isotp.c", "record.c", "uds.c", "update.c")
"""Sources of the folders `loader` and `boot` that a program for a slot has."""


def copied(where: str, folder: Path, only: Sequence[str] = ()) -> list[str]:
    """Put the C of a folder of the package, headers and scripts included, into `folder`; gives the sources' names."""
    names = []
    for source in sorted(resources.files(__package__).joinpath(where).iterdir(), key=lambda entry: entry.name):
        if source.name.endswith((".h", ".ld")) or (
            source.name.endswith(".c") and source.name in (only or {source.name})
        ):
            (folder / source.name).write_text(source.read_text())
            names += [source.name] if source.name.endswith(".c") else []
    return names


def compiled(
    elf: Path,
    name: str,
    sources: Sequence[str],
    objects: Sequence[Path],
    script: str,
    slot: int = 0,
    more: Sequence[str] = (),
) -> None:
    """Compile `sources`, which lie beside `elf`, and link them by `script`, for a slot where that has one.

    Raises `ConfigError`.
    """
    board, folder = BOARDS[name], elf.parent
    places = {"BOARD_STORE": board.store, "BOARD_SLOTS": board.slots[0], "BOARD_SLOT": board.slots[slot]}
    text = (folder / script).read_text()
    for place, address in places.items():
        text = re.sub(rf"\b{place}\b", hex(address), text)
    (folder / script).write_text(text)
    words: list[str | Path] = [*_usual(board, folder), *WARNINGS, *more]
    words += [folder / source for source in sources]
    words += [*objects, f"-L{folder}", f"-T{folder / script}", *LINKING, "-o", elf]
    run(words, f"make the firmware of {name}")


def _usual(board: Board, folder: Path) -> list[str | Path]:
    return [COMPILER, f"-mcpu={board.cpu}", *THUMB, *FLAGS, f"-I{folder}", f"-ffile-prefix-map={folder}=."]


def cryptography(name: str, folder: Path) -> list[Path]:
    """Put the headers of the boot loader's cryptography into `folder`, and its objects for the board `name`.

    Raises `ConfigError`.
    """
    third.fetch(folder)
    objects = []
    for source in third.SOURCES:
        made = (folder / source).with_suffix(".o")
        run(
            [*_usual(BOARDS[name], folder), *third.OPTIONS, "-c", folder / source, "-o", made],
            f"compile {source} for {name}",
        )
        objects.append(made)
    return objects


def compiler(made: Firmware | None) -> dict[str, str]:
    """The C compiler that has `made` a program, by name; nothing where there is none."""
    return {} if made is None else {COMPILER: run([COMPILER, "-dumpfullversion"], "tell its version").strip()}


def stack_of(listing: str) -> dict[str, Depth]:
    """The most stack of the program and of each interrupt, from the disassembly of the whole."""
    functions = frames(listing)
    return {name: deepest(functions, entry) for name, entry in ENTRIES.items() if entry in functions}
