"""How do the tables of bench/ look, and where do their numbers go?

    Table.add_arguments(parser)                       # --compare FILE
    table = Table("ekf_cache", "One rack in the cache", "ns per cell-step")
    table.row("ours", 11.2, "0.98 x the best C", "a note")
    table.finish(args)

`finish` prints the rows, with the ratio to the same row of an earlier file where one is given, and writes
bench/results/NAME.json: {"name", "title", "unit", "machine", "versions", "command", "rows"}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numba", "llvmlite", "numpy")


def machine() -> dict[str, Any]:
    """The computer that the numbers are from."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "processors": usable, "system": f"{platform.system()} {platform.machine()}"}


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


class Table:
    """One table: rows with a name, a value in `unit`, a ratio in words, and a note."""

    def __init__(self, name: str, title: str, unit: str) -> None:
        self.name = name
        self.title = title
        self.unit = unit
        self.rows: list[dict[str, Any]] = []

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The option `--compare`."""
        parser.add_argument(
            "--compare", type=Path, metavar="FILE", help="results of an earlier run, or a folder of them: print ratios"
        )

    def row(self, name: str, value: float, ratio: str = "", note: str = "") -> None:
        """Add a row."""
        self.rows.append({"name": name, "value": value, "ratio": ratio, "note": note})

    def finish(self, args: argparse.Namespace) -> None:
        """Print the table and write its file; `args` are those of `add_arguments`. Exits with 2 for a useless file."""
        before = self._before(args.compare)
        width = max((len(row["name"]) for row in self.rows), default=0)
        ratios = max((len(row["ratio"]) for row in self.rows), default=0)
        print(f"\n{self.title} ({self.unit})")
        for row in self.rows:
            line = f"  {row['name']:{width}}  {_short(row['value']):>10}  {row['ratio']:{ratios}}"
            if (earlier := before.get(row["name"])) is not None:
                line += f"  {row['value'] / earlier:.2f} x before" if earlier else "  0 before"
            print(f"{line}  {row['note']}".rstrip())
        RESULTS.mkdir(exist_ok=True)
        content = {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "machine": machine(),
            "versions": versions(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "rows": self.rows,
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n")

    def _before(self, path: Path | None) -> dict[str, float]:
        """Values of an earlier run by the names of their rows; nothing where the file is that of another table."""
        if path is None:
            return {}
        if path.is_dir():
            path = path / f"{self.name}.json"
            if not path.exists():
                return {}
        try:
            content = json.loads(path.read_text())
            if content["name"] != self.name:
                return {}
            return {row["name"]: float(row["value"]) for row in content["rows"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"--compare {path}: not the results of a bench: {error}", file=sys.stderr)
            raise SystemExit(2) from None


def _short(value: float) -> str:
    """A number with about three significant digits."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"
