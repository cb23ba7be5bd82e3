"""Derating by polylines over temperature and SoC: what share of the rated current is left, and how far its end is."""

from __future__ import annotations

from typing import Any

import numpy as np

from bms.core.jit import f4, kernel
from hal.contract import F4, LANES

POINTS = 8
"""Points of a derating polyline: so many places, then as many shares."""
DISCHARGE_DEGC, CHARGE_DEGC, DISCHARGE_SOC, CHARGE_SOC = range(4)

EXTREMES_WORK = 3 * LANES
"""Numbers of scratch for `extremes`."""

u8 = np.uint64
_LANES = u8(LANES)
_LOW, _HIGH, _WRONG = (u8(k * LANES) for k in range(3))
_ZERO = f4(0.0)
_HUGE = f4(1e30)


@kernel
def share_at(polyline: F4, which: int, x: f4) -> f4:
    """Share 0..1 that the polyline `which` leaves at `x`; flat beyond its ends, 0 where `x` is not a number."""
    p = polyline[which * 2 * POINTS : (which + 1) * 2 * POINTS]
    share: f4 = p[2 * POINTS - 1] if x >= p[POINTS - 1] else _ZERO
    if x < p[0]:
        share = p[POINTS]
    for k in range(POINTS - 1):
        if x >= p[k] and x < p[k + 1]:
            share = p[POINTS + k] + (p[POINTS + k + 1] - p[POINTS + k]) * ((x - p[k]) / (p[k + 1] - p[k]))
    return share


@kernel
def spare_at(polyline: F4, which: int, x: f4, rising: bool) -> f4:
    """How far `x` is from where the polyline has no share left: below it (`rising`) or above.

    Where a polyline never gets to 0, from its end.
    """
    p = polyline[which * 2 * POINTS : (which + 1) * 2 * POINTS]
    edge: f4 = p[0] if rising else p[POINTS - 1]
    for k in range(POINTS):
        j = k if rising else POINTS - 1 - k
        if p[POINTS + j] == _ZERO and (p[j] <= x if rising else p[j] >= x):
            edge = p[j]
    return x - edge if rising else edge - x


@kernel
def extremes(w: Any, soc: F4, n: int) -> tuple[f4, f4, int]:
    """Smallest and largest of the first `n` values, and a place where there is no number, or -1."""
    for c in range(_LANES):
        w[_LOW + c] = _HUGE
        w[_HIGH + c] = -_HUGE
        w[_WRONG + c] = _ZERO
    whole = n // LANES * LANES
    for first in range(0, whole, LANES):
        part = soc[first : first + LANES]
        for c in range(_LANES):
            z = part[c]
            w[_LOW + c] = z if z < w[_LOW + c] else w[_LOW + c]
            w[_HIGH + c] = z if z > w[_HIGH + c] else w[_HIGH + c]
            w[_WRONG + c] += z - z
    for k in range(whole, n):
        z = soc[k]
        w[_LOW] = z if z < w[_LOW] else w[_LOW]
        w[_HIGH] = z if z > w[_HIGH] else w[_HIGH]
        w[_WRONG] += z - z
    low, high, wrong = w[_LOW], w[_HIGH], w[_WRONG]
    for c in range(_LANES):
        low = min(low, w[_LOW + c])
        high = max(high, w[_HIGH + c])
        wrong += w[_WRONG + c]
    at = -1
    if np.isnan(wrong):
        for k in range(n):
            if at < 0 and not abs(soc[k]) < _HUGE:
                at = k
    return low, high, at


@kernel
def place_of(soc: F4, n: int, z: f4) -> int:
    """Where `z` stands among the first `n` values, or -1."""
    for k in range(n):
        if soc[k] == z:
            return k
    return -1
