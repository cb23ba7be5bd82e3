"""State that survives: a small store of named sections of bytes, which a power cut or a rotten bit cannot make lie.

A store is two SQLite files, `NAME-a.db` and `NAME-b.db`, each with one generation: a whole snapshot of all sections.
A save replaces the older of the two in one transaction (WAL, synchronous=FULL), so the newest state is never the one
being written. Generations are whole snapshots, since sections of different moments contradict each other, and each has
a file of its own, since one bit in the header or the schema of a file that held both would take both. The WAL is
emptied after each save, so that the files stay as large as two snapshots. See docs/store.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

from bms.runtime import store_file as files
from bms.runtime.store_file import SQL_ERRORS, Cause, Found, Saved
from hal.errors import ConfigError, DataError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

Schemas = str | Mapping[str, str]


class Verdict(IntEnum):
    """What `StateStore.load` found."""

    GOOD = 0  # the newest state
    OLDER_GENERATION = 1  # the one before: the newest is damaged, or may be
    EMPTY = 2  # nothing was ever saved
    LOST = 3  # something was saved, nothing of it is usable
    OTHER_LAYOUT = 4  # sound, but laid out differently, all of it or the sections in `refused`


@dataclass(frozen=True)
class Loaded:
    """What a store holds: `sections`, or None where nothing can be used; `message` says why, in a line for a person."""

    sections: dict[str, bytes] | None
    sequence: int
    verdict: Verdict
    message: str
    time_s: float = 0.0
    refused: tuple[str, ...] = ()  # sections of another layout, left out
    cause: Cause = Cause.FIRST
    starts: tuple[int, ...] = (1, 0, 0, 0)  # by `Cause`, with this one


class _Lock:
    """A file that one process at a time holds; the system lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if sys.platform == "win32":
                try:
                    msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
                except PermissionError as error:
                    raise BlockingIOError from error
            else:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._handle)
            raise

    def release(self) -> None:
        os.close(self._handle)


@dataclass
class StateStore:
    """The store at `path`: files `path-a.db`, `path-b.db` and `path.lock`. One thread at a time is let in.

    Only one process may have it: the second gets a `ConfigError`. No other error leaves it: `load` has a verdict for
    whatever lies on the disk, and `save` returns 0 and sets `error`, because the loop must go on.
    """

    path: Path
    clock: Callable[[], float] = time.time
    error: DataError | None = field(default=None, init=False)  # why the last save or repair failed

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        self._slots = [self.path.with_name(f"{self.path.name}-{letter}.db") for letter in "ab"]
        self._connections: list[sqlite3.Connection | None] = [None, None]
        self._mutex = threading.RLock()
        self._newest = 0  # slot of the newest generation
        self._last = files.BLANK
        self._starts = files.BLANK.starts
        self._loaded = False
        self._lock: _Lock | None = None
        try:
            self._take_lock()
        except OSError as error:
            self._failed(error)

    def _take_lock(self) -> None:
        """Raises `ConfigError` where another process has it, `OSError` where it cannot be had at all."""
        if self._lock is not None:
            return
        path = self.path.with_name(f"{self.path.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = _Lock(path)
        except BlockingIOError:
            raise ConfigError(
                f"{self.path}: another process has this state store; stop it, or give this one its own"
            ) from None

    def load(self, schema: Schemas) -> Loaded:
        """The newest state that is whole, of the layout `schema`: one digest, or one by name of section.

        Damaged files are moved aside and replaced, as far as the disk lets it.
        """
        with self._mutex:
            self._let_go()
            found = [files.examine(path) for path in self._slots]
            loaded = self._judge(found, schema)
            self._loaded = True
            self._mend(found)
            return loaded

    def save(self, sections: Mapping[str, bytes], schema: Schemas, end: Cause = Cause.CRASH) -> int:
        """Replace the older generation by `sections`; returns its sequence number, or 0 where that failed.

        Durable when it returns. `end` says what the next start will be called: `ORDERED` or `OPERATOR` for the last
        save of a run. Raises `ValueError` for sections that no store can hold.
        """
        schemas = {name: schema if isinstance(schema, str) else schema[name] for name in sections}
        content = {name: bytes(data) for name, data in sections.items()}
        if "" in content or len(content) > files.MAX_SECTIONS or sum(map(len, content.values())) > files.MAX_BYTES:
            raise ValueError(
                f"sections need names, at most {files.MAX_SECTIONS} fit, of {files.MAX_BYTES} bytes together"
            )
        if any(len(text.encode()) > 255 for text in (*schemas, *schemas.values())):
            raise ValueError("the name or the schema of a section is longer than 255 bytes")
        with self._mutex:
            if not self._loaded:
                self.load("")
            return self._save(content, schemas, end)

    def begin(self) -> int:
        """Note that a run has begun, with the sections as they are: should it not end in order, the next start knows.

        Returns as `save` does. To be called after `load`.
        """
        with self._mutex:
            if not self._loaded:
                self.load("")
            return self._save(self._last.sections, self._last.schemas, Cause.CRASH)

    def close(self) -> None:
        """Let go of the files and of the lock. What was saved is safe without it."""
        with self._mutex:
            self._let_go()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> StateStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge(self, found: list[Found], schema: Schemas) -> Loaded:
        """Choose a generation: sets `_newest`, `_last` and `_starts`."""
        saved = [f.saved for f in found]
        sequences = [s.sequence if s is not None else -1 for s in saved]
        self._newest = 0 if sequences[0] >= sequences[1] else 1
        best, other = saved[self._newest], found[1 - self._newest]
        unfit = [f"{path.name}: {f.damage}" for path, f in zip(self._slots, found, strict=True) if f.damage and f.there]
        trouble = "; ".join(unfit)
        # a whole file beside a damaged one: which was newer is known only if the head of that one is readable
        doubtful = best is not None and other.saved is None and not 0 <= other.sequence < best.sequence
        there = any(f.there for f in found)
        cause = best.next_cause if best is not None and best.sequence else Cause.CRASH if trouble else Cause.FIRST
        self._last = best or files.BLANK
        self._starts = tuple(n + (k == cause) for k, n in enumerate(self._last.starts))
        if best is None or not best.sections:
            lost = there if best is None else other.there and doubtful
            message = f"the saved state is lost: {trouble} (kept as *.damaged-N)" if lost else "no state was saved yet"
            verdict = Verdict.LOST if lost else Verdict.EMPTY
            return Loaded(None, self._last.sequence, verdict, message, 0.0, (), cause, self._starts)

        message = f"state {best.sequence} is whole" + (f" ({trouble})" if trouble else "")
        if doubtful:
            message = f"state {best.sequence} is used, a newer one may be damaged: {trouble or 'its file is missing'}"
        wanted = {name: schema if isinstance(schema, str) else schema.get(name) for name in best.sections}
        refused = tuple(name for name in best.sections if best.schemas[name] != wanted[name])
        fitting = {name: data for name, data in best.sections.items() if name not in refused}
        verdict = Verdict.OLDER_GENERATION if doubtful else Verdict.GOOD
        if refused:
            verdict = Verdict.OTHER_LAYOUT
            message += f"; laid out differently and not used: {', '.join(refused)}"
        return Loaded(fitting or None, best.sequence, verdict, message, best.time_s, refused, cause, self._starts)

    def _mend(self, found: list[Found]) -> None:
        """Replace the files that must not be written to again.

        The slot without the newest state comes first, and gets a copy of that state: so whenever the process may be
        killed, one whole file holds it.
        """
        if self._lock is None:
            return
        newest, other = self._newest, 1 - self._newest
        try:
            if not found[other].whole:
                self._renew(other, found[other].there)
            elif not found[newest].whole and self._last.sequence:
                self._copy_to(other)
            if not found[newest].whole:
                self._renew(newest, found[newest].there)
        except (OSError, *SQL_ERRORS) as error:
            self._failed(error)

    def _copied(self) -> Saved:
        """The last state under a new sequence number; nothing stays nothing."""
        return replace(self._last, sequence=self._last.sequence + 1) if self._last.sequence else self._last

    def _renew(self, slot: int, aside: bool) -> None:
        path, saved = self._slots[slot], self._copied()
        if aside:
            log.warning("%s is damaged and kept as %s", path, files.move_aside(path).name)
        files.create_file(path, saved)
        self._newest, self._last = slot, saved

    def _copy_to(self, slot: int) -> None:
        saved = self._copied()
        self._replace(slot, saved)
        self._newest, self._last = slot, saved

    def _save(self, sections: dict[str, bytes], schemas: dict[str, str], end: Cause) -> int:
        slot = 1 - self._newest
        now_s = self.clock()
        now_s = now_s if abs(now_s) < 1e300 else 0.0  # SQLite has no NaN
        saved = Saved(sections, schemas, self._last.sequence + 1, now_s, end, self._starts)
        try:
            self._take_lock()
            self._replace(slot, saved)
        except (OSError, ConfigError, *SQL_ERRORS) as error:
            self._close_slot(slot)
            self._failed(error)
            return 0
        self._newest, self._last, self.error = slot, saved, None
        return saved.sequence

    def _replace(self, slot: int, saved: Saved) -> None:
        """Write `saved` to a slot, to a new file if the old one is gone or turns out to be damaged."""
        path = self._slots[slot]
        # a file that was deleted under us would be written to, and be gone with the process
        if not path.is_file():
            self._close_slot(slot)
            if os.path.lexists(path):
                files.move_aside(path)
            files.create_file(path, saved)
            return
        try:
            connection = self._connection(slot)
            files.write(connection, saved)
            files.empty_wal(connection)
        except sqlite3.OperationalError:
            raise  # the disk is full or fails: the file is not to blame
        except sqlite3.DatabaseError as error:
            self._close_slot(slot)
            log.warning("%s is damaged and kept as %s: %s", path, files.move_aside(path).name, error)
            files.create_file(path, saved)

    def _connection(self, slot: int) -> sqlite3.Connection:
        connection = self._connections[slot]
        if connection is None:
            connection = self._connections[slot] = files.connect(self._slots[slot])
            if damage := files.damage_of(connection):
                raise sqlite3.DatabaseError(damage)
        return connection

    def _failed(self, error: BaseException) -> None:
        self.error = DataError(f"{self.path}: the state cannot be saved: {error}")
        log.warning("%s", self.error)

    def _close_slot(self, slot: int) -> None:
        connection, self._connections[slot] = self._connections[slot], None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _let_go(self) -> None:
        for slot in (0, 1):
            self._close_slot(slot)


class Saver:
    """Saves through a thread of its own, so that a slow disk does not hold up the loop.

    A snapshot that has not been begun when the next one comes is dropped: only the newest matters.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._waiting: tuple[dict[str, bytes], Schemas] | None = None
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="state store", daemon=True)
        self._thread.start()

    @property
    def error(self) -> DataError | None:
        """Why the last save failed."""
        return self._store.error

    def put(self, sections: Mapping[str, bytes], schema: Schemas) -> None:
        """Have `sections` saved soon."""
        with self._wake:
            self._waiting = dict(sections), schema
            self._wake.notify()

    def close(self, sections: Mapping[str, bytes], schema: Schemas, end: Cause = Cause.ORDERED) -> int:
        """End the thread, then save the last state of the run; returns as `StateStore.save` does."""
        with self._wake:
            self._waiting, self._closing = None, True
            self._wake.notify()
        self._thread.join()
        return self._store.save(sections, schema, end)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._waiting is not None)
                if self._waiting is None:
                    return
                (sections, schema), self._waiting = self._waiting, None
            self._store.save(sections, schema)
