"""A rack's configuration as a constant of C: what a controller has in its flash, and never loads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from bms import racks
from bms.core.layout import CONFIG, STATE, Config
from bms.racks.record import record
from hal.contract import COMMAND, MEASUREMENT, U1, Capabilities, RackInfo
from hal.errors import ConfigError

CELLS_PER_SENSOR = 8
"""Cells for each temperature sensor, where nothing is said."""

LAYOUTS = (CONFIG, STATE, MEASUREMENT, COMMAND)
"""Of the records that a controller and whoever talks to it must agree on."""

WORDS_A_LINE = 12


@dataclass(frozen=True)
class Baked:
    """A configuration ready for a controller."""

    record: Config
    period_s: float
    source: str

    @classmethod
    def of(cls, config: U1, period_s: float = 1.0) -> Baked:
        """From the bytes of a record, which are copied. Raises `ValueError` where they are not those of one."""
        head = config[: CONFIG.head_dtype.itemsize].view(CONFIG.head_dtype)[0]
        found = Config(int(head["n_cells"]), int(head["n_sensors"]))
        found.bytes[:] = config
        return cls(found, period_s, "a record")

    @property
    def digest(self) -> str:
        """Hash of all bytes of the record, 16 hexadecimal digits."""
        return hashlib.sha256(self.record.bytes.tobytes()).hexdigest()[:16]


def baked(name_or_path: str, n_sensors: int | None, cells_per_sensor: int = CELLS_PER_SENSOR) -> Baked:
    """The configuration of a rack of the package, or of a file, for a rack that can all that the contract knows.

    Its `n_sensors` temperature sensors stand for as many cells each; None: each for `cells_per_sensor`. Raises
    `ConfigError`.
    """
    settings = racks.load(name_or_path)
    rack = settings.rack
    n_sensors = -(-rack.n_series // cells_per_sensor) if n_sensors is None else n_sensors
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
    return Baked(record(settings, info), settings.timing.period_s, settings.source)


def config_header(found: Baked) -> str:
    """The header that declares the constant, with the sizes that go with it."""
    config = found.record
    size = sizes(config.n_cells, config.n_sensors)
    return f"""\
/* The configuration of one rack. Made by `bms build`; do not edit. */
#ifndef RACKBMS_CONFIG_H
#define RACKBMS_CONFIG_H

#include "rackbms.h"

#define RACKBMS_CONFIG_HASH "{found.digest}"
#define RACKBMS_CONFIG_CELLS {config.n_cells}
#define RACKBMS_CONFIG_SENSORS {config.n_sensors}
#define RACKBMS_CONFIG_SIZE {size["config"]}
#define RACKBMS_CONFIG_STATE_SIZE {size["state"]}
#define RACKBMS_CONFIG_MEASUREMENT_SIZE {size["measurement"]}
#define RACKBMS_CONFIG_COMMAND_SIZE {size["command"]}
#define RACKBMS_CONFIG_PERIOD_US {round(found.period_s * 1e6)}

/* the record as little-endian words, because compilers are quicker with them than with bytes */
extern const uint32_t rackbms_config[RACKBMS_CONFIG_SIZE / 4];

#endif
"""


def config_source(found: Baked) -> str:
    """The constant itself."""
    words = found.record.bytes.view("<u4").tolist()
    lines = [
        ", ".join(f"0x{word:x}u" if word else "0" for word in words[k : k + WORDS_A_LINE])
        for k in range(0, len(words), WORDS_A_LINE)
    ]
    text = ",\n    ".join(lines)
    return f"""\
/* Made by `bms build`; do not edit. */
#include "rackbms_config.h"

/* a section of its own, so that a board may have it in a memory of its own */
__attribute__((section(".rackbms.config"), aligned({CONFIG.align})))
const uint32_t rackbms_config[RACKBMS_CONFIG_SIZE / 4] = {{
    {text}
}};
"""


def sizes(n_cells: int, n_sensors: int) -> dict[str, int]:
    """Bytes of each kind of record of a rack."""
    return {layout.name.lower(): layout.dtype(n_cells, n_sensors).itemsize for layout in LAYOUTS}
