"""Which part of a control step takes how long?

Run with `python bench/parts.py` (a minute, most of it compiling).

Each part of the step of a connected 416-cell rack is called over and over from compiled code, on the records as a run
left them: what it takes when nothing is due. Parts that work once a minute or once in a while (decisions of the
balancing, a look at the leaks, cells whose health is due) are spread over their calls: time goes on by 0.1 s a call.
The whole step is measured in the same way; the parts do not add up to it exactly, because alone they find the cache as
they left it.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from loop import rack_and_controller
from parts_kernel import PARTS, repeat
from tables import Table

from bms.core.machine_table import Request

CELLS = 416


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=2000, help="calls in a round")
    Table.add_arguments(parser)
    args = parser.parse_args()
    rack, controller, clock = rack_and_controller(CELLS)
    for k in range(300):
        clock.wait_until(0.1 * k, lambda: False)
        rack.read(controller.measurement)
        controller.step(Request.CONNECT, 0.1)
        rack.write(controller.command)
    kept = controller.state.bytes.copy()
    records = controller.config.bytes, controller.state.bytes, controller.measurement.bytes, controller.command.bytes
    run = repeat.bind(*records)
    found = []
    for what in range(len(PARTS)):
        best = np.inf
        for _ in range(args.rounds):
            controller.state.bytes[:] = kept
            start = time.perf_counter()
            run(what, args.times, 0.1)
            best = min(best, (time.perf_counter() - start) / args.times)
        found.append(best)
    table = Table("parts", f"Parts of a control step of {CELLS} cells at 100 ms, called alone", "us")
    for name, seconds in zip(PARTS, found, strict=True):
        table.row(name, 1e6 * seconds, f"{seconds / found[0]:.0%}")
    table.row("sum of the parts", 1e6 * sum(found[1:]), f"{sum(found[1:]) / found[0]:.0%}")
    table.finish(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
