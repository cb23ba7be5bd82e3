"""What every connection to a device has: a walk that sees one control step, and a turn at being in control.

A **walk** is what a reader needs to see one control step in many requests. It keeps the registers as they were when it
began. A new one begins with the first request of a connection, with a request that starts at or below the first address
of the walk, with one that the walk has served already, and when the walk is older than `hold_s`.

One connection at a time is **in control**: others that write are told "busy" until it has closed, or has commanded
nothing for `control_s`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from hal.codec.modbus import Refusal, Refused
from hal.codec.register_map import RegisterMap
from hal.contract import Clock

LONGEST_WALK = 4096
"""Different requests that a walk may hold."""


class Session(Protocol):
    """What one connection sees and has written: `hal.codec.modbus.Registers` that end."""

    def read(self, start: int, count: int) -> bytes:
        """`count` registers from `start`. Raises `Refusal`."""
        ...

    def write(self, start: int, values: bytes) -> None:
        """Write registers, all of them or none. Raises `Refusal`."""
        ...

    def close(self) -> None:
        """The connection has ended."""
        ...


class Shared(Protocol):
    """Registers that several connections see."""

    def session(self) -> Session:
        """What a new connection sees."""
        ...


class Walk:
    """The registers of one connection, `registers`, of a map that begins at `base` with `size` of them."""

    def __init__(self, base: int, size: int, *, hold_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.registers = b""
        self.asked: set[tuple[int, int]] = set()
        self._base, self._size, self._hold_s, self._monotonic = base, size, hold_s, monotonic
        self._first = 0
        self._began_s = -math.inf

    def read(self, start: int, count: int, newest: Callable[[], bytes]) -> bytes:
        """Registers of this walk, or of a new one over what `newest` gives. Raises `Refusal`."""
        at = start - self._base
        if at < 0 or at + count > self._size:
            raise Refusal(Refused.ILLEGAL_ADDRESS)
        now_s = self._monotonic()
        request = (start, count)
        if (
            start <= self._first
            or request in self.asked
            or now_s - self._began_s > self._hold_s
            or len(self.asked) >= LONGEST_WALK
        ):
            self.registers, self._first, self._began_s = newest(), start, now_s
            self.asked.clear()
        self.asked.add(request)
        return self.registers[2 * at : 2 * (at + count)]


class InControl:
    """Registers that one connection at a time may write. `control_s` is time of `clock`. Thread-safe."""

    def __init__(self, registers: RegisterMap, clock: Clock, *, control_s: float) -> None:
        self.map, self.clock, self.control_s = registers, clock, control_s
        self._lock = threading.Lock()
        self._owner: Session | None = None
        self._commanded_s = -math.inf

    def claim(self, session: Session) -> None:
        """Let `session` write. Raises `Refusal`: another one is in control."""
        with self._lock:
            silent = self.clock.now_s() - self._commanded_s > self.control_s
            if self._owner not in (None, session) and not silent:
                raise Refusal(Refused.BUSY)
            if self._owner is not session:
                self._owner, self._commanded_s = session, self.clock.now_s()

    def release(self, session: Session) -> None:
        """The connection of `session` has ended."""
        with self._lock:
            if self._owner is session:
                self._owner = None
