"""The gain of the current sensor in double precision, as its description says it, and the bounds of each of its parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import current_gain as m
from bms.core import signals_layout as y
from bms.core.estimator_layout import N_DEGC, N_SOC, NODE, OCV, R0, R1, R2, RCT, SLOPE
from bms.core.plausibility_model import row_of

f4 = np.float32
GRID = np.linspace(0.0, 1.0, N_SOC)


class Band:
    """What is faster than 12 s and slower than 3 s of the sum of changes."""

    def __init__(self) -> None:
        self.total = self.fast = self.band = 0.0

    def add(self, change: float, dt_s: float) -> float:
        self.total += change
        before = self.fast
        self.fast += dt_s / (3.0 + dt_s) * (self.total - self.fast)
        self.band = (self.band + self.fast - before) * 12.0 / (12.0 + dt_s)
        return self.band


class Reference:
    """`current_gain` in float64."""

    def __init__(self, bench: Any) -> None:
        self.k1 = bench.estimator.scalars[0]
        self.table = np.asarray(bench.estimator.nodes, float).reshape(N_DEGC, N_SOC, NODE)
        self.n_parallel = bench.info.n_parallel
        self.bands = Band(), Band(), Band()
        self.volt: float | None = None
        self.last_a = self.went = self.told_s = self.wrong = self.usual = self.usual_s = self.rising = 0.0
        self.rc_a = [0.0, 0.0]
        self.xx = self.xy = self.yy = self.x4 = 0.0

    def parameter(self, column: int, soc: float, degc: float) -> float:
        """At the nearest node of SoC, linear in temperature."""
        axis = float(self.k1.degc_first) + np.arange(N_DEGC) / float(self.k1.nodes_per_kelvin)
        node = math.floor(min(max(soc, 0.0), 1.0) * (N_SOC - 1) + 0.5)
        return float(np.interp(degc, axis, self.table[:, node, column]))

    def fast_ohm(self, soc: float, degc: float) -> float:
        return sum(self.parameter(column, soc, degc) for column in (R0, RCT, R1))

    def doubt_v(self, row: int, soc: float, std: float) -> float:
        curve = self.table[row, :, OCV]

        def moved_v(at: float) -> float:
            return float(np.interp(at, GRID, curve) - np.interp(at - self.went, GRID, curve))

        offs = [sign * min(k * std, 0.15) for k in (1, 2, 3) for sign in (-1, 1)]
        return max(abs(moved_v(soc + off) - moved_v(soc)) for off in offs)

    def changes(self, a: float, mean_v: float, soc: float, degc: float, went: float, dt_s: float) -> tuple[float, ...]:
        answered = expected = curve = 0.0
        if self.volt is not None:
            bend_a = float(self.k1.bend_a)
            drop_v = self.parameter(R0, soc, degc) * (a - self.last_a)
            drop_v += (
                self.parameter(RCT, soc, degc) * bend_a * (math.asinh(a / bend_a) - math.asinh(self.last_a / bend_a))
            )
            for k, (tau_s, column) in enumerate(((float(self.k1.tau1_s), R1), (float(self.k1.tau2_s), R2))):
                before = self.rc_a[k]
                self.rc_a[k] += dt_s / (tau_s + dt_s) * (a - before)
                drop_v += self.parameter(column, soc, degc) * (self.rc_a[k] - before)
            expected = -drop_v
            curve = self.parameter(SLOPE, soc, degc) * went
            answered = mean_v - self.volt - curve
        self.volt, self.last_a = mean_v, a
        return tuple(band.add(x, dt_s) for band, x in zip(self.bands, (answered, expected, curve), strict=True))

    def judge(self, factor: float, doubt: float, step_s: float) -> None:
        if self.told_s < 60.0 or not 0.2 < self.rising < 0.8:
            return
        n = max(min(3.0 * self.xx**2 / self.x4, 1.0) * self.told_s / 15.0, 1.0)
        share = self.xy / self.xx
        std = math.sqrt(max(self.yy * self.xx - self.xy**2, 0.0) / n) / self.xx
        known = self.usual_s >= 600.0
        usual, least, doubt = (self.usual, self.usual, 0.15) if known else (factor, 1.0, doubt)
        self.wrong = max((share - 2 * std) / usual - 1 - doubt, 0.0)
        low = (share + 2 * std) / least
        if low < 1.0:
            self.wrong = max(self.wrong, (1 / max(low, 0.1) - 1 if low > 0 else 1 - low) - 0.15)
        if self.wrong == 0.0:
            gain = step_s / (self.usual_s + step_s)
            if known and abs(share / self.usual - 1) > 0.08:
                gain /= 10.0
            self.usual_s = min(self.usual_s + step_s, 21600.0)
            self.usual += gain * (share - self.usual)

    def step(self, row: int, numbers: list[float], dt_s: float) -> tuple[float, float]:
        """(error of the gain, current that is hidden, A); `numbers` as the kernel has them, from `degc` on."""
        degc, current_a, mean_v, soc, std, factor, doubt = numbers
        a = current_a / self.n_parallel
        if not (math.isfinite(mean_v) and math.isfinite(degc) and math.isfinite(soc) and std >= 0.0):
            self.volt = None
            return self.wrong, 0.0
        went = -a * float(self.k1.rate) * dt_s
        self.went = (self.went + went) * 12.0 / (12.0 + dt_s)
        answered, expected, curve = self.changes(a, mean_v, soc, degc, went, dt_s)
        doubt_v = 1e-3 + 4.0 * (self.doubt_v(row, soc, std) + 0.25 * abs(curve))
        ohm = self.fast_ohm(soc, degc)
        off = max(abs(self.fast_ohm(soc + s * 2 * std, degc) - ohm) for s in (-1, 1))
        inside = 0.15 < soc < 0.95 and soc - 3 * std > 0.05 and soc + 3 * std < 0.97
        limited = min(max(answered, -4 * abs(expected)), 4 * abs(expected))
        if not (inside and off < 0.2 * ohm and max(abs(expected), abs(limited)) > doubt_v):
            self.told_s *= 600.0 / (600.0 + dt_s)
            if self.told_s < 60.0:
                self.wrong = 0.0
            return self.wrong, 0.0
        step_s = min(dt_s, 10.0)
        gain = step_s / (self.told_s + step_s)
        self.told_s = min(self.told_s + step_s, 200.0)
        self.rising += gain * ((expected > 0.0) - self.rising)
        self.xx += gain * (expected**2 - self.xx)
        self.x4 += gain * (expected**4 - self.x4)
        self.xy += gain * (expected * limited - self.xy)
        self.yy += gain * (limited**2 - self.yy)
        self.judge(factor, doubt, step_s)
        hidden_v = 0.0
        if self.usual_s >= 600.0 and answered * expected > 0.0:
            hidden_v = max(abs(answered) - 1.15 * self.usual * abs(expected) - doubt_v, 0.0) / (0.63 * self.usual)
        return self.wrong, hidden_v / ohm * self.n_parallel


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_the_description_says(make_signals: Any, seed: int) -> None:
    """A current that jumps, behind a gain that does; noise of voltages, steps of any length, an SoC that wanders."""
    rng = np.random.default_rng(seed)
    bench = make_signals(n_parallel=1 + seed % 2)
    reference, number = Reference(bench), bench.state.number
    soc, current_a, gain, std, degc = 0.5, 0.0, 1.0, 0.01, 25.0
    open_v, told, hides = 3.3, 0, 0
    for k in range(500):
        dt_s = float(rng.choice([0.5, 1.0, 2.0, 5.0, 10.0, 30.0] if k < 250 else [0.5, 1.0, 2.0]))
        if rng.random() < 0.4:
            current_a = rng.uniform(-250, 250)
        if k % 60 == 0:
            degc, std = rng.uniform(5.0, 40.0), rng.choice([0.002, 0.01, 0.05])
            soc = rng.uniform(0.1, 0.96) if k % 120 else 0.5
            gain = 1.0 if k < 250 else rng.choice([0.3, 0.6, 1.8, -1.0])
        soc -= current_a * reference.k1.rate * dt_s
        # what the cells answer is that of their type less the slow pairs, and noise; the reference tells what is due
        drop_v = reference.fast_ohm(soc, degc) * current_a * (1.2 if seed > 2 else 1.0)
        volt = f4(open_v - drop_v + rng.normal(0.0, 1e-3))
        mean_v = f4(np.nan) if rng.random() < 0.01 else volt
        row = int(row_of(bench.estimator, f4(degc)))
        numbers = (f4(degc), f4(gain * current_a * bench.info.n_parallel), mean_v, f4(soc), f4(std), f4(1.3), f4(1.0))
        wrong, hidden_a = m.current_gain(bench.config, bench.state, bench.estimator, row, *numbers, f4(dt_s))
        expected, expected_a = reference.step(row // (N_SOC * NODE), [float(x) for x in numbers], dt_s)
        assert float(number[y.GAIN_TOLD_S]) == pytest.approx(reference.told_s, rel=1e-4), k
        assert float(number[y.GAIN_RISING]) == pytest.approx(reference.rising, abs=1e-4), k
        assert float(number[y.USUAL_S]) == pytest.approx(reference.usual_s, rel=1e-4), k
        assert float(number[y.GAIN_WENT_SOC]) == pytest.approx(reference.went, rel=1e-3, abs=1e-7), k
        assert float(number[y.USUAL_SHARE]) == pytest.approx(reference.usual, rel=1e-3), k
        assert float(wrong) == pytest.approx(expected, abs=3e-3, rel=1e-3), k
        assert float(hidden_a) == pytest.approx(expected_a, abs=0.05, rel=1e-3), k
        told += expected > 0.0
        hides += expected_a > 0.0
    assert told + hides > 30


# each part at its bounds


def number_of(**values: float) -> Any:
    """The memory with `values` by name."""
    number = np.zeros(y.N_STATE_NUMBERS, f4)
    for name, value in values.items():
        number[getattr(y, name)] = value
    return number


def remembered(**values: float) -> Any:
    """A memory of cells that answer 2.5 times what is expected, to changes up and down."""
    moments = {"EXPECTED_V2": 1e-4, "BOTH_V2": 2.5e-4, "SEEN_V2": 6.25e-4, "EXPECTED_V4": 1e-8}
    return number_of(
        **{"GAIN_TOLD_S": 200.0, "GAIN_RISING": 0.5, "USUAL_S": 600.0, "USUAL_SHARE": 1.0, **moments, **values}
    )


def told(number: Any) -> float:
    m._judge(number, f4(1.2), f4(1.0), f4(1.0))
    return float(number[y.GAIN_WRONG])


def test_a_minute_of_changes_tells() -> None:
    assert told(remembered(GAIN_TOLD_S=59.99)) == 0.0
    assert told(remembered(GAIN_TOLD_S=60.0)) == pytest.approx(2.5 - 1 - 0.15)


def test_more_than_a_fifth_must_rise_and_fall() -> None:
    for rising, tells in ((0.2, False), (0.2001, True), (0.7999, True), (0.8, False)):
        assert (told(remembered(GAIN_RISING=rising)) > 0.0) == tells, rising


def test_what_is_usual_is_known_after_ten_minutes() -> None:
    assert told(remembered(USUAL_S=599.9)) == pytest.approx(2.5 / 1.2 - 1 - 1.0, abs=1e-5)
    assert told(remembered(USUAL_S=600.0)) == pytest.approx(2.5 - 1 - 0.15)


@pytest.mark.parametrize(
    ("std", "told_s", "x4"), [(0.3, 150.0, 1.0), (0.3, 150.0, 3.0), (0.3, 150.0, 12.0), (0.3, 5.0, 1.0)]
)
def test_so_many_samples_are_independent(std: float, told_s: float, x4: float) -> None:
    """One in 15 s; a quarter of that where the fourth moment is four times that of normal samples; never below one."""
    number = remembered(GAIN_TOLD_S=told_s, EXPECTED_V4=x4 * 1e-8, SEEN_V2=1e-4 * (2.5**2 + std**2))
    share, found = m._share(number)
    assert float(share) == pytest.approx(2.5, rel=1e-5)
    assert float(found) == pytest.approx(std / math.sqrt(max(told_s / 15.0 * min(3.0 / x4, 1.0), 1.0)), rel=1e-3)


def test_rounding_makes_no_deviation_imaginary() -> None:
    assert m._share(remembered(SEEN_V2=6.2e-4))[1] == 0.0


@pytest.mark.parametrize(
    ("usual_s", "share", "gain"),
    [(100.0, 2.0, 10.0 / 110.0), (599.0, 2.0, 10.0 / 609.0), (600.0, 2.0, 1.0 / 610.0), (600.0, 1.0 - 0.081, 1.0 / 610.0),
     (600.0, 1.079, 10.0 / 610.0), (21600.0, 1.01, 10.0 / 21610.0)],
)  # fmt: skip
def test_what_is_usual_follows(usual_s: float, share: float, gain: float) -> None:
    number = number_of(USUAL_S=usual_s, USUAL_SHARE=1.0)
    m._learn(number, f4(share), f4(10.0))
    assert float(number[y.USUAL_SHARE]) == pytest.approx(1.0 + gain * (share - 1.0), rel=1e-6)
    assert number[y.USUAL_S] == min(usual_s + 10.0, 21600.0)


def test_what_is_just_near_what_is_usual_is_followed_quickly() -> None:
    for k in range(100):  # until the difference of both is the bound to the last bit
        usual = f4(2.0 + k * 1e-3)
        share = usual + f4(0.08) * usual
        if share - usual == f4(0.08) * usual:
            break
    number = number_of(USUAL_S=600.0, USUAL_SHARE=float(usual))
    m._learn(number, share, f4(10.0))
    assert float(number[y.USUAL_SHARE] - usual) == pytest.approx(0.08 * usual * 10.0 / 610.0, rel=1e-3)


def test_nothing_is_hidden_where_nothing_is_expected_or_known() -> None:
    known = number_of(USUAL_S=600.0, USUAL_SHARE=1.0)
    assert m._hidden_v(known, f4(0.1), f4(0.02), f4(0.01)) == pytest.approx((0.1 - 1.15 * 0.02 - 0.01) / 0.63)
    assert m._hidden_v(known, f4(0.1), f4(0.0), f4(0.01)) == 0.0
    assert m._hidden_v(known, f4(0.1), f4(-0.02), f4(0.01)) == 0.0
    assert m._hidden_v(number_of(USUAL_S=599.9, USUAL_SHARE=1.0), f4(0.1), f4(0.02), f4(0.01)) == 0.0


class Samples:
    """Changes of the current by 200 A, each of them clear, of a mean cell wherever it is told to be."""

    def __init__(self, bench: Any) -> None:
        self.bench, self.number, self.estimator = bench, bench.state.number, bench.estimator
        self.step(0.0)
        self.step(200.0)

    def step(self, current_a: float, dt_s: float = 1.0, **other: float) -> float:
        """How much longer the changes tell than before."""
        before_s = self.number[y.GAIN_TOLD_S].copy()
        at = {"degc": 25.0, "mean_v": 3.3 - 4e-4 * current_a, "soc": 0.5, "std": 0.0, **other}
        degc, mean_v, soc, std = (f4(at[name]) for name in ("degc", "mean_v", "soc", "std"))
        row = int(row_of(self.bench.estimator, f4(25.0)))
        m.current_gain(
            self.bench.config, self.bench.state, self.estimator, row, degc, f4(current_a), mean_v, soc, std,
            f4(1.0), f4(1.0), f4(dt_s),
        )  # fmt: skip
        return float(self.number[y.GAIN_TOLD_S] - before_s)


@pytest.fixture
def samples(bench: Any) -> Samples:
    return Samples(bench)


def test_a_sample_counts_its_time_and_ten_seconds_at_most(samples: Samples) -> None:
    assert samples.step(0.0) == 1.0
    assert samples.step(200.0, 4.0) == 4.0
    assert samples.step(0.0, 60.0) == 10.0


@pytest.mark.parametrize("name", ["degc", "mean_v", "soc", "std"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_sample_and_the_next_one_begins_anew(samples: Samples, name: str, bad: float) -> None:
    before = samples.number.copy()
    samples.step(-200.0, **{name: bad})
    changed = set(np.flatnonzero(before != samples.number))
    if (name, bad) != ("std", math.inf):  # so far off is only unclear
        assert changed == {y.GAIN_V}
    samples.step(-200.0)
    assert np.isfinite(samples.number).all()


def test_the_ends_of_the_curve_begin_at_a_bound(samples: Samples) -> None:
    far = f4(3) * f4(0.04)
    bounds = {(f4(0.15), 0.0): f4(1), (f4(0.95), 0.0): f4(0), (f4(0.97) - far, 0.04): f4(0)}
    assert list(bounds)[-1][0] + far == f4(0.97)
    a = 200.0
    for (soc, std), inwards in bounds.items():
        a = -a
        assert samples.step(a, soc=float(soc), std=std) < 0.0, (soc, std)
        a = -a
        assert samples.step(a, soc=float(np.nextafter(soc, inwards)), std=std) > 0.0, (soc, std)
    assert samples.step(-a, soc=0.1699, std=0.04) < 0.0
    assert samples.step(a, soc=0.1701, std=0.04) > 0.0


@pytest.mark.parametrize("beside", [-0.08, 0.08])
def test_where_the_resistance_may_be_another_one_nothing_is_told(samples: Samples, beside: float) -> None:
    """By a fifth, within two deviations of the SoC on either side of it."""
    nodes = samples.bench.estimator.nodes.copy()
    table = nodes.reshape(N_DEGC, N_SOC, NODE)
    samples.estimator = samples.bench.estimator._replace(nodes=nodes)
    here, there = 100, round((0.5 + beside) * (N_SOC - 1))
    ohm = table[:, here, R0] + table[:, here, RCT] + table[:, here, R1]
    for share, tells in ((-0.21, False), (-0.19, True), (0.19, True), (0.21, False)):
        table[:, there, R0] = (1.0 + share) * ohm - table[:, there, RCT] - table[:, there, R1]
        for current_a in (0.0, 200.0):
            assert (samples.step(current_a, std=0.04) > 0.0) == tells, share


def test_what_was_told_is_kept_while_a_minute_is_left_of_it(samples: Samples) -> None:
    for told_s, kept in ((60.0, 0.5), (59.9, 0.0)):
        samples.number[[y.GAIN_TOLD_S, y.GAIN_WRONG]] = told_s, 0.5
        samples.step(200.0, 0.0, soc=0.1)
        assert samples.number[y.GAIN_WRONG] == kept
