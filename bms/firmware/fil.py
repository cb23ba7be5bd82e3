"""`bms fil`: firmware in the loop. A board is the controller of a rack; each of its decisions is compared with ours."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from bms.firmware.compare import Difference
from bms.runtime import SUMMARY, engine, scenario
from bms.runtime.run import choose, execute
from hal.errors import ConfigError
from hal.registry import is_site

DESCRIPTION = """\
Run the firmware of a board as the controller of a rack, in step with it, and make each step on this computer, too:
status, command and the whole memory of the controller have to be the same, bit by bit.
"""

EXAMPLES = """\
examples:
  bms fil --scenario open_wire --duration 15min
  bms fil --engine qemu:cortex-m4f --rack 'sim:na_185?n_series=16' --duration 1h
  bms fil --engine serial:/dev/ttyACM0 --rack 'sim:lfp_280?n_series=16' --duration 10min
  bms fil --against lib:build/librackbms.so --scenario sodium_cycle --duration 1h

Exit codes: 0 no difference, 1 there is one: it is told, 2 wrong usage or configuration. `bms run`, `bms replay` and
`bms trial run` take `--engine qemu:cortex-m7`, too, and with `,jit` behind it they compare in the same way.
"""

GOOD, FAILED = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms fil`."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "--engine",
        metavar="PLACE",
        default="qemu:cortex-m7",
        help="qemu:BOARD, process:host or serial:DEVICE[?baud=N] (default: %(default)s)",
    )
    parser.add_argument(
        "--against", metavar="jit|lib:PATH", default=engine.JIT, help="what decides on this computer (default: jit)"
    )
    parser.add_argument("--scenario", metavar="FILE", help="a scenario, as `bms run` takes it")
    parser.add_argument("--rack", metavar="URL", help="sim:CELL?key=value, replay:FILE, ... (default: the scenario's)")
    parser.add_argument("--cell", metavar="CELL", help="cell file of the controller")
    parser.add_argument("--duration", metavar="TIME", help="for example 90, 30min, 1h (default: the scenario's)")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("runs/fil"), help="folder for the recording (default: runs/fil)"
    )
    parser.add_argument("--quiet", action="store_true", help="show the verdict alone")


def run(args: argparse.Namespace) -> int:
    """Run `bms fil`. Returns 0 without a difference, 1 with one."""
    if not args.engine.startswith(engine.PLACES) or "," in args.engine:
        raise ConfigError(
            f"--engine {args.engine}: expected qemu:BOARD, process:host or serial:DEVICE; "
            "what it is compared with is told by --against"
        )
    chosen = choose(args.scenario, args.rack, args.cell)
    if args.duration is not None:
        chosen = replace(chosen, duration_s=scenario.seconds(args.duration, "--duration"))
    if is_site(chosen.rack):
        raise ConfigError(f"--rack {chosen.rack}: a board controls a single rack, not a site")
    text = f"{args.engine},{args.against}"
    try:
        execute(chosen, args.out, report=False, quiet=args.quiet, engine_text=text)
    except Difference as difference:
        print(difference)
        return FAILED
    steps = json.loads((args.out / SUMMARY).read_text())["loop"]["steps"]
    print(f"{args.engine} against {args.against}: {steps:,} steps, 0 differences")
    return GOOD
