"""Intrinsics: compiled, they do what they do in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hal.engine import Program
from hal.engine.intrinsics import carve, prefetch, transpose

RECORD = np.dtype([("flag", "u1"), ("number", "f8"), ("count", "i4")], align=True)


@pytest.fixture
def program(small: Any) -> Program:
    program: Program = small()
    return program


def test_arrays_are_carved_out_of_bytes(program: Program) -> None:
    @program.kernel("f8(u1[::1], i8)")
    def total(raw: Any, count: Any) -> Any:
        head = carve(raw, 0, 1, RECORD)
        values = carve(raw, 24, count, np.float32)
        words = carve(raw, 24, count, np.uint32)
        head[0].count = head[0].count + np.int32(count)
        found = head[0].number
        for k in range(values.shape[0]):
            found += values[k]
            words[k] = np.uint32(k)
        return found

    def fresh() -> np.ndarray:
        raw = np.zeros(24 + 12, np.uint8)
        head = raw[:24].view(RECORD)
        head["number"], head["count"] = 0.5, 4
        raw[24:].view(np.float32)[:] = (1.0, 2.0, 4.0)
        return raw

    compiled, plain = fresh(), fresh()
    assert total(compiled, 3) == total.py_func(plain, 3) == 7.5
    assert compiled.tobytes() == plain.tobytes()
    assert compiled[24:].view(np.uint32).tolist() == [0, 1, 2]
    assert compiled[:24].view(RECORD)["count"] == 7


def test_looking_ahead_changes_nothing_and_may_go_beyond_the_end(program: Program) -> None:
    @program.kernel("f4(f4[::1], i8)")
    def first(values: Any, ahead: Any) -> Any:
        prefetch(values, ahead)
        return values[0]

    values = np.arange(4, dtype=np.float32) + 1
    for ahead in (0, 3, 10**9):
        assert first(values, ahead) == first.py_func(values, ahead) == 1.0
    assert values.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["f4", "i4"])
def test_a_square_is_transposed(program: Program, kind: str) -> None:
    @program.kernel(f"void({kind}[::1], i8, i8)")
    def turned(values: Any, source: Any, to: Any) -> Any:
        transpose(values, source, to)

    values = np.arange(3 + 2 * 256 + 5).astype(kind)
    plain = values.copy()
    turned(values, 3, 3 + 256)
    turned.py_func(plain, 3, 3 + 256)
    np.testing.assert_array_equal(values, plain)
    square = values[3 : 3 + 256].reshape(16, 16)
    np.testing.assert_array_equal(values[3 + 256 : 3 + 512].reshape(16, 16), square.T)
    np.testing.assert_array_equal(square.ravel(), np.arange(3, 259))
    np.testing.assert_array_equal(values[3 + 512 :], np.arange(3 + 512, 3 + 517))
