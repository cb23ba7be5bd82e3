import numpy as np
import pytest

from bms.rig.verdict import GOOD, WRONG, Verdict, factor_of, mostly, places, times


def test_a_finding_makes_it_wrong() -> None:
    verdict = Verdict("x")
    assert verdict.state == GOOD
    verdict.add("cell 3", "is hot", "cool it")
    assert verdict.state == WRONG
    assert verdict.findings[0].remedy == "cool it"


@pytest.mark.parametrize(
    ("name", "at", "text"),
    [
        ("cell_v", [3], "cell 3"),
        ("cell_v", [7, 3], "cells 3, 7"),
        ("sensor_degc", range(6), "sensors 0, 1, 2, 3 and 2 more"),
        ("pack_v", [0], "pack_v"),
    ],
)
def test_places_have_names(name: str, at: list[int], text: str) -> None:
    assert places(name, at) == text


@pytest.mark.parametrize("factor", [10.0, 100.0, 1000.0, 0.1, 0.01, 0.001])
def test_powers_of_ten_are_found(factor: float) -> None:
    assert factor_of(np.full(5, 3.3) * factor, 2.0, 4.2) == factor
    assert factor_of(np.full(5, 3.3) * factor * 2.5, 2.0, 4.2) is None


def test_words_for_a_scale() -> None:
    assert times(10.0) == "10 times too large"
    assert times(0.01) == "100 times too small"
    assert mostly(np.array([1.0] * 19 + [9.0]), 0.0, 2.0)
    assert not mostly(np.array([1.0] * 8 + [9.0] * 2), 0.0, 2.0)
