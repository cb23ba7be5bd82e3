"""A rack's CAN profile: a DBC, and a TOML file beside it that says which signal feeds which field of the contract.

`load("reference")` is ours, for a rack of any size; `load("FOLDER/profile.toml")` is a user's own. See `docs/can.md`
for the tables of the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from hal.codec.dbc import Database, Message, parse
from hal.codec.frames import Protection
from hal.contract import COMMAND, MEASUREMENT, Capabilities, RackInfo
from hal.errors import ConfigError, nearest
from hal.profiles.reference import generate

FOLDER = Path(__file__).parent.parent / "profiles"
REFERENCE = "reference"

TABLES: dict[str, tuple[str, ...]] = {
    "can": ("dbc", "fd_dbc", "bitrate", "data_bitrate", "layout", "commit", "stale_cycles", "cycle_ms", "protection"),
    "rack": ("cell", "n_cells", "n_sensors", "n_parallel", "capacity_ah", "sensor_of_cell"),
    "capabilities": tuple(f.name for f in fields(Capabilities) if f.name != "truth"),
    "identity": ("layout", "n_cells", "n_sensors", "n_parallel", "capacity_ah"),
    "measurement": tuple(
        f.name for f in MEASUREMENT.fields if not f.name.endswith(("_age_s", "_quality")) and f.name != "time_s"
    ),
    "command": tuple(f.name for f in COMMAND.fields if f.name != "time_s"),
}
"""Tables of a profile, and their keys."""

_CHANNEL_KEYS = ("signal", "bits", "valid", "invalid", "factor", "offset", "constant", "first")


@dataclass(frozen=True)
class Channel:
    """Where a field of the contract comes from: the signals `signals` (one, or one for each place of an array).

    value = signal * `factor` + `offset`. `bits`: signal k is bit k of a whole number. `valid` names the signals that
    are 1 where the value is good, or with `inverted` 0; it is empty where there are none. A field with a `constant` has
    no signal.
    """

    name: str
    signals: tuple[str, ...]
    valid: tuple[str, ...] = ()
    inverted: bool = False
    bits: bool = False
    factor: float = 1.0
    offset: float = 0.0
    constant: float | None = None


@dataclass(frozen=True)
class CanProfile:
    """A profile that is ready for a rack: database, channels by field, and what the rack is."""

    source: str
    database: Database
    info: RackInfo
    bitrate: int
    data_bitrate: int
    layout: int
    commit: str
    stale_cycles: float
    protection: Protection | None
    identity: Mapping[str, str]
    measurement: Mapping[str, Channel]
    command: Mapping[str, Channel]
    fd: bool = False

    def measurement_messages(self) -> tuple[Message, ...]:
        """The messages of the rack that a measurement needs, that of its identity among them."""
        return self._carrying(self.measurement, *self.identity.values())

    def command_messages(self) -> tuple[Message, ...]:
        """The messages of a command, that which the rack acts on the last."""
        found = self._carrying(self.command)
        last = tuple(m for m in found if m.name == self.commit)
        if not last:
            raise ConfigError(
                f"{self.source}: [can] commit = {self.commit!r}: a message of [command] signals is needed"
            )
        return tuple(m for m in found if m.name != self.commit) + last

    def _carrying(self, channels: Mapping[str, Channel], *more: str) -> tuple[Message, ...]:
        names = {*more}
        for channel in channels.values():
            names.update(channel.signals, channel.valid)
        return tuple(filter(None, (_part_of(message, names) for message in self.database.messages)))


def _part_of(message: Message, names: set[str]) -> Message | None:
    """`message` with the pages that hold a signal of `names`, and what they share; None if it has none of those."""
    pages = {s.page for s in message.signals if s.name in names or f"{message.name}.{s.name}" in names}
    if not pages:
        return None
    return replace(message, signals=tuple(s for s in message.signals if s.page is None or s.page in pages))


def load(name: str, *, fd: bool = False, rack: Mapping[str, Any] | None = None, address: str = "can") -> CanProfile:
    """The profile `name`: 'reference', or the path of a TOML file. Raises `ConfigError`.

    `rack` changes the table [rack] (of a user's profile all but the sizes); `address` is what the rack is called. `fd`
    takes the DBC for CAN FD.
    """
    path = FOLDER / REFERENCE / "profile.toml" if name == REFERENCE else Path(name)
    if name != REFERENCE and path.suffix != ".toml":
        raise ConfigError(f"profile '{name}': unknown; write {REFERENCE}, or the path of a .toml file")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    source = str(path) if name != REFERENCE else f"profile {REFERENCE}"
    return _profile(_Reader(source, tables), path, name == REFERENCE, fd, rack or {}, address)


class _Reader:
    """The tables of a profile's file, looked at as they are taken."""

    def __init__(self, source: str, tables: Mapping[str, Any]) -> None:
        self.source = source
        self.tables = tables
        for table, content in tables.items():
            if table not in TABLES:
                raise ConfigError(f"{source}: unknown table [{table}]{nearest(table, TABLES)}")
            if not isinstance(content, Mapping):
                raise ConfigError(f"{source}: {table} = {content!r}: expected a table [{table}]")
            for key in content:
                if key not in TABLES[table]:
                    raise ConfigError(f"{source}: [{table}] has no key '{key}'{nearest(key, TABLES[table])}")

    def get(self, table: str, key: str, kind: type, default: Any = None) -> Any:
        """A value of type `kind`; without a default it must be there."""
        value = self.tables.get(table, {}).get(key, default)
        if value is None:
            raise ConfigError(f"{self.source}: [{table}] {key} is missing")
        return self.typed(f"[{table}] {key}", value, kind)

    def typed(self, where: str, value: Any, kind: type) -> Any:
        """`value` as `kind`; a whole number will do for a float."""
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ConfigError(f"{self.source}: {where} = {value!r}: expected {kind.__name__}")
        return value

    def channels(self, table: str, sizes: Mapping[str, int], layout: Any) -> dict[str, Channel]:
        """The channels of [measurement] or [command]."""
        found = {}
        for name, entry in self.tables.get(table, {}).items():
            field = next(f for f in layout.fields if f.name == name)
            may_be_bits = field.kind[0] == "u" and not field.dims
            found[name] = self._channel(f"[{table}] {name}", name, entry, sizes.get(field.dims, 1), may_be_bits)
        return found

    def _channel(self, where: str, name: str, entry: Any, size: int, may_be_bits: bool) -> Channel:
        self.typed(where, entry, dict)
        for key in entry:
            if key not in _CHANNEL_KEYS:
                raise ConfigError(f"{self.source}: {where} has no key '{key}'{nearest(key, _CHANNEL_KEYS)}")
        if "constant" in entry:
            return Channel(name, (), constant=self.typed(f"{where} constant", entry["constant"], float))
        if ("signal" in entry) == ("bits" in entry):
            raise ConfigError(f"{self.source}: {where}: name its signal, or its bits, or give a constant")
        if "valid" in entry and "invalid" in entry:
            raise ConfigError(f"{self.source}: {where}: valid or invalid, not both")
        factor = self.typed(f"{where} factor", entry.get("factor", 1.0), float)
        if factor == 0.0:
            raise ConfigError(f"{self.source}: {where} factor = 0: give the size of one unit, or -1 to turn a sign")
        first = self.typed(f"{where} first", entry.get("first", 0), int)
        offset = self.typed(f"{where} offset", entry.get("offset", 0.0), float)
        guard = "invalid" if "invalid" in entry else "valid"
        texts = [self.typed(f"{where} {key}", entry.get(key, ""), str) for key in ("signal", guard)]
        signals, valid = (tuple(self._names(where, text, first, size)) for text in texts)
        bits = self.typed(f"{where} bits", entry.get("bits", []), list)
        if "bits" in entry:
            if not may_be_bits or not bits:
                raise ConfigError(f"{self.source}: {where} bits: a list of signals, for one whole number")
            signals = tuple(self.typed(f"{where} bits", bit, str) for bit in bits)
        elif len(signals) != size:
            raise ConfigError(
                f"{self.source}: {where}: {size} signals are needed; write {{}} where their number stands"
            )
        return Channel(name, signals, valid, guard == "invalid", bool(bits), factor, offset)

    def _names(self, where: str, text: str, first: int, size: int) -> Iterator[str]:
        """The names that a template stands for."""
        if not text:
            return
        for k in range(first, first + size) if "{" in text else (first,):
            try:
                yield text.format(k)
            except (ValueError, IndexError, KeyError) as error:
                raise ConfigError(
                    f"{self.source}: {where}: '{text}' is no template ({error}); write for example Cell_{{:03}}"
                ) from None


def _profile(
    reader: _Reader, path: Path, generated: bool, fd: bool, changes: Mapping[str, Any], address: str
) -> CanProfile:
    source = reader.source
    shipped = dict(reader.tables.get("rack", {}))
    for key in changes:
        if key in ("n_cells", "n_sensors") and not generated and changes[key] != shipped.get(key):
            raise ConfigError(
                f"{source}: {key} = {changes[key]}: the DBC is for {shipped.get(key)}; change the profile"
            )
    reader.tables = {**reader.tables, "rack": {**shipped, **changes}}
    n_cells, n_sensors = (reader.get("rack", key, int) for key in ("n_cells", "n_sensors"))
    if not (1 <= n_cells <= 65535 and 1 <= n_sensors <= 65535):
        raise ConfigError(f"{source}: {n_cells} cells and {n_sensors} sensors: 1 to 65,535 of each")
    text, file = None, path.parent / reader.get("can", "fd_dbc" if fd else "dbc", str)
    if generated and (n_cells, n_sensors) != (shipped["n_cells"], shipped["n_sensors"]):
        text, file = generate.dbc_text(n_cells, n_sensors, fd), Path(f"reference DBC for {n_cells} cells")
    try:
        database = parse(text if text is not None else file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: [can] dbc = {file}: cannot be read: {error}") from error
    database = _timed(reader, database)
    sizes = {"cells": n_cells, "sensors": n_sensors}
    guard = reader.get("can", "protection", dict, {})
    if guard and set(guard) != {"crc", "counter"}:
        raise ConfigError(f"{source}: [can.protection] has the keys crc and counter, not {', '.join(sorted(guard))}")
    profile = CanProfile(
        source=source,
        database=database,
        info=_info(reader, n_cells, n_sensors, address),
        bitrate=reader.get("can", "bitrate", int),
        data_bitrate=reader.get("can", "data_bitrate", int, reader.get("can", "bitrate", int)),
        layout=reader.get("can", "layout", int, 0),
        commit=reader.get("can", "commit", str),
        stale_cycles=reader.get("can", "stale_cycles", float, 5.0),
        protection=Protection(**guard) if guard else None,
        identity=dict(reader.tables.get("identity", {})),
        measurement=reader.channels("measurement", sizes, MEASUREMENT),
        command=reader.channels("command", sizes, COMMAND),
        fd=fd,
    )
    for needed in ("current_a", "cell_v", "sensor_degc"):
        if needed not in profile.measurement:
            raise ConfigError(f"{source}: [measurement] {needed} is missing; a controller cannot do without it")
    if "contactors" not in profile.command:
        raise ConfigError(f"{source}: [command] contactors is missing; a controller must be able to open them")
    for message in (*profile.measurement_messages(), *profile.command_messages()):
        if message.cycle_s <= 0:
            raise ConfigError(
                f'{database.source}: message {message.name} has no cycle time; add BA_ "GenMsgCycleTime" BO_ '
                f"{message.key} MILLISECONDS; or [can.cycle_ms] {message.name} to {source}"
            )
    return profile


def _timed(reader: _Reader, database: Database) -> Database:
    """The database with the cycle times that the profile gives."""
    cycles = reader.get("can", "cycle_ms", dict, {})
    known = [m.name for m in database.messages]
    for name, cycle_ms in cycles.items():
        if name not in known:
            raise ConfigError(f"{reader.source}: [can.cycle_ms] {name}: no such message{nearest(name, known)}")
        if reader.typed(f"[can.cycle_ms] {name}", cycle_ms, float) <= 0:
            raise ConfigError(f"{reader.source}: [can.cycle_ms] {name} = {cycle_ms}: a time in ms, above 0")
    messages = (replace(m, cycle_s=cycles[m.name] * 1e-3) if m.name in cycles else m for m in database.messages)
    return replace(database, messages=tuple(messages))


def _info(reader: _Reader, n_cells: int, n_sensors: int, address: str) -> RackInfo:
    given = reader.tables["rack"].get("sensor_of_cell", "even")
    if given == "even":
        sensor_of_cell = np.arange(n_cells) * n_sensors // n_cells
    else:
        sensor_of_cell = np.asarray(reader.typed("[rack] sensor_of_cell", given, list))
        if sensor_of_cell.shape != (n_cells,) or set(sensor_of_cell.tolist()) != set(range(n_sensors)):
            raise ConfigError(
                f"{reader.source}: [rack] sensor_of_cell: {n_cells} numbers from 0 to {n_sensors - 1}, each of them "
                "used, or 'even'"
            )
    has = {
        key: reader.typed(f"[capabilities] {key}", v, bool) for key, v in reader.tables.get("capabilities", {}).items()
    }
    return RackInfo(
        name=address,
        n_cells=n_cells,
        n_sensors=n_sensors,
        n_parallel=reader.get("rack", "n_parallel", int, 1),
        capacity_ah=reader.get("rack", "capacity_ah", float),
        cell=reader.get("rack", "cell", str, "") or "",
        sensor_of_cell=sensor_of_cell.astype(np.uint16),
        capabilities=replace(Capabilities(contactors=False, precharge=False), **has),
    )
