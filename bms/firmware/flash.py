"""`bms flash`: brings a signed image onto a controller, and tells what runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bms.firmware.keys import private_key
from bms.firmware.sign import board
from hal.errors import ConfigError
from hal.flash.answers import Refused
from hal.flash.can_bus import can_place
from hal.flash.image import read
from hal.flash.smp import SmpFlasher, serial_place
from hal.flash.uds import UdsFlasher
from hal.registry import RackUrl, parse_url

GOOD, FAILED = 0, 1
STEPS = 10  # lines of progress where the output is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms flash`."""
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", type=Path, help="a signed image or bundle; without one: what runs now"
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="URL",
        help="the controller: can:INTERFACE:CHANNEL, serial:DEVICE?baud=N, or linux:FOLDER on this computer",
    )
    parser.add_argument("--key", metavar="KEY.pem", type=Path, help="private key that proves who flashes, on can:")
    linux = parser.add_argument_group("on linux:")
    linux.add_argument("--repo", metavar="DIR|URL", help="repository that has the bundle, a folder or http://...")
    linux.add_argument("--trust", metavar="1.root.json", type=Path, help="set the controller up: whom it trusts")
    linux.add_argument("--board", type=board, help="set the controller up: its name, up to 16 characters")
    linux.add_argument("--allow-older", action="store_true", help="take an older version than the one that runs")


def run(args: argparse.Namespace) -> int:
    """Run `bms flash`. Returns 0 where the image runs, 1 where the controller refuses it."""
    url = parse_url(args.to)
    if url.scheme == "linux":
        from bms.firmware import flash_linux

        return flash_linux.run(args, url, Progress())
    for option in ("repo", "trust", "board", "allow_older"):
        if getattr(args, option):
            raise ConfigError(f"--{option.replace('_', '-')}: belongs to linux:FOLDER: leave it out")
    image = read(args.image) if args.image is not None else None
    with _flasher(url, args.key) as flasher:
        before = flasher.state()
        print(f"before: {before.told()}")
        if image is None:
            return GOOD
        data, facts = image
        try:
            after = flasher.flash(data[: facts.size], Progress())
        except Refused as refusal:
            print(f"bms: {refusal}", file=sys.stderr)
            return FAILED
    print(f"after:  {after.told()}")
    return GOOD if after.version == facts.version else FAILED


def _flasher(url: RackUrl, key: Path | None) -> UdsFlasher | SmpFlasher:
    if url.scheme == "serial":
        return SmpFlasher(serial_place(url))
    return UdsFlasher(can_place(url), private_key(key).sign if key is not None else None)


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
