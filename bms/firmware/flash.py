"""`bms flash`: brings a signed image onto a controller, and tells what runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from bms.firmware.keys import private_key
from bms.firmware.sign import board
from hal.errors import ConfigError
from hal.flash.answers import Refused, wait_until_settled
from hal.flash.can_bus import can_place
from hal.flash.image import Image, read
from hal.flash.smp import SmpFlasher, serial_place
from hal.flash.uds import UdsFlasher
from hal.registry import RackUrl, parse_url

GOOD, FAILED = 0, 1
WAIT_S, TOLD_S = 60.0, 5.0  # for an image to confirm itself; between two words about that
STEPS = 10  # lines of progress where the output is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms flash`."""
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="*",
        type=Path,
        help="a signed image, or one for each slot, of which the one for the free slot is taken, or a bundle; "
        "none: what runs now",
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="URL",
        help="the controller: can:INTERFACE:CHANNEL, serial:DEVICE?baud=N, or linux:FOLDER on this computer",
    )
    parser.add_argument("--key", metavar="KEY.pem", type=Path, help="private key that proves who flashes, on can:")
    parser.add_argument(
        "--wait",
        metavar="S",
        type=_seconds,
        default=WAIT_S,
        help="how long the image may take to confirm itself (default: 60)",
    )
    linux = parser.add_argument_group("on linux:")
    linux.add_argument("--repo", metavar="DIR|URL", help="repository that has the bundle, a folder or http://...")
    linux.add_argument("--trust", metavar="1.root.json", type=Path, help="set the controller up: whom it trusts")
    linux.add_argument("--board", type=board, help="set the controller up: its name, up to 16 characters")
    linux.add_argument("--allow-older", action="store_true", help="take an older version than the one that runs")


def run(args: argparse.Namespace) -> int:
    """Run `bms flash`. Returns 0 where the image runs, 1 where it is refused, or the image before runs again."""
    url = parse_url(args.to)
    if url.scheme == "linux":
        from bms.firmware import flash_linux

        return flash_linux.run(args, url, Progress())
    for option in ("repo", "trust", "board", "allow_older"):
        if getattr(args, option):
            raise ConfigError(f"--{option.replace('_', '-')}: belongs to linux:FOLDER: leave it out")
    images = [read(path) for path in args.image]
    with _flasher(url, args.key) as flasher:
        before = flasher.state()
        print(f"before: {before.told()}")
        if not images:
            return GOOD
        try:
            data, facts = _chosen(flasher, images)
            flasher.flash(data[: facts.size], Progress())
        except Refused as refusal:
            print(f"bms: {refusal}", file=sys.stderr)
            return FAILED
        after = wait_until_settled(flasher.state, before.running, args.wait, _Waiting(args.wait))
    print(f"after:  {after.told()}")
    return GOOD if after.running != before.running and after.version == facts.version else FAILED


def _chosen(flasher: UdsFlasher | SmpFlasher, images: Sequence[tuple[bytes, Image]]) -> tuple[bytes, Image]:
    """The image for the slot that is free. Raises `Refused` where there is none, as far as the controller tells."""
    free = flasher.free_address()
    fitting = [found for found in images if free is None or found[1].address in (0, free)]
    if not fitting:
        given = " and ".join(f"0x{image.address:08x}" for _, image in images)
        raise Refused(
            f"{flasher.place}: its free slot is at 0x{free:08x}: none of the images is linked for it ({given})"
        )
    if len(fitting) > 1:
        raise ConfigError(f"{len(fitting)} images, and {flasher.place} does not tell its slots apart: give one")
    return fitting[0]


def _flasher(url: RackUrl, key: Path | None) -> UdsFlasher | SmpFlasher:
    if url.scheme == "serial":
        return SmpFlasher(serial_place(url))
    return UdsFlasher(can_place(url), private_key(key).sign if key is not None else None)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < 1e6:
            return value
    raise argparse.ArgumentTypeError(f"'{text}': expected seconds, 0 or more")


class _Waiting:
    """Tells every few seconds that the image is on trial."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s, self._next_s = wait_s, TOLD_S

    def __call__(self, spent_s: float) -> None:
        if spent_s >= self._next_s:
            print(f"on trial for {spent_s:.0f} of {self._wait_s:g} s", flush=True)
            self._next_s += TOLD_S


class Progress:
    """Tells how far it is: in one line that changes on a terminal, in a few lines elsewhere."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._told = -1

    def __call__(self, done: int, size: int) -> None:
        """`done` of `size` bytes are there."""
        if self._first is None:
            self._first = done
            if done:
                print(f"{done} of {size} bytes are there already", flush=True)
        step = STEPS * done // size
        if sys.stdout.isatty():
            print(f"\r{done} of {size} bytes", end="\n" if done == size else "", flush=True)
        elif step != self._told:
            print(f"{done} of {size} bytes", flush=True)
        self._told = step
