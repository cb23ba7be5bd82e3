"""Laboratory files as the identification wants them: slow curves over SoC, and dynamic tests with a reference SoC.

OCV files come in two forms, told apart by their columns. With a `script` column: the four scripts of Plett (*Battery
Management Systems* vol. I, section 2.10): 1 slow discharge at T, 2 rest of the charge removed at 25 degC, 3 slow charge
at T, 4 topped up at 25 degC, counters restarting in each. Without: one slow discharge and one slow charge.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bms.lab.fit import SOC_OCV, Array, Dynamic
from bms.lab.trace import F8, read_columns
from hal.errors import DataError

TRACE = ("time_s", "current_a", "voltage_v", "temperature_degc")
LEAST_SPAN = 0.1  # of SoC, that a dynamic test must cover to tell capacity and curve
SLOW_C = 0.1  # a charge or discharge faster than this is no OCV test


@dataclass(frozen=True)
class Slow:
    """Slow discharge and charge at one temperature, at `SOC_OCV`; `charge_v` is None where no slow charge was made."""

    name: str
    degc: float
    rate_c: float
    capacity_ah: float
    discharge_v: Array
    charge_v: Array | None
    v_low: float  # lowest and highest voltage that the tests went to
    v_high: float

    @property
    def base_v(self) -> Array:
        """Mean of the two branches: the resistive drop and the hysteresis cancel where they are symmetric."""
        return self.discharge_v if self.charge_v is None else 0.5 * (self.discharge_v + self.charge_v)

    @property
    def half_gap_v(self) -> Array | None:
        """Half the gap between the branches: no hysteresis can be larger."""
        return None if self.charge_v is None else 0.5 * np.maximum(self.charge_v - self.discharge_v, 0.0)


Columns = dict[str, F8]


def as_columns(path: str | Path) -> Columns:
    """Read a laboratory file with whatever optional columns it has."""
    return read_columns(
        path, TRACE, ("soc_true", "script", "step", "charge_ah", "discharge_ah"), restart="script", nan_ok=()
    )


def _counted(d: Columns, part: slice) -> Array:
    """Charge passed since the start of `part`, Ah, positive = discharged."""
    t, i = d["time_s"][part], d["current_a"][part]
    return np.r_[0.0, np.cumsum(0.5 * (i[1:] + i[:-1]) * np.diff(t)) / 3600.0]


def _longest(d: Columns, sign: float) -> slice | None:
    """The uninterrupted stretch of current in one direction that moved most charge."""
    current = sign * d["current_a"]
    on = current > 0.02 * float(np.max(np.abs(d["current_a"])))
    edges = np.flatnonzero(np.diff(np.r_[False, on, False].astype(int)))
    best, most = None, 0.0
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        if b - a > 10 and (moved := abs(_counted(d, slice(a, b))[-1])) > most:
            best, most = slice(int(a), int(b)), moved
    return best


def _on_grid(z: Array, v: Array) -> Array:
    order = np.argsort(z, kind="stable")
    return np.interp(SOC_OCV, z[order], v[order])


def _extremes(d: Columns) -> tuple[float, float]:
    return float(d["voltage_v"].min()), float(d["voltage_v"].max())


def read_slow(name: str, d: Columns) -> Slow:
    """Slow curves from an OCV file. Raises DataError where there is no discharge in it."""
    degc = float(np.median(d["temperature_degc"]))
    if "script" in d:
        for column in ("step", "charge_ah", "discharge_ah"):
            if column not in d:
                raise DataError(
                    f"{name}: column '{column}' is missing; "
                    "an OCV file with 'script' needs step, charge_ah, discharge_ah"
                )
        out, back = {}, {}
        for script in (1, 2, 3, 4):
            rows = np.flatnonzero(d["script"] == script)
            if rows.size == 0:
                raise DataError(f"{name}: script {script} is missing; the four scripts 1, 2, 3, 4 make one OCV test")
            out[script], back[script] = d["discharge_ah"][rows[-1]], d["charge_ah"][rows[-1]]
        capacity = out[1] + out[2] - back[1] - back[2]
        if not capacity > 0 or not sum(back.values()) > 0:
            raise DataError(
                f"{name}: {capacity:g} Ah removed in scripts 1 and 2, {sum(back.values()):g} Ah charged in all; "
                "discharge_ah counts what scripts 1 and 2 remove, charge_ah what 3 and 4 put back"
            )
        eta = sum(out.values()) / sum(back.values())
        curves = {}
        for script, sign in ((1, 1.0), (3, -1.0)):
            rows = d["script"] == script
            on = rows & (sign * d["current_a"] > 0.5 * np.max(np.abs(d["current_a"][rows])))
            if np.count_nonzero(on) < 10:
                raise DataError(
                    f"{name}: script {script} has no {'discharge' if sign > 0 else 'charge'} (10 samples or more); "
                    "positive current = discharge"
                )
            z = 1.0 - d["discharge_ah"][on] / capacity if script == 1 else eta * d["charge_ah"][on] / capacity
            curves[script] = _on_grid(z, d["voltage_v"][on])
        first = d["script"] == 1
        rate = float(np.max(d["current_a"][first])) / capacity
        degc = float(np.median(d["temperature_degc"][first]))
        return Slow(name, degc, rate, capacity, curves[1], curves[3], *_extremes(d))

    down, up = _longest(d, 1.0), _longest(d, -1.0)
    if down is None:
        raise DataError(
            f"{name}: no discharge found (current_a is never positive for long); positive current = discharge"
        )
    counted = _counted(d, down)
    capacity = float(counted[-1])
    if "soc_true" in d:
        z_down = d["soc_true"][down]
        capacity /= max(float(z_down[0] - z_down[-1]), 0.05)
    else:
        z_down = 1.0 - counted / capacity
    rate = float(np.median(d["current_a"][down])) / capacity
    charge_v = None
    if up is not None and -float(np.median(d["current_a"][up])) / capacity < SLOW_C and rate < SLOW_C:
        z_up = d["soc_true"][up] if "soc_true" in d else z_down[-1] - _counted(d, up) / capacity
        charge_v = _on_grid(z_up, d["voltage_v"][up])
        reached = float(z_up[-1])
        if reached < 0.98:  # ended early: above, keep the distance to the discharge curve that it had at its end
            discharge = _on_grid(z_down, d["voltage_v"][down])
            beyond = reached < SOC_OCV
            gap = np.interp(reached - 0.02, SOC_OCV, charge_v) - np.interp(reached - 0.02, SOC_OCV, discharge)
            charge_v[beyond] = discharge[beyond] + gap
    return Slow(name, degc, rate, capacity, _on_grid(z_down, d["voltage_v"][down]), charge_v, *_extremes(d))


def _check_reference(name: str, d: Columns) -> None:
    """Raise DataError where `soc_true` does not belong to the current."""
    span = float(np.ptp(d["soc_true"]))
    if span < LEAST_SPAN:
        raise DataError(
            f"{name}: soc_true covers only {100 * span:.2g} %; a dynamic test covers {100 * LEAST_SPAN:g} % or more"
        )
    removed = _counted(d, slice(0, d["time_s"].size))
    if np.sum((removed - removed.mean()) * d["soc_true"]) >= 0.0:
        raise DataError(f"{name}: soc_true does not fall while current_a is positive; positive current = discharge")


def read_dynamic(name: str, d: Columns, slow: Slow) -> tuple[Dynamic, str]:
    """A dynamic test and, where its reference SoC had to be made up, a warning.

    Without `soc_true` the largest uninterrupted discharge of the file is used, and charge is counted down from full:
    with the charge of that very discharge where it ends at the lower voltage limit of the slow test, else with the slow
    test's capacity. Raises DataError where there is nothing to count, or `soc_true` does not belong to the current.
    """
    degc = float(np.median(d["temperature_degc"]))
    if "soc_true" in d:
        _check_reference(name, d)
        return Dynamic(
            name, d["time_s"], d["current_a"], d["voltage_v"], degc, d["soc_true"], d["temperature_degc"]
        ), ""
    part = _longest(d, 1.0)
    if part is None:
        raise DataError(f"{name}: neither a column 'soc_true' nor a discharge from full to count from")
    counted = _counted(d, part)
    emptied = d["voltage_v"][part][-1] < slow.v_low + 0.01 * (slow.v_high - slow.v_low)
    total = float(counted[-1]) if emptied else slow.capacity_ah
    cut = [d[key][part] for key in ("time_s", "current_a", "voltage_v", "temperature_degc")]
    end = "to empty" if emptied else "by the capacity of the slow test"
    warning = f"{name}: no soc_true; its largest discharge is counted from full {end} ({total:.4g} Ah)"
    return Dynamic(name, cut[0], cut[1], cut[2], degc, 1.0 - counted / total, cut[3]), warning
