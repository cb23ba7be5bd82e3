"""The picture of a trial."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bms.trial.outcome import Outcome
from bms.trial.plot import _png, _ticks, picture


def test_a_picture_has_curves_heat_states_and_marks(passed: Outcome) -> None:
    svg = picture(passed)
    root = ET.fromstring(svg)
    assert len(root.findall(".//polyline")) >= 6
    assert len(root.findall(".//image")) == 2
    titles = [title.text for title in root.iter("title")]
    assert any(text.startswith("connected from ") for text in titles)
    assert "inject at 39.01 s: interlock_open" in titles
    assert any(text.startswith("detect at 40 s") for text in titles)
    assert any(text.startswith("open at 40.1 s") for text in titles)


def test_missing_values_break_a_line_and_damage_does_not_flatten_it(passed: Outcome) -> None:
    curves = passed.curves
    lines = {name: values.copy() for name, values in curves.lines.items()}
    lines["v_max"][10:20] = np.nan
    lines["v_min"][5] = 3.4e38
    lines["true_a"][:] = np.nan
    svg = picture(replace(passed, curves=replace(curves, lines=lines)))
    ET.fromstring(svg)
    assert "nan" not in svg
    assert ">true<" not in svg
    assert not re.search(r">\d+e\+?\d+<", svg)


def test_a_trial_without_curves_has_none(passed: Outcome) -> None:
    assert picture(replace(passed, curves=None)) == ""


def test_a_heat_map_is_a_png() -> None:
    data = base64.b64decode(_png(np.array([[0.0, 1.0, -1.0]])).partition(",")[2])
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 3


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 17.0), (3.29, 3.31), (0.0, 86400.0), (5.0, 5.0)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    ticks = _ticks(low, high, 6)
    assert len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
