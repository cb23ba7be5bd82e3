"""Where the state of health keeps its numbers: the arrays are as long as declared, and no two names share a place."""

from __future__ import annotations

import numpy as np
import pytest

from bms.core import health_layout as h
from hal.contract import U4

N_CELLS = 5


def test_a_memory_has_the_arrays_that_are_declared() -> None:
    state = h.health_state(N_CELLS)
    kinds = {"f4": np.float32, "u4": np.uint32}
    for field, array in zip(h.STATE_FIELDS, state, strict=True):
        whole, _, times = field.dims.partition("*")
        size = N_CELLS * int(times or 1) if whole == "cells" else int(whole)
        assert (array.shape, array.dtype) == ((size,), kinds[field.kind]), field.name
        assert not array.any()
    arrays: list[U4] = [array.view(np.uint32) for array in state]
    for k, array in enumerate(arrays):
        array[:] = k
    assert all((array == k).all() for k, array in enumerate(arrays)), "no two share memory"


@pytest.mark.parametrize(
    ("names", "size"),
    [
        ("PERIOD_S MEMORY_H R_MEMORY_H MIN_SWING MAX_STD PRIOR_STD DROP_SHARE OFFSET_V WHITE_V GAIN_STD EFFICIENCY_STD "
         "LEAK_PER_H LEAVE LEAVE_H Q_MIN Q_MAX KNOWN_STD R_MIN_A R_STD PER_CELL MODEL_ERROR_V CHANGE_A", h.N_NUMBERS),
        ("COUNT COUNT_LOW CHARGED HOURS HOURS_LOW GAP LAST_A CREDIT SWEEP_H FADE R_FADE LOWEST HIGHEST CAPACITY_LOW "
         "RESISTANCE_HIGH BEFORE_S BEFORE_A", h.N_STATE_NUMBERS),
        ("NEXT STARTED LOWEST_AT HIGHEST_AT CAPACITY_AT RESISTANCE_AT BEFORE_AT WATCHING SWEPT", h.N_STATE_WORDS),
        ("C1 C2 C3 C_PASSING C_LASTING PAIRS R_WEIGHT R_MEAN R_VAR STEP_DD STEP_DV BLED", h.OLDER),
        ("M_SOC M_PASSING M_LASTING M_COUNT M_CHARGED M_HOURS M_GAP M_BLED", h.MOMENT),
    ],
    ids=["settings", "numbers", "words", "cell", "moment"],
)  # fmt: skip
def test_names_fill_their_array_without_sharing_a_place(names: str, size: int) -> None:
    assert sorted(getattr(h, name) for name in names.split()) == list(range(size))


def test_two_moments_follow_the_sums_of_a_cell() -> None:
    assert (h.OLDER + h.MOMENT, h.NEWER + h.MOMENT) == (h.NEWER, h.ROWS)
    assert [h.B_VOLT, h.B_DROP, h.B_SOC] == [0, h.WATCHED, 2 * h.WATCHED]
    assert h.CONFIG_FIELDS[0].dims == str(h.N_NUMBERS)
