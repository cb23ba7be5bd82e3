"""Intervals against published values, shares and times against rows made by hand, the worst first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.trial.campaign import Require
from bms.trial.campaign_sample import columns
from bms.trial.campaign_summary import YEAR_S, lines, missed, poisson_upper, summarise, wilson, worst

MADE = {"engine": "jit"}


# Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(st.integers(1, 5000), st.data())
def test_wilson_holds_the_share(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    low, high = wilson(hits, n)
    assert 0.0 <= low <= hits / n <= high <= 1.0


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


# half of the 95 % quantile of chi-squared with 2 (n + 1) degrees of freedom, from tables
@pytest.mark.parametrize(
    ("count", "upper"), [(0, 2.9957), (1, 4.7439), (2, 6.2958), (5, 10.5130), (10, 16.9622), (100, 118.0788)]
)
def test_poisson_against_tables(count: int, upper: float) -> None:
    assert poisson_upper(count) == pytest.approx(upper, abs=1e-3)


def test_poisson_with_other_confidence() -> None:
    assert poisson_upper(0, 0.975) == pytest.approx(3.6889, abs=1e-4)
    assert poisson_upper(3, 0.975) == pytest.approx(8.7673, abs=1e-4)


def hand_made(plan, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of samples 0, 1, 2, ...: an injection after 100 s that nobody sees, but for the changes of each."""
    shorts = plan()
    sound = {
        "injected_s": 100.0, "false_warnings": 0, "false_trips": 0, "false_rows": "", "sound_s": 100.0, "simulated_s": 600.0,
        "max_degc": 30.0, "passed": True, "failure": "", "burnt_cells": 0, "vary.ohm": 0.1, "vary.cell": 1, "vary.years": 0,
    }  # fmt: skip
    return [
        {**dict.fromkeys(columns(shorts)), **sound, "sample": k, "id": shorts.id_of(k), **change}
        for k, change in enumerate(changes)
    ]


def test_shares_and_times(plan) -> None:
    seen = {"detect_s": 10.0, "open_s": 20.0, "detected_by": "cell_sag.warning", "cause": "cell_sag.fatal"}
    rows = hand_made(
        plan,
        {**seen, "vented_s": 60.0, "lead_venting_s": 50.0},
        {**seen, "vented_s": 15.0, "lead_venting_s": 5.0},
        {**seen, "vented_s": 4.0, "lead_venting_s": -6.0, "passed": False, "failure": "late"},
        {"vented_s": 30.0, "max_degc": 200.0},
        {},
    )
    found = summarise(plan(), rows, [], MADE)
    shares = {name: (share["hits"], share["n"]) for name, share in found["shares"].items()}
    assert shares == {
        "passed": (4, 5),
        "detected": (3, 5),
        "opened": (3, 5),
        "vented": (4, 5),
        "ignited": (0, 5),
        "detected before venting, of those that vented": (2, 4),
        "opened before venting, of those that vented": (1, 4),
    }
    assert found["times"]["lead_venting_s"] == {
        "n": 3, "p0": -6.0, "p5": pytest.approx(-4.9), "p25": -0.5, "p50": 5.0, "p75": 27.5,
        "p95": pytest.approx(45.5), "p100": 50.0,
    }  # fmt: skip
    assert found["detected_by"] == {"cell_sag.warning": 3}
    assert found["max_degc"] == 200.0
    assert "lead_ignition_s" not in found["times"]
    text = "\n".join(lines(found))
    assert "detected                                           60.00%  3 of 5, 95 %: 23.07%..88.24%" in text


def test_false_alarms_for_each_rack_year(plan) -> None:
    quarter = {"injected_s": None, "sound_s": YEAR_S / 4}
    rows = hand_made(plan, quarter, {**quarter, "false_warnings": 2}, quarter, {**quarter, "false_trips": 1})
    alarms = summarise(plan(), rows, [], MADE)["false_alarms"]
    assert alarms["rack_years"] == pytest.approx(1.0)
    assert (alarms["warnings"]["count"], alarms["trips"]["count"]) == (2, 1)
    assert alarms["trips"]["per_rack_year"] == pytest.approx(1.0)
    assert alarms["trips"]["upper"] == pytest.approx(4.7439, abs=1e-3)
    assert alarms["warnings"]["upper"] == pytest.approx(6.2958, abs=1e-3)


def test_detection_by_what_is_varied(plan) -> None:
    rows = hand_made(
        plan,
        *({"vary.ohm": 0.01 * k, "vary.years": 10 * (k % 2), "detect_s": 1.0 if k < 30 else None} for k in range(60)),
    )
    by = summarise(plan(), rows, [], MADE)["by"]
    assert [(bar["value"], bar["hits"], bar["n"]) for bar in by["years"]] == [("0", 15, 30), ("10", 15, 30)]
    assert len(by["ohm"]) == 6
    assert [bar["hits"] for bar in by["ohm"]] == [10, 10, 10, 0, 0, 0]
    assert sum(bar["n"] for bar in by["ohm"]) == 60


def test_the_worst_come_first(plan) -> None:
    rows = hand_made(
        plan,
        {},
        {"passed": False, "failure": "a cell reached 70 degC"},
        {"detect_s": 9.0, "vented_s": 12.0, "lead_venting_s": 3.0},
        {"false_trips": 1},
        {"detect_s": 20.0, "vented_s": 12.0, "lead_venting_s": -8.0},
        {"vented_s": 12.0},
        {"max_degc": 90.0},
    )
    assert [int(one["id"][-1]) for one in worst(rows)] == [5, 4, 3, 1, 2, 6, 0]
    assert worst(rows)[0]["why"] == "vented 12 s after the injection, never detected"
    assert len(worst(rows * 3)) == 7


def test_what_is_required(plan) -> None:
    rows = hand_made(plan, {"detect_s": 1.0}, {}, {"passed": False}, {"false_warnings": 1})
    shorts = replace(plan(), require=Require(0.8, 0.5, 1e6))
    found = summarise(shorts, rows, [7], MADE)
    text = missed(shorts, found)
    assert text[0] == "passed: 75.00%, required are 80.00%"
    assert text[1].startswith("detected: 25.00%, required are 50.00%")
    # one warning in 400 s: up to 4.74 of them in 1.27e-5 rack-years; no trip: up to 3.0
    assert [line.split(":")[0] for line in text[2:]] == ["lost, their workers died 1 times over"]
    strict = missed(replace(shorts, require=Require(0.0, None, 3e5)), found)
    assert strict[0].startswith("false warnings for each rack-year: up to 3.74e+05")
    assert missed(replace(shorts, require=Require(0.5)), {**found, "lost": []}) == []


def test_how_near_sound_racks_came(plan) -> None:
    rows = hand_made(plan, {"margins": "heat_residual 0.840, cell_sag 0.200"}, {"margins": "cell_sag 0.300"}, {})
    found = summarise(plan(), rows, [], MADE)
    assert [(one["fault"], one["share"], one["id"]) for one in found["nearest"]] == [
        ("heat_residual", 0.84, rows[0]["id"]),
        ("cell_sag", 0.3, rows[1]["id"]),
    ]
    text = "\n".join(lines(found))
    assert f"heat_residual              0.84  {rows[0]['id']}" in text
    assert "nearest to a warning" not in "\n".join(lines(summarise(plan(), rows[2:], [], MADE)))
