"""The controller on another processor, in the place of the one on this computer.

Each controller that is made gets an emulator or a process of its own, with a firmware that has its configuration in
it; or it is the board at the end of a serial line. Measurement and command travel over the link; `bms.firmware.memory`
is how people look at what else the controller holds, or alter it.
"""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from bms.firmware import places
from bms.firmware.baked import LAYOUTS, Baked, keep
from bms.firmware.compare import Decision, check
from bms.firmware.header import layouts_digest
from bms.firmware.memory import Asked, Memory, Seen
from hal.contract import F4, U1
from hal.engine.child import Child
from hal.engine.frames import Flag, Identity
from hal.engine.program import Program
from hal.engine.remote import Remote
from hal.engine.serial_port import SerialPort
from hal.errors import ConfigError, GoneError, LinkError, RackBmsError

log = logging.getLogger(__name__)


class Controlled:
    """One controller at `place`: its firmware runs until `close`, or the board that is there is used until then.

    `compared`: start and steps are made by the `program` of this computer, too, and a difference raises `Difference`.
    `shift`: see `Place.open`. Raises `ConfigError` and `LinkError`.
    """

    def __init__(self, program: Program, place: str, config: U1, *, compared: bool = False, shift: int = 1) -> None:
        at, found = places.parse(place), Baked.of(config)
        self.compared = compared
        self.steps = 0
        self._reference = (program.here("init"), program.here("step")) if compared or at.device else None
        channel = at.open(program, found, shift)
        self.close = weakref.finalize(self, channel.close)
        self.remote = Remote(channel)
        try:
            self.identity = _introduced(self.remote) if at.device else self.remote.hello()
            agree(self.identity, program, found, channel.name)
            self.memory: Memory = (
                Seen(channel, self.identity) if isinstance(channel, Child) else Asked(self.remote, config)
            )
        except RackBmsError:
            self.close()
            raise
        self.ticks = 0
        """Of the controller's timer, that the last step took."""

    def start(self, config: U1, state: U1, soc: F4, soc_std: F4) -> None:
        """Fresh memory, as `bms.core.step.init` makes it."""
        self.remote.start(soc, soc_std)
        self.steps = 0
        ours = None
        if self._reference is not None:
            ours = np.zeros_like(state)
            self._reference[0](config, ours, soc, soc_std)
        state[:] = self.memory.state(ours)
        if self.compared and ours is not None:
            nothing = np.zeros(self.identity.command_size, np.uint8)
            self._check(0.0, Decision(0, nothing, state), Decision(0, nothing, ours))

    def step(self, config: U1, state: U1, measurement: U1, command: U1, request: int, dt_s: float) -> int:
        """One step, as `bms.core.step.step` makes it."""
        self.memory.put(config, state)
        answer = self.remote.step(request, dt_s, measurement)
        if len(answer.command) != command.size:
            raise LinkError(f"{self.name}: a command of {len(answer.command)} bytes, expected {command.size}")
        ours = None
        if self._reference is not None:
            decided, memory = command.copy(), state.copy()
            status = self._reference[1](config, memory, measurement, decided, request, dt_s)
            ours = Decision(status, decided, memory)
        command[:] = np.frombuffer(answer.command, np.uint8)
        state[:] = self.memory.state(None if ours is None else ours.state)
        self.ticks = answer.ticks
        self.steps += 1
        if answer.flags & Flag.OVERRUN:
            log.warning("step %d took longer than its %g s: the controller has made its outputs safe", self.steps, dt_s)
        elif self.compared and ours is not None:
            time_s = float(measurement[:8].view("<f8")[0])
            self._check(time_s, Decision(answer.status, command, state), ours)
        return answer.status

    @property
    def name(self) -> str:
        """What it is reached by."""
        return self.remote.channel.name

    def _check(self, time_s: float, theirs: Decision, ours: Decision) -> None:
        check(self.steps, time_s, (self.identity.n_cells, self.identity.n_sensors), theirs, ours)


def introduced(text: str) -> Identity:
    """Who is at the other end of the port that `serial:DEVICE` names. Raises `ConfigError`, `GoneError`."""
    at = places.parse(text)
    port = SerialPort(at.device, at.baud)
    try:
        return _introduced(Remote(port))
    finally:
        port.close()


def _introduced(remote: Remote) -> Identity:
    """Who is at the other end of a port. Raises `GoneError` where nobody answers."""
    try:
        return remote.hello()
    except GoneError:
        raise
    except LinkError as error:
        raise GoneError(str(error)) from None


def agree(identity: Identity, program: Program, found: Baked, name: str) -> None:
    """Raise `ConfigError` unless both sides have the same kernels, layouts and configuration."""
    for what, theirs, ours in (
        ("layout of the records", identity.layouts, layouts_digest(LAYOUTS)),
        ("sources of the kernels", identity.kernels, program.table.digest[:16]),
        ("configuration", identity.config, found.digest),
    ):
        if theirs != ours:
            remedy = building(identity.target, found)
            raise ConfigError(f"{name}: its {what} is {theirs}, here it is {ours}; make the right one: {remedy}")


def building(target: str, found: Baked) -> str:
    """The command that builds the firmware with the configuration `found`, which is left in a file for it."""
    return f"bms build --target {target} --config {keep(found)} -o build/{target}"


class Elsewhere:
    """Stands in for the entries `init` and `step` of the controller's program: see `Program.run_elsewhere`.

    `compared`: see `Controlled`.
    """

    def __init__(self, program: Program, place: str, compared: bool = False) -> None:
        self._program = program
        self._place = places.parse(place)
        self._compared = compared
        self._controllers: dict[int, tuple[weakref.ref[Any], Controlled]] = {}

    def entries(self) -> dict[str, Any]:
        """What `Program.run_elsewhere` takes."""
        return {"init": _Init(self), "step": _Step(self)}

    def controller(self, config: U1, state: U1) -> tuple[Controlled, bool]:
        """The controller whose memory `state` is, and whether it is new: made for `config` just now."""
        self._forget()
        known = self._controllers.get(state.ctypes.data)
        if known is not None:
            return known[1], False
        if self._place.device and self._controllers:
            gc.collect()
            self._forget()
            if self._controllers:
                raise ConfigError(f"{self._place.text}: one board is one controller, and it is one already")
        made = Controlled(self._program, self._place.text, config, compared=self._compared)
        self._controllers[state.ctypes.data] = weakref.ref(_root(state)), made
        return made, True

    def _forget(self) -> None:
        """Close those whose memory is not used any more."""
        for address, (owner, old) in list(self._controllers.items()):
            if owner() is None:
                old.close()
                del self._controllers[address]


def _root(array: Any) -> Any:
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class _Init:
    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    def __call__(self, config: U1, state: U1, soc: F4, soc_std: F4) -> None:
        self._elsewhere.controller(config, state)[0].start(config, state, soc, soc_std)


class _Step:
    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    def bind(self, config: U1, state: U1, measurement: U1, command: U1) -> Callable[[int, float], int]:
        """A function of request and time: the arrays are those of each call."""
        controller, new = self._elsewhere.controller(config, state)
        if new:  # its memory comes from elsewhere, a recording perhaps
            n = controller.identity.n_cells
            controller.remote.start(np.zeros(n, np.float32), np.ones(n, np.float32))
        return lambda request, dt_s: controller.step(config, state, measurement, command, request, dt_s)

    def __call__(self, config: U1, state: U1, measurement: U1, command: U1, request: int, dt_s: float) -> int:
        return self.bind(config, state, measurement, command)(request, dt_s)
