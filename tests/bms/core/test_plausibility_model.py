"""What contradicts the estimator: a response common to all cells, a cell's own, and estimates that are none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import estimator_layout as e
from bms.core import first_look
from bms.core import plausibility_model as p
from bms.core import signals_layout as y
from bms.core.faults import Fault
from bms.core.health_setup import HealthSettings
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32


# the estimator's innovation


def settle(bench: Any, innovation_v: float, seconds: float, dt_s: float = 0.5, current_a: float = 0.0) -> None:
    """With a current that is alive: it has noise."""
    bench.innovation[:] = innovation_v
    for k in range(round(seconds / dt_s)):
        bench.head["current_a"] = current_a + 0.01 * (k % 2 - (bench.head["current_a"] == current_a))
        bench.look(dt_s)
        bench.judge(dt_s)


def flat_v(bench: Any, times: float = 1.0) -> float:
    """What a hundredth of SoC, or so many, explain in the middle of the plateau."""
    nodes = bench.estimator.nodes
    row = int(p.row_of(bench.estimator, f4(25.0)))
    return float(p.explained(nodes, row, f4(0.5), f4(0.01 * times)))


def test_a_common_response_is_a_current(bench: Any) -> None:
    """Low-passes of 5 s and 30 s in a row: their difference, after a step, is 0.70 of it at most, at about 11 s."""
    ohm = float(
        np.interp(
            25.0, bench.cell.degc, np.median(bench.cell.r0_ohm + bench.cell.rct_ohm + bench.cell.r_ohm[0], axis=1)
        )
    )
    settle(bench, 0.0, 5.0)
    largest = 0.0
    for _ in range(80):
        settle(bench, -0.05, 0.5)
        largest = max(largest, bench.value(F.CURRENT_IMPLAUSIBLE))
    share = max(_band_pass(t / 10) for t in range(1, 400))
    assert largest == pytest.approx((0.05 * share - flat_v(bench)) / ohm, rel=0.05)
    settle(bench, -0.05, 200.0)  # an error that stays is the model's
    assert bench.value(F.CURRENT_IMPLAUSIBLE) == 0.0


def test_what_was_to_doubt_is_doubted_while_it_is_remembered(bench: Any) -> None:
    """A full rack may be 90 mV below its steep curve at rest, and is back on it as soon as it is discharged."""
    nodes = bench.estimator.nodes
    row = int(p.row_of(bench.estimator, f4(25.0)))
    steep_v = float(p.explained(nodes, row, f4(0.995), f4(0.02)))
    assert steep_v > 0.09
    bench.soc[:], bench.soc_std[:] = 0.995, 0.02
    settle(bench, -0.09, 200.0)
    assert bench.value(F.CURRENT_IMPLAUSIBLE) == 0.0
    bench.soc[:], bench.soc_std[:] = 0.5, 0.01
    for _ in range(100):
        settle(bench, 0.0, 0.5)
        assert bench.value(F.CURRENT_IMPLAUSIBLE) == 0.0
    # forgotten by 1/e in 40 s, and in the end it is that of now
    held_v = steep_v * (40 / 40.5) ** 100
    assert float(bench.state.number[y.DOUBT_V]) == pytest.approx(held_v, rel=1e-3)
    settle(bench, 0.0, 400.0)
    assert float(bench.state.number[y.DOUBT_V]) == pytest.approx(flat_v(bench), rel=1e-3)


def _band_pass(time_s: float, fast_s: float = 5.0, slow_s: float = 30.0) -> float:
    """Step response of f - s with f' = (1 - f)/fast, s' = (f - s)/slow."""
    f = 1.0 - math.exp(-time_s / fast_s)
    s = 1.0 - (slow_s * math.exp(-time_s / slow_s) - fast_s * math.exp(-time_s / fast_s)) / (slow_s - fast_s)
    return f - s


def test_parallel_cells_share_the_current_that_is_missing(make_signals: Any) -> None:
    one, four = make_signals(), make_signals(n_parallel=4)
    for bench in (one, four):
        settle(bench, 0.0, 1.0)
        settle(bench, 0.05, 10.0)
    assert four.value(F.CURRENT_IMPLAUSIBLE) == pytest.approx(4 * one.value(F.CURRENT_IMPLAUSIBLE), rel=1e-4)


def test_the_same_response_asks_for_less_current_in_the_cold(make_signals: Any) -> None:
    warm, cold = make_signals(), make_signals()
    cold.m.sensor_degc[:] = 0.0
    for bench in (warm, cold):
        settle(bench, 0.0, 1.0)
        settle(bench, 0.05, 10.0)
    assert 0.0 < cold.value(F.CURRENT_IMPLAUSIBLE) < 0.6 * warm.value(F.CURRENT_IMPLAUSIBLE)


def test_without_a_current_nothing_is_said_of_it(bench: Any) -> None:
    bench.head["current_a_quality"] = Quality.MISSING
    settle(bench, 0.05, 2.0)
    assert math.isnan(bench.value(F.CURRENT_IMPLAUSIBLE))
    assert bench.value(F.MODEL_RESIDUAL) == 0.0


def test_one_cells_own_response_is_its_residual(bench: Any) -> None:
    settle(bench, 0.0, 1.0)
    bench.innovation[13] = -0.1
    for _ in range(60):
        bench.look(0.5)
        bench.judge(0.5)
    own_v = 0.1 * 23 / 24 * (1 - math.exp(-30 / 10))
    assert bench.value(F.MODEL_RESIDUAL) == pytest.approx(own_v - flat_v(bench), rel=0.02)
    assert bench.where(F.MODEL_RESIDUAL) == 13


@pytest.mark.parametrize(
    ("mean_v", "cell_v", "own_v", "told"),
    [
        (3.40, 3.60, 0.2, False),  # full before the others
        (3.40, 3.20, -0.2, True),  # it lies below what it should
        (3.40, 3.35, 0.2, True),  # or above, and is not full
        (3.30, 3.60, 0.2, True),  # the others are far from it
    ],
)
def test_a_cell_that_is_full_before_the_others_is_no_residual(
    bench: Any, mean_v: float, cell_v: float, own_v: float, told: bool
) -> None:
    bench.head["current_a"] = 0.0
    bench.soc_std[:] = 0.005
    bench.m.cell_v[:] = mean_v
    bench.m.cell_v[7] = cell_v
    for _ in range(30):
        bench.innovation[:] = 0.0
        bench.innovation[7] = own_v
        bench.look()
        bench.judge()
    assert (bench.value(F.MODEL_RESIDUAL) > 0.1) == told
    assert (bench.where(F.MODEL_RESIDUAL) == 7) == told


@pytest.mark.parametrize(("own_v", "told"), [(0.004, False), (0.005, False), (0.006, True), (-0.006, True)])
def test_what_is_less_than_usual_is_no_residual(bench: Any, own_v: float, told: bool) -> None:
    """5 mV are the errors of sensors and model."""
    bench.look()
    bench.soc_std[:] = 0.0
    bench.state.residual_v[[0, 9]] = own_v, own_v / 2
    bench.judge(0.0)
    assert bench.value(F.MODEL_RESIDUAL) == (pytest.approx(abs(own_v)) if told else 0.0)
    assert bench.where(F.MODEL_RESIDUAL) == (0 if told else NO_INDEX)


def test_of_equal_residuals_the_first_is_named(bench: Any) -> None:
    bench.look()
    bench.soc_std[:] = 0.0
    bench.state.residual_v[[4, 9, 11]] = -0.0625, 0.0625, 0.015625
    bench.judge(0.0)
    # what a third cell does too is taken off twice
    assert (bench.value(F.MODEL_RESIDUAL), bench.where(F.MODEL_RESIDUAL)) == (0.03125, 4)


def test_the_residual_that_is_explained_least_is_named(bench: Any) -> None:
    """The larger one lies where the curve is steep and its SoC is not known well."""
    bench.look()
    bench.soc_std[:] = 0.0
    bench.soc[4], bench.soc_std[4] = 0.01, 0.02
    bench.state.residual_v[[4, 9]] = 0.1, 0.05
    bench.judge(0.0)
    assert (bench.value(F.MODEL_RESIDUAL), bench.where(F.MODEL_RESIDUAL)) == (pytest.approx(0.05), 9)


@pytest.mark.parametrize(
    ("name", "number", "compared"),
    [
        ("innovation", 99.0, True),
        ("innovation", -99.0, True),
        ("innovation", 100.0, False),
        ("innovation", -120.0, False),
        ("soc", 9.5, True),
        ("soc", 10.0, False),
        ("soc", -12.0, False),
        ("soc_std", 10.0, False),
        ("soc_std", 12.0, False),
    ],
)
def test_absurd_numbers_of_the_estimator_are_left_out(bench: Any, name: str, number: float, compared: bool) -> None:
    """100 V of innovation, an SoC or a deviation of 10: what is finite, but cannot be meant."""
    bench.look()
    bench.state.residual_v[7] = 9.0  # more than any curve explains
    getattr(bench, name)[7] = number
    bench.judge(0.0)
    n = p._common(bench.innovation, bench.state.residual_v, bench.soc, bench.soc_std, bench.state.cell_use)[4]
    assert n == (24 if compared else 23)
    if name == "innovation":
        before = bench.state.residual_v[7]
        bench.judge(30.0)
        assert (bench.state.residual_v[7] != before) == compared
    else:
        assert (bench.value(F.MODEL_RESIDUAL) > 0.0) == compared


def test_a_cell_that_lies_too_low_from_the_start_has_its_usual_place_where_a_healthy_one_may_lie(bench: Any) -> None:
    """So that all below counts as its sag; the place of the others is where they are."""
    bench.head["current_a"], bench.m.cell_v[13], bench.innovation[13] = 0.0, 3.0, -0.01
    bench.state.sunk_soc[:] = np.inf
    bench.look()
    state, mean_v = bench.state, bench.seen.cell_v_mean
    row = int(p.row_of(bench.estimator, f4(25.0)))
    low_v = float(first_look.lowest_at_start(bench.config, state, bench.estimator.nodes, row, mean_v, f4(0)))
    assert 3.0 < low_v < 3.3
    bench.judge()
    assert float(state.usual_v[13] - state.residual_v[13]) == pytest.approx(low_v - 3.0, abs=1e-5)
    assert float(state.own_v[13]) == pytest.approx(-0.01 + low_v - 3.0, abs=1e-5)
    assert float(state.apart_v[13]) == pytest.approx(low_v - float(mean_v), abs=1e-5)
    others = np.arange(24) != 13
    for place, usual_v in ((state.usual_v, 0.0), (state.own_v, 0.0), (state.apart_v, 3.3 - float(mean_v))):
        assert place[others] == pytest.approx(np.full(23, usual_v), abs=1e-3)


def test_where_the_curve_is_steep_an_uncertain_cell_may_deviate(bench: Any) -> None:
    bench.innovation[13] = -0.1
    bench.soc[13], bench.soc_std[13] = 0.01, 0.02
    for _ in range(200):
        bench.look()
        bench.judge()
    assert bench.value(F.MODEL_RESIDUAL) < 0.01
    bench.soc_std[13] = 0.0
    bench.look()
    bench.judge()
    assert bench.value(F.MODEL_RESIDUAL) > 0.09


def test_a_bleeding_cell_keeps_its_residual(bench: Any) -> None:
    bench.look()
    bench.asked[13] = 1
    bench.innovation[13] = 5.0
    bench.innovation[[0, 1]] = math.nan, math.inf  # skipped by the estimator, and broken
    bench.look()
    bench.judge()
    assert not bench.state.residual_v.any()
    assert bench.value(F.MODEL_RESIDUAL) == 0.0


def test_the_residual_of_a_bleeding_cell_is_kept_and_told(bench: Any) -> None:
    """It is bled for most of a minute: what was seen before must not be forgotten each time."""
    bench.asked[13] = 1
    bench.look()
    bench.state.residual_v[13] = 0.5
    bench.innovation[13] = 0.0
    bench.judge(30.0)
    assert bench.state.residual_v[13] == 0.5
    assert bench.value(F.MODEL_RESIDUAL) == pytest.approx(0.5 - flat_v(bench, 3.0), rel=1e-4)
    assert bench.where(F.MODEL_RESIDUAL) == 13
    bench.m.cell_v_quality[13] = Quality.MISSING
    bench.look()
    bench.judge(0.0)
    assert (bench.value(F.MODEL_RESIDUAL), bench.where(F.MODEL_RESIDUAL)) == (0.0, NO_INDEX)


def test_one_cell_is_enough_to_compare(bench: Any) -> None:
    """With itself, in which case it is in order; and it speaks for all of them about the current."""
    bench.innovation[1:] = math.nan
    for innovation_v in (0.0, 0.125):
        bench.innovation[0] = innovation_v
        bench.look()
        bench.judge(5.0)
    assert bench.value(F.MODEL_RESIDUAL) == 0.0
    assert bench.value(F.CURRENT_IMPLAUSIBLE) > 0.0


def test_without_a_cell_to_compare_nothing_is_known(bench: Any) -> None:
    bench.innovation[:] = math.nan
    bench.look()
    bench.judge()
    assert math.isnan(bench.value(F.CURRENT_IMPLAUSIBLE))
    assert math.isnan(bench.value(F.MODEL_RESIDUAL))
    assert bench.where(F.MODEL_RESIDUAL) == NO_INDEX


@pytest.mark.parametrize("dt_s", [60.0, math.inf])
def test_a_step_longer_than_every_time_constant_is_stable(bench: Any, dt_s: float) -> None:
    for sign in (1, -1) * 10:
        bench.innovation[:] = 0.05 * sign
        bench.innovation[3] = 0.5 * sign
        bench.head["current_a"] = 100.0 + sign
        bench.look(dt_s)
        bench.judge(dt_s)
        counted = (y.STRING_SINCE_S, y.STRING_SEEN_S)  # times, which do not fade
        numbers = [(k, float(x)) for k, x in enumerate(bench.state.number) if k not in counted]
        assert max(abs(x) for _, x in numbers) < 1e3
        assert abs(bench.state.residual_v).max() <= 0.45 + 1e-5


# estimates


def test_extremes_of_the_estimates(bench: Any) -> None:
    bench.soc[[3, 8]] = 0.1, 0.9
    bench.soc_std[5] = 0.2
    bench.look()
    bench.judge()
    for fault, value, where in (
        (F.SOC_LOW, 0.1, 3),
        (F.SOC_HIGH, 0.9, 8),
        (F.SOC_UNCERTAIN, 0.2, 5),
        (F.ESTIMATE_INVALID, 0.0, NO_INDEX),
    ):
        assert bench.value(fault) == pytest.approx(value)
        assert bench.where(fault) == where


def test_equal_estimates_name_the_first(bench: Any) -> None:
    bench.look()
    bench.judge()
    told = [(bench.value(f), bench.where(f)) for f in (F.SOC_LOW, F.SOC_HIGH, F.SOC_UNCERTAIN)]
    assert told == [(0.5, 0), (0.5, 0), (pytest.approx(0.01), 0)]


def test_the_first_broken_estimate_is_named(bench: Any) -> None:
    bench.soc[[0, 9]] = math.nan
    bench.look()
    bench.judge()
    assert (bench.value(F.ESTIMATE_INVALID), bench.where(F.ESTIMATE_INVALID)) == (2.0, 0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_estimate_that_is_no_number_is_counted_and_left_out(bench: Any, broken: float) -> None:
    bench.soc[[7, 9]] = broken
    bench.soc_std[4] = broken
    bench.look()
    bench.judge()
    assert (bench.value(F.ESTIMATE_INVALID), bench.where(F.ESTIMATE_INVALID)) == (3.0, 4)
    assert bench.value(F.SOC_LOW) == bench.value(F.SOC_HIGH) == 0.5
    bench.soc[:] = broken
    bench.look()
    bench.judge()
    assert bench.value(F.ESTIMATE_INVALID) == 24.0
    for fault in (F.SOC_LOW, F.SOC_HIGH, F.SOC_UNCERTAIN):
        assert math.isnan(bench.value(fault))
        assert bench.where(fault) == NO_INDEX


def test_what_a_curve_explains_is_its_steeper_side(bench: Any) -> None:
    nodes = bench.estimator.nodes
    row = int(p.row_of(bench.estimator, f4(25.0)))
    curve = nodes[row : row + e.N_SOC * e.NODE].reshape(e.N_SOC, e.NODE)[:, e.OCV]
    assert p.explained(nodes, row, f4(0.05), f4(0.05)) == pytest.approx(curve[10] - curve[0], abs=1e-5)
    assert p.explained(nodes, row, f4(0.5), f4(0.0)) == 0.0
    assert p.explained(nodes, row, f4(2.0), f4(0.005)) == 0.0  # beyond the end of the curve it goes on flat
    assert p.explained(nodes, row, f4(0.5), f4(9.0)) == pytest.approx(
        max(curve[-1] - curve[100], curve[100] - curve[0])
    )


def test_a_cell_may_lie_beyond_the_end_of_the_curve_where_it_goes_on(bench: Any) -> None:
    nodes, row = bench.estimator.nodes, int(p.row_of(bench.estimator, f4(25.0)))
    curve = nodes[row : row + e.N_SOC * e.NODE].reshape(e.N_SOC, e.NODE)[:, e.OCV]
    for soc, off in ((0.5, 0.1), (0.98, 0.02), (0.05, 0.05)):
        assert p._anywhere(nodes, row, f4(soc), f4(off)) == pytest.approx(p.explained(nodes, row, f4(soc), f4(off)))
    up_v = curve[-1] - np.interp(0.9, np.linspace(0.0, 1.0, e.N_SOC), curve) + 4 * (curve[-1] - curve[-2])
    assert p._anywhere(nodes, row, f4(0.9), f4(0.12)) == pytest.approx(up_v, abs=1e-4)
    down_v = np.interp(0.01, np.linspace(0.0, 1.0, e.N_SOC), curve) - curve[0] + 4 * (curve[1] - curve[0])
    assert p._anywhere(nodes, row, f4(0.01), f4(0.03)) == pytest.approx(down_v, abs=1e-4)


@pytest.mark.parametrize(("soc", "told"), [(0.86, False), (0.7, True)])
def test_three_deviations_of_soc_explain_a_residual(bench: Any, soc: float, told: bool) -> None:
    """A cell that is taken for 86 +- 5 % may be full, one that is taken for 70 % is not."""
    bench.look()
    bench.soc[:], bench.soc_std[:] = soc, 0.05
    bench.state.residual_v[9] = 0.2
    bench.judge(0.0)
    assert (bench.value(F.MODEL_RESIDUAL) > 0.1) == told


@pytest.mark.parametrize("degc", [-30.0, 25.0, 60.0])
def test_the_curve_is_linear_between_its_nodes(bench: Any, degc: float) -> None:
    """And flat beyond its ends; also in the last row, behind which there is nothing."""
    nodes, row = bench.estimator.nodes, int(p.row_of(bench.estimator, f4(degc)))
    curve = nodes[row : row + e.N_SOC * e.NODE].reshape(e.N_SOC, e.NODE)[:, e.OCV]
    soc = np.concatenate([np.linspace(-0.1, 1.1, 97), [0.0, 1e-3, 0.9985, 1.0]])
    volt = [float(first_look.ocv(nodes, row, f4(z))) for z in soc]
    np.testing.assert_allclose(volt, np.interp(soc, np.linspace(0.0, 1.0, e.N_SOC), curve), atol=5e-6)
    assert first_look.ocv(nodes, row, f4(math.nan)) == curve[0]


def test_the_upper_side_counts_where_it_is_steeper(bench: Any) -> None:
    nodes, row = bench.estimator.nodes, int(p.row_of(bench.estimator, f4(25.0)))
    up_v = float(first_look.ocv(nodes, row, f4(1.0)) - first_look.ocv(nodes, row, f4(0.98)))
    assert up_v > float(first_look.ocv(nodes, row, f4(0.98)) - first_look.ocv(nodes, row, f4(0.96)))
    assert p.explained(nodes, row, f4(0.98), f4(0.02)) == pytest.approx(up_v, abs=1e-6)


def test_the_curve_is_that_of_the_temperature(bench: Any) -> None:
    degc = (-99.0, -30.0, 23.0, 25.0, 26.0, 27.0, 28.0, 60.0, 1e9, math.nan)
    rows = [int(p.row_of(bench.estimator, f4(t))) for t in degc]
    assert [r // (e.N_SOC * e.NODE) for r in rows] == [0, 0, 11, 11, 11, 11, 12, 18, 18, 11]


@pytest.mark.parametrize(("soc", "current_a"), [(0.9, -100.0), (0.1, 100.0)])
def test_three_deviations_are_doubted_towards_an_end_of_the_curve(bench: Any, soc: float, current_a: float) -> None:
    """Ten minutes at 100 A are 6 % of 280 Ah: all may be full, or empty. On the way back one deviation counts."""
    nodes = bench.estimator.nodes
    row = int(p.row_of(bench.estimator, f4(25.0)))
    bench.soc[:], bench.soc_std[:] = soc, 0.04
    settle(bench, 0.0, 600.0, current_a=-current_a)
    one_v = float(p.explained(nodes, row, f4(soc), f4(0.04)))
    assert float(bench.state.number[y.DOUBT_V]) == pytest.approx(one_v, rel=1e-3)
    settle(bench, 0.0, 1200.0, current_a=current_a)
    three_v = float(p.explained(nodes, row, f4(soc), f4(0.12)))
    assert float(bench.state.number[y.DOUBT_V]) == pytest.approx(three_v, rel=1e-3)
    assert three_v > 1.2 * one_v


@pytest.mark.parametrize(
    ("soc", "went", "off"),
    [
        (0.83, 0.0033, 0.15),  # they reach 98 %, and some charge has flowed there
        (0.83, 0.0029, 0.1),  # next to none
        (0.83, -0.05, 0.1),  # it has flowed away from there
        (0.81, 0.05, 0.1),  # 96 % are no end
        (0.17, -0.0033, 0.15),
        (0.17, -0.0029, 0.1),
        (0.17, 0.05, 0.1),
        (0.19, -0.05, 0.1),
    ],
)
def test_no_more_than_fifteen_per_cent_are_doubted_of_all(bench: Any, soc: float, went: float, off: float) -> None:
    """Of deviations of 10 % three would be more."""
    nodes, row = bench.estimator.nodes, int(p.row_of(bench.estimator, f4(25.0)))
    bench.head["current_a"] = 0.0
    bench.soc[:], bench.soc_std[:] = soc, 0.1
    bench.look()
    bench.state.number[y.WENT_SOC] = went
    bench.judge()
    doubt_v = float(p.explained(nodes, row, f4(soc), f4(off)))
    assert float(bench.state.number[y.DOUBT_V]) == pytest.approx(doubt_v, rel=1e-3)


# what is doubted of the resistance, and the offset


def test_the_allowance_falls_with_the_deviation() -> None:
    one = np.ones(7, np.float32)
    for std, allowance in ((0.12, 1.5), (0.5, 1.5), (0.06, 0.75), (0.04, 1.5 / 3.0), (0.012, 0.15), (0.0, 0.15)):
        assert p._more(one, one * f4(std)) == pytest.approx(allowance, rel=1e-5)
        assert p._more(2.0 * one, 2.0 * one * f4(std)) == pytest.approx(allowance, rel=1e-5)
    assert p._more(one, one * f4(np.nan)) == 1.5  # what is not known may be anything
    assert p._more(0.0 * one, 0.0 * one) == 1.5


def test_what_is_not_known_is_what_health_publishes_at_first() -> None:
    fresh = HealthSettings()
    assert fresh.resistance_std + fresh.capacity_prior_std == pytest.approx(float(p._UNKNOWN_STD), rel=1e-6)


@pytest.mark.parametrize("n_parallel", [1, 4])
@pytest.mark.parametrize("bias_a", [3.0, -3.0])
def test_the_offset_is_the_filters_for_the_string(make_signals: Any, bias_a: float, n_parallel: int) -> None:
    bench = make_signals(n_parallel=n_parallel)
    bench.bias_a = bias_a
    bench.look()
    bench.judge()
    assert bench.value(F.CURRENT_OFFSET) == 3.0 * n_parallel
