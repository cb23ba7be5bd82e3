"""Cryptography for the boot loader: C that others have looked at, fetched once, pinned by hash, not kept in this tree.

Monocypher (Loup Vaillant; audited in 2020) has the curve of ed25519: from the source distribution of `pymonocypher`.
The part of it that adds SHA-512 is not there, so that one comes from libsodium (Colin Percival's), in that of `PyNaCl`.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hal.engine import cache
from hal.errors import ConfigError


@dataclass(frozen=True)
class Pinned:
    """A source distribution: `files` are taken from it, place inside -> name here."""

    name: str
    version: str
    sha256: str
    files: dict[str, str]


SODIUM = "src/libsodium/src/libsodium"
DISTRIBUTIONS = (
    Pinned(
        "pymonocypher",
        "4.0.3.4",
        "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a",
        {"monocypher.c": "monocypher.c", "monocypher.h": "monocypher.h"},
    ),
    Pinned(
        "PyNaCl",
        "1.5.0",
        "8ac7448f09ab85811607bdd21ec2464495ac8b7c66d146bf545b0f08fb9220ba",
        {
            f"{SODIUM}/crypto_hash/sha512/cp/hash_sha512_cp.c": "hash_sha512_cp.c",
            f"{SODIUM}/include/sodium/crypto_hash_sha512.h": "crypto_hash_sha512.h",
            f"{SODIUM}/include/sodium/export.h": "export.h",
            f"{SODIUM}/include/sodium/utils.h": "utils.h",
            f"{SODIUM}/include/sodium/private/common.h": "private/common.h",
        },
    ),
)

SOURCES = ("monocypher.c", "hash_sha512_cp.c")
"""What is compiled of it."""

OPTIONS = ("-DCONFIGURED=1", "-w")
"""How: libsodium wants to hear that its headers are used on purpose; warnings in it are not ours."""


def fetch(folder: Path) -> None:
    """Put all files into `folder`, from the network where they are not at hand yet. Raises `ConfigError`."""
    for pinned in DISTRIBUTIONS:
        with tarfile.open(fileobj=io.BytesIO(_archive(pinned))) as archive:
            for inside, name in pinned.files.items():
                member = archive.extractfile(f"{pinned.name}-{pinned.version}/{inside}")
                assert member is not None, inside  # the archive is the one that was looked at
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(member.read())


def _archive(pinned: Pinned) -> bytes:
    """The bytes of a distribution, which are those that were looked at."""
    key = bytes.fromhex(pinned.sha256)
    kept = cache.load(pinned.name, key)
    if kept is not None and hashlib.sha256(kept).digest() == key:
        return kept
    data = _download(pinned)
    if hashlib.sha256(data).digest() != key:
        raise ConfigError(f"{pinned.name} {pinned.version}: another file than the pinned one: do not use it")
    cache.store(pinned.name, key, data)
    return data


def _download(pinned: Pinned) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{pinned.name}=={pinned.version} --hash=sha256:{pinned.sha256}\n")
        # the source of nothing else: compiling the tools that pip asks for its name with would take minutes
        words = ["download", "--quiet", "--no-deps", "--no-binary", pinned.name, "--require-hashes", "-r", str(wanted)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, "-d", folder], capture_output=True, text=True, check=False
        )
        found = list(Path(folder).glob("*.tar.gz"))
        if done.returncode != 0 or not found:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no file came"]
            raise ConfigError(f"{pinned.name} {pinned.version} cannot be fetched: {lines[0]}; is there a network?")
        return found[0].read_bytes()
