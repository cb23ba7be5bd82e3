"""Healthy racks through two days of what bench/healthy.py does for a month: nothing trips, nothing warns."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bms.core.faults import Fault
from hal.contract import Severity

CELLS = 14  # two and a half front ends, four sensors


@pytest.fixture(scope="module")
def healthy(repository: Path) -> Any:
    spec = importlib.util.spec_from_file_location("bench_healthy", repository / "bench" / "healthy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_healthy"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def without_a_word(healthy: Any, outcome: Any) -> None:
    """No trip and no warning; the rack was there all the time, and no hardware was harmed."""
    report = "\n".join(healthy.lines_of(outcome))
    assert not outcome.of(Severity.FATAL), report
    assert not outcome.of(Severity.WARNING), report
    assert outcome.connected > 0.99, report
    assert outcome.held_by_fault == 0.0, report
    assert not outcome.happened, report


def segment(healthy: Any, name: str, *days: str, soc: float | None = None) -> Any:
    """The climate and sensors of a segment of the month, with these days."""
    found = next(s for s in healthy.SEGMENTS if s.name == name)
    return replace(found, days=days, soc=found.soc if soc is None else soc)


# (rack, segment, duties, days, SoC at first): hours are scarce here, so that each full cycle at 1C has its turn early
@pytest.mark.parametrize(
    ("rack", "name", "days", "duration", "soc"),
    [
        ("lfp_280", "hot", ("cycle_1c",), 0.2, 0.8),  # a nearly empty rack starts to charge at 1C and 40 degC
        ("lfp_280", "cold start", ("cycle_half", "regulation_1c"), 0.25, 0.9),
        ("lfp_280", "full", ("regulation_high", "cycle_1c"), 0.2, 1.0),
        ("na_185", "chill", ("cycle_1c", "v2g"), 0.5, 0.4),
        ("na_185", "frost", ("cycle_half",), 0.2, 0.3),
        ("nmc_ev", "summer", ("v2g", "cycle_1c"), 0.5, 0.5),
    ],
)
def test_healthy_racks_are_left_alone(
    healthy: Any, rack: str, name: str, days: tuple[str, ...], duration: float, soc: float
) -> None:
    outcome = healthy.run_segment(rack, segment(healthy, name, *days, soc=soc), duration, seed=7, cells=CELLS)
    without_a_word(healthy, outcome)
    assert outcome.steps == round(duration * 86400)
    assert outcome.throughput_h > 3 * duration  # of its capacity: it was not idle
    for fault in (Fault.CURRENT_IMPLAUSIBLE, Fault.MODEL_RESIDUAL, Fault.SUM_IMPLAUSIBLE, Fault.CELL_VOLTAGE_FROZEN):
        assert outcome.peaks[fault.name][1] < 0.8, fault.name  # of the way to the warning


def test_the_duties_reach_both_ends(healthy: Any) -> None:
    outcome = healthy.run_segment("nmc_ev", segment(healthy, "mild", "cycle_1c", soc=0.8), 0.15, seed=7, cells=CELLS)
    without_a_word(healthy, outcome)
    assert outcome.soc[0] < 0.07
    assert outcome.soc[1] > 0.97
    assert outcome.at_limit > 0.0  # and the limits held it there


def test_a_rack_that_is_not_healthy_is_told(healthy: Any) -> None:
    """Temperature sensors that are off by 11 K and more: two of them differ by more than the 12 K of the warning."""
    bad = replace(segment(healthy, "mild", "rest"), sensors={"degc_offset_spread": 11.0})
    outcome = healthy.run_segment("lfp_280", bad, 0.005, seed=7, cells=CELLS)
    row = 10 * Fault.TEMPERATURE_SPREAD + Severity.WARNING
    assert row in outcome.of(Severity.WARNING)
    event = outcome.events[row]
    assert 12.0 < event.value < 20.0
    assert 60.0 <= event.first_s <= 70.0  # set after a minute
    assert event.active_s == pytest.approx(outcome.steps + 1 - event.first_s)
    assert outcome.peaks["TEMPERATURE_SPREAD"][1] > 1.0
    assert any("temperature spread at sensor" in line for line in healthy.lines_of(outcome))
    assert outcome.held_by_fault > 0.0
