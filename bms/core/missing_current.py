"""What the current sensor does not show: the current that the cells' common voltage response asks for.

The response is that of the cells that are measured in peace, or, where these are too few because others are bled, of
those that are bled. Their voltages are put back with an error that is alike in all of them and constant: of the change
at the moment when one way of looking takes over from the other, this error is learnt, and taken off from then on.

A response that is there from the first sample on is that of an SoC which is wrong: nothing has been seen to begin. It
is taken off for as long as it lasts, while the estimator learns better.
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, kernel
from bms.core.signals_layout import (
    BAND_A,
    BAND_SLOW_A,
    BLED_WAY,
    CALM,
    COMMON_SLOW_V,
    COMMON_V,
    COMPARED_V,
    CURRENT_SLOW_TAU_S,
    CURRENT_STILL_AFTER_S,
    CURRENT_STILL_S,
    CURRENT_TAU_S,
    DOUBT_V,
    MOST_MISSING_A,
    PER_CELL,
    READ_A,
    RESPONSE_SEEN,
    SAMPLE_AGE_S,
    SENSE_SHARE,
    START_RESPONSE_V,
    USABLE,
    WAY_V,
    SignalConfig,
    SignalState,
)
from hal.contract import F4

_NAN = f4(np.nan)
_ZERO = f4(0)
_FEW = 3  # fewer cells do not speak for all, if others can
_FAR_V = f4(0.1)
_ABSURD_V = f4(100)
_ABSURD_SOC = f4(10)
# by no more do two ways of looking differ, with sense wires that are known and not: what is beyond is a response
_WAY_V, _UNKNOWN_WAY_V = f4(0.003), f4(0.02)
DOUBT_LESS = f4(0.15)  # a resistance is hardly smaller than it is taken for by more than this share
# of half the 1 h current, behind a reading that stands still, filters and estimator leave 0.42 at least; it is fatal
_STILL_WEIGHT = f4(3)
_STILL_SHARE = f4(0.2)


@kernel
def _bled(state: SignalState, model_v: F4, soc: F4, soc_std: F4, usual_v: f4) -> tuple[f4, f4, f4, int]:
    """(mean of measured less expected voltage, less what is each cell's own; mean SoC; mean deviation; how many).

    Of the cells that are bled now, or beside one. Those that are more than `_FAR_V` from `usual_v` are left out, unless
    they are more than a quarter.
    """
    near_v, all_v, total_soc, total_std, near, count = _ZERO, _ZERO, _ZERO, _ZERO, 0, 0
    for k in range(state.residual_v.shape[0]):
        off_v = state.cell_v[k] - model_v[k] - state.residual_v[k]
        known = abs(off_v) < _ABSURD_V and abs(soc[k]) < _ABSURD_SOC and abs(soc_std[k]) < _ABSURD_SOC
        if known and state.cell_use[k] & (USABLE | CALM) == USABLE:
            all_v += off_v
            total_soc += soc[k]
            total_std += soc_std[k]
            count += 1
            if abs(off_v - usual_v) <= _FAR_V:
                near_v += off_v
                near += 1
    n = f4(max(count, 1))
    mean_v = near_v / f4(near) if 4 * near >= 3 * count and near > 0 else all_v / n
    return mean_v, total_soc / n, total_std / n, count


@kernel
def common_response(
    config: SignalConfig,
    state: SignalState,
    model_v: F4,
    soc: F4,
    soc_std: F4,
    calm_v: f4,
    calm_soc: f4,
    calm_std: f4,
    calm: int,
) -> tuple[f4, f4, f4]:
    """(what all cells do beyond what is expected, V; mean SoC; mean deviation); NaN where none can be compared.

    `calm_*` are those of the `calm` cells that are measured in peace. Where they are few the bled ones speak. A way of
    looking is one of these, and one for each number of bled cells. When it changes, the response goes on from where it
    was, as far as that takes no more than `_WAY_V` (`_UNKNOWN_WAY_V`); so much of a real one is lost at that moment.
    """
    number = state.number
    mean_v, mean_soc, mean_std, way = calm_v, calm_soc, calm_std, 0
    if calm < _FEW:
        bled_v, bled_soc, bled_std, bled = _bled(state, model_v, soc, soc_std, number[COMPARED_V] - number[WAY_V])
        if bled >= _FEW:
            mean_v, mean_soc, mean_std, way = bled_v, bled_soc, bled_std, bled
    if way == 0 and calm == 0:
        return _NAN, _NAN, _NAN
    if f4(way) != number[BLED_WAY]:
        most_v = _WAY_V if config.number[SENSE_SHARE] > _ZERO else _UNKNOWN_WAY_V
        apart_v = number[COMPARED_V] - (mean_v + number[WAY_V])
        number[WAY_V] += min(max(apart_v, -most_v), most_v)
        number[BLED_WAY] = f4(way)
    mean_v += number[WAY_V]
    number[COMPARED_V] = mean_v
    return mean_v, mean_soc, mean_std


@kernel
def remembered_doubt(config: SignalConfig, state: SignalState, now_v: f4, dt_s: f4) -> f4:
    """What the SoC explains of the mean cell's response, now (`now_v`) and a moment ago, V.

    It is remembered a little longer than the two averages of the response remember it: a full rack whose SoC is not
    known well leaves the steep end of its curve, and an innovation of 150 mV with it, within seconds.
    """
    c = config.number
    memory_s = c[CURRENT_SLOW_TAU_S] + c[CURRENT_TAU_S] + c[CURRENT_TAU_S]
    doubt_v: f4 = max(now_v, state.number[DOUBT_V] * memory_s / (memory_s + dt_s))
    state.number[DOUBT_V] = doubt_v
    return doubt_v


@kernel
def _since_start(number: F4, mean_v: f4) -> f4:
    """The response `mean_v` less what is left of the one that was there when the controller first looked, V.

    What has gone of that does not come back.
    """
    if number[RESPONSE_SEEN] == _ZERO:
        number[RESPONSE_SEEN] = f4(1)
        number[START_RESPONSE_V] = mean_v
    start_v = number[START_RESPONSE_V]
    start_v = min(start_v, max(mean_v, _ZERO)) if start_v > _ZERO else max(start_v, min(mean_v, _ZERO))
    number[START_RESPONSE_V] = start_v
    since_v: f4 = mean_v - start_v
    return since_v


@kernel
def missing_current(
    config: SignalConfig, state: SignalState, current_a: f4, mean_v: f4, doubt_v: f4, ohm: f4, doubt: f4, dt_s: f4
) -> f4:
    """Sudden current that the common innovation `mean_v` asks for beyond the measured one, A.

    `doubt_v` is what the SoC explains, `ohm` the resistance of a cell that answers within seconds, `doubt` by which
    share it may be larger. A measured change of the current explains a response in its direction by so much: its own
    band-pass, the same, is taken off. A sensor that is alive has noise: of a reading that stands still the largest
    value is held.
    """
    c, number = config.number, state.number
    fast, slow = dt_s / (c[CURRENT_TAU_S] + dt_s), dt_s / (c[CURRENT_SLOW_TAU_S] + dt_s)
    number[COMMON_V] += fast * (_since_start(number, mean_v) - number[COMMON_V])
    number[COMMON_SLOW_V] += slow * (number[COMMON_V] - number[COMMON_SLOW_V])
    number[BAND_A] += fast * (current_a - number[BAND_A])
    number[BAND_SLOW_A] += slow * (number[BAND_A] - number[BAND_SLOW_A])
    response_v = number[COMMON_V] - number[COMMON_SLOW_V]
    changed_a = number[BAND_A] - number[BAND_SLOW_A]
    rest_a = max(abs(response_v) - doubt_v, _ZERO) / (ohm * c[PER_CELL])
    allowed = doubt if response_v * changed_a < _ZERO else DOUBT_LESS
    missing_a: f4 = max(rest_a - allowed * abs(changed_a), _ZERO)
    if current_a != number[READ_A]:
        number[READ_A] = current_a
        number[CURRENT_STILL_S] = _ZERO
        number[MOST_MISSING_A] = missing_a
    elif number[SAMPLE_AGE_S] == _ZERO:
        # a few equal samples are chance, however far apart they are
        number[CURRENT_STILL_S] += min(dt_s, _STILL_SHARE * c[CURRENT_STILL_AFTER_S])
    missing_a = max(number[MOST_MISSING_A], missing_a)
    number[MOST_MISSING_A] = missing_a
    return missing_a * _STILL_WEIGHT if number[CURRENT_STILL_S] >= c[CURRENT_STILL_AFTER_S] else missing_a
