"""`bms build`: the controller as a library, from the kernels that it runs in Python, without Python inside."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from enum import IntFlag
from pathlib import Path

from bms.core.estimator_layout import STATUS_CURRENT_BAD, STATUS_VOLTAGE_BAD
from bms.core.faults import Fault, Reaction
from bms.core.jit import PROGRAM as CORE
from bms.core.layout import CONFIG, STATE
from bms.core.machine_table import Request
from bms.core.step import STATUS_FAULT
from bms.firmware.header import header
from hal.codec.jit import PROGRAM as CODEC
from hal.contract import COMMAND, MEASUREMENT, Constraint, Contactor, Flow, Quality, RackState, Severity, Shuttle
from hal.engine import Program
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms build`."""
    parser.add_argument("--target", required=True, choices=["host"], help="host: a shared library for this computer")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("build"), help="folder for the result (default: build)"
    )
    parser.add_argument("--twin", action="store_true", help=f"also make {TWIN}, for sim: racks without a compiler")


def run(args: argparse.Namespace) -> int:
    """Run `bms build`. Returns 0."""
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"-o {args.output}: cannot be made: {error.strerror}") from error
    made = [link(args.output / LIBRARY, (CORE, CODEC)), args.output / HEADER]
    _write(made[1], rackbms_header())
    if args.twin:
        from hal.backends.twin import PROGRAM

        made.append(link(args.output / TWIN, (PROGRAM,)))
    for path in made:
        print(path)
    return GOOD


def rackbms_header() -> str:
    """The header of the controller's library."""
    return header(
        CORE,
        (CONFIG, STATE, MEASUREMENT, COMMAND),
        (Quality, Contactor, RackState, Flow, Severity, Constraint, Shuttle, Request, Fault, Reaction, Status),
        "The controller of a rack: estimator of every cell, protection and control.",
    )


def link(library: Path, programs: Sequence[Program]) -> Path:
    """Compile `programs` and link them into the shared library `library`. Raises `ConfigError`."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise ConfigError(
            f"no C compiler found ({os.environ.get('CC') or 'cc'}): install gcc or clang, or name one in CC"
        )
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as folder:
        objects = [Path(folder) / f"{program.name}.o" for program in programs]
        for path, program in zip(objects, programs, strict=True):
            path.write_bytes(program.code())
        linked = Path(folder) / library.name
        done = subprocess.run(
            [compiler, "-shared", "-o", linked, *objects], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise ConfigError(f"{compiler} cannot link {library}: {lines[-1] if lines else 'it does not say why'}")
        linked.replace(library)  # a process that runs the library before keeps its file
    return library


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
