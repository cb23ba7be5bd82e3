"""Settings of the state of health: which are refused, and what the kernels get of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from bms.core import health_layout as h
from bms.core.health_setup import HealthSettings, health_config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"period_s": 0.0}, "period_s = 0.0: must be greater than 0"),
        ({"memory_days": -1.0}, "memory_days = -1.0: must be greater than 0"),
        ({"min_swing": 1.0}, "min_swing = 1.0: must be less than 1"),
        ({"max_soc_std": float("nan")}, "max_soc_std = nan: must be a number"),
        ({"drop_share": True}, "drop_share = True: must be a number"),
        ({"leave": 0.3}, "leave = 0.3: must be less than min_swing = 0.3"),
        ({"capacity_min": 1.0}, "capacity_min = 1.0: must be below 1"),
        ({"capacity_max": 0.9}, "capacity_min = 0.5: must be below 1, and capacity_max above"),
        ({"feed_filter": 1}, "feed_filter = 1: must be true or false"),
    ],
)
def test_what_cannot_work_is_refused_by_name(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must") as error:
        HealthSettings(**setting)
    assert str(error.value).startswith(message)


def test_units_are_those_of_the_kernels() -> None:
    config = health_config(280.0, 2, HealthSettings(memory_days=10.0, resistance_memory_days=2.0, change_c=0.1))
    number = config.number
    assert number[h.MEMORY_H] == 240.0
    assert number[h.R_MEMORY_H] == 48.0
    assert number[h.CHANGE_A] == np.float32(28.0)
    assert number[h.R_MIN_A] == np.float32(0.05 * 280.0)
    assert number[h.PER_CELL] == 0.5
    assert config.word.tolist() == [1]
    assert health_config(280.0, 1, HealthSettings(feed_filter=False)).word.tolist() == [0]


def test_every_setting_reaches_the_kernels() -> None:
    """Changing any one setting changes the constants: none is accepted and ignored."""
    before = health_config(100.0, 1)
    for f in fields(HealthSettings):
        value = getattr(HealthSettings(), f.name)
        changed = health_config(100.0, 1, HealthSettings(**{f.name: not value if value is True else value * 1.01}))
        moved = (changed.number != before.number).sum() + (changed.word != before.word).sum()
        assert moved == 1, f.name
