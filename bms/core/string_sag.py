"""A string that suddenly sinks against the sum of its cells: one of them sinks behind a reading that does not.

The string voltage less the sum is a constant, plus the difference of the gains times the level, less the current times
the resistance of what no cell's reading has in it: bus bars, cables, a fuse. That resistance is learnt, as the slope
of the difference over the current, both less their own slow averages. What remains is a sag, less what is not known of
that slope, what gains may make of a change of the level, and the larger of resolution and noise of the sensor: the
noise is what usually remains, in the memory of `SAG_TAU_S`.

A single sample that is off is none: of three the middle one counts, so that string and cells may be read one after the
other while the current steps. A string whose own reading stands still has not sunk: by so much as the sum has moved
since it last changed, nothing is told.

A reading that jumps up by itself lifts the sum, and a string that does not show it has not sunk: by so much the place
of the difference is moved.

Either a cell sinks behind a reading that stands still, or the string's sensor is wrong. So the sag counts in full where
one cell's reading, or those of few, stand still while the others change, if only by their noise; the one that has done
so for longest is named. Elsewhere it counts half, less what a wrong current, or a small fault of the string's sensor,
may do. A string that falls by more than a cell has is no cell's: what it reads then is its place from there on.
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, kernel
from bms.core.signals_layout import (
    BEFORE_OFF_V,
    CALM,
    CURRENT_STILL_AFTER_S,
    FAST_OHM,
    LAST_A,
    LAST_OFF_V,
    LAST_SUM_V,
    OFF_SLOW_V,
    OFF_V,
    PACK_V_LSB_V,
    PATH_OHM,
    PATH_VAR,
    PER_CELL,
    READ_PACK_V,
    READ_SUM_V,
    SAG_TAU_S,
    SAMPLE_AGE_S,
    SENSE_SHARE,
    STRING_A,
    STRING_SAG_V,
    STRING_SEEN_S,
    STRING_SINCE_S,
    STRING_SLOW_A,
    STRING_SLOW_TAU_S,
    STRING_SUM_SLOW_V,
    STRING_SUM_V,
    STRING_TAU_S,
    STRING_VAR,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, U1

_NAN = f4(np.nan)
_ZERO, _ONE = f4(0), f4(1)
_HALF = f4(0.5)
_SETTLED_S = f4(30)
_PATH_SHARE = f4(0.1)  # of the resistance of the cells: a deviation of that of bus bars, before anything is known
_FORGOTTEN = f4(0.1)  # of that, in an hour: contacts get warm, and loose
_HOUR_S = f4(3600)
_GAIN = f4(0.01)  # two sensors differ by so much; more is SUM_IMPLAUSIBLE
_SURE, _FAR = f4(3), f4(4)  # deviations
_MOST = f4(9)  # variances: more than that is no noise
_SUSPECT_SLOWER = f4(6)
_UNMEASURED = f4(0.15)  # of a change of the sum, which a current of which nothing is measured leaves in the string
_JUMP = f4(5e-4)  # of the string voltage: such a jump of its sensor is no news
_CELL_V = f4(1.25)  # of the mean cell's voltage: one cell cannot sink by more
_FEW = 4  # in so many cells, one
_ALONE_V = f4(0.1)  # such a rise of one reading within a sample is no noise


@kernel
def _middle(a: f4, b: f4, c: f4) -> f4:
    """The middle one of three numbers."""
    middle: f4 = max(min(a, b), min(max(a, b), c))
    return middle


@kernel
def _begin(number: F4, pack_v: f4, sum_v: f4, current_a: f4, most_var: f4) -> None:
    """Where everything is when it is first seen, or after a pause: that is its place, and bus bars are not known.

    The slow averages follow in the first step, as wide as the time that they have seen.
    """
    number[STRING_SEEN_S] = _ZERO
    number[STRING_SAG_V] = _ZERO
    number[LAST_OFF_V] = pack_v - sum_v
    number[OFF_V] = pack_v - sum_v
    number[LAST_SUM_V] = sum_v
    number[STRING_SUM_V] = sum_v
    number[LAST_A] = current_a
    number[STRING_A] = current_a
    number[READ_PACK_V] = pack_v
    number[READ_SUM_V] = sum_v
    number[PATH_VAR] = most_var


@kernel
def fallen(number: F4, middle_v: f4) -> f4:
    """By how much the difference `middle_v` lies below its slow average, and the current does not explain it, V."""
    changed_a = number[LAST_A] - number[STRING_SLOW_A]
    doubt_v = _SURE * np.sqrt(number[PATH_VAR]) * abs(changed_a)
    fallen_v: f4 = number[OFF_SLOW_V] - middle_v - number[PATH_OHM] * changed_a - doubt_v
    return fallen_v


@kernel
def risen_alone(state: SignalState, mean_v: f4) -> f4:
    """By how much the reading of one cell that has just changed lies above its usual place, the largest, V.

    Its usual place is `apart_v` from the mean of all; `mean_v` is that mean now, of which the cell is a part.
    """
    n = state.cell_v.shape[0]
    risen_v = _ZERO
    for k in range(n):
        if state.cell_still_s[k] == _ZERO:
            risen_v = max(risen_v, state.cell_v[k] - mean_v - state.apart_v[k])
    alone_v: f4 = risen_v * f4(n) / f4(max(n - 1, 1))
    return alone_v


@kernel
def _move(number: F4, state: SignalState, off_v: f4, sum_v: f4) -> None:
    """Move the place of the difference by what a cell's reading, and with it the sum, rises and the string does not."""
    unseen_v = min(number[LAST_OFF_V] - off_v, sum_v - number[LAST_SUM_V])
    if unseen_v > _ALONE_V:
        alone_v = risen_alone(state, sum_v / f4(state.cell_v.shape[0]))
        number[OFF_SLOW_V] -= min(alone_v, unseen_v) if alone_v > _ALONE_V else _ZERO


@kernel
def _follow(config: SignalConfig, number: F4, middle_v: f4, pack_v: f4, sum_v: f4, current_a: f4, since_s: f4) -> None:
    """Take over a sample: the middle one of the last three differences, and what belonged to it."""
    c = config.number
    fast = since_s / (c[STRING_TAU_S] + since_s)
    slow = since_s / (min(number[STRING_SEEN_S], c[STRING_SLOW_TAU_S]) + since_s)
    slow = slow / _SUSPECT_SLOWER if number[STRING_SAG_V] > _ZERO else slow
    number[OFF_V] += fast * (middle_v - number[OFF_V])
    number[STRING_SUM_V] += fast * (number[LAST_SUM_V] - number[STRING_SUM_V])
    number[STRING_A] += fast * (number[LAST_A] - number[STRING_A])
    number[OFF_SLOW_V] += slow * (number[OFF_V] - number[OFF_SLOW_V])
    number[STRING_SUM_SLOW_V] += slow * (number[STRING_SUM_V] - number[STRING_SUM_SLOW_V])
    number[STRING_SLOW_A] += slow * (number[STRING_A] - number[STRING_SLOW_A])
    number[BEFORE_OFF_V] = number[LAST_OFF_V]
    number[LAST_OFF_V] = pack_v - sum_v
    number[LAST_SUM_V] = sum_v
    number[LAST_A] = current_a
    if pack_v != number[READ_PACK_V]:
        number[READ_PACK_V] = pack_v
        number[READ_SUM_V] = sum_v
    number[STRING_SEEN_S] += since_s


@kernel
def _sag(config: SignalConfig, number: F4, sum_v: f4, most_var: f4, since_s: f4) -> f4:
    """By how much the string lies lower than anything explains, V; learns the bus bars' resistance and the noise."""
    c = config.number
    changed_a = number[STRING_A] - number[STRING_SLOW_A]
    gain_v = _GAIN * abs(number[STRING_SUM_V] - number[STRING_SUM_SLOW_V])
    off_v = number[OFF_V] - number[OFF_SLOW_V] + number[PATH_OHM] * changed_a
    doubt_v = _SURE * np.sqrt(number[PATH_VAR]) * abs(changed_a) + gain_v

    least_var = _HALF * _HALF * _HALF * _HALF * c[PACK_V_LSB_V] * c[PACK_V_LSB_V]
    noise_var = number[STRING_VAR] + least_var + gain_v * gain_v
    path_var = number[PATH_VAR] * changed_a * changed_a
    most_v = _SURE * np.sqrt(path_var + noise_var)
    # samples that the filter has mixed are not independent
    alike = _ONE + f4(2) * c[STRING_TAU_S] / since_s
    learnt = number[PATH_VAR] * changed_a / (path_var + noise_var * alike)
    number[PATH_OHM] -= learnt * min(max(off_v, -most_v), most_v)
    wander = _FORGOTTEN * _FORGOTTEN * most_var * since_s / _HOUR_S
    number[PATH_VAR] = min((_ONE - learnt * changed_a) * number[PATH_VAR] + wander, most_var)

    odd_v = max(abs(off_v) - doubt_v, _ZERO)
    odd_var = min(odd_v * odd_v, _MOST * number[STRING_VAR] + least_var)
    learn = since_s / (min(number[STRING_SEEN_S], c[SAG_TAU_S]) + since_s)
    learn = learn / _SUSPECT_SLOWER if number[STRING_SAG_V] > _ZERO else learn
    number[STRING_VAR] += learn * (odd_var - number[STRING_VAR])
    own_v = max(max(c[PACK_V_LSB_V], _FAR * np.sqrt(number[STRING_VAR])), abs(sum_v - number[READ_SUM_V]))
    sag_v: f4 = max(-off_v - doubt_v - own_v, _ZERO)
    return sag_v if number[STRING_SEEN_S] >= _SETTLED_S else _ZERO


@kernel
def still_cell(still_s: F4, after_s: f4) -> int:
    """The cell whose reading has stood still for longest, and for `after_s` at least, if few do; or -1."""
    longest_s, at, count = after_s, -1, 0
    for k in range(still_s.shape[0]):
        count += int(still_s[k] >= after_s)
        if still_s[k] >= longest_s and (at < 0 or still_s[k] > longest_s):
            longest_s = still_s[k]
            at = k
    few = count < still_s.shape[0] and (count == 1 or _FEW * count <= still_s.shape[0])
    return at if few else -1


@kernel
def _any_bled(use: U1) -> bool:
    """True if any of the cells, all of which are usable, was bled or next to one when it was measured."""
    calm = np.uint8(CALM)
    for k in range(use.shape[0]):
        calm &= use[k]
    return bool(calm == 0)


@kernel
def string_sag(
    config: SignalConfig, state: SignalState, pack_v: f4, sum_v: f4, current_a: f4, dt_s: f4
) -> tuple[f4, int]:
    """(how far the string has sunk against its cells, V, in full or half; the cell whose reading stands still, or -1).

    NaN while one of them is not measured, the sum of all cells among them, and while cells are bled over sense wires of
    which nothing is known. Between two samples the last one counts.
    """
    c, number = config.number, state.number
    number[STRING_SINCE_S] += dt_s
    if np.isnan(pack_v + sum_v + current_a) or (c[SENSE_SHARE] == _ZERO and _any_bled(state.cell_use)):
        return _NAN, -1
    since_s = number[STRING_SINCE_S]
    if number[SAMPLE_AGE_S] == _ZERO and since_s > _ZERO:
        number[STRING_SINCE_S] = _ZERO
        _move(number, state, pack_v - sum_v, sum_v)
        middle_v = _middle(pack_v - sum_v, number[LAST_OFF_V], number[BEFORE_OFF_V])
        n = f4(state.cell_v.shape[0])
        new = number[STRING_SEEN_S] == _ZERO or since_s > c[STRING_SLOW_TAU_S]
        std_ohm = _PATH_SHARE * c[FAST_OHM] * c[PER_CELL] * n
        if new or fallen(number, middle_v) * n > _CELL_V * abs(sum_v):
            _begin(number, pack_v, sum_v, current_a, std_ohm * std_ohm)
            middle_v = pack_v - sum_v
        _follow(config, number, middle_v, pack_v, sum_v, current_a, since_s)
        number[STRING_SAG_V] = _sag(config, number, sum_v, std_ohm * std_ohm, since_s)
    sag_v = number[STRING_SAG_V]
    at = still_cell(state.cell_still_s, c[CURRENT_STILL_AFTER_S]) if sag_v > _ZERO else -1
    if at < 0:
        changed_v = abs(number[STRING_SUM_V] - number[STRING_SUM_SLOW_V])
        sag_v = _HALF * max(sag_v - _UNMEASURED * changed_v - _JUMP * abs(pack_v), _ZERO)
    return sag_v, at
