"""What surrounds a rack: ambient temperature, insulation, the chiller."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.config import require


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
