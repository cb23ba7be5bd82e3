"""A virtual accelerating-rate calorimeter: heat-wait-seek on one cell of the twin.

The calorimeter warms the cell by a step, waits, then looks whether the cell warms itself. While it does, the jacket
follows the cell, so that nothing is lost. The cell is a rack of one cell without cooling, the same kernels as in any
rack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sim import layout as Y
from sim.cell import CellData, load
from sim.config import TwinError, require
from sim.rack import RackTwin, rack_config

F8 = npt.NDArray[np.float64]

_NO_LIMIT = np.full(4, 1e12)
_SPREADS = ("capacity", "resistance", "soc", "degc", "coolant", "self_discharge")


@dataclass(frozen=True)
class Sample:
    """A cell in the calorimeter: side reactions of one chemistry, electrical data of a twin cell, a size of its own.

    `phi`: heat capacity of cell and holder over that of the cell [Townsend and Tou 1980].
    """

    side_reactions: str
    cell: str
    capacity_ah: float
    mass_kg: float
    cp_j_per_kg_k: float
    phi: float = 1.05
    vent_pa: float = 1.5e6

    def data(self) -> CellData:
        """The cell type of the sample: resistances scaled by capacity, no way out for heat. Raises `TwinError`."""
        d = load(self.cell)
        scale = d.head.capacity_ah / self.capacity_ah
        r = d.resistance
        return replace(
            d,
            head=replace(d.head, capacity_ah=self.capacity_ah, mass_kg=self.mass_kg),
            resistance=replace(r, ohmic_ohm=r.ohmic_ohm * scale, rc_ohm=tuple(scale * x for x in r.rc_ohm)),
            ageing=replace(d.ageing, self_discharge_per_month=0.0),
            thermal=replace(
                d.thermal,
                heat_capacity_j_per_k=self.phi * self.mass_kg * self.cp_j_per_kg_k,
                conduction_w_per_k=0.0,
                coolant_w_per_k=0.0,
                ambient_w_per_k=0.0,
                terminal_w_per_k=0.0,
                radiating_m2=0.0,
                skin_k_per_w=0.0,
                vent_pa=self.vent_pa,
                free_m3_per_ah=1.2e-6,
            ),
        )


SAMPLES = {
    "lfp": Sample("lfp", "lfp_280", 3.0, 0.068, 1000.0, vent_pa=1.9e6),
    "nmc": Sample("nmc", "nmc_ev", 5.0, 0.069, 903.0, vent_pa=2.2e6),
    "na_layered": Sample("na_layered", "na_185", 1.5, 0.037, 1050.0),
    "na_nfpp": Sample("na_nfpp", "na_185", 1.2, 0.037, 1050.0),
    "na_pba": Sample("na_pba", "na_185", 0.3, 0.037, 1050.0),
}
"""Cells for the calorimeter. 21700 of usual capacity and mass where cells were measured, 18650 of the size of
[Droese 2025] for sodium-ion; cp of LFP [BPX About:Energy], of NMC as in the one-step fit of the measured cell."""


@dataclass(frozen=True)
class Protocol:
    """Heat-wait-seek: steps of `step_k` at `heat_k_per_min` from `start_degc` to `end_degc`, then wait, then seek.

    A cell that warms itself by `threshold_k_per_min` on average over the seek is followed until it no longer does.
    """

    start_degc: float = 50.0
    end_degc: float = 350.0
    step_k: float = 5.0
    heat_k_per_min: float = 2.0
    wait_s: float = 900.0
    seek_s: float = 900.0
    threshold_k_per_min: float = 0.02
    longest_s: float = 40 * 86400.0

    def __post_init__(self) -> None:
        for name in ("step_k", "heat_k_per_min", "wait_s", "seek_s", "threshold_k_per_min", "longest_s"):
            require(getattr(self, name) > 0, f"heat-wait-seek: {name} = {getattr(self, name)}: must be positive")
        require(self.start_degc < self.end_degc, "heat-wait-seek: end_degc must be above start_degc")


@dataclass(frozen=True)
class ArcTrace:
    """What the calorimeter tells: a row about every kelvin while the cell warms itself.

    `max_degc`: the hottest that the cell had been when it last stopped warming itself. `rack` is the cell afterwards.
    """

    time_min: F8
    temperature_degc: F8
    self_heating_k_per_min: F8
    max_degc: float
    rack: RackTwin

    def reached_degc(self, rate_k_per_min: float) -> float:
        """Temperature of the first row with at least that self-heating; not a number where it never gets there."""
        rows = np.flatnonzero(self.self_heating_k_per_min >= rate_k_per_min)
        return float(self.temperature_degc[rows[0]]) if len(rows) else float("nan")


class _Calorimeter:
    """The cell, and the time that passes."""

    def __init__(self, sample: Sample, soc: float, start_degc: float) -> None:
        data = sample.data()
        table = {
            "n_series": 1,
            "n_parallel": 1,
            "initial_soc": soc,
            "initial_degc": start_degc,
            "initial_hysteresis": 1.0,
            "side_reactions": sample.side_reactions,
            **{f"{name}_spread": 0.0 for name in _SPREADS},
        }
        self.twin = RackTwin(data, rack_config(data, table))
        bank = self.twin.bank
        self._cell, self._burn = bank.cells[0], bank.burn[0]
        self._heat_capacity = data.thermal.heat_capacity_j_per_k

    @property
    def degc(self) -> float:
        return float(self._cell[Y.C_DEGC])

    @property
    def time_s(self) -> float:
        return float(self.twin.string[Y.S_TIME_S])

    def run(self, seconds: float, k_per_s: float = 0.0) -> None:
        """Let `seconds` pass while the heater would warm an inert cell by `k_per_s`."""
        self._burn[Y.B_HEATER_W] = k_per_s * self._heat_capacity
        self.twin.string[Y.S_AWAKE] = 1.0
        n = max(1, int(np.ceil(seconds - 1e-9)))
        self.twin.advance(Y.OPEN, np.zeros(n), False, _NO_LIMIT, seconds / n)


def heat_wait_seek(sample: Sample | str, soc: float = 1.0, protocol: Protocol | None = None) -> ArcTrace:
    """Heat-wait-seek on a cell at `soc` [ASTM E1981]; `sample` is one, or its name in `SAMPLES`. Raises `TwinError`."""
    if isinstance(sample, str):
        if sample not in SAMPLES:
            raise TwinError(f"unknown sample '{sample}' (known: {', '.join(SAMPLES)})")
        sample = SAMPLES[sample]
    p = protocol if protocol is not None else Protocol()
    arc = _Calorimeter(sample, soc, p.start_degc)
    rows: list[tuple[float, float, float]] = []
    target, hottest = p.start_degc, p.start_degc
    while arc.time_s < p.longest_s:
        if arc.degc < target:
            arc.run(60.0 * (target - arc.degc) / p.heat_k_per_min, p.heat_k_per_min / 60.0)
        arc.run(p.wait_s)
        before = arc.degc
        arc.run(p.seek_s)
        rate = (arc.degc - before) / p.seek_s * 60.0
        if rate >= p.threshold_k_per_min:
            rows.append((arc.time_s, arc.degc, rate))
            _follow(arc, p, rows)
            hottest = float(arc.twin.burn[Y.B_PEAK_DEGC][0])
        if arc.degc >= p.end_degc:
            break
        target = arc.degc + p.step_k
    time_s, degc, rate_k = np.array(rows).T if rows else np.zeros((3, 0))
    return ArcTrace(np.asarray(time_s) / 60.0, np.asarray(degc), np.asarray(rate_k), hottest, arc.twin)


def _follow(arc: _Calorimeter, p: Protocol, rows: list[tuple[float, float, float]]) -> None:
    """Follow a cell that warms itself, a row every kelvin, until it warms itself by less than the threshold."""
    at_s, at_degc, rate = arc.time_s, arc.degc, rows[-1][2]
    while arc.time_s < p.longest_s:
        arc.run(min(max(15.0 / max(rate, 1e-3), 0.01), 60.0))
        rise, seconds = arc.degc - at_degc, arc.time_s - at_s
        if rise >= 1.0:
            rate = rise / seconds * 60.0
            rows.append((arc.time_s, arc.degc, rate))
        elif rise > -1.0 and seconds < p.seek_s + p.wait_s:
            continue
        else:
            rate = rise / seconds * 60.0
            if rate < p.threshold_k_per_min:
                return
        at_s, at_degc = arc.time_s, arc.degc
