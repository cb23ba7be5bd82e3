"""`bms identify`: from laboratory tests, measured or of the twin, to a cell file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hal.errors import ConfigError

EXAMPLES = """examples:
  bms identify --ocv ocv_*.csv.gz --dynamic dyn_*.csv.gz --chemistry lfp -o my_cell.toml
  bms identify --ocv slow.csv --dynamic duty.csv --check other_duty.csv -o my_cell.toml
  bms identify --from-twin lfp_280 -o lfp_280.toml

OCV files hold a slow discharge and a slow charge (below C/10), or the four scripts of Plett (column `script`).
Dynamic files hold time_s, current_a, voltage_v, temperature_degc and soc_true; without soc_true the largest discharge
counts from full. Positive current = discharge."""


@dataclass(frozen=True)
class Row:
    """One line of the printed table."""

    name: str
    degc: float
    role: str
    rmse_v: float
    max_v: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bms identify`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--ocv",
        nargs="+",
        default=[],
        metavar="FILE",
        help="slow charge and discharge tests (default: the dynamic files, if all are plain discharges)",
    )
    parser.add_argument(
        "--dynamic", nargs="+", default=[], metavar="FILE", help="dynamic tests (default: the OCV files)"
    )
    parser.add_argument(
        "--check", nargs="+", default=[], metavar="FILE", help="tests kept out of the fit, predicted and reported"
    )
    parser.add_argument(
        "--from-twin", metavar="CELL", help="test the twin's cell in a virtual laboratory instead of reading files"
    )
    parser.add_argument("--chemistry", help="lfp, na_layered, na_pba, na_nfpp or nmc (default: lfp, or the twin's)")
    parser.add_argument("--name", help="name in the cell file (default: that of the output file)")
    parser.add_argument("--source", help="where the data come from, for the cell file (default: the file names)")
    parser.add_argument("-o", "--output", required=True, metavar="CELL.toml", help="cell file to write")
    parser.add_argument("--no-plot", action="store_true", help="do not write the plot beside the cell file")


def run(args: argparse.Namespace) -> int:
    """Run `bms identify`."""
    try:
        import scipy  # noqa: F401  the fit needs it; say so before minutes of reading
    except ImportError:
        raise ConfigError("bms identify needs scipy; install it with: pip install 'rackbms[lab]'") from None
    from rich.console import Console

    from bms.cells.writer import dump
    from bms.lab.assemble import LIMITS, assemble, predict
    from bms.lab.curves import as_columns, read_dynamic, read_slow
    from bms.lab.jit import PROGRAM
    from bms.lab.trace import write_atomically
    from hal.engine import prepare
    from hal.errors import nearest
    from hal.registry import programs

    console = Console(stderr=True)
    out = Path(args.output)
    if out.suffix != ".toml":
        raise ConfigError(f"-o {out}: a cell file ends in .toml")
    if bool(args.from_twin) == bool(args.ocv or args.dynamic):
        raise ConfigError("give either --ocv FILE... with --dynamic FILE..., or --from-twin CELL alone")
    label = _labels([*args.ocv, *args.dynamic, *args.check])

    warnings: list[str] = []
    with console.status("reading tests") as status:
        prepare((PROGRAM, *(programs(f"sim:{args.from_twin}") if args.from_twin else ())), status.update)
        if args.from_twin:
            from hal.backends.simulated import virtual_lab

            status.update(f"testing the twin's cell {args.from_twin} in the virtual laboratory")
            files = virtual_lab(args.from_twin)
            ocv = {k: v for k, v in files.items() if k.startswith("ocv")}
            dynamic = {k: v for k, v in files.items() if not k.startswith("ocv")}
            chemistry = args.chemistry or _twin_chemistry(args.from_twin)
            source = args.source or f"virtual laboratory test of the twin's cell {args.from_twin}"
        else:
            ocv = {label[p]: as_columns(p) for p in args.ocv}
            dynamic = {label[p]: as_columns(p) for p in args.dynamic} or ocv
            if not ocv:  # discharges at constant current tell both, the slowest the OCV
                if any("soc_true" in d for d in dynamic.values()):
                    raise ConfigError("--ocv FILE... is missing: a slow charge and discharge of the same cell")
                ocv = dynamic
            chemistry = args.chemistry or "lfp"
            source = args.source or "tests: " + ", ".join(dict.fromkeys([*ocv, *dynamic]))
        if chemistry not in LIMITS:
            raise ConfigError(f"--chemistry {chemistry}: unknown{nearest(chemistry, LIMITS)}")
        slow = [read_slow(name, d) for name, d in ocv.items()]
        slowest = min(slow, key=lambda s: (s.rate_c, s.name))
        tests = []
        for name, d in dynamic.items():
            test, warning = read_dynamic(name, d, slowest)
            tests.append(test)
            warnings += [warning] if warning else []
        held_back = [read_dynamic(label[p], as_columns(p), slowest)[0] for p in args.check]

        groups_done = 0

        def progress(text: str) -> None:
            nonlocal groups_done
            groups_done += 1
            status.update(f"fit {groups_done}: {text}")

        cell, more = assemble(
            slow, tests, name=args.name or out.stem, chemistry=chemistry, source=source, progress=progress
        )
        warnings += more
        rows = []
        for role, members in (("fit", tests), ("held back", held_back)):
            for test in members:
                error = test.voltage_v - predict(cell, test)
                error = error[test.soc > 0.05] if np.any(test.soc > 0.05) else error
                rows.append(
                    Row(test.name, test.degc, role, float(np.sqrt(np.mean(error**2))), float(np.max(np.abs(error))))
                )
        write_atomically(out, dump(cell).encode())
        plot = None
        if not args.no_plot:
            from bms.lab.plots import plot_cell

            status.update("drawing")
            plot = plot_cell(cell, slow, tests, out.with_suffix(".png"))
    _print_table(rows)
    for warning in warnings:
        print(f"warning: {warning}")
    print(
        f"capacity {cell.capacity_ah:.4g} Ah, {cell.v_min:g}..{cell.v_max:g} V, "
        f"{cell.degc[0]:g}..{cell.degc[-1]:g} degC"
    )
    if plot:
        print(f"plot: {plot}")
    print(f"cell file: {out}")
    return 0


def _labels(paths: Sequence[str]) -> dict[str, str]:
    """What each file is called: its name, or its path where two files of different folders have the same name."""
    names = [Path(p).name for p in dict.fromkeys(paths)]
    return {p: Path(p).name if names.count(Path(p).name) == 1 else p for p in paths}


def _twin_chemistry(cell: str) -> str:
    from hal.backends.simulated import cell_chemistry

    return cell_chemistry(cell)


def _print_table(rows: Sequence[Row]) -> None:
    width = max(len(r.name) for r in rows)
    print(f"{'file':<{width}}  {'degC':>6}  {'role':<9}  {'RMSE mV':>8}  {'max mV':>8}   above 5 % SoC")
    for r in rows:
        print(f"{r.name:<{width}}  {r.degc:>6.1f}  {r.role:<9}  {1e3 * r.rmse_v:>8.2f}  {1e3 * r.max_v:>8.1f}")
