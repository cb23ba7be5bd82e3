"""The two layouts that the controller owns: its configuration and its memory.

They are records as `hal.contract` has them: one run of bytes each, known to numpy, to the kernels and to the C header.
The kernels find the arrays by `config_of` and `state_of`, whose order is that of the layouts here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.control import N_FAULTS, N_NUMBERS, N_STATE_NUMBERS, N_WORDS, ControlConfig, ControlState
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
from bms.core.jit import carve, f4, kernel
from hal.contract import F4, LANES, U1, U2, Field, Layout, Record

ALIGN = 64
"""Bytes of a cache line: blocks and nodes start on one, if the record does."""

_N_HAS = 3

CONFIG = Layout(
    "Config",
    (
        Field("n_cells", "u4", "series groups of the rack"),
        Field("n_sensors", "u4", "temperature sensors of the rack"),
        Field("per_cell", "f4", "share of the string current that one cell of a parallel group carries"),
        *SETTINGS,
        Field("nodes", "f4", "parameters of the cell over temperature and SoC", f"{N_DEGC * N_SOC * NODE}"),
        Field("number", "f4", "settings of the control", f"{N_NUMBERS}"),
        Field("table", "f4", "fault table: threshold, clear, set_s, clear_s of each row", f"{N_FAULTS * 4}"),
        Field("sensor_of_cell", "u2", "temperature sensor that stands for each cell", "cells"),
        Field("has", "u1", "1 = the rack has contactors, precharge, balancing", f"{_N_HAS}"),
    ),
    ALIGN,
)

STATE = Layout(
    "State",
    (
        *SHARED,
        Field("blocks", "f4", "filters of the cells, blocks of 16", f"lanes*{BLOCK_ROWS}"),
        Field("work", "f4", "scratch of the estimator", f"{WORK}"),
        Field("node", "i4", "scratch of the estimator", f"{LANES}"),
        Field("out", "f4", "SoC, its deviation, model voltage, innovation", f"lanes*{OUT_ROWS}"),
        Field("word", "u4", "words of the control", f"{N_WORDS}"),
        Field("number", "f4", "numbers of the control", f"{N_STATE_NUMBERS}"),
        Field("value", "f4", "what each row of the fault table saw last", f"{N_FAULTS}"),
        Field("timer", "f4", "its timer, s", f"{N_FAULTS}"),
        Field("sensor_degc", "f4", "last usable temperature of each sensor", "sensors"),
        Field("cell_degc", "f4", "temperature that each cell is taken to have", "cells"),
        Field("flags", "u1", "flags of the estimator", "lanes"),
        Field("active", "u1", "1 = the fault of this row is active", f"{N_FAULTS}"),
        Field("balance", "u1", "1 = this cell is being bled", "cells"),
        Field("cell_quality", "u1", "quality of each voltage as the estimator was told", "cells"),
    ),
    ALIGN,
)


class Config(Record):
    """Constants of the controller: see `CONFIG`."""

    layout = CONFIG
    nodes: F4
    number: F4
    table: F4
    sensor_of_cell: U2
    has: U1


class State(Record):
    """Memory of the controller: see `STATE`. Copying the bytes copies the controller."""

    layout = STATE
    blocks: F4
    out: F4
    flags: U1
    word: Any
    number: F4
    value: F4
    timer: F4
    active: U1
    balance: U1
    sensor_degc: F4
    cell_degc: F4
    cell_quality: U1


class StepConfig(NamedTuple):
    """A `Config` as kernels take it."""

    estimator: EstimatorConfig
    control: ControlConfig
    sensor_of_cell: U2


class StepState(NamedTuple):
    """A `State` as kernels take it."""

    estimator: EstimatorState
    control: ControlState
    sensor_degc: F4
    cell_degc: F4
    cell_quality: U1


_CONFIG_HEAD = CONFIG.head_dtype
_STATE_HEAD = STATE.head_dtype
_CONFIG_HEAD_SIZE = CONFIG.head_dtype.itemsize
_STATE_HEAD_SIZE = STATE.head_dtype.itemsize
_NODES = N_DEGC * N_SOC * NODE


@kernel
def config_of(raw: U1) -> StepConfig:
    """The arrays of a `Config` record from its bytes."""
    head = carve(raw, 0, 1, _CONFIG_HEAD)
    n_cells = int(head[0].n_cells)
    nodes = _CONFIG_HEAD_SIZE
    number = nodes + 4 * _NODES
    table = number + 4 * N_NUMBERS
    sensor_of_cell = table + 16 * N_FAULTS
    has = sensor_of_cell + 2 * n_cells
    return StepConfig(
        EstimatorConfig(head, carve(raw, nodes, _NODES, f4)),
        ControlConfig(
            carve(raw, number, N_NUMBERS, f4), carve(raw, table, 4 * N_FAULTS, f4), carve(raw, has, _N_HAS, np.uint8)
        ),
        carve(raw, sensor_of_cell, n_cells, np.uint16),
    )


@kernel
def state_of(raw: U1, n_cells: int, n_sensors: int) -> StepState:
    """The arrays of a `State` record from its bytes."""
    lanes = (n_cells + LANES - 1) // LANES * LANES
    blocks = _STATE_HEAD_SIZE
    work = blocks + 4 * BLOCK_ROWS * lanes
    node = work + 4 * WORK
    out = node + 4 * LANES
    word = out + 4 * OUT_ROWS * lanes
    number = word + 4 * N_WORDS
    value = number + 4 * N_STATE_NUMBERS
    timer = value + 4 * N_FAULTS
    sensor_degc = timer + 4 * N_FAULTS
    cell_degc = sensor_degc + 4 * n_sensors
    flags = cell_degc + 4 * n_cells
    active = flags + lanes
    balance = active + N_FAULTS
    cell_quality = balance + n_cells
    return StepState(
        EstimatorState(
            carve(raw, blocks, BLOCK_ROWS * lanes, f4),
            carve(raw, 0, 1, _STATE_HEAD),
            carve(raw, out, OUT_ROWS * lanes, f4),
            carve(raw, flags, lanes, np.uint8),
            carve(raw, work, WORK, f4),
            carve(raw, node, LANES, np.int32),
        ),
        ControlState(
            carve(raw, word, N_WORDS, np.uint32),
            carve(raw, number, N_STATE_NUMBERS, f4),
            carve(raw, value, N_FAULTS, f4),
            carve(raw, timer, N_FAULTS, f4),
            carve(raw, active, N_FAULTS, np.uint8),
            carve(raw, balance, n_cells, np.uint8),
        ),
        carve(raw, sensor_degc, n_sensors, f4),
        carve(raw, cell_degc, n_cells, f4),
        carve(raw, cell_quality, n_cells, np.uint8),
    )


def fill_estimator(config: Config, estimator: EstimatorConfig) -> None:
    """Take over the part of `config` that the estimator reads; the sizes of the rack and its topology stay."""
    for field in SETTINGS:
        config.head[field.name] = estimator.scalars[field.name]
    config.nodes[:] = estimator.nodes


def config_record(
    estimator: EstimatorConfig, control: ControlConfig, sensor_of_cell: npt.ArrayLike, n_sensors: int, n_parallel: int
) -> Config:
    """Everything that a controller has to know, in one record. `sensor_of_cell`: (n_cells,), each below `n_sensors`."""
    sensors = np.asarray(sensor_of_cell, np.uint16)
    if sensors.size == 0 or int(sensors.max()) >= n_sensors:
        raise ValueError(f"sensor_of_cell names sensor {sensors.max(initial=0)}, the rack has {n_sensors}")
    config = Config(sensors.size, n_sensors)
    fill_estimator(config, estimator)
    config.head["n_cells"], config.head["n_sensors"] = sensors.size, n_sensors
    config.head["per_cell"] = 1.0 / n_parallel
    config.number[:] = control.number
    config.table[:] = control.table
    config.has[:] = control.has
    config.sensor_of_cell[:] = sensors
    return config
