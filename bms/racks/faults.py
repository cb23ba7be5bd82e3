"""Tables `[fault.<name>.<tier>]`: changes of single columns of the fault table, and back from rows to such tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from bms.core.faults import Fault, Reaction, Row
from bms.racks.tables import convert, shown, table
from hal.contract import Severity
from hal.errors import ConfigError, nearest

TIERS = {"info": Severity.INFO, "warning": Severity.WARNING, "fatal": Severity.FATAL}
FAULTS = {fault.name.lower(): fault for fault in Fault}
FLAGS = {"latch": Reaction.LATCH, "service": Reaction.SERVICE}
REACTIONS = {r.name.lower(): r for r in Reaction if r.name and r and r not in FLAGS.values()}
NUMBERS = ("threshold", "clear", "set_s", "clear_s")
KEYS = ("enabled", *NUMBERS, "reaction", *FLAGS, "ftti_s")


def key_of(row: Row) -> str:
    """Name of the table of a row, without the word fault: 'cell_overvoltage.warning'."""
    return f"{row.fault.name.lower()}.{row.severity.name.lower()}"


def check(content: object, source: str) -> None:
    """Raise `ConfigError` for a fault, tier, key or type that does not exist, whatever the rows are."""
    for name, tiers in table(content, "fault", source).items():
        if name not in FAULTS:
            raise ConfigError(f"{source}: fault.{name}: no fault has this name{nearest(name, FAULTS)}")
        for tier, columns in table(tiers, f"fault.{name}", source).items():
            if tier not in TIERS:
                raise ConfigError(f"{source}: fault.{name}.{tier}: no such tier{nearest(tier, TIERS)}")
            where = f"fault.{name}.{tier}"
            for key, value in table(columns, where, source).items():
                _check_key(key, value, tier, where, source)


def _check_key(key: str, value: Any, tier: str, where: str, source: str) -> None:
    label = f"{source}: {where}.{key}"
    if key not in KEYS:
        raise ConfigError(f"{label} = {shown(value)}: unknown key{nearest(key, KEYS)}")
    if key in ("enabled", *FLAGS):
        convert(value, bool, label)
    elif key == "reaction":
        for name in convert(value, tuple[str, ...], label):
            if name not in REACTIONS:
                raise ConfigError(f"{label} = {shown(value)}: no reaction '{name}'{nearest(name, REACTIONS)}")
    else:
        number = convert(value, float, label)
        if key.endswith("_s") and number < 0:
            raise ConfigError(f"{label} = {shown(value)}: a time must not be negative")
        if key == "ftti_s" and tier != "fatal":
            raise ConfigError(f"{label} = {shown(value)}: only a fatal tier has this budget; remove the key")


def apply(rows: Iterable[Row], content: Mapping[str, Any], source: str) -> list[Row]:
    """The rows as the tables, which `check` has seen, change them. Raises `ConfigError` for a new row with gaps."""
    result = {(row.fault, row.severity): row for row in rows}
    for name, tiers in content.items():
        for tier, columns in tiers.items():
            at = FAULTS[name], TIERS[tier]
            if not columns.get("enabled", True):
                result.pop(at, None)
                continue
            result[at] = _changed(result.get(at), at, columns, f"{source}: fault.{name}.{tier}")
    return sorted(result.values(), key=lambda row: row.id)


def _changed(row: Row | None, at: tuple[Fault, Severity], columns: Mapping[str, Any], where: str) -> Row:
    if row is None:
        needed = [*NUMBERS, "reaction", *(["ftti_s"] if at[1] is Severity.FATAL else [])]
        missing = [key for key in needed if key not in columns]
        if missing:
            raise ConfigError(f"{where}: this row has no defaults; give {', '.join(missing)} too")
        row = Row(*at, 0.0, 0.0, 0.0, 0.0, Reaction.NONE)
    values: dict[str, Any] = {key: float(columns[key]) for key in (*NUMBERS, "ftti_s") if key in columns}
    reaction = row.reaction
    if "reaction" in columns:
        reaction &= FLAGS["latch"] | FLAGS["service"]
        for name in columns["reaction"]:
            reaction |= REACTIONS[name]
    for key, flag in FLAGS.items():
        if key in columns:
            reaction = reaction | flag if columns[key] else reaction & ~flag
    return dataclasses.replace(row, reaction=reaction, **values)


def columns_of(row: Row) -> dict[str, Any]:
    """All columns of a row, as its table would give them."""
    result: dict[str, Any] = {key: getattr(row, key) for key in NUMBERS}
    result["reaction"] = reaction_names(row.reaction)
    result.update({key: bool(row.reaction & flag) for key, flag in FLAGS.items()})
    if row.ftti_s is not None:
        result["ftti_s"] = row.ftti_s
    return result


def reaction_names(reaction: Reaction) -> list[str]:
    """What a reaction consists of, without the flags of its latch."""
    return [name for name, flag in REACTIONS.items() if reaction & flag]


def differences(rows: Iterable[Row], defaults: Iterable[Row]) -> dict[str, Any]:
    """Tables that make `rows` of `defaults`."""
    usual = {row.id: row for row in defaults}
    result: dict[str, dict[str, Any]] = {}
    for row in rows:
        default = usual.pop(row.id, None)
        if row != default:
            before = {} if default is None else columns_of(default)
            changed = {key: value for key, value in columns_of(row).items() if before.get(key) != value}
            fault, tier = key_of(row).split(".")
            result.setdefault(fault, {})[tier] = changed
    for row in usual.values():
        fault, tier = key_of(row).split(".")
        result.setdefault(fault, {})[tier] = {"enabled": False}
    return result
