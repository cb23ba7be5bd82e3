"""State of charge: one extended Kalman filter per cell, one current-sensor bias per string.

Model (enhanced self-correcting model; Plett, *Battery Management Systems* vol. I, 2015, ch. 2), discharge positive::

    z' = z - eta i dt / (3600 Q (1 + q))
    v_j' = a_j v_j + (1 - a_j) R_j(z, T) i                      a_j = exp(-dt / tau_j),  j = 1..4
    h' = A h - (1 - A) sgn(i)                                   A = exp(-|eta i gamma dt / (3600 Q)|)
    w' = a_w w                                                  slow error of the voltage model
    v  = OCV(z, T) + M(z, T) h + M0 s + w - exp(r) (v_1 + .. + v_4 + R0(z, T) i + Rct(z, T) i_b asinh(i / i_b))

The last term bends as the charge-transfer overpotential of a Butler-Volmer electrode with equal transfer coefficients.

States of a cell: v_1..v_4, h, w, z, r (logarithm of the resistance scale) and q (relative error of the capacity).
The current is the mean of the last two samples (trapezoidal rule) less the estimated sensor bias b.

The covariance of a cell is kept as U D U^T with unit upper triangular U and diagonal D (Bierman, *Factorization Methods
for Discrete Sequential Estimation*, 1977: measurement update p. 100; rank-one update of Agee and Turner p. 55). It is
symmetric by construction, and positive as long as D is, to which every operation only adds positive terms or multiplies
with positive ratios; float32 therefore cannot break it.

The bias is common to all cells of a string. It is split off as in B. Friedland, *Treatment of bias in recursive
filtering*, IEEE Trans. Automatic Control 14(4), 1969: each cell carries the sensitivity s = dx/db of its states, the
string carries b and its variance m, and all innovations of a step update b together. The random walk of the bias is
folded in as in C.-S. Hsieh, F.-C. Chen, *Optimal solution of the two-stage Kalman estimator*, IEEE TAC 44(1), 1999:
m' = m + q_b, s' = s m/m', and the cell's own covariance takes the rest, so that the joint covariance is exact. With one
cell this equals the filter with b among its states. Model errors are alike in all cells, so that n cells tell less than
n times as much about the bias as one: their information is divided by 1 + (n - 1) rho.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bms.core.jit import f4, i4, kernel
from bms.core.mathf import asinhf, expf, one_minus_exp

# states of a cell, in the order of the factors (fast states first: noise on state k touches only columns <= k)
V1, V2, V3, V4, H, W, Z, R, Q = range(9)
NX = 9
NRC = 4
Z_LOW = NX  # low part of z: increments below half an ulp of z are kept here
X_ROWS = NX + 1
P_ROWS = NX + NX * (NX - 1) // 2  # D, then the columns of U above the diagonal

# parameter maps over (temperature, SoC) and parameter rows over temperature
MAP_OCV, MAP_SLOPE, MAP_M, MAP_R0, MAP_R1, MAP_R2, MAP_R3, MAP_R4, MAP_RCT = range(9)
N_MAPS = 9
ROW_CAPACITY_AH, ROW_ETA, ROW_GAMMA, ROW_M0, ROW_W_STD, ROW_W_KNEE = range(6)
N_ROWS = 6

# outputs
SOC, SOC_STD, MODEL_V, INNOVATION = range(4)
OUT_ROWS = 4
OBSERVABLE = np.uint8(1)  # the voltage now tells the SoC to better than `observable_soc`
SKIPPED = np.uint8(2)  # no usable voltage: prediction only

STATUS_OK = 0
STATUS_CURRENT_BAD = 1  # the current was unusable: the last good one was used, with a larger uncertainty
STATUS_VOLTAGE_BAD = 2  # at least one cell was skipped

SCALARS = np.dtype(
    [
        ("z_step", "f4"),  # spacing of the SoC axis of the maps
        ("degc_first", "f4"),  # first node of the temperature axis
        ("degc_step", "f4"),  # spacing of the temperature axis
        ("tau1_s", "f4"),
        ("tau2_s", "f4"),
        ("tau3_s", "f4"),
        ("tau4_s", "f4"),
        ("bend_a", "f4"),  # i_b, current at which the charge-transfer overpotential bends
        ("tau_w_s", "f4"),  # correlation time of the voltage-model error
        ("voltage_std", "f4"),  # white voltage error at 1 Hz of sensor and model, V
        ("model_corr", "f4"),  # white equivalent of the slow model error: samples at 1 Hz that share it
        ("knee_corr", "f4"),  # white equivalent of a misplaced OCV step: samples at 1 Hz that share its error
        ("current_std", "f4"),  # white error of the mean current of one second, A
        ("bias_std", "f4"),  # prior of the current-sensor bias, A
        ("bias_walk", "f4"),  # random walk of the bias, A/sqrt(h)
        ("rc_noise", "f4"),  # stationary error of each RC voltage, relative to R_j |i|
        ("h_noise", "f4"),  # stationary error of the hysteresis state while current flows
        ("r_std", "f4"),  # prior of the logarithm of the resistance scale
        ("r_walk", "f4"),  # its random walk, 1/sqrt(h)
        ("q_std", "f4"),  # prior of the relative capacity error
        ("q_walk", "f4"),  # its random walk, 1/sqrt(h)
        ("rc_prior_a", "f4"),  # prior of the RC states: as after a current of this size
        ("common", "f4"),  # rho: how alike the model errors of two cells of the string are, 0..1
        ("observable_soc", "f4"),  # an error of SoC that the voltage must be able to tell, for the flag
        ("soc_floor", "f4"),  # smallest standard deviation that is ever reported
        ("slow_period_s", "f4"),  # how often the slow noises (r, q, bias) are added
    ],
    align=True,
)

SHARED = np.dtype(
    [
        ("bias_a", "f4"),
        ("bias_var", "f4"),
        ("last_a", "f4"),  # current of the previous step
        ("sign", "f4"),  # sign of the last non-zero current
        ("slow_s", "f4"),  # time since the slow noises were added
        ("steps", "u4"),
    ],
    align=True,
)


class EstimatorConfig(NamedTuple):
    """Parameters of the cell type and of the filter; constant during a run."""

    scalars: npt.NDArray[Any]  # (1,) of SCALARS
    maps: npt.NDArray[np.float32]  # (N_MAPS, n_temperatures, n_soc)
    rows: npt.NDArray[np.float32]  # (N_ROWS, n_temperatures)


class EstimatorState(NamedTuple):
    """All state of the filter; copying the arrays copies the filter."""

    x: npt.NDArray[np.float32]  # (X_ROWS, n) states
    p: npt.NDArray[np.float32]  # (P_ROWS, n) factors of the covariance
    s: npt.NDArray[np.float32]  # (NX, n) sensitivity of the states to the bias, 1/A
    shared: npt.NDArray[Any]  # (1,) of SHARED
    out: npt.NDArray[np.float32]  # (OUT_ROWS, n)
    flags: npt.NDArray[np.uint8]  # (n,)
    work: npt.NDArray[np.float32]  # (WORK_ROWS, n) scratch


WORK_ROWS = 4 * NX

_ZERO = f4(0.0)
_ONE = f4(1.0)
_HALF = f4(0.5)
_HOUR = f4(3600.0)
_D_MIN = f4(1e-14)
_F_MIN = f4(0.02)
_Z_MIN = f4(-0.02)
_Z_MAX = f4(1.02)
_R_MAX = f4(0.7)
_Q_MAX = f4(0.2)
_CURRENT_CORR_S = f4(1200.0)  # a missing current is wrong by much the same for about 10 min: twice that, as white noise
_GATE2 = f4(25.0)
_ABSURD_V = f4(100.0)
_ABSURD_C = f4(1000.0)


@kernel
def _u(k: int, j: int) -> int:
    """Row of U[k, j], k < j, in the packed factors."""
    return NX + j * (j - 1) // 2 + k


@kernel
def _at(table: Any, it: int, iz: int, w00: Any, w01: Any, w10: Any, w11: Any) -> np.float32:
    """Bilinear look-up in one map (temperature, SoC)."""
    value: np.float32 = (
        w00 * table[it, iz] + w01 * table[it, iz + 1] + w10 * table[it + 1, iz] + w11 * table[it + 1, iz + 1]
    )
    return value


@kernel
def _add_rank_one(p: Any, c: int, v: Any, last: int, weight: np.float32) -> None:
    """UDU^T += weight v v^T for the cell `c`; v[j] = 0 for j > last; v is used up (Agee and Turner 1972)."""
    for j in range(last, 0, -1):
        vj = v[j, c]
        d = p[j, c]
        dn = d + weight * vj * vj
        if dn > d:
            gain = weight * vj / dn
            for k in range(j):
                row = _u(k, j)
                v[k, c] -= vj * p[row, c]
                p[row, c] += gain * v[k, c]
            weight = weight * (d / dn)
            p[j, c] = dn
    p[0, c] += weight * v[0, c] * v[0, c]


@kernel
def _add_noise(p: Any, c: int, v: Any, state: int, variance: np.float32) -> None:
    """Add `variance` to one state of the cell `c`; `v` is scratch."""
    for k in range(state):
        v[k, c] = _ZERO
    v[state, c] = _ONE
    _add_rank_one(p, c, v, state, variance)


@kernel
def estimator_step(
    config: EstimatorConfig,
    state: EstimatorState,
    cell_v: Any,
    cell_v_quality: Any,
    cell_degc: Any,
    current_a: np.float32,
    current_quality: np.uint8,
    dt_s: np.float32,
) -> np.int32:
    """Advance the filters of all cells of a string by one sample.

    config, state: see their classes. cell_v, cell_degc: float32 (n,). cell_v_quality: uint8 (n,), 0 = good.
    current_a: string current of this sample, positive = discharge, A. dt_s: time since the last sample, > 0.
    Returns STATUS_* bits. A voltage that is not finite, or whose quality is not good, corrects nothing: that cell is
    predicted only. Values that no cell can show (`_ABSURD_V`, `_ABSURD_C`) count as missing, so that a number from a
    broken link cannot overflow the filter.
    """
    k1 = config.scalars[0]
    maps = config.maps
    rows = config.rows
    x = state.x
    p = state.p
    s = state.s
    out = state.out
    flags = state.flags
    work = state.work
    sh = state.shared[0]
    f = work[0:NX]
    g = work[NX : 2 * NX]
    v = work[2 * NX : 3 * NX]
    fx = work[3 * NX : 4 * NX]

    if not dt_s > _ZERO:  # also NaN: no time has passed
        dt_s = _ZERO
    n = x.shape[1]
    nt = maps.shape[1]
    nz = maps.shape[2]
    status = i4(STATUS_OK)

    # one current for all cells
    i_now = current_a
    current_var = k1.current_std * k1.current_std * max(dt_s, _ONE)  # a white error averages down within a second only
    if not abs(current_a) < _ABSURD_C * rows[ROW_CAPACITY_AH, 0] or current_quality != 0:
        status |= i4(STATUS_CURRENT_BAD)
        i_now = sh.last_a
        doubt = abs(i_now) + f4(0.1) * rows[ROW_CAPACITY_AH, 0]
        current_var += doubt * doubt * _CURRENT_CORR_S / max(dt_s, f4(1e-3))
    i_raw = _HALF * (i_now + sh.last_a) if sh.steps > 0 else i_now
    sh.last_a = i_now
    i_mid = i_raw - sh.bias_a
    i_end = i_now - sh.bias_a
    if abs(i_end) > f4(0.01) * rows[ROW_CAPACITY_AH, 0]:
        sh.sign = _ONE if i_end > _ZERO else -_ONE

    bent = i_end / k1.bend_a
    i_ct = k1.bend_a * asinhf(bent)
    di_ct = _ONE / np.sqrt(_ONE + bent * bent)

    b1 = one_minus_exp(dt_s / k1.tau1_s)
    b2 = one_minus_exp(dt_s / k1.tau2_s)
    b3 = one_minus_exp(dt_s / k1.tau3_s)
    b4 = one_minus_exp(dt_s / k1.tau4_s)
    bw = one_minus_exp(dt_s / k1.tau_w_s)

    sh.slow_s += dt_s
    slow_h = _ZERO
    bias_ratio = _ONE
    bias_rest = _ZERO
    if sh.slow_s >= k1.slow_period_s:
        slow_h = sh.slow_s / _HOUR
        sh.slow_s = _ZERO
        grown = sh.bias_var + k1.bias_walk * k1.bias_walk * slow_h
        if grown > _ZERO:
            bias_ratio = sh.bias_var / grown
            bias_rest = sh.bias_var * (_ONE - bias_ratio)
        sh.bias_var = grown

    per_second = _ONE / min(max(dt_s, f4(1e-3)), f4(60.0))
    info = _ZERO
    pull = _ZERO

    for c in range(n):
        # --- parameters of this cell at its SoC and temperature
        z = x[Z, c]
        degc = cell_degc[c]
        if not np.isfinite(degc):
            degc = f4(25.0)
        pos_t = (min(max(degc, f4(-60.0)), f4(120.0)) - k1.degc_first) / k1.degc_step
        it = min(max(i4(pos_t), i4(0)), i4(nt - 2))
        ft = min(max(pos_t - f4(it), _ZERO), _ONE)
        pos_z = z / k1.z_step
        iz = min(max(i4(pos_z), i4(0)), i4(nz - 2))
        fz = pos_z - f4(iz)
        w00 = (_ONE - ft) * (_ONE - fz)
        w01 = (_ONE - ft) * fz
        w10 = ft * (_ONE - fz)
        w11 = ft * fz
        r1 = _at(maps[MAP_R1], it, iz, w00, w01, w10, w11)
        r2 = _at(maps[MAP_R2], it, iz, w00, w01, w10, w11)
        r3 = _at(maps[MAP_R3], it, iz, w00, w01, w10, w11)
        r4 = _at(maps[MAP_R4], it, iz, w00, w01, w10, w11)
        capacity_as = _HOUR * (
            rows[ROW_CAPACITY_AH, it] + ft * (rows[ROW_CAPACITY_AH, it + 1] - rows[ROW_CAPACITY_AH, it])
        )
        eta = rows[ROW_ETA, it] + ft * (rows[ROW_ETA, it + 1] - rows[ROW_ETA, it])
        gamma = rows[ROW_GAMMA, it] + ft * (rows[ROW_GAMMA, it + 1] - rows[ROW_GAMMA, it])
        m0 = rows[ROW_M0, it] + ft * (rows[ROW_M0, it + 1] - rows[ROW_M0, it])
        w_std = rows[ROW_W_STD, it] + ft * (rows[ROW_W_STD, it + 1] - rows[ROW_W_STD, it])
        w_knee = rows[ROW_W_KNEE, it] + ft * (rows[ROW_W_KNEE, it + 1] - rows[ROW_W_KNEE, it])
        slope0 = _at(maps[MAP_SLOPE], it, iz, w00, w01, w10, w11)

        # --- prediction of the states
        if i_mid > _ZERO:
            eta = _ONE
        gain = eta * dt_s / capacity_as  # SoC per ampere
        dz = gain * i_mid * (_ONE - x[Q, c])
        bh = one_minus_exp(abs(gain * i_mid * gamma))
        low = x[Z_LOW, c] - dz
        z_new = z + low
        x[Z_LOW, c] = low - (z_new - z)
        x[Z, c] = z_new
        x[V1, c] += b1 * (r1 * i_mid - x[V1, c])
        x[V2, c] += b2 * (r2 * i_mid - x[V2, c])
        x[V3, c] += b3 * (r3 * i_mid - x[V3, c])
        x[V4, c] += b4 * (r4 * i_mid - x[V4, c])
        if i_mid > _ZERO:
            x[H, c] -= bh * (x[H, c] + _ONE)
        else:
            x[H, c] -= bh * (x[H, c] - _ONE)
        x[W, c] -= bw * x[W, c]

        # --- prediction of the factors: scale, couple z to q, add noise
        fx[V1, c] = max(_ONE - b1, _F_MIN)
        fx[V2, c] = max(_ONE - b2, _F_MIN)
        fx[V3, c] = max(_ONE - b3, _F_MIN)
        fx[V4, c] = max(_ONE - b4, _F_MIN)
        fx[H, c] = max(_ONE - bh, _F_MIN)
        fx[W, c] = max(_ONE - bw, _F_MIN)
        fx[Z, c] = _ONE
        for j in range(Z):
            fj = fx[j, c]
            p[j, c] *= fj * fj
            inv = _ONE / fj
            for k in range(j):
                p[_u(k, j), c] *= fx[k, c] * inv
        for j in range(Z, NX):
            for k in range(Z):
                p[_u(k, j), c] *= fx[k, c]
        p[_u(Z, Q), c] += gain * i_mid

        s[V1, c] -= b1 * (r1 + s[V1, c])
        s[V2, c] -= b2 * (r2 + s[V2, c])
        s[V3, c] -= b3 * (r3 + s[V3, c])
        s[V4, c] -= b4 * (r4 + s[V4, c])
        s[H, c] -= bh * s[H, c]
        s[W, c] -= bw * s[W, c]
        s[Z, c] += gain + gain * i_mid * s[Q, c]

        z_var = gain * gain * current_var
        _add_noise(p, c, v, Z, z_var)
        wv = w_std * w_std + (slope0 * w_knee) * (slope0 * w_knee)
        _add_noise(p, c, v, W, wv * bw * (f4(2.0) - bw))
        _add_noise(p, c, v, H, k1.h_noise * k1.h_noise * bh * (f4(2.0) - bh))
        rel = k1.rc_noise * i_mid
        rel = rel * rel
        _add_noise(p, c, v, V4, rel * r4 * r4 * b4 * (f4(2.0) - b4))
        _add_noise(p, c, v, V3, rel * r3 * r3 * b3 * (f4(2.0) - b3))
        _add_noise(p, c, v, V2, rel * r2 * r2 * b2 * (f4(2.0) - b2))
        p[V1, c] += rel * r1 * r1 * b1 * (f4(2.0) - b1)
        if slow_h > _ZERO:
            _add_noise(p, c, v, Q, k1.q_walk * k1.q_walk * slow_h)
            _add_noise(p, c, v, R, k1.r_walk * k1.r_walk * slow_h)
            if bias_rest > _ZERO:
                for k in range(NX):
                    v[k, c] = s[k, c]
                    s[k, c] *= bias_ratio
                _add_rank_one(p, c, v, NX - 1, bias_rest)

        # --- the model's voltage at the predicted state
        z = x[Z, c]
        pos_z = z / k1.z_step
        iz = min(max(i4(pos_z), i4(0)), i4(nz - 2))
        fz = pos_z - f4(iz)
        w00 = (_ONE - ft) * (_ONE - fz)
        w01 = (_ONE - ft) * fz
        w10 = ft * (_ONE - fz)
        w11 = ft * fz
        ocv = _at(maps[MAP_OCV], it, iz, w00, w01, w10, w11)
        slope = _at(maps[MAP_SLOPE], it, iz, w00, w01, w10, w11)
        m = _at(maps[MAP_M], it, iz, w00, w01, w10, w11)
        r0 = _at(maps[MAP_R0], it, iz, w00, w01, w10, w11)
        rct = _at(maps[MAP_RCT], it, iz, w00, w01, w10, w11)
        er = expf(x[R, c])
        drop = x[V1, c] + x[V2, c] + x[V3, c] + x[V4, c] + r0 * i_end + rct * i_ct
        model = ocv + m * x[H, c] + m0 * sh.sign + x[W, c] - er * drop
        out[MODEL_V, c] = model
        flag = np.uint8(0)
        if abs(slope) * k1.observable_soc > np.sqrt(
            w_std * w_std + (slope * w_knee) * (slope * w_knee) + m * m * k1.h_noise * k1.h_noise
        ):
            flag |= OBSERVABLE

        # --- correction
        knee_v = slope * w_knee
        voltage_var = (
            k1.voltage_std * k1.voltage_std + w_std * w_std * k1.model_corr + knee_v * knee_v * k1.knee_corr
        ) * per_second
        nu = cell_v[c] - model
        if cell_v_quality[c] != 0 or not abs(nu) < _ABSURD_V:
            flag |= SKIPPED
            status |= i4(STATUS_VOLTAGE_BAD)
            out[INNOVATION, c] = f4(np.nan)
        else:
            out[INNOVATION, c] = nu
            hb = er * (r0 + rct * di_ct)  # direct effect of the bias on the voltage
            hr = -er * drop
            hb += (
                -er * (s[V1, c] + s[V2, c] + s[V3, c] + s[V4, c])
                + m * s[H, c]
                + s[W, c]
                + slope * s[Z, c]
                + hr * s[R, c]
            )
            # f = U^T h
            for j in range(NX):
                acc = _ZERO
                if j <= V4:
                    acc = -er
                elif j == H:
                    acc = m
                elif j == W:
                    acc = _ONE
                elif j == Z:
                    acc = slope
                elif j == R:
                    acc = hr
                for k in range(j):
                    u = p[_u(k, j), c]
                    if k <= V4:
                        acc -= er * u
                    elif k == H:
                        acc += m * u
                    elif k == W:
                        acc += u
                    elif k == Z:
                        acc += slope * u
                    elif k == R:
                        acc += hr * u
                f[j, c] = acc
                g[j, c] = p[j, c] * acc
            total = voltage_var
            for j in range(NX):
                total += f[j, c] * g[j, c]
            full = total + hb * hb * sh.bias_var
            noise = voltage_var
            if nu * nu > _GATE2 * full:  # an outlier: believe it less, the more unlikely it is
                noise += nu * nu / _GATE2 - full
            alpha = noise
            for j in range(NX):
                before = alpha
                alpha = before + f[j, c] * g[j, c]
                p[j, c] = max(p[j, c] * (before / alpha), _D_MIN)
                lam = -f[j, c] / before
                gj = g[j, c]
                v[j, c] = gj
                for k in range(j):
                    row = _u(k, j)
                    u = p[row, c]
                    p[row, c] = u + lam * v[k, c]
                    v[k, c] += gj * u
            inv = _ONE / alpha
            for k in range(NX):
                gain_k = v[k, c] * inv
                s[k, c] -= gain_k * hb
                if k == Z:
                    low = x[Z_LOW, c] + gain_k * nu
                    z_new = x[Z, c] + low
                    x[Z_LOW, c] = low - (z_new - x[Z, c])
                    x[Z, c] = z_new
                else:
                    x[k, c] += gain_k * nu
            info += hb * hb * inv
            pull += hb * nu * inv
        flags[c] = flag

    # --- the bias, from all cells together, and its effect on each of them
    share = _ONE / (_ONE + f4(n - 1) * k1.common)
    sh.bias_var = sh.bias_var / (_ONE + sh.bias_var * info * share)
    step_b = sh.bias_var * pull * share
    sh.bias_a += step_b
    for c in range(n):
        for k in range(NX):
            x[k, c] += s[k, c] * step_b
        x[H, c] = min(max(x[H, c], -_ONE), _ONE)
        x[R, c] = min(max(x[R, c], -_R_MAX), _R_MAX)
        x[Q, c] = min(max(x[Q, c], -_Q_MAX), _Q_MAX)
        if x[Z, c] < _Z_MIN or x[Z, c] > _Z_MAX:
            x[Z, c] = min(max(x[Z, c], _Z_MIN), _Z_MAX)
            x[Z_LOW, c] = _ZERO
        var = p[Z, c] + s[Z, c] * s[Z, c] * sh.bias_var
        for j in range(Z + 1, NX):
            u = p[_u(Z, j), c]
            var += u * u * p[j, c]
        out[SOC, c] = min(max(x[Z, c], _ZERO), _ONE)
        out[SOC_STD, c] = np.sqrt(var + k1.soc_floor * k1.soc_floor)
    sh.steps += np.uint32(1)
    return status
