"""Where a controller may run apart: `qemu:BOARD`, `process:host`, `serial:DEVICE[?baud=N]`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bms.firmware import boards, processes
from bms.firmware.baked import Baked
from bms.firmware.build import rackbms_header
from hal.engine.child import Child
from hal.engine.emulator import Emulator
from hal.engine.process import Process
from hal.engine.program import Program
from hal.engine.serial_port import BAUD, SerialPort
from hal.errors import ConfigError, nearest
from hal.registry import parse_url

EMULATED = (*boards.BOARDS, *(name for name in processes.MACHINES if name != processes.HOST))


@dataclass(frozen=True)
class Place:
    """A place: `target` is its processor, or '' where only the board itself can tell; `device` a serial port."""

    text: str
    target: str
    device: str = ""
    baud: int = BAUD

    def open(self, program: Program, found: Baked, shift: int = 1) -> Child | SerialPort:
        """Have a controller run there, with the configuration `found`, or reach the one that does.

        `shift`: an instruction of an emulated board takes 2**shift nanoseconds. Raises `ConfigError`, `LinkError`.
        """
        if self.device:
            return SerialPort(self.device, self.baud)
        elf = _made(program, self.target, found)
        if self.target in boards.BOARDS:
            own = boards.BOARDS[self.target]
            return Emulator(own.emulator, own.machine, elf, own.store, shift)
        return Process(self.text, elf, processes.MACHINES[self.target].emulator)


def parse(text: str) -> Place:
    """The place that an option names. Raises `ConfigError`."""
    kind, _, name = text.partition(":")
    if kind == "serial":
        return _port(text)
    if kind == "process":
        if name != processes.HOST:
            raise ConfigError(f"--engine {text}: expected process:{processes.HOST}")
        return Place(text, name)
    if name not in EMULATED:
        raise ConfigError(f"--engine {text}: no such board (known: {', '.join(EMULATED)})")
    return Place(text, name)


def _port(text: str) -> Place:
    """`serial:DEVICE?baud=N`."""
    try:
        url = parse_url(text)
    except ConfigError:
        raise ConfigError(f"--engine {text}: expected serial:DEVICE or serial:DEVICE?baud=N") from None
    for key in url.query:
        if key != "baud":
            raise ConfigError(f"--engine {text}: unknown key '{key}'{nearest(key, ['baud'])}")
    baud = url.query.get("baud", str(BAUD))
    if not baud.isdecimal() or not 0 < int(baud) < 1e8:
        raise ConfigError(f"--engine {text}: baud = {baud}: expected a number above 0")
    if not url.address:
        raise ConfigError(f"--engine {text}: which device? For example serial:/dev/ttyACM0")
    return Place(text, "", url.address, int(baud))


_MADE: dict[tuple[str, str, str], bytes] = {}
"""Programs by processor, header and configuration: trials share some, and a C compiler takes half a second."""


def _made(program: Program, target: str, found: Baked) -> bytes:
    header = rackbms_header(target)
    key = target, header, found.digest
    if key not in _MADE:
        make: Any = boards.compile_to if target in boards.BOARDS else processes.compile_to
        with tempfile.TemporaryDirectory(prefix="rackbms-") as folder:
            elf = Path(folder) / "firmware.elf"
            make(elf, target, kernels(program, target), header, found)
            _MADE[key] = elf.read_bytes()
    return _MADE[key]


def kernels(program: Program, target: str) -> bytes:
    """The object of `program` for a processor, kept from before or compiled. Raises `ConfigError`."""
    return program.code() if target == processes.HOST else program.image(target)[0]
