"""Faults, causes and reasons of limits in words, from the numbers of a command."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bms.core.balancing import MODULE_CELLS
from bms.core.faults import ABOUT, Fault, Place, row_of, text_of
from hal.contract import HORIZONS_S, NO_INDEX, Constraint, Contactor

SEVERITIES = ("fault_info", "fault_warning", "fault_fatal")
"""Fields of a command, from the mildest."""

_CONSTRAINTS = {
    Constraint.NONE: ("no constraint", "", ""),
    Constraint.STATE: ("not connected", "", ""),
    Constraint.FAULT: ("reaction to a fault", "fault", ""),
    Constraint.DATA: ("value not known", "cell", ""),
    Constraint.RATING: ("rating", "", "A"),
    Constraint.CELL_VOLTAGE: ("cell voltage at the end of the horizon", "cell", "V"),
    Constraint.PACK_VOLTAGE: ("string voltage", "", "V"),
    Constraint.SOC: ("end of the SoC window", "cell", "SoC"),
    Constraint.TEMPERATURE: ("temperature", "sensor", "degC"),
    Constraint.SOC_DERATING: ("derating over SoC", "cell", "SoC"),
    Constraint.HEAT: ("heat within the horizon", "cell", "degC"),
    Constraint.FUSE: ("heat of fuse and contactors", "", "of its budget"),
    Constraint.RISE: ("rises no faster", "", "A"),
    Constraint.MEASURED_VOLTAGE: ("measured voltage", "cell", "V"),
}
_PLACES = {Place.CELL: "cell", Place.SENSOR: "sensor", Place.RAIL: "rail", Place.CAUSE: "code"}
_RAILS = {1: "positive", 2: "negative"}


def mask_of(words: npt.NDArray[np.uint32]) -> int:
    """Words of faults of one command, or of many side by side (n, words), as one whole number: bit f is fault f."""
    together = np.bitwise_or.reduce(words.reshape(-1, words.shape[-1]), axis=0)
    return sum(int(word) << (32 * k) for k, word in enumerate(together))


def faults_in(mask: int) -> list[Fault]:
    """The faults whose bits are set."""
    return [fault for fault in Fault if mask >> fault & 1]


def fault_text(mask: int) -> str:
    """Names of the faults in `mask`."""
    return ", ".join(text_of(fault) for fault in faults_in(mask))


def place_text(fault: Fault, index: int) -> str:
    """Where a fault was seen, with a blank in front; empty where it concerns the whole rack."""
    place = ABOUT[fault].place
    if place == Place.RACK or index == NO_INDEX:
        return ""
    if place == Place.CONTACTOR:
        return f" at {Contactor(index).name or index}".lower().replace("_", " ").replace("|", " and ")
    if place == Place.RAIL:
        return f" at rail {_RAILS.get(index, index)}"
    return f" at {_PLACES[place]} {index}"


def module_text(controller: Any, fault: Fault, index: int) -> str:
    """The module of the cell or sensor that a fault was seen at, counted from 1, with a comma in front; or nothing."""
    place, n_cells = ABOUT[fault].place, controller.measurement.n_cells
    size = int(controller.config.balancing_size[MODULE_CELLS])
    if place == Place.SENSOR:
        cells = np.flatnonzero(controller.config.sensor_of_cell == index)
        index = int(cells[0]) if cells.size else NO_INDEX
    if place not in (Place.CELL, Place.SENSOR) or index >= n_cells or n_cells <= size:
        return ""
    return f", module {index // size + 1} of {-(-n_cells // size)}"


def cause_text(controller: Any) -> str:
    """The fatal fault that came first, where, and what was seen; empty without one. Of the last command."""
    head = controller.command.head[0]
    if not head["cause"]:
        return ""
    fault, _ = row_of(int(head["cause"]))
    unit, index = ABOUT[fault].unit, int(head["cause_index"])
    value = f"{float(head['cause_value']):.5g}" + (f" {unit}" if unit != "1" else "")
    return f"{text_of(fault)}{place_text(fault, index)}{module_text(controller, fault, index)}: {value}"


def limit_names() -> list[str]:
    """What the ten entries of a command's reasons are about, in their order."""
    horizons = [f"{horizon_s:g} s" for horizon_s in HORIZONS_S]
    return [
        *(f"discharge {name}" for name in horizons),
        *(f"charge {name}" for name in horizons),
        "discharge now",
        "charge now",
    ]


def reason_text(command: Any, k: int) -> str:
    """Why limit `k` of a command record (`hal.contract.Command`) is what it is."""
    constraint = Constraint(int(command.reason[k]))
    text, place, unit = _CONSTRAINTS[constraint]
    index = int(command.reason_index[k])
    if constraint == Constraint.FAULT and index != NO_INDEX:
        return f"{text}: {text_of(row_of(index)[0])}" if index >= 10 else text
    if place and index != NO_INDEX:
        text += f" of {place} {index}"
    if not unit:
        return text
    return f"{text}: {float(command.reason_value[k]):.4g} {unit}, {float(command.reason_margin[k]):.3g} to go"
