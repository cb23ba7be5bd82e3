"""A boot loader for this computer, keys, and images that it takes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="pip install 'rackbms[firmware]'")
pytest.importorskip("imgtool", reason="pip install 'rackbms[firmware]'")

from bms.cli import main
from bms.firmware import keys, sign
from bms.firmware.boot import host
from hal.errors import ConfigError
from hal.flash.image import AREA, ENTRY, HEADER, MAGIC, PROTECTED, UNPROTECTED, Kind

LAYOUTS = bytes(range(8))
CONFIG = bytes(range(8, 16))


@dataclass(frozen=True)
class Workshop:
    """Makes controllers, and images for them."""

    library: Path
    key: Path
    other_key: Path

    def board(self, **changes: int) -> host.Board:
        """A small controller: two slots of eight sectors."""
        public = keys.public_key(self.key)
        return host.Board(public, public, LAYOUTS, **changes)

    def controller(self, **changes: int) -> host.Controller:
        """A new one."""
        return host.Controller(self.board(**changes), self.library)

    def image(self, version: str, counter: int, program: bytes, **changes: object) -> bytes:
        """A signed image for that board, or whatever `changes` make of it."""
        return _signed(self.key, version, counter, program, tuple(sorted(changes.items())))

    def forged(self, program: bytes, protected: list[tuple[int, bytes]], flags: int = 0) -> bytes:
        """An image with any protected TLVs and flags, signed with the right key."""
        key = keys.private_key(self.key)
        frame = bytes.fromhex("302a300506032b6570032100") + key.public_key().public_bytes_raw()
        inner = b"".join(ENTRY.pack(kind, len(value)) + value for kind, value in protected)
        signed = (
            HEADER.pack(MAGIC, 0, HEADER.size, AREA.size + len(inner), len(program), flags, 1, 0, 0, 0, 0) + program
        )
        signed += AREA.pack(PROTECTED, AREA.size + len(inner)) + inner
        digest = hashlib.sha512(signed).digest()
        outer = [
            (Kind.SHA512, digest),
            (Kind.KEY_HASH, hashlib.sha512(frame).digest()),
            (Kind.ED25519, key.sign(digest)),
        ]
        body = b"".join(ENTRY.pack(kind, len(value)) + value for kind, value in outer)
        return signed + AREA.pack(UNPROTECTED, AREA.size + len(body)) + body


FACTS = [(Kind.COUNTER, b"\5\0\0\0"), (Kind.CONFIG, CONFIG), (Kind.LAYOUTS, LAYOUTS), (Kind.BOARD, b"host")]


@cache
def _signed(key: Path, version: str, counter: int, program: bytes, changes: tuple[tuple[str, object], ...]) -> bytes:
    given: dict[str, object] = {"board": "host", "config": CONFIG, "layouts": LAYOUTS, **dict(changes)}
    return sign.signed(program, given.pop("key", key), version=version, counter=counter, **given)


@pytest.fixture(scope="session")
def good_facts() -> list[tuple[int, bytes]]:
    """Protected TLVs of an image that is good."""
    return list(FACTS)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """One for all tests; skipped where there is no compiler, or no network for what is pinned."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) is installed")
    folder = tmp_path_factory.mktemp("workshop")
    try:
        library = host.library(folder)
    except ConfigError as error:
        if "cannot be fetched" not in str(error):
            raise
        pytest.skip(str(error))
    for name in ("key.pem", "other.pem"):
        assert main(["keygen", str(folder / name)]) == 0
    yield Workshop(library, folder / "key.pem", folder / "other.pem")
    _signed.cache_clear()
