"""Cell parameter files that the controller uses, one TOML per cell type, and their loader.

`load("lfp_280")` reads a file of this package, `load("path/to/cell.toml")` one of your own. The files are written by
`bms identify`; nothing in them is shared with the twin.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from bms.core.estimator_setup import TUNING
from hal.errors import ConfigError, nearest

Array = npt.NDArray[np.float64]
FORMAT = 1
N_RC = 4


@dataclass(frozen=True)
class Limits:
    """Limits of one cell for continuous use, from its data sheet or its laboratory test."""

    v_min: float
    v_max: float
    degc_min_charge: float
    degc_min_discharge: float
    degc_max: float
    max_charge_c: float
    max_discharge_c: float


@dataclass(frozen=True)
class CellParameters:
    """Everything that the controller knows about a cell type.

    Tables have one row for each node of `degc`; `ocv_v` and `hysteresis_v` have one column for each node of `soc`,
    the resistances (`r0_ohm`, and `r_ohm[j]` of the RC pair with time constant `tau_s[j]`) one for each of `soc_r`.
    """

    name: str
    chemistry: str
    source: str
    limits: Limits
    soc: Array  # (n_soc,), 0..1, rising
    soc_r: Array  # (n_soc_r,), 0..1, rising
    degc: Array  # (n_degc,), rising
    ocv_v: Array  # (n_degc, n_soc)
    hysteresis_v: Array  # (n_degc, n_soc)
    r0_ohm: Array  # (n_degc, n_soc_r)
    r_ohm: Array  # (N_RC, n_degc, n_soc_r)
    rct_ohm: Array  # (n_degc, n_soc_r) slope of the charge-transfer overpotential at small current
    bend_a: float  # current at which that overpotential bends, A
    tau_s: Array  # (N_RC,)
    capacity: Array  # (n_degc,) in Ah
    coulombic_efficiency: Array  # (n_degc,)
    gamma: Array  # (n_degc,) rate of the hysteresis
    hysteresis_instant_v: Array  # (n_degc,)
    voltage_error_v: Array  # (n_degc,) slow error of the voltage model
    knee_error_soc: Array  # (n_degc,) how far a step of the OCV curve may be misplaced
    filter: dict[str, float] = field(default_factory=dict)

    @property
    def capacity_ah(self) -> float:
        """Capacity at 25 degC (or the nearest node), Ah."""
        return float(np.interp(25.0, self.degc, self.capacity))

    @property
    def v_min(self) -> float:
        """Lower voltage limit, V."""
        return self.limits.v_min

    @property
    def v_max(self) -> float:
        """Upper voltage limit, V."""
        return self.limits.v_max

    def ocv(self, soc: float, degc: float = 25.0) -> float:
        """Open-circuit voltage without hysteresis, V."""
        return float(np.interp(degc, self.degc, [np.interp(soc, self.soc, row) for row in self.ocv_v]))


_TABLES = {
    "soc": "soc", "soc_r": "soc_r", "temperature_degc": "degc", "ocv_v": "ocv_v", "hysteresis_v": "hysteresis_v",
    "r0_ohm": "r0_ohm", "rc_ohm": "r_ohm", "rct_ohm": "rct_ohm", "rc_tau_s": "tau_s", "capacity_ah": "capacity",
    "coulombic_efficiency": "coulombic_efficiency", "hysteresis_gamma": "gamma",
    "hysteresis_instant_v": "hysteresis_instant_v", "voltage_error_v": "voltage_error_v",
    "knee_error_soc": "knee_error_soc",
}  # fmt: skip


def names() -> list[str]:
    """Names of the cell files that come with the package."""
    return sorted(p.name[:-5] for p in resources.files(__name__).iterdir() if p.name.endswith(".toml"))


def load(name_or_path: str | Path) -> CellParameters:
    """Read a cell file by its name in the package, or by its path (anything with a '/' or that ends in .toml).

    Raises ConfigError: unknown name, unreadable file, missing or unknown key, wrong shape, OCV that is not monotone.
    """
    text = str(name_or_path)
    if text.endswith(".toml") or "/" in text or isinstance(name_or_path, Path):
        path = Path(text)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cell file {path}: {error.strerror or error}; give a path that exists or one of: {', '.join(names())}"
            ) from None
        label = str(path)
    else:
        if text not in names():
            raise ConfigError(f"unknown cell '{text}'{nearest(text, names())}; or give the path of a cell file (.toml)")
        data = resources.files(__name__).joinpath(f"{text}.toml").read_bytes()
        label = f"cell '{text}'"
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{label}: not a valid TOML file: {error}") from None
    return parse(table, label)


def _is_number(value: Any) -> TypeGuard[float]:
    """A finite number, and no truth value (which Python counts as one)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _section(table: dict[str, Any], key: str, known: set[str], label: str) -> dict[str, Any]:
    section = table.get(key)
    if not isinstance(section, dict):
        raise ConfigError(f"{label}: table [{key}] is missing")
    for name in section:
        if name not in known:
            raise ConfigError(f"{label}: unknown key '{key}.{name}'{nearest(name, known)}")
    return section


def parse(table: dict[str, Any], label: str) -> CellParameters:
    """Check a parsed cell file and make `CellParameters` of it; `label` names the file in errors."""
    known = {"format", "name", "chemistry", "source", "limits", "model", "filter"}
    for key in table:
        if key not in known:
            raise ConfigError(f"{label}: unknown key '{key}'{nearest(key, known)}")
    if table.get("format") != FORMAT:
        raise ConfigError(
            f"{label}: format = {table.get('format')!r}, expected {FORMAT}; make the file again with bms identify"
        )
    for key in ("name", "chemistry", "source"):
        if not isinstance(table.get(key), str):
            raise ConfigError(f"{label}: '{key}' must be a text")
    limit_names = {f.name for f in fields(Limits)}
    raw_limits = _section(table, "limits", limit_names, label)
    values: dict[str, float] = {}
    for name in sorted(limit_names):
        value = raw_limits.get(name)
        if not _is_number(value):
            raise ConfigError(f"{label}: limits.{name} = {value!r} must be a number")
        values[name] = float(value)
    limits = Limits(**values)
    if not limits.v_min < limits.v_max:
        raise ConfigError(f"{label}: limits.v_min = {limits.v_min} V must be below limits.v_max = {limits.v_max} V")

    model = _section(table, "model", {*_TABLES, "bend_a"}, label)
    bend_a = model.get("bend_a")
    if not _is_number(bend_a) or not bend_a > 0:
        raise ConfigError(f"{label}: model.bend_a = {bend_a!r} must be a positive number")
    arrays: dict[str, Array] = {}
    for key, attribute in _TABLES.items():
        if key not in model:
            raise ConfigError(f"{label}: model.{key} is missing; make the file again with bms identify")
        try:
            arrays[attribute] = np.array(model[key], dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError(f"{label}: model.{key} must be a table of numbers with rows of equal length") from None
        if not np.all(np.isfinite(arrays[attribute])):
            raise ConfigError(f"{label}: model.{key} has a value that is not finite")
    n_t, n_z, n_r = (arrays[k].size for k in ("degc", "soc", "soc_r"))
    if n_t == 0 or n_z < 2 or n_r < 2:
        raise ConfigError(f"{label}: model needs at least one temperature, and two nodes of soc and of soc_r")
    shapes: dict[str, tuple[int, ...]] = {
        "capacity": (n_t,),
        "coulombic_efficiency": (n_t,),
        "gamma": (n_t,),
        "hysteresis_instant_v": (n_t,),
        "voltage_error_v": (n_t,),
        "knee_error_soc": (n_t,),
        "ocv_v": (n_t, n_z),
        "hysteresis_v": (n_t, n_z),
        "r0_ohm": (n_t, n_r),
        "rct_ohm": (n_t, n_r),
        "r_ohm": (N_RC, n_t, n_r),
        "tau_s": (N_RC,),
    }
    keys = {attribute: key for key, attribute in _TABLES.items()}
    for attribute, shape in shapes.items():
        if arrays[attribute].shape != shape:
            raise ConfigError(f"{label}: model.{keys[attribute]} has shape {arrays[attribute].shape}, expected {shape}")
    for attribute in ("soc", "soc_r", "degc"):
        if arrays[attribute].ndim != 1 or np.any(np.diff(arrays[attribute]) <= 0):
            raise ConfigError(f"{label}: model.{keys[attribute]} must rise from node to node")
    for attribute in ("soc", "soc_r"):
        if arrays[attribute][0] != 0.0 or arrays[attribute][-1] != 1.0:
            raise ConfigError(f"{label}: model.{keys[attribute]} must start at 0 and end at 1")
    for degc, row in zip(arrays["degc"], arrays["ocv_v"], strict=True):
        bad = np.flatnonzero(np.diff(row) <= 0)
        if bad.size:
            k = int(bad[0])
            raise ConfigError(
                f"{label}: model.ocv_v at {degc:g} degC is not monotone: {row[k]:.5f} V at SoC {arrays['soc'][k]:.3f}, "
                f"then {row[k + 1]:.5f} V at {arrays['soc'][k + 1]:.3f}; OCV must rise with SoC"
            )
    for attribute in ("capacity", "tau_s", "r0_ohm", "coulombic_efficiency"):
        if np.any(arrays[attribute] <= 0):
            raise ConfigError(f"{label}: model.{keys[attribute]} must be positive")
    for attribute in ("hysteresis_v", "r_ohm", "rct_ohm", "gamma", "voltage_error_v", "knee_error_soc"):
        if np.any(arrays[attribute] < 0):
            raise ConfigError(f"{label}: model.{keys[attribute]} must not be negative")
    if np.any(arrays["coulombic_efficiency"] > 1.0):
        raise ConfigError(f"{label}: model.coulombic_efficiency must not exceed 1")
    tuning = table.get("filter", {})
    if not isinstance(tuning, dict):
        raise ConfigError(f"{label}: filter = {tuning!r} must be a table of numbers")
    for key, value in tuning.items():
        if key not in TUNING:
            raise ConfigError(f"{label}: unknown key 'filter.{key}'{nearest(key, TUNING)}")
        if not _is_number(value) or value < 0:
            raise ConfigError(f"{label}: filter.{key} = {value!r} must be a number, 0 or more")
    return CellParameters(
        name=table["name"], chemistry=table["chemistry"], source=table["source"], limits=limits, bend_a=float(bend_a),
        filter={k: float(v) for k, v in tuning.items()}, **arrays,
    )  # fmt: skip
