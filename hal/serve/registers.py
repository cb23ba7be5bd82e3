"""The registers of a rack as its readers and its controller see them, whatever they are connected by.

A **walk** is what a reader needs to see one control step in many requests. It keeps the registers as they were when it
began. A new one begins with the first request of a connection, with a request that starts at or below the first address
of the walk, with one that the walk has served already, and when the walk is older than `hold_s`.

A **command** is written in any portions, which one connection alone sees; it takes effect as a whole with the write
that holds the commit point (the heart-beat). One connection at a time is in control: others that write are told "busy"
until it has closed, or has sent no command for `control_s`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from hal.codec.modbus import Refusal, Refused
from hal.codec.register_map import RegisterMap
from hal.contract import Clock, Command, Contactor, Measurement

LONGEST_WALK = 4096
"""Different requests that a walk may hold."""

_LIMITS = ("limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w")


class ServedRegisters:
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
        self.map, self.clock, self.hold_s, self.control_s = registers, clock, hold_s, control_s
        self.monotonic = monotonic
        self._lock = threading.Lock()
        self._pending: Command | None = None
        self._owner: Session | None = None
        self._commanded_s = -math.inf
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

    def claim(self, session: Session) -> None:
        """Let `session` write. Raises `Refusal`: another one is in control."""
        with self._lock:
            silent = self.clock.now_s() - self._commanded_s > self.control_s
            if self._owner not in (None, session) and not silent:
                raise Refusal(Refused.BUSY)
            if self._owner is not session:
                self._owner, self._commanded_s = session, self.clock.now_s()

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

    def release(self, session: Session) -> None:
        """The connection of `session` has ended."""
        with self._lock:
            if self._owner is session:
                self._owner = None


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
        self._walk = b""
        self._first = 0
        self._began_s = -math.inf
        self._asked: set[tuple[int, int]] = set()
        self._staged: bytes | None = None

    def read(self, start: int, count: int) -> bytes:
        """Registers of this session's walk. Raises `Refusal`."""
        served = self._served
        at = start - served.map.base
        if at < 0 or at + count > served.map.size:
            raise Refusal(Refused.ILLEGAL_ADDRESS)
        now_s = served.monotonic()
        request = (start, count)
        if (
            start <= self._first
            or request in self._asked
            or now_s - self._began_s > served.hold_s
            or len(self._asked) >= LONGEST_WALK
        ):
            self._walk, self._first, self._began_s = served.now, start, now_s
            if self._staged is not None:
                self._walk = _spliced(self._walk, self._staged, served.map)
            self._asked.clear()
        self._asked.add(request)
        return self._walk[2 * at : 2 * (at + count)]

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
        if self._walk:
            self._walk = _spliced(self._walk, staged, served.map)

    def close(self) -> None:
        """The connection has ended: what is staged is forgotten, and control is given up."""
        self._staged = None
        self._served.release(self)
