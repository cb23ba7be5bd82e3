from dataclasses import dataclass, field
from typing import Any

import pytest

from sim.config import TwinError, from_table, hint


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
