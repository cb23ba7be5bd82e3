"""`bms build`: the controller without Python inside, from the kernels that it runs in Python.

For this computer it becomes a shared library; for the processor of a controller an object, with a header and a report.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from enum import IntFlag
from importlib import metadata
from pathlib import Path

from bms.core.estimator_layout import STATUS_CURRENT_BAD, STATUS_VOLTAGE_BAD
from bms.core.faults import Fault, Reaction
from bms.core.jit import PROGRAM as CORE
from bms.core.machine_table import Request
from bms.core.step import STATUS_FAULT
from bms.firmware import boards, processes, report
from bms.firmware.baked import LAYOUTS, Baked, baked, config_header, config_source
from bms.firmware.header import header, layouts_digest, processor_notes
from bms.firmware.loader import made as loader
from hal.codec.jit import PROGRAM as CODEC
from hal.contract import Constraint, Contactor, Flow, Quality, RackState, Severity, Shuttle
from hal.engine import Program
from hal.engine.elf import Elf
from hal.engine.load import symbol
from hal.engine.program import compiler_versions
from hal.engine.stack import deepest, frames
from hal.engine.targets import PROCESSORS
from hal.errors import ConfigError


class Status(IntFlag):
    """Bits of what a step returns."""

    CURRENT_BAD = STATUS_CURRENT_BAD  # the current was unusable: the last good one was used
    VOLTAGE_BAD = STATUS_VOLTAGE_BAD  # the voltage of at least one cell was unusable
    FAULT = STATUS_FAULT  # a fatal fault is active or latched


GOOD = 0
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
LIBRARY = f"librackbms{SUFFIX}"
HEADER = "rackbms.h"
TWIN = f"libracktwin{SUFFIX}"
OBJECT = "rackbms.o"
REPORT = "report.txt"

HOST = "host"
CROSS = {"cortex-a53": "aarch64-linux-gnu-gcc"}
"""Processors with Linux, and what links the library for them, where it is installed."""


def _also(name: str) -> str:
    board = boards.BOARDS.get(name)
    if board is not None:
        return f"; with --config, a program for {board.about}"
    machine = processes.MACHINES.get(name)
    return f"; with --config, a program too: {machine.about}" if machine is not None else ""


TARGETS = {
    HOST: "this computer: a shared library",
    **{name: f"{processor.about}: an object{_also(name)}" for name, processor in PROCESSORS.items()},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms build`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "targets:\n" + "\n".join(f"  {name:<13} {about}" for name, about in TARGETS.items())
    parser.add_argument("--target", required=True, choices=list(TARGETS), metavar="TARGET", help="what it is for")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("build"), help="folder for the result (default: build)"
    )
    parser.add_argument(
        "--config", metavar="CONFIG", help="bake in the configuration of a rack: a name of the package, or a .toml file"
    )
    parser.add_argument(
        "--sensors", metavar="N", type=int, help="temperature sensors of that rack (default: one for eight cells)"
    )
    parser.add_argument(
        "--boot",
        metavar="KEY.pub",
        type=Path,
        help="for a board: also its boot loader, which takes images signed by this key, and a program for each slot",
    )
    parser.add_argument(
        "--access", metavar="KEY.pub", type=Path, help="key of whoever may send images to it (default: that of --boot)"
    )
    parser.add_argument("--twin", action="store_true", help=f"also make {TWIN}, for sim: racks without a compiler")


def run(args: argparse.Namespace) -> int:
    """Run `bms build`. Returns 0."""
    if args.twin and args.target != HOST:
        raise ConfigError(f"--twin is a library for this computer: use it with --target {HOST}")
    if args.sensors is not None and args.config is None:
        raise ConfigError("--sensors belongs to a configuration: give --config, too")
    keys = _keys(args)
    found = baked(args.config, args.sensors) if args.config is not None else None
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"-o {args.output}: cannot be made: {error.strerror}") from error
    for path in _host(args.output, args.twin, found) if args.target == HOST else _image(args, found, keys):
        print(path)
    return GOOD


def _keys(args: argparse.Namespace) -> tuple[bytes, bytes] | None:
    """Keys of a boot loader: of whoever may sign, and of whoever may send."""
    if args.boot is None:
        if args.access is not None:
            raise ConfigError("--access belongs to a boot loader: give --boot, too")
        return None
    if args.target not in boards.BOARDS:
        raise ConfigError(f"--boot: there is no board for {args.target} (there are: {', '.join(boards.BOARDS)})")
    from bms.firmware.keys import public_key

    return public_key(args.boot), public_key(args.access or args.boot)


def _host(folder: Path, twin: bool, found: Baked | None) -> Iterator[Path]:
    """Make what this computer uses; gives each file."""
    yield link(folder / LIBRARY, (CORE, CODEC))
    yield _write(folder / HEADER, rackbms_header())
    if found is not None:
        yield from _configuration(folder, found)
    if twin:
        from hal.backends.twin import PROGRAM

        yield link(folder / TWIN, (PROGRAM,))


def _image(args: argparse.Namespace, found: Baked | None, keys: tuple[bytes, bytes] | None) -> Iterator[Path]:
    """Make what a controller's processor uses; gives each file."""
    folder, target = args.output, args.target
    code, assembly = CORE.image(target)
    yield _write(folder / OBJECT, code)
    if (compiler := shutil.which(CROSS.get(target, ""))) is not None:
        codes = {CORE.name: code, CODEC.name: CODEC.image(target)[0]}
        yield _linked(folder / LIBRARY, compiler, codes)
    yield _write(folder / HEADER, rackbms_header(target))
    if found is not None:
        yield from _configuration(folder, found)
    stack = {symbol(CORE.prefix, name): deepest(frames(assembly), symbol(CORE.prefix, name)) for name in CORE.entries}
    made = boards.link(target, code, rackbms_header(target), found) if found and target in boards.BOARDS else None
    if made is not None:
        stack |= made.stack
        yield _write(folder / "firmware.elf", made.elf)
        yield _write(folder / "firmware.bin", made.flash)
        yield _write(folder / "config.bin", made.config)
    elif found is not None and (elf := processes.link(target, code, rackbms_header(target), found)) is not None:
        yield _write(folder / "firmware.elf", elf)
    if keys is not None:
        yield _write(folder / "boot.elf", loader.link(target, *keys).elf)
    if keys is not None and found is not None:
        for slot, name in enumerate(boards.SLOTS):
            program = boards.link(target, code, rackbms_header(target), found, slot)
            yield _write(folder / f"slot-{name}.bin", program.flash)
    facts = report.Facts(
        target=target,
        processor=PROCESSORS[target],
        versions={"rackbms": metadata.version("rackbms"), **compiler_versions(), **boards.compiler(made)},
        hashes=hashes(found),
        layouts=LAYOUTS,
        rack=report.USUAL_RACK if found is None else (found.record.n_cells, found.record.n_sensors),
        kernels=Elf(code),
        stack=stack,
        firmware=None if made is None else Elf(made.elf),
    )
    yield _write(folder / REPORT, report.text(facts))


def _configuration(folder: Path, found: Baked) -> Iterator[Path]:
    yield _write(folder / "rackbms_config.h", config_header(found))
    yield _write(folder / "rackbms_config.c", config_source(found))


def hashes(found: Baked | None) -> dict[str, str]:
    """Short hashes of what the two sides of a link have to agree on."""
    named = {"kernels": CORE.table.digest[:16], "layouts": layouts_digest(LAYOUTS)}
    return named if found is None else named | {"configuration": f"{found.digest}  {found.source}"}


def rackbms_header(target: str = HOST) -> str:
    """The header of the controller's functions, as they are called on `target`."""
    return header(
        CORE,
        LAYOUTS,
        (Quality, Contactor, RackState, Flow, Severity, Constraint, Shuttle, Request, Fault, Reaction, Status),
        "The controller of a rack: estimator of every cell, protection and control.",
        processor_notes(CORE.prefix, target, "" if target == HOST else PROCESSORS[target].target.triple),
    )


def link(library: Path, programs: Sequence[Program]) -> Path:
    """Compile `programs` and link them into the shared library `library`. Raises `ConfigError`."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise ConfigError(
            f"no C compiler found ({os.environ.get('CC') or 'cc'}): install gcc or clang, or name one in CC"
        )
    return _linked(library, compiler, {program.name: program.code() for program in programs})


def _linked(library: Path, compiler: str, codes: Mapping[str, bytes]) -> Path:
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as folder:
        objects = [Path(folder) / f"{name}.o" for name in codes]
        for path, code in zip(objects, codes.values(), strict=True):
            path.write_bytes(code)
        linked = Path(folder) / library.name
        done = subprocess.run(
            [compiler, "-shared", "-o", linked, *objects], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise ConfigError(f"{compiler} cannot link {library}: {lines[-1] if lines else 'it does not say why'}")
        linked.replace(library)  # a process that runs the library before keeps its file
    return library


def _write(path: Path, content: str | bytes) -> Path:
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return path
