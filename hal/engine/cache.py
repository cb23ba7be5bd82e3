"""Compiled programs on disk: a file can be of use, and can never do harm.

One file holds one program, and its name its key: the digest of all that the machine code depends on. Inside stand a
magic word, the length and the SHA-256 of what follows, then the key once more and the code. Whatever is not exactly so
counts as absent, and is replaced by the next `store`. Files are written beside their place and renamed into it, so that
readers never see half of one.

The folder is `$RACKBMS_CACHE_DIR/rackbms`, or else `$XDG_CACHE_HOME/rackbms` or `~/.cache/rackbms`, and where that
cannot be written a folder of the user's own among the temporary files. Machine code is only taken from a folder that
belongs to this user (or to the system's administrator) and that nobody else may write to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

MAGIC = b"RBMSOBJ1"
HEAD = struct.Struct("<8sQ32s")
KEPT = 4  # files of one program, the newest
ABANDONED_S = 3600.0  # an unfinished file this old belongs to a process that is gone


def digest_of(sources: Iterable[Path], *more: str) -> bytes:
    """SHA-256 of the Python files in `sources` (files, or folders with all that is below) and of further texts."""
    total = hashlib.sha256()
    for text in more:
        total.update(b"%d:%s" % (len(text.encode()), text.encode()))
    for source in sources:
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            content = path.read_bytes()
            name = path.relative_to(source.parent).as_posix().encode()
            total.update(b"%d:%s %d:" % (len(name), name, len(content)))
            total.update(content)
    return total.digest()


def folders() -> list[Path]:
    """Where programs may lie, the preferred place first."""
    if named := os.environ.get("RACKBMS_CACHE_DIR"):
        return [Path(named) / "rackbms"]
    found = []
    if shared := os.environ.get("XDG_CACHE_HOME"):
        found.append(Path(shared) / "rackbms")
    else:
        with contextlib.suppress(RuntimeError):  # nobody's home
            found.append(Path.home() / ".cache" / "rackbms")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return [*found, Path(tempfile.gettempdir()) / f"rackbms-{user}"]


def path_in(folder: Path, program: str, key: bytes) -> Path:
    """The file of a program in a folder."""
    return folder / f"{program}-{key.hex()[:24]}.bin"


def load(program: str, key: bytes) -> bytes | None:
    """The code of a program, or None."""
    for folder in folders():
        if _trusted(folder) and (code := _read(path_in(folder, program, key), key)) is not None:
            return code
    return None


def store(program: str, key: bytes, code: bytes) -> Path | None:
    """Keep the code of a program; returns the file, or None where nothing can be written."""
    content = key + code
    head = HEAD.pack(MAGIC, len(content), hashlib.sha256(content).digest())
    for folder in folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _trusted(folder):
                continue
            path = path_in(folder, program, key)
            _write(path, head + content)
        except OSError:
            continue
        _prune(folder, program, path)
        return path
    return None


def writable() -> bool:
    """Whether `store` will probably find a place."""
    for folder in folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _trusted(folder) and os.access(folder, os.W_OK):
                return True
    return False


def _trusted(folder: Path) -> bool:
    """Whether `folder` is one, and nobody but this user and the administrator can put something into it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    others = stat.S_IWGRP | stat.S_IWOTH
    return not hasattr(os, "getuid") or (found.st_uid in (os.getuid(), 0) and not found.st_mode & others)


def _read(path: Path, key: bytes) -> bytes | None:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    body = content[HEAD.size :]
    if content[: HEAD.size] != HEAD.pack(MAGIC, len(body), hashlib.sha256(body).digest()):
        return None
    return body[len(key) :] or None if body[: len(key)] == key else None


def _write(path: Path, content: bytes) -> None:
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _prune(folder: Path, program: str, newest: Path) -> None:
    """Delete old programs and abandoned parts; what cannot be deleted stays."""

    def age_s(path: Path) -> float:
        try:
            return time.time() - path.lstat().st_mtime
        except OSError:
            return 0.0

    kept = sorted((p for p in folder.glob(f"{program}-*.bin") if p != newest), key=age_s)[KEPT - 1 :]
    parts = [p for p in folder.glob(f".{program}-*.part") if age_s(p) > ABANDONED_S]
    for path in (*kept, *parts):
        with contextlib.suppress(OSError):
            path.unlink()
