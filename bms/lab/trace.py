"""Traces: columns of numbers in CSV, CSV.gz or Parquet files, read with every mistake named, written atomically.

A file is used as it is or refused with one line that names the file, the line, the column and the remedy: a value
that was guessed or dropped in silence would end up in a cell file. Numpy parses the common case; only when that
fails are the rows looked at one by one to find the culprit.

Formats are told apart by their first bytes, so that a wrong suffix is harmless when reading. When writing, the suffix
decides: `.parquet`, `.gz` (gzipped CSV), anything else is CSV.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.errors import ConfigError, DataError, nearest

F8 = npt.NDArray[np.float64]

_GZIP_MAGIC = b"\x1f\x8b"
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Trace:
    """A test of one cell over time. All arrays have shape (n,), n >= 2, and are float64 and contiguous.

    Everything is finite except `voltage_v`, where NaN stands for a sample that was not measured.
    """

    time_s: F8  # never decreasing
    current_a: F8  # positive = discharge
    voltage_v: F8
    temperature_degc: F8
    soc_true: F8 | None  # 0..1, where the laboratory knows it


def read_trace(path: str | Path) -> Trace:
    """Read a trace with the columns `time_s, current_a, voltage_v, temperature_degc` and optionally `soc_true`.

    An empty field or `nan` is allowed in `voltage_v` only: a missing measurement is data. Raises `DataError` as
    `read_columns` does, and for fewer than two rows or a `soc_true` that is not a fraction.
    """
    columns = read_columns(
        path,
        ("time_s", "current_a", "voltage_v", "temperature_degc"),
        ("soc_true",),
        nan_ok=("voltage_v",),
    )
    if len(columns["time_s"]) < 2:
        raise DataError(f"{path}: one row only; a trace needs at least two")
    soc_true = columns.get("soc_true")
    # counted charge may overshoot 0 or 1 by the errors of the counting; per cent overshoot by far more
    if soc_true is not None and (soc_true.min() < -0.5 or soc_true.max() > 1.5):
        raise DataError(
            f"{path}: column 'soc_true' reaches from {soc_true.min():g} to {soc_true.max():g}; "
            "write it as a fraction 0..1, not in per cent"
        )
    return Trace(columns["time_s"], columns["current_a"], columns["voltage_v"], columns["temperature_degc"], soc_true)


def read_columns(
    path: str | Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    nan_ok: Collection[str] = (),
    restart: str | None = None,
) -> dict[str, F8]:
    """Read named columns of a CSV, CSV.gz or Parquet file as float64 arrays of equal length n >= 1.

    Other columns of the file are ignored, whatever they hold. A column of `optional` that the file lacks is left out
    of the result. Values are finite, except that columns in `nan_ok` may hold NaN (or an empty field). Where
    `time_s` is among the columns read it must never decrease; it may start again where the value of the column
    `restart` changes (if that is read too, such as `script` in a laboratory test of several parts).

    Raises `DataError`, naming the file and, where there is one, the line (of a CSV; the row of a Parquet file,
    counted from 1) and the column; `ConfigError` where a Parquet file is given and pyarrow is not installed.
    """
    raw = _read_bytes(path)
    if raw.startswith(_GZIP_MAGIC) or (Path(path).suffix == ".gz" and raw):
        raw = _gunzip(path, raw)
    if not raw.strip():
        raise DataError(f"{path}: the file is empty; expected a header line and rows of numbers")
    wanted = list(dict.fromkeys((*required, *optional)))
    if raw.startswith(_PARQUET_MAGIC) or Path(path).suffix == ".parquet":
        columns, place = _parse_parquet(path, raw, wanted, required)
    else:
        columns, place = _parse_csv(path, raw, wanted, required, nan_ok)
    _check_finite(path, columns, place, nan_ok)
    if "time_s" in columns:
        _check_time(path, columns["time_s"], columns.get(restart) if restart else None, place)
    return columns


def write_columns(path: str | Path, columns: Mapping[str, npt.ArrayLike]) -> None:
    """Write one-dimensional arrays of equal length as columns; the suffix of `path` gives the format.

    Reading gives the very same numbers: CSV holds the shortest text that converts back exactly. The file appears
    whole or not at all, and the same columns give the same bytes. Raises `ConfigError` where it cannot be written.
    """
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    if any(array.ndim != 1 for array in arrays.values()) or len({len(array) for array in arrays.values()}) != 1:
        raise ValueError(f"columns must be 1-D and of one length: { {n: a.shape for n, a in arrays.items()} }")
    suffix = Path(path).suffix
    if suffix == ".parquet":
        data = _format_parquet(path, arrays)
    elif suffix == ".gz":
        data = gzip.compress(_format_csv(arrays), mtime=0)  # the time would make equal results differ
    else:
        data = _format_csv(arrays)
    write_atomically(path, data)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash or a full disk leaves the old file (or none), never half of one.

    Raises `ConfigError` where it cannot be written.
    """
    target = Path(os.path.realpath(path))  # replace what a symbolic link points at, not the link
    try:
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise ConfigError(f"{path}: is a folder; name a file to write to")
            target.write_bytes(data)  # a device or pipe (/dev/null, /dev/stdout) cannot be replaced
            return
        if not target.parent.is_dir():
            raise ConfigError(f"{path}: the folder {target.parent} does not exist; create it first")
        temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


# ---------------------------------------------------------------------------------------------------------- reading

_Place = Callable[[int], str]
"""From the index of a row (from 0) to where a person finds it: 'line 12' or 'row 11'."""


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; name a CSV, CSV.gz or Parquet file in it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _gunzip(path: str | Path, raw: bytes) -> bytes:
    parts: list[bytes] = []
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            while part := file.read(1 << 16):
                parts.append(part)
    except (OSError, EOFError, zlib.error) as error:
        if not raw.startswith(_GZIP_MAGIC):
            what = "is not a gzip file; rename it if it is plain text"
        elif isinstance(error, EOFError):
            lines = sum(part.count(b"\n") for part in parts)
            what = f"the gzip data end early, after about {lines} lines: the file is truncated; copy or make it again"
        else:
            what = "the gzip data are damaged; copy or make the file again"
        raise DataError(f"{path}: {what}") from None
    return b"".join(parts)


def _check_header(
    path: str | Path, header: Sequence[str], wanted: Sequence[str], required: Sequence[str], remedy: str = ""
) -> list[str]:
    """The columns of `wanted` that the file has; raises where one is missing or not unique."""
    for name in wanted:
        if header.count(name) > 1:
            raise DataError(f"{path}: column '{name}' appears {header.count(name)} times; keep one")
    for name in required:
        if name not in header:
            known = [_short(n) for n in header if n][:16]
            raise DataError(f"{path}: column '{name}' is missing{remedy or nearest(name, known)}")
    return [name for name in wanted if name in header]


def _parse_csv(
    path: str | Path, raw: bytes, wanted: Sequence[str], required: Sequence[str], nan_ok: Collection[str]
) -> tuple[dict[str, F8], _Place]:
    text = _decode(path, raw)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((i for i, line in enumerate(lines) if line and not line.isspace()), 0)
    header = [name.strip() for _, names in _rows(path, lines[first : first + 1], first) for name in names]
    if not any(header):
        raise DataError(f"{path}: line {first + 1}: is blank; the first line must name the columns")
    names = _check_header(path, header, wanted, required, _header_remedy(lines[first], header))
    body = [line for line in lines[first + 1 :] if line and not line.isspace()]
    if not body:
        raise DataError(f"{path}: line {first + 1}: no rows of numbers follow the header")
    where = [header.index(name) for name in names]
    commas = len(header) - 1
    if '"' not in text and all(line.count(",") == commas for line in body):
        try:
            table = np.loadtxt(body, delimiter=",", usecols=where, comments=None, ndmin=2)
        except ValueError:
            pass  # some field is no number, or empty: look at them one by one
        else:
            return {name: np.ascontiguousarray(table[:, k]) for k, name in enumerate(names)}, _line_of(lines, first)
    return _parse_fields(path, lines, first, header, dict(zip(names, where, strict=True)), nan_ok)


def _decode(path: str | Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: is not text in UTF-8; save the file as CSV in UTF-8") from None


def _header_remedy(line: str, header: Sequence[str]) -> str:
    """What to do where the first line of a file has not the columns asked for, if it is easily seen."""
    if all(_is_number(name) for name in header):
        return " (the first line holds numbers; it must name the columns)"
    for separator, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in line:
            return f" (the columns are separated by {called}; separate them by commas)"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rows(path: str | Path, lines: Sequence[str], offset: int) -> Iterator[tuple[int, list[str]]]:
    """(index of the line in the file from 0, fields) of each line that is not blank; quoted fields are understood."""
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    while True:
        before = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}: line {offset + before + 1}: is not CSV: {error}") from None
        if fields and not (len(fields) == 1 and (not fields[0] or fields[0].isspace())):
            yield offset + before, fields


def _line_of(lines: Sequence[str], first: int) -> _Place:
    def place(row: int) -> str:
        filled = (i for i in range(first + 1, len(lines)) if lines[i] and not lines[i].isspace())
        return f"line {next(i for k, i in enumerate(filled) if k == row) + 1}"

    return place


def _parse_fields(
    path: str | Path,
    lines: Sequence[str],
    first: int,
    header: Sequence[str],
    where: Mapping[str, int],
    nan_ok: Collection[str],
) -> tuple[dict[str, F8], _Place]:
    """The slow way: every field by itself, raising at the first that is wrong."""
    values: dict[str, list[float]] = {name: [] for name in where}
    line_of_row: list[int] = []
    for index, fields in _rows(path, lines[first + 1 :], first + 1):
        if len(fields) != len(header):
            raise DataError(
                f"{path}: line {index + 1}: has {len(fields)} fields where the header has {len(header)}; "
                "complete or delete the line"
            )
        for name, k in where.items():
            field = fields[k].strip()
            if not field:
                if name not in nan_ok:
                    raise DataError(
                        f"{path}: line {index + 1}: column '{name}' is empty; fill it in or delete the line"
                    )
                field = "nan"
            # what Python alone takes for a number (1_000, Arabic digits) is a slip of the keyboard here
            if not _is_number(field) or "_" in field or not field.isascii():
                raise DataError(
                    f"{path}: line {index + 1}: column '{name}': {_short(field)!r} is not a number; "
                    "write one with a decimal point"
                )
            values[name].append(float(field))
        line_of_row.append(index)
    if not line_of_row:  # quoted blanks are no row either
        raise DataError(f"{path}: line {first + 1}: no rows of numbers follow the header")
    return {name: np.array(column) for name, column in values.items()}, lambda row: f"line {line_of_row[row] + 1}"


def _parse_parquet(
    path: str | Path, raw: bytes, wanted: Sequence[str], required: Sequence[str]
) -> tuple[dict[str, F8], _Place]:
    pa, pq = _pyarrow(path)
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        header = [str(name) for name in file.schema_arrow.names]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: is not a whole Parquet file: {_one_line(error)}; make it again") from None
    names = _check_header(path, header, wanted, required)
    columns: dict[str, F8] = {}
    try:
        table = file.read(columns=names)
        for name in names:
            column = table.column(name)
            kind = column.type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
                raise DataError(f"{path}: column '{name}' holds {kind}, not numbers; convert it to float64")
            columns[name] = np.ascontiguousarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: the Parquet data are damaged: {_one_line(error)}; make the file again") from None
    if not len(next(iter(columns.values()))):
        raise DataError(f"{path}: the file has no rows")
    return columns, lambda row: f"row {row + 1}"


def _check_finite(path: str | Path, columns: Mapping[str, F8], place: _Place, nan_ok: Collection[str]) -> None:
    for name, values in columns.items():
        bad = np.isinf(values) if name in nan_ok else ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            what = "is NaN or empty" if np.isnan(values[row]) else "is infinite"
            raise DataError(f"{path}: {place(row)}: column '{name}' {what}; fill it in or delete the row")


def _check_time(path: str | Path, time_s: F8, group: F8 | None, place: _Place) -> None:
    back = np.diff(time_s) < 0.0
    if group is not None:
        back &= np.diff(group) == 0.0
    if back.any():
        row = int(np.argmax(back)) + 1
        raise DataError(
            f"{path}: {place(row)}: column 'time_s' goes backwards, from {float(time_s[row - 1])!r} "
            f"to {float(time_s[row])!r} s; sort the rows, or cut the file where the clock was set back"
        )


def _short(text: str, size: int = 40) -> str:
    return text if len(text) <= size else f"{text[:size]}..."


def _one_line(error: Exception) -> str:
    return _short(" ".join(str(error).split()).rstrip(".") or type(error).__name__, 100)


# ---------------------------------------------------------------------------------------------------------- writing


def _format_csv(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(arrays)
    texts = [_exact_text(array) for array in arrays.values()]
    out.writelines(",".join(row) + "\n" for row in zip(*texts, strict=True))
    return out.getvalue().encode()


def _exact_text(array: npt.NDArray[Any]) -> list[str]:
    """The shortest text of each number that converts back to the same number of the same type."""
    if array.dtype.kind in "iub":
        return [str(int(value)) for value in array.tolist()]
    if array.dtype == np.float64:
        return [repr(value) for value in array.tolist()]
    texts: list[str] = array.astype(str).tolist()
    return texts


def _format_parquet(path: str | Path, arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    pa, pq = _pyarrow(path)
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(arrays)), sink)
    return sink.getvalue()


def _pyarrow(path: str | Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path}: Parquet needs pyarrow, which is not installed: pip install 'rackbms[parquet]'"
        ) from None
    return pyarrow, pyarrow.parquet
