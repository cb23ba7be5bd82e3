"""Racks by name: `open_rack("sim:lfp_280?n_series=16&seed=3")`.

A rack's URL is `scheme:address?key=value&...`. Each scheme names a class, imported only when it is asked for; other
distributions add schemes through the entry point group `rackbms.racks`. A backend class is constructed as
`Backend(address, query=..., clock=..., options=...)`.
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
    "replay": "hal.backends.replay:ReplayRack",
    "chaos": "hal.backends.chaos:open_chaos",
    "modbus": "hal.backends.modbus:ModbusRack",
}
"""Scheme -> "module:Class", or a function that makes the rack."""

SITES: dict[str, str] = {"sim:site": "hal.backends.site:SimulatedSite"}
"""Scheme and address -> "module:Class" of sites: many racks under one URL, opened by `open_site`."""

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
    parts, backend = _backend(url)
    if is_site(url):
        raise ConfigError(f"rack URL '{url}': a site of many racks, where one rack is needed")
    return cast(Backend, backend)(parts.address, query=parts.query, clock=clock, options=options or {})


def is_site(url: str) -> bool:
    """Whether `url` names a site of many racks. Raises `ConfigError` for what is no URL."""
    parts = parse_url(url)
    return f"{parts.scheme}:{parts.address}" in SITES


def open_site(url: str, *, clock: Clock | None = None, options: Mapping[str, Any] | None = None) -> Site:
    """Make the site that `url` names, as `open_rack` does for one rack. Raises `ConfigError`."""
    parts, backend = _backend(url)
    if not is_site(url):
        raise ConfigError(f"rack URL '{url}': one rack, where a site is needed (known: {', '.join(SITES)})")
    return cast(SiteBackend, backend)(parts.address, query=parts.query, clock=clock, options=options or {})


def programs(url: str) -> tuple[Program, ...]:
    """The native programs that the rack of `url` will run, to be prepared before it is opened. Raises `ConfigError`."""
    _, backend = _backend(url)
    found: tuple[Program, ...] = getattr(backend, "programs", ())
    return found


def is_live(url: str) -> bool:
    """Whether real time passes for the rack of `url`, or for the one that it wraps, whatever the loop's clock says.

    Raises `ConfigError`.
    """
    parts, backend = _backend(url)
    wrapped = parts.query.get("rack", "")
    return bool(getattr(backend, "live", False)) or (":" in wrapped and is_live(wrapped))


def _backend(url: str) -> tuple[RackUrl, Any]:
    """The parts of `url` and the class that it names. Raises `ConfigError`."""
    parts = parse_url(url)
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
