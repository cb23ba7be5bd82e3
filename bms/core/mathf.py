"""Elementary functions in float32, the same bits on every processor.

`exp` and `log` of a C library or of a vector library differ in the last bit from target to target; these are short
polynomials with a fixed order of operations instead. Division and square root are exact everywhere (IEEE 754).
"""

from __future__ import annotations

import numpy as np

from bms.core.jit import f4, i4, kernel

_LOG2E = f4(1.44269504088896)
_LN2_HIGH = f4(0.693145751953125)  # exact in 12 bits, so that n * _LN2_HIGH is exact
_LN2_LOW = f4(1.42860682030941723e-6)
_HALF = f4(0.5)
_ONE = f4(1.0)
_TWO = f4(2.0)
_EXP_LIMIT = f4(87.0)
_LOG_LOW, _LOG_HIGH = f4(1e-30), f4(1e30)
_ASINH_LIMIT = f4(1e6)
_DECAY_LIMIT = f4(5.5)
_MINUS_SIXTEENTH = f4(-0.0625)
_C2 = f4(1.0 / 2.0)
_C3 = f4(1.0 / 6.0)
_C4 = f4(1.0 / 24.0)
_C5 = f4(1.0 / 120.0)
_C6 = f4(1.0 / 720.0)
_A3 = f4(2.0 / 3.0)
_A5 = f4(2.0 / 5.0)
_A7 = f4(2.0 / 7.0)
_A9 = f4(2.0 / 9.0)
_S5 = f4(3.0 / 40.0)


@kernel
def expm1_small(x: np.float32) -> np.float32:
    """exp(x) - 1 for |x| <= ln(2)/2 by its Taylor series to the sixth power; relative error below 2e-7.

    The odd and even parts are summed apart, so that a processor need not wait for every product in turn.
    """
    x2 = x * x
    return x + x2 * ((_C2 + x * _C3) + x2 * ((_C4 + x * _C5) + x2 * _C6))


@kernel
def _pow2(n: np.int32) -> np.float32:
    """2**n for -126 <= n <= 126, by repeated exact multiplication."""
    y = _ONE
    b = _HALF if n < 0 else _TWO
    k = -n if n < 0 else n
    while k > 0:
        if k & 1:
            y = y * b
        b = b * b
        k >>= 1
    return y


@kernel
def expf(x: np.float32) -> np.float32:
    """exp(x), float32; the argument is limited to +-87. Relative error below 3e-7."""
    x = min(max(x, -_EXP_LIMIT), _EXP_LIMIT)
    t = x * _LOG2E
    n = i4(t + _HALF) if t >= f4(0.0) else i4(t - _HALF)
    nf = f4(n)
    r = (x - nf * _LN2_HIGH) - nf * _LN2_LOW
    y: np.float32 = (expm1_small(r) + _ONE) * _pow2(n)
    return y


@kernel
def one_minus_exp(x: np.float32) -> np.float32:
    """1 - exp(-x) for x >= 0, without cancellation for small x, where it is most needed (x = dt/tau)."""
    y: np.float32 = -expm1_small(-x) if x < f4(0.3) else _ONE - expf(-x)
    return y


@kernel
def decay(x: np.float32) -> np.float32:
    """1 - exp(-x) for x >= 0 without a branch, for loops over cells; beyond 5.5 it stays at 0.996.

    exp(2 y) - 1 = e (e + 2) with e = exp(y) - 1, four times from x/16. Relative error below 1e-6.
    """
    x = x if x < _DECAY_LIMIT else _DECAY_LIMIT
    e = expm1_small(x * _MINUS_SIXTEENTH)
    e = e * (e + _TWO)
    e = e * (e + _TWO)
    e = e * (e + _TWO)
    e = e * (e + _TWO)
    y: np.float32 = -e
    return y


@kernel
def logf(x: np.float32) -> np.float32:
    """Natural logarithm, float32: halved into 0.7..1.4, then 2 artanh((m - 1)/(m + 1)) as a series.

    The argument is limited to 1e-30..1e30 (halving zero or infinity would never end).
    Relative error below 3e-7 except near x = 1, where the absolute error is below 1e-7.
    """
    x = min(max(x, _LOG_LOW), _LOG_HIGH)
    n = i4(0)
    while x > f4(1.41421356):
        x = x * _HALF
        n += i4(1)
    while x < f4(0.70710678):
        x = x * _TWO
        n -= i4(1)
    t = (x - _ONE) / (x + _ONE)
    t2 = t * t
    series = t * (_TWO + t2 * (_A3 + t2 * (_A5 + t2 * (_A7 + t2 * _A9))))
    return f4(n) * _LN2_HIGH + (f4(n) * _LN2_LOW + series)


@kernel
def asinhf(x: np.float32) -> np.float32:
    """Inverse hyperbolic sine, float32; odd by construction. The argument is limited to +-1e6."""
    a = min(abs(x), _ASINH_LIMIT)
    if a < f4(0.1):
        x2 = x * x
        return x * (_ONE - x2 * (_C3 - x2 * _S5))
    y: np.float32 = logf(a + np.sqrt(a * a + _ONE))
    return y if x > f4(0.0) else -y
