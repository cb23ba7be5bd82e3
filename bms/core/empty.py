"""Where a cell may be empty though its SoC is believed to be above."""

from __future__ import annotations

import numpy as np

from bms.core.first_look import ocv
from bms.core.jit import f4, kernel
from bms.core.signals_layout import SPREAD_V_LOW, USABLE, SignalConfig, SignalState
from hal.contract import F4

_ZERO = f4(0)
_EMPTY_SOC, _INFINITE = f4(0.05), f4(np.inf)


@kernel
def _most_below(state: SignalState, low_v: f4) -> bool:
    """Whether more than half of the usable cells are below `low_v`."""
    below, count = 0, 0
    for k in range(state.cell_v.shape[0]):
        if state.cell_use[k] & USABLE != 0:
            count += 1
            below += int(state.cell_v[k] < low_v)
    return 2 * below > count


@kernel
def empty_v(config: SignalConfig, state: SignalState, nodes: F4, row: int, mean_v: f4, went: f4, drop_v: f4) -> f4:
    """Below which voltage a cell may be at the end of its charge, though its SoC is believed to be above; or -infinite.

    Only of a rack that has been discharged (`went` is negative) and whose cells are low, the mean one and most of them:
    in a small rack a single cell that sinks takes the mean along. `drop_v` is what the current takes off.
    """
    low_v = config.number[SPREAD_V_LOW] - drop_v
    if went < _ZERO and mean_v < low_v and _most_below(state, low_v):
        end_v: f4 = ocv(nodes, row, _EMPTY_SOC) - drop_v
        return end_v
    return -_INFINITE
