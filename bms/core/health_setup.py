"""Settings of the state of health, and from them the constants that its kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bms.core import health_layout as h
from bms.core.health_layout import HealthConfig


@dataclass(frozen=True)
class HealthSettings:
    """Settings of the table `[health]`. Capacities and resistances are relative to the cell type's."""

    period_s: float = 60.0  # each cell is looked at once in this time
    memory_days: float = 90.0  # what was learnt of a capacity has lost 63 % of its weight after this time
    resistance_memory_days: float = 3.0  # the same of a resistance
    min_swing: float = 0.3  # SoC that must lie between two moments of known SoC, 0..1
    max_soc_std: float = 0.02  # a moment counts as one of known SoC if the voltage tells it to this, 0..1
    capacity_prior_std: float = 0.08  # how far a cell may be from its type before anything is known
    drop_share: float = 0.05  # error of the polarisation that is taken off a voltage, relative
    model_error_v: float = 0.015  # lasting error of the voltage model at the ends of the curve, beyond the cell file's
    voltage_offset_v: float = 0.001  # lasting error of a voltage sensor
    voltage_noise_v: float = 0.001  # passing error of one sample of it
    current_gain_std: float = 0.003  # error of the current sensor's gain: a capacity is known no better
    efficiency_std: float = 0.0005  # error of the coulombic efficiency
    leak_per_h: float = 2e-5  # self-discharge that is not counted, share of the capacity an hour
    leave: float = 0.1  # a visit ends once this share of the capacity has flowed after its best moment
    leave_h: float = 6.0  # or after this time, h
    capacity_min: float = 0.5  # no capacity is believed to be below or above
    capacity_max: float = 1.2
    known_std: float = 0.05  # a fault looks at a capacity only when it is known to this
    resistance_min_c: float = 0.05  # the resistance is looked at only above this current, 1/h
    change_c: float = 0.02  # a change of the current within some seconds tells the resistance above this, 1/h
    resistance_std: float = 0.04  # what the resistances of the cell file may be off by, relative
    feed_filter: bool = True  # hand capacities to the filter of the SoC

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that nothing can be learnt with."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "feed_filter":
                if not isinstance(value, bool):
                    raise ValueError(f"{f.name} = {value!r}: must be true or false")
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
            if value <= 0:
                raise ValueError(f"{f.name} = {value}: must be greater than 0")
        for name in ("min_swing", "max_soc_std", "capacity_prior_std", "leave", "known_std"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be less than 1")
        if self.leave >= self.min_swing:
            raise ValueError(f"leave = {self.leave}: must be less than min_swing = {self.min_swing}")
        if not self.capacity_min < 1 < self.capacity_max:
            raise ValueError(f"capacity_min = {self.capacity_min}: must be below 1, and capacity_max above")


def health_config(capacity_ah: float, n_parallel: int, settings: HealthSettings | None = None) -> HealthConfig:
    """Constants for cells of `capacity_ah`, `n_parallel` of them in each group."""
    s = settings or HealthSettings()
    number = np.zeros(h.N_NUMBERS, np.float32)
    for index, x in (
        (h.PERIOD_S, s.period_s),
        (h.MEMORY_H, 24.0 * s.memory_days),
        (h.R_MEMORY_H, 24.0 * s.resistance_memory_days),
        (h.MIN_SWING, s.min_swing),
        (h.MAX_STD, s.max_soc_std),
        (h.PRIOR_STD, s.capacity_prior_std),
        (h.DROP_SHARE, s.drop_share),
        (h.MODEL_ERROR_V, s.model_error_v),
        (h.CHANGE_A, s.change_c * capacity_ah),
        (h.OFFSET_V, s.voltage_offset_v),
        (h.WHITE_V, s.voltage_noise_v),
        (h.GAIN_STD, s.current_gain_std),
        (h.EFFICIENCY_STD, s.efficiency_std),
        (h.LEAK_PER_H, s.leak_per_h),
        (h.LEAVE, s.leave),
        (h.LEAVE_H, s.leave_h),
        (h.Q_MIN, s.capacity_min),
        (h.Q_MAX, s.capacity_max),
        (h.KNOWN_STD, s.known_std),
        (h.R_MIN_A, s.resistance_min_c * capacity_ah),
        (h.R_STD, s.resistance_std),
        (h.PER_CELL, 1.0 / n_parallel),
    ):
        number[index] = x
    return HealthConfig(number, np.array([s.feed_filter], np.uint32))
