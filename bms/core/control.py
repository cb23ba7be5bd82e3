"""The minimal controller: connect, stay inside the limits, balance, disconnect.

State machine (`hal.contract.RackState`), one transition per step:

    INIT -> STANDBY          every value that closing depends on has been measured once, and nothing is wrong
    STANDBY -> PRECHARGE     on request; MAIN_NEGATIVE and PRECHARGE close, the DC link charges through the resistor
    PRECHARGE -> CONNECTED   link within 2 % of the pack and current decayed: MAIN_POSITIVE closes, PRECHARGE opens
    any -> OPENING           on request or fault: 0 A is asked for first, then the contactors open
    OPENING -> STANDBY       feedback says open
    OPENING -> FAULT         the same after a fault; only `Request.RESET` leads out, never by itself

Faults are rows of one table {value > threshold for set_s, value <= clear for clear_s}; every one of them opens the
contactors. A row whose value cannot be formed holds its timer, because what is missing has rows of its own.

All numbers are float32; arrays belong to the caller and are never resized. No kernel raises: what is missing is data.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.jit import f4, kernel
from hal.contract import F4, U1, Command, Contactor, Measurement, RackState, Severity

Records = npt.NDArray[np.void]


class Request(IntEnum):
    """What the operator or the energy manager wants of the rack."""

    OPEN = 0
    CONNECT = 1
    RESET = 2  # leave FAULT, once nothing is wrong any more


class Fault(IntFlag):
    """Rows of the fault table, as the bits of `Command.faults`."""

    CELL_OVERVOLTAGE = 1 << 0
    CELL_UNDERVOLTAGE = 1 << 1
    CELL_HOT = 1 << 2
    CELL_COLD = 1 << 3
    DISCHARGE_CURRENT = 1 << 4
    CHARGE_CURRENT = 1 << 5
    CURRENT_MISSING = 1 << 6
    CELL_VOLTAGE_MISSING = 1 << 7
    TEMPERATURE_MISSING = 1 << 8
    CONTACTOR_FEEDBACK = 1 << 9
    PRECHARGE_TIMEOUT = 1 << 10
    INTERLOCK_OPEN = 1 << 11


N_FAULTS = len(Fault)

# columns of ControlConfig.table
THRESHOLD, CLEAR, SET_S, CLEAR_S = 0, 1, 2, 3

# ControlConfig.number
CHARGE_A, DISCHARGE_A, V_MIN, V_MAX, TAPER_V = 0, 1, 2, 3, 4
DEGC_MIN_CHARGE, DEGC_MIN_DISCHARGE, DEGC_MAX, TAPER_DEGC = 5, 6, 7, 8
LIMIT_RISE_S, LIMIT_FALL_S, MAX_AGE_S = 9, 10, 11
PRECHARGE_RATIO, PRECHARGE_A, OPEN_A, OPEN_WAIT_S = 12, 13, 14, 15
BALANCE_V, BALANCE_STEP_V, COOLING_DEGC, COOLING_GAIN, COOLING_MIN_DEGC, COOLING_MAX_DEGC = 16, 17, 18, 19, 20, 21
N_NUMBERS = 22

# ControlConfig.has
HAS_CONTACTORS, HAS_PRECHARGE, HAS_BALANCING = 0, 1, 2

# ControlState.word
MODE, STAGE, HEARTBEAT, SEQUENCE, LATCHED, SEEN, ASKED = 0, 1, 2, 3, 4, 5, 6
N_WORDS = 7

# ControlState.number
MODE_S, SAMPLE_AGE_S, DISCHARGE_SHARE, CHARGE_SHARE = 0, 1, 2, 3
N_STATE_NUMBERS = 4

# plain integers, because kernels know no enumerations
_MAIN_POSITIVE, _MAIN_NEGATIVE, _PRECHARGE = (
    int(c) for c in (Contactor.MAIN_POSITIVE, Contactor.MAIN_NEGATIVE, Contactor.PRECHARGE)
)
_BOTH_MAINS = _MAIN_POSITIVE | _MAIN_NEGATIVE
_CHARGING_LINK = _MAIN_NEGATIVE | _PRECHARGE
_INIT, _STANDBY, _PRECHARGING, _CONNECTED, _OPENING, _FAULT = range(6)
_OPEN, _CONNECT, _RESET = (int(r) for r in Request)
_CONTACTOR_FEEDBACK = int(Fault.CONTACTOR_FEEDBACK)
_FATAL = int(Severity.FATAL)


class ControlConfig(NamedTuple):
    """Constants of the controller: `number` f4[22], `table` f4[48] (four a fault), `has` u1[3] (1 = the rack can)."""

    number: F4
    table: F4
    has: U1


class ControlState(NamedTuple):
    """Memory of the controller, owned by the caller.

    `word` u4[7] (mode, stage of precharge, heart-beat, last sequence number, latched faults, a measurement was seen,
    contactors last asked for), `number` f4[4] (time in the mode, age of the sample, shares of the two current
    limits), `value` f4[12] what each fault row saw last, `timer` f4[12], `active` u1[12], `balance` u1[n_cells].
    """

    word: npt.NDArray[np.uint32]
    number: F4
    value: F4
    timer: F4
    active: U1
    balance: U1


class MeasurementView(NamedTuple):
    """A `hal.contract.Measurement` as kernels take it: `head` (1,), cells (n_cells,), sensors (n_sensors,)."""

    head: Records
    cell_v: F4
    cell_v_age_s: F4
    cell_v_quality: U1
    sensor_degc: F4
    sensor_degc_age_s: F4
    sensor_degc_quality: U1

    @classmethod
    def of(cls, record: Measurement) -> MeasurementView:
        """The arrays of `record`, not copies."""
        return cls(
            record.head,
            record.cell_v,
            record.cell_v_age_s,
            record.cell_v_quality,
            record.sensor_degc,
            record.sensor_degc_age_s,
            record.sensor_degc_quality,
        )


class CommandView(NamedTuple):
    """A `hal.contract.Command` as kernels take it: `head` (1,), `balance` (n_cells,)."""

    head: Records
    balance: U1

    @classmethod
    def of(cls, record: Command) -> CommandView:
        """The arrays of `record`, not copies."""
        return cls(record.head, record.balance)


@kernel
def control_init(state: ControlState) -> None:
    """Fresh memory: mode INIT, no fault, limits 0."""
    state.word[:] = np.uint32(0)
    state.number[:] = f4(0)
    state.value[:] = f4(0)
    state.timer[:] = f4(0)
    state.active[:] = np.uint8(0)
    state.balance[:] = np.uint8(0)


def control_state(n_cells: int) -> ControlState:
    """Fresh memory: mode INIT, no fault, limits 0."""
    return ControlState(
        np.zeros(N_WORDS, np.uint32),
        np.zeros(N_STATE_NUMBERS, np.float32),
        np.zeros(N_FAULTS, np.float32),
        np.zeros(N_FAULTS, np.float32),
        np.zeros(N_FAULTS, np.uint8),
        np.zeros(n_cells, np.uint8),
    )


@kernel
def _ramp(value: f4, zero_at: f4, full_at: f4) -> f4:
    """0 at and beyond `zero_at`, 1 at and beyond `full_at`, linear between; NaN where `value` is NaN."""
    share = (value - zero_at) / (full_at - zero_at)
    if share < f4(0):
        return f4(0)
    if share > f4(1):
        return f4(1)
    return share


@kernel
def _follow(share: f4, target: f4, rise_s: f4, fall_s: f4, dt_s: f4) -> f4:
    """First-order lag towards `target`, with one time constant for rising and one for falling."""
    tau_s = rise_s if target > share else fall_s
    return share + (target - share) * (dt_s / (tau_s + dt_s))


@kernel
def usable(value: f4, quality: int, age_s: f4, max_age_s: f4) -> bool:
    """True if a measured value may be used: good quality, a number, and not too old."""
    return bool(quality == 0 and not np.isnan(value) and not np.isinf(value) and age_s <= max_age_s)


@kernel
def sample_age(state: ControlState, measurement: MeasurementView, dt_s: f4) -> f4:
    """Track how long the rack has not delivered a new sample, s; to be called once per step, first of all."""
    head = measurement.head[0]
    word, number = state.word, state.number
    if word[SEEN] != 0 and head["sequence"] == word[SEQUENCE]:
        number[SAMPLE_AGE_S] += dt_s
    else:
        number[SAMPLE_AGE_S] = f4(0)
    word[SEEN] = 1
    word[SEQUENCE] = head["sequence"]
    age_s: f4 = number[SAMPLE_AGE_S]
    return age_s


@kernel
def _extremes(values: F4, quality: U1, age_s: F4, max_age_s: f4) -> tuple[f4, f4, int]:
    """(lowest, highest, how many are not usable) of the usable values; NaN, NaN if there is none."""
    low, high, missing = f4(np.inf), f4(-np.inf), 0
    for k in range(values.shape[0]):
        if usable(values[k], quality[k], age_s[k], max_age_s):
            low = min(low, values[k])
            high = max(high, values[k])
        else:
            missing += 1
    if missing == values.shape[0]:
        return f4(np.nan), f4(np.nan), missing
    return low, high, missing


@kernel
def _judge(config: ControlConfig, state: ControlState, dt_s: f4) -> int:
    """Run the fault table over `state.value`; returns the bits of the active faults."""
    bits = 0
    for k in range(N_FAULTS):
        value = state.value[k]
        if state.active[k] == 0:
            if value > config.table[4 * k + THRESHOLD]:
                state.timer[k] += dt_s
                if state.timer[k] >= config.table[4 * k + SET_S]:
                    state.active[k] = 1
                    state.timer[k] = f4(0)
            elif not np.isnan(value):
                state.timer[k] = f4(0)
        elif value <= config.table[4 * k + CLEAR]:
            state.timer[k] += dt_s
            if state.timer[k] >= config.table[4 * k + CLEAR_S]:
                state.active[k] = 0
                state.timer[k] = f4(0)
        elif not np.isnan(value):
            state.timer[k] = f4(0)
        if state.active[k] != 0:
            bits |= 1 << k
    return bits


@kernel
def _limits(
    config: ControlConfig, state: ControlState, v_low: f4, v_high: f4, degc_low: f4, degc_high: f4, dt_s: f4
) -> None:
    """Shares 0..1 of the largest discharge and charge current, tapered by voltage and temperature, lagged.

    The lag (fast down, slow up) keeps the loop limit -> current -> voltage -> limit stable: the plain taper has the
    gain I_max R / taper_v, which exceeds 1 on a rack.
    """
    number, c = state.number, config.number
    hot = _ramp(degc_high, c[DEGC_MAX], c[DEGC_MAX] - c[TAPER_DEGC])
    discharge = min(
        _ramp(v_low, c[V_MIN], c[V_MIN] + c[TAPER_V]),
        min(hot, _ramp(degc_low, c[DEGC_MIN_DISCHARGE], c[DEGC_MIN_DISCHARGE] + c[TAPER_DEGC])),
    )
    charge = min(
        _ramp(v_high, c[V_MAX], c[V_MAX] - c[TAPER_V]),
        min(hot, _ramp(degc_low, c[DEGC_MIN_CHARGE], c[DEGC_MIN_CHARGE] + c[TAPER_DEGC])),
    )
    if np.isnan(v_low) or np.isnan(degc_low):  # nothing measured: nothing allowed
        discharge = f4(0)
        charge = f4(0)
    number[DISCHARGE_SHARE] = _follow(number[DISCHARGE_SHARE], discharge, c[LIMIT_RISE_S], c[LIMIT_FALL_S], dt_s)
    number[CHARGE_SHARE] = _follow(number[CHARGE_SHARE], charge, c[LIMIT_RISE_S], c[LIMIT_FALL_S], dt_s)
    if discharge == f4(0):  # at the limit itself there is no time to lose
        number[DISCHARGE_SHARE] = f4(0)
    if charge == f4(0):
        number[CHARGE_SHARE] = f4(0)


@kernel
def _enter(state: ControlState, mode: int) -> None:
    state.word[MODE] = mode
    state.word[STAGE] = 0
    state.number[MODE_S] = f4(0)


@kernel
def _advance(
    config: ControlConfig,
    state: ControlState,
    complete: bool,
    faults: int,
    link_charged: bool,
    current_a: f4,
    closed: int,
    request: int,
) -> int:
    """One transition of the state machine; returns the contactors to ask for.

    `complete`: everything that closing depends on is measured now. `closed`: feedback, or -1 if it is not usable.
    """
    word, number, c = state.word, state.number, config.number
    mode = word[MODE]
    if mode == _INIT:
        if complete and faults == 0:
            _enter(state, _STANDBY)
    elif mode == _STANDBY:
        if faults != 0:
            word[LATCHED] |= faults
            _enter(state, _FAULT)
        elif request == _CONNECT and complete:
            _enter(state, _PRECHARGING if config.has[HAS_CONTACTORS] != 0 else _CONNECTED)
    elif mode == _PRECHARGING:
        if faults != 0:
            word[LATCHED] |= faults
            _enter(state, _OPENING)
        elif request != _CONNECT:
            _enter(state, _OPENING)
        elif word[STAGE] == 0:
            if config.has[HAS_PRECHARGE] == 0 or (link_charged and complete):
                word[STAGE] = 1
        elif closed >= 0 and closed & _BOTH_MAINS == _BOTH_MAINS:
            _enter(state, _CONNECTED)
    elif mode == _CONNECTED:
        if faults != 0:
            word[LATCHED] |= faults
            _enter(state, _OPENING)
        elif request != _CONNECT:
            _enter(state, _OPENING)
    elif mode == _OPENING:
        if faults != 0:
            word[LATCHED] |= faults
    elif request == _RESET and faults == 0 and complete:
        word[LATCHED] = 0
        _enter(state, _STANDBY)

    if word[MODE] == _OPENING:
        # ask for 0 A at least once, wait for it, but not for ever: the current may be high or unknown
        quiet = number[MODE_S] > f4(0) and abs(current_a) <= c[OPEN_A]
        if word[STAGE] == 0 and (quiet or number[MODE_S] >= c[OPEN_WAIT_S]):
            word[STAGE] = 1
        if word[STAGE] == 1 and word[ASKED] == 0:
            stuck = faults & _CONTACTOR_FEEDBACK != 0  # it will not open by waiting longer
            if closed == 0 or stuck or config.has[HAS_CONTACTORS] == 0:
                _enter(state, _FAULT if word[LATCHED] != 0 else _STANDBY)

    mode = word[MODE]
    if config.has[HAS_CONTACTORS] == 0:
        return 0
    if mode == _PRECHARGING:
        if config.has[HAS_PRECHARGE] == 0:
            return _BOTH_MAINS
        return _CHARGING_LINK if word[STAGE] == 0 else _CHARGING_LINK | _MAIN_POSITIVE
    if mode == _CONNECTED:
        return _BOTH_MAINS
    if mode == _OPENING and word[STAGE] == 0:
        return int(word[ASKED])
    return 0


@kernel
def _balance(
    config: ControlConfig,
    state: ControlState,
    measurement: MeasurementView,
    v_low: f4,
    v_high: f4,
    allowed: bool,
    max_age_s: f4,
) -> None:
    """Bleed the cells well above the lowest one, only near full, where voltage tells the charge apart.

    A cell once bled goes on down to half the step, so that noise does not switch it to and fro.
    """
    c = config.number
    go = allowed and config.has[HAS_BALANCING] != 0 and v_high >= c[BALANCE_V]
    for k in range(state.balance.shape[0]):
        bleed = False
        if go and usable(measurement.cell_v[k], measurement.cell_v_quality[k], measurement.cell_v_age_s[k], max_age_s):
            above_v = measurement.cell_v[k] - v_low
            bleed = above_v > c[BALANCE_STEP_V] or (state.balance[k] != 0 and above_v > f4(0.5) * c[BALANCE_STEP_V])
        state.balance[k] = 1 if bleed else 0


@kernel
def control_step(
    config: ControlConfig,
    state: ControlState,
    soc: F4,
    measurement: MeasurementView,
    command: CommandView,
    request: int,
    dt_s: f4,
) -> int:
    """One step of the controller, after `sample_age` and the estimator.

    `config` `ControlConfig`, `state` `ControlState`, `soc` f4[n_cells] 0..1, `measurement` `MeasurementView`,
    `command` `CommandView` (every field is written), `request` i4 `Request`, `dt_s` f4 > 0 since the last step.
    Returns the bits of the active faults (`Fault`).
    """
    head = measurement.head[0]
    word, number, c = state.word, state.number, config.number
    # an unchanged sample ages with us: subtracting from the limit is adding to every age
    max_age_s = c[MAX_AGE_S] - number[SAMPLE_AGE_S]
    n_cells = measurement.cell_v.shape[0]

    v_low, v_high, cells_missing = _extremes(
        measurement.cell_v, measurement.cell_v_quality, measurement.cell_v_age_s, max_age_s
    )
    degc_low, degc_high, sensors_missing = _extremes(
        measurement.sensor_degc, measurement.sensor_degc_quality, measurement.sensor_degc_age_s, max_age_s
    )
    current_a = f4(np.nan)
    if usable(head["current_a"], head["current_a_quality"], head["current_a_age_s"], max_age_s):
        current_a = head["current_a"]
    pack_v = f4(np.nan)
    if usable(head["pack_v"], head["pack_v_quality"], head["pack_v_age_s"], max_age_s):
        pack_v = head["pack_v"]
    elif cells_missing == 0:
        pack_v = f4(0)
        for k in range(n_cells):
            pack_v += measurement.cell_v[k]
    bus_v = f4(np.nan)
    if usable(head["bus_v"], head["bus_v_quality"], head["bus_v_age_s"], max_age_s):
        bus_v = head["bus_v"]
    closed = -1
    if config.has[HAS_CONTACTORS] == 0:
        closed = 0
    elif head["contactors_quality"] == 0 and number[SAMPLE_AGE_S] <= c[MAX_AGE_S]:
        closed = int(head["contactors"])
    interlock = head["interlock_closed"] != 0

    value = state.value  # in the order of `Fault`
    value[0] = v_high
    value[1] = -v_low
    value[2] = degc_high
    value[3] = -degc_low
    value[4] = current_a
    value[5] = -current_a
    value[6] = f4(1) if np.isnan(current_a) else f4(0)
    value[7] = f4(1) if cells_missing > 0 else f4(0)
    value[8] = f4(1) if sensors_missing > 0 else f4(0)
    value[9] = f4(1) if config.has[HAS_CONTACTORS] != 0 and closed != int(word[ASKED]) else f4(0)
    value[10] = number[MODE_S] if word[MODE] == _PRECHARGING else f4(0)
    value[11] = f4(0) if interlock else f4(1)
    number[MODE_S] += dt_s
    faults: int = _judge(config, state, dt_s)

    complete = (
        cells_missing == 0
        and sensors_missing == 0
        and interlock
        and closed == int(word[ASKED])
        and not np.isnan(current_a)
        and not np.isnan(pack_v)
        and (config.has[HAS_PRECHARGE] == 0 or not np.isnan(bus_v))
    )
    link_charged = abs(bus_v - pack_v) <= c[PRECHARGE_RATIO] * pack_v and abs(current_a) <= c[PRECHARGE_A]
    asked = _advance(config, state, complete, faults, link_charged, current_a, closed, request)
    word[ASKED] = asked

    mode = int(word[MODE])
    if mode == _CONNECTED:
        _limits(config, state, v_low, v_high, degc_low, degc_high, dt_s)
    else:
        number[DISCHARGE_SHARE] = f4(0)
        number[CHARGE_SHARE] = f4(0)
    _balance(config, state, measurement, v_low, v_high, mode in (_STANDBY, _CONNECTED), max_age_s)

    soc_min, soc_max, soc_sum = soc[0], soc[0], f4(0)
    for k in range(n_cells):
        soc_min = min(soc_min, soc[k])
        soc_max = max(soc_max, soc[k])
        soc_sum += soc[k]

    # the smallest voltage that the pack can have gives the smallest power
    power_v = f4(n_cells) * c[V_MIN] if np.isnan(pack_v) else pack_v
    setpoint = c[COOLING_DEGC] - c[COOLING_GAIN] * (degc_high - c[COOLING_DEGC])
    if not setpoint < c[COOLING_MAX_DEGC]:  # also where no temperature is known
        setpoint = c[COOLING_MAX_DEGC]
    setpoint = max(setpoint, c[COOLING_MIN_DEGC])
    word[HEARTBEAT] += 1

    out = command.head[0]
    out["time_s"] = head["time_s"]
    out["heartbeat"] = word[HEARTBEAT]
    out["contactors"] = asked
    out["state"] = mode
    shown = faults | int(word[LATCHED])
    out["severity"] = _FATAL if shown != 0 else 0
    out["faults"] = shown
    out["cooling_degc"] = setpoint
    out["limit_discharge_a"] = number[DISCHARGE_SHARE] * c[DISCHARGE_A]
    out["limit_charge_a"] = number[CHARGE_SHARE] * c[CHARGE_A]
    out["limit_discharge_w"] = number[DISCHARGE_SHARE] * c[DISCHARGE_A] * power_v
    out["limit_charge_w"] = number[CHARGE_SHARE] * c[CHARGE_A] * power_v
    out["soc_min"] = soc_min
    out["soc_mean"] = soc_sum / f4(n_cells)
    out["soc_max"] = soc_max
    for k in range(n_cells):
        command.balance[k] = state.balance[k]
    return faults
