"""How near does a rack get to its thresholds when it takes all it may, and how much does that leave unused?

Run with `python bench/limits.py` (some minutes). A twin with spread, noise and sensor errors is asked for far more than
it can give, first down to empty, then up to full, by a PCS that takes exactly the limit in force; nothing else is
tuned. For each rack and temperature, in each direction:

- how far the worst cell voltage stayed from v_min or v_max, as measured (cells that are bled and their neighbours
  apart, whose sense wires carry the bleeding current): below 0 it was passed; a fatal fault needs 100 mV or 50 mV more;
- the charge moved, and the true SoC of the weakest cell in the end;
- how much charge had been moved when a controller without doubts had moved 95 % of it: the same rack, rating and
  derating by temperature, but the weakest cell is held at its voltage limit from second to second, and limits rise at
  once. What is missing to 100 % is what caution costs;
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
from hal.contract import HORIZONS_S, Command, Constraint, Measurement, RackState, Severity, Truth

RACKS = ("lfp_280", "na_185", "nmc_ev")
TEMPERATURES = (-10.0, 0.0, 10.0, 25.0, 45.0)
FROM_CELLS = (Constraint.CELL_VOLTAGE, Constraint.MEASURED_VOLTAGE, Constraint.RISE, Constraint.SOC_DERATING)


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
    rack: dict[str, Any] | None = None, ideal: bool = False,
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
    rated_a = (cell.limits.max_discharge_c if sign > 0 else cell.limits.max_charge_c) * info.capacity_ah
    # a little more than the ohmic resistance, so that a step never goes beyond
    ohm = 1.3 * float(np.interp(degc, cell.degc, cell.r0_ohm.max(axis=1))) / info.n_parallel
    bleeding = np.zeros(info.n_cells, np.uint8)
    course = Course()
    idle_s = 0.0
    with twin:
        for _ in range(int(seconds / dt_s)):
            clock.time_s += dt_s
            twin.read(controller.measurement)
            controller.step(Request.CONNECT, dt_s)
            command = controller.command
            head = command.head[0]
            spare_v = sign * (controller.measurement.cell_v - edge)
            if ideal and head["state"] == RackState.CONNECTED:
                now_a = sign * float(controller.measurement.head["current_a"][0])
                held_a = now_a + float(spare_v.min()) / ohm
                k = 8 if sign > 0 else 9
                most_a = float(head["limit_discharge_a" if sign > 0 else "limit_charge_a"])
                if command.reason[k] in FROM_CELLS:
                    most_a = float(rated_a)
                most_a = max(min(most_a, held_a), 0.0)
                head["limit_discharge_a" if sign > 0 else "limit_charge_a"] = most_a
                head["limit_discharge_w" if sign > 0 else "limit_charge_w"] = 1e9
            twin.write(command)
            twin.truth(truth)
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
            bled = np.convolve(bleeding, [1, 1, 1], "same") > 0
            bleeding = command.balance.copy()
            course.closest_v = min(course.closest_v, float(np.where(bled, np.inf, spare_v).min()))
            course.moved += sign * current_a * dt_s / 3600.0 / info.capacity_ah
            course.seconds = clock.time_s
            reason = Constraint(command.reason[8 if sign > 0 else 9]).name
            course.seen[reason] = course.seen.get(reason, 0) + 1
            limit = float(head["limit_discharge_a" if sign > 0 else "limit_charge_a"])
            course.trace.append(
                (clock.time_s, current_a, limit, float(spare_v.min()), float(truth.soc.min()),
                 float(truth.soc.max()), float(head["soc_min"]), float(head["soc_max"]), float(head["soc_std"]))
            )  # fmt: skip
            idle_s = idle_s + dt_s if abs(current_a) < 0.01 * info.capacity_ah else 0.0
            if idle_s > 120.0 and clock.time_s > 200.0:
                break
        course.end_soc = float(truth.soc.min() if sign > 0 else truth.soc.max())
    return course


def promised(name: str, degc: float, sign: float, horizon: int, *, soc: float, seed: int = 1) -> tuple[float, float]:
    """Take exactly the current that was published for a horizon, for as long as that: what is left to the limit, V.

    Returns that current as well, as a share of the rated one. The rack has carried 0.1 of the rated one for 10 min.
    """
    cell = cells.load(name)
    clock = Clock()
    twin = SimulatedRack(
        name,
        clock=clock,
        options={
            "rack": {"n_series": 16, "module_groups": 16, "initial_soc": soc, "initial_degc": degc, "seed": seed},
            "environment": {"ambient_degc": degc, "coolant_min_degc": degc, "coolant_max_degc": degc},
            "duty": {"kind": "constant", "current_a": sign * 1e5, "start_s": 20.0},
        },
    )
    info = twin.info
    config = record(default(cell, info), info)
    size = info.n_cells, info.n_sensors
    controller = Controller(config, initial_state(config, soc, 0.01), Measurement(*size), Command(*size))
    edge = cell.v_min if sign > 0 else cell.v_max
    rated_a = (cell.limits.max_discharge_c if sign > 0 else cell.limits.max_charge_c) * info.capacity_ah
    key = "limit_discharge_a" if sign > 0 else "limit_charge_a"
    held_a, end_s, spare = 0.0, np.inf, np.inf
    with twin:
        while clock.time_s < end_s:
            clock.time_s += 1.0
            twin.read(controller.measurement)
            controller.step(Request.CONNECT, 1.0)
            head = controller.command.head[0]
            if clock.time_s < 620.0:
                head[key] = min(head[key], 0.1 * rated_a)
            else:
                if held_a == 0.0:
                    held_a = float(controller.command.horizon_a[horizon + (0 if sign > 0 else 4)])
                    end_s = clock.time_s + HORIZONS_S[horizon] if held_a > 0.0 else clock.time_s
                else:
                    spare = min(spare, float((sign * (controller.measurement.cell_v - edge)).min()))
                head[key], head[key.replace("_a", "_w")] = held_a, 1e9
            twin.write(controller.command)
    return spare, held_a / rated_a


def share(course: Course, ideal: Course) -> float:
    """Charge moved when `ideal` has moved 95 % of all its charge, as a share of that."""
    if ideal.moved < 0.01:
        return float("nan")
    times = np.array([row[0] for row in ideal.trace])
    moved = np.cumsum([abs(row[1]) for row in ideal.trace])
    at_s = times[np.searchsorted(moved, 0.95 * moved[-1])]
    mine = sum(abs(row[1]) for row in course.trace if row[0] <= at_s)
    return float(mine / (0.95 * moved[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--racks", nargs="*", default=list(RACKS))
    parser.add_argument("--degc", nargs="*", type=float, default=list(TEMPERATURES))
    parser.add_argument("--dt", type=float, default=1.0)
    parser.add_argument("--cells", type=int, default=16)
    options = parser.parse_args()
    print("rack       degC  way        closest mV  moved  end SoC    of ideal  time h  faults; constraint in force")
    for name in options.racks:
        for degc in options.degc:
            for sign in (1.0, -1.0):
                start = time.perf_counter()
                c = follow(name, degc, sign, n_series=options.cells, dt_s=options.dt)
                best = follow(name, degc, sign, n_series=options.cells, dt_s=options.dt, ideal=True)
                why = ", ".join(
                    f"{k} {v * options.dt:.0f} s" for k, v in sorted(c.seen.items(), key=lambda x: -x[1])[:4]
                )
                print(
                    f"{name:10s} {degc:4.0f}  {'discharge' if sign > 0 else 'charge   '} {1e3 * c.closest_v:9.1f} "
                    f"{100 * c.moved:6.1f}% {100 * c.end_soc:7.1f}% {100 * share(c, best):8.1f}% "
                    f"{c.seconds / 3600:7.2f}  "
                    f"{Severity(c.severity).name} {sorted(c.faults)}; {why}  [{time.perf_counter() - start:.0f} s]"
                )
    print("\nrack       degC  way        from   held as published: horizon, share of the rated current, least mV left")
    for name in options.racks:
        for degc in options.degc:
            for sign, socs in ((1.0, (0.06, 0.12, 0.25)), (-1.0, (0.8, 0.9))):
                for soc in socs:
                    cases = [promised(name, degc, sign, h, soc=soc) for h in range(4)]
                    text = "  ".join(
                        f"{HORIZONS_S[h]:.0f} s {100 * most:.0f}% {1e3 * left:.0f}"
                        if most > 0
                        else f"{HORIZONS_S[h]:.0f} s 0%"
                        for h, (left, most) in enumerate(cases)
                    )
                    print(
                        f"{name:10s} {degc:4.0f}  {'discharge' if sign > 0 else 'charge   '} {100 * soc:4.0f}%  {text}"
                    )


if __name__ == "__main__":
    main()
