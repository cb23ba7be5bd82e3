"""The disk of a Linux controller, one method for each system call that an update needs.

So small an interface can be cut off at each call, and be played by a disk that exists only in memory. Names are
relative to the controller's folder, with `/` between their parts; '' is the folder itself. What is written is on the
disk when `sync` and, for its name, `sync_folder` have returned, and not before.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PIECE = 64 << 10
"""Bytes that are written at once."""
LARGEST = 64 << 20
"""Bytes of the largest file that is read: no bundle has as much."""
FILE_MODE = 0o644


@dataclass(frozen=True)
class Handle:
    """An open file."""

    number: int
    name: str


class Disk(Protocol):
    """What an update asks of a disk. Every method raises `OSError`; those below the line change nothing."""

    def create(self, name: str) -> Handle:
        """Open a file for writing, empty."""
        ...

    def append(self, name: str) -> Handle:
        """Open a file to write behind its end; it is made where there is none."""
        ...

    def write(self, handle: Handle, data: bytes) -> int:
        """Write what fits; gives how many bytes that were."""
        ...

    def chmod(self, handle: Handle, mode: int) -> None:
        """Set who may read and write a file."""
        ...

    def sync(self, handle: Handle) -> None:
        """Have what was written on the disk; its name may be missing there."""
        ...

    def close(self, handle: Handle) -> None:
        """Close a file."""
        ...

    def sync_folder(self, name: str) -> None:
        """Have the names of a folder on the disk."""
        ...

    def mkdir(self, name: str) -> None:
        """Make a folder."""
        ...

    def rename(self, name: str, new: str) -> None:
        """Give a file or link another name, at once in place of what had it."""
        ...

    def symlink(self, target: str, name: str) -> None:
        """Make a symbolic link."""
        ...

    def unlink(self, name: str) -> None:
        """Remove a file or link."""
        ...

    # ----------------------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """The bytes of a file, which is none of a link's and no larger than `LARGEST`."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a file; 0 where there is none."""
        ...

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted."""
        ...

    def target(self, name: str) -> str:
        """Where a link leads to; '' where there is none."""
        ...


class RealDisk:
    """The disk under a folder of this computer."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, name: str) -> Handle:
        """See `Disk`."""
        return self._open(name, os.O_TRUNC)

    def append(self, name: str) -> Handle:
        """See `Disk`."""
        return self._open(name, os.O_APPEND)

    def _open(self, name: str, how: int) -> Handle:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how
        return Handle(os.open(self.root / name, flags, FILE_MODE), name)

    def write(self, handle: Handle, data: bytes) -> int:
        """See `Disk`."""
        with _named(handle.name):
            return os.write(handle.number, data)

    def chmod(self, handle: Handle, mode: int) -> None:
        """See `Disk`."""
        with _named(handle.name):
            os.fchmod(handle.number, mode)

    def sync(self, handle: Handle) -> None:
        """See `Disk`."""
        with _named(handle.name):
            os.fsync(handle.number)

    def close(self, handle: Handle) -> None:
        """See `Disk`."""
        with _named(handle.name):
            os.close(handle.number)

    def sync_folder(self, name: str) -> None:
        """See `Disk`."""
        number = os.open(self.root / name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with _named(name or "."):
                os.fsync(number)
        finally:
            os.close(number)

    def mkdir(self, name: str) -> None:
        """See `Disk`."""
        os.mkdir(self.root / name, 0o755)

    def rename(self, name: str, new: str) -> None:
        """See `Disk`."""
        os.rename(self.root / name, self.root / new)

    def symlink(self, target: str, name: str) -> None:
        """See `Disk`."""
        os.symlink(target, self.root / name)

    def unlink(self, name: str) -> None:
        """See `Disk`."""
        os.unlink(self.root / name)

    def read(self, name: str) -> bytes:
        """See `Disk`."""
        number = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file, _named(name):
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                raise OSError(0, "not a file, or too large a one")
            return file.read()

    def size(self, name: str) -> int:
        """See `Disk`."""
        try:
            return os.lstat(self.root / name).st_size
        except FileNotFoundError:
            return 0

    def names(self, folder: str) -> list[str]:
        """See `Disk`."""
        return sorted(os.listdir(self.root / folder))

    def target(self, name: str) -> str:
        """See `Disk`."""
        try:
            return os.readlink(self.root / name)
        except OSError:
            return ""


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """An error of a call that knows only a number names the file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or name
        raise


def write_all(disk: Disk, handle: Handle, data: bytes) -> None:
    """Write all of `data`, however much a call takes at once."""
    while data:
        written = disk.write(handle, data[:PIECE])
        if written == 0:
            raise OSError(0, "nothing is written any more", handle.name)
        data = data[written:]


@contextlib.contextmanager
def closing(disk: Disk, handle: Handle) -> Iterator[Handle]:
    """Close a file at the end; one that cannot be closed after another error is left."""
    try:
        yield handle
    except BaseException:
        with contextlib.suppress(OSError):
            disk.close(handle)
        raise
    disk.close(handle)


def write_file(disk: Disk, name: str, data: bytes) -> None:
    """Write a file; its content is on the disk when this returns, its name after `sync_folder`."""
    with closing(disk, disk.create(name)) as handle:
        write_all(disk, handle, data)
        disk.chmod(handle, FILE_MODE)
        disk.sync(handle)


def folder_of(name: str) -> str:
    """The folder that a name is in."""
    return name.rpartition("/")[0]


def replace(disk: Disk, name: str, data: bytes) -> None:
    """Have a file hold `data` in place of what it held, all or nothing of it, whenever power is cut."""
    write_file(disk, f"{name}.new", data)
    disk.rename(f"{name}.new", name)
    disk.sync_folder(folder_of(name))


def point(disk: Disk, name: str, target: str) -> None:
    """Have the link `name` lead to `target`, at once."""
    new = f"{name}.new"
    if disk.target(new):
        disk.unlink(new)
    disk.symlink(target, new)
    disk.rename(new, name)
    disk.sync_folder(folder_of(name))


def empty(disk: Disk, folder: str) -> None:
    """Remove all files of a folder."""
    for name in disk.names(folder):
        disk.unlink(f"{folder}/{name}")


def make_folder(disk: Disk, name: str) -> None:
    """Have a folder, and its name on the disk."""
    with contextlib.suppress(FileExistsError):
        disk.mkdir(name)
    disk.sync_folder(folder_of(name))
