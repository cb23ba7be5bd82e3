"""The twin's gate: kernels that compile in memory when nothing better is there."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from sim import jit


@pytest.fixture(autouse=True)
def entries_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "ENTRIES", [])
    monkeypatch.setattr(jit.Kernel, "provider", None)


def scale(values: Any, factor: float) -> float:
    for k in range(values.size):
        values[k] = twice(values[k]) * factor
    return values[0]


@jit.kernel
def twice(x: float) -> float:
    return 2.0 * x


@jit.kernel
def ratio(a: float, b: float) -> float:
    return a / b


def test_a_kernel_is_compiled_and_calls_another() -> None:
    entry = jit.kernel("f8(f8[::1], f8)")(scale)
    values = np.array([1.0, 2.0])
    assert entry(values, 3.0) == 6.0
    assert values.tolist() == [6.0, 12.0]
    assert entry.dispatcher.signatures
    assert entry.bind(values)(0.5) == 6.0


def test_a_division_by_zero_raises_nothing() -> None:
    assert ratio(1.0, 0.0) == np.inf
    assert np.isnan(ratio(0.0, 0.0))


def test_who_provides_an_implementation_is_asked_once_for_entries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Instead:
        def __call__(self, *args: Any) -> float:
            return -1.0

        def bind(self, *arrays: Any) -> Callable[..., float]:
            return partial(self, *arrays)

    def provider(kernel: Any) -> Instead:
        asked.append(kernel.__name__)
        return Instead()

    monkeypatch.setattr(jit.Kernel, "provider", provider)
    entry = jit.kernel("f8(f8[::1], f8)")(scale)
    helper = jit.kernel(ratio.py_func)
    assert [entry] == jit.ENTRIES
    assert [entry(np.ones(1), 1.0), entry.bind(np.ones(1))(1.0)] == [-1.0, -1.0]
    assert helper(1.0, 2.0) == 0.5
    assert asked == ["scale"]
    entry.forget()
    monkeypatch.setattr(jit.Kernel, "provider", None)
    assert entry(np.ones(1), 1.0) == 2.0


def test_plain_python_where_it_is_asked_for() -> None:
    code = (
        "import sys; from sim.jit import kernel\n"
        "@kernel('f8(f8[::1], f8)')\n"
        "def f(values, x): return [values, x]\n"
        "print(f(1, 2), f.bind(3)(4), 'numba' in sys.modules)"
    )
    environment = {**os.environ, "RACKBMS_JIT": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[1, 2] [3, 4] False"


def test_prefetching_changes_nothing() -> None:
    @jit.kernel
    def touch(values: Any) -> None:
        for k in range(values.size + 100):
            jit.prefetch(values, k)

    values = np.arange(5.0)
    touch(values)
    touch.py_func(values)
    assert values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert any("llvm.prefetch" in text for text in touch.dispatcher.inspect_llvm().values())


def test_eight_look_ups_at_once_are_those_of_plain_python() -> None:
    @jit.kernel
    def look_up(table: Any, t: Any) -> None:
        jit.interpolate(table, t, 8, 16, 32, 10)

    rng = np.random.default_rng(4)
    table = rng.normal(size=(50, 16))
    t = np.zeros(120)
    t[8:16] = rng.integers(0, 50, 8)
    t[16:24] = rng.uniform(0, 1, 8)
    compiled, plain = t.copy(), t.copy()
    look_up(table, compiled)
    look_up.py_func(table, plain)
    np.testing.assert_array_equal(compiled, plain)
    rows = t[8:16].astype(int)
    wanted = table[rows, :8] + t[16:24, None] * table[rows, 8:]
    for c in range(8):
        np.testing.assert_array_equal(plain[32 + 10 * c :][:8], wanted[:, c])
    untouched = np.delete(np.arange(120), [32 + 10 * c + k for c in range(8) for k in range(8)])
    np.testing.assert_array_equal(compiled[untouched], t[untouched])
