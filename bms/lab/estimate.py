"""`bms estimate`: the controller's own estimator over a logged trace, and how well it did."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hal.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bms.cells import CellParameters
    from bms.lab.trace import F8, Trace

LOAD_DOUBT = 0.5  # share of the ohmic drop at the first sample that the first guess is not sure of
UNIFORM = 3.0**0.5  # half the width of a uniform distribution over its standard deviation
DEFAULT_STD = 0.02  # of an initial SoC that was given without its own
EXAMPLES = """examples:
  bms estimate trace.csv.gz --cell lfp_a123 -o soc.csv
  bms estimate trace.csv --cell my_cell.toml --initial-soc 0.8 --initial-soc-std 0.15 -o soc.csv --plot soc.png

The trace has time_s, current_a (positive = discharge), voltage_v, temperature_degc and optionally soc_true. Without
--initial-soc the first voltage tells what it can (on a plateau: little, and the deviation says so)."""


@dataclass(frozen=True)
class Estimate:
    """Result over a trace; arrays of shape (n,)."""

    soc: F8
    soc_std: F8
    model_v: F8
    bias_a: float  # estimated bias of the current sensor at the end
    observable: NDArray[np.bool_]  # where the voltage tells the SoC
    skipped: NDArray[np.bool_]  # where the voltage could not be used


@dataclass(frozen=True)
class Score:
    """Estimate against reference."""

    rmse: float
    max_error: float
    coverage: float  # share of samples within three standard deviations
    mean_std: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms estimate`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("trace", help="CSV, CSV.gz or Parquet file")
    parser.add_argument("--cell", required=True, help="name of a cell file of the package, or the path of one")
    parser.add_argument("--initial-soc", type=float, metavar="S", help="SoC at the first sample, 0..1")
    parser.add_argument(
        "--initial-soc-std",
        type=float,
        metavar="S",
        help=f"its standard deviation (default: {DEFAULT_STD}, or more where the first voltage says otherwise)",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT.csv", help="time_s, soc, soc_std, voltage_model_v"
    )
    parser.add_argument("--plot", metavar="PNG", help="also draw the result")
    parser.add_argument(
        "--after", type=float, default=0.0, metavar="HOURS", help="judge only what comes after (default: 0)"
    )


def estimate(trace: Trace, cell: CellParameters, soc: float | None = None, soc_std: float | None = None) -> Estimate:
    """Run the filter over `trace`, from `soc` with standard deviation `soc_std` (defaults: see the module)."""
    from bms.core.estimator_layout import OBSERVABLE, OUT_ROWS, SKIPPED
    from bms.core.estimator_setup import estimator_config
    from bms.core.layout import Config, State, fill_estimator
    from bms.lab.trace_kernel import over_trace

    guess, spread = _first_guess(trace, cell)
    if soc is None:
        soc, soc_std = guess, spread if soc_std is None else soc_std
    elif soc_std is None:
        off = abs(soc - guess)
        # told what the first voltage contradicts: trust neither
        soc_std = DEFAULT_STD if off <= UNIFORM * spread else max(off, DEFAULT_STD)
    config, state = Config(1, 1), State(1, 1)
    fill_estimator(config, estimator_config(cell))
    config.head["n_cells"], config.head["n_sensors"] = 1, 1
    dt = np.diff(trace.time_s, prepend=trace.time_s[0] - (trace.time_s[1] - trace.time_s[0]))
    out = np.zeros((OUT_ROWS, trace.time_s.size), np.float32)
    flags = np.zeros(trace.time_s.size, np.uint8)
    over_trace(
        config.bytes, state.bytes, np.full(1, soc, np.float32), np.full(1, soc_std, np.float32),
        np.maximum(dt, 1e-3).astype(np.float32), trace.current_a.astype(np.float32), trace.voltage_v.astype(np.float32),
        trace.temperature_degc.astype(np.float32), np.zeros_like(flags), out, flags,
    )  # fmt: skip
    soc_, std_, model_v, _ = out.astype(np.float64)
    bias_a = float(state.head["bias_a"][0])
    return Estimate(soc_, std_, model_v, bias_a, (flags & OBSERVABLE) != 0, (flags & SKIPPED) != 0)


def _first_guess(trace: Trace, cell: CellParameters) -> tuple[float, float]:
    """SoC and standard deviation that the first usable voltage tells; under load less than at rest."""
    from bms.core.estimator_setup import soc_prior

    usable = np.flatnonzero(np.isfinite(trace.voltage_v))
    at = slice(int(usable[0]), int(usable[0]) + 1) if usable.size else slice(0, 1)
    middle = cell.r0_ohm[:, cell.soc_r.size // 2] + cell.rct_ohm[:, cell.soc_r.size // 2]
    drop_v = trace.current_a[at] * np.interp(trace.temperature_degc[at], cell.degc, middle)
    guess, spread = soc_prior(
        cell, trace.voltage_v[at] + drop_v, trace.temperature_degc[at], extra_v=LOAD_DOUBT * float(np.abs(drop_v[0]))
    )
    return float(guess[0]), float(spread[0])


def score(trace: Trace, result: Estimate, after_s: float = 0.0) -> Score:
    """Judge an estimate against `trace.soc_true` from `after_s` on."""
    if trace.soc_true is None:
        raise ValueError("the trace has no soc_true")
    late = trace.time_s - trace.time_s[0] >= after_s
    error = (result.soc - trace.soc_true)[late]
    std = result.soc_std[late]
    inside = float(np.mean(np.abs(error) <= 3.0 * std))
    return Score(float(np.sqrt(np.mean(error**2))), float(np.max(np.abs(error))), inside, float(np.mean(std)))


def run(args: argparse.Namespace) -> int:
    """Run `bms estimate`."""
    for option, value, high in (
        ("--initial-soc", args.initial_soc, 1.0),
        ("--initial-soc-std", args.initial_soc_std, 1.0),
    ):
        if value is not None and not 0.0 <= value <= high:
            raise ConfigError(f"{option} {value}: must lie between 0 and 1")
    if args.after < 0:
        raise ConfigError(f"--after {args.after}: must not be negative")
    from bms.cells import load
    from bms.lab.jit import PROGRAM
    from bms.lab.trace import read_trace, write_columns
    from bms.runtime.engine import JIT, ready

    cell = load(args.cell)
    trace = read_trace(args.trace)
    if trace.soc_true is not None and trace.time_s[-1] - trace.time_s[0] < 3600.0 * args.after:
        raise ConfigError(
            f"--after {args.after}: the trace is only {(trace.time_s[-1] - trace.time_s[0]) / 3600:.2f} h long"
        )
    ready(JIT, (PROGRAM,))
    result = estimate(trace, cell, args.initial_soc, args.initial_soc_std)
    write_columns(
        args.output,
        {"time_s": trace.time_s, "soc": result.soc, "soc_std": result.soc_std, "voltage_model_v": result.model_v},
    )
    print(
        f"{trace.time_s.size} samples, final SoC {100 * result.soc[-1]:.2f} % +- {100 * result.soc_std[-1]:.2f} % "
        "(one standard deviation)"
    )
    print(f"current-sensor bias found: {1e3 * result.bias_a:+.1f} mA")
    print(f"the voltage tells the SoC {100 * np.mean(result.observable):.0f} % of the time (steep enough curve)")
    if np.any(result.skipped):
        print(f"{np.count_nonzero(result.skipped)} samples without a usable voltage: predicted only")
    if trace.soc_true is not None:
        s = score(trace, result, 3600.0 * args.after)
        print(
            f"against soc_true: RMSE {100 * s.rmse:.2f} %, maximum {100 * s.max_error:.2f} %, "
            f"within 3 sigma {100 * s.coverage:.2f} %, mean sigma {100 * s.mean_std:.2f} %"
        )
    if args.plot:
        from bms.lab.plots import plot_estimate

        title = f"{Path(args.trace).name}, cell {cell.name}"
        print(f"plot: {plot_estimate(trace, result.soc, result.soc_std, result.model_v, title, Path(args.plot))}")
    print(f"estimate: {args.output}")
    return 0
