"""How near a sound rack came to its warnings: of what is compared with an expectation, the share of the threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bms.core.faults import Fault, Row
from bms.trial.log import Log
from hal.contract import Severity

COMPARED = (
    Fault.CURRENT_IMPLAUSIBLE,
    Fault.CURRENT_GAIN,
    Fault.CURRENT_OFFSET,
    Fault.SUM_IMPLAUSIBLE,
    Fault.OPEN_SENSE_WIRE,
    Fault.CELL_VOLTAGE_FROZEN,
    Fault.TEMPERATURE_FROZEN,
    Fault.TEMPERATURE_RISE,
    Fault.TEMPERATURE_SPREAD,
    Fault.TEMPERATURE_NEIGHBOUR,
    Fault.TEMPERATURE_MODEL,
    Fault.MODEL_RESIDUAL,
    Fault.CELL_SAG,
    Fault.CELL_LEAK,
    Fault.HEAT_RESIDUAL,
)
"""Faults whose value is 0 where everything is as expected, and large where it is not."""

LEAST = 0.05


def held(values: npt.NDArray[np.floating], steps: int) -> float:
    """The largest value that was reached in each of so many `steps` in a row; what is no number counts as 0."""
    low = np.nan_to_num(values, nan=0.0)
    have = 1
    while have < steps:
        shift = min(have, steps - have)
        low = np.minimum(low[:-shift], low[shift:])
        have += shift
    return float(low.max(initial=0.0))


def margins(log: Log, rows: Iterable[Row], end: int, period_s: float) -> dict[str, float]:
    """Before step `end`: of each warning of `COMPARED` the share of its threshold that held for its time, if 5 % did.

    1 is the warning. The largest comes first.
    """
    found: dict[str, float] = {}
    for row in rows:
        if row.severity == Severity.WARNING and row.fault in COMPARED:
            steps = max(math.ceil(row.set_s / period_s - 1e-6), 1)
            share = held(log.value[:end, row.fault], steps) / row.threshold
            if share >= LEAST:
                found[row.fault.name.lower()] = share
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def told(found: dict[str, float]) -> str:
    """`margins` as they stand in the results: `heat_residual 0.84, cell_sag 0.21`."""
    return ", ".join(f"{name} {share:.3f}" for name, share in found.items())


def nearest(samples: Iterable[tuple[str, str | None]]) -> list[dict[str, object]]:
    """Of each fault the sample that came nearest, the nearest first. `samples`: id, and what `told` made of it."""
    best: dict[str, tuple[float, str]] = {}
    for id_, text in samples:
        for item in text.split(", ") if text else ():
            name, share = item.rsplit(" ", 1)
            if float(share) > best.get(name, (0.0, ""))[0]:
                best[name] = float(share), id_
    order = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
    return [{"fault": name, "share": share, "id": id_} for name, (share, id_) in order]
