"""The covariance over months of steps in float32: it stays symmetric by form, positive, and of a sensible size."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from bms.cells import CellParameters
from bms.core import estimator as e
from bms.core.estimator_setup import estimator_config, estimator_state

f4 = np.float32
DAY = 86400


@njit
def _live(config, state, plant, rng, n_steps, checks):  # type: ignore[no-untyped-def]
    """A cell's life at 1 s: charge, discharge and rests at random, gaps in voltage and current, a sensor with a bias.

    `plant` is a second filter that is never corrected and knows the true current: its model voltage is the measured one.
    Every hour one row of `checks`: smallest D, largest and smallest deviation so far, largest error over deviation.
    """
    volt, none = np.zeros(1, np.float32), np.full(1, np.nan, np.float32)
    good, degc = np.zeros(1, np.uint8), np.full(1, 25.0, np.float32)
    current, left, gap = 0.0, 0, 0
    smallest, low, high, sigma = 1e9, 1e9, 0.0, 0.0
    for k in range(n_steps):
        left -= 1
        if left <= 0:
            left = rng.integers(20, 3000)
            soc = plant.x[6, 0]
            current = 0.0 if rng.random() < 0.3 else rng.normal((soc - 0.55) * 4.0, 0.8)
        if soc_of(plant) < 0.1:
            current = min(current, -0.5)
        if soc_of(plant) > 0.97:
            current = max(current, 0.5)
        e.estimator_step(config, plant, none, good, degc, np.float32(current), np.uint8(0), np.float32(1.0))
        gap -= 1
        if gap < -40000:
            gap = rng.integers(1, 4000)
        volt[0] = plant.out[2, 0] + rng.normal(0.0, 0.002)
        if gap > 0:
            volt[0] = np.nan
        degc[0] = 25.0 + 12.0 * np.sin(2.0 * np.pi * k / 86400.0)
        measured = np.float32(current + 0.01)
        e.estimator_step(
            config, state, volt, good, degc, measured, np.uint8(2 if k % 9973 == 0 else 0), np.float32(1.0)
        )
        for j in range(e.NX):
            smallest = min(smallest, state.p[j, 0])
        low, high = min(low, state.out[1, 0]), max(high, state.out[1, 0])
        sigma = max(sigma, abs(state.x[6, 0] - plant.x[6, 0]) / state.out[1, 0])
        if (k + 1) % 3600 == 0:
            row = checks[(k + 1) // 3600 - 1]
            row[0], row[1], row[2], row[3] = smallest, low, high, sigma


@njit
def soc_of(state):  # type: ignore[no-untyped-def]
    return state.x[6, 0]


def covariance(state: e.EstimatorState, cell: int = 0) -> np.ndarray:
    """U D U^T in float64 from the stored factors."""
    u = np.eye(e.NX)
    for j in range(e.NX):
        for k in range(j):
            u[k, j] = state.p[e.NX + j * (j - 1) // 2 + k, cell]
    return u @ np.diag(state.p[: e.NX, cell].astype(float)) @ u.T


@pytest.fixture(scope="module")
def three_months(plain_cell: CellParameters) -> tuple[e.EstimatorState, np.ndarray]:
    days = 90
    config = estimator_config(plain_cell)
    state, plant = estimator_state(config, 1, 0.6, 0.15), estimator_state(config, 1, 0.7, 0.1)
    checks = np.zeros((24 * days, 4))
    _live(config, state, plant, np.random.default_rng(1), days * DAY, checks)
    return state, checks


def test_the_factors_stay_positive_and_finite(three_months: tuple[e.EstimatorState, np.ndarray]) -> None:
    state, checks = three_months
    assert np.all(np.isfinite(state.p))
    assert np.all(np.isfinite(state.s))
    assert np.all(np.isfinite(state.x))
    assert checks[-1, 0] > 0.0
    assert state.shared["bias_var"][0] > 0


def test_the_covariance_is_positive_definite_after_months(three_months: tuple[e.EstimatorState, np.ndarray]) -> None:
    p = covariance(three_months[0])
    scale = 1.0 / np.sqrt(np.diag(p))
    correlation = p * scale[:, None] * scale[None, :]
    assert np.linalg.eigvalsh(correlation)[0] > 1e-7
    assert np.all(np.abs(correlation) <= 1 + 1e-6)


def test_the_deviation_keeps_a_sensible_size(three_months: tuple[e.EstimatorState, np.ndarray]) -> None:
    _, checks = three_months
    assert checks[-1, 1] >= 0.001
    assert checks[-1, 2] < 0.3
    assert checks[-1, 3] < 4.0, "the truth never leaves four deviations in three months"


def test_single_and_double_precision_agree_after_a_day(plain_cell: CellParameters) -> None:
    """The same kernel on float64 arrays, fed the same: what float32 loses is far below the deviation."""
    config = estimator_config(plain_cell)
    single = estimator_state(config, 1, 0.6, 0.15)
    double_config = e.EstimatorConfig(config.scalars, config.maps.astype(float), config.rows.astype(float))
    double = e.EstimatorState(
        *(
            a.astype(float) if name in ("x", "p", "s", "work") else a.copy()
            for name, a in zip(single._fields, single, strict=True)
        )
    )
    rng = np.random.default_rng(2)
    volt, good, degc = np.zeros(1, np.float32), np.zeros(1, np.uint8), np.full(1, 25.0, np.float32)
    for k in range(DAY // 2):
        ampere = f4(0.0 if (k // 700) % 3 == 0 else 1.2 * np.sin(k / 300.0) + 0.05)
        volt[0] = 3.28 - 0.04 * ampere + rng.normal(0, 0.002)
        for c, s in ((config, single), (double_config, double)):
            e.estimator_step(c, s, volt, good, degc, ampere, np.uint8(0), f4(1.0))
    assert abs(float(single.x[e.Z, 0] - double.x[e.Z, 0])) < 0.01 * float(double.out[e.SOC_STD, 0])
    assert float(single.out[e.SOC_STD, 0]) == pytest.approx(float(double.out[e.SOC_STD, 0]), rel=1e-2)
    p, q = covariance(single), covariance(double)
    scale = np.sqrt(np.outer(np.diag(q), np.diag(q)))
    assert np.max(np.abs(p - q) / scale) < 0.02
