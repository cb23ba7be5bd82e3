"""What a capacity that is not known explains of an offset of the current sensor.

A cell that holds less than it is taken for is empty early, and so is one whose sensor shows too little current: while
charge flows one way nothing tells them apart. An error `d` of the capacity looks like an offset of `d |I|`. The filter
knows the capacity as a number that is handed to it, and takes such a difference for an offset; once capacity has been
learnt it forgets that within hours.
"""

from __future__ import annotations

from bms.core.estimator_layout import EstimatorConfig
from bms.core.jit import f4, kernel
from bms.core.plausibility import elapsed
from bms.core.plausibility_model import mean_of
from bms.core.signals_layout import BIAS_DOUBT_A, MOVED_SOC, SAG_TAU_S, SignalConfig, SignalState
from hal.contract import F4

_ZERO = f4(0)
_TAU_S, _FORGET_TAU_S = f4(3600), f4(4 * 3600)
# shares of the 1 h current: the most that is explained, and an offset of which nothing is
_MOST, _BEYOND = f4(0.025), f4(0.08)


@kernel
def beyond_doubt(
    config: SignalConfig, state: SignalState, estimator: EstimatorConfig, bias_a: f4, capacity_std: F4, dt_s: f4
) -> f4:
    """The offset `bias_a` of a cell's current, less what one deviation of the mean capacity explains, A; 0 if all.

    `capacity_std` f4[n_cells], relative. What it explains follows the mean current of the last minutes within an hour,
    and goes within four. It is no more than a fortieth of the 1 h current, and nothing of an offset of 8 %.
    """
    dt_s = elapsed(dt_s)
    mean_a = state.number[MOVED_SOC] / (config.number[SAG_TAU_S] * estimator.scalars[0].rate)
    now_a = mean_of(capacity_std, capacity_std.shape[0]) * mean_a
    if now_a - now_a == _ZERO:
        tau_s = _TAU_S if now_a > state.number[BIAS_DOUBT_A] else _FORGET_TAU_S
        state.number[BIAS_DOUBT_A] += dt_s / (tau_s + dt_s) * (now_a - state.number[BIAS_DOUBT_A])
    one_hour_a = f4(1) / (_TAU_S * estimator.scalars[0].rate)
    explained_a = min(state.number[BIAS_DOUBT_A], _MOST * one_hour_a, max(_BEYOND * one_hour_a - abs(bias_a), _ZERO))
    beyond_a: f4 = abs(bias_a) - explained_a
    return _ZERO if beyond_a <= _ZERO else beyond_a
