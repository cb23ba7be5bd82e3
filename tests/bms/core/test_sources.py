"""Single sources: current and its heat, string and link voltage, insulation, coolant, contactors, switches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core import sources
from bms.core.faults import ABOUT, Fault, Place
from hal.contract import NO_INDEX, Capabilities, Quality

F = Fault
f4 = np.float32


# current


def test_current_of_either_direction(bench: Any) -> None:
    bench.look()
    assert (bench.value(F.DISCHARGE_CURRENT), bench.value(F.CHARGE_CURRENT)) == (100.0, -100.0)
    assert bench.value(F.SHORT_CIRCUIT) == 100.0
    assert (bench.value(F.DISCHARGE_LIMIT), bench.value(F.CHARGE_LIMIT)) == (-180.0, -350.0)
    bench.head["current_a"] = -300.0
    bench.look()
    assert (bench.value(F.DISCHARGE_CURRENT), bench.value(F.CHARGE_CURRENT)) == (-300.0, 300.0)
    assert bench.value(F.SHORT_CIRCUIT) == 300.0
    assert bench.value(F.DISCHARGE_LIMIT) == -580.0
    assert bench.value(F.CHARGE_LIMIT) == pytest.approx(50.0, abs=0.2)  # and a second of it


@pytest.mark.parametrize(
    ("current_a", "flow"), [(2.7, 0), (-2.7, 0), (2.9, 1), (-2.9, -1)]
)  # 0.01 C of 280 Ah are 2.8 A
def test_flow(bench: Any, current_a: float, flow: int) -> None:
    bench.head["current_a"] = current_a
    assert bench.look().flow == flow


@pytest.mark.parametrize("sign", [1, -1])
def test_at_the_current_of_rest_it_flows(bench: Any, sign: int) -> None:
    bench.head["current_a"] = sign * bench.config.number[y.REST_A]
    assert bench.look().flow == sign


def test_a_missing_current_is_not_known_but_its_direction_is_kept(bench: Any) -> None:
    bench.head["current_a"] = -50.0
    bench.look()
    bench.head["current_a_quality"] = Quality.MISSING
    seen = bench.look(0.5)
    assert math.isnan(seen.current_a)
    assert seen.flow == -1
    assert not seen.complete
    assert bench.value(F.CURRENT_LOST) == 0.5
    for fault in (F.DISCHARGE_CURRENT, F.CHARGE_CURRENT, F.SHORT_CIRCUIT, F.DISCHARGE_LIMIT, F.CHARGE_LIMIT):
        assert math.isnan(bench.value(fault)), fault.name


@pytest.mark.parametrize("quality", [0, int(Quality.OUT_OF_RANGE)])
def test_a_sensor_at_the_end_of_its_range_still_shows_a_short_circuit(bench: Any, quality: int) -> None:
    """A current that is too large to be measured is at least that large: it must not look like a missing one."""
    bench.head["current_a"], bench.head["current_a_quality"] = 1500.0, quality
    seen = bench.look()
    assert math.isnan(seen.current_a)
    assert bench.value(F.SHORT_CIRCUIT) == 1500.0
    assert bench.value(F.DISCHARGE_CURRENT) == 1500.0
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0
    assert bench.where(F.VALUE_OUT_OF_RANGE) == NO_INDEX
    assert bench.value(F.DISCHARGE_I2T) > 0.0
    assert bench.value(F.CURRENT_LOST) == 1.0


@pytest.mark.parametrize("quality", [0, int(Quality.OUT_OF_RANGE)])
@pytest.mark.parametrize("current_a", [math.inf, -math.inf, 1.01e6, -3.4e38, math.nan])
def test_a_current_that_no_sensor_can_show_is_none(bench: Any, current_a: float, quality: int) -> None:
    bench.look()
    heat = bench.state.number[[y.DISCHARGE_A2S, y.CHARGE_A2S]].copy()
    bench.head["current_a"], bench.head["current_a_quality"] = current_a, quality
    seen = bench.look()
    assert math.isnan(seen.current_a)
    assert bench.value(F.CURRENT_LOST) == 1.0
    for fault in (F.DISCHARGE_CURRENT, F.CHARGE_CURRENT, F.SHORT_CIRCUIT, F.DISCHARGE_LIMIT, F.CHARGE_LIMIT):
        assert math.isnan(bench.value(fault)), fault.name
    assert (bench.state.number[[y.DISCHARGE_A2S, y.CHARGE_A2S]] == heat).all()


def test_the_largest_current_fills_all_budgets_and_no_more(bench: Any) -> None:
    bench.head["current_a"] = -1e6
    bench.look()
    assert bench.value(F.CHARGE_CURRENT) == bench.value(F.SHORT_CIRCUIT) == 1e6
    assert bench.value(F.CHARGE_I2T) == 10.0  # the largest
    bench.head["current_a"] = 0.0
    bench.look()
    assert bench.value(F.CHARGE_I2T) < 10.0


# the time without a source


@pytest.mark.parametrize(
    ("fade_s", "dt_s", "left", "least_s"),
    [(60.0, 2.0, 60 / 62, 0.2), (2.0, 4.0, 1 / 3, 0.4), (0.0, 2.0, 0.0, 0.2), (0.0, 0.0, 0.0, 0.0)],
)
def test_a_step_leaves_a_share_of_the_time_without_a_source(
    fade_s: float, dt_s: float, left: float, least_s: float
) -> None:
    """What does not fade is forgotten at once; a tenth of a step counts as none."""
    assert sources.fading(f4(fade_s), f4(dt_s)) == (pytest.approx(left), pytest.approx(least_s))


@pytest.mark.parametrize("at", range(y.CURRENT_LOST_S, y.BLEED_LOST_S + 1))
def test_each_source_fades_in_its_own_time(bench: Any, at: int) -> None:
    bench.config.number[y.FADE_S : y.FADE_S + y.BLEED_LOST_S + 1 - y.CURRENT_LOST_S] = 0.0
    bench.config.number[y.FADE_S + at - y.CURRENT_LOST_S] = 6.0
    told_s = [
        float(sources.count_lost(bench.config, bench.state, at, usable, f4(2.0)))
        for usable in (False, False, True, True, False, *[True] * 12)
    ]
    assert told_s[:5] == pytest.approx([2.0, 4.0, 3.0, 2.25, 4.25])
    fading_s = 4.25 * 0.75 ** np.arange(1, 13)
    assert told_s[5:] == pytest.approx(np.where(fading_s > 0.2, fading_s, 0.0))
    assert told_s[-1] == float(bench.state.number[at]) == 0.0


# heat of fuse and contactors


def drive(bench: Any, current_a: float, seconds: float, dt_s: float) -> None:
    bench.head["current_a"] = current_a
    for _ in range(round(seconds / dt_s)):
        bench.look(dt_s)


@pytest.mark.parametrize("dt_s", [0.01, 0.1, 1.0])
def test_the_overload_of_the_settings_fills_the_budget_in_its_time(bench: Any, dt_s: float) -> None:
    """1.5 times the rated 280 A for 10 s; backward Euler over tau = 120 s is exact to dt / 2 tau."""
    drive(bench, 420.0, 10.0, dt_s)
    assert bench.value(F.DISCHARGE_I2T) == pytest.approx(1.0, abs=0.005)
    assert bench.value(F.CHARGE_I2T) == 0.0
    drive(bench, -420.0, 10.0, dt_s)
    assert bench.value(F.CHARGE_I2T) == pytest.approx(1.0, abs=0.005)


def test_twice_the_rated_current_heats_by_its_square(bench: Any) -> None:
    drive(bench, 560.0, 1.0, 0.1)
    # (4 - 1) / (2.25 - 1) times as fast as 1.5 times, which takes 10 s with a twelfth of cooling on the way
    assert bench.value(F.DISCHARGE_I2T) == pytest.approx(0.24, rel=0.05)


def test_the_rated_current_heats_nothing_and_lets_cool_with_its_time_constant(bench: Any) -> None:
    drive(bench, 280.0, 5.0, 1.0)
    assert bench.value(F.DISCHARGE_I2T) < 1e-3
    drive(bench, 420.0, 10.0, 1.0)
    before = bench.value(F.DISCHARGE_I2T)
    drive(bench, 280.0, 120.0, 1.0)
    assert bench.value(F.DISCHARGE_I2T) == pytest.approx(before / math.e, rel=0.01)


def test_current_of_the_other_direction_keeps_metal_warm(bench: Any) -> None:
    drive(bench, 420.0, 10.0, 1.0)
    before = bench.value(F.DISCHARGE_I2T)
    drive(bench, -420.0, 5.0, 1.0)
    assert before * 0.95 < bench.value(F.DISCHARGE_I2T) < before  # cools with the time constant only
    drive(bench, 0.0, 5.0, 1.0)
    assert bench.value(F.DISCHARGE_I2T) < 0.7 * before  # no current: faster


def test_the_heat_of_one_second_is_that_of_its_current(bench: Any) -> None:
    """(I^2 - 280^2) dt / (1 + dt / 120 s), over 1.25 280^2 120 s (1 - exp(-10 / 120)) of budget."""
    budget_a2s = 1.25 * 280.0**2 * 120.0 * (1.0 - math.exp(-10.0 / 120.0))
    drive(bench, 560.0, 1.0, 1.0)
    assert bench.value(F.DISCHARGE_I2T) == pytest.approx(3.0 * 280.0**2 / (1.0 + 1.0 / 120.0) / budget_a2s, rel=1e-5)
    before = bench.value(F.DISCHARGE_I2T)
    drive(bench, 0.0, 1.0, 1.0)
    after_a2s = (before * budget_a2s - 280.0**2) / (1.0 + 1.0 / 120.0)
    assert bench.value(F.DISCHARGE_I2T) == pytest.approx(after_a2s / budget_a2s, rel=1e-5)
    # half the rated current the other way cools by what is missing to it, but no faster
    before = bench.value(F.DISCHARGE_I2T)
    drive(bench, -140.0, 1.0, 1.0)
    after_a2s = (before * budget_a2s - 0.75 * 280.0**2) / (1.0 + 1.0 / 120.0)
    assert bench.value(F.DISCHARGE_I2T) == pytest.approx(after_a2s / budget_a2s, rel=1e-5)


def test_heat_never_leaves_its_range(bench: Any) -> None:
    drive(bench, 0.0, 600.0, 60.0)
    assert bench.value(F.DISCHARGE_I2T) == 0.0
    drive(bench, 900.0, 6000.0, 60.0)
    assert 1.0 < bench.value(F.DISCHARGE_I2T) <= 10.0


def test_a_missing_current_neither_heats_nor_cools(bench: Any) -> None:
    drive(bench, 420.0, 10.0, 1.0)
    before = bench.value(F.DISCHARGE_I2T)
    bench.head["current_a_quality"] = Quality.MISSING
    drive(bench, 420.0, 60.0, 1.0)
    assert bench.value(F.DISCHARGE_I2T) == before


# string and link


def test_a_missing_string_voltage_is_the_sum_of_the_cells(bench: Any) -> None:
    bench.head["pack_v"], bench.head["pack_v_quality"] = 1.0, Quality.MISSING
    seen = bench.look()
    assert seen.pack_v == pytest.approx(24 * 3.3, rel=1e-6)
    assert bench.value(F.PACK_OVERVOLTAGE) == pytest.approx(24 * 3.3, rel=1e-6)
    assert bench.value(F.PACK_UNDERVOLTAGE) == bench.value(F.PACK_OVERVOLTAGE)
    assert bench.value(F.PACK_VOLTAGE_LOST) == 1.0
    assert math.isnan(bench.value(F.SUM_IMPLAUSIBLE))
    assert not seen.complete
    bench.m.cell_v_quality[0] = Quality.MISSING
    assert math.isnan(bench.look().pack_v)


def test_the_link_voltage_is_needed_where_there_is_precharge(bench: Any, make_signals: Any) -> None:
    bench.head["bus_v"] = math.nan
    seen = bench.look()
    assert math.isnan(seen.bus_v)
    assert not seen.complete
    assert bench.value(F.BUS_VOLTAGE_LOST) == 1.0
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0
    other = make_signals(can=Capabilities(precharge=False))
    other.head["bus_v_quality"] = Quality.MISSING
    assert other.look().complete
    assert other.value(F.BUS_VOLTAGE_LOST) == 0.0


# insulation


@pytest.mark.parametrize(("rail", "fault"), [(0, F.INSULATION), (1, F.INSULATION_POSITIVE), (2, F.INSULATION_NEGATIVE)])
def test_insulation_is_that_of_the_rail_that_is_named(bench: Any, rail: int, fault: Fault) -> None:
    bench.head["insulation_ohm"], bench.head["insulation_rail"] = 5e4, rail
    assert bench.look().complete
    for other in (F.INSULATION, F.INSULATION_POSITIVE, F.INSULATION_NEGATIVE):
        assert bench.value(other) == (5e4 if other == fault else math.inf)
    assert bench.where(fault) == (rail if rail else NO_INDEX)
    assert bench.value(F.FEEDBACK_INVALID) == 0.0


def test_an_unknown_rail_is_none_and_reported(bench: Any) -> None:
    bench.head["insulation_ohm"], bench.head["insulation_rail"] = 5e4, 3
    bench.look()
    assert bench.value(F.INSULATION) == 5e4
    assert bench.value(F.FEEDBACK_INVALID) == 1.0


@pytest.mark.parametrize("ohm", [math.nan, -1.0, math.inf, 2e9])
def test_insulation_that_is_not_usable_is_not_known(bench: Any, ohm: float) -> None:
    bench.head["insulation_ohm"] = ohm
    seen = bench.look(2.0)
    assert not seen.complete
    assert bench.value(F.INSULATION_INVALID) == 2.0
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0
    for fault in (F.INSULATION, F.INSULATION_POSITIVE, F.INSULATION_NEGATIVE):
        assert math.isnan(bench.value(fault))


def test_insulation_may_be_older_than_the_rest(bench: Any) -> None:
    bench.head["insulation_ohm_age_s"] = 59.0
    bench.look()
    assert bench.value(F.INSULATION_INVALID) == 0.0
    bench.head["insulation_ohm_age_s"] = 61.0
    bench.look()
    assert bench.value(F.INSULATION_INVALID) == 1.0
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 0.0


def test_insulation_ages_with_its_sample(bench: Any) -> None:
    bench.head["insulation_ohm_age_s"] = 30.0
    bench.look()
    bench.look(30.0, new=False)  # as old as 60 s in the meantime, which is allowed
    assert bench.value(F.INSULATION_INVALID) == 0.0
    bench.look(1.0, new=False)
    assert bench.value(F.INSULATION_INVALID) == 1.0


def test_nothing_closes_below_500_ohm_for_each_volt(make_signals: Any) -> None:
    """24 cells of at most 3.65 V."""
    bench = make_signals()
    bench.head["insulation_ohm"] = 43790.0
    assert not bench.look().complete
    bench.head["insulation_ohm"] = 43810.0
    assert bench.look().complete
    bench = make_signals(insulation_close_ohm_per_v=100.0)
    bench.head["insulation_ohm"] = 8770.0
    assert bench.look().complete
    bench = make_signals(can=Capabilities())
    bench.head["insulation_ohm"] = 0.0
    assert bench.look().complete  # of a rack without a monitor nothing is known, and nothing expected


def test_no_insulation_at_all_is_a_value(bench: Any) -> None:
    bench.head["insulation_ohm"] = 0.0
    bench.look()
    assert bench.value(F.INSULATION) == 0.0
    assert bench.value(F.INSULATION_INVALID) == 0.0


# coolant


def test_coolant(bench: Any) -> None:
    bench.look()
    assert bench.value(F.COOLANT_FLOW) == 15.0
    assert (bench.value(F.COOLANT_HOT), bench.value(F.COOLANT_COLD)) == (20.0, 20.0)


@pytest.mark.parametrize("name", ["coolant_in_degc", "coolant_flow_lpm"])
def test_either_value_of_the_coolant_can_be_lost(bench: Any, name: str) -> None:
    bench.head[name + "_quality"] = Quality.MISSING
    for _ in range(3):
        seen = bench.look()
    assert bench.value(F.COOLANT_LOST) == 3.0
    assert math.isnan(bench.value(F.COOLANT_FLOW)) == (name == "coolant_flow_lpm")
    assert math.isnan(bench.value(F.COOLANT_HOT)) == (name == "coolant_in_degc")
    assert seen.complete  # closing does not depend on it; the rows of the table decide
    bench.head[name + "_quality"] = 0
    bench.head[name] = -1e3
    bench.look()
    assert bench.value(F.VALUE_OUT_OF_RANGE) == 1.0
    assert bench.value(F.COOLANT_LOST) == 4.0


# switches


@pytest.mark.parametrize("closed", range(8))
def test_feedback_of_the_contactors(bench: Any, closed: int) -> None:
    """All open is an answer like any other."""
    bench.head["contactors"] = closed
    seen = bench.look()
    assert seen.closed == closed
    assert seen.complete
    assert bench.value(F.FEEDBACK_INVALID) == bench.value(F.FEEDBACK_LOST) == 0.0


def test_feedback_that_cannot_be_is_none(bench: Any) -> None:
    bench.head["contactors"] = 8
    seen = bench.look()
    assert seen.closed == -1
    assert not seen.complete
    assert bench.value(F.FEEDBACK_INVALID) == 1.0
    assert bench.value(F.FEEDBACK_LOST) == 1.0


def test_feedback_that_is_lost(bench: Any) -> None:
    bench.head["contactors_quality"] = Quality.MISSING
    seen = bench.look()
    assert seen.closed == -1
    assert not seen.complete
    assert bench.value(F.FEEDBACK_INVALID) == 0.0
    assert bench.value(F.FEEDBACK_LOST) == 1.0


@pytest.mark.parametrize(
    ("name", "fault", "safe"),
    [("interlock_closed", F.INTERLOCK_OPEN, 1), ("emergency_stop", F.EMERGENCY_STOP, 0), ("gas_alarm", F.GAS_ALARM, 0)],
)
def test_a_switch_reads_as_the_dangerous_state_unless_it_is_plainly_the_other(
    bench: Any, name: str, fault: Fault, safe: int
) -> None:
    for state in range(256):
        bench.head[name] = state
        seen = bench.look()
        assert bench.value(fault) == (0.0 if state == safe else 1.0), state
        assert bench.value(F.FEEDBACK_INVALID) == (1.0 if state > 1 else 0.0), state
        assert seen.emergency_stop == (name == "emergency_stop" and state != 0)
        if state > 1:
            assert not seen.complete


def test_an_open_interlock_is_not_complete(bench: Any) -> None:
    bench.head["interlock_closed"] = 0
    assert not bench.look().complete


def test_a_lost_gas_detector_says_nothing(bench: Any) -> None:
    bench.head["gas_alarm"], bench.head["gas_alarm_quality"] = 5, Quality.MISSING
    assert not bench.look().complete
    assert math.isnan(bench.value(F.GAS_ALARM))
    assert bench.value(F.GAS_LOST) == 1.0
    assert bench.value(F.FEEDBACK_INVALID) == 0.0


def test_bleed_switches_are_compared_with_what_was_asked(bench: Any) -> None:
    bench.asked[[4, 9]] = 1
    bench.m.bleeding[[9, 12, 20]] = 1
    bench.look()
    assert (bench.value(F.BLEED_STUCK_ON), bench.where(F.BLEED_STUCK_ON)) == (1.0, 12)
    assert (bench.value(F.BLEED_STUCK_OFF), bench.where(F.BLEED_STUCK_OFF)) == (1.0, 4)
    assert bench.value(F.FEEDBACK_INVALID) == 0.0
    bench.m.bleeding[:] = bench.asked
    bench.look()
    assert (bench.value(F.BLEED_STUCK_ON), bench.where(F.BLEED_STUCK_ON)) == (0.0, NO_INDEX)
    assert (bench.value(F.BLEED_STUCK_OFF), bench.where(F.BLEED_STUCK_OFF)) == (0.0, NO_INDEX)


@pytest.mark.parametrize("cell", [0, 1, 23])
def test_every_bleed_switch_is_compared(bench: Any, cell: int) -> None:
    bench.asked[cell] = 1
    bench.look()
    assert (bench.value(F.BLEED_STUCK_OFF), bench.where(F.BLEED_STUCK_OFF)) == (1.0, cell)
    assert (bench.value(F.BLEED_STUCK_ON), bench.where(F.BLEED_STUCK_ON)) == (0.0, NO_INDEX)
    bench.asked[cell], bench.m.bleeding[cell] = 0, 1
    bench.look()
    assert (bench.value(F.BLEED_STUCK_ON), bench.where(F.BLEED_STUCK_ON)) == (1.0, cell)
    assert (bench.value(F.BLEED_STUCK_OFF), bench.where(F.BLEED_STUCK_OFF)) == (0.0, NO_INDEX)


def test_a_bleed_switch_in_no_state_is_reported(bench: Any) -> None:
    bench.m.bleeding[5] = 2
    bench.look()
    assert bench.value(F.FEEDBACK_INVALID) == 1.0
    assert bench.value(F.BLEED_STUCK_ON) == 1.0


def test_lost_feedback_of_the_bleed_switches(bench: Any) -> None:
    bench.m.bleeding[5] = 2
    bench.head["bleeding_quality"] = Quality.MISSING
    bench.look()
    assert bench.value(F.BLEED_LOST) == 1.0
    assert math.isnan(bench.value(F.BLEED_STUCK_ON))
    assert math.isnan(bench.value(F.BLEED_STUCK_OFF))
    assert bench.value(F.FEEDBACK_INVALID) == 0.0


def test_the_time_of_a_step_is_compared_with_the_period(make_signals: Any) -> None:
    bench = make_signals(period_s=0.5)
    bench.look(2.0)
    assert bench.value(F.DEADLINE_MISSED) == 4.0


def test_numbers_of_the_memory_have_places_of_their_own() -> None:
    places = [
        y.SAMPLE_AGE_S, y.CURRENT_LOST_S, y.PACK_LOST_S, y.BUS_LOST_S, y.FEEDBACK_LOST_S, y.INSULATION_LOST_S,
        y.COOLANT_LOST_S, y.FLOW_LOST_S, y.GAS_LOST_S, y.BLEED_LOST_S, y.HELD_A, y.DISCHARGE_A2S, y.CHARGE_A2S,
        y.DISCHARGE_BEYOND_AS, y.CHARGE_BEYOND_AS, y.COMMON_V, y.COMMON_SLOW_V,
        y.BAND_A, y.BAND_SLOW_A, y.READ_A, y.CURRENT_STILL_S, y.MOST_MISSING_A, y.RESPONSE_SEEN,
        y.START_RESPONSE_V, y.STILL_RISE_K, y.DOUBT_V, y.COMPARE_S, y.WENT_SOC, y.MOVED_SOC, y.START_S, y.STRING_SINCE_S, y.STRING_SEEN_S, y.STRING_SAG_V, y.LAST_OFF_V, y.BEFORE_OFF_V,
        y.OFF_V, y.OFF_SLOW_V, y.LAST_SUM_V, y.STRING_SUM_V, y.STRING_SUM_SLOW_V, y.LAST_A, y.STRING_A, y.STRING_SLOW_A,
        y.READ_PACK_V, y.READ_SUM_V, y.PATH_OHM, y.PATH_VAR, y.STRING_VAR, y.COMPARED_V, y.WAY_V, y.BLED_WAY,
        y.GAIN_V, y.GAIN_A, y.GAIN_WENT_SOC, y.RC1_A, y.RC2_A, y.SEEN_FAST_V, y.SEEN_V, y.EXPECTED_FAST_V, y.EXPECTED_V,
        y.CURVE_FAST_V, y.CURVE_V, y.EXPECTED_V2, y.EXPECTED_V4, y.BOTH_V2, y.SEEN_V2, y.GAIN_TOLD_S, y.GAIN_RISING, y.GAIN_WRONG,
        y.USUAL_SHARE, y.USUAL_S, y.MEAN_SLOW_V, y.LOOKED_A, y.BIAS_DOUBT_A,
    ]  # fmt: skip
    assert places == list(range(y.N_STATE_NUMBERS))
    assert np.unique(places).size == y.N_STATE_NUMBERS


def test_the_ends_of_a_range_belong_to_it(bench: Any) -> None:
    for inlet_degc, flow_lpm, ohm in ((120.0, 1e4, 1e9), (-50.0, 0.0, 43800.0)):
        bench.head["coolant_in_degc"], bench.head["coolant_flow_lpm"] = inlet_degc, flow_lpm
        bench.head["insulation_ohm"] = ohm
        assert bench.look().complete
        assert bench.value(F.COOLANT_LOST) == bench.value(F.INSULATION_INVALID) == 0.0


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("usable", [True, False])
def test_what_concerns_the_rack_has_no_place(make_signals: Any, has: bool, usable: bool) -> None:
    """Nor has what is in order, whatever was there before."""
    bench = make_signals() if has else make_signals(can=Capabilities(contactors=False, precharge=False))
    if not usable:
        for name in (n for n in bench.head.dtype.names if n.endswith("_quality")):
            bench.head[name] = Quality.MISSING
    bench.places[:] = 5
    bench.values[:] = -12345.0
    bench.look()
    bench.judge()
    own = [f for f in F if bench.value(f) != -12345.0 and ABOUT[f].place == Place.RACK]
    assert len(own) > 25
    assert [f.name for f in own if bench.where(f) != NO_INDEX] == []
    for fault in (
        F.CELL_VOLTAGE_LOST, F.TEMPERATURE_LOST, F.VALUE_OUT_OF_RANGE, F.CELL_VOLTAGE_FROZEN, F.TEMPERATURE_FROZEN,
        F.OPEN_SENSE_WIRE, F.BLEED_STUCK_ON, F.BLEED_STUCK_OFF, F.INSULATION_POSITIVE, F.INSULATION_NEGATIVE,
        F.MODEL_RESIDUAL, F.ESTIMATE_INVALID,
    ):  # fmt: skip
        assert bench.where(fault) == NO_INDEX, fault.name
