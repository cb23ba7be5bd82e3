"""From a rack's configuration to the flat record that the kernels take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bms.core.balancing_setup import balancing_config
from bms.core.cooling_setup import cooling_config
from bms.core.diagnosis import diagnosis_config
from bms.core.estimator_setup import estimator_config
from bms.core.health_setup import health_config
from bms.core.layout import Config, Parts, config_record
from bms.core.leak_setup import leak_config
from bms.core.machine_setup import machine_config, string_ohm
from bms.core.power_setup import power_config
from bms.core.runaway_setup import entropy_v_per_k, runaway_config
from bms.core.signals_setup import signals_config
from bms.core.thermometer_setup import thermometer_config
from bms.racks.config import RackConfig
from hal.contract import RackInfo
from hal.errors import ConfigError


@contextmanager
def _named(config: RackConfig, table: str) -> Iterator[None]:
    """A setting that does not fit the rack is told with its file and table."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{config.source}: {table}.{error}") from None


def record(config: RackConfig, info: RackInfo) -> Config:
    """The configuration of the controller of the rack `info`. Raises `ConfigError` where the two do not fit."""
    cell = config.cell
    with _named(config, "signals"):
        signal = signals_config(cell, info, config.signals, config.rows)
    with _named(config, "machine"):
        ohm = string_ohm(cell.r0_ohm, info.n_cells, info.n_parallel)
        machine = machine_config(cell.limits, info, config.machine, cell.chemistry, ohm)
    with _named(config, "limits"):
        power = power_config(cell, info, config.limits)
    with _named(config, "balancing"):
        balancing = balancing_config(cell.limits, info, config.balancing)
    parts = Parts(
        signal=signal,
        diagnosis=diagnosis_config(config.rows),
        machine=machine,
        power=power,
        health=health_config(cell.capacity_ah, info.n_parallel, config.health),
        leak=leak_config(info, config.leak),
        balancing=balancing,
        cooling=cooling_config(config.cooling),
        runaway=runaway_config(cell.limits.degc_max, config.runaway, entropy_v_per_k(cell)),
        thermometer=thermometer_config(config.thermometer),
    )
    return config_record(estimator_config(cell), parts, info.sensor_of_cell, info.n_sensors, info.n_parallel)
