"""A current sensor of the wrong gain, told by what the mean cell answers to a change of the measured current."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bms.core import current_gain as m
from bms.core import signals_layout as y
from bms.core.estimator_layout import N_DEGC, N_SOC, NODE, OCV, R0, R1, R2, RCT, SLOPE
from bms.core.faults import Fault
from hal.contract import Quality

F = Fault
f4 = np.float32
SLACK = 0.15  # of all resistances at once, in a rack that is known
KNOWN_S = 1500.0  # of a current that steps every 20 s; so long it takes until the resistance is known
GRID = np.linspace(0.0, 1.0, N_SOC)
FATAL_A = 0.35 * 280.0  # of CURRENT_IMPLAUSIBLE


class Cells:
    """The cells of a bench, in float64: `resistance` times that of their type, behind a sensor that reads `gain` times.

    `work(current, seconds)` lets a current flow, of a cell, as a function of time; `delay` is how many steps later the
    voltages are sampled.
    """

    def __init__(self, bench: Any, resistance: float = 1.0, degc: float = 25.0, delay: int = 0) -> None:
        self.bench, self.resistance, self.degc, self.gain = bench, resistance, degc, 1.0
        k1 = bench.estimator.scalars[0]
        self.tau_s, self.bend_a, self.rate = (float(k1.tau1_s), float(k1.tau2_s)), float(k1.bend_a), float(k1.rate)
        axis = float(k1.degc_first) + np.arange(N_DEGC) / float(k1.nodes_per_kelvin)
        nodes = np.asarray(bench.estimator.nodes, np.float64).reshape(N_DEGC, N_SOC, NODE)
        cold = int(np.searchsorted(axis, degc)) - 1
        share = (degc - axis[cold]) / (axis[cold + 1] - axis[cold])
        self.row = cold * N_SOC * NODE
        self.table = nodes[cold] + share * (nodes[cold + 1] - nodes[cold])
        self.rc_a = [0.0, 0.0]
        self.soc, self.time_s = 0.5, 0.0
        self.lag = [3.3] * delay
        self.hidden_a = 0.0

    def of(self, column: int) -> float:
        return float(np.interp(self.soc, GRID, self.table[:, column]))

    def voltage(self, true_a: float, dt_s: float) -> float:
        self.soc -= true_a * self.rate * dt_s
        for k, tau_s in enumerate(self.tau_s):
            self.rc_a[k] += dt_s / (tau_s + dt_s) * (true_a - self.rc_a[k])
        drop_v = self.of(R0) * true_a + self.of(RCT) * self.bend_a * math.asinh(true_a / self.bend_a)
        drop_v += self.of(R1) * self.rc_a[0] + self.of(R2) * self.rc_a[1]
        self.lag.append(self.of(OCV) - self.resistance * drop_v)
        return self.lag.pop(0)

    def step(
        self, true_a: float, dt_s: float = 1.0, soc: float | None = None, soc_std: float = 0.01, factor: float = 1.0
    ) -> float:
        """What the kernel tells of the gain after one step."""
        bench = self.bench
        volt = self.voltage(true_a, dt_s)
        wrong, hidden_a = m.current_gain(
            bench.config, bench.state, bench.estimator, self.row, f4(self.degc),
            f4(self.gain * true_a * bench.info.n_parallel), f4(volt), f4(self.soc if soc is None else soc),
            f4(soc_std),
            f4(factor), f4(1.5), f4(dt_s),
        )  # fmt: skip
        self.hidden_a = float(hidden_a)
        self.time_s += dt_s
        return float(wrong)

    def work(self, current: Callable[[float], float], seconds: float, dt_s: float = 1.0) -> list[float]:
        """What is told of the gain after each step."""
        return [self.step(current(self.time_s), dt_s) for _ in range(round(seconds / dt_s))]

    def hidden(self, current_a: float, seconds: int) -> list[float]:
        """What a step of the current hides, after each second."""
        found = []
        for _ in range(seconds):
            self.step(current_a)
            found.append(self.hidden_a)
        return found


def steps(low_a: float = -100.0, high_a: float = 100.0) -> Callable[[float], float]:
    return lambda time_s: high_a if time_s // 20 % 2 else low_a


def known(bench: Any, **how: Any) -> Cells:
    """Cells that have worked for so long that what they answer is known."""
    cells = Cells(bench, **how)
    cells.work(steps(), KNOWN_S)
    assert bench.state.number[y.USUAL_S] >= 600.0
    return cells


def usual(bench: Any) -> float:
    return float(bench.state.number[y.USUAL_SHARE])


@pytest.mark.parametrize("degc", [3.0, 25.0, 38.0])
@pytest.mark.parametrize("resistance", [0.95, 1.0, 1.6, 2.4])
def test_what_is_usual_is_the_resistance_of_the_cells(bench: Any, resistance: float, degc: float) -> None:
    cells = known(bench, resistance=resistance, degc=degc)
    assert usual(bench) == pytest.approx(resistance, rel=0.01)
    assert max(cells.work(steps(-60.0, 200.0), 600.0)) == 0.0


@pytest.mark.parametrize("n_parallel", [1, 4])
@pytest.mark.parametrize("resistance", [1.0, 1.5])
@pytest.mark.parametrize(
    ("gain", "off"), [(0.3, 7 / 3), (0.45, 11 / 9), (0.6, 2 / 3), (1.6, 0.6), (2.2, 1.2), (-1.0, 2.0), (-0.5, 3.0)]
)
def test_a_wrong_gain_is_told_once_the_resistance_is_known(
    make_signals: Any, gain: float, off: float, resistance: float, n_parallel: int
) -> None:
    bench = make_signals(n_parallel=n_parallel)
    cells = known(bench, resistance=resistance)
    cells.gain = gain
    off = min(off, 4.0 / resistance - 1.0) if gain > 0.0 else off  # no answer counts more than four times its type's
    assert cells.work(steps(), 3000.0)[-1] == pytest.approx(off - SLACK, rel=0.03, abs=0.02)


def test_what_a_wrong_sensor_makes_of_the_resistance_does_not_become_usual(bench: Any) -> None:
    cells = known(bench)
    for gain in (0.45, 2.2):
        cells.gain = gain
        cells.work(steps(), 3600.0)
        assert usual(bench) == pytest.approx(1.0, rel=0.03)
        cells.gain = 1.0
        assert cells.work(steps(), 1500.0)[-1] == 0.0


def test_resistances_that_change_slowly_are_usual(bench: Any) -> None:
    """As behind temperatures that err: by a sixth within ten hours."""
    cells = known(bench)
    for k in range(40):
        cells.resistance = 1.0 + k / 240.0
        assert max(cells.work(steps(), 900.0, dt_s=2.0)) == 0.0


@pytest.mark.parametrize(("gain", "resistance"), [(1.0, 2.4), (0.45, 1.0), (0.7, 1.6), (1.0, 0.9)])
def test_before_it_is_known_the_resistance_explains_as_much_as_it_may_be(
    bench: Any, gain: float, resistance: float
) -> None:
    cells = Cells(bench, resistance)
    cells.gain = gain
    assert max(cells.work(steps(), 600.0)) == 0.0


@pytest.mark.parametrize(("gain", "told"), [(1.6, 0.45), (2.2, 1.05), (-1.0, 1.85), (0.3, 7 / 3 - 1.5)])
def test_but_not_everything(bench: Any, gain: float, told: float) -> None:
    """A sensor that has been wrong from the start: a resistance is hardly less than its type's, nor any larger."""
    cells = Cells(bench)
    cells.gain = gain
    assert cells.work(steps(), 600.0)[-1] == pytest.approx(told, rel=0.03)


def test_what_is_published_of_the_resistance_counts_until_then(bench: Any) -> None:
    cells = Cells(bench, 3.0)
    for k in range(600):
        assert cells.step(steps()(float(k)), factor=1.5) == 0.0
    assert usual(bench) == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("resistance", [1.0, 1.7])
@pytest.mark.parametrize("sign", [1, -1])
def test_half_of_a_step_that_is_hidden_is_told_within_seconds(bench: Any, resistance: float, sign: int) -> None:
    """1.3 times the largest current, of which half is shown: beyond the fatal row for five seconds, in the first ten."""
    cells = known(bench, resistance=resistance)
    cells.gain = 0.5
    seen = cells.hidden(sign * 364.0, 14)
    assert min(seen[4:9]) > FATAL_A
    assert max(seen) < 182.0  # never more than is hidden


@pytest.mark.parametrize("n_parallel", [1, 4])
def test_what_is_hidden_is_a_current_of_the_string(make_signals: Any, n_parallel: int) -> None:
    bench = make_signals(n_parallel=n_parallel)
    cells = known(bench)
    cells.gain = 0.5
    assert max(cells.hidden(364.0, 14)) == pytest.approx(n_parallel * 145.0, rel=0.15)  # 182 less slack and doubts


@pytest.mark.parametrize(("is_known", "gain", "told"), [(True, 0.5, True), (True, 1.0, False), (False, 0.5, False)])
def test_nothing_is_hidden_before_the_resistance_is_known(bench: Any, is_known: bool, gain: float, told: bool) -> None:
    cells = known(bench) if is_known else Cells(bench)
    cells.gain = gain
    assert (max(cells.hidden(364.0, 20)) > 0.0) == told
    cells.gain = 2.0  # what reads too much hides nothing
    cells.hidden(0.0, 100)
    assert max(cells.hidden(-364.0, 60)) == 0.0


def test_voltages_that_are_sampled_a_second_later_change_little(bench: Any) -> None:
    cells = known(bench, delay=1)
    assert usual(bench) == pytest.approx(1.0, abs=0.1)
    assert max(cells.work(steps(-200.0, 60.0), 600.0)) == 0.0


def test_a_constant_current_tells_nothing(bench: Any) -> None:
    cells = Cells(bench, resistance=3.0)
    cells.soc = 0.9
    cells.work(lambda _: 0.0, 60.0)
    cells.work(lambda time_s: 200.0 + 2.0 * math.sin(time_s), 3600.0)
    assert cells.soc < 0.2
    assert bench.state.number[y.GAIN_TOLD_S] < 60.0
    assert bench.state.number[y.USUAL_S] == 0.0


@pytest.mark.parametrize(("soc", "soc_std", "told"), [
    (0.5, 0.01, True), (0.5, 0.1, True), (0.14, 0.01, False), (0.96, 0.001, False), (math.nan, 0.01, False),
    (0.7, 0.1, False), (0.34, 0.1, False), (0.5, math.nan, False),
])  # fmt: skip
def test_nothing_is_told_where_the_soc_may_be_near_an_end_of_the_curve(
    bench: Any, soc: float, soc_std: float, told: bool
) -> None:
    cells = Cells(bench)
    for k in range(100):
        cells.step(steps()(float(k)), soc=soc, soc_std=soc_std)
    assert (bench.state.number[y.GAIN_TOLD_S] > 60.0) == told


def test_changes_one_way_alone_tell_nothing(bench: Any) -> None:
    """The current of cells that become full falls for minutes, and the curve lifts their voltage."""
    cells = Cells(bench, resistance=0.3)
    assert max(cells.work(lambda time_s: -1.5 * time_s, 150.0)) == 0.0
    assert bench.state.number[y.GAIN_TOLD_S] > 100.0
    assert max(cells.work(lambda time_s: 1.5 * time_s - 450.0, 150.0)) > 0.8


def test_the_slope_of_the_curve_is_no_answer(bench: Any) -> None:
    cells = Cells(bench)
    cells.soc = 0.3
    cells.work(steps(20.0, 200.0), 900.0)
    assert usual(bench) == pytest.approx(1.0, rel=0.01)
    assert cells.of(SLOPE) * 200.0 * cells.rate * 20.0 > 0.1 * cells.of(R0) * 200.0 * 0.1


@pytest.mark.parametrize(("soc", "soc_std"), [(0.5, 0.01), (0.88, 0.05), (0.3, 0.02), (0.25, 0.08)])
def test_a_wrong_soc_makes_of_the_curve_what_it_does_elsewhere(bench: Any, soc: float, soc_std: float) -> None:
    row = 9 * N_SOC * NODE
    curve = bench.estimator.nodes[row : row + N_SOC * NODE].reshape(N_SOC, NODE)[:, OCV]
    went = 0.002

    def moved_v(at: float) -> float:
        return float(np.interp(at, GRID, curve) - np.interp(at - went, GRID, curve))

    exact = max(abs(moved_v(soc + min(k * soc_std, 0.15) * s) - moved_v(soc)) for k in (1, 2, 3) for s in (-1, 1))
    found = float(m._doubt_v(bench.estimator.nodes, row, f4(soc), f4(soc_std), f4(went)))
    assert found == pytest.approx(exact, abs=2e-6)


def test_what_was_told_fades_at_rest(bench: Any) -> None:
    """A rack that has opened for it must be able to be reset, when the sensor has been replaced."""
    cells = known(bench)
    cells.gain = 0.3
    assert cells.work(steps(), 1200.0)[-1] > 0.8
    seen = cells.work(lambda _: 0.0, 1800.0)
    assert seen[300] > 0.8
    assert seen[-1] == 0.0
    cells.gain = 1.0
    assert cells.work(steps(), 900.0)[-1] == 0.0


def judged(bench: Any, cells: Cells, current: Callable[[float], float], seconds: int) -> tuple[float, float]:
    """(CURRENT_GAIN, CURRENT_IMPLAUSIBLE), the largest of so many steps of all that is compared."""
    gain, implausible = 0.0, 0.0
    for _ in range(seconds):
        true_a = current(cells.time_s)
        bench.head["current_a"] = cells.gain * true_a
        # all that the filter does not expect is the SoC's, as far as the innovation is concerned
        bench.model_v[:] = cells.voltage(true_a, 1.0)
        bench.innovation[:] = 0.0
        bench.look()
        bench.judge()
        cells.time_s += 1.0
        gain, implausible = max(gain, bench.value(F.CURRENT_GAIN)), max(implausible, bench.value(F.CURRENT_IMPLAUSIBLE))
    return gain, implausible


def test_both_rows_are_told_whatever_the_filter_explains_away(bench: Any) -> None:
    cells = known(bench)
    assert judged(bench, cells, steps(), 200) == (0.0, 0.0)
    cells.gain = 0.5
    assert judged(bench, cells, lambda _: 364.0, 14)[1] > FATAL_A
    assert judged(bench, cells, steps(), 1000)[0] > 0.7


def test_without_a_current_or_cells_nothing_is_known_of_the_gain(bench: Any) -> None:
    cells = known(bench)
    cells.gain = 0.3
    judged(bench, cells, steps(), 100)
    held = [float(bench.state.number[k]) for k in (y.EXPECTED_V2, y.BOTH_V2, y.GAIN_TOLD_S)]
    bench.head["current_a_quality"] = Quality.MISSING
    bench.look()
    bench.judge()
    assert math.isnan(bench.value(F.CURRENT_GAIN))
    assert [float(bench.state.number[k]) for k in (y.EXPECTED_V2, y.BOTH_V2, y.GAIN_TOLD_S)] == held


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_estimate_that_is_none_is_no_jump_of_the_mean_cell(bench: Any, bad: float) -> None:
    cells = known(bench)
    for k in range(300):
        judged(bench, cells, steps(), 1)
        if k % 30 > 20:
            bench.model_v[3] = bad
            bench.judge()
        assert bench.value(F.CURRENT_GAIN) == 0.0
    assert usual(bench) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    ("share", "std", "usual_share", "least", "doubt", "wrong"),
    [
        (1.0, 0.0, 1.0, 1.0, 0.15, 0.0),
        (2.0, 0.0, 1.0, 1.0, 0.15, 0.85),
        (2.0, 0.1, 1.0, 1.0, 0.15, 0.65),
        (2.0, 0.0, 1.6, 1.6, 0.15, 0.1),
        (0.5, 0.0, 1.0, 1.0, 0.15, 0.85),
        (0.5, 0.0, 1.6, 1.0, 1.5, 0.85),  # not known: against the type, whatever is published
        (0.4, 0.05, 1.0, 1.0, 0.15, 0.85),
        (0.87, 0.0, 1.0, 1.0, 0.15, 0.0),
        (0.01, 0.0, 1.0, 1.0, 0.15, 8.85),  # no more, however little is answered
        (0.0, 0.0, 1.0, 1.0, 0.15, 0.85),  # nothing is answered: what it reads may be anything
        (-1.0, 0.0, 1.0, 1.0, 0.15, 1.85),
        (-1.0, 0.6, 1.0, 1.0, 0.15, 3.85),  # it may be 0.2
    ],
)
def test_the_error_is_the_factor_less_one(
    share: float, std: float, usual_share: float, least: float, doubt: float, wrong: float
) -> None:
    found = float(m.gain_error(f4(share), f4(std), f4(usual_share), f4(least), f4(doubt)))
    assert found == pytest.approx(wrong, abs=1e-5)


def test_the_band_and_the_regression_are_what_they_say() -> None:
    """Against float64, with steps of any length."""
    rng = np.random.default_rng(11)
    number = np.zeros(y.N_STATE_NUMBERS, np.float32)
    fast = band = 0.0
    xx = xy = yy = x4 = told = total = 0.0
    for k in range(1500):
        dt_s = float(rng.choice([0.5, 1.0, 30.0]))
        change = float(rng.normal(0.0, 0.01))
        passed = float(m._passed(number, y.EXPECTED_FAST_V, y.EXPECTED_V, f4(change), f4(dt_s)))
        total += change
        before = fast
        fast += dt_s / (3.0 + dt_s) * (total - fast)
        band = (band + fast - before) * 12.0 / (12.0 + dt_s)
        assert passed == pytest.approx(band, abs=1e-5)
        x = float(rng.normal(0.0, 2e-3 if k % 300 < 150 else 4e-2))
        answer = 1.7 * x + float(rng.normal(0.0, 2e-3))
        weight_s = min(dt_s, 10.0)
        m._add(number, f4(answer), f4(x), f4(weight_s))
        answer = float(np.clip(answer, -4 * abs(x), 4 * abs(x)))
        gain = weight_s / (told + weight_s)
        told = min(told + weight_s, 200.0)
        xx += gain * (x * x - xx)
        xy += gain * (x * answer - xy)
        yy += gain * (answer * answer - yy)
        x4 += gain * (x**4 - x4)
        share, std = m._share(number)
        n = max(min(3.0 * xx * xx / x4, 1.0) * told / 15.0, 1.0)
        assert float(share) == pytest.approx(xy / xx, rel=1e-3)
        assert float(std) == pytest.approx(math.sqrt(max(yy * xx - xy * xy, 0.0) / n) / xx, rel=2e-2, abs=2e-3)
