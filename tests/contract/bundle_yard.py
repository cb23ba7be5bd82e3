"""A repository with bundles for a Linux controller, and controllers that exist only in memory, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from frail_disk import FrailDisk

from bms.firmware.repository import Expiry, Repository
from hal.flash.bundle import Entry, Manifest, pack, version
from hal.flash.disk import Disk
from hal.flash.linux import LinuxFlasher
from hal.flash.slots import Identity, Slots
from hal.flash.source import Folder

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
IDENTITY = Identity("x86_64", "11" * 8, "22" * 8)
BOARD = "rackpc"


@dataclass
class Yard:
    """Makes bundles, and offers them in a repository."""

    folder: Path
    key: Path
    root_key: Path
    other_key: Path

    @property
    def repository(self) -> Repository:
        return Repository(self.folder)

    @property
    def source(self) -> Folder:
        return Folder(self.folder)

    @property
    def root(self) -> bytes:
        return (self.folder / "metadata" / "1.root.json").read_bytes()

    def expiry(self, days: float = 90, root_days: float = 3650) -> Expiry:
        now = datetime.now(UTC).replace(microsecond=0)
        return Expiry(now + timedelta(days=root_days), now + timedelta(days=days))

    def bundle(self, number: str, counter: int = 1, **changes: object) -> tuple[Manifest, dict[str, bytes]]:
        files = {
            "librackbms.so": f"library {number} ".encode() * 6000,
            "rack.toml": b"x = 1\n",
            "config.bin": b"\0" * 90,
        }
        facts = {
            "version": version(number), "counter": counter, "board": BOARD, "machine": IDENTITY.machine,
            "configuration": "33" * 8, "layouts": IDENTITY.layouts, "kernels": IDENTITY.kernels, "rackbms": "0.1.0",
            "run": ("run", "--engine", "lib:{slot}/librackbms.so"),
            "files": {name: Entry.of(data) for name, data in files.items()},
        }  # fmt: skip
        return Manifest(**{**facts, **changes}), files  # type: ignore[arg-type]

    def offer(self, number: str, counter: int = 1, **changes: object) -> Manifest:
        """Put a bundle into the repository."""
        manifest, files = self.bundle(number, counter, **changes)
        targets = {manifest.archive: pack(manifest, files), f"{manifest.name}.json": manifest.to_bytes()}
        if not self.repository.exists:
            self.repository.create(self.key, self.root_key, self.expiry())
        self.repository.add(self.key, self.expiry(), targets)
        return manifest

    def set_up(self, disk: Disk | None = None) -> FrailDisk:
        found = FrailDisk() if disk is None else disk
        slots(found).set_up(self.root, BOARD, "1.root.json")
        return found  # type: ignore[return-value]

    def flash(self, disk: Disk, manifest: Manifest, **options: object) -> None:
        LinuxFlasher(slots(disk), "linux:/x").flash(manifest.archive, self.source, **options)  # type: ignore[arg-type]

    def controller(self, manifest: Manifest) -> FrailDisk:
        """A controller that runs a bundle, which has proved itself."""
        disk = self.set_up()
        self.flash(disk, manifest)
        assert slots(disk).choose().slot == "a"
        assert slots(disk).confirm("a", self_test_passed=True, rack_healthy=True)
        return disk


def slots(disk: Disk) -> Slots:
    return Slots(disk, IDENTITY, NOW)
