"""From a configuration to the flat record: every part arrives, and what does not fit is told with file and table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bms import racks
from bms.cells import CellParameters
from bms.core import (
    balancing,
    cooling,
    diagnosis,
    health_layout,
    leak,
    machine,
    power,
    signals_layout,
    thermometer,
)
from bms.core.layout import Config
from bms.racks.record import record
from hal.contract import Capabilities, RackInfo
from hal.errors import ConfigError

N, N_SENSORS = 24, 6


def info_for(config: racks.RackConfig, **changes: Any) -> RackInfo:
    """A rack of 24 groups of the cells that `config` is for, with all that it needs."""
    cell: CellParameters = config.cell
    parallel = config.rack.n_parallel
    place = (np.arange(N) * N_SENSORS // N).astype(np.uint16)
    can = Capabilities(balancing=True, cooling=True, insulation=True)
    info = RackInfo("bench", N, N_SENSORS, parallel, cell.capacity_ah * parallel, cell.name, place, can)
    return replace(info, **changes)


def changed(config: racks.RackConfig, **tables: Any) -> racks.RackConfig:
    return racks.overlay(config, tables, "changed.toml")


def fields_that_differ(a: Config, b: Config) -> set[str]:
    return {name for name in a.raw.dtype.names or () if a.raw[name].tobytes() != b.raw[name].tobytes()} - {"head"}


PARTS: dict[str, tuple[dict[str, Any], Any]] = {
    "signals": ({"spread_soc_low": 0.15}, signals_layout),
    "machine": ({"weld_low": 0.2}, machine),
    "limits": ({"soc_max": 0.91}, power),
    "health": ({"min_swing": 0.4}, health_layout),
    "leak": ({"k_sigma": 9.0}, leak),
    "balancing": ({"board_w": 3.0}, balancing),
    "cooling": ({"hot_degc": 23.0}, cooling),
    "thermometer": ({"usual_s": 7200.0}, thermometer),
}
"""A change of each table, and the module whose constants it becomes."""


@pytest.mark.parametrize("table", PARTS)
def test_a_change_of_a_table_arrives_in_its_part_and_nowhere_else(lfp: racks.RackConfig, table: str) -> None:
    change, module = PARTS[table]
    info = info_for(lfp)
    moved = fields_that_differ(record(lfp, info), record(changed(lfp, **{table: change}), info))
    assert moved
    assert moved <= {field.name for field in module.CONFIG_FIELDS}


def test_a_bleed_resistor_is_told_once_for_balancing_and_signals(lfp: racks.RackConfig) -> None:
    info, at = info_for(lfp), signals_layout.SENSE_SHARE
    assert record(lfp, info).raw["signal_number"][0][at] == pytest.approx(0.1 / 33.0)
    other = record(changed(lfp, balancing={"bleed_ohm": 60.0}), info)
    assert other.raw["signal_number"][0][at] == pytest.approx(0.1 / 60.0)


def test_how_long_a_loss_is_remembered_follows_its_rows(lfp: racks.RackConfig) -> None:
    info, at = info_for(lfp), signals_layout.CELL_FADE_S
    assert record(lfp, info).raw["signal_number"][0][at] == pytest.approx(4.0)  # 3 s and a third
    other = record(changed(lfp, fault={"cell_voltage_lost": {"info": {"threshold": 4.5}}}), info)
    assert other.raw["signal_number"][0][at] == pytest.approx(6.0)


def test_the_fault_table_arrives(lfp: racks.RackConfig) -> None:
    made = record(lfp, info_for(lfp))
    wanted = diagnosis.diagnosis_config(lfp.rows)
    for field, array in zip(diagnosis.CONFIG_FIELDS, wanted, strict=True):
        np.testing.assert_array_equal(getattr(made, field.name)[...], array)
    assert len(lfp.rows) > 100


@pytest.mark.parametrize("name", racks.names())
def test_the_record_is_of_the_rack(name: str) -> None:
    """Sizes, topology, and the share of the string's current that one cell carries."""
    config = racks.load(name)
    info = info_for(config)
    made = record(config, info)
    assert (made.n_cells, made.n_sensors) == (N, N_SENSORS)
    assert made.head["per_cell"] == np.float32(1.0 / config.rack.n_parallel)
    np.testing.assert_array_equal(made.sensor_of_cell, info.sensor_of_cell)
    health = made.raw["health_number"][0]
    assert health[health_layout.PER_CELL] == np.float32(1.0 / config.rack.n_parallel)


def test_the_digest_is_that_of_the_words_and_notices_every_one(lfp: racks.RackConfig) -> None:
    made = record(lfp, info_for(lfp))
    assert made.head["digest"] == made.digest != 0
    assert record(lfp, info_for(lfp)).bytes.tobytes() == made.bytes.tobytes(), "the same again"
    words = made.bytes.view(np.uint32)
    for at in range(1, words.size, 997):
        words[at] ^= 1 << (at % 32)
        assert made.digest != made.head["digest"]
        words[at] ^= 1 << (at % 32)


def test_transport_is_for_cells_that_bear_0_v(lfp: racks.RackConfig) -> None:
    sodium = racks.load("na_185")
    made = record(sodium, info_for(sodium))
    assert made.raw["machine_flag"][0][machine.TRANSPORT_ALLOWED] == 1
    off = record(changed(sodium, machine={"transport_allowed": False}), info_for(sodium))
    assert off.raw["machine_flag"][0][machine.TRANSPORT_ALLOWED] == 0
    with pytest.raises(ConfigError) as error:
        record(changed(lfp, machine={"transport_allowed": True}), info_for(lfp))
    assert str(error.value) == (
        "changed.toml: machine.transport_allowed = True: only sodium-ion cells (na_...) bear 0 V, not 'lfp'"
    )


@pytest.mark.parametrize(
    ("tables", "rack", "message"),
    [
        (
            {"balancing": {"strategy": "active"}},
            {},
            "changed.toml: balancing.strategy = 'active': rack 'bench' cannot move charge between cells; use 'passive'",
        ),
        (
            {"balancing": {"board_w": 0.1}},
            {},
            "changed.toml: balancing.board_w = 0.1: must be at least the ",
        ),
        (
            {"signals": {"overload": 1.5}},
            {"sensor_of_cell": np.full(N, N_SENSORS, np.uint16)},
            "changed.toml: signals.sensor_of_cell: must name one of 6 sensors for each of 24 cells",
        ),
    ],
    ids=["strategy", "board", "topology"],
)
def test_what_does_not_fit_the_rack_is_told_in_one_line(
    lfp: racks.RackConfig, tables: dict[str, Any], rack: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        record(changed(lfp, **tables), info_for(lfp, **rack))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None, "no trace of where it was found"
