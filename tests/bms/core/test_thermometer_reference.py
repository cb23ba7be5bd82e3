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
            self.use, self.one_by_one = [0] * N, True
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
        if not math.isnan(r.slow_a):
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
    bench = make_signals()
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
