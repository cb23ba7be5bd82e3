"""Settings of the cells as thermometers."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from bms.core import thermometer as t
from bms.core.thermometer_setup import ThermometerSettings, thermometer_config, thermometer_state


def test_constants() -> None:
    setting = thermometer_config().setting
    assert setting.dtype == np.float32
    assert len(setting) == t.N_SETTINGS == len(fields(ThermometerSettings))
    assert (setting[t.SLOW_S], setting[t.MEMORY_S], setting[t.USUAL_S]) == (30.0, 150.0, 14400.0)
    assert setting[t.NOISE_V] == np.float32(5e-4)
    assert (setting[t.SOC_LOW], setting[t.SOC_HIGH]) == (np.float32(0.12), np.float32(0.92))
    assert thermometer_config(ThermometerSettings(memory_s=90.0)).setting[t.MEMORY_S] == 90.0


def test_room_for_the_memory() -> None:
    state = thermometer_state(5)
    assert state.number.shape == (t.N_STATE_NUMBERS,)
    assert state.answer.shape == state.use.shape == (5,)
    assert state.use.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("slow_s", 0.0, "greater than 0"), ("memory_s", -1.0, "greater than 0"), ("usual_s", math.nan, "a number"),
        ("noise_v", math.inf, "a number"), ("noise_v", True, "a number"), ("slow_s", "30 s", "a number"),
        ("soc_low", 0.95, "must be below"), ("soc_high", 1.5, "from 0 to 1"), ("soc_low", -0.1, "from 0 to 1"),
    ],
)  # fmt: skip
def test_what_nothing_can_be_told_with_is_refused(name: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        ThermometerSettings(**{name: value})
    assert name in str(caught.value)
