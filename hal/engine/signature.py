"""Signatures of entries, as text: `i4(f4[:,::1], u1[::1], i4, f4)`. Read without a compiler, checked at every call.

Types are those of numpy's codes (`i4`, `u1`, `f4`, ...), `b1` is a truth value, `void` returns nothing. Arrays come
first, C-contiguous (the last dimension is `::1`), scalars last. The C interface of an entry has for each array a
pointer and its dimensions as 64-bit integers, then the scalars as they are.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CTYPES: dict[str, Any] = {
    "b1": ctypes.c_bool,
    "i1": ctypes.c_int8,
    "u1": ctypes.c_uint8,
    "i2": ctypes.c_int16,
    "u2": ctypes.c_uint16,
    "i4": ctypes.c_int32,
    "u4": ctypes.c_uint32,
    "i8": ctypes.c_int64,
    "u8": ctypes.c_uint64,
    "f4": ctypes.c_float,
    "f8": ctypes.c_double,
}
C_NAMES: dict[str, str] = {
    "void": "void",
    "b1": "bool",
    "i1": "int8_t",
    "u1": "uint8_t",
    "i2": "int16_t",
    "u2": "uint16_t",
    "i4": "int32_t",
    "u4": "uint32_t",
    "i8": "int64_t",
    "u8": "uint64_t",
    "f4": "float",
    "f8": "double",
}

_WHOLE = re.compile(r"\s*(\w+)\s*\((.*)\)\s*")
_ARGUMENT = re.compile(r"(\w\d)(?:\[((?::,)*)::1\])?")
_SEPARATOR = re.compile(r",\s*(?![^\[]*\])")


@dataclass(frozen=True)
class Argument:
    """One argument: `ndim` is 0 for a scalar."""

    kind: str
    ndim: int

    @property
    def text(self) -> str:
        """As it stands in a signature."""
        return f"{self.kind}[{':,' * (self.ndim - 1)}::1]" if self.ndim else self.kind


class Signature:
    """A parsed signature. Raises `ValueError` for a text that is not one."""

    def __init__(self, text: str) -> None:
        whole = _WHOLE.fullmatch(text)
        if whole is None or whole[1] not in C_NAMES:
            raise ValueError(f"signature '{text}': expected RESULT(ARGUMENT, ...)")
        self.result = whole[1]
        arguments = []
        for part in _SEPARATOR.split(whole[2].replace(" ", "")) if whole[2].strip() else []:
            found = _ARGUMENT.fullmatch(part)
            if found is None or found[1] not in CTYPES:
                raise ValueError(f"signature '{text}': '{part}' is neither a scalar (f4) nor an array (f4[:,::1])")
            arguments.append(Argument(found[1], 0 if found[2] is None else found[2].count(":") + 1))
        self.arguments = tuple(arguments)
        self.n_arrays = sum(a.ndim > 0 for a in arguments)
        if any(a.ndim == 0 for a in arguments[: self.n_arrays]):
            raise ValueError(f"signature '{text}': arrays come first, scalars last")
        self.arrays = self.arguments[: self.n_arrays]
        self.scalars = self.arguments[self.n_arrays :]
        self._dtypes = [np.dtype(a.kind) for a in self.arrays]

    def __str__(self) -> str:
        return f"{self.result}({', '.join(a.text for a in self.arguments)})"

    def prototype(self) -> Any:
        """The type of the C function, for `ctypes`; a call lets go of Python's global lock."""
        types: list[Any] = []
        for a in self.arrays:
            types += [ctypes.c_void_p] + [ctypes.c_int64] * a.ndim
        types += [CTYPES[a.kind] for a in self.scalars]
        return ctypes.CFUNCTYPE(None if self.result == "void" else CTYPES[self.result], *types)

    def pointers(self, name: str, arrays: Sequence[npt.NDArray[Any]]) -> list[Any]:
        """The C arguments of `arrays`. Raises `TypeError` for one that does not fit."""
        if len(arrays) != self.n_arrays:
            raise TypeError(f"{name}: {len(arrays)} arrays, expected {self.n_arrays} as in {self}")
        out: list[Any] = []
        for k, (array, argument, dtype) in enumerate(zip(arrays, self.arrays, self._dtypes, strict=True)):
            if (
                type(array) is not np.ndarray
                or array.dtype != dtype
                or array.ndim != argument.ndim
                or not array.flags.c_contiguous
            ):
                raise TypeError(f"{name}: argument {k + 1} is {_described(array)}, expected {argument.text}")
            out.append(ctypes.c_void_p(array.__array_interface__["data"][0]))
            out += [ctypes.c_int64(size) for size in array.shape]
        return out


def _described(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    contiguous = "" if value.flags.c_contiguous else ", not contiguous"
    return f"an array of {value.dtype.str.lstrip('<|=')} with {value.ndim} dimensions{contiguous}"
