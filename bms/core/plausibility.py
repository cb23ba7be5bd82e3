"""Which measured values contradict each other.

Comparisons of like with like: a cell with the mean cell, a sensor with its neighbours, the sum of the cells with the
string; and of temperatures with a thermal model. `bms.core.plausibility_model` compares with the estimator.

Every check gives the largest deviation and its place; NaN and -1 where there was nothing to compare.
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, kernel
from bms.core.mathf import expf
from bms.core.seen import Seen
from bms.core.signals_layout import (
    CELL_OHM,
    COOLANT_W_PER_K,
    HEAT_CAPACITY_J_PER_K,
    HELD_A,
    MODEL_ERROR_TAU_S,
    MODEL_TAU_S,
    MOVED,
    OHM_PER_KELVIN,
    PER_CELL,
    RISE_TAU_S,
    STILL_RISE_K,
    USABLE,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, NO_INDEX, U1, U2

_NAN = f4(np.nan)
_ZERO = f4(0)
_REFERENCE_DEGC = f4(25)
_COLDEST_DEGC, _HOTTEST_DEGC = f4(-40), f4(80)
_MOST_WARMER, _MOST_PARALLEL = f4(2), f4(4)
_S_PER_MIN = f4(60)
_DT_MAX_S = f4(1e6)
_FACTOR_LOW, _FACTOR_HIGH = f4(0.5), f4(5)


@kernel
def elapsed(dt_s: f4) -> f4:
    """The length of a step as it may be used: not negative, and never endless. What is no number is no time."""
    if not dt_s > _ZERO:
        return _ZERO
    return min(dt_s, _DT_MAX_S)


@kernel
def put(value: F4, where: U2, fault: int, seen: f4, at: int) -> None:
    """Write what a fault sees, and where: -1 is nowhere."""
    value[fault] = seen
    where[fault] = np.uint16(at) if at >= 0 else np.uint16(NO_INDEX)


@kernel
def extremes(values: F4, use: U1, mask: int) -> tuple[f4, f4, f4, int, int, int]:
    """(lowest, highest, sum, their number, where lowest, where highest) of the values whose `use` has `mask`.

    Summed in their order, as differences from the first, so that the sum keeps its last digits.
    """
    first, low, high, rest, count, low_at, high_at = _NAN, _NAN, _NAN, _ZERO, 0, -1, -1
    for k in range(values.shape[0]):
        if use[k] & mask != 0:
            x = values[k]
            if count == 0:
                first, low, high, low_at, high_at = x, x, x, k, k
            rest += x - first
            count += 1
            if x < low:
                low = x
                low_at = k
            if x > high:
                high = x
                high_at = k
    return low, high, rest + f4(count) * first, count, low_at, high_at


@kernel
def _how_many(use: U1, mask: int) -> int:
    """How many have `mask`."""
    count = 0
    for k in range(use.shape[0]):
        count += int(use[k] & mask != 0)
    return count


@kernel
def frozen(then: F4, use: U1, mask: int, mean: f4, step: f4) -> tuple[f4, int]:
    """How far the mean has moved since a value last changed; nowhere if none stands still.

    `then` is the mean at that time, NaN where the value has just changed: it is taken over now. A reading in steps of
    `step` need not have changed before it has moved by as much.
    """
    if np.isnan(mean) or _how_many(use, mask) == 0:
        return _NAN, -1
    for k in range(then.shape[0]):
        then[k] = mean if np.isnan(then[k]) & (use[k] & mask != 0) else then[k]
    worst, at = _ZERO, -1
    for k in range(then.shape[0]):
        moved = abs(mean - then[k]) - step
        if moved > worst and use[k] & mask != 0:
            worst = moved
            at = k
    return worst, at


@kernel
def neighbours(degc: F4, use: U1) -> tuple[f4, int]:
    """The largest difference of a sensor from the mean of its usable neighbours.

    A sensor with neighbours on one side only is compared with the two nearest there, of which the better one counts:
    if one of them is wrong, it is not blamed for it.
    """
    worst, at = _ZERO, -1
    n = degc.shape[0]
    for k in range(n):
        before = k > 0 and use[k - 1] & USABLE != 0
        after = k + 1 < n and use[k + 1] & USABLE != 0
        if use[k] & USABLE != 0 and (before or after):
            if before and after:
                around = f4(0.5) * (degc[k - 1] + degc[k + 1])
                apart = abs(degc[k] - around)
            else:
                near = k - 1 if before else k + 1
                apart = abs(degc[k] - degc[near])
                far = near + near - k
                if far >= 0 and far < n and use[far] & USABLE != 0:
                    apart = min(apart, abs(degc[k] - degc[far]))
            if apart > worst or at < 0:
                worst = apart
                at = k
    return (worst, at) if at >= 0 else (_NAN, -1)


@kernel
def rise(config: SignalConfig, state: SignalState, lost_s: F4, dt_s: f4) -> tuple[f4, int]:
    """Fastest rise of a sensor, K/min; `lost_s` are the times that the sensors were lost before this sample.

    Two equal low-passes in a row lag a ramp of a K/s by a tau and 2 a tau (backward Euler: exactly, for any step), so
    that their difference over tau is its slope, averaged over about 2 tau; steps and noise are averaged with it. Both
    follow a jump of the sensor at once (`signals._read_sensors`).
    """
    tau_s = config.number[RISE_TAU_S]
    gain = dt_s / (tau_s + dt_s)
    per_min = _S_PER_MIN / tau_s
    fastest, at = _ZERO, -1
    for k in range(state.degc.shape[0]):
        if state.sensor_use[k] & USABLE != 0:
            degc = state.degc[k]
            fast, slow = state.degc_fast[k], state.degc_slow[k]
            if np.isnan(fast) or lost_s[k] > tau_s:
                fast = degc
                slow = degc
            fast += gain * (degc - fast)
            slow += gain * (fast - slow)
            state.degc_fast[k] = fast
            state.degc_slow[k] = slow
            slope = (fast - slow) * per_min
            if slope > fastest or at < 0:
                fastest = slope
                at = k
    return (fastest, at) if at >= 0 else (_NAN, -1)


@kernel
def warmth(config: SignalConfig, degc: f4) -> f4:
    """Resistance at `degc` relative to that at 25 degC: exponential in temperature, 1 where it is not known."""
    if np.isnan(degc):
        return f4(1)
    degc = min(max(degc, _COLDEST_DEGC), _HOTTEST_DEGC)
    factor: f4 = expf(config.number[OHM_PER_KELVIN] * (_REFERENCE_DEGC - degc))
    return factor


@kernel
def of_one_cell(config: SignalConfig, sag_v: f4, degc: f4, flows: f4) -> f4:
    """What the sag of a group at `degc` with a short in one cell would be of that cell alone, at 25 degC, V.

    One current, and more resistance in the cold: at most `_MOST_WARMER` times as much in the heat, so that the noise of
    a hot rack is no sag. Cells in parallel share it: as many times as much, at most `_MOST_PARALLEL`, but less the
    more `flows` (0: the rack rests, 1: charge flows), for of what a load makes of a group they have no less.
    """
    more: f4 = (min(f4(1) / config.number[PER_CELL], _MOST_PARALLEL) - f4(1)) * (f4(1) - flows)
    one_v: f4 = sag_v * (f4(1) + more) * min(f4(1) / warmth(config, degc), _MOST_WARMER)
    return one_v


@kernel
def mean_factor(resistance: F4) -> f4:
    """Mean resistance of the cells relative to their type's, within reason; 1 where it is not known."""
    total = _ZERO
    for k in range(resistance.shape[0]):
        total += resistance[k]
    mean = total / f4(resistance.shape[0])
    return min(max(mean, _FACTOR_LOW), _FACTOR_HIGH) if mean > _ZERO else f4(1)


@kernel
def thermal(config: SignalConfig, state: SignalState, seen: Seen, factor: f4, dt_s: f4) -> tuple[f4, int]:
    """The largest difference of a sensor from what a first-order model of its cell expects, K.

    C T' = I^2 r + G (T_coolant - T), drawn to the measured value with a time constant of minutes, because one lump
    knows nothing of surroundings, entropy and flow: the model sees what changes faster than it can be drawn.
    Backward Euler, stable for any step. `factor`: resistance relative to that of the type.
    """
    c = config.number
    current_a = state.number[HELD_A] * c[PER_CELL]
    heating = current_a * current_a * c[CELL_OHM] * factor * warmth(config, seen.degc_mean) / c[HEAT_CAPACITY_J_PER_K]
    coupling = c[COOLANT_W_PER_K] / c[HEAT_CAPACITY_J_PER_K]
    coolant_degc = seen.coolant_in_degc
    if np.isnan(coolant_degc):
        coolant_degc = _ZERO
        coupling = _ZERO
    pull = f4(1) / c[MODEL_TAU_S]
    gain = dt_s / (c[MODEL_ERROR_TAU_S] + dt_s)
    gained = dt_s * (heating + coupling * coolant_degc)
    scale = f4(1) / (f4(1) + dt_s * (coupling + pull))
    alone = f4(1) / (f4(1) + dt_s * coupling)
    worst, at = _ZERO, -1
    for k in range(state.degc.shape[0]):
        degc = state.degc[k]
        model = state.degc_model[k]
        if state.sensor_use[k] & USABLE == 0:
            state.degc_model[k] = (model + gained) * alone
            continue
        if np.isnan(model):
            model = degc
        model = (model + gained + dt_s * pull * degc) * scale
        state.degc_model[k] = model
        error = state.degc_error[k]
        error += gain * (degc - model - error)
        state.degc_error[k] = error
        if abs(error) > worst or at < 0:
            worst = abs(error)
            at = k
    return (worst, at) if at >= 0 else (_NAN, -1)


@kernel
def still_rise(config: SignalConfig, state: SignalState, seen: Seen, factor: f4, dt_s: f4) -> f4:
    """By how much the cells must have become warmer since any sensor last changed, K.

    C x' = I^2 r - G (T + x - T_coolant), where a coolant that is colder takes heat; what it gives to cells that are
    colder is left out, and so is what makes them colder: x >= 0. Backward Euler.
    """
    c = config.number
    if state.word[MOVED] != 0:
        state.number[STILL_RISE_K] = _ZERO
    elif not np.isnan(seen.degc_mean):
        current_a = state.number[HELD_A] * c[PER_CELL]
        gained = dt_s * current_a * current_a * c[CELL_OHM] * factor * warmth(config, seen.degc_mean)
        taken = _ZERO
        over_k = seen.degc_mean - seen.coolant_in_degc
        if over_k + state.number[STILL_RISE_K] > _ZERO:
            taken = dt_s * c[COOLANT_W_PER_K]
            gained -= taken * over_k
        rise_k = (c[HEAT_CAPACITY_J_PER_K] * state.number[STILL_RISE_K] + gained) / (c[HEAT_CAPACITY_J_PER_K] + taken)
        state.number[STILL_RISE_K] = rise_k if rise_k > _ZERO else _ZERO
    rise: f4 = state.number[STILL_RISE_K]
    return rise
