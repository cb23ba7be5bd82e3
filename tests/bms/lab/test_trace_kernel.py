"""The compiled loop over a trace does what a loop over single steps does."""

from __future__ import annotations

import numpy as np

from bms.cells import CellParameters
from bms.core import estimator_layout as e
from bms.core.estimator import estimator_step
from bms.core.estimator_setup import estimator_config, estimator_state, per_cell
from bms.core.layout import Config, State, fill_estimator, state_of
from bms.lab.trace_kernel import over_trace


def test_one_call_equals_single_steps(plain_cell: CellParameters) -> None:
    rng = np.random.default_rng(4)
    n = 300
    dt = rng.choice([0.5, 1.0, 7.0], n).astype(np.float32)
    ampere = rng.normal(0, 1, n).astype(np.float32)
    volt = (3.28 + rng.normal(0, 0.02, n)).astype(np.float32)
    volt[[0, 7, 8]] = np.nan
    degc = np.linspace(5, 40, n).astype(np.float32)
    quality = np.zeros(n, np.uint8)
    quality[9] = 1
    estimator = estimator_config(plain_cell)
    config, whole = Config(1, 1), State(1, 1)
    fill_estimator(config, estimator)
    config.head["n_cells"], config.head["n_sensors"] = 1, 1
    out = np.zeros((e.OUT_ROWS, n), np.float32)
    flags = np.zeros(n, np.uint8)
    start = per_cell(0.5, 1), per_cell(0.1, 1)
    over_trace(config.bytes, whole.bytes, *start, dt, ampere, volt, degc, quality, out, flags)
    assert np.flatnonzero(flags & e.SKIPPED).tolist() == [0, 7, 8, 9]
    single = estimator_state(estimator, 1, 0.5, 0.1, degc=float(degc[0]))
    for k in range(n):
        here = slice(k, k + 1)
        estimator_step(estimator, single, volt[here], quality[here], degc[here], ampere[k], np.uint8(0), dt[k])
        np.testing.assert_array_equal(out[:, k], single.out.reshape(e.OUT_ROWS, -1)[:, 0])
        assert flags[k] == single.flags[0]
    for a, b in zip(state_of(whole.bytes, 1, 1).estimator, single, strict=True):
        assert a.tobytes() == b.tobytes()
    assert np.isnan(out[e.INNOVATION, 7])


def test_a_trace_starts_at_its_own_temperature(plain_cell: CellParameters) -> None:
    """The RC voltages of a cold cell start with more doubt."""
    doubt = []
    for degc in (0.0, 25.0):
        config, state = Config(1, 1), State(1, 1)
        fill_estimator(config, estimator_config(plain_cell))
        config.head["n_cells"], config.head["n_sensors"] = 1, 1
        one = np.ones(1, np.float32)
        good, out, flags = np.zeros(1, np.uint8), np.zeros((e.OUT_ROWS, 1), np.float32), np.zeros(1, np.uint8)
        over_trace(
            config.bytes, state.bytes, 0.5 * one, 0.1 * one, one, 0.0 * one, np.nan * one, degc * one, good, out, flags
        )
        doubt.append(float(state.blocks[e.p_row(e.V4, e.V4) * 16]))
    assert doubt[0] > 2.0 * doubt[1]
