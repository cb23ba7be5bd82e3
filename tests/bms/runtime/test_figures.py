"""The pictures of a page: drawn for every kind of run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bms.runtime import series
from bms.runtime.figures import _Time, all_figures


@pytest.fixture(scope="module")
def run(recorded: Path):
    return series.load(recorded / "series.npz"), json.loads((recorded / "summary.json").read_text())


def titles(data, summary) -> list[str]:
    made = []
    for picture in all_figures(data, summary):
        root = ElementTree.fromstring(picture.svg)
        assert "viewBox" in root.attrib
        assert "height" not in root.attrib, "the page gives the size"
        assert picture.text
        made.append(picture.title)
    return made


def test_every_picture_is_well_formed(run) -> None:
    assert len(titles(*run)) == 6


def test_without_a_truth_nothing_is_said_about_errors(run) -> None:
    data, summary = run
    blind = {**data, "soc_true": np.full_like(data["soc_true"], np.nan)}
    made = titles(blind, summary)
    assert "Error of the estimate" not in made
    assert "State of charge" in made


def test_the_worst_cell_is_the_one_shown(run) -> None:
    data, summary = run
    true = data["soc"].copy()
    true[:, 6] -= 0.2
    text = next(p.text for p in all_figures({**data, "soc_true": true}, summary) if p.title == "State of charge")
    assert "(20.00 and" in text


def test_gaps_and_a_single_sample_are_no_reason_to_fail(run) -> None:
    data, summary = run
    gaps = {name: array.copy() for name, array in data.items()}
    for name in ("cell_v_min", "degc_max", "power_w", "coolant_in_degc"):
        gaps[name][10:20] = np.nan
    assert len(titles(gaps, summary)) == 6
    assert titles({name: array[:1] for name, array in data.items()}, summary) == []


@pytest.mark.parametrize(("span_s", "unit"), [(100.0, "s"), (1800.0, "min"), (86400.0, "h")])
def test_time_axis_suits_the_run(span_s: float, unit: str) -> None:
    assert _Time(np.array([0.0, span_s])).unit == unit


def test_ids_differ_between_pictures(run) -> None:
    seen: set[str] = set()
    for picture in all_figures(*run):
        ids = set(re.findall(r'\bid="([^"]+)"', picture.svg))
        assert not ids & seen
        seen |= ids


@pytest.mark.parametrize("known", [True, False])
def test_a_rack_of_one_cell_is_drawn(run, known: bool) -> None:
    data, summary = run
    n = data["soc"].shape[1]
    one = {name: v[:, :1] if v.ndim == 2 and v.shape[1] == n else v for name, v in data.items()}
    if not known:
        one["soc_true"] = np.full_like(one["soc_true"], np.nan)
    assert "State of charge" in titles(one, summary)
