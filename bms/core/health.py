"""State of health: capacity and resistance of each cell, relative to its type, with their deviations.

**Capacity.** Between two moments at which the voltage tells the SoC (the ends of the curve, its steep parts) the charge
y that went through the string, in units of the nominal capacity, and the SoC x that it moved give the relative capacity
Q = y / x. Both are in error; many such pairs, the old ones counting less, are put together by approximate weighted
total least squares (AWTLS) [G. L. Plett, *Recursive approximate weighted total least squares estimation of battery cell
total capacity*, J. Power Sources 196 (2011) 2319, with fading memory], per cell::

    chi^2 = sum lambda (y - Q x)^2 / (1 + Q^2) / s^2
    c1 = sum lambda x^2 / s^2,   c2 = sum lambda x y / s^2,   c3 = sum lambda y^2 / s^2,   d = c3 - c1
    Q = (d + sqrt(d^2 + 4 c2^2)) / (2 c2),   var Q = 2 / (chi^2)'' = Q (1 + Q^2) / c2

in which y, and with it Q, is scaled by `_SCALE`, a usual ratio of the deviations of x and y. s^2 is chosen so that
s^2 (1 + Q^2) is the variance of y - Q x that is known of the pair. With the variance shared out in one proportion the
quartic of AWTLS is this quadratic, and AWTLS is the exact solution. As most of the error is that of x, the assumption
costs less than 0.1 % of Q.

What the voltage model and a voltage sensor err by is the same at the next visit to the same place. Therefore the
deviation keeps two sums: errors that average out, and those that do not (`_LASTING`), which add up as if fully alike.

The SoC of such a moment is read from the voltage alone, less what polarisation and hysteresis the filter knows of; the
filter's SoC, which contains its own idea of the capacity, is not used: the estimate cannot confirm itself. A capacity
found is handed to the filter as its q, and at the start what is known, with its deviation: a filter that took an aged
cell for a new one would be sure of a wrong SoC. The charge is counted as measured; the bias that the filter knows at
the end of a pair is taken off for its whole time.

**Resistance.** What the voltage answers within three to six seconds to a change of the current, regressed on what the
parameters of the type answer (ohmic resistance, charge transfer, RC pairs of the filter; the OCV moves by its slope)::

    dv - OCV' dz = -R d(R0 i + Rct i_b asinh(i / i_b) + v_1 + .. + v_4)

by least squares with fading memory, a few cells at a time. The other source is the filter's r (logarithm of one scale
on all resistances, minutes included), averaged over the moments with enough current. Either errs by what the parameters
of the type are wrong at its time scale; both together, weighted by their variances, are the result.

For the capacity, cells are looked at one after the other, each once per `PERIOD_S`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.estimator_layout import (
    BLOCK_ROWS,
    ETA,
    INNOVATION,
    M0,
    MODEL_V,
    N_DEGC,
    N_SOC,
    NODE,
    NX,
    OCV,
    R0,
    RCT,
    S_FIRST,
    SKIPPED,
    SLOPE,
    V1,
    V2,
    V3,
    V4,
    W_KNEE,
    W_STD,
    EstimatorConfig,
    EstimatorState,
    H,
    M,
    Q,
    R,
    Z,
    p_row,
)
from bms.core.faults import Fault
from bms.core.jit import f4, kernel
from bms.core.mathf import asinhf, expf, one_minus_exp
from bms.core.seen import Seen
from hal.contract import F4, LANES, NO_INDEX, U2, U4, Field

# HealthConfig.number
PERIOD_S, MEMORY_H, R_MEMORY_H, MIN_SWING, MAX_STD, PRIOR_STD = 0, 1, 2, 3, 4, 5
DROP_SHARE, OFFSET_V, WHITE_V, GAIN_STD, EFFICIENCY_STD, LEAK_PER_H = 6, 7, 8, 9, 10, 11
LEAVE, LEAVE_H, Q_MIN, Q_MAX, KNOWN_STD, R_MIN_A, R_STD, PER_CELL = 12, 13, 14, 15, 16, 17, 18, 19
MODEL_ERROR_V, CHANGE_A = 20, 21
N_NUMBERS = 22

# HealthConfig.word
FEED = 0  # 1 = hand capacities to the filter
N_WORDS = 1

# HealthState.number, of the string
COUNT, COUNT_LOW, CHARGED, HOURS, HOURS_LOW, GAP, LAST_A, CREDIT = 0, 1, 2, 3, 4, 5, 6, 7
SWEEP_H, FADE, R_FADE, LOWEST, HIGHEST = 8, 9, 10, 11, 12
CAPACITY_LOW, RESISTANCE_HIGH, BEFORE_S, BEFORE_A = 13, 14, 15, 16
N_STATE_NUMBERS = 17

# HealthState.word
NEXT, STARTED, LOWEST_AT, HIGHEST_AT, CAPACITY_AT, RESISTANCE_AT, BEFORE_AT, WATCHING = 0, 1, 2, 3, 4, 5, 6, 7
N_STATE_WORDS = 8

# HealthState.cell: numbers of one cell side by side. The sums of AWTLS, and of its deviation,
C1, C2, C3, C_PASSING, C_LASTING, PAIRS = 0, 1, 2, 3, 4, 5
# of the resistance, what was bled, and two moments of known SoC: the older one, and the best of this visit
R_WEIGHT, R_MEAN, R_VAR, STEP_DD, STEP_DV, BLED = 6, 7, 8, 9, 10, 11
MOMENT = 8
OLDER, NEWER = 12, 12 + MOMENT
ROWS = 12 + 2 * MOMENT
# of a moment; `M_PASSING` 0 = there is none
M_SOC, M_PASSING, M_LASTING, M_COUNT, M_CHARGED, M_HOURS, M_GAP, M_BLED = range(MOMENT)

# HealthState.before: a few cells before a change of the current
WATCHED = 4
B_VOLT, B_DROP, B_SOC = 0, WATCHED, 2 * WATCHED

CONFIG_FIELDS = (
    Field("health_number", "f4", "settings of the state of health", f"{N_NUMBERS}"),
    Field("health_word", "u4", "1 = capacities are handed to the filter", f"{N_WORDS}"),
)

STATE_FIELDS = (
    Field("health_capacity", "f4", "capacity relative to the type's", "cells"),
    Field("health_capacity_std", "f4", "its standard deviation", "cells"),
    Field("health_resistance", "f4", "resistance relative to the type's", "cells"),
    Field("health_resistance_std", "f4", "its standard deviation", "cells"),
    Field("health_bled_as", "f4", "bled since the cell was looked at, A s", "cells"),
    Field("health_cell", "f4", "sums and moments of each cell", f"cells*{ROWS}"),
    Field("health_count", "f4", "charge and time of the string, the sweep", f"{N_STATE_NUMBERS}"),
    Field("health_before", "f4", "a few cells before a change of the current", f"{3 * WATCHED}"),
    Field("health_place", "u4", "places of the sweep", f"{N_STATE_WORDS}"),
)

_ZERO, _HALF, _ONE, _TWO = f4(0.0), f4(0.5), f4(1.0), f4(2.0)
_HOUR = f4(3600.0)
_NAN = f4(np.nan)
_INFINITE = f4(np.inf)
_DT_MAX_S = f4(1e6)
_SCALE = f4(3.0)
_SCALE2 = f4(9.0)
_GATE2 = f4(25.0)  # a pair five deviations away counts as much less as it takes to make it that
_TINY = f4(1e-12)
_CURRENT_CORR_S = f4(1200.0)  # a missing current: see `bms.core.estimator`
_DEGC_UNKNOWN = f4(25.0)
_FILTER_Q_MAX = f4(0.2)  # what the filter takes
_FILTER_STD_MIN = f4(0.003)
_NEAR = 2  # nodes to each side within which the curve must be as steep
# between the two samples of a change: by then what the type and the filter have as one fast part has settled
_STEP_MIN_S, _STEP_MAX_S = f4(2.9), f4(6.1)
_SOC_LOW, _SOC_HIGH = f4(0.2), f4(0.95)  # within, resistances hardly depend on the SoC
_R_VAR_LEFT = f4(1.0 / 9.0)  # of the filter's variance of r after the mean over days, of which some hours are alike
_STEP_MAX_V = f4(2.0)
_STEPS = 8  # halvings that find one of 2**8 > N_SOC nodes
_CAPACITY_LOW, _RESISTANCE_HIGH = int(Fault.CAPACITY_LOW), int(Fault.RESISTANCE_HIGH)
_NONE = np.uint32(NO_INDEX)
_VAR_H, _VAR_R, _VAR_Q = p_row(H, H), p_row(R, R), p_row(Q, Q)
_WITH_Q = tuple(p_row(j, Q) for j in range(NX) if j != Q)


class HealthConfig(NamedTuple):
    """Constants: `number` f4[22] and `word` u4[1], by the index constants of this module."""

    number: F4
    word: U4


class HealthState(NamedTuple):
    """What is published: `capacity`, `capacity_std`, `resistance`, `resistance_std` f4[n_cells], all relative.

    And the memory: `bled_as` f4[n_cells], `cell` f4[n_cells * ROWS], `number` f4[17], `before` f4[12], `word` u4[8].
    """

    capacity: F4
    capacity_std: F4
    resistance: F4
    resistance_std: F4
    bled_as: F4
    cell: F4
    number: F4
    before: F4
    word: U4


def health_state(n_cells: int) -> HealthState:
    """Memory of zeros: `health_init` makes it a start."""
    capacity, capacity_std, resistance, resistance_std, bled_as = np.zeros((5, n_cells), np.float32)
    return HealthState(
        capacity,
        capacity_std,
        resistance,
        resistance_std,
        bled_as,
        np.zeros(n_cells * ROWS, np.float32),
        np.zeros(N_STATE_NUMBERS, np.float32),
        np.zeros(3 * WATCHED, np.float32),
        np.zeros(N_STATE_WORDS, np.uint32),
    )


@kernel
def health_init(config: HealthConfig, state: HealthState) -> None:
    """Start without knowledge: every cell as its type, with the deviation of the prior. Writes all of `state`."""
    c = config.number
    state.cell[:] = _ZERO
    state.bled_as[:] = _ZERO
    state.number[:] = _ZERO
    state.before[:] = _ZERO
    state.word[:] = np.uint32(0)
    state.number[LOWEST], state.number[HIGHEST] = _INFINITE, -_INFINITE
    state.number[CAPACITY_LOW], state.number[RESISTANCE_HIGH] = _NAN, _NAN
    for name in (LOWEST_AT, HIGHEST_AT, CAPACITY_AT, RESISTANCE_AT):
        state.word[name] = _NONE
    for k in range(state.capacity.shape[0]):
        health_set(config, state, k, _ONE, c[PRIOR_STD])
        state.resistance[k] = _ONE
        state.resistance_std[k] = c[R_STD] + c[PRIOR_STD]


@kernel
def health_set(config: HealthConfig, state: HealthState, k: int, capacity: f4, std: f4) -> None:
    """Let cell `k` start anew from a capacity that is known from elsewhere: as if one pair with x = 1 had told it."""
    c = config.number
    cell = state.cell[k * ROWS : (k + 1) * ROWS]
    std = std if std > c[GAIN_STD] else c[GAIN_STD]  # also NaN
    q = capacity if capacity > c[Q_MIN] else c[Q_MIN]
    q = q if q < c[Q_MAX] else c[Q_MAX]
    for j in range(C1, PAIRS + 1):
        cell[j] = _ZERO
    _add(cell, _ONE, q, std * std, _ZERO, q)
    cell[PAIRS] = _ZERO
    cell[OLDER + M_PASSING] = _ZERO
    cell[NEWER + M_PASSING] = _ZERO
    state.capacity[k] = q
    state.capacity_std[k] = std


@kernel
def health_break(state: HealthState) -> None:
    """Charge has gone uncounted (the controller was off): pairs must not reach across. What is known is kept."""
    for k in range(state.capacity.shape[0]):
        state.cell[k * ROWS + OLDER + M_PASSING] = _ZERO
        state.cell[k * ROWS + NEWER + M_PASSING] = _ZERO
        state.bled_as[k] = _ZERO
    state.word[STARTED] = np.uint32(0)
    state.word[WATCHING] = np.uint32(0)


@kernel
def _add(cell: F4, x: f4, y: f4, var: f4, lasting: f4, capacity: f4) -> None:
    """Add a pair to the sums: `var` is the variance of y - Q x, `lasting` the share of it that repeats itself."""
    q = _SCALE * capacity
    per_var = (_ONE + q * q) / (_SCALE2 * var)
    cell[C1] += x * x * per_var
    cell[C2] += _SCALE * (x * y) * per_var
    cell[C3] += _SCALE2 * (y * y) * per_var
    told = x * x / var
    cell[C_PASSING] += told * (_ONE - lasting)
    cell[C_LASTING] += np.sqrt(told * lasting)
    cell[PAIRS] += _ONE


@kernel
def solved(cell: F4, q_min: f4, q_max: f4) -> tuple[f4, f4]:
    """Capacity and its variance from the sums of a cell, without the error of the current sensor's gain."""
    d = cell[C3] - cell[C1]
    q = (d + np.sqrt(d * d + f4(4.0) * cell[C2] * cell[C2])) / (_TWO * cell[C2])
    q = q if q > q_min * _SCALE else q_min * _SCALE
    q = q if q < q_max * _SCALE else q_max * _SCALE
    var = q * (_ONE + q * q) / (_SCALE2 * cell[C2])
    lasting = cell[C_LASTING] * var
    return q / _SCALE, cell[C_PASSING] * var * var + lasting * lasting


@kernel
def _commit(config: HealthConfig, state: HealthState, k: int, bias_a: f4, bias_var: f4, capacity_ah: f4) -> None:
    """Make a pair of the two moments of cell `k`, and of the newer one the older one."""
    c = config.number
    cell = state.cell[k * ROWS : (k + 1) * ROWS]
    older, newer = cell[OLDER : OLDER + MOMENT], cell[NEWER : NEWER + MOMENT]
    x = older[M_SOC] - newer[M_SOC]
    hours = newer[M_HOURS] - older[M_HOURS]
    per_bias = hours / capacity_ah
    y = (newer[M_COUNT] - older[M_COUNT]) + (newer[M_BLED] - older[M_BLED]) - bias_a * per_bias
    efficiency = c[EFFICIENCY_STD] * (newer[M_CHARGED] - older[M_CHARGED])
    leak = c[LEAK_PER_H] * hours
    y_var = bias_var * per_bias * per_bias + efficiency * efficiency + leak * leak + newer[M_GAP] - older[M_GAP]
    q = state.capacity[k]
    lasting = q * q * (older[M_LASTING] + newer[M_LASTING])
    var = q * q * (older[M_PASSING] + newer[M_PASSING]) + lasting + y_var
    off = y - q * x
    expected = var + x * x * state.capacity_std[k] * state.capacity_std[k]
    beyond = off * off / (_GATE2 * expected)
    var = var * beyond if beyond > _ONE else var
    if abs(off) < _INFINITE and var > _ZERO and var < _INFINITE and x * x > _ZERO:
        _add(cell, x, y, var, min(lasting / var, _ONE), q)
        q, q_var = solved(cell, c[Q_MIN], c[Q_MAX])
        gain = c[GAIN_STD] * q
        state.capacity[k] = q
        state.capacity_std[k] = np.sqrt(q_var + gain * gain)
    for j in range(MOMENT):
        older[j] = newer[j]
    newer[M_PASSING] = _ZERO


@kernel
def _feed(filter_: EstimatorState, k: int, capacity: f4, std: f4) -> None:
    """Give the filter of cell `k` a capacity. Its covariances with q shrink or grow with q's own deviation.

    Row and column are multiplied by one number, so that the covariance stays positive.
    """
    f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]
    q = _ONE - _ONE / capacity  # dz = moved (1 - q)
    q = q if q > -_FILTER_Q_MAX else -_FILTER_Q_MAX
    std = std / (capacity * capacity)
    std = std if std > _FILTER_STD_MIN else _FILTER_STD_MIN
    std = std if std < _FILTER_Q_MAX else _FILTER_Q_MAX
    share = std / np.sqrt(f[_VAR_Q * LANES])
    f[Q * LANES] = q if q < _FILTER_Q_MAX else _FILTER_Q_MAX
    f[_VAR_Q * LANES] = std * std
    for row in _WITH_Q:
        f[row * LANES] = f[row * LANES] * share
    f[(S_FIRST + Q) * LANES] = f[(S_FIRST + Q) * LANES] * share


@kernel
def _blend(nodes: F4, at: int, ft: f4, column: int) -> f4:
    """A parameter at the node `at` (of the colder row) and `ft` of the way to the warmer row."""
    cold = nodes[at * NODE + column]
    value: f4 = cold + ft * (nodes[(at + N_SOC) * NODE + column] - cold)
    return value


@kernel
def _row(degc_first: f4, nodes_per_kelvin: f4, degc: f4) -> tuple[int, f4]:
    """First node of the row of the table on the cold side of `degc`, and how far it is to the next row, 0..1."""
    at = min(max((degc - degc_first) * nodes_per_kelvin, _ZERO), f4(N_DEGC - 1))
    t = min(int(at), N_DEGC - 2)
    return t * N_SOC, at - f4(t)


@kernel
def _nearest(z: f4) -> int:
    """The node of the table next to the SoC `z`."""
    z = z if z > _ZERO else _ZERO  # also NaN
    z = z if z < _ONE else _ONE
    return int(z * f4(N_SOC - 1) + _HALF)


@kernel
def _drop(estimator: EstimatorConfig, filter_: EstimatorState, k: int, here: int, ft: f4) -> f4:
    """Polarisation of cell `k` as its type has it (scale 1) at the present current, V."""
    k1 = estimator.scalars[0]
    shared = filter_.shared[0]
    f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]
    i = shared.last_a - shared.bias_a
    bent = k1.bend_a * asinhf(i / k1.bend_a)
    slow = (f[V1 * LANES] + f[V2 * LANES]) + (f[V3 * LANES] + f[V4 * LANES])
    fast = _blend(estimator.nodes, here, ft, R0) * i + _blend(estimator.nodes, here, ft, RCT) * bent
    drop: f4 = slow + fast
    return drop


@kernel
def _moment(
    config: HealthConfig, estimator: EstimatorConfig, filter_: EstimatorState, k: int, degc: f4
) -> tuple[f4, f4, f4]:
    """SoC of cell `k` as its voltage alone tells it, and the variances that pass and that last; NaN if it does not.

    OCV + M h = v - M0 s + e^r (v_1 + .. + v_4 + R0 i + Rct i_b asinh(i / i_b)), solved for the SoC of the left side.
    """
    c = config.number
    k1 = estimator.scalars[0]
    shared = filter_.shared[0]
    nodes = estimator.nodes
    n_lanes = filter_.flags.shape[0]
    v = filter_.out[MODEL_V * n_lanes + k] + filter_.out[INNOVATION * n_lanes + k]
    if not abs(v) < _INFINITE or filter_.flags[k] & SKIPPED != 0 or not abs(degc) < f4(1000.0):
        return _NAN, _NAN, _NAN
    f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]

    row, ft = _row(k1.degc_first, k1.nodes_per_kelvin, degc)
    here = row + _nearest(f[Z * LANES])
    drop = _drop(estimator, filter_, k, here, ft)
    drop = drop * expf(f[R * LANES])
    left = v + drop - _blend(nodes, here, ft, M0) * shared.sign
    h = f[H * LANES]

    low, high = 0, N_SOC - 1
    for _ in range(_STEPS):
        middle = (low + high) // 2
        if _blend(nodes, row + middle, ft, OCV) + h * _blend(nodes, row + middle, ft, M) <= left:
            low = middle
        else:
            high = middle
    low = min(low, N_SOC - 2)
    below = _blend(nodes, row + low, ft, OCV) + h * _blend(nodes, row + low, ft, M)
    above = _blend(nodes, row + low + 1, ft, OCV) + h * _blend(nodes, row + low + 1, ft, M)
    if not (left >= below and left <= above and above > below):
        return _NAN, _NAN, _NAN
    soc = (f4(low) + (left - below) / (above - below)) / f4(N_SOC - 1)

    slope = _blend(nodes, row + low, ft, SLOPE)
    slope = min(slope, _blend(nodes, row + max(low - _NEAR, 0), ft, SLOPE))
    slope = min(slope, _blend(nodes, row + min(low + _NEAR, N_SOC - 1), ft, SLOPE))
    if not slope > _ZERO:
        return _NAN, _NAN, _NAN
    per_v = _ONE / slope
    m = _blend(nodes, row + low, ft, M)
    drop_var = (c[DROP_SHARE] * c[DROP_SHARE] + f[_VAR_R * LANES]) * drop * drop
    passing = (drop_var + m * m * f[_VAR_H * LANES] + c[WHITE_V] * c[WHITE_V]) * per_v * per_v
    w, knee = _blend(nodes, row + low, ft, W_STD), _blend(nodes, row + low, ft, W_KNEE)
    lasting = (w * w + c[MODEL_ERROR_V] * c[MODEL_ERROR_V] + c[OFFSET_V] * c[OFFSET_V]) * per_v * per_v + knee * knee
    return soc, passing, lasting


@kernel
def _resistance(config: HealthConfig, state: HealthState, k: int) -> None:
    """Publish the resistance of cell `k`: from the changes of the current and from the filter, by their variances."""
    c = config.number
    cell = state.cell[k * ROWS : (k + 1) * ROWS]
    type_var = c[R_STD] * c[R_STD]
    weight = _ZERO
    mean = _ZERO
    if cell[STEP_DD] > _ZERO:
        scale = cell[STEP_DV] / cell[STEP_DD]
        told = _ONE / (_TWO * c[WHITE_V] * c[WHITE_V] / cell[STEP_DD] + scale * scale * type_var)
        weight += told
        mean += told * scale
    if cell[R_WEIGHT] > _ZERO:
        scale = expf(cell[R_MEAN])
        told = _ONE / (scale * scale * (cell[R_VAR] * _R_VAR_LEFT + type_var))
        weight += told
        mean += told * scale
    if weight > _ZERO:
        state.resistance[k] = mean / weight
        state.resistance_std[k] = np.sqrt(_ONE / weight)


@kernel
def _watch(
    config: HealthConfig,
    state: HealthState,
    estimator: EstimatorConfig,
    filter_: EstimatorState,
    cell_degc: F4,
    flowing: bool,
) -> None:
    """Compare a few cells before and after a change of the current, then go on to the next few."""
    c, number, word = config.number, state.number, state.word
    k1 = estimator.scalars[0]
    n, n_lanes = state.capacity.shape[0], filter_.flags.shape[0]
    now_a = filter_.shared[0].last_a
    first = int(word[BEFORE_AT])
    if word[WATCHING] != 0:
        change = abs(now_a - number[BEFORE_A]) >= c[CHANGE_A] and number[BEFORE_S] <= _STEP_MAX_S
        word[WATCHING] = np.uint32(0)
        if change and flowing:
            for j in range(min(WATCHED, n - first)):
                k = first + j
                f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]
                row, ft = _row(k1.degc_first, k1.nodes_per_kelvin, cell_degc[k])
                here = row + _nearest(f[Z * LANES])
                dv = (
                    filter_.out[MODEL_V * n_lanes + k]
                    + filter_.out[INNOVATION * n_lanes + k]
                    - state.before[B_VOLT + j]
                )
                dv = dv - _blend(estimator.nodes, here, ft, SLOPE) * (f[Z * LANES] - state.before[B_SOC + j])
                dd = _drop(estimator, filter_, k, here, ft) - state.before[B_DROP + j]
                inside = f[Z * LANES] > _SOC_LOW and f[Z * LANES] < _SOC_HIGH
                if inside and abs(dv) < _STEP_MAX_V and abs(dd) < _STEP_MAX_V and -dv * dd < f4(5.0) * dd * dd:
                    cell = state.cell[k * ROWS : (k + 1) * ROWS]
                    cell[STEP_DD] += dd * dd
                    cell[STEP_DV] -= dd * dv
            first = first + WATCHED
            first = first if first < n else 0
            word[BEFORE_AT] = np.uint32(first)
    if not flowing:
        return
    for j in range(min(WATCHED, n - first)):
        k = first + j
        f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]
        row, ft = _row(k1.degc_first, k1.nodes_per_kelvin, cell_degc[k])
        state.before[B_VOLT + j] = filter_.out[MODEL_V * n_lanes + k] + filter_.out[INNOVATION * n_lanes + k]
        state.before[B_SOC + j] = f[Z * LANES]
        state.before[B_DROP + j] = _drop(estimator, filter_, k, row + _nearest(f[Z * LANES]), ft)
    number[BEFORE_A] = now_a
    number[BEFORE_S] = _ZERO
    word[WATCHING] = np.uint32(1)


@kernel
def _look(
    config: HealthConfig, state: HealthState, estimator: EstimatorConfig, filter_: EstimatorState, k: int, degc: f4
) -> None:
    """Look at one cell: its resistance, and whether its voltage tells the SoC."""
    c, number = config.number, state.number
    k1 = estimator.scalars[0]
    shared = filter_.shared[0]
    cell = state.cell[k * ROWS : (k + 1) * ROWS]
    older, newer = cell[OLDER : OLDER + MOMENT], cell[NEWER : NEWER + MOMENT]
    f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]

    if abs(state.bled_as[k]) < _INFINITE:
        cell[BLED] += state.bled_as[k] * c[PER_CELL] / (_HOUR * k1.capacity_ah)
    else:  # an unknown charge went: nothing before it counts
        older[M_PASSING] = _ZERO
        newer[M_PASSING] = _ZERO
    state.bled_as[k] = _ZERO

    # time takes from what is known
    keep = _ONE - number[FADE]
    for j in range(C1, C_LASTING + 1):
        cell[j] = cell[j] * keep

    r, r_var = f[R * LANES], f[_VAR_R * LANES]
    cell[R_WEIGHT] = cell[R_WEIGHT] * (_ONE - number[R_FADE])
    cell[STEP_DD] = cell[STEP_DD] * (_ONE - number[R_FADE])
    cell[STEP_DV] = cell[STEP_DV] * (_ONE - number[R_FADE])
    inside = f[Z * LANES] > _SOC_LOW and f[Z * LANES] < _SOC_HIGH
    if inside and abs(shared.last_a) >= c[R_MIN_A] and r_var > _ZERO and abs(r) < f4(10.0):
        weight = c[PERIOD_S] / r_var
        cell[R_WEIGHT] += weight
        share = weight / cell[R_WEIGHT]
        cell[R_MEAN] += share * (r - cell[R_MEAN])
        cell[R_VAR] += share * (r_var - cell[R_VAR])
    _resistance(config, state, k)

    # the visit to a place of known SoC is over: once the cell is some way from its best moment
    if newer[M_PASSING] > _ZERO:
        gone = abs(number[COUNT] - newer[M_COUNT]) > c[LEAVE]
        if gone or number[HOURS] - newer[M_HOURS] > c[LEAVE_H]:
            _commit(config, state, k, shared.bias_a, shared.bias_var, k1.capacity_ah)
            if config.word[FEED] != 0:
                _feed(filter_, k, state.capacity[k], state.capacity_std[k])

    soc, passing, lasting = _moment(config, estimator, filter_, k, degc)
    var = passing + lasting
    if not var <= c[MAX_STD] * c[MAX_STD]:  # also NaN
        return
    if older[M_PASSING] > _ZERO:
        per_bias = (number[HOURS] - older[M_HOURS]) / k1.capacity_ah
        efficiency = c[EFFICIENCY_STD] * (number[CHARGED] - older[M_CHARGED])
        grown = shared.bias_var * per_bias * per_bias + efficiency * efficiency + number[GAP] - older[M_GAP]
        x = soc - older[M_SOC]
        if abs(x) >= c[MIN_SWING]:
            if newer[M_PASSING] > _ZERO:
                other = newer[M_SOC] - older[M_SOC]
                pair_var = older[M_PASSING] + older[M_LASTING] + var
                best_var = older[M_PASSING] + older[M_LASTING] + newer[M_PASSING] + newer[M_LASTING]
                if pair_var * other * other >= best_var * x * x:
                    return
            _note(state, newer, soc, passing, lasting, cell[BLED])
            return
        if newer[M_PASSING] > _ZERO or var >= older[M_PASSING] + older[M_LASTING] + grown:
            return
    _note(state, older, soc, passing, lasting, cell[BLED])


@kernel
def _note(state: HealthState, moment: F4, soc: f4, passing: f4, lasting: f4, bled: f4) -> None:
    """Keep the present as a moment of known SoC."""
    number = state.number
    moment[M_SOC] = soc
    moment[M_PASSING] = passing if passing > _TINY else _TINY
    moment[M_LASTING] = lasting
    moment[M_COUNT] = number[COUNT]
    moment[M_CHARGED] = number[CHARGED]
    moment[M_HOURS] = number[HOURS]
    moment[M_GAP] = number[GAP]
    moment[M_BLED] = bled


@kernel
def _count(state: HealthState, estimator: EstimatorConfig, filter_: EstimatorState, seen: Seen, dt_s: f4) -> None:
    """Count charge and time of the string, as the filter takes the current but without its bias."""
    number = state.number
    k1 = estimator.scalars[0]
    last_a = filter_.shared[0].last_a
    if state.word[STARTED] == 0:
        number[LAST_A] = last_a
        state.word[STARTED] = np.uint32(1)
    mean_a = _HALF * (last_a + number[LAST_A])
    number[LAST_A] = last_a
    moved = mean_a * dt_s / (_HOUR * k1.capacity_ah)
    if mean_a < _ZERO:
        degc = seen.degc_mean if abs(seen.degc_mean) < _INFINITE else _DEGC_UNKNOWN
        row, ft = _row(k1.degc_first, k1.nodes_per_kelvin, degc)
        moved = moved * _blend(estimator.nodes, row + N_SOC // 2, ft, ETA)
        number[CHARGED] -= moved
    if not abs(seen.current_a) < _INFINITE:
        doubt = (abs(last_a) + f4(0.1) * k1.capacity_ah) / (_HOUR * k1.capacity_ah)
        number[GAP] += doubt * doubt * _CURRENT_CORR_S * dt_s
    # sums of many small parts: what falls off the end of one is added to the next
    part = moved + number[COUNT_LOW]
    after = number[COUNT] + part
    number[COUNT_LOW] = part - (after - number[COUNT])
    number[COUNT] = after
    part = dt_s / _HOUR + number[HOURS_LOW]
    after = number[HOURS] + part
    number[HOURS_LOW] = part - (after - number[HOURS])
    number[HOURS] = after


@kernel
def _turn(config: HealthConfig, state: HealthState) -> None:
    """The last cell has been looked at: what the sweep found is published, and the next begins."""
    c, number, word = config.number, state.number, state.word
    number[CAPACITY_LOW] = number[LOWEST] if word[LOWEST_AT] != _NONE else _NAN
    number[RESISTANCE_HIGH] = number[HIGHEST] if word[HIGHEST_AT] != _NONE else _NAN
    word[CAPACITY_AT] = word[LOWEST_AT]
    word[RESISTANCE_AT] = word[HIGHEST_AT]
    number[LOWEST], number[HIGHEST] = _INFINITE, -_INFINITE
    word[LOWEST_AT], word[HIGHEST_AT] = _NONE, _NONE
    hours = number[HOURS] - number[SWEEP_H]
    number[SWEEP_H] = number[HOURS]
    number[FADE] = one_minus_exp(hours / c[MEMORY_H])
    number[R_FADE] = one_minus_exp(hours / c[R_MEMORY_H])


@kernel
def health_step(
    config: HealthConfig,
    state: HealthState,
    estimator: EstimatorConfig,
    filter_: EstimatorState,
    seen: Seen,
    cell_degc: F4,
    bleed_a: F4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """Count the charge of this step and look at the next few cells. To be called after `estimator_step`.

    estimator, filter_: configuration and state of the filter, just after its step; q of a cell is written where a
    capacity was found. cell_degc: f4 (n,). bleed_a: f4 (n,), what leaves each group beside the string current, A.
    value, where: the faults CAPACITY_LOW and RESISTANCE_HIGH, NaN until a first cell is known.
    """
    c, number, word = config.number, state.number, state.word
    n = state.capacity.shape[0]
    if not dt_s > _ZERO:  # also NaN
        dt_s = _ZERO
    dt_s = min(dt_s, _DT_MAX_S)
    if word[STARTED] == 0 and config.word[FEED] != 0:
        for k in range(n):
            _feed(filter_, k, state.capacity[k], state.capacity_std[k])
    _count(state, estimator, filter_, seen, dt_s)
    for k in range(n):
        state.bled_as[k] += bleed_a[k] * dt_s
    number[BEFORE_S] += dt_s
    flowing = bool(abs(seen.current_a) < _INFINITE)
    if word[WATCHING] == 0 or number[BEFORE_S] >= _STEP_MIN_S or not flowing:
        _watch(config, state, estimator, filter_, cell_degc, flowing)

    number[CREDIT] = min(number[CREDIT] + f4(n) * dt_s / c[PERIOD_S], f4(n))
    due = int(number[CREDIT])
    number[CREDIT] -= f4(due)
    k = int(word[NEXT])
    for _ in range(due):
        _look(config, state, estimator, filter_, k, cell_degc[k])
        known = state.cell[k * ROWS + PAIRS] > _ZERO and state.capacity_std[k] < c[KNOWN_STD]
        if known and state.capacity[k] < number[LOWEST]:
            number[LOWEST] = state.capacity[k]
            word[LOWEST_AT] = np.uint32(k)
        if state.resistance_std[k] < c[PRIOR_STD] * state.resistance[k] and state.resistance[k] > number[HIGHEST]:
            number[HIGHEST] = state.resistance[k]
            word[HIGHEST_AT] = np.uint32(k)
        k += 1
        if k >= n:
            k = 0
            _turn(config, state)
    word[NEXT] = np.uint32(k)
    value[_CAPACITY_LOW] = number[CAPACITY_LOW]
    where[_CAPACITY_LOW] = np.uint16(word[CAPACITY_AT])
    value[_RESISTANCE_HIGH] = number[RESISTANCE_HIGH]
    where[_RESISTANCE_HIGH] = np.uint16(word[RESISTANCE_AT])
