"""Which cells are too low to be healthy before anything has been seen of them.

A short that is there when the controller starts is never seen to begin: all that is known of it is where its cell
stands. See `bms.core.plausibility_model` for those that begin later.
"""

from __future__ import annotations

import numpy as np

from bms.core.estimator_layout import N_SOC, NODE, OCV
from bms.core.jit import f4, kernel
from bms.core.signals_layout import HELD_A, REST_A, START_S, USABLE, SignalConfig, SignalState
from hal.contract import F4

_ZERO, _INF = f4(0), f4(np.inf)
_START_SOC, _START_V, _START_ENDS_S = f4(0.1), f4(0.03), f4(60)
_FEW = 3


@kernel
def ocv(nodes: F4, row: int, soc: f4) -> f4:
    """Open-circuit voltage at `soc`, linear between the nodes of a row; what is no number counts as 0."""
    x = soc if soc > _ZERO else _ZERO
    x = (x if x < f4(1) else f4(1)) * f4(N_SOC - 1)
    k = min(int(x), N_SOC - 2)
    at = row + k * NODE + OCV
    volt: f4 = nodes[at] + (x - f4(k)) * (nodes[at + NODE] - nodes[at])
    return volt


@kernel
def soc_of(nodes: F4, row: int, volt: f4) -> f4:
    """SoC at which the open-circuit voltage first reaches `volt`, to a node, rounded down; 1 if it never does."""
    for k in range(N_SOC):
        if nodes[row + k * NODE + OCV] >= volt:
            return f4(max(k - 1, 0)) / f4(N_SOC - 1)
    return f4(1)


@kernel
def lowest_at_start(config: SignalConfig, state: SignalState, nodes: F4, row: int, cell_mean_v: f4, dt_s: f4) -> f4:
    """The lowest voltage that a healthy cell may have in the first minute, as long as no charge flows, V.

    Then nothing has been seen to sink, and a short may be older than the controller. A cell lies no lower than one that
    holds `_START_SOC` less than the mean cell, whose voltage may be off by `_START_V`: what a load has left, or what
    the curve is wrong by. A short is in one cell, and none makes a cell rise: where more than a few lie lower, or any
    as far above, the rack is not balanced. Near the end of the curve an empty cell lies anywhere. Minus infinity: any.
    """
    number = state.number
    if not abs(number[HELD_A]) < config.number[REST_A]:
        number[START_S] = _START_ENDS_S
    if not number[START_S] < _START_ENDS_S:
        return -_INF
    number[START_S] += dt_s
    low_soc = soc_of(nodes, row, cell_mean_v - _START_V) - _START_SOC
    low_v = ocv(nodes, row, low_soc)
    high_v = ocv(nodes, row, soc_of(nodes, row, cell_mean_v + _START_V) + _START_SOC)
    low, any_high = 0, False
    for k in range(state.cell_v.shape[0]):
        usable = state.cell_use[k] & USABLE != 0
        low += int(state.cell_v[k] < low_v and usable)
        any_high |= state.cell_v[k] > high_v + _START_V and usable
    lowest_v: f4 = low_v if low_soc > _ZERO and low <= _FEW and not any_high else -_INF
    return lowest_v
