"""The active balancer of a rack, compiled: charge moved between neighbouring groups.

A converter sits between each group and the next. Told to, it takes `shuttle_a` out of one and puts into the other what
its efficiency leaves of the power, at the other's voltage: I_to = eta I_from v_from / v_to. The rest is heat in the
converter, outside the cells. Currents follow from the state at the start of each sub-step and are held over it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim import layout as Y
from sim.jit import kernel

F8 = npt.NDArray[np.float64]
U1 = npt.NDArray[np.uint8]

NONE, TO_NEXT, FROM_NEXT = 0, 1, 2

SHUTTLE_MIN_V = 0.5
"""A converter stops when either group is below this: it has nothing to run on, or no voltage to give against."""

_LANES = Y.LANES


@kernel
def _place(p: F8, g: int, row: int) -> int:
    """Where in `work` row `row` of the levels has group `g`."""
    return int(p[Y.P_LEVELS_AT]) + g // _LANES * Y.V_BLOCK + row + g % _LANES


@kernel
def _currents(p: F8) -> int:
    """Where in `work` the balancer's currents stand, out of each group, until the coolant needs the place."""
    return int(p[Y.P_FLAT_AT]) + 2 * int(p[Y.P_FLAT_STRIDE])


@kernel
def move_charge(balance: U1, work: F8, p: F8, volt_row: int, ohm_row: int) -> float:
    """Let the balancer load the groups: their voltages `volt_row` fall by its current times `ohm_row`.

    Leaves the currents in `work`. Returns the sum of what the voltages fell by.
    """
    n = int(p[Y.P_N_SERIES])
    codes = int(p[Y.P_BLOCKS]) * _LANES
    amps = _currents(p)
    ampere, efficiency = p[Y.P_SHUTTLE_A], p[Y.P_SHUTTLE_EFFICIENCY]
    for g in range(n):
        work[amps + g] = 0.0
    for g in range(n - 1):
        code = balance[codes + g]
        if code != NONE:
            volt, next_volt = work[_place(p, g, volt_row)], work[_place(p, g + 1, volt_row)]
            if min(volt, next_volt) >= SHUTTLE_MIN_V:
                if code == TO_NEXT:
                    work[amps + g] += ampere
                    work[amps + g + 1] -= ampere * efficiency * volt / next_volt
                else:
                    work[amps + g + 1] += ampere
                    work[amps + g] -= ampere * efficiency * next_volt / volt
    fallen = 0.0
    for g in range(n):
        fall = work[amps + g] * work[_place(p, g, ohm_row)]
        work[_place(p, g, volt_row)] -= fall
        fallen += fall
    return fallen


@kernel
def lost_w(work: F8, p: F8, volt_row: int) -> float:
    """What the converters take out of all groups together, at the voltages in `volt_row`: their heat."""
    amps = _currents(p)
    watt = 0.0
    for g in range(int(p[Y.P_N_SERIES])):
        watt += work[amps + g] * work[_place(p, g, volt_row)]
    return watt
