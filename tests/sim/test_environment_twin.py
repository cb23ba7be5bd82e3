import pytest

from sim.config import TwinError, from_table
from sim.environment import FAULT_KINDS, EnvironmentConfig, fault_configs


def test_ambient_swings_over_the_day() -> None:
    still = from_table(EnvironmentConfig, {"ambient_degc": 12.0}, "[environment]")
    assert still.ambient_at(0.0) == still.ambient_at(50000.0) == 12.0
    swing = EnvironmentConfig(ambient_degc=20.0, ambient_swing_degc=8.0, start_hour=9.0)
    assert swing.ambient_at(6 * 3600) == pytest.approx(28.0)  # 15 h
    assert swing.ambient_at(18 * 3600) == pytest.approx(12.0)  # 3 h
    assert swing.ambient_at(30 * 3600) == pytest.approx(28.0)


def test_faults_come_and_go() -> None:
    (fault, lasting) = fault_configs(
        [
            {"kind": "cell_v_missing", "at_s": 5.0, "until_s": 10.0, "index": [0, 3]},
            {"kind": "insulation", "at_s": 7, "value": 1000},
        ],
        4,
        1,
    )
    assert [fault.active(t) for t in (4.9, 5.0, 9.9, 10.0)] == [False, True, True, False]
    assert [lasting.active(t) for t in (6.9, 7.0, 1e9)] == [False, True, True]
    assert lasting.value == 1000.0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "cell_v_missin"}, "did you mean 'cell_v_missing'?"),
        ({}, "'kind' is missing"),
        ({"kind": "cell_v_missing"}, "index is missing"),
        ({"kind": "cell_v_missing", "index": [4]}, "index 4 is not in 0..3"),
        ({"kind": "cell_v_missing", "index": [-1]}, "index -1"),
        ({"kind": "sensor_missing", "index": [2]}, "index 2 is not in 0..1"),
        ({"kind": "insulation"}, "value is missing"),
        ({"kind": "interlock_open", "value": 1.0}, "value is not used"),
        ({"kind": "interlock_open", "index": [1]}, "index is not used"),
        ({"kind": "interlock_open", "at_s": 5.0, "until_s": 5.0}, "until_s must be later"),
        ({"kind": "interlock_open", "at": 5.0}, "unknown key 'at'"),
        ("interlock_open", "expected a table"),
    ],
)
def test_bad_faults_are_refused(entry: object, message: str) -> None:
    with pytest.raises(TwinError) as caught:
        fault_configs([entry], 4, 2)  # type: ignore[list-item]
    assert message in str(caught.value)
    assert "[[fault]]" in str(caught.value)


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


def test_every_fault_kind_is_told() -> None:
    assert all(len(text) > 20 for text in FAULT_KINDS.values())
