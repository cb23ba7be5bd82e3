"""State of charge: one extended Kalman filter per cell, one current-sensor bias per string.

Model (enhanced self-correcting model; Plett, *Battery Management Systems* vol. I, 2015, ch. 2), discharge positive::

    z' = z - eta i dt / (3600 Q (1 + q))
    v_j' = a_j v_j + (1 - a_j) R_j(z, T) i                      a_j = exp(-dt / tau_j),  j = 1..4
    h' = A h - (1 - A) sgn(i)                                   A = exp(-|eta i gamma dt / (3600 Q)|)
    w' = a_w w                                                  a_w = exp(-dt / tau_w - |i| dt / (3600 Q z_w))
    v  = OCV(z, T) + M(z, T) h + M0 s + w - exp(r) (v_1 + .. + v_4 + R0(z, T) i + Rct(z, T) i_b asinh(i / i_b))

The last term bends as the charge-transfer overpotential of a Butler-Volmer electrode with equal transfer coefficients.

w is the slow error of the voltage model: another one once charge has flowed, much the same at rest.

States of a cell: v_1..v_4, h, w, z, r (logarithm of the resistance scale) and q (relative error of the capacity).
The current is the mean of the last two samples (trapezoidal rule) less the estimated sensor bias b. The tables are read
at the SoC to which the charge of this step leads.

The covariance of a cell is kept as the 45 numbers of a symmetric matrix, so that it cannot become unsymmetric. The
short form of the update, P - g g^T / (h P h^T + R) with g = P h^T, errs by some units in the last place of what P was
before: in float32 it keeps P positive as long as no step reduces a variance a million times. R, with the model's error
in it, is large enough for that, and the rules of `bms.core.estimator_block` (`_VARIANCE_MIN` and after) see to it
where inputs or tuning are beyond all reason. Once per `slow_period_s` every covariance between two states is reduced
by the share `_DECORRELATE`, which raises the smallest eigenvalue of the correlation matrix by what rounding took.

The bias is common to all cells of a string. It is split off as in B. Friedland, *Treatment of bias in recursive
filtering*, IEEE Trans. Automatic Control 14(4), 1969: each cell carries the sensitivity s = dx/db of its states, the
string carries b and its variance m, and all innovations of a step update b together. The random walk of the bias is
folded in as in C.-S. Hsieh, F.-C. Chen, *Optimal solution of the two-stage Kalman estimator*, IEEE TAC 44(1), 1999:
m' = m + q_b, s' = s m/m', and the cell's own covariance takes the rest, so that the joint covariance is exact. With one
cell this equals the filter with b among its states. Model errors are alike in all cells, so that n cells tell less than
n times as much about the bias as one: their information is divided by 1 + (n - 1) rho.

Made for vector units: 16 cells are a block of 64 rows of 16 numbers (4 KiB, one page), worked through one after the
other. Every loop over the 16 lanes has constant bounds and strides and no branch; look-ups are split from arithmetic:
a node of the table holds all parameters side by side, so that a look-up is four loads of 64 bytes, and a transposition
turns 16 cells' parameters into 16 rows. Lanes without a cell compute and are not heard. Sums over cells have an order
of their own, per lane and then over the lanes, the same on every processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bms.core.estimator_block import (
    StepValues,
    add_slow,
    clear_sums,
    gather,
    look_up,
    share_bias,
    total,
    update,
)
from bms.core.estimator_layout import (
    BLOCK_ROWS,
    INNOVATION,
    MODEL_V,
    N_DEGC,
    N_SOC,
    NODE,
    R1,
    R2,
    R3,
    R4,
    SOC,
    SOC_STD,
    STATUS_CURRENT_BAD,
    STATUS_OK,
    STATUS_VOLTAGE_BAD,
    V1,
    W_STD,
    EstimatorConfig,
    EstimatorState,
    H,
    Q,
    R,
    W,
    Z,
    p_row,
)
from bms.core.jit import f4, i4, kernel
from bms.core.mathf import asinhf, one_minus_exp
from hal.contract import LANES

_ZERO = f4(0.0)
_ONE = f4(1.0)
_HALF = f4(0.5)
_HOUR = f4(3600.0)
_ABSURD_C = f4(100.0)
_DT_MAX_S = f4(1e6)
_SMALL = f4(1e-10)
_HYSTERESIS_VAR = f4(0.36)
_CURRENT_CORR_S = f4(1200.0)  # a missing current is wrong by much the same for about 10 min: twice that, as white noise


_AHEAD = 2 * LANES  # cells between the next block and the one that is sent for

_VAR_V1, _VAR_V2, _VAR_V3, _VAR_V4 = (p_row(j, j) for j in range(V1, V1 + 4))
_VAR_H, _VAR_W, _VAR_Z, _VAR_R, _VAR_Q = (p_row(j, j) for j in (H, W, Z, R, Q))


@kernel
def estimator_init(config: EstimatorConfig, state: EstimatorState, soc: Any, soc_std: Any, degc: np.float32) -> None:
    """Start the filters at `soc` with standard deviation `soc_std`, float32 (n,); all of `state` is written.

    The RC voltages start at zero with the uncertainty of a recent current at `degc`. The hysteresis starts in the
    middle of its range. Lanes without a cell start as the last cell does.
    """
    k1 = config.scalars[0]
    sh = state.shared[0]
    n_lanes = state.flags.shape[0]
    state.blocks[:] = _ZERO
    state.out[:] = _ZERO
    state.flags[:] = np.uint8(0)
    state.work[:] = _ZERO
    state.node[:] = i4(0)
    sh.bias_a = _ZERO
    sh.bias_var = k1.bias_std * k1.bias_std
    sh.last_a = _ZERO
    sh.sign = _ZERO
    sh.slow_s = _ZERO
    sh.steps = np.uint32(0)
    at = i4(min(max((degc - k1.degc_first) * k1.nodes_per_kelvin + _HALF, _ZERO), f4(N_DEGC - 1)))
    middle = config.nodes[(at * N_SOC + N_SOC // 2) * NODE : (at * N_SOC + N_SOC // 2 + 1) * NODE]
    rc1, rc2 = middle[R1] * k1.rc_prior_a, middle[R2] * k1.rc_prior_a
    rc3, rc4 = middle[R3] * k1.rc_prior_a, middle[R4] * k1.rc_prior_a
    for c in range(n_lanes):
        k = min(c, soc.shape[0] - 1)
        f = state.blocks[c // LANES * (BLOCK_ROWS * LANES) + c % LANES :]
        f[_VAR_V1 * LANES] = rc1 * rc1 + _SMALL
        f[_VAR_V2 * LANES] = rc2 * rc2 + _SMALL
        f[_VAR_V3 * LANES] = rc3 * rc3 + _SMALL
        f[_VAR_V4 * LANES] = rc4 * rc4 + _SMALL
        f[_VAR_H * LANES] = _HYSTERESIS_VAR
        f[_VAR_W * LANES] = middle[W_STD] * middle[W_STD] + _SMALL
        f[_VAR_Z * LANES] = soc_std[k] * soc_std[k] + _SMALL
        f[_VAR_R * LANES] = k1.r_std * k1.r_std
        f[_VAR_Q * LANES] = k1.q_std * k1.q_std
        f[Z * LANES] = soc[k]
        state.out[SOC * n_lanes + c] = min(max(soc[k], _ZERO), _ONE)
        state.out[SOC_STD * n_lanes + c] = np.sqrt(f[_VAR_Z * LANES])


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
    predicted only. Values that no cell can show (more than 100 V, more than 100 C) count as missing, so that a number
    from a broken link cannot overflow the filter.
    """
    k1 = config.scalars[0]
    sh = state.shared[0]
    w = state.work
    n = cell_v.shape[0]
    n_lanes = state.flags.shape[0]
    status = i4(STATUS_OK)

    if not dt_s > _ZERO:  # also NaN: no time has passed
        dt_s = _ZERO
    dt_s = min(dt_s, _DT_MAX_S)
    # one current for all cells
    i_now = current_a
    current_var = k1.current_std * k1.current_std * max(dt_s, _ONE)  # a white error averages down within a second only
    if not abs(current_a) < _ABSURD_C * k1.capacity_ah or current_quality != 0:
        status |= i4(STATUS_CURRENT_BAD)
        i_now = sh.last_a
        doubt = abs(i_now) + f4(0.1) * k1.capacity_ah
        current_var += doubt * doubt * _CURRENT_CORR_S / max(dt_s, f4(1e-3))
    i_mid = (_HALF * (i_now + sh.last_a) if sh.steps > 0 else i_now) - sh.bias_a
    i_end = i_now - sh.bias_a
    sh.last_a = i_now
    if abs(i_end) > f4(0.01) * k1.capacity_ah:
        sh.sign = _ONE if i_end > _ZERO else -_ONE
    bent = i_end / k1.bend_a
    rc_std = k1.rc_noise * i_mid
    moved = k1.rate * dt_s * i_mid

    sh.slow_s += dt_s
    slow = sh.slow_s >= k1.slow_period_s
    slow_h = _ZERO
    bias_ratio = _ONE
    bias_rest = _ZERO
    if slow:
        slow_h = sh.slow_s / _HOUR
        sh.slow_s = _ZERO
        grown = sh.bias_var + k1.bias_walk * k1.bias_walk * slow_h
        if grown > _ZERO:
            bias_ratio = sh.bias_var / grown
            bias_rest = sh.bias_var * (_ONE - bias_ratio)
        sh.bias_var = grown

    u = StepValues(
        dt_s,
        i_mid,
        i_end,
        k1.bend_a * asinhf(bent),
        _ONE / np.sqrt(_ONE + bent * bent),
        -_ONE if i_mid > _ZERO else _ONE,
        sh.sign,
        one_minus_exp(dt_s / k1.tau1_s),
        one_minus_exp(dt_s / k1.tau2_s),
        one_minus_exp(dt_s / k1.tau3_s),
        one_minus_exp(dt_s / k1.tau4_s),
        one_minus_exp(dt_s / k1.tau_w_s + abs(moved) / k1.soc_w),
        current_var,
        rc_std * rc_std,
        sh.bias_var,
        _ONE / np.sqrt(sh.bias_var),
    )
    soc = state.out[SOC * n_lanes : (SOC + 1) * n_lanes]
    soc_std = state.out[SOC_STD * n_lanes : (SOC_STD + 1) * n_lanes]
    model_v = state.out[MODEL_V * n_lanes : (MODEL_V + 1) * n_lanes]
    innovation = state.out[INNOVATION * n_lanes : (INNOVATION + 1) * n_lanes]
    clear_sums(w)
    for first in range(0, n_lanes, LANES):
        last = first + LANES
        f = state.blocks[first * BLOCK_ROWS : last * BLOCK_ROWS]
        here = min(last, n)
        gather(w, state.node, f, cell_v[first:here], cell_v_quality[first:here], cell_degc[first:here], k1, moved)
        if slow:
            add_slow(f, k1.r_walk * k1.r_walk * slow_h, k1.q_walk * k1.q_walk * slow_h, bias_rest, bias_ratio)
        look_up(w, state.node, config.nodes, state.blocks, (last + _AHEAD) * BLOCK_ROWS)
        update(f, w, state.flags[first:last], model_v[first:last], innovation[first:last], k1, u)

    # the bias, from all cells together, and its effect on each of them
    info, pull, all_ok = total(w)
    if not all_ok:
        status |= i4(STATUS_VOLTAGE_BAD)
    share = _ONE / (_ONE + f4(n - 1) * k1.common)
    sh.bias_var = sh.bias_var / (_ONE + sh.bias_var * info * share)
    step_b = sh.bias_var * pull * share
    sh.bias_a += step_b
    for first in range(0, n_lanes, LANES):
        last = first + LANES
        f = state.blocks[first * BLOCK_ROWS : last * BLOCK_ROWS]
        share_bias(f, soc[first:last], soc_std[first:last], step_b, sh.bias_var, k1.soc_floor * k1.soc_floor)
    sh.steps += np.uint32(1)
    return status
