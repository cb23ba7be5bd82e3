"""`bms serve`: a rack, the twin above all, offered as a device on CAN and Modbus."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bms.runtime import engine
from bms.runtime import scenario as scenarios
from hal.errors import ConfigError

if TYPE_CHECKING:
    from bms.runtime.clock import LoopClock
    from bms.runtime.control import Control
    from bms.runtime.loop import StopFlag
    from hal.contract import Command, Rack, RackInfo
    from hal.serve import Server

GOOD = 0
HEARTBEAT_S = 5.0
EXAMPLES = """\
examples:
  bms serve --modbus tcp://127.0.0.1:5020                          the default twin, for any Modbus client
  bms run --rack modbus:tcp://127.0.0.1:5020                       ... and, in another terminal, the controller for it
  bms serve --rack sim:na_layered_100?n_series=32 --modbus 'rtu://pty?baud=115200&link=rack'
  bms serve --scenario frequency_regulation --modbus tcp://127.0.0.1:5020 --speed 10
  bms serve --modbus tcp://127.0.0.1:5020 --control 8765           faults by HTTP while it runs:
      curl -d '{"kind": "cell_v_missing", "index": [3]}' http://127.0.0.1:8765/inject
      curl -d '{}' http://127.0.0.1:8765/clear

Ends after --duration, or with Ctrl-C: the contactors are opened first. Registers and rules: docs/modbus.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms serve`."""
    parser.epilog = EXAMPLES
    parser.add_argument("--rack", metavar="URL", help="the rack that is offered: sim:CELL?key=value, ...")
    parser.add_argument("--scenario", metavar="FILE", help="its rack, duty and faults: a .toml file, or a name")
    parser.add_argument("--modbus", metavar="URL", help="tcp://HOST:PORT, rtu://DEVICE?baud=N or rtu://pty?baud=N")
    parser.add_argument("--can", metavar="URL", help="python-can interface and channel: see docs")
    parser.add_argument("--period", metavar="TIME", default="0.1", help="time between two measurements (default: 0.1)")
    parser.add_argument("--speed", default="1", help="times real time (default: 1)")
    parser.add_argument("--duration", metavar="TIME", help="for example 90, 30min, 1h (default: until Ctrl-C)")
    parser.add_argument(
        "--heartbeat",
        metavar="TIME",
        default=str(HEARTBEAT_S),
        help=f"the contactors open when the controller's heart-beat stands still for longer (default: {HEARTBEAT_S:g})",
    )
    parser.add_argument("--control", metavar="PORT", type=int, help="HTTP on 127.0.0.1: state, and faults of the twin")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Run `bms serve`. Returns 0 when it has ended in order."""
    if args.modbus is None and args.can is None:
        raise ConfigError("bms serve: on which wire? Give --modbus tcp://127.0.0.1:5020, --can URL, or both")
    from bms.runtime.clock import RealClock
    from bms.runtime.control import Control
    from bms.runtime.loop import StopFlag, stop_on_signals
    from bms.runtime.run import choose, named, speed_of
    from hal.registry import is_live, is_site, open_rack, programs

    speed = speed_of(args.speed)
    period_s = scenarios.seconds(args.period, "--period")
    heartbeat_s = scenarios.seconds(args.heartbeat, "--heartbeat")
    duration_s = math.inf if args.duration is None else scenarios.seconds(args.duration, "--duration")
    if math.isinf(speed):
        raise ConfigError("--speed max: who is connected lives in real time: give a number, for example 1 or 10")
    scenario = choose(args.scenario, args.rack, None)
    if is_site(scenario.rack):
        raise ConfigError(f"--rack {scenario.rack}: a site of many racks: one rack is served at a time")
    if is_live(scenario.rack) and speed != 1.0:
        raise ConfigError(f"--speed {args.speed}: the rack {scenario.rack} lives in real time: leave it out")
    scenario = replace(scenario, period_s=period_s)
    engine.ready(engine.JIT, programs(scenario.rack), quiet=args.quiet)
    clock, stop = RealClock(speed), StopFlag()
    with named(scenario):
        rack = open_rack(scenario.rack, clock=clock, options=scenario.tables)
    with contextlib.ExitStack() as stack:
        stack.enter_context(stop_on_signals(stop))
        stack.enter_context(rack)
        servers = _servers(args, rack.info, clock)
        control = Control(args.control) if args.control is not None else None
        loop = ServeLoop(rack, servers, clock, period_s, heartbeat_s=heartbeat_s, stop=stop, control=control)
        loop.publish()  # who connects at once sees values
        for server in servers:
            server.start()
            stack.callback(server.stop)
        if control is not None:
            control.start()
            stack.callback(control.stop)
        if not args.quiet:
            _tell(rack.info, servers, control)
        loop.run(duration_s)
    if not args.quiet:
        print(f"served {loop.steps:,} measurements, took {loop.commands:,} commands; the contactors are open")
    return GOOD


def _servers(args: argparse.Namespace, info: RackInfo, clock: LoopClock) -> list[Server]:
    servers: list[Server] = []
    if args.modbus is not None:
        from hal.serve.modbus import ModbusServer

        servers.append(ModbusServer(args.modbus, info, clock))
    if args.can is not None:
        from importlib import import_module

        servers.append(import_module("hal.serve.can").CanServer(args.can, info, clock))
    return servers


def _tell(info: RackInfo, servers: Sequence[Server], control: Control | None) -> None:
    print(f"{info.name}: {info.n_cells} cells, {info.n_sensors} temperature sensors")
    for server in servers:
        address = getattr(server, "address", None)
        if address is not None:
            print(f"serving at {address}", flush=True)
    if control is not None:
        print(f"control at http://127.0.0.1:{control.port}/state", flush=True)


@dataclass
class ServeLoop:
    """Reads `rack` every `period_s` of `clock`, shows it to all `servers` and passes the newest command back.

    The contactors open when the heart-beat of the controller stands still for longer than `heartbeat_s`, and are not
    closed again before it moves. With several servers the command that arrived last counts.
    """

    rack: Rack
    servers: Sequence[Server]
    clock: LoopClock
    period_s: float
    heartbeat_s: float = HEARTBEAT_S
    stop: StopFlag | None = None
    control: Control | None = None
    steps: int = field(default=0, init=False)
    commands: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    timeouts: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        from hal.contract import Command, Measurement

        size = self.rack.info.n_cells, self.rack.info.n_sensors
        self.measurement, self._received = Measurement(*size), Command(*size)
        self.command: Command | None = None
        self._beat_s = -math.inf
        self.silent = True
        """No controller, or one whose heart-beat stands still."""

    def run(self, duration_s: float = math.inf) -> None:
        """Serve for so long, or until `stop`; then open the contactors and show that to who is connected."""
        start_s = self.clock.now_s()
        slot = 0
        try:
            while not self._stopped() and slot * self.period_s < duration_s * (1 - 1e-12):
                self.step()
                slot = max(slot + 1, math.floor((self.clock.now_s() - start_s) / self.period_s))
                self.clock.wait_until(start_s + slot * self.period_s, self._stopped)
        finally:
            if self.command is not None:
                self._release()
            self.publish()

    def _stopped(self) -> bool:
        return bool(self.stop)

    def publish(self) -> None:
        """Measure, and show what was measured to everybody."""
        self.rack.read(self.measurement)
        for server in self.servers:
            server.publish(self.measurement)
        self.steps += 1

    def step(self) -> None:
        """One period: measure, show, pass the newest command on, look after the heart-beat."""
        self.publish()
        fresh = False
        for server in self.servers:
            fresh = server.take(self._received) or fresh
        now_s = self.clock.now_s()
        if fresh:
            self._take(now_s)
        if not self.silent and now_s - self._beat_s > self.heartbeat_s:
            self.silent = True
            self.timeouts += 1
            self._release()
        if self.control is not None:
            self.control.answer(self)

    def _take(self, now_s: float) -> None:
        received = self._received
        if self.command is None:
            self.command = received.blank()
            moved = True
        else:
            moved = bool(received.head["heartbeat"][0] != self.command.head["heartbeat"][0])
        self.command.copy_from(received)
        if moved:
            self._beat_s, self.silent = now_s, False
        if self.silent:
            return  # a heart-beat that stands still closes nothing
        self.commands += 1
        try:
            self.rack.write(received)
        except ValueError:
            self.refused += 1

    def _release(self) -> None:
        """Open the contactors and allow no current."""
        last = self.command
        assert last is not None
        command = last.blank()
        for name in ("time_s", "heartbeat", "cooling_degc", "soc_mean"):
            command.head[name] = last.head[name]
        self.rack.write(command)

    def state(self) -> dict[str, Any]:
        """What the control channel tells: numbers that JSON can hold."""
        head = self.measurement.head
        told = {name: float(head[name][0]) for name in ("time_s", "current_a", "pack_v", "bus_v")}
        cells = {"cell_v_min": self.measurement.cell_v.min(), "cell_v_max": self.measurement.cell_v.max()}
        told |= {name: float(value) for name, value in cells.items()}
        age_s = self.clock.now_s() - self._beat_s
        return {
            "rack": self.rack.info.name,
            **{name: value if math.isfinite(value) else None for name, value in told.items()},
            "contactors": int(head["contactors"][0]),
            "heartbeat": None if self.command is None else int(self.command.head["heartbeat"][0]),
            "heartbeat_age_s": age_s if math.isfinite(age_s) else None,
            "controlled": not self.silent,
            "measurements": self.steps,
            "commands": self.commands,
            "refused_commands": self.refused,
            "heartbeat_timeouts": self.timeouts,
            "faults": getattr(self.rack, "faults", []),
        }
