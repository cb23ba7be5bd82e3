"""The covariance over months of steps in float32: it stays positive definite, and of a sensible size.

Only one triangle of it exists, so that it cannot become unsymmetric; that it stays positive is what rounding could take.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numba import njit

from bms.cells import CellParameters
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.estimator_setup import cell_rows, estimator_config, estimator_state
from hal.contract import LANES

f4 = np.float32
DAY = 86400
P = np.array([[e.p_row(i, j) for j in range(e.NX)] for i in range(e.NX)])
VARIANCES = tuple(e.p_row(j, j) * LANES for j in range(e.NX))  # of the first cell, in the blocks
SOC_AT, STD_AT, MODEL_AT = e.Z * LANES, e.SOC_STD * LANES, e.MODEL_V * LANES


@njit
def _live(config, state, plant, rng, n_steps, checks):  # type: ignore[no-untyped-def]
    """A cell's life at 1 s: charge, discharge and rests at random, gaps in voltage and current, a sensor with a bias.

    `plant` is a second filter that is never corrected and knows the true current: its model voltage is the measured one.
    Every hour one row of `checks`: smallest variance, largest and smallest deviation so far, largest error over deviation.
    """
    volt, none = np.zeros(1, np.float32), np.full(1, np.nan, np.float32)
    good, degc = np.zeros(1, np.uint8), np.full(1, 25.0, np.float32)
    current, left, gap = 0.0, 0, 0
    smallest, low, high, sigma = 1e9, 1e9, 0.0, 0.0
    for k in range(n_steps):
        left -= 1
        soc = plant.blocks[SOC_AT]
        if left <= 0:
            left = rng.integers(20, 3000)
            current = 0.0 if rng.random() < 0.3 else rng.normal((soc - 0.55) * 4.0, 0.8)
        if soc < 0.1:
            current = min(current, -0.5)
        if soc > 0.97:
            current = max(current, 0.5)
        estimator_step(config, plant, none, good, degc, np.float32(current), np.uint8(0), np.float32(1.0))
        gap -= 1
        if gap < -40000:
            gap = rng.integers(1, 4000)
        volt[0] = plant.out[MODEL_AT] + rng.normal(0.0, 0.002)
        if gap > 0:
            volt[0] = np.nan
        degc[0] = 25.0 + 12.0 * np.sin(2.0 * np.pi * k / 86400.0)
        measured = np.float32(current + 0.01)
        estimator_step(config, state, volt, good, degc, measured, np.uint8(2 if k % 9973 == 0 else 0), np.float32(1.0))
        for at in VARIANCES:
            smallest = min(smallest, state.blocks[at])
        std = state.out[STD_AT]
        low, high = min(low, std), max(high, std)
        sigma = max(sigma, abs(state.blocks[SOC_AT] - plant.blocks[SOC_AT]) / std)
        if (k + 1) % 3600 == 0:
            row = checks[(k + 1) // 3600 - 1]
            row[0], row[1], row[2], row[3] = smallest, low, high, sigma


def covariance(state: e.EstimatorState, cell: int = 0) -> np.ndarray:
    """The covariance of one cell, (NX, NX), float64."""
    return cell_rows(state.blocks, cell + 1)[:, cell].astype(np.float64)[P]


def correlation(state: e.EstimatorState, cell: int = 0) -> np.ndarray:
    p = covariance(state, cell)
    scale = 1.0 / np.sqrt(np.diag(p))
    return p * scale[:, None] * scale[None, :]


@pytest.fixture(scope="module")
def three_months(plain_cell: CellParameters) -> tuple[e.EstimatorState, np.ndarray]:
    days = 90
    config = estimator_config(plain_cell)
    state, plant = estimator_state(config, 1, 0.6, 0.15), estimator_state(config, 1, 0.7, 0.1)
    checks = np.zeros((24 * days, 4))
    _live(config, state, plant, np.random.default_rng(1), days * DAY, checks)
    return state, checks


def test_the_variances_stay_positive_and_finite(three_months: tuple[e.EstimatorState, np.ndarray]) -> None:
    state, checks = three_months
    assert np.all(np.isfinite(state.blocks))
    assert checks[-1, 0] > 0.0
    assert state.shared["bias_var"][0] > 0


def test_the_covariance_is_positive_definite_after_months(three_months: tuple[e.EstimatorState, np.ndarray]) -> None:
    c = correlation(three_months[0])
    assert np.linalg.eigvalsh(c)[0] > 1e-7
    assert np.all(np.abs(c) <= 1 + 1e-6)


def test_the_deviation_keeps_a_sensible_size(three_months: tuple[e.EstimatorState, np.ndarray]) -> None:
    _, checks = three_months
    assert checks[-1, 1] >= 0.001
    assert checks[-1, 2] < 0.3
    assert checks[-1, 3] < 4.0, "the truth never leaves four deviations in three months"


@pytest.mark.parametrize(
    ("slope_v", "tuning", "dt", "n_hours"),
    [
        (20.0, {}, 1.0, 30),
        (20.0, {"model_corr": 1.0}, 0.1, 3),
        (20.0, {"model_corr": 1.0}, 1.0, 30),
        (20.0, {"model_corr": 1.0}, 60.0, 24 * 60),
        (1.7, {"model_corr": 1.0, "r_walk": 0.0, "q_walk": 0.0, "bias_walk_c": 0.0}, 1.0, 30),
    ],
)
def test_voltages_that_are_too_good_to_be_true_leave_the_covariance_positive(
    make_plain_cell: Callable[..., CellParameters], slope_v: float, tuning: dict[str, float], dt: float, n_hours: int
) -> None:
    """0.1 mV on a steep curve, at rest: the voltage says the same again and again, about one combination of states."""
    curve = np.tile(3.3 + slope_v * np.linspace(-0.5, 0.5, 14), (3, 1))
    cell = make_plain_cell(ocv_v=curve, voltage_error_v=np.full(3, 1e-4), knee_error_soc=np.zeros(3))
    config = estimator_config(cell, {"voltage_std": 1e-4, **tuning})
    start, start_std = np.linspace(0.3, 0.7, 16), np.geomspace(0.001, 0.3, 16)
    state = estimator_state(config, 16, start, start_std)
    good, degc, rng = np.zeros(16, np.uint8), np.full(16, 25.0, np.float32), np.random.default_rng(3)
    smallest = 1.0
    steps = [1] * 50 + [round(3600 / dt)] * n_hours  # one by one at first, then look once an hour
    for count in steps:
        for volt in (3.3 + rng.normal(0.0, 1e-5, (count, 16))).astype(np.float32):
            estimator_step(config, state, volt, good, degc, f4(0.0), np.uint8(0), f4(dt))
        smallest = min(smallest, *(float(np.linalg.eigvalsh(correlation(state, cell))[0]) for cell in range(16)))
    assert smallest > 1e-6
    off = 0.005 + 0.03 / slope_v  # hysteresis is not known
    admitted = np.abs(start - 0.5) < 20.0 * start_std  # what is said at rest is said once: others take days
    assert np.count_nonzero(admitted) >= 10
    np.testing.assert_allclose(state.out[e.SOC * LANES : (e.SOC + 1) * LANES][admitted], 0.5, atol=off)


def test_single_and_double_precision_agree_after_a_day(plain_cell: CellParameters) -> None:
    """The same kernel on float64 arrays, fed the same: what float32 loses is far below the deviation."""
    config = estimator_config(plain_cell)
    single = estimator_state(config, 1, 0.6, 0.15)
    double_config = config._replace(nodes=config.nodes.astype(float))
    double = e.EstimatorState(
        *(
            a.astype(float) if name in ("blocks", "work") else a.copy()
            for name, a in zip(single._fields, single, strict=True)
        )
    )
    rng = np.random.default_rng(2)
    volt, good, degc = np.zeros(1, np.float32), np.zeros(1, np.uint8), np.full(1, 25.0, np.float32)
    for k in range(DAY // 2):
        ampere = f4(0.0 if (k // 700) % 3 == 0 else 1.2 * np.sin(k / 300.0) + 0.05)
        volt[0] = 3.28 - 0.04 * ampere + rng.normal(0, 0.002)
        for c, s in ((config, single), (double_config, double)):
            estimator_step(c, s, volt, good, degc, ampere, np.uint8(0), f4(1.0))
    deviation = float(double.out[STD_AT])
    assert abs(float(single.blocks[SOC_AT] - double.blocks[SOC_AT])) < 0.01 * deviation
    assert float(single.out[STD_AT]) == pytest.approx(deviation, rel=1e-2)
    p, q = covariance(single), covariance(double)
    scale = np.sqrt(np.outer(np.diag(q), np.diag(q)))
    assert np.max(np.abs(p - q) / scale) < 0.02
