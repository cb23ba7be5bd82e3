"""The controller as plain Python takes the same decisions, bit for bit, as the controller compiled.

Python and numpy do one operation after the other, rounded each time, in the order of the source. That the compiled step
gives the same bytes proves that nothing was contracted, reordered or calculated in another precision.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bms import racks
from bms.cells import CellParameters, Limits
from bms.core.layout import State
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.racks.record import record
from hal.contract import Capabilities, Command, Measurement, Quality, RackInfo, Record

N_CELLS, N_SENSORS, N_STEPS, CALM_STEPS = 19, 4, 90, 35


def make_controller() -> Controller:
    """Two blocks, one of them not full; a curve with a knee, all parameters different over SoC and temperature."""
    soc, degc = np.linspace(0.0, 1.0, 6), np.array([0.0, 25.0, 45.0])
    warm, over = np.array([2.0, 1.0, 0.7])[:, None], np.linspace(1.3, 0.9, 6)[None, :]
    r = 1e-3 * warm * over
    cell = CellParameters(
        name="knee", chemistry="lfp", source="a test", limits=Limits(2.5, 3.6, 0.0, -20.0, 55.0, 1.0, 1.0),
        soc=soc, soc_r=soc, degc=degc, ocv_v=np.array([2.6, 3.2, 3.28, 3.3, 3.34, 3.5]) + 2e-3 * warm,
        hysteresis_v=0.01 * warm * over, r0_ohm=r, r_ohm=np.stack([f * r for f in (0.2, 0.3, 0.4, 0.5)]), rct_ohm=r,
        bend_a=5.0, tau_s=np.array([3.0, 20.0, 120.0, 900.0]), capacity=np.array([9.9, 10.0, 10.1]),
        coulombic_efficiency=np.array([0.98, 0.99, 0.995]), gamma=np.array([60.0, 80.0, 90.0]),
        hysteresis_instant_v=np.full(3, 1e-3), voltage_error_v=np.full(3, 2e-3), knee_error_soc=np.full(3, 5e-3),
    )  # fmt: skip
    sensors = np.arange(N_CELLS, dtype=np.uint16) % N_SENSORS
    capabilities = Capabilities(balancing=True, cooling=True, insulation=True)
    info = RackInfo("plain", N_CELLS, N_SENSORS, 2, 20.0, "", sensors, capabilities)
    config = record(racks.default(cell, info), info)
    soc0, std0 = np.linspace(0.0, 1.0, N_CELLS), np.geomspace(1e-3, 0.5, N_CELLS)
    return Controller(
        config, initial_state(config, soc0, std0), Measurement(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)
    )


def measure(k: int, rng: np.random.Generator, c: Controller) -> tuple[int, float]:
    """Sample number `k` into the controller's measurement: most are good, the rest is what links and sensors do."""
    m, head = c.measurement, c.measurement.head
    calm = k < CALM_STEPS  # long enough to be connected
    for name in ("current_a", "pack_v", "bus_v", "insulation_ohm", "coolant_in_degc", "coolant_out_degc"):
        head[f"{name}_quality"], head[f"{name}_age_s"] = 0, 0.05
    m.cell_v_quality[:], m.cell_v_age_s[:], m.sensor_degc_quality[:] = 0, 0.05, 0
    head["sequence"] += calm or k % 13 != 12
    head["time_s"] = 1.0 * k
    ampere = 0.0 if calm and k < 20 else (12.0, -8.0, 25.0, -0.05)[k // 8 % 4] + rng.normal(0.0, 0.1)
    m.cell_v[:] = 3.29 - 1e-3 * ampere + rng.normal(0.0, 1e-3 if calm else 0.02, N_CELLS)
    m.sensor_degc[:] = 20.0 + (1.0 if calm else 4.0) * rng.random(N_SENSORS)
    head["current_a"], head["pack_v"] = ampere, m.cell_v.sum()
    head["bus_v"] = head["pack_v"]
    head["insulation_ohm"], head["coolant_in_degc"], head["coolant_out_degc"] = 1e6, 20.0, 22.0
    head["contactors"], head["interlock_closed"] = c.command.head["contactors"], 1
    if calm:
        return int(Request.CONNECT), 1.0
    bad = rng.integers(N_CELLS)
    if k % 3 == 0:
        m.cell_v[bad] = (np.nan, np.inf, -1e30, 99.0, 5e-324, -99.0, 3.4e38)[k // 3 % 7]
    if k % 5 == 0:
        m.cell_v_quality[bad] = Quality.STALE
    if k % 7 == 3:
        head["current_a"] = (np.nan, -np.inf, 1e20, 9000.0, 1e-42)[k // 7 % 5]
    if k % 11 == 4:
        m.sensor_degc[k % N_SENSORS] = (np.nan, 300.0, -1e9, 41.0, -24.0)[k // 11 % 5]
    if k % 17 == 9:
        head["current_a_age_s"] = 9.0
    request = (Request.CONNECT, Request.CONNECT, Request.RESET, Request.OPEN)[k // 7 % 4]
    return int(request), (1.0, 0.1, 1.0, 10.0, 61.0, 1.0, 1e-3, 3600.0)[k % 8]


def run(path: Path) -> None:
    """Run the duty and write state, command and status after each step as bytes, (N_STEPS, n)."""
    c, rng = make_controller(), np.random.default_rng(11)
    rows = []
    for k in range(N_STEPS):
        request, dt_s = measure(k, rng, c)
        status = c.step(request, dt_s)
        rows.append(np.concatenate([c.state.bytes, c.command.bytes, np.array([status], np.int32).view(np.uint8)]))
    np.save(path, np.array(rows))


def differences(first: np.ndarray, second: np.ndarray) -> list[str]:
    """Names of the fields that differ."""
    found = []
    start = 0
    for each in (State(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)):
        end = start + each.bytes.size
        parts = [np.frombuffer(row[start:end].tobytes(), each.raw.dtype) for row in (first, second)]
        found += [name for name in _names(each) if _field(parts[0], name) != _field(parts[1], name)]
        start = end
    return found + (["status"] if first[start:].tobytes() != second[start:].tobytes() else [])


def _names(record: Record) -> list[str]:
    return [*(f"head.{f.name}" for f in record.layout.scalars), *(f.name for f in record.layout.arrays)]


def _field(part: np.ndarray, name: str) -> bytes:
    for key in name.split("."):
        part = part[key]
    return part.tobytes()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> tuple[np.ndarray, np.ndarray]:
    """What was written by plain Python, in a process of its own, and by the compiled core."""
    folder = tmp_path_factory.mktemp("plain")
    program = f"import pathlib, runpy; runpy.run_path({__file__!r})['run'](pathlib.Path({str(folder / 'plain.npy')!r}))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | {"RACKBMS_JIT": "0"},
        cwd=repository,
        check=True,
    )
    run(folder / "compiled.npy")
    return np.load(folder / "plain.npy"), np.load(folder / "compiled.npy")


def test_plain_python_gives_the_bits_of_the_compiled_core(both: tuple[np.ndarray, np.ndarray]) -> None:
    plain, compiled = both
    assert plain.shape == compiled.shape
    for k in range(N_STEPS):
        assert differences(plain[k], compiled[k]) == [], f"step {k}"
    assert {"blocks", "out", "head.time_s"} <= set(differences(compiled[0], compiled[1])), "a difference is seen"


def test_the_duty_goes_through_much_of_the_controller(both: tuple[np.ndarray, np.ndarray]) -> None:
    """Connected and not, faults, all status bits, cells skipped and not, balancing."""
    _, compiled = both
    command, state = Command(N_CELLS, N_SENSORS), State(N_CELLS, N_SENSORS)
    states, faults, flags, status, skipped = set(), 0, set(), 0, set()
    for row in compiled:
        state.bytes[:] = row[: state.bytes.size]
        command.bytes[:] = row[state.bytes.size : -4]
        states.add(int(command.head["state"][0]))
        faults |= int(command.head["n_faults"][0])
        flags.update(state.flags[:N_CELLS].tolist())
        status |= int(row[-4:].view(np.int32)[0])
        skipped.update(np.flatnonzero(np.isnan(state.out[3 * 32 : 3 * 32 + N_CELLS])).tolist())
    assert len(states) >= 4
    assert faults != 0
    assert flags == {0, 1, 2, 3}
    assert status & 0xFF == 3
    assert len(skipped) > N_CELLS // 2
