"""The pictures of a report, as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bms.runtime.series import round_trip

Arrays = Mapping[str, npt.NDArray[Any]]

# Okabe and Ito's colours, told apart by the colour-blind as well
BLUE, ORANGE, GREEN, RED, GREY, INK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8c959f", "#1b1f24"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#8c959f",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e4e8ec",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "svg.fonttype": "path",
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    title: str
    text: str
    svg: str


class _Time:
    """The time axis, in the unit that suits the run."""

    def __init__(self, time_s: npt.NDArray[Any]) -> None:
        span_s = float(time_s[-1] - time_s[0]) if time_s.size else 0.0
        self.unit, per = ("h", 3600.0) if span_s > 7200 else ("min", 60.0) if span_s > 180 else ("s", 1.0)
        self.values = time_s / per

    def label(self, axes: Axes) -> None:
        axes.set_xlabel(f"time / {self.unit}")
        axes.set_xlim(self.values[0], self.values[-1])  # shared by the panels above


def _panels(heights: list[float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10.4, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    return figure, list(axes)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"|(<svg[^>]*?) height="[^"]*"', r"\1\2", text, count=1)


def _unique(svg: str, prefix: str) -> str:
    """Number the ids of a picture under a prefix: several share one page, and matplotlib's change from run to run."""
    names: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', svg):
        names.setdefault(found, f"{prefix}-{len(names)}")
    svg = re.sub(r'\bid="([^"]+)"', lambda m: f'id="{names[m[1]]}"', svg)
    svg = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{names[m[1]]}"', svg)
    return re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names[m[1]]})", svg)


def _legend(axes: Axes, columns: int = 6) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.6)


def all_figures(data: Arrays, summary: Mapping[str, Any]) -> Iterator[Picture]:
    """Every picture that the samples of a run allow."""
    if data["time_s"].size < 2:
        return
    made = [_power(data), *_soc(data), _voltages(data), _temperatures(data), _energy(data, summary)]
    with rc_context(STYLE):
        for k, (title, text, draw) in enumerate(made):
            yield Picture(title, text, _unique(_svg(draw()), f"f{k}"))


def _power(data: Arrays) -> tuple[str, str, Any]:
    def draw() -> Figure:
        figure, (power, current) = _panels([2.4, 1.9])
        time = _Time(data["time_s"])
        power.plot(time.values, data["power_w"] / 1e3, color=BLUE, lw=0.9, label="power")
        power.plot(time.values, data["limit_discharge_w"] / 1e3, color=RED, lw=1, ls="--", label="limits")
        power.plot(time.values, -data["limit_charge_w"] / 1e3, color=RED, lw=1, ls="--")
        power.axhline(0, color=GREY, lw=0.8)
        power.set_ylabel("power / kW")
        _legend(power)
        current.plot(time.values, data["current_a"], color=BLUE, lw=0.9)
        current.axhline(0, color=GREY, lw=0.8)
        current.set_ylabel("current / A")
        time.label(current)
        return figure

    return "Power and current", "Positive = discharge. Dashed: the limits that the controller publishes.", draw


def _soc(data: Arrays) -> Iterator[tuple[str, str, Any]]:
    soc, std, true = (100 * data[name].astype(np.float64) for name in ("soc", "soc_std", "soc_true"))
    rows = np.flatnonzero(np.isfinite(true).all(axis=1))
    known = rows.size > 1
    if known:
        error = soc[rows] - true[rows]
        rms = np.sqrt(np.mean(error**2, axis=0))
        chosen = [int(k) for k in np.argsort(rms)[::-1][:2]]
        why = f"the cells with the largest RMS error ({' and '.join(f'{rms[k]:.2f}' for k in chosen)} %)"
    else:
        chosen = [int(k) for k in dict.fromkeys((np.argmin(soc[-1]), np.argmax(soc[-1])))]
        why = "the cells that end lowest and highest"
    time = _Time(data["time_s"])

    def band(axes: Axes, middle: Any, sigma: Any, truth: Any, title: str) -> None:
        low, high = np.maximum(middle - 3 * sigma, 0), np.minimum(middle + 3 * sigma, 100)
        axes.fill_between(time.values, low, high, color=BLUE, alpha=0.18, lw=0, label="±3 σ")
        axes.plot(time.values, middle, color=BLUE, label="estimate")
        if known:
            axes.plot(time.values[rows], truth[rows], color=ORANGE, lw=1.4, label="truth")
        axes.set_ylabel(f"{title}\nSoC / %")

    def draw_soc() -> Figure:
        figure, axes = _panels([2.3] + [1.8] * len(chosen))
        band(axes[0], soc.mean(axis=1), std.mean(axis=1), true.mean(axis=1), "mean")
        for a, k in zip(axes[1:], chosen, strict=True):
            band(a, soc[:, k], std[:, k], true[:, k], f"cell {k}")
        _legend(axes[0])
        time.label(axes[-1])
        return figure

    yield (
        "State of charge",
        f"Mean of all cells (band: mean 3 σ of a cell), and {why}."
        + (" The controller never sees the truth." if known else ""),
        draw_soc,
    )
    if not known:
        return

    def draw_error() -> Figure:
        figure, (axes,) = _panels([2.7])
        p0, p5, p50, p95, p100 = np.percentile(error, [0, 5, 50, 95, 100], axis=1)
        t = time.values[rows]
        axes.fill_between(t, p0, p100, color=BLUE, alpha=0.15, lw=0, label="all cells")
        axes.fill_between(t, p5, p95, color=BLUE, alpha=0.3, lw=0, label="90 % of the cells")
        axes.plot(t, p50, color=BLUE, label="median")
        sigma = 3 * std[rows].mean(axis=1)
        axes.plot(t, sigma, color=GREY, ls="--", lw=1, label="±3 σ, mean")
        axes.plot(t, -sigma, color=GREY, ls="--", lw=1)
        reach = max(np.abs(error).max() * 1.6, 1.0)
        axes.set_ylim(-min(reach, sigma.max() * 1.1 + reach / 4), min(reach, sigma.max() * 1.1 + reach / 4))
        axes.axhline(0, color=GREY, lw=0.8)
        axes.set_ylabel("estimate - truth / % SoC")
        _legend(axes)
        time.label(axes)
        return figure

    yield "Error of the estimate", "How far the estimates of all cells lie from their truth.", draw_error


def _voltages(data: Arrays) -> tuple[str, str, Any]:
    def draw() -> Figure:
        figure, (axes, spread) = _panels([2.3, 1.5])
        time = _Time(data["time_s"])
        low, high = data["cell_v_min"], data["cell_v_max"]
        axes.fill_between(time.values, low, high, color=GREEN, alpha=0.3, lw=0, label="lowest to highest cell")
        axes.plot(time.values, data["cell_v_mean"], color=GREEN, lw=0.9, label="mean")
        axes.set_ylabel("cell voltage / V")
        _legend(axes)
        spread.plot(time.values, 1e3 * (high - low), color=GREEN, lw=0.9)
        spread.set_ylabel("spread / mV")
        spread.set_ylim(bottom=0)
        if data["bleeding"].any():
            count = spread.twinx()
            count.fill_between(time.values, data["bleeding"], color=ORANGE, alpha=0.4, lw=0, step="mid")
            count.set_ylabel("cells balancing", color="#9a6b00")
            count.set_ylim(bottom=0)
            count.grid(visible=False)
        time.label(spread)
        return figure

    return "Cell voltages", "Spread over the rack, measured.", draw


def _temperatures(data: Arrays) -> tuple[str, str, Any]:
    def draw() -> Figure:
        figure, (axes,) = _panels([2.5])
        time = _Time(data["time_s"])
        axes.fill_between(
            time.values,
            data["degc_min"],
            data["degc_max"],
            color=RED,
            alpha=0.25,
            lw=0,
            label="coldest to hottest sensor",
        )
        axes.plot(time.values, data["degc_mean"], color=RED, label="mean")
        for name, style, label in (("coolant_in_degc", "-", "coolant in"), ("coolant_out_degc", "--", "coolant out")):
            if np.isfinite(data[name]).all() and data[name].any():
                axes.plot(time.values, data[name], color=BLUE, ls=style, lw=1, label=label)
        axes.set_ylabel("temperature / degC")
        _legend(axes)
        time.label(axes)
        return figure

    return "Temperatures", "Sensors on the cells, and the coolant.", draw


def _energy(data: Arrays, summary: Mapping[str, Any]) -> tuple[str, str, Any]:
    def draw() -> Figure:
        figure, (axes, ratio) = _panels([2.2, 1.7])
        time = _Time(data["time_s"])
        out, into = data["energy_out_j"] / 3.6e6, data["energy_in_j"] / 3.6e6
        axes.plot(time.values, out, color=BLUE, label="delivered")
        axes.plot(time.values, into, color=ORANGE, label="taken in")
        axes.set_ylabel("energy / kWh")
        _legend(axes)
        efficiency = 100 * round_trip(data, summary["capacity_ah"])
        enough = np.isfinite(efficiency)
        ratio.plot(time.values[enough], efficiency[enough], color=GREEN)
        if not enough.any():
            ratio.text(0.5, 0.5, "too little throughput to tell", ha="center", va="center", transform=ratio.transAxes)
            ratio.set_yticks([])
        ratio.set_ylabel("DC round trip / %")
        time.label(ratio)
        return figure

    return (
        "Energy and efficiency",
        "Energy at the DC terminals, and the efficiency so far, corrected for the charge that is more or less in the "
        "rack than at the start.",
        draw,
    )
