"""What an image says of itself beside its version: hashes of the configuration and of the layouts of records."""

from __future__ import annotations

import hashlib

import numpy as np

from bms import racks
from bms.core.layout import CONFIG, STATE
from bms.racks.record import record
from hal.contract import COMMAND, MEASUREMENT, Capabilities, RackInfo
from hal.errors import ConfigError
from hal.flash.image import HASH_BYTES

CELLS_PER_SENSOR = 8
"""Cells for each temperature sensor, where nothing is said."""

LAYOUTS = (CONFIG, STATE, MEASUREMENT, COMMAND)


def layouts_hash() -> bytes:
    """Hash of all layouts of records of this version, `HASH_BYTES` bytes."""
    return _short(" ".join(layout.digest() for layout in LAYOUTS).encode())


def config_hash(name_or_path: str, n_sensors: int | None = None) -> bytes:
    """Hash of the record that the configuration of a rack becomes in a controller, `HASH_BYTES` bytes.

    The rack can all that the contract knows; its `n_sensors` temperature sensors stand for as many cells each. Raises
    `ConfigError`.
    """
    settings = racks.load(name_or_path)
    rack = settings.rack
    n_sensors = -(-rack.n_series // CELLS_PER_SENSOR) if n_sensors is None else n_sensors
    if not 1 <= n_sensors <= rack.n_series:
        raise ConfigError(f"--sensors {n_sensors}: expected 1..{rack.n_series}, as many as there are cells at most")
    info = RackInfo(
        name=rack.name,
        n_cells=rack.n_series,
        n_sensors=n_sensors,
        n_parallel=rack.n_parallel,
        capacity_ah=settings.cell.capacity_ah * rack.n_parallel if rack.capacity_ah is None else rack.capacity_ah,
        cell=settings.cell.name,
        sensor_of_cell=(np.arange(rack.n_series) * n_sensors // rack.n_series).astype(np.uint16),
        capabilities=Capabilities(
            balancing=True,
            cooling=True,
            insulation=True,
            coolant_flow=True,
            gas=True,
            bleed_feedback=True,
            shuttle=True,
        ),
    )
    return _short(record(settings, info).bytes.tobytes())


def _short(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:HASH_BYTES]
