"""The coverage matrix: which rows of the fault table were exercised, in which state, chemistry, temperature and SoC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bms import racks
from bms.core.faults import Fault, row_id, row_of
from bms.trial.ledger import BANDS
from hal.contract import Severity

Cell = tuple[int, str, str, str, str]
AXES = ("state", "chemistry", "temperature", "SoC")


@dataclass(frozen=True)
class Coverage:
    """`rows`: ids of all rows of the table; `cells`: how often each cell was filled."""

    rows: tuple[int, ...]
    cells: Counter[Cell]

    @property
    def missing(self) -> list[int]:
        """Rows that were never exercised."""
        seen = {cell[0] for cell in self.cells}
        return [row for row in self.rows if row not in seen]

    @property
    def exercised(self) -> int:
        """Number of rows that were."""
        return len(self.rows) - len(self.missing)

    def along(self, axis: int, rows: Iterable[int]) -> Counter[str]:
        """How often `rows` were exercised for each value of an axis (an index of `AXES`)."""
        wanted, found = set(rows), Counter[str]()
        for cell, times in self.cells.items():
            if cell[0] in wanted:
                found[str(cell[axis + 1])] += times
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "rows": len(self.rows),
            "exercised": self.exercised,
            "missing": [row_text(row) for row in self.missing],
            "columns": ["row", *AXES, "trials"],
            "cells": [[*cell, times] for cell, times in sorted(self.cells.items())],
        }


def table_rows() -> tuple[int, ...]:
    """Ids of the rows of the shipped racks, all together."""
    return tuple(sorted({row.id for name in racks.names() for row in racks.load(name).rows}))


def covered(cells: Iterable[Cell], rows: Sequence[int] | None = None) -> Coverage:
    """The coverage of the `cells` that trials have filled, of `rows` (those of the shipped racks, if left out)."""
    return Coverage(tuple(table_rows() if rows is None else rows), Counter(cells))


def row_text(row: int) -> str:
    """Name of a row: 'cell_overvoltage.fatal'."""
    fault, severity = row_of(row)
    return f"{fault.name.lower()}.{severity.name.lower()}"


def lines(coverage: Coverage) -> list[str]:
    """The matrix as text: a line for each fault, and a line for each row that is missing."""
    faults = [fault for fault in Fault if any(row_id(fault, s) in coverage.rows for s in Severity if s)]
    wide = max(len(fault.name) for fault in faults)
    text = [f"{'fault':{wide}}  info warn fatal   state / chemistry / temperature / SoC (trials)"]
    for fault in faults:
        rows = [row_id(fault, s) for s in Severity if s]
        counts = "".join(
            f"{sum(coverage.along(1, [row]).values()) if row in coverage.rows else '.':>5}" for row in rows
        )
        axes = "; ".join(_counts(coverage.along(axis, rows)) for axis in range(len(AXES)))
        text.append(f"{fault.name.lower():{wide}} {counts}   {axes}")
    text += [f"never exercised: {row_text(row)} (row {row})" for row in coverage.missing]
    text.append(", ".join(f"{name}: {meaning}" for name, meaning in BANDS.items()))
    return text


def _counts(counter: Counter[str]) -> str:
    return " ".join(f"{name} {times}" for name, times in sorted(counter.items())) or "-"
