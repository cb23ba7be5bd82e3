"""The one step: what the estimator and the control are given, and that a step repeats itself bit for bit."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bms import racks
from bms.cells import CellParameters, Limits
from bms.core import estimator_layout as e
from bms.core.faults import Fault, row_id
from bms.core.layout import State
from bms.core.machine_table import Request
from bms.core.step import STATUS_FAULT, Controller, initial_state, step, step_racks
from bms.racks.record import record
from hal.contract import Capabilities, Command, Measurement, Quality, RackInfo, RackState

N_CELLS, N_SENSORS = 6, 3
SENSOR_OF_CELL = np.array([2, 2, 0, 0, 1, 1], np.uint16)


def cell() -> CellParameters:
    """A cell with a straight OCV curve, 3.0..3.6 V, of 10 Ah."""
    nodes, two = np.array([0.0, 25.0, 45.0]), np.array([0.0, 1.0])
    same = np.ones(3)
    return CellParameters(
        name="straight", chemistry="lfp", source="a test", limits=Limits(2.5, 3.8, 0.0, -20.0, 55.0, 1.0, 1.0),
        soc=two, soc_r=two, degc=nodes, ocv_v=np.tile([3.0, 3.6], (3, 1)), hysteresis_v=np.zeros((3, 2)),
        r0_ohm=np.full((3, 2), 1e-3), r_ohm=np.full((4, 3, 2), 1e-4), rct_ohm=np.zeros((3, 2)), bend_a=10.0,
        tau_s=np.array([3.0, 20.0, 120.0, 900.0]), capacity=10.0 * same, coulombic_efficiency=same, gamma=10.0 * same,
        hysteresis_instant_v=0.0 * same, voltage_error_v=0.002 * same, knee_error_soc=0.005 * same,
    )  # fmt: skip


def controller(n_parallel: int = 1, soc: float = 0.5, soc_std: float = 0.1) -> Controller:
    info = RackInfo(
        "test", N_CELLS, N_SENSORS, n_parallel, 10.0 * n_parallel, "", SENSOR_OF_CELL, Capabilities(balancing=True)
    )  # fmt: skip
    config = record(racks.default(cell(), info), info)
    made = Controller(
        config, initial_state(config, soc, soc_std), Measurement(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)
    )
    m = made.measurement
    m.cell_v[:], m.sensor_degc[:] = 3.3, 25.0
    m.head["pack_v"], m.head["interlock_closed"] = 3.3 * N_CELLS, 1
    m.head["coolant_in_degc"] = 20.0
    return made


def go(c: Controller, steps: int = 1, request: int = Request.CONNECT, dt_s: float = 1.0) -> int:
    status = 0
    for _ in range(steps):
        c.measurement.head["sequence"] += 1
        # no voltage of a living cell stands still to the last digit
        c.measurement.cell_v[:] += 1e-4 if c.measurement.head["sequence"][0] % 2 else -1e-4
        c.measurement.head["contactors"] = c.command.head["contactors"]
        # the link is empty until a contactor of the positive side closes: 1 the main one, 4 that of the resistor
        charged = c.command.head["contactors"][0] & 5 != 0
        c.measurement.head["bus_v"] = c.measurement.head["pack_v"] if charged else 0.0
        status = c.step(request, dt_s)
    return status


def test_estimates_converge_to_the_voltage_and_are_published() -> None:
    c = controller(soc=0.3, soc_std=0.3)
    c.measurement.cell_v[:] = np.linspace(3.24, 3.36, N_CELLS)  # 40..60 %
    status = go(c, 1800)
    assert status == 0
    np.testing.assert_allclose(c.soc, np.linspace(0.4, 0.6, N_CELLS), atol=0.02)
    assert (c.soc_std < 0.1).all()
    head = c.command.head[0]
    assert head["state"] == RackState.CONNECTED
    assert (head["soc_min"], head["soc_max"]) == (c.soc.min(), c.soc.max())
    assert head["soc_mean"] == pytest.approx(c.soc.mean(), rel=1e-6)


def test_each_cell_gets_the_temperature_of_its_sensor() -> None:
    c = controller()
    c.measurement.sensor_degc[:] = [10.0, 20.0, 30.0]
    go(c)
    assert c.state.signal_cell_degc.tolist() == [30, 30, 10, 10, 20, 20]
    # a sensor that fails keeps its last value, however it fails
    for value, quality in ((math.nan, 0), (99.0, Quality.OPEN_WIRE)):
        c.measurement.sensor_degc[1], c.measurement.sensor_degc_quality[1] = value, quality
        go(c)
        assert c.state.signal_cell_degc.tolist() == [30, 30, 10, 10, 20, 20]


@pytest.mark.parametrize(
    ("field", "value"),
    [("cell_v", math.nan), ("cell_v_quality", Quality.OPEN_WIRE), ("cell_v_age_s", 5.0), ("cell_v", math.inf)],
)
def test_a_missing_voltage_skips_that_cell_only_and_teaches_it_nothing(field: str, value: float) -> None:
    c = controller(soc=0.5, soc_std=0.05)
    go(c, 100)
    before = c.soc_std.copy()
    getattr(c.measurement, field)[3] = value
    c.measurement.head["current_a"] = 5.0
    for _ in range(4):
        assert go(c) & 0xFF == e.STATUS_VOLTAGE_BAD
    flags = c.state.flags
    assert ((flags & e.SKIPPED) != 0).tolist()[:N_CELLS] == [k == 3 for k in range(N_CELLS)]
    assert c.soc_std[3] > before[3] * (1 - 1e-6)  # rounding; the other cells tell about the shared bias
    assert c.soc_std[3] > c.soc_std[2]
    assert np.isfinite(c.soc).all()
    assert np.isfinite(c.soc_std).all()
    # when it stays away it becomes a fault, which names the cell
    assert go(c, 10) & STATUS_FAULT
    assert (c.command.head["cause"][0], c.command.head["cause_index"][0]) == (row_id(Fault.CELL_VOLTAGE_LOST, 3), 3)
    assert c.command.fault_fatal[Fault.CELL_VOLTAGE_LOST // 32] == 1 << Fault.CELL_VOLTAGE_LOST % 32


def test_a_sample_that_stands_still_corrects_nothing_once_it_is_old() -> None:
    c = controller(soc=0.3, soc_std=0.3)
    go(c)
    for age_s in range(1, 5):
        c.step(Request.CONNECT, 1.0)
        skipped = (c.state.flags[:N_CELLS] & e.SKIPPED) != 0
        assert skipped.all() == (age_s > 2), age_s  # max_age_s


def test_a_bad_current_is_reported() -> None:
    c = controller()
    go(c)
    c.measurement.head["current_a"] = math.nan
    assert go(c) & 0xFF == e.STATUS_CURRENT_BAD
    c.measurement.head["current_a"], c.measurement.head["current_a_age_s"] = 1.0, 3.0
    assert go(c) & 0xFF == e.STATUS_CURRENT_BAD
    assert np.isfinite(c.soc).all()


def test_a_parallel_cell_carries_its_share_of_the_current() -> None:
    """10 A through one cell of 10 Ah, 20 A through two in parallel: the same cell, the same estimate."""
    one, two = controller(1), controller(2)
    for c, current_a in ((one, 10.0), (two, 20.0)):
        c.measurement.cell_v_quality[:] = Quality.MISSING  # counting only
        c.measurement.head["current_a"] = current_a
        go(c, 360)
    np.testing.assert_array_equal(one.soc, two.soc)
    assert one.soc[0] == pytest.approx(0.4, abs=1e-3)


def test_the_same_measurements_give_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(3.3, 0.05, (200, N_CELLS)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.02] = np.nan
    currents = rng.normal(0, 5, 200)
    results = []
    for _ in range(2):
        c = controller()
        trace = []
        for row, current_a in zip(rows, currents, strict=True):
            c.measurement.cell_v[:], c.measurement.head["current_a"] = row, current_a
            go(c)
            trace.append(c.command.raw.tobytes() + c.state.raw.tobytes())
        results.append(trace)
    assert results[0] == results[1]


def copied(state: State) -> State:
    copy = State(state.n_cells, state.n_sensors)
    copy.copy_from(state)
    return copy


def test_nothing_of_a_controller_is_outside_its_records() -> None:
    """A copy of the bytes goes on exactly as the original does: what a state store and a replay rely on."""
    c = controller(soc_std=0.2)
    c.measurement.head["current_a"] = 3.0
    go(c, 50)
    copy = Controller(c.config, copied(c.state), Measurement(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS))
    copy.measurement.copy_from(c.measurement)
    copy.command.copy_from(c.command)
    go(c, 50)
    go(copy, 50)
    assert copy.command.raw.tobytes() == c.command.raw.tobytes()
    assert copy.state.raw.tobytes() == c.state.raw.tobytes()


# ----------------------------------------------------------------------------------------------------------- many racks


N_RACKS, N_STEPS = 5, 60


def racks_alone() -> tuple[list[Controller], list[list[bytes]], list[int]]:
    """Racks that share a configuration and nothing else, stepped one by one: what each measured, all status bits."""
    rng = np.random.default_rng(7)
    racks = [controller(soc=0.2 + 0.1 * k, soc_std=0.2) for k in range(N_RACKS)]
    seen: list[list[bytes]] = [[] for _ in racks]
    status = [0] * N_STEPS
    for k in range(N_STEPS):
        for c, measured in zip(racks, seen, strict=True):
            c.measurement.cell_v[:] = rng.normal(3.3, 0.05, N_CELLS)
            c.measurement.cell_v[rng.random(N_CELLS) < 0.02] = np.nan
            c.measurement.head["current_a"] = rng.normal(0.0, 5.0)
            status[k] |= go(c)
            measured.append(c.measurement.bytes.tobytes())
    return racks, seen, status


@pytest.mark.parametrize(
    "parts",
    [[(0, 5)], [(3, 5), (0, 3)], [(k, k + 1) for k in (2, 0, 4, 1, 3)], [(0, 2), (2, 2), (2, 5)]],
    ids=["at once", "two parts, last first", "each alone, in any order", "an empty part"],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_many_racks_are_each_as_if_alone(parts: list[tuple[int, int]], threads: int) -> None:
    racks, seen, status = racks_alone()
    fresh = [controller(soc=0.2 + 0.1 * k, soc_std=0.2) for k in range(N_RACKS)]
    states = np.stack([c.state.bytes for c in fresh])
    commands = np.stack([c.command.bytes for c in fresh])
    measurements = np.zeros((N_RACKS, fresh[0].measurement.bytes.size), np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        for k in range(N_STEPS):
            measurements[:] = [np.frombuffer(measured[k], np.uint8) for measured in seen]
            run = step_racks.bind(fresh[0].config.bytes, states, measurements, commands)
            done = [pool.submit(run, int(Request.CONNECT), 1.0, *part) for part in parts]
            together = 0
            for part in done:
                together |= part.result()
            assert together == status[k]
    for k, c in enumerate(racks):
        assert states[k].tobytes() == c.state.bytes.tobytes()
        assert commands[k].tobytes() == c.command.bytes.tobytes()
    assert any(s & 0xFF for s in status)


def test_racks_outside_the_range_are_left_alone() -> None:
    c = controller()
    states, commands = np.stack([c.state.bytes] * 3), np.stack([c.command.bytes] * 3)
    measurements = np.stack([c.measurement.bytes] * 3)
    step_racks(c.config.bytes, states, measurements, commands, int(Request.CONNECT), 1.0, 1, 2)
    for k in (0, 2):
        np.testing.assert_array_equal(states[k], c.state.bytes)
        np.testing.assert_array_equal(commands[k], c.command.bytes)
    status = step(c.config.bytes, c.state.bytes, c.measurement.bytes, c.command.bytes, int(Request.CONNECT), 1.0)
    assert status == 0
    np.testing.assert_array_equal(states[1], c.state.bytes)
    np.testing.assert_array_equal(commands[1], c.command.bytes)
