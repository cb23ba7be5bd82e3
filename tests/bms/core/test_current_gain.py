"""A current sensor of the wrong gain, told by what the mean cell answers to a change of the measured current."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
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
FATAL_A = 0.35 * 280.0  # of CURRENT_IMPLAUSIBLE


class Cells:
    """The cells of a bench, in float64: `resistance` times that of their type, behind a sensor that reads `gain` times.

    `work(current, seconds)` lets a current flow, of a cell, as a function of time; `delay` is how many steps later the
    voltages are sampled.
    """

    def __init__(self, bench: Any, resistance: float = 1.0, degc: float = 25.0, delay: int = 0) -> None:
        self.bench, self.resistance, self.degc, self.gain = bench, resistance, degc, 1.0
        bench.m.sensor_degc[:] = degc
        k1 = bench.estimator.scalars[0]
        self.tau_s, self.bend_a, self.rate = (float(k1.tau1_s), float(k1.tau2_s)), float(k1.bend_a), float(k1.rate)
        self.axis = float(k1.degc_first) + np.arange(N_DEGC) / float(k1.nodes_per_kelvin)
        self.nodes = np.asarray(bench.estimator.nodes, np.float64).reshape(N_DEGC, N_SOC, NODE)
        self.rc_a = [0.0, 0.0]
        self.soc, self.time_s = 0.5, 0.0
        self.lag = [3.3] * delay

    def of(self, column: int) -> float:
        at_degc = [float(np.interp(self.soc, np.linspace(0, 1, N_SOC), row)) for row in self.nodes[:, :, column]]
        return float(np.interp(self.degc, self.axis, at_degc))

    def voltage(self, true_a: float, dt_s: float) -> float:
        self.soc -= true_a * self.rate * dt_s
        for k, tau_s in enumerate(self.tau_s):
            self.rc_a[k] += dt_s / (tau_s + dt_s) * (true_a - self.rc_a[k])
        drop_v = self.of(R0) * true_a + self.of(RCT) * self.bend_a * math.asinh(true_a / self.bend_a)
        drop_v += self.of(R1) * self.rc_a[0] + self.of(R2) * self.rc_a[1]
        self.lag.append(self.of(OCV) - self.resistance * drop_v)
        return self.lag.pop(0)

    def work(self, current: Callable[[float], float], seconds: float, dt_s: float = 1.0) -> list[tuple[float, float]]:
        """(CURRENT_GAIN, CURRENT_IMPLAUSIBLE) of each step."""
        bench, seen = self.bench, []
        for _ in range(round(seconds / dt_s)):
            true_a = current(self.time_s)
            bench.head["current_a"] = self.gain * true_a * bench.info.n_parallel
            bench.innovation[:] = self.voltage(true_a, dt_s) - 3.3
            bench.soc[:] = self.soc
            bench.look(dt_s)
            bench.judge(dt_s)
            seen.append((bench.value(F.CURRENT_GAIN), bench.value(F.CURRENT_IMPLAUSIBLE)))
            self.time_s += dt_s
        return seen


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
    assert max(gain for gain, _ in cells.work(steps(-60.0, 200.0), 600.0)) == 0.0


@pytest.mark.parametrize("n_parallel", [1, 4])
@pytest.mark.parametrize("resistance", [1.0, 1.5])
@pytest.mark.parametrize(("gain", "off"), [(0.3, 7 / 3), (0.45, 11 / 9), (0.6, 2 / 3), (1.6, 0.6), (2.2, 1.2), (-1, 2), (-0.5, 3)])
def test_a_wrong_gain_is_told_once_the_resistance_is_known(
    make_signals: Any, gain: float, off: float, resistance: float, n_parallel: int
) -> None:
    bench = make_signals(n_parallel=n_parallel)
    cells = known(bench, resistance=resistance)
    cells.gain = gain
    assert cells.work(steps(), 1500.0)[-1][0] == pytest.approx(off - SLACK, rel=0.03, abs=0.02)


def test_what_a_wrong_sensor_makes_of_the_resistance_does_not_become_usual(bench: Any) -> None:
    cells = known(bench)
    for gain in (0.45, 2.2):
        cells.gain = gain
        cells.work(steps(), 3600.0)
        assert usual(bench) == pytest.approx(1.0, rel=0.03)
        cells.gain = 1.0
        assert cells.work(steps(), 1500.0)[-1][0] == 0.0


def test_resistances_that_change_slowly_are_usual(bench: Any) -> None:
    """As behind temperatures that err: by a third within ten hours."""
    cells = known(bench)
    for k in range(40):
        cells.resistance = 1.0 + k / 120.0
        assert max(gain for gain, _ in cells.work(steps(), 900.0, dt_s=2.0)) == 0.0
        cells.soc = 0.5


@pytest.mark.parametrize(("gain", "resistance"), [(1.0, 2.4), (0.45, 1.0), (0.7, 1.6), (1.0, 0.9)])
def test_before_it_is_known_the_resistance_explains_as_much_as_it_may_be(
    bench: Any, gain: float, resistance: float
) -> None:
    cells = Cells(bench, resistance)
    cells.gain = gain
    assert max(gain for gain, _ in cells.work(steps(), 600.0)) == 0.0


@pytest.mark.parametrize(("gain", "off"), [(1.6, 0.6), (2.2, 1.2), (-1.0, 2.0), (0.2, 4.0 - 1.5 + SLACK)])
def test_but_it_is_hardly_less_than_its_types(bench: Any, gain: float, off: float) -> None:
    """A sensor that read too much, or in reverse, or next to nothing, before the controller began."""
    cells = Cells(bench)
    cells.gain = gain
    if gain == 0.2:
        off = 5.0 - 1.0 - 1.5 + SLACK  # what it may be more is taken off, and not the slack
        cells.bench.resistance_std[:] = 0.12
        cells.work(steps(), 600.0)
        off = min(off, m._MOST_ANSWER - 1.0 - 1.5 + SLACK)  # of a sample no more than four times counts
        assert bench.value(F.CURRENT_GAIN) == pytest.approx(off - SLACK, rel=0.05)
        return
    assert cells.work(steps(), 600.0)[-1][0] == pytest.approx(off - SLACK, rel=0.03)


@pytest.mark.parametrize("resistance", [1.0, 1.7])
@pytest.mark.parametrize("sign", [1, -1])
def test_half_of_a_step_that_is_hidden_is_told_within_seconds(bench: Any, resistance: float, sign: int) -> None:
    """1.3 times the largest current, of which half is shown: beyond the fatal row for five seconds, in the first ten."""
    cells = known(bench, resistance=resistance)
    cells.gain = 0.5
    seen = [implausible for _, implausible in cells.work(lambda _: sign * 364.0, 14.0)]
    assert min(seen[4:9]) > FATAL_A
    assert max(seen) < 182.0  # never more than is hidden


@pytest.mark.parametrize("resistance", [1.0, 2.0])
def test_a_step_that_is_shown_hides_nothing(bench: Any, resistance: float) -> None:
    cells = known(bench, resistance=resistance)
    cells.bench.innovation[:] = 0.0
    number = bench.state.number
    for current_a in (364.0, -280.0, 280.0, 0.0):
        for _ in range(30):
            cells.work(lambda _, a=current_a: a, 1.0)  # type: ignore[misc]
            answered_v, expected_v = float(number[y.SEEN_V]), float(number[y.EXPECTED_V])
            assert abs(answered_v) <= (1.0 + SLACK) * resistance * abs(expected_v) + 1e-3


def hidden_a(bench: Any, cells: Cells, current: Callable[[float], float], seconds: int) -> Iterable[float]:
    """What the kernel alone says of a step, beside what the common innovation asks for."""
    config, state = bench.config, bench.state
    for _ in range(seconds):
        true_a = current(cells.time_s)
        volt = cells.voltage(true_a, 1.0)
        cells.time_s += 1.0
        yield float(
            m.current_gain(
                config, state, bench.estimator, 0, f4(cells.degc), f4(cells.gain * true_a), f4(volt), f4(cells.soc),
                f4(0.01), f4(1.0), f4(1.5), f4(1.0),
            )[1]
        )  # fmt: skip


@pytest.mark.parametrize(("is_known", "gain", "told"), [(True, 0.5, True), (True, 1.0, False), (False, 0.5, False)])
def test_nothing_is_hidden_before_the_resistance_is_known(bench: Any, is_known: bool, gain: float, told: bool) -> None:
    cells = known(bench) if is_known else Cells(bench)
    cells.gain = gain
    assert (max(hidden_a(bench, cells, lambda _: 364.0, 20)) > FATAL_A) == told
    cells.gain = 2.0  # what reads too much hides nothing
    assert max(hidden_a(bench, cells, lambda _: -364.0, 60)) == 0.0


def test_voltages_that_are_sampled_a_second_later_change_little(bench: Any) -> None:
    cells = known(bench, delay=1)
    assert usual(bench) == pytest.approx(1.0, abs=0.1)
    assert max(gain for gain, _ in cells.work(steps(-200.0, 60.0), 600.0)) == 0.0


def test_a_constant_current_tells_nothing(bench: Any) -> None:
    cells = Cells(bench, resistance=3.0)
    cells.work(lambda _: 0.0, 60.0)
    cells.work(lambda time_s: 200.0 + 3.0 * math.sin(time_s), 3600.0)
    told = float(bench.state.number[y.GAIN_TOLD_S])
    assert told < 60.0
    assert bench.value(F.CURRENT_GAIN) == 0.0


@pytest.mark.parametrize("soc", [0.05, 0.97, math.nan])
def test_nothing_is_told_near_the_ends_of_the_curve(bench: Any, soc: float) -> None:
    cells = Cells(bench)
    number = bench.state.number
    for k in range(100):
        current_a = steps()(float(k))
        m.current_gain(
            bench.config, bench.state, bench.estimator, 0, f4(25.0), f4(current_a), f4(cells.voltage(current_a, 1.0)),
            f4(soc), f4(0.01), f4(1.0), f4(1.5), f4(1.0),
        )  # fmt: skip
        assert number[y.GAIN_TOLD_S] == 0.0


def test_where_the_soc_is_not_known_a_curve_that_bends_tells_nothing(bench: Any) -> None:
    """Under a current that falls slowly while the mean cell comes to the steep end of its curve."""
    nodes = bench.estimator.nodes
    went = f4(0.002)
    row = 9 * N_SOC * NODE
    flat_v = float(m._doubt_v(nodes, row, f4(0.5), f4(0.01), went))
    steep_v = float(m._doubt_v(nodes, row, f4(0.88), f4(0.05), went))
    assert flat_v < 1e-4
    assert steep_v > 10.0 * flat_v
    exact = max(
        abs(
            np.interp(0.88 + off, np.linspace(0, 1, N_SOC), nodes[row + OCV : row + N_SOC * NODE : NODE])
            - np.interp(0.878 + off, np.linspace(0, 1, N_SOC), nodes[row + OCV : row + N_SOC * NODE : NODE])
            - np.interp(0.88, np.linspace(0, 1, N_SOC), nodes[row + OCV : row + N_SOC * NODE : NODE])
            + np.interp(0.878, np.linspace(0, 1, N_SOC), nodes[row + OCV : row + N_SOC * NODE : NODE])
        )
        for off in (-0.15, -0.1, -0.05, 0.05, 0.1, 0.15)
    )
    assert steep_v == pytest.approx(exact, abs=2e-6)


def test_what_was_told_fades_at_rest(bench: Any) -> None:
    """A rack that has opened for it must be able to be reset, when the sensor has been replaced."""
    cells = known(bench)
    cells.gain = 0.3
    assert cells.work(steps(), 1200.0)[-1][0] > 0.8
    seen = [gain for gain, _ in cells.work(lambda _: 0.0, 1800.0)]
    assert seen[300] > 0.8
    assert seen[-1] == 0.0
    cells.gain = 1.0
    assert cells.work(steps(), 900.0)[-1][0] == 0.0


def test_without_a_current_or_cells_nothing_is_known_of_the_gain(bench: Any) -> None:
    cells = known(bench)
    cells.gain = 0.3
    cells.work(steps(), 600.0)
    held = [float(bench.state.number[k]) for k in (y.EXPECTED_V2, y.BOTH_V2, y.GAIN_TOLD_S)]
    bench.head["current_a_quality"] = Quality.MISSING
    bench.look()
    bench.judge()
    assert math.isnan(bench.value(F.CURRENT_GAIN))
    assert [float(bench.state.number[k]) for k in (y.EXPECTED_V2, y.BOTH_V2, y.GAIN_TOLD_S)] == held


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_estimate_that_is_none_is_no_jump_of_the_mean_cell(bench: Any, bad: float) -> None:
    cells = known(bench)
    for _ in range(20):
        bench.model_v[3] = bad
        cells.work(steps(), 30.0)
        bench.model_v[3] = 3.3
        assert max(gain for gain, _ in cells.work(steps(), 30.0)) == 0.0
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
        (-1.0, 0.0, 1.0, 1.0, 0.15, 1.85),
        (-1.0, 0.6, 1.0, 1.0, 0.15, 4.0 - SLACK + 0.15 if False else 1.0 / 0.2 - 1.0 - SLACK),
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


def test_the_slope_of_the_curve_is_no_answer(bench: Any) -> None:
    """The table has it, and what moves along it is taken off."""
    cells = Cells(bench)
    assert cells.of(SLOPE) > 0.0
    cells.soc = 0.3
    cells.work(steps(20.0, 200.0), 900.0)
    assert usual(bench) == pytest.approx(1.0, rel=0.01)
