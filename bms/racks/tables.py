"""From tables of TOML to frozen dataclasses and back, strictly: nothing unknown is ever ignored."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from hal.errors import ConfigError, nearest

T = TypeVar("T")


def settings(kind: type[T], content: object, name: str, source: str) -> T:
    """The dataclass `kind` from the table [`name`]. Raises `ConfigError`: what is wrong, and what to do."""
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in table(content, name, source).items():
        if key not in hints:
            raise ConfigError(f"{source}: {name}.{key} = {shown(value)}: unknown key{nearest(key, hints)}")
        values[key] = convert(value, hints[key], f"{source}: {name}.{key}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{source}: {name}.{error}") from None


def table(content: object, name: str, source: str) -> Mapping[str, Any]:
    """`content`, if it is a table."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source}: {name} = {shown(content)}: expected a table, [{name}]")
    return content


def convert(value: Any, wanted: Any, where: str) -> Any:
    """`value` as the type `wanted`; `where` names it in messages."""
    if isinstance(wanted, types.UnionType):  # X | None; a key that is left out is None
        wanted = next(kind for kind in typing.get_args(wanted) if kind is not type(None))
    if typing.get_origin(wanted) is tuple:
        return _tuple(value, typing.get_args(wanted), where)
    if wanted is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{where} = {shown(value)}: expected true or false")
    elif wanted is str:
        if not isinstance(value, str):
            raise ConfigError(f"{where} = {shown(value)}: expected text in quotes")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where} = {shown(value)}: expected a number")
    elif wanted is int and not isinstance(value, int):
        raise ConfigError(f"{where} = {shown(value)}: expected a whole number")
    return float(value) if wanted is float else value


def _tuple(value: Any, kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} = {shown(value)}: expected a list in [ ]")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ConfigError(f"{where} = {shown(value)}: expected a list of {len(kinds)}")
    return tuple(convert(item, kind, f"{where}[{k}]") for k, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def plain(value: Any) -> Any:
    """A settings object as a table, and tuples as lists; what is None is left out, as TOML has no word for it."""
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of `below`, with the keys of `above` over them; lists are replaced as a whole."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = merged(under, value) if isinstance(value, Mapping) and isinstance(under, Mapping) else value
    return result


def shown(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {shown(item)}" for key, item in value.items()) + "}"
    return repr(value)


def text(tables: Mapping[str, Any]) -> str:
    """Tables as a TOML file."""
    lines = [f"{key} = {shown(value)}" for key, value in tables.items() if not isinstance(value, Mapping)]

    def write(name: str, content: Mapping[str, Any]) -> None:
        keys = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
        if keys or not content:
            lines.extend(["", f"[{name}]", *(f"{key} = {shown(value)}" for key, value in keys.items())])
        for key, value in content.items():
            if isinstance(value, Mapping):
                write(f"{name}.{key}", value)

    for key, value in tables.items():
        if isinstance(value, Mapping):
            write(key, value)
    return "\n".join(lines) + "\n"
