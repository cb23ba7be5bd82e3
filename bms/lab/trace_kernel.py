"""Loops over whole traces, compiled, so that a day of samples takes a fraction of a second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bms.core.estimator import estimator_init, estimator_step
from bms.core.estimator_layout import OUT_ROWS
from bms.core.layout import config_of, state_of
from bms.lab.jit import kernel
from hal.contract import F4, LANES, U1

F8 = npt.NDArray[np.float64]


@kernel("void(u1[::1], u1[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], u1[::1], f4[:,::1], u1[::1])")
def over_trace(
    config: U1,
    state: U1,
    soc: F4,
    soc_std: F4,
    dt_s: F4,
    current_a: F4,
    cell_v: F4,
    cell_degc: F4,
    quality: U1,
    out: F4,
    flags: U1,
) -> None:
    """Start the filter of one cell at `soc` with deviation `soc_std`, (1,), and run it over a trace of n samples.

    `config` and `state` are the bytes of records for one cell and one sensor (`bms.core.layout`); the samples and
    `quality` have (n,) each. Fills `out` (OUT_ROWS, n) and `flags` (n,).
    """
    estimator = config_of(config).estimator
    filters = state_of(state, 1, 1).estimator
    estimator_init(estimator, filters, soc, soc_std, cell_degc[0])
    for k in range(current_a.size):
        here = slice(k, k + 1)
        estimator_step(
            estimator, filters, cell_v[here], quality[here], cell_degc[here], current_a[k], np.uint8(0), dt_s[k]
        )
        for row in range(OUT_ROWS):
            out[row, k] = filters.out[row * LANES]
        flags[k] = filters.flags[0]


@kernel("void(f8[::1], f8[::1], f8[::1], f8[::1], f8[:,::1], f8[::1], f8[::1], f8, f8, f8)")
def filtered(
    mid_a: F8, now_a: F8, dt_s: F8, tau_s: F8, x: F8, h: F8, sign: F8, rate: float, dead_a: float, h_start: float
) -> None:
    """What the model voltage is linear in: currents behind each RC pair, hysteresis, sign of the last current.

    `mid_a`, `now_a`, `dt_s`: (n,) current over each interval and at its end, A, and its length, s. `tau_s`: (m,).
    `rate`: of the hysteresis, 1/(A s). Below `dead_a` the sign stays. Fills `x` (n, m), A; `h`, `sign` (n,), -1..1.
    """
    acc, last = h_start, 0.0
    for k in range(mid_a.size):
        for j in range(tau_s.size):
            b = 1.0 - np.exp(-dt_s[k] / tau_s[j])
            x[k, j] = b * mid_a[k] if k == 0 else x[k - 1, j] + b * (mid_a[k] - x[k - 1, j])
        decay = np.exp(-abs(mid_a[k]) * rate * dt_s[k])
        acc = decay * acc - (1.0 - decay) * (1.0 if mid_a[k] > 0 else -1.0)
        if abs(now_a[k]) > dead_a:
            last = 1.0 if now_a[k] > 0 else -1.0
        h[k], sign[k] = acc, last
