"""Kernels: compiled when they must be, by themselves from Python, inlined from each other."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hal.engine import Kernel, Program, kernel

Make = Callable[..., Program]


def test_a_helper_is_compiled_in_memory_for_what_it_is_called_with(small: Make) -> None:
    twice = small().kernel(lambda x: x + x)
    assert twice(np.float32(1.5)) == 3.0
    assert twice(2) == 4
    assert len(twice.dispatcher.signatures) == 2
    assert twice.bind(np.float32(2.0))() == 4.0


def test_kernels_call_each_other_whatever_their_kind(small: Make) -> None:
    program = small()

    @program.kernel
    def helper(values: Any, k: Any) -> Any:
        return values[k] * 2.0

    @program.kernel("f8(f8[::1], i8)")
    def inner(values: Any, k: Any) -> Any:
        return helper(values, k) + 1.0

    @program.kernel("f8(f8[::1])")
    def outer(values: Any) -> Any:
        return inner(values, 0) + helper(values, 1)

    assert outer(np.array([3.0, 4.0])) == 15.0
    assert outer.py_func(np.array([3.0, 4.0])) == 15.0
    assert inner.dispatcher(np.array([3.0, 4.0]), 1) == 9.0  # in memory as well, for a kernel of a test
    assert Kernel.building is None


def test_a_division_by_zero_raises_nothing_in_memory_either(small: Make) -> None:
    ratio = small().kernel(lambda a, b: a / b)
    assert ratio(1.0, 0.0) == np.inf
    assert np.isnan(ratio(np.float32(0), np.float32(0)))


def test_it_looks_like_its_function(small: Make) -> None:
    def documented(x: Any) -> Any:
        """What it does."""
        return x

    made = small().kernel(documented)
    assert (made.__name__, made.__doc__, made.__module__) == ("documented", "What it does.", __name__)
    assert repr(made) == f"<kernel {__name__}.documented>"


def test_the_implementation_can_be_looked_for_anew(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small().kernel(lambda x: x)
    assert made.implementation is made.dispatcher
    monkeypatch.setattr(kernel, "PLAIN", True)
    assert made.implementation is made.dispatcher
    made.forget()
    assert made.implementation is made.py_func


def test_plain_python_where_it_is_asked_for() -> None:
    code = (
        "import sys; from hal.codec.recording import pack, unpack; import numpy as np\n"
        "print(pack.implementation is pack.py_func, unpack(np.zeros(4, np.uint8), np.zeros(32, np.uint32)),"
        " [m for m in ('numba', 'llvmlite') if m in sys.modules])"
    )
    environment = {**os.environ, "RACKBMS_JIT": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True 4 []"
