"""What does a scan of a 416-cell rack cost on the wire, and how does that compare with cantools?

Run with `python bench/wires.py` (a minute). A scan is every message of the reference profile once: 178
classic frames, or 24 of CAN FD. Rows of the codec are the tables alone; cantools decodes and encodes the same frames
with the same DBC in the same run (it knows no alive counters and checksums). The other rows are what a rack or a server
spends on a scan, python-can's virtual bus not counted. The second table is the share of a core that a controller takes
which steps ten times a second on a twin in another process, over the hub, with its driver of the bus and all else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import cantools
import numpy as np
from tables import Table

from bms.runtime.clock import RealClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.codec import can_profile
from hal.codec.can_wire import CommandWire, MeasurementWire
from hal.codec.frames import Codec, Inbox, Outbox
from hal.contract import Command, Measurement
from hal.registry import open_rack

CELLS, SENSORS = 416, 104
PERIOD_S, SETTLED_S = 0.1, 10.0


def best_s(work: Callable[[], object], rounds: int, times: int) -> float:
    """Shortest time of one call over some rounds."""
    found = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(times):
            work()
        found = min(found, (time.perf_counter() - start) / times)
    return float(found)


def measure(table: Table, fd: bool, rounds: int) -> None:
    """The rows of one variant of the profile."""
    profile = can_profile.load("reference", fd=fd)
    codec = Codec(profile.database, profile.measurement_messages(), profile.protection)
    wire, outbox, inbox = MeasurementWire(profile, codec), Outbox(codec), Inbox(codec)
    m, rng = Measurement(CELLS, SENSORS), np.random.default_rng(1)
    m.cell_v[:] = 3.2 + 0.1 * rng.random(CELLS)
    m.sensor_degc[:] = 20 + 10 * rng.random(SENSORS)
    wire.load(m)
    codec.encode()
    everything = range(len(codec.rows))
    scan = outbox.frames(everything)
    scans = [outbox.frames(everything) for _ in range(15)]
    turn = iter(range(1_000_000_000))
    peer = cantools.database.load_file(can_profile.FOLDER / "reference" / f"reference_416{'_fd' if fd else ''}.dbc")
    messages = [(peer.get_message_by_frame_id(key), data) for key, data in scan]
    decoded = [(message, message.decode(data, decode_choices=False)) for message, data in messages]

    def judge() -> None:
        for key, data in scans[next(turn) % 15]:
            inbox.accept(key, data, 1.0)

    kind = f"{len(scan)} frames of {'CAN FD' if fd else 'CAN'}"
    theirs = best_s(lambda: [message.decode(data, decode_choices=False) for message, data in messages], rounds, 3)
    ours = best_s(codec.decode, rounds, 5000)
    table.row(f"decode {len(codec.value)} signals, {kind}", 1e6 * ours, f"1/{theirs / ours:.0f} of cantools", "codec")
    table.row(f"decode with cantools, {kind}", 1e6 * theirs)
    theirs = best_s(lambda: [message.encode(values, strict=False) for message, values in decoded], rounds, 3)
    ours = best_s(codec.encode, rounds, 5000)
    table.row(f"encode, {kind}", 1e6 * ours, f"1/{theirs / ours:.0f} of cantools", "codec")
    table.row(f"encode with cantools, {kind}", 1e6 * theirs)
    table.row(f"counters, checksums, bytes, {kind}", 1e6 * best_s(lambda: outbox.frames(everything), rounds, 200))
    table.row(f"judge and keep what came, {kind}", 1e6 * best_s(judge, rounds, 50))
    arrived_s = inbox.arrived_s
    table.row(f"values to a measurement, {kind}", 1e6 * best_s(lambda: wire.fill(arrived_s, 1.0), rounds, 500))
    table.row(f"a measurement to values, {kind}", 1e6 * best_s(lambda: wire.load(m), rounds, 500))
    orders = Codec(profile.database, profile.command_messages(), profile.protection)
    command, sender = Command(CELLS, SENSORS), Outbox(orders)
    order = CommandWire(profile, orders)

    def send() -> None:
        order.load(command)
        orders.encode()
        sender.frames(range(len(orders.rows)))

    table.row(f"a command to {len(orders.rows)} frames of {kind.split(' of ')[1]}", 1e6 * best_s(send, rounds, 200))


def started(around: ExitStack, *words: str) -> str:
    """A program in a process of its own, ended with `around`; returns the first line that tells where it is."""
    process = subprocess.Popen([sys.executable, "-u", "-m", *words], stdout=subprocess.PIPE, text=True)
    around.callback(process.wait)
    around.callback(process.terminate)
    assert process.stdout is not None
    return next(line for line in process.stdout if " at " in line)


def loop_share(seconds: float) -> tuple[float, int, int]:
    """Share of a core of a loop at 10 Hz, once the rack is connected; its steps, and its missed deadlines."""
    with ExitStack() as around:
        host, _, port = started(around, "hal.serve.hub", "--port", "0").split()[-1].partition(":")
        url = f"can:socketcand:can0?host={host}&port={port}"
        started(around, "bms", "serve", "--rack", f"sim:lfp_280?n_series={CELLS}", "--can", url)
        clock, used = RealClock(), list[tuple[float, float]]()
        rack = around.enter_context(open_rack(url, clock=clock))
        controller = make_controller(Scenario(rack=url, cell="lfp_280", period_s=PERIOD_S), rack, clock)
        loop = Loop(
            rack, controller, clock, PERIOD_S, observers=(lambda *_: used.append((clock.now_s(), time.process_time())),)
        )
        stats = loop.run(SETTLED_S + seconds)
        (from_s, before_s), (until_s, after_s) = used[int(SETTLED_S / PERIOD_S)], used[-1]
        return (after_s - before_s) / (until_s - from_s), stats.steps, stats.missed_deadlines


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the loop, once it is connected")
    Table.add_arguments(parser)
    args = parser.parse_args()
    table = Table("wires", f"A scan of {CELLS} cells and {SENSORS} sensors", "us")
    for fd in (False, True):
        measure(table, fd, args.rounds)
    table.finish(args)
    share, steps, missed = loop_share(args.seconds)
    table = Table("wires_loop", f"A controller of {CELLS} cells at 10 Hz on CAN, in another process than the rack", "%")
    table.row("processor time, of one core", 100.0 * share, "", f"{steps} steps, {missed} missed deadlines")
    table.finish(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
