"""`bms start`: on a Linux controller, checks the bundles from end to end and becomes the run of the one that is due."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from bms.firmware.flash_linux import slots_of
from bms.firmware.service import filled
from hal.errors import ConfigError
from hal.flash.answers import Refused
from hal.flash.linux import LinuxPlace, linux_place, telling
from hal.flash.slots import Choice, folder_of
from hal.registry import parse_url

GOOD, FAILED = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms start`."""
    parser.add_argument("place", metavar="linux:FOLDER", help="the controller")
    parser.add_argument("--look", action="store_true", help="print what would be run, and change and start nothing")


def run(args: argparse.Namespace) -> int:
    """Run `bms start`: it becomes `bms run`. Returns 1 where no bundle is good, and 0 after `--look`."""
    url = parse_url(args.place)
    if url.scheme != "linux":
        raise ConfigError(f"'{args.place}': expected linux:FOLDER, such as linux:/opt/rackbms")
    place = linux_place(url)
    try:
        with telling(str(place)):
            slots = slots_of(place.root)
            choice = slots.look() if args.look else slots.choose()
    except Refused as refusal:
        print(f"bms: {place}: {refusal}", file=sys.stderr)
        return FAILED
    words = command(place, choice)
    trial = ", on trial" if choice.on_trial else ""
    print(f"{place}: {choice.manifest.name} from slot {choice.slot}{trial}", file=sys.stderr, flush=True)
    if args.look:
        print(shlex.join(words))
        return GOOD
    os.execv(sys.executable, [sys.executable, "-m", *words])


def command(place: LinuxPlace, choice: Choice) -> list[str]:
    """The words of the run; one on trial is told to confirm itself."""
    words = ["bms", *filled(choice.manifest.run, str(place.root), str(place.root / folder_of(choice.slot)))]
    return [*words, "--confirm", f"linux:{place.root}?slot={choice.slot}"] if choice.on_trial else words
