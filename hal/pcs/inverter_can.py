"""What an inverter for 48 V batteries hears on CAN: the de-facto "Pylontech LV" protocol.

Six frames once a second, 11-bit ids, little-endian, 500 kbit/s; one back. `hal/profiles/pylontech/pylontech_lv.dbc`
describes every bit of them.

| id | frame | from |
| --- | --- | --- |
| 0x351 | charge voltage, current limits, lowest voltage | published limits, rounded down to 0.1 A |
| 0x355 | SoC and SoH, % | means over the cells |
| 0x356 | voltage, current, temperature | measured; **positive current charges here**, unlike in the contract |
| 0x359 | what has stopped it, what is near its limit | fatal faults, faults of severity warning |
| 0x35C | charge and discharge enabled | whether that limit is above 0 A |
| 0x35E | maker | eight letters |
| 0x305 | (in) heart-beat of the inverter | |

An inverter that has not been heard for `silent_s`, or not yet, is told limits of 0 A and nothing enabled. What the rack
then does is for the controller to decide; `silent` tells. `hal.pcs.inverter_north` puts both on a bus and in a run.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Protocol

import can
import numpy as np
import numpy.typing as npt

from hal.contract import Command, Measurement, RackInfo, RackState, Severity
from hal.errors import ConfigError

LIMITS, CHARGE, VALUES, EVENTS, REQUESTS, MAKER, ALIVE = 0x351, 0x355, 0x356, 0x359, 0x35C, 0x35E, 0x305
PERIOD_S = 1.0
MOST_V = 327.67
"""What the voltage of 0x356 holds, 16 bits of 0.01 V."""
MOST_A = 3276.7
AT_ONCE = 64
"""Received frames that one update looks at: a bus that is full must not hold up a control step."""

# bits of 0x359, for what stopped the battery (the alarms are 16 bits further), and the numbers of the faults, as
# docs/faults.md lists them: a number is never given to another fault
HIGH_VOLTAGE, LOW_VOLTAGE, HOT, COLD, DISCHARGE_CURRENT, CHARGE_CURRENT, SYSTEM = 1, 2, 3, 4, 7, 8, 11
FAULTS: dict[int, tuple[int, ...]] = {
    HIGH_VOLTAGE: (1, 4),
    LOW_VOLTAGE: (2, 3, 5),
    HOT: (16, 17),
    COLD: (18, 19),
    DISCHARGE_CURRENT: (8, 10, 13),
    CHARGE_CURRENT: (9, 11, 14),
}
LOST = tuple(range(50, 60))
"""Faults that say that something is not heard of any more."""

_CLOSED = (RackState.CONNECTED, RackState.TRANSPORT_CHARGE)


class Bus(Protocol):
    """What is used of a python-can bus."""

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Send a frame. Raises `can.CanError`."""
        ...

    def recv(self, timeout: float | None = None) -> can.Message | None:
        """A frame that has come, or None. Raises `can.CanError`."""
        ...


@dataclass(frozen=True)
class Battery:
    """What the inverter is told of the battery that no measurement says.

    `charge_v` and `discharge_v` are the voltages of the string, V, at which charging and discharging end; `maker` up to
    eight ASCII letters; `modules` is shown on some inverters. Raises `ConfigError`.
    """

    charge_v: float
    discharge_v: float
    maker: str = "RACKBMS"
    modules: int = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.discharge_v < self.charge_v:
            raise ConfigError(
                f"inverter: discharge_v = {self.discharge_v:g} V, charge_v = {self.charge_v:g} V: both above 0, "
                "and the first below the second"
            )
        if self.charge_v > MOST_V:
            raise ConfigError(
                f"inverter: charge_v = {self.charge_v:g} V: this protocol is for batteries of up to {MOST_V:g} V; use "
                "SunSpec for a rack"
            )
        if not (self.maker.isascii() and 0 < len(self.maker) <= 8):
            raise ConfigError(f"inverter: maker = '{self.maker}': up to eight ASCII letters")
        if not 0 <= self.modules <= 255:
            raise ConfigError(f"inverter: modules = {self.modules}: a whole number from 0 to 255")


def frames(battery: Battery, measurement: Measurement, command: Command, *, silent: bool) -> list[tuple[int, bytes]]:
    """(id, content) of the six frames; `silent`: the inverter is not there, so that nothing may flow."""
    seen, told = measurement.head[0], command.head[0]
    closed = int(told["state"]) in _CLOSED and not silent
    charge_a = _down(told["limit_charge_a"]) if closed else 0
    discharge_a = _down(told["limit_discharge_a"]) if closed else 0
    enabled = (charge_a > 0) << 7 | (discharge_a > 0) << 6
    stopped, alarms = _events(command)
    good = (measurement.sensor_degc_quality == 0) & np.isfinite(measurement.sensor_degc)
    degc = float(measurement.sensor_degc[good].mean()) if good.any() else 0.0
    return [
        (
            LIMITS,
            struct.pack(
                "<HhhH", round(10 * battery.charge_v), charge_a, discharge_a, math.ceil(10 * battery.discharge_v - 1e-6)
            ),
        ),
        (CHARGE, struct.pack("<HH", _percent(told["soc_mean"]), _percent(told["soh_mean"]))),
        (
            VALUES,
            struct.pack(
                "<hhh",
                _short(100 * _value(seen, "pack_v")),
                _short(-10 * _value(seen, "current_a")),
                _short(10 * degc),
            ),
        ),
        (EVENTS, struct.pack("<HHB2s", stopped, alarms, battery.modules, b"PN")),
        (REQUESTS, bytes((enabled, 0))),
        (MAKER, battery.maker.encode("ascii").ljust(8)),
    ]


def _down(limit_a: float) -> int:
    """A limit in 0.1 A: never more than was published, nothing where it is not a number."""
    value = float(limit_a)
    return math.floor(10 * min(value, MOST_A) + 1e-3) if value > 0.0 else 0


def _percent(share: float) -> int:
    value = float(share)
    return round(100 * min(max(value, 0.0), 1.0)) if math.isfinite(value) else 0


def _short(value: float) -> int:
    """A signed number of 16 bits, at its end where it would not fit: it is for a display."""
    return int(min(max(round(value), -32768), 32767))


def _value(head: np.void, name: str) -> float:
    """A measured value; 0 where there is none."""
    value = float(head[name])
    return value if head[f"{name}_quality"] == 0 and math.isfinite(value) else 0.0


def _shown(words: npt.NDArray[np.uint32], fault: int) -> bool:
    return bool(int(words[fault // 32]) >> fault % 32 & 1)


def _events(command: Command) -> tuple[int, int]:
    """Bits of what has stopped the battery, and of what is near its limit."""
    stopped = alarms = 0
    for bit, faults in FAULTS.items():
        stopped |= any(_shown(command.fault_fatal, fault) for fault in faults) << bit
        alarms |= any(_shown(command.fault_warning, fault) for fault in faults) << bit
    if int(command.head["severity"][0]) == Severity.FATAL and not stopped:
        stopped |= 1 << SYSTEM
    if any(_shown(command.fault_warning, fault) or _shown(command.fault_info, fault) for fault in LOST):
        alarms |= 1 << SYSTEM
    return stopped, alarms


class InverterCan:
    """An inverter on a CAN bus, told of a rack (`info`) once a second.

    `update` is called in every control step and neither waits nor raises. Raises `ConfigError` where the voltage of the
    string does not fit into the protocol.
    """

    def __init__(self, bus: Bus, info: RackInfo, battery: Battery, *, silent_s: float = 5.0) -> None:
        """`silent_s`: an inverter that was not heard for so long counts as gone, s."""
        if not silent_s > PERIOD_S:
            raise ConfigError(f"inverter: silent_s = {silent_s:g}: more than {PERIOD_S:g} s, its heart-beat's period")
        if battery.charge_v / info.n_cells > 5.0:
            raise ConfigError(
                f"inverter: charge_v = {battery.charge_v:g} V for {info.n_cells} cells in series: more than 5 V a cell"
            )
        self._bus, self._battery, self._silent_s = bus, battery, silent_s
        self._heard_s = -math.inf
        self._next_s = -math.inf
        self.sent = 0
        self.errors = 0
        self.last_error = ""
        self.silent = True

    def update(self, measurement: Measurement, command: Command, now_s: float) -> None:
        """Look for the heart-beat, and send what is due at `now_s`. A bus that fails is counted in `errors`."""
        self._listen(now_s)
        self.silent = now_s - self._heard_s > self._silent_s
        if now_s < self._next_s - 1e-9:
            return
        # what was missed is not made up for: the newest is what counts
        late = self._next_s == -math.inf or now_s >= self._next_s + PERIOD_S
        self._next_s = (now_s if late else self._next_s) + PERIOD_S
        for number, content in frames(self._battery, measurement, command, silent=self.silent):
            try:
                self._bus.send(can.Message(arbitration_id=number, data=content, is_extended_id=False), timeout=0.0)
                self.sent += 1
            except (can.CanError, OSError) as error:
                self._failed(error)
                return

    def _listen(self, now_s: float) -> None:
        for _ in range(AT_ONCE):
            try:
                message = self._bus.recv(timeout=0.0)
            except (can.CanError, OSError) as error:
                self._failed(error)
                return
            if message is None:
                return
            plain = not (message.is_error_frame or message.is_extended_id or message.is_remote_frame)
            if plain and message.arbitration_id == ALIVE:
                self._heard_s = now_s

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self.last_error = str(error) or type(error).__name__
