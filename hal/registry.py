"""Racks by name: `open_rack("sim:lfp_280?n_series=16&seed=3")`.

A rack's URL is `scheme:address?key=value&...`. Each scheme names a class, imported only when it is asked for; other
distributions add schemes through the entry point group `rackbms.racks`. A backend class is constructed as
`Backend(address, query=..., clock=..., options=...)`.

Prefixes put wrappers around any of them: `record+chaos+sim:lfp_280?chaos.drop=0.01&record.to=run.bms`. The first prefix
is the outermost. Query keys with a prefix's name and a dot, and the table of that name in `options`, are the wrapper's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote_plus

from hal.contract import Clock, Rack, Site
from hal.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hal.engine import Program

GROUP = "rackbms.racks"

SCHEMES: dict[str, str] = {
    "can": "hal.backends.can:CanRack",
    "sim": "hal.backends.simulated:SimulatedRack",
    "replay": "hal.backends.replay:open_replay",
    "chaos": "hal.backends.chaos:open_chaos",
    "modbus": "hal.backends.modbus:ModbusRack",
}
"""Scheme -> "module:Class", or a function that makes the rack."""

SITES: dict[str, str] = {"sim:site": "hal.backends.site:SimulatedSite"}
"""Scheme and address -> "module:Class" of sites: many racks under one URL, opened by `open_site`."""

WRAPPERS: dict[str, str] = {
    "record": "hal.backends.record:wrap",
    "chaos": "hal.backends.chaos:wrap",
    "alive": "hal.backends.alive:wrap",
}
"""Prefix -> "module:function" that puts a wrapper around a rack."""

EXTRAS: dict[str, str] = {}
"""Importable module -> extra of `rackbms` that installs it, for backends whose libraries are optional."""


class Backend(Protocol):
    """How the registry makes a rack."""

    def __call__(
        self, address: str, *, query: Mapping[str, str], clock: Clock | None, options: Mapping[str, Any]
    ) -> Rack:
        """Make the rack, without reaching for the device yet."""
        ...


class SiteBackend(Protocol):
    """How the registry makes a site."""

    def __call__(
        self, address: str, *, query: Mapping[str, str], clock: Clock | None, options: Mapping[str, Any]
    ) -> Site:
        """Make the site, without reaching for the devices yet."""
        ...


class WrapperMaker(Protocol):
    """How the registry puts a wrapper around a rack."""

    def __call__(
        self, rack: Rack, *, keys: Mapping[str, str], clock: Clock | None, options: Mapping[str, Any], url: str
    ) -> Rack:
        """Wrap `rack`: `keys` of the query and `options` are those of this prefix, `url` is for messages."""
        ...


@dataclass(frozen=True)
class RackUrl:
    """A rack URL in its parts."""

    scheme: str
    address: str
    query: Mapping[str, str] = field(default_factory=dict)


def parse_url(url: str) -> RackUrl:
    """Take a rack URL apart. Raises `ConfigError` for a missing scheme, a key without value or a key given twice."""
    scheme, colon, rest = url.partition(":")
    if not colon or not scheme:
        raise ConfigError(f"rack URL '{url}': expected scheme:address, for example sim:lfp_280")
    address, _, text = rest.partition("?")
    query: dict[str, str] = {}
    for pair in filter(None, text.split("&")):
        key, equals, value = pair.partition("=")
        key = unquote_plus(key)
        if not equals or not key:
            raise ConfigError(f"rack URL '{url}': '{pair}' is not key=value")
        if key in query:
            raise ConfigError(f"rack URL '{url}': the key '{key}' is given twice")
        query[key] = unquote_plus(value)
    return RackUrl(scheme, address, query)


def schemes() -> dict[str, str]:
    """Every scheme known here, ours and those of installed distributions. A plug-in cannot replace one of ours."""
    from importlib.metadata import entry_points  # 20 ms that a start need not wait for

    return {**{point.name: point.value for point in entry_points(group=GROUP)}, **SCHEMES}


def open_rack(url: str, *, clock: Clock | None = None, options: Mapping[str, Any] | None = None) -> Rack:
    """Make the rack that `url` names; it is reached when it is opened, best as a context manager.

    `clock` tells a twin or a recording the time (by default the backend takes the computer's). `options` are the tables
    of a scenario file; query keys of the URL win over them. Raises `ConfigError`.
    """
    prefixes, inner = unwrapped(url)
    parts, backend = _backend(url, inner)
    if f"{parts.scheme}:{parts.address}" in SITES:
        raise ConfigError(f"rack URL '{url}': a site of many racks, where one rack is needed")
    tables = {name: table for name, table in (options or {}).items() if name not in prefixes}
    rack: Rack = cast(Backend, backend)(parts.address, query=parts.query, clock=clock, options=tables)
    for name in reversed(prefixes):
        module_name, _, function = WRAPPERS[name].partition(":")
        wrap = cast(WrapperMaker, getattr(importlib.import_module(module_name), function))
        rack = wrap(rack, keys=prefixes[name], clock=clock, options=(options or {}).get(name, {}), url=url)
    return rack


def is_site(url: str) -> bool:
    """Whether `url` names a site of many racks. Raises `ConfigError` for what is no URL."""
    _, parts = unwrapped(url)
    return f"{parts.scheme}:{parts.address}" in SITES


def unwrapped(url: str) -> tuple[dict[str, dict[str, str]], RackUrl]:
    """The prefixes of `url`, outermost first, each with its keys of the query, and the URL below them.

    Raises `ConfigError` for what is no URL, and for a prefix that is unknown or given twice.
    """
    parts = parse_url(url)
    *words, scheme = parts.scheme.split("+")
    for word in words:
        if word not in WRAPPERS:
            raise ConfigError(f"rack URL '{url}': unknown prefix '{word}+'{nearest(word, WRAPPERS)}")
        if words.count(word) > 1:
            raise ConfigError(f"rack URL '{url}': the prefix '{word}+' is given twice")
    prefixes: dict[str, dict[str, str]] = {word: {} for word in words}
    query: dict[str, str] = {}
    for key, value in parts.query.items():
        name, dot, inner = key.partition(".")
        if dot and name in prefixes:
            prefixes[name][inner] = value
        elif dot and name in WRAPPERS:
            raise ConfigError(f"rack URL '{url}': '{key}' is a key of '{name}+': write {name}+{url}, or leave it out")
        else:
            query[key] = value
    return prefixes, RackUrl(scheme, parts.address, query)


def open_site(url: str, *, clock: Clock | None = None, options: Mapping[str, Any] | None = None) -> Site:
    """Make the site that `url` names, as `open_rack` does for one rack. Raises `ConfigError`."""
    prefixes, inner = unwrapped(url)
    parts, backend = _backend(url, inner)
    if prefixes:
        raise ConfigError(f"rack URL '{url}': a prefix wraps one rack, not a site: leave out '{next(iter(prefixes))}+'")
    if not is_site(url):
        raise ConfigError(f"rack URL '{url}': one rack, where a site is needed (known: {', '.join(SITES)})")
    return cast(SiteBackend, backend)(parts.address, query=parts.query, clock=clock, options=options or {})


def programs(url: str) -> tuple[Program, ...]:
    """The native programs that the rack of `url` will run, to be prepared before it is opened. Raises `ConfigError`."""
    _, backend = _backend(url, unwrapped(url)[1])
    found: tuple[Program, ...] = getattr(backend, "programs", ())
    return found


def is_live(url: str) -> bool:
    """Whether real time passes for the rack of `url`, or for the one that it wraps, whatever the loop's clock says.

    Raises `ConfigError`.
    """
    parts, backend = _backend(url, unwrapped(url)[1])
    wrapped = parts.query.get("rack", "")
    return bool(getattr(backend, "live", False)) or (":" in wrapped and is_live(wrapped))


def _backend(url: str, parts: RackUrl) -> tuple[RackUrl, Any]:
    """`parts`, and the class that they name; `url` is for messages. Raises `ConfigError`."""
    known = SCHEMES if parts.scheme in SCHEMES else schemes()  # looking for plug-ins takes its time
    if parts.scheme not in known:
        raise ConfigError(f"rack URL '{url}': unknown scheme '{parts.scheme}'{nearest(parts.scheme, known)}")
    place = SITES.get(f"{parts.scheme}:{parts.address}", known[parts.scheme])
    module_name, _, class_name = place.partition(":")
    try:
        return parts, getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in EXTRAS:
            raise ConfigError(
                f"rack URL '{url}': '{missing}' is not installed (pip install 'rackbms[{EXTRAS[missing]}]')"
            ) from None
        raise ConfigError(f"rack URL '{url}': the backend {module_name} cannot be imported ({error})") from None
    except AttributeError:
        raise ConfigError(f"rack URL '{url}': {module_name} has no class {class_name}") from None
