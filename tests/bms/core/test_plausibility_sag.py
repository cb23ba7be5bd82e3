"""A cell that suddenly sinks against the others: what a short inside looks like, and what only looks like it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import first_look
from bms.core import plausibility_model as p
from bms.core import signals_layout as y
from bms.core.faults import Fault
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
CELL = 13
RESIDUAL_S, SAG_S = 10.0, 600.0


@pytest.fixture
def bench(make_signals: Any) -> Any:
    """At rest, where no load explains anything; cells have been seen where the others are."""
    made = make_signals()
    made.head["current_a"] = 0.0
    made.state.sunk_soc[:] = np.nan
    return made


def run(bench: Any, seconds: float, innovation_v: float = 0.0, sunk_v: float = 0.0, cell: int = CELL) -> float:
    """Steps of a second; `cell` has its own innovation, and its voltage is `sunk_v` below that of the others."""
    bench.soc_std[:] = 0.005
    for _ in range(round(seconds)):
        bench.innovation[:] = 0.0
        bench.innovation[cell] = innovation_v
        bench.m.cell_v[cell] = 3.3 - sunk_v
        bench.look()
        bench.judge()
    return bench.value(F.CELL_SAG)


def test_a_cell_that_sinks_is_told_within_seconds(bench: Any) -> None:
    """Behind a low-pass of 10 s, less what one of an hour makes of that; the load explains the least."""
    run(bench, 60)
    seen_v = run(bench, 20, -0.06, 0.06)
    fast = 1 - math.exp(-20 / RESIDUAL_S)
    all_v = 0.06 * 23 / 24 * fast  # of the mean cell it is one of 24
    assert all_v - 4e-3 < seen_v < all_v
    assert bench.where(F.CELL_SAG) == CELL
    assert -1e-3 < float(bench.state.usual_v[CELL]) < -1e-4


def test_what_all_cells_do_is_no_sag(bench: Any) -> None:
    run(bench, 60)
    for _ in range(120):
        bench.innovation[:] = -0.06
        bench.look()
        bench.judge()
        assert bench.value(F.CELL_SAG) == 0.0


def test_what_comes_in_hours_is_no_sag(bench: Any) -> None:
    worst = max(run(bench, 1, -0.06 * k / 7200, 0.06 * k / 7200) for k in range(7200))
    assert worst < 0.006  # 60 mV in two hours are 5 mV in ten minutes


def test_a_cell_that_rises_does_not_sag(bench: Any) -> None:
    run(bench, 60)
    assert run(bench, 120, 0.06, -0.06) == 0.0
    assert bench.value(F.MODEL_RESIDUAL) > 0.04


def test_a_reading_that_was_too_high_and_is_right_again_does_not_sag(bench: Any) -> None:
    """Neither by its average, nor by a filter that has believed it."""
    run(bench, 1800, 0.3, -0.3)
    assert float(bench.state.usual_v[CELL]) <= 0.005
    assert max(run(bench, 1, -0.2, 0.0) for _ in range(120)) <= 0.0101


def test_of_a_broken_wire_one_cell_sinks_and_its_neighbour_rises(bench: Any) -> None:
    run(bench, 60)
    for beside in (CELL - 1, CELL + 1):
        for _ in range(120):
            bench.innovation[beside] = 0.06
            bench.innovation[CELL] = -0.06
            bench.m.cell_v[CELL], bench.m.cell_v[beside] = 3.24, 3.36
            bench.look()
            bench.judge()
            assert bench.value(F.CELL_SAG) < 0.005
        bench.innovation[beside], bench.m.cell_v[beside] = 0.0, 3.3
        run(bench, 3600)


@pytest.mark.parametrize(("soc", "judged"), [(0.5, True), (0.03, True), (0.014, False), (0.97, True), (0.986, False)])
def test_beyond_the_ends_of_the_curve_little_can_be_said_while_charge_flows(
    bench: Any, soc: float, judged: bool
) -> None:
    """Three deviations of 0.5 % must be left, or a curve that goes on explains 1 V. Near the ends it explains much."""
    bench.soc[:] = soc
    bench.head["current_a"] = 100.0
    run(bench, 600)
    seen_v = run(bench, 90, -0.8, 0.8)
    assert (seen_v > 0.0) == judged


def test_beyond_the_ends_of_the_curve_a_cell_at_rest_sinks_as_any_other(bench: Any) -> None:
    bench.head["current_a"] = 0.0
    bench.soc[:] = 0.99
    run(bench, 60)
    assert 0.025 < run(bench, 40, -0.04, 0.04) < 0.04


def test_what_was_seen_holds_while_a_cell_is_bled(bench: Any) -> None:
    run(bench, 60)
    before = run(bench, 60, -0.06, 0.06)
    bench.asked[CELL] = 1
    run(bench, 1, -0.06, 0.06)
    usual_v = float(bench.state.usual_v[CELL])
    assert run(bench, 50, 0.0, 0.06) == pytest.approx(before, abs=2e-3)
    assert float(bench.state.usual_v[CELL]) == usual_v
    bench.asked[CELL] = 0
    bench.m.cell_v_quality[CELL] = Quality.MISSING
    for held in (True, True, True, False):  # so that a reading that comes and goes is told of
        bench.look()
        bench.judge()
        sag_v, at = bench.value(F.CELL_SAG), bench.where(F.CELL_SAG)
        assert (sag_v, at) == ((pytest.approx(before, abs=2e-3), CELL) if held else (0.0, NO_INDEX))


@pytest.mark.parametrize("period", [2, 4, 6])
def test_a_cell_whose_reading_comes_and_goes_sinks_without_a_break(bench: Any, period: int) -> None:
    run(bench, 60)
    seen_v = []
    for k in range(60):
        bench.m.cell_v_quality[CELL] = Quality.MISSING if k % period >= period // 2 else 0
        seen_v.append(run(bench, 1, -0.06, 0.06))
    assert min(seen_v[25:]) > 0.03


@pytest.mark.parametrize("n_parallel", [1, 2])
def test_charge_that_has_gone_is_remembered_for_ten_minutes(make_signals: Any, n_parallel: int) -> None:
    """1C for ten minutes is a sixth of the capacity; a leaky average holds 63 % of it, and forgets."""
    bench = make_signals(n_parallel=n_parallel)
    bench.head["current_a"] = 280.0 * n_parallel
    run(bench, 600)
    went = float(bench.state.number[y.WENT_SOC])
    assert went == pytest.approx(-(1 - math.exp(-1)) / 6, rel=0.02)
    assert float(bench.state.number[y.MOVED_SOC]) == pytest.approx(-went)
    bench.head["current_a"] = 0.0
    run(bench, 600)
    assert float(bench.state.number[y.WENT_SOC]) == pytest.approx(went * math.exp(-1), rel=0.02)


def test_a_wrong_soc_explains_a_shift_only_where_the_curve_bends(bench: Any) -> None:
    nodes, row = bench.estimator.nodes, int(p.row_of(bench.estimator, f4(25.0)))

    def ocv(soc: float) -> float:
        return float(first_look.ocv(nodes, row, f4(soc)))

    for soc, off, went in ((0.95, 0.03, 0.1), (0.5, 0.05, -0.1), (0.2, -0.05, 0.1)):
        exact = abs((ocv(soc + off) - ocv(soc)) - (ocv(soc - went + off) - ocv(soc - went)))
        assert p.bent(nodes, row, f4(soc), f4(off), f4(went)) == pytest.approx(exact, abs=1e-6)
    assert p.bent(nodes, row, f4(0.97), f4(0.03), f4(0.1)) > 0.02
    assert p.bent(nodes, row, f4(0.5), f4(0.03), f4(0.03)) < 2e-3


def test_the_largest_sag_is_told(bench: Any) -> None:
    run(bench, 60)
    for cell, volt in ((5, 0.05), (17, 0.09), (20, 0.07)):
        bench.m.cell_v[cell] = 3.3 - volt
    for _ in range(60):
        bench.innovation[[5, 17, 20]] = -0.05, -0.09, -0.07
        bench.look()
        bench.judge()
    assert bench.where(F.CELL_SAG) == 17
    assert bench.where(F.MODEL_RESIDUAL) == 17


# while cells are bled their voltages are put back, with an error that is alike in them


def bled(bench: Any, sunk_v: float, error_v: float = 0.0, seconds: int = 5) -> float:
    """All cells are bled, and read `error_v` too low after what is put back; `CELL` lies `sunk_v` below the others."""
    bench.soc_std[:] = 0.005
    bench.asked[:] = 1
    for _ in range(seconds):
        bench.look()
        bench.state.cell_v[:] = 3.3 - error_v
        bench.state.cell_v[CELL] -= sunk_v
        bench.judge()
    return bench.value(F.CELL_SAG)


@pytest.mark.parametrize("error_v", [0.0, 0.05])
def test_a_cell_that_sinks_while_it_is_bled_is_told_at_once(bench: Any, error_v: float) -> None:
    run(bench, 60)
    seen_v = bled(bench, 0.1, error_v)
    assert 0.1 * 23 / 24 - 0.02 - 4e-3 < seen_v < 0.1 * 23 / 24 - 0.02
    assert bench.where(F.CELL_SAG) == CELL
    assert math.isnan(bench.value(F.MODEL_RESIDUAL))  # nothing can be compared in peace
    assert bled(bench, 0.0, error_v) == 0.0


def test_what_is_put_back_may_be_wrong_by_20_mv(bench: Any) -> None:
    run(bench, 60)
    assert bled(bench, 0.02) == 0.0


def test_the_usual_place_of_a_cell_counts_while_it_is_bled_too(bench: Any) -> None:
    for _ in range(12 * 60):
        bench.innovation[CELL], bench.m.cell_v[CELL] = -0.05, 3.25
        bench.look(30.0)
        bench.judge(30.0)
    assert float(bench.state.usual_v[CELL]) < -0.045
    assert bled(bench, 0.06) == 0.0
    assert bled(bench, 0.15) > 0.07


def test_one_bled_cell_is_compared_with_those_that_are_not_less_100_mv(bench: Any) -> None:
    run(bench, 60)
    bench.asked[:] = 0
    bench.asked[0] = 1
    bench.m.cell_v_quality[1] = Quality.MISSING
    for volt, least, most in ((3.21, 0.0, 0.0), (2.9, 0.295, 0.3)):
        for _ in range(3):
            bench.look()
            bench.state.cell_v[0] = volt
            bench.judge()
        assert least <= bench.value(F.CELL_SAG) <= most


def of_sags(bench: Any, *sunk_v: float, current_a: float = 0.0) -> float:
    """What is told when cells 3, 7, 11, ... sink by `sunk_v`."""
    bench.head["current_a"] = current_a
    run(bench, 60)
    for _ in range(60):
        for k, volt in enumerate(sunk_v):
            bench.innovation[3 + 4 * k], bench.m.cell_v[3 + 4 * k] = -volt, 3.3 - volt
        bench.look()
        bench.judge()
    return bench.value(F.CELL_SAG)


def test_what_a_third_cell_does_too_is_taken_off_twice(make_signals: Any) -> None:
    """While charge flows, if only 1/50 C: it explains no more than 2 mV."""
    alone_v = of_sags(make_signals(), 0.09, current_a=5.6)
    two_v = of_sags(make_signals(), 0.09, 0.08, current_a=5.6)
    assert alone_v > 0.075
    assert two_v == pytest.approx(alone_v, abs=8e-3)
    # of the third cell, too, the mean and what explains a sag are taken off first
    assert two_v - 2 * 0.04 < of_sags(make_signals(), 0.09, 0.08, 0.04, current_a=5.6) < two_v - 2 * 0.02
    assert of_sags(make_signals(), 0.09, 0.08, 0.06, current_a=5.6) == 0.0


def test_at_rest_three_cells_may_be_shorted_at_once(make_signals: Any) -> None:
    """No knee and no wrong temperature makes cells sink there; what the three move is the mean of 24."""
    three_v = of_sags(make_signals(), 0.09, 0.09, 0.09)
    assert three_v > 0.09 * 21 / 24 - 0.015
    # half of what makes a current: half of what is taken off
    half_v = of_sags(make_signals(), 0.09, 0.09, 0.09, current_a=1.4)
    assert half_v == pytest.approx(0.0, abs=1e-3)
    assert of_sags(make_signals(), 0.09, 0.09, 0.045, current_a=1.4) == pytest.approx(0.09 / 2, abs=0.015)


def test_what_the_filter_learns_of_a_sag_is_not_believed(bench: Any) -> None:
    """Its SoC falls to where the curve explains the voltage: the sag that is told fades no faster than in ten minutes."""
    bench.soc[:] = 0.2
    bench.head["current_a"] = 0.0
    nodes, row = bench.estimator.nodes, int(p.row_of(bench.estimator, f4(25.0)))
    first_v = run(bench, 40, -0.05, 0.05)
    assert float(bench.state.sunk_soc[CELL]) == pytest.approx(0.0, abs=1e-6)
    for _ in range(100):
        bench.soc[CELL] = max(float(bench.soc[CELL]) - 1e-3, 0.17)
        learnt_v = float(first_look.ocv(nodes, row, f4(0.2)) - first_look.ocv(nodes, row, bench.soc[CELL]))
        last_v = run(bench, 1, -0.05 + learnt_v, 0.05)
    assert learnt_v > 0.01
    assert first_v - 4e-3 - 0.17 * learnt_v < last_v < first_v + 5e-3  # the low-pass is behind
    assert run(bench, 900, -0.05 + learnt_v, 0.05) < first_v - 0.7 * learnt_v
    bench.soc[CELL] = 0.2
    assert run(bench, 120) == 0.0
    assert math.isnan(float(bench.state.sunk_soc[CELL]))


@pytest.mark.parametrize(("resistance_std", "share"), [(0.12, 0.15 + 0.2 * 1.35), (0.0, 0.15)])
def test_a_load_explains_something_that_flows_or_has_flowed(
    make_signals: Any, resistance_std: float, share: float
) -> None:
    """A share of the drop over the resistance that answers within seconds, the larger the less that is known."""
    told = {}
    for then_a, now_a in ((0.0, 0.0), (140.0, 0.0), (0.0, 140.0)):
        bench = make_signals()
        bench.resistance_std[:] = resistance_std
        for k in range(120):
            bench.head["current_a"] = then_a * (-1) ** k
            bench.look(20.0)
            bench.judge(20.0)
        bench.head["current_a"] = now_a
        told[then_a, now_a] = run(bench, 20, -0.09, 0.09)
    drop_v = share * 140.0 * float(bench.config.number[y.FAST_OHM])
    assert told[0.0, 0.0] - told[140.0, 0.0] == pytest.approx(drop_v, rel=0.15)
    assert told[0.0, 0.0] - told[0.0, 140.0] == pytest.approx(drop_v, rel=0.15)


def test_of_the_bled_and_the_others_the_deeper_is_told(bench: Any) -> None:
    run(bench, 60)
    run(bench, 60, -0.2, 0.2, cell=3)
    for sunk_v, place in ((0.1, 3), (0.4, 20)):
        bench.asked[:] = 0
        bench.asked[18:23] = 1
        bench.innovation[3], bench.m.cell_v[3] = -0.2, 3.1
        for _ in range(2):
            bench.look()
            bench.state.cell_v[20] = 3.3 - sunk_v
            bench.judge()
        assert bench.where(F.CELL_SAG) == place
