"""A rack of the twin that takes exactly what it may, to the end: how near it gets to its thresholds.

The twin's cells are not those of the controller's model: their own physics, spread over cells, ageing, sensor errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from bms import cells
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.racks.config import default, overlay
from bms.racks.record import record
from hal.backends.simulated import SimulatedRack
from hal.contract import Command, Measurement, RackState, Severity, Truth

N = 8


@dataclass
class Clock:
    """Time, as the test sets it."""

    time_s: float = 0.0

    def now_s(self) -> float:
        return self.time_s


def take_all(name: str, degc: float, sign: float, dt_s: float, **rack: float) -> tuple[float, float, Severity]:
    """Closest approach of a measured cell voltage to v_min or v_max, V; true SoC of the weakest cell in the end."""
    cell = cells.load(name)
    clock = Clock()
    soc = 0.12 if sign > 0 else 0.9
    options = {
        "rack": {"n_series": N, "module_groups": N, "initial_soc": soc, "initial_degc": degc, **rack},
        "environment": {"ambient_degc": degc, "coolant_min_degc": degc, "coolant_max_degc": degc},
        "duty": {"kind": "constant", "current_a": sign * 1e5, "start_s": 15.0},
    }
    twin = SimulatedRack(name, clock=clock, options=options)
    config = record(overlay(default(cell, twin.info), {"timing": {"period_s": dt_s}}, "test"), twin.info)
    n_sensors = twin.info.n_sensors
    c = Controller(config, initial_state(config, soc, 0.02), Measurement(N, n_sensors), Command(N, n_sensors))
    edge = cell.v_min if sign > 0 else cell.v_max
    closest, severity, idle_s = np.inf, 0, 0.0
    with twin:
        while idle_s < 60.0 and clock.time_s < 5000.0:
            clock.time_s += dt_s
            twin.read(c.measurement)
            c.step(Request.CONNECT, dt_s)
            twin.write(c.command)
            severity = max(severity, int(c.command.head["severity"][0]))
            if clock.time_s < 60.0:
                continue
            assert c.command.head["state"][0] == RackState.CONNECTED
            closest = min(closest, float((sign * (c.measurement.cell_v - edge)).min()))
            quiet = abs(float(c.measurement.head["current_a"][0])) < 0.02 * twin.info.capacity_ah
            idle_s = idle_s + dt_s if quiet else 0.0
        truth = Truth(N, n_sensors)
        twin.truth(truth)
    return closest, float(truth.soc.min() if sign > 0 else truth.soc.max()), Severity(severity)


@pytest.mark.parametrize("name", ["lfp_280", "na_185", "nmc_ev"])
@pytest.mark.parametrize("degc", [-10.0, 5.0, 25.0, 45.0])
def test_to_empty(name: str, degc: float) -> None:
    closest, soc, severity = take_all(name, degc, 1.0, 1.0)
    assert closest > -0.01  # a fatal fault: v_min less 0.1 V, for 2 s
    assert soc < 0.01  # and not timid: the weakest cell is empty
    assert severity < Severity.FATAL


@pytest.mark.parametrize("name", ["lfp_280", "na_185", "nmc_ev"])
@pytest.mark.parametrize("degc", [12.0, 25.0, 45.0])
def test_to_full(name: str, degc: float) -> None:
    closest, soc, severity = take_all(name, degc, -1.0, 1.0)
    assert closest > -0.025  # a fatal fault: v_max and 0.05 V, for 2 s; bled cells are measured 10 s a minute
    assert soc > 0.985
    assert severity < Severity.FATAL


@pytest.mark.parametrize("dt_s", [0.1, 5.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_at_other_speeds(dt_s: float, sign: float) -> None:
    closest, soc, severity = take_all("lfp_280", 25.0, sign, dt_s)
    assert closest > -0.025
    assert (soc < 0.01) if sign > 0 else (soc > 0.985)
    assert severity < Severity.FATAL


@pytest.mark.parametrize("name", ["lfp_280", "na_185", "nmc_ev"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_aged_rack(name: str, sign: float) -> None:
    aged = {"resistance_factor": 1.6, "capacity_factor": 0.85, "resistance_spread": 0.15, "capacity_spread": 0.03}
    closest, soc, severity = take_all(name, 12.0, sign, 1.0, **aged)
    assert closest > -0.025
    assert (soc < 0.02) if sign > 0 else (soc > 0.97)
    assert severity < Severity.FATAL
