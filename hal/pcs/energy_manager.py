"""What an energy manager has asked for, and whether it is still there.

Orders come from a wire at any time (`give`) and count from the next control step on (`step`). The manager must move its
heart-beat, `ctrl_hb`, at least every `silent_s` while it wants the rack connected. One that stands still for longer has
fallen silent: what it wanted ends, and the controller ramps to 0 A and opens within the times of its configuration.

It is connected again by a new order alone, which is refused until the heart-beat moves. So is what a fault has opened:
to connect is refused, not remembered, as long as the rack is in `REFUSING`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from enum import IntEnum

from hal.contract import RackState
from hal.pcs import Ask

CONNECT, DISCONNECT = 1, 2
INVERTER_STOPPED, INVERTER_STARTED = 1, 3
ENABLE, DISABLE = 1, 2
RESET = 1

VALUES: Mapping[str, range] = {
    "set_op": range(1, 3),
    "set_con": range(3),
    "set_ena": range(3),
    "alm_rst": range(2),
    "ctrl_hb": range(65536),
    "set_inv_state": range(INVERTER_STOPPED, INVERTER_STARTED + 1),
}
"""Orders, and what each may be; 0, which `set_con`, `set_ena` and `alm_rst` show when they are done, does nothing.
`set_inv_state` tells what the inverter does: it is shown to everybody, and nothing follows from it."""

REFUSING = frozenset((RackState.FAULT, RackState.EMERGENCY_STOP, RackState.MAINTENANCE))
"""States in which nobody connects from afar; getting into one ends what was wanted."""

MOST_WAITING = 256
"""Orders that may wait for a step: a controller that does not step takes no more."""

Order = tuple[str, int]


class Presence(IntEnum):
    """Whether somebody is there."""

    NONE = 0
    HEARD = 1
    SILENT = 2


class EnergyManager:
    """Orders of one energy manager. `give` and `shown` may be called from any thread; nothing here waits or raises."""

    def __init__(self, silent_s: float) -> None:
        """`silent_s`: longest time for which the heart-beat may stand still, s."""
        self.silent_s = silent_s
        self.wants = False
        """To be connected."""
        self.enabled = True
        self.inverter = INVERTER_STOPPED
        """What the inverter does, as far as it was told."""
        self.presence = Presence.NONE
        self.silences = 0
        self._lock = threading.Lock()
        self._orders: deque[Order] = deque()
        self._beat: int | None = None
        self._heard_s = -math.inf
        self._state = RackState.INIT

    def give(self, orders: Iterable[Order]) -> bool:
        """Take orders for the next step, all or none; False: one is impossible, or would not be followed now."""
        with self._lock:
            kept, seen = list(orders), list(self._orders)
            if len(seen) + len(kept) > MOST_WAITING:
                return False
            for name, value in kept:
                if value not in VALUES[name]:
                    return False
                if name in ("set_op", "set_con") and value == CONNECT and self._refuses(seen):
                    return False
                seen.append((name, value))
            self._orders.extend(kept)
            return True

    def _refuses(self, before: Iterable[Order]) -> bool:
        """Whether to connect is refused, after the orders `before` that wait for the next step."""
        enabled, heard = self.enabled, self.presence != Presence.SILENT
        for name, value in before:
            if name == "set_ena" and value:
                enabled = value == ENABLE
            heard = heard or (name == "ctrl_hb" and value != self._beat)
        return not (enabled and heard) or self._state in REFUSING

    def saw(self, state: RackState) -> None:
        """The controller is in `state` after its step."""
        with self._lock:
            self._state = state
            self.wants = self.wants and state not in REFUSING

    def step(self, now_s: float) -> Ask:
        """What is wanted in the step at `now_s`."""
        with self._lock:
            reset = False
            while self._orders:
                name, value = self._orders.popleft()
                reset = reset or (name == "alm_rst" and value == RESET)
                self._follow(name, value, now_s)
            if now_s - self._heard_s > self.silent_s and self.presence == Presence.HEARD:
                self.presence = Presence.SILENT if self.wants else Presence.NONE
                self.silences += self.wants
                self.wants = False
            if reset:
                return Ask.RESET
            return Ask.CONNECT if self.wants else Ask.OPEN

    def _follow(self, name: str, value: int, now_s: float) -> None:
        if name == "ctrl_hb":
            if value != self._beat:
                self._beat, self._heard_s, self.presence = value, now_s, Presence.HEARD
        elif name == "set_inv_state":
            self.inverter = value
        elif name == "set_ena" and value:
            self.enabled = value == ENABLE
            self.wants = self.wants and self.enabled
        elif name in ("set_op", "set_con") and value:
            self.wants = value == CONNECT and self.enabled and self._state not in REFUSING
            if self.wants and self.presence == Presence.NONE:
                self._heard_s, self.presence = now_s, Presence.HEARD  # the first beat is awaited from here on

    def shown(self) -> dict[str, float]:
        """What the registers of the orders show: what is wanted, and orders that are not done yet."""
        with self._lock:
            told = {
                "set_op": float(CONNECT if self.wants else DISCONNECT),
                "set_con": 0.0,
                "set_ena": 0.0,
                "alm_rst": 0.0,
                "set_inv_state": float(self.inverter),
                "ctrl_hb": math.nan if self._beat is None else float(self._beat),
            }
            return told | {name: float(value) for name, value in self._orders}
