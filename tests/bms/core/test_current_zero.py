"""What proves that nothing can flow, and what the sensor reads then."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core import current_zero as z
from bms.core.jit import f4

NAN = math.nan


def apart(gap_v: float, least_v: float, near_v: float = 20.0, pack_v: float = 1000.0) -> bool:
    return bool(z.apart(f4(gap_v), f4(least_v), f4(near_v), f4(pack_v)))


@pytest.mark.parametrize(
    ("gap_v", "least_v", "proof"),
    [
        (1000.0, 1000.0, True),  # an empty link
        (20.5, 20.5, True),  # further from the string than sensors ever are
        (20.0, 20.0, False),  # no further yet
        (19.5, 19.5, False),  # perhaps the sensors' difference: it has always been there
        (6.0, 1.0, False),  # 5 V, half a per cent, may be noise
        (6.5, 1.0, True),  # a link that has begun to fall
    ],
)
def test_a_link_apart_from_the_string_is_held_by_nothing(gap_v: float, least_v: float, proof: bool) -> None:
    assert apart(gap_v, least_v) == proof


def test_of_a_short_string_the_steps_of_a_converter_are_no_fall() -> None:
    assert not apart(0.29, 0.0, near_v=5.0, pack_v=26.0)
    assert apart(0.31, 0.0, near_v=5.0, pack_v=26.0)


@pytest.mark.parametrize("unknown", [(NAN, 0.0, 20.0, 1000.0), (NAN, NAN, NAN, NAN), (10.0, NAN, 20.0, 1000.0)])
def test_what_is_not_known_proves_nothing(unknown: tuple[float, float, float, float]) -> None:
    assert not apart(*unknown)


def test_the_least_gap_is_the_smallest_that_was_seen() -> None:
    assert float(z.least_gap(f4(NAN), f4(3.0))) == 3.0
    assert [float(z.least_gap(f4(3.0), f4(v))) for v in (2.0, 4.0, NAN)] == [2.0, 3.0, 3.0]


def followed(zero_a: float, current_a: float, dt_s: float = 1.0) -> float:
    return float(z.zero_followed(f4(zero_a), f4(current_a), f4(dt_s)))


def test_a_zero_begins_with_the_first_reading_and_follows_within_seconds() -> None:
    zero_a = followed(NAN, 3.0)
    assert zero_a == 3.0
    for _ in range(25):
        zero_a = followed(zero_a, -2.0)
    assert zero_a == pytest.approx(-2.0 + 5.0 * (5.0 / 6.0) ** 25, rel=1e-4)


def test_a_reading_that_is_not_there_changes_nothing() -> None:
    assert followed(3.0, NAN) == 3.0
    assert math.isnan(followed(NAN, NAN))


@given(
    zero_a=st.floats(-100, 100, width=32), current_a=st.floats(-100, 100, width=32), dt_s=st.floats(0, 1e5, width=32)
)
def test_a_zero_stays_between_what_it_was_and_what_is_read(zero_a: float, current_a: float, dt_s: float) -> None:
    low, high = min(zero_a, current_a), max(zero_a, current_a)
    rounding = 1e-6 * (abs(zero_a) + abs(current_a))
    assert low - rounding <= followed(zero_a, current_a, dt_s) <= high + rounding


@pytest.mark.parametrize(
    ("zero_a", "flowing_a"), [(NAN, 10.0), (0.0, 10.0), (3.0, 7.0), (-3.0, 13.0), (6.0, 5.0), (-6.0, 15.0)]
)
def test_no_more_is_taken_off_than_allowed(zero_a: float, flowing_a: float) -> None:
    assert float(z.less_zero(f4(10.0), f4(zero_a), f4(5.0))) == flowing_a
