"""Where the kernels of a command come from: compiled here, or out of a library that `bms build` made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hal.engine import Library, Program, prepare
from hal.errors import ConfigError

JIT = "jit"


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The option `--engine`."""
    parser.add_argument(
        "--engine",
        default=JIT,
        metavar="jit|lib:PATH",
        help="jit: compile what is not kept from an earlier run, the default; lib:PATH[,PATH]: libraries that bms "
        "build made, which need no compiler",
    )


def ready(engine: str, programs: Sequence[Program], *, quiet: bool = False) -> None:
    """Have `programs` at hand, the most important first; tells on the terminal what has to be compiled.

    `engine` is the option's text. The first program has to be in one of the libraries named there; of the others, those
    that are in none are compiled. Raises `ConfigError`.
    """
    kind, _, paths = engine.partition(":")
    if engine != JIT and (kind != "lib" or not paths):
        raise ConfigError(f"--engine {engine}: expected jit, or lib:PATH")
    libraries = [Library(Path(path)) for path in paths.split(",")] if paths else []
    for k, program in enumerate(programs):
        holding = [library for library in libraries if library.table(program.prefix) is not None]
        if k == 0 and not holding:
            holding = libraries[:1]  # says what is wrong with it
        program.use(holding[0] if holding else None)
    prepare(programs, None if quiet else _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
