"""Where does the time of a control step go, and how punctual is the loop?

Run with `python bench/loop.py` (a minute).

- A step of a 416-cell rack in its parts, microseconds: the twin read, the core (estimator, control, all there is), the
  command written, the step recorded; the whole loop as fast as it can, the best of several rounds.
- The core called alone, as a program in C would call it: its time must stay below 25 us.
- A loop at 100 Hz on this computer's clock: how late each step begins after its slot, and what the collector did.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tables import Table

from bms.core.machine_table import Request
from bms.core.step import Controller
from bms.runtime.clock import LoopClock, RealClock, VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.recording import Recorder, header_of
from bms.runtime.run import make_controller, open_rack
from bms.runtime.scenario import Scenario

CELL, CELLS, PERIOD_S = "lfp_280", 416, 0.01
PARTS = {"read": "read_s", "core": "decide_s", "write": "write_s", "record": "record_s"}


def rack_and_controller(n_series: int, clock: LoopClock | None = None) -> tuple[Any, Controller, Any]:
    """An open twin of so many cells with its controller, and their clock."""
    clock = clock if clock is not None else VirtualClock()
    scenario = Scenario(rack=f"sim:{CELL}", cell=CELL, tables={"rack": {"n_series": n_series}})
    rack = open_rack(scenario, clock)
    rack.open()
    return rack, make_controller(scenario, rack, clock), clock


def parts_of_a_step(folder: Path, rounds: int, steps: int = 2000) -> dict[str, float]:
    """Seconds of each part per step: the fastest round of each."""
    best: dict[str, float] = {}
    for k in range(rounds):
        rack, controller, clock = rack_and_controller(CELLS)
        recorder = Recorder(folder / f"{k}.rec", header_of(rack.info, controller, {}), CELLS, rack.info.n_sensors)
        loop = Loop(rack, controller, clock, 0.1, recorder=recorder)
        start = time.perf_counter()
        stats = loop.run(0.1 * steps)
        found = {name: getattr(stats, key) / stats.steps for name, key in PARTS.items()}
        found["the whole step"] = (time.perf_counter() - start) / stats.steps
        recorder.close()
        best = {name: min(value, best.get(name, np.inf)) for name, value in found.items()}
    return best


def core_alone(rounds: int, steps: int = 2000) -> float:
    """Seconds of one control step of a connected rack, called from Python with every measurement new."""
    rack, controller, clock = rack_and_controller(CELLS)
    for _ in range(20):
        clock.wait_until(clock.now_s() + 1.0, lambda: False)
        rack.read(controller.measurement)
        controller.step(Request.CONNECT, 1.0)
        rack.write(controller.command)
    sequence, best = controller.measurement.head["sequence"], np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            sequence[0] += 1
            controller.step(Request.CONNECT, 0.1)
        best = min(best, (time.perf_counter() - start) / steps)
    return best


def lateness(seconds: float) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[int], int]:
    """How late the steps of a 100 Hz loop begin, s; generations collected meanwhile; deadlines missed."""
    clock = RealClock()
    rack, controller, _ = rack_and_controller(CELLS, clock)
    late = np.zeros(round(seconds / PERIOD_S) + 4000)
    loop = Loop(rack, controller, clock, PERIOD_S)
    start_s = clock.now_s()

    def observe(step: int, now_s: float, dt_s: float, truth: Any) -> None:
        late[step - 1] = (now_s - start_s) % PERIOD_S

    loop.observers = (observe,)
    collected: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            collected.append(info["generation"])

    gc.callbacks.append(note)
    start_s = loop._start_s
    stats = loop.run(seconds)
    gc.callbacks.remove(note)
    return late[10 : stats.steps], collected, stats.missed_deadlines


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the 100 Hz loop")
    Table.add_arguments(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = parts_of_a_step(Path(folder), args.rounds)
    whole = found["the whole step"]
    table = Table("loop_parts", f"One control step of {CELLS} cells at 100 ms in the loop", "us")
    for name, value in found.items():
        table.row(name, 1e6 * value, f"{value / whole:.0%}")
    table.finish(args)

    core = core_alone(args.rounds)
    table = Table("loop_core", f"The core alone, {CELLS} cells", "us")
    table.row("step", 1e6 * core, f"{core / 25e-6:.2f} x 25 us", f"{1e9 * core / CELLS:.1f} ns per cell")
    table.finish(args)

    late, collected, missed = lateness(args.seconds)
    table = Table("loop_jitter", f"A loop at 100 Hz for {args.seconds:g} s: a step begins late by", "us")
    for name, share in (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)):
        table.row(name, 1e6 * float(np.percentile(late, share)), "")
    table.row("deadlines missed", float(missed), f"of {late.size:,} steps")
    table.row("collections", float(len(collected)), f"{sum(g == 2 for g in collected)} of them full")
    table.finish(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
