"""The two layouts that the controller owns: its configuration and its memory.

They are records as `hal.contract` has them: one run of bytes each, known to numpy, to the kernels and to the C header.
Each part of the controller declares the arrays that it needs (`CONFIG_FIELDS`, `STATE_FIELDS` of its module); here they
are put together. The kernels find them again by `config_of` and `state_of`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core import (
    balancing,
    cooling,
    diagnosis,
    growing,
    guard,
    health_layout,
    leak,
    machine,
    power,
    runaway,
    signals_layout,
    sudden,
    thermometer,
)
from bms.core.balancing import BalancingConfig, BalancingState
from bms.core.cooling import CoolingConfig
from bms.core.diagnosis import DiagnosisConfig, DiagnosisState
from bms.core.estimator_layout import (
    BLOCK_ROWS,
    N_DEGC,
    N_SOC,
    NODE,
    OUT_ROWS,
    SETTINGS,
    SHARED,
    WORK,
    EstimatorConfig,
    EstimatorState,
)
from bms.core.growing import GrowingState
from bms.core.guard import GuardState, whole_digest
from bms.core.health_layout import HealthConfig, HealthState
from bms.core.jit import carve, kernel
from bms.core.leak import LeakConfig, LeakState
from bms.core.machine import MachineConfig, MachineState
from bms.core.power import PowerConfig, PowerState
from bms.core.records import floats, in_order, integers, octets, places, reader
from bms.core.runaway import RunawayConfig, RunawayState
from bms.core.signals_layout import SignalConfig, SignalState
from bms.core.sudden import SuddenState
from bms.core.thermometer import ThermometerConfig, ThermometerState
from hal.contract import F4, LANES, U1, U2, U4, Field, Layout, Record

ALIGN = 64
"""Bytes of a cache line: blocks and nodes start on one, if the record does."""

_CONFIG_PARTS = (
    signals_layout.CONFIG_FIELDS,
    diagnosis.CONFIG_FIELDS,
    machine.CONFIG_FIELDS,
    power.CONFIG_FIELDS,
    health_layout.CONFIG_FIELDS,
    leak.CONFIG_FIELDS,
    balancing.CONFIG_FIELDS,
    cooling.CONFIG_FIELDS,
    runaway.CONFIG_FIELDS,
    thermometer.CONFIG_FIELDS,
)
_STATE_PARTS = (
    signals_layout,
    diagnosis,
    machine,
    power,
    health_layout,
    leak,
    balancing,
    guard,
    runaway,
    sudden,
    growing,
    thermometer,
)

CONFIG = Layout(
    "Config",
    in_order(
        (
            Field("digest", "u4", "FNV-1a of all words of the record after this one"),
            Field("n_cells", "u4", "series groups of the rack"),
            Field("n_sensors", "u4", "temperature sensors of the rack"),
            Field("per_cell", "f4", "share of the string current that one cell of a parallel group carries"),
            *SETTINGS,
            Field("nodes", "f4", "parameters of the cell over temperature and SoC", f"{N_DEGC * N_SOC * NODE}"),
        ),
        *_CONFIG_PARTS,
    ),
    ALIGN,
)

STATE = Layout(
    "State",
    in_order(
        (
            *SHARED,
            Field("heartbeat", "u4", "counts steps since the start of the controller"),
            Field("blocks", "f4", "filters of the cells, blocks of 16", f"lanes*{BLOCK_ROWS}"),
            Field("work", "f4", "scratch of the estimator", f"{WORK}"),
            Field("node", "i4", "scratch of the estimator", f"{LANES}"),
            Field("out", "f4", "SoC, its deviation, model voltage, innovation", f"lanes*{OUT_ROWS}"),
            Field("flags", "u1", "flags of the estimator", "lanes"),
        ),
        *(part.STATE_FIELDS for part in _STATE_PARTS),
    ),
    ALIGN,
)


class Config(Record):
    """Constants of the controller: see `CONFIG`."""

    layout = CONFIG
    nodes: F4
    sensor_of_cell: U2

    @property
    def digest(self) -> int:
        """What the digest of the record should be."""
        return whole_digest(self.bytes.view(np.uint32)[1:])


class State(Record):
    """Memory of the controller: see `STATE`. Copying the bytes copies the controller."""

    layout = STATE
    blocks: F4
    out: F4
    flags: U1
    fault_value: F4
    fault_word: U4
    fault_number: F4
    fault_where: U2
    fault_status: U1
    machine_word: U4
    machine_wear: F4
    guard_word: U4
    health_capacity: F4
    health_resistance: F4
    health_cell: F4
    balancing_excess_ah: F4
    balancing_number: F4
    balancing_var: F4
    signal_cell_degc: F4
    leak_a: F4


class StepConfig(NamedTuple):
    """A `Config` as kernels take it."""

    estimator: EstimatorConfig
    signal: SignalConfig
    diagnosis: DiagnosisConfig
    machine: MachineConfig
    power: PowerConfig
    health: HealthConfig
    leak: LeakConfig
    balancing: BalancingConfig
    cooling: CoolingConfig
    runaway: RunawayConfig
    thermometer: ThermometerConfig
    words: Any  # what the digest is made of


class StepState(NamedTuple):
    """A `State` as kernels take it."""

    estimator: EstimatorState
    signal: SignalState
    diagnosis: DiagnosisState
    machine: MachineState
    power: PowerState
    health: HealthState
    leak: LeakState
    balancing: BalancingState
    guard: GuardState
    runaway: RunawayState
    sudden: SuddenState
    growing: GrowingState
    thermometer: ThermometerState


_CONFIG_HEAD = CONFIG.head_dtype
_STATE_HEAD = STATE.head_dtype

_C, _S = places(CONFIG), places(STATE)
_C_NODES = _C["nodes"]
_S_BLOCKS, _S_WORK, _S_NODE, _S_OUT, _S_FLAGS = (_S[name] for name in ("blocks", "work", "node", "out", "flags"))

_signal_config = reader(SignalConfig, signals_layout.CONFIG_FIELDS, _C)
_diagnosis_config = reader(DiagnosisConfig, diagnosis.CONFIG_FIELDS, _C)
_machine_config = reader(MachineConfig, machine.CONFIG_FIELDS, _C)
_power_config = reader(PowerConfig, power.CONFIG_FIELDS, _C)
_health_config = reader(HealthConfig, health_layout.CONFIG_FIELDS, _C)
_leak_config = reader(LeakConfig, leak.CONFIG_FIELDS, _C)
_balancing_config = reader(BalancingConfig, balancing.CONFIG_FIELDS, _C)
_cooling_config = reader(CoolingConfig, cooling.CONFIG_FIELDS, _C)
_runaway_config = reader(RunawayConfig, runaway.CONFIG_FIELDS, _C)
_thermometer_config = reader(ThermometerConfig, thermometer.CONFIG_FIELDS, _C)
_signal_state = reader(SignalState, signals_layout.STATE_FIELDS, _S)
_diagnosis_state = reader(DiagnosisState, diagnosis.STATE_FIELDS, _S)
_machine_state = reader(MachineState, machine.STATE_FIELDS, _S)
_power_state = reader(PowerState, power.STATE_FIELDS, _S)
_health_state = reader(HealthState, health_layout.STATE_FIELDS, _S)
_leak_state = reader(LeakState, leak.STATE_FIELDS, _S)
_balancing_state = reader(BalancingState, balancing.STATE_FIELDS, _S)
_guard_state = reader(GuardState, guard.STATE_FIELDS, _S)
_runaway_state = reader(RunawayState, runaway.STATE_FIELDS, _S)
_sudden_state = reader(SuddenState, sudden.STATE_FIELDS, _S)
_growing_state = reader(GrowingState, growing.STATE_FIELDS, _S)
_thermometer_state = reader(ThermometerState, thermometer.STATE_FIELDS, _S)


@kernel
def config_of(raw: U1) -> StepConfig:
    """The arrays of a `Config` record from its bytes."""
    head = carve(raw, 0, 1, _CONFIG_HEAD)
    n, m = int(head[0].n_cells), int(head[0].n_sensors)
    k = (n + LANES - 1) // LANES * LANES
    return StepConfig(
        EstimatorConfig(head, floats(raw, _C_NODES, n, m, k)[0]),
        _signal_config(raw, n, m, k),
        _diagnosis_config(raw, n, m, k),
        _machine_config(raw, n, m, k),
        _power_config(raw, n, m, k),
        _health_config(raw, n, m, k),
        _leak_config(raw, n, m, k),
        _balancing_config(raw, n, m, k),
        _cooling_config(raw, n, m, k),
        _runaway_config(raw, n, m, k),
        _thermometer_config(raw, n, m, k),
        carve(raw, 4, raw.shape[0] // 4 - 1, np.uint32),
    )


@kernel
def state_of(raw: U1, n: int, m: int) -> StepState:
    """The arrays of a `State` record of `n` cells and `m` sensors from its bytes."""
    k = (n + LANES - 1) // LANES * LANES
    return StepState(
        EstimatorState(
            floats(raw, _S_BLOCKS, n, m, k)[0],
            carve(raw, 0, 1, _STATE_HEAD),
            floats(raw, _S_OUT, n, m, k)[0],
            octets(raw, _S_FLAGS, n, m, k)[0],
            floats(raw, _S_WORK, n, m, k)[0],
            integers(raw, _S_NODE, n, m, k)[0],
        ),
        _signal_state(raw, n, m, k),
        _diagnosis_state(raw, n, m, k),
        _machine_state(raw, n, m, k),
        _power_state(raw, n, m, k),
        _health_state(raw, n, m, k),
        _leak_state(raw, n, m, k),
        _balancing_state(raw, n, m, k),
        _guard_state(raw, n, m, k),
        _runaway_state(raw, n, m, k),
        _sudden_state(raw, n, m, k),
        _growing_state(raw, n, m, k),
        _thermometer_state(raw, n, m, k),
    )


def fill_estimator(config: Config, estimator: EstimatorConfig) -> None:
    """Take over the part of `config` that the estimator reads; the sizes of the rack and its topology stay."""
    for field in SETTINGS:
        config.head[field.name] = estimator.scalars[field.name]
    config.nodes[:] = estimator.nodes


class Parts(NamedTuple):
    """The constants of all parts but the estimator, as their `*_setup` modules make them."""

    signal: SignalConfig
    diagnosis: DiagnosisConfig
    machine: MachineConfig
    power: PowerConfig
    health: HealthConfig
    leak: LeakConfig
    balancing: BalancingConfig
    cooling: CoolingConfig
    runaway: RunawayConfig
    thermometer: ThermometerConfig


def config_record(
    estimator: EstimatorConfig, parts: Parts, sensor_of_cell: npt.ArrayLike, n_sensors: int, n_parallel: int
) -> Config:
    """Everything that a controller has to know, in one record. `sensor_of_cell`: (n_cells,), each below `n_sensors`."""
    sensors = np.asarray(sensor_of_cell, np.uint16)
    if sensors.size == 0 or int(sensors.max()) >= n_sensors:
        raise ValueError(f"sensor_of_cell names sensor {sensors.max(initial=0)}, the rack has {n_sensors}")
    config = Config(sensors.size, n_sensors)
    fill_estimator(config, estimator)
    config.head["n_cells"], config.head["n_sensors"] = sensors.size, n_sensors
    config.head["per_cell"] = 1.0 / n_parallel
    for fields, part in zip(_CONFIG_PARTS, parts, strict=True):
        for field, array in zip(fields, part, strict=True):
            getattr(config, field.name)[...] = array
    config.sensor_of_cell[:] = sensors
    config.head["digest"] = config.digest
    return config
