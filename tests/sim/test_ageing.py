"""Ageing of cells: the published check values, what makes it faster, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import ageing
from sim.ageing import Use
from sim.config import TwinError


@pytest.mark.parametrize(("years", "kept"), [(0.0, 1.0), (1.0, 0.978), (5.0, 0.932), (10.0, 0.888)])
def test_one_cycle_a_day_keeps_what_was_published(years: float, kept: float) -> None:
    # 0.0015: the published values do not say how the cycles lie in the day; at the same rate all day they are 0.0011 lower
    assert ageing.aged(Use(years=years)).capacity_factor == pytest.approx(kept, abs=0.0015)


def test_a_new_rack_is_as_it_was() -> None:
    new = ageing.aged(Use(), 0.02, 0.04)
    assert (new.capacity_factor, new.resistance_factor) == (1.0, 1.0)
    assert (new.capacity_spread, new.resistance_spread) == (0.02, 0.04)


@pytest.mark.parametrize("change", [{"degc": 40.0}, {"soc_low": 0.6, "soc_high": 1.0}, {"years": 8.0}])
def test_what_makes_the_calendar_faster(change: dict) -> None:
    use = Use(years=5.0)
    assert ageing.calendar_loss(replace(use, **change)) > 1.1 * ageing.calendar_loss(use)


def test_more_cycles_take_more_and_none_take_nothing() -> None:
    use = Use(years=5.0)
    assert ageing.cycle_loss(replace(use, cycles_per_day=2.0)) > 2**0.828 * ageing.cycle_loss(use)
    assert ageing.cycle_loss(replace(use, cycles_per_day=0.0)) == 0.0


def test_the_graphite_falls_as_it_is_filled() -> None:
    potential = ageing.graphite_v(np.linspace(0.0, 1.0, 50))
    assert (np.diff(potential) < 0).all()
    assert 0.05 < potential[-1] < 0.1


def test_an_old_rack_spreads_more_and_resists_more() -> None:
    old = ageing.aged(Use(years=10.0))
    assert old.resistance_factor == pytest.approx(1.0 + 2.0 * (1.0 - old.capacity_factor))
    assert old.capacity_spread > 0.015
    assert old.resistance_spread > 0.05


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"years": -1.0}, "years = -1: must be in 0..30"),
        ({"degc": 80.0}, "degc = 80: must be in -20..60"),
        ({"soc_low": 0.9, "soc_high": 0.2}, "must rise"),
        ({"cycles_per_day": 9.0}, "cycles_per_day = 9"),
    ],
)
def test_what_is_refused(change: dict, text: str) -> None:
    with pytest.raises(TwinError, match=text):
        Use(**change)


def test_what_is_beyond_the_data() -> None:
    with pytest.raises(TwinError, match="more than the data tell of"):
        ageing.aged(Use(years=30.0, degc=60.0, soc_low=0.2, soc_high=1.0, cycles_per_day=6.0))
