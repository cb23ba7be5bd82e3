"""Layout of the estimator: rows of a block, parameters of a node, settings, state. See `bms.core.estimator`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hal.contract import LANES, Field

# rows of a block: the states of its cells,
V1, V2, V3, V4, H, W, Z, R, Q = range(9)
NX = 9
NRC = 4
Z_LOW = NX  # low part of z: increments below half an ulp of z are kept here
# then the upper triangle of the covariance, column by column, then the sensitivities to the bias
P_FIRST = NX + 1
N_P = NX * (NX + 1) // 2
S_FIRST = P_FIRST + N_P
BLOCK_ROWS = S_FIRST + NX
BLOCK = BLOCK_ROWS * LANES


def p_row(i: int, j: int) -> int:
    """Row of the covariance of states `i` and `j` in a block."""
    low, high = min(i, j), max(i, j)
    return P_FIRST + high * (high + 1) // 2 + low


# parameters at a node of the table over (temperature, SoC)
OCV, SLOPE, M, R0, R1, R2, R3, R4, RCT, GAMMA, M0, W_STD, W_KNEE, RATE, ETA, WIDE = range(16)
NODE = 16  # numbers per node
N_SOC = 201  # nodes over SoC, 0..1
N_DEGC = 19  # nodes over temperature

# outputs
SOC, SOC_STD, MODEL_V, INNOVATION = range(4)
OUT_ROWS = 4
OBSERVABLE = np.uint8(1)  # the voltage now tells the SoC to better than `observable_soc`
SKIPPED = np.uint8(2)  # no usable voltage: prediction only

STATUS_OK = 0
STATUS_CURRENT_BAD = 1  # the current was unusable: the last good one was used, with a larger uncertainty
STATUS_VOLTAGE_BAD = 2  # at least one cell was skipped

SETTINGS = (
    Field("nodes_per_soc", "f4", "nodes of the table per unit of SoC"),
    Field("degc_first", "f4", "first node of the temperature axis"),
    Field("nodes_per_kelvin", "f4", "and per kelvin"),
    Field("capacity_ah", "f4", "at 25 degC: what '1 C' means"),
    Field("rate", "f4", "SoC per ampere-second at 25 degC"),
    Field("tau1_s", "f4", "time constant of the first RC pair"),
    Field("tau2_s", "f4", "of the second"),
    Field("tau3_s", "f4", "of the third"),
    Field("tau4_s", "f4", "of the fourth"),
    Field("bend_a", "f4", "i_b, current at which the charge-transfer overpotential bends"),
    Field("tau_w_s", "f4", "correlation time of the voltage-model error at rest"),
    Field("soc_w", "f4", "and SoC moved after which it is another one"),
    Field("slow_share", "f4", "of the voltage of the slowest RC pair, the part that is an error of the model"),
    Field("voltage_std", "f4", "white voltage error at 1 Hz of sensor and model, V"),
    Field("model_corr", "f4", "white equivalent of the slow model error: samples at 1 Hz that share it"),
    Field("knee_corr", "f4", "white equivalent of a misplaced OCV step: samples at 1 Hz that share its error"),
    Field("current_std", "f4", "white error of the mean current of one second, A"),
    Field("bias_std", "f4", "prior of the current-sensor bias, A"),
    Field("bias_walk", "f4", "random walk of the bias, A/sqrt(h)"),
    Field("rc_noise", "f4", "stationary error of each RC voltage, relative to R_j |i|"),
    Field("h_noise", "f4", "stationary error of the hysteresis state while current flows"),
    Field("r_std", "f4", "prior of the logarithm of the resistance scale"),
    Field("r_walk", "f4", "its random walk, 1/sqrt(h)"),
    Field("q_std", "f4", "prior of the relative capacity error"),
    Field("q_walk", "f4", "its random walk, 1/sqrt(h)"),
    Field("rc_prior_a", "f4", "prior of the RC states: as after a current of this size"),
    Field("common", "f4", "rho: how alike the model errors of two cells of the string are, 0..1"),
    Field("wide_soc", "f4", "deviation of SoC from which on the slope is that of a wide piece of the OCV curve"),
    Field("observable_soc", "f4", "an error of SoC that the voltage must be able to tell, for the flag"),
    Field("soc_floor", "f4", "smallest standard deviation that is ever reported"),
    Field("slow_period_s", "f4", "how often the slow noises (r, q, bias) are added"),
)
"""Scalars of the cell type and of the filter."""

SHARED = (
    Field("bias_a", "f4", "estimated bias of the current sensor, A"),
    Field("bias_var", "f4", "its variance, A^2"),
    Field("last_a", "f4", "current of the previous step"),
    Field("sign", "f4", "sign of the last non-zero current"),
    Field("slow_s", "f4", "time since the slow noises were added"),
    Field("steps", "u4", "counts steps"),
)
"""State that the cells of the string have in common."""

# rows of the scratch: 8 of the step, the parameters, and room to transpose them
WORK_ROWS = 8
WORK = (WORK_ROWS + 2 * NODE) * LANES


class EstimatorConfig(NamedTuple):
    """Parameters of the cell type and of the filter; constant during a run."""

    scalars: npt.NDArray[Any]  # (1,) with `SETTINGS`
    nodes: npt.NDArray[np.float32]  # (N_DEGC * N_SOC * NODE,)


class EstimatorState(NamedTuple):
    """All state of the filter for n cells in ceil(n / LANES) blocks; copying the arrays copies the filter."""

    blocks: npt.NDArray[np.float32]  # (n_blocks * BLOCK,) rows of a block one after the other
    shared: npt.NDArray[Any]  # (1,) with `SHARED`
    out: npt.NDArray[np.float32]  # (OUT_ROWS * n_blocks * LANES,)
    flags: npt.NDArray[np.uint8]  # (n_blocks * LANES,)
    work: npt.NDArray[np.float32]  # (WORK,) scratch
    node: npt.NDArray[np.int32]  # (LANES,) scratch
