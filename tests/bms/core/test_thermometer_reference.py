"""Cells as thermometers in double precision, as their description says it, and the bounds of each part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core import thermometer as t
from bms.core.faults import Fault
from bms.core.thermometer_setup import ThermometerSettings, thermometer_config, thermometer_state
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
N = 24


class Reference:
    """The thermometer of a bench in float64, one cell after the other."""

    def __init__(self, bench: Any, settings: ThermometerSettings) -> None:
        self.bench, self.c = bench, settings
        self.slow_a = math.nan
        self.last_a = self.last_v = self.slow_v = self.known_s = 0.0
        self.a2s = self.vas = self.v2s = self.sum_s = 0.0
        self.one_by_one = False
        self.apart, self.answer, self.usual, self.noise_v2s, self.since_s = (np.zeros(N) for _ in range(5))
        self.use = [0] * N

    def step(self, soc: Any, model_v: Any, factor: float, dt: float) -> tuple[float, int]:
        """(how much hotter a cell is, K; its number); nowhere if there is none, NaN if nothing is known."""
        b, c = self.bench, self.bench.config.number
        a, mean_v = float(b.seen.current_a), float(b.seen.cell_v_mean)
        if math.isnan(a) or math.isnan(mean_v):
            self.slow_a = math.nan
            return math.nan, -1
        if math.isnan(self.slow_a):
            self.last_v = self.slow_v = mean_v
            self.slow_a = self.last_a = a
            self.one_by_one = True
            self.since_s[:] = 0.0
        k_per = float(c[y.OHM_PER_KELVIN])
        warm = math.exp(k_per * (25.0 - float(b.seen.degc_mean)))
        ohm = float(c[y.FAST_OHM] * c[y.PER_CELL]) * factor * warm
        self.learn(a, mean_v, ohm, np.asarray(soc, float), np.asarray(model_v, float), dt)
        return self.hottest(ohm, k_per, dt)

    def learn(self, a: float, mean_v: float, ohm: float, soc: Any, model_v: Any, dt: float) -> None:
        b, c = self.bench, self.c
        volts = b.state.cell_v.astype(float)
        uses = [int(u) & (y.USABLE | y.CALM) for u in b.state.cell_use]
        change_a = a - self.slow_a
        most_v = 0.01 + 4.0 * ohm * abs(change_a)
        changed = uses != self.use or bool((abs(volts - mean_v - self.apart) > most_v).any())
        if changed:
            self.slow_v += mean_v - self.last_v
        moved_v = mean_v - self.slow_v
        keep, gain = c.memory_s / (c.memory_s + dt), dt / (c.slow_s + dt)
        astray = volts - model_v - (volts - model_v).mean()
        straight = ((soc > c.soc_low) & (soc < c.soc_high)).all()
        straight = straight and not (abs(astray) > 0.03 + ohm * abs(a)).any()  # none is where one was never read
        added = dt * change_a if straight else 0.0
        jumped = abs(a - self.last_a) > 0.1 * float(b.config.number[y.DISCHARGE_RATED_A])
        still_v = float(b.value(F.CELL_VOLTAGE_FROZEN))
        each = changed or self.one_by_one or still_v > 10 * c.noise_v
        self.one_by_one = False
        for k in range(N):
            away_v = volts[k] - mean_v
            change_v = away_v - self.apart[k]
            settled = True
            if each:
                use = 0 if abs(mean_v - float(b.state.cell_mean_v[k])) > 10 * c.noise_v else uses[k]
                if use != self.use[k] or abs(change_v) > most_v:
                    self.use[k], self.since_s[k] = use, 0.0
                usable = use & y.USABLE != 0
                settled = usable and self.since_s[k] > 0.0 and (self.since_s[k] >= 10.0 or jumped)
                if settled:
                    self.since_s[k] = 10.0
                else:
                    expected_v = self.share(k) * moved_v
                    if usable:
                        self.apart[k] += dt / (self.since_s[k] + dt) * (change_v - expected_v)
                        self.since_s[k] += dt
                    change_v = expected_v
                    self.one_by_one = True
            if settled:
                self.apart[k] += gain * change_v
            self.answer[k] = keep * (self.answer[k] + added * change_v)
            self.noise_v2s[k] = keep * (self.noise_v2s[k] + dt * change_v**2)
        self.a2s = keep * (self.a2s + added * change_a)
        self.vas = keep * (self.vas + added * moved_v)
        self.v2s = keep * (self.v2s + dt * moved_v**2)
        self.sum_s = keep * (self.sum_s + dt)
        self.slow_v += gain * moved_v
        self.slow_a += gain * change_a
        self.last_a, self.last_v = a, mean_v

    def share(self, k: int) -> float:
        """What cell `k` answers more than the mean one, as far as it stands out of the noise."""
        noise_v2s = max(self.noise_v2s[k], self.c.noise_v**2 * self.sum_s)
        known = self.vas**2 * self.sum_s + 36.0 * noise_v2s * self.a2s
        return float(self.answer[k]) * self.vas * self.sum_s / known if known > 0.0 else 0.0

    def hottest(self, ohm: float, k_per: float, dt: float) -> tuple[float, int]:
        b, c = self.bench, self.c
        if not 0.85 * ohm * self.a2s < -self.vas < 4.0 * ohm * self.a2s:
            return math.nan, -1
        per_v = 6.0 * math.sqrt(self.a2s) / abs(self.vas)
        if not per_v * c.noise_v < 0.5:
            return math.nan, -1
        first, slow = self.known_s < 120.0, dt / (c.usual_s + dt)
        if first:
            self.known_s += max(dt, 1e-3)
            slow = dt / self.known_s
        differs = self.answer / self.vas
        self.usual += slow * (differs - self.usual)
        found: list[tuple[float, int]] = []
        for k in range(N):
            usual = max(1.0 + self.usual[k], 0.5)
            less = differs[k] - self.usual[k]
            noise_v2 = (self.noise_v2s[k] - differs[k] ** 2 * self.v2s) / self.sum_s
            unsure = per_v * math.sqrt(max(noise_v2, c.noise_v**2))
            if first or less >= -0.1 or not self.use[k] & y.USABLE or unsure >= 0.5 or usual + less <= 0.15:
                continue
            sensor = int(b.config.sensor_of_cell[k])
            shown_k = float(b.state.degc[sensor]) - float(b.seen.degc_mean)
            shown_k = max(shown_k, 0.0) if b.state.sensor_use[sensor] & y.USABLE else 0.0
            found.append((-math.log((usual + less + unsure) / usual) / k_per - shown_k, -k))
        hotter_k, at = max(found, default=(0.0, 0))
        return (hotter_k, -at) if hotter_k > 0.0 else (0.0, -1)


class Rack:
    """A bench with its thermometer, and the reference beside it."""

    def __init__(self, bench: Any, **settings: Any) -> None:
        self.bench = bench
        self.settings = ThermometerSettings(**settings)
        self.config, self.state = thermometer_config(self.settings), thermometer_state(N)
        t.thermometer_init(self.state)
        self.reference = Reference(bench, self.settings)
        self.soc = np.full(N, 0.5, f4)
        self.model_v = np.full(N, 3.3, f4)
        self.factor = 1.0

    def step(self, dt_s: float = 1.0) -> float:
        b = self.bench
        b.look(dt_s)
        t.thermometer_step(
            self.config, self.state, b.config, b.state, b.seen, self.soc, self.model_v, f4(self.factor), b.values,
            b.places, f4(dt_s),
        )  # fmt: skip
        return float(b.value(F.CELL_HOT))

    def compare(self, dt_s: float) -> tuple[float, int]:
        """One step of both, which must agree in all that they remember and tell."""
        told_k, r, number = self.step(dt_s), self.reference, self.state.number
        expected_k, at = r.step(self.soc, self.model_v, self.factor, dt_s)
        memory = {t.MEAN_SLOW_V: r.slow_v, t.SLOW_A: r.slow_a, t.A2S: r.a2s, t.VAS: r.vas, t.V2S: r.v2s}
        for k, value in {**memory, t.SUM_S: r.sum_s, t.KNOWN_S: r.known_s, t.LAST_A: r.last_a}.items():
            assert float(number[k]) == pytest.approx(value, rel=1e-3, abs=1e-5, nan_ok=True), k
        assert (number[t.OTHERWISE] > 0.0) == r.one_by_one
        assert list(self.state.use) == r.use
        for found, expected, share, least in (
            (self.state.since_s, r.since_s, 1e-5, 0.0),
            (self.state.apart_v, r.apart, 0.0, 2e-5),
            (self.state.answer, r.answer, 2e-3, 2e-5 * max(r.a2s, 1.0) ** 0.5),
            (self.state.v2s, r.noise_v2s, 1e-2, 1e-7),
            (self.state.usual, r.usual, 1e-2, 1e-3),
        ):
            assert (abs(found - expected) <= share * abs(expected) + least).all()
        assert told_k == pytest.approx(expected_k, rel=1e-2, abs=0.05, nan_ok=True)
        assert self.bench.where(F.CELL_HOT) == (NO_INDEX if at < 0 else at)
        return expected_k, at


@pytest.mark.parametrize("seed", range(7))
def test_it_is_what_the_description_says(make_signals: Any, seed: int) -> None:
    """A current that jumps, cells that are hot, noisy, bled, missing, stuck, at an end of their curve, or jump."""
    rng = np.random.default_rng(seed)
    bench = make_signals(n_parallel=1 + seed % 2)
    rack = Rack(bench, usual_s=2000.0, memory_s=100.0)
    number = bench.config.number
    ohm = 1.3 * float(number[y.FAST_OHM] * number[y.PER_CELL]) * rng.uniform(0.9, 1.1, N)
    open_v, noise_v = np.full(N, 3.3), np.full(N, 2e-4)
    noise_v[5] = rng.choice([2e-4, 4e-3])
    current_a, told, places = 0.0, 0, set()
    for k in range(400):
        dt_s = float(rng.choice([0.5, 1.0, 2.0]))
        if rng.random() < 0.12:
            current_a = rng.uniform(-250.0, 250.0)
        current_a += rng.normal(0.0, 2.0)
        if k == 200:
            ohm[[9, 17]] *= 0.45, 0.55
            bench.m.sensor_degc[17 * 6 // N] = rng.choice([25.0, 31.0])
        if k % 40 == 0:
            bench.asked[:] = rng.random(N) < rng.choice([0.0, 0.0, 0.1])
            open_v = 3.3 - 0.008 * bench.asked
            bench.m.cell_v_quality[:] = np.where(rng.random(N) < 0.04, Quality.MISSING, 0)
            rack.soc[3] = rng.choice([0.5, 0.5, 0.5, 0.1])
            rack.factor = rng.choice([1.0, 1.0, 1.0, 1.4])
        if rng.random() < 0.02:
            open_v[rng.integers(N)] += rng.choice([-0.3, 0.02, 0.3])
        bench.head["current_a"] = current_a
        bench.head["current_a_quality"] = Quality.MISSING if rng.random() < 0.004 else 0
        read_v = bench.m.cell_v.copy()
        bench.m.cell_v[:] = open_v - ohm * current_a + noise_v * rng.standard_normal(N)
        if k % 100 > 80:
            bench.m.cell_v[12] = read_v[12]
        rack.model_v[:] = open_v - ohm.mean() * current_a
        hotter_k, at = rack.compare(dt_s)
        told += hotter_k > 0.0
        places.add(at)
    assert told > 30
    assert 9 in places


# each part at its bounds


def test_what_is_inside_an_end_of_the_curve_is_between_both() -> None:
    low, high = f4(0.12), f4(0.92)
    soc = np.array([low, np.nextafter(low, f4(1)), 0.5, np.nextafter(high, f4(0)), high, np.nan], f4)
    assert t._n_inside(soc, 6, low, high) == 3


def test_a_cell_that_is_exactly_so_far_from_its_model_is_not_astray(make_signals: Any) -> None:
    state = make_signals(2, 1).state
    state.cell_v[:] = 3.25, 3.75  # 0.25 V from their mean
    model_v = np.full(2, 3.25, f4)
    assert t._n_astray(state, model_v, f4(0.25)) == 0
    assert t._n_astray(state, model_v, np.nextafter(f4(0.25), f4(0))) == 2


def regular(make_signals: Any) -> Rack:
    """Two cells that have been measured for long, at 3.25 V, by numbers that are exact."""
    rack = Rack(make_signals())
    rack.bench.m.cell_v[:] = 3.25
    rack.bench.head["current_a"] = 0.0
    rack.step()
    rack.state.since_s[:] = 10.0
    return rack


def test_a_cell_that_jumps_by_as_much_as_is_explained_is_measured_as_before(make_signals: Any) -> None:
    rack = regular(make_signals)
    signal, state = rack.bench.state, rack.state
    signal.cell_v[4] = 3.25 + 0.125
    assert t._n_otherwise(state, signal, f4(3.25), f4(0.125)) == 0
    assert t._n_otherwise(state, signal, f4(3.25), np.nextafter(f4(0.125), f4(0))) == 1
    for most_v, since_s in ((f4(0.125), 10.0), (np.nextafter(f4(0.125), f4(0)), 1.0)):
        state.since_s[4], state.apart_v[4] = 10.0, 0.0
        rest = (f4(0), f4(1), f4(0.03), False, f4(1))
        t._add_otherwise(rack.config, state, signal, f4(3.25), f4(0), most_v, *rest)
        assert state.since_s[4] == since_s


def test_a_cell_settles_for_ten_seconds_or_until_the_current_jumps(make_signals: Any) -> None:
    rack = regular(make_signals)
    for since_s, jumped, otherwise in ((9.5, False, True), (10.0, False, False), (9.5, True, False)):
        rack.state.since_s[4] = since_s
        rest = (f4(1), f4(0), f4(1), f4(0.03), jumped, f4(0.25))
        found = t._add_otherwise(rack.config, rack.state, rack.bench.state, f4(3.25), f4(0), *rest)
        assert found == otherwise
        assert rack.state.since_s[4] == (9.75 if otherwise else 10.0)


def test_a_jump_of_the_current_is_of_more_than_a_tenth(make_signals: Any) -> None:
    for more_a, settled in ((0.0, False), (1e-3, True)):
        rack = regular(make_signals)
        rack.state.since_s[:] = 5.0
        rack.bench.head["current_a"] = f4(0.1) * rack.bench.config.number[y.DISCHARGE_RATED_A] + f4(more_a)
        rack.step()
        assert (rack.state.since_s[4] == 10.0) == settled


def test_a_reading_stands_still_while_the_mean_moves_by_more_than_ten_times_the_noise(make_signals: Any) -> None:
    rack = regular(make_signals)
    noise_v = f4(2.0**-11)
    rack.config.setting[t.NOISE_V] = noise_v
    for moved_v, use in ((10 * noise_v, y.USABLE | y.CALM), (np.nextafter(10 * noise_v, f4(1)), 0)):
        rack.bench.state.cell_mean_v[4] = f4(0)
        rest = (f4(0), f4(1), f4(0), f4(1), f4(0.03), False, f4(1))
        rack.bench.state.cell_v[:] = moved_v
        t._add_otherwise(rack.config, rack.state, rack.bench.state, moved_v, *rest)
        assert rack.state.use[4] == use


class Memory:
    """What is remembered of cells of 1 ohm each, and what is told of it."""

    def __init__(self, bench: Any) -> None:
        self.rack = Rack(bench)
        self.rack.step()
        self.number, self.state = self.rack.state.number, self.rack.state
        self.number[[t.A2S, t.VAS, t.V2S, t.SUM_S, t.KNOWN_S]] = 2.0**20, -(2.0**20), 2.0**20, 128.0, 120.0
        self.state.use[:] = y.USABLE
        self.state.usual[:] = self.state.answer[:] = self.state.v2s[:] = 0.0

    def answer(self, less: float, cell: int = 9) -> None:
        """Let a cell answer so much less than the mean one does, and nothing else."""
        self.state.answer[cell] = less * 2.0**20
        self.state.v2s[cell] = less * less * 2.0**20

    def told(self, ohm: float = 1.0, dt_s: float = 0.0) -> tuple[Any, int]:
        b = self.rack.bench
        args = (self.rack.config, self.state, b.config, b.state, b.seen, f4(ohm), f4(dt_s))
        hotter_k, at = t._hottest(*args)
        return float(hotter_k), int(at)

    def exact_k(self, less: float, usual: float = 1.0) -> float:
        unsure = 6.0 * 5e-4 / 2.0**10
        return -math.log((usual - less + unsure) / usual) / float(self.rack.bench.config.number[y.OHM_PER_KELVIN])


@pytest.fixture
def memory(bench: Any) -> Memory:
    return Memory(bench)


@pytest.mark.parametrize("ohm", [1.0, 0.5])
def test_what_is_answered_is_a_resistance(memory: Memory, ohm: float) -> None:
    """Between 0.85 and 4 times the expected one."""
    for share, told in ((float(f4(0.85)), False), (0.8501, True), (3.999, True), (4.0, False), (-2.0, False)):
        memory.number[t.VAS] = -(2.0**20) * share * ohm
        memory.answer(0.5 * share * ohm)
        assert math.isnan(memory.told(ohm)[0]) != told, share


def test_what_is_usual_follows_slowly(memory: Memory) -> None:
    memory.answer(0.5)
    memory.told(dt_s=100.0)
    assert memory.state.usual[9] == pytest.approx(-0.5 * 100.0 / 14500.0, rel=1e-5)
    memory.number[t.KNOWN_S], memory.state.usual[9] = 90.0, 0.0
    memory.told(dt_s=10.0)
    assert memory.state.usual[9] == pytest.approx(-0.5 * 10.0 / 100.0, rel=1e-5)


def test_what_a_cell_is_expected_to_answer_is_less_where_noise_may_do_it(memory: Memory) -> None:
    memory.answer(0.5)
    memory.state.v2s[9] = 0.0
    for noise_v in (2.0**-20, 1.0, 2.0**7):
        memory.rack.config.setting[t.NOISE_V] = noise_v
        # of a variance of 128 noise_v^2 in 128 s, six deviations
        share = -0.5 / (1.0 + 36.0 * noise_v**2 / 2.0**20)
        found = t._expected(memory.rack.config, memory.state, 9)
        assert float(found) == pytest.approx(share, rel=1e-5)


def test_a_resistance_must_fall_with_temperature_to_tell(memory: Memory) -> None:
    memory.answer(0.5)
    assert memory.told() == (pytest.approx(memory.exact_k(0.5), rel=1e-4), 9)
    memory.rack.bench.config.number[y.OHM_PER_KELVIN] = 0.0
    assert math.isnan(memory.told()[0])


def test_the_noise_may_leave_less_than_half_open(memory: Memory) -> None:
    memory.answer(0.5)
    for noise_v, told in ((2.0**9 / 6.0, False), (2.0**9 / 6.01, True)):
        memory.rack.config.setting[t.NOISE_V] = noise_v
        assert math.isnan(memory.told()[0]) != told


@pytest.mark.parametrize(("known_s", "told"), [(119.9, False), (120.0, True)])
def test_in_the_first_two_minutes_nothing_is_told(memory: Memory, known_s: float, told: bool) -> None:
    memory.number[t.KNOWN_S] = known_s
    memory.answer(0.5)
    assert (memory.told()[1] == 9) == told
    assert memory.number[t.KNOWN_S] == (f4(known_s) if told else f4(known_s) + f4(1e-3))


def test_a_tenth_less_is_nothing(memory: Memory) -> None:
    memory.answer(float(f4(0.1)))
    assert memory.told() == (0.0, -1)
    memory.answer(float(np.nextafter(f4(0.1), f4(1))))
    assert memory.told() == (pytest.approx(memory.exact_k(0.1), rel=1e-3), 9)


def test_of_two_that_are_as_hot_the_first_is_told(memory: Memory) -> None:
    memory.answer(0.5, 11)
    memory.answer(0.5, 4)
    assert memory.told()[1] == 4
    memory.answer(0.51, 20)
    assert memory.told()[1] == 20
    memory.state.use[20] = y.CALM  # it is not usable
    assert memory.told()[1] == 4


def test_what_hardly_answers_is_not_measured(memory: Memory) -> None:
    """15 % of the mean cell's answer, to the last bit; a cell that usually answers little counts as one of half."""
    for k in range(8):  # until their sum is that to the last bit
        usual = f4(-0.45) - f4(k * 2.0**-25)
        differs = f4(0.15) - (f4(1) + usual) + usual
        if f4(1) + usual + (differs - usual) == f4(0.15):
            break
    memory.state.usual[9] = usual
    memory.answer(-float(differs))
    assert memory.told()[1] == -1
    memory.answer(-float(np.nextafter(differs, f4(0))))
    assert memory.told()[1] == 9
    memory.state.usual[9] = 0.0
    memory.answer(0.80)
    assert memory.told()[1] == 9
    memory.state.usual[9] = -0.6
    memory.answer(0.9)
    assert memory.told() == (pytest.approx(memory.exact_k(0.3, 0.5), rel=1e-3), 9)


def test_a_cell_of_which_the_noise_leaves_half_open_is_not_told(memory: Memory) -> None:
    memory.answer(0.5)
    for unsure, told in ((0.5, False), (0.49, True)):
        noise_v = unsure / 6.0 * 2.0**10
        memory.state.v2s[9] = 0.25 * 2.0**20 + noise_v**2 * 128.0
        memory.number[t.V2S] = 2.0**20
        assert (memory.told()[1] == 9) == told
