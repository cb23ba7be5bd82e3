"""What is measured, looked through once: which values may be used, for how long the others have been missing, and what
the faults see that need nothing but the measurement.

A value may be used if its quality is good, it is a number inside the range of its sensor, and its age, together with
the time since the last new sample, is small enough. What may not be used keeps its last usable value where somebody
needs one, while the time without it counts; for a moment it still counts among the extremes, so that a single lost
sample changes nothing. What is there again is used at once, but the time without it fades only: a source that is
missing half of the time is told, one that loses a sample now and then is not.

A cell that was being bled when it was measured, or next to one, shows its voltage less the drop over shared sense
wires. Where their resistance is known the drop is put back. Such cells are watched for over- and under-voltage and for
spread, but the estimator and the finer comparisons between cells do without them.

A source that the rack does not have is never lost (0), and what it would tell is not known (NaN).
"""

from __future__ import annotations

import numpy as np

from bms.core.faults import Fault
from bms.core.jit import f4, kernel
from bms.core.open_wire import open_wire
from bms.core.plausibility import elapsed, extremes, frozen, neighbours, put, rise
from bms.core.seen import Seen
from bms.core.signals_layout import (
    BUS_LOST_S,
    BUS_V_HIGH,
    BUS_V_LOW,
    CALM,
    CELL_FADE_S,
    CELL_V_HIGH,
    CELL_V_LOW,
    CELLS_PER_CHIP,
    CURRENT_STILL_AFTER_S,
    DEGC_FADE_S,
    DEGC_HIGH,
    DEGC_LOW,
    FEEDBACK_LOST_S,
    GAS_LOST_S,
    HAS_CONTACTORS,
    HAS_GAS,
    HAS_PRECHARGE,
    HELD,
    HELD_A,
    HOLD_S,
    LEAST_CHANGE,
    MAX_AGE_S,
    MOVED,
    PACK_LOST_S,
    PACK_V_HIGH,
    PACK_V_LOW,
    PERIOD_S,
    REST_A,
    SAMPLE_AGE_S,
    SEEN,
    SENSE_SHARE,
    SEQUENCE,
    SPREAD_A,
    SPREAD_V_HIGH,
    SPREAD_V_LOW,
    START_DEGC,
    SUM_FLOOR_V,
    USABLE,
    SignalConfig,
    SignalState,
)
from bms.core.sources import (
    OUTSIDE,
    PRESENT,
    count_lost,
    fading,
    read_bleeding,
    read_coolant,
    read_current,
    read_insulation,
    source_state,
)
from bms.core.stillness import lifeless_cell, lifeless_sensor
from bms.core.string_sag import string_sag
from bms.core.views import MeasurementView
from hal.contract import F4, U1, U2, Contactor, Quality

_NAN = f4(np.nan)
_ZERO = f4(0)
_ONE = f4(1)
_JUMP_K_PER_S = f4(10)  # no heat makes a sensor rise so fast; nor at once, however short a step is
_LESS_AT_ENDS = f4(0.5)
_STALE = np.uint8(Quality.STALE)
_OUT_OF_RANGE = int(Quality.OUT_OF_RANGE)
_STILL_SHARE = f4(0.2)  # a few equal samples are chance, however far apart they are
_ALL_CONTACTORS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE)

# plain integers, because kernels know no enumerations
_F = Fault
_OVERVOLTAGE, _UNDERVOLTAGE, _DEEP = int(_F.CELL_OVERVOLTAGE), int(_F.CELL_UNDERVOLTAGE), int(_F.DEEP_DISCHARGE)
_PACK_OVER, _PACK_UNDER, _SPREAD = int(_F.PACK_OVERVOLTAGE), int(_F.PACK_UNDERVOLTAGE), int(_F.VOLTAGE_SPREAD)
_CHARGE_HOT, _DISCHARGE_HOT = int(_F.CHARGE_HOT), int(_F.DISCHARGE_HOT)
_CHARGE_COLD, _DISCHARGE_COLD = int(_F.CHARGE_COLD), int(_F.DISCHARGE_COLD)
_RISE, _DEGC_SPREAD = int(_F.TEMPERATURE_RISE), int(_F.TEMPERATURE_SPREAD)
_INTERLOCK, _STOP, _GAS = int(_F.INTERLOCK_OPEN), int(_F.EMERGENCY_STOP), int(_F.GAS_ALARM)
_CELL_LOST, _DEGC_LOST = int(_F.CELL_VOLTAGE_LOST), int(_F.TEMPERATURE_LOST)
_PACK_LOST, _BUS_LOST, _FEEDBACK_LOST = int(_F.PACK_VOLTAGE_LOST), int(_F.BUS_VOLTAGE_LOST), int(_F.FEEDBACK_LOST)
_GAS_LOST = int(_F.GAS_LOST)
_SAMPLE_LOST, _DEADLINE = int(_F.SAMPLE_LOST), int(_F.DEADLINE_MISSED)
_OPEN_WIRE, _CELL_FROZEN = int(_F.OPEN_SENSE_WIRE), int(_F.CELL_VOLTAGE_FROZEN)
_DEGC_FROZEN = int(_F.TEMPERATURE_FROZEN)
_SUM, _STRING_SAG, _NEIGHBOUR = int(_F.SUM_IMPLAUSIBLE), int(_F.STRING_SAG), int(_F.TEMPERATURE_NEIGHBOUR)
_RANGE, _INVALID = int(_F.VALUE_OUT_OF_RANGE), int(_F.FEEDBACK_INVALID)


@kernel
def signals_init(config: SignalConfig, state: SignalState) -> None:
    """Fresh memory: nothing seen yet, every cell taken to have the start temperature. All of `state` is written."""
    state.number[:] = _ZERO
    state.cell_v[:] = _NAN
    state.cell_read_v[:] = _NAN
    state.cell_lost_s[:] = _ZERO
    state.cell_still_s[:] = _ZERO
    state.cell_doubt[:] = _ZERO
    state.cell_looks[:] = _ZERO
    state.cell_last_v[:] = _NAN
    state.cell_change_v[:] = _NAN
    state.cell_missed_s[:] = _ZERO
    state.cell_mean_v[:] = _NAN
    state.residual_v[:] = _ZERO
    state.usual_v[:] = _ZERO
    state.own_v[:] = _ZERO
    state.apart_v[:] = _ZERO
    state.sunk_soc[:] = f4(np.inf)
    state.cell_degc[:] = config.number[START_DEGC]
    state.degc[:] = config.number[START_DEGC]
    state.degc_lost_s[:] = _ZERO
    state.degc_still_s[:] = _ZERO
    state.degc_doubt[:] = _ZERO
    state.degc_looks[:] = _ZERO
    state.degc_last[:] = _NAN
    state.degc_change[:] = _NAN
    state.degc_missed_s[:] = _ZERO
    state.degc_mean[:] = _NAN
    state.degc_fast[:] = _NAN
    state.degc_slow[:] = _NAN
    state.degc_model[:] = _NAN
    state.degc_error[:] = _ZERO
    state.word[:] = np.uint32(0)
    state.cell_use[:] = np.uint8(0)
    state.cell_quality[:] = _STALE
    state.sensor_use[:] = np.uint8(0)


@kernel
def _sample_age(state: SignalState, sequence: int, dt_s: f4) -> f4:
    """Time since the rack delivered a new sample, s."""
    if state.word[SEEN] != 0 and state.word[SEQUENCE] == sequence:
        state.number[SAMPLE_AGE_S] += dt_s
    else:
        state.number[SAMPLE_AGE_S] = _ZERO
    state.word[SEEN] = np.uint32(1)
    state.word[SEQUENCE] = np.uint32(sequence)
    age_s: f4 = state.number[SAMPLE_AGE_S]
    return age_s


@kernel
def _mark_bleeding(use: U1, asked: U1) -> int:
    """Write to `use` 1 for every cell that is being bled or next to one; returns how many are being bled."""
    n = use.shape[0]
    bled = 0
    for k in range(n):
        use[k] = np.uint8(asked[k] != 0)
        bled += int(asked[k] != 0)
    if bled > 0:
        for k in range(n - 1):
            use[k] |= np.uint8(asked[k + 1] != 0)
        for k in range(n - 1):
            use[k + 1] |= np.uint8(asked[k] != 0)
    return bled


@kernel
def _read_cells(
    cell_v: F4,
    age_s: F4,
    quality: U1,
    held_v: F4,
    read_v: F4,
    lost_s: F4,
    still_s: F4,
    missed_s: F4,
    then_v: F4,
    use: U1,
    told: U1,
    low: f4,
    high: f4,
    limit_s: f4,
    hold_s: f4,
    left: f4,
    least_s: f4,
    dt_s: f4,
    most_still_s: f4,
) -> tuple[int, int, int]:
    """Take over the usable voltages: (how many, how many outside their range, how many that were missing of late).

    `use` is 1 where a cell is disturbed; `then_v` becomes NaN where the value has changed, of a longer step only
    `most_still_s` count as without change; `left`, `least_s` as `sources.fading` has them. One pass without branches.
    """
    outside, n_usable, n_missed = 0, 0, 0
    step_s = min(dt_s, most_still_s)
    for k in range(use.shape[0]):
        v = cell_v[k]
        inside = (v >= low) & (v <= high)
        fresh = (quality[k] == 0) & (abs(age_s[k]) <= limit_s)
        usable = inside & fresh
        outside += int((fresh & (not inside)) | (quality[k] & _OUT_OF_RANGE != 0))
        calm = usable & (use[k] == 0)
        n_usable += int(usable)
        same = usable & (v == read_v[k])
        still_s[k] = still_s[k] + step_s if same else _ZERO
        then_v[k] = then_v[k] if same else _NAN
        read_v[k] = v if usable else read_v[k]
        held_v[k] = v if usable else held_v[k]
        lost_s[k] = _ZERO if usable else lost_s[k] + dt_s
        faded_s = missed_s[k] * left
        faded_s = faded_s if faded_s > least_s else _ZERO
        missed_s[k] = faded_s if usable else missed_s[k] + dt_s
        n_missed += int(missed_s[k] > _ZERO)
        # what was never there is not held
        held = (lost_s[k] <= hold_s) & (read_v[k] == read_v[k])
        told[k] = np.uint8(0) if calm else quality[k] | _STALE
        use[k] = np.uint8(usable) + np.uint8(2) * np.uint8(calm) + np.uint8(4) * np.uint8(held)
    return n_usable, outside, n_missed


@kernel
def _bleed_v(asked: U1, read_v: F4, k: int) -> f4:
    """The voltage that drives current through the bleed resistor of cell `k`; 0 where it is off."""
    v = read_v[k]
    return v if asked[k] != 0 and abs(v) >= _ZERO else _ZERO


@kernel
def _put_back(cell_v: F4, read_v: F4, use: U1, asked: U1, share: f4, cells_per_chip: int) -> None:
    """Put back what bleeding takes off the voltages: `share` is the resistance of a wire over that of a resistor.

    Between two cells of a chip there is one wire for both: cell k reads v_k - R (2 I_k - I_{k-1} - I_{k+1}). The wires
    at a chip's ends carry the current of its own cell alone.
    """
    n = use.shape[0]
    for first in range(0, n, cells_per_chip):
        last = min(first + cells_per_chip, n) - 1
        for k in range(first, last + 1):
            if use[k] & USABLE != 0:
                drop_v = f4(2) * _bleed_v(asked, read_v, k)
                if k > first:
                    drop_v -= _bleed_v(asked, read_v, k - 1)
                if k < last:
                    drop_v -= _bleed_v(asked, read_v, k + 1)
                cell_v[k] = read_v[k] + share * drop_v


@kernel
def _read_sensors(
    degc: F4,
    age_s: F4,
    quality: U1,
    held: F4,
    lost_s: F4,
    still_s: F4,
    fast: F4,
    slow: F4,
    then: F4,
    use: U1,
    low: f4,
    high: f4,
    limit_s: f4,
    hold_s: f4,
    dt_s: f4,
) -> tuple[int, int, int]:
    """Take over the usable temperatures: (how many, how many outside their range, how many that have changed).

    `fast` and `slow`, which follow it for the rise, are NaN before there was one, and jump with it where no heat could
    make it rise or fall so far since it was last seen. `hold_s` is counted from the sample before this one, as
    `lost_s` is here.
    """
    outside, n_usable, moved = 0, 0, 0
    for k in range(use.shape[0]):
        t = degc[k]
        inside = (t >= low) & (t <= high)
        fresh = (quality[k] == 0) & (abs(age_s[k]) <= limit_s)
        usable = inside & fresh
        outside += int((fresh & (not inside)) | (quality[k] & _OUT_OF_RANGE != 0))
        n_usable += int(usable)
        same = usable & (t == held[k])
        moved += int(usable & (not same))
        still_s[k] = still_s[k] + dt_s if same else _ZERO
        then[k] = then[k] if same else _NAN
        since_s = lost_s[k] + dt_s
        most_k = _JUMP_K_PER_S * (since_s if since_s > _ONE else _ONE)
        jump_k = t - held[k] if usable & (abs(t - held[k]) > most_k) else _ZERO
        fast[k] += jump_k
        slow[k] += jump_k
        held[k] = t if usable else held[k]
        hold = usable | ((lost_s[k] <= hold_s) & (fast[k] == fast[k]))
        use[k] = np.uint8(usable) + np.uint8(4) * np.uint8(hold)
    return n_usable, outside, moved


@kernel
def _longest(lost_s: F4) -> tuple[f4, int]:
    """The longest time, and where; nowhere if it is 0."""
    longest, at = _ZERO, -1
    for k in range(lost_s.shape[0]):
        if lost_s[k] > longest:
            longest = lost_s[k]
            at = k
    return longest, at


@kernel
def _first_outside(cell_v: F4, age_s: F4, quality: U1, low: f4, high: f4, limit_s: f4) -> int:
    """The first cell whose value lies outside its range, or -1."""
    at = -1
    for k in range(cell_v.shape[0] - 1, -1, -1):
        if source_state(cell_v[k], int(quality[k]), age_s[k], limit_s, low, high) == OUTSIDE:
            at = k
    return at


@kernel
def _temperatures(
    config: SignalConfig, state: SignalState, m: MeasurementView, limit_s: f4, value: F4, where: U2, dt_s: f4
) -> tuple[f4, f4, f4, int, int, int, int]:
    """(lowest, highest, mean, where lowest, where highest, how many usable, how many outside their range)."""
    c = config.number
    n_usable, outside, moved = _read_sensors(
        m.sensor_degc,
        m.sensor_degc_age_s,
        m.sensor_degc_quality,
        state.degc,
        state.degc_lost_s,
        state.degc_still_s,
        state.degc_fast,
        state.degc_slow,
        state.degc_mean,
        state.sensor_use,
        c[DEGC_LOW],
        c[DEGC_HIGH],
        limit_s,
        c[HOLD_S] - dt_s,
        dt_s,
    )
    state.word[MOVED] = np.uint32(moved)
    low, high, total, n_held, low_at, high_at = extremes(state.degc, state.sensor_use, HELD)
    mean = total / f4(n_held)  # NaN where there is none
    fastest, fastest_at = rise(config, state, state.degc_lost_s, dt_s)
    left, least_s = fading(c[DEGC_FADE_S], dt_s)
    for k in range(state.degc_lost_s.shape[0]):
        usable = state.sensor_use[k] & USABLE != 0
        faded_s = state.degc_missed_s[k] * left
        faded_s = faded_s if faded_s > least_s else _ZERO
        state.degc_lost_s[k] = _ZERO if usable else state.degc_lost_s[k] + dt_s
        state.degc_missed_s[k] = faded_s if usable else state.degc_missed_s[k] + dt_s
    lost_s, lost_at = _longest(state.degc_missed_s)
    still, still_at = frozen(state.degc_mean, state.sensor_use, USABLE, mean, state.degc_looks[LEAST_CHANGE])
    unseen_k, unseen_at = lifeless_sensor(state, dt_s)
    if unseen_k > _ZERO and not unseen_k <= still:
        still, still_at = unseen_k, unseen_at
    apart, apart_at = neighbours(state.degc, state.sensor_use)
    put(value, where, _CHARGE_HOT, high, high_at)
    put(value, where, _DISCHARGE_HOT, high, high_at)
    put(value, where, _CHARGE_COLD, low, low_at)
    put(value, where, _DISCHARGE_COLD, low, low_at)
    put(value, where, _RISE, fastest, fastest_at)
    put(value, where, _DEGC_SPREAD, high - low, high_at if high - mean > mean - low else low_at)
    put(value, where, _DEGC_LOST, lost_s, lost_at)
    put(value, where, _DEGC_FROZEN, still, still_at)
    put(value, where, _NEIGHBOUR, apart, apart_at)
    for k in range(state.cell_degc.shape[0]):
        state.cell_degc[k] = state.degc[config.sensor_of_cell[k]]
    return low, high, mean, low_at, high_at, n_usable, outside


@kernel
def _cells(
    config: SignalConfig,
    state: SignalState,
    m: MeasurementView,
    bleeding_asked: U1,
    resting: bool,
    limit_s: f4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> tuple[f4, f4, f4, f4, int, int, int, int]:
    """(lowest, highest, mean, sum, where lowest, where highest, how many usable, how many outside their range).

    The sum is NaN unless every cell is usable.
    """
    c = config.number
    low, high = c[CELL_V_LOW], c[CELL_V_HIGH]
    bled = _mark_bleeding(state.cell_use, bleeding_asked)
    left, least_s = fading(c[CELL_FADE_S], dt_s)
    n_usable, outside, n_missed = _read_cells(
        m.cell_v,
        m.cell_v_age_s,
        m.cell_v_quality,
        state.cell_v,
        state.cell_read_v,
        state.cell_lost_s,
        state.cell_still_s,
        state.cell_missed_s,
        state.cell_mean_v,
        state.cell_use,
        state.cell_quality,
        low,
        high,
        limit_s,
        c[HOLD_S],
        left,
        least_s,
        dt_s,
        _STILL_SHARE * c[CURRENT_STILL_AFTER_S],
    )
    if bled > 0:
        chip = max(int(c[CELLS_PER_CHIP]), 1)
        _put_back(state.cell_v, state.cell_read_v, state.cell_use, bleeding_asked, c[SENSE_SHARE], chip)
    outside_at = -1
    if outside > 0:
        outside_at = _first_outside(m.cell_v, m.cell_v_age_s, m.cell_v_quality, low, high, limit_s)
    put(value, where, _RANGE, f4(outside), outside_at)
    v_low, v_high, total, n_held, low_at, high_at = extremes(state.cell_v, state.cell_use, HELD)
    mean_v = total / f4(n_held)
    lost_s, lost_at = _ZERO, -1
    if n_missed > 0:
        lost_s, lost_at = _longest(state.cell_missed_s)
    if n_usable < state.cell_v.shape[0]:
        total = _NAN
    # of all cells, bled or not: a mean over fewer would move when bleeding begins
    still_v, still_at = frozen(state.cell_mean_v, state.cell_use, CALM, mean_v, state.cell_looks[LEAST_CHANGE])
    # at the ends of its window a healthy rack spreads widely: there the mean cell says less of each
    flat = mean_v >= c[SPREAD_V_LOW] and mean_v <= c[SPREAD_V_HIGH]
    still_v *= _ONE if flat else _LESS_AT_ENDS
    unseen_v, unseen_at = lifeless_cell(config, state, dt_s)
    if unseen_v > _ZERO and not unseen_v <= still_v:
        still_v, still_at = unseen_v, unseen_at
    apart_v, apart_at = open_wire(state.cell_v, state.cell_use, mean_v)
    put(value, where, _OVERVOLTAGE, v_high, high_at)
    put(value, where, _UNDERVOLTAGE, v_low, low_at)
    put(value, where, _DEEP, v_low, low_at)
    put(
        value,
        where,
        _SPREAD,
        v_high - v_low if resting and flat else _NAN,
        high_at if v_high - mean_v > mean_v - v_low else low_at,
    )
    put(value, where, _CELL_LOST, lost_s, lost_at)
    put(value, where, _CELL_FROZEN, still_v, still_at)
    put(value, where, _OPEN_WIRE, apart_v, apart_at)
    return v_low, v_high, mean_v, total, low_at, high_at, n_usable, outside


@kernel
def inspect(
    config: SignalConfig,
    state: SignalState,
    measurement: MeasurementView,
    bleeding_asked: U1,
    limit_discharge_a: f4,
    limit_charge_a: f4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> Seen:
    """Look through a measurement, first of all in a step; returns what the other parts need to know of it.

    `bleeding_asked` u1[n_cells] and the two limits, magnitudes in A, are those of the last step, which the measurement
    has been taken under. Afterwards `state.cell_quality` is what the estimator is to be told of each voltage, and
    `state.cell_degc` its temperature. Nothing that is measured stops it: see the faults' `value` and `where`.
    """
    c = config.number
    head = measurement.head[0]
    put(value, where, _DEADLINE, dt_s / c[PERIOD_S], -1)
    dt_s = elapsed(dt_s)
    sample_age_s = _sample_age(state, head["sequence"], dt_s)
    put(value, where, _SAMPLE_LOST, sample_age_s, -1)
    # an unchanged sample ages with us: subtracting from the limit is adding to every age
    limit_s = c[MAX_AGE_S] - sample_age_s
    fresh = bool(limit_s >= _ZERO)

    current_a, source = read_current(
        config, state, head, limit_s, limit_discharge_a, limit_charge_a, value, where, dt_s
    )
    complete = source == PRESENT
    outside = int(source == OUTSIDE)

    v_low, v_high, v_mean, sum_v, v_low_at, v_high_at, n_usable, n_outside = _cells(
        config, state, measurement, bleeding_asked, bool(abs(current_a) < c[SPREAD_A]), limit_s, value, where, dt_s
    )
    complete = complete and n_usable == state.cell_v.shape[0]
    outside += n_outside

    degc_low, degc_high, degc_mean, degc_low_at, degc_high_at, n_usable, n_outside = _temperatures(
        config, state, measurement, limit_s, value, where, dt_s
    )
    complete = complete and n_usable == state.degc.shape[0]
    outside += n_outside

    source = source_state(
        head["pack_v"], int(head["pack_v_quality"]), head["pack_v_age_s"], limit_s, c[PACK_V_LOW], c[PACK_V_HIGH]
    )
    pack_v = head["pack_v"] if source == PRESENT else sum_v
    complete = complete and source == PRESENT
    outside += int(source == OUTSIDE)
    put(value, where, _PACK_LOST, count_lost(config, state, PACK_LOST_S, source == PRESENT, dt_s), -1)
    put(value, where, _PACK_OVER, pack_v, -1)
    put(value, where, _PACK_UNDER, pack_v, -1)
    put(value, where, _SUM, abs(sum_v - pack_v) / max(abs(pack_v), c[SUM_FLOOR_V]) if source == PRESENT else _NAN, -1)

    sag_v, sunk_at = string_sag(config, state, pack_v if source == PRESENT else _NAN, sum_v, current_a, dt_s)
    put(value, where, _STRING_SAG, sag_v, sunk_at)

    bus_v = _NAN
    put(value, where, _BUS_LOST, _ZERO, -1)
    if config.has[HAS_PRECHARGE] != 0:
        source = source_state(
            head["bus_v"], int(head["bus_v_quality"]), head["bus_v_age_s"], limit_s, c[BUS_V_LOW], c[BUS_V_HIGH]
        )
        if source == PRESENT:
            bus_v = head["bus_v"]
        complete = complete and source == PRESENT
        outside += int(source == OUTSIDE)
        put(value, where, _BUS_LOST, count_lost(config, state, BUS_LOST_S, source == PRESENT, dt_s), -1)

    source, insulated = read_insulation(config, state, head, sample_age_s, value, where, dt_s)
    complete = complete and insulated
    outside += int(source == OUTSIDE)
    coolant_degc, n_outside = read_coolant(config, state, head, limit_s, value, where, dt_s)
    outside += n_outside
    value[_RANGE] = f4(outside)

    invalid = bool(head["insulation_rail"] > 2)
    closed = 0
    put(value, where, _FEEDBACK_LOST, _ZERO, -1)
    if config.has[HAS_CONTACTORS] != 0:
        closed = -1
        if int(head["contactors"]) > _ALL_CONTACTORS:
            invalid = True
        elif head["contactors_quality"] == 0 and fresh:
            closed = int(head["contactors"])
        complete = complete and closed >= 0
        put(value, where, _FEEDBACK_LOST, count_lost(config, state, FEEDBACK_LOST_S, closed >= 0, dt_s), -1)

    # a digital input with a value that does not exist is read as the safe one
    interlock_open = bool(head["interlock_closed"] != 1)
    stopped = bool(head["emergency_stop"] != 0)
    invalid = invalid or head["interlock_closed"] > 1 or head["emergency_stop"] > 1
    put(value, where, _INTERLOCK, _ONE if interlock_open else _ZERO, -1)
    put(value, where, _STOP, _ONE if stopped else _ZERO, -1)
    put(value, where, _GAS, _NAN, -1)
    put(value, where, _GAS_LOST, _ZERO, -1)
    if config.has[HAS_GAS] != 0:
        known = bool(fresh and head["gas_alarm_quality"] == 0)
        complete = complete and known and head["gas_alarm"] == 0
        if known:
            invalid = invalid or head["gas_alarm"] > 1
            put(value, where, _GAS, _ONE if head["gas_alarm"] != 0 else _ZERO, -1)
        put(value, where, _GAS_LOST, count_lost(config, state, GAS_LOST_S, known, dt_s), -1)
    wrong_bleed = read_bleeding(
        config, state, measurement.bleeding, bleeding_asked, fresh, int(head["bleeding_quality"]), value, where, dt_s
    )
    invalid = invalid or wrong_bleed
    put(value, where, _INVALID, _ONE if invalid else _ZERO, -1)

    held_a = state.number[HELD_A]
    flow = 0
    if abs(held_a) >= c[REST_A]:
        flow = 1 if held_a > _ZERO else -1
    whole = bool(complete and outside == 0 and not invalid and not interlock_open)
    return Seen(
        f4(current_a),
        f4(pack_v),
        f4(bus_v),
        f4(v_low),
        f4(v_high),
        f4(v_mean),
        int(v_low_at),
        int(v_high_at),
        f4(degc_low),
        f4(degc_high),
        f4(degc_mean),
        int(degc_low_at),
        int(degc_high_at),
        f4(coolant_degc),
        int(closed),
        int(flow),
        whole,
        stopped,
    )
