"""How far off is the estimated state of charge, on measured cells and under sensor errors, and does it know how far?

Run with `python bench/accuracy.py` (a minute): identifies each cell from the laboratory data in ../shared/data,
estimates every dynamic file under the conditions of `bms.lab.conditions`, and prints the worst file and sign beside the
bar. With `--hold-out`, each dynamic file is estimated by a cell identified from the others.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, and before anything imports numpy

import numpy as np

from bms.cells import CellParameters
from bms.lab.assemble import assemble
from bms.lab.conditions import Result, calibration, judge, worst
from bms.lab.curves import as_columns, read_dynamic, read_slow
from bms.lab.trace import Trace, read_trace

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@dataclass(frozen=True)
class Set:
    """Files of one cell, and the bars in per cent SoC: condition -> (RMSE, maximum)."""

    chemistry: str
    ocv: tuple[str, ...]
    dynamic: tuple[str, ...]
    judged: tuple[str, ...]
    bars: dict[str, tuple[float, float]]


SETS = {
    "a123": Set(
        "lfp",
        tuple(f"a123/ocv_{t}.csv.gz" for t in ("N25", "N15", "N05", "P05", "P15", "P25", "P35", "P45")),
        tuple(f"a123/dyn_{t}.csv.gz" for t in ("N15", "P05", "P25", "P45")),
        tuple(f"a123/dyn_{t}.csv.gz" for t in ("P05", "P25", "P45")),  # the bars are for -5..45 degC
        {"a": (0.5, 1.2), "c+": (0.9, 3.0), "c-": (2.0, 6.2), "d": (1.1, 2.3), "e": (1.2, 2.3), "f": (2.1, 4.2)},
    ),
    "na_fast": Set(
        "na_nfpp",
        ("dfn/na_fast_pocv_C25.csv.gz",),
        ("dfn/na_fast_hppc.csv.gz", "dfn/na_fast_us06_v2g.csv.gz"),
        ("dfn/na_fast_hppc.csv.gz", "dfn/na_fast_us06_v2g.csv.gz"),
        {"a": (0.5, 1.5), "d": (0.7, 2.0), "e": (0.8, 2.5), "f": (1.0, 3.0)},
    ),
    "na": Set(
        "na_nfpp",
        ("dfn/na_pocv_C100.csv.gz",),
        ("dfn/na_hppc.csv.gz", "dfn/na_us06_v2g.csv.gz"),
        ("dfn/na_hppc.csv.gz", "dfn/na_us06_v2g.csv.gz"),
        {"a": (0.8, 3.0), "d": (2.5, 7.0), "f": (2.8, 8.0)},
    ),
    "lfp": Set(
        "lfp",
        ("dfn/lfp_pocv_C25.csv.gz",),
        ("dfn/lfp_hppc.csv.gz", "dfn/lfp_us06_v2g.csv.gz"),
        ("dfn/lfp_hppc.csv.gz", "dfn/lfp_us06_v2g.csv.gz"),
        {"a": (0.6, 1.5), "d": (1.5, 3.5), "f": (2.0, 4.5)},
    ),
}


def identified(data: Path, name: str, without: tuple[str, ...] = ()) -> CellParameters:
    """The cell of the set `name`, from its files under `data` without some of the dynamic ones."""
    one = SETS[name]
    slow = [read_slow(path, as_columns(data / path)) for path in one.ocv]
    slowest = min(slow, key=lambda s: (s.rate_c, s.name))
    tests = [read_dynamic(path, as_columns(data / path), slowest)[0] for path in one.dynamic if path not in without]
    cell, _ = assemble(slow, tests, name=name, chemistry=one.chemistry, source="bench")
    return cell


@lru_cache(maxsize=32)
def trace(path: Path) -> Trace:
    """The trace at `path`, read once."""
    return read_trace(path)


def results(data: Path, name: str, cell: CellParameters, files: tuple[str, ...] = ()) -> list[Result]:
    """All conditions that the set has bars for, over `files` (default: those to be judged)."""
    one = SETS[name]
    keys = "".join(dict.fromkeys(key[0] for key in one.bars))
    return judge(cell, ((path, trace(data / path)) for path in files or one.judged), keys)


def table(name: str, found: list[Result]) -> str:
    """Lines of the table for one set."""
    lines = []
    for key, score in worst(found).items():
        rmse, largest = SETS[name].bars[key]
        same = [r for r in found if r.condition.key == key]
        at = same[int(np.argmax([r.score.rmse / rmse + r.score.max_error / largest for r in same]))]
        verdict = "met" if 100 * score.rmse <= rmse and 100 * score.max_error <= largest else "MISSED"
        lines.append(
            f"{name:8} {key:2}  {100 * score.rmse:5.2f} / {100 * score.max_error:5.2f}   {rmse:4.1f} / {largest:3.1f}  "
            f"{verdict:6} {100 * score.coverage:6.2f}  {100 * score.mean_std:5.2f}   "
            f"{Path(at.name).name}, {at.condition.label}"
        )
    return "\n".join(lines)


def main() -> int:
    if not DATA.is_dir():
        print(f"skipped: laboratory data not found at {DATA}")
        return 0
    hold_out = "--hold-out" in sys.argv[1:]
    print("per cent SoC, worst file and sign of each; coverage = share of samples within 3 sigma")
    print(f"{'data':8} {'':2}  {'RMSE':>5} / {'max':>5}   {'bar':>10}  {'':6} {'cover':>6}  {'sigma':>5}   worst")
    everything: list[Result] = []
    for name, one in SETS.items():
        found: list[Result] = []
        if hold_out:
            inner = (
                one.judged if name != "a123" else one.judged[:-1]
            )  # beyond the hottest there is nothing to learn from
            for path in inner:
                found += results(DATA, name, identified(DATA, name, (path,)), (path,))
        else:
            found = results(DATA, name, identified(DATA, name))
        print(table(name, found))
        everything += found
    print(f"mean sigma over RMSE, pooled: {calibration(everything):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
