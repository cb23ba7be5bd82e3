"""Sense wires that are broken: two neighbours share a wire, so that it moves them apart and leaves their sum right.

`open_wire` compares voltages alone; `open_wire_beyond` takes off what the cells' charge explains. `risen` is for a cell
that seems to sink: a neighbour that rises as much at once says that neither does.
"""

from __future__ import annotations

import numpy as np

from bms.core.first_look import ocv
from bms.core.jit import f4, kernel
from bms.core.signals_layout import CALM, USABLE, SignalState
from hal.contract import F4, U1

_NAN, _ZERO = f4(np.nan), f4(0)
_DISTURBED_V = f4(0.1)  # bleeding moves no voltage by more
_MOST_SOC = f4(0.1)
_ABSURD_V = f4(100)
_USUAL_V, _MUCH_V, _MORE = f4(5e-3), f4(0.05), f4(0.1)


@kernel
def _apart_v(this_v: f4, next_v: f4, use: int) -> f4:
    """How far two neighbours are off in opposite directions; `use` has the bits that both have."""
    apart_v: f4 = min(abs(this_v), abs(next_v)) - abs(this_v + next_v) if use & USABLE != 0 else _ZERO
    return apart_v if use & CALM != 0 else apart_v - _DISTURBED_V


@kernel
def open_wire(cell_v: F4, use: U1, mean_v: f4) -> tuple[f4, int]:
    """How far two neighbours are apart from the mean in opposite directions; nowhere if none are.

    A sense wire is shared by two neighbours: where it is open their sum is still right, but the border between them
    drifts. What the two do not have in opposite directions is their own and is taken off, and `_DISTURBED_V` where
    either is bled, or beside one that is; the cell with the lower number is named.
    """
    worst, at, count = _ZERO, -1, 0
    for k in range(cell_v.shape[0] - 1):
        count += int(use[k] & use[k + 1] & USABLE != 0)
    if count == 0 or np.isnan(mean_v):
        return _NAN, -1
    for k in range(cell_v.shape[0] - 1):
        apart_v = _apart_v(cell_v[k] - mean_v, cell_v[k + 1] - mean_v, int(use[k] & use[k + 1]))
        if apart_v > worst:
            worst = apart_v
            at = k
    return worst, at


@kernel
def open_wire_beyond(cell_v: F4, use: U1, mean_v: f4, nodes: F4, row: int, model_v: F4, mean_soc: f4) -> tuple[f4, int]:
    """`open_wire` beyond what is expected of the cells for their charge, `model_v` f4[n], each against the mean of it.

    Near an end of the curve two neighbours of different charge are hundreds of millivolts apart. But a filter makes
    charge of a broken wire as well: of a cell no more is believed than the OCV of `_MOST_SOC` more or less than the
    mean cell has, and as much more as the load takes off that one.
    """
    worst, at, before_v = _ZERO, -1, _ZERO
    mean_model_v, count = _ZERO, 0
    for k in range(cell_v.shape[0]):
        if abs(model_v[k]) < _ABSURD_V:
            mean_model_v += model_v[k]
            count += 1
    mean_model_v /= f4(max(count, 1))
    mean_ocv_v = ocv(nodes, row, mean_soc)
    load_v = abs(mean_v - mean_ocv_v)
    least_v = ocv(nodes, row, mean_soc - _MOST_SOC) - mean_ocv_v - load_v
    most_v = ocv(nodes, row, mean_soc + _MOST_SOC) - mean_ocv_v + load_v
    for k in range(cell_v.shape[0]):
        expected_v = model_v[k] - mean_model_v if abs(model_v[k]) < _ABSURD_V else _ZERO
        here_v = cell_v[k] - mean_v - min(max(expected_v, least_v), most_v)
        if k > 0:
            apart_v = _apart_v(before_v, here_v, int(use[k - 1] & use[k]))
            if apart_v > worst:
                worst = apart_v
                at = k - 1
        before_v = here_v
    return worst, at


@kernel
def _rise(state: SignalState, model_v: F4, mean_v: f4, bled_v: f4, k: int) -> f4:
    """How far cell `k` has suddenly risen, V; while it is bled, 5 mV less, against the bled and those that are not.

    Against the higher of both means: of few cells one that sinks takes the mean along.
    """
    rise_v: f4 = state.residual_v[k] - state.usual_v[k]
    if state.cell_use[k] & (USABLE | CALM) == USABLE:
        others_v = bled_v if not bled_v < mean_v else mean_v
        others_v = others_v if others_v == others_v else mean_v
        now_v = state.cell_v[k] - model_v[k] - others_v - state.usual_v[k] - _USUAL_V
        rise_v = now_v if now_v > rise_v else rise_v
    return rise_v


@kernel
def explained_by(risen_v: f4) -> f4:
    """What a neighbour that has risen by `risen_v` explains of a sag, V: where both part, the wire between is broken.

    Beyond 50 mV a tenth more, for the filter follows the one sooner than the other.
    """
    return risen_v + _MORE * max(risen_v - _MUCH_V, _ZERO)


@kernel
def risen(state: SignalState, model_v: F4, mean_v: f4, bled_v: f4, k: int) -> f4:
    """What the neighbours of cell `k` explain of its sag, V."""
    risen_v = _ZERO
    if k > 0:
        risen_v = max(risen_v, _rise(state, model_v, mean_v, bled_v, k - 1))
    if k + 1 < state.residual_v.shape[0]:
        risen_v = max(risen_v, _rise(state, model_v, mean_v, bled_v, k + 1))
    sag_v: f4 = explained_by(risen_v)
    return sag_v
