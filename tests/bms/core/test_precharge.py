"""Pieces of precharge: a capacitor charged through a resistor, in its limiting cases."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import precharge as p
from bms.core.jit import f4
from bms.core.machine_table import Node

OHM, FARAD, PACK_V = 100.0, 5e-3, 1000.0
NAN = math.nan


def heat_j(
    bus_v: float, *, before_v: float = NAN, current_a: float = NAN, dt_s: float = 0.5, pack_v: float = PACK_V
) -> float:
    x = [f4(v) for v in (pack_v, bus_v, before_v, current_a, OHM, FARAD, dt_s)]
    return float(p.resistor_heat_j(*x))


def stored_j(stored: float, heat: float, tau_s: float, dt_s: float) -> float:
    return float(p.resistor_stored_j(f4(stored), f4(heat), f4(tau_s), f4(dt_s)))


@pytest.mark.parametrize("node", Node, ids=lambda n: n.name)
def test_stages_of_closing(node: Node) -> None:
    stages = ("NEGATIVE", "LINK", "POSITIVE", "RELEASE")
    names = {f"{kind}_{stage}" for kind in ("PRECHARGE", "TRANSPORT") for stage in stages}
    assert p.precharges(int(node)) == (node.name in names)


def test_charging_a_capacitor_costs_as_much_in_the_resistor_as_it_stores() -> None:
    """C V^2 / 2 in one step from empty to full, whatever the resistor and the time; the voltage across has gone."""
    for dt_s in (0.1, 1.0, 1000.0):
        assert heat_j(PACK_V, before_v=0.0, dt_s=dt_s) == pytest.approx(0.5 * FARAD * PACK_V**2, rel=1e-6)


def test_parts_of_a_rise_add_up_to_the_whole() -> None:
    bounds = [0.0, 300.0, 500.0, 900.0, PACK_V]
    parts = [heat_j(b, before_v=a, dt_s=0.0) for a, b in itertools.pairwise(bounds)]
    assert sum(parts) == pytest.approx(0.5 * FARAD * PACK_V**2, rel=1e-6)


def test_a_link_that_does_not_rise_heats_by_ohms_law() -> None:
    assert heat_j(0.0, before_v=0.0, dt_s=2.0) == pytest.approx(PACK_V**2 / OHM * 2.0)
    assert heat_j(400.0, before_v=400.0, dt_s=2.0) == pytest.approx(600.0**2 / OHM * 2.0)


def test_a_current_that_the_voltages_do_not_show_counts() -> None:
    assert heat_j(PACK_V, before_v=PACK_V, current_a=-8.0) == pytest.approx(8.0**2 * OHM * 0.5)
    assert heat_j(0.0, before_v=0.0, current_a=1.0) == pytest.approx(PACK_V**2 / OHM * 0.5), "the largest counts"


def test_an_unknown_link_counts_as_empty() -> None:
    assert heat_j(NAN, before_v=900.0) == heat_j(0.0) == pytest.approx(PACK_V**2 / OHM * 0.5)


def test_heat_stays_in_a_resistor_that_does_not_cool() -> None:
    assert stored_j(1000.0, 500.0, 1e9, 0.5) == pytest.approx(1500.0, rel=1e-5)


@pytest.mark.parametrize("dt_s", [0.1, 10.0, 300.0, 3000.0])
def test_a_resistor_cools_exponentially(dt_s: float) -> None:
    assert stored_j(20e3, 0.0, 300.0, dt_s) == pytest.approx(20e3 * math.exp(-dt_s / 300.0), rel=1e-4, abs=0.01)


@given(st.floats(0.5, 50.0), st.floats(0.0, 2000.0))
@settings(max_examples=50, deadline=None)
def test_a_long_step_is_as_many_short_ones(dt_s: float, watt: float) -> None:
    """E' = P - E/tau is solved exactly while P is constant."""
    whole = stored_j(5e3, watt * dt_s, 10.0, dt_s)
    parts = 5e3
    for _ in range(20):
        parts = stored_j(parts, watt * dt_s / 20.0, 10.0, dt_s / 20.0)
    assert whole == pytest.approx(parts, rel=1e-4, abs=0.01)
    assert stored_j(0.0, watt * 1e5, 10.0, 1e5) == pytest.approx(watt * 10.0, rel=1e-4), "in the end as much leaves"


@pytest.mark.parametrize("nonsense", [NAN, math.inf, 3e38])
def test_what_is_no_number_counts_as_hot(nonsense: float) -> None:
    assert stored_j(nonsense, 0.0, 300.0, 0.5) == f4(1e30)
    assert stored_j(0.0, nonsense, 300.0, 0.5) == f4(1e30)


def test_the_link_follows_an_exponential_from_where_it_was() -> None:
    def at(from_v: float, flowing_s: float) -> float:
        return float(p.link_v(f4(990.0), f4(from_v), f4(flowing_s), f4(0.5)))

    assert at(0.0, 0.0) == 0.0
    assert at(600.0, 0.0) == pytest.approx(600.0)
    assert at(0.0, 0.5) == pytest.approx(990.0 * (1.0 - math.exp(-1.0)), rel=1e-5)
    assert at(600.0, 1.0) == pytest.approx(990.0 - 390.0 * math.exp(-2.0), rel=1e-5)
    assert at(0.0, 1e4) == at(2000.0, 1e4) == pytest.approx(990.0), "also a link that stood higher"
    assert math.isnan(at(NAN, 0.5))


def doubted(bus_v: float, before_v: float = NAN, was: bool = False, all_open: bool = True) -> bool:
    return bool(p.doubted(was, all_open, f4(PACK_V), f4(bus_v), f4(before_v), f4(20.0)))


@pytest.mark.parametrize(
    ("bus_v", "before_v", "doubt"),
    [
        (980.0, NAN, True),  # full when it is first seen, as far away as two sensors may be
        (979.9, NAN, False),  # apart: it shows something of its own
        (1000.0, 979.9, True),  # full all at once
        (1000.0, 980.0, False),  # no more than two sensors may be apart: not known to have risen
        (1020.0, NAN, True),
        (1020.1, 0.0, False),
    ],
)
def test_a_link_that_is_full_while_nothing_is_closed_is_doubted(bus_v: float, before_v: float, doubt: bool) -> None:
    assert doubted(bus_v, before_v) == doubt
    assert not doubted(bus_v, before_v, all_open=False), "what is closed may have filled it"


@pytest.mark.parametrize(("bus_v", "still"), [(980.0, True), (979.9, False), (1020.0, True), (1020.1, False)])
def test_it_is_doubted_until_it_has_been_seen_apart(bus_v: float, still: bool) -> None:
    assert doubted(bus_v, bus_v, was=True, all_open=False) == still


@pytest.mark.parametrize(
    ("periods", "operated_s", "alone"),
    [(1.5, 0.5, True), (2.0, 9.0, True), (1.49, 9.0, False), (9.0, 0.49, False), (1.0, 0.0, False)],
)
def test_after_half_a_period_of_silence_the_rack_may_have_opened(
    periods: float, operated_s: float, alone: bool
) -> None:
    """Of contactors that need half a second to close."""
    assert p.left_alone(f4(periods), f4(operated_s), f4(0.5)) == alone
