"""A rack of a few cells on paper, with a measurement and a command that leave no field at its default."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hal.contract import MEASUREMENT, Capabilities, Command, Measurement, RackInfo


def make_info(n_cells: int = 20, *, shuttle: bool = False, name: str = "paper") -> RackInfo:
    """A rack with a temperature sensor for each four cells."""
    return RackInfo(
        name=name,
        n_cells=n_cells,
        n_sensors=-(-n_cells // 4),
        n_parallel=2,
        capacity_ah=280.0,
        cell="lfp_280",
        sensor_of_cell=(np.arange(n_cells) // 4).astype(np.uint16),
        capabilities=Capabilities(balancing=True, cooling=True, insulation=True, gas=True, shuttle=shuttle),
    )


def make_measurement(info: RackInfo, seed: int = 1) -> Measurement:
    """Values that a wire carries without rounding: 0.1 mV, 0.1 degC, ages in ms."""
    rng = np.random.default_rng(seed)
    m = Measurement(info.n_cells, info.n_sensors)
    for field in MEASUREMENT.fields:
        target = m.raw[field.name] if field.dims else m.head[field.name]
        if field.name.endswith("_age_s"):
            target[...] = np.float32(rng.integers(0, 999, target.shape) * 1e-3)
        elif field.kind == "u1":
            target[...] = 0
        else:
            target[...] = rng.integers(1, 999, target.shape)
    m.cell_v[:] = np.float64(rng.integers(25000, 36000, info.n_cells)) * 1e-4
    m.sensor_degc[:] = np.float64(rng.integers(-200, 600, info.n_sensors)) * 1e-1
    m.bleeding[:] = rng.integers(0, 2, info.n_cells)
    m.head["interlock_closed"] = 1
    m.head["contactors"] = 3
    return m


def make_command(info: RackInfo, seed: int = 1) -> Command:
    """A command that a rack can follow."""
    rng = np.random.default_rng(seed)
    command = Command(info.n_cells, info.n_sensors)
    for name in command.head.dtype.names or ():
        command.head[name] = rng.integers(1, 100)
    command.head["contactors"] = 3
    command.head["flow"] = command.head["severity"] = 1
    command.fault_fatal[:] = rng.integers(0, 2**31, 3)
    command.balance[:] = rng.integers(0, 2, info.n_cells)
    if info.capabilities.shuttle:
        command.shuttle[:] = rng.integers(0, 3, info.n_cells)
    return command


@pytest.fixture
def info_of() -> Callable[..., RackInfo]:
    """`make_info`."""
    return make_info


@pytest.fixture
def measured() -> Callable[..., Measurement]:
    """`make_measurement`."""
    return make_measurement


@pytest.fixture
def commanded() -> Callable[..., Command]:
    """`make_command`."""
    return make_command
