"""The estimator of one cell over a whole trace, compiled, so that a day of samples takes a fraction of a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from bms.core.estimator import OUT_ROWS, EstimatorConfig, EstimatorState, estimator_step
from bms.core.jit import kernel


@kernel
def _over_trace(
    config: EstimatorConfig,
    state: EstimatorState,
    dt_s: Any,
    current_a: Any,
    cell_v: Any,
    cell_degc: Any,
    out: Any,
    flags: Any,
) -> None:
    """Run the filter of one cell over a trace, float32 arrays (n,); fills `out` (OUT_ROWS, n), `flags` uint8 (n,)."""
    quality = np.zeros(1, np.uint8)
    v = np.zeros(1, np.float32)
    t = np.zeros(1, np.float32)
    for k in range(current_a.size):
        v[0] = cell_v[k]
        t[0] = cell_degc[k]
        estimator_step(config, state, v, quality, t, current_a[k], np.uint8(0), dt_s[k])
        for row in range(OUT_ROWS):
            out[row, k] = state.out[row, 0]
        flags[k] = state.flags[0]


over_trace = _over_trace  # an underscore keeps it off the list of firmware kernels
