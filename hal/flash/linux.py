"""Flashing a Linux controller: a bundle from a repository goes into the slot that does not run, and is armed.

Whatever is cut off, the same command goes on: what was fetched is not fetched again, and a slot counts for nothing
before it is whole, on the disk and checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hal.errors import ConfigError, DataError, LinkError, nearest
from hal.flash import disk as disks
from hal.flash import slot_record, trust
from hal.flash.answers import Progress, Refused
from hal.flash.bundle import MANIFEST, SUFFIX, Manifest, total, unpack
from hal.flash.disk import LARGEST, Disk
from hal.flash.slot_record import Event, Record
from hal.flash.slots import ON_TRIAL, Slots, folder_of
from hal.flash.source import MissingError, Source
from hal.registry import RackUrl

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

SYNC_EVERY = 1 << 20
"""Bytes of a bundle that may have to be fetched again after power was cut."""
LARGEST_MANIFEST = 1 << 20
TARGETS = "targets"


@dataclass(frozen=True)
class LinuxPlace:
    """A controller in a folder of this computer; `slot` where one of its bundles is meant."""

    root: Path
    slot: str = ""

    def __str__(self) -> str:
        return f"linux:{self.root}"


def linux_place(url: RackUrl) -> LinuxPlace:
    """The controller of `linux:/opt/rackbms`, or a bundle of it with `?slot=a`. Raises `ConfigError`."""
    for key in url.query:
        if key != "slot":
            raise ConfigError(f"'linux:{url.address}': unknown key '{key}'{nearest(key, ['slot'])}")
    slot = url.query.get("slot", "")
    if slot not in ("", *slot_record.SLOTS):
        raise ConfigError(f"'linux:{url.address}': slot = {slot}: expected a or b")
    root = Path(url.address)
    if not root.is_absolute():
        raise ConfigError(f"'linux:{url.address}': which folder? Give it from the root on: linux:/opt/rackbms")
    return LinuxPlace(root, slot)


@dataclass(frozen=True)
class LinuxState:
    """What runs, and what waits."""

    board: str
    record: Record
    running: Manifest | None
    waiting: Manifest | None

    def told(self) -> str:
        """In one line."""
        record = self.record
        if self.running is None:
            words = f"{self.board}: nothing runs yet"
        else:
            words = f"{self.board}: runs {self.running.version} from slot {record.running}, "
            words += f"configuration {self.running.configuration}"
        if self.waiting is not None:
            words += f"; {self.waiting.version} in slot {record.trial} waits for its trial at the next start"
        elif record.event is not Event.NOTHING:
            words += f"; {record.event}" + (f": {record.why}" if record.why else "")
        return words


@contextlib.contextmanager
def telling(place: str) -> Iterator[None]:
    """What a disk reports as an error of ours: one line with file, reason and remedy."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        raise LinkError(
            f"{place}: {what}{error.strerror or error}; nothing is lost, the same command goes on"
        ) from None


class LinuxFlasher:
    """A controller to be flashed. `place` names it in messages."""

    def __init__(self, slots: Slots, place: str) -> None:
        self.slots = slots
        self.place = place

    @property
    def disk(self) -> Disk:
        """The controller's disk."""
        return self.slots.disk

    def state(self) -> LinuxState:
        """What runs now. Raises `ConfigError` where no controller is set up."""
        record = self.slots.record()
        waits = record.trial if not record.tries else ""
        return LinuxState(
            board=self.slots.board(),
            record=record,
            running=self.slots.good(record.running, 0),
            waiting=self.slots.good(waits, record.counter),
        )

    def flash(
        self,
        name: str,
        source: Source,
        progress: Progress = lambda done, size: None,
        *,
        allow_older: bool = False,
        offer: trust.Offer | None = None,
    ) -> Manifest:
        """Bring the bundle `name` of a repository onto the controller, to be started next.

        `offer` is what `trust.refresh` has found, where that was done before. Raises `Refused` with the reason, which
        the controller remembers; `LinkError` where disk or repository fail.
        """
        with telling(self.place):
            try:
                offer = trust.refresh(self.disk, source) if offer is None else offer
                trust.keep(self.disk, offer)
                return self._install(name, source, offer, progress, allow_older)
            except (Refused, MissingError, DataError) as error:
                self.slots.refused(name, str(error))
                raise Refused(f"{self.place}: refused: {error}") from None

    def _install(
        self, name: str, source: Source, offer: trust.Offer, progress: Progress, allow_older: bool
    ) -> Manifest:
        raw = self._manifest(name, source, offer)
        manifest = Manifest.from_bytes(raw, f"{name}: {MANIFEST}")
        record = self.slots.record()
        self.slots.fits(manifest, record.counter)
        if self._is_there(manifest, record):
            progress(total(manifest), total(manifest))
            return manifest
        self._not_older(manifest, record, allow_older)
        if not self.slots.free():
            raise Refused(ON_TRIAL)
        files = self._fetched(offer.target(name), source, progress)
        if files.pop(MANIFEST) != raw:
            raise Refused("the bundle has another manifest than the one that was signed")
        slot = self.slots.open(manifest.name)
        self._write(slot, {**files, MANIFEST: raw, trust.TARGETS: offer.files[trust.TARGETS]})
        armed = self.slots.arm(slot)
        disks.empty(self.disk, "incoming")
        return armed

    def _manifest(self, name: str, source: Source, offer: trust.Offer) -> bytes:
        if not name.endswith(SUFFIX):
            raise ConfigError(f"{name}: expected the name of a bundle, such as rackbms-BOARD-1.2.3{SUFFIX}")
        offer.target(name)  # who misspelt a name is told of the bundles
        target = offer.target(name.removesuffix(SUFFIX) + trust.MANIFEST_SUFFIX)
        if target.length > LARGEST_MANIFEST:
            raise Refused(f"its manifest has {target.length} bytes, {LARGEST_MANIFEST} at most")
        found = b""
        for piece in source.stream(_path(target), 0):
            found += piece
            if len(found) > target.length:
                raise Refused("its manifest is longer than was signed")
        if len(found) < target.length:
            raise Refused(f"its manifest is cut short: {len(found)} of {target.length} bytes")
        if not _is_good(target, found):
            raise Refused("its manifest was changed after it was signed")
        return found

    def _is_there(self, manifest: Manifest, record: Record) -> bool:
        """Whether just this bundle runs already and has proved itself, or waits for its trial."""
        slot = record.trial if record.trial else record.active
        return self.slots.good(slot, record.counter) == manifest

    def _not_older(self, manifest: Manifest, record: Record, allow_older: bool) -> None:
        now = self.slots.good(record.active, 0)
        if now is not None and manifest.version < now.version and not allow_older:
            raise Refused(f"version {manifest.version} is older than {now.version}, which runs; --allow-older takes it")

    def _fetched(self, target: TargetFile, source: Source, progress: Progress) -> dict[str, bytes]:
        """The files of a bundle, and its manifest. What was fetched before and is not good is fetched again."""
        if target.length > LARGEST:
            raise Refused(f"a bundle of {target.length} bytes, {LARGEST} at most")
        part = f"incoming/{_sha256(target)}.part"
        for name in self.disk.names("incoming"):
            if f"incoming/{name}" != part:
                self.disk.unlink(f"incoming/{name}")
        begun = self.disk.size(part)
        if begun > target.length:
            self.disk.unlink(part)
            begun = 0
        self._fetch(target, part, begun, source, progress)
        data = self.disk.read(part)
        if begun and not _is_good(target, data):
            self.disk.unlink(part)
            self._fetch(target, part, 0, source, progress)
            data = self.disk.read(part)
        if not _is_good(target, data):
            self.disk.unlink(part)
            raise Refused("the bundle was changed after it was signed: its hash does not fit")
        manifest, files = unpack(data, target.path)
        return {**files, MANIFEST: manifest.to_bytes()}

    def _fetch(self, target: TargetFile, part: str, begun: int, source: Source, progress: Progress) -> None:
        """Fetch what is missing of a bundle."""
        done = begun
        progress(done, target.length)
        with disks.closing(self.disk, self.disk.append(part)) as handle:
            for piece in source.stream(_path(target), begun) if begun < target.length else ():
                if done + len(piece) > target.length:
                    raise Refused(f"the bundle is too long: more than the {target.length} bytes that were signed")
                disks.write_all(self.disk, handle, piece)
                if done // SYNC_EVERY != (done + len(piece)) // SYNC_EVERY:
                    self.disk.sync(handle)
                done += len(piece)
                progress(done, target.length)
            self.disk.sync(handle)
        self.disk.sync_folder("incoming")
        if done < target.length:
            raise Refused(f"the bundle is cut short: {done} of {target.length} bytes")

    def _write(self, slot: str, files: dict[str, bytes]) -> None:
        folder = folder_of(slot)
        disks.empty(self.disk, folder)
        for name, data in sorted(files.items()):
            disks.write_file(self.disk, f"{folder}/{name}", data)
        self.disk.sync_folder(folder)


def _path(target: TargetFile) -> str:
    """Where a repository has a file: TUF puts the hash before its name."""
    return f"{TARGETS}/{_sha256(target)}.{target.path}"


def _sha256(target: TargetFile) -> str:
    found = target.hashes.get("sha256")
    if found is None:
        raise Refused(f"{target.path} is signed without its SHA-256")
    return found


def _is_good(target: TargetFile, data: bytes) -> bool:
    from tuf.api.exceptions import LengthOrHashMismatchError

    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError:
        return False
    return True
