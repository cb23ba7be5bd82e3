"""Derating: shares along a polyline, the distance to its end, and the extremes of many cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core.derating import EXTREMES_WORK, POINTS, extremes, place_of, share_at, spare_at

f4 = np.float32


def test_polylines_are_linear_between_their_points() -> None:
    line = np.zeros((4, 2, POINTS), np.float32)
    line[1, 0] = [-20.0, 0.0, 10.0, 40.0, 50.0, 50.0, 50.0, 50.0]
    line[1, 1] = [0.0, 0.2, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    for x in np.linspace(-30.0, 60.0, 181):
        want = np.interp(x, line[1, 0], line[1, 1])
        assert share_at(line.ravel(), 1, f4(x)) == pytest.approx(want, abs=1e-6)
    assert share_at(line.ravel(), 1, f4(np.nan)) == 0.0
    assert spare_at(line.ravel(), 1, f4(-15.0), True) == 5.0
    assert spare_at(line.ravel(), 1, f4(47.0), False) == 3.0
    line[1, 1, 4:] = 0.5  # never gets to 0: from its end
    assert spare_at(line.ravel(), 1, f4(47.0), False) == 3.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=70))
def test_the_extremes_are_those_of_all_cells(values: list[float]) -> None:
    soc = np.array([*values, -5.0, 7.0], np.float32)  # what stands behind the cells does not count
    n = len(values)
    work = np.zeros(EXTREMES_WORK, np.float32)
    low, high, wrong_at = extremes(work, soc, n)
    assert (low, high, wrong_at) == (soc[:n].min(), soc[:n].max(), -1)
    assert place_of(soc, n, high) == int(soc[:n].argmax())
    assert place_of(soc, n, f4(7.0)) == -1
    for bad in (np.nan, np.inf):
        k = n // 2
        soc[k] = bad
        assert extremes(work, soc, n)[2] == k
