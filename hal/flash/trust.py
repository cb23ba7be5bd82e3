"""What a Linux controller trusts: the metadata of a repository of The Update Framework (TUF), through `python-tuf`.

The root of trust is pinned once; newer roots are taken when the one before has signed them. Which metadata is good is
for `tuf.ngclient` to say, which runs in a folder of its own that is thrown away. What it has accepted goes into
`trust/` file by file, so that neither can be cut off. The versions there are what an attacker can never roll back.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hal.errors import ConfigError, LinkError
from hal.flash import disk as disks
from hal.flash.answers import Refused
from hal.flash.bundle import MANIFEST, Manifest
from hal.flash.disk import Disk
from hal.flash.source import MissingError, Source

if TYPE_CHECKING:
    from tuf.api.metadata import Root, TargetFile, Targets

FOLDER = "trust"
PINNED = f"{FOLDER}/1.root.json"
TARGETS = "targets.json"
LATEST = ("timestamp.json", "snapshot.json", TARGETS)
MOST_ROOTS = 256
METADATA = "metadata"
MANIFEST_SUFFIX = ".json"


@dataclass(frozen=True)
class Offer:
    """What a repository offers, once its metadata has been found good: files of `trust/`, and the targets they name."""

    files: dict[str, bytes]
    targets: Targets

    def target(self, name: str) -> TargetFile:
        """The length and the hashes of a file. Raises `Refused`."""
        found = self.targets.targets.get(name)
        if found is None:
            known = ", ".join(sorted(other for other in self.targets.targets if other.endswith(".tar")))
            raise Refused(f"the repository has no bundle {name} (it has: {known or 'none'})")
        return found


def pin(disk: Disk, root: bytes, source: str) -> None:
    """Trust `root` from now on. Raises `ConfigError` for what is none, and where another is trusted already."""
    _parsed_root(root, source)
    if not _is_pinned(disk):
        disks.replace(disk, PINNED, root)
    elif disk.read(PINNED) != root:
        raise ConfigError(f"{source}: the controller trusts another root already; set it up in an empty folder")


def _is_pinned(disk: Disk) -> bool:
    try:
        _parsed_root(disk.read(PINNED), PINNED)
    except (OSError, ConfigError):
        return False
    return True


def _parsed_root(data: bytes, source: str) -> Root:
    """A first root, which has signed itself. Raises `ConfigError`."""
    from tuf.api.metadata import Metadata, Root

    try:
        root: Any = Metadata.from_bytes(data)
        if not isinstance(root.signed, Root) or root.signed.version != 1:
            raise ValueError("another kind of metadata, or not the first version")
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    except Exception as error:
        why = str(error) or type(error).__name__
        raise ConfigError(f"{source}: no root of trust ({why}); give metadata/1.root.json of a repository") from None
    found: Root = root.signed
    return found


def roots(disk: Disk) -> list[Root]:
    """The chain of roots, the pinned one first, as far as each has signed the next. Raises `ConfigError`."""
    from tuf.api.metadata import Metadata, Root

    try:
        chain = [_parsed_root(disk.read(PINNED), PINNED)]
    except OSError:
        raise ConfigError(f"{PINNED}: cannot be read: the controller trusts nobody; give --trust 1.root.json") from None
    with contextlib.suppress(Exception):  # the first that is missing or not good ends the chain
        for version in range(2, MOST_ROOTS):
            data: Any = Metadata.from_bytes(disk.read(f"{FOLDER}/{version}.root.json"))
            if not isinstance(data.signed, Root) or data.signed.version != version:
                break
            chain[-1].verify_delegate("root", data.signed_bytes, data.signatures)
            data.signed.verify_delegate("root", data.signed_bytes, data.signatures)
            chain.append(data.signed)
    return chain


def refresh(disk: Disk, source: Source) -> Offer:
    """Read the metadata of a repository, and find it good. Changes nothing.

    Raises `Refused` with the reason, `LinkError` where the repository cannot be reached, `ConfigError` where no root is
    pinned.
    """
    from tuf.ngclient import Updater

    roots(disk)
    with tempfile.TemporaryDirectory(prefix="rackbms-tuf-") as name:
        folder = Path(name)
        (folder / "root_history").mkdir()
        for file, data in _known(disk):
            (folder / _place(file)).write_bytes(data)
        with _refusals(source):
            updater = Updater(name, "", fetcher=_fetcher(source), bootstrap=disk.read(PINNED))
            updater.refresh()
        history = sorted((folder / "root_history").iterdir(), key=lambda path: int(path.name.partition(".")[0]))
        files = {path.name: path.read_bytes() for path in history}
        files |= {file: (folder / file).read_bytes() for file in LATEST}
        return Offer(files, _checked(files))


@contextlib.contextmanager
def _refusals(source: Source) -> Iterator[None]:
    """What `tuf` raises as errors of ours."""
    from tuf.api import exceptions

    reasons = {
        exceptions.ExpiredMetadataError: "the repository has expired; renew it with bms bundle renew",
        exceptions.BadVersionNumberError: "metadata of other versions than they have to be, older perhaps",
        exceptions.UnsignedMetadataError: "signed with another key than the controller trusts",
        exceptions.LengthOrHashMismatchError: "metadata was changed after it was signed",
        exceptions.RepositoryError: "metadata is malformed",
        exceptions.DownloadLengthMismatchError: "metadata is too long",
        exceptions.DownloadHTTPError: "the repository lacks a file",
    }
    try:
        yield
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
        if reason is None:
            raise LinkError(f"{source}: {error}") from None
        raise Refused(f"{reason} ({error})") from None


def _checked(files: dict[str, bytes]) -> Targets:
    """The targets among files that are written in the one way in which they may be. Raises `Refused`."""
    from tuf.api.metadata import Metadata, Targets

    for file, data in files.items():
        strict(file, data)
    found: Any = Metadata.from_bytes(files[TARGETS]).signed
    assert isinstance(found, Targets)
    return found


def strict(file: str, data: bytes) -> None:
    """Raise `Refused` for metadata that means what was signed, but is spelt in another way than ours."""
    from tuf.api.metadata import Metadata

    parsed: Any = Metadata.from_bytes(data)
    texts = [signature.signature for signature in parsed.signatures.values()]
    if parsed.to_bytes() != data or any(text != text.lower() for text in texts):
        raise Refused(f"{file} was changed after it was signed")


def keep(disk: Disk, offer: Offer) -> None:
    """Have the metadata of an offer on the disk. Raises `OSError`."""
    for file, data in offer.files.items():
        name = f"{FOLDER}/{file}"
        try:
            same = disk.read(name) == data
        except OSError:
            same = False
        if not same:
            disks.replace(disk, name, data)


def signed_manifest(chain: Iterable[Root], manifest: bytes, targets: bytes) -> Manifest:
    """The manifest of a slot, if `targets`, signed under one of the roots, has its hash. Raises `Refused`.

    That they may have expired by now is no reason against a bundle: it was not when the bundle was installed.
    """
    from tuf.api import exceptions
    from tuf.api.metadata import Metadata, Targets

    try:
        metadata: Any = Metadata.from_bytes(targets)
        if not isinstance(metadata.signed, Targets):
            raise Refused(f"{TARGETS} is metadata of another kind")
        if not any(_has_signed(root, metadata) for root in chain):
            raise Refused(f"{TARGETS} is signed with another key than the controller trusts, or was changed")
        strict(TARGETS, targets)
        found = Manifest.from_bytes(manifest)
        entry = metadata.signed.targets.get(found.name + MANIFEST_SUFFIX)
        if entry is None:
            raise Refused(f"{MANIFEST}: {found.name} is none of the bundles that were signed")
        entry.verify_length_and_hashes(manifest)
    except exceptions.LengthOrHashMismatchError:
        raise Refused(f"{MANIFEST} was changed after it was signed") from None
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"{TARGETS} or {MANIFEST} is malformed: {str(error) or type(error).__name__}") from None
    return found


def _has_signed(root: Root, metadata: Any) -> bool:
    from tuf.api import exceptions

    try:
        root.verify_delegate("targets", metadata.signed_bytes, metadata.signatures)
    except exceptions.RepositoryError:
        return False
    return True


def _known(disk: Disk) -> Iterator[tuple[str, bytes]]:
    """Metadata that has been accepted before."""
    for file in disk.names(FOLDER):
        if file.endswith(".root.json") or file in LATEST:
            with contextlib.suppress(OSError):
                yield file, disk.read(f"{FOLDER}/{file}")


def _place(file: str) -> str:
    return f"root_history/{file}" if file.endswith(".root.json") else file


def _fetcher(source: Source) -> Any:
    """What `tuf` fetches metadata with."""
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                yield from source.stream(f"{METADATA}/{url.lstrip('/')}", 0)
            except MissingError as error:
                raise DownloadHTTPError(str(error), 404) from None

    return Fetcher()
