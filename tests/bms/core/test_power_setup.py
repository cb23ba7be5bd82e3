"""Settings of the limits: what is refused, and which constants come of the rest."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bms import cells
from bms.core import power as p
from bms.core.derating import CHARGE_DEGC, DISCHARGE_DEGC, POINTS, share_at
from bms.core.power_cells import HORIZON
from bms.core.power_setup import DERATINGS, PowerSettings, polylines, power_config
from hal.contract import HORIZONS_S, RackInfo

LFP = cells.load("lfp_280")
INFO = RackInfo("test", 16, 4, 2, 560.0, "lfp_280", np.zeros(16, np.uint16))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("max_charge_c", 0.0, "greater than 0"),
        ("max_discharge_a", -5.0, "at least 0"),
        ("pulse_charge", 0.9, "1..10"),
        ("pulse_discharge", True, "a number"),
        ("horizon_s", 30.0, "2, 10, 60 or 900"),
        ("voltage_margin_v", math.nan, "a number"),
        ("soc_min", 1.2, "0..1"),
        ("soc_sigmas", "2", "a number"),
        ("derate", 1.5, "0..1"),
        ("rise_per_s", 0.0, "greater than 0"),
        ("ramp_s", 0.0, "greater than 0"),
        ("scan_s", 0.0, "greater than 0"),
        ("fuse_from", 1.0, "0..0.99"),
        ("heat_capacity_j_per_k", 0.0, "greater than 0"),
        ("charge_degc", ((0.0, 0.0),), "2..8 points"),
        ("charge_degc", tuple((float(k), 1.0) for k in range(9)), "2..8 points"),
        ("charge_degc", ((0.0, 0.0), (0.0, 1.0)), "must rise"),
        ("charge_degc", ((0.0, 0.0), (5.0, 1.5)), "shares must be 0..1"),
        ("charge_degc", ((0.0, 1.0), (5.0, 0.0), (9.0, 1.0)), "must not rise again"),
        ("discharge_degc", (1.0, 2.0), "points [place, share]"),
        ("discharge_degc", 3.0, "points [place, share]"),
        ("charge_soc", ((0.0, 0.5), (1.0, 1.0)), "must not rise with SoC"),
        ("discharge_soc", ((0.0, 1.0), (1.0, 0.5)), "must not fall with SoC"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} = ") as error:
        PowerSettings(**{key: value})
    assert said in str(error.value)


def test_windows_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match=r"soc_min = 0.5: must be below soc_max = 0.5"):
        PowerSettings(soc_min=0.5, soc_max=0.5)
    with pytest.raises(ValueError, match=r"pack_v_min = 900: must be below pack_v_max = 800"):
        PowerSettings(pack_v_min=900.0, pack_v_max=800.0)


def test_lists_of_a_toml_file_are_taken() -> None:
    settings = PowerSettings(charge_degc=[[0, 0], [10, 1]])  # type: ignore[arg-type]
    assert settings.charge_degc == ((0.0, 0.0), (10.0, 1.0))


def test_the_rating_is_the_lowest_of_cell_file_and_settings() -> None:
    def rated(**changes: float) -> tuple[float, float]:
        number = power_config(LFP, INFO, PowerSettings(**changes)).number
        return float(number[p.RATED_A]), float(number[p.RATED_A + 1])

    assert rated() == (560.0, 560.0)
    assert rated(max_charge_c=0.5, max_discharge_c=3.0) == (560.0, 280.0)
    assert rated(max_discharge_a=100.0, max_charge_a=9e3) == (100.0, 560.0)


def test_constants() -> None:
    settings = PowerSettings(voltage_margin_v=0.02, guard_margin_v=0.005, soc_max=0.9, pack_v_max=58.0, horizon_s=60.0)
    config = power_config(LFP, INFO, settings)
    number = config.number
    assert number[p.V_EDGE : p.V_EDGE + 2] == pytest.approx([2.52, 3.63])
    assert number[p.GUARD_V : p.GUARD_V + 2] == pytest.approx([2.505, 3.645])
    assert (number[p.PACK_V_EDGE], number[p.PACK_V_EDGE + 1]) == (-np.inf, 58.0)
    # a window that reaches the end is none: the voltage decides there
    assert number[p.SOC_EDGE] < -1.0
    assert number[p.SOC_EDGE + 1] == np.float32(0.9)
    assert number[p.IN_FORCE] == 2
    assert number[p.TRANSPORT_A] == pytest.approx(0.02 * 560.0)
    assert number[p.DEGC_EDGE] == 53.0
    assert 1.0 / number[p.KELVIN_PER_J] == pytest.approx(16.0 * 280.0, rel=1e-3)
    horizon = config.horizon.reshape(4, HORIZON)
    assert tuple(horizon[:, 0]) == HORIZONS_S
    assert horizon[1, 1:] == pytest.approx(np.exp(-10.0 / LFP.tau_s), rel=1e-6)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_file_gets_polylines_that_end_at_its_limits(name: str) -> None:
    cell = cells.load(name)
    polyline = power_config(cell, INFO).polyline
    limits = cell.limits
    for which, coldest in ((DISCHARGE_DEGC, limits.degc_min_discharge), (CHARGE_DEGC, limits.degc_min_charge)):
        for degc in (coldest - 1.0, coldest, limits.degc_max, limits.degc_max + 1.0):
            assert share_at(polyline, which, np.float32(degc)) == 0.0
        assert share_at(polyline, which, np.float32(30.0)) == 1.0
        assert 0.0 < share_at(polyline, which, np.float32(coldest + 3.0)) < 0.5
    assert polyline.size == 4 * 2 * POINTS


def test_a_polyline_of_the_settings_replaces_the_chemistry_s() -> None:
    own = ((0.0, 0.0), (1.0, 1.0))
    lines = polylines(LFP, PowerSettings(discharge_soc=own))
    assert lines["discharge_soc"] == own
    assert lines["charge_soc"] == DERATINGS["lfp"].charge_soc


def test_an_unknown_chemistry_is_refused() -> None:
    cell = SimpleNamespace(chemistry="lead", limits=LFP.limits, tau_s=LFP.tau_s, capacity_ah=100.0)
    with pytest.raises(ValueError, match=r"chemistry = 'lead': must be one of lfp, nmc, na_layered"):
        power_config(cell, INFO)
