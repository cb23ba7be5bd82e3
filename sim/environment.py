"""What surrounds a rack: ambient temperature, insulation, the chiller."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.config import check_ranges, key, require


@dataclass(frozen=True)
class EnvironmentConfig:
    """Table `[environment]`."""

    ambient_degc: float = key("mean temperature of the air around the rack", 25.0, low=-60, high=90)
    ambient_swing_degc: float = key("amplitude of its daily sine, warmest at 15 h", 0.0, low=0, unit="K")
    start_hour: float = key("time of day at which the run begins", 0.0)
    insulation_ohm: float = key("insulation resistance of the rack", 2e6, low=0)
    coolant_min_degc: float = key(
        "the coldest that the chiller can: a lower set-point is held here", 15.0, low=-60, high=90
    )
    coolant_max_degc: float = key("the warmest that it can", 40.0, low=-60, high=90)

    def __post_init__(self) -> None:
        check_ranges(self, "[environment]")
        require(self.coolant_min_degc <= self.coolant_max_degc, "[environment]: coolant_min_degc > coolant_max_degc")

    def ambient_at(self, time_s: float) -> float:
        """Ambient temperature at `time_s`."""
        if self.ambient_swing_degc == 0.0:
            return self.ambient_degc
        hour = self.start_hour + time_s / 3600
        return self.ambient_degc + self.ambient_swing_degc * math.cos(2 * math.pi * (hour - 15) / 24)
