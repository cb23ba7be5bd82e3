"""A reading that stands still while noise moves those of all others: nothing is measured there.

What a frozen value hides shows in the mean of all once the rack has moved (`plausibility.frozen`); a rack at rest, or
on the flat of its curve, does not move for hours. But a converter has noise, as a rule of more than half its step: then
some half of all readings at most, a share `q`, is the same as in the sample before, whatever is measured, and `n`
samples without a change have a chance of `q ** n`. Channels are not alike, so each change counts as if only
`(1 - q) ** 3` of all samples had one: a channel with half of the others' noise is not suspected. Once chance is ruled
out, what may have gone unseen grows.

A load that changes moves the readings of a converter without noise as well, which stand still as soon as it is steady.
So `q` is known for samples with a steady load and for others, each by itself, and the logarithms of chance are added
up. What stands still beyond a third of that teaches no more: a board that dies, or all channels, change `q` little.

Racks with less noise than that, or whose boards are read in turns, have readings that stand still in good health: there
`q` is larger, and nothing is told.
"""

from __future__ import annotations

from bms.core.jit import f4, kernel
from bms.core.mathf import logf
from bms.core.signals_layout import (
    HELD_A,
    LOOK_S,
    LOOKED_A,
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
_LEAST = f4(1e-6)
_LEAST_LOOKS, _MOST_LOOKS = f4(30), f4(3600)  # of the averages
_MOST_SAME = f4(0.6)
_SURE = f4(35)  # -ln of the chance that is ruled out: one in 1e15
_SUSPECT = f4(35 / 3)  # from then on a reading is none of those that teach what is usual
_LONGEST_LOOK_S = f4(10)
_MANY = 8
# what may go unseen behind a reading without noise: a hard short; a cell at full power without its cooling, 0.6 K/min
_UNSEEN_V_PER_S, _MOST_UNSEEN_V = f4(5e-3), f4(1)
_UNSEEN_K_PER_S, _MOST_UNSEEN_K = f4(0.01), f4(10)


@kernel
def _doubt_per_s(looks: F4, kind: int) -> f4:
    """-ln of the chance that a live reading stands still for a second; 0 while too little is known."""
    if looks[kind + LOOKS] < _LEAST_LOOKS:
        return _ZERO
    alive = _ONE - looks[kind + SAME_SHARE]
    doubt: f4 = -logf(max(_ONE - alive * alive * alive, _LEAST)) / max(looks[kind + LOOK_S], _LEAST)
    return doubt


@kernel
def lifeless(looks: F4, doubt: F4, still_s: F4, use: U1, steady: bool, per_s: f4, most: f4, dt_s: f4) -> tuple[f4, int]:
    """(what may have gone unseen behind the reading that stands still beyond chance; its place, or -1).

    `still_s` f4[n] since each one's last change, `use` u1[n]; `looks` f4[`2 * N_LOOK_NUMBERS + 1`], `doubt` f4[n] are
    the memory of these channels. `steady`: the load is that of the sample before. What is unseen grows by `per_s` up to
    `most`.
    """
    kind = 0 if steady else N_LOOK_NUMBERS
    alive, changed = 0, 0
    for k in range(still_s.shape[0]):
        if use[k] & USABLE != 0:
            alive += int(doubt[k] <= _SUSPECT)
            changed += int(still_s[k] == _ZERO)
    since = 2 * N_LOOK_NUMBERS
    looks[since] = min(looks[since] + dt_s, _LONGEST_LOOK_S)
    if changed > 0 and dt_s > _ZERO:
        if alive > 1:
            n = min(looks[kind + LOOKS] + _ONE, _MOST_LOOKS)
            looks[kind + LOOKS] = n
            looks[kind + LOOK_S] += (looks[since] - looks[kind + LOOK_S]) / n
            looks[kind + SAME_SHARE] += (_ONE - f4(changed) / f4(max(alive, changed)) - looks[kind + SAME_SHARE]) / n
        looks[since] = _ZERO
    more = _doubt_per_s(looks, kind) * dt_s
    told = looks[kind + SAME_SHARE] <= _MOST_SAME
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
    looks, doubt, still_s, use = state.cell_looks, state.cell_doubt, state.cell_still_s, state.cell_use
    unseen_v, at = lifeless(looks, doubt, still_s, use, steady, _UNSEEN_V_PER_S, _MOST_UNSEEN_V, dt_s)
    return unseen_v, at


@kernel
def lifeless_sensor(state: SignalState, dt_s: f4) -> tuple[f4, int]:
    """`lifeless` of the temperatures, K: sensors follow a load too slowly for it to matter.

    Not of a few: of those with coarse steps some are always near an edge and change, while others never do. Among many
    that is a small share.
    """
    if state.degc_still_s.shape[0] < _MANY:
        return _ZERO, -1
    looks, doubt, still_s, use = state.degc_looks, state.degc_doubt, state.degc_still_s, state.sensor_use
    unseen_k, at = lifeless(looks, doubt, still_s, use, True, _UNSEEN_K_PER_S, _MOST_UNSEEN_K, dt_s)
    return unseen_k, at
