"""A rack whose cells are looked at for sudden sags."""

from __future__ import annotations

from typing import Any

import numpy as np

from bms.core import sudden as d
from bms.core.faults import Fault
from hal.contract import NO_INDEX

F = Fault
f4 = np.float32
CELL = 13


class Rack:
    """A rack (`SignalBench`) that is discharged at 280 A, and its sudden sags."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        n = bench.info.n_cells
        self.state = d.SuddenState(
            *(np.zeros(n if f.dims == "cells" else int(f.dims), np.dtype(f.kind)) for f in d.STATE_FIELDS)
        )
        d.sudden_init(self.state)
        bench.head["current_a"] = 280.0
        bench.soc_std[:] = 0.0
        bench.resistance_std[:] = 0.0  # known

    def step(self, dt_s: float = 1.0, before_v: float = 0.0) -> float:
        """What CELL_SAG is then; `before_v` is what was found of it in the same step."""
        b = self.bench
        b.look(dt_s)
        b.values[F.CELL_SAG], b.places[F.CELL_SAG] = before_v, NO_INDEX
        d.sudden_step(
            b.config, b.state, self.state, b.estimator, b.seen, b.model_v, b.soc, b.soc_std, b.resistance,
            b.resistance_std, b.values, b.places, f4(dt_s),
        )  # fmt: skip
        return float(b.value(F.CELL_SAG))

    def run(self, seconds: float, *sunk_v: float, cell: int = CELL) -> float:
        """Steps of a second; the cells from `cell` on are `sunk_v` below the others, which read 3.3 V."""
        self.bench.m.cell_v[:] = 3.3
        for k, volt in enumerate(sunk_v):
            self.bench.m.cell_v[cell + k] = 3.3 - volt
        for _ in range(round(seconds)):
            self.step()
        return float(self.bench.value(F.CELL_SAG))
