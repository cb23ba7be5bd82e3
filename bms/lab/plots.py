"""Pictures of the laboratory: what was identified, and what was estimated. Needs matplotlib (extra `lab`)."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bms.cells import CellParameters
from bms.lab import fit as f
from bms.lab.assemble import predict
from bms.lab.curves import Slow
from bms.lab.trace import Trace, write_atomically
from hal.errors import ConfigError

BLUE, ORANGE, GREY = "#0b5fa5", "#c8550b", "#666666"


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("a plot needs matplotlib; install it with: pip install 'rackbms[lab]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {"axes.grid": True, "grid.alpha": 0.3, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    return plt


def _save(plt: Any, figure: Any, path: Path) -> Path:
    """Write the figure as PNG, whatever the suffix; the same figure gives the same bytes."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    write_atomically(path, picture.getvalue())
    return path


def plot_cell(cell: CellParameters, slow: Sequence[Slow], tests: Sequence[f.Dynamic], path: Path) -> Path:
    """OCV with the slow branches, hysteresis, resistances, and the model error over SoC of every test."""
    plt = _pyplot()
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    colours = plt.get_cmap("coolwarm")(np.linspace(0.0, 1.0, cell.degc.size))
    for row, degc, colour in zip(cell.ocv_v, cell.degc, colours, strict=True):
        a.plot(100 * cell.soc, row, color=colour, label=f"{degc:g} degC")
    for s in slow:
        a.plot(100 * f.SOC_OCV, s.discharge_v, color=GREY, lw=0.5)
        if s.charge_v is not None:
            a.plot(100 * f.SOC_OCV, s.charge_v, color=GREY, lw=0.5)
    low, high = np.interp([0.05, 0.98], cell.soc, cell.ocv_v.mean(axis=0))
    a.set(title="Open-circuit voltage (grey: slow tests)", xlabel="SoC / %", ylabel="V", ylim=(low - 0.1, high + 0.1))
    a.legend(fontsize=7)
    for row, colour in zip(cell.hysteresis_v, colours, strict=True):
        b.plot(100 * cell.soc, 1e3 * row, color=colour)
    b.set(title="Hysteresis, half gap", xlabel="SoC / %", ylabel="mV", ylim=(0, None))
    total = cell.r0_ohm + cell.rct_ohm + cell.r_ohm.sum(axis=0)
    for row, zero, colour in zip(total, cell.r0_ohm + cell.rct_ohm, colours, strict=True):
        c.semilogy(100 * cell.soc_r, 1e3 * row, color=colour)
        c.semilogy(100 * cell.soc_r, 1e3 * zero, color=colour, ls=":")
    c.set(title="Resistance: all (line), without RC pairs (dots)", xlabel="SoC / %", ylabel="milliohm")
    for t in tests:
        error = 1e3 * np.convolve(t.voltage_v - predict(cell, t), np.ones(60) / 60, "same")
        d.plot(100 * t.soc[::20], error[::20], lw=0.6, label=t.name)
    d.set(title="Model error, mean of a minute", xlabel="SoC / %", ylabel="mV", ylim=(-15, 15))
    d.legend(fontsize=6)
    figure.suptitle(textwrap.shorten(f"{cell.name}: {cell.source}", 150), fontsize=9)
    return _save(plt, figure, path)


def plot_estimate(trace: Trace, soc: f.Array, soc_std: f.Array, model_v: f.Array, title: str, path: Path) -> Path:
    """SoC with its band (and the truth), the error, the voltages."""
    plt = _pyplot()
    figure, (a, b, c) = plt.subplots(
        3, 1, figsize=(11, 9), sharex=True, layout="constrained", height_ratios=(2, 1, 1.4)
    )
    step = max(1, trace.time_s.size // 5000)
    hours = trace.time_s[::step] / 3600.0
    z, sd = 100 * soc[::step], 100 * soc_std[::step]
    a.fill_between(hours, z - 3 * sd, z + 3 * sd, color=BLUE, alpha=0.2, lw=0, label="3 standard deviations")
    a.plot(hours, z, color=BLUE, label="estimate")
    if trace.soc_true is not None:
        truth = 100 * trace.soc_true[::step]
        a.plot(hours, truth, color=ORANGE, lw=1, label="reference")
        b.fill_between(hours, -3 * sd, 3 * sd, color=BLUE, alpha=0.2, lw=0)
        b.plot(hours, z - truth, color=ORANGE, lw=1)
        b.set(ylabel="error / % SoC")
    else:
        b.plot(hours, sd, color=BLUE)
        b.set(ylabel="standard deviation / % SoC")
    a.set(ylabel="SoC / %", title=title)
    a.legend()
    c.plot(hours, trace.voltage_v[::step], color=GREY, lw=0.7, label="measured")
    c.plot(hours, model_v[::step], color=BLUE, lw=0.7, label="model")
    c.set(ylabel="V", xlabel="hours")
    c.legend()
    return _save(plt, figure, path)
