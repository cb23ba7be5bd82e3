"""Numbers of a trial that follow from the rack: `"1.2 x charge_a"`, `"cell_overvoltage.fatal + 0.02"`.

So one trial serves racks of any chemistry and size. The grammar is `[NUMBER x] NAME [+ NUMBER | - NUMBER]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from bms.core.faults import Fault
from bms.racks import RackConfig
from hal.contract import Severity
from hal.errors import ConfigError, nearest

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_FORM = re.compile(rf"(?:({_NUMBER})\s*[x*]\s*)?([a-z][a-z0-9_.]*)(?:\s*([+-])\s*(\d+\.?\d*|\.\d+))?")

NAMES = {
    "capacity_ah": "nominal capacity of the string, Ah; 1 x capacity_ah is the 1C current",
    "charge_a": "largest charge current allowed, A, a magnitude",
    "discharge_a": "largest discharge current allowed, A",
    "current_range_a": "what the current sensor can show, A",
    "n_series": "groups in series",
    "v_min": "lower limit of a cell, V",
    "v_max": "upper limit of a cell, V",
    "pack_v_min": "lower limit of the string: n_series times v_min, V",
    "pack_v_max": "upper limit of the string: n_series times v_max, V",
    "degc_max": "largest temperature of a cell, degC",
    "degc_min_charge": "lowest temperature for charging, degC",
    "degc_min_discharge": "lowest temperature for discharging, degC",
}
"""What a number may refer to, beside the thresholds of the fault table, `FAULT.TIER`."""


def quantities(config: RackConfig) -> dict[str, float]:
    """The value of every name for a rack: `NAMES`, and the threshold of every row of its fault table."""
    limits, basis = config.cell.limits, config.basis
    values = {
        "capacity_ah": basis.capacity_ah,
        "charge_a": basis.charge_a,
        "discharge_a": basis.discharge_a,
        "current_range_a": basis.current_range_a,
        "n_series": float(basis.n_series),
        "v_min": limits.v_min,
        "v_max": limits.v_max,
        "pack_v_min": limits.v_min * basis.n_series,
        "pack_v_max": limits.v_max * basis.n_series,
        "degc_max": limits.degc_max,
        "degc_min_charge": limits.degc_min_charge,
        "degc_min_discharge": limits.degc_min_discharge,
    }
    values.update({f"{row.fault.name.lower()}.{row.severity.name.lower()}": row.threshold for row in config.rows})
    return values


def is_number(text: str) -> bool:
    """True if `text` is a number by itself."""
    return re.fullmatch(_NUMBER, text, re.IGNORECASE) is not None


def check(value: object, where: str) -> None:
    """Raise `ConfigError` unless `value` is a number, or text of the grammar with a name that some rack could have."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(f"{where} = {value!r}: expected a number, or text such as '1.2 x charge_a'")
    if isinstance(value, str):
        name = _parts(value, where)[1]
        fault, dot, tier = name.partition(".")
        faults = {fault.name.lower() for fault in Fault}
        if dot and fault in faults and tier in ("info", "warning", "fatal"):
            return
        if name not in NAMES:
            known = [*NAMES, *(f"{fault}.{s.name.lower()}" for fault in faults for s in Severity if s)]
            hint = nearest(name, known) if dot else nearest(name, NAMES)
            raise ConfigError(f"{where} = {value!r}: no quantity '{name}'{hint}")


def number(value: object, values: Mapping[str, float], where: str) -> float:
    """The number that `value` stands for, with the `values` of a rack. Raises `ConfigError`."""
    check(value, where)
    if not isinstance(value, str):
        return float(value)  # type: ignore[arg-type]
    factor, name, offset = _parts(value, where)
    if name not in values:
        raise ConfigError(f"{where} = {value!r}: this rack has no row '{name}'; give a number, or enable the row")
    return factor * values[name] + offset


def resolved(table: Any, values: Mapping[str, float], where: str, words: frozenset[str]) -> Any:
    """`table` with numbers for all texts of the grammar, except for keys in `words`, which hold text as it is."""
    if isinstance(table, Mapping):
        return {
            key: item if key in words else resolved(item, values, f"{where} {key}", words)
            for key, item in table.items()
        }
    if isinstance(table, list | tuple):
        return [resolved(item, values, where, words) for item in table]
    return number(table, values, where) if isinstance(table, str) else table


def _parts(text: str, where: str) -> tuple[float, str, float]:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{where} = {text!r}: expected a number, NAME, '1.2 x NAME' or 'NAME + 0.1'")
    factor, offset = float(match[1] or 1.0), float(match[4] or 0.0)
    if not (math.isfinite(factor) and math.isfinite(offset)):
        raise ConfigError(f"{where} = {text!r}: more than a number can be; lessen it")
    return factor, match[2], -offset if match[3] == "-" else offset
