"""The one `step()`: what a controller does with one measurement, all its parts composed.

`init(config, state, soc, soc_std)`, then `step(config, state, measurement, command, request, dt_s) -> status`. All four
are records of fixed layout (`bms.core.layout`, `hal.contract`), passed as their bytes and owned by the caller: the same
for Python, for C and for a microcontroller. `step_racks` takes many racks, one row of bytes each.

    signals     which values may be used, and what contradicts what
    estimator   state of charge of every cell
    health      capacity, resistance and leak of every cell
    sudden      cells that sink within seconds
    growing     cells that sink within minutes
    runaway     heat that nothing explains, and rates of temperature that only a fire has
    thermometer cells that answer the current as hotter ones do
    diagnosis   the fault table: what must be done
    machine     the contactors
    power       the limits, each with its reason
    balancing   who is bled, who gives charge to a neighbour

`Controller` owns the records for Python callers; it adds nothing to what is decided.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bms.core.balancing import ENERGY_WH, balance_step, balancing_init
from bms.core.bias_doubt import beyond_doubt
from bms.core.cooling import coolant_setpoint
from bms.core.diagnosis import (
    CAUSE,
    CAUSE_INDEX,
    CAUSE_VALUE,
    N_ROWS,
    REFUSED,
    diagnose,
    diagnosis_init,
    fault_bits,
)
from bms.core.estimator import estimator_init, estimator_step
from bms.core.estimator_layout import INNOVATION, MODEL_V, SOC, SOC_STD
from bms.core.faults import N_TIERS, Context, Fault, Reaction
from bms.core.growing import growing_init, growing_step
from bms.core.guard import guard_init, guard_step
from bms.core.health import health_init, health_step
from bms.core.jit import carve, f4, i4, kernel
from bms.core.layout import Config, State, StepConfig, StepState, config_of, state_of
from bms.core.leak import leak_init, leak_step
from bms.core.machine import (
    DRAIN,
    LIMITS,
    MODE,
    machine_advance,
    machine_init,
    machine_signals,
)
from bms.core.machine_context import machine_context
from bms.core.machine_table import Request
from bms.core.plausibility import mean_factor
from bms.core.plausibility_model import judge, mean_of
from bms.core.power import CHARGE_A, CHARGE_W, DISCHARGE_A, DISCHARGE_W, power_init, power_limits
from bms.core.records import floats, halves, octets, places, words
from bms.core.runaway import runaway_init, runaway_step
from bms.core.seen import Seen
from bms.core.signals import inspect, signals_init
from bms.core.sudden import sudden_init, sudden_step
from bms.core.thermometer import thermometer_init, thermometer_step
from bms.core.views import CommandView, MeasurementView
from hal.contract import (
    COMMAND,
    F4,
    LANES,
    MEASUREMENT,
    N_FAULT_WORDS,
    U1,
    U4,
    Command,
    Flow,
    Measurement,
    RackState,
    Severity,
)

STATUS_FAULT = 1 << 8  # status: a fatal fault is shown; the low byte is the estimator's status

_START_DEGC = f4(25.0)

_MEASUREMENT_HEAD = MEASUREMENT.head_dtype
_MEASUREMENT_HEAD_SIZE = MEASUREMENT.head_dtype.itemsize
_COMMAND_HEAD = COMMAND.head_dtype
_C = places(COMMAND)
_C_HORIZON_A, _C_HORIZON_W, _C_VALUE, _C_MARGIN = (
    _C[name] for name in ("horizon_a", "horizon_w", "reason_value", "reason_margin")
)
_C_INFO, _C_WARNING, _C_FATAL, _C_INDEX, _C_REASON, _C_BALANCE, _C_SHUTTLE = (
    _C[name] for name in ("fault_info", "fault_warning", "fault_fatal", "reason_index", "reason", "balance", "shuttle")
)

# plain integers, because kernels know no enumerations
_RESET = int(Request.RESET)
_STANDBY, _CONNECTED, _MAINTENANCE = (int(s) for s in (RackState.STANDBY, RackState.CONNECTED, RackState.MAINTENANCE))
_NO_BALANCING = int(Reaction.NO_BALANCING)
_TRANSPORT, _DRAINING = int(Context.TRANSPORT), int(Context.DRAINING)
_DRAINED_SOC = f4(0.2)
_LIMITING = int(Reaction.DERATE | Reaction.NO_CHARGE | Reaction.NO_DISCHARGE)
_DISCHARGE_I2T, _CHARGE_I2T = int(Fault.DISCHARGE_I2T), int(Fault.CHARGE_I2T)
_IDLE, _DISCHARGING, _CHARGING = (int(f) for f in (Flow.IDLE, Flow.DISCHARGE, Flow.CHARGE))
_NONE, _INFO, _WARNING, _FATAL = (int(s) for s in Severity)


@kernel
def measurement_of(raw: U1, n_cells: int, n_sensors: int) -> MeasurementView:
    """The arrays of a `Measurement` record from its bytes."""
    v = _MEASUREMENT_HEAD_SIZE
    v_age = v + 4 * n_cells
    v_quality = v_age + 4 * n_cells
    degc = (v_quality + n_cells + 3) // 4 * 4
    degc_age = degc + 4 * n_sensors
    degc_quality = degc_age + 4 * n_sensors
    bleeding = degc_quality + n_sensors
    return MeasurementView(
        carve(raw, 0, 1, _MEASUREMENT_HEAD),
        carve(raw, v, n_cells, f4),
        carve(raw, v_age, n_cells, f4),
        carve(raw, v_quality, n_cells, np.uint8),
        carve(raw, degc, n_sensors, f4),
        carve(raw, degc_age, n_sensors, f4),
        carve(raw, degc_quality, n_sensors, np.uint8),
        carve(raw, bleeding, n_cells, np.uint8),
    )


@kernel
def command_of(raw: U1, n: int) -> CommandView:
    """The arrays of a `Command` record of `n` cells from its bytes."""
    return CommandView(
        carve(raw, 0, 1, _COMMAND_HEAD),
        floats(raw, _C_HORIZON_A, n, 0, 0)[0],
        floats(raw, _C_HORIZON_W, n, 0, 0)[0],
        floats(raw, _C_VALUE, n, 0, 0)[0],
        floats(raw, _C_MARGIN, n, 0, 0)[0],
        words(raw, _C_INFO, n, 0, 0)[0],
        words(raw, _C_WARNING, n, 0, 0)[0],
        words(raw, _C_FATAL, n, 0, 0)[0],
        halves(raw, _C_INDEX, n, 0, 0)[0],
        octets(raw, _C_REASON, n, 0, 0)[0],
        octets(raw, _C_BALANCE, n, 0, 0)[0],
        octets(raw, _C_SHUTTLE, n, 0, 0)[0],
    )


@kernel
def _init(c: StepConfig, s: StepState, soc: F4, soc_std: F4) -> None:
    estimator_init(c.estimator, s.estimator, soc, soc_std, _START_DEGC)
    signals_init(c.signal, s.signal)
    diagnosis_init(s.diagnosis)
    machine_init(c.machine, s.machine)
    power_init(s.power)
    health_init(c.health, s.health)
    leak_init(c.leak, s.leak)
    balancing_init(c.balancing, s.balancing)
    guard_init(s.guard, c.words, c.estimator.scalars[0].digest)
    runaway_init(s.runaway)
    sudden_init(s.sudden)
    growing_init(s.growing)
    thermometer_init(s.thermometer)


@kernel
def _demanding(c: StepConfig, s: StepState, mask: int) -> int:
    """Id of the worst row of the fault table that is shown and demands any of `mask`; 0 if none does."""
    found, severity = 0, 0
    for row in range(N_ROWS):
        if s.diagnosis.status[row] != 0 and int(c.diagnosis.reaction[row]) & mask != 0:
            tier = row % N_TIERS + 1
            if tier > severity:
                found, severity = row // N_TIERS * 10 + tier, tier
    return found


@kernel
def _any(bits: U4) -> bool:
    """True if any bit is set."""
    together = np.uint32(0)
    for k in range(N_FAULT_WORDS):
        together |= bits[k]
    return bool(together != 0)


@kernel
def _publish(c: StepConfig, s: StepState, seen: Seen, reaction: int, n_faults: int, command: CommandView) -> None:
    """Scalars of the command: all but time, heart-beat and contactors."""
    out = command.head[0]
    n = command.balance.shape[0]
    n_lanes = s.estimator.flags.shape[0]
    soc = s.estimator.out[SOC * n_lanes : SOC * n_lanes + n]
    std = s.estimator.out[SOC_STD * n_lanes : SOC_STD * n_lanes + n]
    soc_min, soc_max, soc_sum, std_max = soc[0], soc[0], f4(0), std[0]
    for k in range(n):
        soc_min = min(soc_min, soc[k])
        soc_max = max(soc_max, soc[k])
        soc_sum += soc[k]
        std_max = max(std_max, std[k])
    capacity, resistance = s.health.capacity, s.health.resistance
    capacity_min, capacity_sum, resistance_max = capacity[0], f4(0), resistance[0]
    for k in range(n):
        capacity_min = min(capacity_min, capacity[k])
        capacity_sum += capacity[k]
        resistance_max = max(resistance_max, resistance[k])
    severity = _NONE
    if _any(command.fault_fatal):
        severity = _FATAL
    elif _any(command.fault_warning):
        severity = _WARNING
    elif _any(command.fault_info):
        severity = _INFO
    out["state"] = s.machine.word[MODE]
    out["severity"] = severity
    out["flow"] = _DISCHARGING if seen.flow > 0 else (_CHARGING if seen.flow < 0 else _IDLE)
    out["n_faults"] = n_faults
    out["cause"] = s.diagnosis.word[CAUSE]
    out["cause_index"] = s.diagnosis.word[CAUSE_INDEX]
    out["cause_value"] = s.diagnosis.number[CAUSE_VALUE]
    out["reset_refused"] = s.diagnosis.word[REFUSED]
    out["cooling_degc"] = coolant_setpoint(c.cooling, seen.degc_high, reaction)
    out["limit_discharge_a"] = s.power.number[DISCHARGE_A]
    out["limit_charge_a"] = s.power.number[CHARGE_A]
    out["limit_discharge_w"] = s.power.number[DISCHARGE_W]
    out["limit_charge_w"] = s.power.number[CHARGE_W]
    out["soc_min"] = soc_min
    out["soc_mean"] = soc_sum / f4(n)
    out["soc_max"] = soc_max
    out["soc_std"] = std_max
    out["soh_min"] = capacity_min
    out["soh_mean"] = capacity_sum / f4(n)
    out["resistance_max"] = resistance_max


@kernel
def _step(
    c: StepConfig, s: StepState, measurement: MeasurementView, command: CommandView, request: int, dt_s: f4
) -> int:
    value, where = s.diagnosis.value, s.diagnosis.where
    per_cell = c.estimator.scalars[0].per_cell
    n = measurement.cell_v.shape[0]
    n_lanes = s.estimator.flags.shape[0]

    seen = inspect(
        c.signal,
        s.signal,
        measurement,
        s.balancing.asked,
        s.power.number[DISCHARGE_A],
        s.power.number[CHARGE_A],
        value,
        where,
        dt_s,
    )
    status = estimator_step(
        c.estimator,
        s.estimator,
        measurement.cell_v,
        s.signal.cell_quality,
        s.signal.cell_degc,
        measurement.head[0]["current_a"] * per_cell,
        np.uint8(1 if np.isnan(seen.current_a) else 0),
        dt_s,
    )
    out = s.estimator.out
    model_v, soc = out[MODEL_V * n_lanes : (MODEL_V + 1) * n_lanes], out[SOC * n_lanes : SOC * n_lanes + n]
    soc_std = out[SOC_STD * n_lanes : SOC_STD * n_lanes + n]
    judge(
        c.signal,
        s.signal,
        c.estimator,
        seen,
        out[INNOVATION * n_lanes : (INNOVATION + 1) * n_lanes],
        model_v,
        soc,
        soc_std,
        beyond_doubt(c.signal, s.signal, c.estimator, s.estimator.shared[0].bias_a, s.health.capacity_std, dt_s),
        s.health.resistance,
        s.health.resistance_std,
        value,
        where,
        dt_s,
    )
    sudden_step(
        c.signal,
        s.signal,
        s.sudden,
        c.estimator,
        seen,
        model_v,
        soc,
        soc_std,
        s.health.resistance,
        s.health.resistance_std,
        value,
        where,
        dt_s,
    )
    growing_step(
        c.signal,
        s.signal,
        s.growing,
        c.estimator,
        seen,
        soc,
        soc_std,
        s.health.resistance,
        s.health.resistance_std,
        value,
        where,
        dt_s,
    )
    factor = mean_factor(s.health.resistance)
    runaway_step(c.runaway, s.runaway, c.signal, s.signal, seen, factor, soc, value, where, dt_s)
    thermometer_step(c.thermometer, s.thermometer, c.signal, s.signal, seen, soc, model_v, factor, value, where, dt_s)
    bled_ah = s.balancing.bled_ah
    health_step(c.health, s.health, c.estimator, s.estimator, seen, s.signal.cell_degc, bled_ah, value, where, dt_s)
    leak_step(c.leak, s.leak, s.estimator, s.health.capacity, bled_ah, value, where, dt_s)
    machine_signals(c.machine, s.machine, seen, request, value, where, dt_s)
    guard_step(s.guard, c.words, c.estimator.scalars[0].digest, request == _RESET, value, where)

    context = machine_context(s.machine, seen.flow)
    if context & _TRANSPORT != 0 and mean_of(soc, n) > _DRAINED_SOC:
        context |= _DRAINING
    service = s.machine.word[MODE] == _MAINTENANCE
    reaction = diagnose(c.diagnosis, s.diagnosis, context, request == _RESET, bool(service), dt_s)
    n_faults = fault_bits(s.diagnosis, command.fault_info, command.fault_warning, command.fault_fatal)
    fatal = _any(command.fault_fatal)
    asked = machine_advance(c.machine, s.machine, seen, reaction, fatal, request, dt_s)

    mode = int(s.machine.word[MODE])
    fault = _demanding(c, s, _LIMITING) if reaction & _LIMITING != 0 else 0
    power_limits(
        c.power,
        s.power,
        c.estimator,
        s.estimator,
        seen,
        s.signal.cell_degc,
        per_cell,
        reaction,
        fault,
        int(s.machine.word[LIMITS]),
        value[_DISCHARGE_I2T],
        value[_CHARGE_I2T],
        command,
        dt_s,
    )
    drain = s.machine.word[DRAIN] != 0
    allowed = (mode in (_STANDBY, _CONNECTED) or drain) and reaction & _NO_BALANCING == 0 and not fatal
    balance_step(
        c.balancing,
        s.balancing,
        s.estimator,
        s.health.capacity,
        s.signal.cell_v,
        seen,
        bool(allowed),
        bool(drain),
        command.balance,
        command.shuttle,
        dt_s,
    )
    _publish(c, s, seen, reaction, n_faults, command)
    head = command.head[0]
    s.estimator.shared[0].heartbeat += np.uint32(1)
    head["time_s"] = measurement.head[0]["time_s"]
    head["heartbeat"] = s.estimator.shared[0].heartbeat
    head["contactors"] = asked
    combined: int = status & 0xFF
    return combined | (STATUS_FAULT if fatal else 0)


@kernel("void(u1[::1], u1[::1], f4[::1], f4[::1])")
def init(config: U1, state: U1, soc: F4, soc_std: F4) -> None:
    """Fresh memory in `state`: every cell is believed to have `soc` (n_cells,), 0..1, with deviation `soc_std`."""
    c = config_of(config)
    head = c.estimator.scalars[0]
    _init(c, state_of(state, int(head.n_cells), int(head.n_sensors)), soc, soc_std)


@kernel("i4(u1[::1], u1[::1], u1[::1], u1[::1], i4, f4)")
def step(config: U1, state: U1, measurement: U1, command: U1, request: int, dt_s: f4) -> i4:
    """One step of the controller: look, estimate, diagnose, decide. The bytes of the records, laid out as they say.

    `request` is a `machine_table.Request`, `dt_s` > 0 the time since the last step. Writes every field of `command`. A
    value that is missing, not finite or too old never stops the step: its absence has faults of its own. Returns a
    status: the estimator's in the low byte, `STATUS_FAULT` if a fatal fault is shown.
    """
    c = config_of(config)
    head = c.estimator.scalars[0]
    n_cells, n_sensors = int(head.n_cells), int(head.n_sensors)
    status: int = _step(
        c,
        state_of(state, n_cells, n_sensors),
        measurement_of(measurement, n_cells, n_sensors),
        command_of(command, n_cells),
        request,
        dt_s,
    )
    return i4(status)


@kernel("i4(u1[::1], u1[:,::1], u1[:,::1], u1[:,::1], i4, f4, i8, i8)")
def step_racks(
    config: U1, states: U1, measurements: U1, commands: U1, request: int, dt_s: f4, first: int, last: int
) -> i4:
    """`step` for the racks `first` <= k < `last`, which share one configuration: row k of each array is rack k.

    Racks do not touch each other: ranges may run in parallel. Returns all status bits together.
    """
    c = config_of(config)
    head = c.estimator.scalars[0]
    n_cells, n_sensors = int(head.n_cells), int(head.n_sensors)
    status = 0
    for k in range(first, last):
        status |= _step(
            c,
            state_of(states[k], n_cells, n_sensors),
            measurement_of(measurements[k], n_cells, n_sensors),
            command_of(commands[k], n_cells),
            request,
            dt_s,
        )
    return i4(status)


def initial_state(config: Config, soc: npt.ArrayLike, soc_std: npt.ArrayLike) -> State:
    """Fresh memory for `config`, with the SoC that the cells are believed to have (scalars or (n_cells,), 0..1)."""
    from bms.core.estimator_setup import per_cell

    state = State(config.n_cells, config.n_sensors)
    init(config.bytes, state.bytes, per_cell(soc, config.n_cells), per_cell(soc_std, config.n_cells))
    return state


class Controller:
    """A controller with its records: give it a measurement, it fills a command.

    The same two records, `measurement` and `command`, serve for the whole run.
    """

    def __init__(self, config: Config, state: State, measurement: Measurement, command: Command) -> None:
        self.config = config
        self.state = state
        self.measurement = measurement
        self.command = command
        self._step: Callable[[int, float], int] = step.bind(config.bytes, state.bytes, measurement.bytes, command.bytes)

    def step(self, request: int, dt_s: float) -> int:
        """Answer `measurement` in `command`; `request` is a `Request`, `dt_s` > 0. Returns `step`'s status."""
        return self._step(int(request), dt_s)

    @property
    def soc(self) -> F4:
        """Estimated SoC of each cell, 0..1 (n_cells,): a view."""
        return self._row(SOC)

    @property
    def soc_std(self) -> F4:
        """Standard deviation of `soc` (n_cells,): a view."""
        return self._row(SOC_STD)

    @property
    def balancing_wh(self) -> float:
        """Energy that bleeding has burnt so far."""
        return float(self.state.balancing_number[ENERGY_WH])

    def _row(self, row: int) -> F4:
        first = row * (-(-self.config.n_cells // LANES) * LANES)
        return self.state.out[first : first + self.config.n_cells]
