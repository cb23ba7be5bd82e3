"""The fit finds the parameters that made the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.lab import fit as f

Columns = dict[str, np.ndarray]


def as_test(d: Columns, name: str = "made", degc: float = 25.0) -> f.Dynamic:
    return f.Dynamic(name, d["time_s"], d["current_a"], d["voltage_v"], degc, d["soc_true"], d["temperature_degc"])


@pytest.fixture(scope="module")
def cell(make_plain_cell: Callable[..., CellParameters]) -> CellParameters:
    """The plain cell with a hysteresis rate and a bend that the fit tries."""
    return make_plain_cell(gamma=np.full(3, 120.0), bend_a=0.4)


@pytest.fixture(scope="module")
def base_v(cell: CellParameters) -> np.ndarray:
    """What a slow test would tell: the curve, but 4 mV off."""
    return np.interp(f.SOC_OCV, cell.soc, cell.ocv_v[1]) + 0.004


@pytest.fixture(scope="module")
def found(cell: CellParameters, dynamic: Callable[..., Columns], base_v: np.ndarray) -> f.Fit:
    tests = [as_test(dynamic(cell, seed=s), f"seed {s}") for s in (0, 1)]
    return f.fit_temperature(tests, base_v, hysteresis_max_v=np.full(f.SOC_OCV.size, 0.03), bend_c=0.2)


def test_the_model_describes_the_data(found: f.Fit) -> None:
    assert len(found.residual_v) == 2
    for r in found.residual_v:
        assert np.sqrt(np.mean(r**2)) < 5e-4


def test_the_curve_comes_back(found: f.Fit, cell: CellParameters) -> None:
    """Although the slow test was 4 mV off (which the ends, seen for seconds only, still show)."""
    inside = (f.SOC_OCV > 0.15) & (f.SOC_OCV < 0.95)
    error = found.ocv_v - np.interp(f.SOC_OCV, cell.soc, cell.ocv_v[1])
    assert np.max(np.abs(error[inside])) < 4e-3
    assert np.sqrt(np.mean(error[inside] ** 2)) < 3e-3


def test_the_curve_rises(found: f.Fit) -> None:
    assert np.all(np.diff(found.ocv_v) > 0)


def test_the_resistances_come_back(found: f.Fit, cell: CellParameters) -> None:
    at = np.searchsorted(f.SOC_R, [0.2, 0.5, 0.8])
    expected = np.stack([np.interp(f.SOC_R, cell.soc_r, t[1]) for t in (cell.r0_ohm, cell.rct_ohm, *cell.r_ohm)])
    for k in at:
        # the split between R0 and a charge transfer that hardly bends is loose, their sum is not
        assert found.r_ohm[:2, k].sum() == pytest.approx(expected[:2, k].sum(), rel=0.1)
        assert found.r_ohm[2:, k].sum() == pytest.approx(expected[2:, k].sum(), rel=0.15)
    assert found.r_ohm[2].mean() == pytest.approx(expected[2].mean(), rel=0.15)
    assert np.all(found.r_ohm >= 0)


def test_hysteresis_comes_back(found: f.Fit) -> None:
    assert found.gamma == 120.0
    middle = (f.SOC_M > 0.05) & (f.SOC_M < 0.95)
    np.testing.assert_allclose(found.m_v[middle], 0.012, atol=0.003)
    assert found.m0_v == pytest.approx(1e-3, abs=5e-4)


def test_capacity_and_efficiency_come_back(found: f.Fit) -> None:
    assert found.capacity_ah == pytest.approx(2.0, rel=1e-4)
    assert found.coulombic_efficiency == pytest.approx(0.995, abs=1e-3)


def test_no_hysteresis_beyond_the_gap_of_the_slow_test(
    cell: CellParameters, dynamic: Callable[..., Columns], base_v: np.ndarray
) -> None:
    limited = f.fit_temperature(
        [as_test(dynamic(cell))], base_v, hysteresis_max_v=np.full(f.SOC_OCV.size, 0.004), bend_c=0.2
    )
    assert np.max(limited.m_v) <= 0.004 + 1e-6


def test_the_same_data_give_the_same_bits(
    cell: CellParameters, dynamic: Callable[..., Columns], base_v: np.ndarray
) -> None:
    a, b = (f.fit_temperature([as_test(dynamic(cell))], base_v, gammas=(120.0,)) for _ in range(2))
    assert a.ocv_v.tobytes() == b.ocv_v.tobytes()
    assert a.r_ohm.tobytes() == b.r_ohm.tobytes()


def counted(current_a: np.ndarray, capacity_ah: float, eta: float) -> f.Dynamic:
    mid = np.r_[0.0, 0.5 * (current_a[1:] + current_a[:-1])] / 3600.0 / capacity_ah
    soc = 0.9 - np.cumsum(np.where(mid > 0, mid, eta * mid))
    n = np.arange(float(current_a.size))
    return f.Dynamic("x", n, current_a, np.zeros(n.size), 25.0, soc, np.full(n.size, 25.0))


def test_capacity_from_counting_alone() -> None:
    current = np.repeat(np.tile([2.0, 0.0, -1.0, 3.0], 20), 30)
    capacity, eta = f.capacity_and_efficiency([counted(current, 5.0, 0.97)])
    assert capacity == pytest.approx(5.0, rel=2e-3)
    assert eta == pytest.approx(0.97, abs=5e-3)


def test_without_charging_the_efficiency_is_one() -> None:
    assert f.capacity_and_efficiency([counted(np.full(2000, 1.0), 5.0, 0.9)]) == pytest.approx((5.0, 1.0))


def test_an_efficiency_beyond_belief_is_taken_as_one() -> None:
    current = np.repeat(np.tile([2.0, -1.0], 20), 30)
    capacity, eta = f.capacity_and_efficiency([counted(current, 5.0, 1.2)])
    assert eta == 1.0
    assert 3.0 < capacity < 7.0


def test_hat_interpolates() -> None:
    nodes, x = np.array([0.0, 0.3, 1.0]), np.array([-1.0, 0.0, 0.1, 0.3, 0.65, 1.0, 2.0])
    values = np.array([2.0, 5.0, -1.0])
    basis = f.hat(x, nodes)
    np.testing.assert_allclose(basis @ values, np.interp(x, nodes, values), atol=1e-12)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0)


def test_resistance_over_temperature() -> None:
    """0.30 eV is a factor of 1.48 from 25 to 15 degC, as measured on LFP cells (103 / 73 = 1.41; Droese et al. 2025)."""
    assert float(f.arrhenius(25.0, 25.0)) == 1.0
    assert float(f.arrhenius(15.0, 25.0)) == pytest.approx(1.48, abs=0.05)
    assert float(f.arrhenius(25.0, 15.0)) == pytest.approx(1 / float(f.arrhenius(15.0, 25.0)))


def test_states_are_those_of_the_kernel(cell: CellParameters, dynamic: Callable[..., Columns]) -> None:
    from bms.core import estimator_layout as e
    from bms.core.estimator import estimator_step
    from bms.core.estimator_setup import cell_rows, estimator_config, estimator_state, rows_view

    d = dynamic(cell)
    x, h, s = f.states(as_test(d), cell.tau_s, 120.0, 2.0)
    config = estimator_config(cell)
    state = estimator_state(config, 1, 1.0, 0.01)
    rows_view(state.blocks)[e.H] = 1.0
    nan, good, degc = np.full(1, np.nan, np.float32), np.zeros(1, np.uint8), np.full(1, 25.0, np.float32)
    for k in range(1200):
        estimator_step(config, state, nan, good, degc, np.float32(d["current_a"][k]), np.uint8(0), np.float32(1.0))
    x_kernel = cell_rows(state.blocks, 1)[: e.NX, 0]
    z = float(x_kernel[e.Z])
    r = np.array([np.interp(z, cell.soc_r, t[1]) for t in cell.r_ohm])
    np.testing.assert_allclose(x_kernel[1 : e.NRC], (r * x[1199])[1:], rtol=0.05, atol=2e-4)
    assert float(x_kernel[e.H]) == pytest.approx(h[1199], abs=0.02)  # eta counts for charge there
    assert float(state.shared["sign"][0]) == s[1199]
