"""The limits with an estimator that says whatever a test wants it to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bms import cells
from bms.core import estimator_layout as e
from bms.core import power as p
from bms.core.estimator_setup import estimator_config, estimator_state, rows_view
from bms.core.power_setup import PowerSettings, power_config
from bms.core.seen import Seen
from bms.core.views import CommandView
from hal.contract import NO_INDEX, Command, Constraint, RackInfo

f4 = np.float32
NAMES = ("lfp_280", "na_185", "nmc_ev")
CELLS = {name: cells.load(name) for name in NAMES}
ESTIMATORS = {name: estimator_config(CELLS[name]) for name in NAMES}
WIDE = PowerSettings(
    charge_degc=((-60.0, 1.0), (90.0, 1.0)),
    discharge_degc=((-60.0, 1.0), (90.0, 1.0)),
    charge_soc=((0.0, 1.0), (1.0, 1.0)),
    discharge_soc=((0.0, 1.0), (1.0, 1.0)),
    heat_capacity_j_per_k=1e9,
)
"""No derating, no heat: what is left is what the cells bear."""


def plain(array: Any) -> Any:
    """Structured scalars as the kernels take them when they run as plain Python: fields are attributes."""
    return array.view(np.recarray)


@dataclass
class Bench:
    """Limits of a rack whose estimator says whatever a test wants it to say."""

    name: str = "lfp_280"
    n: int = 20
    soc: Any = 0.5
    std: float = 0.003
    degc: Any = 25.0
    settings: PowerSettings = WIDE
    n_parallel: int = 1
    seen: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cell = CELLS[self.name]
        info = RackInfo(
            "test", self.n, 2, self.n_parallel, self.cell.capacity_ah * self.n_parallel, self.name,
            np.zeros(self.n, np.uint16),
        )  # fmt: skip
        self.config = power_config(self.cell, info, self.settings)
        self.estimator = ESTIMATORS[self.name]._replace(scalars=plain(ESTIMATORS[self.name].scalars))
        state = estimator_state(ESTIMATORS[self.name], self.n, self.soc, self.std)
        self.estimate = state._replace(shared=plain(state.shared))
        self.estimate.out.reshape(e.OUT_ROWS, -1)[e.SOC_STD] = self.std
        self.state = p.power_state()
        self.command = Command(self.n, 2)
        self.view = CommandView.of(self.command)
        self.cell_degc = np.full(self.n, self.degc, np.float32)
        v = float(self.cell.ocv(0.5))
        self.measured: dict[str, Any] = {
            "current_a": f4(0.0), "pack_v": f4(self.n * v), "bus_v": f4(0.0), "cell_v_low": f4(v), "cell_v_high": f4(v),
            "cell_v_mean": f4(v), "cell_low_at": 1, "cell_high_at": 2, "degc_low": f4(np.min(self.cell_degc)),
            "degc_high": f4(np.max(self.cell_degc)), "degc_mean": f4(25.0), "sensor_low_at": 0, "sensor_high_at": 1,
            "coolant_in_degc": f4(20.0), "closed": 3, "flow": 0, "complete": 1, "emergency_stop": 0,
        }  # fmt: skip

    def set(self, row: int, values: Any) -> None:
        """One row of the estimator's states, for all cells."""
        rows = rows_view(self.estimate.blocks)[row].reshape(-1)
        block_rows = rows_view(self.estimate.blocks)[row]
        rows[: self.n] = values
        block_rows[:] = rows.reshape(block_rows.shape)
        if row == e.Z:
            self.estimate.out.reshape(e.OUT_ROWS, -1)[e.SOC, : self.n] = np.clip(rows[: self.n], 0.0, 1.0)

    def get(self, row: int) -> np.ndarray:
        return rows_view(self.estimate.blocks)[row].reshape(-1)[: self.n].astype(np.float64)

    def step(self, dt_s: float = 0.1, **seen: Any) -> np.ndarray:
        """One step; returns the eight limits, A."""
        self.measured |= {k: (f4(v) if isinstance(v, float) else v) for k, v in seen.items() if k in self.measured}
        o = {
            "reaction": 0, "fault": int(NO_INDEX), "mode": p.MODE_FULL, "i2t_discharge": 0.0, "i2t_charge": 0.0,
        } | {k: v for k, v in seen.items() if k not in self.measured}  # fmt: skip
        p.power_limits(
            self.config, self.state, self.estimator, self.estimate, Seen(**self.measured), self.cell_degc,
            f4(1.0 / self.n_parallel), int(o["reaction"]), int(o["fault"]), int(o["mode"]), f4(o["i2t_discharge"]),
            f4(o["i2t_charge"]), self.view, f4(dt_s),
        )  # fmt: skip
        return self.command.horizon_a.copy()

    def settle(self, **seen: Any) -> np.ndarray:
        """So many steps that every cell has been asked and every limit has risen."""
        for _ in range(4):
            self.step(100.0, **seen)
        return self.command.horizon_a.copy()

    def reason(self, k: int) -> Constraint:
        return Constraint(self.command.reason[k])

    def now(self) -> tuple[float, float]:
        return float(self.state.number[p.DISCHARGE_A]), float(self.state.number[p.CHARGE_A])
