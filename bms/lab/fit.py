"""Least-squares fit of the cell model to one dynamic test, and how its parameters become tables.

For given time constants and hysteresis rate the model voltage is linear in everything else (see `bms.core.estimator`)::

    v = OCV(z) + M(z) h + M0 s - sum_j R_j(z) x_j - R0(z) i

with the current filtered by each RC pair (x_j) and hysteresis state h computed once, and z known from the reference
SoC. The unknown functions of z are piecewise linear; a bounded linear least-squares problem gives them all at once.
Smoothness enters as extra rows, whose weights count as so many samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import lsq_linear

from bms.lab.trace_kernel import filtered

Array = npt.NDArray[np.float64]

TAU_S = np.array([3.0, 20.0, 120.0, 900.0])
SOC_OCV: Array = np.unique(
    np.round(np.r_[np.linspace(0, 0.2, 41), np.linspace(0.2, 0.9, 71), np.linspace(0.9, 1, 21)], 5)
)
SOC_R: Array = np.unique(np.round(np.r_[np.linspace(0, 0.1, 6), np.linspace(0.1, 0.95, 35), 0.975, 1.0], 5))
SOC_M = np.array([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
ACTIVATION_EV = 0.30  # LFP 0.30, sodium-ion 0.34: 10 s pulse resistance of 18650 cells, Droese et al. 2025
BOLTZMANN_EV = 8.617333e-5
BENDS_C = (0.05, 0.2)  # where the charge-transfer overpotential may bend, in 1/h of the capacity
GAMMAS = (30.0, 120.0)


@dataclass(frozen=True)
class Dynamic:
    """A dynamic test on a uniform or non-uniform time base: arrays of equal length."""

    name: str
    time_s: Array
    current_a: Array
    voltage_v: Array
    degc: float  # of the group that the test belongs to
    soc: Array
    temperature_degc: Array


@dataclass(frozen=True)
class Fit:
    """Parameters found from dynamic tests at one temperature."""

    degc: float
    ocv_v: Array  # at SOC_OCV
    m_v: Array  # at SOC_M
    m0_v: float
    r_ohm: Array  # (2 + 4, n_soc_r): R0, Rct, R1..R4
    bend_a: float
    gamma: float
    capacity_ah: float
    coulombic_efficiency: float
    residual_v: list[Array]  # per test


def arrhenius(degc: Array | float, reference_degc: float) -> Array:
    """How resistances scale from `reference_degc` to `degc`, for temperatures that drift within one test."""
    kelvin = np.asarray(degc, float) + 273.15
    result: Array = np.exp(ACTIVATION_EV / BOLTZMANN_EV * (1.0 / kelvin - 1.0 / (reference_degc + 273.15)))
    return result


def slow_error(tests: list[Dynamic], residual_v: list[Array], low: float = 0.08, high: float = 0.97) -> float:
    """RMS of the model error over a minute, between two SoC (away from the ends), single excursions limited; V."""
    parts = []
    for t, r in zip(tests, residual_v, strict=True):
        mean = np.convolve(r, np.ones(60) / 60.0, "same")
        parts.append(np.abs(mean[(t.soc > max(low, 0.08)) & (t.soc < min(high, 0.97))]))
    e = np.concatenate(parts)
    if e.size == 0:
        return 0.01
    return float(np.sqrt(np.mean(np.square(np.minimum(e, 6.0 * np.median(e) + 1e-4)))))


def hat(x: Array, nodes: Array) -> Any:
    """Piecewise-linear basis functions on `nodes` at `x`, a sparse matrix with two entries a row; constant outside."""
    x = np.clip(x, nodes[0], nodes[-1])
    k = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, nodes.size - 2)
    f = (x - nodes[k]) / (nodes[k + 1] - nodes[k])
    entries, columns = np.stack([1.0 - f, f], axis=1).ravel(), np.stack([k, k + 1], axis=1).ravel()
    return sparse.csr_matrix((entries, columns, 2 * np.arange(x.size + 1)), shape=(x.size, nodes.size))


def _rows_times(matrix: Any, factor: Array) -> Any:
    """The sparse `matrix` with row k multiplied by `factor[k]`."""
    return sparse.csr_matrix(
        (matrix.data * np.repeat(factor, np.diff(matrix.indptr)), matrix.indices, matrix.indptr), shape=matrix.shape
    )


def capacity_and_efficiency(tests: list[Dynamic]) -> tuple[float, float]:
    """Capacity (Ah) and coulombic efficiency that best turn counted charge into the reference SoC."""
    rows, rhs = [], []
    for t in tests:
        mid = 0.5 * (t.current_a[1:] + t.current_a[:-1])
        dt = np.diff(t.time_s) / 3600.0
        out = np.r_[0.0, np.cumsum(np.maximum(mid, 0.0) * dt)]
        back = np.r_[0.0, np.cumsum(np.maximum(-mid, 0.0) * dt)]
        rows.append(np.c_[out, -back] / np.sqrt(out.size))
        rhs.append((t.soc[0] - t.soc) / np.sqrt(out.size))
    a, y = np.vstack(rows), np.concatenate(rhs)
    c = np.linalg.lstsq(a, y, rcond=None)[0]
    eta = c[1] / c[0] if c[0] > 0 else 1.0
    if not 0.9 < eta <= 1.0:  # too little charging to tell
        c0 = float(np.linalg.lstsq((a[:, :1] + a[:, 1:]), y, rcond=None)[0][0])
        return 1.0 / c0, 1.0
    return float(1.0 / c[0]), float(eta)


def states(t: Dynamic, tau_s: Array, gamma: float, capacity_ah: float) -> tuple[Array, Array, Array]:
    """Filtered currents (n, n_rc), hysteresis state and sign of the last current, as the kernel computes them."""
    mid = np.r_[t.current_a[0], 0.5 * (t.current_a[1:] + t.current_a[:-1])]
    dt = np.r_[0.0, np.diff(t.time_s)]
    full = 1.0 if t.soc[0] > 0.98 else 0.0  # a full cell comes off a charger
    x = np.zeros((mid.size, tau_s.size))
    h = np.zeros_like(mid)
    s = np.zeros_like(mid)
    filtered(mid, t.current_a, dt, tau_s, x, h, s, gamma / (3600.0 * capacity_ah), 0.01 * capacity_ah, full)
    return x, h, s


def fit_temperature(
    tests: list[Dynamic],
    base_v: Array,
    *,
    hysteresis_max_v: Array | None = None,
    gammas: tuple[float, ...] = GAMMAS,
    tau_s: Array = TAU_S,
    bend_c: float = BENDS_C[-1],
    smooth: float = 90.0,
    prior: float = 0.5,
    rough_m: float = 30.0,
    rough_r: float = 1.0,
    iterations: int = 2,
) -> Fit:
    """Fit all tests of one temperature together. `base_v`: OCV prior at `SOC_OCV` (from the slow test)."""
    capacity, eta = capacity_and_efficiency(tests)
    bend_a = bend_c * capacity
    no, nm, nr = SOC_OCV.size, SOC_M.size, SOC_R.size
    nb = tau_s.size + 2
    total = no + nm + 1 + nb * nr
    rise = np.tril(
        np.ones((no, no))
    )  # OCV as its first value and the steps from node to node, which must not be negative
    steps = np.eye(total)
    steps[:no, :no] = rise
    slope = np.gradient(base_v, SOC_OCV)
    regular, wanted = [], []

    def rule(block: Array, first: int, value: Array) -> None:
        rows = np.zeros((block.shape[0], total))
        rows[:, first : first + block.shape[1]] = block
        regular.append(rows)
        wanted.append(value)

    bend = np.diff(np.eye(no), 2, axis=0) * (smooth / (1.0 + slope[1:-1] ** 2))[:, None]
    rule(bend @ rise, 0, bend @ base_v)
    rule(prior * rise, 0, prior * base_v)
    rule(np.diff(np.eye(nm), 1, axis=0) * rough_m, no, np.zeros(nm - 1))
    for b in range(nb):  # the ohmic resistance hardly depends on SoC, which helps where no current step shows it
        weight = 10.0 * rough_r if b == 0 else rough_r
        rule(np.diff(np.eye(nr), 1, axis=0) * weight, no + nm + 1 + b * nr, np.zeros(nr - 1))
    rules, rules_y = np.vstack(regular), np.concatenate(wanted)

    lower, upper = np.full(total, 1e-7), np.full(total, np.inf)
    lower[0] = -np.inf
    lower[1:no] = 2e-5
    lower[no : no + nm] = 0.0
    if hysteresis_max_v is not None:
        upper[no : no + nm] = np.maximum(np.interp(SOC_M, SOC_OCV, hysteresis_max_v), 1e-4)
    lower[no + nm], upper[no + nm] = -0.002, 0.02

    bases = []
    for t in tests:
        br = _rows_times(hat(t.soc, SOC_R), -arrhenius(t.temperature_degc, t.degc))
        bent = bend_a * np.arcsinh(t.current_a / bend_a)
        bases.append((hat(t.soc, SOC_OCV), hat(t.soc, SOC_M), br, _rows_times(br, t.current_a), _rows_times(br, bent)))
    ends = [np.where(t.soc < 0.05, 0.2, 1.0) for t in tests]
    best: tuple[float, float, Array, list[Array]] | None = None
    for gamma in gammas:
        designs = []
        for t, (bo, bm, br, b0, bct) in zip(tests, bases, strict=True):
            x, h, s = states(t, tau_s, gamma, capacity)
            pairs = [_rows_times(br, x[:, j]) for j in range(tau_s.size)]
            designs.append(sparse.hstack([bo, _rows_times(bm, h), s[:, None], b0, bct, *pairs], format="csr"))
        weights = [w.copy() for w in ends]
        for _ in range(iterations):
            gram, rhs = np.zeros((total, total)), np.zeros(total)
            for t, a, w in zip(tests, designs, weights, strict=True):
                aw = _rows_times(a, w)
                gram += (aw.T @ aw).toarray()
                rhs += aw.T @ (t.voltage_v * w)
            gram = rules.T @ rules + steps.T @ gram @ steps
            rhs = rules.T @ rules_y + steps.T @ rhs
            scale = 1.0 / np.sqrt(np.diag(gram) + 1e-12)
            root = np.linalg.cholesky(gram * scale[:, None] * scale[None, :] + 1e-10 * np.eye(total))
            target = np.linalg.solve(root, rhs * scale)
            c = lsq_linear(root.T, target, bounds=(lower / scale, upper / scale), tol=1e-8, max_iter=200).x * scale
            residual = [t.voltage_v - a @ (steps @ c) for t, a in zip(tests, designs, strict=True)]
            spread = 1.4826 * float(np.median(np.abs(np.concatenate(residual)))) + 1e-4
            weights = [
                w / np.sqrt(np.maximum(1.0, np.abs(r) / (3.0 * spread))) for w, r in zip(ends, residual, strict=True)
            ]
        cost = sum(float(np.sum((r * w) ** 2)) for r, w in zip(residual, weights, strict=True))
        if best is None or cost < best[0] * 0.995:
            best = (cost, gamma, c, residual)
    assert best is not None
    _, gamma, c, residual = best
    ocv_v, m_v, m0_v, r_ohm = rise @ c[:no], c[no : no + nm], float(c[no + nm]), c[no + nm + 1 :].reshape(nb, nr)
    return Fit(tests[0].degc, ocv_v, m_v, m0_v, r_ohm, bend_a, gamma, capacity, eta, residual)


def model_voltage(fit: Fit, test: Dynamic) -> Array:
    """Open-loop voltage that a fit (with the time constants `TAU_S`) gives for a test, from the test's own SoC, V."""
    x, h, s = states(test, TAU_S, fit.gamma, fit.capacity_ah)
    i = test.current_a
    flows = [i, fit.bend_a * np.arcsinh(i / fit.bend_a), *x.T]
    drop = sum(np.interp(test.soc, SOC_R, row) * flow for row, flow in zip(fit.r_ohm, flows, strict=True))
    scale = arrhenius(test.temperature_degc, test.degc)
    at_rest = np.interp(test.soc, SOC_OCV, fit.ocv_v) + np.interp(test.soc, SOC_M, fit.m_v) * h + fit.m0_v * s
    return np.asarray(at_rest - scale * drop)
