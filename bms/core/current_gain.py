"""Whether the current sensor shows what the cells answer to: a wrong gain, and a part of a step that it hides.

What the mean cell answers within seconds to a change of the measured current, over what its type answers at the
measured temperature, is one number: the apparent resistance of the rack. A cell's resistance grows within years and is
never much below its type's; all of them at once double or halve within minutes only behind a current sensor that is
wrong. The SoC has little part in it: within seconds hardly any charge flows, and what does is taken off along the OCV
curve::

    x = -d(R0 i + Rct i_b asinh(i / i_b) + R1 i_1 + R2 i_2)        expected of the type, i_1 and i_2 of its RC pairs
    y = dv - OCV' dz                                               answered by the mean cell
    share = sum(x y) / sum(x x)

Increments d alone count, so that parameters that change with SoC and temperature answer nothing; both pass one
band-pass. A sample tells something where x or y is well above the noise and above what a wrong SoC makes of the curve.
"""

from __future__ import annotations

import numpy as np

from bms.core.estimator_layout import R0, R1, R2, RCT, SLOPE, EstimatorConfig
from bms.core.first_look import ocv
from bms.core.health_moments import blended, nearest, row_of
from bms.core.jit import f4, kernel
from bms.core.mathf import asinhf
from bms.core.signals_layout import (
    BOTH_V2,
    CURVE_FAST_V,
    CURVE_V,
    EXPECTED_FAST_V,
    EXPECTED_V,
    EXPECTED_V2,
    EXPECTED_V4,
    GAIN_A,
    GAIN_RISING,
    GAIN_TAU_S,
    GAIN_TOLD_S,
    GAIN_V,
    GAIN_WENT_SOC,
    GAIN_WRONG,
    PER_CELL,
    RC1_A,
    RC2_A,
    SEEN_FAST_V,
    SEEN_V,
    SEEN_V2,
    USUAL_S,
    USUAL_SHARE,
    SignalConfig,
    SignalState,
)
from hal.contract import F4

_ZERO, _ONE, _INF = f4(0), f4(1), f4(np.inf)
# the band: what is sampled a second apart hardly matters, and little charge flows within; a step shows _PEAK of itself
_FAST_S, _SLOW_S, _PEAK = f4(3), f4(12), f4(0.63)
_LEAST_V = f4(1e-3)  # of the mean of some cells less is noise
_FAR = f4(3)  # deviations
_DOUBTS, _CURVE_SHARE = f4(4), f4(0.25)
_MOST_OFF = f4(0.15)  # of SoC
_SOC_LOW, _SOC_HIGH = f4(0.15), f4(0.95)  # outside, resistances change quickly with the SoC
_END_LOW, _END_HIGH = f4(0.05), f4(0.97)  # where the SoC may be beyond, a slow change of the current answers anything
_SPREAD = f4(0.2)  # and no more than this within two deviations of it
_MOST_ANSWER = f4(4)  # the knee of a curve answers a small change with a large voltage
# changes of so many seconds are remembered, fewer tell nothing; so many samples in a row are alike
_MEMORY_S, _TOLD_S, _ALIKE_S = f4(200), f4(60), f4(15)
# of them so large a share must rise and fall: what moves the voltage otherwise mostly moves it one way
_EITHER_WAY = f4(0.2)
_LONGEST_S = f4(10)  # a sample counts no more, however long the step
_NORMAL = f4(3)
_SURE = f4(2)  # deviations
# what is usual is known after changes of ten minutes, and follows within hours; slowly what is further away than _NEAR
_KNOWN_S, _USUAL_TAU_S, _NEAR, _FAR_SLOWER = f4(600), f4(21600), f4(0.08), f4(10)
# by so much all resistances of a healthy rack may change, for temperatures and parameters that are wrong; or be less
# than their type's
SLACK = f4(0.15)
_LEAST_SHARE = f4(0.1)


@kernel
def _doubt_v(nodes: F4, row: int, soc: f4, soc_std: f4, went: f4) -> f4:
    """By how much the curve may do otherwise over the SoC `went` where the SoC is off by up to three deviations, V."""
    expected_v = ocv(nodes, row, soc) - ocv(nodes, row, soc - went)
    most_v = _ZERO
    for k in range(1, 4):
        off = min(f4(k) * soc_std, _MOST_OFF)
        above_v = ocv(nodes, row, soc + off) - ocv(nodes, row, soc + off - went)
        below_v = ocv(nodes, row, soc - off) - ocv(nodes, row, soc - off - went)
        most_v = max(most_v, max(abs(above_v - expected_v), abs(below_v - expected_v)))
    return most_v


@kernel
def _fast_ohm(nodes: F4, at: int, ft: f4) -> f4:
    """What the type answers within seconds, ohm."""
    ohm: f4 = blended(nodes, at, ft, R0) + blended(nodes, at, ft, RCT) + blended(nodes, at, ft, R1)
    return ohm


@kernel
def _passed(number: F4, fast: int, band: int, change: f4, dt_s: f4) -> f4:
    """Add a change to the band-pass whose memory is at `fast` and `band`; what is passed now."""
    total = number[fast] + change
    gain = dt_s / (_FAST_S + dt_s)
    number[fast] = total - gain * total
    number[band] = (number[band] + gain * total) * (_SLOW_S / (_SLOW_S + dt_s))
    passed: f4 = number[band]
    return passed


@kernel
def _changes(
    number: F4, estimator: EstimatorConfig, at: int, ft: f4, current_a: f4, mean_v: f4, went: f4, dt_s: f4
) -> tuple[f4, f4, f4]:
    """(answered by the mean cell, expected of the type, part of the OCV curve) in the band, V, after this step.

    `current_a` of a cell. A cell voltage of 0 before: none has been seen.
    """
    k1, nodes = estimator.scalars[0], estimator.nodes
    answered_v, expected_v, curve_v = _ZERO, _ZERO, _ZERO
    if number[GAIN_V] != _ZERO:
        first_a = dt_s / (k1.tau1_s + dt_s) * (current_a - number[RC1_A])
        second_a = dt_s / (k1.tau2_s + dt_s) * (current_a - number[RC2_A])
        number[RC1_A] += first_a
        number[RC2_A] += second_a
        bent_a = k1.bend_a * (asinhf(current_a / k1.bend_a) - asinhf(number[GAIN_A] / k1.bend_a))
        expected_v = -(
            (blended(nodes, at, ft, R0) * (current_a - number[GAIN_A]) + blended(nodes, at, ft, RCT) * bent_a)
            + (blended(nodes, at, ft, R1) * first_a + blended(nodes, at, ft, R2) * second_a)
        )
        curve_v = blended(nodes, at, ft, SLOPE) * went
        answered_v = mean_v - number[GAIN_V] - curve_v
    number[GAIN_V] = mean_v
    number[GAIN_A] = current_a
    return (
        _passed(number, SEEN_FAST_V, SEEN_V, answered_v, dt_s),
        _passed(number, EXPECTED_FAST_V, EXPECTED_V, expected_v, dt_s),
        _passed(number, CURVE_FAST_V, CURVE_V, curve_v, dt_s),
    )


@kernel
def _add(number: F4, answered_v: f4, expected_v: f4, dt_s: f4) -> None:
    """Add a sample to the regression, which remembers changes of `_MEMORY_S`."""
    most_v = _MOST_ANSWER * abs(expected_v)
    answered_v = min(max(answered_v, -most_v), most_v)
    squared = expected_v * expected_v
    gain = dt_s / (number[GAIN_TOLD_S] + dt_s)
    number[GAIN_TOLD_S] = min(number[GAIN_TOLD_S] + dt_s, _MEMORY_S)
    number[GAIN_RISING] += gain * ((_ONE if expected_v > _ZERO else _ZERO) - number[GAIN_RISING])
    number[EXPECTED_V2] += gain * (squared - number[EXPECTED_V2])
    number[EXPECTED_V4] += gain * (squared * squared - number[EXPECTED_V4])
    number[BOTH_V2] += gain * (expected_v * answered_v - number[BOTH_V2])
    number[SEEN_V2] += gain * (answered_v * answered_v - number[SEEN_V2])


@kernel
def _share(number: F4) -> tuple[f4, f4]:
    """(what the mean cell answers of what its type does, standard deviation of that).

    As many samples are independent as the band lets through, fewer where the changes are few and large: their fourth
    moment over the square of their second is 3 for normal ones.
    """
    squared, both = number[EXPECTED_V2], number[BOTH_V2]
    even = _NORMAL * squared * squared
    even = even / number[EXPECTED_V4] if number[EXPECTED_V4] > even else _ONE
    n = max(even * number[GAIN_TOLD_S] / _ALIKE_S, _ONE)
    std = np.sqrt(max(number[SEEN_V2] * squared - both * both, _ZERO) / n) / squared
    return both / squared, std


@kernel
def gain_error(share: f4, std: f4, usual: f4, least: f4, doubt: f4) -> f4:
    """By how much the readings are wrong, at least, as a share: 1 for half and for twice of the truth; 0 if nothing is.

    `usual` is the share that the rack is taken to have, which may be larger by `doubt`, and never below `least` by more
    than `SLACK`. Less `_SURE` deviations; 1 more than what a reversed sensor shows of the truth.
    """
    wrong: f4 = max((share - _SURE * std) / usual - _ONE - doubt, _ZERO)
    low = (share + _SURE * std) / least
    if low < _ONE:
        low = _ONE / max(low, _LEAST_SHARE) - _ONE if low > _ZERO else _ONE - low
        wrong = max(wrong, low - SLACK)
    return wrong


@kernel
def _learn(number: F4, share: f4, dt_s: f4) -> None:
    """Let what is usual follow: what a sensor that has just become wrong makes of the memory must not become usual."""
    gain = dt_s / (number[USUAL_S] + dt_s)
    if number[USUAL_S] >= _KNOWN_S and abs(share - number[USUAL_SHARE]) > _NEAR * number[USUAL_SHARE]:
        gain = gain / _FAR_SLOWER
    number[USUAL_S] = min(number[USUAL_S] + dt_s, _USUAL_TAU_S)
    number[USUAL_SHARE] += gain * (share - number[USUAL_SHARE])


@kernel
def _judge(number: F4, factor: f4, doubt: f4, dt_s: f4) -> None:
    """Tell the error of the gain from all that is remembered; where there is none, let what is usual follow."""
    either_way = number[GAIN_RISING] > _EITHER_WAY and number[GAIN_RISING] < _ONE - _EITHER_WAY
    if number[GAIN_TOLD_S] < _TOLD_S or not either_way:
        return
    share, std = _share(number)
    if number[USUAL_S] >= _KNOWN_S:
        number[GAIN_WRONG] = gain_error(share, std, number[USUAL_SHARE], number[USUAL_SHARE], SLACK)
    else:
        number[GAIN_WRONG] = gain_error(share, std, factor, _ONE, doubt)
    if number[GAIN_WRONG] == _ZERO:
        _learn(number, share, dt_s)


@kernel
def _hidden_v(number: F4, answered_v: f4, expected_v: f4, doubt_v: f4) -> f4:
    """What the type would answer to the part of a step that is not shown, V; 0 while nothing is known."""
    if number[USUAL_S] < _KNOWN_S or not answered_v * expected_v > _ZERO:
        return _ZERO
    usual = number[USUAL_SHARE]
    beyond_v = abs(answered_v) - usual * (_ONE + SLACK) * abs(expected_v) - doubt_v
    hidden_v: f4 = max(beyond_v, _ZERO) / (_PEAK * usual)
    return hidden_v


@kernel
def current_gain(
    config: SignalConfig,
    state: SignalState,
    estimator: EstimatorConfig,
    row: int,
    degc: f4,
    current_a: f4,
    mean_v: f4,
    soc: f4,
    soc_std: f4,
    factor: f4,
    doubt: f4,
    dt_s: f4,
) -> tuple[f4, f4]:
    """(by how much the gain of the current sensor is wrong, relative; current of a step that it hides, A).

    `mean_v`, `soc`, `soc_std`, `degc`: of the mean cell; `row` of the nodes nearest to `degc`. Before changes of ten
    minutes have told the usual share, it is `factor`, the resistance that is published, and may be more by `doubt`; a
    step may hide anything until then. What was told fades while the current does not change.
    """
    number, k1, nodes = state.number, estimator.scalars[0], estimator.nodes
    cell_a = current_a * config.number[PER_CELL]
    if not (abs(mean_v) < _INF and abs(degc) < _INF and abs(soc) < _INF and soc_std >= _ZERO):
        number[GAIN_V] = _ZERO
        return number[GAIN_WRONG], _ZERO
    went = -cell_a * k1.rate * dt_s
    number[GAIN_WENT_SOC] = (number[GAIN_WENT_SOC] + went) * (_SLOW_S / (_SLOW_S + dt_s))
    low, ft = row_of(k1.degc_first, k1.nodes_per_kelvin, degc)
    ohm = _fast_ohm(nodes, low + nearest(soc), ft)
    answered_v, expected_v, curve_v = _changes(number, estimator, low + nearest(soc), ft, cell_a, mean_v, went, dt_s)
    off, far = soc_std + soc_std, _FAR * soc_std
    most_ohm = max(
        abs(_fast_ohm(nodes, low + nearest(soc + off), ft) - ohm),
        abs(_fast_ohm(nodes, low + nearest(soc - off), ft) - ohm),
    )
    doubt_v = _LEAST_V + _DOUBTS * (
        _doubt_v(nodes, row, soc, soc_std, number[GAIN_WENT_SOC]) + _CURVE_SHARE * abs(curve_v)
    )
    inside = soc > _SOC_LOW and soc < _SOC_HIGH and soc - far > _END_LOW and soc + far < _END_HIGH
    clear_v = max(abs(expected_v), min(abs(answered_v), _MOST_ANSWER * abs(expected_v)))
    if not (inside and most_ohm < _SPREAD * ohm and clear_v > doubt_v):
        keep = config.number[GAIN_TAU_S] / (config.number[GAIN_TAU_S] + dt_s)
        number[GAIN_TOLD_S] = number[GAIN_TOLD_S] * keep
        if number[GAIN_TOLD_S] < _TOLD_S:
            number[GAIN_WRONG] = _ZERO
        return number[GAIN_WRONG], _ZERO
    step_s = min(dt_s, _LONGEST_S)
    _add(number, answered_v, expected_v, step_s)
    _judge(number, factor, doubt, step_s)
    hidden_v = _hidden_v(number, answered_v, expected_v, doubt_v)
    return number[GAIN_WRONG], hidden_v / (ohm * config.number[PER_CELL])
