"""How well does the controller know capacity and resistance of aged cells after two weeks of mixed duty?

Run with `python bench/health.py [cell ...]` (minutes): racks of the twin whose cells have aged by known amounts, in
closed loop with the whole controller, which believes at first that they are new. Each day has a full charge, an hour of
frequency regulation at 1 s, a discharge to the end of the window, and partial cycles in between.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, and before anything imports numpy

import numpy as np

from bms.cells import load
from bms.core.estimator_setup import soc_prior
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.racks import config as racks
from bms.racks.record import record
from hal.backends.simulated import SimulatedRack
from hal.contract import Command, Measurement, Truth

HOUR_S, DAY_S = 3600, 86400
FINE = (10 * HOUR_S, 11 * HOUR_S)  # of each day: frequency regulation, in steps of a second

# hour of the day and power in C from then on: a full charge, part of a discharge; a charge, all of a discharge, a bit
BEFORE = ((0, -0.3), (4, -0.12), (6, 0.0), (7, 0.35), (8, 0.0))
AFTER = ((11, -0.25), (12, 0.3), (16, 0.0), (18, -0.2), (20, 0.2), (23, 0.0))


@dataclass
class Aged:
    """What was found and what is true, relative to the cell type, (n_cells,) each."""

    capacity: Any
    capacity_std: Any
    resistance: Any
    resistance_std: Any
    capacity_true: Any
    resistance_true: Any
    soc_error: float  # largest of the last day

    def __str__(self) -> str:
        """One line of the table."""
        off_c, off_r = self.capacity / self.capacity_true - 1.0, self.resistance / self.resistance_true - 1.0
        sigma_c = np.abs(self.capacity - self.capacity_true) / self.capacity_std
        sigma_r = np.abs(self.resistance - self.resistance_true) / self.resistance_std
        return (
            "; ".join(
                f"{what} {100 * off.mean():+5.2f} %, worst {100 * np.abs(off).max():4.2f} % = {sigma.max():3.1f} sigma "
                f"of {100 * std.mean():4.2f} %"
                for what, off, sigma, std in (
                    ("capacity", off_c, sigma_c, self.capacity_std),
                    ("resistance", off_r, sigma_r, self.resistance_std),
                )
            )
            + f"; SoC {100 * self.soc_error:4.1f} %"
        )


class _Clock:
    time_s = 0.0

    def now_s(self) -> float:
        """The time of the run."""
        return self.time_s


def profile(path: Path, days: int, power_w: float, seed: int = 1) -> None:
    """Write the duty as the twin reads it: power at the DC terminals over time; `power_w` is that of 1C."""
    rng = np.random.default_rng(seed)
    rows = ["time_s,power_w", "0,0"]
    for day in range(days + 1):
        start_s, wave = day * DAY_S + 60, 0.0
        for hours, c_rate in BEFORE:
            rows.append(f"{start_s + hours * HOUR_S},{c_rate * power_w}")
        for second in range(*FINE):
            wave = 0.984 * wave + 0.035 * rng.standard_normal()  # 0.2 C with a correlation time of a minute
            rows.append(f"{start_s + second},{(0.05 + wave) * power_w}")
        for hours, c_rate in AFTER:
            rows.append(f"{start_s + hours * HOUR_S},{c_rate * power_w}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _steps(days: int, coarse_s: float) -> Iterator[float]:
    """Lengths of the steps: a second in the minutes around frequency regulation, `coarse_s` elsewhere."""
    time_s = 0.0
    while time_s < days * DAY_S:
        of_day = time_s % DAY_S
        fine = time_s < 120 or FINE[0] <= of_day < FINE[1] + 60
        step_s = 1.0 if fine else coarse_s
        yield step_s
        time_s += step_s


def two_weeks(name: str, rack: Mapping[str, Any], days: int = 14, coarse_s: float = 10.0) -> Aged:
    """Run the twin `name` with the changes `rack` of its table, and look at what its controller believes then."""
    cell = load(name)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "duty.csv"
        n, n_parallel = int(rack.get("n_series", 16)), 2 if name == "nmc_ev" else 1
        profile(path, days, n * n_parallel * cell.capacity_ah * cell.ocv(0.5))
        tables = {
            "rack": {"n_series": n, "initial_soc": 0.95, "soc_spread": 0.003, **rack},
            "duty": {"kind": "csv", "path": str(path)},
        }
        twin = SimulatedRack(name, options=tables, clock=clock)
        with twin:
            info = twin.info
            measurement, command = (kind(info.n_cells, info.n_sensors) for kind in (Measurement, Command))
            truth = Truth(info.n_cells, info.n_sensors)
            twin.read(measurement)
            config = record(racks.default(cell, info), info)
            soc, std = soc_prior(cell, measurement.cell_v, measurement.sensor_degc[info.sensor_of_cell])
            controller = Controller(config, initial_state(config, soc, std), measurement, command)
            worst = 0.0
            for step_s in _steps(days, coarse_s):
                clock.time_s += step_s
                twin.read(measurement)
                controller.step(Request.CONNECT, step_s)
                twin.write(command)
                if clock.time_s > (days - 1) * DAY_S and clock.time_s % 600 < step_s:
                    twin.truth(truth)
                    worst = max(worst, float(np.abs(controller.soc - truth.soc).max()))
            twin.truth(truth)
    found = {
        f"{what}{std}": np.array(controller.state.raw[f"health_{what}{std}"][0])
        for what in ("capacity", "resistance")
        for std in ("", "_std")
    }
    return Aged(
        **found,
        capacity_true=truth.capacity_ah / info.capacity_ah,
        resistance_true=truth.resistance.copy(),
        soc_error=worst,
    )


AGED = (
    {"capacity_factor": 1.0, "resistance_factor": 1.0},
    {"capacity_factor": 0.9, "resistance_factor": 1.3},
    {"capacity_factor": 0.8, "resistance_factor": 1.8},
    {"capacity_factor": 0.9, "resistance_factor": 1.4, "capacity_spread": 0.04, "resistance_spread": 0.12},
)


def main() -> int:
    for name in sys.argv[1:] or ("lfp_280", "na_185", "nmc_ev"):
        for k, rack in enumerate(AGED):
            told = ", ".join(f"{key} {value}" for key, value in rack.items())
            print(f"{name} {told}\n    {two_weeks(name, {'seed': k + 1, **rack})}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
