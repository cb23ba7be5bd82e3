"""Resistance: what a change of the current tells of a cell whose resistance the test chooses, and the two sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bms.cells import load
from bms.core import estimator_layout as e
from bms.core import health, health_moments
from bms.core import health_layout as h
from bms.core import health_resistance as r
from bms.core.estimator_setup import estimator_config, estimator_state
from bms.core.health_setup import HealthSettings, health_config

f4 = np.float32
CELL = load("lfp_280")
_COMPILED = estimator_config(CELL)
ESTIMATOR = _COMPILED._replace(scalars=_COMPILED.scalars.view(np.recarray))
LANES = 16
N = 6  # more than are watched at a time


class Stand:
    """Six cells in the middle of their curve; `change` makes the current step, and the cells answer."""

    def __init__(self, **settings: Any) -> None:
        self.settings = HealthSettings(**settings)
        self.config = health_config(CELL.capacity_ah, 1, self.settings)
        self.state = h.health_state(N)
        health.health_init(self.config, self.state)
        filter_ = estimator_state(_COMPILED, N, 0.5, 0.01)
        self.filter = filter_._replace(shared=filter_.shared.view(np.recarray))
        self.filter.shared.bias_a[0] = 0.0
        self.rows: Any = self.filter.blocks.reshape(e.BLOCK_ROWS, LANES)
        self.degc = np.full(N, 25.0, np.float32)

    def cell(self, k: int = 0) -> Any:
        return self.state.cell[k * h.ROWS : (k + 1) * h.ROWS]

    def volts(self, scale: float) -> None:
        """Voltages of cells with `scale` times the resistance of their type, at the present current."""
        k1 = ESTIMATOR.scalars[0]
        row, ft = health_moments.row_of(k1.degc_first, k1.nodes_per_kelvin, f4(25.0))
        for k in range(N):
            here = row + health_moments.nearest(self.rows[e.Z, k])
            drop = float(health_moments.drop_v(ESTIMATOR, self.filter, k, here, ft))
            self.filter.out[e.MODEL_V * LANES + k] = 3.3 - scale * drop + 0.01
            self.filter.out[e.INNOVATION * LANES + k] = -0.01

    def change(self, to_a: float, scale: float, after_s: float = 3.0, flowing: bool = True) -> None:
        """Look, let `after_s` pass, set the current, look again."""
        self.volts(scale)
        r.compare_change(self.config, self.state, ESTIMATOR, self.filter, self.degc, True)
        self.state.number[h.BEFORE_S] += f4(after_s)
        self.filter.shared.last_a[0] = to_a
        self.volts(scale)
        r.compare_change(self.config, self.state, ESTIMATOR, self.filter, self.degc, flowing)

    def told(self) -> list[float]:
        """Scales that the changes told so far; 0 for none."""
        return [float(c[h.STEP_DV] / c[h.STEP_DD]) if c[h.STEP_DD] > 0 else 0.0 for c in map(self.cell, range(N))]


def test_a_change_of_the_current_tells_the_scale_of_the_resistance() -> None:
    s = Stand()
    s.filter.shared.last_a[0] = 0.0
    s.change(140.0, 1.4)
    assert s.told() == pytest.approx([1.4] * 4 + [0.0] * 2, rel=2e-3), "a few cells at a time"
    s.change(-140.0, 1.4)
    assert s.told() == pytest.approx([1.4] * 6, rel=2e-3), "then the next few"
    assert s.state.word[h.BEFORE_AT] == 0, "and from the first cell again"


def test_the_open_circuit_voltage_moves_by_its_slope_meanwhile() -> None:
    """The SoC has moved between the samples: that part of the voltage is no resistance."""
    s = Stand()
    s.filter.shared.last_a[0] = 0.0
    s.volts(1.0)
    r.compare_change(s.config, s.state, ESTIMATOR, s.filter, s.degc, True)
    s.state.number[h.BEFORE_S] += f4(3.0)
    s.filter.shared.last_a[0] = 140.0
    s.volts(1.0)
    k1 = ESTIMATOR.scalars[0]
    row, ft = health_moments.row_of(k1.degc_first, k1.nodes_per_kelvin, f4(25.0))
    moved = 0.001  # within the same node
    slope = float(health_moments.blended(ESTIMATOR.nodes, row + health_moments.nearest(f4(0.5)), ft, e.SLOPE))
    s.rows[e.Z, :N] -= moved
    s.filter.out[e.MODEL_V * LANES : e.MODEL_V * LANES + N] -= moved * slope
    r.compare_change(s.config, s.state, ESTIMATOR, s.filter, s.degc, True)
    assert s.told()[:4] == pytest.approx([1.0] * 4, rel=2e-3)


@pytest.mark.parametrize(
    "case",
    [
        "little current",
        "late",
        "current unknown",
        "empty cell",
        "full cell",
        "absurd voltage",
        "absurd scale",
        "no number",
    ],
)
def test_what_tells_no_resistance_is_left_out(case: str) -> None:
    s = Stand()
    s.filter.shared.last_a[0] = 0.0
    scale, to_a, after_s, flowing = 1.0, 140.0, 3.0, True
    if case == "little current":
        to_a = 0.9 * 0.02 * CELL.capacity_ah  # change_c = 0.02
    elif case == "late":
        after_s = 6.2
    elif case == "current unknown":
        flowing = False
    elif case == "empty cell":
        s.rows[e.Z] = 0.19
    elif case == "full cell":
        s.rows[e.Z] = 0.96
    elif case == "absurd voltage":
        scale = 1000.0
    elif case == "absurd scale":
        scale = 5.1
    elif case == "no number":
        scale = np.nan
    s.change(to_a, scale, after_s, flowing)
    assert s.told() == [0.0] * N
    assert bool(s.state.word[h.WATCHING]) == flowing


@pytest.mark.parametrize("scale", [1.0, 1.8])
def test_hysteresis_is_not_taken_for_resistance(scale: float) -> None:
    """At a reversal the voltage moves by M dh + 2 M0 beside what the resistance answers, whatever the resistance."""
    s = Stand()
    k1 = ESTIMATOR.scalars[0]
    row, ft = health_moments.row_of(k1.degc_first, k1.nodes_per_kelvin, f4(25.0))

    def volts(hysteresis: float, sign: float) -> None:
        s.volts(scale)
        s.rows[e.H] = hysteresis
        s.filter.shared.sign[0] = sign
        for k in range(N):
            here = row + health_moments.nearest(s.rows[e.Z, k])
            m, m0 = (float(health_moments.blended(ESTIMATOR.nodes, here, ft, column)) for column in (e.M, e.M0))
            assert m > 5e-3, "enough to tell"
            s.filter.out[e.MODEL_V * LANES + k] += m * hysteresis + m0 * sign

    s.filter.shared.last_a[0] = 80.0
    volts(-0.9, -1.0)
    r.compare_change(s.config, s.state, ESTIMATOR, s.filter, s.degc, True)
    s.state.number[h.BEFORE_S] += f4(3.0)
    s.filter.shared.last_a[0] = -80.0
    volts(-0.5, 1.0)
    r.compare_change(s.config, s.state, ESTIMATOR, s.filter, s.degc, True)
    assert s.told()[:4] == pytest.approx([scale] * 4, rel=2e-3)


def test_the_filter_tells_with_enough_current_alone() -> None:
    """Its r is the logarithm of the scale; a third of its deviation is left of it, and the type's error beside it."""
    s = Stand()
    s.rows[e.R] = np.log(1.3)
    s.rows[e.p_row(e.R, e.R)] = 0.06**2
    s.filter.shared.last_a[0] = 0.9 * 0.05 * CELL.capacity_ah  # resistance_min_c = 0.05
    r.take_from_filter(s.config, s.state, s.filter, 0)
    assert s.state.resistance[0] == 1.0
    s.filter.shared.last_a[0] = -1.1 * 0.05 * CELL.capacity_ah
    r.take_from_filter(s.config, s.state, s.filter, 0)
    assert s.state.resistance[0] == pytest.approx(1.3, rel=1e-4)
    assert s.state.resistance_std[0] == pytest.approx(1.3 * np.hypot(0.06 / 3.0, 0.1), rel=1e-3)
    assert s.state.resistance[1] == 1.0, "the neighbour has not moved"


@pytest.mark.parametrize(("row", "value"), [(e.Z, 0.19), (e.Z, 0.96), (e.R, np.nan), (e.R, 11.0), (None, 0.0)])
def test_a_filter_that_knows_no_resistance_is_not_asked(row: int | None, value: float) -> None:
    s = Stand()
    s.filter.shared.last_a[0] = 140.0
    s.rows[e.p_row(e.R, e.R)] = 0.01
    s.rows[e.p_row(e.R, e.R) if row is None else row] = value
    r.take_from_filter(s.config, s.state, s.filter, 0)
    assert s.cell()[h.R_WEIGHT] == 0.0
    assert s.state.resistance[0] == 1.0


def test_two_sources_count_by_their_variances() -> None:
    s = Stand()
    s.cell()[[h.STEP_DD, h.STEP_DV]] = 1e6, 1.2e6  # so much that only the type's error is left: 1.2, by 1.2 * 0.04
    s.cell()[[h.R_WEIGHT, h.R_MEAN, h.R_VAR]] = 1.0, np.log(1.5), 0.0  # 1.5, by 1.5 * 0.1
    s.filter.shared.last_a[0] = 0.0
    r.take_from_filter(s.config, s.state, s.filter, 0)
    weights = np.array([1.0 / (1.2 * 0.04) ** 2, 1.0 / (1.5 * 0.1) ** 2])
    assert s.state.resistance[0] == pytest.approx(float(weights @ [1.2, 1.5] / weights.sum()), rel=1e-4)
    assert s.state.resistance_std[0] == pytest.approx(weights.sum() ** -0.5, rel=1e-4)


def test_what_was_learnt_fades_and_keeps_its_value() -> None:
    s = Stand()
    s.cell()[[h.STEP_DD, h.STEP_DV, h.R_WEIGHT, h.R_MEAN]] = 2.0, 2.6, 8.0, 0.1
    s.state.number[h.R_FADE] = 0.25
    s.filter.shared.last_a[0] = 0.0
    r.take_from_filter(s.config, s.state, s.filter, 0)
    assert s.cell()[[h.STEP_DD, h.STEP_DV, h.R_WEIGHT, h.R_MEAN]].tolist() == pytest.approx([1.5, 1.95, 6.0, 0.1])
