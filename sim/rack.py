"""Racks: N series groups of P parallel cells, every cell with its own data, on a DC link with a PCS behind it.

`RackBank` owns the arrays of many racks of one kind, `RackTwin` is one rack of a bank. The equations are in
`sim.kernels`, how the arrays lie in memory in `sim.layout`, the cell data in `sim.cell`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import kernels as K
from sim import layout as Y
from sim import reactions
from sim.cell import COL_DUDT, COL_U, CellData, load
from sim.config import TwinError, check_ranges, from_table, key
from sim.runaway import GAS_J_PER_MOL_K, KELVIN, STEFAN_BOLTZMANN

F8 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RackConfig:
    """Table `[rack]`. The cell's own file gives the values that a real rack of that cell has.

    Spreads are standard deviations, relative where the name does not give a unit; they are drawn from `seed` and cut at
    three standard deviations.
    """

    n_series: int = key("groups in series", low=1, high=65535)
    n_parallel: int = key("cells in parallel in each group", low=1)
    module_groups: int = key("groups per module: neighbours conduct inside one, each has its own coolant branch", low=1)
    cells_per_sensor: int = key("groups per temperature sensor", low=1)
    busbar_ohm: float = key("busbar and contacts after each group", low=0)
    main_path_ohm: float = key("contactors, fuse, shunt and cables", above=0)
    coolant_w_per_k_flow: float = key("heat capacity flow of the coolant in each branch", above=0)
    coolant_flow_lpm: float = key("flow of the coolant, all branches, when the pump runs", above=0)
    dc_link_f: float = key("capacitor of the DC link", above=0)
    dc_link_bleed_ohm: float = key("resistor across the DC link", above=0)
    precharge_ohm: float = key("precharge resistor", above=0)
    bleed_ohm: float = key("balancing resistor of a group", above=0)
    contactor_make_a: float = key("a larger inrush welds the main contactors", above=0)
    contactor_break_a: float = key("opening a larger current welds them too", above=0)
    seed: int = key("of all that is drawn: spreads, sensor errors, noise", 1, low=0)
    initial_soc: float = key("mean state of charge at the start; below 0: towards 0 V", 0.5, low=-0.05, high=1)
    initial_degc: float = key("mean temperature of cells and coolant at the start", 25.0, low=-40, high=80)
    initial_hysteresis: float = key("-1: after a discharge, 1: after a charge", 0.0, low=-1, high=1)
    substep_s: float = key("longest step of the physics", 1.0, above=0, high=1)
    capacity_spread: float = key("of the capacities, relative", 0.01, low=0, high=0.32)
    resistance_spread: float = key("of the resistances, relative", 0.05, low=0, high=0.32)
    soc_spread: float = key("of the states of charge at the start", 0.01, low=0, high=0.3)
    degc_spread: float = key("of the temperatures at the start", 0.5, low=0, high=10, unit="K")
    coolant_spread: float = key("of the thermal contacts to the coolant, relative", 0.05, low=0, high=0.32)
    self_discharge_spread: float = key("of the leaks, relative", 0.3, low=0, high=0.32)
    coolant_tau_s: float = key("time constant with which the inlet follows its set-point", 120.0, above=0)
    # 0.5 m of 0.22 mm2 copper 0.04 ohm, its fuse 0.05 ohm, contacts 0.01 ohm
    sense_ohm: float = key("of each sense wire, an estimate", 0.1, low=0)
    capacity_factor: float = key("capacity of all cells, relative to their type's: a rack that has aged", 1.0, above=0)
    resistance_factor: float = key("resistance of all cells, relative to their type's", 1.0, above=0)
    shuttle: bool = key("there is an active balancer between neighbours", False)
    shuttle_a: float = key("current of each of its converters", 2.0, above=0)
    shuttle_efficiency: float = key("share of the power that arrives", 0.9, above=0, high=1)
    side_reactions: str = key('of which chemistry; "": the cell\'s own, "none": there are none', "")
    barrier_every: int = key("cells between thermal barriers of a module; 0: there are none", 0, low=0)
    barrier_k_per_w: float = key("of a barrier, in series with the conduction between its neighbours", 20.0, low=0)
    air_m3: float = key("free air of the rack, into which cells vent", 1.0, above=0)
    air_change_s: float = key("time constant with which it is renewed", 600.0, above=0)
    detector_tau_s: float = key("time constant with which vented gas reaches the detector", 15.0, above=0)
    watchdog_s: float = key(
        "the rack opens its contactors when the controller's heart-beat stands still for longer", 10.0, above=0
    )

    def __post_init__(self) -> None:
        check_ranges(self, "[rack]")


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
    shuttle_j: float  # in the active balancer
    heater_j: float  # from outside into the cells, a part of their heat
    side_j: float  # of side reactions, melting taken off, a part of the heat
    consumed_j: float  # chemical enthalpy of charge that side reactions ate
    vented_j: float  # heat that left the cells with what they vented

    @property
    def residual_j(self) -> float:
        """Released minus all its uses: 0 but for rounding and the kinks of the tables."""
        used_j = self.delivered_j + self.heat_j + self.bleed_j + self.path_j + self.shuttle_j + self.consumed_j
        return self.released_j + self.heater_j + self.side_j - used_j


class RackBank:
    """The arrays of `n_racks` racks of one kind; rack r is drawn from the seed `config.seed` + r.

    With `n_slots` slots of work rows (see `sim.layout`) so many racks can be advanced at once; a bank of one rack keeps
    in its slot what follows from its state. `broken`: groups can be heated from outside, and their joints gain
    resistance (rows X_... after `groups`).
    """

    def __init__(
        self,
        cell: CellData | str,
        config: RackConfig | None = None,
        n_racks: int = 1,
        n_slots: int = 1,
        broken: bool = False,
    ) -> None:
        self.cell = load(cell) if isinstance(cell, str) else cell
        self.config = config if config is not None else rack_config(self.cell, {})
        c = self.config
        self.n_racks, self.n_slots = n_racks, n_slots
        self.n_series, self.n_parallel = c.n_series, c.n_parallel
        self.n_cells = c.n_series * c.n_parallel
        blocks = Y.blocks(c.n_series)
        self.cells: F8 = Y.aligned((n_racks, blocks * c.n_parallel * Y.C_BLOCK))
        self.groups: F8 = Y.aligned((n_racks, blocks * (Y.G_BLOCK + Y.LANES * Y.X_ROWS * broken)))
        self.balance: npt.NDArray[np.uint8] = np.zeros((n_racks, blocks * Y.LANES * (1 + c.shuttle)), np.uint8)
        self.string: F8 = Y.aligned((n_racks, Y.S_SIZE))
        self.logic: npt.NDArray[np.int64] = np.zeros((n_racks, Y.L_SIZE), np.int64)
        self.work: F8 = Y.aligned((n_slots, Y.work_places(c.n_series, c.n_parallel)[-1]))
        self.burn: F8 = Y.aligned((n_racks, blocks * c.n_parallel * Y.B_BLOCK))
        self.p: F8 = np.zeros(Y.P_SIZE)
        self.p[Y.P_BROKEN] = broken
        self._constants()
        self.table = self._table()
        self.chemistry = self._chemistry()
        start = self.string
        start[:, Y.S_AMBIENT] = start[:, Y.S_COOLANT_SET] = c.initial_degc
        start[:, Y.S_COOLANT_IN] = start[:, Y.S_COOLANT_OUT] = c.initial_degc
        start[:, Y.S_FLOW_W_PER_K] = c.coolant_w_per_k_flow
        start[:, Y.S_SHARE] = 1.0
        start[:, Y.S_LINK_OHM], start[:, Y.S_PRECHARGE_OHM] = c.dc_link_bleed_ohm, c.precharge_ohm
        start[:, Y.S_FORCED_A] = np.nan
        start[:, Y.S_SOC] = c.initial_soc
        self.logic[:, Y.L_HEARTBEAT] = -1
        for r in range(n_racks):
            self._spread(r)
        self._check_stable()
        self.settle(0, n_racks)

    def _constants(self) -> None:
        c, d, p = self.config, self.cell, self.p
        p[Y.P_N_SERIES], p[Y.P_N_PARALLEL], p[Y.P_BLOCKS] = c.n_series, c.n_parallel, Y.blocks(c.n_series)
        p[Y.P_REF_DEGC] = d.ocv.degc
        p[Y.P_GAMMA] = d.hysteresis.gamma
        p[Y.P_M0] = d.hysteresis.instantaneous_v
        p[Y.P_ETA] = d.ageing.coulombic_efficiency
        p[Y.P_EA_OHMIC] = d.resistance.ohmic_activation_ev
        p[Y.P_EA_POLAR] = d.resistance.polarisation_activation_ev
        p[Y.P_TAU1 : Y.P_TAU4 + 1] = d.resistance.rc_tau_s
        p[Y.P_R0] = d.resistance.ohmic_ohm
        p[Y.P_R1 : Y.P_R4 + 1] = d.resistance.rc_ohm
        p[Y.P_HEAT_CAPACITY] = d.thermal.heat_capacity_j_per_k
        p[Y.P_CONDUCTION] = d.thermal.conduction_w_per_k
        p[Y.P_AMBIENT_G] = d.thermal.ambient_w_per_k
        p[Y.P_MODULE] = c.module_groups * c.n_parallel
        p[Y.P_COOLANT_TAU] = c.coolant_tau_s
        p[Y.P_BALANCE_S] = 1.0 / c.bleed_ohm
        p[Y.P_SENSE_OHM] = c.sense_ohm
        p[Y.P_SHUTTLE_A], p[Y.P_SHUTTLE_EFFICIENCY] = c.shuttle_a * c.shuttle, c.shuttle_efficiency
        p[Y.P_BUSBAR_OHM] = c.busbar_ohm
        p[Y.P_PATH_OHM] = c.main_path_ohm
        p[Y.P_LINK_F] = c.dc_link_f
        p[Y.P_MAKE_A], p[Y.P_BREAK_A] = c.contactor_make_a, c.contactor_break_a
        p[Y.P_WATCHDOG_S] = c.watchdog_s
        p[Y.P_CAPACITY_AH] = d.head.capacity_ah * c.n_parallel
        p[Y.P_LEVELS_AT : Y.P_FLAT_STRIDE + 1] = Y.work_places(c.n_series, c.n_parallel)[:4]

    def _chemistry(self) -> F8:
        """Constants of the side reactions; nothing burns where the chemistry is `none` or has none described."""
        c, d, p = self.config, self.cell, self.p
        name = c.side_reactions or (d.head.chemistry if d.head.chemistry in reactions.names() else reactions.NONE)
        p[Y.P_TERMINAL_G] = d.thermal.terminal_w_per_k
        p[Y.P_RADIATION] = STEFAN_BOLTZMANN * d.thermal.radiating_m2
        p[Y.P_SKIN_OHM], p[Y.P_SKIN_TAU] = d.thermal.skin_k_per_w, d.thermal.skin_tau_s
        p[Y.P_BARRIER_EVERY] = c.barrier_every
        p[Y.P_BARRIER_SHARE] = 1.0 / (1.0 + c.barrier_k_per_w * d.thermal.conduction_w_per_k)
        p[Y.P_AIR_MOL] = 101325.0 * c.air_m3 / (GAS_J_PER_MOL_K * (25.0 + KELVIN))
        p[Y.P_AIR_TAU], p[Y.P_DETECTOR_TAU] = c.air_change_s, c.detector_tau_s
        p[Y.P_BURNS] = name != reactions.NONE
        if name == reactions.NONE:
            return np.zeros(Y.Q_SIZE + 2 * len(d.table))
        return reactions.load(name).constants(d)

    def _table(self) -> F8:
        """The cell's table as it is looked up: eight values of a point, then eight differences to the next.

        U, M, dU/dT, both shapes; then the differences of U and dU/dT themselves, for the slopes; and a place left free.
        """
        values = self.cell.table[:, :5]
        table = Y.aligned((len(values), 16))
        table[:, :5] = values
        table[:-1, 8:13] = np.diff(values, axis=0)
        table[:, 5], table[:, 6] = table[:, 8 + COL_U], table[:, 8 + COL_DUDT]
        return table

    def _spread(self, r: int) -> None:
        c, d, n = self.config, self.cell, self.n_cells
        # one stream per quantity: a change of one spread leaves the others' cells as they were
        streams = [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(c.seed + r).spawn(6)]

        def draw(stream: int, size: int) -> F8:
            return np.clip(streams[stream].standard_normal(size), -3, 3)

        cells = Y.Rows(self.cells[r], c.n_series, c.n_parallel, Y.C_BLOCK)
        cells[Y.C_CAPACITY_AS] = c.capacity_factor * d.head.capacity_ah * 3600 * (1 + c.capacity_spread * draw(0, n))
        cells[Y.C_SCALE] = c.resistance_factor * (1 + c.resistance_spread * draw(1, n))
        # parallel cells are at one voltage, hence at one SoC before the run
        soc = np.repeat(c.initial_soc + c.soc_spread * draw(2, c.n_series), c.n_parallel)
        cells[Y.C_SOC] = np.clip(soc, 0.0 if c.initial_soc >= 0.0 else -0.05, 1.0)
        cells[Y.C_DEGC] = c.initial_degc + c.degc_spread * draw(3, n)
        # along a cell the coolant approaches its temperature: a plate at one temperature with flow along it
        contact = d.thermal.coolant_w_per_k * (1 + c.coolant_spread * draw(4, n))
        cells[Y.C_COOLANT_SHARE] = -np.expm1(-contact / c.coolant_w_per_k_flow)
        cells[Y.C_HYST] = c.initial_hysteresis
        month_s = 30.4375 * 86400
        mid_v = float(d.table[len(d.table) // 2, 0])
        leak_s = d.ageing.self_discharge_per_month * d.head.capacity_ah * 3600 / month_s / mid_v
        groups = Y.Rows(self.groups[r], c.n_series, 1, Y.G_BLOCK)
        groups[Y.G_LEAK_S] = leak_s * c.n_parallel * (1 + c.self_discharge_spread * draw(5, c.n_series))

    def _check_stable(self) -> None:
        """The heat balance is stepped forward explicitly: refuse data for which that would not be stable."""
        t, c = self.cell.thermal, self.config
        largest = t.coolant_w_per_k * (1 + 3 * c.coolant_spread)
        radiation = 4 * STEFAN_BOLTZMANN * t.radiating_m2 * 1300.0**3  # about the hottest that a fire of cells gets, K
        out = 2 * (t.conduction_w_per_k + t.terminal_w_per_k + radiation) + t.ambient_w_per_k
        out += -c.coolant_w_per_k_flow * float(np.expm1(-largest / c.coolant_w_per_k_flow))
        ratio = c.substep_s * out / t.heat_capacity_j_per_k
        if ratio > 0.5:
            raise TwinError(
                f"[rack] substep_s = {c.substep_s}: too long for the heat balance of cell "
                f"'{self.cell.head.name}' (needs at most {c.substep_s * 0.5 / ratio:.3g} s)"
            )

    def by_group(self, row: int) -> F8:
        """Row of `cells` of every rack as [n_racks, n_series, n_parallel]; a copy."""
        lanes = self.lanes(row).transpose(0, 1, 3, 2)
        return lanes.reshape(self.n_racks, -1, self.n_parallel)[:, : self.n_series]

    def lanes(self, row: int) -> F8:
        """Row of `cells` of every rack as it lies, [n_racks, blocks, n_parallel, `LANES`]: a view."""
        shape = self.n_racks, Y.blocks(self.n_series), self.n_parallel, Y.C_BLOCK // Y.LANES, Y.LANES
        return self.cells.reshape(shape)[:, :, :, row // Y.LANES, :]

    def settle(self, lo: int, hi: int) -> None:
        """Make derived values of the racks `lo` to `hi` - 1 agree with a state that was changed from outside."""
        K.settle_racks(self.cells, self.groups, self.balance, self.string, self.work, self.table, self.p, lo, hi, 0)


class RackTwin:
    """One rack, a bank of its own unless it is told which it belongs to. `advance` integrates it.

    `cells`, `burn`, `derived`, `groups` and `levels` are rows in the order of the cells, read and written whole (see
    `sim.layout`); `string` and `p` are views. `derived` and `levels` are this rack's in a bank of one rack only.
    """

    def __init__(
        self,
        cell: CellData | str,
        config: RackConfig | None = None,
        bank: RackBank | None = None,
        index: int = 0,
    ) -> None:
        self.bank = bank if bank is not None else RackBank(cell, config)
        bank, c = self.bank, self.bank.config
        self.index = index
        self.cell, self.table, self.p = bank.cell, bank.table, bank.p
        self.config = replace(c, seed=c.seed + index)
        self.n_series, self.n_parallel, self.n_cells = c.n_series, c.n_parallel, bank.n_cells
        self.string: F8 = bank.string[index]
        self.cells = Y.Rows(bank.cells[index], c.n_series, c.n_parallel, Y.C_BLOCK)
        self.groups = Y.Rows(bank.groups[index], c.n_series, 1, Y.G_BLOCK)
        work = bank.work[0]
        self.derived = Y.Rows(work, c.n_series, c.n_parallel, Y.D_BLOCK)
        self.burn = Y.Rows(bank.burn[index], c.n_series, c.n_parallel, Y.B_BLOCK)
        self.levels = Y.Rows(work[int(self.p[Y.P_LEVELS_AT]) :], c.n_series, 1, Y.V_BLOCK)
        self._start_j = self.stored_j()
        self._requests: F8 = np.zeros(0)
        self._advance: Callable[..., None] | None = None

    def settle(self) -> None:
        """Make derived values agree with the state after it was changed from outside."""
        self.bank.settle(self.index, self.index + 1)

    def advance(self, path: int, requests: F8, request_is_current: bool, limits: F8, dt_s: float) -> None:
        """Integrate `len(requests)` sub-steps of `dt_s`, each with its PCS request in W (or A).

        `path`: `layout.OPEN`, `PRECHARGE` or `CLOSED`. `limits`: discharge A, charge A, discharge W, charge W, >= 0.
        For the rack of a bank of its own.
        """
        n = len(requests)
        if self._advance is None or n > len(self._requests):
            self._requests = np.zeros(max(2 * n, 64))
            b = self.bank
            self._advance = K.advance_racks.bind(
                b.cells, b.groups, b.balance, b.burn, b.string, b.work, b.table, b.chemistry, b.p, self._requests
            )
        self._requests[:n] = requests
        self.string[Y.S_LIMIT_DISCHARGE_A : Y.S_LIMIT_CHARGE_W + 1] = limits
        self._advance(n, path, request_is_current, dt_s, 0, 1)

    def react(self, dt_s: float) -> None:
        """Let nothing but side reactions pass for `dt_s`, in one step. For the rack of a bank of its own."""
        b = self.bank
        K.react_racks(
            b.cells, b.groups, b.balance, b.burn, b.string, b.work, b.table, b.chemistry, b.p, dt_s, 0, 1
        )  # fmt: skip

    def set_balance(self, mask: npt.NDArray[np.uint8]) -> None:
        """Switch the bleed resistors: `mask` (n_series,), not 0 = bleed."""
        np.not_equal(mask, 0, out=self.bank.balance[self.index, : self.n_series], casting="unsafe")

    def by_group(self, row: int) -> F8:
        """Row of `cells` as [n_series, n_parallel]."""
        return self.cells[row].reshape(self.n_series, self.n_parallel)

    def stored_j(self) -> float:
        """Chemical enthalpy in the cells, counted from empty (see `CellData.stored_energy_j_per_as`)."""
        per_as = self.cell.stored_energy_j_per_as(self.cells[Y.C_SOC])
        return float(np.dot(per_as, self.cells[Y.C_CAPACITY_AS]))

    def thermal_j(self) -> float:
        """Heat held by the cells above 0 degC."""
        return float(self.cells[Y.C_DEGC].sum()) * self.cell.thermal.heat_capacity_j_per_k

    def balance(self) -> Balance:
        """The energy accounts since the start."""
        s = self.string
        stored = self.stored_j()
        return Balance(
            delivered_j=float(s[Y.S_OUT_J] - s[Y.S_IN_J]),
            stored_j=stored,
            released_j=self._start_j - stored,
            heat_j=float(s[Y.S_HEAT_J]),
            bleed_j=float(s[Y.S_BLEED_J]),
            path_j=float(s[Y.S_PATH_J]),
            shuttle_j=float(s[Y.S_SHUTTLE_J]),
            heater_j=float(s[Y.S_HEATER_J]),
            side_j=float(s[Y.S_SIDE_J]),
            consumed_j=float(s[Y.S_CONSUMED_J]),
            vented_j=float(s[Y.S_VENT_J]),
        )
