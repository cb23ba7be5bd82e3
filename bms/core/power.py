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

A model may err. So the lowest and the highest cell as measured are asked once more in every step, with a prediction
that starts from the measured voltage: what the model has wrong by now is then no part of the answer, and what it has
wrong in the next seconds is found in the next step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.derating import (
    CHARGE_SOC,
    DISCHARGE_DEGC,
    DISCHARGE_SOC,
    POINTS,
    extremes,
    place_of,
    share_at,
    spare_at,
)
from bms.core.estimator_layout import SOC, EstimatorConfig, EstimatorState
from bms.core.faults import Reaction
from bms.core.jit import f4, i4, kernel
from bms.core.power_cells import (
    HORIZON,
    LEFT_V,
    N_HORIZONS,
    OCV_U,
    OHM,
    PER_AS,
    SECONDS,
    SOC_U,
    WORK,
    Ask,
    anchor,
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
TRANSPORT_A, FUSE_FROM, SCAN_S, IN_FORCE, PULSE_S = 18, 19, 20, 21, 22
N_NUMBERS = 23

# power_number of the state: cell limits as they have risen, as solved for (A of a cell), what they looked at, how far
# that is from the end, limits from measured voltages, results of this step, current in force, share of a ramp that is
# left, power in force,
CELL_A, SOLVED_A, VALUE, MARGIN, GUARD_A = (k * N_PAIRS for k in range(5))
RESULT_A = 5 * N_PAIRS
NOW_A = RESULT_A + N_RESULTS
LEFT = NOW_A + 2
NOW_W = LEFT + 2
# resistance of the string for each horizon: of the last round through all cells, and the sum of this one
STRING_OHM = NOW_W + 2
SUM_OHM = STRING_OHM + N_HORIZONS
# while what is measured is not known: results as they were before, string voltage, for how long
BASE_A = SUM_OHM + N_HORIZONS
HELD_V = BASE_A + N_PAIRS
BLIND_S = HELD_V + 1
N_STATE_NUMBERS = BLIND_S + 1
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
_BLIND_MAX_S = f4(30.0)  # the rows of lost data have asked for nothing by then; where they are off this remains
_GUARD_RISE_S = f4(5.0)  # it rises with a lag, or a resistance twice the believed would make it swing
_NEVER = f4(1e3)  # an SoC, a temperature that no cell reaches
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
def _ask(config: PowerConfig, estimator: EstimatorConfig, direction: int, horizon: int, measured: bool) -> Ask:
    """The question that belongs to a direction and a horizon; about the voltage alone where that is `measured`."""
    c = config.number
    sign = _ONE if direction == 0 else -_ONE
    return Ask(
        config.horizon[horizon * HORIZON + SECONDS],
        sign,
        c[(GUARD_V if measured else V_EDGE) + direction],
        -sign * _NEVER if measured else c[SOC_EDGE + direction],
        _NEVER if measured else c[DEGC_EDGE],
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
    below_a: f4,
) -> f4:
    """Largest current of the cell in `lane`; where that is less than `below_a`, this cell now limits `pair`."""
    ask = _ask(config, estimator, pair // N_HORIZONS, pair % N_HORIZONS, False)
    line = state.cells[LANES : 2 * LANES]
    a: f4
    a, why, value, margin = bears(state.work, line, estimator.nodes, lane, ask, ceiling_a, state.number[CELL_A + pair])
    if a < below_a:
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
            ask = _ask(config, estimator, pair // N_HORIZONS, pair % N_HORIZONS, False)
            if not check(w, line, estimator.nodes, ask, number[CELL_A + pair]):
                most_a = discharge_a if pair < N_HORIZONS else charge_a
                for c in range(LANES):
                    if not holds(w, c):
                        below_a = number[CELL_A + pair]
                        a = _solve(config, state, estimator, pair, c, int(cells[c]), most_a, below_a)
                        number[CELL_A + pair] = min(a, below_a)
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
def _known_a(seen: Seen) -> f4:
    """The string current as measured, 0 where it is not known."""
    return f4(seen.current_a) if abs(seen.current_a) < _HUGE else _ZERO


@kernel
def _pack_v(seen: Seen, n: int) -> f4:
    """The string voltage as measured, or what `n` cells make of it."""
    return f4(seen.pack_v) if abs(seen.pack_v) < _HUGE else f4(n) * seen.cell_v_low


@kernel
def _weakest(
    config: PowerConfig,
    state: PowerState,
    estimator: EstimatorConfig,
    estimator_state: EstimatorState,
    seen: Seen,
    cell_degc: F4,
    per_cell: f4,
    discharge_a: f4,
    charge_a: f4,
    dt_s: f4,
) -> None:
    """Solve anew for the cells that limit, and for those that are lowest and highest as measured.

    The limits of the cells rise towards that, or fall to it.
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
            _solve(config, state, estimator, pair, pair, int(state.limiting[pair]), most_a, _HUGE)
        else:
            number[SOLVED_A + pair] = most_a
        risen_a = was_a + config.number[RISE] * dt_s * most_a
        number[CELL_A + pair] = min(number[SOLVED_A + pair], risen_a)
    # once more, from the measured voltages
    k1 = estimator.scalars[0]
    now_a = _known_a(seen) * per_cell - estimator_state.shared[0].bias_a
    sign = estimator_state.shared[0].sign
    anchor(w, N_PAIRS, seen.cell_v_low, now_a, sign, k1.bend_a)
    anchor(w, N_PAIRS + 1, seen.cell_v_high, now_a, sign, k1.bend_a)
    for pair in range(N_PAIRS):
        direction = pair // N_HORIZONS
        ask = _ask(config, estimator, direction, pair % N_HORIZONS, True)
        most_a = discharge_a if direction == 0 else charge_a
        guess_a = number[GUARD_A + pair]
        a = bears(w, line, estimator.nodes, N_PAIRS + direction, ask, most_a, guess_a)[0]
        if a > guess_a and state.word[STARTED] != 0:
            a = guess_a + (a - guess_a) * (dt_s / (_GUARD_RISE_S + dt_s))
        number[GUARD_A + pair] = a


@kernel
def _fuse_share(i2t: f4, full_at: f4) -> f4:
    """Share of the pulse that heat in the fuse leaves: 1 up to `full_at`, 0 from 1 on, or where it is not known."""
    share = (_ONE - i2t) / (_ONE - full_at)
    if share >= _ONE:
        return _ONE
    return share if share > _ZERO else _ZERO


@kernel
def _watts(state: PowerState, seen: Seen, sign: f4, a: f4, n: int, horizon: int, least_v: f4) -> f4:
    """Power at the current `a`: with the lower of the string voltages now and at the end of the horizon.

    `least_v`: no lower than this. At 0 V, on the way out of transport, no power would be no current either.
    """
    pack_v = _pack_v(seen, n)
    if not abs(pack_v) < _HUGE:
        pack_v = state.number[HELD_V]
    end_v = pack_v - state.number[STRING_OHM + horizon] * (sign * a - _known_a(seen))
    v = end_v if end_v < pack_v else pack_v
    v = least_v if v < least_v else v
    return a * v if v > _ZERO and v < _HUGE else _ZERO


@kernel
def _bound(
    config: PowerConfig,
    state: PowerState,
    seen: Seen,
    direction: int,
    per_cell: f4,
    i2t: f4,
    z: f4,
    z_at: int,
    command: CommandView,
) -> None:
    """Results of one direction before faults and the state of the rack: the smallest of all that cells and string bear.

    `z`, `z_at`: the SoC nearest to its end, and where.
    """
    number, c = state.number, config.number
    discharging = direction == 0
    sign = _ONE if discharging else -_ONE
    rated_a, now_a = c[RATED_A + direction], sign * _known_a(seen)
    over_degc, over_soc = DISCHARGE_DEGC + direction, DISCHARGE_SOC + direction
    cold, hot = (
        share_at(config.polyline, over_degc, seen.degc_low),
        share_at(config.polyline, over_degc, seen.degc_high),
    )
    soc_share = share_at(config.polyline, over_soc, z)
    v, v_at = (seen.cell_v_low, seen.cell_low_at) if discharging else (seen.cell_v_high, seen.cell_high_at)
    spare_v, pack_spare_v = sign * (v - c[GUARD_V + direction]), sign * (seen.pack_v - c[PACK_V_EDGE + direction])
    fuse = _fuse_share(i2t, c[FUSE_FROM])

    for horizon in range(N_HORIZONS):
        k = direction * N_HORIZONS + horizon
        # the rating, or more for a while
        pulse = c[PULSE + direction] if config.horizon[horizon * HORIZON + SECONDS] <= c[PULSE_S] else _ONE
        number[RESULT_A + k] = _HUGE
        _offer(state, command, k, rated_a * pulse, _RATING, _NO_INDEX, rated_a * pulse, rated_a * pulse)
        if pulse > _ONE and fuse < _ONE:
            less_a = rated_a * (_ONE + (pulse - _ONE) * fuse)
            _offer(state, command, k, less_a, _FUSE, _NO_INDEX, i2t, _ONE - i2t)
        # the cells
        solved_a, risen_a, why = number[SOLVED_A + k] / per_cell, number[CELL_A + k] / per_cell, int(state.why[k])
        if why != _NONE:
            at = int(state.limiting[k])
            _offer(state, command, k, solved_a, why, at, number[VALUE + k], number[MARGIN + k])
        if risen_a < solved_a:
            _offer(state, command, k, risen_a, _RISE, _NO_INDEX, solved_a, solved_a)
        # what is measured, and the string
        guard_a = number[GUARD_A + k] / per_cell
        if guard_a < rated_a * pulse:
            _offer(state, command, k, guard_a, _MEASURED_VOLTAGE, int(v_at), v, spare_v)
        if abs(c[PACK_V_EDGE + direction]) < _HUGE:
            pack_a = now_a + pack_spare_v / (number[STRING_OHM + horizon] * per_cell)
            _offer(state, command, k, pack_a, _PACK_VOLTAGE, _NO_INDEX, seen.pack_v, pack_spare_v)
        # derating
        if cold < _ONE and cold <= hot:
            spare_k = spare_at(config.polyline, over_degc, seen.degc_low, True)
            at = int(seen.sensor_low_at)
            _offer(state, command, k, rated_a * cold, _TEMPERATURE, at, seen.degc_low, spare_k)
        elif hot < _ONE:
            spare_k = spare_at(config.polyline, over_degc, seen.degc_high, False)
            at = int(seen.sensor_high_at)
            _offer(state, command, k, rated_a * hot, _TEMPERATURE, at, seen.degc_high, spare_k)
        if soc_share < _ONE:
            spare_soc = spare_at(config.polyline, over_soc, z, discharging)
            _offer(state, command, k, rated_a * soc_share, _SOC_DERATING, z_at, z, spare_soc)
        # what cannot be held for a shorter time cannot be held for a longer one
        if horizon > 0 and number[RESULT_A + k - 1] < number[RESULT_A + k]:
            _copy(state, command, k, k - 1)
        number[BASE_A + k] = number[RESULT_A + k]


@kernel
def _hold(state: PowerState, direction: int, wrong_at: int, command: CommandView) -> None:
    """Results of one direction while nothing is known to bound them by: as they were before.

    How long that may last is for the rows of lost data to say. `wrong_at`: a cell whose SoC is not a number, or -1.
    """
    number = state.number
    for k in range(direction * N_HORIZONS, (direction + 1) * N_HORIZONS):
        number[RESULT_A + k] = _HUGE
        _offer(state, command, k, number[BASE_A + k], _DATA, wrong_at, number[BLIND_S], _BLIND_MAX_S - number[BLIND_S])


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
    _weakest(config, state, estimator, estimator_state, seen, cell_degc, per_cell, discharge_a, charge_a, dt_s)
    _scan(config, state, estimator, estimator_state, cell_degc, discharge_a, charge_a, dt_s)
    soc = estimator_state.out[SOC * estimator_state.flags.shape[0] :]
    soc_low, soc_high, wrong_at = extremes(state.work, soc, n)
    low_at = place_of(soc, n, soc_low) if share_at(config.polyline, DISCHARGE_SOC, soc_low) < _ONE else -1
    high_at = place_of(soc, n, soc_high) if share_at(config.polyline, CHARGE_SOC, soc_high) < _ONE else -1
    least_v = f4(n) * c[V_EDGE] if limits_mode == MODE_TRANSPORT else _ZERO
    blind = wrong_at >= 0 or not (
        abs(seen.cell_v_low) < _HUGE
        and abs(seen.cell_v_high) < _HUGE
        and abs(seen.degc_low) < _HUGE
        and abs(seen.degc_high) < _HUGE
    )
    number[BLIND_S] = min(number[BLIND_S] + dt_s, _BLIND_MAX_S) if blind else _ZERO
    too_long = number[BLIND_S] >= _BLIND_MAX_S
    if abs(_pack_v(seen, n)) < _HUGE:
        number[HELD_V] = _pack_v(seen, n)
    for direction in range(2):
        stopped = reaction & (_NO_DISCHARGE if direction == 0 else _NO_CHARGE) != 0
        if stopped or too_long or limits_mode == MODE_RAMP:
            number[LEFT + direction] = max(number[LEFT + direction] - dt_s / c[RAMP_S], _ZERO)
        else:
            number[LEFT + direction] = _ONE
        left = number[LEFT + direction]
        sign = _ONE if direction == 0 else -_ONE
        i2t = i2t_discharge if direction == 0 else i2t_charge
        z, z_at = (soc_low, low_at) if direction == 0 else (soc_high, high_at)
        if blind:
            _hold(state, direction, wrong_at, command)
        else:
            _bound(config, state, seen, direction, per_cell, i2t, z, z_at, command)

        for horizon in range(N_HORIZONS):
            k = direction * N_HORIZONS + horizon
            if reaction & _DERATE != 0:
                _offer(state, command, k, number[RESULT_A + k] * c[DERATE], _FAULT, fault, c[DERATE], c[DERATE])
            if left < _ONE:
                why, at = (_FAULT, fault) if stopped else ((_DATA, wrong_at) if too_long else (_STATE, _NO_INDEX))
                _offer(state, command, k, number[RESULT_A + k] * left, why, at, left, left)
            if limits_mode == MODE_TRANSPORT and direction == 1:
                _offer(state, command, k, c[TRANSPORT_A], _STATE, _NO_INDEX, c[TRANSPORT_A], c[TRANSPORT_A])
            elif limits_mode != MODE_FULL and limits_mode != MODE_RAMP:
                _offer(state, command, k, _ZERO, _STATE, _NO_INDEX, f4(limits_mode), _ZERO)
            command.horizon_a[k] = number[RESULT_A + k]
            command.horizon_w[k] = _watts(state, seen, sign, number[RESULT_A + k], n, horizon, least_v)

        # in force now
        k = N_PAIRS + direction
        in_force = int(c[IN_FORCE])
        _copy(state, command, k, direction * N_HORIZONS + in_force)
        aim_a = number[RESULT_A + k]
        risen_a = number[NOW_A + direction] + c[RISE] * dt_s * c[RATED_A + direction]
        _offer(state, command, k, risen_a, _RISE, _NO_INDEX, aim_a, aim_a)
        number[NOW_A + direction] = number[RESULT_A + k]
        number[NOW_W + direction] = _watts(state, seen, sign, number[RESULT_A + k], n, in_force, least_v)
