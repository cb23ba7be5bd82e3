"""Settings of the cells as thermometers, and from them the constants that the kernel takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bms.core import thermometer as t
from bms.core.thermometer import ThermometerConfig, ThermometerState


@dataclass(frozen=True)
class ThermometerSettings:
    """Table `[thermometer]` of a rack's configuration."""

    slow_s: float = 30.0  # changes of voltage and current count against their averages over this time
    memory_s: float = 150.0  # what the cells answered is remembered for so long
    usual_s: float = 14400.0  # what a cell answers otherwise than the others over this time is its own resistance
    noise_v: float = 5e-4  # of a cell's voltage; six times what it leaves open of an answer is taken off
    soc_low: float = 0.12  # nothing is learnt while a cell is below this SoC, ...
    soc_high: float = 0.92  # ... or one above this: near its ends the curve answers, too, and in no two cells alike

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting with which nothing can be told."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
        for name in ("slow_s", "memory_s", "usual_s", "noise_v"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be greater than 0")
        if not 0 <= self.soc_low < self.soc_high <= 1:
            raise ValueError(
                f"soc_low = {self.soc_low}: must be below soc_high = {self.soc_high}, and both must be from 0 to 1"
            )


def thermometer_config(settings: ThermometerSettings | None = None) -> ThermometerConfig:
    """Constants of the kernel."""
    s = settings or ThermometerSettings()
    setting = np.zeros(t.N_SETTINGS, np.float32)
    for index, x in (
        (t.SLOW_S, s.slow_s),
        (t.MEMORY_S, s.memory_s),
        (t.USUAL_S, s.usual_s),
        (t.NOISE_V, s.noise_v),
        (t.SOC_LOW, s.soc_low),
        (t.SOC_HIGH, s.soc_high),
    ):
        setting[index] = x
    return ThermometerConfig(setting)


def thermometer_state(n_cells: int) -> ThermometerState:
    """Room for the memory of a rack; `thermometer_init` fills it."""
    return ThermometerState(
        *(np.zeros(n_cells if f.dims == "cells" else int(f.dims), np.dtype(f.kind)) for f in t.STATE_FIELDS)
    )
