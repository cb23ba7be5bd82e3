"""How long does a campaign take, and what does a worker more bring?

Run with `python bench/campaign.py` (two minutes on two cores; `--samples 100` for seconds): samples of ten minutes of a
rack of 416 cells with internal shorts of all severities, three ages, drawn as a campaign draws them, on one process and
on all; start of the processes, judging and results in Parquet included. 1,000 of them are to take less than ten minutes
on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, and before anything imports numpy

from tables import Table

from bms.trial import campaign, campaign_pool, pool
from bms.trial.campaign_store import Store

TEN_MINUTES = 600.0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    Table.add_arguments(parser)
    args = parser.parse_args()
    shorts = campaign.load("short_circuits", n=max(args.samples // 3, 1))
    earlier = tuple(
        replace(vary, numbers=(60.0, TEN_MINUTES / 2)) if vary.name == "at_s" else vary for vary in shorts.varied
    )
    base = {**shorts.base, "run": {**shorts.base["run"], "duration": TEN_MINUTES}}
    shorts = replace(shorts, base=base, varied=earlier)
    pool.prepare(shorts.racks(), "jit", quiet=True)
    table = Table("campaign", f"Campaign of {shorts.total} samples, ten minutes of 416 cells each", "s")
    first_s = 0.0
    for jobs in dict.fromkeys((1, os.cpu_count() or 1)):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            store = Store(Path(folder), shorts, {}, resume=False)
            with campaign_pool.progress(shorts.total) as told:

                def done(row: campaign_pool.Row, store: Store = store, told: campaign_pool.Done = told) -> None:
                    store.add(row)
                    told(row)

                campaign_pool.run_local(shorts, range(shorts.total), jobs, "jit", done)
            store.finish()
            wall_s = time.perf_counter() - begun
        first_s = first_s or wall_s
        name = f"{jobs} process{'es' if jobs > 1 else ''}"
        table.row(name, wall_s, f"{shorts.total * TEN_MINUTES / wall_s:,.0f} s/s, {first_s / wall_s:.2f} times")
    table.finish(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
