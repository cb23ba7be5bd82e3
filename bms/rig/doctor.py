"""`bms doctor`: looks any rack over through the contract, and says what is wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bms.runtime import engine
from bms.runtime import scenario as scenarios
from hal.errors import ConfigError

if TYPE_CHECKING:
    from bms.cells import CellParameters
    from bms.rig.environment import Environment
    from bms.rig.verdict import Verdict
    from bms.rig.watch import Watch
    from hal.contract import RackInfo

GOOD, FAILED = 0, 1
EVERY_S = 0.1
"""A rack is read so often."""
SLOWEST_S = 1.0
"""A twin is read so often: it samples when it is read."""

DESCRIPTION = """\
Watch a rack for a while and report what is wrong with what it tells: period and jitter, values that are missing, old or
stand still, wrong sign, wrong scale, swapped bytes or words, cells that do not add up to the string, temperatures that
cannot be; each with what to do. Nothing is known of the wire: it works on any rack.
"""

EXAMPLES = """\
examples:
  bms doctor --rack sim:lfp_280
  bms doctor --rack "sim:lfp_280?duty.kind=constant&duty.c_rate=0.3" --connect
  bms doctor --rack "chaos+sim:lfp_280?chaos.swap_words=1" --for 30s --json

Without --connect nothing is written to the rack: its contactors stay as they are. What only a changing current shows,
its sign and its scale, is then told only if somebody else loads the rack. Exit codes: 0 nothing wrong was seen,
1 something is wrong, 2 the rack cannot be reached, or an option is wrong.
"""

_COLOURS = {"wrong": "\033[31m", "not judged": "\033[33m"}
_PLAIN = "\033[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms doctor`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("--rack", metavar="URL", required=True, help="the rack: sim:lfp_280, can:..., modbus:...")
    parser.add_argument("--for", dest="for_", metavar="TIME", default="60s", help="how long to watch (default: 60s)")
    parser.add_argument("--cell", metavar="CELL", help="cell file, where the rack does not tell which cells it has")
    parser.add_argument(
        "--connect",
        action="store_true",
        help="let the controller close the contactors meanwhile, and open them at the end, so that current flows",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on the standard output")


def run(args: argparse.Namespace) -> int:
    """Watch, judge, print. Returns 1 if something is wrong."""
    from bms.rig.checks import judge
    from bms.rig.environment import Environment
    from bms.rig.verdict import UNKNOWN, WRONG

    for_s = scenarios.seconds(args.for_, "--for")
    environment = Environment(args.rack, cell=args.cell or "")
    if environment.url.scheme == "replay" and args.connect:
        raise ConfigError("--connect: a recording has no contactors; leave it out")
    watch, refusal = _watched(environment, for_s, connect=args.connect)
    seen = watch.seen()
    verdicts = judge(seen)
    wrong = sum(len(verdict.findings) for verdict in verdicts)
    if args.json:
        print(as_json(args.rack, seen.span_s, seen.n, verdicts))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        for text in table(verdicts, colour):
            print(text)
        if refusal:
            print(refusal)
        unknown = sum(verdict.state == UNKNOWN for verdict in verdicts)
        print(f"{args.rack}: {seen.n:,} samples in {seen.span_s:.0f} s: {wrong} findings, {unknown} checks not judged")
    return FAILED if any(verdict.state == WRONG for verdict in verdicts) else GOOD


def _watched(environment: Environment, for_s: float, *, connect: bool) -> tuple[Watch, str]:
    """A rack, watched for so long, and why the controller never connected it, or ''.

    Raises `ConfigError` and `LinkError`.
    """
    from bms.core.jit import PROGRAM as CORE
    from bms.rig.driver import Driver
    from bms.rig.watch import Watch
    from bms.runtime.clock import RealClock, VirtualClock
    from bms.runtime.loop import StopFlag, stop_on_signals
    from hal.codec.jit import PROGRAM as CODEC
    from hal.contract import Measurement, RackState
    from hal.registry import open_rack, programs

    engine.ready(engine.JIT, ((CORE, CODEC) if connect else ()) + tuple(programs(environment.rack)), quiet=True)
    clock: Any = VirtualClock() if environment.virtual else RealClock()
    every_s = SLOWEST_S if environment.url.scheme == "sim" else EVERY_S
    stop = StopFlag()
    with stop_on_signals(stop), open_rack(environment.rack, clock=clock, options={}) as rack:
        info = rack.info
        watch = Watch(info, _cell(environment, info))
        measurement = Measurement(info.n_cells, info.n_sensors)
        driver = Driver(rack, environment.scenario(), clock) if connect else None
        start_s, refusal = clock.now_s(), ""
        connected = driver is None
        try:
            while clock.now_s() - start_s < for_s and not stop:
                if driver is not None:
                    driver.step(_connect())
                    connected = connected or driver.state == RackState.CONNECTED
                    measurement.copy_from(driver.measurement)
                    # the step has waited for the next one already
                    watch.take(measurement, clock.now_s() - driver.period_s)
                else:
                    rack.read(measurement)
                    watch.take(measurement, clock.now_s())
                    clock.wait_until(clock.now_s() + every_s, lambda: bool(stop))
            if driver is not None and not connected:
                cause = f", because of {driver.cause.name.lower()}" if driver.cause else ""
                refusal = f"the controller did not connect: it is in {driver.state.name}{cause}"
        finally:
            if driver is not None:
                driver.stop()
    return watch, refusal


def _connect() -> Any:
    from bms.core.machine_table import Request

    return Request.CONNECT


def _cell(environment: Environment, info: RackInfo) -> CellParameters | None:
    """The cell file of the rack, if it is known. Raises `ConfigError` for one that is asked for and unknown."""
    from bms import cells

    name = environment.cell or info.cell
    return cells.load(name) if environment.cell or name in cells.names() else None


def table(verdicts: list[Verdict], colour: bool = False) -> list[str]:
    """The verdicts for a person."""
    lines = []
    for verdict in verdicts:
        mark = _COLOURS.get(verdict.state, "") if colour else ""
        state = f"{mark}{verdict.state:<10}{_PLAIN if mark else ''}"
        note = verdict.note if not verdict.findings else ""
        lines.append(f"{verdict.check:<21} {state} {note}".rstrip())
        for finding in verdict.findings:
            lines.append(f"    {finding.place}: {finding.what}")
            lines.append(f"        {finding.remedy}")
    return lines


def as_json(rack: str, span_s: float, samples: int, verdicts: list[Verdict]) -> str:
    """The verdicts for a script."""
    return json.dumps(
        {
            "rack": rack,
            "watched_s": round(span_s, 3),
            "samples": samples,
            "findings": sum(len(verdict.findings) for verdict in verdicts),
            "checks": [asdict(verdict) for verdict in verdicts],
        },
        indent=1,
    )
