"""What no rack can be is refused."""

from typing import Any

import pytest

from bms.racks.settings import RackSettings, TimingSettings


def test_defaults_are_a_single_cell_stepped_each_second() -> None:
    assert (RackSettings().n_series, RackSettings().n_parallel, TimingSettings().period_s) == (1, 1, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_series": 0}, "n_series = 0: must be in 1..65534"),  # 65535 is NO_INDEX
        ({"n_series": 65535}, "n_series = 65535"),
        ({"n_parallel": 0}, "n_parallel = 0: must be in 1..1000"),
        ({"capacity_ah": 0.0}, "capacity_ah = 0.0: must be greater than 0"),
        ({"coolant_flow_lpm": float("inf")}, "coolant_flow_lpm = inf"),
        ({"contactor_break_a": -1.0}, "contactor_break_a = -1.0"),
    ],
)
def test_racks_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RackSettings(**values)


@pytest.mark.parametrize("period_s", [0.0, 0.005, 61.0, float("nan")])
def test_periods_that_the_controller_is_not_made_for(period_s: float) -> None:
    with pytest.raises(ValueError, match="must be in 0.01..60"):
        TimingSettings(period_s)
