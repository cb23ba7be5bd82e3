"""How many seconds of scenarios does a second of wall time try?

Run with `python bench/trial.py` (a minute). The library of `bms trial run --all`, in one process and on all processors;
and what a trial of ten minutes costs, from the start of the twin to its verdict, on small and on whole racks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tables import Table

from bms.trial import case, pool
from bms.trial.outcome import run_one

TEN_MINUTES = {
    "16 cells": "sim:lfp_280?n_series=16&module_groups=16&seed=3",
    "416 cells": "sim:lfp_280?seed=3",
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    Table.add_arguments(parser)
    args = parser.parse_args()
    trials = case.load_all(case.library())
    table = Table("trial", "Trials, in scenario-seconds per second of wall time", "s/s")
    for processes in dict.fromkeys((1, os.cpu_count() or 1)):
        begun = time.perf_counter()
        outcomes = pool.run_all([(trial, None) for trial in trials], processes=processes)
        wall_s = time.perf_counter() - begun
        simulated_s = sum(outcome.simulated_s for outcome in outcomes)
        name = f"the library, {len(trials)} trials, {processes} process{'es' if processes > 1 else ''}"
        table.row(name, simulated_s / wall_s, f"{wall_s:.1f} s")
    for name, url in TEN_MINUTES.items():
        fault = {"kind": "interlock_open", "at_s": 300.0}
        row = {"fault": "interlock_open"}
        tables = {"run": {"rack": url, "duration": "10min"}, "fault": [fault], "expect": {"row": [row]}}
        trial = case.parse(tables, "ten_minutes", "bench")[0]
        run_one(trial)
        best_s = min(_timed(trial) for _ in range(args.rounds))
        table.row(f"ten minutes, {name}", trial.scenario.duration_s / best_s, f"{1e3 * best_s:.0f} ms")
    table.finish(args)
    return 0


def _timed(trial: case.Trial) -> float:
    begun = time.perf_counter()
    run_one(trial, curves=False)
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
