"""Disks for tests of updates: one in memory that loses what was not synced, and wrappers that cut off or fail a call."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hal.flash.disk import Disk, Handle

CHANGING = (
    "create", "append", "write", "chmod", "sync", "close", "sync_folder", "mkdir", "rename", "symlink", "unlink",
)  # fmt: skip
"""Calls that an update makes to change a disk."""
FAILURES = (errno.ENOSPC, errno.EIO, errno.EROFS)


class PowerLostError(Exception):
    """Power was cut."""


@dataclass(eq=False)
class Node:
    """A file, a folder or a link. `pending`: what was written and not synced, as (offset, bytes), None for a cut to 0."""

    kind: str
    data: bytes = b""
    target: str = ""
    pending: list[tuple[int, bytes] | None] = field(default_factory=list)
    names: dict[str, Node] = field(default_factory=dict)
    changes: list[dict[str, Node | None]] = field(default_factory=list)

    def content(self) -> bytes:
        """What a file shows while there is power."""
        return patched(self.data, self.pending)

    def entries(self) -> dict[str, Node]:
        """What a folder shows while there is power."""
        return renamed(self.names, self.changes)


def patched(data: bytes, pending: list[tuple[int, bytes] | None]) -> bytes:
    for write in pending:
        if write is None:
            data = b""
        else:
            offset, piece = write
            data = data[:offset].ljust(offset, b"\0") + piece + data[offset + len(piece) :]
    return data


def renamed(names: dict[str, Node], changes: list[dict[str, Node | None]]) -> dict[str, Node]:
    found: dict[str, Node | None] = {**names}
    for change in changes:
        found.update(change)
    return {name: node for name, node in found.items() if node is not None}


class FrailDisk:
    """A disk in memory. What is not synced is lost in any part when power is cut: stricter than a real file system.

    Of the content of a file any of its writes may be missing, and the last that is there be torn; of a folder any of its
    changes, each of which is atomic. Neither waits for the other. A sync that fails forgets what it should have written.
    """

    def __init__(self) -> None:
        self.root = Node("folder")
        self._open: dict[int, tuple[Node, bool]] = {}
        self._numbers = itertools.count()

    # --- changes ----------------------------------------------------------------------------------------------------

    def create(self, name: str) -> Handle:
        return self._opened(name, append=False)

    def append(self, name: str) -> Handle:
        return self._opened(name, append=True)

    def _opened(self, name: str, *, append: bool) -> Handle:
        folder, last = self._parent(name)
        node = folder.entries().get(last)
        if node is None:
            node = Node("file")
            folder.changes.append({last: node})
        elif node.kind != "file":
            raise OSError(errno.ELOOP, "not a file", name)
        elif not append:
            node.pending.append(None)
        number = next(self._numbers)
        self._open[number] = node, append
        return Handle(number, name)

    def write(self, handle: Handle, data: bytes) -> int:
        node, _ = self._open[handle.number]
        node.pending.append((len(node.content()), data))
        return len(data)

    def chmod(self, handle: Handle, mode: int) -> None:
        assert handle.number in self._open
        assert mode == 0o644

    def sync(self, handle: Handle) -> None:
        node, _ = self._open[handle.number]
        node.data, node.pending = node.content(), []

    def close(self, handle: Handle) -> None:
        del self._open[handle.number]

    def sync_folder(self, name: str) -> None:
        node = self._node(name)
        node.names, node.changes = node.entries(), []

    def mkdir(self, name: str) -> None:
        folder, last = self._parent(name)
        if last in folder.entries():
            raise FileExistsError(errno.EEXIST, "File exists", name)
        folder.changes.append({last: Node("folder")})

    def rename(self, name: str, new: str) -> None:
        (folder, last), (other, other_last) = self._parent(name), self._parent(new)
        assert folder is other, "a rename from folder to folder is not atomic here"
        folder.changes.append({last: None, other_last: folder.entries()[last]})

    def symlink(self, target: str, name: str) -> None:
        folder, last = self._parent(name)
        if last in folder.entries():
            raise FileExistsError(errno.EEXIST, "File exists", name)
        folder.changes.append({last: Node("link", target=target)})

    def unlink(self, name: str) -> None:
        folder, last = self._parent(name)
        self._node(name)
        folder.changes.append({last: None})

    # --- looking ----------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        node = self._node(name)
        if node.kind != "file":
            raise OSError(errno.ELOOP, "not a file", name)
        return node.content()

    def size(self, name: str) -> int:
        try:
            return len(self._node(name).content())
        except FileNotFoundError:
            return 0

    def names(self, folder: str) -> list[str]:
        return sorted(self._node(folder).entries())

    def target(self, name: str) -> str:
        try:
            return self._node(name).target
        except FileNotFoundError:
            return ""

    def _node(self, name: str) -> Node:
        node = self.root
        for part in filter(None, name.split("/")):
            found = node.entries().get(part)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
            node = found
        return node

    def _parent(self, name: str) -> tuple[Node, str]:
        folder, _, last = name.rpartition("/")
        return self._node(folder), last

    # --- power ------------------------------------------------------------------------------------------------------

    def forget(self, handle: Handle) -> None:
        """What was written to a file and not synced is shown, but will never be on the disk."""
        node, _ = self._open[handle.number]
        node.pending.append((0, b""))  # keeps it different from a file that is synced
        lost = node.content()
        node.pending = [None, (0, lost)]

    def after_cut(self, seed: int) -> FrailDisk:
        """The disk when power is back: seed 0 has lost all that was not synced, 1 nothing, others any part of it."""
        dice = random.Random(seed)

        def kept(pending: list) -> list:
            if seed < 2:
                return list(pending) if seed else []
            return [one for one in pending if dice.random() < 0.5]

        found: dict[int, Node] = {}

        def copy(node: Node) -> Node:
            if id(node) not in found:
                writes = kept(node.pending)
                if seed > 2 and writes and writes[-1] is not None:
                    offset, piece = writes[-1]
                    writes[-1] = offset, piece[: dice.randrange(len(piece) + 1)]
                found[id(node)] = new = Node(node.kind, patched(node.data, writes), node.target)
                new.names = {name: copy(one) for name, one in renamed(node.names, kept(node.changes)).items()}
            return found[id(node)]

        disk = FrailDisk()
        disk.root = copy(self.root)
        return disk

    def copy(self) -> FrailDisk:
        """The same disk once more, as it is shown."""
        return self.after_cut(1)

    def all(self) -> dict[str, bytes | str]:
        """Every file and link, by name."""

        def walk(node: Node, name: str) -> Iterator[tuple[str, bytes | str]]:
            if node.kind == "folder":
                for last, one in node.entries().items():
                    yield from walk(one, f"{name}/{last}")
            else:
                yield name, node.content() if node.kind == "file" else node.target

        return dict(walk(self.root, ""))


class Watched:
    """A disk of which every change is counted, and one of them is another than was meant."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.calls: list[str] = []
        self.at = -1
        self.meddle: Callable[[Watched, str, tuple[object, ...]], object] = lambda disk, name, words: None

    def __getattr__(self, name: str) -> object:
        method = getattr(self.disk, name)
        if name not in CHANGING:
            return method

        def call(*words: object) -> object:
            self.calls.append(" ".join([name, *(w if isinstance(w, str) else getattr(w, "name", "") for w in words)]))
            if len(self.calls) - 1 == self.at:
                return self.meddle(self, name, words)
            return method(*words)

        return call


def cut(how: str, end: Callable[[], None]) -> Callable[[Watched, str, tuple[object, ...]], object]:
    """Ends at a call: `before` it, `after` it, or in the middle of a write."""

    def meddle(watched: Watched, name: str, words: tuple[object, ...]) -> object:
        if how == "amid" and name == "write":
            handle, data = words
            watched.disk.write(handle, data[: len(data) // 2])
        elif how == "after":
            getattr(watched.disk, name)(*words)
        end()
        raise AssertionError("it should have ended")

    return meddle


def power_lost() -> None:
    raise PowerLostError


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Callable[[Watched, str, tuple[object, ...]], object]:
    """A call that fails with an error of the system. A sync that fails has lost what it should have written."""

    def meddle(watched: Watched, name: str, words: tuple[object, ...]) -> object:
        if name == "sync" and isinstance(watched.disk, FrailDisk):
            watched.disk.forget(words[0])
        if name == "close":
            watched.disk.close(words[0])  # Linux closes a file even where it reports an error
        where = words[0] if isinstance(words[0], str) else words[0].name
        raise OSError(number, os.strerror(number), where)

    return meddle
