"""SunSpec model definitions: which point lies at which register. Read from JSON as the SunSpec Alliance publishes it.

The definitions of the public models are those that pysunspec2 brings; a profile has those of its own models beside it
(`model_<id>.json`, in the same form). A model is ID, L, its points, then its repeated groups, one level deep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from hal.errors import ConfigError

MARK = b"SunS"
END = 0xFFFF
"""Model id that ends the chain."""

HEADER = 2
"""Registers of ID and L, which L does not count."""

SIZES = {
    "int16": 1, "uint16": 1, "acc16": 1, "enum16": 1, "bitfield16": 1, "sunssf": 1, "pad": 1, "count": 1, "raw16": 1,
    "int32": 2, "uint32": 2, "acc32": 2, "enum32": 2, "bitfield32": 2, "float32": 2,
    "int64": 4, "uint64": 4, "acc64": 4, "bitfield64": 4, "float64": 4,
}  # fmt: skip
"""Registers of each type; a string says its own."""


@dataclass(frozen=True)
class Point:
    """One point: `offset` in registers from the start of its model or group, `sf` a scale factor (point or number).

    `symbols`: the number of each value or bit that has a name.
    """

    name: str
    kind: str
    size: int
    offset: int
    sf: str | int | None
    writable: bool
    symbols: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Points that belong together, `size` registers. `count` of a repeated one: a number, a point, or 0 = what is left.

    A writable point is one that the definition marks as RW.
    """

    name: str
    points: Mapping[str, Point]
    size: int
    count: str | int = 1


@dataclass(frozen=True)
class Model:
    """A model: its own points, and its repeated groups in order."""

    id: int
    fixed: Group
    groups: tuple[Group, ...]

    def length(self, counts: Mapping[str, int]) -> int:
        """L: registers after ID and L, with so many of each group."""
        return self.fixed.size - HEADER + sum(group.size * counts[group.name] for group in self.groups)


@dataclass(frozen=True)
class Placed:
    """A model at `address` (of its ID), with so many repetitions of each group."""

    model: Model
    address: int
    counts: Mapping[str, int]

    @property
    def end(self) -> int:
        """Address after the last register."""
        return self.address + HEADER + self.model.length(self.counts)

    def start(self, group: str) -> int:
        """Address of the first repetition of `group`."""
        at = self.address + self.model.fixed.size
        for one in self.model.groups:
            if one.name == group:
                return at
            at += one.size * self.counts[one.name]
        raise KeyError(group)


def _group(table: Mapping[str, Any], where: str) -> Group:
    points, offset = {}, 0
    for entry in table.get("points", ()):
        kind = entry["type"]
        size = int(entry["size"]) if kind == "string" else SIZES.get(kind, 0)
        if not size:
            raise ConfigError(f"{where}: point {entry['name']}: type '{kind}' is not known here")
        symbols = {symbol["name"]: int(symbol["value"]) for symbol in entry.get("symbols", ())}
        point = Point(entry["name"], kind, size, offset, entry.get("sf"), entry.get("access") == "RW", symbols)
        points[point.name] = point
        offset += size
    return Group(table["name"], points, offset, table.get("count", 1))


def parse(table: Mapping[str, Any], where: str) -> Model:
    """A model out of the content of its JSON file, which `where` names. Raises `ConfigError`."""
    try:
        fixed = _group(table["group"], where)
        for group in table["group"].get("groups", ()):
            if group.get("groups"):
                raise ConfigError(f"{where}: group {group['name']} holds groups of its own: one level is understood")
        return Model(int(table["id"]), fixed, tuple(_group(one, where) for one in table["group"].get("groups", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: not the definition of a SunSpec model ({error!r})") from None


@cache
def _public(model_id: int) -> Model:
    try:
        folder = resources.files("sunspec2").joinpath("models", "json")
    except ModuleNotFoundError:
        raise ConfigError(
            "SunSpec: the definitions of the models are in pysunspec2, which is not installed: "
            "pip install 'rackbms[sunspec]'"
        ) from None
    return _read(folder.joinpath(f"model_{model_id}.json"), f"SunSpec model {model_id}")


def _read(file: Traversable, where: str) -> Model:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {file} cannot be read: {error}") from None
    return parse(table, where)


def model(model_id: int, folder: Traversable) -> Model:
    """The definition of a model: from `folder`, where that has one, or the public one. Raises `ConfigError`."""
    own = folder.joinpath(f"model_{model_id}.json")
    if own.is_file():
        found = _read(own, str(own))
        if found.id != model_id:
            raise ConfigError(f"{own}: id = {found.id}: the file is that of {model_id}; rename one of them")
        return found
    return _public(model_id)


def place(one: Model, address: int, length: int, values: Mapping[str, int]) -> Placed:
    """A model as a device shows it: `length` is its L, `values` what its points of counts say (those that are known).

    Raises `ValueError` where groups and length do not fit.
    """
    rest = length + HEADER - one.fixed.size
    counts = {}
    for group in one.groups:
        left = rest // group.size  # what a count of 0 means
        number = values.get(group.count, 0) if isinstance(group.count, str) else group.count or left
        counts[group.name] = number
        rest -= number * group.size
    if rest < 0:
        raise ValueError(f"L = {length}, too short by {-rest} registers for what the model says that it holds")
    return Placed(one, address, counts)
