"""The set-point of the coolant: lower, the hotter the hottest sensor; as low as it goes where a fault asks for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.faults import Reaction
from bms.core.jit import f4, kernel
from hal.contract import F4, Field

# cooling_number
HOT_DEGC, GAIN, MIN_DEGC, MAX_DEGC = range(4)
N_NUMBERS = 4

CONFIG_FIELDS = (Field("cooling_number", "f4", "settings of the coolant's set-point", f"{N_NUMBERS}"),)

_COOL = int(Reaction.COOL)


class CoolingConfig(NamedTuple):
    """Constants of the cooling."""

    number: F4


@kernel
def coolant_setpoint(config: CoolingConfig, degc_high: f4, reaction: int) -> f4:
    """Set-point of the coolant, degC, for the hottest sensor `degc_high`.

    Where no temperature is known it may be hot as well as cold: the set-point is then the highest, which harms no cell.
    """
    c = config.number
    setpoint: f4 = c[HOT_DEGC] - c[GAIN] * (degc_high - c[HOT_DEGC])
    if np.isnan(setpoint) or setpoint > c[MAX_DEGC]:
        setpoint = c[MAX_DEGC]
    if setpoint < c[MIN_DEGC] or reaction & _COOL != 0:
        setpoint = c[MIN_DEGC]
    return setpoint
