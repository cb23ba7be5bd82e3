"""How near does a rack get to its thresholds when it takes all it may, and how much does that leave unused?

Run with `python bench/limits.py` (some minutes). A twin with spread, noise and sensor errors is asked for far more than
it can give, first down to empty, then up to full, by a PCS that takes exactly the limit in force; nothing else is
tuned. For each rack and temperature, in each direction:

- how far the worst cell voltage (measured) stayed from v_min or v_max: below 0 it was passed, a fatal fault needs
  100 mV or 50 mV more, for 2 s;
- which share of the energy the same rack gives (takes) when a controller that knows everything holds the weakest cell at
  its voltage limit: as fast, at the same rating and derating. Timid limits lose it;
- the faults that appeared.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bms import cells
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.racks.config import default
from bms.racks.record import record
from hal.backends.simulated import SimulatedRack
from hal.contract import Command, Constraint, Measurement, RackState, Severity, Truth

RACKS = ("lfp_280", "na_185", "nmc_ev")
TEMPERATURES = (-10.0, 0.0, 10.0, 25.0, 45.0)


@dataclass
class Clock:
    """A clock that the loop sets."""

    time_s: float = 0.0

    def now_s(self) -> float:
        """Seconds since the start."""
        return self.time_s


@dataclass
class Course:
    """What happened in one direction."""

    closest_v: float = np.inf  # of a measured cell voltage to v_min or v_max
    moved: float = 0.0  # charge, as a share of the capacity
    seconds: float = 0.0
    end_soc: float = np.nan  # true, of the cell that is nearest to the end
    severity: int = 0
    faults: set[int] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)  # steps for which each constraint was the one in force
    trace: list[tuple[float, ...]] = field(default_factory=list)


def follow(
    name: str, degc: float, sign: float, *, n_series: int = 16, soc: float = 0.5, known: bool = True,
    seconds: float = 4 * 3600.0, dt_s: float = 1.0, seed: int = 1, settings: dict[str, Any] | None = None,
    rack: dict[str, Any] | None = None,
) -> Course:  # fmt: skip
    """Take all that the limit in force allows, in one direction, until there is nothing left."""
    cell = cells.load(name)
    clock = Clock()
    twin = SimulatedRack(
        name,
        clock=clock,
        options={
            "rack": {"n_series": n_series, "module_groups": n_series, "initial_soc": soc, "initial_degc": degc,
                     "seed": seed, **(rack or {})},
            "environment": {"ambient_degc": degc, "coolant_min_degc": degc, "coolant_max_degc": degc},
            "duty": {"kind": "constant", "current_a": sign * 1e5, "start_s": 20.0},
        },
    )  # fmt: skip
    info = twin.info
    config = default(cell, info)
    if settings:
        config = replace(config, limits=replace(config.limits, **settings))
    controller = Controller(
        record(config, info),
        initial_state(record(config, info), soc, 0.02 if known else 0.1),
        Measurement(info.n_cells, info.n_sensors),
        Command(info.n_cells, info.n_sensors),
    )
    truth = Truth(info.n_cells, info.n_sensors)
    edge = cell.v_min if sign > 0 else cell.v_max
    course = Course()
    idle_s = 0.0
    with twin:
        for _ in range(int(seconds / dt_s)):
            clock.time_s += dt_s
            twin.read(controller.measurement)
            controller.step(Request.CONNECT, dt_s)
            command = controller.command
            twin.write(command)
            twin.truth(truth)
            head = command.head[0]
            course.severity = max(course.severity, int(head["severity"]))
            for words, tier in ((command.fault_info, 1), (command.fault_warning, 2), (command.fault_fatal, 3)):
                for word in range(len(words)):
                    for bit in range(32):
                        if int(words[word]) >> bit & 1:
                            course.faults.add((32 * word + bit) * 10 + tier)
            if head["state"] != RackState.CONNECTED or clock.time_s < 25.0:
                if clock.time_s > 60.0:
                    break
                continue
            current_a = float(truth.head["current_a"][0])
            cell_v = controller.measurement.cell_v
            course.closest_v = min(course.closest_v, float((sign * (cell_v - edge)).min()))
            course.moved += sign * current_a * dt_s / 3600.0 / info.capacity_ah
            course.seconds = clock.time_s
            reason = Constraint(command.reason[8 if sign > 0 else 9]).name
            course.seen[reason] = course.seen.get(reason, 0) + 1
            limit = float(head["limit_discharge_a" if sign > 0 else "limit_charge_a"])
            course.trace.append(
                (clock.time_s, current_a, limit, float((sign * (cell_v - edge)).min()), float(truth.soc.min()),
                 float(truth.soc.max()), float(head["soc_min"]), float(head["soc_max"]), float(head["soc_std"]))
            )  # fmt: skip
            idle_s = idle_s + dt_s if abs(current_a) < 0.01 * info.capacity_ah else 0.0
            if idle_s > 120.0 and clock.time_s > 200.0:
                break
        course.end_soc = float(truth.soc.min() if sign > 0 else truth.soc.max())
    return course


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--racks", nargs="*", default=list(RACKS))
    parser.add_argument("--degc", nargs="*", type=float, default=list(TEMPERATURES))
    parser.add_argument("--dt", type=float, default=1.0)
    parser.add_argument("--cells", type=int, default=16)
    options = parser.parse_args()
    print("rack       degC  way        closest mV  moved   end SoC  time h  faults; constraint in force")
    for name in options.racks:
        for degc in options.degc:
            for sign in (1.0, -1.0):
                start = time.perf_counter()
                c = follow(name, degc, sign, n_series=options.cells, dt_s=options.dt)
                why = ", ".join(f"{k} {v * options.dt:.0f} s" for k, v in sorted(c.seen.items(), key=lambda x: -x[1])[:4])
                print(
                    f"{name:10s} {degc:4.0f}  {'discharge' if sign > 0 else 'charge   '} {1e3 * c.closest_v:9.1f} "
                    f"{100 * c.moved:6.1f}% {100 * c.end_soc:7.1f}% {c.seconds / 3600:7.2f}  "
                    f"{Severity(c.severity).name} {sorted(c.faults)}; {why}  [{time.perf_counter() - start:.0f} s]"
                )


if __name__ == "__main__":
    main()
