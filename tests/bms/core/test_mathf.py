"""Elementary functions in float32 against numpy in float64, over their whole domain and at its ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core import mathf
from bms.core.jit import f4

EPS = 2.0**-24  # half an ulp of 1 in float32: the rounding of one operation
N = 20001

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def over(function: Callable[..., np.float32], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`function` at `x` rounded to float32: arguments and results as float64."""
    x32 = x.astype(np.float32)
    return x32.astype(np.float64), np.array([function(v) for v in x32], np.float64)


def worst_relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found - expected) / np.abs(expected)))


def test_expf_is_right_over_its_whole_range() -> None:
    x, y = over(mathf.expf, np.linspace(-87.0, 87.0, N))
    assert worst_relative(y, np.exp(x)) < 3e-7


def test_expf_near_zero_is_one_plus_x() -> None:
    x, y = over(mathf.expf, np.r_[-np.geomspace(1e-30, 0.4, N // 4), np.geomspace(1e-30, 0.4, N // 4)])
    assert worst_relative(y, np.exp(x)) < 3e-7
    assert worst_relative(y[np.abs(x) < 1e-3], np.exp(x[np.abs(x) < 1e-3])) < 1.01 * EPS  # rounded once
    assert mathf.expf(f4(0.0)) == 1.0


@pytest.mark.parametrize(("x", "limit"), [(88.0, 87.0), (1e30, 87.0), (np.inf, 87.0), (-88.0, -87.0), (-np.inf, -87.0)])
def test_expf_limits_its_argument(x: float, limit: float) -> None:
    assert mathf.expf(f4(x)) == mathf.expf(f4(limit))


def test_expf_rises_from_step_to_step() -> None:
    """No jump where the exponent changes: between neighbours 1e-3 apart exp grows by 1e-3, far above its error."""
    _, y = over(mathf.expf, np.arange(-20.0, 20.0, 1e-3))
    assert np.all(np.diff(y) > 0)


def test_one_minus_exp_keeps_its_digits_where_the_difference_is_small() -> None:
    x, y = over(mathf.one_minus_exp, np.geomspace(1e-30, 80.0, N))
    assert worst_relative(y, -np.expm1(-x)) < 5e-7  # at 0.3 the direct formula loses two bits
    naive = 1.0 - np.exp(np.float32(-1e-8))
    assert naive == 0.0
    assert mathf.one_minus_exp(f4(1e-8)) == f4(1e-8)


def test_one_minus_exp_at_its_ends() -> None:
    assert mathf.one_minus_exp(f4(0.0)) == 0.0
    assert mathf.one_minus_exp(f4(np.inf)) == 1.0
    for x in (0.29999, 0.3, 0.30001):
        assert mathf.one_minus_exp(f4(x)) == pytest.approx(-math.expm1(-float(f4(x))), rel=5e-7)


def test_decay_is_right_up_to_its_limit() -> None:
    x, y = over(mathf.decay, np.geomspace(1e-30, 5.5, N))
    assert worst_relative(y, -np.expm1(-x)) < 1e-6
    assert mathf.decay(f4(0.0)) == 0.0
    assert mathf.decay(f4(1e-8)) == f4(1e-8)


@pytest.mark.parametrize("x", [6.0, 100.0, 3e38, np.inf, np.nan])
def test_decay_stops_at_its_limit(x: float) -> None:
    assert mathf.decay(f4(x)) == mathf.decay(f4(5.5))
    assert 0.995 < mathf.decay(f4(x)) < 1.0


def test_decay_falls_nowhere() -> None:
    _, y = over(mathf.decay, np.arange(0.0, 5.5, 1e-3))
    assert np.all(np.diff(y) > 0)


def test_logf_is_right_over_its_whole_range() -> None:
    x, y = over(mathf.logf, np.geomspace(1e-30, 1e30, N))
    far = np.abs(x - 1.0) > 0.05
    assert worst_relative(y[far], np.log(x[far])) < 3e-7
    assert np.max(np.abs(y - np.log(x))[~far]) < 1e-7


def test_logf_near_one() -> None:
    x, y = over(mathf.logf, np.linspace(0.9, 1.1, N))
    assert np.max(np.abs(y - np.log(x))) < 1e-7
    assert mathf.logf(f4(1.0)) == 0.0


@pytest.mark.parametrize("x", [0.0, -0.0, -1.0, -np.inf, 1e-38, np.inf, 3e38])
def test_logf_ends_whatever_it_is_given(x: float) -> None:
    limit = 1e30 if x > 1.0 else 1e-30
    assert mathf.logf(f4(x)) == mathf.logf(f4(limit))


@given(finite32.filter(lambda x: 1e-30 <= abs(x) <= 1e30))
def test_logf_undoes_expf(x: float) -> None:
    y = float(mathf.logf(f4(abs(x))))
    if abs(y) < 69.0:
        # the absolute error of log (4e-7 of up to 69) becomes the relative error of exp
        assert float(mathf.expf(f4(y))) == pytest.approx(abs(x), rel=2e-5)


def test_asinhf_is_right_over_its_whole_range() -> None:
    x, y = over(mathf.asinhf, np.geomspace(1e-30, 1e6, N))
    assert worst_relative(y, np.arcsinh(x)) < 2e-6  # at 0.1 the logarithm has an absolute error of 1e-7
    small = x < 0.1
    assert worst_relative(y[small], np.arcsinh(x[small])) < 3e-7


def test_asinhf_has_no_jump_where_its_series_ends() -> None:
    below, above = np.nextafter(f4(0.1), f4(0.0)), f4(0.1)
    assert abs(float(mathf.asinhf(above)) - float(mathf.asinhf(below))) < 2e-7


@given(finite32)
def test_asinhf_is_odd_and_finite(x: float) -> None:
    y = mathf.asinhf(f4(x))
    assert np.isfinite(y)
    assert mathf.asinhf(f4(-x)) == -y
    assert abs(float(y)) <= abs(x)


@pytest.mark.parametrize("x", [1e7, 1e20, 3e38, np.inf])
def test_asinhf_limits_its_argument(x: float) -> None:
    """The square of 1e20 overflows; a logarithm by halving would then never end."""
    assert mathf.asinhf(f4(x)) == mathf.asinhf(f4(1e6))
    assert mathf.asinhf(f4(-x)) == -mathf.asinhf(f4(1e6))


def test_results_are_float32() -> None:
    for function in (mathf.expf, mathf.one_minus_exp, mathf.decay, mathf.logf, mathf.asinhf):
        function(f4(0.5))
        made = {str(s.args[0]): str(s.return_type) for s in function.dispatcher.nopython_signatures}
        assert made["float32"] == "float32"


def test_two_to_the_power_of_a_whole_number_is_exact() -> None:
    for n in range(-126, 127):
        assert mathf._pow2(np.int32(n)) == 2.0**n
