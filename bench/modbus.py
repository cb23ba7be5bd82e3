"""How many reads a second does the Modbus server answer, beside pymodbus's own, and what does a rack on Modbus cost?

Run with `python bench/modbus.py` (two minutes).

- Reads of 125 registers a second, over TCP on this computer: our server with a rack of 416 cells and pymodbus's with as
  many registers, each in a process of its own, asked in turns by the same client, one request at a time and from eight
  connections at once. Ours must not be slower.
- The processor time of `bms serve` with that rack at 10 Hz, of which the controller's side reads every measurement and
  writes a command for each: as the share of one core.
- One look of the rack's client at all of its registers, in milliseconds.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import selectors
import socket
import statistics
import struct
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tables import Table

CELLS, REGISTERS, PERIOD_S = 416, 125, 0.1
PEER_PORT_WAIT_S = 30.0


def ours(port: Any, stop: Any) -> None:
    """Our server, with a rack that stands still."""
    server, rack = _served("tcp://127.0.0.1:0")
    server.start()
    port.value = server.wire.port
    stop.wait()
    server.stop()
    rack.close()


def theirs(port: Any, stop: Any) -> None:
    """pymodbus's server with as many registers."""
    import asyncio

    from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
    from pymodbus.server import ModbusTcpServer

    warnings.simplefilter("ignore")
    logging.disable()
    server, _ = _served("tcp://127.0.0.1:0")
    size = server.registers.map.size

    async def serve() -> None:
        block = ModbusSequentialDataBlock(40001, [1] * size)
        context = ModbusServerContext(devices=ModbusDeviceContext(hr=block), single=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        peer = ModbusTcpServer(context, address=("127.0.0.1", free))
        await peer.serve_forever(background=True)
        port.value = free
        await asyncio.to_thread(stop.wait)
        await peer.shutdown()

    asyncio.run(serve())


def looping(port: Any, stop: Any, used_s: Any) -> None:
    """The whole of `bms serve`: a twin at 10 Hz. Tells the processor time that it takes from the first command on."""
    from bms.runtime.clock import RealClock
    from bms.runtime.serve import ServeLoop
    from hal.registry import open_rack
    from hal.serve.modbus import ModbusServer

    clock = RealClock(1.0)
    with open_rack(f"sim:lfp_280?n_series={CELLS}", clock=clock) as rack:
        server = ModbusServer("tcp://127.0.0.1:0", rack.info, clock)
        loop = ServeLoop(rack, [server], clock, PERIOD_S)
        loop.publish()
        server.start()
        port.value = server.wire.port  # type: ignore[union-attr]
        began = steps = None
        slot = clock.now_s()
        while not stop.is_set():
            loop.step()
            if began is None and loop.commands:
                began, steps = time.process_time(), loop.steps
            if began is not None and steps is not None:
                used_s.value = (time.process_time() - began) / max(1, loop.steps - steps) / PERIOD_S
            slot += PERIOD_S
            clock.wait_until(slot, stop.is_set)
        server.stop()


def _served(url: str) -> tuple[Any, Any]:
    from hal.contract import Measurement
    from hal.registry import open_rack
    from hal.serve.modbus import ModbusServer

    rack = open_rack(f"sim:lfp_280?n_series={CELLS}")
    rack.open()
    measurement = Measurement(rack.info.n_cells, rack.info.n_sensors)
    rack.read(measurement)
    from bms.runtime.clock import VirtualClock

    server = ModbusServer(url, rack.info, VirtualClock())
    server.publish(measurement)
    return server, rack


@dataclass
class Process:
    """A server in a process of its own."""

    target: Callable[..., None]
    extra: tuple[Any, ...] = ()

    def __enter__(self) -> int:
        context = multiprocessing.get_context("spawn")
        self._stop, port = context.Event(), context.Value("i", 0)
        self._process = context.Process(target=self.target, args=(port, self._stop, *self.extra), daemon=True)
        self._process.start()
        deadline = time.monotonic() + PEER_PORT_WAIT_S
        while not port.value:
            if time.monotonic() > deadline or not self._process.is_alive():
                raise RuntimeError(f"{self.target.__name__} did not come up")
            time.sleep(0.02)
        return int(port.value)

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._process.join(10)


def reads_per_s(port: int, connections: int, seconds: float) -> float:
    """Answers a second to a client that keeps one request open on each connection."""
    request = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 40001, REGISTERS)
    size = 9 + 2 * REGISTERS
    selector = selectors.DefaultSelector()
    missing = {}
    for _ in range(connections):
        one = socket.create_connection(("127.0.0.1", port), 10.0)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(request)
        selector.register(one, selectors.EVENT_READ)
        missing[one] = size
    count, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        for key, _ in selector.select(5.0):
            one: Any = key.fileobj
            missing[one] -= len(one.recv(4096))
            if missing[one] == 0:
                count, missing[one] = count + 1, size
                one.sendall(request)
    for one in missing:
        one.close()
    return count / (now - began)


def compared(rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Reads a second of ours and theirs: the median of the rounds, taken in turns."""
    found: dict[str, list[tuple[float, float]]] = {"one connection": [], "eight connections": []}
    with Process(ours) as our_port, Process(theirs) as their_port:
        for _ in range(rounds):
            for name, connections in (("one connection", 1), ("eight connections", 8)):
                pair = reads_per_s(our_port, connections, seconds), reads_per_s(their_port, connections, seconds)
                found[name].append(pair)
    return {
        name: (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))
        for name, pairs in found.items()
    }


def shares(seconds: float) -> tuple[float, float, float]:
    """Shares of a core of the serving and of the reading side at 10 Hz, and milliseconds of one look."""
    from bms.runtime.clock import RealClock
    from hal.backends.modbus import ModbusRack
    from hal.contract import Command, Measurement

    used = multiprocessing.get_context("spawn").Value("d", 0.0)
    with Process(looping, (used,)) as port:
        clock = RealClock(1.0)
        with ModbusRack(f"tcp://127.0.0.1:{port}", clock=clock) as rack:
            info = rack.info
            measurement, command = Measurement(info.n_cells, info.n_sensors), Command(info.n_cells, info.n_sensors)
            command.head["cooling_degc"] = 25.0
            before_cpu, before_looks, slot = time.process_time(), rack.report.snapshots, clock.now_s()
            began = slot
            while clock.now_s() - began < seconds:
                rack.read(measurement)
                command.head["heartbeat"] += 1
                rack.write(command)
                slot += PERIOD_S
                clock.wait_until(slot, lambda: False)
            reading = (time.process_time() - before_cpu) / (clock.now_s() - began)
            looks = rack.report.snapshots - before_looks
        serving = used.value
    return serving, reading, 1e3 * reading * seconds / max(looks, 1)


def main() -> int:
    """Measure and print. Returns 1 where ours is slower."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each server (default: 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of each measurement (default: 2)")
    Table.add_arguments(parser)
    args = parser.parse_args()
    found = compared(args.rounds, args.seconds)
    table = Table("modbus", f"Reads of {REGISTERS} registers a second, from a rack of {CELLS} cells", "1/s")
    for name, (a, b) in found.items():
        table.row(f"ours, {name}", a, f"{a / b:.1f} x pymodbus", f"median of {args.rounds}")
        table.row(f"pymodbus, {name}", b)
    table.finish(args)
    serving, reading, look_ms = shares(10 * args.seconds)
    table = Table("modbus_share", f"A rack of {CELLS} cells at 10 Hz on Modbus/TCP", "per cent of one core")
    table.row("bms serve: twin, encoding, answers", 100 * serving)
    table.row("the rack's client: looks and commands", 100 * reading, "", f"{look_ms:.1f} ms for each look")
    table.finish(args)
    return int(any(a < b for a, b in found.values()))


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
