"""What of an offset of the current sensor a capacity that is not known explains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core.bias_doubt import beyond_doubt

f4 = np.float32
N = 24


class Doubt:
    """A rack through which `mean_a` has flowed in each cell for some minutes."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.std = np.full(N, 0.08, f4)

    def step(self, bias_a: float, mean_a: float, dt_s: float = 1.0, times: int = 1) -> float:
        b = self.bench
        b.state.number[y.MOVED_SOC] = mean_a * b.config.number[y.SAG_TAU_S] * b.estimator.scalars[0].rate
        for _ in range(times):
            beyond_a = beyond_doubt(b.config, b.state, b.estimator, f4(bias_a), self.std, f4(dt_s))
        return float(beyond_a)


@pytest.fixture
def doubt(make_signals: Any) -> Doubt:
    return Doubt(make_signals())


def test_a_rack_at_rest_has_no_doubt(doubt: Doubt) -> None:
    assert doubt.step(5.0, 0.0, times=100) == 5.0
    assert doubt.step(-5.0, 0.0) == 5.0


def test_an_unknown_capacity_explains_its_share_of_the_current_after_hours(doubt: Doubt) -> None:
    """8 % of 50 A; the larger part after an hour."""
    assert doubt.step(10.0, 50.0, times=3600) == pytest.approx(10.0 - 4.0 * (1 - math.exp(-1)), rel=1e-3)
    assert doubt.step(10.0, 50.0, dt_s=10.0, times=3600) == pytest.approx(6.0, rel=1e-3)
    assert doubt.step(3.9, 50.0) == 0.0
    assert doubt.step(-3.9, 50.0) == 0.0


def test_no_capacity_explains_much_nor_anything_of_a_large_offset(doubt: Doubt) -> None:
    """A fortieth of 280 A; from 5.5 % on less, and nothing of 8 %."""
    doubt.step(0.0, 280.0, dt_s=1e6, times=3)
    for bias_a, left_a in ((10.0, 3.0), (15.0, 8.0), (20.0, 17.6), (22.4, 22.4), (40.0, 40.0)):
        assert doubt.step(bias_a, 280.0) == pytest.approx(left_a, rel=2e-3)


def test_it_is_of_the_mean_cell(doubt: Doubt) -> None:
    doubt.std[:] = np.linspace(0.02, 0.06, N)
    assert doubt.step(10.0, 50.0, dt_s=1e6) == pytest.approx(10.0 - 2.0 * 1e6 / 1003600, rel=1e-4)


def test_what_it_was_told_for_goes_within_four_hours(doubt: Doubt) -> None:
    doubt.step(10.0, 50.0, dt_s=1e6, times=3)
    doubt.std[:] = 0.0  # the capacity has been learnt
    assert doubt.step(10.0, 50.0, times=4 * 3600) == pytest.approx(10.0 - 4.0 * math.exp(-1), rel=1e-3)


def test_what_is_no_number_changes_nothing(doubt: Doubt) -> None:
    doubt.step(10.0, 50.0, dt_s=1e6, times=3)
    before = float(doubt.bench.state.number[y.BIAS_DOUBT_A])
    for mean_a in (math.nan, math.inf):
        doubt.step(10.0, mean_a)
        assert doubt.bench.state.number[y.BIAS_DOUBT_A] == before
    assert math.isnan(doubt.step(math.nan, 0.0))
