"""Where the kernels of a command run: compiled here, from a library that `bms build` made, or on a processor apart."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hal.engine import Library, Program, prepare
from hal.errors import ConfigError

JIT = "jit"
PLACES = ("qemu:", "process:", "serial:")
EXPECTED = "jit, lib:PATH, or qemu:BOARD, process:host or serial:DEVICE, and [,jit|,lib:PATH] behind these"


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The option `--engine`."""
    parser.add_argument(
        "--engine",
        default=JIT,
        metavar="jit|lib:PATH|PLACE",
        help="jit: compile what is not kept from an earlier run, the default; lib:PATH[,PATH]: libraries that bms "
        "build made, which need no compiler; qemu:cortex-m7[,jit]: the firmware of a board in an emulator [each of "
        "its decisions compared with jit, or with lib:PATH]; process:host: the firmware as a process of this computer; "
        "serial:DEVICE[?baud=N]: a board that is there",
    )


def ready(engine: str, programs: Sequence[Program], *, quiet: bool = False) -> None:
    """Have `programs` at hand, the most important first; tells on the terminal what has to be compiled.

    `engine` is the option's text. The first program has to be in one of the libraries named there, or runs at the place
    named there; of the others, those that are in no library are compiled. Raises `ConfigError`.
    """
    where, below = _parted(engine)
    opened = [Library(path) for path in libraries(engine)]
    for k, program in enumerate(programs):
        holding = [library for library in opened if library.table(program.prefix) is not None]
        if k == 0 and opened and not holding:
            holding = opened[:1]  # says what is wrong with it
        program.use(holding[0] if holding else None)
    if where:
        _place(programs[0], where, bool(below), quiet)
    prepare(programs, None if quiet else _say)


def libraries(engine: str) -> list[Path]:
    """The files that an option's text names. Raises `ConfigError` for a text that is none."""
    where, below = _parted(engine)
    kind, _, paths = below.partition(":")
    if below != JIT and not (where and not below) and (kind != "lib" or not paths):
        raise ConfigError(f"--engine {engine}: expected {EXPECTED}")
    return [Path(path) for path in paths.split(",")] if paths else []


def _parted(engine: str) -> tuple[str, str]:
    """The place that an option's text names, '' without one, and the engine of this computer, '' without one."""
    if not engine.startswith(PLACES):
        return "", engine
    place, _, below = engine.partition(",")
    return place, below


def place(engine: str) -> str:
    """The place that an option's text names, '' without one."""
    return _parted(engine)[0]


def alone(engine: str) -> bool:
    """Whether there is but one controller, a board, which cannot run for several at once."""
    return place(engine).startswith("serial:")


def _place(program: Program, place: str, compared: bool, quiet: bool) -> None:
    """Have the controller's `program` run elsewhere. Raises `ConfigError`."""
    from bms.firmware.inloop import Elsewhere
    from bms.firmware.places import kernels, parse

    elsewhere, target = Elsewhere(program, place, compared), parse(place).target
    if not quiet:
        compiled = "; its code is compiled where it is not kept from before" if target else ""
        _say(f"the controller runs on {place}{compiled}")
    if target:
        kernels(program, target)
    if compared or not target:
        program.here("step")
    program.run_elsewhere(elsewhere.entries())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
