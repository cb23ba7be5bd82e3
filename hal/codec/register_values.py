"""Values and 16-bit registers: SunSpec's types, with the patterns that mean "no value"."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]
U2 = npt.NDArray[np.uint16]

# range of values that are numbers, and the pattern of one that is not there
_INTEGERS: dict[str, tuple[str, int, int, int | None]] = {
    "int16": (">i2", -0x7FFF, 0x7FFF, -0x8000),
    "sunssf": (">i2", -10, 10, -0x8000),
    "uint16": (">u2", 0, 0xFFFE, 0xFFFF),
    "enum16": (">u2", 0, 0xFFFE, 0xFFFF),
    "count": (">u2", 0, 0xFFFE, 0xFFFF),
    "bitfield16": (">u2", 0, 0xFFFF, None),
    "acc16": (">u2", 0, 0xFFFF, None),
    "raw16": (">u2", 0, 0xFFFF, None),
    "int32": (">i4", -0x7FFFFFFF, 0x7FFFFFFF, -0x80000000),
    "uint32": (">u4", 0, 0xFFFFFFFE, 0xFFFFFFFF),
    "enum32": (">u4", 0, 0xFFFFFFFE, 0xFFFFFFFF),
    "bitfield32": (">u4", 0, 0xFFFFFFFF, None),
    "acc32": (">u4", 0, 0xFFFFFFFF, None),
}
_FLOATS = {"float32": ">f4", "float64": ">f8"}

KINDS = frozenset(_INTEGERS) | frozenset(_FLOATS)
"""Types of numbers that can be carried."""


def absent(kind: str, size: int) -> list[int]:
    """The registers of a point of that type that has no value."""
    if kind in ("string", "pad") or kind not in KINDS:
        return [0] * size
    if kind.startswith("bitfield"):
        return [0xFFFF] * size if size == 1 else [0x8000] + [0] * (size - 1)
    if kind.startswith("acc"):
        return [0] * size
    return [int(word) for word in to_words(kind, np.array([np.nan]))[0]]


def to_words(kind: str, values: F8) -> U2:
    """Registers (n, size) of numbers (n,), rounded to the nearest and held at the ends of the type's range.

    What is not a number becomes the pattern for "no value", where the type has one, else 0.
    """
    if kind in _FLOATS:
        coded: npt.NDArray[Any] = values.astype(_FLOATS[kind])
    else:
        code, low, high, nothing = _INTEGERS[kind]
        missing = np.isnan(values)
        whole = np.clip(np.rint(np.where(missing, 0.0, values)), low, high).astype(np.int64)
        coded = np.where(missing, 0 if nothing is None else nothing, whole).astype(code)
    return coded.view(">u2").reshape(len(values), -1).astype(np.uint16)


def from_words(kind: str, words: U2) -> F8:
    """Numbers (n,) out of registers (n, size); NaN where there is no value."""
    raw = np.ascontiguousarray(words.astype(">u2"))
    if kind in _FLOATS:
        with np.errstate(invalid="ignore"):  # a NaN of any pattern is a NaN
            return raw.view(_FLOATS[kind]).reshape(-1).astype(np.float64)
    code, _, _, nothing = _INTEGERS[kind]
    numbers = raw.view(code).reshape(-1)
    values = numbers.astype(np.float64)
    if nothing is not None:
        values[numbers == nothing] = np.nan
    return values


def text_to_words(text: str, size: int) -> U2:
    """Registers (size,) of a text, cut to what fits, filled with zeros."""
    data = text.encode("utf-8")[: 2 * size].ljust(2 * size, b"\0")
    return np.frombuffer(data, ">u2").astype(np.uint16)


def words_to_text(words: U2) -> str:
    """The text in registers (size,)."""
    return words.astype(">u2").tobytes().split(b"\0", 1)[0].decode("utf-8", "replace").strip()
