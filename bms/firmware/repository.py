"""The repository of bundles: metadata of The Update Framework (TUF), signed through `securesystemslib`.

Four roles: `root` names the keys, `targets` the files with length and hash, `snapshot` and `timestamp` what is newest.
One key signs the latter three; the root has one of its own, which can stay in a safe until a key has to be replaced.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from bms.firmware.keys import private_key
from hal.errors import ConfigError

METADATA, TARGETS = "metadata", "targets"
TIMESTAMP = "timestamp.json"
DAILY = ("targets", "snapshot", "timestamp")
"""Roles that the key for bundles signs."""


@dataclass(frozen=True)
class Expiry:
    """Until when metadata may be used: the root's, and that of all else."""

    root: datetime
    others: datetime


class Repository:
    """A repository in a folder. Files are written so that whoever reads meanwhile finds the old or the new state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether there is one yet."""
        return (self.folder / METADATA / TIMESTAMP).is_file()

    def create(self, key: Path, root_key: Path, expiry: Expiry) -> None:
        """Make an empty one. `key` signs bundles, `root_key` the list of keys. Raises `ConfigError`."""
        root = Root(expires=expiry.root, consistent_snapshot=True)
        _give_keys(root, signer(key), signer(root_key))
        self._write("1.root.json", _signed(root, signer(root_key)))
        self._publish(key, expiry, {})

    def add(self, key: Path, expiry: Expiry, files: Mapping[str, bytes]) -> None:
        """Add files, whose names must be new or their bytes the same. Raises `ConfigError`."""
        self._publish(key, expiry, files)

    def renew(self, key: Path, expiry: Expiry) -> None:
        """Sign everything but the root again, to expire later. Raises `ConfigError`."""
        self._publish(key, expiry, {})

    def rotate(self, root_key: Path, new_root_key: Path, key: Path, expiry: Expiry) -> int:
        """Make a new root, signed by the key before and its own, which lets `key` sign; gives its version.

        Raises `ConfigError`.
        """
        root = self.root()
        old, new = signer(root_key), signer(new_root_key)
        if old.public_key.keyid not in root.roles["root"].keyids:
            raise ConfigError(f"{root_key}: is not the key of the root of {self.folder}; give that with --root-key")
        for role in root.roles.values():
            for keyid in list(role.keyids):
                root.revoke_key(keyid, _role_of(root, role))
        _give_keys(root, signer(key), new)
        root.version += 1
        root.expires = expiry.root
        metadata = Metadata(root)
        metadata.sign(old)
        metadata.sign(new, append=True)
        self._write(f"{root.version}.root.json", metadata.to_bytes())
        self._publish(key, expiry, {})
        return root.version

    def root(self) -> Root:
        """The newest root. Raises `ConfigError`."""
        found = sorted((self.folder / METADATA).glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))
        if not found:
            raise ConfigError(f"{self.folder}: no repository there; make it with bms bundle make")
        root = self._load(found[-1].name).signed
        assert isinstance(root, Root)
        return root

    def _publish(self, key: Path, expiry: Expiry, files: Mapping[str, bytes]) -> None:
        """Write what changes: files first, the timestamp last, which makes all of it count."""
        own = signer(key)
        if own.public_key.keyid not in self.root().roles["targets"].keyids:
            raise ConfigError(f"{key}: {self.folder} is signed with another key; bms bundle rotate replaces it")
        last = self._load(TIMESTAMP).signed if self.exists else None
        targets, snapshot, timestamp = self._latest(last, expiry)
        for name, data in files.items():
            target = TargetFile.from_data(name, data, ["sha256"])
            if targets.targets.get(name, target) != target:
                raise ConfigError(f"{name} is in {self.folder} already, and was another one: give it a new --version")
            targets.targets[name] = target
            self._put(f"{TARGETS}/{target.hashes['sha256']}.{name}", data)
        for signed in (targets, snapshot, timestamp):
            signed.expires = expiry.others
        raw = _signed(targets, own)
        self._write(f"{targets.version}.targets.json", raw)
        snapshot.meta["targets.json"] = _meta(targets.version, raw)
        raw = _signed(snapshot, own)
        self._write(f"{snapshot.version}.snapshot.json", raw)
        timestamp.snapshot_meta = _meta(snapshot.version, raw)
        self._write(TIMESTAMP, _signed(timestamp, own))

    def _latest(self, last: Any, expiry: Expiry) -> tuple[Targets, Snapshot, Timestamp]:
        """Each with its next version, the first where there is none yet."""
        if last is None:
            return Targets(expires=expiry.others), Snapshot(expires=expiry.others), Timestamp(expires=expiry.others)
        snapshot: Any = self._load(f"{last.snapshot_meta.version}.snapshot.json").signed
        targets: Any = self._load(f"{snapshot.meta['targets.json'].version}.targets.json").signed
        for signed in (targets, snapshot, last):
            signed.version += 1
        return targets, snapshot, last

    def _load(self, name: str) -> Any:
        path = self.folder / METADATA / name
        try:
            return Metadata.from_bytes(path.read_bytes())
        except Exception as error:  # whatever its parsers raise
            raise ConfigError(f"{path}: no metadata of a repository ({error}); take it from a copy") from None

    def _write(self, name: str, data: bytes) -> None:
        self._put(f"{METADATA}/{name}", data)

    def _put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o644)
            os.replace(file.name, path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def signer(key: Path) -> CryptoSigner:
    """What signs with the private key of a file. Raises `ConfigError`."""
    return CryptoSigner(private_key(key))


def _give_keys(root: Root, daily: CryptoSigner, own: CryptoSigner) -> None:
    root.add_key(own.public_key, "root")
    for role in DAILY:
        root.add_key(daily.public_key, role)


def _role_of(root: Root, role: object) -> str:
    return next(name for name, known in root.roles.items() if known is role)


def _signed(content: Any, by: CryptoSigner) -> bytes:
    metadata = Metadata(content)
    metadata.sign(by)
    return metadata.to_bytes()


def _meta(version: int, raw: bytes) -> MetaFile:
    return MetaFile(version, len(raw), {"sha256": hashlib.sha256(raw).hexdigest()})
