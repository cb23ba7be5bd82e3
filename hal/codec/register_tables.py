"""The tables of a register map that takes models over from the `profile.toml` beside it, and changes some of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Any

from hal.errors import ConfigError

TAKEN_OVER = "models"
"""Key of the list of models that are taken over."""


def completed(table: Mapping[str, Any], folder: Traversable, where: str) -> dict[str, Any]:
    """`table` with the models that it takes over, its own changes in them, and its own models behind them.

    A change replaces points, and keys of a model; addresses are those of the other profile. Raises `ConfigError`.
    """
    try:
        base = tomllib.loads(folder.joinpath("profile.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where}: {TAKEN_OVER}: the profile.toml beside it cannot be read: {error}") from None
    theirs = {repr(entry.get("id")): entry for entry in entries_of(base, f"{where}: {TAKEN_OVER}: profile.toml")}
    wanted = table[TAKEN_OVER]
    numbers = [repr(one) for one in wanted] if isinstance(wanted, list) else []
    if not numbers or not theirs.keys() >= set(numbers):
        known = ", ".join(theirs)
        raise ConfigError(f"{where}: {TAKEN_OVER} = {wanted!r}: expected numbers of models of profile.toml ({known})")
    changes = {repr(entry.get("id")): entry for entry in entries_of(table, where)}
    taken = [_merged(entry, changes.pop(number, {})) for number, entry in theirs.items() if number in numbers]
    own: dict[str, Any] = {key: value for key, value in table.items() if key not in (TAKEN_OVER, "model")}
    kept: dict[str, Any] = {key: base[key] for key in ("base", "cells_per_module") if key in base}
    return {**kept, **own, "model": [*taken, *changes.values()]}


def entries_of(table: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """The models of a profile, whose points and groups are tables."""
    entries = table.get("model", [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"{where}: model = {entries!r}: expected tables [[model]]")
    for entry in entries:
        groups = entry.get("groups", {})
        inner = {"points": entry.get("points", {}), "groups": groups}
        inner |= {f"groups.{name}": group for name, group in groups.items()} if isinstance(groups, Mapping) else {}
        for name, content in inner.items():
            if not isinstance(content, Mapping):
                raise ConfigError(f"{where}: {name} = {content!r}: expected a table [model.{name}]")
    return entries


def _merged(entry: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A model with the points that are changed or added."""
    groups = dict(entry.get("groups", {}))
    for name, points in change.get("groups", {}).items():
        groups[name] = {**groups.get(name, {}), **points}
    points = {**entry.get("points", {}), **change.get("points", {})}
    return {**entry, **change, "points": points, "groups": groups}
