"""Arrays as the store keeps them: they come back as they were, or are refused by name."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bms.runtime.persist import KINDS, MAX_DIMENSIONS, Expected, pack, schema_of, unpack
from hal.errors import DataError

ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable()),
    st.sampled_from(KINDS).flatmap(lambda k: hnp.arrays(k, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4))),
    max_size=4,
)

RACK = {
    "soc": np.linspace(0, 1, 5, dtype="f4"),
    "latched": np.array([0, 1, 0], "u1"),
    "energy_j": np.array([1e12, 3.5]),
}
EXPECTED = {
    "soc": Expected("f4", (5,), 0, 1),
    "latched": Expected("u1", (3,), 0, 1),
    "energy_j": Expected("f8", (2,), 0),
}


@given(ARRAYS)
@settings(max_examples=60, deadline=None)
def test_arrays_come_back_bit_for_bit(arrays) -> None:
    found = unpack(pack(arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_other_byte_orders_and_views_are_kept_as_values() -> None:
    big = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    assert unpack(pack({"a": big}))["a"].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert pack({"a": big}) == pack({"a": big.astype("<i4")})


def test_the_bytes_are_as_documented() -> None:
    expected = b"RBMSARR1" + b"\x01\x00" + b"\x01a" + b"u2" + b"\x01" + b"\x02\x00\x00\x00" + b"\x01\x00\x00\x02"
    assert pack({"a": np.array([1, 512], "u2")}) == expected


def test_what_is_unpacked_may_be_written_to() -> None:
    found = unpack(pack(RACK))
    found["soc"][0] = 0.5
    assert found["soc"][0] == 0.5


@pytest.mark.parametrize(
    "array", [np.zeros(2, bool), np.zeros(2, "c8"), np.array(["a"]), np.zeros((1,) * (MAX_DIMENSIONS + 1))]
)
def test_what_cannot_be_kept_is_refused(array) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        pack({"a": array})


def test_every_truncation_and_addition_is_refused() -> None:
    data = pack(RACK)
    for length in range(len(data)):
        with pytest.raises(DataError, match="kept array"):
            unpack(data[:length])
    with pytest.raises(DataError, match="more bytes"):
        unpack(data + b"\0")


def test_absurd_dimensions_are_refused() -> None:
    shape = (0, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    data = b"RBMSARR1\x01\x00\x01af4\x04" + struct.pack("<4I", *shape)
    with pytest.raises(DataError, match="makes no sense"):
        unpack(data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_else(data) -> None:
    raw = bytearray(pack(RACK))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = unpack(bytes(raw), EXPECTED)
    except DataError:
        return
    assert ((found["soc"] >= 0) & (found["soc"] <= 1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"soc": np.zeros(4, "f4")}, r"'soc' is f4\[4\], not f4\[5\]"),
        ({"soc": np.zeros(5, "f8")}, r"'soc' is f8\[5\], not f4\[5\]"),
        ({"soc": np.full(5, np.nan, "f4")}, "'soc' holds nan, outside 0..1"),
        ({"soc": np.array([0, 0, 0, 0, 1.0001], "f4")}, "'soc' holds 1.0001"),
        ({"latched": np.array([0, 2, 0], "u1")}, "'latched' holds 2, outside 0..1"),
        ({"energy_j": np.array([1.0, np.inf])}, "'energy_j' holds inf"),
        ({"energy_j": np.array([-1e-9, 1.0])}, "'energy_j' holds -1e-09"),
        ({"more": np.zeros(1)}, "'more' is not known"),
        ({"soc": None}, "'soc' is missing"),
    ],
)
def test_what_is_not_as_expected_is_named(change, message: str) -> None:
    arrays = {name: array for name, array in {**RACK, **change}.items() if array is not None}
    assert unpack(pack(RACK), EXPECTED).keys() == RACK.keys()
    with pytest.raises(DataError, match=message):
        unpack(pack(arrays), EXPECTED)


def test_not_a_number_is_let_through_only_where_asked() -> None:
    data = pack({"a": np.array([np.nan, 0.5, np.inf])})
    with pytest.raises(DataError, match="holds inf"):
        unpack(data, {"a": Expected("f8", (3,), 0, 1, finite=False)})
    assert math.isnan(unpack(data, {"a": Expected("f8", (3,), 0, finite=False)})["a"][0])


def test_a_schema_tells_layouts_apart() -> None:
    others = [
        {**EXPECTED, "soc": Expected("f4", (6,))},
        {**EXPECTED, "soc": Expected("f8", (5,))},
        {name: e for name, e in EXPECTED.items() if name != "soc"},
    ]
    digests = {schema_of(e) for e in [EXPECTED, *others]} | {schema_of(EXPECTED, "2")}
    assert len(digests) == 5
    # limits and the order of names are no part of the layout
    assert schema_of({name: EXPECTED[name] for name in sorted(EXPECTED)}) == schema_of(EXPECTED)
