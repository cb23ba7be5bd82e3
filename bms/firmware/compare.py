"""Two processors' answers to the same measurement, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bms.core.layout import STATE
from hal.contract import COMMAND, U1, Layout
from hal.errors import RackBmsError

FIELDS_SHOWN = 6


class Decision(NamedTuple):
    """What a step gives: its status, and the bytes of the command and of the memory afterwards."""

    status: int
    command: U1
    state: U1


class Difference(RackBmsError):
    """The controller on another processor has decided otherwise than the one on this computer."""


def check(step: int, time_s: float, size: tuple[int, int], theirs: Decision, ours: Decision) -> None:
    """Raise `Difference` unless both decisions are the same; it names fields, places and what both have there.

    `size`: cells and temperature sensors.
    """
    found = list(_differences(size, theirs, ours))
    if found:
        shown = "; ".join(found[:FIELDS_SHOWN])
        more = f"; and {len(found) - FIELDS_SHOWN} more" if len(found) > FIELDS_SHOWN else ""
        raise Difference(f"step {step} (t = {time_s:g} s): the board and this computer differ: {shown}{more}")


def _differences(size: tuple[int, int], theirs: Decision, ours: Decision) -> Iterator[str]:
    if theirs.status != ours.status:
        yield f"status 0x{theirs.status:x} != 0x{ours.status:x}"
    for layout, a, b in ((COMMAND, theirs.command, ours.command), (STATE, theirs.state, ours.state)):
        if not np.array_equal(a, b):
            yield from _fields(layout, size, a, b)


def _fields(layout: Layout, size: tuple[int, int], a: U1, b: U1) -> Iterator[str]:
    """Every field of which a byte differs."""
    whole = layout.dtype(*size)
    assert whole.fields is not None
    assert layout.head_dtype.fields is not None
    places = [(f.name, layout.head_dtype.fields[f.name]) for f in layout.scalars]
    places += [(f.name, whole.fields[f.name]) for f in layout.arrays]
    differing = np.flatnonzero(a != b)
    for name, (kind, offset, *_) in places:
        item = kind.base.itemsize
        inside = differing[(differing >= offset) & (differing < offset + kind.itemsize)]
        if inside.size:
            k = int(inside[0] - offset) // item
            at = slice(offset + k * item, offset + (k + 1) * item)
            values = (part[at].view(kind.base)[0] for part in (a, b))
            index = f"[{k}]" if kind.shape else ""
            yield f"{layout.name.lower()}.{name}{index} {' != '.join(map(_shown, values))}"


def _shown(value: np.generic) -> str:
    """A number, and its bits where it is none of the whole ones."""
    return f"{value} (0x{value.tobytes()[::-1].hex()})" if isinstance(value, np.floating) else str(value)
