"""The leak of each cell against the rest, from what disappears of its charge.

Per cell a Kalman filter with three states, worked once per `period_s` (two of them: see below):

    x' = x - I dt - b          excess of the cell's charge over the middle cell's, Ah; b: what was bled and moved away
    I' = I                     its leak beyond that of the middle cell, A (random walk)
    c' = c                     error of its relative capacity (random walk)
    y  = x + c Q (m - 1/2)     measured: -Q (1 - z) less the common level, with the middle SoC m

An error of the capacity shows as an excess that comes and goes with the SoC, hence c. What is measured is the SoC z of
the cell's own filter (`bms.core.estimator`), and only where the voltage tells it (flag `OBSERVABLE`), or would tell it
if the cell stood where most of the others stand: a cell that is not at the knee with them is known to be elsewhere.
On a plateau the filter goes on with what it knew, and would say each minute anew that nothing has disappeared. Its
errors last for `corr_s`, so each measurement counts as the share period / `corr_s` of one.

A filter that is sure of its SoC is slow to believe that charge has gone for no reason: a large leak shows first in what
its model cannot explain, the innovation. Where the mean innovation of a cell over `innovation_s` is further than
`doubt_v` from that of the middle cell, its filter is made to doubt its SoC, by `doubt_soc_per_h`.

The capacity of each cell is what has been found out of it so far. Where it becomes another one, x and c are moved by
what that does to y (`_rename`): in a rack that has aged, one cell after the other turns from 1 to 0.8: that is no leak.

An innovation beyond three deviations is neither believed at once nor thrown away: its noise is widened, as the
estimator does. What is told (`value[CELL_LEAK]`, mA) is the largest I - k_sigma std(I) - count_error * (charge that is
bled and moved in the same time), never below 0: what is uncertain raises no alarm.

There are two such filters for each cell. They differ in the random walk of I alone: the slow one finds what leaks for
weeks, the fast one what has begun today, for which it must be larger.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bms.core.balancing import middle, own_noise, share_of
from bms.core.estimator_layout import BLOCK_ROWS, INNOVATION, OBSERVABLE, SOC, EstimatorState, Z, p_row
from bms.core.faults import Fault
from bms.core.jit import f4, kernel
from hal.contract import F4, LANES, NO_INDEX, U2, U4, Field

# LeakConfig.setting
CAPACITY_AH, PERIOD_S, CORR_S, FLOOR_VAR, OWN, COMMON = 0, 1, 2, 3, 4, 5
PRIOR_A2, WALK_A2_PER_H, PRIOR_C2, WALK_C2_PER_H, K_SIGMA, COUNT_ERROR, FLOW_S = 6, 7, 8, 9, 10, 11, 12
INNOVATION_S, DOUBT_V, DOUBT_PER_H, FAST_PRIOR_A2, FAST_WALK_A2_PER_H = 13, 14, 15, 16, 17
N_SETTINGS = 18

# LeakState.number
SINCE_S, WORST_MA = 0, 1
N_NUMBERS = 2

# LeakState.word
WORST_AT = 0
N_WORDS = 1

# the two filters: in `excess_ah`, `leak_a` and `capacity` n_cells numbers each, in `p` N_P * n_cells
SLOW, FAST = 0, 1
N_FILTERS = 2
# rows of the covariance of one filter, each n_cells long
XX, XI, II, XC, IC, CC = 0, 1, 2, 3, 4, 5
N_P = 6

CONFIG_FIELDS: tuple[Field, ...] = (Field("leak_setting", "f4", "settings of the leak detection", f"{N_SETTINGS}"),)

STATE_FIELDS: tuple[Field, ...] = (
    Field("leak_number", "f4", "numbers of the leak detection", f"{N_NUMBERS}"),
    Field(
        "leak_excess_ah",
        "f4",
        "charge that each cell has more than the middle cell; slow and fast filter",
        f"cells*{N_FILTERS}",
    ),
    Field("leak_a", "f4", "leak of each cell beyond that of the middle cell, A", f"cells*{N_FILTERS}"),
    Field("leak_capacity", "f4", "error of its relative capacity", f"cells*{N_FILTERS}"),
    Field("leak_p", "f4", "covariance of the three", f"cells*{N_FILTERS * N_P}"),
    Field("leak_bled_ah", "f4", "charge that had been taken from it when it was last looked at", "cells"),
    Field("leak_flow_a", "f4", "mean size of the current that bleeding and moving take from it or give it", "cells"),
    Field("leak_innovation_v", "f4", "mean innovation of each cell's filter", "cells"),
    Field("leak_share", "f4", "relative capacity that its charge is reckoned with; 0 before the first look", "cells"),
    Field("leak_work", "f4", "scratch of the leak detection", "cells"),
    Field("leak_noise", "f4", "scratch of the leak detection", "cells"),
    Field("leak_word", "u4", "words of the leak detection", f"{N_WORDS}"),
)

_CELL_LEAK = int(Fault.CELL_LEAK)
_ZERO, _ONE, _HALF = f4(0.0), f4(1.0), f4(0.5)
_HUGE = f4(1e30)
_HOUR = f4(3600.0)
_UNKNOWN = f4(0.09)  # variance of a SoC of which nothing is known: 0.3^2
_PER_GATE2 = f4(1.0 / 9.0)
_VAR_MIN = f4(1e-12)
_MILLI = f4(1000.0)
_NO_INDEX = NO_INDEX
_VAR_Z = p_row(Z, Z)
_ABSURD_V = f4(1.0)


class LeakConfig(NamedTuple):
    """Constants: `setting` f4[18]."""

    setting: F4


class LeakState(NamedTuple):
    """Memory of the leak detection: see `STATE_FIELDS`."""

    number: F4
    excess_ah: F4
    leak_a: F4
    capacity: F4
    p: F4
    bled_ah: F4
    flow_a: F4
    innovation_v: F4
    share: F4
    work: F4
    noise: F4
    word: U4


def leak_state(n_cells: int) -> LeakState:
    """Arrays of zeros; `leak_init` makes a memory of them."""
    kind = {"f4": np.float32, "u4": np.uint32}
    arrays = []
    for field in STATE_FIELDS:
        whole, _, times = field.dims.partition("*")
        size = n_cells * int(times or 1) if whole == "cells" else int(whole)
        arrays.append(np.zeros(size, kind[field.kind]))
    return LeakState(*arrays)


class _Filter(NamedTuple):
    """One of the two filters: views into the state, and its random walk."""

    excess_ah: F4
    leak_a: F4
    capacity: F4
    p: F4
    prior_a2: Any
    walk_a2_per_h: Any


@kernel
def _filter(config: LeakConfig, state: LeakState, which: int) -> _Filter:
    c = config.setting
    n = state.work.shape[0]
    return _Filter(
        state.excess_ah[which * n : (which + 1) * n],
        state.leak_a[which * n : (which + 1) * n],
        state.capacity[which * n : (which + 1) * n],
        state.p[which * N_P * n : (which + 1) * N_P * n],
        c[FAST_PRIOR_A2] if which == FAST else c[PRIOR_A2],
        c[FAST_WALK_A2_PER_H] if which == FAST else c[WALK_A2_PER_H],
    )


@kernel
def leak_init(config: LeakConfig, state: LeakState) -> None:
    """Fresh memory: no cell is known to leak, and none to be tight."""
    c = config.setting
    n = state.work.shape[0]
    state.number[:] = _ZERO
    state.number[SINCE_S] = _HALF * c[PERIOD_S]  # not in the same step as what else happens once a minute
    state.excess_ah[:] = _ZERO
    state.leak_a[:] = _ZERO
    state.capacity[:] = _ZERO
    state.p[:] = _ZERO
    for which in range(N_FILTERS):
        f = _filter(config, state, which)
        f.p[XX * n : (XX + 1) * n] = c[CAPACITY_AH] * c[CAPACITY_AH] * _UNKNOWN
        f.p[II * n : (II + 1) * n] = f.prior_a2
        f.p[CC * n : (CC + 1) * n] = c[PRIOR_C2]
    state.bled_ah[:] = _ZERO
    state.flow_a[:] = _ZERO
    state.innovation_v[:] = _ZERO
    state.share[:] = _ZERO
    state.work[:] = _ZERO
    state.noise[:] = _ZERO
    state.word[:] = np.uint32(_NO_INDEX)


@kernel
def _listen(config: LeakConfig, state: LeakState, estimator: EstimatorState, dt_s: f4) -> None:
    """Follow the innovations of the filters; a cell that was not measured keeps its mean."""
    first = INNOVATION * estimator.flags.shape[0]
    slow = dt_s / (config.setting[INNOVATION_S] + dt_s)
    for k in range(state.innovation_v.shape[0]):
        nu = estimator.out[first + k]
        mean = state.innovation_v[k]
        # what is no number, or no voltage of this world, says nothing
        state.innovation_v[k] = mean + slow * (nu - mean) if abs(nu) < _ABSURD_V else mean


@kernel
def _doubt(config: LeakConfig, state: LeakState, estimator: EstimatorState, hours: f4) -> None:
    """Make the filters doubt that fail to explain their voltage, unlike the others."""
    c = config.setting
    level = middle(state.innovation_v)
    for k in range(state.innovation_v.shape[0]):
        if abs(state.innovation_v[k] - level) > c[DOUBT_V]:
            at = (k // LANES * BLOCK_ROWS + _VAR_Z) * LANES + k % LANES
            var = estimator.blocks[at]
            if var >= _ZERO and var < _UNKNOWN:
                std = np.sqrt(var) + c[DOUBT_PER_H] * hours
                estimator.blocks[at] = std * std


@kernel
def _account(config: LeakConfig, state: LeakState, bled_ah: F4, hours: f4) -> None:
    """What has been taken from each cell since it was last looked at, into `work`."""
    c = config.setting
    slow = hours / (c[FLOW_S] / _HOUR + hours)
    for k in range(state.work.shape[0]):
        gone = bled_ah[k] - state.bled_ah[k]
        gone = gone if abs(gone) < c[CAPACITY_AH] else _ZERO  # the counter was set anew
        state.bled_ah[k] = bled_ah[k]
        state.flow_a[k] += slow * (abs(gone) / hours - state.flow_a[k])
        state.work[k] = gone


@kernel
def _predict(config: LeakConfig, f: _Filter, gone_ah: F4, hours: f4) -> None:
    """Let time pass: what each cell should have lost, and what became uncertain."""
    c, p = config.setting, f.p
    n = gone_ah.shape[0]
    unknown = c[CAPACITY_AH] * c[CAPACITY_AH] * _UNKNOWN
    walk_a2, walk_c2 = f.walk_a2_per_h * hours, c[WALK_C2_PER_H] * hours
    for k in range(n):
        f.excess_ah[k] -= f.leak_a[k] * hours + gone_ah[k]
        xi, ii, ic = p[XI * n + k], p[II * n + k], p[IC * n + k]
        xx = p[XX * n + k] + hours * (hours * ii - xi - xi)
        xi -= hours * ii
        xc = p[XC * n + k] - hours * ic
        # No cell has more than a full charge: a measurement of x. To cap its variance alone would leave correlations
        # beyond 1, and the next look would be sure of whatever leak explains it.
        told = _ONE / xx - unknown / (xx * xx) if xx > unknown else _ZERO
        p[XX * n + k] = xx - xx * told * xx
        p[XI * n + k] = xi - xx * told * xi
        p[XC * n + k] = xc - xx * told * xc
        p[IC * n + k] = ic - xi * told * xc
        p[II * n + k] = min(max(ii - xi * told * xi, _VAR_MIN) + walk_a2, f.prior_a2)
        p[CC * n + k] = min(max(p[CC * n + k] - xc * told * xc, _VAR_MIN) + walk_c2, c[PRIOR_C2])


@kernel
def _lever_ah(config: LeakConfig, soc: F4) -> f4:
    """What an error of the relative capacity is multiplied by: Q (m - 1/2)."""
    return f4(config.setting[CAPACITY_AH] * (middle(soc) - _HALF))


@kernel
def _rename(config: LeakConfig, state: LeakState, estimator: EstimatorState, capacity_rel: F4) -> None:
    """Take over capacities that have become known: each charge to full is another number then, and nothing is gone.

    What was thought of the charge and of the capacity changes as the measured number does, so that nothing disappears.
    """
    n = state.work.shape[0]
    soc = estimator.out[SOC * estimator.flags.shape[0] : SOC * estimator.flags.shape[0] + n]
    lever_ah = _lever_ah(config, soc)
    for k in range(n):
        share = share_of(capacity_rel[k])
        if state.share[k] == _ZERO:
            state.share[k] = share
        more = share - state.share[k]
        moved_ah = -more * (config.setting[CAPACITY_AH] * (_ONE - soc[k]) + lever_ah)
        if more != _ZERO and abs(moved_ah) < _HUGE:
            state.share[k] = share
            for which in range(N_FILTERS):
                state.excess_ah[which * n + k] += moved_ah
                state.capacity[which * n + k] += more


@kernel
def _centre(values: F4) -> None:
    """Count from the middle cell."""
    level = middle(values)
    for k in range(values.shape[0]):
        values[k] -= level


@kernel
def _correct(config: LeakConfig, state: LeakState, f: _Filter, estimator: EstimatorState, period_s: f4) -> None:
    """Compare with what the filters of the cells have learnt; `noise` is the variance of that."""
    c, p = config.setting, f.p
    n = state.work.shape[0]
    n_lanes = estimator.flags.shape[0]
    soc = estimator.out[SOC * n_lanes : (SOC + 1) * n_lanes]
    lever_ah = _lever_ah(config, soc[:n])
    telling = 0
    for k in range(n):
        u_ah = c[CAPACITY_AH] * state.share[k] * (_ONE - soc[k])
        state.work[k] = -u_ah - f.excess_ah[k] - lever_ah * f.capacity[k]
        telling += 1 if estimator.flags[k] & OBSERVABLE != 0 else 0
    level = middle(state.work)
    most = 2 * telling > n
    rare = max(c[CORR_S] / period_s, _ONE)
    for k in range(n):
        more = state.work[k] - level
        fine = abs(more) < _HUGE and state.noise[k] < _HUGE and (most or estimator.flags[k] & OBSERVABLE != 0)
        nu = more if fine else _ZERO
        gx = p[XX * n + k] + lever_ah * p[XC * n + k]
        gi = p[XI * n + k] + lever_ah * p[IC * n + k]
        gc = p[XC * n + k] + lever_ah * p[CC * n + k]
        total = gx + lever_ah * gc + (state.noise[k] + c[FLOOR_VAR]) * rare
        total = max(total, nu * nu * _PER_GATE2)
        inv = _ONE / total if fine and total > _ZERO else _ZERO
        f.excess_ah[k] += gx * inv * nu
        f.leak_a[k] += gi * inv * nu
        f.capacity[k] += gc * inv * nu
        p[XX * n + k] = max(p[XX * n + k] - gx * inv * gx, _VAR_MIN)
        p[XI * n + k] -= gx * inv * gi
        p[II * n + k] = max(p[II * n + k] - gi * inv * gi, _VAR_MIN)
        p[XC * n + k] -= gx * inv * gc
        p[IC * n + k] -= gi * inv * gc
        p[CC * n + k] = max(p[CC * n + k] - gc * inv * gc, _VAR_MIN)
    # what all cells have in common no difference tells: without this it would wander
    _centre(f.excess_ah)
    _centre(f.leak_a)
    _centre(f.capacity)


@kernel
def leak_step(
    config: LeakConfig,
    state: LeakState,
    estimator: EstimatorState,
    capacity_rel: F4,
    bled_ah: F4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """One step. Writes `value[CELL_LEAK]`, mA, and `where[CELL_LEAK]`, each time; they change once per `period_s`.

    Of `estimator` the variance of the SoC may be raised.
    `capacity_rel` f4[n_cells] relative to the type's capacity; `bled_ah` f4[n_cells] charge taken from each cell since
    the start (`BalancingState.bled_ah`), of which the filters have been told.
    """
    c, number = config.setting, state.number
    n = state.work.shape[0]
    _listen(config, state, estimator, dt_s)
    number[SINCE_S] += dt_s
    if number[SINCE_S] >= c[PERIOD_S]:
        since_s = number[SINCE_S]
        hours = since_s / _HOUR
        number[SINCE_S] = _ZERO
        _doubt(config, state, estimator, hours)
        _account(config, state, bled_ah, hours)
        for which in range(N_FILTERS):
            _predict(config, _filter(config, state, which), state.work, hours)
        _rename(config, state, estimator, capacity_rel)
        own_noise(estimator, state.share, c[CAPACITY_AH], c[OWN], c[COMMON], _ZERO, state.noise)
        worst_a, at = _ZERO, _NO_INDEX
        for which in range(N_FILTERS):
            f = _filter(config, state, which)
            _correct(config, state, f, estimator, since_s)
            for k in range(n):
                sure_a = f.leak_a[k] - c[K_SIGMA] * np.sqrt(f.p[II * n + k]) - c[COUNT_ERROR] * state.flow_a[k]
                if sure_a > worst_a:
                    worst_a, at = sure_a, k
        number[WORST_MA] = worst_a * _MILLI
        state.word[WORST_AT] = np.uint32(at)
    value[_CELL_LEAK] = number[WORST_MA]
    where[_CELL_LEAK] = np.uint16(state.word[WORST_AT])
