"""Settings of the runaway detection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms import cells
from bms.core import runaway as r
from bms.core.runaway_setup import MOST_V_PER_K, RunawaySettings, entropy_v_per_k, runaway_config, runaway_state


def test_constants() -> None:
    setting = runaway_config(55.0).setting
    assert (setting[r.RATE], setting[r.FAST_RATE], setting[r.HOT_DEGC], setting[r.DROP]) == (1.0, 3.0, 55.0, 0.25)
    assert runaway_config(55.0, RunawaySettings(hot_degc=70.0)).setting[r.HOT_DEGC] == 70.0
    assert setting.dtype == np.float32


def test_without_a_curve_no_entropy_is_known() -> None:
    assert not runaway_config(55.0).entropy.any()
    known = runaway_config(55.0, v_per_k=np.linspace(-1e-4, 1e-4, r.N_ENTROPY)).entropy
    assert known.dtype == np.float32
    np.testing.assert_allclose(known, np.linspace(-1e-4, 1e-4, r.N_ENTROPY), rtol=1e-6)


def test_room_for_the_memory_has_the_kinds_of_its_fields() -> None:
    for field, array in zip(r.STATE_FIELDS, runaway_state(7), strict=True):
        assert (array.dtype, array.shape) == (
            np.dtype(field.kind),
            (7 if field.dims == "sensors" else int(field.dims),),
        )


class Curves:
    """What of a cell file the entropy is made of: curves that are straight in temperature."""

    soc = np.array([0.0, 0.5, 1.0])

    def __init__(self, degc: list[float], v_per_k: list[float]) -> None:
        self.degc = np.array(degc)
        self.ocv_v = np.array([3.0, 3.3, 3.4]) + np.outer(self.degc - 25.0, v_per_k)


def test_entropy_is_what_the_open_circuit_voltage_does_with_temperature() -> None:
    found = entropy_v_per_k(Curves([0.0, 20.0, 45.0], [-4e-4, 0.0, 2e-4]))  # type: ignore[arg-type]
    at = np.linspace(0.0, 1.0, r.N_ENTROPY)
    np.testing.assert_allclose(found[1:-1], np.interp(at, [0.0, 0.5, 1.0], [-4e-4, 0.0, 2e-4])[1:-1], atol=4e-6)
    assert found[0] == pytest.approx(-4e-4, rel=0.05)  # beyond the end the curve goes on flat
    assert found[-1] == pytest.approx(2e-4, rel=0.05)


def test_a_curve_that_is_wrong_counts_as_in_a_line_of_least_squares() -> None:
    """22.5 K from the mean temperature, of 1125 K^2 in all."""
    cell = Curves([-5.0, 10.0, 25.0, 40.0], [-3e-4, 1e-4, 1e-4])
    right = entropy_v_per_k(cell)  # type: ignore[arg-type]
    cell.ocv_v[0] += 0.01
    np.testing.assert_allclose(entropy_v_per_k(cell), right - 0.01 * 22.5 / 1125, atol=1e-9)  # type: ignore[arg-type]


def test_no_entropy_is_larger_than_that_of_an_empty_cell() -> None:
    found = entropy_v_per_k(Curves([0.0, 40.0], [-5e-3, 0.0, 5e-3]))  # type: ignore[arg-type]
    assert (found[0], found[-1]) == (-MOST_V_PER_K, MOST_V_PER_K)


def test_a_file_of_one_temperature_knows_no_entropy() -> None:
    found = entropy_v_per_k(Curves([25.0], [1e-4, 1e-4, 1e-4]))  # type: ignore[arg-type]
    assert found.shape == (r.N_ENTROPY,)
    assert not found.any()


def test_the_entropy_of_an_lfp_cell_file_is_that_of_calorimetry() -> None:
    """LFP, doi:10.14279/depositonce-25036, mV/K: -0.67 empty, -0.11 at 10 and 20 %, +0.14 at half; the file was
    identified from pulses and slow discharges of another cell of that kind, whose entropy is the same."""
    found = 1e3 * np.interp(
        [0.0, 0.1, 0.2, 0.5], np.linspace(0.0, 1.0, r.N_ENTROPY), entropy_v_per_k(cells.load("lfp_280"))
    )
    np.testing.assert_allclose(found, [-0.665, -0.113, -0.115, 0.139], atol=0.2)
    assert found[0] < found[1] - 0.25


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("look_s", 0.0, "greater than 0"), ("rate_k_per_s", -1.0, "greater than 0"), ("rate_k_per_s", math.nan, "a number"),
        ("fast_rate_k_per_s", 0.5, "must not be below"), ("drop", 1.0, "less than 1"), ("hot_degc", True, "a number"),
        ("observer_s", 2000.0, "ten times"), ("place_s", 600.0, "ten times"),
    ],
)  # fmt: skip
def test_what_nothing_can_be_detected_with_is_refused(name: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        RunawaySettings(**{name: value})
    assert name in str(caught.value)
