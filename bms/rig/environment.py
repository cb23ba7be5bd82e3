"""What a bench is: the rack's URL, and what the URL cannot tell, from a file (`pytest --rack-env rack.toml`)."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bms.runtime import scenario as scenarios
from bms.runtime.scenario import BACKEND_TABLES, Scenario
from hal.contract import Capabilities
from hal.errors import ConfigError, nearest
from hal.registry import WRAPPERS, RackUrl, is_live, is_site, unwrapped

TABLES = (*(name for name in BACKEND_TABLES if name not in ("fault", "site")), *WRAPPERS)
_KINDS = dict.fromkeys(("rig", "url", "cell", "config", "firmware"), "text") | {"lacks": "list of names"}


@dataclass(frozen=True)
class Environment:
    """A bench. `rack` is its URL, `rig` its name in reports, `firmware` a file whose hash is reported.

    `cell`, `config`, `controller`, `period_s` are as in a scenario. `lacks` names capabilities (fields of
    `hal.contract.Capabilities`) that the rack claims and this bench does not have. `bus` are arguments of python-can's
    `Bus` where they do not follow from the URL; `tables` go to the rack's backend.
    """

    rack: str
    rig: str = ""
    cell: str = ""
    config: str = ""
    firmware: str = ""
    period_s: float = 1.0
    lacks: tuple[str, ...] = ()
    bus: Mapping[str, Any] = field(default_factory=dict)
    controller: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def url(self) -> RackUrl:
        """The URL below all prefixes."""
        return unwrapped(self.rack)[1]

    @property
    def virtual(self) -> bool:
        """Whether the bench makes its own time: tests run as fast as the computer can. Raises `ConfigError`."""
        return not is_live(self.rack)

    @property
    def seed(self) -> str:
        """What chance depends on: seeds of rack and wire, as far as they are given."""
        prefixes, below = unwrapped(self.rack)
        seeds = {"rack": below.query.get("seed"), "chaos": prefixes.get("chaos", {}).get("seed")}
        return ", ".join(f"{name} {seed}" for name, seed in seeds.items() if seed is not None) or "default"

    def scenario(self) -> Scenario:
        """The scenario that a controller of this bench is made for."""
        return Scenario(
            name=self.rig or "rig",
            rack=self.rack,
            cell=self.cell,
            config=self.config,
            controller=self.controller,
            period_s=self.period_s,
            tables={name: table for name, table in self.tables.items() if name in BACKEND_TABLES},
            source=self.source,
        )

    def firmware_hash(self) -> str:
        """SHA-256 of the firmware, 16 digits; '' without one. Raises `ConfigError` if it cannot be read."""
        if not self.firmware:
            return ""
        try:
            return hashlib.sha256(Path(self.firmware).read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise ConfigError(
                f"{self.source}: firmware = '{self.firmware}': cannot be read: {error.strerror}; correct the path"
            ) from error


def load(rack: str | None, path: Path | None) -> Environment:
    """The bench of `--rack` and `--rack-env`; the URL of `--rack` wins. Raises `ConfigError`."""
    tables: dict[str, Any] = {}
    where = str(path)
    if path is not None:
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}; give --rack-env an existing file") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from error
    known = (*_KINDS, "period", "bus", "controller", *TABLES)
    for key, value in tables.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
        kind = _KINDS.get(key, "table")
        wanted = {"text": str, "list of names": list, "table": dict}[kind]
        if not isinstance(value, wanted) and key != "period":
            raise ConfigError(f"{where}: {key} = {value!r}: expected a {kind}")
    url = rack or tables.get("url", "")
    if not url:
        raise ConfigError(f"{where}: url is missing: write url = 'can:...', or give --rack URL")
    if is_site(url):
        raise ConfigError(f"rack URL '{url}': a site of many racks, where one rack is needed")
    claims = [f.name for f in fields(Capabilities)]
    for name in tables.get("lacks", []):
        if name not in claims:
            raise ConfigError(f"{where}: lacks = {name!r}: no such capability{nearest(str(name), claims)}")
    made: dict[str, Any] = {
        key: tables[key] for key in ("rig", "cell", "config", "firmware", "bus", "controller") if key in tables
    }
    if "period" in tables:
        made["period_s"] = scenarios.seconds(tables["period"], f"{where}: period")
    return Environment(
        rack=url,
        lacks=tuple(tables.get("lacks", ())),
        tables={name: tables[name] for name in TABLES if name in tables},
        source=where if path is not None else "",
        **made,
    )


def falsifiable(url: str) -> str:
    """`url` with `chaos+` in it, below all other prefixes, so that they see the faults that are injected."""
    prefixes, _ = unwrapped(url)
    if "chaos" in prefixes:
        return url
    scheme, _, rest = url.partition(":")
    *words, below = scheme.split("+")
    return f"{'+'.join((*words, 'chaos', below))}:{rest}"
