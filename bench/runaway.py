"""How does a fire go along a module of 280 Ah LFP cells: bare, with cooling, with barriers, and on sodium-ion?

Run with `python bench/runaway.py` (half a minute). The first cell of a full module is heated until it burns; printed is
when each cell ignites (its side reactions heat it by 1 K/s), the hottest neighbour where none does, and an audit of the
energy. These are results of a model with one temperature per cell; docs/runaway.md tells what it assumes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from tables import Table

import hal.backends.twin  # noqa: F401  the twin's machine code comes from the engine
from sim import cell
from sim import layout as Y
from sim.burning import burning
from sim.rack import RackTwin, rack_config

CELLS = 8
HOURS = 6
HEATER_W = 2000.0
TOUCHING_W_PER_K = 0.5  # 71.5 mm at 1 W/(m K) over 0.036 m2, no pad
NO_LIMIT = np.full(4, 1e12)
SPREADS = ("capacity", "resistance", "soc", "degc", "coolant", "self_discharge")


@dataclass(frozen=True)
class Case:
    """One module: what is between its cells, and what cools it."""

    name: str
    cell: str = "lfp_280"
    touching: bool = True
    cooled: bool = False
    barrier_every: int = 0
    side_reactions: str = ""
    soc: float = 1.0


CASES = (
    Case("LFP, cells touch, no cooling"),
    Case("LFP, 3 mm aerogel pads, no cooling", touching=False),
    Case("LFP, cells touch, cooled", cooled=True),
    Case("LFP, 3 mm aerogel pads, cooled", touching=False, cooled=True),
    Case("LFP, cells touch, a barrier of 20 K/W after every cell", barrier_every=1),
    Case("LFP, cells touch, a barrier of 20 K/W after every second", barrier_every=2),
    Case("LFP, cells touch, no cooling, 50 % SoC", soc=0.5),
    Case("layered-oxide sodium-ion, cells touch, no cooling", cell="na_185"),
    Case("layered-oxide sodium-ion, cells touch, cooled", cell="na_185", cooled=True),
    Case("layered-oxide sodium-ion, a barrier of 20 K/W after every cell", cell="na_185", barrier_every=1),
    Case("polyanion sodium-ion, cells touch, no cooling", cell="na_185", side_reactions="na_nfpp"),
)


def module(case: Case) -> RackTwin:
    data = cell.load(case.cell)
    if case.touching:
        data = replace(data, thermal=replace(data.thermal, conduction_w_per_k=TOUCHING_W_PER_K))
    table = {
        "n_series": CELLS,
        "module_groups": CELLS,
        "initial_soc": case.soc,
        "barrier_every": case.barrier_every,
        "side_reactions": case.side_reactions,
        **{f"{name}_spread": 0.0 for name in SPREADS},
    }
    rack = RackTwin(data, rack_config(data, table))
    if not case.cooled:
        rack.string[Y.S_FLOW_W_PER_K] = 0.0
    return rack


def burn(rack: RackTwin) -> None:
    """Heat the first cell until it burns or is at 350 degC, then wait."""
    rack.burn[Y.B_HEATER_W, 0] = HEATER_W
    rack.string[Y.S_AWAKE] = 1.0
    for _ in range(HOURS * 60):
        rack.advance(Y.OPEN, np.zeros(60), False, NO_LIMIT, 1.0)
        if burning(rack).burnt[0, 0] or rack.cells[Y.C_DEGC][0] > 350.0:
            rack.burn[Y.B_HEATER_W, 0] = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    Table.add_arguments(parser)
    args = parser.parse_args()
    times = Table(
        "runaway", f"A module of {CELLS} cells, the first heated with {HEATER_W:g} W: cells that burn", "cells"
    )
    audit = Table("runaway_audit", "Energy of the whole module", "MJ of heat")
    for case in CASES:
        rack = module(case)
        warm_j = rack.thermal_j()
        started = perf_counter()
        burn(rack)
        seconds = perf_counter() - started
        truth, books, s = burning(rack), rack.balance(), rack.string
        at = truth.ignited_s[:, 0] / 60.0
        lit = np.flatnonzero(np.isfinite(at))
        what = "ignition at " + ", ".join(f"{x:.0f}" for x in at[lit]) + " min" if len(lit) else "nothing ignites"
        rest = np.setdiff1d(np.arange(1, CELLS), lit)
        beside = (
            f"the hottest other cell {np.nanmax(truth.hottest_degc[rest]):.0f} degC" if len(rest) else "all of them"
        )
        times.row(case.name, float(len(lit)), what, f"{beside}; {HOURS * 3600 / seconds:,.0f} x real time")
        kept = rack.thermal_j() - warm_j
        unexplained = kept - (books.heat_j - s[Y.S_COOLANT_J] - s[Y.S_AMBIENT_J] - books.vented_j)
        parts = (
            f"side reactions {books.side_j / 1e6:.2f}, heater {books.heater_j / 1e6:.2f}; "
            f"kept {kept / 1e6:.2f}, vented {books.vented_j / 1e6:.2f}, "
            f"coolant {s[Y.S_COOLANT_J] / 1e6:.2f}, air {s[Y.S_AMBIENT_J] / 1e6:.2f}"
        )
        audit.row(
            case.name, books.heat_j / 1e6, parts, f"unexplained {unexplained:.1e} J, charge {books.residual_j:.1e} J"
        )
    times.finish(args)
    audit.finish(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
