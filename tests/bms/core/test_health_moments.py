"""What a voltage tells of the SoC: cells that stand where the test puts them are found there, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.cells import load
from bms.core import estimator_layout as e
from bms.core import health_moments as hm
from bms.core.estimator_setup import estimator_config, estimator_state
from bms.core.health_setup import HealthSettings, health_config

f4 = np.float32
CELL = load("na_185")
_COMPILED = estimator_config(CELL)
ESTIMATOR = _COMPILED._replace(scalars=_COMPILED.scalars.view(np.recarray))
CONFIG = health_config(CELL.capacity_ah, 1, HealthSettings())
LANES = 16


class Stand:
    """A filter of one cell, whose numbers the test sets by their row."""

    def __init__(self, soc: float = 0.5) -> None:
        state = estimator_state(_COMPILED, 1, soc, 0.01)
        self.filter = state._replace(shared=state.shared.view(np.recarray))
        self.rows: Any = self.filter.blocks.reshape(e.BLOCK_ROWS, LANES)[:, 0]
        self.filter.shared.last_a[0] = 0.0
        self.filter.shared.bias_a[0] = 0.0
        self.filter.shared.sign[0] = 0.0
        self.rows[e.H] = 0.0
        self.volt = float(CELL.ocv(soc, 25.0))

    def told(self, degc: float = 25.0) -> tuple[float, float, float]:
        """SoC and variances that the voltage tells: half from the model, half as innovation."""
        n_lanes = self.filter.flags.shape[0]
        self.filter.out[e.MODEL_V * n_lanes] = self.volt - 0.25
        self.filter.out[e.INNOVATION * n_lanes] = 0.25
        soc, passing, lasting = hm.known_soc(CONFIG, ESTIMATOR, self.filter, 0, f4(degc))
        return float(soc), float(passing), float(lasting)


def test_a_place_in_the_table_is_a_node_and_the_way_to_the_next() -> None:
    first, per_kelvin = f4(-20.0), f4(0.1)
    assert hm.row_of(first, per_kelvin, f4(-20.0)) == (0, 0.0)
    node, way = hm.row_of(first, per_kelvin, f4(-5.0))
    assert (node, way) == (e.N_SOC, pytest.approx(0.5))
    # outside, and at the end, the last two rows are told
    assert hm.row_of(first, per_kelvin, f4(1e9)) == ((e.N_DEGC - 2) * e.N_SOC, 1.0)
    assert hm.row_of(first, per_kelvin, f4(-1e9)) == (0, 0.0)


@pytest.mark.parametrize(
    ("z", "node"), [(-1.0, 0), (0.0, 0), (1.0, e.N_SOC - 1), (7.0, e.N_SOC - 1), (np.nan, 0), (0.5, (e.N_SOC - 1) / 2)]
)
def test_the_nearest_node_is_one_of_the_table(z: float, node: float) -> None:
    assert abs(hm.nearest(f4(z)) - node) <= 0.5


def test_parameters_are_blended_between_two_temperatures() -> None:
    nodes = np.zeros(e.N_DEGC * e.N_SOC * e.NODE, np.float32)
    nodes[7 * e.NODE + e.R0] = 1.0
    nodes[(7 + e.N_SOC) * e.NODE + e.R0] = 3.0
    assert hm.blended(nodes, 7, f4(0.25), e.R0) == 1.5


def test_polarisation_is_ohms_law_and_what_has_charged_up() -> None:
    """At a small current the charge transfer is a resistance: i_b asinh(i / i_b) -> i."""
    s = Stand()
    row, ft = hm.row_of(ESTIMATOR.scalars[0].degc_first, ESTIMATOR.scalars[0].nodes_per_kelvin, f4(25.0))
    here = row + hm.nearest(f4(0.5))
    ohm = sum(float(hm.blended(ESTIMATOR.nodes, here, ft, column)) for column in (e.R0, e.RCT))
    s.filter.shared.last_a[0], s.filter.shared.bias_a[0] = 1.5, 0.5
    assert hm.drop_v(ESTIMATOR, s.filter, 0, here, ft) == pytest.approx(1.0 * ohm, rel=1e-4)
    for row_, volt in ((e.V1, 0.01), (e.V2, 0.02), (e.V3, 0.03), (e.V4, -0.04)):
        s.rows[row_] = volt
    assert hm.drop_v(ESTIMATOR, s.filter, 0, here, ft) == pytest.approx(1.0 * ohm + 0.02, rel=1e-4)


@given(st.floats(0.02, 0.98))
def test_a_cell_at_rest_stands_where_its_open_circuit_voltage_says(soc: float) -> None:
    """The filter believes 0.5 all along: its own idea does not enter."""
    s = Stand()
    s.volt = float(CELL.ocv(soc, 25.0))
    assert s.told()[0] == pytest.approx(soc, abs=2e-3)


def test_polarisation_comes_off_by_the_scale_that_the_filter_knows() -> None:
    s = Stand(0.3)
    s.rows[e.V2] = 0.02
    s.rows[e.R] = np.log(1.5)
    s.volt -= 1.5 * 0.02
    assert s.told()[0] == pytest.approx(0.3, abs=2e-3)


def test_variances_are_voltages_over_the_slope() -> None:
    """The noise of a sample and a share of the polarisation pass, the errors of model and offset stay."""
    s, settings = Stand(0.3), HealthSettings()
    s.rows[e.p_row(e.H, e.H)] = 0.0
    s.rows[e.p_row(e.R, e.R)] = 0.0
    soc, passing, lasting = s.told()
    # the flattest of the slopes around: the cell may stand anywhere there
    per_v = settings.voltage_noise_v**-1 * np.sqrt(passing)
    slopes = [(CELL.ocv(soc + d + 2e-3, 25.0) - CELL.ocv(soc + d - 2e-3, 25.0)) / 4e-3 for d in (-0.01, 0.0, 0.01)]
    assert 1.0 / per_v == pytest.approx(min(map(float, slopes)), rel=0.1)
    assert lasting >= (settings.model_error_v**2 + settings.voltage_offset_v**2) * per_v**2
    assert lasting < ((settings.model_error_v + 0.01) ** 2 + settings.voltage_offset_v**2) * per_v**2 + 0.01**2
    s.rows[e.V2] = 0.1
    s.volt -= 0.1
    assert s.told()[1] - passing == pytest.approx((settings.drop_share * 0.1 * per_v) ** 2, rel=1e-2)
    s.rows[e.p_row(e.R, e.R)] = 0.2**2
    assert s.told()[1] - passing == pytest.approx((settings.drop_share**2 + 0.2**2) * (0.1 * per_v) ** 2, rel=1e-2)
    s.rows[e.p_row(e.H, e.H)] = 0.5**2
    assert s.told()[1] > passing + (settings.drop_share**2 + 0.2**2) * (0.1 * per_v) ** 2, "hysteresis is not known"


@pytest.mark.parametrize("volt", [np.nan, np.inf, -np.inf, 0.0, 5.0])
def test_a_voltage_off_the_curve_tells_nothing(volt: float) -> None:
    s = Stand()
    s.volt = volt
    assert np.isnan(s.told()).all()


@pytest.mark.parametrize("degc", [np.nan, np.inf, 1e4])
def test_without_a_temperature_nothing_is_told(degc: float) -> None:
    assert np.isnan(Stand().told(degc)).all()


def test_a_voltage_that_the_filter_left_out_tells_nothing() -> None:
    s = Stand()
    s.filter.flags[0] |= e.SKIPPED
    assert np.isnan(s.told()).all()
