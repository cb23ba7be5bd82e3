"""From a cell file to the arrays of the estimator: resampling, tuning, initial state, first guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bms import cells
from bms.cells import CellParameters
from bms.core import estimator_layout as e
from bms.core.estimator_setup import (
    DEGC_FIRST,
    DEGC_STEP,
    TUNING,
    _over_temperature,
    cell_rows,
    estimator_config,
    estimator_state,
    lanes_of,
    rows_view,
    soc_prior,
)

VARIANCES = [e.p_row(j, j) for j in range(e.NX)]
RELATIONS = [e.p_row(i, j) for i in range(e.NX) for j in range(i)]


def node(degc: float) -> int:
    return round((degc - DEGC_FIRST) / DEGC_STEP)


def maps_of(config: e.EstimatorConfig) -> np.ndarray:
    """The parameters as maps over (parameter, temperature, SoC)."""
    return np.moveaxis(config.nodes.reshape(e.N_DEGC, e.N_SOC, e.NODE), 2, 0)


def test_maps_hold_the_tables_of_the_cell_at_its_own_nodes(plain_cell: CellParameters) -> None:
    c = estimator_config(plain_cell)
    assert c.nodes.dtype == np.float32
    maps = maps_of(c)
    z = np.linspace(0, 1, e.N_SOC)
    for k, degc in enumerate(plain_cell.degc):
        t = node(degc)
        np.testing.assert_allclose(maps[e.OCV, t], np.interp(z, plain_cell.soc, plain_cell.ocv_v[k]), rtol=1e-6)
        np.testing.assert_allclose(maps[e.M, t], np.interp(z, plain_cell.soc, plain_cell.hysteresis_v[k]), rtol=1e-6)
        for row, table in (
            (e.R0, plain_cell.r0_ohm),
            (e.RCT, plain_cell.rct_ohm),
            *((e.R1 + j, plain_cell.r_ohm[j]) for j in range(4)),
        ):
            np.testing.assert_allclose(maps[row, t], np.interp(z, plain_cell.soc_r, table[k]), rtol=1e-5)
        for parameter, value in (
            (e.RATE, 1.0 / (3600.0 * plain_cell.capacity[k])),
            (e.ETA, plain_cell.coulombic_efficiency[k]),
            (e.GAMMA, plain_cell.gamma[k]),
            (e.M0, plain_cell.hysteresis_instant_v[k]),
            (e.W_STD, plain_cell.voltage_error_v[k]),
            (e.W_KNEE, plain_cell.knee_error_soc[k]),
        ):
            np.testing.assert_allclose(maps[parameter, t], value, rtol=1e-6)


def test_the_slope_is_the_derivative_of_the_curve(make_plain_cell: Callable[..., CellParameters]) -> None:
    soc = np.linspace(0, 1, 101)
    cell = make_plain_cell(soc=soc, ocv_v=np.tile(3 + soc**2, (3, 1)), hysteresis_v=np.zeros((3, 101)))
    maps = maps_of(estimator_config(cell))
    z = np.linspace(0, 1, e.N_SOC)
    for name, half in ((e.SLOPE, 2), (e.WIDE, 16)):
        slope = maps[name, node(25.0)]
        np.testing.assert_allclose(slope[half:-half], 2 * z[half:-half], atol=1e-3)
        assert np.all(slope > 0)


def test_the_wide_slope_has_the_step_before_the_cell_comes_to_it(
    make_plain_cell: Callable[..., CellParameters],
) -> None:
    soc = np.linspace(0, 1, 101)
    curve = np.tile(3.3 + 0.02 * (soc >= 0.7), (3, 1))
    maps = maps_of(estimator_config(make_plain_cell(soc=soc, ocv_v=curve, hysteresis_v=np.zeros((3, 101)))))
    at = round(0.65 * (e.N_SOC - 1))
    assert maps[e.SLOPE, node(25.0), at] == 0.0
    np.testing.assert_allclose(maps[e.WIDE, node(25.0), at], 0.02 / 0.16, rtol=1e-5)


def test_resistances_go_on_beyond_the_coldest_test_and_curves_stay(plain_cell: CellParameters) -> None:
    maps = maps_of(estimator_config(plain_cell))
    cold, colder = maps[e.R0, node(0.0)], maps[e.R0, node(-30.0)]
    assert np.all(colder > 1.5 * cold)
    np.testing.assert_array_equal(maps[e.OCV, node(-30.0)], maps[e.OCV, node(0.0)])
    between = maps[e.R0, node(10.0)]
    assert np.all((between < cold) & (between > maps[e.R0, node(25.0)]))


def test_resistances_between_temperatures_follow_arrhenius(make_plain_cell: Callable[..., CellParameters]) -> None:
    degc = np.array([0.0, 50.0, 55.0])
    law = np.exp(3500.0 / (degc + 273.15) - 3500.0 / 298.15)
    cell = make_plain_cell(degc=degc, r0_ohm=0.01 * np.repeat(law[:, None], 5, axis=1))
    maps = maps_of(estimator_config(cell))
    for at in (-20.0, 10.0, 25.0, 40.0, 60.0):
        expected = 0.01 * np.exp(3500.0 / (at + 273.15) - 3500.0 / 298.15)
        np.testing.assert_allclose(maps[e.R0, node(at)], expected, rtol=1e-4)


def test_a_cell_tested_at_one_temperature_is_the_same_at_all(plain_cell: CellParameters) -> None:
    one = replace(
        plain_cell, degc=np.array([25.0]), r_ohm=plain_cell.r_ohm[:, :1],
        **{k: getattr(plain_cell, k)[1:2] for k in ("ocv_v", "hysteresis_v", "r0_ohm", "rct_ohm", "capacity", "coulombic_efficiency", "gamma",
           "hysteresis_instant_v", "voltage_error_v", "knee_error_soc")},
    )  # fmt: skip
    maps = maps_of(estimator_config(one))
    assert np.all(maps == maps[:, :1])


def test_tuning_scales_with_the_capacity(make_plain_cell: Callable[..., CellParameters]) -> None:
    small = estimator_config(make_plain_cell()).scalars[0]
    large = estimator_config(make_plain_cell(capacity=np.full(3, 280.0))).scalars[0]
    for key, value in TUNING.items():
        field = "rc_prior_a" if key == "rc_prior_c" else key.removesuffix("_c")
        if key.endswith("_c"):
            assert small[field] == pytest.approx(2.0 * value, rel=1e-6)
            assert large[field] == pytest.approx(280.0 * value, rel=1e-6)
        else:
            assert small[field] == large[field] == pytest.approx(value, rel=1e-6)


def test_the_argument_wins_over_the_cell_file_and_that_over_the_common_tuning(plain_cell: CellParameters) -> None:
    own = replace(plain_cell, filter={"voltage_std": 0.033, "q_std": 0.02})
    scalars = estimator_config(own, {"q_std": 0.03}).scalars[0]
    assert scalars["voltage_std"] == pytest.approx(0.033)
    assert scalars["q_std"] == pytest.approx(0.03)
    assert scalars["r_std"] == pytest.approx(TUNING["r_std"])


def test_an_unknown_tuning_is_refused(plain_cell: CellParameters) -> None:
    with pytest.raises(KeyError, match="voltage_sdt"):
        estimator_config(plain_cell, {"voltage_sdt": 0.1})


def test_every_scalar_is_filled_in(plain_cell: CellParameters) -> None:
    scalars = estimator_config(plain_cell).scalars[0]
    assert scalars["degc_first"] == DEGC_FIRST
    assert scalars["rate"] == pytest.approx(1.0 / (3600.0 * plain_cell.capacity_ah))
    for setting in e.SETTINGS:
        assert scalars[setting.name] != 0.0, setting.name


def test_a_new_state_says_what_it_was_told(plain_cell: CellParameters) -> None:
    state = estimator_state(estimator_config(plain_cell), 3, [0.2, 0.5, 1.0], [0.01, 0.1, 0.3])
    out, rows = state.out.reshape(e.OUT_ROWS, -1), cell_rows(state.blocks, 3)
    np.testing.assert_allclose(out[e.SOC, :3], [0.2, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(out[e.SOC_STD, :3], [0.01, 0.1, 0.3], rtol=1e-3)
    np.testing.assert_array_equal(rows[e.Z], np.float32([0.2, 0.5, 1.0]))
    assert np.all(rows[VARIANCES] > 0), "every state has some doubt"
    assert np.all(rows[RELATIONS] == 0), "and none is related to another"
    for array in (state.blocks, state.out, state.work):
        assert array.dtype == np.float32
        assert array.ndim == 1
        assert array.flags.c_contiguous


def test_rows_and_cells_of_blocks() -> None:
    assert [lanes_of(n) for n in (1, 15, 16, 17, 416)] == [16, 16, 16, 32, 416]
    blocks = np.arange(2 * e.BLOCK, dtype=np.float32)
    rows = rows_view(blocks)
    assert rows.shape == (e.BLOCK_ROWS, 2, 16)
    assert rows[3, 1, 5] == e.BLOCK + 3 * 16 + 5
    cells = cell_rows(blocks, 20)
    assert cells.shape == (e.BLOCK_ROWS, 20)
    assert cells[3, 16] == e.BLOCK + 3 * 16
    rows[3, 1, 0] = -1.0
    assert blocks[e.BLOCK + 3 * 16] == -1.0, "a view"
    assert cells[3, 16] != -1.0, "a copy"


def test_every_pair_of_states_has_a_row_of_its_own() -> None:
    rows = {e.p_row(i, j) for i in range(e.NX) for j in range(e.NX)}
    assert rows == set(range(e.P_FIRST, e.P_FIRST + e.N_P))
    assert e.p_row(e.Z, e.V1) == e.p_row(e.V1, e.Z)


def test_certainty_about_the_start_is_limited(plain_cell: CellParameters) -> None:
    state = estimator_state(estimator_config(plain_cell), 1, 0.5, 0.0)
    assert float(cell_rows(state.blocks, 1)[e.p_row(e.Z, e.Z), 0]) > 0


@pytest.mark.parametrize("soc", [0.01, 0.03, 0.08, 0.5, 0.65, 0.9, 0.995])
def test_the_first_guess_admits_the_truth(plain_cell: CellParameters, soc: float) -> None:
    for h in (-1.0, 0.0, 1.0):
        volt = plain_cell.ocv(soc) + h * 0.012
        guess, std = soc_prior(plain_cell, [volt], [25.0])
        assert abs(float(guess[0]) - soc) <= 2.0 * float(std[0])


def test_the_first_guess_is_sharp_where_the_curve_is_and_wide_on_the_plateau(plain_cell: CellParameters) -> None:
    guess, std = soc_prior(plain_cell, [plain_cell.ocv(0.01), plain_cell.ocv(0.55), 3.51], [25.0, 25.0, 25.0])
    assert float(std[0]) < 0.02
    assert float(std[1]) > 0.1
    assert float(std[2]) < 0.02
    assert guess[0] < 0.05 < guess[1] < 0.9 < guess[2]


def test_beyond_the_curve_the_first_guess_is_its_end(plain_cell: CellParameters) -> None:
    guess, std = soc_prior(plain_cell, [1.0, 5.0], [25.0, 25.0])
    assert guess.tolist() == [0.0, 1.0]
    np.testing.assert_allclose(std, 0.01, rtol=1e-6)


@pytest.mark.parametrize("name", ["lfp_280", "na_185", "nmc_ev"])
def test_where_the_curve_is_steep_a_voltage_tells_the_soc_too(name: str) -> None:
    """It may lie between two of the points that are looked at: a cell that is nearly empty is not full."""
    cell = cells.load(name)
    k = int(np.argmin(np.abs(cell.degc - 25.0)))
    soc = np.linspace(0.0, 0.03, 400)
    guess, std = soc_prior(cell, np.interp(soc, cell.soc, cell.ocv_v[k]), np.full(400, cell.degc[k]))
    assert np.abs(guess - soc).max() < 0.03
    assert std.max() < 0.05


def test_without_a_voltage_nothing_is_known(plain_cell: CellParameters) -> None:
    guess, std = soc_prior(plain_cell, [np.nan, np.inf, 3.51], [25.0, 25.0, np.nan])
    np.testing.assert_array_equal(guess, np.float32([0.5, 0.5, 0.5]))
    np.testing.assert_array_equal(std, np.float32([0.29, 0.29, 0.29]))


def test_outside_the_measurements_all_resistances_go_on_alike() -> None:
    """One column is noisy: its slope between two measurements would make it fifty times as large 20 K further on."""
    degc = np.array([0.0, 10.0, 20.0])
    table = np.array([[4.0, 4.0, 20.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    cold, at_node, between = _over_temperature(table, degc, np.array([-20.0, 0.0, 5.0]), arrhenius=True)
    np.testing.assert_allclose(at_node, table[0])
    np.testing.assert_allclose(cold / at_node, cold[0] / 4.0)
    assert 4.0 < cold[0] / 4.0 < 5.5  # twice for each 10 K, and a little more in the cold
    np.testing.assert_allclose(between[2] ** 2, 40.0, rtol=0.1)  # within them each column is its own
