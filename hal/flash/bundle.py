"""Bundles for Linux controllers: files and a manifest that names each with its hash, in one archive.

A bundle is an uncompressed tar (POSIX.1-1988, "ustar") of regular files, sorted, without times and owners: the same
files give the same bytes. `manifest.json` is one of them. It is also a target of its own in a repository of The Update
Framework (hal/flash/trust.py), whose signature thereby covers every file.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hal.errors import DataError
from hal.flash.disk import LARGEST
from hal.flash.image import HASH_BYTES, LONGEST_BOARD, Version

FORMAT = 1
MANIFEST = "manifest.json"
LIBRARY, CONFIGURATION, CELL = "librackbms.so", "rack.toml", "cell.toml"
RECORD, SERVICE, SBOM = "config.bin", "rackbms.service", "sbom.cdx.json"
SUFFIX = ".tar"

ROOT, SLOT = "{root}", "{slot}"
"""What stands in the words of `Manifest.run` for the controller's folder, and for that of the bundle."""

_VERSION = re.compile(r"(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})(?:\+([1-9]\d{0,9}))?", re.ASCII)
_BOARD = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{LONGEST_BOARD - 1}}}", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HASH = re.compile(rf"[0-9a-f]{{{2 * HASH_BYTES}}}", re.ASCII)
LARGEST_COUNTER = 2**32 - 1


@dataclass(frozen=True)
class Entry:
    """A file of a bundle: bytes, and its SHA-256 as hexadecimal digits."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Entry:
        """That of a file with these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself. `configuration`, `layouts` and `kernels` are hashes, as `bms build` tells them."""

    version: Version
    counter: int
    board: str
    machine: str
    configuration: str
    layouts: str
    kernels: str
    rackbms: str
    run: tuple[str, ...]
    files: Mapping[str, Entry]

    @property
    def name(self) -> str:
        """What the bundle's files in a repository begin with."""
        return f"rackbms-{self.board}-{self.version}"

    @property
    def archive(self) -> str:
        """The file name of the bundle."""
        return self.name + SUFFIX

    def to_bytes(self) -> bytes:
        """As JSON; the only way in which a manifest may be written."""
        content = {
            "format": FORMAT,
            "version": str(self.version),
            "security_counter": self.counter,
            "board": self.board,
            "machine": self.machine,
            "configuration": self.configuration,
            "layouts": self.layouts,
            "kernels": self.kernels,
            "rackbms": self.rackbms,
            "run": list(self.run),
            "files": {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in self.files.items()},
        }
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, source: str = MANIFEST) -> Manifest:
        """Undo `to_bytes`. Raises `DataError` for anything that it does not make."""
        try:
            content = json.loads(data)
            found = cls(
                version=version(content["version"]),
                counter=_number(content["security_counter"], LARGEST_COUNTER),
                board=_text(content["board"], _BOARD),
                machine=_text(content["machine"]),
                configuration=_text(content["configuration"], _HASH),
                layouts=_text(content["layouts"], _HASH),
                kernels=_text(content["kernels"], _HASH),
                rackbms=_text(content["rackbms"]),
                run=tuple(_text(word) for word in content["run"]),
                files={
                    _text(name, _FILE): Entry(_number(entry["size"], LARGEST), _text(entry["sha256"], _SHA256))
                    for name, entry in content["files"].items()
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{source}: no manifest of a bundle ({error}); make it with bms bundle") from None
        if found.to_bytes() != data or MANIFEST in found.files or total(found) > LARGEST:
            raise DataError(f"{source}: not as bms bundle writes a manifest; make it again")
        return found


def total(manifest: Manifest) -> int:
    """Bytes of all files of a bundle."""
    return sum(entry.size for entry in manifest.files.values())


def version(text: object) -> Version:
    """The version `1.2.3` or `1.2.3+4`. Raises `ValueError`."""
    match = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r}: expected a version such as 1.2.3 or 1.2.3+4")
    return Version(*(int(part) for part in match.groups(default="0")))


def pack(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """The archive. The same files give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted({**files, MANIFEST: manifest.to_bytes()}.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack(data: bytes, source: str = "bundle") -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files of an archive, each with the hash that the manifest gives. Raises `DataError`."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            found = {info.name: _content(archive, info) for info in archive}
    except (tarfile.TarError, ValueError, OSError, EOFError) as error:
        raise DataError(f"{source}: no bundle ({error}); make it with bms bundle") from None
    if MANIFEST not in found:
        raise DataError(f"{source}: has no {MANIFEST}; make it with bms bundle")
    manifest = Manifest.from_bytes(found.pop(MANIFEST), f"{source}: {MANIFEST}")
    if wrong := misfit(manifest, {name: Entry.of(content) for name, content in found.items()}):
        raise DataError(f"{source}: {wrong}; make it again")
    if pack(manifest, found) != data:
        raise DataError(f"{source}: not as bms bundle packs it; make it again")
    return manifest, found


def misfit(manifest: Manifest, found: Mapping[str, Entry]) -> str:
    """What is wrong with files that should be those of a manifest; '' where nothing is."""
    for name in sorted(manifest.files.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in manifest.files:
            return f"{name} does not belong to it"
        if found[name] != manifest.files[name]:
            return f"{name} was changed after it was signed"
    return ""


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info) if info.isreg() else None
    if file is None:
        raise ValueError(f"{info.name} is no file")
    return file.read()


def _text(value: Any, form: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or not value or (form is not None and form.fullmatch(value) is None):
        raise ValueError(f"{value!r} has no place there")
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 0 to {most}")
    return value
