"""Settings of the leak detection, and from them the constants that its kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bms.core import leak as k
from bms.core.leak import LeakConfig
from hal.contract import RackInfo

_DAY_H = 24.0


@dataclass(frozen=True)
class LeakSettings:
    """Table `[leak]` of a rack."""

    period_s: float = 60.0  # s between two looks
    corr_s: float = 14400.0  # s for which errors of a cell's SoC last: looks within it count as one
    floor_soc: float = 0.001  # what a cell's SoC is never known better than, against the others
    own_share: float = 0.5  # share of the filter's variance that is the cell's own; the rest is alike in all cells
    common_share: float = 0.5  # what is left of the mean cell's variance where cells stand at different places
    prior_a: float = 0.2  # standard deviation of the leak before anything is known, A
    walk_a_per_day: float = 0.01  # how much a leak changes, A/sqrt(day)
    fast_prior_a: float = 2.0  # the same of the fast filter, A
    fast_walk_a_per_day: float = 0.3  # and, A/sqrt(day)
    capacity_std: float = 0.015  # standard deviation of the relative capacity
    capacity_walk_per_day: float = 0.0002  # how much that changes, 1/sqrt(day)
    k_sigma: float = 4.0  # a leak counts as far as it is beyond this many standard deviations
    count_error: float = 0.05  # relative error of the charge that is bled and moved
    flow_s: float = 172800.0  # s over which that charge is averaged
    innovation_s: float = 1800.0  # s over which the innovation of a cell is averaged
    doubt_v: float = 0.008  # V that it may be apart from the middle cell's before the SoC is doubted
    doubt_soc_per_h: float = 0.05  # how much the deviation of the SoC grows then, 1/h

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no detection can work with."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{f.name} = {value!r}: must be a number")
            if value < 0:
                raise ValueError(f"{f.name} = {value}: must not be negative")
        for name in ("period_s", "own_share", "prior_a", "walk_a_per_day", "fast_prior_a", "flow_s", "innovation_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be greater than 0")
        for name in ("own_share", "common_share", "count_error"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at most 1")
        if self.fast_walk_a_per_day <= self.walk_a_per_day:
            raise ValueError(
                f"fast_walk_a_per_day = {self.fast_walk_a_per_day}: must be larger than "
                f"walk_a_per_day = {self.walk_a_per_day}"
            )


def leak_config(info: RackInfo, settings: LeakSettings | None = None) -> LeakConfig:
    """Constants of the leak detection for the rack `info`."""
    s = settings or LeakSettings()
    setting = np.empty(k.N_SETTINGS, np.float32)
    ah = info.capacity_ah
    setting[k.CAPACITY_AH], setting[k.PERIOD_S], setting[k.CORR_S] = ah, s.period_s, s.corr_s
    setting[k.FLOOR_VAR], setting[k.OWN], setting[k.COMMON] = (s.floor_soc * ah) ** 2, s.own_share, s.common_share
    setting[k.PRIOR_A2], setting[k.WALK_A2_PER_H] = s.prior_a**2, s.walk_a_per_day**2 / _DAY_H
    setting[k.PRIOR_C2], setting[k.WALK_C2_PER_H] = s.capacity_std**2, s.capacity_walk_per_day**2 / _DAY_H
    setting[k.K_SIGMA], setting[k.COUNT_ERROR], setting[k.FLOW_S] = s.k_sigma, s.count_error, s.flow_s
    setting[k.INNOVATION_S], setting[k.DOUBT_V] = s.innovation_s, s.doubt_v
    setting[k.DOUBT_PER_H] = s.doubt_soc_per_h
    setting[k.FAST_PRIOR_A2], setting[k.FAST_WALK_A2_PER_H] = s.fast_prior_a**2, s.fast_walk_a_per_day**2 / _DAY_H
    return LeakConfig(setting)
