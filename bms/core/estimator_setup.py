"""From cell parameters to the arrays of the estimator: resampled maps, filter tuning, initial state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bms.core import estimator_layout as e
from bms.core.estimator import estimator_init
from bms.core.layout import CONFIG, STATE
from hal.contract import LANES

Array = npt.NDArray[np.float64]
DEGC_FIRST, DEGC_STEP = -30.0, 5.0
_KELVIN = 273.15

TUNING: dict[str, float] = {
    "tau_w_s": 86400.0,
    "soc_w": 0.15,
    "slow_share": 0.18,
    "voltage_std": 0.08,
    "model_corr": 1100.0,
    "knee_corr": 800.0,
    "current_std_c": 0.001,
    "bias_std_c": 0.012,
    "bias_walk_c": 0.00025,
    "rc_noise": 0.04,
    "h_noise": 0.17,
    "r_std": 0.1,
    "r_walk": 0.03,
    "q_std": 0.01,
    "q_walk": 0.0002,
    "rc_prior_c": 0.2,
    "common": 0.5,
    "wide_soc": 0.08,
    "observable_soc": 0.02,
    "soc_floor": 0.003,
    "slow_period_s": 60.0,
}
"""One tuning for all cells; names ending in `_c` are relative to the capacity (1 C). A cell file may override them."""


class CellModel(Protocol):
    """What the estimator needs of a cell file (`bms.cells.CellParameters` has it all)."""

    @property
    def soc(self) -> Array:
        """Nodes of `ocv_v` and `hysteresis_v`, 0..1 rising, (n_soc,)."""

    @property
    def soc_r(self) -> Array:
        """Nodes of the resistances, 0..1 rising, (n_soc_r,)."""

    @property
    def degc(self) -> Array:
        """Nodes over temperature, rising, (n_degc,)."""

    @property
    def ocv_v(self) -> Array:
        """Open-circuit voltage without hysteresis, (n_degc, n_soc)."""

    @property
    def hysteresis_v(self) -> Array:
        """M: half the gap of the full hysteresis loop, (n_degc, n_soc)."""

    @property
    def r0_ohm(self) -> Array:
        """Ohmic resistance, (n_degc, n_soc_r)."""

    @property
    def r_ohm(self) -> Array:
        """Resistances of the RC pairs, (4, n_degc, n_soc_r)."""

    @property
    def rct_ohm(self) -> Array:
        """Slope of the charge-transfer overpotential at small current, (n_degc, n_soc_r)."""

    @property
    def bend_a(self) -> float:
        """Current at which that overpotential bends, A."""

    @property
    def tau_s(self) -> Array:
        """Time constants of the RC pairs, (4,)."""

    @property
    def capacity(self) -> Array:
        """Capacity in Ah, (n_degc,)."""

    @property
    def coulombic_efficiency(self) -> Array:
        """Charge out per charge in, (n_degc,)."""

    @property
    def gamma(self) -> Array:
        """Rate of the hysteresis, (n_degc,)."""

    @property
    def hysteresis_instant_v(self) -> Array:
        """M0: step with the sign of the current, (n_degc,)."""

    @property
    def voltage_error_v(self) -> Array:
        """Slow error of the voltage model, (n_degc,)."""

    @property
    def knee_error_soc(self) -> Array:
        """How far a step of the OCV curve may be misplaced, (n_degc,)."""

    @property
    def filter(self) -> Mapping[str, float]:
        """Entries of `TUNING` that this cell overrides."""


def _over_temperature(table: Array, degc: Array, at: Array, *, arrhenius: bool = False) -> Array:
    """Interpolate rows of `table` given at `degc` to the temperatures `at`; `arrhenius`: log-linear in 1/T.

    Outside the nodes the last row holds, except that resistances go on with the slope of the last two nodes, the median
    of all columns: that of one column alone is mostly the noise of two measurements.
    """
    if degc.size == 1:
        return np.repeat(table, at.size, axis=0)
    if not arrhenius:
        return np.stack([np.interp(at, degc, column) for column in table.T], axis=1)
    axis, want = -1.0 / (degc + _KELVIN), -1.0 / (at + _KELVIN)
    logs = np.log(np.maximum(table, 1e-9))
    k = np.clip(np.searchsorted(axis, want) - 1, 0, degc.size - 2)
    fraction = (want - axis[k]) / (axis[k + 1] - axis[k])
    slope = logs[k + 1] - logs[k]
    outside = (fraction < 0) | (fraction > 1)
    slope[outside] = np.median(slope[outside], axis=1, keepdims=True)
    result: Array = np.exp(logs[k] + fraction[:, None] * slope)
    return result


def _slope(ocv: Array, z: Array, half: int) -> Array:
    """dOCV/dz, smoothed over `half` nodes to both sides: what a correction of that size will meet."""
    left = np.maximum(np.arange(z.size) - half, 0)
    right = np.minimum(np.arange(z.size) + half, z.size - 1)
    result: Array = (ocv[:, right] - ocv[:, left]) / (z[right] - z[left])
    return result


def estimator_config(cell: CellModel, tuning: Mapping[str, float] | None = None) -> e.EstimatorConfig:
    """Resample the tables of `cell` to the uniform axes of the kernel and fill in the filter tuning.

    `tuning` overrides single entries of `TUNING` (and of the cell file). Raises KeyError for an unknown entry.
    """
    z = np.linspace(0.0, 1.0, e.N_SOC)
    degc: Array = DEGC_FIRST + DEGC_STEP * np.arange(e.N_DEGC, dtype=np.float64)

    def smooth(table: Array, axis: Array) -> Array:
        return np.stack([np.interp(z, axis, row) for row in table])

    def resistance(table: Array) -> Array:
        return _over_temperature(smooth(table, cell.soc_r), cell.degc, degc, arrhenius=True)

    def row(values: Array) -> Array:
        result: Array = np.interp(degc, cell.degc, values)
        return result

    ocv = _over_temperature(smooth(cell.ocv_v, cell.soc), cell.degc, degc)
    nodes = np.zeros((degc.size, z.size, e.NODE), np.float32)
    nodes[..., e.OCV] = ocv
    nodes[..., e.SLOPE] = _slope(ocv, z, 2)
    nodes[..., e.WIDE] = _slope(ocv, z, 16)
    nodes[..., e.M] = _over_temperature(smooth(cell.hysteresis_v, cell.soc), cell.degc, degc)
    nodes[..., e.R0] = resistance(cell.r0_ohm)
    nodes[..., e.RCT] = resistance(cell.rct_ohm)
    for j in range(e.NRC):
        nodes[..., e.R1 + j] = resistance(cell.r_ohm[j])
    for parameter, values in (
        (e.GAMMA, cell.gamma),
        (e.M0, cell.hysteresis_instant_v),
        (e.W_STD, cell.voltage_error_v),
        (e.W_KNEE, cell.knee_error_soc),
        (e.ETA, cell.coulombic_efficiency),
    ):
        nodes[..., parameter] = row(values)[:, None]
    nodes[..., e.RATE] = 1.0 / (3600.0 * row(cell.capacity))[:, None]

    values_ = dict(TUNING)
    for source in (cell.filter, tuning or {}):
        for key, value in source.items():
            if key not in values_:
                raise KeyError(key)
            values_[key] = value
    capacity_ah = float(np.interp(25.0, cell.degc, cell.capacity))
    scalars = np.zeros(1, CONFIG.head_dtype)
    scalars["nodes_per_soc"], scalars["nodes_per_kelvin"] = e.N_SOC - 1, 1.0 / DEGC_STEP
    scalars["degc_first"] = DEGC_FIRST
    scalars["capacity_ah"], scalars["rate"] = capacity_ah, 1.0 / (3600.0 * capacity_ah)
    scalars["bend_a"] = cell.bend_a
    for j, tau_s in enumerate(cell.tau_s):
        scalars[f"tau{j + 1}_s"] = tau_s
    for key, value in values_.items():
        if key.endswith("_c"):
            renamed = {"rc_prior_c": "rc_prior_a"}.get(key, key[:-2])
            scalars[renamed] = value * capacity_ah
        else:
            scalars[key] = value
    return e.EstimatorConfig(scalars, nodes.ravel())


def lanes_of(n_cells: int) -> int:
    """`n_cells` rounded up to whole blocks."""
    return -(-n_cells // LANES) * LANES


def rows_view(blocks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The rows of all blocks as (BLOCK_ROWS, n_blocks, LANES): a view, for writing as well."""
    return blocks.reshape(-1, e.BLOCK_ROWS, LANES).transpose(1, 0, 2)


def cell_rows(blocks: npt.NDArray[np.float32], n_cells: int) -> npt.NDArray[np.float32]:
    """The rows of the first `n_cells` cells as (BLOCK_ROWS, n_cells): a copy."""
    return rows_view(blocks).reshape(e.BLOCK_ROWS, -1)[:, :n_cells]


def estimator_state(
    config: e.EstimatorConfig,
    n_cells: int,
    soc: float | npt.ArrayLike,
    soc_std: float | npt.ArrayLike,
    *,
    degc: float = 25.0,
) -> e.EstimatorState:
    """Filters for `n_cells` cells that start at `soc` with standard deviation `soc_std` (scalars or (n_cells,))."""
    n_lanes = lanes_of(n_cells)
    state = e.EstimatorState(
        blocks=np.zeros(n_lanes * e.BLOCK_ROWS, np.float32),
        shared=np.zeros(1, STATE.head_dtype),
        out=np.zeros(e.OUT_ROWS * n_lanes, np.float32),
        flags=np.zeros(n_lanes, np.uint8),
        work=np.zeros(e.WORK, np.float32),
        node=np.zeros(LANES, np.int32),
    )
    estimator_init(config, state, per_cell(soc, n_cells), per_cell(soc_std, n_cells), np.float32(degc))
    return state


def per_cell(values: float | npt.ArrayLike, n_cells: int) -> npt.NDArray[np.float32]:
    """`values` (a scalar or (n_cells,)) as one float32 per cell."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(values, np.float32), (n_cells,)))


def soc_prior(
    cell: Any, cell_v: npt.ArrayLike, degc: npt.ArrayLike, *, extra_v: float = 0.0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """First guess of SoC and its standard deviation from voltages measured at rest.

    All SoC whose OCV, with any hysteresis, an RC remainder and the model error, could show that voltage are equally
    likely: mean and spread of that range. On a plateau the spread is large, and it should be.

    cell_v, degc: (n,). extra_v: further error of the voltages, V, where they were not quite at rest.
    A voltage that is not finite gives 0.5 with the spread of no knowledge (0.29).
    """
    z = np.linspace(0.0, 1.0, 401)
    v = np.atleast_1d(np.asarray(cell_v, np.float64))
    t = np.broadcast_to(np.asarray(degc, np.float64), v.shape)
    soc = np.full(v.shape, 0.5, np.float32)
    std = np.full(v.shape, 0.29, np.float32)
    for key in {round(float(x), 0) for x in t if np.isfinite(x)}:
        at = np.array([key])
        ocv = _over_temperature(cell.ocv_v, cell.degc, at)[0]
        m = _over_temperature(cell.hysteresis_v, cell.degc, at)[0]
        error = extra_v + 0.005 + 2.0 * float(np.interp(key, cell.degc, cell.voltage_error_v))
        ocv_z = np.interp(z, cell.soc, ocv)
        low = ocv_z - np.interp(z, cell.soc, m) - error
        high = ocv_z + np.interp(z, cell.soc, m) + error
        for k in np.flatnonzero((np.round(t) == key) & np.isfinite(v)):
            outside_v = np.maximum(low - v[k], v[k] - high)
            likely = z[outside_v <= 0.0]
            if likely.size == 0:  # beyond an end, or where the curve is so steep that it lies between two points
                likely = z[[np.argmin(outside_v)]]
            soc[k] = 0.5 * (likely[0] + likely[-1])
            std[k] = max((likely[-1] - likely[0]) / np.sqrt(12.0), 0.01)
    return soc, std
