"""Where the arrays of a record lie in its bytes, for kernels: the same places that numpy has.

The arrays of a layout stand in the order of the sizes of their items, largest first, so that nothing needs to be
aligned between them: an offset is then a constant plus so many bytes for each cell, sensor and lane.

The readers return tuples of one: a kernel without a run-time system may not return an array that it has made.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from bms.core.jit import carve, f4, kernel
from hal.contract import U1, Field, Layout

Place: TypeAlias = tuple[int, int, int, int, int, int, int, int]
"""Offset in bytes: constant, per cell, per sensor, per lane; then the number of items in the same way."""

_KINDS = ("", "cells", "sensors", "lanes")


def in_order(*groups: tuple[Field, ...]) -> tuple[Field, ...]:
    """The fields of all groups, arrays with the largest items first; otherwise in the order given."""
    fields = [field for group in groups for field in group]
    return tuple(sorted(fields, key=lambda field: 0 if not field.dims else -np.dtype(field.kind).itemsize))


def places(layout: Layout) -> dict[str, Place]:
    """The place of each array of `layout`. Raises `ValueError` where items grow from one array to the next."""
    size = max((np.dtype(field.kind).itemsize for field in layout.arrays), default=1)
    offset = [-(-layout.head_dtype.itemsize // size) * size, 0, 0, 0]
    found: dict[str, Place] = {}
    for field in layout.arrays:
        item = np.dtype(field.kind).itemsize
        if item > size:
            raise ValueError(f"{layout.name}: {field.name} has larger items than what stands before it")
        size = item
        count = [0, 0, 0, 0]
        number, kind = 1, 0
        for part in field.dims.split("*"):
            if part.isdigit():
                number *= int(part)
            else:
                kind = _KINDS.index(part)
        count[kind] = number
        found[field.name] = (offset[0], offset[1], offset[2], offset[3], count[0], count[1], count[2], count[3])
        for k in range(4):
            offset[k] += item * count[k]
    return found


@kernel
def _start(at: Place, n_cells: int, n_sensors: int, n_lanes: int) -> int:
    return at[0] + at[1] * n_cells + at[2] * n_sensors + at[3] * n_lanes


@kernel
def _count(at: Place, n_cells: int, n_sensors: int, n_lanes: int) -> int:
    return at[4] + at[5] * n_cells + at[6] * n_sensors + at[7] * n_lanes


@kernel
def floats(raw: U1, at: Place, n_cells: int, n_sensors: int, n_lanes: int) -> tuple[Any]:
    """The float32 array at `at`."""
    return (carve(raw, _start(at, n_cells, n_sensors, n_lanes), _count(at, n_cells, n_sensors, n_lanes), f4),)


@kernel
def words(raw: U1, at: Place, n_cells: int, n_sensors: int, n_lanes: int) -> tuple[Any]:
    """The uint32 array at `at`."""
    return (carve(raw, _start(at, n_cells, n_sensors, n_lanes), _count(at, n_cells, n_sensors, n_lanes), np.uint32),)


@kernel
def integers(raw: U1, at: Place, n_cells: int, n_sensors: int, n_lanes: int) -> tuple[Any]:
    """The int32 array at `at`."""
    return (carve(raw, _start(at, n_cells, n_sensors, n_lanes), _count(at, n_cells, n_sensors, n_lanes), np.int32),)


@kernel
def halves(raw: U1, at: Place, n_cells: int, n_sensors: int, n_lanes: int) -> tuple[Any]:
    """The uint16 array at `at`."""
    return (carve(raw, _start(at, n_cells, n_sensors, n_lanes), _count(at, n_cells, n_sensors, n_lanes), np.uint16),)


@kernel
def octets(raw: U1, at: Place, n_cells: int, n_sensors: int, n_lanes: int) -> tuple[Any]:
    """The uint8 array at `at`."""
    return (carve(raw, _start(at, n_cells, n_sensors, n_lanes), _count(at, n_cells, n_sensors, n_lanes), np.uint8),)


_READERS = {"f4": "floats", "u4": "words", "i4": "integers", "u2": "halves", "u1": "octets"}


def reader(make: type, fields: tuple[Field, ...], found: dict[str, Place]) -> Any:
    """A kernel `(raw, n_cells, n_sensors, n_lanes)` that makes a `make` of the arrays of `fields`, in their order.

    Its text is put together here, because kernels cannot go through arrays of different kinds in a loop, and so that
    the arrays of a part are listed once: where they are declared.
    """
    name = f"read_{make.__name__}"
    scope = "n_cells, n_sensors, n_lanes"
    parts = ", ".join(f"{_READERS[field.kind]}(raw, at_{k}, {scope})[0]" for k, field in enumerate(fields))
    namespace: dict[str, Any] = {"__name__": __name__, "make": make}
    namespace |= {reader: globals()[reader] for reader in _READERS.values()}
    namespace |= {f"at_{k}": found[field.name] for k, field in enumerate(fields)}
    exec(f"def {name}(raw, {scope}):\n    return make({parts})\n", namespace)
    return kernel(namespace[name])
