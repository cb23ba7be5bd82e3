"""From tables (TOML, URL query) to frozen dataclasses, strictly: nothing unknown is ever ignored."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class TwinError(ValueError):
    """A configuration of the twin that cannot be used; `str(error)` is one clear line."""


def hint(word: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(names)})"


def _convert(value: Any, wanted: Any, where: str) -> Any:
    if isinstance(wanted, types.UnionType):  # X | None
        if value is None:
            return None
        wanted = next(t for t in typing.get_args(wanted) if t is not type(None))
    if typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        if not isinstance(value, (list, tuple)):
            raise TwinError(f"{where} = {value!r}: expected a list")
        return tuple(_convert(v, item, f"{where}[{k}]") for k, v in enumerate(value))
    if wanted is bool:
        if isinstance(value, bool):
            return value
        raise TwinError(f"{where} = {value!r}: expected true or false")
    if wanted is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise TwinError(f"{where} = {value!r}: expected a whole number")
    if wanted is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        raise TwinError(f"{where} = {value!r}: expected a finite number")
    if wanted is str:
        if isinstance(value, str):
            return value
        raise TwinError(f"{where} = {value!r}: expected text")
    raise TypeError(f"{where}: no rule for {wanted}")


def from_table(kind: type[T], table: Mapping[str, Any], where: str, **defaults: Any) -> T:
    """Make the dataclass `kind` from `table`; `defaults` fill in for keys that the table leaves out.

    `where` names the table in messages, for example `[rack]`. Raises `TwinError` for an unknown key (with the nearest
    known one), a value of the wrong type, or a missing key that has no default.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in fields:
            raise TwinError(f"{where}: unknown key '{key}'{hint(key, fields)}")
    values = {key: _convert(value, hints[key], f"{where} {key}") for key, value in {**defaults, **table}.items()}
    for name, f in fields.items():
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise TwinError(f"{where}: the key '{name}' is missing")
    return kind(**values)


def require(condition: bool, message: str) -> None:
    """Raise `TwinError(message)` unless `condition`."""
    if not condition:
        raise TwinError(message)
