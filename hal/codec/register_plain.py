"""Register maps without SunSpec's chain: TOML that names addresses, as the manual of a device does.

A block lies at a fixed address. It has its points once, or again and again at a stride, for each cell or sensor. Inside
it is a model of SunSpec's kind without header, so that both sides treat it as one. `docs/modbus.md` tells the form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hal.codec.register_values import KINDS
from hal.codec.sunspec import SIZES, Group, Model, Point
from hal.contract import Capabilities, RackInfo
from hal.errors import ConfigError, nearest, noting

LAST = 0xFFFF
REPEATED = "each"
"""Name of the group of a block that is there for each cell or sensor."""

SCOPES = ("rack", "cell", "sensor", "mask")
_BLOCK_KEYS = ("name", "address", "each", "stride", "writable", "points")
_POINT_KEYS = ("at", "type")
_RACK_KEYS = ("n_cells", "n_sensors", "n_parallel", "capacity_ah", "cell", "sensor_of_cell", "capabilities")


@dataclass(frozen=True)
class Block:
    """One block: the `model` of its points, where it lies, and what its points carry, still as the file has it."""

    name: str
    address: int
    each: str
    writable: bool
    model: Model
    specs: Mapping[str, Any]
    count: int

    @property
    def counts(self) -> dict[str, int]:
        """How often its group is there."""
        return {group.name: self.count for group in self.model.groups}

    def registers(self) -> Iterator[tuple[int, str]]:
        """(address, name of the point) of every register that a point takes."""
        for k in range(self.count):
            for group in self.model.groups or (self.model.fixed,):
                for point in group.points.values():
                    start = self.address + k * group.size + point.offset
                    yield from ((at, point.name) for at in range(start, start + point.size))


def rack(table: Any, where: str) -> RackInfo:
    """What the device is, which it cannot say itself. Raises `ConfigError`."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: [rack] is missing: a device without SunSpec cannot say what it is; add it")
    _only(table, _RACK_KEYS, f"{where}: [rack]")
    n_cells = _whole(table, "n_cells", f"{where}: [rack]", 1, 65535)
    n_sensors = _whole(table, "n_sensors", f"{where}: [rack]", 1, 65535, n_cells)
    given = table.get("sensor_of_cell", "even")
    sensor_of_cell = np.arange(n_cells) * n_sensors // n_cells if given == "even" else np.asarray(given)
    if sensor_of_cell.shape != (n_cells,) or set(sensor_of_cell.tolist()) != set(range(n_sensors)):
        raise ConfigError(
            f"{where}: [rack] sensor_of_cell: {n_cells} numbers from 0 to {n_sensors - 1}, each of them used, or 'even'"
        )
    can = [f.name for f in fields(Capabilities) if f.name != "truth"]
    has = table.get("capabilities", [])
    if not isinstance(has, list):
        raise ConfigError(f"{where}: [rack] capabilities = {has!r}: expected a list of names")
    for name in has:
        if name not in can:
            raise ConfigError(f"{where}: [rack] capabilities: there is none '{name}'{nearest(str(name), can)}")
    capacity_ah = table.get("capacity_ah")
    if not isinstance(capacity_ah, int | float) or isinstance(capacity_ah, bool) or not 0 < capacity_ah < 1e6:
        raise ConfigError(f"{where}: [rack] capacity_ah = {capacity_ah!r}: expected the capacity in Ah, above 0")
    return RackInfo(
        name=where,
        n_cells=n_cells,
        n_sensors=n_sensors,
        n_parallel=_whole(table, "n_parallel", f"{where}: [rack]", 1, 65535, 1),
        capacity_ah=float(capacity_ah),
        cell=str(table.get("cell", "")),
        sensor_of_cell=sensor_of_cell.astype(np.uint16),
        capabilities=Capabilities(**{name: name in has for name in can}),
    )


def blocks(entries: Any, info: RackInfo, where: str, flaws: list[ConfigError] | None = None) -> list[Block]:
    """The blocks of a profile. Raises `ConfigError`, or adds to `flaws`: overlaps, addresses that there are none of."""
    if not (isinstance(entries, list) and entries):
        raise ConfigError(f"{where}: no [[block]]: a map of plain registers needs one at least")
    found: list[Block] = []
    taken: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        with noting(flaws):
            block = _block(entry, number, info, f"{where}: [[block]] number {number}")
            if any(other.name == block.name for other in found):
                raise ConfigError(f"{where}: [[block]] {block.name}: the name is given twice; rename one")
            found.append(block)
            told = set()
            for at, name in block.registers():
                point = f"{block.name}.{name}"
                other = taken.setdefault(at, point)
                if other != point and (other, point) not in told:
                    told.add((other, point))
                    with noting(flaws):
                        raise ConfigError(f"{where}: [[block]] {point} = {at}: overlaps {other}; move one of them")
    return found


def _block(entry: Any, number: int, info: RackInfo, where: str) -> Block:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected a table")
    _only(entry, _BLOCK_KEYS, where)
    name = entry.get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{where}: name = {name!r}: expected a name of letters and digits, for example Cells")
    where = f"{where} ({name})"
    each, writable = entry.get("each", "rack"), entry.get("writable", False)
    if each not in SCOPES:
        raise ConfigError(f"{where}: each = {each!r}: expected one of {', '.join(SCOPES)}")
    if not isinstance(writable, bool):
        raise ConfigError(f"{where}: writable = {writable!r}: expected true or false")
    table = entry.get("points")
    if not (isinstance(table, Mapping) and table):
        raise ConfigError(f"{where}: no points: add [block.points] with one line for each")
    points, specs = {}, {}
    for key, line in table.items():
        points[key], specs[key] = _point(key, line, writable, f"{where}: {key}")
    size = max(point.offset + point.size for point in points.values())
    stride = _whole(entry, "stride", where, 1, LAST, size)
    if stride < size and each != "rack":
        raise ConfigError(f"{where}: stride = {stride}: its points take {size} registers; give {size} at least")
    count = {"rack": 1, "cell": info.n_cells, "sensor": info.n_sensors, "mask": -(-info.n_cells // 16)}[each]
    address = _whole(entry, "address", where, 0, LAST)
    if address + (count - 1) * stride + size > LAST + 1:
        raise ConfigError(
            f"{where}: address = {address}: it ends at {address + (count - 1) * stride + size - 1}, "
            f"and addresses at {LAST}; take a lower one"
        )
    fixed = Group(name, points, size) if each == "rack" else Group(name, {}, 0)
    groups = () if each == "rack" else (Group(REPEATED, points, stride, 0),)
    return Block(name, address, each, writable, Model(number, fixed, groups), specs, count)


def _point(name: str, line: Any, writable: bool, where: str) -> tuple[Point, dict[str, Any]]:
    """A point, and the rest of its line: what it carries."""
    if not isinstance(line, Mapping):
        raise ConfigError(
            f"{where} = {line!r}: expected a table such as {{ at = 0, type = 'uint16', channel = 'pack_v' }}"
        )
    kind = line.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{where}: type = {kind!r}{nearest(str(kind), KINDS)}")
    at = _whole(line, "at", where, 0, LAST)
    rest = {key: value for key, value in line.items() if key not in _POINT_KEYS}
    return Point(name, str(kind), SIZES[str(kind)], at, None, writable), rest


def _whole(table: Mapping[str, Any], key: str, where: str, low: int, high: int, default: int | None = None) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{where}: {key} = {value!r}: expected a whole number, {low}..{high}")
    return value


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
