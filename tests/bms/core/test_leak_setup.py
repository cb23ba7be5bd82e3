"""Settings of the leak detection: refused where wrong, taken over where right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bms.core import leak as k
from bms.core.leak_setup import LeakSettings, leak_config
from hal.contract import RackInfo

INFO = RackInfo("r", 4, 1, 1, 100.0, "", np.zeros(4, np.uint16))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("period_s", 0.0),
        ("innovation_s", 0.0),
        ("flow_s", 0.0),
        ("prior_a", 0.0),
        ("fast_prior_a", 0.0),
        ("walk_a_per_day", 0.0),
        ("own_share", 0.0),
        ("own_share", 1.1),
        ("common_share", 1.1),
        ("count_error", 1.1),
        ("corr_s", -1.0),
        ("k_sigma", float("nan")),
        ("k_sigma", float("inf")),
        ("k_sigma", "4"),
        ("doubt_v", True),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} = "):
        LeakSettings(**{name: value})


def test_the_fast_filter_is_the_faster_one() -> None:
    with pytest.raises(ValueError, match="^fast_walk_a_per_day = 0.005: must be larger than walk_a_per_day = 0.01"):
        LeakSettings(fast_walk_a_per_day=0.005)


def test_settings_become_the_numbers_of_the_kernels() -> None:
    setting = leak_config(INFO, LeakSettings(floor_soc=0.002, prior_a=0.3, walk_a_per_day=0.012, k_sigma=5.0)).setting
    assert setting.dtype == np.float32
    assert np.isfinite(setting).all()
    assert setting[k.CAPACITY_AH] == 100.0
    assert setting[k.FLOOR_VAR] == pytest.approx(0.2**2)
    assert setting[k.PRIOR_A2] == pytest.approx(0.09)
    # a random walk of 12 mA in a day is sqrt(24) times one of an hour
    assert setting[k.WALK_A2_PER_H] == pytest.approx(0.012**2 / 24)
    assert setting[k.K_SIGMA] == 5.0


def test_without_settings_the_defaults_count() -> None:
    np.testing.assert_array_equal(leak_config(INFO).setting, leak_config(INFO, LeakSettings()).setting)
