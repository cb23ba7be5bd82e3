"""Against the C library, which is right within half a unit in the last place (ulp) here."""

import math

import numpy as np
import pytest

from sim import mathd


def ulps(found: float, right: float) -> float:
    return abs(found - right) / math.ulp(right)


def test_exp_is_right_within_two_ulp() -> None:
    rng = np.random.default_rng(1)
    arguments = np.concatenate([rng.uniform(-700, 700, 4000), rng.uniform(-1, 1, 8000), rng.normal(0, 1e-6, 1000)])
    assert max(ulps(mathd.exp(x), math.exp(x)) for x in arguments.tolist()) < 2.0


def test_exp_at_its_ends() -> None:
    assert mathd.exp(0.0) == 1.0
    assert mathd.exp(-1e9) == mathd.exp(-700.0) == pytest.approx(math.exp(-700.0), rel=1e-15)
    assert mathd.exp(1e9) == pytest.approx(math.exp(700.0), rel=1e-15)


def test_asinh_ratio_is_right_within_four_ulp() -> None:
    rng = np.random.default_rng(2)
    arguments = np.concatenate(
        [10.0 ** rng.uniform(-8, 2, 8000), 10.0 ** rng.uniform(-300, 90, 3000), rng.uniform(0.4, 0.6, 2000)]
    )
    assert max(ulps(mathd.asinh_ratio(x), math.asinh(x) / x) for x in arguments.tolist()) < 4.0


def test_asinh_ratio_is_even_and_one_at_zero() -> None:
    assert mathd.asinh_ratio(0.0) == mathd.asinh_ratio(-0.0) == mathd.asinh_ratio(5e-324) == 1.0
    for x in (1e-9, 0.3, 7.0, 1e12):
        assert mathd.asinh_ratio(-x) == mathd.asinh_ratio(x)


@pytest.mark.parametrize("x", [0.5, -0.5, 1.5, 2.5, -2.5, 3.49999, 1e9 + 0.5, 0.0, -7.0])
def test_nearest_rounds_ties_to_even(x: float) -> None:
    assert mathd.nearest(x) == np.rint(x)
