"""Settings of the runaway detection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import runaway as r
from bms.core.runaway_setup import RunawaySettings, runaway_config


def test_constants() -> None:
    setting = runaway_config(55.0).setting
    assert (setting[r.RATE], setting[r.FAST_RATE], setting[r.HOT_DEGC], setting[r.DROP]) == (1.0, 3.0, 55.0, 0.25)
    assert runaway_config(55.0, RunawaySettings(hot_degc=70.0)).setting[r.HOT_DEGC] == 70.0
    assert setting.dtype == np.float32


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
