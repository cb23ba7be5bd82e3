"""Sources that deliver one value each: current, voltages, insulation, coolant, switches. See `bms.core.signals`.

Each of them says for how long it has not been usable, and what the faults see that look at it alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bms.core.faults import Fault
from bms.core.jit import f4, kernel
from bms.core.plausibility import put
from bms.core.signals_layout import (
    BLEED_LOST_S,
    CHARGE_A2S,
    CHARGE_BEYOND_AS,
    CHARGE_BUDGET_A2S,
    CHARGE_RATED_A,
    COOLANT_HIGH_DEGC,
    COOLANT_LOST_S,
    COOLANT_LOW_DEGC,
    CURRENT_LOST_S,
    CURRENT_RANGE_A,
    DISCHARGE_A2S,
    DISCHARGE_BEYOND_AS,
    DISCHARGE_BUDGET_A2S,
    DISCHARGE_RATED_A,
    FADE_S,
    FLOW_LOST_S,
    FLOW_RANGE_LPM,
    HAS_BLEED_FEEDBACK,
    HAS_CONTACTORS,
    HAS_COOLANT_FLOW,
    HAS_COOLING,
    HAS_INSULATION,
    HELD_A,
    I2T_TAU_S,
    INSULATION_CLOSE_OHM,
    INSULATION_LOST_S,
    INSULATION_MAX_AGE_S,
    INSULATION_RANGE_OHM,
    LIMIT_BAND_A,
    LIMIT_TAU_S,
    SignalConfig,
    SignalState,
)
from hal.contract import F4, U1, U2, Contactor, Quality

# what a source says of itself
GONE, PRESENT, OUTSIDE = 0, 1, 2

_NAN = f4(np.nan)
_INF = f4(np.inf)
_ZERO = f4(0)
_ONE = f4(1)
_OUT_OF_RANGE = int(Quality.OUT_OF_RANGE)
_ABSURD_A = f4(1e6)
_I2T_LARGEST = f4(10)
_FORGOTTEN = f4(0.1)
_MAINS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE)
_GAIN = f4(0.02)  # of a limit: by so much differ the inverter's idea of a current and ours
_MOST_BANDS = f4(30)  # more charge beyond a limit is not remembered: what fades by a band each second, fades in 2 h

# plain integers, because kernels know no enumerations
_F = Fault
_DISCHARGE, _CHARGE, _SHORT = int(_F.DISCHARGE_CURRENT), int(_F.CHARGE_CURRENT), int(_F.SHORT_CIRCUIT)
_DISCHARGE_I2T, _CHARGE_I2T = int(_F.DISCHARGE_I2T), int(_F.CHARGE_I2T)
_DISCHARGE_LIMIT, _CHARGE_LIMIT = int(_F.DISCHARGE_LIMIT), int(_F.CHARGE_LIMIT)
_INSULATION, _INSULATION_INVALID = int(_F.INSULATION), int(_F.INSULATION_INVALID)
_RAILS = (int(_F.INSULATION), int(_F.INSULATION_POSITIVE), int(_F.INSULATION_NEGATIVE))
_FLOW, _COOLANT_HOT, _COOLANT_COLD = int(_F.COOLANT_FLOW), int(_F.COOLANT_HOT), int(_F.COOLANT_COLD)
_CURRENT_LOST = int(_F.CURRENT_LOST)
_COOLANT_LOST, _BLEED_LOST = int(_F.COOLANT_LOST), int(_F.BLEED_LOST)
_STUCK_ON, _STUCK_OFF = int(_F.BLEED_STUCK_ON), int(_F.BLEED_STUCK_OFF)


@kernel
def source_state(seen: f4, quality: int, age_s: f4, limit_s: f4, low: f4, high: f4) -> int:
    """Whether a single value is gone, usable, or outside what its sensor can measure."""
    if quality & _OUT_OF_RANGE != 0:
        return OUTSIDE
    if quality != 0 or not abs(age_s) <= limit_s:
        return GONE
    return PRESENT if seen >= low and seen <= high else OUTSIDE


@kernel
def fading(fade_s: f4, dt_s: f4) -> tuple[f4, f4]:
    """(what a step leaves of the time without a source that is there again, how much counts as none), 1 and s.

    Of a source that comes and goes it comes to `fade_s` times the share without it over the share with it.
    """
    return (fade_s / (fade_s + dt_s) if fade_s > _ZERO else _ZERO), _FORGOTTEN * dt_s


@kernel
def count_lost(config: SignalConfig, state: SignalState, at: int, usable: bool, dt_s: f4) -> f4:
    """Count the time without a source, s; while it is there, that fades."""
    lost_s: f4 = state.number[at]
    if not usable:
        lost_s += dt_s
    elif lost_s > _ZERO:
        left, least_s = fading(config.number[FADE_S + at - CURRENT_LOST_S], dt_s)
        lost_s *= left
        lost_s = lost_s if lost_s > least_s else _ZERO
    state.number[at] = lost_s
    return lost_s


@kernel
def _heat(heat_a2s: f4, drawn_a: f4, rated_a: f4, budget_a2s: f4, tau_s: f4, dt_s: f4) -> f4:
    """Heat from current beyond the rated one: (I^2 - I_rated^2) dt, decaying; at most ten times the budget, A^2 s.

    `drawn_a` is the current in the direction looked at. Current in the other direction heats the same metal: it keeps
    it from cooling, but adds nothing here.
    """
    square_a2 = drawn_a * drawn_a - rated_a * rated_a
    if drawn_a < _ZERO:
        square_a2 = min(square_a2, _ZERO)
    heat_a2s = (heat_a2s + square_a2 * dt_s) / (_ONE + dt_s / tau_s)
    return min(max(heat_a2s, _ZERO), _I2T_LARGEST * budget_a2s)


@kernel
def _beyond(config: SignalConfig, state: SignalState, at: int, drawn_a: f4, limit_a: f4, flows: bool, dt_s: f4) -> f4:
    """Current beyond a limit, A; while it is beyond its band as well, with the charge that has come of that.

    The charge fills with what is beyond the limit and empties with the band, all the time: it says for how long a
    limit has been broken, and only of a limit that is broken now. An open rack breaks none, whatever its sensor shows.
    """
    beyond_a: f4 = drawn_a - limit_a
    if np.isnan(beyond_a):
        return beyond_a
    band_a = config.number[LIMIT_BAND_A] + _GAIN * limit_a
    # in no time nothing comes of it, whatever the limit: one that is infinite would make no number of it
    more_as = ((max(beyond_a, _ZERO) if flows else _ZERO) - band_a) * dt_s if dt_s > _ZERO else _ZERO
    most_as = _MOST_BANDS * config.number[LIMIT_BAND_A] * config.number[LIMIT_TAU_S]
    state.number[at] = min(max(state.number[at] + more_as, _ZERO), most_as)
    if flows and beyond_a > band_a:
        beyond_a += state.number[at] / config.number[LIMIT_TAU_S]
    return beyond_a


@kernel
def read_current(
    config: SignalConfig,
    state: SignalState,
    head: Any,
    limit_s: f4,
    limit_discharge_a: f4,
    limit_charge_a: f4,
    value: F4,
    where: U2,
    dt_s: f4,
) -> tuple[f4, int]:
    """(current or NaN, `PRESENT` or why not), and what the faults of the current see.

    A sensor at the end of its range still says that the current is at least that large. What is not finite, or more
    than any sensor shows, says nothing.
    """
    c = config.number
    measured_a = head["current_a"]
    source = source_state(
        measured_a,
        int(head["current_a_quality"]),
        head["current_a_age_s"],
        limit_s,
        -c[CURRENT_RANGE_A],
        c[CURRENT_RANGE_A],
    )
    current_a = measured_a if source == PRESENT else _NAN
    at_least_a = current_a
    if source == OUTSIDE and abs(measured_a) <= _ABSURD_A:
        at_least_a = measured_a
    put(value, where, _CURRENT_LOST, count_lost(config, state, CURRENT_LOST_S, source == PRESENT, dt_s), -1)
    if source == PRESENT:
        state.number[HELD_A] = current_a
    if not np.isnan(at_least_a):
        state.number[DISCHARGE_A2S] = _heat(
            state.number[DISCHARGE_A2S],
            at_least_a,
            c[DISCHARGE_RATED_A],
            c[DISCHARGE_BUDGET_A2S],
            c[I2T_TAU_S],
            dt_s,
        )
        state.number[CHARGE_A2S] = _heat(
            state.number[CHARGE_A2S],
            -at_least_a,
            c[CHARGE_RATED_A],
            c[CHARGE_BUDGET_A2S],
            c[I2T_TAU_S],
            dt_s,
        )
    put(value, where, _DISCHARGE, at_least_a, -1)
    put(value, where, _CHARGE, -at_least_a, -1)
    put(value, where, _SHORT, abs(at_least_a), -1)
    put(value, where, _DISCHARGE_I2T, state.number[DISCHARGE_A2S] / c[DISCHARGE_BUDGET_A2S], -1)
    put(value, where, _CHARGE_I2T, state.number[CHARGE_A2S] / c[CHARGE_BUDGET_A2S], -1)
    closed = int(head["contactors"]) & _MAINS == _MAINS or head["contactors_quality"] != 0
    flows = bool(closed or config.has[HAS_CONTACTORS] == 0)
    discharge_a = _beyond(config, state, DISCHARGE_BEYOND_AS, at_least_a, limit_discharge_a, flows, dt_s)
    charge_a = _beyond(config, state, CHARGE_BEYOND_AS, -at_least_a, limit_charge_a, flows, dt_s)
    put(value, where, _DISCHARGE_LIMIT, discharge_a, -1)
    put(value, where, _CHARGE_LIMIT, charge_a, -1)
    return current_a, source


@kernel
def read_insulation(
    config: SignalConfig, state: SignalState, head: Any, sample_age_s: f4, value: F4, where: U2, dt_s: f4
) -> tuple[int, bool]:
    """What the insulation monitor says, for the rail that it names: (why it is not usable, whether one may close)."""
    c = config.number
    for fault in _RAILS:
        put(value, where, fault, _NAN, -1)
    put(value, where, _INSULATION_INVALID, _ZERO, -1)
    if config.has[HAS_INSULATION] == 0:
        return PRESENT, True
    ohm = head["insulation_ohm"]
    source = source_state(
        ohm,
        int(head["insulation_ohm_quality"]),
        head["insulation_ohm_age_s"],
        c[INSULATION_MAX_AGE_S] - sample_age_s,
        _ZERO,
        c[INSULATION_RANGE_OHM],
    )
    put(value, where, _INSULATION_INVALID, count_lost(config, state, INSULATION_LOST_S, source == PRESENT, dt_s), -1)
    if source == PRESENT:
        # what is said of one rail, or of none, ends what was said of the others
        rail = int(head["insulation_rail"])
        rail = rail if rail <= 2 else 0
        for fault in _RAILS:
            put(value, where, fault, _INF, -1)
        put(value, where, _INSULATION + rail, ohm, rail if rail > 0 else -1)
    return int(source), bool(source == PRESENT and ohm >= c[INSULATION_CLOSE_OHM])


@kernel
def read_coolant(
    config: SignalConfig, state: SignalState, head: Any, limit_s: f4, value: F4, where: U2, dt_s: f4
) -> tuple[f4, int]:
    """(temperature at the inlet, how many values lie outside their range), and what the faults of the coolant see."""
    c = config.number
    lost_s, outside = _ZERO, 0
    inlet_degc, flow_lpm = _NAN, _NAN
    if config.has[HAS_COOLING] != 0:
        source = source_state(
            head["coolant_in_degc"],
            int(head["coolant_in_degc_quality"]),
            head["coolant_in_degc_age_s"],
            limit_s,
            c[COOLANT_LOW_DEGC],
            c[COOLANT_HIGH_DEGC],
        )
        if source == PRESENT:
            inlet_degc = head["coolant_in_degc"]
        outside += int(source == OUTSIDE)
        lost_s = count_lost(config, state, COOLANT_LOST_S, source == PRESENT, dt_s)
    if config.has[HAS_COOLANT_FLOW] != 0:
        source = source_state(
            head["coolant_flow_lpm"],
            int(head["coolant_flow_lpm_quality"]),
            head["coolant_flow_lpm_age_s"],
            limit_s,
            _ZERO,
            c[FLOW_RANGE_LPM],
        )
        if source == PRESENT:
            flow_lpm = head["coolant_flow_lpm"]
        outside += int(source == OUTSIDE)
        lost_s = max(lost_s, count_lost(config, state, FLOW_LOST_S, source == PRESENT, dt_s))
    put(value, where, _COOLANT_LOST, lost_s, -1)
    put(value, where, _FLOW, flow_lpm, -1)
    put(value, where, _COOLANT_HOT, inlet_degc, -1)
    put(value, where, _COOLANT_COLD, inlet_degc, -1)
    return inlet_degc, outside


@kernel
def read_bleeding(
    config: SignalConfig,
    state: SignalState,
    seen: U1,
    asked: U1,
    fresh: bool,
    quality: int,
    value: F4,
    where: U2,
    dt_s: f4,
) -> bool:
    """Compare the bleed switches with what was asked of them; True if one has a value that does not exist."""
    put(value, where, _BLEED_LOST, _ZERO, -1)
    put(value, where, _STUCK_ON, _NAN, -1)
    put(value, where, _STUCK_OFF, _NAN, -1)
    if config.has[HAS_BLEED_FEEDBACK] == 0:
        return False
    usable = fresh and quality == 0
    put(value, where, _BLEED_LOST, count_lost(config, state, BLEED_LOST_S, usable, dt_s), -1)
    if not usable:
        return False
    n = seen.shape[0]
    on_at, off_at, largest = n, n, 0  # the first of each, or n
    for k in range(n):
        on, wanted = seen[k] != 0, asked[k] != 0
        on_at = min(on_at, k if on and not wanted else n)
        off_at = min(off_at, k if wanted and not on else n)
        largest = max(largest, int(seen[k]))
    put(value, where, _STUCK_ON, _ONE if on_at < n else _ZERO, on_at if on_at < n else -1)
    put(value, where, _STUCK_OFF, _ONE if off_at < n else _ZERO, off_at if off_at < n else -1)
    return largest > 1
