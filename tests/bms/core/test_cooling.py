"""The set-point of the coolant: its line, its ends, and what a fault asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bms.core.cooling import coolant_setpoint
from bms.core.cooling_setup import CoolingSettings, cooling_config
from bms.core.faults import Reaction

CONFIG = cooling_config(CoolingSettings(hot_degc=26.0, gain=2.0, min_degc=16.0, max_degc=24.0))


@pytest.mark.parametrize(
    ("degc", "setpoint"),
    [(-40, 24), (26, 24), (27, 24), (28, 22), (30, 18), (31, 16), (32, 16), (90, 16), (math.nan, 24), (math.inf, 16)],
)
def test_the_line_and_its_ends(degc: float, setpoint: float) -> None:
    assert coolant_setpoint(CONFIG, np.float32(degc), 0) == setpoint


@pytest.mark.parametrize("degc", [-40.0, 25.0, math.nan])
def test_a_fault_may_ask_for_all_there_is(degc: float) -> None:
    assert coolant_setpoint(CONFIG, np.float32(degc), int(Reaction.COOL | Reaction.OPEN)) == 16.0
    assert coolant_setpoint(CONFIG, np.float32(degc), int(~Reaction.COOL & 0xFFF)) == coolant_setpoint(
        CONFIG, np.float32(degc), 0
    )
