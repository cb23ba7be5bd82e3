"""Numbers and registers: what goes in comes out, and "no value" stays no value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sunspec2 import mb

from hal.codec.register_values import KINDS, absent, from_words, text_to_words, to_words, words_to_text

WHOLE = sorted(kind for kind in KINDS if "float" not in kind)
BITS = {"16": 16, "32": 32}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_are_kept_rounded_and_held_in_range(kind: str) -> None:
    bits = 16 if "16" in kind or kind in ("sunssf", "count") else 32
    signed = kind.startswith("int") or kind == "sunssf"
    values = np.array([0.0, 1.0, 7.4, 7.6, 1e12, -1e12])
    found = from_words(kind, to_words(kind, values))
    low = from_words(kind, to_words(kind, np.array([-1e12])))[0]
    assert found[:4].tolist() == [0, 1, 7, 8]
    assert found[4] <= 2**bits - 1
    assert (low < 0) == signed


@pytest.mark.parametrize("kind", ["int16", "uint16", "enum16", "int32", "uint32", "enum32", "float32", "float64"])
def test_no_value_is_the_pattern_that_pysunspec2_knows(kind: str) -> None:
    words = to_words(kind, np.array([np.nan]))
    assert np.isnan(from_words(kind, words)).all()
    info = mb.point_type_info[kind]
    assert not info.is_impl(info.data_to(words.astype(">u2").tobytes()))
    assert absent(kind, words.shape[1]) == words[0].tolist()


@pytest.mark.parametrize("kind", sorted(KINDS - {"count", "raw16"}))
@given(number=st.integers(-9, 9))
def test_pysunspec2_reads_the_same_number(kind: str, number: int) -> None:
    if number < 0 and kind not in ("int16", "int32", "float32", "float64", "sunssf"):
        return
    data = to_words(kind, np.array([float(number)])).astype(">u2").tobytes()
    assert mb.point_type_info[kind].data_to(data) == number


@given(st.lists(st.floats(width=32), min_size=1, max_size=9))
def test_floats_keep_every_bit(values: list[float]) -> None:
    for kind in ("float32", "float64"):
        assert np.array_equal(from_words(kind, to_words(kind, np.array(values))), values, equal_nan=True)


def test_texts_are_cut_and_filled() -> None:
    assert words_to_text(text_to_words("lfp_280", 16)) == "lfp_280"
    assert words_to_text(text_to_words("x" * 40, 16)) == "x" * 32
    assert words_to_text(text_to_words("", 2)) == ""
    assert absent("string", 3) == [0, 0, 0]
    assert absent("bitfield32", 2) == [0x8000, 0]
