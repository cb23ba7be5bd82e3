"""What the current sensor reads while nothing can flow: its zero.

Welded main contactors hold the link at the voltage of the string. So a link that is apart from it, behind feedback that
says open, proves that nothing is closed, and that a current which is read is the sensor's own. Each function is one
piece of that, of numbers alone; `bms.core.machine` knows when it applies.
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, kernel

_PARTED = f4(0.005)  # share of the string voltage: five times what noise and rounding make of two sensors
_PARTED_V = f4(0.3)  # but no less: three steps of a converter
_ZERO_TAU_S = f4(5)


@kernel
def least_gap(least_v: f4, gap_v: f4) -> f4:
    """The smaller of two distances of the link from the string, V; NaN is none."""
    return f4(gap_v if np.isnan(least_v) or gap_v < least_v else least_v)


@kernel
def apart(gap_v: f4, least_v: f4, near_v: f4, pack_v: f4) -> bool:
    """Whether a link is `gap_v` away from the string's voltage `pack_v` so that nothing can hold it there.

    That is beyond `near_v`, by which two sensors never differ; or by more than noise beyond `least_v`, where it was
    closest since the contactors opened: what the sensors differ by is in both. NaN, not known, proves nothing.
    """
    return bool(gap_v > near_v or gap_v - least_v > max(_PARTED * pack_v, _PARTED_V))


@kernel
def zero_followed(zero_a: f4, current_a: f4, dt_s: f4) -> f4:
    """The zero after another reading of nothing: an average over seconds that begins with the first of them.

    NaN where none is known; a reading that is NaN changes nothing.
    """
    if np.isnan(current_a):
        return zero_a
    if np.isnan(zero_a):
        return current_a
    return f4(zero_a + dt_s / (_ZERO_TAU_S + dt_s) * (current_a - zero_a))


@kernel
def less_zero(current_a: f4, zero_a: f4, most_a: f4) -> f4:
    """The current less the sensor's zero, of which no more than `most_a` is taken off; NaN is none."""
    if np.isnan(zero_a):
        return current_a
    return f4(current_a - min(max(zero_a, -most_a), most_a))
