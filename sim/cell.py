"""Cell data of the twin: TOML files in `sim/cells`, each number with its source, made into one lookup table.

The model of a cell (positive current i = discharge, T in degC, s = sign of the last string current):

    z' = -eta i / (3600 Q)                                   eta = 1 on discharge
    x_j' = (i - x_j) / tau_j                                 four pairs
    h' = -(gamma |i| / (3600 Q)) (h + sgn i)                 |h| <= 1
    w = 2 k_B T / q (51 mV at 25 degC)
    E = U(z) + (T - T_ref) dU/dT(z) + M(z) h - M0 s - w asinh(k_p R_1 x_1 / w) - k_p(z, T) sum_{j>1} R_j x_j
    v = E - k_0(z, T) R_0 i

after Plett, Battery Management Systems Vol. I (2015), ch. 2, with U and M half the sum and half the difference of the
slow charge and discharge curves, and the charge transfer (the fastest pair) after Butler and Volmer with equal transfer
coefficients. k_0 and k_p: a shape over SoC times an Arrhenius factor.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.config import TwinError, from_table, hint, require

F8 = npt.NDArray[np.float64]

GRID = 801
"""Points of the lookup table, uniform over SoC 0..1: 0.125 % apart, a seventh of the narrowest step in the data."""

# columns of the table, one row (a cache line) per SoC
COL_U, COL_M, COL_DUDT, COL_OHMIC, COL_POLAR = range(5)
N_COLUMNS = 8


@dataclass(frozen=True)
class CellHead:
    """Table `[cell]` of a cell file."""

    name: str
    chemistry: str
    description: str
    capacity_ah: float
    v_min: float
    v_max: float
    mass_kg: float


@dataclass(frozen=True)
class OcvData:
    """Table `[ocv]`: quasi-equilibrium voltage after a long discharge and after a long charge, at `degc`."""

    degc: float
    soc: tuple[float, ...]
    discharge_v: tuple[float, ...]
    charge_v: tuple[float, ...]


@dataclass(frozen=True)
class EntropyData:
    """Table `[entropy]`: dU/dT over SoC."""

    soc: tuple[float, ...]
    du_dt_v_per_k: tuple[float, ...]


@dataclass(frozen=True)
class ResistanceData:
    """Table `[resistance]`: ohmic part and four RC pairs at `degc`, their shape over SoC and activation energies."""

    degc: float
    ohmic_ohm: float
    ohmic_activation_ev: float
    polarisation_activation_ev: float
    rc_tau_s: tuple[float, ...]
    rc_ohm: tuple[float, ...]
    soc: tuple[float, ...]
    ohmic_shape: tuple[float, ...]
    polarisation_shape: tuple[float, ...]


@dataclass(frozen=True)
class HysteresisData:
    """Table `[hysteresis]`."""

    gamma: float
    instantaneous_v: float


@dataclass(frozen=True)
class AgeingData:
    """Table `[ageing]`: charge that is lost."""

    coulombic_efficiency: float
    self_discharge_per_month: float


@dataclass(frozen=True)
class ThermalData:
    """Table `[thermal]`, per cell. From `terminal_w_per_k` on: what counts in a fire only (`sim.runaway`)."""

    heat_capacity_j_per_k: float
    conduction_w_per_k: float
    coolant_w_per_k: float
    ambient_w_per_k: float
    terminal_w_per_k: float = 0.0  # to the next cell through terminals and busbar
    radiating_m2: float = 0.0  # black area that sees the next cell, emissivity included
    skin_k_per_w: float = 0.0  # from a heated face to the mean of the cell: L / 3kA of a slab in steady flow
    skin_tau_s: float = 300.0  # with which that difference builds up
    vent_pa: float = 1.2e6
    free_m3_per_ah: float = 1.2e-6  # room for gas inside the case


@dataclass(frozen=True)
class CellData:
    """One cell type of the twin; `table` (GRID, N_COLUMNS) float64 holds U, M, dU/dT and both shapes over SoC."""

    head: CellHead
    ocv: OcvData
    entropy: EntropyData
    resistance: ResistanceData
    hysteresis: HysteresisData
    ageing: AgeingData
    thermal: ThermalData
    rack: dict[str, Any]  # defaults of the rack's own table
    sensors: dict[str, Any]  # and of that of its sensors
    table: F8

    def stored_energy_j_per_as(self, soc: npt.ArrayLike) -> F8:
        """Enthalpy that the cell gives up per ampere-second of capacity when emptied from `soc` to 0, in J/As (= V).

        The integral of U - T_ref dU/dT over SoC, what the cell delivers as electricity plus heat [Bernardi,
        Pawlikowski, Newman 1985]. Beyond 0..1 the open-circuit voltage runs on along its last slope, as in the kernel.
        """
        z = np.asarray(soc, dtype=np.float64)
        kelvin = self.ocv.degc + 273.15
        u = self.table[:, COL_U] - kelvin * self.table[:, COL_DUDT]
        step = 1.0 / (GRID - 1)
        upto = np.concatenate(([0.0], np.cumsum((u[1:] + u[:-1]) * (step / 2))))
        k = np.clip(np.floor(z / step).astype(int), 0, GRID - 2)
        t = z - k * step
        inside = np.clip(t, 0.0, step)
        energy = upto[k] + u[k] * inside + (u[k + 1] - u[k]) / step * inside**2 / 2
        beyond = t - inside
        edge = np.where(beyond > 0, u[-1], u[0])
        slope = (self.table[k + 1, COL_U] - self.table[k, COL_U]) / step
        return np.asarray(energy + edge * beyond + slope * beyond**2 / 2)


def names() -> tuple[str, ...]:
    """Names of the cells that the twin ships, sorted."""
    folder = resources.files("sim") / "cells"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


@cache
def load(name: str) -> CellData:
    """Load the cell `name`. Raises `TwinError` for an unknown name (with the nearest) or a file that is not sound."""
    if name not in names():
        raise TwinError(f"unknown twin cell '{name}'{hint(name, names())}")
    text = (resources.files("sim") / "cells" / f"{name}.toml").read_text(encoding="utf-8")
    return build(tomllib.loads(text), f"sim/cells/{name}.toml")


def build(data: dict[str, Any], source: str) -> CellData:
    """Make a cell from the tables of its file; `source` names it in messages. Raises `TwinError`."""
    kinds = {
        "cell": CellHead,
        "ocv": OcvData,
        "entropy": EntropyData,
        "resistance": ResistanceData,
        "hysteresis": HysteresisData,
        "ageing": AgeingData,
        "thermal": ThermalData,
    }
    for key in data:
        known = (*kinds, "rack", "sensors")
        require(key in known, f"{source}: unknown table [{key}]{hint(key, known)}")
    parts: dict[str, Any] = {}
    for key, kind in kinds.items():
        require(key in data, f"{source}: the table [{key}] is missing")
        parts[key] = from_table(kind, data[key], f"{source} [{key}]")
    r: ResistanceData = parts["resistance"]
    require(len(r.rc_tau_s) == 4 and len(r.rc_ohm) == 4, f"{source} [resistance]: four RC pairs are needed")
    require(min(r.rc_tau_s) > 0 and min(r.rc_ohm) >= 0 and r.ohmic_ohm > 0, f"{source} [resistance]: not positive")
    require(parts["hysteresis"].gamma > 0, f"{source} [hysteresis] gamma: must be positive")
    require(0.5 < parts["ageing"].coulombic_efficiency <= 1, f"{source} [ageing] coulombic_efficiency: not in 0.5..1")
    ocv: OcvData = parts["ocv"]
    for column in ("discharge_v", "charge_v"):
        curve = getattr(ocv, column)
        require(
            len(curve) == len(ocv.soc), f"{source} [ocv] {column}: {len(curve)} values for {len(ocv.soc)} SoC points"
        )
        require(bool(np.all(np.diff(curve) > 0)), f"{source} [ocv] {column}: does not rise with SoC everywhere")
    require(
        all(c >= d for c, d in zip(ocv.charge_v, ocv.discharge_v, strict=True)),
        f"{source} [ocv]: the charge curve runs below the discharge curve",
    )
    table = _table(parts, source)
    rack, sensors = dict(data.get("rack", {})), dict(data.get("sensors", {}))
    return CellData(head=parts.pop("cell"), rack=rack, sensors=sensors, table=table, **parts)


def _table(parts: dict[str, Any], source: str) -> F8:
    z = np.linspace(0.0, 1.0, GRID)
    ocv: OcvData = parts["ocv"]
    down = pchip(ocv.soc, ocv.discharge_v, z, f"{source} [ocv]")
    up = pchip(ocv.soc, ocv.charge_v, z, f"{source} [ocv]")
    r: ResistanceData = parts["resistance"]
    e: EntropyData = parts["entropy"]
    table = np.zeros((GRID, N_COLUMNS))
    table[:, COL_U] = (up + down) / 2
    table[:, COL_M] = (up - down) / 2
    table[:, COL_DUDT] = pchip(e.soc, e.du_dt_v_per_k, z, f"{source} [entropy]")
    table[:, COL_OHMIC] = pchip(r.soc, r.ohmic_shape, z, f"{source} [resistance]")
    table[:, COL_POLAR] = pchip(r.soc, r.polarisation_shape, z, f"{source} [resistance]")
    table.setflags(write=False)
    return table


def pchip(x: npt.ArrayLike, y: npt.ArrayLike, at: F8, where: str) -> F8:
    """Monotone piecewise cubic through (x, y), evaluated at `at` [Fritsch and Carlson 1980; slopes as Fritsch-Butland].

    It adds no wiggles to an open-circuit voltage. Raises `TwinError` where x does not rise from 0 to 1.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    require(len(xs) == len(ys) and len(xs) >= 2, f"{where}: {len(ys)} values for {len(xs)} SoC points")
    require(xs[0] == 0.0 and xs[-1] == 1.0 and bool(np.all(np.diff(xs) > 0)), f"{where}: soc must rise from 0 to 1")
    width = np.diff(xs)
    slope = np.diff(ys) / width
    d = np.empty_like(ys)
    d[0], d[-1] = slope[0], slope[-1]
    w1, w2 = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (w1 + w2) / (w1 / slope[:-1] + w2 / slope[1:])
    d[1:-1] = np.where(slope[:-1] * slope[1:] > 0, harmonic, 0.0)
    k = np.clip(np.searchsorted(xs, at, side="right") - 1, 0, len(xs) - 2)
    t = (at - xs[k]) / width[k]
    return np.asarray(
        ys[k] * (1 + 2 * t) * (1 - t) ** 2
        + width[k] * d[k] * t * (1 - t) ** 2
        + ys[k + 1] * t**2 * (3 - 2 * t)
        + width[k] * d[k + 1] * t**2 * (t - 1)
    )
