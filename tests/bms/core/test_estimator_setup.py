"""From a cell file to the arrays of the estimator: resampling, tuning, initial state, first guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.core import estimator as e
from bms.core.estimator_setup import (
    DEGC_FIRST,
    DEGC_STEP,
    N_SOC,
    TUNING,
    estimator_config,
    estimator_state,
    soc_prior,
)


def node(degc: float) -> int:
    return round((degc - DEGC_FIRST) / DEGC_STEP)


def test_maps_hold_the_tables_of_the_cell_at_its_own_nodes(plain_cell: CellParameters) -> None:
    c = estimator_config(plain_cell)
    assert c.maps.dtype == c.rows.dtype == np.float32
    z = np.linspace(0, 1, N_SOC)
    for k, degc in enumerate(plain_cell.degc):
        t = node(degc)
        np.testing.assert_allclose(c.maps[e.MAP_OCV, t], np.interp(z, plain_cell.soc, plain_cell.ocv_v[k]), rtol=1e-6)
        np.testing.assert_allclose(
            c.maps[e.MAP_M, t], np.interp(z, plain_cell.soc, plain_cell.hysteresis_v[k]), rtol=1e-6
        )
        for row, table in (
            (e.MAP_R0, plain_cell.r0_ohm),
            (e.MAP_RCT, plain_cell.rct_ohm),
            *((e.MAP_R1 + j, plain_cell.r_ohm[j]) for j in range(4)),
        ):
            np.testing.assert_allclose(c.maps[row, t], np.interp(z, plain_cell.soc_r, table[k]), rtol=1e-5)
        assert c.rows[e.ROW_CAPACITY_AH, t] == pytest.approx(plain_cell.capacity[k])
        assert c.rows[e.ROW_ETA, t] == pytest.approx(plain_cell.coulombic_efficiency[k])
        assert c.rows[e.ROW_GAMMA, t] == pytest.approx(plain_cell.gamma[k])
        assert c.rows[e.ROW_M0, t] == pytest.approx(plain_cell.hysteresis_instant_v[k])
        assert c.rows[e.ROW_W_STD, t] == pytest.approx(plain_cell.voltage_error_v[k])
        assert c.rows[e.ROW_W_KNEE, t] == pytest.approx(plain_cell.knee_error_soc[k])


def test_the_slope_is_the_derivative_of_the_curve(make_plain_cell: Callable[..., CellParameters]) -> None:
    soc = np.linspace(0, 1, 101)
    cell = make_plain_cell(soc=soc, ocv_v=np.tile(3 + soc**2, (3, 1)), hysteresis_v=np.zeros((3, 101)))
    slope = estimator_config(cell).maps[e.MAP_SLOPE, node(25.0)]
    z = np.linspace(0, 1, N_SOC)
    np.testing.assert_allclose(slope[2:-2], 2 * z[2:-2], atol=1e-3)
    assert np.all(slope > 0)


def test_resistances_go_on_beyond_the_coldest_test_and_curves_stay(plain_cell: CellParameters) -> None:
    maps = estimator_config(plain_cell).maps
    cold, colder = maps[e.MAP_R0, node(0.0)], maps[e.MAP_R0, node(-30.0)]
    assert np.all(colder > 1.5 * cold)
    np.testing.assert_array_equal(maps[e.MAP_OCV, node(-30.0)], maps[e.MAP_OCV, node(0.0)])
    between = maps[e.MAP_R0, node(10.0)]
    assert np.all((between < cold) & (between > maps[e.MAP_R0, node(25.0)]))


def test_resistances_between_temperatures_follow_arrhenius(make_plain_cell: Callable[..., CellParameters]) -> None:
    degc = np.array([0.0, 50.0, 55.0])
    law = np.exp(3500.0 / (degc + 273.15) - 3500.0 / 298.15)
    cell = make_plain_cell(degc=degc, r0_ohm=0.01 * np.repeat(law[:, None], 5, axis=1))
    maps = estimator_config(cell).maps
    for at in (-20.0, 10.0, 25.0, 40.0, 60.0):
        expected = 0.01 * np.exp(3500.0 / (at + 273.15) - 3500.0 / 298.15)
        np.testing.assert_allclose(maps[e.MAP_R0, node(at)], expected, rtol=1e-4)


def test_a_cell_tested_at_one_temperature_is_the_same_at_all(plain_cell: CellParameters) -> None:
    one = replace(
        plain_cell, degc=np.array([25.0]), r_ohm=plain_cell.r_ohm[:, :1],
        **{k: getattr(plain_cell, k)[1:2] for k in ("ocv_v", "hysteresis_v", "r0_ohm", "rct_ohm", "capacity", "coulombic_efficiency", "gamma",
           "hysteresis_instant_v", "voltage_error_v", "knee_error_soc")},
    )  # fmt: skip
    c = estimator_config(one)
    assert np.all(c.maps == c.maps[:, :1])
    assert np.all(c.rows == c.rows[:, :1])


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
    for name in scalars.dtype.names:
        assert scalars[name] != 0.0, name


def test_a_new_state_says_what_it_was_told(plain_cell: CellParameters) -> None:
    state = estimator_state(estimator_config(plain_cell), 3, [0.2, 0.5, 1.0], [0.01, 0.1, 0.3])
    np.testing.assert_allclose(state.out[e.SOC], [0.2, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(state.out[e.SOC_STD], [0.01, 0.1, 0.3], rtol=1e-3)
    assert np.all(state.p[: e.NX] > 0), "every state has some doubt"
    assert np.all(state.p[e.NX :] == 0), "and none is related to another"
    for array in (state.x, state.p, state.s, state.out, state.work):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.shape[1] == 3


def test_certainty_about_the_start_is_limited(plain_cell: CellParameters) -> None:
    assert float(estimator_state(estimator_config(plain_cell), 1, 0.5, 0.0).p[e.Z, 0]) > 0


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


def test_without_a_voltage_nothing_is_known(plain_cell: CellParameters) -> None:
    guess, std = soc_prior(plain_cell, [np.nan, np.inf, 3.51], [25.0, 25.0, np.nan])
    np.testing.assert_array_equal(guess, np.float32([0.5, 0.5, 0.5]))
    np.testing.assert_array_equal(std, np.float32([0.29, 0.29, 0.29]))
