"""Cells that sink over minutes, told from their voltages alone.

A short that grows slowly is followed: by the average of a cell's own deviation, and by its filter, which takes the sag
for charge that was never there. Within ten minutes a cell whose SoC is doubtful may so be led from half full to nearly
empty while its voltage falls by 0.1 V, and no look that compares it with its model sees it. It is hot then, too: its
resistance falls to a fifth, and under a discharge the drop that it no longer has hides what the short takes off.

Here the estimate of a cell that falls has no part. Each cell's voltage less the mean one is held against its average
over the last ten minutes, as a fall that is filtered over ten seconds and no larger than it is now (what a load did
that has gone does not count), and of it is taken off

    share * r * max(|I - <I>|, 0.15 load)    what a load explains of a cell with another resistance
    rise of the mean cell - rise of the cell, each along the curve from where it is, for the charge of these minutes
    what a neighbour has risen by (a broken sense wire), and twice what a third cell falls by

Where a cell stands on its curve is known from its voltage alone, as well as load and relaxation leave it: the least
that any part of the curve there makes of the charge counts for the cell, the most for the mean one. Or it is where
its estimate was against the mean one before it fell: what either explains is taken off. It is looked at
only while the mean cell is where the curve has no ends. Elsewhere all starts anew, from what it is then; and so does
a cell that is fuller than that, which falls by itself when it is discharged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.estimator_layout import N_SOC, NODE, OCV, EstimatorConfig
from bms.core.faults import Fault
from bms.core.first_look import ocv
from bms.core.jit import f4, kernel
from bms.core.open_wire import explained_by
from bms.core.plausibility import elapsed, mean_factor, of_one_cell, put, warmth
from bms.core.plausibility_model import FULL_SOC, FULL_V, load_share, mean_of, ranked, row_of
from bms.core.seen import Seen
from bms.core.signals_layout import (
    CALM,
    FAST_OHM,
    HELD_A,
    LEAST_CHANGE,
    MOVED_SOC,
    PER_CELL,
    RESIDUAL_TAU_S,
    SAG_TAU_S,
    SPREAD_V_HIGH,
    SPREAD_V_LOW,
    USABLE,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, U2, Field

# growing_number
SEEN_S, AWAY_S, N_STATE_NUMBERS = 0, 1, 2

STATE_FIELDS = (
    Field(
        "growing_number",
        "f4",
        "time of the averages, and how long the mean cell has been at an end of the curve",
        f"{N_STATE_NUMBERS}",
    ),
    Field("growing_apart_v", "f4", "average of a cell's voltage less the mean one; NaN: not seen", "cells"),
    Field("growing_fall_v", "f4", "how far it is below that", "cells"),
    Field("growing_load_a", "f4", "average of the current over the same time", "cells"),
    Field("growing_went", "f4", "how far the charge is above its average over that time, as a share", "cells"),
    Field("growing_since_s", "f4", "since the averages last followed", "cells"),
    Field("growing_soc_apart", "f4", "average of a cell's SoC less the mean one", "cells"),
)


class GrowingState(NamedTuple):
    """Memory, owned by the caller: see `STATE_FIELDS`."""

    number: F4
    apart_v: F4
    fall_v: F4
    load_a: F4
    went: F4
    since_s: F4
    soc_apart: F4


_ZERO, _HALF, _ONE, _TWO = f4(0), f4(0.5), f4(1), f4(2)
_NAN = f4(np.nan)
_CELL_SAG = int(Fault.CELL_SAG)
_LOOKED_V, _MOVED_V, _SLOWER = f4(8e-3), f4(0.018), f4(6)
_PUT_BACK_V, _LITTLE_V, _FAR_V = f4(0.02), f4(5e-3), f4(0.1)
_STEADY = f4(0.15)  # of the load of these minutes: cells differ in what they do slowly
_RELAX_V, _RELAX = f4(0.01), f4(0.15)  # how far a voltage is from its curve: at rest, and of the drop
_MORE_CHARGE = f4(1.1)  # cells differ in capacity
_EMPTY_SOC, _FLOWS_SOC = f4(0.05), f4(3e-3)
_HELD_SOC = f4(0.2)  # with more charge than this an average is too old to be held against
_FOLLOWED = f4(1.1)  # by a tenth of a fall of minutes the averages have followed
_SETTLED_S, _TICK_S = f4(30), f4(1e-3)


@kernel
def growing_init(state: GrowingState) -> None:
    """Fresh memory; all of `state` is written."""
    state.number[:] = _ZERO
    state.apart_v[:] = _NAN
    state.fall_v[:] = _ZERO
    state.load_a[:] = _ZERO
    state.went[:] = _ZERO
    state.since_s[:] = _ZERO
    state.soc_apart[:] = _ZERO


@kernel
def risen_by(nodes: F4, row: int, low_v: f4, high_v: f4, went: f4) -> tuple[f4, f4]:
    """(least, most) that the open-circuit voltage may have risen by when `went` was charged and it is within the two.

    Negative where it has fallen. Of all nodes between the two voltages, and of one at least.
    """
    least_v, most_v, any_node = f4(np.inf), f4(-np.inf), False
    for k in range(N_SOC):
        now_v = nodes[row + k * NODE + OCV]
        last = k + 1 == N_SOC
        if (low_v <= now_v <= high_v) or (not any_node and (now_v > high_v or last)):
            rise_v = now_v - ocv(nodes, row, f4(k) / f4(N_SOC - 1) - went)
            least_v, most_v = min(least_v, rise_v), max(most_v, rise_v)
            any_node = True
    return least_v, most_v


@kernel
def _bled_fall(signal: SignalState, state: GrowingState, mean_v: f4) -> tuple[f4, int]:
    """(sum of the falls of the cells that are bled, or beside one, how many): what bleeding does is alike in them."""
    total_v, count = _ZERO, 0
    for k in range(state.apart_v.shape[0]):
        if signal.cell_use[k] & (USABLE | CALM) == USABLE and not np.isnan(state.apart_v[k]):
            total_v += min(max(state.apart_v[k] - signal.cell_v[k] + mean_v, -_FAR_V), _FAR_V)
            count += 1
    return total_v, count


@kernel
def _follow(
    config: SignalConfig,
    signal: SignalState,
    state: GrowingState,
    mean_v: f4,
    soc: F4,
    mean_soc: f4,
    current_a: f4,
    charged: f4,
    full_v: f4,
    dt_s: f4,
) -> None:
    """Take how far each cell has fallen against the mean one; averages follow, six times as slowly once it has.

    A cell above `full_v`, that was full by its estimate, is at the end of the curve: what it falls from there is not
    held against it; an estimate that has just been led there by a broken sense wire does not count. Averages of
    current and charge (`charged` in this step) follow with that of the voltage: so each cell's fall and what
    explains it are of the same time. While a cell is bled its averages wait; then they follow for all of that time.
    """
    c = config.number
    gain = dt_s / (min(state.number[SEEN_S], c[RESIDUAL_TAU_S]) + dt_s)
    tau_s = min(state.number[SEEN_S], c[SAG_TAU_S])
    bled_v, n_bled = _bled_fall(signal, state, mean_v)
    for k in range(state.apart_v.shape[0]):
        state.went[k] += charged
        state.since_s[k] += dt_s
        if signal.cell_use[k] & USABLE == 0:
            continue
        apart_soc = soc[k] - mean_soc
        apart_soc = apart_soc if abs(apart_soc) <= _ONE else state.soc_apart[k]  # also NaN
        apart_v, calm = signal.cell_v[k] - mean_v, signal.cell_use[k] & CALM != 0
        if np.isnan(state.apart_v[k]) or (signal.cell_v[k] > full_v and mean_soc + state.soc_apart[k] > FULL_SOC):
            state.apart_v[k] = apart_v if calm else _NAN
            state.fall_v[k], state.load_a[k], state.went[k], state.since_s[k] = _ZERO, current_a, _ZERO, _ZERO
            state.soc_apart[k] = apart_soc
            continue
        fall_v = state.apart_v[k] - apart_v
        if not calm:
            # of a cell that is bled what was seen before still holds; where many are, what all do is bleeding
            others_v = _PUT_BACK_V
            if 2 * n_bled >= state.apart_v.shape[0] and n_bled > 1:
                others_v = min((bled_v - min(max(fall_v, -_FAR_V), _FAR_V)) / f4(n_bled - 1) + _LITTLE_V, _PUT_BACK_V)
            # but one that rises does so in full: a broken sense wire moves two cells apart, bled or not
            fall_v = max(fall_v - others_v, state.fall_v[k]) if fall_v > _ZERO else fall_v
        else:
            held = abs(state.fall_v[k]) > _MOVED_V and abs(state.went[k]) < _HELD_SOC
            pace = state.since_s[k] / (tau_s + state.since_s[k])
            pace = pace / _SLOWER if held else pace
            state.apart_v[k] -= pace * fall_v
            state.load_a[k] += pace * (current_a - state.load_a[k])
            state.went[k] -= pace * state.went[k]
            state.soc_apart[k] += pace * (apart_soc - state.soc_apart[k])
            state.since_s[k] = _ZERO
        state.fall_v[k] += gain * (fall_v - state.fall_v[k])


@kernel
def _curve_v(nodes: F4, row: int, cell_v: f4, mean_v: f4, off_v: f4, went: f4) -> f4:
    """By how much the curve lets a cell fall against the mean one, for the charge `went` since its average.

    Both voltages less the drop of the current; they may be away from the curve by `off_v`.
    """
    _, most_v = risen_by(nodes, row, mean_v - off_v, mean_v + off_v, went)
    more_v, _ = risen_by(nodes, row, cell_v - off_v, cell_v + off_v, went * _MORE_CHARGE)
    less_v, _ = risen_by(nodes, row, cell_v - off_v, cell_v + off_v, went / _MORE_CHARGE)
    return max(most_v - min(more_v, less_v), _ZERO)


@kernel
def _remembered_v(nodes: F4, row: int, soc: f4, apart: f4, std: f4, went: f4) -> f4:
    """The same for a mean cell at `soc`, known to half of `std`, and a cell that was `apart` from it before it fell."""
    worst_v = _ZERO
    for side in range(-1, 2):
        at = soc + _HALF * f4(side) * std
        mean_v = ocv(nodes, row, at) - ocv(nodes, row, at - went)
        place = at + apart
        more_v = ocv(nodes, row, place) - ocv(nodes, row, place - went * _MORE_CHARGE)
        less_v = ocv(nodes, row, place) - ocv(nodes, row, place - went / _MORE_CHARGE)
        worst_v = max(worst_v, mean_v - min(more_v, less_v))
    return worst_v


@kernel
def growing_step(
    config: SignalConfig,
    signal: SignalState,
    state: GrowingState,
    estimator: EstimatorConfig,
    seen: Seen,
    soc: F4,
    soc_std: F4,
    resistance: F4,
    resistance_std: F4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """One step, after `sudden.sudden_step`: raises the value of CELL_SAG to the largest fall, where that is more.

    `soc`, `soc_std`, `resistance`, `resistance_std` f4[n_cells], the latter relative; `dt_s` since the last step.
    """
    dt_s = max(elapsed(dt_s), _TICK_S)
    c, number, nodes = config.number, state.number, estimator.nodes
    rate = estimator.scalars[0].rate
    current_a, mean_v = signal.number[HELD_A], seen.cell_v_mean
    ohm = c[FAST_OHM] * mean_factor(resistance) * warmth(config, seen.degc_mean)
    drop_v = ohm * current_a * c[PER_CELL]
    charged = -current_a * c[PER_CELL] * rate * dt_s
    if not c[SPREAD_V_LOW] < mean_v + drop_v < c[SPREAD_V_HIGH]:
        # the curve has ends there, which weaker cells reach first; a load that comes or goes leads there for seconds
        number[AWAY_S] += dt_s
        for k in range(state.went.shape[0]):
            state.went[k] += charged
            state.since_s[k] += dt_s
        if number[AWAY_S] > _SETTLED_S:
            number[SEEN_S] = _ZERO
            state.apart_v[:] = _NAN
        return
    number[AWAY_S] = _ZERO
    n = state.fall_v.shape[0]
    mean_soc, mean_std = mean_of(soc, n), mean_of(soc_std, n)
    full_v = c[SPREAD_V_HIGH] - drop_v + FULL_V
    _follow(config, signal, state, mean_v, soc, mean_soc, current_a, charged, full_v, dt_s)
    number[SEEN_S] += dt_s
    most_a = max(signal.number[MOVED_SOC] / (c[SAG_TAU_S] * rate), abs(current_a) * c[PER_CELL])
    per_a = load_share(resistance, resistance_std) * ohm
    off_v = _RELAX_V + _RELAX * ohm * most_a
    row = row_of(estimator, seen.degc_mean)
    # a cell that is empty before the others may lie anywhere as they are discharged
    empty_v = ocv(nodes, row, _EMPTY_SOC) - drop_v
    first_v, second_v, third_v, at = _ZERO, _ZERO, _ZERO, -1
    for k in range(n):
        # a load that has gone explains nothing any more: nor is what it did held against the cell
        bled_v = _PUT_BACK_V if signal.cell_use[k] & CALM == 0 else _LITTLE_V
        fall_v = min(state.fall_v[k], state.apart_v[k] - signal.cell_v[k] + mean_v + bled_v)
        fall_v -= per_a * max(abs(current_a - state.load_a[k]) * c[PER_CELL], _STEADY * most_a)
        empty = state.went[k] < -_FLOWS_SOC and signal.cell_v[k] < empty_v
        looked = fall_v > _LOOKED_V and signal.cell_use[k] & USABLE != 0 and not empty
        if looked and fall_v > third_v:
            risen_v = _ZERO
            if k > 0:
                risen_v = max(risen_v, -state.fall_v[k - 1])
            if k + 1 < n:
                risen_v = max(risen_v, -state.fall_v[k + 1])
            went = state.went[k]
            fall_v -= explained_by(risen_v) + max(
                _curve_v(nodes, row, signal.cell_v[k] + drop_v, mean_v + drop_v, off_v, went),
                _remembered_v(nodes, row, mean_soc, state.soc_apart[k], mean_std, went),
            )
            # one that read too high and is right again has fallen, but is no lower than the others
            fall_v = min(fall_v, mean_v - signal.cell_v[k])
            at = k if fall_v > first_v else at
            first_v, second_v, third_v = ranked(first_v, second_v, third_v, fall_v)
    worst_v = first_v - _TWO * third_v - signal.cell_looks[LEAST_CHANGE]
    worst_v = of_one_cell(config, _FOLLOWED * worst_v, seen.degc_mean, _ONE)
    if number[SEEN_S] > _SETTLED_S and worst_v > _ZERO and not worst_v <= value[_CELL_SAG]:
        put(value, where, _CELL_SAG, worst_v, at)
