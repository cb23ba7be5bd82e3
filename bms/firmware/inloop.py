"""The controller on an emulated microcontroller, in the place of the one on this computer.

Each controller that is made gets an emulator of its own, with a firmware that has its configuration in flash.
Measurement and command travel over the link; what else of the controller people look at, or alter (a recorder, a
report, a fault of the memory), is read and written in its memory from outside, between steps, as by a board's debugger.
"""

from __future__ import annotations

import logging
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bms.firmware import boards
from bms.firmware.baked import Baked
from bms.firmware.build import LAYOUTS, rackbms_header
from bms.firmware.compare import Decision, check
from bms.firmware.header import layouts_digest
from hal.contract import F4, U1
from hal.engine.emulator import Emulator
from hal.engine.frames import Flag, Identity
from hal.engine.program import Program
from hal.engine.remote import Remote
from hal.errors import ConfigError, LinkError

log = logging.getLogger(__name__)


class Controlled:
    """One controller on the board `board`: its firmware runs until `close`.

    `compared`: start and steps are made by the `program` of this computer, too, and a difference raises `Difference`.
    `shift`: an instruction takes 2**shift nanoseconds. Raises `ConfigError` and `LinkError`.
    """

    def __init__(self, program: Program, board: str, config: U1, *, compared: bool = False, shift: int = 1) -> None:
        self._reference = (program.here("init"), program.here("step")) if compared else None
        self.steps = 0
        own = boards.BOARDS[board]
        found = Baked.of(config)
        with tempfile.TemporaryDirectory(prefix="rackbms-") as folder:
            elf = Path(folder) / "firmware.elf"
            boards.compile_to(elf, board, program.image(board)[0], rackbms_header(board), found)
            self.emulator = Emulator(own.emulator, own.machine, elf.read_bytes(), own.store, shift)
        self.close = weakref.finalize(self, self.emulator.close)
        self.remote = Remote(self.emulator)
        try:
            self.identity = self.remote.hello()
            agree(self.identity, program, found, self.emulator.name)
            self._config = self.emulator.memory(self.identity.config_address, self.identity.config_size)
            self._state = self.emulator.memory(self.identity.state_address, self.identity.state_size)
        except LinkError:
            self.close()
            raise
        self.ticks = 0
        """Of the controller's timer, that the last step took."""

    def start(self, config: U1, state: U1, soc: F4, soc_std: F4) -> None:
        """Fresh memory, as `bms.core.step.init` makes it."""
        self.remote.start(soc, soc_std)
        self.steps = 0
        state[:] = self._state
        if self._reference is not None:
            ours = np.zeros_like(state)
            self._reference[0](config, ours, soc, soc_std)
            nothing = np.zeros(self.identity.command_size, np.uint8)
            self._check(0.0, Decision(0, nothing, state), Decision(0, nothing, ours))

    def step(self, config: U1, state: U1, measurement: U1, command: U1, request: int, dt_s: float) -> int:
        """One step, as `bms.core.step.step` makes it."""
        for own, given in ((self._config, config), (self._state, state)):
            if not np.array_equal(own, given):  # somebody has altered it
                own[:] = given
        ours = (state.copy(), command.copy()) if self._reference is not None else None
        answer = self.remote.step(request, dt_s, measurement)
        if len(answer.command) != command.size:
            raise LinkError(f"{self.emulator.name}: a command of {len(answer.command)} bytes, expected {command.size}")
        command[:] = np.frombuffer(answer.command, np.uint8)
        state[:] = self._state
        self.ticks = answer.ticks
        self.steps += 1
        if answer.flags & Flag.OVERRUN:
            log.warning("step %d took longer than its %g s: the controller has made its outputs safe", self.steps, dt_s)
        elif self._reference is not None and ours is not None:
            status = self._reference[1](config, ours[0], measurement, ours[1], request, dt_s)
            time_s = float(measurement[:8].view("<f8")[0])
            self._check(time_s, Decision(answer.status, command, state), Decision(status, ours[1], ours[0]))
        return answer.status

    def _check(self, time_s: float, theirs: Decision, ours: Decision) -> None:
        check(self.steps, time_s, (self.identity.n_cells, self.identity.n_sensors), theirs, ours)


def agree(identity: Identity, program: Program, found: Baked, name: str) -> None:
    """Raise `LinkError` unless both sides have the same kernels, layouts and configuration."""
    for what, theirs, ours in (
        ("layout of the records", identity.layouts, layouts_digest(LAYOUTS)),
        ("sources of the kernels", identity.kernels, program.table.digest[:16]),
        ("configuration", identity.config, found.digest),
    ):
        if theirs != ours:
            raise LinkError(f"{name}: its {what} is {theirs}, here it is {ours}: build and load the firmware again")


class Elsewhere:
    """Stands in for the entries `init` and `step` of the controller's program: see `Program.run_elsewhere`.

    `compared`: see `Controlled`.
    """

    def __init__(self, program: Program, board: str, compared: bool = False) -> None:
        if board not in boards.BOARDS:
            raise ConfigError(f"--engine qemu:{board}: no such board (known: {', '.join(boards.BOARDS)})")
        self._program = program
        self._board = board
        self._compared = compared
        self._controllers: dict[int, tuple[weakref.ref[Any], Controlled]] = {}

    def entries(self) -> dict[str, Any]:
        """What `Program.run_elsewhere` takes."""
        return {"init": _Init(self), "step": _Step(self)}

    def controller(self, config: U1, state: U1) -> tuple[Controlled, bool]:
        """The controller whose memory `state` is, and whether it is new: made for `config` just now."""
        for address, (owner, old) in list(self._controllers.items()):
            if owner() is None:
                old.close()
                del self._controllers[address]
        known = self._controllers.get(state.ctypes.data)
        if known is not None:
            return known[1], False
        made = Controlled(self._program, self._board, config, compared=self._compared)
        self._controllers[state.ctypes.data] = weakref.ref(_root(state)), made
        return made, True


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
