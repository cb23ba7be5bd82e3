"""The estimator of one cell over a whole trace, compiled, so that a day of samples takes a fraction of a second."""

from __future__ import annotations

import numpy as np

from bms.core.estimator import estimator_init, estimator_step
from bms.core.estimator_layout import OUT_ROWS
from bms.core.jit import kernel
from bms.core.layout import config_of, state_of
from hal.contract import F4, LANES, U1


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
