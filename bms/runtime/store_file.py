"""A file of the state store: one generation of named sections in SQLite, and every way that it can be found damaged.

SQLite vouches for order and durability, not for what it reads back: `integrity_check` does not look at the bytes of a
row. So every record carries a CRC-32 over all its fields, and the record with the empty name, the head, lists the CRC
of every other record of its generation: records of two saves are never taken together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

PAGE_BYTES = 4096
MAX_SECTIONS = 256
MAX_BYTES = 16 * 1024 * 1024  # of all sections together
MAX_FILE_BYTES = 4 * MAX_BYTES  # a larger file is not ours: nothing of it is copied
KEPT_ASIDE = 20  # damaged files of a slot; the first ones are kept, the last is overwritten

_APPLICATION = 0x52424D53  # "RBMS": marks the files as ours
_CREATE = (
    "CREATE TABLE record (name TEXT NOT NULL, sequence INTEGER NOT NULL, time_s REAL NOT NULL, "
    "schema TEXT NOT NULL, payload BLOB NOT NULL, crc32 INTEGER NOT NULL)"
)
_READ = "SELECT name, sequence, time_s, schema, payload, crc32 FROM record LIMIT ?"
_HEADER = struct.Struct("<8sQdHHI")  # magic, sequence, time_s, lengths of name, schema and payload
_MAGIC = b"RBMSSTA1"
_NOTE = struct.Struct("<B3x4I")  # what the next start will be called, starts by cause
SQL_ERRORS = (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError, ValueError)
_SIDE_FILES = ("-wal", "-shm", "-journal")

Row = tuple[str, int, float, str, bytes, int]


class Cause(IntEnum):
    """Why the controller starts."""

    FIRST = 0  # nothing is known of a run before
    ORDERED = 1  # the run before was closed in order
    CRASH = 2  # it was not: killed, power cut, or its record is lost
    OPERATOR = 3  # a person asked for the restart


@dataclass(frozen=True)
class Saved:
    """One generation: all sections of one moment."""

    sections: dict[str, bytes]
    schemas: dict[str, str]
    sequence: int = 0
    time_s: float = 0.0  # wall clock
    next_cause: Cause = Cause.FIRST
    starts: tuple[int, ...] = (0, 0, 0, 0)  # by `Cause`


BLANK = Saved({}, {})


def checksum(name: str, sequence: int, time_s: float, schema: str, payload: bytes) -> int:
    """CRC-32 of a record: over every field and the lengths of those that vary."""
    name_, schema_ = name.encode(), schema.encode()
    head = _HEADER.pack(_MAGIC, sequence, time_s, len(name_), len(schema_), len(payload))
    return zlib.crc32(payload, zlib.crc32(head + name_ + schema_))


def rows_of(saved: Saved) -> list[Row]:
    """The records of a generation, the head first."""
    rows: list[Row] = []
    for name in sorted(saved.sections):
        fields = name, saved.sequence, saved.time_s, saved.schemas[name], saved.sections[name]
        rows.append((*fields, checksum(*fields)))
    note = _NOTE.pack(saved.next_cause, *(min(n, 0xFFFFFFFF) for n in saved.starts))
    payload = note + struct.pack(f"<{len(rows)}I", *(row[-1] for row in rows))
    head = "", saved.sequence, saved.time_s, "", payload
    return [(*head, checksum(*head)), *rows]


class DamagedError(Exception):
    """A generation that cannot be trusted; `sequence` is what its head says, or -1 where the head is damaged too."""

    def __init__(self, what: str, sequence: int = -1) -> None:
        super().__init__(what)
        self.sequence = sequence


def _checked(row: tuple[Any, ...]) -> Row:
    """`row` as SQLite gave it, with its text decoded. Raises `DamagedError`."""
    name, sequence, time_s, schema, payload, crc = row
    kinds = isinstance(name, bytes) and isinstance(schema, bytes) and isinstance(payload, bytes)
    if not (kinds and isinstance(sequence, int) and isinstance(time_s, float) and isinstance(crc, int)):
        raise DamagedError("a record holds values of the wrong type")
    try:
        fields = name.decode(), sequence, time_s, schema.decode(), payload
        fits = checksum(*fields) == crc
    except (UnicodeDecodeError, struct.error):
        fits = False
    if not fits:
        raise DamagedError(f"the checksum of record {name[:40]!r} does not fit")
    return (*fields, crc)


def saved_of(rows: Iterable[tuple[Any, ...]]) -> Saved:
    """Undo `rows_of`. Raises `DamagedError` unless exactly the records of one save are there, each one whole."""
    by_name: dict[str, Row] = {}
    damage: DamagedError | None = None
    for raw in rows:
        try:
            row = _checked(raw)
        except DamagedError as error:
            damage = error
            continue
        if row[0] in by_name:
            damage = DamagedError(f"record '{row[0]}' is there twice")
        by_name[row[0]] = row
    head = by_name.pop("", None)
    if head is None:
        raise damage or DamagedError("the head is missing")
    sequence = head[1]
    if damage is not None:
        raise DamagedError(str(damage), sequence)
    payload, names = head[4], sorted(by_name)
    if payload[_NOTE.size :] != struct.pack(f"<{len(names)}I", *(by_name[name][-1] for name in names)):
        raise DamagedError("its records are not of one save", sequence)
    try:
        next_cause, *starts = _NOTE.unpack_from(payload)
        cause = Cause(next_cause)
    except (struct.error, ValueError) as error:
        raise DamagedError("its note is not one of ours", sequence) from error
    return Saved(
        {name: by_name[name][4] for name in names},
        {name: by_name[name][3] for name in names},
        sequence,
        head[2],
        cause,
        tuple(starts),
    )


@dataclass(frozen=True)
class Found:
    """What a slot holds."""

    there: bool  # some file stands in its place
    saved: Saved | None = None
    whole: bool = False  # the file may be written to again
    sequence: int = -1  # as far as it can be told
    damage: str = ""


def connect(path: Path, create: bool = False) -> sqlite3.Connection:
    """Open a file of the store for this process alone. Raises `sqlite3.Error`."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=0.0,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.text_factory = bytes  # damaged text is for `_checked` to judge
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES + 65536)
        # exclusive: the index of the WAL stays in memory, and nobody else writes
        for pragma in ("locking_mode=EXCLUSIVE", "trusted_schema=OFF", "cell_size_check=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def damage_of(connection: sqlite3.Connection) -> str:
    """Why the file should not be written to again ('' if it may): SQLite's structures, not the records."""
    expected = (
        ("SELECT sql FROM sqlite_master", _CREATE.encode()),
        ("PRAGMA journal_mode", b"wal"),
        ("PRAGMA application_id", _APPLICATION),
        ("PRAGMA integrity_check(1)", b"ok"),
    )
    for query, value in expected:
        if (got := connection.execute(query).fetchall()) != [(value,)]:
            return f"{query}: {got}"[:200]
    return ""


def read_file(path: Path) -> Found:
    """Read one slot, in place. Never raises for what the file holds."""
    saved, sequence, damage = None, -1, ""
    try:
        with contextlib.closing(connect(path)) as connection:
            try:
                saved = saved_of(connection.execute(_READ, (MAX_SECTIONS + 2,)))
                sequence = saved.sequence
            except DamagedError as error:
                sequence, damage = error.sequence, str(error)
            damage = damage or damage_of(connection)
    except SQL_ERRORS as error:
        damage = damage or str(error) or type(error).__name__
    return Found(True, saved, saved is not None and not damage, sequence, damage)


def _is_there(path: Path) -> bool:
    """Whether anything stands at `path`. Raises `OSError` where that cannot be told."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def examine(path: Path) -> Found:
    """Read one slot from a copy: what may be damaged stays as it is, and a read-only disk can be read."""
    try:
        if not _is_there(path):
            # a WAL alone: the file was lost, and SQLite would take the WAL for that of a new one
            return Found(_is_there(Path(f"{path}-wal")), damage="the file is missing")
        if not path.is_file() or path.stat().st_size == 0 or path.stat().st_size > MAX_FILE_BYTES:
            return Found(True, damage="not a file, empty or far too large")
        with tempfile.TemporaryDirectory(prefix="rackbms-state-") as folder:
            copy = Path(folder) / "copy.db"
            for side in ("", "-wal"):
                if os.path.lexists(f"{path}{side}"):
                    shutil.copyfile(f"{path}{side}", f"{copy}{side}")
            return read_file(copy)
    except OSError as error:
        # no room for a copy, perhaps: a full disk must not cost the state
        found = read_file(path)
        return found if found.saved is not None else Found(True, damage=f"{error.strerror}; {found.damage}")


def sync_folder(folder: Path) -> None:
    """Have the names of a folder on the disk. Raises `OSError`."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(connection: sqlite3.Connection, saved: Saved) -> None:
    """Replace the generation that a file holds; durable when this returns."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("DELETE FROM record")
        connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", rows_of(saved))
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def empty_wal(connection: sqlite3.Connection) -> None:
    """Move the WAL into the file and cut it to nothing. What is in the WAL is durable already, so this may fail."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def create_file(path: Path, saved: Saved) -> None:
    """Make a slot that holds `saved`, whole or not at all: under another name first, so that no start meets half of it.

    Raises `OSError` or `sqlite3.Error`.
    """
    new = path.with_name(f"{path.name}.new")
    for side in ("", *_SIDE_FILES):
        Path(f"{new}{side}").unlink(missing_ok=True)
    with contextlib.closing(connect(new, create=True)) as connection:
        for pragma in (f"page_size={PAGE_BYTES}", "journal_mode=WAL", f"application_id={_APPLICATION}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(_CREATE)
        write(connection, saved)
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise sqlite3.OperationalError("the new file could not be completed")
    os.replace(new, path)
    sync_folder(path.parent)


def move_aside(path: Path) -> Path:
    """Rename a damaged slot to `*.damaged-N`, its WAL with it. Raises `OSError`."""
    names = [path.with_name(f"{path.name}.damaged-{n}") for n in range(1, KEPT_ASIDE + 1)]
    target = next((name for name in names if not os.path.lexists(name)), names[-1])
    # the WAL first: should the process die in between, it must not be taken for that of a new file
    if os.path.lexists(f"{path}-wal"):
        os.replace(f"{path}-wal", f"{target}-wal")
    for side in ("-shm", "-journal"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    if os.path.lexists(path):
        os.replace(path, target)
    return target
