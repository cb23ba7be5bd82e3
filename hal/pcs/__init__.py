"""Northbound: what the inverter (PCS) and the energy manager see of a rack, and what they ask of its controller.

`open_north` makes one side of it by URL, as `hal.registry.open_rack` makes a rack. Whoever runs the controller asks
every side before each step what it wants (`ask`), and shows it each step afterwards (`publish`).
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, cast

from hal.contract import Clock, Command, Measurement, RackInfo
from hal.errors import ConfigError, nearest
from hal.registry import parse_url

SCHEMES: dict[str, str] = {
    "modbus": "hal.pcs.sunspec_north:SunSpecNorth",
    "can": "hal.pcs.inverter_north:InverterNorth",
}
"""Scheme -> "module:Class", imported only when it is asked for."""


class Ask(IntEnum):
    """What a side wants of the controller in the next step."""

    OPEN = 0
    CONNECT = 1
    """As far as this side is concerned, the rack may be connected."""
    RESET = 2
    """Forget what is latched and no longer present."""


@dataclass(frozen=True)
class Ratings:
    """What the configuration of a rack says of it, for the nameplate; NaN where it is not known.

    `charge_v`, `discharge_v`: voltages of the string at which charging and discharging end.
    """

    charge_v: float
    discharge_v: float
    energy_wh: float = math.nan
    charge_w: float = math.nan
    discharge_w: float = math.nan
    soc_min: float = math.nan
    soc_max: float = math.nan


class North(Protocol):
    """One side: an energy manager on Modbus, an inverter on CAN. Nothing but `start` raises or waits."""

    @property
    def address(self) -> str:
        """Where it can be reached, for people."""
        ...

    @property
    def silences(self) -> int:
        """How often whoever is there has fallen silent while it was in control."""
        ...

    def start(self) -> None:
        """Begin, in threads of its own. Raises `LinkError` or `ConfigError`: the wire cannot be had."""
        ...

    def ask(self, now_s: float) -> Ask:
        """What is wanted of the controller in the step at `now_s`."""
        ...

    def publish(self, measurement: Measurement, command: Command, now_s: float, *, local: bool) -> None:
        """Show a step, which is over. `local`: somebody at the rack has asked for something else than to connect."""
        ...

    def stop(self) -> None:
        """Let go of the wire."""
        ...


class _Maker(Protocol):
    def __call__(self, url: str, info: RackInfo, clock: Clock, ratings: Ratings) -> North: ...


def open_north(url: str, info: RackInfo, clock: Clock, ratings: Ratings) -> North:
    """The side that `url` names, for the rack `info`; it is reached when it is started. Raises `ConfigError`."""
    scheme = parse_url(url).scheme
    if scheme not in SCHEMES:
        raise ConfigError(
            f"north side '{url}': unknown scheme '{scheme}'{nearest(scheme, SCHEMES)}; write "
            "modbus:tcp://127.0.0.1:5020 or can:socketcan:can1"
        )
    module, _, name = SCHEMES[scheme].partition(":")
    return cast(_Maker, getattr(importlib.import_module(module), name))(url, info, clock, ratings)
