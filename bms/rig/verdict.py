"""What a check of `bms doctor` comes to, and what they all need to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bms.rig.watch import CHANNELS, DEGC, Floats, Seen

GOOD, WRONG, UNKNOWN = "good", "wrong", "not judged"

FEW = 10  # samples, below which nothing is said of what stands still or moves
COMES_AND_GOES = 0.02  # share of samples without a value, or with an impossible one, that a poor wire may have
LOAD_C = 0.02  # smaller changes of the current than this share of the capacity say nothing
SCALES = (10.0, 100.0, 1000.0, 0.1, 0.01, 0.001)
"""Mistakes of a scale that are looked for: so many times too large."""


@dataclass(frozen=True)
class Finding:
    """Something wrong: where, what was seen, and what to do."""

    place: str
    what: str
    remedy: str


@dataclass
class Verdict:
    """What a check came to; `note` says what was seen, or why it cannot be judged."""

    check: str
    state: str = GOOD
    note: str = ""
    findings: list[Finding] = field(default_factory=list)

    def add(self, place: str, what: str, remedy: str) -> None:
        """Something is wrong."""
        self.findings.append(Finding(place, what, remedy))
        self.state = WRONG


def places(name: str, at: Iterable[int]) -> str:
    """A channel, or places in it, for people."""
    where = sorted(int(k) for k in at)
    kind = {"cell_v": "cell", "sensor_degc": "sensor"}.get(name)
    if kind is None:
        return name
    shown = ", ".join(str(k) for k in where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")
    return f"{kind} {shown}" if len(where) == 1 else f"{kind}s {shown}"


class Doubt:
    """Values that are not to be used any more, because a check has found them wrong."""

    def __init__(self, seen: Seen) -> None:
        self._bad = {name: np.zeros(seen.values[name].shape[1], bool) for name in CHANNELS if seen.n}

    def add(self, name: str, at: Iterable[int]) -> None:
        """Doubt the values of a channel at these places."""
        self._bad[name][list(at)] = True

    def left(self, seen: Seen, name: str) -> Floats:
        """The values of a channel, not a number where they are in doubt."""
        return np.where(self._bad[name], np.nan, seen.values[name])

    def good(self, name: str) -> npt.NDArray[np.bool_]:
        """Which values of a channel are not in doubt."""
        return ~self._bad[name]


def expected(seen: Seen, name: str) -> bool:
    """Whether a rack of these capabilities has this channel."""
    has = seen.info.capabilities
    return {
        "insulation_ohm": has.insulation,
        "coolant_in_degc": has.cooling,
        "coolant_out_degc": has.cooling,
        "coolant_flow_lpm": has.coolant_flow,
        "bus_v": has.precharge,
    }.get(name, True)


def ranges(seen: Seen) -> dict[str, tuple[float, float]]:
    """What the values of a channel can be."""
    low, high = seen.cell_v_range
    n = seen.info.n_cells
    return {
        "cell_v": (low, high),
        "pack_v": (n * low, n * high),
        "bus_v": (-0.1 * n * high, 1.3 * n * high),
        "current_a": (-10.0 * seen.info.capacity_ah, 10.0 * seen.info.capacity_ah),
        "sensor_degc": DEGC,
        "coolant_in_degc": DEGC,
        "coolant_out_degc": DEGC,
    }


def mostly(values: Floats, low: float, high: float) -> bool:
    """Whether nine of ten values are within a range."""
    return bool(((values >= low) & (values <= high)).mean() > 0.9)


def factor_of(values: Floats, low: float, high: float) -> float | None:
    """By which power of ten impossible values are too large, if one makes all of them possible."""
    for factor in SCALES:
        if mostly(values / factor, low, high):
            return factor
    return None


def times(factor: float) -> str:
    """A wrong scale, for people."""
    return f"{factor:g} times too large" if factor > 1.0 else f"{1 / factor:g} times too small"
