"""Scenario files: what a run does, as TOML. See docs/scenarios.md.

`[run]`, `[controller]` and `[[request]]` are ours; `[rack]`, `[duty]`, `[sensors]`, `[environment]`, `[site]` and
`[[fault]]` go to the backend of the rack, which checks them itself.
"""

from __future__ import annotations

import math
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bms.core.machine_table import Request
from hal.errors import ConfigError, nearest

DEFAULT = "frequency_regulation"
BACKEND_TABLES = ("rack", "duty", "sensors", "environment", "fault", "site")

_UNIT_S = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Scenario:
    """A run: `rack` is a URL, `cell` the controller's cell file ('' = the rack's own), times in s.

    `initial_soc` and `initial_soc_std` (0..1) are what the controller is told of every cell; where they are None it
    guesses from the voltages at rest. `config` is the rack's configuration, name or path ('' = that of the rack's cell,
    or the defaults for it), `controller` what the scenario changes in it, `requests` what is asked of the controller
    and from when (otherwise to connect). `tables` are the backend's.
    """

    name: str = ""
    description: str = ""
    rack: str = "sim:lfp_280"
    cell: str = ""
    duration_s: float = 86400.0
    period_s: float = 1.0
    initial_soc: float | None = None
    initial_soc_std: float | None = None
    config: str = ""
    controller: Mapping[str, Any] = field(default_factory=dict)
    requests: tuple[tuple[float, Request], ...] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # where it comes from, for messages

    def to_json(self) -> dict[str, Any]:
        """For the header of a recording and the summary of a run."""
        return {
            **{
                f.name: getattr(self, f.name)
                for f in fields(self)
                if f.name not in ("controller", "requests", "tables")
            },
            "controller": dict(self.controller),
            "requests": [[at_s, request.name] for at_s, request in self.requests],
            "tables": dict(self.tables),
        }


def seconds(value: object, where: str, *, zero: bool = False) -> float:
    """A duration: a number of seconds, or text such as '90', '1.5 h', '30min', '2d'; `zero`: 0 will do, too.

    Raises `ConfigError`.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        time_s = float(value)
    else:
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", value) if isinstance(value, str) else None
        if match is None or match[2] not in _UNIT_S:
            raise ConfigError(f"{where} = {value!r}: expected a time, for example 90, '30min', '1.5h' or '1d'")
        time_s = float(match[1]) * _UNIT_S[match[2]]
    if not (math.isfinite(time_s) and (time_s > 0 or (zero and time_s == 0))):
        raise ConfigError(f"{where} = {value!r}: must be {'0 or more' if zero else 'greater than 0'} and finite")
    return time_s


def finite(tables: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` if any number in `tables` is NaN, infinite or beyond all that a computer reckons with.

    Whatever is compared with such a number holds always or never, so that a check with one is off, in silence.
    """
    for path, value in leaves(tables):
        if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
            key, shown = path[-1], f"{value:g}" if isinstance(value, float) else f"{str(value)[:10]}..."
            raise ConfigError(f"{where}: {place_of(path)} = {shown}: not a finite number; give one, or leave {key} out")


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every number and text in tables, with the keys that lead to it; entries of lists of tables by number, from 1."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from leaves(item, (*path, number) if isinstance(item, Mapping) else path)
    else:
        yield path, value


def place_of(path: tuple[str | int, ...]) -> str:
    """A key as a file has it: `[expect.bounds] cell_v_max`, `[[fault]] number 2: value`."""
    *above, key = path
    table = ".".join(part for part in above if isinstance(part, str))
    numbers = [part for part in above if isinstance(part, int)]
    if numbers:
        return f"[[{table}]] number {numbers[-1]}: {key}"
    return f"[{table}] {key}" if table else str(key)


def _folder() -> Traversable:
    return resources.files("bms").joinpath("trial", "scenarios")


def names() -> list[str]:
    """Scenarios that come with the package."""
    return sorted(file.name[:-5] for file in _folder().iterdir() if file.name.endswith(".toml"))


def load(name_or_path: str | Path) -> Scenario:
    """A scenario by its name in the package, or by path (anything with a '/' or that ends in .toml).

    Raises `ConfigError`: unknown name, unreadable file, not TOML, unknown table or key, a value of the wrong type.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        path, source = Path(text), text
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"scenario {source}: cannot be read: {error.strerror}") from error
        name = path.stem
    else:
        if text not in names():
            raise ConfigError(f"unknown scenario '{text}'{nearest(text, names())}; or give the path of a .toml file")
        data, source, name = _folder().joinpath(f"{text}.toml").read_bytes(), f"'{text}'", text
    try:
        tables = tomllib.loads(data.decode())
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise ConfigError(f"scenario {source}: not valid TOML: {error}") from error
    return parse(tables, name, source)


def parse(tables: Mapping[str, Any], name: str, source: str) -> Scenario:
    """Check the tables of a scenario; `source` names it in messages. Raises `ConfigError`."""
    where = f"scenario {source}"
    finite(tables, where)
    ours = ("run", "controller", "request")
    for table, content in tables.items():
        if table not in (*ours, *BACKEND_TABLES):
            raise ConfigError(f"{where}: unknown table [{table}]{nearest(table, (*ours, *BACKEND_TABLES))}")
        many = table in ("fault", "request")
        if not isinstance(content, list if many else dict):
            raise ConfigError(
                f"{where}: {table} = {content!r}: expected a table, {f'[[{table}]]' if many else f'[{table}]'}"
            )
    run = dict(tables.get("run", {}))
    known = ("description", "rack", "cell", "duration", "period_s", "initial_soc", "initial_soc_std", "config")
    for key in run:
        if key not in known:
            raise ConfigError(f"{where}: [run]: unknown key '{key}'{nearest(key, known)}")
    values: dict[str, Any] = {}
    for key in ("description", "rack", "cell", "config"):
        if key in run:
            if not isinstance(run[key], str):
                raise ConfigError(f"{where}: [run] {key} = {run[key]!r}: expected text")
            values[key] = run[key]
    for key, target in (("duration", "duration_s"), ("period_s", "period_s")):
        if key in run:
            values[target] = seconds(run[key], f"{where}: [run] {key}")
    for key, most in (("initial_soc", 1.0), ("initial_soc_std", 0.5)):
        if key in run:
            value = run[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise ConfigError(f"{where}: [run] {key} = {value!r}: must be a number in 0..{most:g}")
            values[key] = float(value)
    if "initial_soc_std" in values and "initial_soc" not in values:
        raise ConfigError(f"{where}: [run] initial_soc_std is given without initial_soc")
    return Scenario(
        name=name,
        source=source,
        controller=_controller(tables.get("controller", {}), where),
        requests=_requests(tables.get("request", []), where),
        tables={table: tables[table] for table in BACKEND_TABLES if table in tables},
        **values,
    )


def _controller(changes: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What a scenario changes in the rack's configuration, checked as far as that needs no rack."""
    if changes:
        from bms.racks.config import check_tables

        check_tables(changes, f"{where}: [controller]")
        timing = changes.get("timing", {})
        if "period_s" in timing:
            raise ConfigError(
                f"{where}: [controller.timing] period_s = {timing['period_s']!r}: the period of a run is "
                "[run] period_s; set it there, and leave this one out"
            )
    return changes


def _requests(entries: list[Any], where: str) -> tuple[tuple[float, Request], ...]:
    """What is asked of the controller, in the order of time."""
    names = [request.name.lower() for request in Request]
    found: list[tuple[float, Request]] = []
    for number, entry in enumerate(entries, 1):
        place = f"{where}: [[request]] number {number}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{place}: expected a table with at and request")
        for key in entry:
            if key not in ("at", "request"):
                raise ConfigError(f"{place}: unknown key '{key}'{nearest(key, ('at', 'request'))}")
        if "request" not in entry:
            raise ConfigError(f"{place}: the key 'request' is missing; one of: {', '.join(names)}")
        name = entry["request"]
        if name not in names:
            raise ConfigError(f"{place}: request = {name!r}{nearest(str(name), names)}; one of: {', '.join(names)}")
        at = entry.get("at", 0)
        at_s = seconds(at, f"{place}: at", zero=True)
        if found and at_s <= found[-1][0]:
            raise ConfigError(f"{place}: at = {at!r}: must be later than that of the one before")
        found.append((at_s, Request[name.upper()]))
    return tuple(found)
