"""The one `step()`: what a controller does with one measurement, estimator and control composed.

`init(config, ...) -> state`, `step(config, state, measurement, command, request, dt_s) -> status`. State,
configuration, measurement and command are arrays of fixed layout, owned by the caller. The same kernel runs against
every rack.

`Controller` owns the arrays for Python callers; it adds nothing to what is decided.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.control import (
    MAX_AGE_S,
    CommandView,
    ControlConfig,
    ControlState,
    MeasurementView,
    control_state,
    control_step,
    sample_age,
    usable,
)
from bms.core.estimator import (
    SOC,
    SOC_STD,
    EstimatorConfig,
    EstimatorState,
    estimator_step,
)
from bms.core.estimator_setup import estimator_state
from bms.core.jit import f4, kernel
from hal.contract import F4, U1, U2, Command, Measurement

STATUS_FAULT = 1 << 8  # status: at least one fault is active; the low byte is the estimator's status

_STALE = 2  # Quality.STALE


class StepConfig(NamedTuple):
    """Constants of the controller.

    `sensor_of_cell` u2[n_cells]; `per_cell` f4[1] is the share of the string current that one cell of a parallel group
    carries (the estimator's parameters are those of one cell).
    """

    estimator: EstimatorConfig
    control: ControlConfig
    sensor_of_cell: U2
    per_cell: F4


class StepState(NamedTuple):
    """Memory of the controller: estimator, control, and what the estimator was given.

    `sensor_degc` f4[n_sensors] last usable temperature, `cell_degc` f4[n_cells], `cell_quality` u1[n_cells].
    """

    estimator: EstimatorState
    control: ControlState
    sensor_degc: F4
    cell_degc: F4
    cell_quality: U1


def init(config: StepConfig, n_sensors: int, soc: npt.ArrayLike, soc_std: npt.ArrayLike) -> StepState:
    """Fresh memory, with the SoC that the cells are believed to have (scalars or (n_cells,), 0..1)."""
    n_cells = config.sensor_of_cell.shape[0]
    return StepState(
        estimator_state(config.estimator, n_cells, soc, soc_std),
        control_state(n_cells),
        np.full(n_sensors, 25.0, np.float32),
        np.full(n_cells, 25.0, np.float32),
        np.zeros(n_cells, np.uint8),
    )


@kernel
def step(
    config: StepConfig,
    state: StepState,
    measurement: MeasurementView,
    command: CommandView,
    request: int,
    dt_s: f4,
) -> int:
    """One step of the controller: estimate, then decide.

    `request` is a `control.Request`, `dt_s` > 0 the time since the last step. Writes every field of `command`. A value
    that is missing, not finite or too old never stops the step: the estimator skips that cell, the control counts how
    long it has been missing. Returns a status: the estimator's in the low byte, `STATUS_FAULT` if a fault is active.
    """
    head = measurement.head[0]
    max_age_s = config.control.number[MAX_AGE_S] - sample_age(state.control, measurement, dt_s)

    # a sensor that fails keeps its last value until its absence becomes a fault
    for k in range(state.sensor_degc.shape[0]):
        if usable(
            measurement.sensor_degc[k], measurement.sensor_degc_quality[k], measurement.sensor_degc_age_s[k], max_age_s
        ):
            state.sensor_degc[k] = measurement.sensor_degc[k]
    for k in range(state.cell_degc.shape[0]):
        state.cell_degc[k] = state.sensor_degc[config.sensor_of_cell[k]]
        good = usable(measurement.cell_v[k], measurement.cell_v_quality[k], measurement.cell_v_age_s[k], max_age_s)
        state.cell_quality[k] = 0 if good else measurement.cell_v_quality[k] | _STALE
    current_good = usable(head["current_a"], head["current_a_quality"], head["current_a_age_s"], max_age_s)

    status = estimator_step(
        config.estimator,
        state.estimator,
        measurement.cell_v,
        state.cell_quality,
        state.cell_degc,
        head["current_a"] * config.per_cell[0],
        np.uint8(0 if current_good else head["current_a_quality"] | _STALE),
        dt_s,
    )
    faults = control_step(config.control, state.control, state.estimator.out[SOC], measurement, command, request, dt_s)
    combined: int = status & 0xFF
    return combined | (STATUS_FAULT if faults != 0 else 0)


class Controller:
    """A controller with its arrays: give it a measurement, it fills a command.

    The views of `measurement` and `command` are made once: the same two records serve for the whole run.
    """

    def __init__(
        self,
        config: StepConfig,
        state: StepState,
        measurement: Measurement,
        command: Command,
    ) -> None:
        self.config = config
        self.state = state
        self.measurement = measurement
        self.command = command
        self._measurement = MeasurementView.of(measurement)
        self._command = CommandView.of(command)

    def step(self, request: int, dt_s: float) -> int:
        """Answer `measurement` in `command`; `request` is a `control.Request`, `dt_s` > 0. Returns `step`'s status."""
        status: int = step(self.config, self.state, self._measurement, self._command, int(request), f4(dt_s))
        return status

    @property
    def soc(self) -> F4:
        """Estimated SoC of each cell, 0..1 (n_cells,): a view."""
        view: F4 = self.state.estimator.out[SOC]
        return view

    @property
    def soc_std(self) -> F4:
        """Standard deviation of `soc` (n_cells,): a view."""
        view: F4 = self.state.estimator.out[SOC_STD]
        return view
