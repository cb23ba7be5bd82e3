"""A cell that sinks over minutes, by voltages alone: a short that grows, and what only looks like one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bms.core import growing as g
from bms.core import signals_layout as y
from bms.core.faults import Fault
from bms.core.plausibility import warmth
from bms.core.plausibility_model import row_of
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
CELL = 13
FALL_V = 0.06


class Rack:
    """A rack (`SignalBench`) of half-full LFP cells at rest, and what sinks in it."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        n = bench.info.n_cells
        self.state = g.GrowingState(
            *(np.zeros(n if f.dims == "cells" else int(f.dims), np.dtype(f.kind)) for f in g.STATE_FIELDS)
        )
        g.growing_init(self.state)
        self.off_v = 0.0
        bench.head["current_a"] = 0.0
        bench.resistance_std[:] = 0.0  # known

    def step(self, dt_s: float = 1.0, before_v: float = 0.0) -> float:
        """What CELL_SAG is then; `before_v` is what was found of it in the same step."""
        b = self.bench
        # readings whose smallest change is 0.1 mV
        self.off_v = 1e-4 - self.off_v
        b.m.cell_v[:] += self.off_v
        b.look(dt_s)
        b.m.cell_v[:] -= self.off_v
        b.values[F.CELL_SAG], b.places[F.CELL_SAG] = before_v, NO_INDEX
        g.growing_step(
            b.config, b.state, self.state, b.estimator, b.seen, b.soc, b.soc_std, b.resistance, b.resistance_std, b.values, b.places,
            f4(dt_s),
        )  # fmt: skip
        return float(b.value(F.CELL_SAG))

    def run(self, seconds: float, sunk_v: float = 0.0, cells: tuple[int, ...] = (CELL,), mean_v: float = 3.3) -> float:
        """Steps of a second, with `cells` at `sunk_v` below the others."""
        self.bench.m.cell_v[:] = mean_v
        self.bench.m.cell_v[list(cells)] = mean_v - sunk_v
        for _ in range(round(seconds)):
            self.step()
        return float(self.bench.value(F.CELL_SAG))


@pytest.fixture
def rack(make_signals: Callable[..., Any]) -> Rack:
    made = Rack(make_signals())
    made.run(600)
    return made


def curve_v(rack: Rack, sunk_v: float) -> float:
    """The largest part of the curve near a cell that is no charge: none moved, so none."""
    b = rack.bench
    row = row_of(b.estimator, f4(25.0))
    at = f4(3.3 - sunk_v)
    return float(g._curve_v(b.estimator.nodes, row, at, f4(3.3), f4(0.01), f4(0.0)))


def test_a_cell_that_sinks_slowly_is_told_for_all_that_it_has_sunk(rack: Rack) -> None:
    """60 mV within five minutes, linearly: an average of ten minutes, a sixth as fast beyond 18 mV, follows by little."""
    for k in range(300):
        value = rack.run(1, FALL_V * (k + 1) / 300)
    assert curve_v(rack, FALL_V) == 0.0
    assert 0.7 * FALL_V < value < FALL_V
    assert rack.bench.where(F.CELL_SAG) == CELL


def test_it_is_filtered_over_ten_seconds(rack: Rack) -> None:
    whole_v = FALL_V * 23 / 24  # of the mean of 24 cells it is one
    assert rack.run(1, FALL_V) == 0.0  # a tenth of it
    value = rack.run(60, FALL_V)
    assert float(rack.state.fall_v[CELL]) == pytest.approx(whole_v * (1 - 60 / 3600), rel=0.01)
    # a tenth has gone into the average; beside it both neighbours rise with the mean cell; a step is 0.1 mV
    beside_v = -float(rack.state.fall_v[CELL + 1])
    assert value == pytest.approx(1.1 * (float(rack.state.fall_v[CELL]) - beside_v - 1e-4), rel=2e-3)


def test_what_is_smaller_than_8_mv_is_not_looked_at(rack: Rack) -> None:
    assert rack.run(60, 0.008) == 0.0
    assert rack.run(60, 0.010) > 0.007


def test_it_starts_where_each_cell_is(make_signals: Callable[..., Any]) -> None:
    assert Rack(make_signals()).run(120, 0.2) == 0.0


def test_nothing_is_told_in_the_first_half_minute(make_signals: Callable[..., Any]) -> None:
    rack = Rack(make_signals())
    rack.run(5)
    assert rack.run(24, 0.3) == 0.0
    assert rack.run(3, 0.3) > 0.02


def test_the_larger_of_the_ways_of_looking_counts(rack: Rack) -> None:
    rack.run(60, FALL_V)
    assert rack.step(before_v=0.1) == pytest.approx(0.1)
    assert rack.bench.where(F.CELL_SAG) == NO_INDEX
    assert 0.04 < rack.step(before_v=math.nan) < FALL_V
    assert rack.bench.where(F.CELL_SAG) == CELL


def test_what_all_do_is_no_fall(rack: Rack) -> None:
    assert rack.run(120, mean_v=3.28) == 0.0


def test_what_a_third_cell_does_counts_twice(rack: Rack) -> None:
    assert rack.run(60, FALL_V, (5, 13)) > 0.04
    assert rack.run(30, FALL_V, (5, 13, 20)) == 0.0


@pytest.mark.parametrize("beside", [-1, 1])
def test_beside_a_cell_that_rises_a_wire_is_broken(rack: Rack, beside: int) -> None:
    rack.bench.m.cell_v[:] = 3.3
    rack.bench.m.cell_v[CELL], rack.bench.m.cell_v[CELL + beside] = 3.24, 3.36
    for _ in range(60):
        assert rack.step() < 1e-3


def test_a_wire_that_breaks_while_all_are_bled_is_no_fall(rack: Rack) -> None:
    rack.bench.asked[:] = 1
    rack.run(30)
    rack.bench.m.cell_v[CELL], rack.bench.m.cell_v[CELL + 1] = 3.24, 3.36
    for _ in range(60):
        assert rack.step() < 2e-3


@pytest.mark.parametrize("cell", [0, 23])
def test_at_an_end_of_the_string_there_is_one_neighbour(rack: Rack, cell: int) -> None:
    assert rack.run(60, FALL_V, (cell,)) > 0.05


@pytest.mark.parametrize("mean_v", [3.15, 3.45])
def test_beyond_the_flat_of_the_curve_nothing_is_told_and_all_starts_anew(rack: Rack, mean_v: float) -> None:
    assert rack.run(60, FALL_V, mean_v=mean_v) == 0.0
    assert rack.run(120, FALL_V) == 0.0


def test_a_load_explains_a_share_of_its_change(rack: Rack) -> None:
    """200 A that begin: 15 % of the drop of a known cell; once it has flowed for ten minutes, more of its rest."""
    b = rack.bench
    b.head["current_a"] = 200.0
    ohm = float(b.config.number[y.FAST_OHM]) * float(warmth(b.config, f4(25.0)))
    drop_v = 200.0 * ohm
    state = rack.state
    before = rack.run(1, FALL_V, mean_v=3.3 - drop_v)
    assert before == 0.0
    value = rack.run(59, FALL_V, mean_v=3.3 - drop_v)
    fall_v = float(state.fall_v[CELL])
    changed_a = 200.0 - float(state.load_a[CELL])
    assert changed_a > 150
    assert value <= fall_v - 0.15 * ohm * changed_a + 1e-4
    assert value > fall_v - 0.15 * ohm * changed_a - 0.02


@pytest.mark.parametrize("bled", [False, True])
def test_what_a_load_did_is_not_held_against_a_cell_once_it_has_gone(
    make_signals: Callable[..., Any], bled: bool
) -> None:
    """One that is 0.1 V below the others, and 60 mV more under load; bleeding may explain 20 mV the other way."""
    rack = Rack(make_signals())
    b = rack.bench
    rack.run(600, 0.1)
    drop_v = 200.0 * float(b.config.number[y.FAST_OHM]) * float(warmth(b.config, f4(25.0)))
    b.head["current_a"] = 200.0
    told = rack.run(60, 0.1 + FALL_V, mean_v=3.3 - drop_v)
    b.head["current_a"], b.asked[CELL] = 0.0, int(bled)
    for _ in range(2):
        assert rack.run(1, 0.1) <= (0.02 if bled else 0.0)
        assert float(rack.state.fall_v[CELL]) > 0.03
    assert told > 0.025


def test_what_bleeding_lifts_by_less_than_20_mv_has_sunk_all_the_same(make_signals: Callable[..., Any]) -> None:
    rack = Rack(make_signals())
    rack.run(600, 0.1)
    told = rack.run(120, 0.1 + FALL_V)
    rack.bench.asked[CELL] = 1
    assert rack.run(1, 0.1 + FALL_V - 0.015) > told - 0.005


def test_while_no_resistance_is_known_a_load_explains_more(make_signals: Callable[..., Any]) -> None:
    values = []
    for std in (0.0, 0.12):
        rack = Rack(make_signals())
        rack.bench.resistance_std[:] = std
        rack.run(600)
        rack.bench.head["current_a"] = 100.0
        values.append(rack.run(60, FALL_V))
    assert values[0] > values[1] + 0.003


def test_what_charge_explains_along_the_curve_is_taken_off() -> None:
    """A curve of 1 V per SoC for the mean cell and 2 V below 0.4: 1 % that is discharged takes 10 mV more there."""
    from bms.core.estimator_layout import N_SOC, NODE, OCV

    nodes = np.zeros(N_SOC * NODE, np.float32)
    soc = np.linspace(0, 1, N_SOC)
    nodes[OCV::NODE] = np.where(soc < 0.4, 3.4 - 2 * (0.4 - soc), 3.0 + soc)
    assert g.risen_by(nodes, 0, f4(3.69), f4(3.71), f4(0.01)) == pytest.approx((0.01, 0.01), abs=1e-5)
    assert g.risen_by(nodes, 0, f4(3.19), f4(3.21), f4(-0.01)) == pytest.approx((-0.02, -0.02), abs=1e-5)
    least_v, most_v = g.risen_by(nodes, 0, f4(3.3), f4(3.6), f4(0.01))
    assert (least_v, most_v) == pytest.approx((0.01, 0.02), abs=1e-4)
    # beyond either end the nearest node counts
    assert g.risen_by(nodes, 0, f4(5.0), f4(5.1), f4(0.01)) == pytest.approx((0.01, 0.01), abs=1e-5)
    assert g.risen_by(nodes, 0, f4(1.0), f4(1.1), f4(-0.01)) == pytest.approx((-0.02, -0.02), abs=1e-5)
    # 10 % more charge of a smaller cell: 2 V * 1.1 % - 1 V * 1 %
    assert g._curve_v(nodes, 0, f4(3.2), f4(3.7), f4(0.01), f4(-0.01)) == pytest.approx(0.012, abs=1e-4)
    # and where it is charged, the mean one rises by no more than the cell
    assert g._curve_v(nodes, 0, f4(3.2), f4(3.7), f4(0.01), f4(0.01)) == 0.0
    assert g._curve_v(nodes, 0, f4(3.7), f4(3.7), f4(0.01), f4(0.01)) == pytest.approx(0.0009, abs=1e-4)


def test_where_a_cell_was_before_it_fell_tells_its_part_of_the_curve() -> None:
    """1 V per SoC above 0.4 and 2 V below, as above: 2 % of discharge of a mean cell at 0.5 and one that is 0.2 below."""
    from bms.core.estimator_layout import N_SOC, NODE, OCV

    nodes = np.zeros(N_SOC * NODE, np.float32)
    soc = np.linspace(0, 1, N_SOC)
    nodes[OCV::NODE] = np.where(soc < 0.4, 3.4 - 2 * (0.4 - soc), 3.0 + soc)

    def explained(at: float, apart: float, std: float, went: float) -> float:
        return float(g._remembered_v(nodes, 0, f4(at), f4(apart), f4(std), f4(went)))

    assert explained(0.5, -0.2, 0.0, -0.02) == pytest.approx(2 * 0.022 - 0.02, abs=1e-4)
    assert explained(0.5, 0.0, 0.0, -0.02) == pytest.approx(0.002, abs=1e-4)  # it has a tenth less capacity
    assert explained(0.5, 0.0, 0.0, 0.02) == pytest.approx(0.02 * (1 - 1 / 1.1), abs=1e-4)  # or a tenth more
    assert explained(0.5, -0.2, 0.0, 0.02) == 0.0  # it rises more than the mean one
    # half a deviation may take both cells across the bend: the cell alone counts
    assert explained(0.5, -0.05, 0.0, -0.02) == pytest.approx(0.002, abs=1e-4)
    assert explained(0.5, -0.05, 0.15, -0.02) == pytest.approx(2 * 0.022 - 0.02, abs=1e-4)
    assert explained(0.5, -0.05, 0.09, -0.02) < 0.003


def test_the_averages_are_of_the_same_time_while_one_is_held(rack: Rack) -> None:
    """Beyond 18 mV voltage, current, charge and SoC of that cell follow a sixth as fast; those of others go on."""
    b = rack.bench
    rack.run(120, FALL_V)
    b.head["current_a"], b.soc[CELL] = 28.0, 0.3
    rack.run(60, FALL_V)
    state, rate = rack.state, float(b.estimator.scalars[0]["rate"])
    assert float(state.went[0]) == pytest.approx(-28.0 * rate * 57, rel=0.03)
    assert float(state.went[CELL]) == pytest.approx(-28.0 * rate * 60, rel=0.015)
    assert float(state.load_a[0]) == pytest.approx(28.0 * (1 - math.exp(-0.1)), rel=0.1)
    assert float(state.load_a[CELL]) == pytest.approx(28.0 / 60, rel=0.15)
    mean = 0.5 - 0.2 / state.went.size
    assert float(state.soc_apart[CELL]) == pytest.approx((0.3 - mean) / 60, rel=0.15)


@pytest.mark.parametrize(
    ("current_a", "went", "soc_apart", "larger"),
    [(0.0, 0.0, 0.0, None), (150.0, 0.0, 0.0, None), (150.0, -0.02, 0.0, "curve"), (0.0, -0.02, -0.45, "remembered")],
)
def test_what_load_and_curve_explain_is_taken_off(
    rack: Rack, current_a: float, went: float, soc_apart: float, larger: str | None
) -> None:
    """A fall of 0.1 V under a load that has flowed for long, and what is told of it by the same parts one by one."""
    b, state = rack.bench, rack.state
    b.head["current_a"] = current_a
    ohm = float(b.config.number[y.FAST_OHM]) * float(warmth(b.config, f4(25.0)))
    for _ in range(60):
        state.went[:], state.load_a[:], state.soc_apart[CELL] = went, current_a, soc_apart
        value = rack.run(1, 0.1, mean_v=3.3 - ohm * current_a)
    mean_v, nodes, row = float(b.seen.cell_v_mean), b.estimator.nodes, row_of(b.estimator, f4(25.0))
    off_v, now = 0.01 + 0.15 * ohm * current_a, state.went[CELL]
    cell_v = f4(b.state.cell_v[CELL] + ohm * current_a)
    curve_v = float(g._curve_v(nodes, row, cell_v, f4(mean_v + ohm * current_a), f4(off_v), now))
    remembered_v = float(g._remembered_v(nodes, row, f4(0.5), state.soc_apart[CELL], f4(0.01), now))
    assert (larger == "curve") == (curve_v > remembered_v + 1e-3)
    assert (larger == "remembered") == (remembered_v > curve_v + 1e-3)
    rest_v = float(state.fall_v[CELL] + state.fall_v[CELL + 1]) - 0.15 * ohm * 0.15 * current_a
    assert value == pytest.approx(1.1 * (rest_v - max(curve_v, remembered_v) - 1e-4), abs=2e-4)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -3e38])
def test_an_estimate_that_is_no_number_leaves_what_is_remembered(rack: Rack, wrong: float) -> None:
    b = rack.bench
    b.soc[CELL] = 0.45
    rack.run(300)
    before = rack.state.soc_apart.copy()
    assert before[CELL] < -0.01
    b.soc[3] = wrong
    rack.run(10)
    np.testing.assert_array_equal(rack.state.soc_apart, before)
    b.soc[3] = 0.5
    rack.run(60)
    assert np.isfinite(rack.state.soc_apart).all()
    assert float(rack.state.soc_apart[CELL]) < float(before[CELL])


def test_an_average_is_held_until_a_fifth_of_the_charge_has_gone(rack: Rack) -> None:
    rack.run(60, FALL_V)
    before = float(rack.state.apart_v[CELL])
    for went, pace in ((0.19, 1 / 3600), (-0.19, 1 / 3600), (0.21, 1 / 600), (-0.21, 1 / 600)):
        rack.state.went[CELL] = went
        rack.state.apart_v[CELL] = before
        rack.run(1, FALL_V)
        moved_v = before - float(rack.state.apart_v[CELL])
        assert moved_v == pytest.approx((FALL_V * 23 / 24 + before) * pace, rel=0.02)


def test_after_bleeding_the_averages_follow_for_all_of_its_time(rack: Rack) -> None:
    b = rack.bench
    b.asked[:] = 1
    rack.run(60, 0.01)
    before = float(rack.state.apart_v[CELL])
    assert before == pytest.approx(0.0, abs=2e-4)
    since_s = float(rack.state.since_s[CELL])
    assert since_s > 50
    b.asked[:] = 0
    while float(rack.state.since_s[CELL]) > 0:
        since_s = float(rack.state.since_s[CELL]) + 1
        rack.run(1, 0.01)
    assert float(rack.state.apart_v[CELL]) == pytest.approx(-0.01 * 23 / 24 * since_s / (600 + since_s), abs=2e-4)


def test_charge_is_counted_against_its_average(rack: Rack) -> None:
    b = rack.bench
    b.head["current_a"] = -28.0
    rack.run(60)
    rate = float(b.estimator.scalars[0]["rate"])
    assert rack.state.went[0] == pytest.approx(28.0 * rate * 60, rel=0.06)


def test_a_cell_that_is_bled_is_compared_with_others_that_are(rack: Rack) -> None:
    """What bleeding does is alike in them; alone, 20 mV are taken off, and what was seen before still holds."""
    b = rack.bench
    rack.run(60, FALL_V)
    b.asked[:] = 1
    before = float(rack.state.fall_v[CELL])
    rack.run(60, FALL_V)
    assert float(rack.state.fall_v[CELL]) >= before - 1e-4
    rack.run(60, 2 * FALL_V)
    assert float(rack.state.fall_v[CELL]) > 1.5 * FALL_V


def test_one_cell_that_is_bled_alone_counts_20_mv_less(rack: Rack) -> None:
    b = rack.bench
    b.asked[CELL] = 1
    rack.run(120, FALL_V)
    assert 0.015 < float(rack.state.fall_v[CELL]) < FALL_V - 0.018


def test_a_cell_that_is_lost_is_not_named(rack: Rack) -> None:
    rack.run(60, FALL_V)
    rack.bench.m.cell_v_quality[CELL] = Quality.MISSING
    for _ in range(30):
        rack.step()
    assert rack.bench.value(F.CELL_SAG) == 0.0


def test_no_lower_than_the_others_is_no_fall(rack: Rack) -> None:
    """A cell that was 50 mV above the others for long, and is 5 mV below them now."""
    rack.bench.m.cell_v[:] = 3.3
    rack.bench.m.cell_v[CELL] = 3.35
    rack.state.number[:] = 0.0
    for _ in range(600):
        rack.step()
    assert rack.run(60, 0.005) < 0.006


@pytest.mark.parametrize(("amps", "told"), [(28.0, False), (-28.0, True)])
def test_an_empty_cell_lies_anywhere_while_the_rack_is_discharged(rack: Rack, amps: float, told: bool) -> None:
    rack.bench.head["current_a"] = amps
    rack.run(120)
    assert (rack.run(60, 0.6) > 0.0) == told


@pytest.mark.parametrize(("away_s", "told"), [(20, True), (40, False)])
def test_a_load_that_leads_to_an_end_of_the_curve_for_seconds_makes_nothing_forgotten(
    rack: Rack, away_s: int, told: bool
) -> None:
    assert rack.run(away_s, mean_v=3.45) == 0.0
    assert (rack.run(60, FALL_V) > 0.04) == told


@pytest.mark.parametrize(("soc", "full"), [(0.95, True), (0.85, False)])
def test_what_a_full_cell_falls_by_itself_is_not_held_against_it(rack: Rack, soc: float, full: bool) -> None:
    """From 100 mV above the others it comes down within two minutes; what it stood at counts from the end of the flat."""
    b = rack.bench
    b.soc[CELL] = soc
    g.growing_init(rack.state)
    for k in range(600):
        b.m.cell_v[:] = 3.3
        b.m.cell_v[CELL] = 3.4 - 1e-3 * max(k - 480, 0)
        rack.step()
    end_v = float(b.config.number[y.SPREAD_V_HIGH]) + 0.02 - 3.3
    assert 0.03 < end_v < 0.07
    usual_v = float(rack.state.apart_v[CELL])
    assert usual_v < end_v if full else usual_v > end_v + 0.01


def test_seconds_at_an_end_do_not_add_up_and_their_charge_counts(rack: Rack) -> None:
    rack.bench.head["current_a"] = -28.0
    rack.run(1)
    went = float(rack.state.went[CELL])
    rack.run(20, mean_v=3.45)
    each_s = 28.0 * float(rack.bench.config.number[y.PER_CELL] * rack.bench.estimator.scalars[0].rate)
    assert float(rack.state.went[CELL]) - went == pytest.approx(20 * each_s, rel=1e-3)
    rack.run(5)
    rack.run(20, mean_v=3.45)
    assert not np.isnan(rack.state.apart_v).any()
