"""Places in the flat arrays of the signals."""

from __future__ import annotations

import numpy as np
import pytest

from bms.core import signals_layout as y


@pytest.mark.parametrize(("n_cells", "n_sensors"), [(1, 1), (16, 4), (417, 105)])
def test_a_memory_has_a_place_for_every_cell_and_sensor(n_cells: int, n_sensors: int) -> None:
    state = y.signals_state(n_cells, n_sensors)
    size = {"cells": n_cells, "sensors": n_sensors}
    for field, array in zip(y.STATE_FIELDS, state, strict=True):
        assert array.dtype == np.dtype(field.kind)
        assert array.size == (size[field.dims] if field.dims in size else int(field.dims))
    assert state.number.size == y.N_STATE_NUMBERS
    assert state.word.size == y.N_WORDS


def test_fields_have_names_of_their_own() -> None:
    for fields in (y.CONFIG_FIELDS, y.STATE_FIELDS):
        assert len({f.name for f in fields}) == len(fields)


def test_kinds_fall_in_size_so_that_nothing_is_padded() -> None:
    for fields in (y.CONFIG_FIELDS, y.STATE_FIELDS):
        sizes = [np.dtype(f.kind).itemsize for f in fields]
        assert sizes == sorted(sizes, reverse=True)
