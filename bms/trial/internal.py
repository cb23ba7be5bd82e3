"""What goes wrong in the controller itself: its memory, its configuration, its timing. Entries of `[[internal]]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bms.core.estimator_setup import rows_view
from bms.core.guard import DIGEST, RESET_CAUSE, STORE_VERDICT
from bms.core.health_layout import PAIRS, ROWS
from bms.core.layout import Config
from bms.core.machine import TRANSPORTED
from bms.core.step import Controller
from hal.errors import ConfigError, nearest


@dataclass(frozen=True)
class Kind:
    """What one kind does; `value`: what it is, '' for none, from `least` to `most`; `index`: it names a cell."""

    about: str
    value: str = ""
    index: bool = False
    least: float = 0.0
    most: float = float("inf")


KINDS: dict[str, Kind] = {
    "reset_cause": Kind(
        "it started because of `value`: 1 orderly, 2 by an operator, 3 after a crash", "code", least=1, most=3
    ),
    "store_verdict": Kind("the state store gave 1 an older state, 2 none of what was there", "code", least=1, most=2),
    "other_configuration": Kind("its memory belongs to another configuration"),
    "configuration_bit": Kind("one bit of its configuration flips: word `value` of the charge derating", "word"),
    "estimate_lost": Kind("what it knows of the cell `index` is no number any more", index=True),
    "capacity_share": Kind(
        "it has learnt that the cell `index` has `value` of its capacity", "share", index=True, most=1
    ),
    "transported": Kind("it remembers that the rack was sent at 0 V"),
    "late_step": Kind("one step comes `value` s late", "s", most=1e6),
}
"""Every kind of `[[internal]]`."""


def check(entry: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` for a kind that does not exist, or for keys that do not go with it."""
    name = entry["kind"]
    if name not in KINDS:
        raise ConfigError(f"{where}: kind = {name!r}: not known{nearest(name, KINDS)}")
    kind = KINDS[name]
    for key, needed in (("value", bool(kind.value)), ("index", kind.index)):
        if (key in entry) != needed:
            wanted = kind.value if key == "value" else "number of a cell"
            remedy = f"missing ({wanted})" if needed else "not used by this kind: leave it out"
            raise ConfigError(f"{where}: kind = {name!r}: {key} is {remedy}")
    value = entry.get("value", kind.least)
    if isinstance(value, str) or not kind.least <= value <= kind.most:
        raise ConfigError(
            f"{where}: value = {value!r}: expected a number in {kind.least:g}..{kind.most:g} ({kind.value})"
        )
    index = entry.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ConfigError(f"{where}: index = {index!r}: expected the number of a cell")


def check_place(entry: Mapping[str, Any], config: Config) -> None:
    """Raise `ConfigError` for a cell or a word that a controller of this `config` does not have."""
    name, cell = entry["kind"], entry.get("index", 0)
    if cell >= config.n_cells:
        raise ConfigError(f"[[internal]] kind = '{name}': index = {cell}: not in 0..{config.n_cells - 1}")
    if name == "configuration_bit" and not 0 <= int(entry["value"]) < len(words := _words(config)):
        raise ConfigError(f"[[internal]] kind = '{name}': value = {entry['value']}: not in 0..{len(words) - 1}")


def _words(config: Config) -> npt.NDArray[np.uint32]:
    """The words of which `configuration_bit` flips one bit."""
    words: npt.NDArray[np.uint32] = config.raw["power_polyline"][0].view(np.uint32)
    return words


def apply(entry: Mapping[str, Any], controller: Controller) -> None:
    """Do to `controller` what an entry says, once `check_place` has seen it. A late step is the caller's business."""
    state, name, cell = controller.state, entry["kind"], entry.get("index", 0)
    match name:
        case "reset_cause":
            state.guard_word[RESET_CAUSE] = int(entry["value"])
        case "store_verdict":
            state.guard_word[STORE_VERDICT] = int(entry["value"])
        case "other_configuration":
            state.guard_word[DIGEST] ^= 1
        case "configuration_bit":
            _words(controller.config)[int(entry["value"])] ^= 1
        case "estimate_lost":
            rows_view(state.blocks)[:, cell // 16, cell % 16] = np.nan
        case "capacity_share":
            state.health_capacity[cell], state.raw["health_capacity_std"][0][cell] = entry["value"], 0.01
            state.health_cell.reshape(-1, ROWS)[cell, PAIRS] = 2.0
        case "transported":
            state.machine_word[TRANSPORTED] = 1
