"""Racks by name: `open_rack("sim:lfp_280?n_series=16&seed=3")`.

A rack's URL is `scheme:address?key=value&...`. Each scheme names a class, imported only when it is asked for; other
distributions add schemes through the entry point group `rackbms.racks`. A backend class is constructed as
`Backend(address, query=..., clock=..., options=...)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol, cast
from urllib.parse import unquote_plus

from hal.contract import Clock, Rack
from hal.errors import ConfigError, nearest

GROUP = "rackbms.racks"

SCHEMES: dict[str, str] = {
    "sim": "hal.backends.simulated:SimulatedRack",
    "replay": "hal.backends.replay:ReplayRack",
}
"""Scheme -> "module:Class"."""

EXTRAS: dict[str, str] = {}
"""Importable module -> extra of `rackbms` that installs it, for backends whose libraries are optional."""


class Backend(Protocol):
    """How the registry makes a rack."""

    def __call__(
        self, address: str, *, query: Mapping[str, str], clock: Clock | None, options: Mapping[str, Any]
    ) -> Rack:
        """Make the rack, without reaching for the device yet."""
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
    return {**{point.name: point.value for point in entry_points(group=GROUP)}, **SCHEMES}


def open_rack(url: str, *, clock: Clock | None = None, options: Mapping[str, Any] | None = None) -> Rack:
    """Make the rack that `url` names; it is reached when it is opened, best as a context manager.

    `clock` tells a twin or a recording the time (by default the backend takes the computer's). `options` are the tables
    of a scenario file; query keys of the URL win over them. Raises `ConfigError`.
    """
    parts = parse_url(url)
    known = schemes()
    if parts.scheme not in known:
        raise ConfigError(f"rack URL '{url}': unknown scheme '{parts.scheme}'{nearest(parts.scheme, known)}")
    module_name, _, class_name = known[parts.scheme].partition(":")
    try:
        backend = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in EXTRAS:
            raise ConfigError(
                f"rack URL '{url}': '{missing}' is not installed (pip install 'rackbms[{EXTRAS[missing]}]')"
            ) from None
        raise ConfigError(f"rack URL '{url}': the backend {module_name} cannot be imported ({error})") from None
    except AttributeError:
        raise ConfigError(f"rack URL '{url}': {module_name} has no class {class_name}") from None
    return cast(Backend, backend)(parts.address, query=parts.query, clock=clock, options=options or {})
