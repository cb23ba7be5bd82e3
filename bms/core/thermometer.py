"""Cells as their own thermometers: one that answers the current less than the others do is hotter than they are.

The resistance of a cell falls with temperature, r(T) = r(25) exp(k (25 - T)), and every cell has its voltage measured,
while few have a temperature sensor. So a cell away from every sensor tells of its heat as soon as the current changes
(impedance thermometry: Richardson, Ireland, Howey, J. Power Sources 265 (2014) 254). Relative to the mean cell no
resistance need be known, and no gain of the current sensor::

    1 + s = r_cell / r_mean = sum(dv_cell di) / sum(dv_mean di),    hotter by -ln(1 + s) / k

with changes d against an average over `SLOW_S`, sums that fade within `MEMORY_S`, and the current as the instrument: a
voltage that moves along the open-circuit curve, or drifts, has no part in them.

What a cell usually answers more or less than the others, over hours, is its own resistance and is taken off; so is what
the noise of the voltages leaves open, and what the cell's sensor shows beyond the mean one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.faults import Fault
from bms.core.jit import f4, kernel
from bms.core.mathf import logf
from bms.core.plausibility import elapsed, put, warmth
from bms.core.seen import Seen
from bms.core.signals_layout import (
    CALM,
    DISCHARGE_RATED_A,
    FAST_OHM,
    OHM_PER_KELVIN,
    PER_CELL,
    USABLE,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, U1, U2, Field

# thermometer_setting
SLOW_S, MEMORY_S, USUAL_S, NOISE_V, SOC_LOW, SOC_HIGH = range(6)
N_SETTINGS = 6

# thermometer_number
MEAN_V, MEAN_SLOW_V, LAST_A, SLOW_A, A2S, VAS, V2S, SUM_S, OTHERWISE, KNOWN_S = range(10)
N_STATE_NUMBERS = 10

CONFIG_FIELDS = (Field("thermometer_setting", "f4", "settings of the cells as thermometers", f"{N_SETTINGS}"),)

STATE_FIELDS = (
    Field(
        "thermometer_number",
        "f4",
        "mean cell, current, sums of their changes, 1 = some cell is measured otherwise, time of learning",
        f"{N_STATE_NUMBERS}",
    ),
    Field("thermometer_apart_v", "f4", "average of what each cell is above the mean cell", "cells"),
    Field("thermometer_answer", "f4", "what its answer to the current is above the mean cell's, V A s", "cells"),
    Field("thermometer_usual", "f4", "share of the mean cell's answer by which its own usually differs", "cells"),
    Field("thermometer_v2s", "f4", "sum of the squares of its changes against the mean cell, V^2 s", "cells"),
    Field("thermometer_since_s", "f4", "for how long it has been measured in the same way", "cells"),
    Field("thermometer_use", "u1", "how each cell was measured a step ago", "cells"),
)


class ThermometerConfig(NamedTuple):
    """Constants: see `CONFIG_FIELDS`."""

    setting: F4


class ThermometerState(NamedTuple):
    """Memory, owned by the caller: see `STATE_FIELDS`."""

    number: F4
    apart_v: F4
    answer: F4
    usual: F4
    v2s: F4
    since_s: F4
    use: U1


_ZERO, _HALF, _ONE = f4(0), f4(0.5), f4(1)
_NAN = f4(np.nan)
_CELL_HOT, _CELL_FROZEN = int(Fault.CELL_HOT), int(Fault.CELL_VOLTAGE_FROZEN)
_SURE = f4(6)  # deviations of a sample; the errors of samples in a row are not quite independent
# for so long a cell that is measured in another way is averaged before it tells anything, as one noisy sample must not
# count for half a minute; or until the current jumps by so much of the rated one
_SETTLES_S, _JUMP = f4(10), f4(0.1)
# of what is expected: a rack may have 15 % less resistance than is known, and more at first
_LEAST, _MOST = f4(0.85), f4(4)
_JUMP_V = f4(0.01)  # a cell that moves by so much more than any resistance explains is measured otherwise, ...
_STILL = f4(10)  # ... and one that stands still while the mean moves by so many times the noise is not measured
_FIRST_S, _TICK_S = f4(120), f4(1e-3)  # so long a cell is first looked at
_LITTLE = f4(-0.1)  # an answer that is less smaller than this is not looked at further
# a cell further from its model than that, and than the current makes of any, is past a bend of its curve
_STRAY_V, _STRAY_SHARE = f4(0.03), f4(1)
_NONE = f4(0.15)  # a cell that answers less than this share of the mean is not hot: its voltage is not measured


@kernel
def thermometer_init(state: ThermometerState) -> None:
    """Fresh memory; all of `state` is written."""
    state.number[:] = _ZERO
    state.number[SLOW_A] = _NAN
    state.apart_v[:] = _ZERO
    state.answer[:] = _ZERO
    state.usual[:] = _ZERO
    state.v2s[:] = _ZERO
    state.since_s[:] = _ZERO
    state.use[:] = np.uint8(0)


@kernel
def _begin(state: ThermometerState, seen: Seen) -> None:
    """Start anew from here, without what has been learnt of the answers."""
    number = state.number
    number[MEAN_V] = seen.cell_v_mean
    number[MEAN_SLOW_V] = seen.cell_v_mean
    number[SLOW_A] = seen.current_a
    number[LAST_A] = seen.current_a
    state.since_s[:] = _ZERO
    number[OTHERWISE] = _ONE


@kernel
def _expected(config: ThermometerConfig, state: ThermometerState, k: int) -> f4:
    """By which share of the mean cell's the answer of cell `k` differs, as far as it is not lost in its noise."""
    number = state.number
    least_v2 = config.setting[NOISE_V] * config.setting[NOISE_V]
    noise_v2 = max(state.v2s[k], least_v2 * number[SUM_S])
    known = number[VAS] * number[VAS] * number[SUM_S] + _SURE * _SURE * noise_v2 * number[A2S]
    share: f4 = state.answer[k] * number[VAS] * number[SUM_S] / known if known > _ZERO else _ZERO
    return share


@kernel
def _n_inside(soc: F4, n: int, low: f4, high: f4) -> int:
    """How many of the cells are between the ends of their curve."""
    count = 0
    for k in range(n):
        count += int((soc[k] > low) & (soc[k] < high))
    return count


@kernel
def _n_astray(signal: SignalState, model_v: F4, most_v: f4) -> int:
    """How many cells are more than `most_v` further from their model than the mean one."""
    mean_v, n = _ZERO, signal.cell_v.shape[0]
    for k in range(n):
        mean_v += signal.cell_v[k] - model_v[k]
    mean_v /= f4(n)
    count = 0
    for k in range(n):
        count += int(abs(signal.cell_v[k] - model_v[k] - mean_v) > most_v)
    return count


@kernel
def _n_otherwise(state: ThermometerState, signal: SignalState, mean_v: f4, most_v: f4) -> int:
    """How many are measured in another way than a step ago, or have jumped by more than any resistance explains."""
    count = 0
    for k in range(state.use.shape[0]):
        count += int(signal.cell_use[k] & (USABLE | CALM) != state.use[k])
    for k in range(state.use.shape[0]):
        count += int(abs(signal.cell_v[k] - mean_v - state.apart_v[k]) > most_v)
    return count


@kernel
def _add(state: ThermometerState, signal: SignalState, mean_v: f4, added: f4, keep: f4, gain: f4, squared: f4) -> None:
    """What all cells answer in this step, where all are measured as before. Without branches."""
    for k in range(state.use.shape[0]):
        change_v = signal.cell_v[k] - mean_v - state.apart_v[k]
        state.apart_v[k] += gain * change_v
        state.answer[k] = keep * (state.answer[k] + added * change_v)
        state.v2s[k] = keep * (state.v2s[k] + squared * change_v * change_v)


@kernel
def _add_otherwise(
    config: ThermometerConfig,
    state: ThermometerState,
    signal: SignalState,
    mean_v: f4,
    moved_v: f4,
    most_v: f4,
    added: f4,
    keep: f4,
    gain: f4,
    jumped: bool,
    dt_s: f4,
) -> bool:
    """The same, where some are not. Returns whether some will not be in the next step either."""
    otherwise = False
    for k in range(state.use.shape[0]):
        use = signal.cell_use[k] & np.uint8(USABLE | CALM)
        if abs(mean_v - signal.cell_mean_v[k]) > _STILL * config.setting[NOISE_V]:
            use = np.uint8(0)  # it reads the same for ever
        away_v = signal.cell_v[k] - mean_v
        change_v = away_v - state.apart_v[k]
        if use != state.use[k] or abs(change_v) > most_v:
            state.use[k] = use
            state.since_s[k] = _ZERO
        expected_v = _expected(config, state, k) * moved_v
        if use & USABLE == 0:
            change_v = expected_v
            otherwise = True
        elif state.since_s[k] == _ZERO:
            state.apart_v[k] = away_v - expected_v
            state.since_s[k] = dt_s
            change_v = expected_v
            otherwise = True
        elif state.since_s[k] < _SETTLES_S and not jumped:
            state.apart_v[k] += dt_s / (state.since_s[k] + dt_s) * (change_v - expected_v)
            state.since_s[k] += dt_s
            change_v = expected_v
            otherwise = True
        else:
            state.since_s[k] = _SETTLES_S
            state.apart_v[k] += gain * change_v
        state.answer[k] = keep * (state.answer[k] + added * change_v)
        state.v2s[k] = keep * (state.v2s[k] + dt_s * change_v * change_v)
    return otherwise


@kernel
def _regress(
    config: ThermometerConfig,
    state: ThermometerState,
    rated_a: f4,
    ohm: f4,
    signal: SignalState,
    seen: Seen,
    soc: F4,
    model_v: F4,
    still_v: f4,
    dt_s: f4,
) -> None:
    """Add what this step tells of the answer of each cell; `ohm` is expected of the mean one.

    A cell that begins or ceases to be bled, or to be measured, or jumps, moves by that and not by the current: it, and
    the mean of all in such a step, are taken to have moved as expected. So is one that stands still (`still_v` is how
    far the mean has moved since the stillest cell did).
    """
    c, number, n = config.setting, state.number, state.use.shape[0]
    mean_v = seen.cell_v_mean
    change_a = seen.current_a - number[SLOW_A]
    most_v = _JUMP_V + _MOST * ohm * abs(change_a)
    otherwise = _n_otherwise(state, signal, mean_v, most_v) > 0
    if otherwise:
        number[MEAN_SLOW_V] += mean_v - number[MEAN_V]
    number[MEAN_V] = mean_v
    moved_v = mean_v - number[MEAN_SLOW_V]
    keep = c[MEMORY_S] / (c[MEMORY_S] + dt_s)
    gain = dt_s / (c[SLOW_S] + dt_s)
    stray_v = _STRAY_V + _STRAY_SHARE * ohm * abs(seen.current_a)
    curve = _n_inside(soc, n, c[SOC_LOW], c[SOC_HIGH]) < n or _n_astray(signal, model_v, stray_v) > 0
    added = _ZERO if curve else dt_s * change_a
    jumped = abs(seen.current_a - number[LAST_A]) > _JUMP * rated_a
    number[LAST_A] = seen.current_a
    if otherwise or number[OTHERWISE] > _ZERO or still_v > _STILL * c[NOISE_V]:
        again = _add_otherwise(config, state, signal, mean_v, moved_v, most_v, added, keep, gain, jumped, dt_s)
        number[OTHERWISE] = _ONE if again else _ZERO
    else:
        _add(state, signal, mean_v, added, keep, gain, dt_s)
    number[A2S] = keep * (number[A2S] + added * change_a)
    number[VAS] = keep * (number[VAS] + added * moved_v)
    number[V2S] = keep * (number[V2S] + dt_s * moved_v * moved_v)
    number[SUM_S] = keep * (number[SUM_S] + dt_s)
    number[MEAN_SLOW_V] += gain * moved_v
    number[SLOW_A] += gain * change_a


@kernel
def _follow_usual(state: ThermometerState, per_vas: f4, slow: f4) -> None:
    """Let what each cell usually answers follow what it does. Without branches."""
    for k in range(state.usual.shape[0]):
        state.usual[k] += slow * (state.answer[k] * per_vas - state.usual[k])


@kernel
def _hottest(
    config: ThermometerConfig,
    state: ThermometerState,
    signal_config: SignalConfig,
    signal: SignalState,
    seen: Seen,
    ohm: f4,
    dt_s: f4,
) -> tuple[f4, int]:
    """(by how much a cell is hotter than its sensor lets expect, K, its number); nowhere if nothing is known."""
    number = state.number
    per_kelvin = signal_config.number[OHM_PER_KELVIN]
    per_vas = _ONE / number[VAS]
    per_v = _SURE * np.sqrt(number[A2S]) * abs(per_vas)
    least_v = config.setting[NOISE_V]
    # where it is not the resistance that answers, but the curve
    answered = -number[VAS] > _LEAST * ohm * number[A2S] and -number[VAS] < _MOST * ohm * number[A2S]
    if not (answered and per_v * least_v < _HALF and per_kelvin > _ZERO):
        return _NAN, -1
    if number[KNOWN_S] < _FIRST_S:
        # what a cell answers otherwise when it is first seen is its usual share, too
        number[KNOWN_S] += max(dt_s, _TICK_S)
        _follow_usual(state, per_vas, dt_s / number[KNOWN_S])
        return _ZERO, -1
    _follow_usual(state, per_vas, dt_s / (config.setting[USUAL_S] + dt_s))
    most_k, at = _ZERO, -1
    for k in range(state.use.shape[0]):
        usual = max(_ONE + state.usual[k], _HALF)
        differs = state.answer[k] * per_vas
        less = differs - state.usual[k]
        if less < _LITTLE and state.use[k] & USABLE != 0:
            noise_v2 = (state.v2s[k] - differs * differs * number[V2S]) / number[SUM_S]
            unsure = per_v * np.sqrt(max(noise_v2, least_v * least_v))
            share = (usual + less + unsure) / usual
            hotter_k = -logf(share) / per_kelvin if unsure < _HALF and usual + less > _NONE else _ZERO
            sensor = int(signal_config.sensor_of_cell[k])
            if signal.sensor_use[sensor] & USABLE != 0 and signal.degc[sensor] > seen.degc_mean:
                hotter_k -= signal.degc[sensor] - seen.degc_mean
            if hotter_k > most_k:
                most_k = hotter_k
                at = k
    return most_k, at


@kernel
def thermometer_step(
    config: ThermometerConfig,
    state: ThermometerState,
    signal_config: SignalConfig,
    signal: SignalState,
    seen: Seen,
    soc: F4,
    model_v: F4,
    factor: f4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """One step, after the estimator's; writes CELL_HOT. `soc`, `model_v` f4[n_cells]; `dt_s` since the last step."""
    dt_s = elapsed(dt_s)
    hotter_k, at = _NAN, -1
    if not np.isnan(seen.current_a) and not np.isnan(seen.cell_v_mean):
        if np.isnan(state.number[SLOW_A]):
            _begin(state, seen)
        c = signal_config.number
        ohm = c[FAST_OHM] * c[PER_CELL] * factor * warmth(signal_config, seen.degc_mean)
        _regress(config, state, c[DISCHARGE_RATED_A], ohm, signal, seen, soc, model_v, value[_CELL_FROZEN], dt_s)
        hotter_k, at = _hottest(config, state, signal_config, signal, seen, ohm, dt_s)
    else:
        state.number[SLOW_A] = _NAN
    put(value, where, _CELL_HOT, hotter_k, at)
