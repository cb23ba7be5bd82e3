"""Limits of current and power: what the rack may do now, what it could hold for each horizon, and why no more.

A limit is the smallest of: the rating (with a pulse where the fuse has room for it), what each cell bears over the
horizon (`bms.core.power_cells`: voltage, SoC, heat), the string voltage, the derating polylines over temperature and
SoC, what the measured voltages leave, what a fault demands, and the speed at which a limit may rise. Whichever it is
is published with it: `Constraint`, where, what was looked at, and how far that is from where nothing would be left.

All cells count, but not all are asked in every step. The cell that limits is solved for anew in each step, for each of
the 4 horizons in both directions; of the others one slice is tested against the limits as they stand, so that all have
had their turn after `scan_s`. A cell that does not bear a limit is solved for and becomes the one that limits. As the
limits of the cells rise no faster than `rise` allows, a cell that becomes the weakest is asked before it matters.
The first step asks all.

A model may err. Whatever it says, the lowest and the highest cell as measured now may not be taken beyond v_min and
v_max: current of now plus the distance to the limit over the resistance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.estimator_layout import SOC, EstimatorConfig, EstimatorState
from bms.core.faults import Reaction
from bms.core.jit import f4, i4, kernel
from bms.core.power_cells import (
    BENT_OHM,
    HIGH,
    HORIZON,
    LEFT_V,
    LOW,
    N_HORIZONS,
    OCV_U,
    OHM,
    PER_AS,
    SECONDS,
    SOC_U,
    WORK,
    WRONG,
    Ask,
    bears,
    check,
    holds,
    prepare,
    sum_ohm,
)
from bms.core.seen import Seen
from bms.core.views import CommandView
from hal.contract import F4, LANES, NO_INDEX, U1, U2, U4, Constraint, Field

N_PAIRS = 2 * N_HORIZONS  # a pair is 4 * direction + horizon; direction 0 discharges, 1 charges
N_RESULTS = N_PAIRS + 2  # then discharge and charge now

# power_number of the configuration; two in a row are for discharge, charge
RATED_A, PULSE, V_EDGE, GUARD_V, PACK_V_EDGE, SOC_EDGE = 0, 2, 4, 6, 8, 10
DEGC_EDGE, KELVIN_PER_J, SOC_SIGMAS, DERATE, RISE, RAMP_S = 12, 13, 14, 15, 16, 17
TRANSPORT_A, FUSE_FROM, SCAN_S, GUARD_GAIN, IN_FORCE, PULSE_S = 18, 19, 20, 21, 22, 23
N_NUMBERS = 24

POINTS = 8
"""Points of a derating polyline: so many places, then as many shares."""
DISCHARGE_DEGC, CHARGE_DEGC, DISCHARGE_SOC, CHARGE_SOC = range(4)

# power_number of the state: cell limits as they have risen, as solved for (A of a cell), what they looked at, how far
# that is from the end, results of this step, current in force, share of a ramp that is left, power in force,
CELL_A, SOLVED_A, VALUE, MARGIN = 0, N_PAIRS, 2 * N_PAIRS, 3 * N_PAIRS
RESULT_A = 4 * N_PAIRS
NOW_A = RESULT_A + N_RESULTS
LEFT = NOW_A + 2
NOW_W = LEFT + 2
# resistance of the string for each horizon: of the last round through all cells, and the sum of this one
STRING_OHM = NOW_W + 2
SUM_OHM = STRING_OHM + N_HORIZONS
N_STATE_NUMBERS = SUM_OHM + N_HORIZONS
DISCHARGE_A, CHARGE_A, DISCHARGE_W, CHARGE_W = NOW_A, NOW_A + 1, NOW_W, NOW_W + 1

# power_word
NEXT, STARTED = 0, 1
N_WORDS = 2

MODE_ZERO, MODE_FULL, MODE_RAMP, MODE_TRANSPORT = range(4)
"""What the state machine allows: nothing; everything; everything, on its way to nothing; a small charge current."""

CONFIG_FIELDS = (
    Field("power_number", "f4", "settings of the limits", f"{N_NUMBERS}"),
    Field("power_horizon", "f4", "horizons: length, what is left of each RC voltage", f"{N_HORIZONS * HORIZON}"),
    Field("power_polyline", "f4", "derating over temperature, over SoC: places, shares", f"{4 * 2 * POINTS}"),
)

STATE_FIELDS = (
    Field("power_number", "f4", "limits, and what they come from", f"{N_STATE_NUMBERS}"),
    Field("power_work", "f4", "scratch of the limits", f"{WORK}"),
    Field("power_word", "u4", "next slice of cells, first step done", f"{N_WORDS}"),
    Field("power_cells", "i4", "scratch of the limits: cells, lines of the table", f"{2 * LANES}"),
    Field("power_limiting", "u2", "cell that limits, for each horizon and direction", f"{N_PAIRS}"),
    Field("power_why", "u1", "`Constraint` of that cell", f"{N_PAIRS}"),
)


class PowerConfig(NamedTuple):
    """Constants of the limits."""

    number: F4
    horizon: F4
    polyline: F4


class PowerState(NamedTuple):
    """Memory of the limits, owned by the caller."""

    number: F4
    work: F4
    word: U4
    cells: npt.NDArray[np.int32]
    limiting: U2
    why: U1


_ZERO, _ONE = f4(0.0), f4(1.0)
_HUGE = f4(1e30)
_NO_INDEX = int(NO_INDEX)
_LANES = np.uint64(LANES)
_NONE, _STATE, _FAULT, _DATA, _RATING, _PACK_VOLTAGE = (
    int(c)
    for c in (
        Constraint.NONE,
        Constraint.STATE,
        Constraint.FAULT,
        Constraint.DATA,
        Constraint.RATING,
        Constraint.PACK_VOLTAGE,
    )
)
_TEMPERATURE, _SOC_DERATING, _FUSE, _RISE, _MEASURED_VOLTAGE = (
    int(c)
    for c in (
        Constraint.TEMPERATURE,
        Constraint.SOC_DERATING,
        Constraint.FUSE,
        Constraint.RISE,
        Constraint.MEASURED_VOLTAGE,
    )
)
_DERATE, _NO_CHARGE, _NO_DISCHARGE = int(Reaction.DERATE), int(Reaction.NO_CHARGE), int(Reaction.NO_DISCHARGE)


def power_state() -> PowerState:
    """Fresh memory, as `power_init` leaves it."""
    state = PowerState(
        np.zeros(N_STATE_NUMBERS, np.float32),
        np.zeros(WORK, np.float32),
        np.zeros(N_WORDS, np.uint32),
        np.zeros(2 * LANES, np.int32),
        np.full(N_PAIRS, NO_INDEX, np.uint16),
        np.zeros(N_PAIRS, np.uint8),
    )
    state.number[LEFT : LEFT + 2] = 1.0
    return state


@kernel
def power_init(state: PowerState) -> None:
    """Fresh memory: nothing allowed, all cells to be asked; all of `state` is written."""
    state.number[:] = _ZERO
    state.number[LEFT] = _ONE
    state.number[LEFT + 1] = _ONE
    state.work[:] = _ZERO
    state.word[:] = np.uint32(0)
    state.cells[:] = i4(0)
    state.limiting[:] = np.uint16(_NO_INDEX)
    state.why[:] = np.uint8(0)


@kernel
def share_at(polyline: F4, which: int, x: f4) -> f4:
    """Share 0..1 that the polyline `which` leaves at `x`; flat beyond its ends, 0 where `x` is not a number."""
    p = polyline[which * 2 * POINTS : (which + 1) * 2 * POINTS]
    share: f4 = p[2 * POINTS - 1] if x >= p[POINTS - 1] else _ZERO
    if x < p[0]:
        share = p[POINTS]
    for k in range(POINTS - 1):
        if x >= p[k] and x < p[k + 1]:
            share = p[POINTS + k] + (p[POINTS + k + 1] - p[POINTS + k]) * ((x - p[k]) / (p[k + 1] - p[k]))
    return share


@kernel
def spare_at(polyline: F4, which: int, x: f4, rising: bool) -> f4:
    """How far `x` is from where the polyline has no share left: below it (`rising`) or above.

    Where a polyline never gets to 0, from its end.
    """
    p = polyline[which * 2 * POINTS : (which + 1) * 2 * POINTS]
    edge: f4 = p[0] if rising else p[POINTS - 1]
    for k in range(POINTS):
        j = k if rising else POINTS - 1 - k
        if p[POINTS + j] == _ZERO and (p[j] <= x if rising else p[j] >= x):
            edge = p[j]
    return x - edge if rising else edge - x


@kernel
def _offer(state: PowerState, command: CommandView, k: int, a: f4, why: int, at: int, value: f4, margin: f4) -> None:
    """Take over `a` as result `k` if it is smaller, with its reason; what is not a number allows nothing."""
    if a >= state.number[RESULT_A + k]:
        return
    if a > _ZERO:
        state.number[RESULT_A + k] = a
    else:
        # of several reasons for nothing the first stays
        if state.number[RESULT_A + k] == _ZERO:
            return
        state.number[RESULT_A + k] = _ZERO
    if np.isnan(a):
        why, value, margin = _DATA, _ZERO, _ZERO
    command.reason[k] = np.uint8(why)
    command.reason_index[k] = np.uint16(at if 0 <= at < _NO_INDEX else _NO_INDEX)
    command.reason_value[k] = value if abs(value) < _HUGE else _ZERO
    command.reason_margin[k] = margin if abs(margin) < _HUGE else _ZERO


@kernel
def _copy(state: PowerState, command: CommandView, to: int, source: int) -> None:
    """Result `source` and its reason are those of `to` as well."""
    state.number[RESULT_A + to] = state.number[RESULT_A + source]
    command.reason[to] = command.reason[source]
    command.reason_index[to] = command.reason_index[source]
    command.reason_value[to] = command.reason_value[source]
    command.reason_margin[to] = command.reason_margin[source]


@kernel
def _ask(config: PowerConfig, estimator: EstimatorConfig, direction: int, horizon: int) -> Ask:
    """The question that belongs to a direction and a horizon."""
    c = config.number
    return Ask(
        config.horizon[horizon * HORIZON + SECONDS],
        _ONE if direction == 0 else -_ONE,
        c[V_EDGE + direction],
        c[SOC_EDGE + direction],
        c[DEGC_EDGE],
        c[KELVIN_PER_J],
        estimator.scalars[0].bend_a,
        estimator.scalars[0].nodes_per_soc,
        SOC_U + np.uint64(direction) * _LANES,
        OCV_U + np.uint64(direction) * _LANES,
        PER_AS + np.uint64(direction) * _LANES,
        LEFT_V + np.uint64(horizon) * _LANES,
        OHM + np.uint64(horizon) * _LANES,
    )


@kernel
def _solve(
    config: PowerConfig,
    state: PowerState,
    estimator: EstimatorConfig,
    pair: int,
    lane: int,
    cell: int,
    ceiling_a: f4,
) -> f4:
    """Largest current of the cell in `lane`, which becomes the one that limits `pair`."""
    ask = _ask(config, estimator, pair // N_HORIZONS, pair % N_HORIZONS)
    line = state.cells[LANES : 2 * LANES]
    guess_a = state.number[CELL_A + pair]
    a: f4
    a, why, value, margin = bears(state.work, line, estimator.nodes, lane, ask, ceiling_a, guess_a)
    state.number[SOLVED_A + pair] = a
    state.number[VALUE + pair] = value
    state.number[MARGIN + pair] = margin
    state.why[pair] = np.uint8(why)
    state.limiting[pair] = np.uint16(cell if why != _NONE else _NO_INDEX)
    return a


@kernel
def _scan(
    config: PowerConfig,
    state: PowerState,
    estimator: EstimatorConfig,
    estimator_state: EstimatorState,
    cell_degc: F4,
    discharge_a: f4,
    charge_a: f4,
    dt_s: f4,
) -> None:
    """Test the next slice of cells against the limits as they stand, all cells in the first step."""
    number, w = state.number, state.work
    line, cells = state.cells[LANES : 2 * LANES], state.cells[:LANES]
    n = cell_degc.shape[0]
    n_blocks = (n + LANES - 1) // LANES
    share = dt_s / config.number[SCAN_S]
    todo = n_blocks
    if state.word[STARTED] != 0 and share < _ONE:
        todo = min(int(share * f4(n_blocks)) + 1, n_blocks)
    at = int(state.word[NEXT])
    for _ in range(todo):
        if at >= n_blocks:
            at = 0
        first = at * LANES
        for c in range(LANES):
            cells[c] = i4(min(first + c, n - 1))
        prepare(w, line, cells, estimator, estimator_state, cell_degc, config.horizon, config.number[SOC_SIGMAS])
        for pair in range(N_PAIRS):
            ask = _ask(config, estimator, pair // N_HORIZONS, pair % N_HORIZONS)
            if not check(w, line, estimator.nodes, ask, number[CELL_A + pair]):
                most_a = discharge_a if pair < N_HORIZONS else charge_a
                for c in range(LANES):
                    if not holds(w, c):
                        a = bears(w, line, estimator.nodes, c, ask, most_a, number[CELL_A + pair])[0]
                        if a < number[CELL_A + pair]:
                            number[CELL_A + pair] = _solve(config, state, estimator, pair, c, int(cells[c]), most_a)
        for j in range(N_HORIZONS):
            before = number[SUM_OHM + j] if at > 0 else _ZERO
            number[SUM_OHM + j] = before + sum_ohm(w, config.horizon, j, min(LANES, n - first))
        at += 1
        if at == n_blocks:
            for j in range(N_HORIZONS):
                number[STRING_OHM + j] = number[SUM_OHM + j]
    state.word[NEXT] = np.uint32(at)
    state.word[STARTED] = np.uint32(1)


@kernel
def _weakest(
    config: PowerConfig,
    state: PowerState,
    estimator: EstimatorConfig,
    estimator_state: EstimatorState,
    seen: Seen,
    cell_degc: F4,
    discharge_a: f4,
    charge_a: f4,
    dt_s: f4,
) -> tuple[f4, f4]:
    """Solve anew for the cells that limit; the limits of the cells rise towards that, or fall to it.

    Returns the resistances of the lowest and the highest cell as measured, over the horizon in force.
    """
    number, w = state.number, state.work
    line, cells = state.cells[LANES : 2 * LANES], state.cells[:LANES]
    n = cell_degc.shape[0]
    for c in range(LANES):
        cells[c] = i4(0)
    for pair in range(N_PAIRS):
        if int(state.limiting[pair]) < n:
            cells[pair] = i4(state.limiting[pair])
    low, high = int(seen.cell_low_at), int(seen.cell_high_at)
    if 0 <= low < n:
        cells[N_PAIRS] = i4(low)
    if 0 <= high < n:
        cells[N_PAIRS + 1] = i4(high)
    prepare(w, line, cells, estimator, estimator_state, cell_degc, config.horizon, config.number[SOC_SIGMAS])
    for pair in range(N_PAIRS):
        most_a = discharge_a if pair < N_HORIZONS else charge_a
        was_a = number[CELL_A + pair] if state.word[STARTED] != 0 else most_a
        if int(state.limiting[pair]) < n:
            _solve(config, state, estimator, pair, pair, int(state.limiting[pair]), most_a)
        else:
            number[SOLVED_A + pair] = most_a
        risen_a = was_a + config.number[RISE] * dt_s * most_a
        number[CELL_A + pair] = min(number[SOLVED_A + pair], risen_a)
    ohm = OHM + np.uint64(int(config.number[IN_FORCE])) * _LANES
    first, second = np.uint64(N_PAIRS), np.uint64(N_PAIRS + 1)
    return w[ohm + first] + w[BENT_OHM + first], w[ohm + second] + w[BENT_OHM + second]


@kernel
def _soc_extremes(w: Any, soc: F4, n: int) -> tuple[f4, f4, int]:
    """Smallest and largest of the first `n` values, and a place where there is no number, or -1."""
    for c in range(_LANES):
        w[LOW + c] = _HUGE
        w[HIGH + c] = -_HUGE
        w[WRONG + c] = _ZERO
    whole = n // LANES * LANES
    for first in range(0, whole, LANES):
        part = soc[first : first + LANES]
        for c in range(_LANES):
            z = part[c]
            w[LOW + c] = z if z < w[LOW + c] else w[LOW + c]
            w[HIGH + c] = z if z > w[HIGH + c] else w[HIGH + c]
            w[WRONG + c] += z - z
    for k in range(whole, n):
        z = soc[k]
        w[LOW] = z if z < w[LOW] else w[LOW]
        w[HIGH] = z if z > w[HIGH] else w[HIGH]
        w[WRONG] += z - z
    low, high, wrong = w[LOW], w[HIGH], w[WRONG]
    for c in range(_LANES):
        low = min(low, w[LOW + c])
        high = max(high, w[HIGH + c])
        wrong += w[WRONG + c]
    at = -1
    if np.isnan(wrong):
        for k in range(n):
            if at < 0 and not abs(soc[k]) < _HUGE:
                at = k
    return low, high, at


@kernel
def _place_of(soc: F4, n: int, z: f4) -> int:
    """Where `z` stands among the first `n` values, or -1."""
    for k in range(n):
        if soc[k] == z:
            return k
    return -1


@kernel
def _guard_a(spare_v: f4, ohm: f4, a: f4, gain: f4) -> f4:
    """Current at which a voltage gets to its limit, `spare_v` from what it is at `a`: a little less, ahead of it."""
    return a + spare_v / (ohm * gain if spare_v > _ZERO else ohm)


@kernel
def _fuse_share(i2t: f4, full_at: f4) -> f4:
    """Share of the pulse that heat in the fuse leaves: 1 up to `full_at`, 0 from 1 on, or where it is not known."""
    share = (_ONE - i2t) / (_ONE - full_at)
    if share >= _ONE:
        return _ONE
    return share if share > _ZERO else _ZERO


@kernel
def _watts(state: PowerState, seen: Seen, sign: f4, a: f4, now_a: f4, n: int, horizon: int) -> f4:
    """Power at the current `a`: with the lower of the string voltages now and at the end of the horizon."""
    pack_v = seen.pack_v
    if not abs(pack_v) < _HUGE:
        pack_v = f4(n) * seen.cell_v_low
    end_v = pack_v - state.number[STRING_OHM + horizon] * (sign * a - now_a)
    v = end_v if end_v < pack_v else pack_v
    return a * v if v > _ZERO else _ZERO


@kernel
def power_limits(
    config: PowerConfig,
    state: PowerState,
    estimator: EstimatorConfig,
    estimator_state: EstimatorState,
    seen: Seen,
    cell_degc: F4,
    per_cell: f4,
    reaction: int,
    fault: int,
    limits_mode: int,
    i2t_discharge: f4,
    i2t_charge: f4,
    command: CommandView,
    dt_s: f4,
) -> None:
    """One step of the limits; writes horizons and reasons of `command`, and what is in force to `state.number`.

    `cell_degc` f4[n] temperature that each cell is taken to have. `per_cell`: share of the string current that a cell
    carries. `reaction`: bits of `Reaction`, `fault` the row that asks for them. `limits_mode`: `MODE_...`. `i2t_...`:
    heat in the fuse, 1 = all that it bears. `dt_s` > 0 since the last step. In force: `DISCHARGE_A`, `CHARGE_A`,
    `DISCHARGE_W`, `CHARGE_W` of `state.number`, all >= 0.
    """
    number, c = state.number, config.number
    n = cell_degc.shape[0]
    if not dt_s > _ZERO:
        dt_s = _ZERO
    discharge_a, charge_a = c[RATED_A] * c[PULSE] * per_cell, c[RATED_A + 1] * c[PULSE + 1] * per_cell
    low_ohm, high_ohm = _weakest(
        config, state, estimator, estimator_state, seen, cell_degc, discharge_a, charge_a, dt_s
    )
    _scan(config, state, estimator, estimator_state, cell_degc, discharge_a, charge_a, dt_s)
    soc = estimator_state.out[SOC * estimator_state.flags.shape[0] :]
    soc_low, soc_high, wrong_at = _soc_extremes(state.work, soc, n)
    now_a = seen.current_a if abs(seen.current_a) < _HUGE else _ZERO

    for direction in range(2):
        sign = _ONE if direction == 0 else -_ONE
        rated_a = c[RATED_A + direction]
        stopped = reaction & (_NO_DISCHARGE if direction == 0 else _NO_CHARGE) != 0
        if stopped or limits_mode == MODE_RAMP:
            number[LEFT + direction] = max(number[LEFT + direction] - dt_s / c[RAMP_S], _ZERO)
        else:
            number[LEFT + direction] = _ONE

        # what does not depend on the horizon
        polyline = DISCHARGE_DEGC + direction
        cold, hot = (
            share_at(config.polyline, polyline, seen.degc_low),
            share_at(config.polyline, polyline, seen.degc_high),
        )
        polyline = DISCHARGE_SOC + direction
        edge_soc = soc_low if direction == 0 else soc_high
        soc_share = share_at(config.polyline, polyline, edge_soc)
        guard_a = _ZERO
        edge_v, edge_at, edge_ohm = seen.cell_v_low, int(seen.cell_low_at), low_ohm
        if direction == 1:
            edge_v, edge_at, edge_ohm = seen.cell_v_high, int(seen.cell_high_at), high_ohm
        spare_v = sign * (edge_v - c[GUARD_V + direction])
        guard_a = _guard_a(spare_v, edge_ohm, sign * now_a * per_cell, c[GUARD_GAIN]) / per_cell
        if not abs(edge_v) < _HUGE:
            guard_a = f4(np.nan)
        pack_spare_v = sign * (seen.pack_v - c[PACK_V_EDGE + direction])
        fuse = _fuse_share(i2t_discharge if direction == 0 else i2t_charge, c[FUSE_FROM])
        i2t = i2t_discharge if direction == 0 else i2t_charge

        for horizon in range(N_HORIZONS):
            k = direction * N_HORIZONS + horizon
            # the rating, or more for a while
            seconds = config.horizon[horizon * HORIZON + SECONDS]
            pulse = c[PULSE + direction] if seconds <= c[PULSE_S] else _ONE
            number[RESULT_A + k] = _HUGE
            _offer(state, command, k, rated_a * pulse, _RATING, _NO_INDEX, rated_a * pulse, rated_a * pulse)
            if pulse > _ONE and fuse < _ONE:
                less_a = rated_a * (_ONE + (pulse - _ONE) * fuse)
                _offer(state, command, k, less_a, _FUSE, _NO_INDEX, i2t, _ONE - i2t)
            # the cells
            solved_a, risen_a = number[SOLVED_A + k] / per_cell, number[CELL_A + k] / per_cell
            why = int(state.why[k])
            if why != _NONE:
                value, margin = number[VALUE + k], number[MARGIN + k]
                _offer(state, command, k, solved_a, why, int(state.limiting[k]), value, margin)
            if risen_a < solved_a:
                _offer(state, command, k, risen_a, _RISE, _NO_INDEX, solved_a, solved_a)
            # the string and what is measured
            if abs(c[PACK_V_EDGE + direction]) < _HUGE:
                pack_a = sign * now_a + pack_spare_v / (number[STRING_OHM + horizon] * per_cell)
                _offer(state, command, k, pack_a, _PACK_VOLTAGE, _NO_INDEX, seen.pack_v, pack_spare_v)
            _offer(state, command, k, guard_a, _MEASURED_VOLTAGE, edge_at, edge_v, spare_v)
            if cold < _ONE and cold <= hot:
                spare_k = spare_at(config.polyline, DISCHARGE_DEGC + direction, seen.degc_low, True)
                _offer(state, command, k, rated_a * cold, _TEMPERATURE, int(seen.sensor_low_at), seen.degc_low, spare_k)
            elif hot < _ONE:
                spare_k = spare_at(config.polyline, DISCHARGE_DEGC + direction, seen.degc_high, False)
                _offer(
                    state, command, k, rated_a * hot, _TEMPERATURE, int(seen.sensor_high_at), seen.degc_high, spare_k
                )
            if soc_share < _ONE and rated_a * soc_share < number[RESULT_A + k]:
                spare_soc = spare_at(config.polyline, polyline, edge_soc, direction == 0)
                at = _place_of(soc, n, edge_soc)
                _offer(state, command, k, rated_a * soc_share, _SOC_DERATING, at, edge_soc, spare_soc)
            if wrong_at >= 0:
                _offer(state, command, k, _ZERO, _DATA, wrong_at, _ZERO, _ZERO)
            if not (abs(seen.degc_low) < _HUGE and abs(seen.degc_high) < _HUGE):
                _offer(state, command, k, _ZERO, _DATA, _NO_INDEX, _ZERO, _ZERO)
            # a current that can be held for long can be held for a shorter time, but not the other way round
            if horizon > 0 and number[RESULT_A + k - 1] < number[RESULT_A + k]:
                _copy(state, command, k, k - 1)
            # faults, and the state of the rack
            if reaction & _DERATE != 0:
                _offer(state, command, k, number[RESULT_A + k] * c[DERATE], _FAULT, fault, c[DERATE], c[DERATE])
            left = number[LEFT + direction]
            if left < _ONE:
                ramp_why, ramp_at = (_FAULT, fault) if stopped else (_STATE, _NO_INDEX)
                _offer(state, command, k, number[RESULT_A + k] * left, ramp_why, ramp_at, left, left)
            if limits_mode == MODE_TRANSPORT and direction == 1:
                _offer(state, command, k, c[TRANSPORT_A], _STATE, _NO_INDEX, c[TRANSPORT_A], c[TRANSPORT_A])
            elif limits_mode != MODE_FULL and limits_mode != MODE_RAMP:
                _offer(state, command, k, _ZERO, _STATE, _NO_INDEX, f4(limits_mode), _ZERO)
            command.horizon_a[k] = number[RESULT_A + k]
            command.horizon_w[k] = _watts(state, seen, sign, number[RESULT_A + k], now_a, n, horizon)

        # in force now
        k = N_PAIRS + direction
        in_force = int(c[IN_FORCE])
        _copy(state, command, k, direction * N_HORIZONS + in_force)
        aim_a = number[RESULT_A + k]
        _offer(state, command, k, number[NOW_A + direction] + c[RISE] * dt_s * rated_a, _RISE, _NO_INDEX, aim_a, aim_a)
        number[NOW_A + direction] = number[RESULT_A + k]
        number[NOW_W + direction] = _watts(state, seen, sign, number[NOW_A + direction], now_a, n, in_force)
