"""Settings of the cooling are refused by name."""

from __future__ import annotations

import pytest

from bms.core import cooling as c
from bms.core.cooling_setup import CoolingSettings, cooling_config


def test_each_setting_reaches_its_place() -> None:
    number = cooling_config(CoolingSettings(21.0, 1.5, 10.0, 20.0)).number
    assert [number[k] for k in (c.HOT_DEGC, c.GAIN, c.MIN_DEGC, c.MAX_DEGC)] == [21.0, 1.5, 10.0, 20.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("hot_degc", float("nan")), ("gain", -1.0), ("gain", True), ("min_degc", -99.0), ("max_degc", 5.0), ("gain", "1")],
)
def test_a_wrong_setting_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^(min_degc = 15|{name} = )"):
        CoolingSettings(**{name: value})  # type: ignore[arg-type]
