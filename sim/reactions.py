"""Data of the side reactions: TOML files in `sim/cells/reactions`, each number with its source, scaled to one cell.

What the numbers mean is in `sim.runaway`. Heats are per kilogram of cell at full conversion (of anode and cathode:
fully charged), gas and shorts per ampere-hour, so that cells of any size can be made of one chemistry.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import layout as Y
from sim.cell import COL_DUDT, COL_U, GRID, CellData
from sim.config import TwinError, from_table, hint, require
from sim.runaway import GAS_J_PER_MOL_K, KELVIN

F8 = npt.NDArray[np.float64]

NONE = "none"
"""The name of no side reactions at all."""

WAKE_DEGC, WAKE_SOC = 60.0, 1.02
"""Below both nothing is looked at: no reaction here heats a cell by more than 2 mK/min at 60 degC."""

ALUMINIUM_DEGC = 660.3


@dataclass(frozen=True)
class Reaction:
    """Tables `[sei]`, `[anode]`, `[cathode]`, `[electrolyte]`: k = A exp(-Ea / R T), heat, share of the gas.

    `film` is 1 / l0 of the anode: what it has converted slows it down.
    """

    a_per_s: float
    ea_j_per_mol: float
    heat_j_per_kg: float
    gas_share: float
    film: float = 0.0


@dataclass(frozen=True)
class OverchargeData:
    """Table `[overcharge]`: metal plated beyond `plating_soc` reacts, and grows through beyond `dendrite_soc`.

    `heat_j_per_kg` is that of one capacity plated, `dendrite_s_per_ah` the conductance for one capacity beyond.
    """

    a_per_s: float
    ea_j_per_mol: float
    heat_j_per_kg: float
    plating_soc: float
    dendrite_soc: float
    dendrite_s_per_ah: float


@dataclass(frozen=True)
class SeparatorData:
    """Table `[separator]`: melting, m' = (1 - m) (T - melt_degc) / melt_k_s; shrinking; the short that is left."""

    melt_degc: float
    melt_k_s: float
    melt_j_per_kg: float
    collapse_degc: float
    a_per_s: float
    ea_j_per_mol: float
    short_s_per_ah: float


@dataclass(frozen=True)
class SolventData:
    """Table `[solvent]`: its vapour, and what boils off once the cell has vented."""

    boiling_degc: float
    vapour_j_per_mol: float
    boil_k_s: float
    boil_j_per_kg: float


@dataclass(frozen=True)
class MetalData:
    """Table `[metal]`: the aluminium of collectors and case."""

    melt_k_s: float
    melt_j_per_kg: float


@dataclass(frozen=True)
class GasData:
    """Table `[gas]`: what a cell vents when all has reacted, and the heat capacity of what leaves with a mol of it."""

    mol_per_ah: float
    j_per_mol_k: float


@dataclass(frozen=True)
class Reactions:
    """One chemistry."""

    sei: Reaction
    anode: Reaction
    cathode: Reaction
    electrolyte: Reaction
    overcharge: OverchargeData
    separator: SeparatorData
    solvent: SolventData
    metal: MetalData
    gas: GasData

    def constants(self, cell: CellData) -> F8:
        """`chemistry` of the kernels for one cell (see `sim.layout`)."""
        q = np.zeros(Y.Q_SIZE + 2 * GRID)
        head, thermal = cell.head, cell.thermal
        mass_kg, capacity_ah = head.mass_kg, head.capacity_ah
        mol = self.gas.mol_per_ah * capacity_ah
        for reaction, at in ((self.sei, Y.Q_SEI), (self.anode, Y.Q_ANODE), (self.cathode, Y.Q_CATHODE),
                             (self.electrolyte, Y.Q_ELECTROLYTE)):  # fmt: skip
            q[at], q[at + 1] = reaction.a_per_s, reaction.ea_j_per_mol / GAS_J_PER_MOL_K
            q[at + 2], q[at + 3] = reaction.heat_j_per_kg * mass_kg, reaction.gas_share * mol
        q[Y.Q_FILM] = self.anode.film
        o, x, v, m = self.overcharge, self.separator, self.solvent, self.metal
        q[Y.Q_PLATING], q[Y.Q_PLATING_K] = o.a_per_s, o.ea_j_per_mol / GAS_J_PER_MOL_K
        q[Y.Q_PLATING_J], q[Y.Q_PLATING_SOC] = o.heat_j_per_kg * mass_kg, o.plating_soc
        q[Y.Q_DENDRITE_S], q[Y.Q_DENDRITE_SOC] = o.dendrite_s_per_ah * capacity_ah, o.dendrite_soc
        q[Y.Q_MELT_DEGC], q[Y.Q_MELT_RATE], q[Y.Q_MELT_J] = x.melt_degc, 1.0 / x.melt_k_s, x.melt_j_per_kg * mass_kg
        q[Y.Q_COLLAPSE], q[Y.Q_COLLAPSE_K] = x.a_per_s, x.ea_j_per_mol / GAS_J_PER_MOL_K
        q[Y.Q_COLLAPSE_DEGC], q[Y.Q_SHORT_S] = x.collapse_degc, x.short_s_per_ah * capacity_ah
        q[Y.Q_BOIL_DEGC], q[Y.Q_BOIL_RATE], q[Y.Q_BOIL_J] = v.boiling_degc, 1.0 / v.boil_k_s, v.boil_j_per_kg * mass_kg
        q[Y.Q_VAPOUR_K] = v.vapour_j_per_mol / GAS_J_PER_MOL_K
        q[Y.Q_VAPOUR_PA] = 101325.0 * np.exp(q[Y.Q_VAPOUR_K] / (v.boiling_degc + KELVIN))
        q[Y.Q_METAL_DEGC], q[Y.Q_METAL_RATE], q[Y.Q_METAL_J] = (
            ALUMINIUM_DEGC, 1.0 / m.melt_k_s, m.melt_j_per_kg * mass_kg,
        )  # fmt: skip
        q[Y.Q_PER_FREE_M3] = 1.0 / (thermal.free_m3_per_ah * capacity_ah)
        q[Y.Q_VENT_PA] = thermal.vent_pa
        q[Y.Q_GAS_J_PER_K], q[Y.Q_OUT_DEGC] = self.gas.j_per_mol_k, 25.0
        q[Y.Q_WAKE_DEGC], q[Y.Q_WAKE_SOC] = WAKE_DEGC, WAKE_SOC
        u = cell.table[:, COL_U] - (cell.ocv.degc + KELVIN) * cell.table[:, COL_DUDT]
        q[Y.Q_SLOPE_EMPTY], q[Y.Q_SLOPE_FULL] = np.diff(cell.table[:, COL_U])[[0, -1]] * (GRID - 1)
        q[Y.Q_EMPTY_SOC] = -cell.table[0, COL_U] / q[Y.Q_SLOPE_EMPTY]
        q[Y.Q_SIZE : Y.Q_SIZE + GRID] = cell.stored_energy_j_per_as(np.linspace(0.0, 1.0, GRID))
        q[Y.Q_SIZE + GRID :] = u
        return q


def names() -> tuple[str, ...]:
    """Chemistries whose side reactions the twin knows, sorted."""
    folder = resources.files("sim") / "cells" / "reactions"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


@cache
def load(name: str) -> Reactions:
    """Side reactions of the chemistry `name`. Raises `TwinError` for an unknown one, or a file that is not sound."""
    if name not in names():
        raise TwinError(f"[rack] side_reactions = '{name}': unknown side reactions{hint(name, (*names(), NONE))}")
    text = (resources.files("sim") / "cells" / "reactions" / f"{name}.toml").read_text(encoding="utf-8")
    return build(tomllib.loads(text), f"sim/cells/reactions/{name}.toml")


def build(data: dict[str, Any], source: str) -> Reactions:
    """Make a chemistry of the tables of its file; `source` names it in messages. Raises `TwinError`."""
    kinds = {
        "sei": Reaction,
        "anode": Reaction,
        "cathode": Reaction,
        "electrolyte": Reaction,
        "overcharge": OverchargeData,
        "separator": SeparatorData,
        "solvent": SolventData,
        "metal": MetalData,
        "gas": GasData,
    }
    for key in data:
        require(key in kinds, f"{source}: unknown table [{key}]{hint(key, kinds)}")
    parts: dict[str, Any] = {}
    for key, kind in kinds.items():
        require(key in data, f"{source}: the table [{key}] is missing")
        for name, value in data[key].items():
            require(not isinstance(value, (int, float)) or value >= 0, f"{source} [{key}] {name}: is negative")
        parts[key] = from_table(kind, data[key], f"{source} [{key}]")
    shares = sum(parts[key].gas_share for key in ("sei", "anode", "cathode", "electrolyte"))
    require(abs(shares - 1.0) < 1e-9, f"{source}: the shares of the gas add up to {shares:g}, not to 1")
    for key, name in (("separator", "melt_k_s"), ("solvent", "boil_k_s"), ("metal", "melt_k_s")):
        require(getattr(parts[key], name) > 0, f"{source} [{key}] {name}: must be positive")
    overcharge = parts["overcharge"]
    require(overcharge.plating_soc >= WAKE_SOC, f"{source} [overcharge] plating_soc: must be at least {WAKE_SOC}")
    require(overcharge.dendrite_soc >= overcharge.plating_soc, f"{source} [overcharge] dendrite_soc: below plating_soc")
    return Reactions(**parts)
