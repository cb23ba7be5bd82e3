"""The laboratory's gate: one program, whose digest follows the kernels of the controller too."""

import math

import numpy as np

from bms.core.jit import PROGRAM as CORE
from bms.lab.jit import PROGRAM


def test_the_loops_over_traces_are_one_program() -> None:
    assert set(PROGRAM.entries) == {"over_trace", "filtered"}
    assert set(CORE.sources) < set(PROGRAM.sources)


def test_it_may_use_the_elementary_functions_of_the_c_library() -> None:
    one = np.ones(1)
    x, h, sign = np.zeros((1, 1)), np.zeros(1), np.zeros(1)
    PROGRAM.entries["filtered"](2 * one, 2 * one, 3 * one, 6 * one, x, h, sign, 0.1, 1.0, 1.0)
    assert math.isclose(x[0, 0], 2 * (1 - math.exp(-0.5)), rel_tol=1e-15)
    assert math.isclose(h[0], 2 * math.exp(-0.6) - 1, rel_tol=1e-15)
    assert sign[0] == 1.0
