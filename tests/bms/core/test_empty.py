"""Below which voltage a cell may be empty, and of which rack."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core.empty import empty_v
from bms.core.first_look import ocv
from bms.core.signals_layout import SPREAD_V_LOW, USABLE

f4 = np.float32
N, ROW = 8, 0


def found(
    make_signals: Any,
    low: int,
    mean_v: float = 2.9,
    went: float = -0.1,
    drop_v: float = 0.0,
    lost: int = 0,
    cell_v: float = 2.9,
) -> tuple[float, float]:
    """(`empty_v` where `low` of eight cells are at `cell_v`, the rest at 3.3, the first `lost` not usable; OCV)."""
    bench = make_signals(N, 4)
    bench.state.cell_v[:] = np.where(np.arange(N) < low, cell_v, 3.3)
    bench.state.cell_use[:] = np.where(np.arange(N) < lost, 0, USABLE)
    assert 3.0 < float(bench.config.number[SPREAD_V_LOW]) < 3.3
    nodes = bench.estimator.nodes
    volt = empty_v(bench.config, bench.state, nodes, ROW, f4(mean_v), f4(went), f4(drop_v))
    return float(volt), float(ocv(nodes, ROW, f4(0.05)))


@pytest.mark.parametrize(
    ("low", "lost", "empty"), [(4, 0, False), (5, 0, True), (5, 2, False), (5, 1, True), (8, 8, False)]
)
def test_most_cells_must_be_low(make_signals: Any, low: int, lost: int, empty: bool) -> None:
    """More than half of those that are usable."""
    volt, end_v = found(make_signals, low, lost=lost)
    assert volt == (end_v if empty else -math.inf)


def test_the_mean_must_be_low_and_the_rack_discharged(make_signals: Any) -> None:
    assert found(make_signals, 8, mean_v=3.3)[0] == -math.inf
    assert found(make_signals, 8, went=0.0)[0] == -math.inf
    assert found(make_signals, 8, went=-1e-6)[0] > 0.0


def test_the_steep_end_begins_below_its_bound(make_signals: Any) -> None:
    """What stands exactly there is not low yet: neither the mean cell nor the others."""
    low_v = float(make_signals(N, 4).config.number[SPREAD_V_LOW])
    below_v = float(np.nextafter(f4(low_v), f4(0)))
    assert found(make_signals, 8, mean_v=low_v, cell_v=below_v)[0] == -math.inf
    assert found(make_signals, 8, mean_v=below_v, cell_v=low_v)[0] == -math.inf
    assert found(make_signals, 8, mean_v=below_v, cell_v=below_v)[0] > 0.0


def test_what_the_current_takes_off_is_no_lack_of_charge(make_signals: Any) -> None:
    volt, end_v = found(make_signals, 8, drop_v=0.1)
    assert volt == pytest.approx(end_v - 0.1)
    assert found(make_signals, 8, drop_v=0.4)[0] == -math.inf
