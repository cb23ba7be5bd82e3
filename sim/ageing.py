"""How a cell has aged: capacity lost to the calendar and to cycles, for racks that start old.

    calendar  q = k_t t^0.526     k_t = 8.37e4 exp(-5210 / T) exp(-3560 Ua / T)                      t in days
    cycles    q = k_n n^0.828     k_n = (4.38e-8 + 1.55e-8 D + 1.68e-7 C) (exp(2190 / T) + exp(-1.55e5 / T))
                                                                                               n in full cycles

T in kelvin, Ua the potential of the graphite in V, D the depth of discharge, C the rate in 1/h. Fitted by NREL to
prismatic LFP cells of more than 250 Ah (BLAST-Lite, `Lfp_Gr_250AhPrismatic`; data in doi:10.1016/j.est.2023.109042),
between 10 and 45 degC, with a depth of 0.8..1 and at most 0.65C of charge. Cycles go up and down without rest, so k_t
is its mean over SoC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.config import require

DAYS_PER_YEAR = 365.0
CHEMISTRIES = ("lfp",)
"""Those that there is data for."""

RESISTANCE_PER_LOSS = 2.0
"""Assumed: a cell that has lost 10 % of its capacity has 20 % more resistance. NREL's fit says nothing of it."""
LOSS_SPREAD = 0.15
"""Assumed: standard deviation of what cells of one rack have lost, relative to their mean."""

_KELVIN = 273.15
_X_EMPTY, _X_FULL = 8.5e-3, 0.78  # of the graphite


@dataclass(frozen=True)
class Use:
    """What a cell went through: a year has 365 days of `cycles_per_day` between the two states of charge."""

    years: float = 0.0
    degc: float = 25.0
    soc_low: float = 0.1
    soc_high: float = 0.9
    cycles_per_day: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.years <= 30, f"[age] years = {self.years:g}: must be in 0..30")
        require(-20 <= self.degc <= 60, f"[age] degc = {self.degc:g}: must be in -20..60")
        require(
            0 <= self.soc_low < self.soc_high <= 1,
            f"[age] soc_low = {self.soc_low:g}, soc_high = {self.soc_high:g}: must rise, in 0..1",
        )
        require(0 <= self.cycles_per_day <= 6, f"[age] cycles_per_day = {self.cycles_per_day:g}: must be in 0..6")


@dataclass(frozen=True)
class Aged:
    """What has become of it: factors relative to new cells, and standard deviations for keys of `[rack]`."""

    capacity_factor: float
    resistance_factor: float
    capacity_spread: float
    resistance_spread: float


def graphite_v(soc: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Potential of the negative electrode at a state of charge, V [Safari and Delacourt 2011, as used by BLAST]."""
    x = _X_EMPTY + np.asarray(soc, np.float64) * (_X_FULL - _X_EMPTY)
    potential: npt.NDArray[np.float64] = (
        0.6379
        + 0.5416 * np.exp(-305.5309 * x)
        + 0.044 * np.tanh(-(x - 0.1958) / 0.1088)
        - 0.1978 * np.tanh((x - 1.0571) / 0.0854)
        - 0.6875 * np.tanh((x + 0.0117) / 0.0529)
        - 0.0175 * np.tanh((x - 0.5692) / 0.0875)
    )
    return potential


def calendar_loss(use: Use) -> float:
    """Share of the capacity that the years took."""
    kelvin = use.degc + _KELVIN
    soc = np.linspace(use.soc_low, use.soc_high, 201)
    rate = 8.37e4 * math.exp(-5210.0 / kelvin) * float(np.exp(-3560.0 * graphite_v(soc) / kelvin).mean())
    return rate * float((DAYS_PER_YEAR * use.years) ** 0.526)


def cycle_loss(use: Use) -> float:
    """Share of the capacity that the cycles took. The rate is what spreads them evenly over the day."""
    kelvin, depth = use.degc + _KELVIN, use.soc_high - use.soc_low
    per_hour = 2.0 * depth * use.cycles_per_day / 24.0
    rate = (4.38e-8 + 1.55e-8 * depth + 1.68e-7 * per_hour) * (math.exp(2190.0 / kelvin) + math.exp(-1.55e5 / kelvin))
    full_cycles = depth * use.cycles_per_day * DAYS_PER_YEAR * use.years
    return rate * float(full_cycles**0.828)


def aged(use: Use, capacity_spread: float = 0.01, resistance_spread: float = 0.05) -> Aged:
    """What has become of cells that had the spreads of `[rack]` when they were new."""
    loss = calendar_loss(use) + cycle_loss(use)
    left, growth = 1.0 - loss, RESISTANCE_PER_LOSS * loss
    require(left >= 0.5, f"[age] years = {use.years:g}: {loss:.0%} of the capacity is gone, more than the data tell of")
    return Aged(
        capacity_factor=left,
        resistance_factor=1.0 + growth,
        capacity_spread=math.hypot(capacity_spread, LOSS_SPREAD * loss / left),
        resistance_spread=math.hypot(resistance_spread, LOSS_SPREAD * growth / (1.0 + growth)),
    )
