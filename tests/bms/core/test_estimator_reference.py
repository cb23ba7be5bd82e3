"""The kernel against a textbook filter: dense covariance, Joseph form, float64, the bias among the states.

The reference is written from the model's equations (docs/estimator.md), not from the kernel: one joint state vector for all
cells of the string and the bias, one dense covariance, one vector-valued update. That the kernel's short update in float32
and its split-off bias give the same numbers over thousands of steps proves both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.estimator_setup import cell_rows, estimator_config, estimator_state

V1, V2, V3, V4, H, W, Z, R, Q = range(9)
NX = 9
VARIANCES = [e.p_row(j, j) for j in range(NX)]
RELATION = 1.0 - 1e-5  # what is left of every covariance between two states once per slow period


class TextbookFilter:
    """Extended Kalman filter over [9 states of each cell, bias], equations in float64."""

    def __init__(self, config: e.EstimatorConfig, n: int, x0: np.ndarray, p0: np.ndarray, bias_var: float) -> None:
        self.k = {name: float(config.scalars[name][0]) for name in config.scalars.dtype.names}
        self.nodes = config.nodes.reshape(e.N_DEGC, e.N_SOC, e.NODE).astype(np.float64)
        self.n = n
        self.x = np.r_[np.tile(x0, n), 0.0]
        self.p = np.diag(np.r_[np.tile(p0, n), bias_var])
        self.last_a = self.sign = self.slow_s = 0.0
        self.first = True

    def parameters(self, z: float, degc: float) -> np.ndarray:
        """All parameters of the cell at `z` and `degc`; beyond the ends of SoC the last slope goes on."""
        at_t = np.clip((degc - self.k["degc_first"]) * self.k["nodes_per_kelvin"], 0, e.N_DEGC - 1)
        at_z = np.clip(z, -0.02, 1.02) * self.k["nodes_per_soc"]
        it, iz = min(int(at_t), e.N_DEGC - 2), min(max(int(at_z), 0), e.N_SOC - 2)
        ft, fz = at_t - it, at_z - iz
        over_t = (1 - ft) * self.nodes[it] + ft * self.nodes[it + 1]
        result: np.ndarray = (1 - fz) * over_t[iz] + fz * over_t[iz + 1]
        return result

    def step(self, volts: np.ndarray, degcs: np.ndarray, current_a: float, dt: float) -> np.ndarray:
        """One sample; NaN in `volts` = no correction from that cell. Returns the model voltages before correction."""
        k, x, n = self.k, self.x, self.n
        tau = [k[f"tau{j}_s"] for j in (1, 2, 3, 4)]
        raw = current_a if self.first else 0.5 * (current_a + self.last_a)
        self.first, self.last_a = False, current_a
        i, now = raw - x[-1], current_a - x[-1]
        if abs(now) > 0.01 * k["capacity_ah"]:
            self.sign = 1.0 if now > 0 else -1.0
        self.slow_s += dt
        slow_h = 0.0
        if self.slow_s >= k["slow_period_s"]:
            slow_h, self.slow_s = self.slow_s / 3600.0, 0.0
            self.slowly(slow_h)
        at = [x[NX * c + Z] - k["rate"] * dt * i for c in range(n)]  # where the tables are read
        f = np.eye(9 * n + 1)
        noise = np.zeros(9 * n + 1)
        model_v2: list[float] = []
        for c in range(n):
            o, degc = NX * c, float(degcs[c])
            par = self.parameters(at[c], degc)
            r = par[[e.R1, e.R2, e.R3, e.R4]]
            gain = par[e.RATE] * (1.0 if i > 0 else par[e.ETA]) * dt
            ah = np.exp(-abs(gain * i * par[e.GAMMA]))
            aw = np.exp(-dt / k["tau_w_s"] - abs(k["rate"] * dt * i) / k["soc_w"])
            model_v2.append(par[e.W_STD] ** 2 + (k["slow_share"] * x[o + 3]) ** 2)
            wv = model_v2[c] + (par[e.SLOPE] * par[e.W_KNEE]) ** 2
            for j in range(4):
                a = np.exp(-dt / tau[j])
                x[o + j] = a * x[o + j] + (1 - a) * r[j] * i
                f[o + j, o + j], f[o + j, -1] = a, -(1 - a) * r[j]
                noise[o + j] = (k["rc_noise"] * i * r[j]) ** 2 * (1 - a * a)
            x[o + Z] -= gain * i * (1 - x[o + Q])
            f[o + Z, o + Q], f[o + Z, -1] = gain * i, gain
            x[o + H] = ah * x[o + H] - (1 - ah) * (1.0 if i > 0 else -1.0)
            x[o + W] *= aw
            f[o + H, o + H], f[o + W, o + W] = ah, aw
            noise[o + H] = k["h_noise"] ** 2 * (1 - ah * ah)
            noise[o + W] = wv * (1 - aw * aw)
            noise[o + Z] = (gain * k["current_std"]) ** 2 * max(dt, 1.0)
        self.p = f @ self.p @ f.T + np.diag(noise)

        model = np.zeros(n)
        rows, nus, errors = [], [], []
        bent = k["bend_a"] * np.arcsinh(now / k["bend_a"])
        for c in range(n):
            o, degc = NX * c, float(degcs[c])
            par = self.parameters(at[c], degc)
            slope, m, r0, rct = par[[e.SLOPE, e.M, e.R0, e.RCT]]
            own = self.p[o + Z, o + Z] - (self.p[o + Z, -1] ** 2 / self.p[-1, -1] if self.p[-1, -1] > 0 else 0.0)
            knee = slope * par[e.W_KNEE]
            more = (par[e.WIDE] - slope) * min(own / k["wide_soc"] ** 2, 1.0)
            slope += more
            bend = 0.5 * more * np.sqrt(min(own, k["wide_soc"] ** 2))
            ocv = par[e.OCV] + slope * (x[o + Z] - np.clip(at[c], -0.02, 1.02))
            er = np.exp(x[o + R])
            drop = x[o : o + 4].sum() + r0 * now + rct * bent
            model[c] = ocv + m * x[o + H] + par[e.M0] * self.sign + x[o + W] - er * drop
            h = np.zeros(9 * n + 1)
            h[o : o + 4], h[o + H], h[o + W], h[o + Z], h[o + R] = -er, m, 1.0, slope, -er * drop
            h[-1] = er * (r0 + rct / np.sqrt(1 + (now / k["bend_a"]) ** 2))
            white = k["voltage_std"] ** 2 + k["model_corr"] * model_v2[c] + k["knee_corr"] * (knee**2 + bend**2)
            r_v = white / min(max(dt, 1e-3), 60.0)
            nu = volts[c] - model[c]
            total = h @ self.p @ h + r_v
            if np.isfinite(nu):
                if nu * nu > 25.0 * total:
                    r_v += nu * nu / 25.0 - total
                rows.append(h), nus.append(nu), errors.append(r_v)
        if rows:
            hm, rm = np.array(rows), np.diag(errors)
            gain_m = self.p @ hm.T @ np.linalg.inv(hm @ self.p @ hm.T + rm)
            x += gain_m @ np.array(nus)
            joseph = np.eye(x.size) - gain_m @ hm
            self.p = joseph @ self.p @ joseph.T + gain_m @ rm @ gain_m.T
        cells = x[:-1].reshape(n, NX)
        cells[:, H] = np.clip(cells[:, H], -1, 1)
        cells[:, R] = np.clip(cells[:, R], -0.7, 0.7)
        cells[:, Q] = np.clip(cells[:, Q], -0.45, 0.2)
        cells[:, Z] = np.clip(cells[:, Z], -0.02, 1.02)
        return model

    def slowly(self, hours: float) -> None:
        """What changes in hours: the bias, r and q walk, and every relation between two states of a cell gets weaker.

        A cell's own relations are those that are left when the bias is given: what comes through it stays.
        """
        own = RELATION + (1 - RELATION) * np.eye(NX)
        before = self.p[-1, -1]
        self.p[-1, -1] += self.k["bias_walk"] ** 2 * hours
        through = np.outer(self.p[:, -1], self.p[-1, :]) / self.p[-1, -1] if before > 0 else np.zeros_like(self.p)
        for c in range(self.n):
            here = slice(NX * c, NX * (c + 1))
            self.p[here, here] = through[here, here] + own * (self.p[here, here] - through[here, here])
            self.p[NX * c + R, NX * c + R] += self.k["r_walk"] ** 2 * hours
            self.p[NX * c + Q, NX * c + Q] += self.k["q_walk"] ** 2 * hours

    def soc(self) -> tuple[np.ndarray, np.ndarray]:
        at = NX * np.arange(self.n) + Z
        return self.x[at], np.sqrt(self.p[at, at] + self.k["soc_floor"] ** 2)


def duty(rng: np.random.Generator, n_steps: int) -> np.ndarray:
    """Currents that are held for 5..400 s, a third of them rests, mean a slow discharge; A."""
    parts = []
    while sum(map(len, parts)) < n_steps:
        level = 0.0 if rng.random() < 0.33 else rng.normal(0.3, 1.2)
        parts.append(np.full(rng.integers(5, 400), level))
    return np.concatenate(parts)[:n_steps].astype(np.float32)


def compare(
    cell: CellParameters,
    n: int,
    dt: float,
    n_steps: int,
    *,
    soc_error: float,
    bias_a: float,
    seed: int,
    gaps: bool = False,
) -> dict[str, float]:
    """Feed kernel and reference the same samples; the largest differences seen."""
    rng = np.random.default_rng(seed)
    config = estimator_config(cell, {"common": 0.0})
    soc0 = 0.72
    state = estimator_state(config, n, soc0 + soc_error, 0.1)
    start = cell_rows(state.blocks, 1)[:, 0]
    reference = TextbookFilter(
        config, n, start[:NX].astype(float), start[VARIANCES].astype(float), float(state.shared["bias_var"][0])
    )
    # what is measured comes from the reference's own model, run open loop from another start, with noise added
    plant = TextbookFilter(config, n, np.r_[np.zeros(6), soc0, 0.05, 0.0], np.zeros(NX), 0.0)
    current = duty(rng, n_steps)
    degc = np.linspace(12.0, 33.0, n).astype(np.float32)
    nothing = np.full(n, np.nan)
    quality = np.zeros(n, np.uint8)
    worst = dict.fromkeys(("soc", "std", "bias_a", "bias_std", "model_v", "x"), 0.0)
    for k in range(n_steps):
        true_v = plant.step(nothing, degc, float(current[k]), dt)
        volt = (true_v + rng.normal(0, 0.002, n)).astype(np.float32)
        if k % 701 == 700:
            volt[0] += 0.5  # an outlier
        if gaps and 400 < k % 1000 < 600:
            volt[k % n] = np.nan
        measured = np.float32(current[k] + bias_a)
        estimator_step(config, state, volt, quality, degc, measured, np.uint8(0), np.float32(dt))
        model_v = reference.step(volt.astype(float), degc, float(measured), dt)
        soc, std = reference.soc()
        bias, bias_std = reference.x[-1], np.sqrt(reference.p[-1, -1])
        rows, out = cell_rows(state.blocks, n), state.out.reshape(e.OUT_ROWS, -1)[:, :n]
        seen = {
            "soc": np.abs(rows[Z] - soc),
            "std": np.abs(out[e.SOC_STD] / std - 1),
            "bias_a": abs(float(state.shared["bias_a"][0]) - bias),
            "bias_std": abs(np.sqrt(float(state.shared["bias_var"][0])) / bias_std - 1),
            "model_v": np.abs(out[e.MODEL_V] - model_v),
            "x": np.abs(rows[:NX].T.ravel() - reference.x[:-1]),
        }
        for key, value in seen.items():
            worst[key] = max(worst[key], float(np.max(value)))
    worst["moved_std"] = 0.1 - float(out[e.SOC_STD, 0])
    return worst


@pytest.mark.parametrize(
    ("n", "dt", "n_steps", "soc_error", "bias_a", "gaps"),
    [
        (1, 1.0, 4000, 0.15, 0.02, True),
        (1, 0.1, 3000, 0.05, 0.0, False),
        (1, 10.0, 2000, -0.1, -0.02, True),
        (3, 1.0, 1500, 0.1, 0.02, True),
    ],
    ids=["one cell", "one cell at 100 ms", "one cell at 10 s", "three cells share the bias"],
)
def test_the_kernel_is_the_textbook_filter(
    plain_cell: CellParameters, n: int, dt: float, n_steps: int, soc_error: float, bias_a: float, gaps: bool
) -> None:
    """Differences are those of float32 (6e-8 a step, partly forgotten): far below anything that a user would see."""
    worst = compare(plain_cell, n, dt, n_steps, soc_error=soc_error, bias_a=bias_a, seed=5, gaps=gaps)
    assert worst["x"] < 5e-5
    assert worst["soc"] < 5e-5
    assert worst["std"] < 5e-4
    assert worst["bias_a"] < 2e-6
    assert worst["bias_std"] < 5e-4
    assert worst["model_v"] < 2e-5  # at 98 % the curve rises by 7 V per unit of SoC, so that 2e-6 of SoC are 14 uV
    if bias_a and n == 1:
        assert worst["moved_std"] > 0.02, "the comparison must go through a real convergence"


def run_equal_cells(cell: CellParameters, n: int, common: float) -> tuple[e.EstimatorState, e.EstimatorConfig]:
    rng = np.random.default_rng(8)
    config = estimator_config(cell, {"common": common})
    state = estimator_state(config, n, 0.6, 0.05)
    degc, quality = np.full(n, 25.0, np.float32), np.zeros(n, np.uint8)
    for ampere in duty(rng, 1500):
        volt = np.full(n, cell.ocv(0.6) - 0.03 * ampere + rng.normal(0, 0.001), np.float32)
        estimator_step(config, state, volt, quality, degc, ampere + np.float32(0.02), np.uint8(0), np.float32(1.0))
    return state, config


def test_cells_whose_errors_are_independent_tell_as_much_as_their_number(plain_cell: CellParameters) -> None:
    """rho = 0: n equal cells give n times the information on the bias: 1/m - 1/m0 grows n-fold (while s is the same).

    The walk of the bias is switched off, for it adds to m; the rest (some per cent) is that the model is linearised at the bias found.
    """
    still = replace(plain_cell, filter={"bias_walk_c": 0.0})
    told = {}
    for n in (1, 4, 16):
        state, config = run_equal_cells(still, n, 0.0)
        told[n] = 1.0 / float(state.shared["bias_var"][0]) - 1.0 / float(config.scalars["bias_std"][0]) ** 2
        states = cell_rows(state.blocks, n)[:NX]
        assert np.all(states == states[:, :1]), "equal cells stay equal"
    assert told[4] == pytest.approx(4 * told[1], rel=0.1)
    assert told[16] == pytest.approx(16 * told[1], rel=0.1)


def test_cells_whose_errors_are_the_same_tell_as_much_as_one(plain_cell: CellParameters) -> None:
    one, _ = run_equal_cells(plain_cell, 1, 1.0)
    many, _ = run_equal_cells(plain_cell, 16, 1.0)
    assert float(many.shared["bias_a"][0]) == pytest.approx(float(one.shared["bias_a"][0]), rel=1e-4)
    assert float(many.shared["bias_var"][0]) == pytest.approx(float(one.shared["bias_var"][0]), rel=1e-4)
    several, single = many.out.reshape(e.OUT_ROWS, -1), one.out.reshape(e.OUT_ROWS, -1)
    np.testing.assert_allclose(several[e.SOC], single[e.SOC, 0], atol=2e-6)
    np.testing.assert_allclose(several[e.SOC_STD], single[e.SOC_STD, 0], rtol=1e-4)
