"""Rows of a block: where each covariance is, and that everything has a row of its own."""

from __future__ import annotations

import itertools

import pytest

from bms.core import estimator_layout as e
from hal.contract import LANES


def test_a_block_is_one_page_and_each_of_its_rows_has_one_owner() -> None:
    rows = [*range(e.NX), e.Z_LOW, *range(e.S_FIRST, e.S_FIRST + e.NX)]
    rows += [e.p_row(i, j) for j in range(e.NX) for i in range(j + 1)]
    assert sorted(rows) == list(range(e.BLOCK_ROWS))
    assert 4 * e.BLOCK == 4096


@pytest.mark.parametrize(("i", "j"), list(itertools.product(range(e.NX), repeat=2)))
def test_a_covariance_and_its_mirror_image_share_a_row(i: int, j: int) -> None:
    assert e.p_row(i, j) == e.p_row(j, i)
    assert e.P_FIRST <= e.p_row(i, j) < e.S_FIRST


def test_all_parameters_of_a_node_fill_one_cache_line() -> None:
    assert e.ETA < e.NODE
    assert 4 * e.NODE == 64
    assert e.WORK == (e.WORK_ROWS + 2 * e.NODE) * LANES
