"""What a controller remembers over a restart: from its records to the sections of a state store, and back.

Restored is what stays true while nobody watches: charge and health of the cells, what each has too much, leaks, latched
faults, wear of the contactors, energy. Filters of seconds, timers and limits start anew. Time has passed unseen: the
SoC is less certain by `DRIFT_PER_DAY`, and where the voltages at rest contradict it, they win.

The sections of a snapshot belong together. One that cannot be used is left out with a reason, and with it all others,
but for latched faults and wear: those are safe to take whatever else is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bms.core import health_layout as h
from bms.core import machine as m
from bms.core.diagnosis import ACTIVE, LATCHED
from bms.core.estimator_layout import NX, Q, R, Z, p_row
from bms.core.estimator_setup import rows_view
from bms.core.guard import RESET_CAUSE, STORE_VERDICT
from bms.core.layout import State
from bms.core.step import Controller
from bms.runtime.persist import Expected, pack, schema_of, unpack
from bms.runtime.store import Saver, StateStore, Verdict
from bms.runtime.store_file import Cause
from hal.contract import RackInfo, RackState, Truth
from hal.errors import DataError

VERSION = "1"
SAVE_EVERY_S = 60.0
DRIFT_PER_DAY = 0.003  # deviation of SoC that a day without the controller adds: self-discharge and small loads
CONTRADICTION = 4.0  # deviations between what is remembered and what voltages at rest say

_RESET_FAULT = {Cause.FIRST: 0, Cause.ORDERED: 1, Cause.OPERATOR: 2, Cause.CRASH: 3}
_STORE_FAULT = {Verdict.OLDER_GENERATION: 1, Verdict.LOST: 2, Verdict.OTHER_LAYOUT: 2}
_WORDS = (m.ATTEMPTS, m.TRANSPORTED, *range(m.OPERATIONS, m.OPERATIONS + m.N_CONTACTORS))

# arrays of the controller's memory that a section takes as they are
_WHOLE = {
    "health": ("health_capacity", "health_capacity_std", "health_resistance", "health_resistance_std", "health_cell",
               "health_count"),
    "balancing": ("balancing_excess_ah", "balancing_var", "balancing_bled_ah", "balancing_bled_low",
                  "balancing_number"),
    "leak": ("leak_excess_ah", "leak_a", "leak_capacity", "leak_p", "leak_bled_ah", "leak_flow_a"),
}  # fmt: skip
_FILTER = (("soc", Z), ("resistance", R), ("capacity", Q))


@dataclass
class Counters:
    """What is counted for as long as the rack lives."""

    energy_out_j: float = 0.0
    energy_in_j: float = 0.0
    connected_s: float = 0.0
    running_s: float = 0.0

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Each counter as an array of one."""
        return {name: np.array([value]) for name, value in vars(self).items()}


def expected(info: RackInfo, state: State) -> dict[str, dict[str, Expected]]:
    """The sections, and what each array of them must be for this rack."""
    n = info.n_cells
    sections = {
        name: {array: Expected("f4", getattr(state, array).shape, finite=False) for array in arrays}
        for name, arrays in _WHOLE.items()
    }
    sections["estimate"] = {
        "soc": Expected("f4", (n,), -0.05, 1.05),
        "soc_var": Expected("f4", (n,), 0, 1e3),
        "resistance": Expected("f4", (n,), -0.71, 0.71),
        "resistance_var": Expected("f4", (n,), 0, 10),
        "capacity": Expected("f4", (n,), -0.21, 0.21),
        "capacity_var": Expected("f4", (n,), 0, 10),
        "bias_a": Expected("f4", (2,), -1e6, 1e6),
    }
    sections["faults"] = {
        "status": Expected("u1", state.fault_status.shape, 0, ACTIVE | LATCHED),
        "word": Expected("u4", state.fault_word.shape),
        "number": Expected("f4", state.fault_number.shape, finite=False),
    }
    sections["contactors"] = {
        "wear": Expected("f4", state.machine_wear.shape, 0, 1e6),
        "word": Expected("u4", (len(_WORDS),)),
    }
    sections["counters"] = {name: Expected("f8", (1,), 0, 1e30) for name in Counters().arrays()}
    return sections


def schemas(info: RackInfo, state: State) -> dict[str, str]:
    """Digest of each section, for the store; another size of rack is another layout."""
    return {name: schema_of(arrays, VERSION) for name, arrays in expected(info, state).items()}


def sections_of(controller: Controller, counters: Counters) -> dict[str, bytes]:
    """What there is to remember now."""
    state, n = controller.state, controller.config.n_cells
    rows = rows_view(state.blocks)
    filters: dict[str, npt.NDArray[Any]] = {}
    for name, row in _FILTER:
        filters[name] = rows[row].ravel()[:n]
        filters[f"{name}_var"] = rows[p_row(row, row)].ravel()[:n]
    shared = state.head[0]
    filters["bias_a"] = np.array([shared["bias_a"], shared["bias_var"]], np.float32)
    sections = {name: pack({array: getattr(state, array) for array in arrays}) for name, arrays in _WHOLE.items()}
    sections["estimate"] = pack(filters)
    sections["faults"] = pack(
        {
            "status": state.fault_status,
            "word": state.fault_word,
            "number": state.fault_number,
        }
    )
    sections["contactors"] = pack({"wear": state.machine_wear, "word": state.machine_word[list(_WORDS)]})
    sections["counters"] = pack(counters.arrays())
    return sections


def restore(
    controller: Controller, info: RackInfo, sections: Mapping[str, bytes], away_s: float, counters: Counters
) -> list[str]:
    """Take over `sections` into a fresh controller, `away_s` after they were saved; returns what it could not take.

    The controller's SoC and its deviation, as its voltages at rest gave them, are the prior.
    """
    wanted, found, refused = expected(info, controller.state), {}, []
    for name, arrays in wanted.items():
        try:
            found[name] = unpack(sections[name], arrays)
        except KeyError:
            refused.append(f"{name}: missing")
        except DataError as error:
            refused.append(f"{name}: {error}")
    state = controller.state
    if "faults" in found:
        latched = found["faults"]["status"] & LATCHED
        state.fault_status[:] = latched
        state.fault_word[:] = found["faults"]["word"]
        state.fault_number[:] = found["faults"]["number"]
    if "contactors" in found:
        state.machine_wear[:] = found["contactors"]["wear"]
        state.machine_word[list(_WORDS)] = found["contactors"]["word"]
    if refused:
        return refused
    for name, whole in _WHOLE.items():
        for array in whole:
            getattr(state, array)[...] = found[name][array]
    # charge was not counted in the meantime: moments of known SoC are no longer a beginning
    cells = state.health_cell.reshape(-1, h.ROWS)
    cells[:, h.OLDER + h.M_PASSING] = 0.0
    cells[:, h.NEWER + h.M_PASSING] = 0.0
    for name, counted in found["counters"].items():
        setattr(counters, name, float(counted[0]))
    return _restore_filters(controller, found["estimate"], away_s)


def _restore_filters(controller: Controller, kept: Mapping[str, npt.NDArray[Any]], away_s: float) -> list[str]:
    state, n = controller.state, controller.config.n_cells
    rows = rows_view(state.blocks)
    grown = kept["soc_var"] + np.float32((DRIFT_PER_DAY * away_s / 86400.0) ** 2)
    prior, prior_std = controller.soc, controller.soc_std
    apart = np.abs(kept["soc"] - prior) > CONTRADICTION * np.sqrt(prior_std**2 + grown)
    believed = ~apart
    n_lanes = rows.shape[1] * rows.shape[2]
    for name, row in _FILTER:
        for at, values in ((row, kept[name]), (p_row(row, row), grown if name == "soc" else kept[f"{name}_var"])):
            whole = rows[at].reshape(n_lanes).copy()
            take = believed if name == "soc" else np.ones(n, bool)
            whole[:n][take] = np.maximum(values, 1e-12)[take] if at >= NX else values[take]
            whole[n:] = whole[n - 1]
            rows[at] = whole.reshape(rows[at].shape)
    shared = state.head
    shared["bias_a"], shared["bias_var"] = kept["bias_a"][0], max(float(kept["bias_a"][1]), 1e-12)
    controller.soc[believed] = np.clip(kept["soc"][believed], 0.0, 1.0)
    controller.soc_std[believed] = np.sqrt(grown[believed])
    if apart.any():
        cells = np.flatnonzero(apart)
        return [f"SoC of {cells.size} cells (first: {cells[0]}): the voltages at rest contradict it, and are believed"]
    return []


@dataclass
class Memory:
    """Keeps a controller's memory in a store while it runs: an observer of the loop, and a context manager.

    `open` restores; then every `SAVE_EVERY_S`, and whenever the state or the faults of the rack change, the memory is
    saved by a thread of its own. An ordered end is noted as such, anything else will be called a crash.
    """

    path: Path
    controller: Controller
    info: RackInfo
    counters: Counters = field(default_factory=Counters)
    message: str = ""

    def open(self) -> str:
        """Restore; returns what happened, in words. Raises `ConfigError` where another process has the store."""
        self._store = StateStore(self.path)
        self._schemas = schemas(self.info, self.controller.state)
        loaded = self._store.load(self._schemas)
        verdict, refused = loaded.verdict, []
        if loaded.sections:
            away_s = max(time.time() - loaded.time_s, 0.0)
            refused = restore(self.controller, self.info, loaded.sections, away_s, self.counters)
        word = self.controller.state.guard_word
        word[RESET_CAUSE] = _RESET_FAULT[loaded.cause]
        word[STORE_VERDICT] = _STORE_FAULT.get(verdict, 0)
        self._store.begin()
        self._saver = Saver(self._store)
        self._last_s, self._shown = 0.0, (-1, -1)
        head = self.controller.command.head
        self._state, self._n_faults = head["state"], head["n_faults"]
        measured = self.controller.measurement.head
        self._volts, self._amps = measured["pack_v"], measured["current_a"]
        self.message = "; ".join([loaded.message, *refused])
        return self.message

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """Count energy and time, and save where it is due."""
        counters, state = self.counters, int(self._state[0])
        energy_j = float(self._volts[0]) * float(self._amps[0]) * dt_s
        if energy_j > 0:
            counters.energy_out_j += energy_j
        elif energy_j < 0:  # false for NaN: a missing value carries no energy
            counters.energy_in_j -= energy_j
        counters.running_s += dt_s
        if state == RackState.CONNECTED:
            counters.connected_s += dt_s
        shown = state, int(self._n_faults[0])
        if shown != self._shown or now_s - self._last_s >= SAVE_EVERY_S:
            self._shown, self._last_s = shown, now_s
            self._saver.put(sections_of(self.controller, counters), self._schemas)

    def close(self, *, ordered: bool) -> DataError | None:
        """Save the end and let go of the store; returns why the last save failed, if it did."""
        end = Cause.ORDERED if ordered else Cause.CRASH
        self._saver.close(sections_of(self.controller, self.counters), self._schemas, end)
        self._store.close()
        return self._saver.error
