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

A capacity found is handed to the filter as its q, and at the start what is known, with its deviation: a filter that
took an aged cell for a new one would be sure of a wrong SoC. Between, the filter's own idea of the capacity is not used
(`bms.core.health_moments`): the estimate cannot confirm itself. The charge is counted as measured; the bias that the
filter knows at the end of a pair is taken off for its whole time.

**Resistance**: see `bms.core.health_resistance`.

For the capacity, cells are looked at one after the other, each once per `PERIOD_S`. Each sweep begins elsewhere, a
golden section on: bleeding that goes on and off in a period of its own would else meet the same cells in every sweep.
"""

from __future__ import annotations

import numpy as np

from bms.core.estimator_layout import (
    BLOCK_ROWS,
    ETA,
    N_SOC,
    NX,
    S_FIRST,
    EstimatorConfig,
    EstimatorState,
    Q,
    p_row,
)
from bms.core.faults import Fault
from bms.core.health_layout import (
    BEFORE_S,
    BLED,
    C1,
    C2,
    C3,
    C_LASTING,
    C_PASSING,
    CAPACITY_AT,
    CAPACITY_LOW,
    CHARGED,
    COUNT,
    COUNT_LOW,
    CREDIT,
    EFFICIENCY_STD,
    FADE,
    FEED,
    GAIN_STD,
    GAP,
    HIGHEST,
    HIGHEST_AT,
    HOURS,
    HOURS_LOW,
    KNOWN_STD,
    LAST_A,
    LEAK_PER_H,
    LEAVE,
    LEAVE_H,
    LOWEST,
    LOWEST_AT,
    M_BLED,
    M_CHARGED,
    M_COUNT,
    M_GAP,
    M_HOURS,
    M_LASTING,
    M_PASSING,
    M_SOC,
    MAX_STD,
    MEMORY_H,
    MIN_SWING,
    MOMENT,
    NEWER,
    NEXT,
    OLDER,
    PAIRS,
    PER_CELL,
    PERIOD_S,
    PRIOR_STD,
    Q_MAX,
    Q_MIN,
    R_FADE,
    R_MEMORY_H,
    R_STD,
    RESISTANCE_AT,
    RESISTANCE_HIGH,
    ROWS,
    STARTED,
    SWEEP_H,
    SWEPT,
    WATCHING,
    HealthConfig,
    HealthState,
)
from bms.core.health_moments import blended, known_soc, row_of
from bms.core.health_resistance import STEP_MIN_S, compare_change, take_from_filter
from bms.core.jit import f4, kernel
from bms.core.mathf import one_minus_exp
from bms.core.seen import Seen
from hal.contract import F4, LANES, NO_INDEX, U2

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
_FILTER_Q_MIN, _FILTER_Q_MAX = f4(-0.45), f4(0.2)  # what the filter takes
_HOP = f4(0.381966)
_MUCH = f4(0.4)  # a pair that tells the capacity to this share of what is known of it tells much
_FILTER_STD_MIN = f4(0.003)
_CAPACITY_LOW, _RESISTANCE_HIGH = int(Fault.CAPACITY_LOW), int(Fault.RESISTANCE_HIGH)
_NONE = np.uint32(NO_INDEX)
_VAR_Q = p_row(Q, Q)
_WITH_Q = tuple(p_row(j, Q) for j in range(NX) if j != Q)


@kernel
def health_init(config: HealthConfig, state: HealthState) -> None:
    """Start without knowledge: every cell as its type, with the deviation of the prior. Writes all of `state`."""
    c = config.number
    state.cell[:] = _ZERO
    state.bled_ah[:] = _ZERO
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
    """Make a pair of the two moments of cell `k`, and of the newer one the older one, where it is good enough."""
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
    if newer[M_PASSING] + newer[M_LASTING] <= c[MAX_STD] * c[MAX_STD]:
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
    q = q if q > _FILTER_Q_MIN else _FILTER_Q_MIN
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
def _tells_much(c: F4, state: HealthState, k: int, soc: f4, var: f4) -> bool:
    """Whether a SoC of the variance `var` tells much of a capacity of which little is known, as the end of a swing."""
    older = state.cell[k * ROWS + OLDER : k * ROWS + OLDER + MOMENT]
    x = abs(soc - older[M_SOC])
    known = _MUCH * x * state.capacity_std[k]
    pair_var = older[M_PASSING] + older[M_LASTING] + var
    much: bool = older[M_PASSING] > _ZERO and x >= c[MIN_SWING] and pair_var <= known * known
    return much


@kernel
def _look(
    config: HealthConfig,
    state: HealthState,
    estimator: EstimatorConfig,
    filter_: EstimatorState,
    k: int,
    degc: f4,
    bled_ah: f4,
) -> None:
    """Look at one cell: its resistance, and whether its voltage tells the SoC."""
    c, number = config.number, state.number
    k1 = estimator.scalars[0]
    shared = filter_.shared[0]
    cell = state.cell[k * ROWS : (k + 1) * ROWS]
    older, newer = cell[OLDER : OLDER + MOMENT], cell[NEWER : NEWER + MOMENT]
    gone = (bled_ah - state.bled_ah[k]) * c[PER_CELL] / k1.capacity_ah
    state.bled_ah[k] = bled_ah
    if abs(gone) < _ONE:
        cell[BLED] += gone
    else:  # the counter was set anew, or is no number: an unknown charge went, and nothing before it counts
        older[M_PASSING] = _ZERO
        newer[M_PASSING] = _ZERO

    # time takes from what is known
    keep = _ONE - number[FADE]
    for j in range(C1, C_LASTING + 1):
        cell[j] = cell[j] * keep

    take_from_filter(config, state, filter_, k)

    # the visit to a place of known SoC is over: once the cell is some way from its best moment
    if newer[M_PASSING] > _ZERO:
        gone = abs(number[COUNT] - newer[M_COUNT]) > c[LEAVE]
        if gone or number[HOURS] - newer[M_HOURS] > c[LEAVE_H]:
            _commit(config, state, k, shared.bias_a, shared.bias_var, k1.capacity_ah)
            if config.word[FEED] != 0:
                _feed(filter_, k, state.capacity[k], state.capacity_std[k])

    soc, passing, lasting = known_soc(config, estimator, filter_, k, degc)
    var = passing + lasting
    if not (var <= c[MAX_STD] * c[MAX_STD] or _tells_much(c, state, k, soc, var)):  # also NaN
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
        row, ft = row_of(k1.degc_first, k1.nodes_per_kelvin, degc)
        moved = moved * blended(estimator.nodes, row + N_SOC // 2, ft, ETA)
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
    bled_ah: F4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """Count the charge of this step and look at the next few cells. To be called after `estimator_step`.

    estimator, filter_: configuration and state of the filter, just after its step; q of a cell is written where a
    capacity was found. cell_degc: f4 (n,). bled_ah: f4 (n,), charge taken from each group beside the string current
    since the start (`BalancingState.bled_ah`).
    value, where: the faults CAPACITY_LOW and RESISTANCE_HIGH, NaN until a first cell is known.
    """
    c, number, word = config.number, state.number, state.word
    n = state.capacity.shape[0]
    if not dt_s > _ZERO:  # also NaN
        dt_s = _ZERO
    dt_s = min(dt_s, _DT_MAX_S)
    if word[STARTED] == 0:
        for k in range(n):
            state.bled_ah[k] = bled_ah[k]  # what was taken before, no moment is concerned with
            if config.word[FEED] != 0:
                _feed(filter_, k, state.capacity[k], state.capacity_std[k])
    _count(state, estimator, filter_, seen, dt_s)
    number[BEFORE_S] += dt_s
    flowing = bool(abs(seen.current_a) < _INFINITE)
    if word[WATCHING] == 0 or number[BEFORE_S] >= STEP_MIN_S or not flowing:
        compare_change(config, state, estimator, filter_, cell_degc, flowing)

    number[CREDIT] = min(number[CREDIT] + f4(n) * dt_s / c[PERIOD_S], f4(n))
    due = int(number[CREDIT])
    number[CREDIT] -= f4(due)
    k = int(word[NEXT])
    for _ in range(due):
        _look(config, state, estimator, filter_, k, cell_degc[k], bled_ah[k])
        known = state.cell[k * ROWS + PAIRS] > _ZERO and state.capacity_std[k] < c[KNOWN_STD]
        if known and state.capacity[k] < number[LOWEST]:
            number[LOWEST] = state.capacity[k]
            word[LOWEST_AT] = np.uint32(k)
        if state.resistance_std[k] < c[PRIOR_STD] * state.resistance[k] and state.resistance[k] > number[HIGHEST]:
            number[HIGHEST] = state.resistance[k]
            word[HIGHEST_AT] = np.uint32(k)
        k = k + 1 if k + 1 < n else 0
        word[SWEPT] += np.uint32(1)
        if word[SWEPT] >= n:
            word[SWEPT] = np.uint32(0)
            k = (k + int(_HOP * f4(n))) % n
            _turn(config, state)
    word[NEXT] = np.uint32(k)
    value[_CAPACITY_LOW] = number[CAPACITY_LOW]
    where[_CAPACITY_LOW] = np.uint16(word[CAPACITY_AT])
    value[_RESISTANCE_HIGH] = number[RESISTANCE_HIGH]
    where[_RESISTANCE_HIGH] = np.uint16(word[RESISTANCE_AT])
