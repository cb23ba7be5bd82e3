"""How long from the command to the first control step: all to compile, with kept programs, from a library?

Run with `python bench/startup.py`. The command is `bms run` on the twin of 416 cells; the clock runs from the start of
the process to the line that the loop prints after its first step. Prints a table.
Bars: cold 25 s, kept 1.5 s, library 0.4 s. For comparison, on a busy machine: Python with numpy and nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import Table

BARS_S = {"cold": 25.0, "kept": 1.5, "library": 0.4, "library, without numba and llvmlite": 0.4}
NUMPY = "import numpy"

BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
from bms.cli import main
sys.exit(main(sys.argv[1:]))
"""


def first_step_s(cache: Path, words: list[str], *options: str) -> float:
    """Seconds from the start of a process, `words`, to its first control step."""
    environment = {**os.environ, "RACKBMS_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile("w+") as told:
        command = [*words, "run", "--duration", "5", "--no-report", "--out", out, *options]
        started = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=told, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("00:00:00"):
                    taken = time.perf_counter() - started
                    process.communicate()
                    return taken
        told.seek(0)
        raise RuntimeError(f"the run ended without a step: {told.read()}")


def measure(runs: int, cold_runs: int) -> dict[str, list[float]]:
    """Seconds to the first step of every run, by kind of start."""
    plain, blocked = [sys.executable, "-m", "bms"], [sys.executable, "-c", BLOCKED]
    taken: dict[str, list[float]] = {kind: [] for kind in (*BARS_S, NUMPY)}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(cold_runs):
            taken["cold"].append(first_step_s(Path(folder) / f"cold-{k}", plain))
        kept = Path(folder) / "cold-0"
        build = [*plain, "build", "--target", "host", "--twin", "-o", folder]
        environment = {**os.environ, "RACKBMS_CACHE_DIR": str(kept)}
        paths = subprocess.run(build, env=environment, capture_output=True, text=True, check=True).stdout.split()
        engine = "--engine", "lib:" + ",".join(path for path in paths if not path.endswith(".h"))
        for _ in range(runs):  # in turns, so that a busy moment meets them all
            taken["kept"].append(first_step_s(kept, plain))
            taken["library"].append(first_step_s(kept, plain, *engine))
            taken["library, without numba and llvmlite"].append(first_step_s(kept, blocked, *engine))
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import numpy"], check=True)
            taken[NUMPY].append(time.perf_counter() - started)
    return taken


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7, help="starts of each kind (default: 7)")
    parser.add_argument("--cold-runs", type=int, default=2, help="starts with everything to compile (default: 2)")
    Table.add_arguments(parser)
    args = parser.parse_args()
    table = Table("startup", "From the command to the first control step", "s")
    for kind, values in measure(args.runs, args.cold_runs).items():
        middle = statistics.median(values)
        ratio = f"{middle / BARS_S[kind]:.2f} x the bar of {BARS_S[kind]:g} s" if kind in BARS_S else ""
        table.row(kind, middle, ratio, f"median of {len(values)}, {min(values):.2f} to {max(values):.2f}")
    table.finish(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
