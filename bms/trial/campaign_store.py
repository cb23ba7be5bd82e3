"""Results of a campaign on disk: parts in Parquet that a killed run leaves whole, one table once all is done."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bms.trial.campaign import Campaign
from bms.trial.campaign_sample import Row, columns
from hal.errors import DataError

ABOUT, TABLE = "campaign.json", "samples.parquet"
GIVEN_UP = "given_up"
"""Key of `ABOUT` while a sample of the campaign cannot be played."""
PART_ROWS = 200
PART_S = 5.0


def replace_with(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or who comes after a crash, finds either all of it or what was there before."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


class Store:
    """The folder of a campaign. `rows` are the samples that are done, by number; `add` appends one.

    Raises `DataError`: the folder is in use, or holds another campaign, or one of another controller.
    """

    def __init__(self, folder: Path, campaign: Campaign, made: dict[str, str], *, resume: bool) -> None:
        self.folder, self.campaign = folder, campaign
        self.rows: dict[int, Row] = {}
        self._types = columns(campaign)
        self._schema = _schema(self._types)
        self._waiting: list[Row] = []
        self._flushed_s = time.monotonic()
        self._about = {"campaign": campaign.name, "digest": campaign.digest, **made}
        try:
            self._open(self._about, resume)
        except OSError as error:
            raise DataError(f"--out {folder}: cannot be used: {error.strerror}") from error
        numbers = [int(path.stem.partition("-")[2]) for path in folder.glob("part-*.parquet*") if _is_part(path)]
        self._next = max(numbers, default=-1) + 1

    def _open(self, about: dict[str, str], resume: bool) -> None:
        path = self.folder / ABOUT
        parts = self._parts() if not resume and _given_up(path) else []
        if self.folder.is_dir() and any(not (self._is_ours(e) or e in parts) for e in self.folder.iterdir()):
            if not resume:
                raise DataError(f"--out {self.folder}: is not empty; go on with --resume, or name another folder")
            if not path.exists():
                raise DataError(f"--out {self.folder}: holds no campaign ({ABOUT} is missing); name another folder")
            try:
                before = dict(json.loads(path.read_bytes()))
            except ValueError:
                raise DataError(f"{path}: is no description of a campaign; name another folder") from None
            _compare(before, about, self.folder)
            self._load()
        for part in parts:
            part.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_with(path, json.dumps(about, indent=1).encode() + b"\n")

    def _is_ours(self, entry: Path) -> bool:
        """Whether it is in nobody's way: a campaign that ended before its first sample, or a sample played alone."""
        return entry.name == ABOUT or (entry.is_dir() and entry.name.startswith(f"{self.campaign.name}-"))

    def _parts(self) -> list[Path]:
        """What was written of a campaign that is not done."""
        return [*self.folder.glob("part-*.parquet"), *self.folder.glob("*.tmp")]

    def _load(self) -> None:
        from pyarrow import ArrowException

        for path in self.folder.glob("*.tmp"):
            path.unlink()
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                rows = read(path, self._schema)
            except (ArrowException, OSError, ValueError) as error:
                print(f"{path}: torn, its samples are played again ({_first_line(error)})", file=sys.stderr)
                os.replace(path, path.with_name(path.name + ".torn"))
                continue
            for row in rows:
                self.rows.setdefault(row["sample"], row)

    def add(self, row: Row) -> None:
        """Take a sample over; it is on disk within some seconds."""
        self.rows[row["sample"]] = row
        self._waiting.append(row)
        if len(self._waiting) >= PART_ROWS or time.monotonic() - self._flushed_s >= PART_S:
            self.flush()

    def give_up(self) -> None:
        """Note that a sample cannot be played: until it is resumed, another campaign may have the folder."""
        with suppress(OSError):  # then the folder is not free, and that is all
            replace_with(self.folder / ABOUT, json.dumps({**self._about, GIVEN_UP: True}, indent=1).encode() + b"\n")

    def flush(self) -> None:
        """Write what waits as a part of its own."""
        if self._waiting:
            self._write(self.folder / f"part-{self._next:05d}.parquet", self._waiting)
            self._next += 1
            self._waiting = []
        self._flushed_s = time.monotonic()

    def finish(self) -> Path:
        """All samples in one table, in their order; its bytes follow from the campaign alone."""
        self.flush()
        path = self.folder / TABLE
        self._write(path, [self.rows[k] for k in sorted(self.rows)])
        for part in self.folder.glob("part-*.parquet"):
            part.unlink()
        return path

    def _write(self, path: Path, rows: Sequence[Row]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(list(rows), schema=self._schema), sink)
        try:
            replace_with(path, sink.getvalue().to_pybytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def read(path: Path, schema: Any = None) -> list[Row]:
    """The rows of a part, or of the whole table. Raises an error of pyarrow, or `ValueError` for other columns."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    if schema is not None and not table.schema.equals(schema):
        raise ValueError("other columns")
    rows: list[Row] = table.to_pylist()
    return rows


def _schema(types: dict[str, type]) -> Any:
    import pyarrow as pa

    arrow = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    return pa.schema([(name, arrow[kind]) for name, kind in types.items()])


def _is_part(path: Path) -> bool:
    return path.stem.partition("-")[2].partition(".")[0].isdigit() and path.name.count(".") == 1


def _given_up(path: Path) -> bool:
    """Whether the description of a campaign says that it was given up."""
    try:
        return GIVEN_UP in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _compare(before: dict[str, str], about: dict[str, str], folder: Path) -> None:
    for key, value in about.items():
        if before.get(key) != value:
            raise DataError(
                f"--out {folder}: holds samples with {key} = {before.get(key)}, now it is {value}; rows of both would "
                "mix: name another folder"
            )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]
