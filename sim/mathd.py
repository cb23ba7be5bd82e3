"""Elementary functions in float64 as short polynomials: loops over cells become SIMD, with the same bits everywhere.

A C library's `exp` differs in the last bit from processor to processor and stops a loop from being vectorised. These
have no branch; powers of two are made from and taken out of the bits of a float64 (IEEE 754).
"""

from __future__ import annotations

import math

import numpy as np

from sim.jit import kernel

_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # 32 bits, so that n * _LN2_HIGH is exact
_LN2_LOW = 1.90821492927058770002e-10
_MAGIC = 6755399441055744.0  # 1.5 * 2^52: x + _MAGIC - _MAGIC rounds x to the nearest whole number, ties to even
_EXP_LIMIT = 700.0

# (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, relative error of the whole below 1e-18
_E0, _E1, _E2, _E3, _E4, _E5 = (
    0.5,
    0.1666666666666667,
    0.04166666666666669,
    0.008333333333326181,
    0.0013888888888870547,
    0.00019841269874691663,
)
_E6, _E7, _E8, _E9, _E10 = (
    2.480158735262502e-05,
    2.75572555408406e-06,
    2.755725006574071e-07,
    2.5105165686091048e-08,
    2.0922047174364074e-09,
)

# log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)), s = f / (2 + f): the coefficients of FreeBSD's msun (e_log.c)
_L1, _L2, _L3, _L4, _L5, _L6, _L7 = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
_SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_ONE_BITS = np.int64(0x3FF0000000000000)
_MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
_TWO52 = 4503599627370496.0
_TWO52_BITS = np.int64(0x4330000000000000)
_ASINH_LIMIT = 1e100


@kernel
def nearest(x):
    """`x` rounded to a whole number, ties to even; |x| < 2^51."""
    return (x + _MAGIC) - _MAGIC


@kernel
def exp(x):
    """exp(x) within 1 ulp; the argument is held within -700..700."""
    x = min(max(x, -_EXP_LIMIT), _EXP_LIMIT)
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (_E0 + r * _E1) + r2 * (_E2 + r * _E3)
    middle = (_E4 + r * _E5) + r2 * (_E6 + r * _E7)
    high = (_E8 + r * _E9) + r2 * _E10
    y = r + r2 * (low + r4 * (middle + r4 * high))
    # the whole number n stands in the low bits of `shifted`
    power = np.int64((np.float64(shifted).view(np.int64) + np.int64(1023)) << np.int64(52)).view(np.float64)
    return power + power * y


@kernel
def asinh_ratio(x):
    """asinh(x) / x within 3 ulp, 1 at x = 0; even by construction. |x| is held below 1e100.

    With z = |x| + sqrt(1 + x^2) - 1, asinh |x| = log(1 + z), and what 1 + z loses to rounding is put back.
    """
    a = min(abs(x), _ASINH_LIMIT)
    root = math.sqrt(1.0 + a * a)
    z = a + a * a / (1.0 + root)
    u = 1.0 + z
    lost = z - (u - 1.0) if z < 1.0 else 1.0 - (u - z)
    bits = np.float64(u).view(np.int64) + (_ONE_BITS - _SQRT_HALF_BITS)
    f = np.int64((bits & _MANTISSA) + _SQRT_HALF_BITS).view(np.float64) - 1.0
    k = np.int64((bits >> np.int64(52)) | _TWO52_BITS).view(np.float64) - (_TWO52 + 1023.0)
    half = 0.5 * f * f
    s = f / (2.0 + f)
    s2 = s * s
    s4 = s2 * s2
    series = s4 * (_L2 + s4 * (_L4 + s4 * _L6)) + s2 * (_L1 + s4 * (_L3 + s4 * (_L5 + s4 * _L7)))
    # 1 / (a + root) = root - a
    log = k * _LN2_HIGH - ((half - (s * (half + series) + (k * _LN2_LOW + lost * (root - a)))) - f)
    return log / a if a > 0.0 else 1.0
