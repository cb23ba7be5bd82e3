"""Arrays to bytes and back for the state store: named, with type and shape, and strictly checked when read.

All numbers are little-endian::

    section = "RBMSARR1", u16 number of arrays, then for each
              u8 length of name, name (UTF-8), 2 bytes type ("f4", "u1", ...), u8 dimensions, u32 each, the values

A section has no checksum of its own: every record of `bms.runtime.store` is under one.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.errors import DataError

MAGIC = b"RBMSARR1"
KINDS = ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
MAX_DIMENSIONS = 4

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Expected:
    """What an array must be to be used: type, shape, and every value finite and in `low`..`high`."""

    kind: str
    shape: tuple[int, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    finite: bool = True


def schema_of(expected: Mapping[str, Expected], version: str = "") -> str:
    """Digest of names, types and shapes, for `StateStore`; `version` for what the values mean."""
    lines = [version, *(f"{name}:{e.kind}:{e.shape}" for name, e in sorted(expected.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def pack(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of `arrays`, in the order of their names. Raises `ValueError` for a type that `KINDS` lacks."""
    parts = [MAGIC, struct.pack("<H", len(arrays))]
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        kind = array.dtype.str[1:]
        if kind not in KINDS or array.ndim > MAX_DIMENSIONS or not 0 < len(name.encode()) < 256:
            raise ValueError(f"array '{name}' of {array.dtype} and shape {array.shape} cannot be kept")
        parts.append(struct.pack("<B", len(name.encode())) + name.encode() + kind.encode())
        parts.append(struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
        parts.append(array.astype(f"<{kind}").tobytes())
    return b"".join(parts)


class _Reader:
    """Takes bytes off the front; asking for more than there is raises `DataError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, n: int) -> bytes:
        if n > len(self._data) - self._at:
            raise DataError(f"kept arrays: cut off after {self._at} bytes")
        self._at += n
        return self._data[self._at - n : self._at]

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0])

    def done(self) -> bool:
        return self._at == len(self._data)


def unpack(data: bytes, expected: Mapping[str, Expected] | None = None) -> dict[str, Array]:
    """Undo `pack`: arrays of their own memory. Raises `DataError` for bytes that `pack` does not make.

    With `expected` exactly those arrays must be there, each as described: the first that is not is named.
    """
    reader = _Reader(data)
    if reader.take(len(MAGIC)) != MAGIC:
        raise DataError("kept arrays: of another format")
    arrays: dict[str, Array] = {}
    for _ in range(reader.number("H")):
        try:
            name = reader.take(reader.number("B")).decode()
        except UnicodeDecodeError as error:
            raise DataError("kept arrays: a name is not UTF-8") from error
        kind = reader.take(2).decode("latin-1")
        n_dimensions = reader.number("B")
        if kind not in KINDS or n_dimensions > MAX_DIMENSIONS or not name or name in arrays:
            raise DataError(f"kept array '{name}': its description makes no sense")
        shape = tuple(reader.number("I") for _ in range(n_dimensions))
        values = np.frombuffer(reader.take(math.prod(shape) * int(kind[1])), f"<{kind}")
        try:
            arrays[name] = values.reshape(shape).astype(kind)
        except ValueError as error:  # nothing, but of absurd dimensions
            raise DataError(f"kept array '{name}': its description makes no sense") from error
    if not reader.done():
        raise DataError("kept arrays: more bytes than arrays")
    if expected is not None:
        _compare(arrays, expected)
    return arrays


def _compare(arrays: Mapping[str, Array], expected: Mapping[str, Expected]) -> None:
    if odd := sorted(arrays.keys() ^ expected.keys()):
        raise DataError(f"kept array '{odd[0]}' is {'not known' if odd[0] in arrays else 'missing'}")
    for name, want in expected.items():
        array = arrays[name]
        if array.dtype.str[1:] != want.kind or array.shape != want.shape:
            raise DataError(
                f"kept array '{name}' is {array.dtype.str[1:]}{list(array.shape)}, not {want.kind}{list(want.shape)}"
            )
        fits = (array >= want.low) & (array <= want.high)
        if want.finite:
            fits &= np.isfinite(array)
        else:
            fits |= np.isnan(array)  # "not known" where the caller allows it
        if not fits.all():
            value = array[~fits].flat[0]
            raise DataError(f"kept array '{name}' holds {value}, outside {want.low:g}..{want.high:g}")
