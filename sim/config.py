"""From tables (TOML, URL query) to frozen dataclasses, strictly: nothing unknown is ever ignored."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

UNITS = {
    "_w_per_k": "W/K", "_w_per_k_flow": "W/K", "_k_per_w": "K/W", "_ohm": "ohm", "_lpm": "l/min", "_f": "F", "_a": "A",
    "_w": "W", "_v": "V", "_s": "s", "_h": "h", "_hour": "h", "_hours": "h", "_hz": "Hz", "_m3": "m3", "_ppm": "ppm",
    "_degc": "degC", "_c": "C",
}  # fmt: skip
"""Unit of a key by the end of its name. C: 1 C is the current, or the power, that empties the rack in an hour."""


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


_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)


def from_table(kind: type[T], table: Mapping[str, Any], where: str, **defaults: Any) -> T:
    """Make the dataclass `kind` from `table`; `defaults` fill in for keys that the table leaves out.

    `where` names the table in messages, for example `[rack]`. Raises `TwinError` for an unknown key (with the nearest
    known one), a value of the wrong type, or a missing key that has no default.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = _hints(kind)
    for key in table:
        if key not in fields:
            raise TwinError(f"{where}: unknown key '{key}'{hint(key, fields)}")
    values = {key: _convert(value, hints[key], f"{where} {key}") for key, value in {**defaults, **table}.items()}
    for name, f in fields.items():
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise TwinError(f"{where}: the key '{name}' is missing")
    return kind(**values)


@dataclasses.dataclass(frozen=True)
class Range:
    """What a number may be: from `low`, or larger than `above`, to `high`; `None` is no bound."""

    low: float | None = None
    above: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` is inside."""
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
        )

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g}..{self.high:g}"
        bounds = (">=", self.low), (">", self.above), ("<=", self.high)
        return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    def demand(self) -> str:
        """The end of an error line about a number outside."""
        if self.high is None and 0.0 in (self.low, self.above):
            return "must be positive" if self.above == 0.0 else "must not be negative"
        return f"must be in {self}" if self.low is not None and self.high is not None else f"must be {self}"


def key(
    about: str,
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    unit: str | None = None,
) -> Any:
    """A field of a table's dataclass: what it means, its default, what it may be (`check_ranges`), and its unit.

    A field without default must be given, by the scenario or by the cell's file. The unit follows from the
    name where it is left out.
    """
    return dataclasses.field(default=default, metadata={"about": about, "range": Range(low, above, high), "unit": unit})


def unit_of(field: dataclasses.Field[Any]) -> str:
    """The unit of a field made by `key`; '' where it has none."""
    if field.metadata["unit"] is not None:
        return str(field.metadata["unit"])
    ends = [end for end in UNITS if field.name.endswith(end)]
    return UNITS[max(ends, key=len)] if ends else ""


def check_ranges(config: Any, where: str) -> None:
    """Raise `TwinError` for the first number of a dataclass of `key` fields that is out of its range."""
    for field in dataclasses.fields(config):
        allowed: Range = field.metadata["range"]
        value = getattr(config, field.name)
        if isinstance(value, int | float):
            require(allowed.holds(value), f"{where} {field.name} = {value}: {allowed.demand()}")


def require(condition: bool, message: str) -> None:
    """Raise `TwinError(message)` unless `condition`."""
    if not condition:
        raise TwinError(message)
