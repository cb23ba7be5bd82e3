"""The compiled loop over a trace does what a loop over single steps does."""

from __future__ import annotations

import numpy as np

from bms.cells import CellParameters
from bms.core import estimator as e
from bms.core.estimator_setup import estimator_config, estimator_state
from bms.lab.trace_kernel import over_trace


def test_one_call_equals_single_steps(plain_cell: CellParameters) -> None:
    rng = np.random.default_rng(4)
    n = 300
    dt = rng.choice([0.5, 1.0, 7.0], n).astype(np.float32)
    ampere = rng.normal(0, 1, n).astype(np.float32)
    volt = (3.28 + rng.normal(0, 0.02, n)).astype(np.float32)
    volt[[0, 7, 8]] = np.nan
    degc = np.linspace(5, 40, n).astype(np.float32)
    config = estimator_config(plain_cell)
    whole, single = estimator_state(config, 1, 0.5, 0.1), estimator_state(config, 1, 0.5, 0.1)
    out = np.zeros((e.OUT_ROWS, n), np.float32)
    flags = np.zeros(n, np.uint8)
    over_trace(config, whole, dt, ampere, volt, degc, out, flags)
    assert np.flatnonzero(flags & e.SKIPPED).tolist() == [0, 7, 8]
    for k in range(n):
        e.estimator_step(
            config, single, volt[k : k + 1], np.zeros(1, np.uint8), degc[k : k + 1], ampere[k], np.uint8(0), dt[k]
        )
        np.testing.assert_array_equal(out[:, k], single.out[:, 0])
        assert flags[k] == single.flags[0]
    for a, b in zip(whole, single, strict=True):
        assert a.tobytes() == b.tobytes()
    assert np.isnan(out[e.INNOVATION, 7])
