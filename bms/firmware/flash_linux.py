"""`bms flash --to linux:FOLDER`: brings a bundle from a repository onto this controller, and tells what runs."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bms.core.jit import PROGRAM as CORE
from bms.firmware.identity import layouts_hash
from hal.errors import ConfigError, DataError
from hal.flash.answers import Progress, Refused
from hal.flash.disk import RealDisk
from hal.flash.linux import LinuxFlasher, LinuxPlace, linux_place, telling
from hal.flash.slots import Identity, Slots, held
from hal.flash.source import Folder, Source, source
from hal.registry import RackUrl

GOOD, FAILED = 0, 1
_HASHED = re.compile(r"[0-9a-f]{64}\.(.+)")


def identity() -> Identity:
    """What a bundle has to fit here."""
    return Identity(platform.machine(), layouts_hash().hex(), CORE.table.digest[:16])


def slots_of(root: Path) -> Slots:
    """The slots of a controller of this computer."""
    return Slots(RealDisk(root), identity(), alone=lambda: held(root, "slots", wait=True))


def run(args: argparse.Namespace, url: RackUrl, progress: Progress) -> int:
    """Run `bms flash` for a Linux controller. Returns 0 where the bundle waits or runs, 1 where it is refused."""
    place = linux_place(url)
    if args.key is not None:
        raise ConfigError("--key: a Linux controller knows its bundles by the repository's signature: leave it out")
    if (args.trust is None) != (args.board is None):
        raise ConfigError("--trust and --board set up a controller together: give both, once")
    if args.trust is not None:
        _set_up(place, args.trust, args.board)
    found = _wanted(args.image, args.repo)
    with held(place.root, "incoming", wait=False):
        flasher = LinuxFlasher(slots_of(place.root), str(place))
        print(f"before: {flasher.state().told()}")
        if found is None:
            for line in flasher.state().record.log:
                print(f"        {line}")
            return GOOD
        name, repository = found
        try:
            flasher.flash(name, repository, progress, allow_older=args.allow_older)
        except Refused as refusal:
            print(f"bms: {refusal}", file=sys.stderr)
            return FAILED
        print(f"after:  {flasher.state().told()}")
    return GOOD


def _set_up(place: LinuxPlace, root: Path, board: str) -> None:
    try:
        data = root.read_bytes()
    except OSError as error:
        raise DataError(f"--trust {root}: cannot be read: {error.strerror}") from None
    with telling(str(place)):
        place.root.mkdir(parents=True, exist_ok=True)
        slots_of(place.root).set_up(data, board, str(root))


def _wanted(bundles: Sequence[Path], repo: str | None) -> tuple[str, Source] | None:
    """The name of a bundle, and where it is. Without `repo` the path of a bundle in a repository tells both."""
    if len(bundles) > 1:
        raise ConfigError(f"{bundles[1]}: a Linux controller takes one bundle: leave out the others")
    if not bundles:
        if repo is not None:
            raise ConfigError(f"--repo {repo}: which bundle of it? Give its name, such as rackbms-BOARD-1.2.3.tar")
        return None
    (image,) = bundles
    match = _HASHED.fullmatch(image.name)
    name = match[1] if match else image.name
    if repo is not None:
        return name, source(repo)
    repository = image.absolute().parent.parent
    if not (repository / "metadata" / "timestamp.json").is_file():
        raise ConfigError(f"{image}: lies in no repository; give that with --repo DIR or URL")
    return name, Folder(repository)
