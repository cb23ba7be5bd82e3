"""One configuration for one rack: the settings of all parts, the fault table, and the cell.

`load("lfp_280")` reads a file of this package, `load("path/to/rack.toml")` one of your own; see docs/configuration.md.
Every table and key has a default, which follows from the cell file where it can.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from bms import cells
from bms.cells import CellParameters
from bms.core.balancing_setup import BalancingSettings
from bms.core.cooling_setup import CoolingSettings
from bms.core.faults import Row
from bms.core.health_setup import HealthSettings
from bms.core.leak_setup import LeakSettings
from bms.core.machine_setup import MachineSettings
from bms.core.power_setup import DERATINGS, PowerSettings
from bms.core.runaway_setup import RunawaySettings
from bms.core.signals_setup import SignalSettings
from bms.core.thermometer_setup import ThermometerSettings
from bms.racks import faults, tables
from bms.racks.basis import Basis
from bms.racks.rows import default_rows
from bms.racks.settings import RackSettings, TimingSettings
from hal.contract import RackInfo
from hal.errors import ConfigError, nearest

FORMAT = 1
FLOW_LPM = 3.0
"""Coolant flow that is expected of a rack whose nominal flow is not known."""


PARTS: dict[str, type[Any]] = {
    "rack": RackSettings,
    "timing": TimingSettings,
    "signals": SignalSettings,
    "machine": MachineSettings,
    "limits": PowerSettings,
    "health": HealthSettings,
    "leak": LeakSettings,
    "balancing": BalancingSettings,
    "cooling": CoolingSettings,
    "runaway": RunawaySettings,
    "thermometer": ThermometerSettings,
}
"""Tables of a file, and the settings that they fill; each is an attribute of `RackConfig` of the same name."""

TAKEN_OVER = {
    ("signals", "period_s"): "timing.period_s",
    ("signals", "bleed_ohm"): "balancing.bleed_ohm",
}
"""Keys of settings that are told once for all parts, and where."""


@dataclass(frozen=True)
class RackConfig:
    """A rack's configuration. Equal where settings and rows are; `source` and `tables` tell where it comes from."""

    rack: RackSettings
    timing: TimingSettings
    signals: SignalSettings
    machine: MachineSettings
    limits: PowerSettings
    health: HealthSettings
    leak: LeakSettings
    balancing: BalancingSettings
    cooling: CoolingSettings
    runaway: RunawaySettings
    thermometer: ThermometerSettings
    rows: tuple[Row, ...]
    cell: CellParameters = field(compare=False, repr=False)
    tables: Mapping[str, Any] = field(compare=False, repr=False)
    source: str = field(compare=False)

    @property
    def basis(self) -> Basis:
        """What the default rows follow from."""
        return _basis(self.cell, {name: getattr(self, name) for name in PARTS})


def names() -> list[str]:
    """Racks whose configuration comes with the package."""
    return sorted(p.name[:-5] for p in resources.files(__package__).iterdir() if p.name.endswith(".toml"))


def load(name_or_path: str | Path, cell: CellParameters | None = None) -> RackConfig:
    """A configuration by its name in the package, or by path (anything with a '/' or that ends in .toml).

    `cell` replaces the cell that the file names. Raises `ConfigError`: one line that names file, key, value and remedy.
    """
    data, source = read(name_or_path)
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    if content.get("format") != FORMAT:
        given = tables.shown(content["format"]) if "format" in content else "missing"
        raise ConfigError(f"{source}: format = {given}: expected format = {FORMAT} at the top of the file")
    return parse(content, source, cell)


def read(name_or_path: str | Path) -> tuple[bytes, str]:
    """The bytes of a configuration, and its file for messages. Raises `ConfigError`."""
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or name.endswith(".toml") or "/" in name:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{name}: cannot be read: {error.strerror or error}; give a path that exists or one of: "
                f"{', '.join(names())}"
            ) from None
        source = name
    else:
        if name not in names():
            raise ConfigError(f"unknown rack '{name}'{nearest(name, names())}; or give the path of a .toml file")
        data = resources.files(__package__).joinpath(f"{name}.toml").read_bytes()
        source = f"{name}.toml"
    return data, source


def parse(content: Mapping[str, Any], source: str, cell: CellParameters | None = None) -> RackConfig:
    """Make a configuration of the tables of a file. Raises `ConfigError`.

    `cell` replaces the cell that `[rack]` names, and is needed where it names none.
    """
    settings = check_tables(content, source)
    rack = settings["rack"]
    if cell is None:
        if not rack.cell:
            raise ConfigError(f'{source}: rack.cell = "": which cell is it? Give one of: {", ".join(cells.names())}')
        try:
            cell = cells.load(_cell_path(rack.cell, source))
        except ConfigError as error:
            raise ConfigError(f"{source}: rack.cell = {tables.shown(rack.cell)}: {error}") from None
    if cell.chemistry not in DERATINGS:
        raise ConfigError(
            f"{source}: rack.cell = {tables.shown(cell.name)}: chemistry {tables.shown(cell.chemistry)} is not known"
            f"{nearest(cell.chemistry, DERATINGS)}; correct the cell file"
        )
    rows = faults.apply(default_rows(cell, _basis(cell, settings)), content.get("fault", {}), source)
    return RackConfig(**settings, rows=tuple(rows), cell=cell, tables=dict(content), source=source)


def _cell_path(name: str, source: str) -> str:
    """A relative path of a cell file counts from the folder of the configuration that names it."""
    if ("/" in name or name.endswith(".toml")) and not Path(name).is_absolute():
        return str(Path(source).parent / name)
    return name


def check_tables(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings of all tables; raises `ConfigError` for anything unknown or of the wrong type."""
    known = ("format", *PARTS, "fault")
    for key, value in content.items():
        if key not in known:
            what = "table" if isinstance(value, Mapping) else "key"
            raise ConfigError(f"{source}: {key}: unknown {what}{nearest(key, known)}")
    faults.check(content.get("fault", {}), source)
    for (name, key), instead in TAKEN_OVER.items():
        value = content.get(name, {})
        if isinstance(value, Mapping) and key in value:
            given = tables.shown(value[key])
            raise ConfigError(f"{source}: {name}.{key} = {given}: told in another place; give {instead} instead")
    settings = {name: tables.settings(kind, content.get(name, {}), name, source) for name, kind in PARTS.items()}
    for (name, key), instead in TAKEN_OVER.items():
        table, other = instead.split(".")
        settings[name] = dataclasses.replace(settings[name], **{key: getattr(settings[table], other)})
    return settings


def _basis(cell: CellParameters, settings: Mapping[str, Any]) -> Basis:
    rack: RackSettings = settings["rack"]
    limits: PowerSettings = settings["limits"]
    machine: MachineSettings = settings["machine"]
    signals: SignalSettings = settings["signals"]
    capacity_ah = rack.capacity_ah if rack.capacity_ah is not None else cell.capacity_ah * rack.n_parallel
    most = []
    for most_c, own_c, own_a, pulse in (
        (cell.limits.max_charge_c, limits.max_charge_c, limits.max_charge_a, limits.pulse_charge),
        (cell.limits.max_discharge_c, limits.max_discharge_c, limits.max_discharge_a, limits.pulse_discharge),
    ):
        rated_a = capacity_ah * (most_c if own_c is None else min(own_c, most_c))
        most.append(pulse * (rated_a if own_a is None else min(rated_a, own_a)))
    return Basis(
        n_series=rack.n_series,
        capacity_ah=capacity_ah,
        charge_a=most[0],
        discharge_a=most[1],
        period_s=settings["timing"].period_s,
        current_range_a=signals.current_range_c * capacity_ah,
        self_test_s=machine.self_test_time_out_s,
        precharge_rc_s=machine.precharge_ohm * machine.link_f,
        precharge_attempts=machine.precharge_attempts,
        coolant_flow_lpm=rack.coolant_flow_lpm or FLOW_LPM,
    )


def default(cell: CellParameters, info: RackInfo) -> RackConfig:
    """The configuration of a rack that has no file: all defaults for its cell and size."""
    rack = {
        "name": info.name,
        "cell": cell.name,
        "n_series": info.n_cells,
        "n_parallel": info.n_parallel,
        "capacity_ah": float(info.capacity_ah),
    }
    return parse({"format": FORMAT, "rack": rack}, f"defaults for {info.name}", cell)


def overlay(config: RackConfig, changes: Mapping[str, Any], source: str) -> RackConfig:
    """`config` with the tables `changes`, in the same keys, over its own; default rows follow what they change.

    `source` names the changes in messages. Raises `ConfigError`.
    """
    if not changes:
        return config
    settings = check_tables(changes, source)
    renamed = "cell" in changes.get("rack", {}) and settings["rack"].cell != config.rack.cell
    return parse(tables.merged(config.tables, changes), source, None if renamed else config.cell)


def fitted(config: RackConfig, info: RackInfo) -> RackConfig:
    """`config` for a rack of the same kind but another size, as twins are: thresholds of the string follow."""
    size = {"n_series": info.n_cells, "n_parallel": info.n_parallel, "capacity_ah": float(info.capacity_ah)}
    return dataclasses.replace(overlay(config, {"rack": size}, config.source), source=config.source)


def misfit(config: RackConfig, info: RackInfo) -> str:
    """Why `config` cannot be that of the rack `info`, as a line for people; '' where it can."""
    for key, ours, theirs in (
        ("n_series", config.rack.n_series, info.n_cells),
        ("n_parallel", config.rack.n_parallel, info.n_parallel),
    ):
        if ours != theirs:
            return f"{config.source}: rack.{key} = {ours}: rack '{info.name}' has {theirs}; use the file made for it"
    return ""


def to_tables(config: RackConfig) -> dict[str, Any]:
    """All settings, and the rows that differ from the defaults, as tables: `parse` makes the same of them."""
    result: dict[str, Any] = {"format": FORMAT}
    result.update({name: tables.plain(getattr(config, name)) for name in PARTS})
    for name, key in TAKEN_OVER:
        del result[name][key]
    changed = faults.differences(config.rows, default_rows(config.cell, config.basis))
    return {**result, "fault": changed} if changed else result


def dump(config: RackConfig) -> str:
    """The configuration as the text of a file."""
    return tables.text(to_tables(config))
