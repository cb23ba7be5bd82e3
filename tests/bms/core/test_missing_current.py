"""The current that the cells ask for, where none of them is measured in peace: bled cells, and nothing at all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import missing_current as m
from bms.core import signals_layout as y
from bms.core.faults import Fault
from hal.contract import Quality

F = Fault
f4 = np.float32
KNOWN_V, UNKNOWN_V = 0.003, 0.02  # by so much two ways of looking may differ


def ohm_of(bench: Any) -> float:
    """What a cell answers within seconds, at 25 degC."""
    return float(bench.config.number[y.FAST_OHM])


def known(make_signals: Any, n: int = 24, **settings: Any) -> Any:
    """Sense wires that are known, with next to no resistance; the SoC is known, too."""
    bench = make_signals(n, **{"sense_ohm": 1e-6, **settings})
    bench.state.sunk_soc[:] = np.nan
    bench.soc_std[:] = 0.0
    return bench


def step(bench: Any, common_v: float, bled: bool, put_back_v: float = 0.0, seconds: int = 1) -> float:
    """All cells answer by `common_v`, which the estimator sees only where they are not bled; the value of the check."""
    for _ in range(seconds):
        bench.asked[:] = bled
        bench.innovation[:] = np.nan if bled else common_v
        bench.m.cell_v[:] = 3.3 + common_v + (put_back_v if bled else 0.0)
        bench.head["current_a"] += 0.01 if bench.head["current_a"] <= 100.0 else -0.01
        bench.look()
        bench.judge()
    return bench.value(F.CURRENT_IMPLAUSIBLE)


def response_v(bench: Any) -> float:
    return float(bench.state.number[y.COMMON_V] - bench.state.number[y.COMMON_SLOW_V])


@pytest.mark.parametrize("common_v", [-0.05, 0.05, -0.3])
def test_bled_cells_tell_of_a_current_as_the_others_do(make_signals: Any, common_v: float) -> None:
    """At any moment between two changes of what is bled."""
    calm, bled = known(make_signals), known(make_signals)
    step(calm, 0.0, False, seconds=60)
    step(bled, 0.0, False, seconds=50)
    step(bled, 0.0, True, seconds=10)
    for _ in range(45):
        assert step(bled, common_v, True) == pytest.approx(step(calm, common_v, False), rel=1e-4)
    assert bled.value(F.CURRENT_IMPLAUSIBLE) > 0.1 * abs(common_v) / ohm_of(bled)


@pytest.mark.parametrize(("sense_ohm", "most_v"), [(1e-6, KNOWN_V), (0.0, UNKNOWN_V)])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_put_back_wrongly_is_no_response(make_signals: Any, sense_ohm: float, most_v: float, sign: int) -> None:
    """Not when bleeding begins, not while it goes on, and not when it ends, a hundred times."""
    bench = known(make_signals, sense_ohm=sense_ohm)
    for _ in range(100):
        assert step(bench, 0.0, True, sign * 0.99 * most_v, seconds=5) == 0.0
        assert response_v(bench) == pytest.approx(0.0, abs=2e-6)
        assert step(bench, 0.0, False, seconds=3) == 0.0
    assert abs(bench.state.number[y.WAY_V]) <= most_v


@pytest.mark.parametrize(("sense_ohm", "most_v"), [(1e-6, KNOWN_V), (0.0, UNKNOWN_V)])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_more_of_a_change_is_taken_for_the_way(
    make_signals: Any, sense_ohm: float, most_v: float, sign: int
) -> None:
    bench = known(make_signals, sense_ohm=sense_ohm)
    step(bench, 0.0, False, seconds=3)
    step(bench, 0.0, True, sign * 0.05)
    assert bench.state.number[y.COMPARED_V] == pytest.approx(sign * (0.05 - most_v), abs=1e-5)


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_more_at_that_moment_is_a_response(make_signals: Any, begins: bool, sign: int) -> None:
    """50 mV appear in the very step in which bleeding begins or ends: all but 3 are seen."""
    bench, beside = known(make_signals), known(make_signals)
    step(bench, 0.0, not begins, seconds=60)
    step(beside, 0.0, False, seconds=60)
    for k in range(80):
        # and the 3 do not come back when the way changes once more
        value = step(bench, sign * 0.05, begins if k < 40 else not begins)
        assert value == pytest.approx(step(beside, sign * (0.05 - KNOWN_V), False), rel=1e-3)


def test_a_model_that_drifts_while_all_are_bled_is_no_sudden_current(make_signals: Any) -> None:
    """40 mV within five minutes: what is told is what would be told of cells in peace."""
    calm, bled = known(make_signals), known(make_signals)
    for k in range(900):
        common_v = 0.04 * math.sin(2 * math.pi * k / 900.0)
        wanted = step(calm, common_v, False)
        assert step(bled, common_v, k % 60 < 50, 0.002) == pytest.approx(wanted, abs=0.002 / ohm_of(bled))


def test_two_cells_in_peace_do_not_speak_for_many_that_are_bled(make_signals: Any) -> None:
    bench = known(make_signals, 24, cells_per_chip=1)
    for calm, told in ((2, False), (3, True)):
        bench.asked[:] = 1
        bench.asked[: calm + 1] = 0  # the last of them is beside one that is bled
        bench.innovation[:] = np.nan
        bench.innovation[: calm + 1] = 0.0
        for k in range(40):
            bench.innovation[:calm] = -0.05 if k > 20 else 0.0
            bench.look()
            bench.judge()
        assert (bench.value(F.CURRENT_IMPLAUSIBLE) > 0.0) == told


@pytest.mark.parametrize("bled", [2, 3])
def test_of_fewer_than_three_bled_cells_nothing_is_told(make_signals: Any, bled: int) -> None:
    """Unless one is in peace, which speaks alone then."""
    bench = known(make_signals, 4)
    bench.m.cell_v_quality[bled:] = Quality.MISSING
    assert math.isnan(step(bench, 0.0, True)) == (bled < 3)
    bench.m.cell_v_quality[:] = 0
    bench.m.cell_v_quality[:2] = Quality.MISSING
    bench.look()
    for use, told in ((y.USABLE, False), (y.USABLE | y.CALM, True)):
        bench.state.cell_use[3] = use
        bench.innovation[:] = 0.0
        bench.judge()
        assert math.isnan(bench.value(F.CURRENT_IMPLAUSIBLE)) == (not told)


def test_a_bled_cell_that_jumps_is_left_out(make_signals: Any) -> None:
    """Of 24 five may; of the seventh on it is what they all do, and the mean is that of all."""
    bench = known(make_signals)
    step(bench, 0.0, True, seconds=30)
    for cells in (1, 6, 7):
        jump_v = np.zeros(24, np.float32)
        jump_v[:cells] = 1.0
        bench.m.cell_v[:] = f4(3.3) + jump_v
        bench.look()
        mean_v, soc, std, count = m._bled(bench.state, bench.model_v, bench.soc, bench.soc_std, f4(0.0))
        assert mean_v == pytest.approx(0.0 if cells < 7 else 7.0 / 24.0, abs=1e-6)
        assert (soc, std, count) == (0.5, 0.0, 24)


def test_a_bled_cell_is_near_up_to_a_tenth_of_a_volt(make_signals: Any) -> None:
    bench = known(make_signals)
    step(bench, 0.0, True)
    bench.state.cell_v[:] = bench.model_v[:] = 0.0
    for off_v, mean_v in ((f4(0.1), 0.1 / 24.0), (np.nextafter(f4(0.1), f4(1)), 0.0)):
        bench.state.cell_v[7] = off_v
        found = m._bled(bench.state, bench.model_v, bench.soc, bench.soc_std, f4(0.0))
        assert found[0] == pytest.approx(mean_v)


@pytest.mark.parametrize(
    ("name", "number", "counts"),
    [("soc", 9.5, True), ("soc", 10.0, False), ("soc_std", 9.5, True), ("soc_std", 10.0, False),
     ("model_v", 103.0, True), ("model_v", 103.3, False), ("model_v", math.nan, False)],
)  # fmt: skip
def test_absurd_numbers_of_a_bled_cell_are_left_out(make_signals: Any, name: str, number: float, counts: bool) -> None:
    bench = known(make_signals)
    step(bench, 0.0, True)
    getattr(bench, name)[5] = number
    mean_v, soc, std, count = m._bled(bench.state, bench.model_v, bench.soc, bench.soc_std, f4(0.0))
    assert count == (24 if counts else 23)
    assert mean_v == pytest.approx(0.0, abs=1e-6)
    assert (soc > 0.5) == (counts and name == "soc")
    assert (std > 0.0) == (counts and name == "soc_std")


def test_where_none_is_near_the_mean_is_that_of_all(make_signals: Any) -> None:
    bench = known(make_signals)
    step(bench, 0.0, True)
    mean_v = m._bled(bench.state, bench.model_v, bench.soc, bench.soc_std, f4(0.3))[0]
    assert mean_v == pytest.approx(0.0, abs=1e-6)
    bench.state.cell_use[:] = y.USABLE | y.CALM
    assert m._bled(bench.state, bench.model_v, bench.soc, bench.soc_std, f4(0.0)) == (0.0, 0.0, 0.0, 0)


def test_the_mean_of_a_single_bled_cell_is_its_own(make_signals: Any) -> None:
    bench = known(make_signals)
    step(bench, 0.0, True)
    bench.state.cell_use[:] = 0
    bench.state.cell_use[5] = y.USABLE
    bench.soc_std[:] = 0.25
    for usual_v in (0.0, 0.3):  # near what is usual, and far from it
        found = m._bled(bench.state, bench.model_v, bench.soc, bench.soc_std, f4(usual_v))
        assert found == (pytest.approx(0.0, abs=1e-6), 0.5, 0.25, 1)


def test_the_ways_of_looking_are_what_they_say(make_signals: Any) -> None:
    """Against float64, with random cells bled, lost and wandering: the mean, and where it goes on from."""
    rng = np.random.default_rng(3)
    bench = known(make_signals, 12, cells_per_chip=1)
    last_v = way_v = 0.0
    way, ways = 0, set()
    for _ in range(800):
        if rng.random() < 0.2:
            bench.asked[:] = rng.random(12) < rng.choice([0.0, 0.1, 0.3, 1.0])
        bench.m.cell_v_quality[:] = (rng.random(12) < rng.choice([0.0, 0.05, 0.9])) * np.uint8(Quality.MISSING)
        bench.m.cell_v[:] = 3.3 + rng.normal(0, 0.01, 12) + rng.normal(0, 0.03)
        bench.state.residual_v[:] = rng.normal(0, 0.01, 12)
        bench.soc[:] = rng.uniform(0, 1, 12)
        bench.soc_std[:] = rng.uniform(0, 0.1, 12)
        bench.look()
        calm_v, calm = float(rng.normal(0, 0.01)), int((bench.state.cell_use & y.CALM != 0).sum())
        found = m.common_response(
            bench.config, bench.state, bench.model_v, bench.soc, bench.soc_std, f4(calm_v), f4(0.25), f4(0.125), calm
        )  # fmt: skip
        bled = (bench.state.cell_use & (y.USABLE | y.CALM)) == y.USABLE
        off_v = (bench.state.cell_v - bench.model_v - bench.state.residual_v)[bled].astype(np.float64)
        if calm < 3 and bled.sum() >= 3:
            near = off_v[np.abs(off_v - (last_v - way_v)) <= 0.1]
            mean_v = float(near.mean() if near.size and 4 * near.size >= 3 * off_v.size else off_v.mean())
            means = float(bench.soc[bled].mean()), float(bench.soc_std[bled].mean())
            wanted, now = (mean_v, *means), int(bled.sum())
        elif calm > 0:
            wanted, now = (calm_v, 0.25, 0.125), 0
        else:
            assert all(math.isnan(x) for x in found)
            ways.add(-1)
            continue
        if now != way:
            way_v += float(np.clip(last_v - (wanted[0] + way_v), -KNOWN_V, KNOWN_V))
            way = now
        last_v = wanted[0] + way_v
        assert found == pytest.approx((last_v, *wanted[1:]), abs=1e-5)
        ways.add(min(now, 3))
    assert ways == {-1, 0, 3}


# nothing at all to compare


def _drift(bench: Any, blind_s: int) -> float:
    """A model that drifts by 40 mV in five minutes, looked at for 10 s every `blind_s` + 10 s; the largest current."""
    bench.soc_std[:] = 0.0
    largest = 0.0
    for k in range(900):
        blind = k % (blind_s + 10) < blind_s
        bench.head["current_a"] = 100.0 + 0.01 * (k % 2)
        bench.innovation[:] = 0.04 * math.sin(2 * math.pi * k / 900.0)
        bench.m.cell_v_quality[:] = blind * np.uint8(Quality.MISSING)
        bench.look()
        bench.judge()
        value = bench.value(F.CURRENT_IMPLAUSIBLE)
        assert math.isnan(value) == blind
        largest = max(largest, 0.0 if math.isnan(value) else value)
    return largest


def test_what_drifts_while_nothing_can_be_compared_is_no_sudden_current(make_signals: Any) -> None:
    always = _drift(make_signals(), 0)
    for blind_s in (20, 50):
        assert _drift(make_signals(), blind_s) < 1.4 * always


@pytest.mark.parametrize("bled", [True, False])
def test_a_current_that_appears_while_nothing_can_be_compared_is_still_seen(make_signals: Any, bled: bool) -> None:
    bench = known(make_signals)
    step(bench, 0.0, bled, seconds=400)
    bench.m.cell_v_quality[:] = Quality.MISSING
    step(bench, 0.0, bled, seconds=30)
    bench.m.cell_v_quality[:] = 0
    # 31 s at once: 31 of 36 parts arrive in the fast average, 31 of 61 of these in the slow one
    share = (31 / 36) * (1 - 31 / 61)
    assert step(bench, -0.08, bled) == pytest.approx(share * 0.08 / ohm_of(bench), rel=0.02)


@pytest.mark.parametrize("n_parallel", [1, 4])
@pytest.mark.parametrize("doubt_v", [0.0, 0.002, 0.02])
def test_the_current_is_what_the_resistance_of_the_rack_makes_of_a_response(
    make_signals: Any, n_parallel: int, doubt_v: float
) -> None:
    """Of 50 mV a sixth is there after a second, and a thirty-first of that taken for usual."""
    bench = make_signals(n_parallel=n_parallel)
    ohm, told_a = 3e-4, []
    for mean_v in (0.0, -0.05):
        given = (f4(x) for x in (0.0, mean_v, doubt_v, ohm, 0.5, 1.0))
        told_a.append(float(m.missing_current(bench.config, bench.state, *given)))
    response_v = 0.05 / 6 * 30 / 31
    assert told_a == pytest.approx([0.0, max(response_v - doubt_v, 0.0) / (ohm / n_parallel)], rel=1e-5)


@pytest.mark.parametrize("dt_s", [0.1, 1.0, 50.0])
def test_a_doubt_is_remembered_for_as_long_as_the_response(make_signals: Any, dt_s: float) -> None:
    """Five seconds twice, and thirty: what the two averages of it remember, and one more; what is larger counts."""
    bench = make_signals()

    def doubt_v(now_v: float) -> float:
        return float(m.remembered_doubt(bench.config, bench.state, f4(now_v), f4(dt_s)))

    assert doubt_v(0.1) == pytest.approx(0.1)
    assert doubt_v(0.0) == pytest.approx(0.1 * 40 / (40 + dt_s))
    assert doubt_v(0.01) == pytest.approx(max(0.1 * (40 / (40 + dt_s)) ** 2, 0.01))
    assert doubt_v(0.2) == pytest.approx(0.2)


# what was there from the start


@pytest.mark.parametrize("bled", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_there_from_the_first_sample_is_no_current(make_signals: Any, sign: int, bled: bool) -> None:
    """It fades as the estimator learns the SoC."""
    bench = known(make_signals)
    bench.m.cell_v_quality[:] = Quality.MISSING
    step(bench, 0.0, bled, seconds=3)  # the first sample is the first that can be compared
    bench.m.cell_v_quality[:] = 0
    for k in range(120):
        assert step(bench, sign * 0.2 * math.exp(-k / 40.0), bled) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_begins_later_is_told_beside_what_was_there(make_signals: Any, sign: int) -> None:
    bench, beside = known(make_signals), known(make_signals)
    step(bench, 0.1, False, seconds=60)
    step(beside, 0.0, False, seconds=60)
    for _ in range(40):
        if sign > 0:
            assert step(bench, 0.15, False) == pytest.approx(step(beside, 0.05, False), rel=1e-3)
        else:  # in the other direction it takes what was there first
            assert step(bench, -0.05, False) == pytest.approx(step(beside, -0.05, False), rel=1e-3)
    assert bench.value(F.CURRENT_IMPLAUSIBLE) > 0.1 * 0.05 / ohm_of(bench)


def test_what_has_gone_of_it_does_not_come_back(make_signals: Any) -> None:
    bench, beside = known(make_signals), known(make_signals)
    step(bench, 0.1, False, seconds=60)
    step(bench, 0.04, False, seconds=300)
    step(beside, 0.0, False, seconds=360)
    for _ in range(40):
        assert step(bench, 0.1, False) == pytest.approx(step(beside, 0.06, False), rel=1e-3)


def test_without_a_current_the_ways_are_followed_all_the_same(make_signals: Any) -> None:
    bench = known(make_signals)
    step(bench, 0.0, False, seconds=20)
    bench.head["current_a_quality"] = Quality.MISSING
    assert math.isnan(step(bench, 0.0, True, 0.002, seconds=20))
    assert bench.state.number[y.COMPARE_S] == 20.0
    bench.head["current_a_quality"] = 0
    assert step(bench, 0.0, True, 0.002) == 0.0
    assert bench.state.number[y.COMPARE_S] == 0.0


def test_what_is_each_cells_own_is_no_change_when_others_are_compared(make_signals: Any) -> None:
    """Cells of +-20 mV: one half is bled and then the other."""
    bench = make_signals(cells_per_chip=1)
    bench.soc_std[:] = 0.0
    n = bench.innovation.size
    own_v = np.where(np.arange(n) < n // 2, 0.02, -0.02)
    for k in range(300):
        bench.head["current_a"] = 100.0 + 0.01 * (k % 2)
        bench.innovation[:] = own_v
        if k >= 200:
            bench.asked[:] = own_v > 0.0
        bench.look()
        bench.judge()
        # the band-pass lets 0.70 of a step through
        assert bench.value(F.CURRENT_IMPLAUSIBLE) < 0.55 * 0.7 * 0.02 / ohm_of(bench)
