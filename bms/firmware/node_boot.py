"""`bms node --boot`: a board with a boot loader, which starts signed images and keeps its flash in a file."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bms.core.machine_table import Request
from bms.firmware.boards import BOARDS
from bms.firmware.keys import public_key
from bms.firmware.loader import made
from bms.firmware.loader.flash_file import flash_file
from hal.engine.emulator import Emulator
from hal.engine.frames import Identity, NodeStatus
from hal.engine.remote import Remote
from hal.errors import ConfigError, LinkError
from hal.flash.image import read

EVERY_S = 1.0
ANSWER_S = 0.2  # a program that runs answers the link at once; the boot loader does not
OF_THE_IMAGE = ("config", "sensors", "period", "initial_soc")
"""Options that say what an image says here."""

Line = Callable[[NodeStatus, Identity, float], str]
"""How a node is, for people."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms node` for a board with a boot loader."""
    group = parser.add_argument_group(
        "with a boot loader", "it runs what was flashed; --config and the like are its own"
    )
    group.add_argument(
        "--boot", metavar="KEY.pub", type=Path, help="key of whoever may sign its images, and send them to it"
    )
    group.add_argument(
        "--flash", metavar="FILE", type=Path, help="its flash, which the next start goes on with (made where missing)"
    )
    group.add_argument(
        "--image", metavar="SIGNED.bin", type=Path, help="what is in a flash that is made (default: nothing)"
    )


def check(args: argparse.Namespace) -> None:
    """Raises `ConfigError` where options do not go together."""
    if args.boot is None:
        for name in ("flash", "image"):
            if getattr(args, name) is not None:
                raise ConfigError(f"--{name} belongs to a board with a boot loader: give --boot, too")
        return
    if args.flash is None:
        raise ConfigError("--boot: in which file is its flash to be kept? Give --flash FILE")
    for name in OF_THE_IMAGE:
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: with --boot, that is what the image was built with")


@contextlib.contextmanager
def booted(args: argparse.Namespace, board: str) -> Iterator[Emulator]:
    """The board, which has started; its flash is new, or as it was. Raises `ConfigError` and `LinkError`."""
    own, key = BOARDS[board], public_key(args.boot)
    image = read(args.image) if args.image is not None else None
    loader = made.link(board, key, key).elf
    is_new = flash_file(args.flash, own, image)
    if image is not None and not is_new:
        print(f"{args.flash} is there already: the board goes on with what it holds, not with {args.image}")
    with Emulator(own.emulator, own.machine, loader, own.store, None, kept=args.flash) as emulator:
        emulator.answer_s = ANSWER_S
        yield emulator


class Watch:
    """Looks at a board whose program comes and goes, and tells it what is requested whenever one has started."""

    def __init__(self, emulator: Emulator, request: Request, line: Line, *, quiet: bool) -> None:
        self._remote = Remote(emulator)
        self._request, self._line, self._quiet = request, line, quiet
        self._identity: Identity | None = None

    def run(self, duration_s: float, stopped: Callable[[], bool]) -> None:
        """Look once a second until it is to end."""
        start_s = time.monotonic()
        while not stopped() and (spent_s := time.monotonic() - start_s) < duration_s:
            self._tell(self.look(spent_s))
            until_s = min(time.monotonic() + EVERY_S, start_s + duration_s)
            while (rest_s := until_s - time.monotonic()) > 0 and not stopped():
                time.sleep(min(rest_s, 0.1))

    def look(self, time_s: float) -> str:
        """How it is, in a line."""
        try:
            status = self._remote.node(self._request)
            if self._identity is None:
                self._identity = self._remote.hello()
            return self._line(status, self._identity, time_s)
        except LinkError:
            self._identity = None
            return f"{time_s:5.0f} s  the boot loader runs: it listens for an image, or is about to start one"

    def _tell(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)
