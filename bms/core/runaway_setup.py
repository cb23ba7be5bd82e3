"""Settings of the runaway detection, and from them the constants that its kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bms.core import runaway as r
from bms.core.runaway import RunawayConfig, RunawayState


@dataclass(frozen=True)
class RunawaySettings:
    """Table `[runaway]` of a rack's configuration."""

    look_s: float = 1.0  # a rate is taken over this time, or one step where that is longer
    rate_k_per_s: float = 1.0  # rate of a runaway where the voltage has dropped or the cell is hot (GB 38031-2025), K/s
    fast_rate_k_per_s: float = 3.0  # rate of a runaway in any case, a few in a row (GB/T 36276-2023), K/s
    hot_degc: float | None = None  # temperature that counts as hot; default: the largest of the cell file
    drop: float = 0.25  # share of the mean cell's voltage that a cell must be below it
    observer_s: float = 120.0  # heat is estimated over this time
    place_s: float = 14400.0  # what is a sensor's place in the rack is averaged over this time

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no detection can work with."""
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
            if f.name != "hot_degc" and value <= 0:
                raise ValueError(f"{f.name} = {value}: must be greater than 0")
        if self.drop >= 1:
            raise ValueError(f"drop = {self.drop}: must be less than 1")
        if self.fast_rate_k_per_s < self.rate_k_per_s:
            raise ValueError(
                f"fast_rate_k_per_s = {self.fast_rate_k_per_s}: must not be below rate_k_per_s = {self.rate_k_per_s}"
            )
        if self.place_s <= 10 * self.observer_s:
            raise ValueError(
                f"place_s = {self.place_s}: must be more than ten times observer_s = {self.observer_s}, or what begins "
                "to heat is taken for the sensor's place"
            )


def runaway_config(degc_max: float, settings: RunawaySettings | None = None) -> RunawayConfig:
    """Constants of the detection for cells that may have `degc_max`."""
    s = settings or RunawaySettings()
    setting = np.zeros(r.N_SETTINGS, np.float32)
    for index, x in (
        (r.LOOK_S, s.look_s),
        (r.RATE, s.rate_k_per_s),
        (r.FAST_RATE, s.fast_rate_k_per_s),
        (r.HOT_DEGC, degc_max if s.hot_degc is None else s.hot_degc),
        (r.DROP, s.drop),
        (r.OBSERVER_S, s.observer_s),
        (r.PLACE_S, s.place_s),
    ):
        setting[index] = x
    return RunawayConfig(setting)


def runaway_state(n_sensors: int) -> RunawayState:
    """Room for the memory of a rack; `runaway_init` fills it."""
    return RunawayState(
        *(np.zeros(n_sensors if f.dims == "sensors" else int(f.dims), np.float32) for f in r.STATE_FIELDS)
    )
