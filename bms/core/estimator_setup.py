"""From cell parameters to the arrays of the estimator: resampled maps, filter tuning, initial state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bms.core import estimator as e

Array = npt.NDArray[np.float64]
N_SOC = 201
DEGC_FIRST, DEGC_LAST, DEGC_STEP = -30.0, 60.0, 5.0
_KELVIN = 273.15

TUNING: dict[str, float] = {
    "tau_w_s": 1800.0,
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

    Outside the nodes the last row holds, except that resistances go on with the slope of the last two nodes.
    """
    if degc.size == 1:
        return np.repeat(table, at.size, axis=0)
    if not arrhenius:
        return np.stack([np.interp(at, degc, column) for column in table.T], axis=1)
    axis, want = -1.0 / (degc + _KELVIN), -1.0 / (at + _KELVIN)
    logs = np.log(np.maximum(table, 1e-9))
    k = np.clip(np.searchsorted(axis, want) - 1, 0, degc.size - 2)
    fraction = (want - axis[k]) / (axis[k + 1] - axis[k])
    result: Array = np.exp(logs[k] + fraction[:, None] * (logs[k + 1] - logs[k]))
    return result


def _slope(ocv: Array, z: Array) -> Array:
    """dOCV/dz, smoothed over +-1 % SoC: what a correction of that size will meet."""
    half = 2
    left = np.maximum(np.arange(z.size) - half, 0)
    right = np.minimum(np.arange(z.size) + half, z.size - 1)
    result: Array = (ocv[:, right] - ocv[:, left]) / (z[right] - z[left])
    return result


def estimator_config(cell: CellModel, tuning: Mapping[str, float] | None = None) -> e.EstimatorConfig:
    """Resample the tables of `cell` to the uniform axes of the kernel and fill in the filter tuning.

    `tuning` overrides single entries of `TUNING` (and of the cell file). Raises KeyError for an unknown entry.
    """
    z = np.linspace(0.0, 1.0, N_SOC)
    degc = np.arange(DEGC_FIRST, DEGC_LAST + 1e-9, DEGC_STEP)

    def smooth(table: Array, axis: Array) -> Array:
        return np.stack([np.interp(z, axis, row) for row in table])

    ocv = _over_temperature(smooth(cell.ocv_v, cell.soc), cell.degc, degc)
    maps = np.empty((e.N_MAPS, degc.size, z.size), np.float32)
    maps[e.MAP_OCV] = ocv
    maps[e.MAP_SLOPE] = _slope(ocv, z)
    maps[e.MAP_M] = _over_temperature(smooth(cell.hysteresis_v, cell.soc), cell.degc, degc)
    maps[e.MAP_R0] = _over_temperature(smooth(cell.r0_ohm, cell.soc_r), cell.degc, degc, arrhenius=True)
    maps[e.MAP_RCT] = _over_temperature(smooth(cell.rct_ohm, cell.soc_r), cell.degc, degc, arrhenius=True)
    for j in range(e.NRC):
        maps[e.MAP_R1 + j] = _over_temperature(smooth(cell.r_ohm[j], cell.soc_r), cell.degc, degc, arrhenius=True)
    rows = np.empty((e.N_ROWS, degc.size), np.float32)
    for row, values in (
        (e.ROW_CAPACITY_AH, cell.capacity),
        (e.ROW_ETA, cell.coulombic_efficiency),
        (e.ROW_GAMMA, cell.gamma),
        (e.ROW_M0, cell.hysteresis_instant_v),
        (e.ROW_W_STD, cell.voltage_error_v),
        (e.ROW_W_KNEE, cell.knee_error_soc),
    ):
        rows[row] = np.interp(degc, cell.degc, values)

    values_ = dict(TUNING)
    for source in (cell.filter, tuning or {}):
        for key, value in source.items():
            if key not in values_:
                raise KeyError(key)
            values_[key] = value
    capacity_ah = float(np.interp(25.0, cell.degc, cell.capacity))
    scalars = np.zeros(1, e.SCALARS)
    scalars["z_step"], scalars["degc_first"], scalars["degc_step"] = z[1] - z[0], DEGC_FIRST, DEGC_STEP
    scalars["bend_a"] = cell.bend_a
    for j, tau_s in enumerate(cell.tau_s):
        scalars[f"tau{j + 1}_s"] = tau_s
    for key, value in values_.items():
        if key.endswith("_c"):
            renamed = {"rc_prior_c": "rc_prior_a"}.get(key, key[:-2])
            scalars[renamed] = value * capacity_ah
        else:
            scalars[key] = value
    return e.EstimatorConfig(scalars, maps, rows)


def _mean_resistance(config: e.EstimatorConfig, degc: float) -> npt.NDArray[np.float32]:
    k = int(np.clip(round((degc - DEGC_FIRST) / DEGC_STEP), 0, config.maps.shape[1] - 1))
    result: npt.NDArray[np.float32] = config.maps[e.MAP_R1 : e.MAP_R4 + 1, k, N_SOC // 2]
    return result


def estimator_state(
    config: e.EstimatorConfig,
    n_cells: int,
    soc: float | npt.ArrayLike,
    soc_std: float | npt.ArrayLike,
    *,
    degc: float = 25.0,
    h_std: float = 0.6,
) -> e.EstimatorState:
    """A filter for `n_cells` cells that starts at `soc` with standard deviation `soc_std` (scalars or (n_cells,)).

    The RC voltages start at zero with the uncertainty of a recent current. The hysteresis starts in the middle of its
    range.
    """
    k = config.scalars[0]
    state = e.EstimatorState(
        x=np.zeros((e.X_ROWS, n_cells), np.float32),
        p=np.zeros((e.P_ROWS, n_cells), np.float32),
        s=np.zeros((e.NX, n_cells), np.float32),
        shared=np.zeros(1, e.SHARED),
        out=np.zeros((e.OUT_ROWS, n_cells), np.float32),
        flags=np.zeros(n_cells, np.uint8),
        work=np.zeros((e.WORK_ROWS, n_cells), np.float32),
    )
    state.x[e.Z] = soc
    state.p[e.V1 : e.V4 + 1] = (np.square(_mean_resistance(config, degc) * k["rc_prior_a"]) + 1e-10)[:, None]
    state.p[e.H] = h_std**2
    w_std = np.interp(degc, DEGC_FIRST + DEGC_STEP * np.arange(config.rows.shape[1]), config.rows[e.ROW_W_STD])
    state.p[e.W] = w_std**2 + 1e-10
    state.p[e.Z] = np.square(np.asarray(soc_std, np.float32)) + 1e-10
    state.p[e.R] = k["r_std"] ** 2
    state.p[e.Q] = k["q_std"] ** 2
    state.shared["bias_var"] = k["bias_std"] ** 2
    state.out[e.SOC] = np.clip(state.x[e.Z], 0.0, 1.0)
    state.out[e.SOC_STD] = np.sqrt(state.p[e.Z])
    return state


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
            likely = z[(low <= v[k]) & (v[k] <= high)]
            if likely.size == 0:
                likely = np.array([0.0 if v[k] < low[0] else 1.0])
            soc[k] = 0.5 * (likely[0] + likely[-1])
            std[k] = max((likely[-1] - likely[0]) / np.sqrt(12.0), 0.01)
    return soc, std
