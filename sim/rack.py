"""A rack: N series groups of P parallel cells, every cell with its own data, on a DC link with a PCS behind it.

`RackTwin` owns the arrays and advances them; the equations are in `sim.kernels`, the cell data in `sim.cell`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import kernels as K
from sim.cell import CellData, load
from sim.config import TwinError, from_table, require

F8 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RackConfig:
    """Table `[rack]`. The cell's own file gives the values that a real rack of that cell has.

    Spreads are standard deviations, relative where the name does not give a unit; they are drawn from `seed` and cut at
    three standard deviations.
    """

    n_series: int
    n_parallel: int
    module_groups: int  # groups per module: neighbours conduct inside one, each has its own coolant branch
    cells_per_sensor: int  # series groups per temperature sensor
    busbar_ohm: float  # busbar and contacts after each group
    main_path_ohm: float  # contactors, fuse, shunt and cables
    coolant_w_per_k_flow: float  # heat capacity flow of the coolant in each branch
    dc_link_f: float
    dc_link_bleed_ohm: float
    precharge_ohm: float
    bleed_ohm: float  # balancing resistor of a group
    contactor_make_a: float  # a larger inrush welds the main contactors
    contactor_break_a: float  # opening a larger current welds them too
    seed: int = 1
    initial_soc: float = 0.5
    initial_degc: float = 25.0
    initial_hysteresis: float = 0.0
    substep_s: float = 1.0
    capacity_spread: float = 0.01
    resistance_spread: float = 0.05
    soc_spread: float = 0.01
    degc_spread: float = 0.5
    coolant_spread: float = 0.05
    self_discharge_spread: float = 0.3
    coolant_tau_s: float = 120.0
    watchdog_s: float = 10.0  # the rack opens its contactors when the controller's heart-beat stands still for longer

    def __post_init__(self) -> None:
        for name in ("n_series", "n_parallel", "module_groups", "cells_per_sensor"):
            require(getattr(self, name) >= 1, f"[rack] {name} = {getattr(self, name)}: must be at least 1")
        for name in (
            "main_path_ohm",
            "coolant_w_per_k_flow",
            "dc_link_f",
            "dc_link_bleed_ohm",
            "precharge_ohm",
            "bleed_ohm",
            "contactor_make_a",
            "contactor_break_a",
            "coolant_tau_s",
            "watchdog_s",
        ):
            require(getattr(self, name) > 0, f"[rack] {name} = {getattr(self, name)}: must be positive")
        require(self.busbar_ohm >= 0, f"[rack] busbar_ohm = {self.busbar_ohm}: must not be negative")
        require(self.n_series <= 65535, f"[rack] n_series = {self.n_series}: at most 65,535")
        require(self.seed >= 0, f"[rack] seed = {self.seed}: must not be negative")
        require(0 <= self.initial_soc <= 1, f"[rack] initial_soc = {self.initial_soc}: SoC runs from 0 to 1")
        require(-40 <= self.initial_degc <= 80, f"[rack] initial_degc = {self.initial_degc}: outside -40..80")
        require(
            abs(self.initial_hysteresis) <= 1, f"[rack] initial_hysteresis = {self.initial_hysteresis}: not in -1..1"
        )
        require(0 < self.substep_s <= 1, f"[rack] substep_s = {self.substep_s}: must be in 0..1 s")
        for name in ("capacity", "resistance", "coolant", "self_discharge"):
            spread = getattr(self, f"{name}_spread")
            require(0 <= spread <= 0.32, f"[rack] {name}_spread = {spread}: must be in 0..0.32")
        require(0 <= self.soc_spread <= 0.3, f"[rack] soc_spread = {self.soc_spread}: must be in 0..0.3")
        require(0 <= self.degc_spread <= 10, f"[rack] degc_spread = {self.degc_spread}: must be in 0..10")


def rack_config(cell: CellData, table: Mapping[str, Any], where: str = "[rack]") -> RackConfig:
    """The rack of `cell` as its file describes it, changed by `table`. Raises `TwinError`."""
    return from_table(RackConfig, table, where, **cell.rack)


@dataclass(frozen=True)
class Balance:
    """Energy accounts since the start, in joule; `residual_j` is what the books do not explain."""

    delivered_j: float  # at the DC terminals, discharge minus charge
    stored_j: float  # chemical enthalpy in the cells now
    released_j: float  # chemical enthalpy given up since the start
    heat_j: float  # in the cells, reversible heat and self-discharge included
    bleed_j: float  # in balancing resistors
    path_j: float  # in busbars, contactors, precharge resistor

    @property
    def residual_j(self) -> float:
        """Released minus all its uses: 0 but for rounding and the kinks of the tables."""
        return self.released_j - self.delivered_j - self.heat_j - self.bleed_j - self.path_j


class RackTwin:
    """The state of one rack. `advance` integrates it; nothing is allocated there."""

    def __init__(self, cell: CellData | str, config: RackConfig | None = None) -> None:
        self.cell = load(cell) if isinstance(cell, str) else cell
        self.config = config if config is not None else rack_config(self.cell, {})
        c, data = self.config, self.cell
        self.n_series, self.n_parallel = c.n_series, c.n_parallel
        n = self.n_cells = c.n_series * c.n_parallel
        # rows padded by 192 bytes: rows of whole pages would fall into one set of the L1 cache
        self.cells: F8 = np.zeros((K.C_ROWS, n + 24))[:, :n]
        self.groups: F8 = np.zeros((K.G_ROWS, c.n_series + 24))[:, : c.n_series]
        self.string: F8 = np.zeros(K.S_SIZE)
        self.p: F8 = np.zeros(K.P_SIZE)
        self.table = np.array(data.table)
        self._constants()
        self._spread()
        self._start_j = 0.0
        self.string[K.S_AMBIENT] = c.initial_degc
        self.string[K.S_COOLANT_SET] = self.string[K.S_COOLANT_IN] = self.string[K.S_COOLANT_OUT] = c.initial_degc
        self._check_stable()
        self.settle()
        self._start_j = self.stored_j()

    def _constants(self) -> None:
        c, d, p = self.config, self.cell, self.p
        p[K.P_N_PARALLEL] = c.n_parallel
        p[K.P_REF_DEGC] = d.ocv.degc
        p[K.P_GAMMA] = d.hysteresis.gamma
        p[K.P_M0] = d.hysteresis.instantaneous_v
        p[K.P_ETA] = d.ageing.coulombic_efficiency
        p[K.P_EA_OHMIC] = d.resistance.ohmic_activation_ev
        p[K.P_EA_POLAR] = d.resistance.polarisation_activation_ev
        p[K.P_TAU1 : K.P_TAU4 + 1] = d.resistance.rc_tau_s
        p[K.P_R1 : K.P_R4 + 1] = d.resistance.rc_ohm
        p[K.P_CONDUCTION] = d.thermal.conduction_w_per_k
        p[K.P_AMBIENT_G] = d.thermal.ambient_w_per_k
        p[K.P_MODULE] = c.module_groups * c.n_parallel
        p[K.P_FLOW_W_PER_K] = c.coolant_w_per_k_flow
        p[K.P_COOLANT_TAU] = c.coolant_tau_s
        p[K.P_PATH_OHM] = c.main_path_ohm
        p[K.P_PRECHARGE_OHM] = c.precharge_ohm
        p[K.P_LINK_F] = c.dc_link_f
        p[K.P_LINK_OHM] = c.dc_link_bleed_ohm

    def _spread(self) -> None:
        c, d, n = self.config, self.cell, self.n_cells
        # one stream per quantity: a change of one spread leaves the others' cells as they were
        streams = [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(c.seed).spawn(6)]

        def draw(stream: int, size: int) -> F8:
            return np.clip(streams[stream].standard_normal(size), -3, 3)

        cells = self.cells
        cells[K.C_CAPACITY_AS] = d.head.capacity_ah * 3600 * (1 + c.capacity_spread * draw(0, n))
        scale = 1 + c.resistance_spread * draw(1, n)
        cells[K.C_OHMIC_OHM] = d.resistance.ohmic_ohm * scale
        cells[K.C_POLAR_SCALE] = scale
        # parallel cells are at one voltage, hence at one SoC before the run
        soc = np.repeat(c.initial_soc + c.soc_spread * draw(2, c.n_series), c.n_parallel)
        cells[K.C_SOC] = np.clip(soc, 0.0, 1.0)
        cells[K.C_DEGC] = c.initial_degc + c.degc_spread * draw(3, n)
        cells[K.C_HEAT_CAPACITY] = d.thermal.heat_capacity_j_per_k
        contact = d.thermal.coolant_w_per_k * (1 + c.coolant_spread * draw(4, n))
        # along a cell the coolant approaches its temperature: effective conductance of a plate with flow
        flow = c.coolant_w_per_k_flow
        cells[K.C_COOLANT_W_PER_K] = flow * -np.expm1(-contact / flow)
        cells[K.C_HYST] = c.initial_hysteresis
        month_s = 30.4375 * 86400
        mid_v = float(d.table[len(d.table) // 2, 0])
        leak_s = d.ageing.self_discharge_per_month * d.head.capacity_ah * 3600 / month_s / mid_v
        self.groups[K.G_LEAK_S] = leak_s * c.n_parallel * (1 + c.self_discharge_spread * draw(5, c.n_series))
        self.groups[K.G_BALANCE_S] = 1.0 / c.bleed_ohm
        self.groups[K.G_BUSBAR_OHM] = c.busbar_ohm

    def _check_stable(self) -> None:
        """The heat balance is stepped forward explicitly: refuse data for which that would not be stable."""
        t = self.cell.thermal
        out = 2 * t.conduction_w_per_k + t.ambient_w_per_k + float(self.cells[K.C_COOLANT_W_PER_K].max())
        ratio = self.config.substep_s * out / t.heat_capacity_j_per_k
        if ratio > 0.5:
            raise TwinError(
                f"[rack] substep_s = {self.config.substep_s}: too long for the heat balance of cell "
                f"'{self.cell.head.name}' (needs at most {self.config.substep_s * 0.5 / ratio:.3g} s)"
            )

    def settle(self) -> None:
        """Make derived values agree with the state after it was changed from outside."""
        K.settle(self.cells, self.groups, self.table, self.p, self.string)

    def advance(self, path: int, requests: F8, request_is_current: bool, limits: F8, dt_s: float) -> None:
        """Integrate `len(requests)` sub-steps of `dt_s`, each with its PCS request in W (or A).

        `path`: `kernels.OPEN`, `PRECHARGE` or `CLOSED`. `limits`: discharge A, charge A, discharge W, charge W, >= 0.
        """
        K.advance(
            self.cells, self.groups, self.table, self.p, self.string, path, requests, request_is_current, limits, dt_s
        )

    def set_balance(self, mask: npt.NDArray[np.uint8]) -> None:
        """Switch the bleed resistors: `mask` (n_series,), not 0 = bleed."""
        np.multiply(self.groups[K.G_BALANCE_S], mask != 0, out=self.groups[K.G_BLEED_S])

    def by_group(self, row: int) -> F8:
        """Row of `cells` as [n_series, n_parallel]; a view."""
        return self.cells[row].reshape(self.n_series, self.n_parallel)

    def stored_j(self) -> float:
        """Chemical enthalpy in the cells, counted from empty (see `CellData.stored_energy_j_per_as`)."""
        per_as = self.cell.stored_energy_j_per_as(self.cells[K.C_SOC])
        return float(np.dot(per_as, self.cells[K.C_CAPACITY_AS]))

    def thermal_j(self) -> float:
        """Heat held by the cells above 0 degC."""
        return float(np.dot(self.cells[K.C_DEGC], self.cells[K.C_HEAT_CAPACITY]))

    def balance(self) -> Balance:
        """The energy accounts since the start."""
        s = self.string
        stored = self.stored_j()
        return Balance(
            delivered_j=float(s[K.S_OUT_J] - s[K.S_IN_J]),
            stored_j=stored,
            released_j=self._start_j - stored,
            heat_j=float(s[K.S_HEAT_J]),
            bleed_j=float(s[K.S_BLEED_J]),
            path_j=float(s[K.S_PATH_J]),
        )
