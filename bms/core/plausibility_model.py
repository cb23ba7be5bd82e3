"""Which measured values contradict the estimator, and which of its estimates are none.

The innovation (measured less expected voltage) is common to all cells where the current is wrong, and one cell's own
where that cell or its wire is.

Every check gives the largest deviation and its place; NaN and -1 where there was nothing to compare.
"""

from __future__ import annotations

import numpy as np

from bms.core.current_gain import current_gain
from bms.core.empty import empty_v
from bms.core.estimator_layout import N_DEGC, N_SOC, NODE, OCV, EstimatorConfig
from bms.core.faults import Fault
from bms.core.first_look import lowest_at_start, ocv
from bms.core.jit import f4, kernel
from bms.core.missing_current import DOUBT_LESS, common_response, missing_current, remembered_doubt
from bms.core.open_wire import open_wire_beyond, risen
from bms.core.plausibility import elapsed, mean_factor, of_one_cell, put, still_rise, thermal, warmth
from bms.core.seen import Seen
from bms.core.signals_layout import (
    CALM,
    COMPARE_S,
    FAST_OHM,
    HELD,
    HELD_A,
    LEAST_CHANGE,
    MEAN_SLOW_V,
    MOVED_SOC,
    PER_CELL,
    RESIDUAL_TAU_S,
    REST_A,
    SAG_TAU_S,
    SENSORS_STILL_K,
    SPREAD_V_HIGH,
    SPREAD_V_LOW,
    USABLE,
    WENT_SOC,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, U1, U2

_NAN = f4(np.nan)
_ZERO = f4(0)
_REFERENCE_DEGC = f4(25)
_ABSURD_V = f4(100)
_ABSURD_SOC = f4(10)
_USUAL_V = f4(5e-3)
_FAR = f4(3)  # deviations of SoC
_MOST_SOC = f4(0.1)  # but no more: near an end the voltage tells the SoC soon
_MOST_SOC_OF_ALL = f4(0.15)
_FLOWS_SOC = f4(3e-3)
_PUT_BACK_V = f4(0.02)
_FULL_SOC, _INFINITE = f4(0.97), f4(np.inf)
_SUNK_V, _RISEN_AGAIN_V = f4(0.018), f4(0.012)
_SUNK_SLOWER = f4(6)
# of the resistance of a cell, by so much it may be above the others': for its temperature, and while it is not known
LOAD_SHARE, _UNKNOWN_SHARE = f4(0.15), f4(0.2)  # the second of the doubt of all
FULL_V, FULL_SOC = f4(0.02), f4(0.9)  # above the end of the flat: cells that differ by less are still on it
_FAR_V = f4(0.1)
_END_V = f4(1)  # a curve may do so much beyond its end
_LEAST_SOC = f4(0.03)  # as if so much had flowed one way, where it flowed to and fro
# resistances may be 2.5 times what they are taken for, before a rack that has aged is known, and hardly smaller
_DOUBT_MORE = f4(1.5)
_UNKNOWN_STD = f4(0.12)  # relative; what is published of a resistance before anything is known

_DEGC_FROZEN = int(Fault.TEMPERATURE_FROZEN)
_CURRENT_IMPLAUSIBLE, _CURRENT_GAIN, _CURRENT_OFFSET, _MODEL_RESIDUAL, _CELL_SAG, _TEMPERATURE_MODEL = (
    int(f)
    for f in (
        Fault.CURRENT_IMPLAUSIBLE,
        Fault.CURRENT_GAIN,
        Fault.CURRENT_OFFSET,
        Fault.MODEL_RESIDUAL,
        Fault.CELL_SAG,
        Fault.TEMPERATURE_MODEL,
    )
)
_OPEN_WIRE = int(Fault.OPEN_SENSE_WIRE)
_SOC_LOW, _SOC_HIGH, _SOC_UNCERTAIN, _ESTIMATE_INVALID = (
    int(f)
    for f in (
        Fault.SOC_LOW,
        Fault.SOC_HIGH,
        Fault.SOC_UNCERTAIN,
        Fault.ESTIMATE_INVALID,
    )
)


@kernel
def row_of(estimator: EstimatorConfig, degc: f4) -> int:
    """First number of the row of nodes nearest to `degc`."""
    k1 = estimator.scalars[0]
    if np.isnan(degc):
        degc = _REFERENCE_DEGC
    at = (degc - k1.degc_first) * k1.nodes_per_kelvin + f4(0.5)
    at = at if at > _ZERO else _ZERO
    return int(min(at, f4(N_DEGC - 1))) * (N_SOC * NODE)


@kernel
def explained(nodes: F4, row: int, soc: f4, soc_std: f4) -> f4:
    """How far the voltage may be off because the SoC is not known better: the larger side of the OCV curve."""
    here_v = ocv(nodes, row, soc)
    most_v: f4 = max(ocv(nodes, row, soc + soc_std) - here_v, here_v - ocv(nodes, row, soc - soc_std))
    return most_v


@kernel
def _anywhere(nodes: F4, row: int, soc: f4, off: f4) -> f4:
    """How far the voltage may be off if the SoC may be, by `off`: beyond an end the curve goes on as it ends."""
    last = row + (N_SOC - 1) * NODE
    per_soc = f4(N_SOC - 1)
    above_v = min(max(soc + off - f4(1), _ZERO), off) * (nodes[last + OCV] - nodes[last - NODE + OCV]) * per_soc
    below_v = min(max(off - soc, _ZERO), off) * (nodes[row + NODE + OCV] - nodes[row + OCV]) * per_soc
    here_v = ocv(nodes, row, soc)
    most_v: f4 = max(ocv(nodes, row, soc + off) + above_v - here_v, here_v - ocv(nodes, row, soc - off) + below_v)
    return most_v


@kernel
def bent(nodes: F4, row: int, soc: f4, off: f4, went: f4) -> f4:
    """By how much an SoC that is wrong by `off` shifts the voltage otherwise than it did `went` ago."""
    now_v = ocv(nodes, row, soc + off) - ocv(nodes, row, soc)
    then_v = ocv(nodes, row, soc - went + off) - ocv(nodes, row, soc - went)
    shift: f4 = abs(now_v - then_v)
    return shift


@kernel
def _near(
    innovation: F4, residual: F4, soc: F4, soc_std: F4, use: U1, n: int, centre_v: f4, own_centre_v: f4
) -> tuple[f4, f4]:
    """(mean innovation, mean of innovation less residual) of the cells within `_FAR_V` of the centre of each.

    The centre itself where these are less than three quarters of the `n` that are compared: on a steep curve it changes
    from step to step who is near, and the mean with it.
    """
    total_v, count, own_v, own_count = _ZERO, 0, _ZERO, 0
    for k in range(use.shape[0]):
        known = abs(soc[k]) < _ABSURD_SOC and abs(soc_std[k]) < _ABSURD_SOC
        if use[k] & CALM != 0 and known:
            off_v = innovation[k] - residual[k]
            if abs(innovation[k] - centre_v) <= _FAR_V:
                total_v += innovation[k]
                count += 1
            if abs(off_v - own_centre_v) <= _FAR_V:
                own_v += off_v
                own_count += 1
    return (
        total_v / f4(count) if 4 * count >= 3 * n else centre_v,
        own_v / f4(own_count) if 4 * own_count >= 3 * n else own_centre_v,
    )


@kernel
def _common(innovation: F4, residual: F4, soc: F4, soc_std: F4, use: U1) -> tuple[f4, f4, f4, f4, int]:
    """(mean innovation, the same less what is each cell's own, mean SoC, mean deviation, how many) of those to compare.

    All but the last are NaN where there is none.

    Which cells these are changes with what is bled: what is each cell's own must not look like a change of them all. Of
    either mean no cell is part that is more than `_FAR_V` from the mean without lowest and highest: what one of few
    cells does, all would seem to do.
    """
    total_v, own_v, total_soc, total_std, count = _ZERO, _ZERO, _ZERO, _ZERO, 0
    low_v, high_v, own_low_v, own_high_v = _ABSURD_V, -_ABSURD_V, _ABSURD_V, -_ABSURD_V
    for k in range(use.shape[0]):
        known = abs(soc[k]) < _ABSURD_SOC and abs(soc_std[k]) < _ABSURD_SOC
        if use[k] & CALM != 0 and abs(innovation[k]) < _ABSURD_V and known:
            off_v = innovation[k] - residual[k]
            total_v += innovation[k]
            own_v += off_v
            total_soc += soc[k]
            total_std += soc_std[k]
            low_v, high_v = min(low_v, innovation[k]), max(high_v, innovation[k])
            own_low_v, own_high_v = min(own_low_v, off_v), max(own_high_v, off_v)
            count += 1
    n = f4(count)
    mean_v, mean_own_v = total_v / n, own_v / n
    if count > 2:
        centre_v, own_centre_v = (
            (total_v - low_v - high_v) / (n - f4(2)),
            (own_v - own_low_v - own_high_v) / (n - f4(2)),
        )
        far_v = max(max(high_v - centre_v, centre_v - low_v), max(own_high_v - own_centre_v, own_centre_v - own_low_v))
        if far_v > _FAR_V:
            mean_v, mean_own_v = _near(innovation, residual, soc, soc_std, use, count, centre_v, own_centre_v)
    return mean_v, mean_own_v, total_soc / n, total_std / n, count


@kernel
def ranked(first_v: f4, second_v: f4, third_v: f4, volt: f4) -> tuple[f4, f4, f4]:
    """The three largest of four, of which the first three are in order."""
    if volt > first_v:
        return volt, first_v, second_v
    if volt > second_v:
        return first_v, volt, second_v
    return first_v, second_v, max(third_v, volt)


@kernel
def _residual(
    config: SignalConfig,
    state: SignalState,
    nodes: F4,
    row: int,
    innovation: F4,
    soc: F4,
    soc_std: F4,
    mean_v: f4,
    common_v: f4,
    cell_mean_v: f4,
    drop_v: f4,
    dt_s: f4,
) -> tuple[f4, int]:
    """(largest residual, its cell), beyond what the uncertainty of the SoC explains of it; and its average of minutes.

    Three deviations explain: of hundreds of cells one lies almost that far off, and a rack whose capacity is not known
    yet comes to the end of its curve with cells that are full where they are taken for 0.9.

    What a third cell does too is a wrong model, as near the ends of its curve, and is taken off twice. A cell that
    reads more than a full one where the mean cell, too, is above the flat of its curve is full before the others;
    `drop_v` is what the current takes off.

    The residual is the filtered innovation less `common_v`, which does not depend on the cells that can be compared
    just now; over minutes it is centred on `mean_v`. What is smaller than the errors of sensors and model is 0: the
    curve is asked for few cells only.
    """
    gain = dt_s / (config.number[RESIDUAL_TAU_S] + dt_s)
    slow = dt_s / (config.number[SAG_TAU_S] + dt_s)
    residual, usual, use = state.residual_v, state.usual_v, state.cell_use
    centre_v = slow * (mean_v - common_v)
    lowest_v = lowest_at_start(config, state, nodes, row, cell_mean_v, dt_s)
    for k in range(residual.shape[0]):
        if use[k] & CALM == 0 or not abs(innovation[k]) < _ABSURD_V:
            continue
        off_v = innovation[k] - common_v
        if np.isinf(state.sunk_soc[k]):
            # seen for the first time: where it lies now is its usual place
            residual[k] = off_v
            usual[k] = min(off_v, _USUAL_V)
            state.own_v[k] = innovation[k]
            state.apart_v[k] = state.cell_v[k] - cell_mean_v
            state.sunk_soc[k] = _NAN
        residual[k] += gain * (off_v - residual[k]) - centre_v
        # a cell that read too high for a while does not sink when it reads what it should again
        follow = slow / _SUNK_SLOWER if state.sunk_soc[k] == state.sunk_soc[k] else slow
        usual[k] += follow * (min(residual[k], _USUAL_V) - usual[k])
        state.own_v[k] += follow * (innovation[k] - state.own_v[k])
        state.apart_v[k] += follow * (state.cell_v[k] - cell_mean_v - state.apart_v[k])
        if state.cell_v[k] < lowest_v:
            usual[k] = max(usual[k], residual[k] + lowest_v - state.cell_v[k])
            state.own_v[k] = max(state.own_v[k], innovation[k] + lowest_v - state.cell_v[k])
            state.apart_v[k] = max(state.apart_v[k], lowest_v - cell_mean_v)
    filled = cell_mean_v + drop_v > config.number[SPREAD_V_HIGH]
    full_v = ocv(nodes, row, _FULL_SOC) - drop_v if filled else _INFINITE
    first_v, second_v, third_v, at = _ZERO, _ZERO, _ZERO, -1
    for k in range(residual.shape[0]):
        size_v = abs(residual[k]) if residual[k] < _ZERO or state.cell_v[k] < full_v else _ZERO
        known = abs(soc[k]) < _ABSURD_SOC and abs(soc_std[k]) < _ABSURD_SOC
        # of a cell that is bled now, what was seen before still holds
        if size_v > _USUAL_V and size_v > third_v and known and use[k] & USABLE != 0:
            size_v -= _anywhere(nodes, row, soc[k], _FAR * soc_std[k])
            at = k if size_v > first_v else at
            first_v, second_v, third_v = ranked(first_v, second_v, third_v, size_v)
    return max(first_v - third_v - third_v, _ZERO), at


@kernel
def _bled_mean(state: SignalState, model_v: F4) -> f4:
    """Mean of measured less expected voltage of the cells that are bled now, or beside one; NaN of fewer than two.

    The filter does not believe these voltages: what bleeding does to them is put back with some error, alike in all of
    them. Of the mean no cell is part that is more than `_FAR_V` from it.
    """
    mean_v, far_v = _ZERO, _ABSURD_V
    for _ in range(2):
        total_v, count = _ZERO, 0
        for k in range(model_v.shape[0]):
            off_v = state.cell_v[k] - model_v[k] - mean_v
            if state.cell_use[k] & (USABLE | CALM) == USABLE and abs(off_v) < far_v:
                total_v += off_v
                count += 1
        if count < 2:
            return _NAN
        mean_v += total_v / f4(count)
        far_v = _FAR_V
    return mean_v


@kernel
def _unexplained(
    state: SignalState,
    nodes: F4,
    row: int,
    sag_v: f4,
    soc: F4,
    soc_std: F4,
    k: int,
    went: f4,
    load_v: f4,
    end_v: f4,
    low_end_v: f4,
    cell_mean_v: f4,
    risen_v: f4,
) -> f4:
    """What remains of the sag of cell `k`, less what SoC, load, a broken wire and a misled filter explain; 0: nothing.

    On a straight curve an error of SoC shifts a cell once and for all; where it bends, as charge flows (`went`); and
    where it may lie beyond the end of the curve by up to `end_v` more. `risen_v`: of a neighbour.
    """
    off = min(_FAR * soc_std[k], _MOST_SOC)
    if state.cell_v[k] < low_end_v:
        sag_v -= _END_V
    elif not (soc[k] >= off and soc[k] + off <= f4(1)):
        sag_v -= end_v
    sag_v -= max(bent(nodes, row, soc[k], off, went), bent(nodes, row, soc[k], -off, went)) + load_v
    sag_v -= risen_v
    # a filter that believed a reading that was too high errs as well, but the cell is no lower than the others
    low_v = cell_mean_v - state.cell_v[k]
    if state.cell_use[k] & CALM != 0:
        # nor does it sink where the model of it rises
        low_v = min(low_v, low_v + state.apart_v[k])
    return min(sag_v, low_v + _USUAL_V + _USUAL_V)


@kernel
def _sag(
    state: SignalState,
    nodes: F4,
    row: int,
    model_v: F4,
    soc: F4,
    soc_std: F4,
    mean_v: f4,
    went: f4,
    load_v: f4,
    end_v: f4,
    low_end_v: f4,
    kept: f4,
    flows: f4,
    cell_mean_v: f4,
) -> tuple[f4, int]:
    """(largest sag, its cell): how far one cell has sunk below its average of minutes, less what explains it.

    A short inside draws current from its own cell alone. What a third cell does too is a wrong temperature, or the knee
    of a curve that the estimates have not foreseen, where the weaker cells go first: it is taken off twice, but less
    at rest (`flows` from 0 to 1), where neither shows.

    A hard short cannot wait until a cell is measured in peace: while it is bled, what is measured counts less
    `_PUT_BACK_V` against the others that are, or less `_FAR_V` against `mean_v` of those that are not (NaN where there
    are none).

    The filter of a shorted cell learns its sag as a loss of charge. Of a cell that has sunk by `_SUNK_V` the SoC that
    it has lost in the last minutes (`kept` is what a step leaves of it), against the mean cell, is not believed until
    it has risen again.
    """
    n = state.residual_v.shape[0]
    bled_v = _bled_mean(state, model_v[:n])
    total_soc, count = _ZERO, 0
    for k in range(n):
        known = abs(soc[k]) < _ABSURD_SOC
        total_soc += soc[k] if known else _ZERO
        count += int(known)
    mean_soc = total_soc / f4(max(count, 1))
    first_v, second_v, third_v, at = _ZERO, _ZERO, _ZERO, -1
    for k in range(n):
        sag_v = state.usual_v[k] - state.residual_v[k]
        if state.cell_use[k] & CALM == 0:
            now_v = state.usual_v[k] - (state.cell_v[k] - model_v[k])
            if bled_v == bled_v:
                sag_v = max(sag_v, now_v + bled_v - _PUT_BACK_V)
            if mean_v == mean_v:
                sag_v = max(sag_v, now_v + mean_v - _FAR_V)
        learnt_v = _ZERO
        known = abs(soc[k]) < _ABSURD_SOC and abs(soc_std[k]) < _ABSURD_SOC and state.cell_use[k] & HELD != 0
        sunk = abs(state.sunk_soc[k]) < _ABSURD_SOC
        if known and sunk:
            # what has been lost for long is lost
            learnt = (state.sunk_soc[k] - (soc[k] - mean_soc)) * kept
            state.sunk_soc[k] = soc[k] - mean_soc + learnt
            learnt = max(learnt, _ZERO)
            learnt_v = ocv(nodes, row, soc[k] + learnt) - ocv(nodes, row, soc[k])
            sag_v += learnt_v
        # where the others reach the end of their curve before it is expected they rise, and no cell sinks
        sunk_v = state.own_v[k] - (state.cell_v[k] - model_v[k]) + learnt_v
        sag_v = min(sag_v, sunk_v + (_USUAL_V if state.cell_use[k] & CALM != 0 else _PUT_BACK_V))
        if known and (sunk or (sag_v > _USUAL_V and sag_v > third_v)):
            risen_v = risen(state, model_v, mean_v, bled_v, k)
            sag_v = _unexplained(
                state, nodes, row, sag_v, soc, soc_std, k, went, load_v, end_v, low_end_v, cell_mean_v, risen_v
            )
            if not sunk and sag_v > _SUNK_V:
                state.sunk_soc[k] = soc[k] - mean_soc
            elif sag_v < _RISEN_AGAIN_V:
                state.sunk_soc[k] = _NAN
            at = k if sag_v > first_v else at
            first_v, second_v, third_v = ranked(first_v, second_v, third_v, sag_v)
    return max(first_v - third_v * flows * f4(2), _ZERO), at


@kernel
def _estimates(soc: F4, soc_std: F4, n: int, value: F4, where: U2) -> None:
    """Extremes of the estimates, and how many are none."""
    low, high, deviation = f4(np.inf), f4(-np.inf), f4(-np.inf)
    low_at, high_at, deviation_at, invalid_at, invalid = -1, -1, -1, -1, 0
    for k in range(n):
        z, std = soc[k], soc_std[k]
        # x - x is 0 for every number, and NaN for infinities
        if z - z != _ZERO or std - std != _ZERO:
            invalid += 1
            if invalid_at < 0:
                invalid_at = k
            continue
        if z < low:
            low = z
            low_at = k
        if z > high:
            high = z
            high_at = k
        if std > deviation:
            deviation = std
            deviation_at = k
    put(value, where, _SOC_LOW, low if low_at >= 0 else _NAN, low_at)
    put(value, where, _SOC_HIGH, high if high_at >= 0 else _NAN, high_at)
    put(value, where, _SOC_UNCERTAIN, deviation if deviation_at >= 0 else _NAN, deviation_at)
    put(value, where, _ESTIMATE_INVALID, f4(invalid), invalid_at)


@kernel
def mean_of(values: F4, n: int) -> f4:
    """Mean of the first `n`."""
    total = _ZERO
    for k in range(n):
        total += values[k]
    return total / f4(n)


@kernel
def _more(resistance: F4, resistance_std: F4) -> f4:
    """By which share the resistance may be larger than it is taken for: less, the better it is known."""
    total, deviation = _ZERO, _ZERO
    for k in range(resistance.shape[0]):
        total += resistance[k]
        deviation += resistance_std[k]
    left = deviation / (total * _UNKNOWN_STD)
    return min(max(_DOUBT_MORE * left, DOUBT_LESS), _DOUBT_MORE) if left >= _ZERO else _DOUBT_MORE


@kernel
def load_share(resistance: F4, resistance_std: F4) -> f4:
    """Which share of the drop of the mean cell one may have more: for its temperature, and while it is not known."""
    share: f4 = LOAD_SHARE + _UNKNOWN_SHARE * (_more(resistance, resistance_std) - DOUBT_LESS)
    return share


@kernel
def judge(
    config: SignalConfig,
    state: SignalState,
    estimator: EstimatorConfig,
    seen: Seen,
    innovation: F4,
    model_v: F4,
    soc: F4,
    soc_std: F4,
    bias_a: f4,
    resistance: F4,
    resistance_std: F4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> None:
    """After the estimator's step: compare the measurements with what it expected, and look at its estimates.

    `innovation`, `model_v`, `soc`, `soc_std`: f4, a place for each cell at least; `bias_a` is of the current of a
    cell; `resistance`, `resistance_std` f4[n_cells], relative. Writes the values of CURRENT_IMPLAUSIBLE, CURRENT_GAIN,
    CURRENT_OFFSET, MODEL_RESIDUAL, CELL_SAG, TEMPERATURE_MODEL, ESTIMATE_INVALID and SOC_*, and that of
    TEMPERATURE_FROZEN where all sensors stand still while the cells must have become warmer.

    The current that the cells' common response asks for is that response over the resistance that answers within
    seconds. The model is wrong by tens of millivolts near the ends of SoC, but slowly, so that only what the response
    does within half a minute counts. Where the OCV curve is steep a small error of SoC is a large one of voltage: what
    one standard deviation of SoC explains is taken off first, of the mean cell's response as of each cell's own; three,
    up to 15 %, where these reach the end of the curve towards which the charge flows.
    """
    dt_s = elapsed(dt_s)
    c = config.number
    factor = mean_factor(resistance)
    row = row_of(estimator, seen.degc_mean)
    mean_v, common_v, mean_soc, mean_std, count = _common(innovation, state.residual_v, soc, soc_std, state.cell_use)
    missing_a, wrong, residual_v, at = _NAN, _NAN, _NAN, -1
    number = state.number
    number[COMPARE_S] += dt_s
    gone = -number[HELD_A] * c[PER_CELL] * estimator.scalars[0].rate * dt_s
    kept = c[SAG_TAU_S] / (c[SAG_TAU_S] + dt_s)
    number[WENT_SOC] = (number[WENT_SOC] + gone) * kept
    number[MOVED_SOC] = (number[MOVED_SOC] + abs(gone)) * kept
    least = min(number[MOVED_SOC], _LEAST_SOC)
    went = max(number[WENT_SOC], least) if number[WENT_SOC] >= _ZERO else min(number[WENT_SOC], -least)
    ohm = c[FAST_OHM] * factor * warmth(config, seen.degc_mean)
    most_a = max(number[MOVED_SOC] / (c[SAG_TAU_S] * estimator.scalars[0].rate), abs(number[HELD_A]) * c[PER_CELL])
    doubt = _more(resistance, resistance_std)
    load_v = load_share(resistance, resistance_std) * ohm * most_a
    if not np.isnan(seen.cell_v_mean):
        if number[MEAN_SLOW_V] == _ZERO:  # it has not been seen yet
            number[MEAN_SLOW_V] = seen.cell_v_mean
        number[MEAN_SLOW_V] = seen.cell_v_mean + kept * (number[MEAN_SLOW_V] - seen.cell_v_mean)
        if seen.cell_v_mean < c[SPREAD_V_LOW] or seen.cell_v_mean > c[SPREAD_V_HIGH]:
            # towards an end all fall or rise, and the weaker ones first
            load_v += LOAD_SHARE * abs(seen.cell_v_mean - number[MEAN_SLOW_V])
    end_v = _END_V * least / _LEAST_SOC
    nodes = estimator.nodes
    drop_v = ohm * number[HELD_A] * c[PER_CELL]
    if count > 0:
        residual_v, at = _residual(
            config, state, nodes, row, innovation, soc, soc_std, mean_v, common_v, seen.cell_v_mean, drop_v, dt_s
        )
    all_v, all_soc, all_std = common_response(config, state, model_v, soc, soc_std, common_v, mean_soc, mean_std, count)
    if all_v == all_v and not np.isnan(seen.current_a):
        since_s = elapsed(number[COMPARE_S])
        number[COMPARE_S] = _ZERO
        far = min(_FAR * all_std, _MOST_SOC_OF_ALL)
        upper, lower = all_soc + far > f4(1) - _LEAST_SOC, all_soc - far < _LEAST_SOC
        to_an_end = (number[WENT_SOC] > _FLOWS_SOC and upper) or (number[WENT_SOC] < -_FLOWS_SOC and lower)
        soc_doubt_v = explained(nodes, row, all_soc, far if to_an_end else all_std)
        doubt_v = remembered_doubt(config, state, soc_doubt_v, since_s)
        missing_a = missing_current(config, state, seen.current_a, all_v, doubt_v, ohm, doubt, since_s)
        wrong, hidden_a = current_gain(
            config,
            state,
            estimator,
            row,
            seen.degc_mean,
            seen.current_a,
            all_v + mean_of(model_v, state.residual_v.shape[0]),
            all_soc,
            all_std,
            factor,
            doubt,
            since_s,
        )
        missing_a = max(missing_a, hidden_a)
    put(value, where, _CURRENT_IMPLAUSIBLE, missing_a, -1)
    put(value, where, _CURRENT_GAIN, wrong, -1)
    put(value, where, _CURRENT_OFFSET, abs(bias_a) / c[PER_CELL], -1)
    put(value, where, _MODEL_RESIDUAL, residual_v, at)
    if value[_OPEN_WIRE] > _FAR_V:
        apart_v, at = open_wire_beyond(state.cell_v, state.cell_use, seen.cell_v_mean, nodes, row, model_v, mean_soc)
        put(value, where, _OPEN_WIRE, apart_v, at)
    flows = min(max(least / _LEAST_SOC, abs(number[HELD_A]) / c[REST_A]), f4(1))
    sag_v, sunk_at = _sag(
        state,
        nodes,
        row,
        model_v,
        soc,
        soc_std,
        mean_v,
        went,
        load_v,
        end_v,
        empty_v(config, state, nodes, row, seen.cell_v_mean, number[WENT_SOC], drop_v),
        kept,
        flows,
        seen.cell_v_mean,
    )
    sag_v = max(sag_v - state.cell_looks[LEAST_CHANGE], _ZERO)  # no more is known than what a reading can show
    put(value, where, _CELL_SAG, of_one_cell(config, sag_v, seen.degc_mean, flows), sunk_at)
    error, sensor = thermal(config, state, seen, factor, dt_s)
    put(value, where, _TEMPERATURE_MODEL, error, sensor)
    rise_k = still_rise(config, state, seen, factor, dt_s) - state.degc_looks[LEAST_CHANGE]
    if rise_k > c[SENSORS_STILL_K] and not rise_k <= value[_DEGC_FROZEN]:
        put(value, where, _DEGC_FROZEN, rise_k, -1)
    _estimates(soc, soc_std, state.residual_v.shape[0], value, where)
