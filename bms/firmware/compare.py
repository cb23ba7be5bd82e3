"""Two processors' answers to the same measurement, bit by bit.

One thing is left open: which of the many bit patterns a number has that is none. IEEE 754 (2019, 6.2.3 and 6.3) does
not say what sign and payload the result of an operation on a NaN has, processors differ, and no kernel looks at them.
"""

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
    """The first place in every field that differs."""
    whole = layout.dtype(*size)
    assert whole.fields is not None
    assert layout.head_dtype.fields is not None
    places = [(f.name, layout.head_dtype.fields[f.name]) for f in layout.scalars]
    places += [(f.name, whole.fields[f.name]) for f in layout.arrays]
    for name, (kind, offset, *_) in places:
        theirs, ours = (part[offset : offset + kind.itemsize].view(kind.base) for part in (a, b))
        bits = f"u{kind.base.itemsize}"
        differing = theirs.view(bits) != ours.view(bits)
        if kind.base.kind == "f":
            differing &= ~(np.isnan(theirs) & np.isnan(ours))
        if differing.any():
            k = int(np.argmax(differing))
            index = f"[{k}]" if kind.shape else ""
            yield f"{layout.name.lower()}.{name}{index} {_shown(theirs[k])} != {_shown(ours[k])}"


def _shown(value: np.generic) -> str:
    """A number, and its bits where it is none of the whole ones."""
    return f"{value} (0x{value.tobytes()[::-1].hex()})" if isinstance(value, np.floating) else str(value)
