"""What happened in each step of a trial, as arrays.

A step only copies the records as they are, which takes microseconds; every `CHUNK` steps, and when somebody looks,
they are turned into columns all at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bms.core.faults import N_FAULTS
from bms.core.step import Controller
from hal.contract import N_FAULT_WORDS, Contactor, Quality, RackInfo, Record, Truth

MAINS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE)
CHUNK = 128

_GOOD = int(Quality.GOOD)
_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "time_s": ("f8", ()), "dt_s": ("f8", ()), "request": ("u1", ()), "state": ("u1", ()), "asked": ("u1", ()),
    "closed": ("?", ()), "discharge_a": ("f4", ()), "charge_a": ("f4", ()), "current_a": ("f4", ()),
    "true_a": ("f8", ()), "cause": ("u2", ()), "cause_index": ("u2", ()), "bits": ("u4", (3, N_FAULT_WORDS)),
    "value": ("f4", (N_FAULTS,)), "where": ("u2", (N_FAULTS,)),
    "v_min": ("f4", ()), "v_mean": ("f4", ()), "v_max": ("f4", ()),
    "bled": ("u2", ()), "cooling_degc": ("f4", ()), "soc": ("f4", ()), "refused": ("u2", ()),
}  # fmt: skip
_OF_COMMAND = {
    "state": "state", "asked": "contactors", "discharge_a": "limit_discharge_a", "charge_a": "limit_charge_a",
    "cause": "cause", "cause_index": "cause_index", "cooling_degc": "cooling_degc", "refused": "reset_refused",
    "soc": "soc_mean",
}  # fmt: skip


class _Chunk:
    """Copies of one record, a step after the other."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.records = np.zeros(CHUNK, record.raw.dtype)
        self._bytes = self.records.view(np.uint8).reshape(CHUNK, -1)

    def take(self, row: int) -> None:
        self._bytes[row] = self._record.bytes


class Log:
    """Arrays (n_steps, ...), by name: `time_s`, `state`, `asked` (contactors), `bits`, `v_min`, `true_degc`, ...

    For at most `n` steps of `controller`; `truth` is filled before each where the rack is a twin.
    """

    def __init__(self, n: int, info: RackInfo, controller: Controller, truth: Truth | None) -> None:
        self._n = self._turned = 0
        self._state = controller.state
        columns = {**_COLUMNS, "degc": ("f4", (info.n_sensors,)), "true_degc": ("f4", (info.n_cells,))}
        self._columns: dict[str, npt.NDArray[Any]] = {
            name: np.zeros((n, *shape), kind) for name, (kind, shape) in columns.items()
        }
        self._measured, self._told = _Chunk(controller.measurement), _Chunk(controller.command)
        self._true = None if truth is None else _Chunk(truth)
        self._value, self._where = self._columns["value"], self._columns["where"]
        self._times = [(0.0, 0.0, 0, -1)] * CHUNK

    def add(self, now_s: float, dt_s: float, request: int, contactors: int | None) -> None:
        """Take down the step that was just made. `contactors`: what is really closed; None where nobody knows."""
        n = self._n
        row = n - self._turned
        self._measured.take(row)
        self._told.take(row)
        if self._true is not None:
            self._true.take(row)
        self._value[n], self._where[n] = self._state.fault_value, self._state.fault_where
        self._times[row] = now_s, dt_s, request, -1 if contactors is None else contactors
        self._n = n + 1
        if row + 1 == CHUNK:
            self._turn()

    def _turn(self) -> None:
        """Turn the copies into columns."""
        rows, count = slice(self._turned, self._n), self._n - self._turned
        self._turned = self._n
        columns, measured, told = self._columns, self._measured.records[:count], self._told.records[:count]
        head, answer = measured["head"], told["head"]
        for name, field in _OF_COMMAND.items():
            columns[name][rows] = answer[field]
        for k, word in enumerate(("fault_info", "fault_warning", "fault_fatal")):
            columns["bits"][rows, k] = told[word]
        time_s, dt_s, request, seen = zip(*self._times[:count], strict=True)
        columns["time_s"][rows], columns["dt_s"][rows], columns["request"][rows] = time_s, dt_s, request
        closed = np.where(np.asarray(seen) < 0, head["contactors"], seen)
        columns["closed"][rows] = closed & MAINS == MAINS
        columns["current_a"][rows] = head["current_a"]
        columns["bled"][rows] = np.count_nonzero(told["balance"], axis=1)
        degc = measured["sensor_degc"]
        columns["degc"][rows] = np.where(measured["sensor_degc_quality"] == _GOOD, degc, np.nan)
        self._turn_voltages(rows, measured)
        if self._true is None:
            columns["true_a"][rows] = columns["true_degc"][rows] = np.nan
        else:
            true = self._true.records[:count]
            columns["true_a"][rows], columns["true_degc"][rows] = true["head"]["current_a"], true["cell_degc"]
            columns["soc"][rows] = true["soc"].mean(axis=1)

    def _turn_voltages(self, rows: slice, measured: npt.NDArray[np.void]) -> None:
        """Lowest, mean and highest of the good cells; NaN where there is none."""
        cell_v = measured["cell_v"]
        good = (measured["cell_v_quality"] == _GOOD) & np.isfinite(cell_v)
        some, count = good.any(axis=1), np.maximum(good.sum(axis=1), 1)
        low, high = np.where(good, cell_v, np.inf).min(axis=1), np.where(good, cell_v, -np.inf).max(axis=1)
        mean = np.where(good, cell_v, 0.0).sum(axis=1, dtype=np.float64) / count
        for name, value in (("v_min", low), ("v_mean", mean), ("v_max", high)):
            self._columns[name][rows] = np.where(some, value, np.nan)

    def __len__(self) -> int:
        return self._n

    def __getattr__(self, name: str) -> npt.NDArray[Any]:
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(name)
        if self._turned < self._n:
            self._turn()
        return self._columns[name][: self._n]

    def shows(self, fault: int, severity: int) -> npt.NDArray[np.bool_]:
        """In which steps a row is active or latched."""
        shown: npt.NDArray[np.bool_] = (self.bits[:, severity - 1, fault // 32] >> np.uint32(fault % 32) & 1) != 0
        return shown
