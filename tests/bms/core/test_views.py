"""Views of measurement and command: the record itself, not a copy; and which values may be used."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bms.core.views import CommandView, MeasurementView, usable
from hal.contract import COMMAND, MEASUREMENT, Command, Measurement

f4 = np.float32


@pytest.mark.parametrize(
    ("view", "record", "layout"),
    [(MeasurementView, Measurement, MEASUREMENT), (CommandView, Command, COMMAND)],
    ids=["measurement", "command"],
)
def test_a_view_is_the_whole_record_and_no_copy(view, record, layout) -> None:
    filled = record(5, 3)
    seen = view.of(filled)
    assert {"head", *(field.name for field in layout.arrays)} == set(view._fields)
    for name in view._fields[1:]:
        array = getattr(seen, name)
        array[:] = 7
        assert (getattr(filled, name) == 7).all(), name
    seen.head["time_s"] = 12.5
    assert filled.head["time_s"][0] == 12.5


@pytest.mark.parametrize(
    ("value", "quality", "age_s", "use"),
    [
        (3.3, 0, 0.0, True),
        (3.3, 0, 2.0, True),  # as old as it may be
        (3.3, 0, 2.0001, False),
        (3.3, 1, 0.0, False),
        (3.3, 255, 0.0, False),
        (math.nan, 0, 0.0, False),
        (math.inf, 0, 0.0, False),
        (-math.inf, 0, 0.0, False),
        (3.3, 0, math.nan, False),  # an unknown age is too old
        (3.3, 0, math.inf, False),
        (-3e38, 0, -1.0, True),  # what is absurd is for others to judge
    ],
)
def test_what_may_be_used_is_good_a_number_and_fresh(value: float, quality: int, age_s: float, use: bool) -> None:
    assert usable(f4(value), quality, f4(age_s), f4(2.0)) is use
