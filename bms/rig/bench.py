"""A bench at work: the rack of an environment, open, with the controller on it and faults to inject."""

from __future__ import annotations

import hashlib
from typing import Any

from bms.core.jit import PROGRAM as CORE
from bms.rig.driver import Driver
from bms.rig.environment import Environment, falsifiable
from bms.runtime import engine
from bms.runtime.clock import LoopClock, RealClock, VirtualClock
from bms.runtime.run import configuration
from hal.backends.chaos import Change
from hal.backends.chaos_wire import WireFaults
from hal.codec.jit import PROGRAM as CODEC
from hal.contract import HasTruth, Rack
from hal.errors import ConfigError, RackBmsError
from hal.registry import open_rack, programs


class Faults:
    """Faults that can be injected into whatever the rack tells, on any rack: the rack itself stays healthy."""

    def __init__(self, rack: Any) -> None:
        self._rack = rack

    def change(self, channel: str, kind: str, **about: Any) -> None:
        """Falsify a channel (`hal.backends.chaos.Change`); times count from now. Raises `ConfigError`."""
        self._rack.inject(Change(channel, kind, **about))

    def wire(self, **rates: float) -> None:
        """Let the wire be bad (`hal.backends.chaos_wire.WireFaults`); times count from now. Raises `ConfigError`."""
        self._rack.inject(wire=WireFaults(**rates))

    def clear(self) -> None:
        """End all of them."""
        self._rack.clear()


class Bench:
    """Opens the rack of `environment` and closes it, whatever happened in between; used as a context manager.

    The controller is made when it is first asked for. Raises `ConfigError` and `LinkError`.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        engine.ready(engine.JIT, (CORE, CODEC, *programs(environment.rack)))
        self.clock: LoopClock = VirtualClock() if environment.virtual else RealClock()
        self.rack: Rack = open_rack(falsifiable(environment.rack), clock=self.clock, options=environment.tables)
        self.faults = Faults(self.rack)
        self._driver: Driver | None = None
        self.rack.open()
        self.open = True

    @property
    def controller(self) -> Driver:
        """The controller on the rack."""
        if self._driver is None:
            self._driver = Driver(self.rack, self.environment.scenario(), self.clock)
        return self._driver

    def lacks(self, name: str) -> str:
        """Why the bench cannot do `name`, a capability, `bus` or `virtual_time`; '' if it can. Raises `ConfigError`."""
        shown = self.environment.rack
        if name in self.environment.lacks:
            return f"{self.environment.source}: lacks = '{name}'"
        if name == "bus":
            there = self.environment.bus or self.environment.url.scheme == "can"
            return "" if there else f"{shown} is not on a CAN bus: give [bus] in --rack-env"
        if name == "virtual_time":
            return "" if self.environment.virtual else f"{shown} runs in real time"
        capabilities = self.rack.info.capabilities
        if not hasattr(capabilities, name):
            raise ConfigError(f"no rack has the capability '{name}'")
        if name == "truth" and not isinstance(self.rack, HasTruth):
            return f"{shown} has no truth: a twin is needed"
        return "" if getattr(capabilities, name) else f"{shown} has no {name}"

    def bus_arguments(self) -> dict[str, Any]:
        """Arguments of python-can's `Bus`: `[bus]` of the environment, or what the URL says."""
        if self.environment.bus:
            return dict(self.environment.bus)
        interface, _, channel = self.environment.url.address.partition(":")
        made: dict[str, Any] = {"interface": interface, "channel": channel}
        for key, text in self.environment.url.query.items():
            if key in ("bitrate", "data_bitrate", "port"):
                made[key] = int(text)
            elif key == "host":
                made[key] = text
            elif key == "fd" and text in ("1", "true"):
                made[key] = True
            elif key.startswith("bus."):  # handed to the interface as it is
                made[key.removeprefix("bus.")] = int(text) if text.isdigit() else text
        return made

    def properties(self) -> dict[str, str]:
        """What was tested and with what, for a report."""
        _, record = configuration(self.environment.scenario(), self.rack.info)
        firmware = self.environment.firmware_hash()
        return {
            "rig": self.environment.rig or self.environment.url.scheme,
            "rack": self.environment.rack,
            "seed": self.environment.seed,
            "kernels": CORE.table.digest[:16],
            "configuration": hashlib.sha256(record.bytes.tobytes()).hexdigest()[:16],
            **({"firmware": firmware} if firmware else {}),
        }

    def rest(self) -> None:
        """Lead back to where a test may begin: no faults, contactors open, a controller without memory.

        Raises `AssertionError` if the contactors are not seen to open.
        """
        self.faults.clear()
        if self._driver is not None:
            assert self._driver.stop(), f"the contactors did not open: {self._driver}"
            self._driver.restart()

    def close(self) -> bool:
        """Open the contactors and release the rack. Returns whether they were seen to open."""
        if not self.open:
            return True
        self.open = False
        opened = True
        try:
            self.faults.clear()
            if self._driver is not None:
                opened = self._driver.stop()
        except RackBmsError:
            opened = False
        finally:
            self.rack.close()
        return opened

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
