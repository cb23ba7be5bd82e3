"""Write a cell file: the same parameters always give the same bytes."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np

from bms.cells import FORMAT, CellParameters, Limits

_DIGITS = {"ocv_v": 6, "hysteresis_v": 6, "hysteresis_instant_v": 6, "voltage_error_v": 6, "capacity_ah": 5}
_ORDER = (
    ("soc", "soc", "nodes of ocv_v and hysteresis_v"),
    ("soc_r", "soc_r", "nodes of the resistances"),
    ("temperature_degc", "degc", "one row of every table below for each"),
    ("capacity_ah", "capacity", ""),
    ("coulombic_efficiency", "coulombic_efficiency", ""),
    ("ocv_v", "ocv_v", "open-circuit voltage without hysteresis"),
    ("hysteresis_v", "hysteresis_v", "M: half the gap of the full hysteresis loop"),
    ("hysteresis_gamma", "gamma", "rate of the hysteresis, per full charge"),
    ("hysteresis_instant_v", "hysteresis_instant_v", "M0: step with the sign of the current"),
    ("r0_ohm", "r0_ohm", "ohmic resistance"),
    ("rct_ohm", "rct_ohm", "charge transfer at small current; bends as asinh(i / bend_a)"),
    ("rc_tau_s", "tau_s", ""),
    ("rc_ohm", "r_ohm", "one table for each RC pair"),
    ("voltage_error_v", "voltage_error_v", "slow error of the voltage model that the filter expects"),
    ("knee_error_soc", "knee_error_soc", "how far a step of the OCV curve may be misplaced"),
)


def _number(value: float, digits: int | None) -> str:
    text = f"{value:.{digits}f}" if digits is not None else f"{value:.5g}"
    return text if any(c in text for c in ".en") else text + ".0"


def _array(values: np.ndarray, digits: int | None, indent: str = "") -> str:
    if values.ndim == 1:
        return "[" + ", ".join(_number(float(v), digits) for v in values) + "]"
    inner = ",\n".join(indent + "  " + _array(row, digits, indent + "  ") for row in values)
    return "[\n" + inner + ",\n" + indent + "]"


def dump(cell: CellParameters) -> str:
    """The text of the cell file for `cell`; `bms.cells.load` reads it back."""

    def quote(text: str) -> str:
        # a string of JSON is one of TOML, but for DEL, which TOML wants escaped too
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

    lines = [
        f"format = {FORMAT}",
        f"name = {quote(cell.name)}",
        f"chemistry = {quote(cell.chemistry)}",
        f"source = {quote(cell.source)}",
    ]
    lines += ["", "[limits]"] + [f"{f.name} = {_number(getattr(cell.limits, f.name), None)}" for f in fields(Limits)]
    lines += ["", "[model]"]
    for key, attribute, comment in _ORDER:
        if comment:
            lines.append(f"# {comment}")
        lines.append(f"{key} = {_array(np.asarray(getattr(cell, attribute)), _DIGITS.get(key))}")
    lines.append(f"bend_a = {_number(cell.bend_a, None)}")
    if cell.filter:
        lines += ["", "[filter]"] + [f"{key} = {_number(value, None)}" for key, value in sorted(cell.filter.items())]
    return "\n".join(lines) + "\n"
