"""The one `step()`: what a controller does with one measurement, estimator and control composed.

`init(config, state, soc, soc_std)`, then `step(config, state, measurement, command, request, dt_s) -> status`. All four
are records of fixed layout (`bms.core.layout`, `hal.contract`), passed as their bytes and owned by the caller: the same
for Python, for C and for a microcontroller. `step_racks` takes many racks, one row of bytes each.

`Controller` owns the records for Python callers; it adds nothing to what is decided.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bms.core.control import (
    MAX_AGE_S,
    CommandView,
    MeasurementView,
    control_init,
    control_step,
    sample_age,
    usable,
)
from bms.core.estimator import estimator_init, estimator_step
from bms.core.estimator_layout import SOC, SOC_STD
from bms.core.estimator_setup import lanes_of, per_cell
from bms.core.jit import carve, f4, i4, kernel
from bms.core.layout import Config, State, StepConfig, StepState, config_of, state_of
from hal.contract import COMMAND, F4, MEASUREMENT, U1, Command, Measurement

STATUS_FAULT = 1 << 8  # status: at least one fault is active; the low byte is the estimator's status

_STALE = 2  # Quality.STALE
_START_DEGC = f4(25.0)

_MEASUREMENT_HEAD = MEASUREMENT.head_dtype
_MEASUREMENT_HEAD_SIZE = MEASUREMENT.head_dtype.itemsize
_COMMAND_HEAD = COMMAND.head_dtype
_COMMAND_HEAD_SIZE = COMMAND.head_dtype.itemsize


@kernel
def measurement_of(raw: U1, n_cells: int, n_sensors: int) -> MeasurementView:
    """The arrays of a `Measurement` record from its bytes."""
    v = _MEASUREMENT_HEAD_SIZE
    v_age = v + 4 * n_cells
    v_quality = v_age + 4 * n_cells
    degc = (v_quality + n_cells + 3) // 4 * 4
    degc_age = degc + 4 * n_sensors
    degc_quality = degc_age + 4 * n_sensors
    return MeasurementView(
        carve(raw, 0, 1, _MEASUREMENT_HEAD),
        carve(raw, v, n_cells, f4),
        carve(raw, v_age, n_cells, f4),
        carve(raw, v_quality, n_cells, np.uint8),
        carve(raw, degc, n_sensors, f4),
        carve(raw, degc_age, n_sensors, f4),
        carve(raw, degc_quality, n_sensors, np.uint8),
    )


@kernel
def command_of(raw: U1, n_cells: int) -> CommandView:
    """The arrays of a `Command` record from its bytes."""
    return CommandView(carve(raw, 0, 1, _COMMAND_HEAD), carve(raw, _COMMAND_HEAD_SIZE, n_cells, np.uint8))


@kernel
def _init(c: StepConfig, s: StepState, soc: F4, soc_std: F4) -> None:
    estimator_init(c.estimator, s.estimator, soc, soc_std, _START_DEGC)
    control_init(s.control)
    s.sensor_degc[:] = _START_DEGC
    s.cell_degc[:] = _START_DEGC
    s.cell_quality[:] = np.uint8(0)


@kernel
def _step(
    c: StepConfig, s: StepState, measurement: MeasurementView, command: CommandView, request: int, dt_s: f4
) -> int:
    head = measurement.head[0]
    max_age_s = c.control.number[MAX_AGE_S] - sample_age(s.control, measurement, dt_s)

    # a sensor that fails keeps its last value until its absence becomes a fault
    for k in range(s.sensor_degc.shape[0]):
        if usable(
            measurement.sensor_degc[k], measurement.sensor_degc_quality[k], measurement.sensor_degc_age_s[k], max_age_s
        ):
            s.sensor_degc[k] = measurement.sensor_degc[k]
    for k in range(s.cell_degc.shape[0]):
        s.cell_degc[k] = s.sensor_degc[c.sensor_of_cell[k]]
    for k in range(s.cell_quality.shape[0]):
        good = usable(measurement.cell_v[k], measurement.cell_v_quality[k], measurement.cell_v_age_s[k], max_age_s)
        s.cell_quality[k] = np.uint8(0) if good else measurement.cell_v_quality[k] | np.uint8(_STALE)
    current_good = usable(head["current_a"], head["current_a_quality"], head["current_a_age_s"], max_age_s)

    status = estimator_step(
        c.estimator,
        s.estimator,
        measurement.cell_v,
        s.cell_quality,
        s.cell_degc,
        head["current_a"] * c.estimator.scalars[0].per_cell,
        np.uint8(0 if current_good else head["current_a_quality"] | _STALE),
        dt_s,
    )
    soc = s.estimator.out[0 : s.cell_degc.shape[0]]
    faults = control_step(c.control, s.control, soc, measurement, command, request, dt_s)
    combined: int = status & 0xFF
    return combined | (STATUS_FAULT if faults != 0 else 0)


@kernel("void(u1[::1], u1[::1], f4[::1], f4[::1])")
def init(config: U1, state: U1, soc: F4, soc_std: F4) -> None:
    """Fresh memory in `state`: every cell is believed to have `soc` (n_cells,), 0..1, with deviation `soc_std`."""
    c = config_of(config)
    head = c.estimator.scalars[0]
    _init(c, state_of(state, int(head.n_cells), int(head.n_sensors)), soc, soc_std)


@kernel("i4(u1[::1], u1[::1], u1[::1], u1[::1], i4, f4)")
def step(config: U1, state: U1, measurement: U1, command: U1, request: int, dt_s: f4) -> i4:
    """One step of the controller: estimate, then decide. The bytes of the four records, as their layouts have them.

    `request` is a `control.Request`, `dt_s` > 0 the time since the last step. Writes every field of `command`. A value
    that is missing, not finite or too old never stops the step: the estimator skips that cell, the control counts how
    long it has been missing. Returns a status: the estimator's in the low byte, `STATUS_FAULT` if a fault is active.
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
        """Answer `measurement` in `command`; `request` is a `control.Request`, `dt_s` > 0. Returns `step`'s status."""
        return self._step(int(request), dt_s)

    @property
    def soc(self) -> F4:
        """Estimated SoC of each cell, 0..1 (n_cells,): a view."""
        return self._row(SOC)

    @property
    def soc_std(self) -> F4:
        """Standard deviation of `soc` (n_cells,): a view."""
        return self._row(SOC_STD)

    def _row(self, row: int) -> F4:
        first = row * lanes_of(self.config.n_cells)
        return self.state.out[first : first + self.config.n_cells]
