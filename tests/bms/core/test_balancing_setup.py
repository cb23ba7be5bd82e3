"""Settings of the balancing: refused where wrong, taken over where right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bms.cells import Limits
from bms.core import balancing as b
from bms.core.balancing_setup import ACTIVE, BalancingSettings, balancing_config
from hal.contract import Capabilities, RackInfo

LIMITS = Limits(2.5, 3.65, 0.0, -20.0, 55.0, 0.5, 0.5)


def info(**capabilities: bool) -> RackInfo:
    return RackInfo("rack", 4, 1, 1, 100.0, "", np.zeros(4, np.uint16), Capabilities(**capabilities))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strategy", "none"),
        ("bleed_ohm", 0.0),
        ("board_w", 0.0),
        ("board_cells", 0),
        ("board_cells", 2.5),
        ("module_cells", -1),
        ("bleed_on_s", 0.0),
        ("bleed_off_s", 0.0),
        ("decide_s", 0.0),
        ("learn_s", 0.0),
        ("start_soc", 0.0),
        ("stop_soc", 0.01),
        ("k_sigma", -1.0),
        ("k_sigma", float("nan")),
        ("own_share", 0.0),
        ("own_share", 1.5),
        ("common_share", 1.5),
        ("shuttle_efficiency", 1.5),
        ("shuttle_efficiency", 0.0),
        ("shuttle_a", 0.0),
        ("v_stop", "low"),
        ("bleed_ohm", True),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} = "):
        BalancingSettings(**{name: value})


def test_an_active_balancer_needs_a_rack_that_can() -> None:
    with pytest.raises(ValueError, match="^strategy = 'active': rack 'rack' cannot move charge"):
        balancing_config(LIMITS, info(balancing=True), BalancingSettings(strategy=ACTIVE))
    config = balancing_config(LIMITS, info(balancing=False, shuttle=True), BalancingSettings(strategy=ACTIVE))
    assert config.size[b.SHUTTLE] == 1
    assert config.size[b.BLEED] == 0


def test_a_passive_balancer_leaves_a_shuttle_alone() -> None:
    config = balancing_config(LIMITS, info(balancing=True, shuttle=True))
    assert config.size[b.SHUTTLE] == 0
    assert config.size[b.BLEED] == 1


def test_a_board_bears_at_least_one_cell() -> None:
    # 3.65^2 / 33 = 0.404 W
    with pytest.raises(ValueError, match=r"^board_w = 0.4: must be at least the 0.404 W"):
        balancing_config(LIMITS, info(), BalancingSettings(board_w=0.4))
    balancing_config(LIMITS, info(), BalancingSettings(board_w=0.41))


def test_settings_become_the_numbers_of_the_kernels() -> None:
    s = BalancingSettings(start_soc=0.01, stop_soc=0.002, drift_soc_per_day=0.001, capacity_std=0.02)
    config = balancing_config(LIMITS, info(balancing=True), s)
    c = config.setting
    assert c.dtype == np.float32
    assert np.isfinite(c).all()
    assert c[b.START_AH] == pytest.approx(1.0)
    assert c[b.STOP_AH] == pytest.approx(0.2)
    assert c[b.DRIFT_AH_PER_S] * 86400 == pytest.approx(0.1)
    assert c[b.CAPACITY_VAR] == pytest.approx(4e-4)
    assert c[b.DEGC_STOP] == 50.0  # 5 K below the hottest temperature
    assert c[b.V_STOP] == pytest.approx(2.615)  # a tenth of the window above its lower end
    assert config.size[b.BOARD_CELLS] == 16
    assert config.size[b.MODULE_CELLS] == 52


def test_stops_of_ones_own() -> None:
    c = balancing_config(LIMITS, info(), BalancingSettings(degc_stop=-5.0, v_stop=3.0)).setting
    assert c[b.DEGC_STOP] == -5.0
    assert c[b.V_STOP] == 3.0
