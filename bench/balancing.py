"""How many days and how much energy does it take to bring a rack with 5 % of SoC spread below 1 %?

Run with `python bench/balancing.py [--cells 416] [--days 12]` (minutes): a twin of the LFP rack, in closed loop with
the whole controller at 10 s, on one full cycle a day at 0.2 C. Its cells start with SoC spread over 5 % (six standard
deviations), 1 % of spread in capacity, and the usual errors of the sensors. Each line is the end of a day's charge,
where balanced cells are alike; further down the spread of the capacities shows, which no balancing takes away.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, and before anything imports numpy

import numpy as np

from bms.cells import load
from bms.core.balancing import SURE_AH
from bms.core.estimator_setup import soc_prior
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.racks import config as racks
from bms.racks.record import record
from hal.backends.simulated import SimulatedRack
from hal.contract import Command, Measurement, Truth

HOUR_S, DAY_S = 3600, 86400
LOOK_S = 11 * HOUR_S  # of each day: charged, and rested


class _Clock:
    time_s = 0.0

    def now_s(self) -> float:
        """The time of the run."""
        return self.time_s


def duty(path: Path, days: int, power_w: float) -> None:
    """One full cycle a day; what does not fit into the limits that the controller publishes is not taken."""
    rows = ["time_s,power_w", "0,0"]
    for day in range(days + 1):
        for hours, c_rate in ((0, -0.2), (9, 0.0), (12, 0.2), (17, 0.0)):
            rows.append(f"{day * DAY_S + hours * HOUR_S + 60},{c_rate * power_w}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def balance(n_cells: int, days: int, spread: float = 0.05, step_s: float = 10.0) -> list[tuple[float, float, float]]:
    """(spread of SoC, its standard deviation, energy burnt in Wh) at the end of each day's charge."""
    cell, clock, lines = load("lfp_280"), _Clock(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "duty.csv"
        duty(path, days, n_cells * cell.capacity_ah * cell.ocv(0.5))
        # SoC is drawn from a normal distribution that is cut at three deviations
        options = {
            "rack": {"n_series": n_cells, "initial_soc": 0.5, "soc_spread": spread / 6.0},
            "duty": {"kind": "csv", "path": str(path)},
        }
        with SimulatedRack("lfp_280", options=options, clock=clock) as twin:
            info = twin.info
            measurement, command = (kind(info.n_cells, info.n_sensors) for kind in (Measurement, Command))
            truth = Truth(info.n_cells, info.n_sensors)
            twin.read(measurement)
            config = record(racks.default(cell, info), info)
            soc, std = soc_prior(cell, measurement.cell_v, measurement.sensor_degc[info.sensor_of_cell])
            controller = Controller(config, initial_state(config, soc, std), measurement, command)
            while clock.time_s < days * DAY_S:
                # contactors and precharge want to be watched; from then on nothing happens within seconds
                clock.time_s += 1.0 if clock.time_s < 120 else step_s
                before_s = clock.time_s - step_s
                twin.read(measurement)
                controller.step(Request.CONNECT, 1.0 if clock.time_s <= 120 else step_s)
                twin.write(command)
                if before_s % DAY_S < LOOK_S <= before_s % DAY_S + step_s:
                    twin.truth(truth)
                    known = float(controller.state.balancing_number[SURE_AH]) / info.capacity_ah
                    line = float(np.ptp(truth.soc)), float(truth.soc.std()), controller.balancing_wh
                    lines.append(line)
                    print(
                        f"| {len(lines)} | {100 * line[0]:.2f} | {100 * line[1]:.2f} | {100 * known:.2f} "
                        f"| {int(command.balance.sum())} | {line[2]:.0f} |",
                        flush=True,
                    )
    return lines


def main() -> None:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=416)
    parser.add_argument("--days", type=int, default=12)
    options = parser.parse_args()
    started = time.perf_counter()
    print("| day | SoC spread % | its deviation % | surely known % | bleeding now | burnt Wh |\n" + "| --- " * 6 + "|")
    lines = balance(options.cells, options.days)
    below = [k + 1 for k, line in enumerate(lines) if line[0] < 0.01]
    print(f"below 1 % after {below[0]} days" if below else "not below 1 %", f"({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
