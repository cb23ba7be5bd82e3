"""Current beyond a limit: what is small adds up while it lasts, what is smaller still never does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import signals_layout as y
from bms.core.faults import Fault
from hal.contract import Capabilities, Quality

F = Fault
ONE_C_A = 280.0
FATAL_A = 0.2 * ONE_C_A  # the shipped rows: 5, 10 and 20 % of 1C
BAND_A, TAU_S = 2.8, 240.0
DIRECTIONS = [(F.DISCHARGE_LIMIT, y.DISCHARGE_BEYOND_AS, 1.0), (F.CHARGE_LIMIT, y.CHARGE_BEYOND_AS, -1.0)]
FEEDBACK = {"open": 0, "one": 1, "other": 2, "precharging": 6, "closed": 3, "all": 7}


def flow(bench: Any, share_c: float, seconds: float, dt_s: float = 10.0) -> None:
    """Let this share of the 1C current flow for so long; positive = discharge."""
    bench.head["current_a"] = share_c * ONE_C_A
    for _ in range(round(seconds / dt_s)):
        bench.look(dt_s)


@pytest.fixture
def nothing(bench: Any) -> Any:
    """A rack that is allowed nothing in either direction."""
    bench.limits = (0.0, 0.0)
    return bench


@pytest.mark.parametrize(("fault", "at", "sign"), DIRECTIONS)
@pytest.mark.parametrize(("share_c", "seconds"), [(0.03, 2040.0), (0.04, 1280.0), (0.1, 267.0)])
def test_a_trickle_adds_up_until_it_is_fatal(
    nothing: Any, fault: Fault, at: int, sign: float, share_c: float, seconds: float
) -> None:
    """(0.2 - share) 240 s / (share - 0.01): 1.7, 1.4 and 0.7 % of the capacity have flowed by then."""
    flow(nothing, sign * share_c, seconds - 20.0)
    assert nothing.value(fault) < FATAL_A
    flow(nothing, sign * share_c, 30.0)
    assert nothing.value(fault) > FATAL_A
    others = {F.DISCHARGE_LIMIT, F.CHARGE_LIMIT} - {fault}
    assert [nothing.value(other) for other in others] == pytest.approx([-share_c * ONE_C_A])


@pytest.mark.parametrize("dt_s", [0.0, math.nan, 1.0])
def test_against_no_limit_nothing_adds_up(bench: Any, dt_s: float) -> None:
    bench.limits = (math.inf, math.inf)
    bench.look(dt_s)
    assert bench.state.number[[y.DISCHARGE_BEYOND_AS, y.CHARGE_BEYOND_AS]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dt_s", [0.1, 1.0, 10.0, 60.0])
def test_the_length_of_a_step_does_not_count(nothing: Any, dt_s: float) -> None:
    flow(nothing, -0.04, 600.0, dt_s)
    assert nothing.value(F.CHARGE_LIMIT) == pytest.approx(11.2 + 8.4 * 600.0 / TAU_S, rel=1e-3)


@pytest.mark.parametrize(("fault", "at", "sign"), DIRECTIONS)
@pytest.mark.parametrize(
    ("limit_c", "beyond_c"), [(0.0, 0.0099), (1.0, 0.0299)]
)  # an offset; and in addition what two instruments may differ by in gain
def test_what_sensors_and_inverters_are_off_by_never_adds_up(
    bench: Any, fault: Fault, at: int, sign: float, limit_c: float, beyond_c: float
) -> None:
    bench.limits = (limit_c * ONE_C_A, limit_c * ONE_C_A)
    flow(bench, sign * (limit_c + beyond_c), 86400.0, 60.0)
    assert bench.state.number[at] == 0.0
    assert bench.value(fault) == pytest.approx(beyond_c * ONE_C_A, abs=1e-3)


def test_an_inverter_that_obeys_breaks_no_limit_at_once_and_what_was_fades(nothing: Any) -> None:
    flow(nothing, -0.05, 600.0)
    charge_as = float(nothing.state.number[y.CHARGE_BEYOND_AS])
    assert charge_as == pytest.approx(0.04 * ONE_C_A * 600.0, rel=1e-4)
    flow(nothing, 0.0, 600.0)
    assert nothing.value(F.CHARGE_LIMIT) == 0.0
    assert nothing.state.number[y.CHARGE_BEYOND_AS] == pytest.approx(charge_as - 600.0 * BAND_A, rel=1e-4)
    flow(nothing, -0.05, 10.0)  # soon again: it goes on from there
    assert nothing.value(F.CHARGE_LIMIT) == pytest.approx(14.0 + (charge_as - 600.0 * BAND_A + 112.0) / TAU_S, rel=1e-4)
    flow(nothing, 0.0, 1900.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] == 0.0


@pytest.mark.parametrize("free_c", [0.0, 0.5])
def test_what_flows_the_other_way_or_stays_below_fades_no_faster(nothing: Any, free_c: float) -> None:
    """Whoever charges a frozen rack now and then plates lithium, however much he draws in between."""
    for _ in range(100):
        flow(nothing, -0.06, 10.0)
        flow(nothing, free_c, 10.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] == pytest.approx(100 * 10.0 * (0.05 - 0.01) * ONE_C_A, rel=1e-3)


@pytest.mark.parametrize("name", FEEDBACK)
def test_through_an_open_contactor_nothing_flows_whatever_the_sensor_shows(nothing: Any, name: str) -> None:
    nothing.head["contactors"] = FEEDBACK[name]
    flow(nothing, -0.05, 600.0)
    closed = name in ("closed", "all")
    assert (nothing.state.number[y.CHARGE_BEYOND_AS] > 0.0) == closed
    assert (nothing.value(F.CHARGE_LIMIT) > 0.051 * ONE_C_A) == closed
    assert nothing.value(F.CHARGE_LIMIT) >= 14.0  # what is measured now is told all the same


def test_an_open_contactor_lets_what_was_fade(nothing: Any) -> None:
    flow(nothing, -0.05, 600.0)
    nothing.head["contactors"] = 0
    flow(nothing, -0.05, 2300.0)
    assert nothing.value(F.CHARGE_LIMIT) == pytest.approx(14.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] > 0.0
    flow(nothing, -0.05, 200.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] == 0.0


def test_contactors_that_are_not_known_or_not_there_count_as_closed(nothing: Any, make_signals: Any) -> None:
    nothing.head["contactors"], nothing.head["contactors_quality"] = 0, Quality.MISSING
    flow(nothing, -0.05, 60.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] > 0.0
    other = make_signals(can=Capabilities(contactors=False, precharge=False))
    other.limits, other.head["contactors"] = (0.0, 0.0), 0
    flow(other, -0.05, 60.0)
    assert other.state.number[y.CHARGE_BEYOND_AS] > 0.0


def test_a_missing_current_neither_fills_nor_empties(nothing: Any) -> None:
    flow(nothing, -0.05, 600.0)
    before = float(nothing.state.number[y.CHARGE_BEYOND_AS])
    nothing.head["current_a_quality"] = Quality.MISSING
    flow(nothing, -0.05, 600.0)
    assert math.isnan(nothing.value(F.CHARGE_LIMIT))
    assert nothing.state.number[y.CHARGE_BEYOND_AS] == before > 0.0


def test_the_worst_is_forgotten_within_two_hours(nothing: Any) -> None:
    flow(nothing, -1.0, 86400.0, 60.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] == pytest.approx(0.3 * ONE_C_A * TAU_S)
    flow(nothing, 0.0, 7140.0, 60.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] > 0.0
    flow(nothing, 0.0, 120.0, 60.0)
    assert nothing.state.number[y.CHARGE_BEYOND_AS] == 0.0


def test_band_and_time_are_settings(make_signals: Any) -> None:
    bench = make_signals(limit_band_c=0.02, limit_tau_s=60.0, n_parallel=2)
    bench.limits = (0.0, 0.0)
    bench.head["current_a"] = -0.04 * 560.0
    bench.look(30.0)
    assert bench.value(F.CHARGE_LIMIT) == pytest.approx(22.4 + 11.2 * 30.0 / 60.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([-700.0, -290.0, -14.0, -3.0, 0.0, 3.0, 14.0, 290.0, 700.0, math.nan, 1e30, -1e5]),
            st.sampled_from([0.0, 7.0, 280.0]),
            st.sampled_from([0, 3]),
            st.sampled_from([0.1, 1.0, 60.0, 3600.0]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_it_is_that_of_the_plain_rule(make_signals: Any, samples: list[tuple[float, float, int, float]]) -> None:
    """Charge beyond the limit, less the band, never below 0; also of a current that its sensor can no longer show."""
    bench = make_signals(4, 2)
    charge = {F.DISCHARGE_LIMIT: 0.0, F.CHARGE_LIMIT: 0.0}
    for current_a, limit_a, closed, dt_s in samples:
        bench.head["current_a"], bench.head["contactors"], bench.limits = current_a, closed, (limit_a, limit_a)
        bench.look(dt_s)
        for fault, _, sign in DIRECTIONS:
            if not abs(current_a) <= 1e6:
                assert math.isnan(bench.value(fault))
                continue
            beyond_a, band_a = sign * current_a - limit_a, BAND_A + 0.02 * limit_a
            gained_as = (max(beyond_a, 0.0) if closed else 0.0) - band_a
            charge[fault] = min(max(charge[fault] + gained_as * dt_s, 0.0), 30.0 * BAND_A * TAU_S)
            want_a = beyond_a + (charge[fault] / TAU_S if closed and beyond_a > band_a else 0.0)
            assert bench.value(fault) == pytest.approx(want_a, rel=1e-4, abs=1e-3)
    assert np.isfinite(bench.state.number[[y.DISCHARGE_BEYOND_AS, y.CHARGE_BEYOND_AS]]).all()
