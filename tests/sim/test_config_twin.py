from dataclasses import dataclass, field, fields
from typing import Any

import pytest

from sim.config import TwinError, check_ranges, from_table, hint, key, unit_of


@dataclass(frozen=True)
class Sample:
    whole: int
    number: float = 1.0
    flag: bool = False
    text: str = "a"
    maybe: float | None = None
    many: tuple[float, ...] = field(default_factory=tuple)


def test_values_are_taken_over_with_their_types() -> None:
    made = from_table(Sample, {"number": 3, "flag": True, "many": [1, 2.5], "maybe": 2}, "[t]", whole=7)
    assert made == Sample(7, 3.0, True, "a", 2.0, (1.0, 2.5))
    assert isinstance(made.number, float)
    assert from_table(Sample, {"whole": 1, "maybe": None}, "[t]").maybe is None
    assert from_table(Sample, {"whole": 2}, "[t]", whole=1).whole == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"whole": 1, "nmber": 2.0}, "[t]: unknown key 'nmber' (did you mean 'number'?)"),
        ({"whole": 1, "zzzzzz": 2.0}, "[t]: unknown key 'zzzzzz' (known: flag, many, maybe, number, text, whole)"),
        ({}, "[t]: the key 'whole' is missing"),
        ({"whole": True}, "[t] whole = True: expected a whole number"),
        ({"whole": 1.0}, "expected a whole number"),
        ({"whole": 1, "number": "1"}, "[t] number = '1': expected a finite number"),
        ({"whole": 1, "number": float("inf")}, "expected a finite number"),
        ({"whole": 1, "number": True}, "expected a finite number"),
        ({"whole": 1, "flag": 1}, "expected true or false"),
        ({"whole": 1, "text": 1}, "expected text"),
        ({"whole": 1, "many": 1.0}, "expected a list"),
        ({"whole": 1, "many": [1.0, "x"]}, "[t] many[1] = 'x': expected a finite number"),
    ],
)
def test_bad_tables_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(TwinError) as caught:
        from_table(Sample, table, "[t]")
    assert message in str(caught.value)


def test_hint() -> None:
    assert hint("cyle", ["cycle", "csv"]) == " (did you mean 'cycle'?)"
    assert hint("?", ["b", "a"]) == " (known: a, b)"


@dataclass(frozen=True)
class Ranged:
    """One key of each kind of range."""

    rest_s: float = key("any", 0.0)
    watt_w: float = key("none below", 0.0, low=0)
    flow_w_per_k: float = key("more than none", 1.0, above=0)
    count: int = key("some", 2, low=2)
    share: float = key("a part", 1.0, low=0.5, high=1)
    step_h: float = key("a part, but not none", 1.0, above=0, high=1, unit="min")
    high: float = key("at most", 1.0, high=2)
    text: str = key("no number", "")


def test_units_follow_from_names_unless_they_are_told() -> None:
    assert [unit_of(field) for field in fields(Ranged)] == ["s", "W", "W/K", "", "", "min", "", ""]


def test_ranges_read_as_they_hold() -> None:
    told = [str(field.metadata["range"]) for field in fields(Ranged)]
    assert told == ["", ">= 0", "> 0", ">= 2", "0.5..1", "> 0, <= 1", "<= 2", ""]
    check_ranges(Ranged(), "[t]")
    check_ranges(Ranged(rest_s=-1e9, share=0.5), "[t]")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"watt_w": -1.0}, "[t] watt_w = -1.0: must not be negative"),
        ({"flow_w_per_k": 0.0}, "[t] flow_w_per_k = 0.0: must be positive"),
        ({"count": 1}, "[t] count = 1: must be >= 2"),
        ({"share": 0.4}, "[t] share = 0.4: must be in 0.5..1"),
        ({"share": 1.1}, "[t] share = 1.1: must be in 0.5..1"),
        ({"step_h": 0.0}, "[t] step_h = 0.0: must be > 0, <= 1"),
        ({"high": 2.5}, "[t] high = 2.5: must be <= 2"),
        ({"step_h": 1.1}, "[t] step_h = 1.1: must be > 0, <= 1"),
    ],
)
def test_numbers_out_of_range_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(TwinError) as caught:
        check_ranges(Ranged(**table), "[t]")
    assert str(caught.value) == message
