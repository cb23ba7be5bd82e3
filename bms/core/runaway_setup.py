"""Settings of the runaway detection, and from them the constants that its kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from bms.core import runaway as r
from bms.core.estimator_setup import CellModel
from bms.core.runaway import RunawayConfig, RunawayState

Array = npt.NDArray[np.float64]
MOST_V_PER_K = 7e-4
"""No dU/dT is taken for larger, V/K: that of an empty LFP cell is -6.65e-4 (doi:10.14279/depositonce-25036)."""

_FINE = 10  # points of the curve between two nodes of dU/dT


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


def entropy_v_per_k(cell: CellModel) -> Array:
    """dU/dT over SoC, V/K (N_ENTROPY,): how the open-circuit voltages of the cell file change with temperature.

    The straight line of least squares over all temperatures, averaged between the neighbouring nodes. 0 of a file with
    one temperature, or one curve for all: it does not know.
    """
    if cell.degc.size < 2:
        return np.zeros(r.N_ENTROPY)
    z = np.linspace(0.0, 1.0, (r.N_ENTROPY - 1) * _FINE + 1)
    slope = np.polyfit(cell.degc, np.stack([np.interp(z, cell.soc, curve) for curve in cell.ocv_v]), 1)[0]
    weights = _FINE - np.abs(np.arange(1 - _FINE, _FINE))
    whole = np.pad(slope, _FINE - 1, mode="edge")
    at_nodes: Array = np.convolve(whole, weights / weights.sum(), "valid")[::_FINE]
    return np.clip(at_nodes, -MOST_V_PER_K, MOST_V_PER_K)


def runaway_config(
    degc_max: float, settings: RunawaySettings | None = None, v_per_k: Array | None = None
) -> RunawayConfig:
    """Constants of the detection for cells that may have `degc_max`; `v_per_k` (N_ENTROPY,) as `entropy_v_per_k`."""
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
    entropy = np.zeros(r.N_ENTROPY) if v_per_k is None else v_per_k
    return RunawayConfig(setting, entropy.astype(np.float32))


def runaway_state(n_sensors: int) -> RunawayState:
    """Room for the memory of a rack; `runaway_init` fills it."""
    return RunawayState(
        *(np.zeros(n_sensors if f.dims == "sensors" else int(f.dims), np.dtype(f.kind)) for f in r.STATE_FIELDS)
    )
