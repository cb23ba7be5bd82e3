import numpy as np
import pytest

from sim import layout as Y


@pytest.mark.parametrize(("n_series", "n_parallel"), [(1, 1), (32, 1), (33, 2), (70, 5)])
def test_rows_come_back_as_they_went_in(n_series: int, n_parallel: int) -> None:
    data = np.zeros(Y.blocks(n_series) * n_parallel * Y.C_BLOCK)
    rows = Y.Rows(data, n_series, n_parallel, Y.C_BLOCK)
    values = np.arange(n_series * n_parallel) + 0.5
    rows[Y.C_DEGC] = values
    rows[Y.C_SOC] = -1.0
    np.testing.assert_array_equal(rows[Y.C_DEGC], values)
    np.testing.assert_array_equal(rows[Y.C_SOC], np.full(n_series * n_parallel, -1.0))
    assert not rows[Y.C_HYST].any()
    rows[Y.C_DEGC, 0] = 77.0
    assert rows[Y.C_DEGC, 0] == 77.0
    np.testing.assert_array_equal(rows[Y.C_DEGC][1:], values[1:])


def test_where_a_cell_stands() -> None:
    data = np.zeros(2 * 3 * Y.C_BLOCK)
    Y.Rows(data, 40, 3, Y.C_BLOCK)[Y.C_X2] = np.arange(120)
    group, parallel = 37, 2
    block = group // Y.LANES * 3 + parallel
    assert data[block * Y.C_BLOCK + Y.C_X2 + group % Y.LANES] == group * 3 + parallel
    # the lanes beyond the rack are copies of the last group
    assert data[block * Y.C_BLOCK + Y.C_X2 + 20] == 39 * 3 + parallel


def test_rows_are_copies() -> None:
    rows = Y.Rows(np.zeros(Y.G_BLOCK), 4, 1, Y.G_BLOCK)
    rows[Y.G_LEAK_S][:] = 1.0
    assert not rows[Y.G_LEAK_S].any()


def test_arrays_start_at_a_cache_line() -> None:
    for size in (1, 7, 1000):
        array = Y.aligned((size, 3))
        assert array.ctypes.data % 64 == 0
        assert array.shape == (size, 3)
        assert not array.any()


def test_a_slot_has_room_for_all_its_rows() -> None:
    for n_series, n_parallel in ((1, 1), (416, 1), (96, 2), (33, 5)):
        levels, spare, flat, stride, size = Y.work_places(n_series, n_parallel)
        lanes = Y.blocks(n_series) * Y.LANES
        assert levels == lanes * n_parallel * (Y.D_BLOCK // Y.LANES)
        assert spare - levels == lanes * (Y.V_BLOCK // Y.LANES)
        assert flat - spare == Y.T_SIZE
        assert stride > lanes * n_parallel
        assert size == flat + Y.FLAT_ROWS * stride
        assert all(place % 8 == 0 for place in (levels, spare, flat, stride))
