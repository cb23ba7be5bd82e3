"""A cell that is shorted before the controller starts: all that is known of it is where it stands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import plausibility_model as p
from bms.core import signals_layout as y
from bms.core.estimator_layout import N_DEGC, N_SOC, NODE, OCV
from bms.core.faults import Fault
from bms.core.first_look import lowest_at_start, ocv, soc_of
from bms.core.jit import f4

SAG = Fault.CELL_SAG
CELL = 13
GRID = np.linspace(0.0, 1.0, N_SOC)


def started(make_signals: Any, low_v: float, cells: Any = (CELL,), seconds: int = 5, **head: float) -> Any:
    """A rack that is seen for the first time at rest, with `cells` `low_v` below the others; their filters believe it."""
    bench = make_signals()
    bench.head["current_a"] = 0.0
    for name, value in head.items():
        bench.head[name] = value
    bench.m.cell_v[list(cells)] = 3.3 - low_v
    for _ in range(seconds):
        bench.look()
        bench.judge()
    return bench


def expected_v(bench: Any, low_v: float, n_low: int = 1) -> float:
    """How far 3.3 V - `low_v` is below a cell with 10 % less charge than one 30 mV below the mean of 24."""
    row, nodes = int(p.row_of(bench.estimator, f4(25.0))), bench.estimator.nodes
    mean_v = 3.3 - low_v * n_low / 24
    grid = np.arange(N_SOC) / (N_SOC - 1)
    curve = [float(ocv(nodes, row, f4(z))) for z in grid]
    below = max(z for z, v in zip(grid, curve, strict=True) if v < mean_v - 0.03)
    return float(ocv(nodes, row, f4(below - 0.1))) - (3.3 - low_v)


@pytest.mark.parametrize("low_v", [0.2, 0.4])
def test_a_cell_that_stands_far_below_the_others_at_the_start_sags(make_signals: Any, low_v: float) -> None:
    bench = started(make_signals, low_v)
    assert expected_v(bench, low_v) > 0.05
    assert bench.value(SAG) == pytest.approx(expected_v(bench, low_v), abs=2e-3)
    assert bench.where(SAG) == CELL
    # and it is not forgotten when the minute is over
    for _ in range(120):
        bench.look()
        bench.judge()
    assert bench.value(SAG) > 0.8 * expected_v(bench, low_v)


def test_a_cell_with_some_percent_less_charge_is_healthy(make_signals: Any) -> None:
    bench = started(make_signals, 0.05)
    assert expected_v(bench, 0.05) < 0
    assert bench.value(SAG) == 0.0


def test_three_may_be_shorted_and_four_are_a_rack_that_is_not_balanced(make_signals: Any) -> None:
    bench = started(make_signals, 0.3, (3, 9, CELL))
    assert bench.value(SAG) == pytest.approx(expected_v(bench, 0.3, 3), abs=2e-3)
    assert started(make_signals, 0.3, (3, 9, CELL, 20)).value(SAG) == 0.0


def test_where_a_cell_lies_as_far_above_the_rack_is_not_balanced(make_signals: Any) -> None:
    bench = make_signals()
    bench.head["current_a"] = 0.0
    bench.m.cell_v[[CELL, 2]] = 3.0, 3.6
    bench.look()
    bench.judge()
    assert bench.value(SAG) == 0.0


def test_while_charge_flows_and_after_it_did_a_cell_may_lie_anywhere(make_signals: Any) -> None:
    bench = started(make_signals, 0.3, current_a=20.0, seconds=1)
    assert bench.value(SAG) == 0.0
    bench.head["current_a"] = 0.0
    bench.look()
    bench.judge()
    assert bench.value(SAG) == 0.0
    assert bench.state.number[y.START_S] == 60.0


def test_a_cell_that_gets_there_after_the_first_minute_is_not_judged_by_its_place(make_signals: Any) -> None:
    bench = started(make_signals, 0.0, seconds=60)
    assert bench.state.number[y.START_S] == 60.0
    bench.m.cell_v[CELL] = 3.0
    bench.look()
    bench.judge()
    assert bench.value(SAG) == 0.0


def test_of_an_empty_rack_nothing_is_said(make_signals: Any) -> None:
    bench = make_signals()
    bench.head["current_a"] = 0.0
    bench.m.cell_v[:] = float(ocv(bench.estimator.nodes, int(p.row_of(bench.estimator, f4(25.0))), f4(0.05)))
    bench.m.cell_v[CELL] -= 0.5
    bench.look()
    bench.judge()
    assert bench.value(SAG) == 0.0


def test_the_soc_of_a_voltage_is_that_of_the_node_below(make_signals: Any) -> None:
    bench = make_signals()
    row, nodes = int(p.row_of(bench.estimator, f4(25.0))), bench.estimator.nodes
    step = 1 / (N_SOC - 1)
    for soc in (0.05, 0.3, 0.95):
        volt = f4(float(ocv(nodes, row, f4(soc))) + 1e-4)
        assert soc - 2 * step < soc_of(nodes, row, volt) <= soc + 1e-6
    assert soc_of(nodes, row, f4(0.0)) == 0.0
    assert soc_of(nodes, row, f4(9.0)) == 1.0


def curve(bench: Any, row: int) -> Any:
    """The open-circuit voltages of one temperature, float64."""
    return np.asarray(bench.estimator.nodes, float)[row : row + N_SOC * NODE].reshape(N_SOC, NODE)[:, OCV]


@pytest.mark.parametrize("degree", [0, 9, N_DEGC - 1])
def test_the_curve_is_linear_between_its_nodes_and_ends_where_they_do(make_signals: Any, degree: int) -> None:
    bench = make_signals()
    row = degree * N_SOC * NODE
    for soc in (*np.linspace(0.0, 1.0, 1001), -0.5, -1e-3, 1.0 - 1e-6, 1.0 + 1e-3, 1.5, 1e9):
        expected = np.interp(soc, GRID, curve(bench, row))
        assert float(ocv(bench.estimator.nodes, row, f4(soc))) == pytest.approx(expected, abs=2e-6), soc
    assert ocv(bench.estimator.nodes, row, f4(np.nan)) == f4(curve(bench, row)[0])


def test_the_soc_of_the_voltage_of_a_node_is_that_of_the_node_below(make_signals: Any) -> None:
    bench = make_signals()
    row, nodes = int(p.row_of(bench.estimator, f4(25.0))), bench.estimator.nodes
    for node in (1, 2, 60, N_SOC - 1):
        volt = f4(curve(bench, row)[node])
        assert soc_of(nodes, row, volt) == pytest.approx(GRID[node - 1], abs=1e-6)
        assert soc_of(nodes, row, np.nextafter(volt, f4(9.0))) == pytest.approx(GRID[node], abs=1e-6)


class Start:
    """A rack at rest that has just been seen for the first time, and what its cells may have at least."""

    def __init__(self, bench: Any, mean_v: float = 3.3) -> None:
        self.bench, self.mean_v = bench, f4(mean_v)
        self.state = bench.state
        self.state.cell_use[:] = y.USABLE
        self.state.cell_v[:] = mean_v
        self.state.number[y.HELD_A] = 0.0
        self.row = int(p.row_of(bench.estimator, f4(25.0)))

    def place(self, volt: float, *cells: int) -> None:
        self.state.cell_v[list(cells)] = volt

    @property
    def lowest_v(self) -> float:
        args = (self.bench.config, self.state, self.bench.estimator.nodes, self.row, self.mean_v, f4(0.0))
        return float(lowest_at_start(*args))


@pytest.fixture
def start(make_signals: Any) -> Start:
    return Start(make_signals())


def test_the_lowest_is_a_tenth_of_the_charge_and_30_mv_below_the_mean(make_signals: Any) -> None:
    for mean_v in np.linspace(3.2, 3.5, 61):
        start = Start(make_signals(), mean_v)
        volts = curve(start.bench, start.row)
        below = max(z for z, v in zip(GRID, volts, strict=True) if v < mean_v - 0.03)
        expected_v = np.interp(below - 0.1, GRID, volts) if below > 0.1 else -math.inf
        assert start.lowest_v == pytest.approx(expected_v, abs=1e-4), mean_v


def test_three_lower_than_that_are_shorted_and_four_are_not(start: Start) -> None:
    lowest_v = start.lowest_v
    lower_v = float(np.nextafter(f4(lowest_v), f4(0)))
    start.place(lower_v, 0, 9, 23)
    start.place(lowest_v, 4)
    assert start.lowest_v == lowest_v
    start.place(lower_v, 4)
    assert start.lowest_v == -math.inf
    start.state.cell_use[4] = 0  # it is not measured
    assert start.lowest_v == lowest_v


def test_one_as_far_above_is_enough(start: Start) -> None:
    """30 mV above what a tenth more charge than 30 mV above the mean is."""
    volts = curve(start.bench, start.row)
    below = max(z for z, v in zip(GRID, volts, strict=True) if v < float(start.mean_v) + 0.03)
    highest_v = ocv(start.bench.estimator.nodes, start.row, f4(below) + f4(0.1)) + f4(0.03)
    assert highest_v == pytest.approx(np.interp(below + 0.1, GRID, volts) + 0.03, abs=2e-6)
    start.place(highest_v, 5)
    assert start.lowest_v > 0.0
    start.place(float(np.nextafter(highest_v, f4(9))), 5)
    assert start.lowest_v == -math.inf
    start.state.cell_use[5] = 0
    assert start.lowest_v > 0.0


def test_a_rack_that_holds_a_tenth_of_its_charge_is_empty(make_signals: Any) -> None:
    """At the first nodes the curve says nothing of a cell that is lower."""
    bench = make_signals()
    volts = curve(bench, int(p.row_of(bench.estimator, f4(25.0))))
    for node, empty in ((20, True), (21, False)):
        assert (Start(bench, volts[node] + 0.5e-3 + 0.03).lowest_v == -math.inf) == empty


@pytest.mark.parametrize(("off", "moved"), [(-1, False), (0, True), (1, True)])
def test_a_current_of_the_largest_at_rest_moves_charge(start: Start, off: int, moved: bool) -> None:
    rest_a = f4(start.bench.config.number[y.REST_A])
    for sign in (f4(1), f4(-1)):
        start.state.number[y.START_S] = 0.0
        start.state.number[y.HELD_A] = sign * (np.nextafter(rest_a, f4(off * np.inf)) if off else rest_a)
        assert (start.lowest_v == -math.inf) == moved
