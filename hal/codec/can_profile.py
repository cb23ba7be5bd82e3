"""A rack's CAN profile: a DBC, and a TOML file beside it that says which signal feeds which field of the contract.

`load("reference")` is ours, for a rack of any size; `load("FOLDER/profile.toml")` is a user's own; `load("foxbms,ivt")`
adds a sensor to a rack. See `docs/can.md` for the tables of the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hal.codec.can_derived import DERIVED
from hal.codec.can_profile_file import FIXED, Channel, ProfileFile, read
from hal.codec.can_protection import Protection
from hal.codec.dbc import Database, Message, parse
from hal.contract import COMMAND, MEASUREMENT, Capabilities, RackInfo
from hal.errors import ConfigError, nearest, noting
from hal.profiles.foxbms import generate as foxbms
from hal.profiles.reference import generate as reference

FOLDER = Path(__file__).parent.parent / "profiles"
REFERENCE = "reference"
FILE = "profile.toml"

GENERATORS: dict[str, Callable[[int, int], str]] = {
    "reference/reference_416.dbc": reference.dbc_text,
    "reference/reference_416_fd.dbc": lambda n_cells, n_sensors: reference.dbc_text(n_cells, n_sensors, fd=True),
    "foxbms/unit_216.dbc": foxbms.unit,
    "foxbms/afe_216.dbc": foxbms.afe,
}
"""DBC files of the package that can be made for a rack of any size: (cells, sensors) -> text."""

NEEDED = ("current_a", "cell_v", "sensor_degc")
"""Fields of a measurement that a controller cannot do without."""

_FIELDS = {layout: {f.name: f for f in layout.fields} for layout in (MEASUREMENT, COMMAND)}


@dataclass(frozen=True)
class CanProfile:
    """A profile that is ready for a rack: database, channels by field, and what the rack is.

    `fixed` are signals that are sent with one value for ever, `derived` channels of what only a server sends,
    `replaced` those that an add-on has taken the place of, `unused` patterns of signals that nothing needs, on purpose.
    """

    source: str
    database: Database
    info: RackInfo
    bitrate: int
    data_bitrate: int
    layout: int
    commit: str
    stale_cycles: float
    protection: tuple[Protection, ...]
    identity: Mapping[str, str]
    measurement: Mapping[str, Channel]
    command: Mapping[str, Channel]
    fd: bool = False
    fixed: Mapping[str, float] = field(default_factory=dict)
    derived: Mapping[str, Channel] = field(default_factory=dict)
    replaced: tuple[Channel, ...] = ()
    unused: tuple[str, ...] = ()

    def measurement_messages(self, derived: bool = False) -> tuple[Message, ...]:
        """The messages of the rack that a measurement needs, that of its identity among them; or also the `derived`."""
        more = self.derived if derived else {}
        return self._carrying({**self.measurement, **more}, *self.identity.values())

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


def names() -> list[str]:
    """CAN profiles that come with the package, add-ons among them."""
    found = sorted(FOLDER.glob(f"*/{FILE}"))
    return [path.parent.name for path in found if "can" in tomllib.loads(path.read_text(encoding="utf-8"))]


def load(
    name: str,
    *,
    fd: bool = False,
    rack: Mapping[str, Any] | None = None,
    address: str = "can",
    serving: bool = False,
    flaws: list[ConfigError] | None = None,
) -> CanProfile:
    """The profile `name`: one of `names()`, or the path of a TOML file; after commas, add-ons. Raises `ConfigError`.

    `rack` changes the table [rack] (of a user's profile all but the sizes); `address` is what the rack is called. `fd`
    takes the DBC for CAN FD. `serving`: what a rack is that is offered with this profile, where it says so. With
    `flaws`, as many mistakes as can be told apart go there, and what they are in is left out.
    """
    return _Mix(_parts(name, serving, flaws), fd, rack or {}, flaws).profile(address)


def variants(name: str) -> list[tuple[bool, bool]]:
    """What the profile `name` has, as (`fd`, `serving`) for `load`: itself first. Raises `ConfigError`."""
    first = name.split(",")[0]
    can = read(*_find(first), []).tables.get("can", {})
    return [(False, False)] + [(False, True)] * ("serve" in can) + [(True, False)] * ("fd_dbc" in can)


def _parts(name: str, serving: bool, flaws: list[ConfigError] | None) -> list[tuple[Path, ProfileFile]]:
    """The files of a profile: its own, then those of its add-ons."""
    first, *more = name.split(",")
    path, source = _find(first)
    file = read(path, source, flaws)
    if serving and "serve" in file.tables.get("can", {}):
        path = path.parent / file.get("can", "serve", str)
        file = read(path, f"{source} ({path.name})" if path.parent.parent == FOLDER else str(path), flaws)
    if "rack" not in file.tables:
        raise ConfigError(f"{file.source}: an add-on, without the table [rack]; write for example foxbms,{first}")
    parts = [(path, file)]
    for one in dict.fromkeys([*file.names("can", "add"), *more]):
        beside = path.parent / one  # where an add-on of one's own may lie
        where, called = (beside, str(beside)) if one.endswith(".toml") and beside.is_file() else _find(one)
        parts.append((where, read(where, called, flaws)))
        if "rack" in parts[-1][1].tables:
            raise ConfigError(f"{called}: a profile of its own, with the table [rack]; only an add-on can be added")
    return parts


def _find(name: str) -> tuple[Path, str]:
    """Where the file of a profile is, and what errors call it."""
    if name.endswith(".toml"):
        return Path(name), name
    known = names()
    if name not in known:
        raise ConfigError(
            f"profile '{name}': unknown; write {', '.join(known)}, or the path of a .toml file{nearest(name, known)}"
        )
    return FOLDER / name / FILE, f"profile {name}"


class _Mix:
    """A profile and its add-ons, put together: what an add-on has replaces what was there before."""

    def __init__(
        self,
        parts: Sequence[tuple[Path, ProfileFile]],
        fd: bool,
        changes: Mapping[str, Any],
        flaws: list[ConfigError] | None,
    ) -> None:
        self.fd, self.flaws = fd, flaws
        (self.path, self.main), *_ = self.parts = list(parts)
        shipped = dict(self.main.tables.get("rack", {}))
        self.resized = False
        for key in ("n_cells", "n_sensors"):
            if key in changes and changes[key] != shipped.get(key):
                self.resized = True
                if self._generator(self.path, self.main) is None:
                    raise ConfigError(
                        f"{self.main.source}: {key} = {changes[key]}: the DBC is for {shipped.get(key)}; "
                        "change the profile"
                    )
        self.main.tables = {**self.main.tables, "rack": {**shipped, **changes}}
        self.n_cells, self.n_sensors = (self.main.get("rack", key, int) for key in ("n_cells", "n_sensors"))
        if not (1 <= self.n_cells <= 65535 and 1 <= self.n_sensors <= 65535):
            raise ConfigError(
                f"{self.main.source}: {self.n_cells} cells and {self.n_sensors} sensors: 1 to 65,535 of each"
            )

    def _dbc(self, path: Path, file: ProfileFile) -> Path:
        fd = self.fd and (file is self.main or "fd_dbc" in file.tables.get("can", {}))
        return path.parent / file.get("can", "fd_dbc" if fd else "dbc", str)

    def _generator(self, path: Path, file: ProfileFile) -> Callable[[int, int], str] | None:
        dbc = self._dbc(path, file)
        return GENERATORS.get(dbc.relative_to(FOLDER).as_posix()) if dbc.is_relative_to(FOLDER) else None

    def _database(self, path: Path, file: ProfileFile) -> Database:
        """The DBC of one part, with the cycle times that the part gives."""
        dbc, generator = self._dbc(path, file), self._generator(path, file)
        if generator is not None and self.resized:
            made = parse(generator(self.n_cells, self.n_sensors), f"{path.parent.name} DBC for {self.n_cells} cells")
            return _timed(file, made)
        try:
            return _timed(file, parse(dbc.read_text(encoding="utf-8"), str(dbc), self.flaws))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file.source}: [can] dbc = {dbc}: cannot be read: {error}") from error

    def database(self) -> Database:
        """All messages. Raises `ConfigError` where two parts have one name or identifier."""
        databases = [self._database(path, file) for path, file in self.parts]
        found: list[tuple[Message, str]] = []
        for database in databases:
            for message in database.messages:
                with noting(self.flaws):
                    for other, source in found:
                        if other.key == message.key or other.name == message.name:
                            raise ConfigError(
                                f"{database.source}: message {message.name} ({message.identifier:#x}): {source} has "
                                f"{other.name} ({other.identifier:#x}); these two cannot be mixed"
                            )
                    found.append((message, database.source))
        return Database(" + ".join(one.source for one in databases), tuple(message for message, _ in found))

    def profile(self, address: str) -> CanProfile:
        """The whole, checked. Raises `ConfigError`."""
        main, files = self.main, [file for _, file in self.parts]
        sizes = {"cells": self.n_cells, "sensors": self.n_sensors}
        measurement: dict[str, Channel] = {}
        command: dict[str, Channel] = {}
        derived: dict[str, Channel] = {}
        fixed: dict[str, float] = {}
        capabilities: dict[str, bool] = {}
        replaced: list[Channel] = []
        for file in files:
            told = file.channels("measurement", sizes, _FIELDS[MEASUREMENT])
            replaced += [measurement[name] for name in told if name in measurement]
            measurement |= told
            command |= file.channels("command", sizes, _FIELDS[COMMAND])
            derived |= file.channels("derived", sizes, DERIVED)
            fixed |= file.fixed()
            given = file.tables.get("capabilities", {})
            capabilities |= {key: file.typed(f"[capabilities] {key}", value, bool) for key, value in given.items()}
        profile = CanProfile(
            source=main.source,
            database=self.database(),
            info=_info(main, self.n_cells, self.n_sensors, capabilities, address),
            bitrate=main.get("can", "bitrate", int),
            data_bitrate=main.get("can", "data_bitrate", int, main.get("can", "bitrate", int)),
            layout=main.get("can", "layout", int, 0),
            commit=main.get("can", "commit", str),
            stale_cycles=main.get("can", "stale_cycles", float, 5.0),
            protection=tuple(guard for file in files if (guard := file.protection()) is not None),
            identity={key: main.get("identity", key, str) for key in main.tables.get("identity", {})},
            measurement=measurement,
            command=command,
            fd=self.fd,
            fixed=fixed,
            derived=derived,
            replaced=tuple(replaced),
            unused=tuple(name for file in files for name in file.names("can", "unused")),
        )
        self._check(profile)
        return profile

    def _check(self, profile: CanProfile) -> None:
        """What a controller cannot do without is there, what is fixed fits, and every message comes in a cycle."""
        source = profile.source
        for table, needed, why in (
            *(("measurement", name, "a controller cannot do without it") for name in NEEDED),
            ("command", "contactors", "a controller must be able to open them"),
        ):
            with noting(self.flaws):
                if not any(needed in file.tables.get(table, {}) for _, file in self.parts):
                    raise ConfigError(f"{source}: [{table}] {needed} is missing; {why}")
        for name, value in profile.fixed.items():
            with noting(self.flaws):
                _fits(profile, name, value)
        messages = list(profile.measurement_messages(derived=True))
        with noting(self.flaws):
            messages += profile.command_messages()
        for message in messages:
            with noting(self.flaws):
                if message.cycle_s <= 0:
                    line = f'BA_ "GenMsgCycleTime" BO_ {message.key} MILLISECONDS'
                    raise ConfigError(
                        f"{profile.database.source}: message {message.name} has no cycle time; add {line}; "
                        f"or [can.cycle_ms] {message.name} to {source}"
                    )


def _fits(profile: CanProfile, name: str, value: float) -> None:
    """A signal that is sent with one value for ever is there, and holds it."""
    where = f"{profile.source}: [{FIXED}] {name}"
    every = [(m, s) for m in profile.database.messages for s in m.signals]
    found = [s for m, s in every if name in (s.name, f"{m.name}.{s.name}")]
    if not found:
        raise ConfigError(
            f"{where}: no such signal{nearest(name, sorted({s.name for _, s in every})[:2000])}; take one of the DBC"
        )
    if len(found) > 1:
        raise ConfigError(f"{where}: {len(found)} messages have this signal; write Message.{name}")
    low, high = sorted(raw * found[0].scale + found[0].offset for raw in found[0].raw_range())
    if not low <= value <= high:
        raise ConfigError(f"{where} = {value:g}: the signal holds {low:g} to {high:g}; give a value that it holds")


def _timed(reader: ProfileFile, database: Database) -> Database:
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


def _info(
    reader: ProfileFile, n_cells: int, n_sensors: int, capabilities: Mapping[str, bool], address: str
) -> RackInfo:
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
    return RackInfo(
        name=address,
        n_cells=n_cells,
        n_sensors=n_sensors,
        n_parallel=reader.get("rack", "n_parallel", int, 1),
        capacity_ah=reader.get("rack", "capacity_ah", float),
        cell=reader.get("rack", "cell", str, "") or "",
        sensor_of_cell=sensor_of_cell.astype(np.uint16),
        capabilities=replace(Capabilities(contactors=False, precharge=False), **capabilities),
    )
