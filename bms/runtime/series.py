"""What a report needs of a run, gathered step by step in bounded memory, and the numbers that sum it up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bms.core.estimator_layout import OBSERVABLE
from bms.core.step import Controller
from bms.runtime.explain import SEVERITIES, cause_text, faults_in, mask_of
from hal.contract import Constraint, Quality, RackInfo, RackState, Severity, Truth

MAX_SAMPLES = 2000
TARGET_SAMPLES = 1440  # of a run whose length is known: one a minute for a day
J_PER_KWH = 3.6e6

SCALARS = (
    "time_s", "state", "n_faults", "current_a", "pack_v", "power_w", "limit_discharge_w", "limit_charge_w",
    "cell_v_min", "cell_v_mean", "cell_v_max", "degc_min", "degc_mean", "degc_max",
    "coolant_in_degc", "coolant_out_degc",
    "soc_min", "soc_mean", "soc_max", "energy_out_j", "energy_in_j", "charge_ah", "observable", "bleeding",
)  # fmt: skip
CELLS = ("soc", "soc_std", "soc_true")


def sample_every(duration_s: float, period_s: float) -> int:
    """Steps between two samples of a run of this length (1 where it is not known)."""
    if not np.isfinite(duration_s):
        return 1
    return max(1, round(duration_s / period_s / TARGET_SAMPLES))


class Series:
    """Observer of a loop: one sample every so many steps, twice as many once `MAX_SAMPLES` are reached.

    Scalars are float64 (n,), cells float32 (n, n_cells); `soc_true` is NaN where no truth was given. Energy is
    integrated in every step from the *measured* voltage and current; in the samples it is the twin's own where it is
    known, as is the charge held (`charge_ah`, mean of the groups).
    """

    def __init__(self, info: RackInfo, controller: Controller, every: int) -> None:
        self._controller = controller
        self._info = info
        self._every = every
        self._n = 0
        self._scalars = {name: np.zeros(MAX_SAMPLES) for name in SCALARS}
        self._cells = {name: np.full((MAX_SAMPLES, info.n_cells), np.nan, np.float32) for name in CELLS}
        self._head = controller.measurement.head
        self._measured = frozenset(self._head.dtype.names or ())
        self._volts, self._amps = self._head["pack_v"], self._head["current_a"]
        self._state, self._n_faults = controller.command.head["state"], controller.command.head["n_faults"]
        self._severity = controller.command.head["severity"]
        self._reason = controller.command.reason
        self.energy_out_j = 0.0
        self.energy_in_j = 0.0
        self.steps = 0
        self.time_s = 0.0
        self.steps_in_state = [0] * len(RackState)
        self.seen = dict.fromkeys(SEVERITIES, 0)  # every fault that was shown, as bits
        self.first_fault_s = np.nan
        self.cause = ""
        # steps in which each constraint held down the limit in force
        self.discharge_limited, self.charge_limited = [0] * len(Constraint), [0] * len(Constraint)

    def __call__(self, step: int, now_s: float, dt_s: float, truth: Truth | None) -> None:
        """Take note of one step."""
        self.steps, self.time_s = step, now_s
        energy_j = float(self._volts[0]) * float(self._amps[0]) * dt_s
        if energy_j > 0:
            self.energy_out_j += energy_j
        elif energy_j < 0:  # false for NaN: a missing value carries no energy
            self.energy_in_j -= energy_j
        self.steps_in_state[self._state[0]] += 1
        self.discharge_limited[self._reason[-2]] += 1
        self.charge_limited[self._reason[-1]] += 1
        if self._n_faults[0]:
            self._note_faults(now_s)
        if (step - 1) % self._every == 0:
            self._sample(now_s, truth)

    def _note_faults(self, now_s: float) -> None:
        command = self._controller.command
        for name in SEVERITIES:
            self.seen[name] |= mask_of(getattr(command, name))
        if self._severity[0] == Severity.FATAL and not self.cause:
            self.first_fault_s = now_s
            self.cause = cause_text(self._controller)

    def _sample(self, now_s: float, truth: Truth | None) -> None:
        if self._n == MAX_SAMPLES:
            samples: list[npt.NDArray[Any]] = [*self._scalars.values(), *self._cells.values()]
            for array in samples:
                array[: MAX_SAMPLES // 2] = array[::2]
            self._n = MAX_SAMPLES // 2
            self._every *= 2
        controller, k = self._controller, self._n
        measurement = controller.measurement
        head, command = measurement.head[0], controller.command.head[0]
        cell_v = _usable(measurement.cell_v, measurement.cell_v_quality)
        degc = _usable(measurement.sensor_degc, measurement.sensor_degc_quality)
        values = {
            "time_s": now_s,
            "power_w": head["pack_v"] * head["current_a"],
            "cell_v_min": cell_v.min(), "cell_v_mean": cell_v.mean(), "cell_v_max": cell_v.max(),
            "degc_min": degc.min(), "degc_mean": degc.mean(), "degc_max": degc.max(),
            "energy_out_j": self.energy_out_j, "energy_in_j": self.energy_in_j,
            "charge_ah": command["soc_mean"] * self._info.capacity_ah,
            "observable": np.mean((controller.state.flags[: controller.config.n_cells] & OBSERVABLE) != 0),
            "bleeding": np.count_nonzero(controller.command.balance),
        }  # fmt: skip
        if truth is not None:
            values |= {name: truth.head[name][0] for name in ("energy_out_j", "energy_in_j")}
            values["charge_ah"] = np.mean(truth.soc * truth.capacity_ah)
        for name in SCALARS:
            if name in values:
                self._scalars[name][k] = values[name]
            else:
                source = head if name in self._measured else command
                self._scalars[name][k] = source[name]
        self._cells["soc"][k] = controller.soc
        self._cells["soc_std"][k] = controller.soc_std
        self._cells["soc_true"][k] = np.nan if truth is None else truth.soc
        self._n += 1

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All samples, by name."""
        scalars = {name: array[: self._n] for name, array in self._scalars.items()}
        return scalars | {name: array[: self._n] for name, array in self._cells.items()}

    def summary(self, info: RackInfo) -> dict[str, Any]:
        """Headline numbers, as JSON; None where something cannot be told. SoC errors in per cent SoC."""
        data = self.arrays()
        numbers: dict[str, Any] = {
            "steps": self.steps,
            "simulated_s": self.time_s,
            "energy_out_kwh": self.energy_out_j / J_PER_KWH,
            "energy_in_kwh": self.energy_in_j / J_PER_KWH,
            "faults": [fault.name for fault in faults_in(self.seen["fault_fatal"])],
            "warnings": [fault.name for fault in faults_in(self.seen["fault_warning"])],
            "notes": [fault.name for fault in faults_in(self.seen["fault_info"])],
            "cause": self.cause,
            "discharge_limited_by": _named(self.discharge_limited),
            "charge_limited_by": _named(self.charge_limited),
            "soh_min": float(self._controller.command.head["soh_min"][0]),
            "resistance_max": float(self._controller.command.head["resistance_max"][0]),
            "balancing_wh": self._controller.balancing_wh,
            "first_fault_s": None if np.isnan(self.first_fault_s) else self.first_fault_s,
            "steps_in_state": {state.name: n for state, n in zip(RackState, self.steps_in_state, strict=True) if n},
            "state_at_end": RackState(int(self._state[0])).name,
        }
        error = data["soc"] - data["soc_true"]
        known = np.isfinite(error)
        if known.any():
            error, std = error[known].astype(np.float64), data["soc_std"][known].astype(np.float64)
            numbers |= {
                "soc_rmse_percent": 100 * float(np.sqrt(np.mean(error**2))),
                "soc_max_error_percent": 100 * float(np.abs(error).max()),
                "soc_within_3_sigma_percent": 100 * float(np.mean(np.abs(error) <= 3 * std)),
                "soc_mean_sigma_percent": 100 * float(std.mean()),
            }
        efficiency = round_trip(data, info.capacity_ah)
        last = float(efficiency[-1]) if efficiency.size else np.nan
        numbers["round_trip_percent"] = 100 * last if np.isfinite(last) else None
        return numbers


def _named(steps: list[int]) -> dict[str, int]:
    """Steps by the names of the constraints that there were."""
    return {constraint.name: n for constraint, n in zip(Constraint, steps, strict=True) if n}


def round_trip(data: Mapping[str, npt.NDArray[Any]], capacity_ah: float) -> npt.NDArray[np.float64]:
    """DC round-trip efficiency since the start, 0..1, at every sample: energy out over energy in.

    What is stored more (or less) than at the start is charge difference x mean pack voltage of the run, and counts as
    delivered (or taken in). NaN below a tenth of the rack's energy of throughput, where it would mean nothing.
    """
    out_j, in_j = (data[name] - data[name][:1] for name in ("energy_out_j", "energy_in_j"))
    volts = np.nanmean(data["pack_v"]) if data["pack_v"].size else np.nan
    stored_j = (data["charge_ah"] - data["charge_ah"][:1]) * 3600.0 * volts
    enough = np.minimum(out_j, in_j) > 0.1 * capacity_ah * 3600.0 * volts
    taken_j = np.where(enough, in_j + np.maximum(-stored_j, 0.0), np.nan)
    result: npt.NDArray[np.float64] = (out_j + np.maximum(stored_j, 0.0)) / taken_j
    return result


def _usable(values: npt.NDArray[np.float32], quality: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The good values, or one NaN if there is none."""
    good = values[(quality == Quality.GOOD) & np.isfinite(values)]
    return good if good.size else np.full(1, np.nan, np.float32)


def save(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write the samples of a run."""
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the samples of a run."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}
