"""Signatures: what is understood, what is refused, and what reaches C."""

import ctypes

import numpy as np
import pytest

from hal.engine.signature import Signature


@pytest.mark.parametrize(
    ("text", "spelt", "arrays", "scalars"),
    [
        ("i4(f4[:,::1], u1[::1], i4, f4)", "i4(f4[:,::1], u1[::1], i4, f4)", 2, 2),
        ("void( u1[::1],i8 )", "void(u1[::1], i8)", 1, 1),
        ("f8()", "f8()", 0, 0),
        ("b1(f8[:,:,::1])", "b1(f8[:,:,::1])", 1, 0),
    ],
)
def test_texts_are_understood(text: str, spelt: str, arrays: int, scalars: int) -> None:
    signature = Signature(text)
    assert str(signature) == spelt
    assert (len(signature.arrays), len(signature.scalars)) == (arrays, scalars)


@pytest.mark.parametrize(
    "text",
    ["", "i4", "i4(f4", "i3(f4)", "i4(f4[:])", "i4(x4)", "i4(f4, u1[::1])", "void(f4[::1,:])", "i4(,)", "i4(void)"],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="signature"):
        Signature(text)


def test_a_dimension_is_a_whole_number_after_its_pointer() -> None:
    array = np.zeros((3, 5), np.float32)
    pointer, rows, columns, *rest = Signature("i4(f4[:,::1])").pointers("f", [array])
    assert pointer.value == array.ctypes.data
    assert (rows.value, columns.value, rest) == (3, 5, [])


def test_what_does_not_fit_is_named() -> None:
    signature = Signature("void(f4[:,::1], u1[::1], f4)")
    good, flags = np.zeros((2, 2), np.float32), np.zeros(3, np.uint8)
    for arrays, complaint in (
        ((good,), "f: 1 arrays, expected 2"),
        ((good.astype(np.float64), flags), r"argument 1 is an array of f8 with 2 dimensions, expected f4\[:,::1\]"),
        ((good[0], flags), r"argument 1 is an array of f4 with 1 dimensions, expected f4\[:,::1\]"),
        ((np.zeros((2, 3), np.float32).T, flags), "argument 1 is an array of f4 with 2 dimensions, not contiguous"),
        ((good, flags[::2]), "argument 2 is an array of u1 with 1 dimensions, not contiguous"),
        ((good, [1, 2]), r"argument 2 is list, expected u1\[::1\]"),
        ((good.astype(">f4"), flags), "argument 1 is an array of >f4"),
    ):
        with pytest.raises(TypeError, match=complaint):
            signature.pointers("f", arrays)  # type: ignore[arg-type]


def test_the_type_of_the_function() -> None:
    kind = Signature("f4(u1[::1], i4, b1)").prototype()
    assert kind._restype_ is ctypes.c_float
    assert kind._argtypes_ == (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_bool)
    assert Signature("void()").prototype()._restype_ is None
