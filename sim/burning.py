"""What has burnt in a rack of the twin: the truth, for reports and tests; no controller sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import layout as Y
from sim.rack import RackTwin
from sim.runaway import OPEN_SCALE

F8 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Burning:
    """Arrays (n_series, n_parallel), one value for each cell; a time that has not come is not a number."""

    degc: F8
    hottest_degc: F8  # since the cell was first looked at; not a number where it never was
    sei: F8  # conversions, 0..1
    charge_lost: F8  # eaten by side reactions, in units of SoC
    cathode: F8
    electrolyte: F8
    separator_melted: F8
    separator_shrunk: F8
    aluminium_melted: F8
    vented_s: F8  # time of the twin, from its start
    ignited_s: F8  # side reactions heated it by 1 K/s
    short_s: F8  # conductance of the shorts inside, faults included, in S
    open_circuit: npt.NDArray[np.bool_]
    side_j: F8  # heat of the side reactions, melting taken off
    gas_mol: F8  # made, vented or not

    @property
    def burnt(self) -> npt.NDArray[np.bool_]:
        """Cells that have been in runaway."""
        return np.isfinite(self.ignited_s)


def burning(rack: RackTwin) -> Burning:
    """How far the cells of `rack` have burnt now."""
    shape = rack.n_series, rack.n_parallel

    def row(at: int) -> F8:
        return rack.burn[at].reshape(shape)

    def seen(at: int) -> F8:
        values = row(at)
        return np.where(values == 0.0, np.nan, values)

    is_open = rack.cells[Y.C_SCALE].reshape(shape) >= OPEN_SCALE
    return Burning(
        degc=rack.cells[Y.C_DEGC].reshape(shape),
        hottest_degc=seen(Y.B_PEAK_DEGC),
        sei=row(Y.B_SEI),
        charge_lost=row(Y.B_LOST),
        cathode=row(Y.B_CATHODE),
        electrolyte=row(Y.B_ELECTROLYTE),
        separator_melted=row(Y.B_SEPARATOR),
        separator_shrunk=row(Y.B_COLLAPSE),
        aluminium_melted=row(Y.B_METAL),
        vented_s=seen(Y.B_VENT_S),
        ignited_s=seen(Y.B_IGNITION_S),
        short_s=np.where(is_open, 0.0, row(Y.B_SHORT_S) + row(Y.B_FAULT_S)),
        open_circuit=is_open,
        side_j=row(Y.B_SIDE_J),
        gas_mol=row(Y.B_GAS_MOL),
    )
