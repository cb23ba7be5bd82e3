"""The registers of a rack as its readers and its controller see them, whatever they are connected by.

Readers walk, and one connection at a time is in control, as `hal.serve.sessions` tells. A **command** is written in any
portions, which one connection alone sees; it takes effect as a whole with the write that holds the commit point (the
heart-beat).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from hal.codec.modbus import Refusal, Refused
from hal.codec.register_map import RegisterMap
from hal.contract import Clock, Command, Contactor, Measurement
from hal.serve.sessions import InControl, Walk

_LIMITS = ("limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w")


class ServedRegisters(InControl):
    """Registers that a rack fills and sessions read. `publish` and `take` are the rack's side, `session` the wire's.

    `hold_s` is time of the computer, `control_s` time of `clock`. Thread-safe.
    """

    def __init__(
        self,
        registers: RegisterMap,
        clock: Clock,
        *,
        hold_s: float,
        control_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(registers, clock, control_s=control_s)
        self.hold_s, self.monotonic = hold_s, monotonic
        self._pending: Command | None = None
        self.commands = 0
        """Commands that took effect."""
        self.now = registers.encode()

    def publish(self, measurement: Measurement) -> None:
        """Make a new measurement, with the last command, what the next walks show."""
        source = self.map.source
        with self._lock:
            source.measurement.copy_from(measurement)
            source.count = (source.count + 1) & 0xFFFFFFFF
            self.now = self.map.encode()

    def take(self, out: Command) -> bool:
        """As `Server.take`."""
        with self._lock:
            if self._pending is None:
                return False
            out.copy_from(self._pending)
            self._pending = None
            return True

    def session(self) -> Session:
        """A reader of its own, for one connection."""
        return Session(self)

    def commit(self, registers: bytes) -> None:
        """Make what `registers` hold the newest command. Raises `Refusal`: no rack could follow it."""
        info = self.map.info
        command = Command(info.n_cells, info.n_sensors)
        try:
            self.map.decode_command(registers, command)
        except ValueError:
            raise Refusal(Refused.ILLEGAL_VALUE) from None
        if not followable(command):
            raise Refusal(Refused.ILLEGAL_VALUE)
        with self._lock:
            self._commanded_s = self.clock.now_s()
            self._pending = command
            self.map.source.command.copy_from(command)
            self.map.source.commanded = True
            self.commands += 1
            self.now = _spliced(self.now, registers, self.map)


def followable(command: Command) -> bool:
    """Whether a rack can do what is asked."""
    head = command.head
    known = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE)
    return (
        not int(head["contactors"][0]) & ~known
        and all(float(head[name][0]) >= 0.0 for name in _LIMITS)
        and math.isfinite(float(head["cooling_degc"][0]))
        and (not len(command.shuttle) or int(command.shuttle.max()) <= 2)
    )


def _spliced(registers: bytes, other: bytes, registers_map: RegisterMap) -> bytes:
    """`registers` with what a controller can write from `other`."""
    addresses = registers_map.writable
    if not addresses:
        return registers
    start, end = 2 * (min(addresses) - registers_map.base), 2 * (max(addresses) + 1 - registers_map.base)
    return registers[:start] + other[start:end] + registers[end:]


class Session:
    """What one connection sees and has written: `hal.codec.modbus.Registers`."""

    def __init__(self, served: ServedRegisters) -> None:
        self._served = served
        self._walk = Walk(served.map.base, served.map.size, hold_s=served.hold_s, monotonic=served.monotonic)
        self._staged: bytes | None = None

    def read(self, start: int, count: int) -> bytes:
        """Registers of this session's walk. Raises `Refusal`."""
        return self._walk.read(start, count, self._newest)

    def _newest(self) -> bytes:
        """The registers now, with what this session has staged."""
        served = self._served
        return served.now if self._staged is None else _spliced(served.now, self._staged, served.map)

    def write(self, start: int, values: bytes) -> None:
        """Write registers, and make the command effective where the commit point is among them. Raises `Refusal`."""
        served = self._served
        count = len(values) // 2
        if not all(address in served.map.writable for address in range(start, start + count)):
            raise Refusal(Refused.ILLEGAL_ADDRESS)
        served.claim(self)
        at = 2 * (start - served.map.base)
        before = served.now if self._staged is None else self._staged
        staged = before[:at] + values + before[at + len(values) :]
        if any(address in served.map.commit for address in range(start, start + count)):
            self._staged = None
            served.commit(staged)
        else:
            self._staged = staged
        if self._walk.registers:
            self._walk.registers = _spliced(self._walk.registers, staged, served.map)

    def close(self) -> None:
        """The connection has ended: what is staged is forgotten, and control is given up."""
        self._staged = None
        self._served.release(self)
