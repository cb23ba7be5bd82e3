"""A reading that stands still while noise moves those of all others: nothing is measured there.

What a frozen value hides shows in the mean of all once the rack has moved (`plausibility.frozen`); a rack at rest, or
on the flat of its curve, does not move for hours. But a converter has noise, as a rule of more than half its step: then
some half of all readings at most, a share `q`, is the same as in the sample before, whatever is measured, and `n`
samples without a change have a chance of `q ** n`. Channels are not alike, so each change counts as if only
`(1 - q) ** 3` of all samples had one: a channel with half of the others' noise is not suspected. Once chance is ruled
out, what may have gone unseen grows.

Noise goes up and down, two changes of three go back (those of independent numbers do); what a cell does goes one way
for minutes, and stands still in a coarse converter as soon as it slows down. So no more changes count than one and
three quarters times those that went back. Where all move together under a steady load by a step of the converter and
more, what is left of a change without that movement tells which way it went: without noise that is less than a step.

A load that changes moves the readings of a converter without noise as well, which stand still as soon as it is steady.
So `q` is known for samples with a steady load and for others, each by itself, and the logarithms of chance are added
up. What stands still beyond a third of that teaches no more: a board that dies, or all channels, change `q` little.

Racks with less noise than that, or whose boards are read in turns, have readings that stand still in good health: there
`q` is larger, and nothing is told.
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, kernel
from bms.core.mathf import logf
from bms.core.signals_layout import (
    BACK_SHARE,
    CALM,
    HELD_A,
    LEAST_CHANGE,
    LEAST_SEEN,
    LOOK_S,
    LOOKED_A,
    LOOKED_S,
    LOOKS,
    N_LOOK_NUMBERS,
    REST_A,
    SAME_SHARE,
    USABLE,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, U1

_ZERO, _ONE = f4(0), f4(1)
_PER_RETURN = f4(1.75)
_FIRST = f4(2 / 3)  # what a reading's first change counts of one that went back
_LEAST = f4(1e-6)
_LEAST_LOOKS, _MOST_LOOKS = f4(30), f4(3600)  # of the averages
_LEAST_MOVED = f4(0.4)
_SURE = f4(35)  # -ln of the chance that is ruled out: one in 1e15
_SUSPECT = f4(35 / 3)  # from then on a reading is none of those that teach what is usual
_LONGEST_LOOK_S = f4(10)
_MANY = 8
# what may go unseen behind a reading without noise: a hard short; a cell at full power without its cooling, 0.6 K/min
_UNSEEN_V_PER_S, _MOST_UNSEEN_V = f4(5e-3), f4(1)
_UNSEEN_K_PER_S, _MOST_UNSEEN_K = f4(0.01), f4(10)
_MOST_STEP_V, _MOST_STEP_K = f4(5.5e-3), f4(1.1)


@kernel
def _moved_by_noise(looks: F4, kind: int) -> f4:
    """The share of the readings that noise changes from one sample to the next."""
    share: f4 = min(_ONE - looks[kind + SAME_SHARE], _PER_RETURN * looks[kind + BACK_SHARE])
    return share


@kernel
def _doubt_per_s(looks: F4, kind: int, alive: f4) -> f4:
    """-ln of the chance that a live reading stands still for a second; 0 while too little is known."""
    if looks[kind + LOOKS] < _LEAST_LOOKS:
        return _ZERO
    doubt: f4 = -logf(max(_ONE - alive * alive * alive, _LEAST)) / max(looks[kind + LOOK_S], _LEAST)
    return doubt


@kernel
def _together(looks: F4, last: F4, now: F4, still_s: F4, use: U1, mask: int, most_step: f4) -> f4:
    """By how much all that are measured in peace moved since the sample before; learns the smallest change of any.

    What is larger than `most_step` is no step of a converter.
    """
    total, count = _ZERO, _ZERO
    for k in range(still_s.shape[0]):
        if use[k] & USABLE == 0 or use[k] & mask == 0:
            continue
        count += _ONE
        by = now[k] - last[k]
        if still_s[k] == _ZERO and abs(by) > _ZERO:
            total += by
            if abs(by) <= most_step and (abs(by) < looks[LEAST_SEEN] or looks[LEAST_SEEN] == _ZERO):
                looks[LEAST_SEEN] = abs(by)
    return total / max(count, _ONE)


@kernel
def _changes(
    looks: F4, last: F4, change: F4, now: F4, still_s: F4, use: U1, mask: int, steady: bool, most_step: f4
) -> tuple[int, f4]:
    """(how many readings have changed, how many of them went back); takes down the changes.

    What is measured while it is disturbed, without `mask`, changes for other reasons than noise.
    """
    all_by = _together(looks, last, now, still_s, use, mask, most_step)
    step = looks[LEAST_SEEN] if looks[LEAST_SEEN] > _ZERO else most_step
    moving = steady and abs(all_by) >= step
    changed, back = 0, _ZERO
    for k in range(still_s.shape[0]):
        if use[k] & USABLE != 0 and use[k] & mask == 0:
            change[k] = _ZERO
        if use[k] & USABLE != 0 and still_s[k] == _ZERO:
            by = now[k] - last[k]
            last[k] = now[k]
            if use[k] & mask == 0:
                continue
            changed += 1
            if moving:
                by = by - all_by if abs(by - all_by) >= step else _ZERO
            if abs(by) > _ZERO:
                back += _FIRST if np.isnan(change[k]) else f4(by * change[k] < _ZERO)
                change[k] = by
    return changed, back


@kernel
def lifeless(
    looks: F4,
    doubt: F4,
    last: F4,
    change: F4,
    now: F4,
    still_s: F4,
    use: U1,
    mask: int,
    steady: bool,
    per_s: f4,
    most: f4,
    most_step: f4,
    dt_s: f4,
) -> tuple[f4, int]:
    """(what may have gone unseen behind the reading that stands still beyond chance; its place, or -1).

    `now` f4[n] are the readings, `still_s` f4[n] the time since each one's last change, `use` u1[n], with
    `mask` where it is measured in peace; `looks` f4[`N_LOOKS`], `doubt`, `last`, `change` f4[n] are the memory of these
    channels. `steady`: the load is that of the sample before. What is unseen grows by `per_s` up to
    `most`. `most_step` is the coarsest that a converter may be.
    """
    kind = 0 if steady else N_LOOK_NUMBERS
    alive = 0
    for k in range(still_s.shape[0]):
        alive += int(use[k] & mask != 0 and doubt[k] <= _SUSPECT)
    changed, back = _changes(looks, last, change, now, still_s, use, mask, steady, most_step)
    if looks[LOOKS] + looks[N_LOOK_NUMBERS + LOOKS] >= _LEAST_LOOKS:
        looks[LEAST_CHANGE] = looks[LEAST_SEEN]
    looks[LOOKED_S] = min(looks[LOOKED_S] + dt_s, _LONGEST_LOOK_S)
    if changed > 0 and dt_s > _ZERO:
        if alive > 1:
            n = min(looks[kind + LOOKS] + _ONE, _MOST_LOOKS)
            looks[kind + LOOKS] = n
            looks[kind + LOOK_S] += (looks[LOOKED_S] - looks[kind + LOOK_S]) / n
            count = f4(max(alive, changed))
            looks[kind + SAME_SHARE] += (_ONE - f4(changed) / count - looks[kind + SAME_SHARE]) / n
            looks[kind + BACK_SHARE] += (back / count - looks[kind + BACK_SHARE]) / n
        looks[LOOKED_S] = _ZERO
    moved = _moved_by_noise(looks, kind)
    more = _doubt_per_s(looks, kind, moved) * dt_s
    told = moved >= _LEAST_MOVED
    bound = _SURE if told else _SUSPECT + _ONE
    longest, at = _SURE, -1
    for k in range(still_s.shape[0]):
        if still_s[k] == _ZERO or use[k] & USABLE == 0:
            doubt[k] = _ZERO
        elif doubt[k] < bound:
            doubt[k] = min(doubt[k] + more, bound)
        elif told and more > _ZERO:
            doubt[k] += dt_s  # beyond what chance may do it counts seconds
        if doubt[k] > longest:
            longest = doubt[k]
            at = k
    return min((longest - _SURE) * per_s, most), at


@kernel
def _is_steady(config: SignalConfig, state: SignalState) -> bool:
    """Whether the load is that of the step before, within what counts as none."""
    changed_a = abs(state.number[HELD_A] - state.number[LOOKED_A])
    state.number[LOOKED_A] = state.number[HELD_A]
    steady: bool = changed_a < config.number[REST_A]
    return steady


@kernel
def lifeless_cell(config: SignalConfig, state: SignalState, dt_s: f4) -> tuple[f4, int]:
    """`lifeless` of the cell voltages, V."""
    steady = _is_steady(config, state)
    unseen_v, at = lifeless(
        state.cell_looks,
        state.cell_doubt,
        state.cell_last_v,
        state.cell_change_v,
        state.cell_read_v,
        state.cell_still_s,
        state.cell_use,
        CALM,
        steady,
        _UNSEEN_V_PER_S,
        _MOST_UNSEEN_V,
        _MOST_STEP_V,
        dt_s,
    )
    return unseen_v, at


@kernel
def lifeless_sensor(state: SignalState, dt_s: f4) -> tuple[f4, int]:
    """`lifeless` of the temperatures, K: sensors follow a load too slowly for it to matter.

    Not of a few: of those with coarse steps some are always near an edge and change, while others never do. Among many
    that is a small share.
    """
    unseen_k, at = lifeless(
        state.degc_looks,
        state.degc_doubt,
        state.degc_last,
        state.degc_change,
        state.degc,
        state.degc_still_s,
        state.sensor_use,
        USABLE,
        True,
        _UNSEEN_K_PER_S,
        _MOST_UNSEEN_K,
        _MOST_STEP_K,
        dt_s,
    )
    if state.degc_still_s.shape[0] < _MANY:
        return _ZERO, -1
    return unseen_k, at
