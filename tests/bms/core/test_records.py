"""Where kernels find the arrays of a record: where numpy has them, for any layout and any size of rack."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core import records
from bms.core.records import in_order, places
from hal.contract import LANES, Field, Layout

KINDS = {"f4": records.floats, "u4": records.words, "i4": records.integers, "u2": records.halves, "u1": records.octets}
dims = st.sampled_from(["1", "7", "cells", "sensors", "lanes", "cells*3", "lanes*5", "2*sensors*2"])
arrays = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), dims), min_size=1, max_size=9)


@given(arrays, st.integers(1, 500), st.integers(1, 60), st.sampled_from([1, 64]))
def test_every_array_is_found_where_numpy_has_it(
    wanted: list[tuple[str, str]], n_cells: int, n_sensors: int, align: int
) -> None:
    fields = in_order(
        (Field("time_s", "f8", ""), Field("flag", "u1", "")),
        tuple(Field(f"array_{k}", kind, "", size) for k, (kind, size) in enumerate(wanted)),
    )
    layout = Layout("Test", fields, align)
    dtype = layout.dtype(n_cells, n_sensors)
    raw = np.zeros(dtype.itemsize, np.uint8)
    n_lanes = -(-n_cells // LANES) * LANES
    for name, place in places(layout).items():
        assert dtype.fields is not None
        expected, offset = dtype.fields[name]
        read = KINDS[expected.base.str[1:]]
        found = read.py_func(raw, place, n_cells, n_sensors, n_lanes)[0]
        assert found.ctypes.data - raw.ctypes.data == offset, name
        assert (found.size, found.dtype) == (expected.shape[0], expected.base), name


def test_compiled_kernels_find_the_same() -> None:
    layout = Layout(
        "Test", in_order((Field("a", "u1", ""), Field("b", "f4", "", "cells*2"), Field("c", "u1", "", "5")))
    )
    raw = np.zeros(layout.dtype(9, 2).itemsize, np.uint8)
    records.floats(raw, places(layout)["b"], 9, 2, 16)[0][17] = 3.0
    records.octets(raw, places(layout)["c"], 9, 2, 16)[0][4] = 7
    record = raw.view(layout.dtype(9, 2))
    assert record["b"][0].tolist() == [0.0] * 17 + [3.0]
    assert record["c"][0].tolist() == [0, 0, 0, 0, 7]


def test_items_may_not_grow() -> None:
    layout = Layout("Test", (Field("a", "f4", ""), Field("b", "u1", "", "cells"), Field("c", "f4", "", "cells")))
    with pytest.raises(ValueError, match="c has larger items"):
        places(layout)
