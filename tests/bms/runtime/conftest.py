"""A small twin, a cell file for it, and the controller on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bms.runtime.clock import VirtualClock
from bms.runtime.run import execute, make_controller, open_rack
from bms.runtime.scenario import Scenario

CELL = """
format = 1
name = "coarse_lfp"
chemistry = "lfp"
source = "drawn by hand for tests"
[limits]
v_min = 2.5
v_max = 3.65
degc_min_charge = 0
degc_min_discharge = -20
degc_max = 55
max_charge_c = 0.5
max_discharge_c = 0.5
[model]
bend_a = 1000.0
soc = [0.0, 0.05, 0.1, 0.3, 0.7, 0.9, 0.97, 1.0]
soc_r = [0.0, 1.0]
temperature_degc = [25.0]
ocv_v = [[2.6, 3.08, 3.16, 3.275, 3.32, 3.342, 3.354, 3.5]]
hysteresis_v = [[0.03, 0.06, 0.055, 0.027, 0.024, 0.013, 0.016, 0.03]]
r0_ohm = [[2.6e-4, 2.6e-4]]
rct_ohm = [[0.0, 0.0]]
rc_ohm = [[[0.8e-4, 0.8e-4]], [[1.1e-4, 1.1e-4]], [[1e-4, 1e-4]], [[1.2e-4, 1.2e-4]]]
rc_tau_s = [1.5, 18.0, 160.0, 1800.0]
capacity_ah = [280.0]
coulombic_efficiency = [0.9985]
hysteresis_gamma = [45.0]
hysteresis_instant_v = [0.0015]
voltage_error_v = [0.005]
knee_error_soc = [0.01]
"""


@pytest.fixture(scope="session")
def cell_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cell") / "coarse_lfp.toml"
    path.write_text(CELL)
    return path


@pytest.fixture
def small(cell_file: Path) -> Callable[..., Scenario]:
    """Makes a scenario on a twin of 8 cells."""

    def make(**changes) -> Scenario:
        tables = {"rack": {"n_series": 8, "module_groups": 4, "seed": 3}, "duty": {"start_s": 8.0}}
        for name in ("rack", "duty", "sensors", "environment", "fault"):
            if name in changes:
                tables[name] = {**tables.get(name, {}), **changes.pop(name)} if name != "fault" else changes.pop(name)
        values = {"name": "small", "rack": "sim:lfp_280", "cell": str(cell_file), "duration_s": 60.0, **changes}
        return Scenario(tables=tables, **values)

    return make


@pytest.fixture
def bench(small):
    """Opens the rack of a scenario: (rack, controller, clock)."""
    opened = []

    def make(clock=None, **changes):
        scenario = small(**changes)
        clock = clock or VirtualClock()
        rack = open_rack(scenario, clock)
        rack.open()
        opened.append(rack)
        return rack, make_controller(scenario, rack, clock), clock

    yield make
    for rack in opened:
        rack.close()


@pytest.fixture(scope="session")
def recorded(cell_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two minutes, with all that `bms run` leaves but the page."""
    folder = tmp_path_factory.mktemp("recorded")
    tables = {"rack": {"n_series": 8, "module_groups": 4, "seed": 3}, "duty": {"start_s": 8.0}}
    scenario = Scenario(name="small", cell=str(cell_file), duration_s=120.0, tables=tables)
    assert execute(scenario, folder, report=False) == 0
    return folder
