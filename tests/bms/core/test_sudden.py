"""A cell that sinks within seconds while a load flows: a hard short, and what only looks like one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import signals_layout as y
from bms.core import sudden as d
from bms.core.empty import empty_v
from bms.core.faults import Fault
from bms.core.plausibility_model import row_of
from hal.contract import NO_INDEX, Quality
from tests.bms.core.sudden_rig import CELL, Rack

F = Fault
f4 = np.float32


@pytest.fixture
def rack(make_signals: Any) -> Rack:
    made = Rack(make_signals())
    made.run(300)
    return made


def test_what_sinks_is_told_at_once_and_for_a_while(rack: Rack) -> None:
    """60 mV below the other 23; by 1/24 of it the mean sinks and all others seem to rise, as beside a broken wire."""
    own_v = 0.06 * 22 / 24
    assert rack.run(1, 0.06) == pytest.approx(own_v, abs=5e-4)
    assert rack.bench.where(F.CELL_SAG) == CELL
    assert rack.run(29, 0.06) == pytest.approx(own_v * (360 / 361) ** 29, abs=2e-3)


def test_what_is_small_is_followed_within_a_minute(rack: Rack) -> None:
    first_v = rack.run(1, 0.015)
    assert rack.run(60, 0.015) < first_v * math.exp(-0.9)


def test_it_starts_where_each_cell_is(make_signals: Any) -> None:
    assert Rack(make_signals()).run(60, 0.2) == 0.0


def test_a_rack_that_is_bled_as_it_starts_has_the_load_of_now(make_signals: Any) -> None:
    rack = Rack(make_signals())
    rack.bench.asked[5] = 1
    rack.run(1)
    assert rack.state.load_a == pytest.approx(280.0)
    assert rack.state.mean_v == pytest.approx(3.3, abs=0.01)


def test_the_larger_of_both_ways_of_looking_counts(rack: Rack) -> None:
    rack.bench.m.cell_v[CELL] -= 0.05
    assert rack.step(before_v=0.1) == pytest.approx(0.1)
    assert rack.bench.where(F.CELL_SAG) == NO_INDEX
    assert 0.04 < rack.step(before_v=math.nan) < 0.05
    assert rack.bench.where(F.CELL_SAG) == CELL


def test_what_all_do_is_no_sag(rack: Rack) -> None:
    rack.bench.m.cell_v[:] -= 0.3
    assert all(rack.step() == 0.0 for _ in range(60))


def test_what_the_others_rise_by_is_no_sag(rack: Rack) -> None:
    """At the end of a charge the cells that are full leave the one that is not."""
    rack.bench.m.cell_v[:] = 3.36
    rack.bench.m.cell_v[CELL] = 3.3
    assert rack.step() < 0.003


def test_what_a_third_cell_does_too_is_taken_off_twice(make_signals: Any) -> None:
    """As a load begins, which explains as much again; the mean sinks by 1/24 of it."""
    seen = []
    for third_v in (0.05, 0.055):
        rack = Rack(make_signals())
        rack.bench.head["current_a"] = 0.0
        rack.run(600)
        rack.bench.head["current_a"] = 280.0
        seen.append(rack.run(1, 0.12, 0.12, third_v))
    assert seen[0] - seen[1] == pytest.approx(0.005 * (2 + 1 / 24), rel=0.2)


def test_under_a_steady_load_a_third_cell_explains_little(rack: Rack) -> None:
    """What may be a knee or a wrong temperature is as much again as load and curve explain, and 5 mV."""
    own_v, load_v = 0.15 * 21 / 24, 0.15 * 0.15 * 3 / 24
    assert rack.run(1, 0.15, 0.15, 0.15) == pytest.approx(own_v - load_v - 2 * (load_v + 5e-3), abs=2e-3)


def test_at_rest_a_third_cell_explains_nothing(make_signals: Any) -> None:
    rack = Rack(make_signals())
    rack.bench.head["current_a"] = 0.0
    rack.run(300)
    assert rack.run(5, 0.09, 0.09, 0.06) > 0.07


def test_an_end_of_the_curve_explains_only_where_the_charge_goes(rack: Rack) -> None:
    """A minute at 280 A is 1.7 % of 280 Ah: 0.56 V of the volt for 3 %."""

    def falling() -> float:
        """60 mV within 20 s."""
        return max(rack.run(1, 0.003 * k) for k in range(1, 21))

    bench = rack.bench
    bench.soc_std[:] = 0.03
    bench.soc[:] = 0.05
    assert falling() == 0.0
    rack.run(600)
    bench.soc[:] = 0.95
    assert falling() > 0.04
    bench.head["current_a"] = -280.0
    rack.run(600)
    assert falling() == 0.0


@pytest.mark.parametrize(("current_a", "soc"), [(280.0, 0.05), (-280.0, 0.95)])
def test_no_end_of_the_curve_takes_a_cell_down_at_once(rack: Rack, current_a: float, soc: float) -> None:
    """280 A take 1 / 3600 of the charge in a second, and so 28 mV at most; what flows after a fall has not made it."""
    bench = rack.bench
    bench.head["current_a"] = current_a
    bench.soc_std[:] = 0.03
    bench.soc[:] = soc
    rack.run(600)
    bend_v = 0.05
    assert rack.run(1, 0.15) > 0.15 * 22 / 24 - 1 / 36 - bend_v
    assert rack.run(9, 0.15) > 0.15 * 22 / 24 - 1 / 36 - bend_v


def test_a_broken_wire_is_no_sag(rack: Rack) -> None:
    for beside in (CELL - 1, CELL + 1):
        rack.bench.m.cell_v[:] = 3.3
        rack.bench.m.cell_v[CELL], rack.bench.m.cell_v[beside] = 3.24, 3.36
        assert rack.step() < 0.003
        rack.run(600)


@pytest.mark.parametrize("cell", [0, 23])
def test_the_first_and_the_last_cell_have_one_neighbour(rack: Rack, cell: int) -> None:
    assert rack.run(3, 0.06, cell=cell) > 0.05
    assert rack.bench.where(F.CELL_SAG) == cell


def test_it_is_no_larger_than_the_cell_is_low(rack: Rack) -> None:
    """The model of one cell alone jumps by 60 mV: nothing sinks. 10 mV are allowed it."""
    rack.bench.model_v[CELL] += 0.06
    assert rack.run(3) <= 0.0101


def test_a_model_that_rises_makes_no_cell_sink(rack: Rack) -> None:
    """The cell has always been 60 mV below the others; what is expected of it goes up by 60 mV, and it stays."""
    rack.run(900, 0.06)
    assert rack.step() < 0.01
    rack.bench.model_v[CELL] += 0.06
    assert all(rack.step() < 0.01 for _ in range(10))


def test_bleeding_may_move_a_cell_by_100_mv(rack: Rack) -> None:
    bench = rack.bench
    bench.asked[CELL] = 1
    bench.m.bleeding[CELL] = 1
    rack.step()  # what is asked is done in the next sample
    before_v = float(rack.state.off_v[CELL])
    bench.m.cell_v[CELL] -= 0.09
    rack.state.bled[:] = 0
    seen_v = rack.step()
    assert seen_v < 0.002
    assert float(rack.state.off_v[CELL]) < before_v - 0.08
    bench.m.cell_v[CELL] -= 0.15  # and no more
    rack.state.bled[:] = 0
    assert 0.04 < rack.step() < 0.06


def test_a_cell_that_is_missing_now_and_then_keeps_its_sag(rack: Rack) -> None:
    rack.bench.m.cell_v[CELL] -= 0.06
    rack.step()
    rack.bench.m.cell_v_quality[CELL] = Quality.MISSING
    assert rack.step() > 0.05
    assert rack.bench.where(F.CELL_SAG) == CELL


def test_without_any_cell_nothing_is_told(rack: Rack) -> None:
    rack.bench.m.cell_v_quality[:] = Quality.MISSING
    for _ in range(10):
        assert rack.step(before_v=0.01) == pytest.approx(0.01)


def test_where_the_cells_are_no_single_one_says(rack: Rack) -> None:
    """One that is a volt lower moves the others' place by 0.1 V / 23."""
    rack.bench.m.cell_v[CELL] -= 1.0
    rack.step()
    assert float(rack.state.drop_v[0]) == pytest.approx(-0.1 / 23, abs=2e-4)
    assert float(rack.state.drop_v[CELL]) == pytest.approx(1.0 - 0.1 / 23, abs=2e-4)


def test_half_of_the_cells_are_as_right_as_the_other_half(rack: Rack) -> None:
    rack.bench.m.cell_v[:12] = 2.8
    rack.step()
    assert float(rack.state.drop_v[0]) == pytest.approx(0.25, abs=1e-3)
    assert float(rack.state.drop_v[23]) == pytest.approx(-0.25, abs=1e-3)


def test_cells_that_go_far_away_shift_the_others_by_no_jump(make_signals: Any) -> None:
    """A quarter of them rise by up to 0.3 V, 2 mV a step."""
    rack = Rack(make_signals())
    rack.run(300)
    before_v = 0.0
    for _ in range(150):
        rack.bench.m.cell_v[18:] += 2e-3
        rack.step()
        drop_v = float(rack.state.drop_v[0])
        assert abs(drop_v - before_v) < 2e-3
        before_v = drop_v


def test_cells_that_lag_behind_as_the_others_are_full_do_not_sink(rack: Rack) -> None:
    """At the end of a charge most cells rise out of their model, and relax when the current ends; three do not."""
    bench, most_v = rack.bench, 0.0
    bench.head["current_a"] = -140.0
    for k in range(240):
        if k == 120:
            bench.head["current_a"] = 0.0
        rise_v = 0.12 * min(k / 100, 1.0) if k < 120 else 0.12 * math.exp(-(k - 120) / 20)
        bench.m.cell_v[:] = 3.4 + rise_v
        bench.model_v[:] = 3.4
        bench.m.cell_v[10:13] = 3.4
        most_v = max(most_v, rack.step())
    assert most_v < 0.011


def run_empty(rack: Rack, mean_v: float, seconds: int) -> float:
    """The largest sag while a cell whose SoC is believed to be a half falls by 0.45 V, and in five minutes of rest."""
    bench = rack.bench
    bench.model_v[:] = bench.m.cell_v[:] = mean_v
    bench.state.number[y.WENT_SOC] = -0.05
    for _ in range(300):
        rack.step()
    most_v = 0.0
    for _ in range(seconds):
        bench.m.cell_v[CELL] -= 0.45 / seconds
        most_v = max(most_v, rack.step())
    bench.head["current_a"] = 0.0
    return max(most_v, *(rack.step() for _ in range(300)))


@pytest.mark.parametrize(
    ("mean_v", "seconds", "told"),
    [
        (2.99, 18, False),  # 1C takes 0.028 % of the charge in a second: 25 mV/s are 0.9 V per percent
        (2.99, 3, True),  # 5.4 V per percent are no curve
        (3.3, 18, True),  # the others are far from empty
    ],
)
def test_the_first_cell_that_is_empty_does_not_sink(rack: Rack, mean_v: float, seconds: int, told: bool) -> None:
    assert (run_empty(rack, mean_v, seconds) > 0.03) == told


def test_at_rest_no_cell_becomes_empty(rack: Rack) -> None:
    """What a rack had lost before it came to rest explains what a cell sinks by then; nothing is discharged any more."""
    bench = rack.bench
    bench.model_v[:] = bench.m.cell_v[:] = 2.99
    for _ in range(300):
        rack.step()
    bench.head["current_a"] = 0.0
    for _ in range(120):
        rack.step()
    bench.m.cell_v[CELL] -= 0.45
    assert rack.step() > 0.3


def test_a_cell_that_sinks_alone_does_not_make_a_small_rack_empty(make_signals: Any) -> None:
    """It takes the mean of six cells below the bound of 3.2 V; five of them are above."""
    bench = make_signals(6, 6)
    rack = Rack(bench)
    bench.model_v[:] = 3.3
    rack.run(300, cell=4)
    assert float(bench.config.number[y.SPREAD_V_LOW]) < 3.3
    assert rack.run(2, 0.9, cell=4) > 0.5


def test_a_load_that_a_cell_has_borne_explains_nothing_any_more(rack: Rack) -> None:
    """Half a minute under the load it lies with the others: what it sinks by then is its own."""
    bench = rack.bench
    bench.head["current_a"] = 0.0
    rack.run(600)
    bench.head["current_a"] = 280.0
    rack.run(30)
    ohm = float(bench.config.number[y.FAST_OHM] * bench.config.number[y.PER_CELL])
    left = math.prod([15 / 16] * 31)
    assert rack.run(1, 0.06) == pytest.approx(0.06 * 22 / 24 - 0.15 * ohm * 280 * left, abs=1.5e-3)


def test_a_short_takes_more_off_its_cell_in_the_cold(make_signals: Any) -> None:
    """The threshold means a current through the short: in V as at 25 degC, and at most twice what is measured."""
    told = {}
    for degc in (0.0, 25.0, 35.0, 60.0):
        bench = make_signals()
        bench.m.sensor_degc[:] = degc
        rack = Rack(bench)
        bench.head["current_a"] = 0.0
        rack.run(300)
        told[degc] = rack.run(1, 0.04)
    per_kelvin = float(bench.config.number[y.OHM_PER_KELVIN])
    assert told[0.0] == pytest.approx(told[25.0] * math.exp(-25 * per_kelvin), rel=0.02)
    assert told[35.0] == pytest.approx(told[25.0] * math.exp(10 * per_kelvin), rel=0.02)
    assert told[60.0] == pytest.approx(told[25.0] * 2, rel=0.02)


def test_what_is_absurd_is_not_looked_at(rack: Rack) -> None:
    rack.bench.model_v[CELL] = np.nan
    assert rack.run(3, 0.5) == 0.0
    rack.bench.model_v[CELL] = 3.3
    for soc in (np.nan, 10.0, 10.5):
        rack.bench.soc[CELL] = soc
        assert rack.run(3, 0.5) == 0.0
    rack.bench.soc[CELL] = 0.5
    for soc_std in (np.inf, 10.0, 10.5):
        rack.bench.soc_std[CELL] = soc_std
        assert rack.run(3, 0.5) == 0.0


def test_a_cell_that_is_5_v_off_is_not_measured(rack: Rack) -> None:
    """It shifts the others by nothing, and keeps what was known of it."""
    rack.bench.m.cell_v[:] = rack.bench.model_v[:] = 3.25  # binary numbers
    rack.step()
    rack.bench.model_v[CELL] = 8.25
    rack.step()
    assert (rack.state.drop_v == 0.0).all()
    assert rack.state.own_v[CELL] == 0.0


def test_a_cell_that_is_read_for_the_first_time_hides_nothing(make_signals: Any) -> None:
    rack = Rack(make_signals())
    rack.bench.m.cell_v_quality[3] = Quality.MISSING
    rack.run(300)
    rack.bench.m.cell_v_quality[3] = 0
    assert rack.run(1, 0.06) > 0.05


def at_rest(make_signals: Any) -> Rack:
    """A rack at rest in which no charge has moved, whose cells all are where their models are."""
    rack = Rack(make_signals())
    rack.bench.head["current_a"] = 0.0
    rack.bench.m.cell_v[:] = rack.bench.model_v[:] = 3.25
    rack.step()
    return rack


def test_what_has_moved_by_18_mv_is_followed_within_a_minute_and_more_is_not(make_signals: Any) -> None:
    for usual_v, slower in ((f4(0.018), 1), (np.nextafter(f4(0.018), f4(1)), 6)):
        rack = at_rest(make_signals)
        rack.state.off_v[CELL], rack.state.own_v[CELL] = usual_v, 0.05
        rack.step()
        assert float(rack.state.off_v[CELL]) == pytest.approx(0.018 * (1 - 1 / 61 / slower), rel=1e-5)
        assert float(rack.state.own_v[CELL]) == pytest.approx(0.05 * (1 - 1 / 61 / slower), rel=1e-5)


def test_5_mv_are_none(make_signals: Any) -> None:
    for usual_v, told in ((f4(5e-3), False), (np.nextafter(f4(5e-3), f4(1)), True)):
        rack = at_rest(make_signals)
        rack.state.off_v[CELL] = rack.state.apart_v[CELL] = usual_v
        rack.state.own_v[CELL] = 0.01
        assert (rack.step() > 0.0) == told


def test_what_is_as_large_as_what_was_found_before_names_no_other_place(make_signals: Any) -> None:
    for more_v, where in ((0.0, NO_INDEX), (-1e-6, CELL)):
        rack = at_rest(make_signals)
        rack.bench.m.cell_v[CELL] -= 0.0625
        found_v = Rack.step(rack)
        again = at_rest(make_signals)
        again.bench.m.cell_v[CELL] -= 0.0625
        again.step(before_v=found_v + more_v)
        assert again.bench.where(F.CELL_SAG) == where


def test_of_two_that_sink_as_far_the_first_is_named(make_signals: Any) -> None:
    rack = at_rest(make_signals)
    rack.bench.m.cell_v[[4, 9]] -= 0.0625
    rack.step()
    assert rack.bench.where(F.CELL_SAG) == 4


def test_a_little_current_lets_a_third_cell_explain_a_part(make_signals: Any) -> None:
    """Of half the current that is none, half of twice is taken off, of what the change of the mean cell explains and 5 mV."""
    seen = {}
    for share in (0.0, 0.5):
        rack = at_rest(make_signals)
        rack.bench.head["current_a"] = share * float(rack.bench.config.number[y.REST_A])
        rack.step()
        rack.bench.m.cell_v[[4, 9, 14]] -= np.array([0.09, 0.09, 0.03], f4)
        seen[share] = rack.step()
    others_v = 0.21 / 24
    assert seen[0.0] - seen[0.5] == pytest.approx(5e-3 + 0.15 * others_v, abs=5e-4)


def test_under_a_steady_load_more_resistance_explains_nothing_more(make_signals: Any) -> None:
    """All fall by 0.2 V at the same current, and one by 60 mV more: 15 % of it, whatever is known of the resistances."""
    rack = Rack(make_signals())
    rack.bench.resistance_std[:] = 0.12
    rack.run(10)
    rack.bench.m.cell_v[:] -= 0.2
    rack.bench.model_v[:] -= 0.2
    rack.bench.m.cell_v[CELL] -= 0.06
    assert rack.step() == pytest.approx(0.06 * 22 / 24 - 0.15 * 0.2, abs=1.5e-3)


@pytest.mark.parametrize(("current_a", "at", "beyond"), [(-280.0, 0.9, 0.9001), (280.0, 0.1, 0.0999)])
def test_up_to_the_end_of_the_curve_it_explains_nothing(
    make_signals: Any, current_a: float, at: float, beyond: float
) -> None:
    """And beyond it 1 V for 3 % of charge, of a cell that falls for half a minute. Three deviations count as 10 %."""
    seen = {}
    for soc in (at, beyond):
        rack = Rack(make_signals())
        rack.bench.head["current_a"] = current_a
        rack.bench.soc_std[:] = 0.05
        rack.bench.soc[:] = soc
        rack.run(20)
        seen[soc] = [rack.run(1, 0.025 * k) for k in range(1, 31)][-1]
    assert seen[at] - seen[beyond] == pytest.approx(rack.state.number[d.MOVED_SOC] / 0.03, rel=0.03)


def test_what_curve_and_end_explain_has_come_no_faster_than_a_curve_falls(rack: Rack) -> None:
    """28 mV in a second at 280 A, wherever the curve bends, and what has come so is not taken twice."""
    bench = rack.bench
    bench.head["current_a"] = -280.0
    bench.soc_std[:] = 0.03
    for soc in (0.85, 0.97):
        bench.soc[:] = soc
        rack.run(600)
        assert rack.run(1, 0.15) > 0.15 * 22 / 24 - 1 / 36 - 1e-3


def test_noise_does_not_look_like_charge_that_flows(rack: Rack) -> None:
    bench = rack.bench
    bench.head["current_a"] = -280.0
    rng = np.random.default_rng(3)
    rack.run(60)
    for _ in range(300):
        rack.run(1, float(rng.normal(0.0, 2e-3)))
    assert rack.state.way_v[CELL] < 0.01


def test_what_falls_for_long_is_explained_by_no_more_than_a_volt_for_three_percent(rack: Rack) -> None:
    bench = rack.bench
    bench.soc_std[:] = 0.03
    bench.soc[:] = 0.05
    for k in range(1, 31):
        told_v = rack.run(1, 0.025 * k)
    moved_v = float(rack.state.number[d.MOVED_SOC]) / 0.03
    assert 0.05 < told_v < float(rack.state.fall_v[CELL]) - 0.9 * moved_v


def test_a_cell_is_empty_below_the_end_of_its_curve(make_signals: Any) -> None:
    """Where it holds 5 %; the mean cell is low, and the rack has been discharged."""
    for lower, told in ((False, True), (True, False)):
        rack = Rack(make_signals())
        bench = rack.bench
        bench.m.cell_v[:] = bench.model_v[:] = 3.2
        for _ in range(60):
            rack.step()
        bench.head["current_a"] = 0.0
        for _ in range(60):
            rack.step()
        went = bench.state.number[y.WENT_SOC] = f4(-0.05)
        bench.state.cell_v[:] = 2.9
        end_v = empty_v(
            bench.config, bench.state, bench.estimator.nodes, row_of(bench.estimator, f4(25)), f4(2.9), went, f4(0)
        )
        assert 3.0 < end_v < 3.1
        bench.m.cell_v[CELL] = np.nextafter(end_v, f4(0)) if lower else end_v
        rack.state.end_v[CELL] = 1.0  # it has lost enough
        assert (rack.step() > 0.1) == told


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_value_is_borne(make_signals: Any, data: st.DataObject) -> None:
    rack = Rack(make_signals(4, 2))
    number = st.floats(width=32)
    for _ in range(data.draw(st.integers(1, 8))):
        bench = rack.bench
        for values in (bench.m.cell_v, bench.model_v, bench.soc, bench.soc_std, bench.resistance_std):
            values[data.draw(st.integers(0, 3))] = data.draw(number)
        bench.head["current_a"] = data.draw(number)
        bench.m.cell_v_quality[data.draw(st.integers(0, 3))] = data.draw(st.integers(0, 3))
        seen = rack.step(data.draw(st.floats(-1.0, 100.0, width=32)))
        assert not math.isinf(seen)
    rack.bench.soc[:], rack.bench.soc_std[:], rack.bench.model_v[:] = 0.5, 0.005, 3.3
    rack.bench.head["current_a"], rack.bench.m.cell_v_quality[:] = 0.0, 0
    rack.run(1)
    for _ in range(100):
        rack.step(60.0)
    assert rack.run(2, 0.0, 0.06, cell=0) > 0.02


def test_a_full_cell_that_falls_is_no_lower_than_its_resistance_makes_it(rack: Rack) -> None:
    """Above the end of the flat it falls by itself; 15 % more resistance than the others' makes it lower than they are."""
    b, told_v = rack.bench, []
    for soc in (0.85, 0.95):
        b.soc[CELL] = soc
        d.sudden_init(rack.state)
        rack.run(300, -0.1)
        told_v.append(rack.run(1, 0.03))
    load_v = 0.15 * 280.0 * float(b.config.number[y.FAST_OHM] * b.config.number[y.PER_CELL])
    assert told_v[0] == pytest.approx(0.03 * 23 / 24 + 0.01, abs=2e-3)
    assert told_v[0] - told_v[1] == pytest.approx(load_v, rel=0.05)
