"""Boards: from the object of the kernels and a configuration to a program that a microcontroller starts.

The C sources of the folder `board` are compiled together with the configuration and linked with the kernels; no C
library takes part. The result depends on nothing but these, and on the compiler.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bms.firmware import can_tables
from bms.firmware.baked import Baked, config_header, config_source
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


@dataclass(frozen=True)
class Board:
    """A board: its processor as the C compiler names it, its machine in the emulator, where its large memory is."""

    about: str
    cpu: str
    machine: str
    store: int
    emulator: str = "qemu-system-arm"


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


def link(name: str, kernels: bytes, header: str, found: Baked) -> Firmware:
    """The program of the board `name`. Raises `ConfigError` where the compiler is missing or complains."""
    with tempfile.TemporaryDirectory(prefix="rackbms-") as text:
        folder = Path(text)
        elf = folder / "firmware.elf"
        compile_to(elf, name, kernels, header, found)
        stack = stack_of(run(["arm-none-eabi-objdump", "-d", elf], "list the program"))
        parts = {}
        for part, words in (("flash", ["--remove-section=.config"]), ("config", ["--only-section=.config"])):
            run(["arm-none-eabi-objcopy", "-O", "binary", *words, elf, folder / part], "make a binary of the program")
            parts[part] = (folder / part).read_bytes()
        made = Firmware(elf.read_bytes(), **parts, stack=stack)
    at = {symbol.name: symbol.value for symbol in Elf(made.elf).symbols()}
    room, needed = at["link_stack_top"] - at["link_stack"], stack[PROGRAM].size + SAVED
    if needed > room:
        raise ConfigError(f"{name}: the program can take {needed} bytes of stack, mps2.ld has room for {room}")
    return made


def compile_to(
    elf: Path, name: str, kernels: bytes, header: str, found: Baked, *, main: str = "", more: Sequence[str] = ()
) -> None:
    """Compile and link beside `elf`; `main` is C that takes the place of the program, `more` are options for gcc."""
    board, folder = BOARDS[name], elf.parent
    bus = can_tables.CanTables(can_tables.profile_of(found))
    for path, content in (
        ("rackbms.h", header),
        ("rackbms_config.h", config_header(found)),
        ("rackbms_config.c", config_source(found)),
        (can_tables.HEADER, bus.header),
        (can_tables.SOURCE, bus.source),
    ):
        (folder / path).write_text(content)
    (folder / "rackbms.o").write_bytes(kernels)
    names = []
    for source in sorted(resources.files(__package__).joinpath("board").iterdir(), key=lambda entry: entry.name):
        content = source.read_text()
        if source.name.endswith(".ld"):
            content = content.replace("BOARD_STORE", hex(board.store))
        if source.name == "main.c" and main:
            content = main
        (folder / source.name).write_text(content)
        if source.name.endswith(".c"):
            names.append(source.name)
    words: list[str | Path] = [
        COMPILER,
        f"-mcpu={board.cpu}",
        *THUMB,
        *FLAGS,
        *WARNINGS,
        f"-I{folder}",
        f"-ffile-prefix-map={folder}=.",
        *more,
    ]
    words += [folder / source for source in (*names, "rackbms_config.c", can_tables.SOURCE)]
    words += [folder / "rackbms.o", f"-T{folder / 'mps2.ld'}", *LINKING, "-o", elf]
    run(words, f"make the firmware of {name}")


def compiler(made: Firmware | None) -> dict[str, str]:
    """The C compiler that has `made` a program, by name; nothing where there is none."""
    return {} if made is None else {COMPILER: run([COMPILER, "-dumpfullversion"], "tell its version").strip()}


def stack_of(listing: str) -> dict[str, Depth]:
    """The most stack of the program and of each interrupt, from the disassembly of the whole."""
    functions = frames(listing)
    return {name: deepest(functions, entry) for name, entry in ENTRIES.items()}
