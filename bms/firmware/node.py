"""`bms node`: the firmware of a controller, on an emulated board, as a node of a rack's CAN bus."""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bms.core.jit import PROGRAM
from bms.core.machine_table import Request
from bms.firmware import boards, node_boot
from bms.firmware.baked import Baked, baked
from bms.firmware.build import rackbms_header
from bms.firmware.inloop import agree
from bms.runtime.loop import StopFlag, stop_on_signals
from bms.runtime.scenario import seconds
from hal.contract import COMMAND, Contactor, RackState
from hal.engine.emulator import Emulator
from hal.engine.frames import Flag, Identity, NodeState, NodeStatus
from hal.engine.remote import Remote
from hal.errors import ConfigError
from hal.links.can_link import CanAddress, parse_address
from hal.registry import parse_url
from hal.serve.bridge import Bridge

DESCRIPTION = """\
Start the firmware of a controller on an emulated board. It listens on a rack's CAN bus, behind a serial adapter that
speaks SLCAN: once every message of the rack has come, it makes a step in each period, by its own timer, and sends its
commands there, in the reference profile.
"""

EXAMPLES = """\
examples:
  bms node                                                 tells its port, for example /dev/pts/5
  bms serve --rack sim:lfp_280 --can "can:slcan:/dev/pts/5"   ... and, in another terminal, a rack for it
  bms node --config my_rack.toml --sensors 12 --engine qemu:cortex-m4f
  bms node --request open                                  it measures, and leaves the contactors open
  bms node --boot fleet.pub --flash flash.bin --image slot-a-signed.bin --request open
                                                           a boot loader and what was flashed: docs/flashing.md
  slcand /dev/pts/5 can0                                   its bus as kernel CAN (Linux)

Ends after --duration, or with Ctrl-C: the rack misses the heart-beat and opens. Configuration, cells and sensors must
be those of the rack; the number of sensors is told by whoever serves it. More: docs/firmware.md, As a CAN node.
"""

GOOD, FAILED = 0, 1
EVERY_S = 1.0
INITIAL_STD = 0.05
CELLS_PER_SENSOR = 4
CONFIG, PERIOD = "lfp_280", "0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms node`."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        help=f"a name of the package, or a .toml file (default: {CONFIG})",
    )
    parser.add_argument(
        "--sensors", metavar="N", type=int, help="temperature sensors (default: one for four cells, as the twin has)"
    )
    parser.add_argument("--engine", metavar="qemu:BOARD", default="qemu:cortex-m7", help="default: %(default)s")
    parser.add_argument("--period", metavar="TIME", help=f"time between two steps (default: {PERIOD})")
    parser.add_argument(
        "--request", metavar="WHAT", default="connect", help="what is asked of it: connect or open (default: connect)"
    )
    parser.add_argument(
        "--initial-soc", metavar="S", type=float, help="what it is told of every cell, 0..1 (default: nothing)"
    )
    parser.add_argument("--duration", metavar="TIME", help="for example 90, 30min, 1h (default: until Ctrl-C)")
    parser.add_argument("--quiet", action="store_true", help="print the port alone")
    parser.add_argument(
        "--bus", metavar="URL", help="join its port to a bus that others are on: can:INTERFACE:CHANNEL?..."
    )
    node_boot.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run `bms node`. Returns 0 when it has ended in order, 1 where the controller has started anew."""
    board = args.engine.removeprefix("qemu:")
    if board == args.engine or board not in boards.BOARDS:
        raise ConfigError(f"--engine {args.engine}: expected one of qemu:{', qemu:'.join(boards.BOARDS)}")
    requests = {"connect": Request.CONNECT, "open": Request.OPEN}
    if args.request not in requests:
        raise ConfigError(f"--request {args.request}: expected one of {', '.join(requests)}")
    if args.initial_soc is not None and not 0.0 <= args.initial_soc <= 1.0:
        raise ConfigError(f"--initial-soc {args.initial_soc:g}: expected 0..1")
    node_boot.check(args)
    duration_s = math.inf if args.duration is None else seconds(args.duration, "--duration")
    bus = None if args.bus is None else _bus(args.bus)
    stop = StopFlag()
    with stop_on_signals(stop), contextlib.ExitStack() as stack:
        if args.boot is not None:
            emulator = stack.enter_context(node_boot.booted(args, board))
            stopped = _tell_port(args, emulator, bus, stack, stop)
            watch = node_boot.Watch(emulator, requests[args.request], line, quiet=args.quiet)
            watch.run(duration_s, stopped)
            return GOOD
        found = _baked(args)
        emulator, remote, identity = stack.enter_context(node(found, board))
        if args.initial_soc is not None:
            tell_soc(remote, found.record.n_cells, args.initial_soc)
        remote.node(requests[args.request])
        if not args.quiet:
            print(f"{found.source}: {identity.n_cells} cells, {identity.n_sensors} temperature sensors")
        stopped = _tell_port(args, emulator, bus, stack, stop)
        crash = _watch(remote, identity, duration_s, stopped, quiet=args.quiet)
    return FAILED if crash else GOOD


def _baked(args: argparse.Namespace) -> Baked:
    period_s = seconds(args.period or PERIOD, "--period")
    if not 0.001 <= period_s <= 10.0:
        raise ConfigError(f"--period {args.period}: expected 1 ms to 10 s")
    return replace(baked(args.config or CONFIG, args.sensors, CELLS_PER_SENSOR), period_s=period_s)


def _bus(text: str) -> CanAddress:
    url = parse_url(text)
    if url.scheme != "can":
        raise ConfigError(f"--bus {text}: expected can:INTERFACE:CHANNEL")
    return parse_address(url.address, url.query)


def _tell_port(
    args: argparse.Namespace, emulator: Emulator, bus: CanAddress | None, stack: contextlib.ExitStack, stop: StopFlag
) -> Callable[[], bool]:
    """Join the port to a bus where that is wanted, and print where it is; gives what tells whether to end."""
    where = emulator.port
    bridge = None
    if bus is not None:
        bridge = stack.enter_context(Bridge(CanAddress("the port", "slcan", emulator.port), bus))
        where = f"{emulator.port}, joined to {bus}"
    print(where if args.quiet else f"SLCAN at {where}", flush=True)

    def stopped() -> bool:
        if bridge is not None and not stop:
            bridge.check()
        return bool(stop)

    return stopped


@contextlib.contextmanager
def node(found: Baked, board: str) -> Iterator[tuple[Emulator, Remote, Identity]]:
    """The firmware of a configuration on an emulated board, in this computer's time.

    Raises `ConfigError`, or `LinkError` where the emulator does not start.
    """
    own = boards.BOARDS[board]
    with tempfile.TemporaryDirectory(prefix="rackbms-") as folder:
        elf = Path(folder) / "firmware.elf"
        boards.compile_to(elf, board, PROGRAM.image(board)[0], rackbms_header(board), found)
        program = elf.read_bytes()
    with Emulator(own.emulator, own.machine, program, own.store, shift=None) as emulator:
        remote = Remote(emulator)
        identity = remote.hello()
        agree(identity, PROGRAM, found, emulator.name)
        yield emulator, remote, identity


def tell_soc(remote: Remote, n_cells: int, soc: float) -> None:
    """Let the controller begin anew with what is known of every cell. Raises `LinkError`."""
    remote.start(np.full(n_cells, soc, np.float32), np.full(n_cells, INITIAL_STD, np.float32))
    remote.run()


def _watch(remote: Remote, identity: Identity, duration_s: float, stopped: Callable[[], bool], *, quiet: bool) -> bool:
    """Look at the node once a second, until it is to end; tells whether it has started anew meanwhile."""
    start_s, turn = time.monotonic(), 0
    while True:
        turn += 1
        until_s = start_s + min(turn * EVERY_S, duration_s)
        while (rest_s := until_s - time.monotonic()) > 0 and not stopped():
            time.sleep(min(rest_s, 0.1))
        status = remote.node()
        if not quiet:
            print(line(status, identity, time.monotonic() - start_s), flush=True)
        if crash := remote.hello().crash:
            print(f"the controller has started anew after {crash}", flush=True)
            return True
        if stopped() or time.monotonic() - start_s >= duration_s:
            return False


def line(status: NodeStatus, identity: Identity, time_s: float) -> str:
    """How the node is, for people."""
    wrong = sum(status.frames[2:])
    losses = [
        f"{count:,} {what}"
        for count, what in (
            (status.frames[1], "frames of others"),
            (wrong, "frames wrong"),
            (status.lost, "frames lost"),
            (status.refused, "lines refused"),
            (status.port_lost, "bytes lost"),
            (status.unsent, "frames not sent"),
            (status.unfit, "commands not sent"),
        )
        if count
    ]
    parts = [f"{time_s:5.0f} s"]
    if status.state == NodeState.RUNNING:
        parts += _running(status, identity)
    elif status.state == NodeState.OTHER_RACK:
        parts.append(f"the rack is not one of {identity.n_cells} cells and {identity.n_sensors} sensors: see --config")
    elif status.state == NodeState.OFF:
        parts.append("measurements come over the link")
    else:
        bus = "bus open" if status.opened else "nobody has opened the bus"
        parts.append(f"waits for {status.missing} messages, {bus}")
    return "  ".join([*parts, f"{status.received:,} frames in, {status.sent:,} out", *losses])


def _running(status: NodeStatus, identity: Identity) -> list[str]:
    head = np.frombuffer(status.command, COMMAND.head_dtype)[0]
    closed = [c.name.lower().replace("_", " ") for c in Contactor if c and head["contactors"] & c and c.name]
    tick_ms = 1e3 / identity.timer_hz
    late = ["a step was too late: it is safe until it is started again"] * bool(status.flags & Flag.OVERRUN)
    return [
        RackState(int(head["state"])).name,
        f"closed: {', '.join(closed) or 'nothing'}",
        f"SoC {100 * head['soc_min']:.1f}/{100 * head['soc_mean']:.1f}/{100 * head['soc_max']:.1f} %",
        f"limits {head['limit_discharge_a']:.0f}/{head['limit_charge_a']:.0f} A",
        f"{head['n_faults']} faults",
        f"step {status.steps:,}: {status.ticks * tick_ms:.1f} ms, longest {status.longest_ticks * tick_ms:.1f} ms",
        *late,
    ]
