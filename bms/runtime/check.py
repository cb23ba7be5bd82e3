"""`bms check`: looks a rack's configuration over, and says what to do about what it finds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping

from bms import cells, racks
from bms.racks import profile_check
from bms.racks.check import check
from bms.racks.findings import ERROR, Finding
from hal.errors import ConfigError

DESCRIPTION = """\
Look a rack's configuration over: order of the tiers of every fault, thresholds against cell, chemistry and sensors,
times against the fault-tolerant time, precharge against resistor and link, balancing against its boards, and more.
Or look a profile over, which says what a rack is on a wire: signals and registers that overlap or that nothing uses,
channels that are missing, cycles, checksums, the load of the bus.
"""

EXAMPLES = """\
examples:
  bms check lfp_280                      a configuration that comes with the package
  bms check site/rack7.toml              one of your own
  bms check site/rack7.toml --cell na_185   the same rack with other cells
  bms check site/rack7.toml --json       for a script: {"file", "errors", "warnings", "findings": [...]}
  bms check --profile site/rack7_can.toml   what that rack is on CAN, or on Modbus
  bms check --profile foxbms,ivt         a profile that comes with the package, and a sensor beside it

Each finding is a line `file: key = value: finding; what to do`. Exit codes: 0 no errors (warnings there may be),
1 errors, 2 a file that cannot be read as a configuration at all: one line, which names the first thing in the way.
"""

_COLOURS = {"error": "\033[31m", "warning": "\033[33m"}
_PLAIN = "\033[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bms check`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="name of a rack of the package, or path of a .toml file"
    )
    parser.add_argument("--profile", metavar="NAME", help="a profile instead: its name, or path of a .toml file")
    parser.add_argument("--cell", metavar="CELL", help="cell file to take instead of the one that CONFIG names")
    parser.add_argument("--json", action="store_true", help="findings as JSON on the standard output")


def run(args: argparse.Namespace) -> int:
    """Check, print, and return the exit code."""
    if (args.config is None) == (args.profile is None):
        raise ConfigError("bms check: give one of CONFIG, a rack's configuration, and --profile NAME")
    if args.profile is not None:
        if args.cell:
            raise ConfigError(f"--cell {args.cell}: a profile knows no cell; leave it out")
        what, found = profile_check.check(args.profile)
        head = {"file": args.profile}
    else:
        config = racks.load(args.config, cells.load(args.cell) if args.cell else None)
        what, found = about(config), check(config)
        head = {"file": config.source, "cell": config.cell.name}
    errors = sum(finding.severity == ERROR for finding in found)
    if args.json:
        print(as_json(head, found, errors))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        for finding in found:
            print(line(finding, colour))
        print(summary(what, errors, len(found) - errors))
    return 1 if errors else 0


def line(finding: Finding, colour: bool) -> str:
    """A finding, behind its severity."""
    word = f"{finding.severity:<7}"
    return f"{_COLOURS[finding.severity]}{word}{_PLAIN} {finding}" if colour else f"{word} {finding}"


def about(config: racks.RackConfig) -> str:
    """What a configuration is."""
    rack = config.rack
    return f"{config.source}: {rack.n_series}s{rack.n_parallel}p of {config.cell.name}, {len(config.rows)} fault rows"


def summary(what: str, errors: int, warnings: int) -> str:
    """The last line: how much was found, and in `what`."""
    if not errors and not warnings:
        return f"{what}: no findings"
    return f"{what}: {_count(errors, 'error')}, {_count(warnings, 'warning')}"


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def as_json(head: Mapping[str, str], found: list[Finding], errors: int) -> str:
    """All findings for a script, behind the keys of `head`."""
    return json.dumps(
        {
            **head,
            "errors": errors,
            "warnings": len(found) - errors,
            "findings": [
                {
                    "severity": finding.severity,
                    "file": finding.source,
                    "key": finding.key,
                    "value": finding.value,
                    "finding": finding.text,
                    "remedy": finding.remedy,
                }
                for finding in found
            ],
        },
        indent=2,
    )
