"""Cells that sink within seconds, whatever the rack is doing.

`bms.core.plausibility_model` compares a cell with its own average over ten minutes: long enough for a soft short to add
up, and for a load, a bent curve and a doubtful SoC to explain tens of millivolts of it. A hard short needs no such
patience. It takes its cell down at once, and in the minute around it a load that has been steady explains nothing, nor
does a curve along which little charge has moved. So each cell's measured less expected voltage, less the common, is
held against its average over `_WINDOW_S`, and what explains the difference is counted over that time alone::

    d = (v - v_model) - mean(v - v_model),    drop = <d> - d

but no more than by v - mean(v) alone, for it is the cell that sinks and not its model, nor than by v - v_model and 5 mV
alone, for it is no sinking to be left behind where the others rise;

    less  share * max(r |I - <I>|, |mean(v) - <mean(v)>|)      a load that has come or gone: cells are not alike; the
                                       share is what the cell did at earlier changes of the load, and 10 %
    less  the bend of the curve over the charge of this time, for an SoC that is wrong by three deviations
    less  1 V * charge / 3 %           where these reach beyond the end of the curve towards which the charge flows;
                                       bend and end no more than it has sunk while charge flowed, 1 V * charge / 1 %
                                       in a step
    less  share of what all sink by    below their models, where the cells are low: what these lack of the resistances
    less  1 V * charge / 1 %           of what a cell that sinks, or may be empty, falls further while it is discharged
    less  what a neighbour has risen by, and twice what a third cell drops by

A cell that has moved so is followed six times as slowly, until it is back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.empty import empty_v
from bms.core.estimator_layout import EstimatorConfig
from bms.core.faults import Fault
from bms.core.jit import f4, kernel
from bms.core.open_wire import explained_by
from bms.core.plausibility import elapsed, mean_factor, of_one_cell, put, warmth
from bms.core.plausibility_model import FULL_SOC, FULL_V, LOAD_SHARE, bent, load_share, ranked, row_of
from bms.core.seen import Seen
from bms.core.signals_layout import (
    CALM,
    FAST_OHM,
    HELD_A,
    LEAST_CHANGE,
    PER_CELL,
    REST_A,
    SPREAD_V_HIGH,
    SPREAD_V_LOW,
    USABLE,
    SignalConfig,
    SignalState,
)
from bms.core.signals_layout import WENT_SOC as LONG_WENT_SOC
from hal.contract import F4, U1, U2, Field

# sudden_number
WENT_SOC, MOVED_SOC, LAST_A, LAST_MEAN_V, N_STATE_NUMBERS = 0, 1, 2, 3, 4

STATE_FIELDS = (
    Field("sudden_number", "f4", "charge of a minute, to and fro; last current, mean voltage", f"{N_STATE_NUMBERS}"),
    Field("sudden_off_v", "f4", "average of a cell's deviation less the mean one; NaN: not seen", "cells"),
    Field("sudden_drop_v", "f4", "how far it is below that", "cells"),
    Field("sudden_load_a", "f4", "average of the current over the time of that average", "cells"),
    Field("sudden_mean_v", "f4", "average of the mean cell's voltage over it", "cells"),
    Field("sudden_own_v", "f4", "average of a cell's deviation itself; NaN: not seen", "cells"),
    Field("sudden_sunk_v", "f4", "how far it is below that", "cells"),
    Field("sudden_apart_v", "f4", "average of a cell's voltage less the mean one; NaN: not seen", "cells"),
    Field("sudden_fall_v", "f4", "how far it is below that", "cells"),
    Field("sudden_end_v", "f4", "what the end of its curve may have taken off since it has reached that", "cells"),
    Field(
        "sudden_way_v",
        "f4",
        "what of its drop has come as charge flowed, and no faster than a curve falls",
        "cells",
    ),
    Field("sudden_change_v2s", "f4", "squares of the changes of load at which it was watched, over time", "cells"),
    Field("sudden_answer_v2s", "f4", "the same of its drop times the change", "cells"),
    Field("sudden_before_v", "f4", "what of its drop nothing explained before the load changed", "cells"),
    Field("sudden_bled", "u1", "1 = it was last measured while it or a neighbour was bled", "cells"),
)


class SuddenState(NamedTuple):
    """Memory, owned by the caller: see `STATE_FIELDS`."""

    number: F4
    off_v: F4
    drop_v: F4
    load_a: F4
    mean_v: F4
    own_v: F4
    sunk_v: F4
    apart_v: F4
    fall_v: F4
    end_v: F4
    way_v: F4
    change_v2s: F4
    answer_v2s: F4
    before_v: F4
    bled: U1


_ZERO, _ONE, _TWO = f4(0), f4(1), f4(2)
_NAN = f4(np.nan)
_CELL_SAG = int(Fault.CELL_SAG)
_WINDOW_S, _SLOWER, _BORNE_S = f4(60), f4(6), f4(15)
_DROPPED_V, _LITTLE_V = f4(0.018), f4(5e-3)
_BLED_V = f4(0.1)  # so much a cell may jump when bleeding begins or ends
_FAR_V, _ABSURD_V, _ABSURD_SOC = f4(0.1), f4(5), f4(10)
_ROUNDS = 4
_STEADY = f4(10)  # of a current that is rest, a change of so many times that much is no steady load any more
_FAR, _MOST_SOC = f4(3), f4(0.1)  # deviations of SoC, and at most
_END_V, _END_SOC, _STEEP_SOC = f4(1), f4(0.03), f4(0.01)
_WATCHED_V, _FORGOTTEN_S, _DOUBT_V2S = f4(0.01), f4(600), f4(5e-4)  # 5 mV for 20 s
_NOTICED_S, _ANSWERED = f4(1), f4(0.1)
_FLAT_LOW_SOC, _FLAT_HIGH_SOC, _FLAT_FAR = f4(0.2), f4(0.9), f4(1.5)


@kernel
def sudden_init(state: SuddenState) -> None:
    """Fresh memory; all of `state` is written."""
    state.number[:] = _ZERO
    state.off_v[:] = _NAN
    state.drop_v[:] = _ZERO
    state.load_a[:] = _ZERO
    state.mean_v[:] = _ZERO
    state.own_v[:] = _NAN
    state.sunk_v[:] = _ZERO
    state.apart_v[:] = _NAN
    state.fall_v[:] = _ZERO
    state.end_v[:] = _ZERO
    state.way_v[:] = _ZERO
    state.change_v2s[:] = _ZERO
    state.answer_v2s[:] = _ZERO
    state.before_v[:] = _ZERO
    state.bled[:] = np.uint8(0)


@kernel
def _mean_off(state: SuddenState, signal: SignalState, model_v: F4) -> f4:
    """Where the usable cells' measured less expected voltages are: their mean, none counting as beyond `_FAR_V`.

    So a cell that is far off moves it by little, and by no jump as it comes nearer or goes (Huber 1964).
    """
    centre_v, count = _ZERO, 0
    for k in range(state.off_v.shape[0]):
        off_v = signal.cell_v[k] - model_v[k]
        if signal.cell_use[k] & USABLE != 0 and abs(off_v) < _ABSURD_V:
            centre_v += off_v
            count += 1
    if count == 0:
        return _NAN
    centre_v /= f4(count)
    for _ in range(_ROUNDS):
        total_v = _ZERO
        for k in range(state.off_v.shape[0]):
            off_v = signal.cell_v[k] - model_v[k]
            if signal.cell_use[k] & USABLE != 0 and abs(off_v) < _ABSURD_V:
                total_v += min(max(off_v - centre_v, -_FAR_V), _FAR_V)
        centre_v += total_v / f4(count)
    return centre_v


@kernel
def _turned(state: SuddenState, signal: SignalState) -> bool:
    """Whether bleeding has begun or ended at any cell since it was last measured; takes down how it is now."""
    turned = False
    for k in range(state.bled.shape[0]):
        if signal.cell_use[k] & USABLE != 0:
            bled = np.uint8(signal.cell_use[k] & CALM == 0)
            turned |= bled != state.bled[k]
            state.bled[k] = bled
    return turned


@kernel
def _followed(usual_v: f4, drop_v: f4, now_v: f4, turned: bool, gain: f4) -> tuple[f4, f4]:
    """(average of a minute, how far `now_v` is below it), from those of the step before; NaN: there was none."""
    if np.isnan(usual_v):
        usual_v = now_v
    if turned:
        usual_v += min(max(now_v - usual_v + drop_v, -_BLED_V), _BLED_V)
    drop_v = usual_v - now_v
    return usual_v - drop_v * gain, drop_v


@kernel
def _pace(usual_v: f4, now_v: f4, gain: f4) -> f4:
    """Which part of a difference from its average a cell follows in this step: less, where it has moved."""
    return gain / _SLOWER if abs(usual_v - now_v) > _DROPPED_V else gain


@kernel
def _follow(
    state: SuddenState,
    signal: SignalState,
    model_v: F4,
    mean_v: f4,
    cell_mean_v: f4,
    current_a: f4,
    turned: bool,
    gone: f4,
    low_end_v: f4,
    dt_s: f4,
) -> None:
    """Take each cell's drop against its model, with and without the others, and against them; averages follow.

    `gone`: SoC that has been discharged in this step, negative where it has been charged. Below `low_end_v` a cell may
    be empty.
    """
    most_v = abs(gone) * _END_V / _STEEP_SOC
    spent_v = most_v if gone > _ZERO else _ZERO
    gain = dt_s / (_WINDOW_S + dt_s)
    for k in range(state.off_v.shape[0]):
        own_v = signal.cell_v[k] - model_v[k]
        off_v, apart_v = own_v - mean_v, signal.cell_v[k] - cell_mean_v
        if signal.cell_use[k] & USABLE == 0 or not abs(off_v) < _ABSURD_V:
            continue
        if np.isnan(state.off_v[k]):
            state.load_a[k], state.mean_v[k] = current_a, cell_mean_v
        elif turned:
            # all that changes in this step is taken for what bleeding does
            state.load_a[k] += current_a - state.number[LAST_A]
            state.mean_v[k] += cell_mean_v - state.number[LAST_MEAN_V]
        pace, before_v = _pace(state.off_v[k], off_v, gain), state.drop_v[k]
        state.off_v[k], state.drop_v[k] = _followed(state.off_v[k], state.drop_v[k], off_v, turned, pace)
        # a load that the cell has borne like the others explains nothing that comes later
        borne = abs(state.drop_v[k]) < _LITTLE_V and abs(state.fall_v[k]) < _LITTLE_V
        load_pace = dt_s / (_BORNE_S + dt_s) if borne else pace
        state.load_a[k] += load_pace * (current_a - state.load_a[k])
        state.mean_v[k] += load_pace * (cell_mean_v - state.mean_v[k])
        low = state.drop_v[k] > _DROPPED_V
        at_end = low or signal.cell_v[k] < low_end_v
        # charge that flows after a fall has not made it
        more_v = min(max(state.drop_v[k] - before_v, _ZERO), most_v)
        state.end_v[k] = min(state.end_v[k] + min(more_v, spent_v), _END_V) if at_end else spent_v
        moved_v = min(max(state.drop_v[k] - (_ONE - pace) * before_v, -most_v), most_v)
        state.way_v[k] = max((_ONE - pace) * state.way_v[k] + moved_v, _ZERO)
        own_pace = _pace(state.own_v[k], own_v, gain) if low else gain
        state.own_v[k], state.sunk_v[k] = _followed(state.own_v[k], state.sunk_v[k], own_v, turned, own_pace)
        pace = _pace(state.apart_v[k], apart_v, gain)
        state.apart_v[k], state.fall_v[k] = _followed(state.apart_v[k], state.fall_v[k], apart_v, turned, pace)
    state.number[LAST_A], state.number[LAST_MEAN_V] = current_a, cell_mean_v


@kernel
def _explained(state: SuddenState, nodes: F4, row: int, soc: F4, soc_std: F4, k: int, load_v: f4, is_empty: bool) -> f4:
    """What load and curve explain of the drop of cell `k`, V."""
    went, way_v, empty_end_v = state.number[WENT_SOC], state.way_v[k], state.end_v[k] if is_empty else _ZERO
    off = min(_FAR * soc_std[k], _MOST_SOC)
    curve_v = max(bent(nodes, row, soc[k], off, went), bent(nodes, row, soc[k], -off, went))
    total_v: f4 = load_v + min(curve_v, way_v) + empty_end_v
    if (went < _ZERO and soc[k] < off) or (went > _ZERO and soc[k] + off > _ONE):
        curve_v += _END_V * min(state.number[MOVED_SOC] / _END_SOC, _ONE)
        total_v = max(total_v, load_v + min(curve_v, way_v))
    return total_v


@kernel
def _beside(state: SuddenState, k: int) -> f4:
    """What a broken sense wire explains of the drop of cell `k`, whose neighbour has risen, V."""
    risen_v = _ZERO
    if k > 0:
        risen_v = max(risen_v, -state.drop_v[k - 1])
    if k + 1 < state.drop_v.shape[0]:
        risen_v = max(risen_v, -state.drop_v[k + 1])
    beside_v: f4 = explained_by(risen_v)
    return beside_v


@kernel
def _on_flat(soc: f4, soc_std: f4) -> bool:
    """Whether a cell is known to be where the curve is flat."""
    far = _FLAT_FAR * soc_std
    return bool(soc - far > _FLAT_LOW_SOC and soc + far < _FLAT_HIGH_SOC)


@kernel
def _change_v(state: SuddenState, k: int, mean_v: f4, more_v: f4) -> f4:
    """What a change of load does to the mean cell, V: of its current (`more_v`), or as the mean voltage shows it."""
    return max(abs(more_v), abs(mean_v - state.mean_v[k]))


@kernel
def _share(state: SuddenState, k: int, more: bool, most: f4) -> f4:
    """By which share of a change of load cell `k` may sink below the mean one, at most `most`.

    What it did at earlier changes and 10 %; 5 mV are doubtful in each. `more`: it is discharged more, or charged less.
    """
    watched = state.change_v2s[k]
    if not watched > _ZERO:
        return most
    answer_v2s = state.answer_v2s[k] if more else -state.answer_v2s[k]
    share: f4 = min((max(answer_v2s, _ZERO) + _DOUBT_V2S) / watched + _ANSWERED, most)
    return share


@kernel
def _watch(
    state: SuddenState,
    signal: SignalState,
    soc: F4,
    soc_std: F4,
    flat: bool,
    mean_v: f4,
    current_a: f4,
    ohm: f4,
    most: f4,
    dt_s: f4,
) -> None:
    """Take down how each cell answers a change of the load, as long as it does so like one that is sound.

    `flat`: all are where the curve is flat; else those that are known to be (`_on_flat`).
    """
    keep = _FORGOTTEN_S / (_FORGOTTEN_S + dt_s)
    for k in range(state.drop_v.shape[0]):
        more_v = ohm * (current_a - state.load_a[k])
        calm = signal.cell_use[k] & (USABLE | CALM) == USABLE | CALM
        if abs(more_v) > _WATCHED_V and calm and (flat or _on_flat(soc[k], soc_std[k])):
            change_v = _change_v(state, k, mean_v, more_v)
            answer_v = state.drop_v[k] if more_v > _ZERO else -state.drop_v[k]
            if abs(answer_v) < _share(state, k, answer_v > _ZERO, most) * change_v:
                state.change_v2s[k] = keep * state.change_v2s[k] + dt_s * change_v * change_v
                state.answer_v2s[k] = keep * state.answer_v2s[k] + dt_s * change_v * answer_v


@kernel
def sudden_step(
    config: SignalConfig,
    signal: SignalState,
    state: SuddenState,
    estimator: EstimatorConfig,
    seen: Seen,
    model_v: F4,
    soc: F4,
    soc_std: F4,
    resistance: F4,
    resistance_std: F4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """One step, after `plausibility_model.judge`: raises the value of CELL_SAG to the largest drop, where that is more.

    `model_v`, `soc`, `soc_std` f4[n_cells] from the estimator, `resistance`, `resistance_std` f4[n_cells], relative;
    `dt_s` since the last step.
    """
    dt_s = elapsed(dt_s)
    c, number = config.number, state.number
    current_a = signal.number[HELD_A]
    keep = _WINDOW_S / (_WINDOW_S + dt_s)
    gone = -current_a * c[PER_CELL] * estimator.scalars[0].rate * dt_s
    number[WENT_SOC] = (number[WENT_SOC] + gone) * keep
    number[MOVED_SOC] = (number[MOVED_SOC] + abs(gone)) * keep
    mean_v = _mean_off(state, signal, model_v)
    if np.isnan(mean_v):
        return
    ohm = c[FAST_OHM] * mean_factor(resistance) * warmth(config, seen.degc_mean)
    more_share = load_share(resistance, resistance_std)
    row = row_of(estimator, seen.degc_mean)
    now_v = ohm * current_a * c[PER_CELL]
    # of the last minutes: at rest the offset of a current sensor soon charges what was discharged in this one
    low_end_v = empty_v(config, signal, estimator.nodes, row, seen.cell_v_mean, signal.number[LONG_WENT_SOC], now_v)
    turned = _turned(state, signal)
    _follow(state, signal, model_v, mean_v, seen.cell_v_mean, current_a, turned, -gone, low_end_v, dt_s)
    flat = c[SPREAD_V_LOW] < seen.cell_v_mean + now_v < c[SPREAD_V_HIGH]
    _watch(state, signal, soc, soc_std, flat, seen.cell_v_mean, current_a, ohm * c[PER_CELL], more_share, dt_s)
    first_v, second_v, third_v, at, of_all_v = _ZERO, _ZERO, _ZERO, 0, _ZERO
    noticed = dt_s / (_NOTICED_S + dt_s)
    for k in range(state.drop_v.shape[0]):
        state.before_v[k] = min(state.before_v[k], max(state.drop_v[k], _ZERO))
        drop_v = min(min(state.drop_v[k], state.fall_v[k]), state.sunk_v[k] + _LITTLE_V)
        if drop_v > _LITTLE_V and drop_v > third_v and abs(soc[k]) < _ABSURD_SOC and abs(soc_std[k]) < _ABSURD_SOC:
            # as the cells are discharged more, one with more resistance sinks; with less, as they are discharged less
            more_a = current_a - state.load_a[k]
            share = more_share if more_a > _ZERO else LOAD_SHARE
            by_load_v = _change_v(state, k, seen.cell_v_mean, ohm * more_a * c[PER_CELL])
            load_v = share * by_load_v
            not_low = seen.cell_v_mean + now_v > c[SPREAD_V_LOW] or _on_flat(soc[k], soc_std[k])
            if not_low:
                if more_a > _ZERO:
                    load_v = _share(state, k, True, share) * by_load_v
                load_v = min(load_v, state.drop_v[k] - state.before_v[k])
            is_empty = bool(signal.cell_v[k] < low_end_v)
            if not not_low:
                # resistances rise there, and what the model lacks of all of them differs as they do
                load_v += more_share * max(state.sunk_v[k] - state.drop_v[k], _ZERO)
            explained_v = _explained(state, estimator.nodes, row, soc, soc_std, k, load_v, is_empty)
            # one that read too high and is right again has fallen, but is no lower than the others; one that was full,
            # and falls by itself, is no lower than its resistance makes it
            lower_v = seen.cell_v_mean - signal.cell_v[k] + _LITTLE_V + _LITTLE_V
            was_v = state.mean_v[k] + state.apart_v[k] + ohm * state.load_a[k] * c[PER_CELL]
            if was_v > c[SPREAD_V_HIGH] + FULL_V and soc[k] > FULL_SOC:
                lower_v -= LOAD_SHARE * abs(now_v)
            drop_v = min(drop_v - explained_v - _beside(state, k), lower_v)
            if not_low:
                # no load that comes later has made what nothing explains now
                state.before_v[k] += noticed * max(drop_v - state.before_v[k], _ZERO)
            if drop_v > first_v:
                at, of_all_v = k, explained_v + _LITTLE_V
            first_v, second_v, third_v = ranked(first_v, second_v, third_v, drop_v)
    flows = min(max(number[MOVED_SOC] / _END_SOC, abs(current_a) / c[REST_A]), _ONE)
    worst_v = first_v - _TWO * flows * min(third_v, of_all_v) - signal.cell_looks[LEAST_CHANGE]
    if flat or _on_flat(soc[at], soc_std[at]):
        # a steady load is as good as rest
        flows = min(abs(current_a - state.load_a[at]) / (_STEADY * c[REST_A]), flows)
    worst_v = of_one_cell(config, worst_v, seen.degc_mean, flows)
    if worst_v > _ZERO and not worst_v <= value[_CELL_SAG]:
        put(value, where, _CELL_SAG, worst_v, at)
