"""Balancing by charge: what each cell has too much, what of it is known, and who gives it away.

The charge to full of cell k is u_k = Q_k (1 - z_k), with the capacity Q_k and the SoC z_k of the filter. What the cells
have in excess of each other is -u_k less a common level: errors of the current sensor are alike in all cells and
cancel, so only the cell's own part of the variance counts (`own_noise`). On the plateau of lithium iron phosphate that
part is large, near the ends small. Hence a memory: per cell an excess D_k and its variance V_k,

- which takes over a measurement where the voltage tells the SoC (flag `OBSERVABLE`) of this cell or of most cells, and
  where it is better than what is remembered (`_remember`). Errors of the filter last for longer than a decision takes,
  so many measurements in a row count as one: V_k never falls below theirs;
- is counted down by what is bled and moved, while the filters are told of that charge too, which no current sensor
  sees;
- becomes doubtful with time, because nobody knows what each cell loses by itself.

So cells are balanced at any time, cycling or resting, by what was learnt when it could be learnt. A cell is bled if its
excess over the lowest cell is larger than `start` and than its doubt, until it is down to `stop`. A board bears
`board_w` of heat: the largest excess goes first. All bleeding pauses for `off_s` after each `on_s`, so that every cell
is measured at rest.

An active balancer moves charge between neighbours of a module. In a chain the charge that has to pass from cell k to
k + 1 is F_k, the sum of the excesses over the module's mean of all cells up to k: with losses at each step it is the
least that moves. Each link goes by the sign of its F_k where that is beyond `start` and beyond its doubt. What modules
have in excess of each other is bled.

Charge that leaves a cell is positive. All numbers are float32; arrays belong to the caller.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.estimator_layout import BLOCK_ROWS, OBSERVABLE, S_FIRST, SOC, Z_LOW, EstimatorState, Z, p_row
from bms.core.jit import f4, kernel
from bms.core.seen import Seen
from hal.contract import F4, LANES, U1, U4, Field, Shuttle

# BalancingConfig.setting
CAPACITY_AH, BLEED_OHM, START_AH, STOP_AH, K_SIGMA, BOARD_W = 0, 1, 2, 3, 4, 5
ON_S, OFF_S, DECIDE_S, DEGC_STOP, V_STOP, V_MAX = 6, 7, 8, 9, 10, 11
SHUTTLE_A, SHUTTLE_EFFICIENCY, DRIFT_AH_PER_S, LEARN_S, OWN, COMMON, CAPACITY_VAR = 12, 13, 14, 15, 16, 17, 18
N_SETTINGS = 19

# BalancingConfig.size
BOARD_CELLS, MODULE_CELLS, BLEED, SHUTTLE = 0, 1, 2, 3
N_SIZES = 4

# BalancingState.number
PHASE_S, SINCE_S, SPREAD_AH, SURE_AH, ENERGY_WH, ENERGY_LOW_WH, MOVED_AH = 0, 1, 2, 3, 4, 5, 6
N_NUMBERS = 7

# BalancingState.word
PAUSE, DRAINING, ROTATION, FLOWING, HOT, LOW, N_BLEEDING, N_MOVING, SLOT = 0, 1, 2, 3, 4, 5, 6, 7, 8
N_WORDS = 9

CONFIG_FIELDS: tuple[Field, ...] = (
    Field("balancing_setting", "f4", "settings of the balancing", f"{N_SETTINGS}"),
    Field("balancing_size", "u4", "cells of a board and of a module; 1 = the rack bleeds, moves charge", f"{N_SIZES}"),
)

STATE_FIELDS: tuple[Field, ...] = (
    Field("balancing_number", "f4", "numbers of the balancing", f"{N_NUMBERS}"),
    Field("balancing_excess_ah", "f4", "charge that each cell has more than the middle cell", "cells"),
    Field("balancing_var", "f4", "variance of `balancing_excess_ah`, Ah^2", "cells"),
    Field("balancing_bled_ah", "f4", "charge taken from each cell since the start, by bleeding and moving", "cells"),
    Field("balancing_bled_low", "f4", "what rounding leaves of `balancing_bled_ah`", "cells"),
    Field("balancing_pending_as", "f4", "charge taken since the last decision, As", "cells"),
    Field("balancing_work", "f4", "scratch of the balancing", "cells"),
    Field("balancing_noise", "f4", "scratch: variances, Ah^2", "cells"),
    Field("balancing_word", "u4", "words of the balancing", f"{N_WORDS}"),
    Field("balancing_chosen", "u1", "1 = to be bled", "cells"),
    Field("balancing_move", "u1", "`Shuttle` that was decided", "cells"),
    Field("balancing_asked", "u1", "1 = asked to bleed in the last step", "cells"),
    Field("balancing_asked_move", "u1", "`Shuttle` asked in the last step", "cells"),
)

_NONE, _TO_NEXT, _FROM_NEXT = (np.uint8(int(s)) for s in Shuttle)
_WAITS = np.uint8(4)  # a link that wants to move charge, but not now
_ZERO, _ONE = f4(0.0), f4(1.0)
_INFINITE = f4(np.inf)
_HUGE = f4(1e30)
_HOUR = f4(3600.0)
_CELL_V_MAX = f4(10.0)  # beyond, it is no voltage of a cell
_REL_MIN, _REL_MAX = f4(0.3), f4(1.5)
_UNKNOWN = f4(0.09)  # variance of a SoC of which nothing is known: 0.3^2
_WARM_K = f4(3.0)  # cooler than the stop by this much, or above the lowest voltage by that, to go on
_RISEN_V = f4(0.05)
_HALVINGS = 24
_VAR_Z = p_row(Z, Z)
_S_Z = S_FIRST + Z


class BalancingConfig(NamedTuple):
    """Constants: `setting` f4[19], `size` u4[4]."""

    setting: F4
    size: U4


class BalancingState(NamedTuple):
    """Memory of the balancing: see `STATE_FIELDS`."""

    number: F4
    excess_ah: F4
    var: F4
    bled_ah: F4
    bled_low: F4
    pending_as: F4
    work: F4
    noise: F4
    word: U4
    chosen: U1
    move: U1
    asked: U1
    asked_move: U1


def balancing_state(n_cells: int) -> BalancingState:
    """Arrays of zeros; `balancing_init` makes a memory of them."""
    kind = {"f4": np.float32, "u4": np.uint32, "u1": np.uint8}
    return BalancingState(
        *(np.zeros(n_cells if f.dims == "cells" else int(f.dims), kind[f.kind]) for f in STATE_FIELDS)
    )


@kernel
def balancing_init(config: BalancingConfig, state: BalancingState) -> None:
    """Fresh memory: nothing is known of any cell, nobody is bled."""
    unknown = config.setting[CAPACITY_AH] * config.setting[CAPACITY_AH] * _UNKNOWN
    state.number[:] = _ZERO
    state.excess_ah[:] = _ZERO
    state.var[:] = unknown
    state.bled_ah[:] = _ZERO
    state.bled_low[:] = _ZERO
    state.pending_as[:] = _ZERO
    state.work[:] = _ZERO
    state.noise[:] = unknown
    state.word[:] = np.uint32(0)
    state.chosen[:] = np.uint8(0)
    state.move[:] = np.uint8(0)
    state.asked[:] = np.uint8(0)
    state.asked_move[:] = np.uint8(0)


@kernel
def middle(values: F4) -> f4:
    """The median of the finite numbers in `values`, by halving their range; 0 where there is none.

    Right to 2^-24 of the range. Unlike sorting it needs no room and takes the same time whatever the numbers are.
    """
    low, high, count, beneath = _HUGE, -_HUGE, 0, 0
    for k in range(values.shape[0]):
        v = values[k]
        fine = abs(v) < _HUGE
        low = v if fine & (v < low) else low
        high = v if fine & (v > high) else high
        count += 1 if fine else 0
        beneath += 1 if v <= -_HUGE else 0
    if count == 0:
        return _ZERO
    half = (count + 1) // 2 + beneath
    for _ in range(_HALVINGS):
        centre = f4(0.5) * low + f4(0.5) * high
        below = 0
        for k in range(values.shape[0]):
            below += 1 if values[k] <= centre else 0
        if below >= half:
            high = centre
        else:
            low = centre
    return high


@kernel
def share_of(capacity_rel: f4) -> f4:
    """The relative capacity of a cell as it is used: one that no cell can have counts as 1."""
    fine = (capacity_rel > _REL_MIN) & (capacity_rel < _REL_MAX)
    return capacity_rel if fine else _ONE


@kernel
def cell_volt(v: f4) -> f4:
    """The voltage of a cell as it is used to count charge: one that no cell can have counts as 0."""
    return v if (v > _ZERO) & (v < _CELL_V_MAX) else _ZERO


@kernel
def own_noise(
    estimator: EstimatorState, capacity_rel: F4, capacity_ah: f4, own: f4, common: f4, capacity_var: f4, noise: F4
) -> None:
    """Variance of -u_k less the common level, Ah^2, for each cell; infinity where the filter knows nothing.

    The joint covariance of the filters is P_k for each cell, and s_k s_l m between two cells, with the sensitivities s
    to the bias and its variance m. The difference of cell k from the mean cell has therefore P_k + (s_k - mean s)^2 m.
    Errors of the voltage model are largely alike, so only the share `own` of P_k counts; and the share `common` of the
    mean P, because they differ where some cells have passed a step of the curve and others not. The capacity is known
    with the relative variance `capacity_var`: at SoC z this adds (1 - z)^2 of it, so that what is learnt near full
    counts more.
    """
    blocks = estimator.blocks
    bias_var = estimator.shared[0].bias_var
    first_soc = SOC * estimator.flags.shape[0]
    p_sum, s_sum, count = _ZERO, _ZERO, 0
    for k in range(noise.shape[0]):
        at = k // LANES * (BLOCK_ROWS * LANES) + k % LANES
        p, s = blocks[at + _VAR_Z * LANES], blocks[at + _S_Z * LANES]
        if p >= _ZERO and p < _ONE and abs(s) < _HUGE:
            p_sum += p
            s_sum += s
            count += 1
    n = f4(max(count, 1))
    p_mean, s_mean = p_sum / n, s_sum / n
    for k in range(noise.shape[0]):
        at = k // LANES * (BLOCK_ROWS * LANES) + k % LANES
        p, apart = blocks[at + _VAR_Z * LANES], blocks[at + _S_Z * LANES] - s_mean
        q_ah = capacity_ah * share_of(capacity_rel[k])
        left = _ONE - estimator.out[first_soc + k]
        var = q_ah * q_ah * (own * p + common * p_mean + apart * apart * bias_var + left * left * capacity_var)
        noise[k] = var if p >= _ZERO and var >= _ZERO else _INFINITE


@kernel
def _take_away(config: BalancingConfig, state: BalancingState, estimator: EstimatorState, capacity_rel: F4) -> None:
    """Count what has been bled and moved since the last decision, and tell the filters of it."""
    blocks = estimator.blocks
    for k in range(state.pending_as.shape[0]):
        ah = state.pending_as[k] / _HOUR
        if ah != _ZERO:
            state.pending_as[k] = _ZERO
            state.excess_ah[k] -= ah
            total, low = state.bled_ah[k], state.bled_low[k] + ah
            state.bled_ah[k] = total + low
            state.bled_low[k] = low - (state.bled_ah[k] - total)
            at = k // LANES * (BLOCK_ROWS * LANES) + k % LANES
            z = blocks[at + Z * LANES]
            low = blocks[at + Z_LOW * LANES] - ah / (config.setting[CAPACITY_AH] * share_of(capacity_rel[k]))
            blocks[at + Z * LANES] = z + low
            blocks[at + Z_LOW * LANES] = low - (blocks[at + Z * LANES] - z)


@kernel
def _remember(
    config: BalancingConfig, state: BalancingState, estimator: EstimatorState, capacity_rel: F4, dt_s: f4
) -> None:
    """Let the memory take over what is measured now, where it is better than what is remembered.

    The common level of the measurements is that at which the middle cell differs from its memory by nothing. Where most
    cells stand where no voltage tells, their errors shift it, and are not those of a cell that stands elsewhere.
    """
    c = config.setting
    n = state.excess_ah.shape[0]
    telling = 0
    for k in range(n):
        telling += 1 if estimator.flags[k] & OBSERVABLE != 0 else 0
    most = 2 * telling > n
    common = c[COMMON] if most else _ONE
    own_noise(estimator, capacity_rel, c[CAPACITY_AH], c[OWN], common, c[CAPACITY_VAR], state.noise)
    drift_ah = c[DRIFT_AH_PER_S] * dt_s
    unknown = c[CAPACITY_AH] * c[CAPACITY_AH] * _UNKNOWN
    difference = state.work
    for k in range(n):
        std = np.sqrt(state.var[k]) + drift_ah
        state.var[k] = min(std * std, unknown)
        u_ah = c[CAPACITY_AH] * share_of(capacity_rel[k]) * (_ONE - estimator.out[SOC * estimator.flags.shape[0] + k])
        difference[k] = -u_ah - state.excess_ah[k]
    level = middle(difference)
    slow = dt_s / (c[LEARN_S] + dt_s)
    for k in range(n):
        r, v, more = state.noise[k], state.var[k], difference[k] - level
        told = most or estimator.flags[k] & OBSERVABLE != 0
        if told and r < v and abs(more) < _HUGE:
            gain = max(slow, _ONE - r / v)
            # both may err in the same way: their deviations add
            std = (_ONE - gain) * np.sqrt(v) + gain * np.sqrt(r)
            state.excess_ah[k] += gain * more
            state.var[k] = std * std
    level = middle(state.excess_ah)
    sure = c[K_SIGMA]
    low, high, sure_low, sure_high = _HUGE, -_HUGE, _HUGE, -_HUGE
    for k in range(n):
        state.excess_ah[k] -= level
        d, doubt = state.excess_ah[k], sure * np.sqrt(state.var[k])
        low, high = min(low, d), max(high, d)
        sure_low, sure_high = min(sure_low, d + doubt), max(sure_high, d - doubt)
    state.number[SPREAD_AH] = high - low
    state.number[SURE_AH] = max(sure_high - sure_low, _ZERO)


@kernel
def _levels(config: BalancingConfig, state: BalancingState) -> None:
    """What is bled: the excess of each cell, or of its module where charge is moved inside modules, into `work`.

    Its variance goes into `noise`.
    """
    n = state.work.shape[0]
    module = max(int(config.size[MODULE_CELLS]), 1) if config.size[SHUTTLE] != 0 else 1
    for first in range(0, n, module):
        last = min(first + module, n)
        total, var = _ZERO, _ZERO
        for k in range(first, last):
            total += state.excess_ah[k]
            var += state.var[k]
        size = f4(last - first)
        for k in range(first, last):
            state.work[k] = total / size
            state.noise[k] = var / (size * size)


@kernel
def _choose(config: BalancingConfig, state: BalancingState, cell_v: F4) -> None:
    """Who is to be bled until the next decision: those who have surely too much, the largest first, within the budget.

    Mark 1 is chosen, 2 wants but is not in the budget.
    """
    c = config.setting
    n = state.work.shape[0]
    _levels(config, state)
    target = _HUGE
    for k in range(n):
        target = min(target, state.work[k] + c[K_SIGMA] * np.sqrt(state.noise[k]))
    board = max(int(config.size[BOARD_CELLS]), 1)
    for first in range(0, n, board):
        last = min(first + board, n)
        for k in range(first, last):
            more = state.work[k] - target
            # who was chosen goes on down to `stop`: the doubt was overcome once, and what is bled is counted
            goes_on = state.chosen[k] != 0 and more > c[STOP_AH] and state.excess_ah[k] > -_HUGE
            starts = more - c[K_SIGMA] * np.sqrt(state.noise[k]) > c[START_AH]
            state.chosen[k] = np.uint8(2 if goes_on or starts else 0)
        left_w = c[BOARD_W]
        for _ in range(last - first):
            best, best_ah = -1, -_HUGE
            for k in range(first, last):
                if state.chosen[k] == 2 and state.excess_ah[k] > best_ah:
                    best, best_ah = k, state.excess_ah[k]
            if best < 0:
                break
            v = cell_volt(cell_v[best])
            v = v if v > _ZERO else c[V_MAX]
            left_w -= v * v / c[BLEED_OHM]
            if left_w < _ZERO:
                break
            state.chosen[best] = np.uint8(1)


@kernel
def _choose_all(config: BalancingConfig, state: BalancingState, cell_v: F4) -> None:
    """Bleed everyone in turn, within the budget of each board."""
    c = config.setting
    n = state.chosen.shape[0]
    board = max(int(config.size[BOARD_CELLS]), 1)
    turn = int(state.word[ROTATION])
    picked_least = board
    for first in range(0, n, board):
        last = min(first + board, n)
        size = last - first
        left_w = c[BOARD_W]
        picked, full = 0, False
        for j in range(size):
            k = first + (turn + j) % size
            v = cell_volt(cell_v[k])
            left_w -= v * v / c[BLEED_OHM]
            full = full or (left_w < _ZERO and picked > 0)
            state.chosen[k] = np.uint8(0 if full else 1)
            picked += 0 if full else 1
        picked_least = min(picked_least, picked)
    state.word[ROTATION] = np.uint32((turn + picked_least) % board)


@kernel
def _choose_moves(config: BalancingConfig, state: BalancingState) -> None:
    """Which neighbours exchange charge until the next decision: none takes part in two transfers."""
    c = config.setting
    n = state.move.shape[0]
    module = max(int(config.size[MODULE_CELLS]), 1)
    odd = int(state.word[SLOT]) & 1
    for first in range(0, n, module):
        last = min(first + module, n)
        total, var_total = _ZERO, _ZERO
        for k in range(first, last):
            total += state.excess_ah[k]
            var_total += state.var[k]
        mean = total / f4(last - first)
        passing, var = _ZERO, _ZERO
        for k in range(first, last):
            passing += state.excess_ah[k] - mean
            var += state.var[k]
            # all cells of the module together have no excess: the doubt of a sum is that of a bridge
            doubt = c[K_SIGMA] * np.sqrt(max(var * (_ONE - var / var_total), _ZERO))
            size = abs(passing)
            goes_on = state.move[k] != _NONE and size > c[STOP_AH]
            wants = k < last - 1 and (goes_on or size - doubt > c[START_AH])
            state.move[k] = (_TO_NEXT if passing > _ZERO else _FROM_NEXT) if wants else _NONE
        # links of even cells come first in one stretch, of odd ones in the next; others go where both ends are free
        for k in range(first, last):
            if state.move[k] != _NONE and (k - first) & 1 != odd:
                before = k > first and state.move[k - 1] != _NONE
                after = k + 1 < last and state.move[k + 1] != _NONE  # these two have precedence: neither waits
                if before or after:
                    state.move[k] |= _WAITS


@kernel
def _count(config: BalancingConfig, state: BalancingState, cell_v: F4, dt_s: f4) -> None:
    """Charge that has left the cells since the last step, by what was asked then."""
    c = config.setting
    as_per_v = dt_s / c[BLEED_OHM]
    n = state.pending_as.shape[0]
    for k in range(n):
        state.pending_as[k] += f4(state.asked[k]) * cell_volt(cell_v[k]) * as_per_v
    if config.size[SHUTTLE] != 0:
        moved_as = c[SHUTTLE_A] * dt_s
        for k in range(n - 1):
            move = state.asked_move[k]
            if move != _NONE:
                here, there = cell_volt(cell_v[k]), cell_volt(cell_v[k + 1])
                if here > _ZERO and there > _ZERO:
                    if move == _TO_NEXT:
                        state.pending_as[k] += moved_as
                        state.pending_as[k + 1] -= moved_as * here / there * c[SHUTTLE_EFFICIENCY]
                    else:
                        state.pending_as[k + 1] += moved_as
                        state.pending_as[k] -= moved_as * there / here * c[SHUTTLE_EFFICIENCY]


@kernel
def _burn(state: BalancingState, cell_v: F4) -> None:
    """Energy that has left the cells, and charge that has been moved, since the last decision."""
    wh, ah = _ZERO, _ZERO
    for k in range(state.pending_as.shape[0]):
        wh += state.pending_as[k] * cell_volt(cell_v[k])
        ah += abs(state.pending_as[k])
    total, low = state.number[ENERGY_WH], state.number[ENERGY_LOW_WH] + wh / _HOUR
    state.number[ENERGY_WH] = total + low
    state.number[ENERGY_LOW_WH] = low - (state.number[ENERGY_WH] - total)
    state.number[MOVED_AH] += ah / _HOUR


@kernel
def _may(config: BalancingConfig, state: BalancingState, seen: Seen, allowed: bool, drain: bool) -> bool:
    """Whether charge may be taken now: permitted, not too hot, no cell too low. What is not known forbids it."""
    c, word = config.setting, state.word
    cool = seen.degc_high < c[DEGC_STOP] - (_WARM_K if word[HOT] != 0 else _ZERO)
    filled = seen.cell_v_low > c[V_STOP] + (_RISEN_V if word[LOW] != 0 else _ZERO)
    word[HOT] = np.uint32(0 if cool else 1)
    word[LOW] = np.uint32(0 if filled else 1)
    return bool(allowed and cool and (filled or drain))


@kernel
def balance_step(
    config: BalancingConfig,
    state: BalancingState,
    estimator: EstimatorState,
    capacity_rel: F4,
    cell_v: F4,
    seen: Seen,
    allowed: bool,
    drain: bool,
    balance: U1,
    shuttle: U1,
    dt_s: f4,
) -> int:
    """One step: count what has flowed, decide if it is time to, and write who is bled and where charge is moved.

    `capacity_rel` f4[n_cells] relative to the type's capacity, `cell_v` f4[n_cells] last usable voltages. `allowed`:
    the state of the rack and its faults permit it. `drain`: bleed every cell towards 0 V, whatever its excess.
    `balance` u1[n_cells] and `shuttle` u1[n_cells] are written, and of `estimator` the SoC with its low part. Returns
    how many cells are bled or exchange charge now.
    """
    c, number, word = config.setting, state.number, state.word
    n = balance.shape[0]
    if word[FLOWING] != 0:
        _count(config, state, cell_v, dt_s)

    number[SINCE_S] += dt_s
    draining = np.uint32(1 if drain else 0)
    if number[SINCE_S] >= c[DECIDE_S] or word[DRAINING] != draining:
        since_s = number[SINCE_S]
        number[SINCE_S] = _ZERO
        _burn(state, cell_v)
        _take_away(config, state, estimator, capacity_rel)
        _remember(config, state, estimator, capacity_rel, since_s)
        if word[DRAINING] != draining:
            word[DRAINING] = draining
            state.chosen[:] = np.uint8(0)
            state.move[:] = _NONE
        if config.size[BLEED] != 0:
            if drain:
                _choose_all(config, state, cell_v)
            else:
                _choose(config, state, cell_v)
        if config.size[SHUTTLE] != 0 and not drain:
            _choose_moves(config, state)

    # whole steps of bleeding and of pause: a step longer than both makes them alternate
    number[PHASE_S] += dt_s
    if number[PHASE_S] >= (c[ON_S] if word[PAUSE] == 0 else c[OFF_S]):
        number[PHASE_S] = _ZERO
        word[PAUSE] = np.uint32(1) - word[PAUSE]
        word[SLOT] = (word[SLOT] + word[PAUSE]) & np.uint32(1)
    go = _may(config, state, seen, allowed, drain) and word[PAUSE] == 0

    on = np.uint8(1 if go else 0)
    bleeding, moving = 0, 0
    for k in range(n):
        mark = state.chosen[k] & on & np.uint8(1)
        state.asked[k] = mark
        balance[k] = mark
        bleeding += int(mark)
    for k in range(n):
        code = state.move[k] if go and state.move[k] < _WAITS else _NONE
        state.asked_move[k] = code
        shuttle[k] = code
        moving += 1 if code != _NONE else 0
    word[N_BLEEDING], word[N_MOVING] = np.uint32(bleeding), np.uint32(moving)
    word[FLOWING] = np.uint32(1 if bleeding + moving > 0 else 0)
    return bleeding + moving
