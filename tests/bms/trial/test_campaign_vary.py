"""Distributions: their ends and their shape, what is shown, and what is refused."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.trial.campaign_vary import parse_vary
from hal.errors import ConfigError


def vary(**content):
    return parse_vary("x", {"path": "rack.initial_soc", **content}, "mine.toml")


N = 4000


def drawn(one) -> list:
    return [one.draw(1, k) for k in range(N)]


def test_uniform() -> None:
    values = drawn(vary(uniform=[2, 6]))
    assert 2 <= min(values) < 2.01
    assert 5.99 < max(values) <= 6
    # 4 / sqrt(12 N) is the standard deviation of the mean; five of them
    assert statistics.fmean(values) == pytest.approx(4.0, abs=5 * 4 / math.sqrt(12 * N))


def test_log_uniform() -> None:
    values = drawn(vary(log_uniform=[1e-3, 10.0]))
    assert min(values) >= 1e-3
    assert max(values) <= 10.0
    below = sum(value < 1e-1 for value in values) / N  # half of the four decades
    assert below == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(N))


def test_normal_with_and_without_bounds() -> None:
    values = drawn(vary(normal=[25.0, 5.0]))
    assert statistics.fmean(values) == pytest.approx(25.0, abs=5 * 5 / math.sqrt(N))
    assert statistics.stdev(values) == pytest.approx(5.0, rel=0.06)
    cut = drawn(vary(normal=[25.0, 5.0], min=24.0, max=30.0))
    assert 24.0 <= min(cut) < 24.05
    assert 29.5 < max(cut) <= 30.0


def test_integers_reach_both_ends_evenly() -> None:
    values = drawn(vary(integers=[-1, 2]))
    for number in (-1, 0, 1, 2):
        assert values.count(number) / N == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / N))
    assert set(values) == {-1, 0, 1, 2}


def test_choice_with_weights() -> None:
    values = drawn(vary(choice=["a", "b", "c"], weights=[1, 0, 3]))
    assert values.count("b") == 0
    assert values.count("c") / N == pytest.approx(0.75, abs=5 * math.sqrt(0.25 * 0.75 / N))


def test_the_numbers_stay_as_they_are() -> None:
    # drawn once and kept: another version of numpy or of this code must not give other samples
    assert [vary(uniform=[0, 1]).draw(1, k) for k in range(3)] == KEPT


KEPT = [0.920200328483, 0.631355953554, 0.466746171823]


@given(st.integers(0, 2**32), st.integers(0, 10**6))
def test_a_draw_lies_within(seed: int, k: int) -> None:
    assert 1e-3 <= vary(log_uniform=[1e-3, 3.0]).draw(seed, k) <= 3.0
    assert vary(integers=[0, 415]).draw(seed, k) in range(416)


def test_what_is_shown() -> None:
    duty = vary(choice={"rest": {"kind": "constant"}, "work": {"kind": "cycle"}})
    assert (duty.type, duty.shown({"kind": "cycle"})) == (str, "work")
    assert vary(choice=[[1, 2], [3]]).shown([1, 2]) == "[1, 2]"
    assert vary(grid=[0, 5, 10]).type is int
    assert vary(grid=[0, 0.5]).type is float
    assert vary(grid=[0, "1 x charge_a"]).shown(0) == "0"
    assert vary(grid=[True, False]).type is str


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "it says not how; give one of uniform, log_uniform"),
        ({"uniform": [1, 2], "grid": [1]}, "uniform and grid are given"),
        ({"uniform": [1, 2], "weights": [1]}, "unknown key 'weights'"),
        ({"uniform": [2, 1]}, r"uniform = \[2, 1\]: the lowest comes first"),
        ({"uniform": [1]}, r"expected two numbers, \[lowest, highest\]"),
        ({"uniform": [1, float("nan")]}, "expected two numbers"),
        ({"log_uniform": [0, 1]}, "must be larger than 0; or use uniform"),
        ({"normal": [0, 0]}, "the standard deviation must be larger than 0"),
        ({"normal": [0, 1], "min": 50}, "next to nothing lies between"),
        ({"normal": [0, 1], "max": "a"}, "max = 'a': expected a number"),
        ({"integers": [0, 1.5]}, "expected two whole numbers"),
        ({"grid": []}, "expected a list of values"),
        ({"grid": [1, 1]}, "a value stands twice"),
        ({"choice": [1, 2], "weights": [1]}, r"weights = \[1\]: expected 2 numbers"),
        ({"choice": [1, 2], "weights": [0, 0]}, "not all 0"),
        ({"path": "", "grid": [1]}, "path = '': expected a field"),
        ({"path": ["a", 3], "grid": [1]}, "expected a field"),
    ],
)
def test_what_is_refused(content: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        vary(**content)
    assert str(caught.value).startswith("mine.toml: [vary.x]")


def test_no_table() -> None:
    with pytest.raises(ConfigError, match=r"\[vary.x\] = 3: expected a table"):
        parse_vary("x", 3, "mine.toml")
