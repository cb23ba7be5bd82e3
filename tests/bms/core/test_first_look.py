"""A cell that is shorted before the controller starts: all that is known of it is where it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bms.core import plausibility_model as p
from bms.core import signals_layout as y
from bms.core.estimator_layout import N_SOC
from bms.core.faults import Fault
from bms.core.first_look import ocv, soc_of
from bms.core.jit import f4

SAG = Fault.CELL_SAG
CELL = 13


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
