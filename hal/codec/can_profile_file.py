"""The TOML file of a CAN profile, looked at as its values are taken: every mistake names file, table and key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hal.codec.can_derived import DERIVED
from hal.codec.can_protection import COUNTER_VALUES, Protection
from hal.contract import COMMAND, MEASUREMENT, Capabilities, Field
from hal.errors import ConfigError, nearest, noting

TABLES: dict[str, tuple[str, ...]] = {
    "can": (
        *("dbc", "fd_dbc", "bitrate", "data_bitrate", "layout", "commit", "stale_cycles", "cycle_ms", "protection"),
        *("add", "serve", "unused"),
    ),
    "rack": ("cell", "n_cells", "n_sensors", "n_parallel", "capacity_ah", "sensor_of_cell"),
    "capabilities": tuple(f.name for f in fields(Capabilities) if f.name != "truth"),
    "identity": ("layout", "n_cells", "n_sensors", "n_parallel", "capacity_ah"),
    "measurement": tuple(
        f.name for f in MEASUREMENT.fields if not f.name.endswith(("_age_s", "_quality")) and f.name != "time_s"
    ),
    "command": tuple(f.name for f in COMMAND.fields if f.name != "time_s"),
    "derived": tuple(DERIVED),
}
"""Tables of a profile, and their keys; [fixed] has names of signals for keys."""

FIXED = "fixed"

WORDS: dict[type, str] = {
    dict: "a table such as { signal = 'NAME' }",
    list: "a list such as ['A', 'B']",
    str: "a text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}
"""What a value should be, for people."""

_CHANNEL_KEYS = (
    "signal",
    "bits",
    "valid",
    "invalid",
    "factor",
    "offset",
    "table",
    "send",
    "other",
    "constant",
    "first",
)


@dataclass(frozen=True)
class Channel:
    """Where a field of the contract comes from: the signals `signals` (one, or one for each place of an array).

    value = signal * `factor` + `offset`. `bits`: signal k is bit k of a whole number. `valid` names the signals that
    are 1 where the value is good, or with `inverted` 0; it is empty where there are none. A `table` of whole
    numbers turns signals into values of the field, `send` values of the field into signals; `other` is the value of
    signals that are not in the table, and what values that are not in `send` are sent as. A field with a
    `constant` has no signal.
    """

    name: str
    signals: tuple[str, ...]
    valid: tuple[str, ...] = ()
    inverted: bool = False
    bits: bool = False
    factor: float = 1.0
    offset: float = 0.0
    constant: float | None = None
    table: Mapping[int, int] = field(default_factory=dict)
    send: Mapping[int, int] = field(default_factory=dict)
    other: int = 0


def read(path: Path, source: str, flaws: list[ConfigError] | None = None) -> ProfileFile:
    """The file of a profile; `source` names it in errors. Raises `ConfigError`, or adds to `flaws` what it can."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return ProfileFile(source, tables, flaws)


class ProfileFile:
    """The tables of a profile's file, looked at as they are taken.

    With `flaws`, mistakes in tables, keys and channels go there, and what they are in is left out.
    """

    def __init__(self, source: str, tables: Mapping[str, Any], flaws: list[ConfigError] | None = None) -> None:
        self.source = source
        self.flaws = flaws
        self.tables: dict[str, Any] = {}
        for table, content in tables.items():
            with noting(flaws):
                if table not in (*TABLES, FIXED):
                    raise ConfigError(f"{source}: unknown table [{table}]{nearest(table, (*TABLES, FIXED))}")
                if not isinstance(content, Mapping):
                    raise ConfigError(f"{source}: {table} = {content!r}: expected a table [{table}]")
                self.tables[table] = dict(content)
                for key in content if table != FIXED else ():
                    self._known(table, key)

    def _known(self, table: str, key: str) -> None:
        with noting(self.flaws):
            if key not in TABLES[table]:
                del self.tables[table][key]
                raise ConfigError(f"{self.source}: [{table}] has no key '{key}'{nearest(key, TABLES[table])}")

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
            raise ConfigError(f"{self.source}: {where} = {value!r}: expected {WORDS[kind]}")
        return value

    def names(self, table: str, key: str) -> tuple[str, ...]:
        """A list of names, () where it is left out."""
        return tuple(self.typed(f"[{table}] {key}", name, str) for name in self.get(table, key, list, []))

    def fixed(self) -> dict[str, float]:
        """Signals that are sent with one value for ever."""
        given = self.tables.get(FIXED, {})
        return {name: self.typed(f"[{FIXED}] {name}", value, float) for name, value in given.items()}

    def protection(self) -> Protection | None:
        """Where frames have checksum and counter."""
        guard = self.get("can", "protection", dict, {})
        if not guard:
            return None
        where = "[can.protection]"
        if "counter" not in guard or not {*guard} <= {"crc", "counter", "values"}:
            told = ", ".join(sorted(guard))
            raise ConfigError(f"{self.source}: {where} has the keys crc and counter, or counter and values, not {told}")
        crc, counter = (self.typed(f"{where} {key}", guard.get(key, ""), str) for key in ("crc", "counter"))
        values = self.typed(f"{where} values", guard.get("values", COUNTER_VALUES), int)
        if values not in (COUNTER_VALUES, COUNTER_VALUES + 1):
            raise ConfigError(f"{self.source}: {where} values = {values}: a counter has 15, as AUTOSAR's, or 16")
        return Protection(crc, counter, values)

    def channels(self, table: str, sizes: Mapping[str, int], fields: Mapping[str, Field]) -> dict[str, Channel]:
        """The channels of [measurement], [command] or [derived]."""
        found = {}
        for name, entry in self.tables.get(table, {}).items():
            size, whole = sizes.get(fields[name].dims, 1), fields[name].kind[0] == "u" and not fields[name].dims
            with noting(self.flaws):
                found[name] = self._channel(f"[{table}] {name}", name, entry, size, whole)
        return found

    def _channel(self, where: str, name: str, entry: Any, size: int, whole: bool) -> Channel:
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
            if not whole or not bits:
                raise ConfigError(f"{self.source}: {where} bits: a list of signals, for one whole number")
            signals = tuple(self.typed(f"{where} bits", bit, str) for bit in bits)
        elif len(signals) != size:
            raise ConfigError(
                f"{self.source}: {where}: {size} signals are needed; write {{}} where their number stands"
            )
        found = Channel(name, signals, valid, guard == "invalid", bool(bits), factor, offset)
        return self._tabled(where, entry, found, whole and not bits)

    def _tabled(self, where: str, entry: Mapping[str, Any], channel: Channel, may_be: bool) -> Channel:
        """`channel` with the tables that turn numbers into others."""
        table, send = (self._table(f"{where} {key}", entry.get(key, {})) for key in ("table", "send"))
        other = self.typed(f"{where} other", entry.get("other", 0), int)
        if not table:
            if send or "other" in entry:
                raise ConfigError(f"{self.source}: {where}: send and other go with a table, {{ SIGNAL = VALUE }}")
            return channel
        if not may_be or not {"factor", "offset"}.isdisjoint(entry):
            raise ConfigError(f"{self.source}: {where} table: for one whole number, without factor, offset and bits")
        back = {value: signal for signal, value in reversed(list(table.items()))} | send
        if other not in back:
            raise ConfigError(f"{self.source}: {where} other = {other}: no signal of the table stands for it; add one")
        return replace(channel, table=table, send=back, other=other)

    def _table(self, where: str, given: Any) -> dict[int, int]:
        try:
            pairs = self.typed(where, given, dict).items()
            return {int(number): self.typed(f"{where} {number}", value, int) for number, value in pairs}
        except ValueError as error:
            raise ConfigError(f"{self.source}: {where}: {error}; write whole numbers, {{ 1 = 3 }}") from None

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
