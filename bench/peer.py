"""What does another package's filter make of the duty that bench/peers.py wrote down? One process, one peer.

bench/peers.py starts `python bench/peer.py NAME DUTY.npz` with the interpreter that has the package. Only numpy and the
package are imported. The first line of the output is a JSON object: version and cases. Then each line of the input is
the number of a case; it is run over the duty once, and answered by a JSON line with the SoC at the end.

The filters solve the problem of `bms.core.estimator` as closely as the package allows, without the parts that it has
beyond a textbook filter: no bias of the current sensor, no second float for the SoC, no gate for outliers, no missing
values. FULL has its nine states, its tables over SoC and temperature and its Jacobian. PLAIN is kinder: SoC, two RC
pairs and hysteresis, tables over SoC alone, constant noise.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from math import asinh, exp, sqrt
from pathlib import Path
from typing import Any

import numpy as np

V1, V2, V3, V4, H, W, Z, R, Q = range(9)
COLUMNS = ("OCV", "SLOPE", "M", "R0", "R1", "R2", "R3", "R4", "RCT", "GAMMA", "M0", "W_STD", "W_KNEE")
OCV, SLOPE, M, R0, R1, R2, R3, R4, RCT, GAMMA, M0, W_STD, W_KNEE = range(len(COLUMNS))
FULL, PLAIN = "9 states", "4 states"


@dataclass(frozen=True)
class Case:
    """A filter and how to run it: `run` goes over the duty once and returns the SoC of its cells at the end."""

    title: str
    how: str
    cells: int
    run: Callable[[], Any]


class Duty:
    """Measured values, cell tables and tuning from the file that bench/peers.py wrote; `tune` is read as attributes.

    current_a, middle_a, sign: (n,): at the end of each step, its mean over the step, its last sign. cell_v, degc:
    (n, cells). soc, soc_std: (cells,) at the start. nodes: (n_degc, n_soc, COLUMNS), rates: SoC
    per ampere-second on discharge and on charge, (2, n_degc).
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.__dict__.update({name: file[name] for name in file.files})
        tune: Any = self.__dict__["tune"]
        self.__dict__.update({name: float(tune[name][0]) for name in tune.dtype.names})
        self.n_steps, self.n_cells = self.cell_v.shape

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the duty has no {name}")

    @cached_property
    def kept(self) -> Any:
        """Shares that RC voltages and the model error keep over a step, (5,)."""
        gone = self.dt_s / np.array([self.tau1_s, self.tau2_s, self.tau3_s, self.tau4_s, self.tau_w_s])
        gone[4] += self.moved / self.soc_w
        return np.exp(-gone)

    @cached_property
    def moved(self) -> float:
        """SoC that the typical current moves in a step, one way or the other."""
        return float(self.rates[0, 0]) * self.dt_s * float(np.abs(self.middle_a).mean())

    @cached_property
    def model_v2(self) -> float:
        """Variance of the slow error of the voltage, with the typical parameters and the mean current."""
        p = self.typical
        slowest = self.slow_share * float(p[R4]) * float(self.middle_a.mean())
        return float(p[W_STD] ** 2) + slowest * slowest

    @cached_property
    def typical(self) -> Any:
        """Parameters in the middle of the duty, (COLUMNS,)."""
        at = round((25.0 - self.degc_first) * self.nodes_per_kelvin)
        return np.asarray(self.nodes[at, round(float(self.soc.mean()) * self.nodes_per_soc)], float)

    @cached_property
    def noise(self) -> Any:
        """Variances that a step adds to the nine states, with the typical parameters and current, (9,)."""
        p, gone = self.typical, 1.0 - self.kept**2
        rc = self.rc_noise**2 * float(np.mean(self.middle_a**2)) * p[R1 : R4 + 1] ** 2 * gone[:4]
        rate = float(self.rates[0, 0])
        hour = self.dt_s / 3600.0
        return np.array(
            [
                *rc,
                self.h_noise**2 * (1.0 - exp(-2.0 * self.moved * p[GAMMA])),
                (self.model_v2 + (p[SLOPE] * p[W_KNEE]) ** 2) * gone[4],
                (rate * self.dt_s * self.current_std) ** 2,
                self.r_walk**2 * hour,
                self.q_walk**2 * hour,
            ]
        )

    @cached_property
    def voltage_var(self) -> float:
        """Variance of a voltage, with the typical parameters."""
        p = self.typical
        knee = (p[SLOPE] * p[W_KNEE]) ** 2
        return float(self.voltage_std**2 + self.model_v2 * self.model_corr + knee * self.knee_corr) / self.dt_s

    @cached_property
    def start_var(self) -> Any:
        """Variances of the nine states at the start, (9,)."""
        p = self.typical
        rc = (p[R1 : R4 + 1] * self.rc_prior_a) ** 2
        return np.array([*rc, 0.36, p[W_STD] ** 2, float(self.soc_std[0]) ** 2, self.r_std**2, self.q_std**2])

    @cached_property
    def plain(self) -> Plain:
        """What the filter of four states needs."""
        at = round((25.0 - self.degc_first) * self.nodes_per_kelvin)
        p = np.asarray(self.nodes[at], float)
        kept = np.array([sqrt(self.kept[0] * self.kept[1]), sqrt(self.kept[2] * self.kept[3])])
        noise, start = self.noise, self.start_var
        pairs = [noise[V1] + noise[V2], noise[V3] + noise[V4]], [start[V1] + start[V2], start[V3] + start[V4]]
        return Plain(
            p[:, [OCV, SLOPE, M]],
            float(self.typical[R0] + self.typical[RCT]),
            np.array([self.typical[R1] + self.typical[R2], self.typical[R3] + self.typical[R4]]),
            kept,
            float(self.rates[0, at]) * self.dt_s,
            float(self.typical[GAMMA]),
            np.array([noise[Z], *pairs[0], noise[H]]),
            np.array([start[Z], *pairs[1], start[H]]),
        )


@dataclass(frozen=True)
class Plain:
    """Model of four states: SoC, two RC pairs, hysteresis."""

    table: Any  # OCV, its slope and M over SoC, (n_soc, 3)
    r0: float
    r: Any  # (2,)
    kept: Any  # (2,)
    gain: float  # SoC per ampere and step
    gamma: float
    noise: Any  # (4,)
    start_var: Any  # (4,)


# -------------------------------------------------------------------------------------------------------- filterpy


def filterpy_cases(duty: Duty) -> Iterator[Case]:
    """`ExtendedKalmanFilter`, float64: one object per cell, called once per sample."""
    from filterpy.kalman import ExtendedKalmanFilter

    class Full(ExtendedKalmanFilter):
        """Nine states; the arguments of a step are left in `sample` before it."""

        def __init__(self, soc: float) -> None:
            super().__init__(9, 1)
            self.x[Z, 0] = soc
            self.P = np.diag(duty.start_var)
            self.F = np.diag([*duty.kept[:4], 1.0, duty.kept[4], 1.0, 1.0, 1.0])
            self.Q = np.diag(duty.noise)
            self.R = np.array([[duty.voltage_var]])
            self.jacobian = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
            self.expected = np.zeros((1, 1))
            self.sample = (0.0, 0.0, 0.0, 0.0)
            self.parameters: list[float] = []

        def predict_x(self, u: Any = 0) -> None:
            i_mid, _, _, degc = self.sample
            x = self.x[:, 0].tolist()
            at = (degc - duty.degc_first) * duty.nodes_per_kelvin
            row = int(at)
            ft = at - row
            low, high = duty.rates[0 if i_mid > 0.0 else 1, row : row + 2]
            moved = (low + ft * (high - low)) * duty.dt_s * i_mid
            z = x[Z] - moved * (1.0 - x[Q])
            at = z * duty.nodes_per_soc
            column = min(max(int(at), 0), duty.nodes.shape[1] - 2)
            fz = at - column
            corner = duty.nodes[row : row + 2, column : column + 2]
            line = corner[0] + ft * (corner[1] - corner[0])
            p = self.parameters = (line[0] + fz * (line[1] - line[0])).tolist()
            k1, k2, k3, k4, kw = kept
            kh = exp(-abs(moved * p[GAMMA]))
            self.F[H, H] = kh
            self.F[Z, Q] = moved
            self.x = np.array(
                [
                    [k1 * x[V1] + (1.0 - k1) * p[R1] * i_mid],
                    [k2 * x[V2] + (1.0 - k2) * p[R2] * i_mid],
                    [k3 * x[V3] + (1.0 - k3) * p[R3] * i_mid],
                    [k4 * x[V4] + (1.0 - k4) * p[R4] * i_mid],
                    [kh * x[H] - (1.0 - kh) * (1.0 if i_mid > 0.0 else -1.0)],
                    [kw * x[W]],
                    [z],
                    [x[R]],
                    [x[Q]],
                ]
            )

        def sensitivity(self, x: Any) -> Any:
            """Jacobian of the voltage; the voltage itself is left in `expected`."""
            v1, v2, v3, v4, h, w, _, r, _ = x[:, 0].tolist()
            _, i_end, sign, _ = self.sample
            p = self.parameters
            scale = exp(r)
            bent = duty.bend_a * asinh(i_end / duty.bend_a)
            drop = scale * (v1 + v2 + v3 + v4 + p[R0] * i_end + p[RCT] * bent)
            self.expected[0, 0] = p[OCV] + p[M] * h + p[M0] * sign + w - drop
            to = self.jacobian[0]
            to[: V4 + 1] = -scale
            to[H] = p[M]
            to[Z] = p[SLOPE]
            to[R] = -drop
            return self.jacobian

        def voltage(self, x: Any) -> Any:
            return self.expected

    class Four(ExtendedKalmanFilter):
        """SoC, two RC pairs, hysteresis."""

        def __init__(self, soc: float) -> None:
            super().__init__(4, 1)
            self.x[0, 0] = soc
            self.P = np.diag(plain.start_var)
            self.F = np.diag([1.0, *plain.kept, 1.0])
            self.Q = np.diag(plain.noise)
            self.R = np.array([[duty.voltage_var]])
            self.jacobian = np.array([[0.0, -1.0, -1.0, 0.0]])
            self.expected = np.zeros((1, 1))
            self.sample = (0.0, 0.0, 0.0, 0.0)

        def predict_x(self, u: Any = 0) -> None:
            i = self.sample[0]
            z, v1, v2, h = self.x[:, 0].tolist()
            moved = plain.gain * i
            kh = exp(-abs(moved * plain.gamma))
            self.F[3, 3] = kh
            self.x = np.array(
                [
                    [z - moved],
                    [k1 * v1 + (1.0 - k1) * r1 * i],
                    [k2 * v2 + (1.0 - k2) * r2 * i],
                    [kh * h - (1.0 - kh) * (1.0 if i > 0.0 else -1.0)],
                ]
            )

        def sensitivity(self, x: Any) -> Any:
            z, v1, v2, h = x[:, 0].tolist()
            at = z * duty.nodes_per_soc
            k = min(max(int(at), 0), len(table) - 2)
            f = at - k
            low, high = table[k], table[k + 1]
            m = low[2] + f * (high[2] - low[2])
            self.expected[0, 0] = low[0] + f * (high[0] - low[0]) + m * h - v1 - v2 - plain.r0 * self.sample[1]
            self.jacobian[0, 0] = low[1] + f * (high[1] - low[1])
            self.jacobian[0, 3] = m
            return self.jacobian

        def voltage(self, x: Any) -> Any:
            return self.expected

    plain = duty.plain
    table = plain.table.tolist()
    kept = duty.kept.tolist()
    (k1, k2), (r1, r2) = plain.kept.tolist(), plain.r.tolist()
    cells = [*range(0, duty.n_cells, duty.n_cells // 4)][:4]
    columns = (duty.middle_a.tolist(), duty.current_a.tolist(), duty.sign.tolist())

    def run(kind: Any, soc_at: int) -> Any:
        filters = [kind(float(duty.soc[c])) for c in cells]
        for k, sample in enumerate(zip(*columns, strict=True)):
            for c, ekf in zip(cells, filters, strict=True):
                ekf.sample = (*sample, float(duty.degc[k, c]))
                ekf.predict()
                ekf.update(float(duty.cell_v[k, c]), ekf.sensitivity, ekf.voltage)
        return cells, [ekf.x[soc_at, 0] for ekf in filters]

    how = "one object per cell, float64"
    yield Case(f"EKF, {FULL}", how, len(cells), lambda: run(Full, Z))
    yield Case(f"EKF, {PLAIN}", how, len(cells), lambda: run(Four, 0))


# --------------------------------------------------------------------------------------------------------- dynamax


def dynamax_cases(duty: Duty) -> Iterator[Case]:
    """`extended_kalman_filter` over the whole duty in one call, jitted and vmapped over the cells, float32.

    One call per sample would add the time of a call. On a single core XLA is some times faster when it does not hand
    small products of matrices to its pool of threads.
    """
    flags = (os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1")
    os.environ["XLA_FLAGS"] = " ".join(flags)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from dynamax.nonlinear_gaussian_ssm import ParamsNLGSSM, extended_kalman_filter

    f4 = jnp.float32
    nodes, rates, kept = (jnp.asarray(a, f4) for a in (duty.nodes, duty.rates, duty.kept))
    fixed = jax.lax.stop_gradient

    def parameters(z: Any, degc: Any) -> Any:
        at = (degc - duty.degc_first) * duty.nodes_per_kelvin
        row = at.astype(jnp.int32)
        ft = at - row
        at = fixed(z) * duty.nodes_per_soc
        column = jnp.clip(at.astype(jnp.int32), 0, nodes.shape[1] - 2)
        fz = at - column
        low = (1.0 - fz) * nodes[row, column] + fz * nodes[row, column + 1]
        high = (1.0 - fz) * nodes[row + 1, column] + fz * nodes[row + 1, column + 1]
        return (1.0 - ft) * low + ft * high

    def predicted(x: Any, u: Any) -> Any:
        i_mid, degc = u[0], u[3]
        at = (degc - duty.degc_first) * duty.nodes_per_kelvin
        row = at.astype(jnp.int32)
        line = rates[jnp.where(i_mid > 0.0, 0, 1)]
        moved = (line[row] + (at - row) * (line[row + 1] - line[row])) * duty.dt_s * i_mid
        z = x[Z] - moved * (1.0 - x[Q])
        p = parameters(z, degc)
        kh = jnp.exp(-jnp.abs(moved * p[GAMMA]))
        rc = kept[:4] * x[:4] + (1.0 - kept[:4]) * p[R1 : R4 + 1] * i_mid
        h = kh * x[H] - (1.0 - kh) * jnp.where(i_mid > 0.0, 1.0, -1.0)
        return jnp.concatenate([rc, jnp.stack([h, kept[4] * x[W], z, x[R], x[Q]])])

    def voltage(x: Any, u: Any) -> Any:
        i_end, sign, degc = u[1], u[2], u[3]
        p = parameters(x[Z], degc)
        bent = duty.bend_a * jnp.arcsinh(i_end / duty.bend_a)
        drop = jnp.exp(x[R]) * (x[:4].sum() + p[R0] * i_end + p[RCT] * bent)
        ocv = p[OCV] + p[SLOPE] * (x[Z] - fixed(x[Z]))
        return (ocv + p[M] * x[H] + p[M0] * sign + x[W] - drop)[None]

    plain = duty.plain
    table, kept2, r2 = (jnp.asarray(a, f4) for a in (plain.table, plain.kept, plain.r))

    def predicted_plain(x: Any, u: Any) -> Any:
        moved = plain.gain * u[0]
        kh = jnp.exp(-jnp.abs(moved * plain.gamma))
        h = kh * x[3] - (1.0 - kh) * jnp.where(u[0] > 0.0, 1.0, -1.0)
        rc = kept2 * x[1:3] + (1.0 - kept2) * r2 * u[0]
        return jnp.concatenate([(x[0] - moved)[None], rc, h[None]])

    def voltage_plain(x: Any, u: Any) -> Any:
        at = fixed(x[0]) * duty.nodes_per_soc
        k = jnp.clip(at.astype(jnp.int32), 0, table.shape[0] - 2)
        p = table[k] + (at - k) * (table[k + 1] - table[k])
        ocv = p[0] + p[1] * (x[0] - fixed(x[0]))
        return (ocv + p[2] * x[3] - x[1] - x[2] - plain.r0 * u[1])[None]

    def case(title: str, f: Any, h: Any, noise: Any, start_var: Any, at: int) -> Case:
        def one(soc: Any, emissions: Any, inputs: Any) -> Any:
            model = ParamsNLGSSM(
                initial_mean=jnp.zeros(noise.size, f4).at[at].set(soc),
                initial_covariance=jnp.diag(jnp.asarray(start_var, f4)),
                dynamics_function=f,
                dynamics_covariance=jnp.diag(jnp.asarray(noise, f4)),
                emission_function=h,
                emission_covariance=jnp.full((1, 1), duty.voltage_var, f4),
            )
            posterior = extended_kalman_filter(model, emissions, inputs=inputs, output_fields=["filtered_means"])
            return posterior.filtered_means[-1, at]

        alike = np.stack([duty.middle_a, duty.current_a, duty.sign], axis=-1)
        inputs = np.concatenate([np.tile(alike, (duty.n_cells, 1, 1)), duty.degc.T[..., None]], axis=-1)
        data = [jax.device_put(np.asarray(a, np.float32)) for a in (duty.soc, duty.cell_v.T[..., None], inputs)]
        compiled = jax.jit(jax.vmap(one)).lower(*data).compile()

        def run() -> Any:
            return range(duty.n_cells), np.asarray(compiled(*data)).tolist()

        return Case(title, "vmap over cells, scan over time, float32", duty.n_cells, run)

    yield case(f"EKF, {FULL}", predicted, voltage, duty.noise, duty.start_var, Z)
    yield case(f"EKF, {PLAIN}", predicted_plain, voltage_plain, plain.noise, plain.start_var, 0)


# ---------------------------------------------------------------------------------------------------------- moirae


def moirae_cases(duty: Duty) -> Iterator[Case]:
    """The package's own circuit of SoC, two RC pairs and hysteresis under its `JointEstimator`, an unscented filter.

    Its circuit has one temperature coefficient for all resistances, so it is told 25 degC throughout. In its
    convention charge is positive.
    """
    from moirae.estimators.online.joint import JointEstimator
    from moirae.models.ecm import ECMASOH, ECMInput, ECMMeasurement, ECMTransientVector, EquivalentCircuitModel

    plain = duty.plain
    tau = -duty.dt_s / np.log(plain.kept)
    m = plain.table[:, 2]
    health = ECMASOH.provide_template(
        has_C0=False,
        num_RC=2,
        qt=duty.capacity_ah,
        OCV=plain.table[:, 0],
        R0=plain.r0,
        H0=m,
        RC=[(r, t / r) for r, t in zip(plain.r, tau, strict=True)],
    )
    health.set_value("h0.gamma", plain.gamma)
    # hysteresis in volts, RC pairs by their currents
    per = np.array([1.0, *plain.r, 1.0 / float(m.mean())]) ** 2
    cells = [0, duty.n_cells - 1]
    current = (-duty.current_a).tolist()

    def start(soc: float) -> Any:
        return JointEstimator.initialize_unscented_kalman_filter(
            cell_model=EquivalentCircuitModel(),
            initial_asoh=health,
            initial_transients=ECMTransientVector.provide_template(has_C0=False, num_RC=2, soc=soc),
            initial_inputs=ECMInput(time=-duty.dt_s, current=0.0, temperature=25.0),
            covariance_joint=np.diag(plain.start_var / per),
            joint_covariance_process_noise=np.diag(plain.noise / per),
            covariance_sensor_noise=np.array([[duty.voltage_var]]),
        )

    def run() -> Any:
        estimators = [start(float(duty.soc[c])) for c in cells]
        for k, i in enumerate(current):
            inputs = ECMInput(time=k * duty.dt_s, current=i, temperature=25.0)
            for c, estimator in zip(cells, estimators, strict=True):
                estimator.step(inputs, ECMMeasurement(terminal_voltage=float(duty.cell_v[k, c])))
        return cells, [float(estimator.state.get_mean()[0]) for estimator in estimators]

    yield Case(f"UKF, {PLAIN}", "one object per cell, float64", len(cells), run)


PEERS: dict[str, Callable[[Duty], Iterator[Case]]] = {
    "filterpy": filterpy_cases,
    "dynamax": dynamax_cases,
    "moirae": moirae_cases,
}


def main() -> int:
    """Serve one peer until the input ends."""
    name, path = sys.argv[1:]
    duty = Duty(Path(path))
    cases = list(PEERS[name](duty))
    about = [{"title": c.title, "how": c.how, "cells": c.cells} for c in cases]
    print(json.dumps({"version": version(name), "python": sys.version.split()[0], "cases": about}), flush=True)
    for line in sys.stdin:
        cells, soc = cases[int(line)].run()
        print(json.dumps({"cells": list(cells), "soc": soc}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
