"""What surrounds a rack: ambient temperature, insulation, and faults that come and go at stated times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.config import TwinError, from_table, hint, require


@dataclass(frozen=True)
class EnvironmentConfig:
    """Table `[environment]`."""

    ambient_degc: float = 25.0
    ambient_swing_degc: float = 0.0  # amplitude of a daily sine, warmest at 15 h
    start_hour: float = 0.0
    insulation_ohm: float = 2e6
    coolant_min_degc: float = 15.0  # the chiller's range: a set-point outside is held at its end
    coolant_max_degc: float = 40.0

    def __post_init__(self) -> None:
        for name in ("ambient_degc", "coolant_min_degc", "coolant_max_degc"):
            require(-60 <= getattr(self, name) <= 90, f"[environment] {name} = {getattr(self, name)}: outside -60..90")
        require(self.ambient_swing_degc >= 0, "[environment] ambient_swing_degc: must not be negative")
        require(self.insulation_ohm >= 0, "[environment] insulation_ohm: must not be negative")
        require(self.coolant_min_degc <= self.coolant_max_degc, "[environment]: coolant_min_degc > coolant_max_degc")

    def ambient_at(self, time_s: float) -> float:
        """Ambient temperature at `time_s`."""
        if self.ambient_swing_degc == 0.0:
            return self.ambient_degc
        hour = self.start_hour + time_s / 3600
        return self.ambient_degc + self.ambient_swing_degc * math.cos(2 * math.pi * (hour - 15) / 24)


FAULT_KINDS: dict[str, str] = {
    "cell_v_missing": "the voltages of the groups `index` are not received",
    "cell_v_frozen": "the voltages of the groups `index` keep their last value, marked as good",
    "sensor_missing": "the temperature sensors `index` are not received",
    "current_missing": "the current is not received",
    "current_offset": "the current reads `value` A too high",
    "insulation": "the insulation resistance falls to `value` ohm",
    "interlock_open": "the interlock loop is open",
    "contactor_weld": "the main contactors do not open any more",
    "coolant_stop": "the pump stands still",
}
_NEEDS_INDEX = ("cell_v_missing", "cell_v_frozen", "sensor_missing")
_NEEDS_VALUE = ("current_offset", "insulation")


@dataclass(frozen=True)
class FaultConfig:
    """One entry of `[[fault]]`: `kind` (see `FAULT_KINDS`) from `at_s` until `until_s` (for good where left out).

    `rack` numbers the racks of a site that have it; every rack where left out.
    """

    kind: str
    at_s: float = 0.0
    until_s: float | None = None
    index: tuple[int, ...] = ()
    value: float | None = None
    rack: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        where = f"[[fault]] kind = '{self.kind}'"
        require(self.kind in FAULT_KINDS, f"{where}{hint(self.kind, FAULT_KINDS)}")
        require(bool(self.index) == (self.kind in _NEEDS_INDEX), f"{where}: index is " + self._want(_NEEDS_INDEX))
        require(
            (self.value is not None) == (self.kind in _NEEDS_VALUE), f"{where}: value is " + self._want(_NEEDS_VALUE)
        )
        require(self.until_s is None or self.until_s > self.at_s, f"{where}: until_s must be later than at_s")

    def _want(self, needs: tuple[str, ...]) -> str:
        return "missing" if self.kind in needs else "not used by this kind"

    def active(self, time_s: float) -> bool:
        """Whether the fault is there at `time_s`."""
        return self.at_s <= time_s and (self.until_s is None or time_s < self.until_s)


def fault_configs(
    entries: Sequence[Mapping[str, Any]], n_cells: int, n_sensors: int, n_racks: int = 1
) -> tuple[FaultConfig, ...]:
    """The faults of a scenario for racks of that size. Raises `TwinError`."""
    faults = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise TwinError(f"[[fault]] number {number + 1}: expected a table")
        fault = from_table(FaultConfig, entry, f"[[fault]] number {number + 1}")
        size = n_sensors if fault.kind == "sensor_missing" else n_cells
        for index in fault.index:
            require(0 <= index < size, f"[[fault]] kind = '{fault.kind}': index {index} is not in 0..{size - 1}")
        for rack in fault.rack:
            require(0 <= rack < n_racks, f"[[fault]] kind = '{fault.kind}': rack {rack} is not in 0..{n_racks - 1}")
        faults.append(fault)
    return tuple(faults)
