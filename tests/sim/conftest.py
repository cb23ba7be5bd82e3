"""A cell so simple that everything about it has a closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim import cell
from sim import layout as Y
from sim.rack import RackTwin, rack_config

PLAIN: dict[str, dict[str, Any]] = {
    "cell": {
        "name": "plain",
        "chemistry": "none",
        "description": "straight line",
        "capacity_ah": 10.0,
        "v_min": 2.0,
        "v_max": 5.0,
        "mass_kg": 1.0,
    },
    "ocv": {"degc": 25.0, "soc": [0.0, 1.0], "discharge_v": [3.0, 3.6], "charge_v": [3.0, 3.6]},
    "entropy": {"soc": [0.0, 1.0], "du_dt_v_per_k": [0.0, 0.0]},
    "resistance": {
        "degc": 25.0,
        "ohmic_ohm": 2e-3,
        "ohmic_activation_ev": 0.0,
        "polarisation_activation_ev": 0.0,
        "rc_tau_s": [1.0, 10.0, 100.0, 1000.0],
        "rc_ohm": [0.0, 0.0, 0.0, 0.0],
        "soc": [0.0, 1.0],
        "ohmic_shape": [1.0, 1.0],
        "polarisation_shape": [1.0, 1.0],
    },
    "hysteresis": {"gamma": 50.0, "instantaneous_v": 0.0},
    "ageing": {"coulombic_efficiency": 1.0, "self_discharge_per_month": 0.0},
    "thermal": {
        "heat_capacity_j_per_k": 1000.0,
        "conduction_w_per_k": 0.0,
        "coolant_w_per_k": 0.0,
        "ambient_w_per_k": 0.0,
    },
    "rack": {
        "n_series": 1,
        "n_parallel": 1,
        "module_groups": 4,
        "cells_per_sensor": 1,
        "busbar_ohm": 0.0,
        "main_path_ohm": 1e-9,
        "coolant_w_per_k_flow": 100.0,
        "coolant_flow_lpm": 12.0,
        "dc_link_f": 1e-12,
        "dc_link_bleed_ohm": 1e15,
        "precharge_ohm": 100.0,
        "bleed_ohm": 33.0,
        "contactor_make_a": 1000.0,
        "contactor_break_a": 1000.0,
        **{f"{name}_spread": 0.0 for name in ("capacity", "resistance", "soc", "degc", "coolant", "self_discharge")},
    },
}

NO_LIMIT = np.full(4, 1e12)


@pytest.fixture(scope="session")
def plain() -> Callable[..., RackTwin]:
    """Make a rack of plain cells: `plain(resistance={"ohmic_ohm": 1e-3}, rack={"n_series": 4})`."""

    def make(**changes: dict[str, Any]) -> RackTwin:
        data = {name: {**table, **changes.get(name, {})} for name, table in PLAIN.items()}
        made = cell.build(data, "plain")
        return RackTwin(made, rack_config(made, {}))

    return make


@pytest.fixture(scope="session")
def hold() -> Callable[..., None]:
    """Drive a rack with a constant current: `hold(rack, ampere, steps, dt_s)`."""

    def run(rack: RackTwin, ampere: float, steps: int, dt_s: float = 1.0) -> None:
        rack.advance(Y.CLOSED, np.full(steps, ampere), True, NO_LIMIT, dt_s)

    return run
