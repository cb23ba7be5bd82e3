import pytest

from sim.config import TwinError, from_table
from sim.environment import EnvironmentConfig


def test_ambient_swings_over_the_day() -> None:
    still = from_table(EnvironmentConfig, {"ambient_degc": 12.0}, "[environment]")
    assert still.ambient_at(0.0) == still.ambient_at(50000.0) == 12.0
    swing = EnvironmentConfig(ambient_degc=20.0, ambient_swing_degc=8.0, start_hour=9.0)
    assert swing.ambient_at(6 * 3600) == pytest.approx(28.0)  # 15 h
    assert swing.ambient_at(18 * 3600) == pytest.approx(12.0)  # 3 h
    assert swing.ambient_at(30 * 3600) == pytest.approx(28.0)


@pytest.mark.parametrize(
    "table",
    [
        {"ambient_degc": 120.0},
        {"ambient_swing_degc": -1.0},
        {"insulation_ohm": -1.0},
        {"coolant_min_degc": 41.0},
        {"coolant_max_degc": -100.0},
    ],
)
def test_bad_environments_are_refused(table: dict[str, float]) -> None:
    with pytest.raises(TwinError, match=next(iter(table))):
        from_table(EnvironmentConfig, table, "[environment]")
