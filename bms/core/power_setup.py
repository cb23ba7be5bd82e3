"""Settings of the limits, and from them the constants of their kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bms.core import power as p
from bms.core.derating import POINTS
from bms.core.power import PowerConfig
from bms.core.power_cells import HORIZON, LEFT1, SECONDS
from hal.contract import HORIZONS_S, RackInfo

Polyline = tuple[tuple[float, float], ...]
"""Points (place, share): places rise, shares are 0..1; flat beyond the ends."""


class CellLimits(Protocol):
    """What the controller takes from the `[limits]` of a cell file."""

    @property
    def v_min(self) -> float:
        """Lower voltage limit, V."""

    @property
    def v_max(self) -> float:
        """Upper voltage limit, V."""

    @property
    def degc_min_charge(self) -> float:
        """Coldest temperature for charging."""

    @property
    def degc_min_discharge(self) -> float:
        """Coldest temperature for discharging."""

    @property
    def degc_max(self) -> float:
        """Hottest temperature."""

    @property
    def max_charge_c(self) -> float:
        """Largest continuous charge current, 1/h."""

    @property
    def max_discharge_c(self) -> float:
        """Largest continuous discharge current, 1/h."""


class PowerCell(Protocol):
    """What the limits need of a cell file (`bms.cells.CellParameters` has it all)."""

    @property
    def chemistry(self) -> str:
        """Such as lfp."""

    @property
    def limits(self) -> CellLimits:
        """Limits of the cell."""

    @property
    def tau_s(self) -> npt.NDArray[np.float64]:
        """Time constants of the RC pairs, (4,)."""

    @property
    def capacity_ah(self) -> float:
        """Capacity at 25 degC."""


@dataclass(frozen=True)
class Derating:
    """What a chemistry bears: share of the rated current over K from the cell file's limits, and over SoC.

    `charge_k`, `discharge_k`: (kelvin above the coldest temperature allowed, share). `hot_k`: (kelvin below the
    hottest, share), for both. `heat_j_per_k_ah`: heat capacity of a cell for each Ah, on the low side.
    """

    charge_k: Polyline
    discharge_k: Polyline
    hot_k: Polyline
    charge_soc: Polyline
    discharge_soc: Polyline
    heat_j_per_k_ah: float


_HOT = ((0.0, 0.0), (10.0, 1.0))
_COLD_DISCHARGE = ((0.0, 0.0), (10.0, 0.5), (20.0, 1.0))
# graphite plates lithium when it is charged cold; hard carbon much later, because it takes sodium up above 0 V
_GRAPHITE = ((0.0, 0.0), (5.0, 0.25), (10.0, 0.5), (20.0, 1.0))
_HARD_CARBON = ((0.0, 0.0), (10.0, 0.4), (20.0, 1.0))
_SODIUM = Derating(
    _HARD_CARBON,
    _COLD_DISCHARGE,
    _HOT,
    ((0.0, 1.0), (0.95, 1.0), (1.0, 0.5)),
    ((0.0, 0.3), (0.1, 1.0), (1.0, 1.0)),
    20.0,
)
DERATINGS: dict[str, Derating] = {
    "lfp": Derating(
        _GRAPHITE, _COLD_DISCHARGE, _HOT, ((0.0, 1.0), (0.95, 1.0), (1.0, 0.5)), ((0.0, 0.5), (0.05, 1.0)), 16.0
    ),
    "nmc": Derating(
        _GRAPHITE, _COLD_DISCHARGE, _HOT, ((0.0, 1.0), (0.8, 1.0), (1.0, 0.4)), ((0.0, 0.5), (0.05, 1.0)), 13.0
    ),
    "na_layered": _SODIUM,
    "na_pba": _SODIUM,
    "na_nfpp": _SODIUM,
}
"""Defaults for each chemistry."""


@dataclass(frozen=True)
class PowerSettings:
    """Table `[power]` of a rack's configuration: current and power limits. `None` = as cell file or chemistry say."""

    max_charge_c: float | None = None  # rated charge current, 1/h; no more than the cell file's
    max_discharge_c: float | None = None  # rated discharge current, 1/h; no more than the cell file's
    max_charge_a: float | None = None  # rated charge current of the string, A, if that is lower
    max_discharge_a: float | None = None  # rated discharge current of the string, A, if that is lower
    pulse_charge: float = 1.0  # times the rated current for horizons up to `pulse_s`
    pulse_discharge: float = 1.0
    pulse_s: float = 10.0  # longest horizon with a pulse, s
    fuse_from: float = 0.8  # heat in the fuse (1 = all that it bears) from which the pulse is taken back
    horizon_s: float = 10.0  # horizon that is in force: 2, 10, 60 or 900 s
    voltage_margin_v: float = 0.01  # the model keeps this far from v_min and v_max, V
    guard_margin_v: float = 0.0  # the measured voltages keep this far from them, V
    pack_v_min: float | None = None  # string voltage that is not to be left, V; None = no such limit
    pack_v_max: float | None = None
    soc_min: float = 0.0  # SoC window of each cell, 0..1; at 0 and 1 the voltage decides alone
    soc_max: float = 1.0
    soc_sigmas: float = 2.0  # standard deviations by which SoC is taken on the worse side
    degc_margin: float = 2.0  # a horizon may heat a cell up to degc_max less this, K
    heat_capacity_j_per_k: float | None = None  # of one cell
    charge_degc: Polyline | None = None  # share of the rated current over temperature: [[degC, share], ...]
    discharge_degc: Polyline | None = None
    charge_soc: Polyline | None = None  # share over the SoC of the fullest cell: [[0..1, share], ...]
    discharge_soc: Polyline | None = None  # share over the SoC of the emptiest cell
    derate: float = 0.5  # share of all limits that a fault with the reaction `derate` leaves
    rise_per_s: float = 0.05  # how fast a limit may rise, share of the rated current per s
    ramp_s: float = 3.0  # time to ramp a limit to 0 where a fault or an orderly opening asks for it, s
    transport_charge_c: float = 0.02  # charge current out of the 0 V transport state, 1/h
    scan_s: float = 10.0  # time in which each cell has been looked at, s

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that no limits can be made of."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in _POLYLINES:
                if value is not None:
                    object.__setattr__(self, f.name, _polyline(f.name, value))
            elif value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                    raise ValueError(f"{f.name} = {value!r}: must be a number")
                low, high = _RANGES.get(f.name, (0.0, math.inf))
                if not low <= value <= high:
                    raise ValueError(f"{f.name} = {value:g}: must be {_range(low, high)}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} = {value:g}: must be greater than 0")
        if self.horizon_s not in HORIZONS_S:
            raise ValueError(f"horizon_s = {self.horizon_s:g}: must be 2, 10, 60 or 900")
        if self.soc_min >= self.soc_max:
            raise ValueError(f"soc_min = {self.soc_min:g}: must be below soc_max = {self.soc_max:g}")
        if self.pack_v_min is not None and self.pack_v_max is not None and self.pack_v_min >= self.pack_v_max:
            raise ValueError(f"pack_v_min = {self.pack_v_min:g}: must be below pack_v_max = {self.pack_v_max:g}")


_POLYLINES = ("charge_degc", "discharge_degc", "charge_soc", "discharge_soc")
_POSITIVE = (
    "max_charge_c", "max_discharge_c", "max_charge_a", "max_discharge_a", "pack_v_min", "pack_v_max",
    "heat_capacity_j_per_k", "rise_per_s", "ramp_s", "transport_charge_c", "scan_s",
)  # fmt: skip
_RANGES = {
    "pulse_charge": (1.0, 10.0),
    "pulse_discharge": (1.0, 10.0),
    "fuse_from": (0.0, 0.99),
    "soc_min": (0.0, 1.0),
    "soc_max": (0.0, 1.0),
    "soc_sigmas": (0.0, 10.0),
    "derate": (0.0, 1.0),
}


def _range(low: float, high: float) -> str:
    return f"at least {low:g}" if math.isinf(high) else f"{low:g}..{high:g}"


def _polyline(name: str, points: Sequence[Sequence[float]]) -> Polyline:
    """`points` checked. Raises `ValueError`: no polyline, or a shape that the kernel's two ends do not cover."""
    text = f"{name} = {points!r}"
    try:
        line = tuple((float(x), float(share)) for x, share in points)
    except (TypeError, ValueError):
        raise ValueError(f"{text}: must be points [place, share]") from None
    if not 2 <= len(line) <= POINTS:
        raise ValueError(f"{text}: must have 2..{POINTS} points")
    if not all(math.isfinite(x) and 0.0 <= share <= 1.0 for x, share in line):
        raise ValueError(f"{text}: shares must be 0..1")
    if any(b[0] <= a[0] for a, b in pairwise(line)):
        raise ValueError(f"{text}: places must rise from point to point")
    steps = [b[1] - a[1] for a, b in pairwise(line)]
    falls = [k for k, step in enumerate(steps) if step < 0]
    rises = [k for k, step in enumerate(steps) if step > 0]
    if name.endswith("_degc") and falls and rises and falls[0] < rises[-1]:
        raise ValueError(f"{text}: shares must not rise again once they have fallen")
    if name == "charge_soc" and rises:
        raise ValueError(f"{text}: shares must not rise with SoC")
    if name == "discharge_soc" and falls:
        raise ValueError(f"{text}: shares must not fall with SoC")
    return line


def polylines(cell: PowerCell, settings: PowerSettings) -> dict[str, Polyline]:
    """The derating polylines in force, by the names of the settings. Raises `ValueError` for an unknown chemistry."""
    if cell.chemistry not in DERATINGS:
        raise ValueError(f"chemistry = {cell.chemistry!r}: must be one of {', '.join(DERATINGS)}")
    d, limits = DERATINGS[cell.chemistry], cell.limits

    def over_degc(cold: Polyline, coldest: float) -> Polyline:
        warm = tuple((limits.degc_max - k, share) for k, share in reversed(d.hot_k))
        return tuple((coldest + k, share) for k, share in cold if coldest + k < warm[0][0]) + warm

    defaults = {
        "discharge_degc": over_degc(d.discharge_k, limits.degc_min_discharge),
        "charge_degc": over_degc(d.charge_k, limits.degc_min_charge),
        "discharge_soc": d.discharge_soc,
        "charge_soc": d.charge_soc,
    }
    given = {name: getattr(settings, name) for name in defaults}
    return {name: line if given[name] is None else given[name] for name, line in defaults.items()}


def power_config(cell: PowerCell, info: RackInfo, settings: PowerSettings | None = None) -> PowerConfig:
    """Constants of the limits for `cell` in the rack `info`."""
    s = settings or PowerSettings()
    limits = cell.limits
    lines = polylines(cell, s)
    number = np.zeros(p.N_NUMBERS, np.float32)
    for k, (most_c, own_c, own_a) in enumerate(
        (
            (limits.max_discharge_c, s.max_discharge_c, s.max_discharge_a),
            (limits.max_charge_c, s.max_charge_c, s.max_charge_a),
        )
    ):
        rated_a = info.capacity_ah * (most_c if own_c is None else min(most_c, own_c))
        number[p.RATED_A + k] = rated_a if own_a is None else min(rated_a, own_a)
    number[p.PULSE], number[p.PULSE + 1], number[p.PULSE_S] = s.pulse_discharge, s.pulse_charge, s.pulse_s
    number[p.V_EDGE], number[p.V_EDGE + 1] = limits.v_min + s.voltage_margin_v, limits.v_max - s.voltage_margin_v
    number[p.GUARD_V], number[p.GUARD_V + 1] = limits.v_min + s.guard_margin_v, limits.v_max - s.guard_margin_v
    number[p.PACK_V_EDGE] = -np.inf if s.pack_v_min is None else s.pack_v_min
    number[p.PACK_V_EDGE + 1] = np.inf if s.pack_v_max is None else s.pack_v_max
    number[p.SOC_EDGE] = s.soc_min if s.soc_min > 0.0 else -_NEVER
    number[p.SOC_EDGE + 1] = s.soc_max if s.soc_max < 1.0 else _NEVER
    heat = s.heat_capacity_j_per_k or DERATINGS[cell.chemistry].heat_j_per_k_ah * cell.capacity_ah
    number[p.DEGC_EDGE], number[p.KELVIN_PER_J] = limits.degc_max - s.degc_margin, 1.0 / heat
    number[p.SOC_SIGMAS], number[p.DERATE], number[p.RISE] = s.soc_sigmas, s.derate, s.rise_per_s
    number[p.RAMP_S], number[p.TRANSPORT_A] = s.ramp_s, s.transport_charge_c * info.capacity_ah
    number[p.FUSE_FROM], number[p.SCAN_S] = s.fuse_from, s.scan_s
    number[p.IN_FORCE] = HORIZONS_S.index(s.horizon_s)

    horizon = np.zeros((len(HORIZONS_S), HORIZON), np.float32)
    horizon[:, SECONDS] = HORIZONS_S
    horizon[:, LEFT1:] = np.exp(-np.array(HORIZONS_S)[:, None] / np.asarray(cell.tau_s)[None, :])

    polyline = np.zeros((4, 2, POINTS), np.float32)
    for which, name in enumerate(("discharge_degc", "charge_degc", "discharge_soc", "charge_soc")):
        line = lines[name] + lines[name][-1:] * (POINTS - len(lines[name]))  # the last point fills what is left
        polyline[which] = np.array(line).T
    return PowerConfig(number, horizon.ravel(), polyline.ravel())


_NEVER = 100.0  # an SoC that no cell reaches
