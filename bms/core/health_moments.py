"""What a voltage tells of the state of charge, without the filter's own idea of it.

The SoC of a moment is read from the voltage alone, less what polarisation and hysteresis the filter knows of; the
filter's SoC, which contains its own idea of the capacity, is not used: an estimate made of it would confirm itself.
"""

from __future__ import annotations

import numpy as np

from bms.core.estimator_layout import (
    BLOCK_ROWS,
    INNOVATION,
    M0,
    MODEL_V,
    N_DEGC,
    N_SOC,
    NODE,
    OCV,
    R0,
    RCT,
    SKIPPED,
    SLOPE,
    V1,
    V2,
    V3,
    V4,
    W_KNEE,
    W_STD,
    EstimatorConfig,
    EstimatorState,
    H,
    M,
    R,
    Z,
    p_row,
)
from bms.core.health_layout import DROP_SHARE, MODEL_ERROR_V, OFFSET_V, WHITE_V, HealthConfig
from bms.core.jit import f4, kernel
from bms.core.mathf import asinhf, expf
from hal.contract import F4, LANES

_ZERO, _HALF, _ONE = f4(0.0), f4(0.5), f4(1.0)
_NAN = f4(np.nan)
_INFINITE = f4(np.inf)
_NEAR = 2  # nodes to each side within which the curve must be as steep
_STEPS = 8  # halvings that find one of 2**8 > N_SOC nodes
_VAR_H, _VAR_R = p_row(H, H), p_row(R, R)


@kernel
def blended(nodes: F4, at: int, ft: f4, column: int) -> f4:
    """A parameter at the node `at` (of the colder row) and `ft` of the way to the warmer row."""
    cold = nodes[at * NODE + column]
    value: f4 = cold + ft * (nodes[(at + N_SOC) * NODE + column] - cold)
    return value


@kernel
def row_of(degc_first: f4, nodes_per_kelvin: f4, degc: f4) -> tuple[int, f4]:
    """First node of the row of the table on the cold side of `degc`, and how far it is to the next row, 0..1."""
    at = min(max((degc - degc_first) * nodes_per_kelvin, _ZERO), f4(N_DEGC - 1))
    t = min(int(at), N_DEGC - 2)
    return t * N_SOC, at - f4(t)


@kernel
def nearest(z: f4) -> int:
    """The node of the table next to the SoC `z`."""
    z = z if z > _ZERO else _ZERO  # also NaN
    z = z if z < _ONE else _ONE
    return int(z * f4(N_SOC - 1) + _HALF)


@kernel
def drop_v(estimator: EstimatorConfig, filter_: EstimatorState, k: int, here: int, ft: f4) -> f4:
    """Polarisation of cell `k` as its type has it (scale 1) at the present current, V."""
    k1 = estimator.scalars[0]
    shared = filter_.shared[0]
    f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]
    i = shared.last_a - shared.bias_a
    bent = k1.bend_a * asinhf(i / k1.bend_a)
    slow = (f[V1 * LANES] + f[V2 * LANES]) + (f[V3 * LANES] + f[V4 * LANES])
    fast = blended(estimator.nodes, here, ft, R0) * i + blended(estimator.nodes, here, ft, RCT) * bent
    drop: f4 = slow + fast
    return drop


@kernel
def known_soc(
    config: HealthConfig, estimator: EstimatorConfig, filter_: EstimatorState, k: int, degc: f4
) -> tuple[f4, f4, f4]:
    """SoC of cell `k` as its voltage alone tells it, and the variances that pass and that last; NaN if it does not.

    OCV + M h = v - M0 s + e^r (v_1 + .. + v_4 + R0 i + Rct i_b asinh(i / i_b)), solved for the SoC of the left side.
    """
    c = config.number
    k1 = estimator.scalars[0]
    shared = filter_.shared[0]
    nodes = estimator.nodes
    n_lanes = filter_.flags.shape[0]
    v = filter_.out[MODEL_V * n_lanes + k] + filter_.out[INNOVATION * n_lanes + k]
    if not abs(v) < _INFINITE or filter_.flags[k] & SKIPPED != 0 or not abs(degc) < f4(1000.0):
        return _NAN, _NAN, _NAN
    f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]

    row, ft = row_of(k1.degc_first, k1.nodes_per_kelvin, degc)
    here = row + nearest(f[Z * LANES])
    drop = drop_v(estimator, filter_, k, here, ft)
    drop = drop * expf(f[R * LANES])
    left = v + drop - blended(nodes, here, ft, M0) * shared.sign
    h = f[H * LANES]

    low, high = 0, N_SOC - 1
    for _ in range(_STEPS):
        middle = (low + high) // 2
        if blended(nodes, row + middle, ft, OCV) + h * blended(nodes, row + middle, ft, M) <= left:
            low = middle
        else:
            high = middle
    low = min(low, N_SOC - 2)
    below = blended(nodes, row + low, ft, OCV) + h * blended(nodes, row + low, ft, M)
    above = blended(nodes, row + low + 1, ft, OCV) + h * blended(nodes, row + low + 1, ft, M)
    if not (left >= below and left <= above and above > below):
        return _NAN, _NAN, _NAN
    soc = (f4(low) + (left - below) / (above - below)) / f4(N_SOC - 1)

    slope = blended(nodes, row + low, ft, SLOPE)
    slope = min(slope, blended(nodes, row + max(low - _NEAR, 0), ft, SLOPE))
    slope = min(slope, blended(nodes, row + min(low + _NEAR, N_SOC - 1), ft, SLOPE))
    if not slope > _ZERO:
        return _NAN, _NAN, _NAN
    per_v = _ONE / slope
    m = blended(nodes, row + low, ft, M)
    drop_var = (c[DROP_SHARE] * c[DROP_SHARE] + f[_VAR_R * LANES]) * drop * drop
    passing = (drop_var + m * m * f[_VAR_H * LANES] + c[WHITE_V] * c[WHITE_V]) * per_v * per_v
    w, knee = blended(nodes, row + low, ft, W_STD), blended(nodes, row + low, ft, W_KNEE)
    lasting = (w * w + c[MODEL_ERROR_V] * c[MODEL_ERROR_V] + c[OFFSET_V] * c[OFFSET_V]) * per_v * per_v + knee * knee
    return soc, passing, lasting
