"""Resistance of each cell relative to its type, from two sources.

What the voltage answers within three to six seconds to a change of the current, regressed on what the parameters of the
type answer (ohmic resistance, charge transfer, RC pairs of the filter; the OCV moves by its slope)::

    dv - OCV' dz - d(M h + M0 s) = -R d(R0 i + Rct i_b asinh(i / i_b) + v_1 + .. + v_4)

by least squares with fading memory, a few cells at a time. Hysteresis does not grow with the resistance, and in LFP is
a tenth of what the voltage answers. The other source is the filter's r (logarithm of one scale on all resistances,
minutes included), averaged over the moments with enough current. Either errs by what the parameters of the type are
wrong at its time scale, the filter by more: hysteresis that the cell file does not have is resistance to it. Both
together, weighted by their variances, are the result.
"""

from __future__ import annotations

import numpy as np

from bms.core.estimator_layout import (
    BLOCK_ROWS,
    INNOVATION,
    M0,
    MODEL_V,
    SLOPE,
    EstimatorConfig,
    EstimatorState,
    H,
    M,
    R,
    Z,
    p_row,
)
from bms.core.health_layout import (
    B_DROP,
    B_SOC,
    B_VOLT,
    BEFORE_A,
    BEFORE_AT,
    BEFORE_S,
    CHANGE_A,
    PERIOD_S,
    R_FADE,
    R_MEAN,
    R_MIN_A,
    R_STD,
    R_VAR,
    R_WEIGHT,
    ROWS,
    STEP_DD,
    STEP_DV,
    WATCHED,
    WATCHING,
    WHITE_V,
    HealthConfig,
    HealthState,
)
from bms.core.health_moments import blended, drop_v, nearest, row_of
from bms.core.jit import f4, kernel
from bms.core.mathf import expf
from hal.contract import F4, LANES

_ZERO, _ONE, _TWO = f4(0.0), f4(1.0), f4(2.0)
# between the two samples of a change: by then what the type and the filter have as one fast part has settled
STEP_MIN_S = f4(2.9)
_STEP_MAX_S = f4(6.1)
_STEP_MAX_V = f4(2.0)
_SOC_LOW, _SOC_HIGH = f4(0.2), f4(0.95)  # within, resistances hardly depend on the SoC
_R_VAR_LEFT = f4(1.0 / 9.0)  # of the filter's variance of r after the mean over days, of which some hours are alike
_FILTER_TYPE_VAR = f4(0.1 * 0.1)  # what the type is wrong at the filter's time scale, hysteresis included, relative
_VAR_R = p_row(R, R)


@kernel
def _publish(config: HealthConfig, state: HealthState, k: int) -> None:
    """Publish the resistance of cell `k`: from the changes of the current and from the filter, by their variances."""
    c = config.number
    cell = state.cell[k * ROWS : (k + 1) * ROWS]
    weight = _ZERO
    mean = _ZERO
    if cell[STEP_DD] > _ZERO:
        scale = cell[STEP_DV] / cell[STEP_DD]
        told = _ONE / (_TWO * c[WHITE_V] * c[WHITE_V] / cell[STEP_DD] + scale * scale * c[R_STD] * c[R_STD])
        weight += told
        mean += told * scale
    if cell[R_WEIGHT] > _ZERO:
        scale = expf(cell[R_MEAN])
        told = _ONE / (scale * scale * (cell[R_VAR] * _R_VAR_LEFT + _FILTER_TYPE_VAR))
        weight += told
        mean += told * scale
    if weight > _ZERO:
        state.resistance[k] = mean / weight
        state.resistance_std[k] = np.sqrt(_ONE / weight)


@kernel
def take_from_filter(config: HealthConfig, state: HealthState, filter_: EstimatorState, k: int) -> None:
    """Let what is known of the resistance of cell `k` fade, add what the filter believes, and publish the result."""
    c, number = config.number, state.number
    cell = state.cell[k * ROWS : (k + 1) * ROWS]
    f = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES :]
    r, r_var = f[R * LANES], f[_VAR_R * LANES]
    cell[R_WEIGHT] = cell[R_WEIGHT] * (_ONE - number[R_FADE])
    cell[STEP_DD] = cell[STEP_DD] * (_ONE - number[R_FADE])
    cell[STEP_DV] = cell[STEP_DV] * (_ONE - number[R_FADE])
    inside = f[Z * LANES] > _SOC_LOW and f[Z * LANES] < _SOC_HIGH
    if inside and abs(filter_.shared[0].last_a) >= c[R_MIN_A] and r_var > _ZERO and abs(r) < f4(10.0):
        weight = c[PERIOD_S] / r_var
        cell[R_WEIGHT] += weight
        share = weight / cell[R_WEIGHT]
        cell[R_MEAN] += share * (r - cell[R_MEAN])
        cell[R_VAR] += share * (r_var - cell[R_VAR])
    _publish(config, state, k)


@kernel
def _without_hysteresis_v(estimator: EstimatorConfig, filter_: EstimatorState, k: int, here: int, ft: f4) -> f4:
    """Voltage of cell `k` as measured, less what its hysteresis has of it, V."""
    n_lanes = filter_.flags.shape[0]
    h = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES + H * LANES]
    v = filter_.out[MODEL_V * n_lanes + k] + filter_.out[INNOVATION * n_lanes + k]
    left: f4 = (
        v - blended(estimator.nodes, here, ft, M) * h - blended(estimator.nodes, here, ft, M0) * filter_.shared[0].sign
    )
    return left


@kernel
def _before(state: HealthState, estimator: EstimatorConfig, filter_: EstimatorState, j: int, k: int, degc: f4) -> None:
    """Take down cell `k` as it is before a change, in place `j`."""
    k1 = estimator.scalars[0]
    z = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES + Z * LANES]
    row, ft = row_of(k1.degc_first, k1.nodes_per_kelvin, degc)
    here = row + nearest(z)
    state.before[B_VOLT + j] = _without_hysteresis_v(estimator, filter_, k, here, ft)
    state.before[B_SOC + j] = z
    state.before[B_DROP + j] = drop_v(estimator, filter_, k, here, ft)


@kernel
def _after(state: HealthState, estimator: EstimatorConfig, filter_: EstimatorState, j: int, k: int, degc: f4) -> None:
    """Compare cell `k` with place `j`, as it was before the change, and add what that tells of its resistance."""
    k1 = estimator.scalars[0]
    z = filter_.blocks[k // LANES * (BLOCK_ROWS * LANES) + k % LANES + Z * LANES]
    row, ft = row_of(k1.degc_first, k1.nodes_per_kelvin, degc)
    here = row + nearest(z)
    dv = _without_hysteresis_v(estimator, filter_, k, here, ft) - state.before[B_VOLT + j]
    dv = dv - blended(estimator.nodes, here, ft, SLOPE) * (z - state.before[B_SOC + j])
    dd = drop_v(estimator, filter_, k, here, ft) - state.before[B_DROP + j]
    inside = z > _SOC_LOW and z < _SOC_HIGH
    if inside and abs(dv) < _STEP_MAX_V and abs(dd) < _STEP_MAX_V and -dv * dd < f4(5.0) * dd * dd:
        cell = state.cell[k * ROWS : (k + 1) * ROWS]
        cell[STEP_DD] += dd * dd
        cell[STEP_DV] -= dd * dv


@kernel
def compare_change(
    config: HealthConfig,
    state: HealthState,
    estimator: EstimatorConfig,
    filter_: EstimatorState,
    cell_degc: F4,
    flowing: bool,
) -> None:
    """Compare a few cells before and after a change of the current, then go on to the next few.

    `flowing`: the current is known; without it nothing is compared.
    """
    number, word = state.number, state.word
    n = state.capacity.shape[0]
    now_a = filter_.shared[0].last_a
    first = int(word[BEFORE_AT])
    if word[WATCHING] != 0:
        change = abs(now_a - number[BEFORE_A]) >= config.number[CHANGE_A] and number[BEFORE_S] <= _STEP_MAX_S
        word[WATCHING] = np.uint32(0)
        if change and flowing:
            for j in range(min(WATCHED, n - first)):
                _after(state, estimator, filter_, j, first + j, cell_degc[first + j])
            first = first + WATCHED
            first = first if first < n else 0
            word[BEFORE_AT] = np.uint32(first)
    if not flowing:
        return
    for j in range(min(WATCHED, n - first)):
        _before(state, estimator, filter_, j, first + j, cell_degc[first + j])
    number[BEFORE_A] = now_a
    number[BEFORE_S] = _ZERO
    word[WATCHING] = np.uint32(1)
