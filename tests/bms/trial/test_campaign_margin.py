"""How near sound racks come to warnings, against values made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core.faults import N_FAULTS, Fault, Reaction, Row
from bms.trial.campaign_margin import COMPARED, held, margins, nearest, told
from hal.contract import Severity

HEAT, SAG, SPREAD = Fault.HEAT_RESIDUAL, Fault.CELL_SAG, Fault.VOLTAGE_SPREAD


def row(fault: Fault, severity: Severity, threshold: float, set_s: float) -> Row:
    return Row(fault, severity, threshold, threshold / 2, set_s, 1.0, Reaction.NONE)


ROWS = (
    row(HEAT, Severity.INFO, 1.0, 0.0),
    row(HEAT, Severity.WARNING, 25.0, 3.0),
    row(SAG, Severity.WARNING, 0.02, 0.0),
    row(SPREAD, Severity.WARNING, 0.1, 0.0),
)


def log_of(heat: list[float], sag: list[float]) -> Any:
    value = np.full((len(heat), N_FAULTS), 9.0, np.float32)
    value[:, HEAT], value[:, SAG] = heat, sag
    return SimpleNamespace(value=value)


@given(st.lists(st.floats(0, 100) | st.just(float("nan")), max_size=30), st.integers(1, 12))
def test_held_is_the_largest_of_the_smallest_of_each_window(values: list[float], steps: int) -> None:
    known = [0.0 if v != v else v for v in values]
    windows = [min(known[k : k + steps]) for k in range(len(known) - steps + 1)]
    assert held(np.array(values, np.float64), steps) == max(windows, default=0.0)


def test_what_held_for_the_rows_time_counts() -> None:
    log = log_of([0, 25, 5, 10, 15, 20, 0], [0, 0, 0.005, 0, 0, 0, 0.1])
    assert margins(log, ROWS, 6, 1.0) == pytest.approx({"heat_residual": 0.4, "cell_sag": 0.25})
    assert list(margins(log, ROWS, 7, 1.0)) == ["cell_sag", "heat_residual"]  # the last step is sound, too
    assert margins(log, ROWS, 7, 1.5)["heat_residual"] == pytest.approx(0.6)  # two steps
    assert margins(log, ROWS, 2, 1.0) == {}


def test_what_is_not_compared_or_hardly_there_is_left_out() -> None:
    assert SPREAD not in COMPARED
    assert margins(log_of([1.2] * 5, [0.0011] * 5), ROWS, 5, 1.0) == pytest.approx({"cell_sag": 0.055})


def test_of_each_fault_the_nearest_sample() -> None:
    texts = (("a", told({"heat_residual": 0.84, "cell_sag": 0.2})), ("b", "cell_sag 0.300"), ("c", ""), ("d", None))
    assert texts[0][1] == "heat_residual 0.840, cell_sag 0.200"
    assert nearest(texts) == [
        {"fault": "heat_residual", "share": 0.84, "id": "a"},
        {"fault": "cell_sag", "share": 0.3, "id": "b"},
    ]
    assert nearest([]) == []
