"""Measurement and command as kernels take them, and what counts as a usable value."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.jit import f4, kernel
from hal.contract import F4, U1, U2, U4, Command, Measurement

Records = npt.NDArray[np.void]


class MeasurementView(NamedTuple):
    """A `hal.contract.Measurement` as kernels take it: `head` (1,), cells (n_cells,), sensors (n_sensors,)."""

    head: Any
    cell_v: F4
    cell_v_age_s: F4
    cell_v_quality: U1
    sensor_degc: F4
    sensor_degc_age_s: F4
    sensor_degc_quality: U1
    bleeding: U1

    @classmethod
    def of(cls, record: Measurement) -> MeasurementView:
        """The arrays of `record`, not copies."""
        return cls(record.head, *(getattr(record, name) for name in cls._fields[1:]))


class CommandView(NamedTuple):
    """A `hal.contract.Command` as kernels take it: `head` (1,), its arrays as in `COMMAND`."""

    head: Any
    horizon_a: F4
    horizon_w: F4
    reason_value: F4
    reason_margin: F4
    fault_info: U4
    fault_warning: U4
    fault_fatal: U4
    reason_index: U2
    reason: U1
    balance: U1
    shuttle: U1

    @classmethod
    def of(cls, record: Command) -> CommandView:
        """The arrays of `record`, not copies."""
        return cls(record.head, *(getattr(record, name) for name in cls._fields[1:]))


@kernel
def usable(value: f4, quality: int, age_s: f4, max_age_s: f4) -> bool:
    """True if a measured value may be used: good quality, a number, and not too old."""
    return bool(quality == 0 and not np.isnan(value) and not np.isinf(value) and age_s <= max_age_s)
