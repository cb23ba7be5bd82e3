"""Does the burning twin warm itself as measured cells do? Heat-wait-seek on one virtual cell of each chemistry.

Run with `python bench/arc.py` (half a minute); `--data` names the folder with the measured traces of a lithium iron
phosphate and an NMC cell (`lfp_soc100.csv`, `nmc_soc100.csv`: time_min, temperature_degc, self_heating_degc_per_min),
`--plot FILE` draws the model beside them. Prints the temperature at which the self-heating reaches each rate.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from tables import Table

import hal.backends.twin  # noqa: F401  the twin's machine code comes from the engine
from sim.arc import SAMPLES, ArcTrace, heat_wait_seek
from sim.burning import burning

RATES = (0.02, 0.1, 0.5, 1.0, 10.0, 60.0)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "arc_kit"
NAMES = {
    "lfp": "LFP",
    "nmc": "NMC",
    "na_layered": "sodium-ion, layered oxide",
    "na_nfpp": "sodium-ion, polyanion",
    "na_pba": "sodium-ion, Prussian blue",
}


def measured(folder: Path, name: str) -> np.ndarray | None:
    """Time, temperature and rate of a measured trace, or None where there is none."""
    path = folder / f"{name}_soc100.csv"
    if not path.is_file():
        return None
    with path.open() as file:
        rows = [[float(x or "nan") for x in row] for row in list(csv.reader(file))[1:]]
    values = np.array(rows)
    return values[np.isfinite(values[:, 2])]


def reached(trace: np.ndarray, rate: float) -> float:
    """Temperature of the first row with at least that rate."""
    return float(trace[np.flatnonzero(trace[:, 2] >= rate)[0], 1])


def table(args: argparse.Namespace, traces: dict[str, ArcTrace]) -> None:
    result = Table("arc", "Heat-wait-seek at 100 % SoC: temperature at a self-heating, and the maximum", "degC")
    for name, model in traces.items():
        data = measured(args.data, name)
        for rate in RATES:
            degc = model.reached_degc(rate)
            beside = f"measured {reached(data, rate):.1f}" if data is not None else "not measured"
            result.row(f"{NAMES[name]}: {rate:g} K/min", degc, beside)
        beside = f"measured {data[:, 1].max():.1f}" if data is not None else "not measured"
        fastest = float(model.self_heating_k_per_min.max())
        ran = "runs away" if burning(model.rack).burnt.any() else "does not run away"
        result.row(f"{NAMES[name]}: maximum", model.max_degc, beside, f"{ran}, at most {fastest:,.2f} K/min")
    result.finish(args)


def charge(args: argparse.Namespace) -> None:
    result = Table("arc_soc", "Heat-wait-seek at other states of charge: fastest self-heating up to 350 degC", "K/min")
    for name in ("lfp", "nmc", "na_layered"):
        for soc in (0.0, 0.3, 0.4, 0.5, 0.75):
            model = heat_wait_seek(name, soc)
            ran = "runs away" if burning(model.rack).burnt.any() else ""
            result.row(f"{NAMES[name]}: {100 * soc:.0f} % SoC", float(model.self_heating_k_per_min.max()), ran)
    result.finish(args)


def plot(args: argparse.Namespace, traces: dict[str, ArcTrace]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), dpi=110, layout="constrained")
    for number, (name, model) in enumerate(traces.items()):
        colour = f"C{number}"
        data = measured(args.data, name)
        if data is not None:
            axes.plot(
                data[:, 1], data[:, 2], ".", color=colour, markersize=3.5, alpha=0.6, label=f"{NAMES[name]}, measured"
            )
        rising = model.self_heating_k_per_min > 0.0
        axes.plot(
            model.temperature_degc[rising], model.self_heating_k_per_min[rising], color=colour, linewidth=1.3,
            label=f"{NAMES[name]}, model",
        )  # fmt: skip
    axes.set(yscale="log", xlim=(70, 450), ylim=(0.01, 2e4), xlabel="temperature, °C", ylabel="self-heating, K/min")
    axes.axhline(0.02, color="grey", linewidth=0.6, linestyle=":")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(args.plot)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--plot", type=Path)
    Table.add_arguments(parser)
    args = parser.parse_args()
    traces = {name: heat_wait_seek(name) for name in SAMPLES}
    table(args, traces)
    charge(args)
    if args.plot is not None:
        plot(args, traces)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
