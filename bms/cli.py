"""The `bms` command: finds the sub-command, and turns errors that a user can mend into one line.

A sub-command is a module with `add_arguments(parser)` and `run(args) -> int`. It is imported only when it is asked
for, so that help and typing errors answer at once although numba and matplotlib take seconds to import.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn, TextIO

from hal.errors import RackBmsError, nearest

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("bms.runtime.run", "run the control loop on a rack: the embedded twin unless told otherwise"),
    "identify": ("bms.lab.identify", "make a cell file from laboratory tests"),
    "estimate": ("bms.lab.estimate", "estimate state of charge along a logged trace"),
    "replay": ("bms.runtime.replay", "run the controller again over a recording and compare every decision"),
    "serve": ("bms.runtime.serve", "offer a rack, the twin above all, as a device on CAN and Modbus"),
    "trial": ("bms.trial.command", "try a controller against faults, and write the ledger of its reactions"),
    "check": ("bms.runtime.check", "look a rack's configuration over and say what is wrong with it"),
    "build": ("bms.firmware.build", "make library, object or firmware of the controller, without Python inside"),
    "fil": ("bms.firmware.fil", "firmware in the loop: run a board in step with a rack, and compare every decision"),
    "node": ("bms.firmware.node", "run the firmware on an emulated board, as a node of a rack's CAN bus"),
    "keygen": ("bms.firmware.keys", "make a key pair for signing firmware, or for letting a flasher in"),
    "sign": ("bms.firmware.sign", "make a signed image of a program, for a boot loader that checks it"),
    "image": ("bms.firmware.image_info", "tell what an image says of itself"),
    "bundle": ("bms.firmware.bundle", "make signed bundles for Linux controllers, and the repository that offers them"),
    "flash": ("bms.firmware.flash", "bring a signed image or bundle onto a controller, and tell what runs there"),
    "start": ("bms.firmware.start", "on a Linux controller: check the bundles, and start the one that is to run"),
    "doctor": ("bms.rig.doctor", "look a rack over, on whatever wire, and say what is wrong with what it tells"),
    "report": ("bms.runtime.report", "make a self-contained HTML page of a run"),
}
"""Sub-commands: (module, one line of help)."""

EXTRAS = {
    "scipy": "lab",
    "matplotlib": "report",
    "pyarrow": "parquet",
    "distributed": "dask",
    "cryptography": "firmware",
    "packaging": "firmware",
    "securesystemslib": "firmware",
    "tuf": "firmware",
}
"""Optional packages and the extra of `rackbms` that brings them."""

GOOD, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE

DESCRIPTION = "Battery management for grid racks: one control loop for the rack, its twin and the firmware."

EXAMPLES = """\
examples:
  bms run                                         a day of frequency regulation on a twin of 416 cells, with a report
  bms run --duration 1h --out runs/short          a shorter one, kept in a folder of your choice
  bms replay runs/short                           the same decisions again, bit for bit?
  bms serve --modbus tcp://127.0.0.1:5020         the twin as a Modbus device, for any controller
  bms trial run --all                             every fault of the table, with the time until the contactors are open
  bms check my_rack.toml                          is this configuration of a rack sound?
  bms identify --from-twin lfp_280 -o cell.toml   a cell file from a virtual laboratory test
  bms estimate trace.csv --cell lfp_a123 -o soc.csv

`bms COMMAND --help` tells all about one command. Exit codes: 0 good, 1 the thing under test failed, 2 wrong usage,
configuration or data.
"""


class Parser(argparse.ArgumentParser):
    """Options are spelt out in full, and a mistake is one line with the nearest option that exists."""

    def __init__(self, prog: str, description: str, epilog: str | None = None, **more: Any) -> None:
        """`more` is what newer interpreters hand on to the parser of an action (`color` since 3.14)."""
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # scripts must not break when an option is added
            **more,
        )

    def error(self, message: str) -> NoReturn:
        """Exit with one line instead of the whole usage."""
        self.exit(USAGE, f"bms: error: {message}; see {self.prog} --help\n")

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse `argv`; what is left over is an error that names the nearest option of the sub-command in `argv`."""
        args, rest = self.parse_known_args(argv)
        inner = self._sub_command(argv)
        for word in rest:
            if word.startswith("-"):
                known = [option for action in inner._actions for option in action.option_strings]
                inner.error(f"unknown option '{word}'{nearest(word.partition('=')[0], known)}")
        if rest:
            self.error(f"unexpected argument '{rest[0]}'")
        return args

    def _sub_command(self, argv: Sequence[str]) -> argparse.ArgumentParser:
        """The innermost parser that the words of `argv` lead to."""
        parser: argparse.ArgumentParser = self
        for word in argv:
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                    parser = action.choices[word]
        return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bms` with `argv` (without the program name) and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows '?', not a traceback
    try:
        try:
            return _dispatch(words)
        finally:
            sys.stdout.flush()  # a reader that has gone away shows here, not when the interpreter ends
    except RackBmsError as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _complain(f"this needs {error.name}, which is not installed: pip install 'rackbms[{extra}]'")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard(sys.stdout)
        return BROKEN_PIPE


def _dispatch(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        module_name, summary = COMMANDS[words[0]]
        # matrices here are small: threads cost more than they save, and how they divide a sum would show in the result
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        module = import_module(module_name)
        parser = Parser(f"bms {words[0]}", f"{summary[0].upper()}{summary[1:]}.")
        module.add_arguments(parser)
        return int(module.run(parser.parse_all(words[1:])))
    parser = Parser("bms", DESCRIPTION, EXAMPLES)
    parser.usage = "bms [-h] [--version] COMMAND [options]"
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_argument_group("commands")
    for name, (_, summary) in COMMANDS.items():
        commands.add_argument(name, nargs="?", help=summary)
    if words and not words[0].startswith("-"):
        parser.error(f"unknown command '{words[0]}'{nearest(words[0], COMMANDS)}")
    if parser.parse_all(words).version:
        from importlib.metadata import version

        print(f"rackbms {version('rackbms')}")
        return GOOD
    parser.print_help(sys.stderr)
    return USAGE


def _complain(message: str) -> int:
    print(f"bms: error: {' '.join(message.split())}", file=sys.stderr)
    return USAGE


def _discard(stream: TextIO) -> None:
    """Let what is still buffered for a reader that has gone away vanish when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
