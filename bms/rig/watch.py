"""What a rack told over a while, as arrays: the ground on which `bms doctor` judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bms.cells import CellParameters
from hal.contract import Measurement, RackInfo

Floats = npt.NDArray[np.float64]
MARGIN_V = 0.5
"""A cell that is further outside its limits than this is not believed."""
ANY_CELL_V = (0.3, 5.0)
"""Voltages of a cell of which nothing is known."""
DEGC = (-40.0, 85.0)
"""Temperatures that a sensor in a rack can have while somebody looks."""


@dataclass(frozen=True)
class Seen:
    """Samples of a rack, oldest first, n of them.

    `time_s` (n,) is the rack's own time, `arrived_s` (n,) when a sample was first seen, `span_s` how long was looked.
    `values[name]` (n, k) are the values of a channel, k = 1 for a scalar, not a number where they are flagged;
    `told[name]` the same whatever the flags, `ages_s[name]` and `flags[name]` age and quality.
    """

    info: RackInfo
    cell: CellParameters | None
    time_s: Floats
    arrived_s: Floats
    span_s: float
    values: dict[str, Floats]
    told: dict[str, Floats]
    ages_s: dict[str, Floats]
    flags: dict[str, npt.NDArray[np.uint8]]

    @property
    def n(self) -> int:
        """How many samples there are."""
        return len(self.time_s)

    @property
    def cell_v_range(self) -> tuple[float, float]:
        """Voltages that a cell can have."""
        if self.cell is None:
            return ANY_CELL_V
        return max(self.cell.v_min - MARGIN_V, 0.2), self.cell.v_max + MARGIN_V

    def closed(self) -> npt.NDArray[np.bool_]:
        """Whether both main contactors are seen to be closed (n,)."""
        closed: npt.NDArray[np.bool_] = (self.values["contactors"][:, 0].astype(int) & 0b011) == 0b011
        return closed


CHANNELS = (
    *("cell_v", "sensor_degc", "current_a", "pack_v", "bus_v", "insulation_ohm"),
    *("coolant_in_degc", "coolant_out_degc", "coolant_flow_lpm"),
)
"""Channels with quality and age."""

INPUTS = ("contactors", "interlock_closed", "emergency_stop", "gas_alarm")


class Watch:
    """Collects samples: `take` each measurement, as often as one likes; what is not new is left out."""

    def __init__(self, info: RackInfo, cell: CellParameters | None) -> None:
        self.info, self.cell = info, cell
        self._samples: list[Measurement] = []
        self._arrived_s: list[float] = []
        self._start_s: float | None = None
        self._now_s = 0.0

    def take(self, measurement: Measurement, now_s: float) -> None:
        """Look at what was read at `now_s`."""
        self._start_s = now_s if self._start_s is None else self._start_s
        self._now_s = now_s
        last = self._samples[-1].head[0] if self._samples else None
        head = measurement.head[0]
        if last is not None and last["sequence"] == head["sequence"] and last["time_s"] == head["time_s"]:
            return
        kept = measurement.blank()
        kept.copy_from(measurement)
        self._samples.append(kept)
        self._arrived_s.append(now_s)

    def seen(self) -> Seen:
        """All that was taken."""
        values, told, ages_s, flags = {}, {}, {}, {}
        for name in CHANNELS:
            quality = self._stack(f"{name}_quality").astype(np.uint8)
            raw = self._stack(name)
            values[name] = np.where(quality == 0, raw, np.nan)
            told[name] = raw
            ages_s[name], flags[name] = self._stack(f"{name}_age_s"), quality
        for name in INPUTS:
            values[name] = self._stack(name)
        for name in ("contactors", "gas_alarm", "bleeding"):
            flags[name] = self._stack(f"{name}_quality").astype(np.uint8)
        span_s = self._now_s - (self._start_s or 0.0)
        times = [float(sample.head["time_s"][0]) for sample in self._samples]
        return Seen(
            self.info, self.cell, np.array(times), np.array(self._arrived_s), span_s, values, told, ages_s, flags
        )

    def _stack(self, name: str) -> Floats:
        with np.errstate(invalid="ignore"):
            rows = [np.atleast_1d(_field(sample, name)).astype(np.float64) for sample in self._samples]
        return np.array(rows) if rows else np.zeros((0, 1))


def _field(measurement: Measurement, name: str) -> npt.NDArray[Any]:
    """A field of a measurement, as a view."""
    array: npt.NDArray[Any] = (
        measurement.raw[name][0] if name in (measurement.raw.dtype.names or ()) else measurement.head[name]
    )
    return array
