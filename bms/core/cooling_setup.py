"""Settings of the cooling, and from them the constants of its kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bms.core import cooling as c
from bms.core.cooling import CoolingConfig


@dataclass(frozen=True)
class CoolingSettings:
    """Table `[cooling]` of a rack's configuration."""

    hot_degc: float = 25.0  # hottest sensor at which the coolant's set-point equals it
    gain: float = 1.0  # degC of set-point per degC of the hottest sensor above that
    min_degc: float = 15.0  # lowest set-point
    max_degc: float = 25.0  # highest set-point

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no cooling can work with."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
            if f.name.endswith("_degc") and not -60 <= value <= 90:
                raise ValueError(f"{f.name} = {value:g}: no coolant has this temperature; give -60..90")
        if self.gain < 0:
            raise ValueError(f"gain = {self.gain:g}: must not be negative")
        if self.min_degc > self.max_degc:
            raise ValueError(f"min_degc = {self.min_degc:g}: must not be above max_degc = {self.max_degc:g}")


def cooling_config(settings: CoolingSettings) -> CoolingConfig:
    """Constants of the cooling."""
    number = np.zeros(c.N_NUMBERS, np.float32)
    number[c.HOT_DEGC], number[c.GAIN] = settings.hot_degc, settings.gain
    number[c.MIN_DEGC], number[c.MAX_DEGC] = settings.min_degc, settings.max_degc
    return CoolingConfig(number)
