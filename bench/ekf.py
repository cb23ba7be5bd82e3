"""What does one step of the estimator cost per cell, from one cell to a fleet?

Run with `make bench`, or `python -m pytest bench/ekf.py --benchmark-only -q`. One call of the kernel is one sample of
all cells of a string. 416 cells are a rack whose state stays in the cache; 100,000 do not fit. Medians of rounds on an
otherwise idle machine, one core.
"""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bms.cells import load
from bms.core.estimator import SOC, STATUS_OK, estimator_step
from bms.core.estimator_setup import estimator_config, estimator_state


@pytest.mark.parametrize("n_cells", [1, 16, 416, 100_000])
def test_estimator_step(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], n_cells: int) -> None:
    """Steps of 1 s around half full, under a current that changes sign so that the state of charge stays put."""
    config = estimator_config(load("lfp_280"))
    state = estimator_state(config, n_cells, np.linspace(0.45, 0.55, n_cells), 0.05)
    cell_v = np.linspace(3.27, 3.30, n_cells).astype(np.float32)
    quality = np.zeros(n_cells, np.uint8)
    degc = np.linspace(22.0, 28.0, n_cells).astype(np.float32)
    one_second, good = np.float32(1.0), np.uint8(0)
    current = [np.float32(100.0)]

    def step() -> int:
        current[0] = -current[0]
        return int(estimator_step(config, state, cell_v, quality, degc, current[0], good, one_second))

    assert step() == STATUS_OK
    benchmark.pedantic(step, rounds=30, iterations=max(1, 20_000 // n_cells), warmup_rounds=2)
    assert np.all(np.abs(state.out[SOC] - 0.5) < 0.3)
    ns = 1e9 * benchmark.stats.stats.median / n_cells
    benchmark.extra_info["ns_per_cell_step"] = ns
    with capsys.disabled():
        print(
            f"\nestimator step  {n_cells:7} cells {ns:9.1f} ns per cell-step {1e-3 * ns * n_cells:11.1f} us a step",
            end="",
        )
