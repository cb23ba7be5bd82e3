"""Profiles of register maps: TOML that says which point of which SunSpec model carries which field of the contract.

`docs/modbus.md` tells the form. A profile is checked when it is loaded: models, points, fields and takes must exist.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hal.codec.register_plain import REPEATED, Block, blocks, rack
from hal.codec.register_tables import TAKEN_OVER, completed, entries_of
from hal.codec.sunspec import Model, model
from hal.contract import COMMAND, MEASUREMENT, Capabilities, RackInfo
from hal.errors import ConfigError, nearest, noting

TAKES = (
    *("value", "bit", "below", "counter"),
    *("max", "min", "mean", "sum", "max_at", "min_at"),
    *("count", "number", "modules", "masks", "pairs"),
)
"""How a value comes out of a field: as it is, its lowest bit, by how much it is below 0, modulo 65535; over the cells
of a module or rack; how many cells, number of the module, how many modules, how many words of a mask."""

SCOPES = ("rack", "module", "cell", "sensor", "mask", "pairs")
"""What a model or group is repeated for."""

_DIMS = {"cells": ("cell", "mask", "pairs"), "sensors": ("sensor",)}
_DERIVED = {"served.count": "", "cell_degc": "cells"}
_WHOLE = {"max", "min", "mean", "sum", "max_at", "min_at"}

TOLD = (
    *("state", "evt1", "evt_vnd1", "evt_vnd2", "con_fail", "disabled_for", "closed", "local"),
    *("hb", "ctrl_hb", "manager", "silent_s", "set_op", "alm_rst", "set_ena", "set_con", "set_inv_state", "enabled"),
    *("charge_limit_a", "discharge_limit_a"),
    *("energy_wh", "charge_w", "discharge_w", "charge_v", "discharge_v", "soc_min", "soc_max"),
)
"""What a controller tells beside its command (`hal.pcs`): there for points as `told.NAME`, no value elsewhere."""

FIELDS: dict[str, str] = (
    {f.name: f.dims for f in MEASUREMENT.fields}
    | {f"command.{f.name}": f.dims for f in COMMAND.fields}
    | {f"info.{f.name}": "" for f in fields(RackInfo) if f.name != "capabilities"}
    | {f"info.{f.name}": "" for f in fields(Capabilities)}
    | {"info.sensor_of_cell": "cells"}
    | {f"told.{name}": "" for name in TOLD}
    | _DERIVED
)
"""Every field that a point may carry, and what it is counted over ('' for one value)."""


@dataclass(frozen=True)
class Spec:
    """What one point carries. Exactly one of `channel`, `value`, `bits` and `product` is given."""

    channel: str = ""
    index: int = 0  # element of a field that has several values
    take: str = "value"
    factor: float = 1.0  # value in the point = field times this
    value: Any = None
    bits: tuple[str, ...] = ()
    product: tuple[str, ...] = ()
    table: Mapping[str, int] = field(default_factory=dict)  # value of the field -> number
    prefix: Mapping[str, int] = field(default_factory=dict)  # how the text begins -> number
    other: int = 0
    low_word_first: bool = False

    @property
    def plain(self) -> bool:
        """Whether the field can be told from the point."""
        return bool(self.channel) and not self.table and not self.prefix and self.take in ("value", "bit", "below")


@dataclass(frozen=True)
class ModelSpec:
    """A model of a profile: `each` says for what the model is repeated, `groups` for what its groups are.

    `needs`: the capability without which a rack does not have it, or ''.
    """

    model: Model
    each: str
    writable: bool
    needs: str
    points: Mapping[str, Spec]
    groups: Mapping[str, tuple[str, Mapping[str, Spec]]]


@dataclass(frozen=True)
class Profile:
    """A register map as data. `commit` is a point, as (model, point), `step` those that count control steps.

    Two of them are the first and the last that is read of a step; one alone is read again at the end. A map of plain
    registers has `blocks`, one for each of its models, and says what the `rack` is.
    """

    source: str
    base: tuple[int, ...]
    cells_per_module: int
    models: tuple[ModelSpec, ...]
    step: tuple[tuple[int, str], ...]
    commit: tuple[int, str] | None
    blocks: tuple[Block, ...] = ()
    rack: RackInfo | None = None

    def find(self, model_id: int) -> ModelSpec | None:
        """The model of that number, if the profile has it."""
        return next((one for one in self.models if one.model.id == model_id), None)


def names() -> list[str]:
    """Register profiles that come with the package."""
    found = [folder for folder in resources.files("hal.profiles").iterdir() if folder.is_dir()]
    return sorted(f.name for f in found if f.joinpath("profile.toml").is_file() and _is_map(f.joinpath("profile.toml")))


def _is_map(file: Traversable) -> bool:
    return not {"model", "block"}.isdisjoint(tomllib.loads(file.read_text(encoding="utf-8")))


def folder_of(name_or_path: str) -> Traversable:
    """The folder of a profile, where its own models lie. Raises `ConfigError` for an unknown name."""
    if _is_path(name_or_path):
        return Path(name_or_path).parent
    if name_or_path in names():
        return resources.files("hal.profiles").joinpath(name_or_path)
    raise ConfigError(f"unknown profile '{name_or_path}'{nearest(name_or_path, names())}; or give a .toml file")


def _is_path(name: str) -> bool:
    return name.endswith(".toml") or "/" in name


def load(name_or_path: str, flaws: list[ConfigError] | None = None) -> Profile:
    """A profile by its name in the package, or the path of a .toml file. Raises `ConfigError`.

    With `flaws`, mistakes in the blocks of plain registers go there, and what they are in is left out.
    """
    folder = folder_of(name_or_path)
    file = Path(name_or_path) if _is_path(name_or_path) else folder.joinpath("profile.toml")
    where = f"profile {name_or_path}"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from None
    if TAKEN_OVER in table:
        table = completed(table, folder, where)
    return _plain(table, where, flaws) if "block" in table else parse(table, folder, where)


def parse(table: Mapping[str, Any], folder: Traversable, where: str) -> Profile:
    """Check the content of a profile; models of its own lie in `folder`. Raises `ConfigError`."""
    known = ("format", "description", "base", "cells_per_module", "step", "commit", "model")
    _only(table, known, where)
    if table.get("format") != 1:
        raise ConfigError(f"{where}: format = {table.get('format')!r}: this version reads format 1")
    base, per = table.get("base", [40000]), table.get("cells_per_module", 16)
    if not (isinstance(base, list) and base and all(_whole(a, 0, 65535) for a in base)):
        raise ConfigError(f"{where}: base = {base!r}: expected a list of addresses, 0..65535")
    if not _whole(per, 1, 1000):
        raise ConfigError(f"{where}: cells_per_module = {per!r}: expected a whole number, 1..1000")
    entries = entries_of(table, where)
    if not entries:
        raise ConfigError(f"{where}: no [[model]]: a profile needs one for each model that it uses")
    models = tuple(_model(entry, folder, f"{where}: [[model]] number {n}") for n, entry in enumerate(entries, 1))
    profile = Profile(where, tuple(base), per, models, (), None)
    step = tuple(_reference(text, profile, f"{where}: step") for text in _steps(table, where))
    commit = _reference(table["commit"], profile, f"{where}: commit") if "commit" in table else None
    return Profile(where, tuple(base), per, models, step, commit)


def _steps(table: Mapping[str, Any], where: str) -> list[Any]:
    step = table.get("step", [])
    if not isinstance(step, list) or len(step) > 2:
        raise ConfigError(f"{where}: step = {step!r}: expected a list of one point, or the first and the last")
    return step


def _plain(table: Mapping[str, Any], where: str, flaws: list[ConfigError] | None) -> Profile:
    """Check the content of a map of plain registers."""
    _only(table, ("format", "description", "step", "commit", "rack", "block"), where)
    if table.get("format") != 1:
        raise ConfigError(f"{where}: format = {table.get('format')!r}: this version reads format 1")
    info = rack(table.get("rack"), where)
    found, models = blocks(table["block"], info, where, flaws), []
    for block in found:
        group = (block.model.groups or (block.model.fixed,))[0]
        specs = _specs(block.specs, group.points, block.each, f"{where}: [[block]] {block.name}", flaws)
        repeated = {REPEATED: (block.each, specs)} if block.model.groups else {}
        models.append(ModelSpec(block.model, "rack", block.writable, "", {} if repeated else specs, repeated))
    profile = Profile(where, (0,), info.n_cells, tuple(models), (), None, tuple(found), info)
    numbers = {block.name: str(block.model.id) for block in found}

    def numbered(text: object) -> str:
        name, dot, point = str(text).partition(".")
        return f"{numbers.get(name, name)}{dot}{point}"

    step = tuple(_reference(numbered(text), profile, f"{where}: step", text) for text in _steps(table, where))
    commit = _reference(numbered(text), profile, f"{where}: commit", text) if (text := table.get("commit")) else None
    return replace(profile, step=step, commit=commit)


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")


def _reference(text: object, profile: Profile, where: str, written: object = None) -> tuple[int, str]:
    number, _, name = str(text).partition(".")
    one = profile.find(int(number)) if number.isdigit() else None
    if one is None or not (name in one.points or any(name in points for _, points in one.groups.values())):
        what = "block.point" if profile.rack is not None else "model.point"
        example = "Order.Heartbeat" if profile.rack is not None else "802.Hb"
        raise ConfigError(f"{where}: '{written or text}': expected {what}, both of this profile, for example {example}")
    return int(number), name


def _model(entry: Mapping[str, Any], folder: Traversable, where: str) -> ModelSpec:
    _only(entry, ("id", "each", "writable", "needs", "points", "groups"), where)
    if not _whole(entry.get("id"), 1, 65534):
        raise ConfigError(f"{where}: id = {entry.get('id')!r}: expected the number of a model, 1..65534")
    one = model(entry["id"], folder)
    where = f"{where} (id {one.id})"
    each, writable = entry.get("each", "rack"), entry.get("writable", False)
    if each not in ("rack", "module"):
        raise ConfigError(f"{where}: each = {each!r}: expected rack or module")
    if not isinstance(writable, bool):
        raise ConfigError(f"{where}: writable = {writable!r}: expected true or false")
    needs, can = entry.get("needs", ""), [f.name for f in fields(Capabilities)]
    if needs and needs not in can:
        raise ConfigError(f"{where}: needs = {needs!r}: no capability{nearest(str(needs), can)}")
    points = _specs(entry.get("points", {}), one.fixed.points, each, where)
    groups = {}
    known = {group.name: group for group in one.groups}
    for name, table in entry.get("groups", {}).items():
        place = f"{where}: [model.groups.{name}]"
        if name not in known:
            raise ConfigError(f"{place}: the model has no such group{nearest(name, known)}")
        scope = table.get("each")
        if scope not in SCOPES:
            raise ConfigError(f"{place}: each = {scope!r}: expected one of {', '.join(SCOPES)}")
        rest = {key: value for key, value in table.items() if key != "each"}
        groups[name] = scope, _specs(rest, known[name].points, scope, place)
    for name in known.keys() - groups.keys():
        raise ConfigError(f"{where}: the group '{name}' of the model is missing: add [model.groups.{name}] with each")
    return ModelSpec(one, each, writable, needs, points, groups)


def _specs(
    table: Mapping[str, Any],
    points: Mapping[str, Any],
    scope: str,
    where: str,
    flaws: list[ConfigError] | None = None,
) -> dict[str, Spec]:
    specs = {}
    for name, entry in table.items():
        with noting(flaws):
            if name not in points:
                raise ConfigError(f"{where}: the model has no point '{name}'{nearest(name, points)}")
            specs[name] = _spec({"channel": entry} if isinstance(entry, str) else entry, scope, f"{where}: {name}")
    return specs


def _spec(entry: Any, scope: str, where: str) -> Spec:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} = {entry!r}: expected the name of a field, or a table such as {{ value = 1 }}")
    known = tuple(f.name for f in fields(Spec) if f.name != "index")
    _only(entry, known, where)
    if sum(key in entry for key in ("channel", "value", "bits", "product")) != 1:
        raise ConfigError(f"{where}: expected exactly one of channel, value, bits and product")
    given = dict(entry)
    for key in ("bits", "product"):
        names_of = given.get(key, [])
        if not (isinstance(names_of, list) and all(isinstance(one, str) for one in names_of)):
            raise ConfigError(f"{where}: {key} = {names_of!r}: expected a list of names of fields")
    for key in ("table", "prefix"):
        numbers = given.get(key, {})
        if not (isinstance(numbers, Mapping) and all(_whole(one, -(2**31), 2**32) for one in numbers.values())):
            raise ConfigError(f"{where}: {key} = {numbers!r}: expected a table of whole numbers")
    channel, _, index = str(given.get("channel", "")).partition(":")
    names_used = [channel] if channel else [n.lstrip("!").partition(":")[0] for n in given.get("bits", [])]
    for used in [*names_used, *given.get("product", [])]:
        if used not in FIELDS:
            raise ConfigError(f"{where}: there is no field '{used}'{nearest(used, FIELDS)}")
    take = given.get("take", "value")
    if take not in TAKES:
        raise ConfigError(f"{where}: take = {take!r}{nearest(str(take), TAKES)}")
    if channel:
        dims, over_cells = FIELDS[channel], scope in ("rack", "module")
        if dims in _DIMS and over_cells and take not in _WHOLE | {"count", "number", "modules", "masks", "pairs"}:
            raise ConfigError(f"{where}: '{channel}' has many values: give take, for example take = 'max'")
        if dims in _DIMS and not over_cells and scope not in _DIMS[dims]:
            raise ConfigError(f"{where}: '{channel}' is not counted for each {scope}")
        given |= {"channel": channel, "index": int(index) if index.isdigit() else 0}
    if not isinstance(given.get("factor", 1.0), int | float) or given.get("factor", 1.0) == 0:
        raise ConfigError(f"{where}: factor = {given['factor']!r}: expected a number, not 0")
    if not isinstance(given.get("low_word_first", False), bool):
        raise ConfigError(f"{where}: low_word_first = {given['low_word_first']!r}: expected true or false")
    for key in ("bits", "product"):
        if key in given:
            given[key] = tuple(given[key])
    return Spec(**given)
