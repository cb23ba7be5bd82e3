"""The kernel that `bench/parts.py` times: parts of a control step, over and over, compiled as the controller is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bms.core import jit
from bms.core import step as whole
from bms.core.balancing import balance_step
from bms.core.diagnosis import diagnose, fault_bits
from bms.core.estimator import estimator_step
from bms.core.estimator_layout import INNOVATION, MODEL_V, SOC, SOC_STD
from bms.core.guard import guard_step
from bms.core.health import health_step
from bms.core.layout import config_of, state_of
from bms.core.leak import leak_step
from bms.core.machine import machine_advance, machine_signals
from bms.core.machine_context import machine_context
from bms.core.plausibility import mean_factor
from bms.core.plausibility_model import judge
from bms.core.power import power_limits
from bms.core.runaway import runaway_step
from bms.core.signals import inspect
from bms.core.thermometer import thermometer_step
from hal import contract
from hal.engine import Program

f4 = np.float32

PROGRAM = Program(
    "parts",
    place="parts_kernel:PROGRAM",
    about="the parts of a step",
    modules=("parts_kernel",),
    sources=(Path(jit.__file__).parent, Path(contract.__file__), Path(__file__)),
)

PARTS = (
    "the whole step", "signals: look through", "estimator", "signals: compare", "health", "leak", "state machine",
    "guard", "fault table", "limits", "balancing", "runaway", "thermometer", "command",
)  # fmt: skip
_step, _publish, measurement_of, command_of = whole._step, whole._publish, whole.measurement_of, whole.command_of


@PROGRAM.kernel("void(u1[::1], u1[::1], u1[::1], u1[::1], i8, i8, f4)")
def repeat(raw_config, raw_state, raw_measurement, raw_command, what, times, dt_s):
    """Call part number `what` so many times."""
    c = config_of(raw_config)
    head = c.estimator.scalars[0]
    n, m = int(head.n_cells), int(head.n_sensors)
    s = state_of(raw_state, n, m)
    measurement, command = measurement_of(raw_measurement, n, m), command_of(raw_command, n)
    value, where = s.diagnosis.value, s.diagnosis.where
    lanes = s.estimator.flags.shape[0]
    out = s.estimator.out
    per_cell = c.estimator.scalars[0].per_cell
    limit_a = f4(280.0)
    seen = inspect(c.signal, s.signal, measurement, s.balancing.asked, limit_a, limit_a, value, where, dt_s)
    for _ in range(times):
        measurement.head[0].sequence += np.uint32(1)
        if what == 0:
            _step(c, s, measurement, command, 1, dt_s)
        elif what == 1:
            seen = inspect(c.signal, s.signal, measurement, s.balancing.asked, limit_a, limit_a, value, where, dt_s)
        elif what == 2:
            estimator_step(
                c.estimator, s.estimator, measurement.cell_v, s.signal.cell_quality, s.signal.cell_degc,
                measurement.head[0].current_a * per_cell, np.uint8(0), dt_s,
            )  # fmt: skip
        elif what == 3:
            judge(
                c.signal, s.signal, c.estimator, seen, out[INNOVATION * lanes : (INNOVATION + 1) * lanes],
                out[MODEL_V * lanes : (MODEL_V + 1) * lanes],
                out[SOC * lanes : SOC * lanes + n], out[SOC_STD * lanes : SOC_STD * lanes + n],
                s.estimator.shared[0].bias_a, s.health.resistance, s.health.resistance_std, value, where, dt_s,
            )  # fmt: skip
        elif what == 4:
            health_step(
                c.health, s.health, c.estimator, s.estimator, seen, s.signal.cell_degc, s.balancing.bled_ah, value,
                where, dt_s,
            )  # fmt: skip
        elif what == 5:
            leak_step(c.leak, s.leak, s.estimator, s.health.capacity, s.balancing.bled_ah, value, where, dt_s)
        elif what == 6:
            machine_signals(c.machine, s.machine, seen, 1, value, where, dt_s)
            machine_context(s.machine, seen.flow)
            machine_advance(c.machine, s.machine, seen, 0, False, 1, dt_s)
        elif what == 7:
            guard_step(s.guard, c.words, c.estimator.scalars[0].digest, False, value, where)
        elif what == 8:
            diagnose(c.diagnosis, s.diagnosis, 64 + 128, False, False, dt_s)
            fault_bits(s.diagnosis, command.fault_info, command.fault_warning, command.fault_fatal)
        elif what == 9:
            power_limits(
                c.power, s.power, c.estimator, s.estimator, seen, s.signal.cell_degc, per_cell, 0, 0, 1, f4(0), f4(0),
                command, dt_s,
            )  # fmt: skip
        elif what == 10:
            balance_step(
                c.balancing, s.balancing, s.estimator, s.health.capacity, s.signal.cell_v, seen, True, False,
                command.balance, command.shuttle, dt_s,
            )  # fmt: skip
        elif what == 11:
            factor = mean_factor(s.health.resistance)
            soc = out[SOC * lanes : SOC * lanes + n]
            runaway_step(c.runaway, s.runaway, c.signal, s.signal, seen, factor, soc, value, where, dt_s)
        elif what == 12:
            soc = out[SOC * lanes : SOC * lanes + n]
            model_v = out[MODEL_V * lanes : (MODEL_V + 1) * lanes]
            thermometer_step(
                c.thermometer, s.thermometer, c.signal, s.signal, seen, soc, model_v, f4(1.0), value, where, dt_s,
            )  # fmt: skip
        else:
            _publish(c, s, seen, 0, 0, command)
