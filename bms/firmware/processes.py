"""The firmware as a process of Linux: for processors that no board here has, for one with Linux, and for this computer.

The C sources are those of the boards, but for start, interrupts and registers: `linux/linux.c` is in their place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bms.firmware.baked import Baked
from bms.firmware.boards import FLAGS, KERNELS, WARNINGS, generated
from bms.firmware.toolchain import run

BARE = ("cortexm.c", "mps2.c")
"""Sources of boards that no process needs."""

POSITION = ("-fno-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables")
LINKING = (
    "-static", "-no-pie", "-nostdlib", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-S", "-Wl,-z,noexecstack",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What compiles a program, with the options for its processor, and what runs it: nothing for this computer."""

    about: str
    compiler: str
    options: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()


HOST = "host"
MACHINES: dict[str, Machine] = {
    HOST: Machine("a process of this computer", os.environ.get("CC") or "cc"),
    "cortex-a53": Machine("a process of Linux", "aarch64-linux-gnu-gcc", ("-mcpu=cortex-a53",), ("qemu-aarch64",)),
    "cortex-m33": Machine(
        "a process of Linux in QEMU",
        "arm-none-eabi-gcc",
        ("-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=softfp"),
        ("qemu-arm", "-cpu", "max"),
    ),
    "riscv32imafc": Machine(
        "a process of Linux in QEMU",
        "riscv64-unknown-elf-gcc",
        ("-march=rv32imafc", "-mabi=ilp32f"),
        ("qemu-riscv32",),
    ),
}
"""Processes by the name of their processor in `hal.engine.targets`."""


def link(name: str, kernels: bytes, header: str, found: Baked) -> bytes | None:
    """The program, as the content of its file; None where its compiler is not installed. Raises `ConfigError`."""
    if shutil.which(MACHINES[name].compiler) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="rackbms-") as folder:
        elf = Path(folder) / "firmware.elf"
        compile_to(elf, name, kernels, header, found)
        return elf.read_bytes()


def compile_to(elf: Path, name: str, kernels: bytes, header: str, found: Baked, *, more: Sequence[str] = ()) -> None:
    """Compile and link beside `elf`; `more` are options for gcc. Raises `ConfigError`."""
    machine, folder = MACHINES[name], elf.parent
    sources = generated(folder, kernels, header, found)
    for room in ("board", "linux"):
        for source in sorted(resources.files(__package__).joinpath(room).iterdir(), key=lambda entry: entry.name):
            if source.name not in BARE:
                (folder / source.name).write_text(source.read_text())
                sources += [source.name] if source.name.endswith(".c") else []
    words: list[str | Path] = [machine.compiler, *machine.options, *FLAGS, *POSITION, *WARNINGS, *more]
    words += [f"-I{folder}", f"-ffile-prefix-map={folder}=.", *(folder / source for source in sources)]
    words += [folder / KERNELS, f"-Wl,-T,{folder / 'linux.ld'}", *LINKING, "-lgcc", "-o", elf]
    run(words, f"make the process for {name}")
