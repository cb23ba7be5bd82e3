"""Where do the side reactions of LFP and NMC come from? Fitted to measured heat-wait-seek traces, on the twin.

Run with `python bench/arc_fit.py lfp --seconds 150` (the trace as in bench/arc.py). Starts at the numbers in
`sim/cells/reactions` and changes some of them at random, keeping what is nearer to the trace: the logarithm of the
self-heating over temperature, the temperatures at which it reaches six rates (5 degC weigh as much as a factor e) and
the maximum (12 degC). Prints the numbers found; which of them stand in the file is an editor's decision.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from unittest import mock

import numpy as np
from arc import DATA, RATES, measured, reached

import hal.backends.twin  # noqa: F401  the twin's machine code comes from the engine
from sim import reactions
from sim.arc import ArcTrace, heat_wait_seek
from sim.reactions import Reactions
from sim.runaway import GAS_J_PER_MOL_K

POINTS_DEGC = {
    "lfp": (
        161,
        165,
        169,
        175,
        180,
        185,
        190,
        195,
        200,
        205,
        210,
        215,
        220,
        225,
        230,
        236,
        242,
        248,
        255,
        262,
        270,
        276,
        282,
        286,
    ),
    "nmc": (
        90,
        93,
        96,
        100,
        104,
        108,
        112,
        116,
        120,
        124,
        144,
        147,
        151,
        154,
        158,
        162,
        166,
        170,
        174,
        178,
        182,
        186,
        190,
        194,
        198,
    ),
}
"""Where the traces are compared: before the thermocouple is too slow, and not across the gap of the NMC cell."""

REFERENCE_PER_S = {"sei": 1e-4, "anode": 1e-4, "cathode": 1e-4, "electrolyte": 1e-4, "separator": 1e-3}
"""A reaction is known by its Ea and the temperature at which k is this: the two hardly depend on each other."""

# what may change, and the size of a step: temperature (K), Ea (kJ/mol), heat (kJ/kg)
STEPS = {
    "sei": (4, 8, 2), "anode": (4, 6, 15), "cathode": (5, 10, 15), "electrolyte": (10, 15, 10), "separator": (3, 40, 0),
}  # fmt: skip


def temperature(a_per_s: float, ea_j_per_mol: float, k_per_s: float) -> float:
    """Temperature in kelvin at which A exp(-Ea / R T) = k."""
    return ea_j_per_mol / GAS_J_PER_MOL_K / math.log(a_per_s / k_per_s)


def changed(base: Reactions, x: np.ndarray) -> Reactions:
    """The chemistry `base` with every number moved by `x` steps; the last one is the film of the anode."""
    parts = {}
    for row, (name, steps) in enumerate(STEPS.items()):
        part, k = getattr(base, name), REFERENCE_PER_S[name]
        by = (x[3 * row : 3 * row + 3] * steps).tolist()
        ea = part.ea_j_per_mol + 1e3 * by[1]
        kelvin = temperature(part.a_per_s, part.ea_j_per_mol, k) + by[0]
        new = {"a_per_s": k * math.exp(ea / GAS_J_PER_MOL_K / kelvin), "ea_j_per_mol": ea}
        if name != "separator":
            new["heat_j_per_kg"] = max(part.heat_j_per_kg + 1e3 * by[2], 1e3)
        parts[name] = replace(part, **new)
    parts["anode"] = replace(parts["anode"], film=max(base.anode.film + 0.6 * x[-1], 0.0))
    return replace(base, **parts)


def trace(name: str, chemistry: Reactions) -> ArcTrace:
    """Heat-wait-seek of the tested cell with other side reactions than those of the file."""
    with mock.patch.object(reactions, "load", return_value=chemistry):
        return heat_wait_seek(name)


def distance(name: str, model: ArcTrace, data: np.ndarray, x: np.ndarray) -> float:
    """Sum of squares, with a weak pull towards where the fit began."""
    rising = np.maximum.accumulate(model.temperature_degc)
    keep = np.concatenate(([True], np.diff(rising) > 0))
    rate = np.log(np.maximum(model.self_heating_k_per_min[keep], 1e-4))
    points = np.array(POINTS_DEGC[name], float)
    nearest = np.argsort(np.abs(data[:, 1] - points[:, None]), axis=1)[:, :3]
    wanted = np.log(np.maximum(data[nearest, 2], 1e-4)).mean(axis=1)
    parts = [np.clip(np.interp(points, model.temperature_degc[keep], rate, rate[0] - 1.5, -3.0) - wanted, -3.0, 3.0)]
    off = np.array([model.reached_degc(r) - reached(data, r) for r in RATES]) / 5.0
    parts += [
        np.where(np.isnan(off), 3.0, np.clip(off, -4.0, 4.0)),
        [(model.max_degc - data[:, 1].max()) / 12.0],
        0.03 * x,
    ]
    return float(sum(np.square(part).sum() for part in parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=sorted(POINTS_DEGC))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    data = measured(args.data, args.name)
    if data is None:
        parser.error(f"no trace {args.name}_soc100.csv in {args.data}")
    base, rng = reactions.load(args.name), np.random.default_rng(args.seed)
    x = np.zeros(3 * len(STEPS) + 1)
    best = distance(args.name, trace(args.name, base), data, x)
    print(f"as in the file: {best:.3f}")
    size, tried, end = 1.0, 0, perf_counter() + args.seconds
    while perf_counter() < end:
        new = x + (rng.random(len(x)) < 0.35) * rng.normal(0.0, size, len(x))
        found = distance(args.name, trace(args.name, changed(base, new)), data, new)
        tried += 1
        if found < best:
            x, best, size = new, found, min(1.4 * size, 2.0)
        else:
            size = max(0.98 * size, 0.05)
    chemistry = changed(base, x)
    model = trace(args.name, chemistry)
    print(f"after {tried} trials: {best:.3f}, maximum {model.max_degc:.1f} degC (measured {data[:, 1].max():.1f})")
    for rate in RATES:
        print(f"  {rate:g} K/min at {model.reached_degc(rate):.1f} degC, measured {reached(data, rate):.1f}")
    for name in STEPS:
        print(f"[{name}] {getattr(chemistry, name)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
