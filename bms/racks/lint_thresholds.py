"""Lints of thresholds against what stands behind them: cell, chemistry, ratings, insulation rules."""

from __future__ import annotations

from dataclasses import dataclass

from bms.core.faults import Fault, Row
from bms.racks.findings import Findings
from bms.racks.rows import SODIUM
from hal.contract import Severity

_F = Fault
_FATAL, _WARNING = Severity.FATAL, Severity.WARNING


@dataclass(frozen=True)
class Chemistry:
    """What cells of a chemistry bear at the very most, whoever made them."""

    v_low: float  # below, V: copper dissolves, or the cell is reversed
    v_high: float  # above, V: metal plates, the electrolyte decomposes
    degc_high: float  # above, degC: the separator or the SEI begins to fail
    source: str


CHEMISTRIES = {
    "lfp": Chemistry(1.5, 3.8, 65.0, "makers of LFP cells give 3.65 V and 60..65 degC, overcharge begins at 3.8 V"),
    "nmc": Chemistry(2.0, 4.35, 65.0, "makers of NMC cells give 4.2 V and 60 degC, plating begins above 4.3 V"),
    "na_layered": Chemistry(0.0, 4.25, 65.0, "layered sodium oxides lose their order above 4.2 V"),
    "na_pba": Chemistry(0.0, 4.2, 65.0, "as the layered oxides, electrolyte"),
    "na_nfpp": Chemistry(0.0, 4.35, 70.0, "polyanions: NFPP ends at 3.65 V, NVPF at 4.3 V, electrolyte"),
}
"""Absolute limits for a fatal threshold; 0 V does no harm to sodium-ion cells with aluminium on both sides."""

BEYOND_V = 0.15
"""A cell that is this far beyond its own v_max has been left alone for too long, whatever its chemistry bears."""

OVERCURRENT = 1.2
"""IEC 62619 8.2.3 and GB 44240-2024 8.4 test at this share of the largest current: a fatal row has to see it."""

HEATED_K = 5.0
"""IEC 62619 8.2.4 and GB 44240-2024 8.6 heat the cells this far beyond their limit."""

INSULATION_LEAST, INSULATION_WARN = 100.0, 500.0
"""ohm per volt: ISO 6469-3 for direct current and UL 1973; what a sound rack stays above (IEC 62477-1, IEC 61557-8)."""

PACK_LIMIT = 1.1
"""GB 44240-2024 8.3 charges the string to this share of its largest voltage."""


def lint(f: Findings) -> None:
    """All of them."""
    _cell_voltage(f)
    _string_voltage(f)
    _temperature(f)
    _current(f)
    _insulation(f)


def _fatal(f: Findings, fault: Fault) -> Row | None:
    return f.row(fault, _FATAL)


def _cell_voltage(f: Findings) -> None:
    cell = f.config.cell
    low, high, kind = cell.v_min, cell.limits.v_max, CHEMISTRIES.get(cell.chemistry)
    row = _fatal(f, _F.CELL_OVERVOLTAGE)
    if row is not None:
        if kind is not None and row.threshold > kind.v_high:
            f.row_error(
                row, "threshold", row.threshold,
                f"beyond the {kind.v_high:g} V that {cell.chemistry} cells bear ({kind.source})",
                f"take about {high + 0.05:g} V: v_max of the cell + 50 mV",
            )  # fmt: skip
        elif row.threshold > high + BEYOND_V:
            f.row_error(
                row, "threshold", row.threshold, f"{row.threshold - high:.3g} V beyond v_max = {high:g} V of the cell",
                f"take about {high + 0.05:g} V",
            )  # fmt: skip
        elif row.threshold <= high:
            f.row_error(
                row, "threshold", row.threshold, f"trips inside the voltage window of the cell, v_max = {high:g} V",
                f"take about {high + 0.05:g} V",
            )  # fmt: skip
    row = f.row(_F.CELL_OVERVOLTAGE, _WARNING)
    if row is not None and row.threshold < high:
        f.row_warning(
            row, "threshold", row.threshold, f"inside the voltage window of the cell, v_max = {high:g} V",
            f"take {high:g} V or more",
        )  # fmt: skip
    row = _fatal(f, _F.CELL_UNDERVOLTAGE)
    if row is not None:
        if kind is not None and row.threshold < kind.v_low:
            f.row_error(
                row, "threshold", row.threshold, f"below the {kind.v_low:g} V that {cell.chemistry} cells bear",
                f"take about {low - 0.1:g} V: v_min of the cell - 0.1 V",
            )  # fmt: skip
        elif row.threshold >= low:
            f.row_error(
                row, "threshold", row.threshold, f"trips inside the voltage window of the cell, v_min = {low:g} V",
                f"take about {low - 0.1:g} V",
            )  # fmt: skip
    row = _fatal(f, _F.DEEP_DISCHARGE)
    if row is not None and kind is not None and row.threshold < kind.v_low:
        f.row_error(
            row, "threshold", row.threshold, f"below the {kind.v_low:g} V that {cell.chemistry} cells bear",
            f"take {low - 0.5:g} V",
        )  # fmt: skip
    under = _fatal(f, _F.CELL_UNDERVOLTAGE)
    if row is not None and under is not None and row.threshold >= under.threshold:
        f.row_error(
            row, "threshold", row.threshold,
            f"an ordinary under-voltage, {under.threshold:g} V, already counts as a damaged cell",
            f"take about {low - 0.5:g} V",
        )  # fmt: skip


def _string_voltage(f: Findings) -> None:
    n = f.config.rack.n_series
    low, high = n * f.config.cell.v_min, n * f.config.cell.limits.v_max
    row = _fatal(f, _F.PACK_OVERVOLTAGE)
    if row is not None and not high < row.threshold <= PACK_LIMIT * high:
        f.row_error(
            row, "threshold", row.threshold,
            f"{n} cells in series are full at {high:g} V, and GB 44240-2024 8.3 looks at {PACK_LIMIT * high:g} V",
            f"take about {n * (high / n + 0.04):g} V",
        )  # fmt: skip
    row = _fatal(f, _F.PACK_UNDERVOLTAGE)
    if row is not None and not 0.7 * low <= row.threshold < low:
        f.row_error(
            row, "threshold", row.threshold, f"{n} cells in series are empty at {low:g} V",
            f"take about {n * (low / n - 0.08):g} V",
        )  # fmt: skip


def _temperature(f: Findings) -> None:
    limits, kind = f.config.cell.limits, CHEMISTRIES.get(f.config.cell.chemistry)
    for fault in (_F.CHARGE_HOT, _F.DISCHARGE_HOT):
        row = _fatal(f, fault)
        if row is None:
            continue
        if kind is not None and row.threshold > kind.degc_high:
            f.row_error(
                row, "threshold", row.threshold,
                f"beyond the {kind.degc_high:g} degC that {f.config.cell.chemistry} cells bear",
                f"take {limits.degc_max + 2:g}: degc_max of the cell + 2",
            )  # fmt: skip
        elif row.threshold >= limits.degc_max + HEATED_K:
            f.row_error(
                row, "threshold", row.threshold,
                f"IEC 62619 8.2.4 heats to degc_max + 5 = {limits.degc_max + HEATED_K:g} degC, and nothing would open",
                f"take less, for example {limits.degc_max + 2:g}",
            )  # fmt: skip
        elif row.threshold <= limits.degc_max:
            f.row_error(
                row, "threshold", row.threshold, f"trips inside the cell's range, degc_max = {limits.degc_max:g} degC",
                f"take {limits.degc_max + 2:g}",
            )  # fmt: skip
    for fault, coldest, most_k, why in (
        (_F.CHARGE_COLD, limits.degc_min_charge, 5.0, "the anode plates when it is charged so cold"),
        (_F.DISCHARGE_COLD, limits.degc_min_discharge, 10.0, "the cell is not made for it"),
    ):
        row = _fatal(f, fault)
        key = fault.name.lower().replace("_cold", "")
        if row is not None and row.threshold < coldest - most_k:
            f.row_error(
                row, "threshold", row.threshold,
                f"{coldest - row.threshold:.3g} K below the cell's degc_min_{key} = {coldest:g}: {why}",
                f"take {coldest - 3:g}",
            )  # fmt: skip
        elif row is not None and row.threshold > coldest:
            f.row_error(
                row, "threshold", row.threshold, f"trips inside the cell's range, degc_min_{key} = {coldest:g} degC",
                f"take {coldest - 3:g}",
            )  # fmt: skip


def _current(f: Findings) -> None:
    basis = f.config.basis
    for fault, rated, name in (
        (_F.DISCHARGE_CURRENT, basis.discharge_a, "discharge"),
        (_F.CHARGE_CURRENT, basis.charge_a, "charge"),
    ):
        row = _fatal(f, fault)
        if row is None:
            continue
        if row.threshold > OVERCURRENT * rated:
            f.row_error(
                row, "threshold", row.threshold,
                f"more than 120 % of the largest {name} current, {rated:g} A, at which IEC 62619 8.2.3 looks",
                f"take {1.15 * rated:g} A",
            )  # fmt: skip
        elif row.threshold <= rated:
            f.row_error(
                row, "threshold", row.threshold, f"trips at the rated {name} current, {rated:g} A",
                f"take {1.15 * rated:g} A",
            )  # fmt: skip
    short = _fatal(f, _F.SHORT_CIRCUIT)
    for fault in (_F.DISCHARGE_CURRENT, _F.CHARGE_CURRENT):
        row = _fatal(f, fault)
        if short is not None and row is not None and short.threshold <= row.threshold:
            f.row_error(
                short, "threshold", short.threshold,
                f"not above the fatal over-current of {row.threshold:g} A, so that any over-current counts as a short",
                f"take about {2.5 * row.threshold:.3g} A",
            )  # fmt: skip
            return


def _insulation(f: Findings) -> None:
    volt = f.config.rack.n_series * f.config.cell.limits.v_max
    for fault in (_F.INSULATION, _F.INSULATION_POSITIVE, _F.INSULATION_NEGATIVE):
        for severity, least in ((_FATAL, INSULATION_LEAST), (_WARNING, INSULATION_WARN)):
            row = f.row(fault, severity)
            if row is None or row.threshold >= 0.999 * least * volt:
                continue
            text = f"{row.threshold / volt:.3g} ohm/V at {volt:g} V, less than {least:g} ohm/V"
            remedy = f"take at least {least * volt:.3g} ohm"
            if severity is _FATAL:
                f.row_error(row, "threshold", row.threshold, f"{text} (ISO 6469-3, UL 1973)", remedy)
            else:
                f.row_warning(row, "threshold", row.threshold, f"{text} (IEC 62477-1)", remedy)


def bears_0_v(chemistry: str) -> bool:
    """Whether cells may be kept at 0 V for transport."""
    return chemistry in SODIUM
