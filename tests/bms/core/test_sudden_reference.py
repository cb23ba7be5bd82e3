"""Sudden sags in double precision, as their description says it, and the bounds of each part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core import sudden as d
from bms.core.empty import empty_v
from bms.core.faults import Fault
from bms.core.plausibility import mean_factor, of_one_cell, warmth
from bms.core.plausibility_model import bent, load_share, row_of
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
N = 24


class Average:
    """What each cell is on the average of a minute, and how far it is below that."""

    def __init__(self) -> None:
        self.usual_v, self.drop_v = np.full(N, np.nan), np.zeros(N)

    def pace(self, k: int, now_v: float, gain: float) -> float:
        return gain / 6.0 if abs(self.usual_v[k] - now_v) > 0.018 else gain

    def follow(self, k: int, now_v: float, turned: bool, pace: float) -> None:
        if math.isnan(self.usual_v[k]):
            self.usual_v[k] = now_v
        if turned:
            self.usual_v[k] += min(max(now_v - (self.usual_v[k] - self.drop_v[k]), -0.1), 0.1)
        self.drop_v[k] = self.usual_v[k] - now_v
        self.usual_v[k] -= pace * self.drop_v[k]


class Reference:
    """`sudden_step` in float64; parts of other modules are taken as they are."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.off, self.own, self.apart = Average(), Average(), Average()
        self.load_a, self.mean_v, self.end_v, self.way_v = np.zeros((4, N))
        self.change_v2s, self.answer_v2s, self.before_v = np.zeros((3, N))
        self.bled = np.zeros(N, bool)
        self.went = self.moved = self.last_a = self.last_mean_v = 0.0

    def step(self, dt: float, before_v: float) -> tuple[float, int]:
        """(what CELL_SAG is, its cell); `before_v` is what was found of it in the same step."""
        b, c = self.bench, self.bench.config.number
        per_cell = float(c[y.PER_CELL])
        a, mean_v = float(b.state.number[y.HELD_A]), float(b.seen.cell_v_mean)
        gone = -a * per_cell * float(b.estimator.scalars[0].rate) * dt
        self.went = (self.went + gone) * 60.0 / (60.0 + dt)
        self.moved = (self.moved + abs(gone)) * 60.0 / (60.0 + dt)
        volts, usable = b.state.cell_v.astype(float), (b.state.cell_use & y.USABLE) != 0
        off_v = volts - b.model_v
        sane = usable & (abs(off_v) < 5.0)
        if not sane.any():
            return before_v, -1
        centre_v = off_v[sane].mean()
        for _ in range(4):
            centre_v += np.clip(off_v[sane] - centre_v, -0.1, 0.1).mean()
        bled = (b.state.cell_use & y.CALM) == 0
        turned = bool((bled != self.bled)[usable].any())
        self.bled[usable] = bled[usable]
        self.low_end_v = self.low_end(a, mean_v)
        for k in map(int, np.flatnonzero(usable & (abs(off_v - centre_v) < 5.0))):
            self.follow(k, a, mean_v, off_v[k], off_v[k] - centre_v, volts[k] - mean_v, turned, dt, -gone)
        self.last_a, self.last_mean_v = a, mean_v
        for k in map(int, np.flatnonzero(usable & ~bled)):
            self.watch(k, a, mean_v, dt)
        self.before_v = np.minimum(self.before_v, np.maximum(self.off.drop_v, 0.0))
        sag_v, at = self.largest(a, mean_v, volts, dt)
        return (sag_v, at) if sag_v > 0.0 and not sag_v <= before_v else (before_v, -1)

    def follow(
        self, k: int, a: float, mean_v: float, own: float, off: float, apart: float, turned: bool, dt: float, out: float
    ) -> None:
        gain = dt / (60.0 + dt)
        if math.isnan(self.off.usual_v[k]):
            self.load_a[k], self.mean_v[k] = a, mean_v
        elif turned:
            self.load_a[k] += a - self.last_a
            self.mean_v[k] += mean_v - self.last_mean_v
        pace, before_v = self.off.pace(k, off, gain), self.off.drop_v[k]
        self.off.follow(k, off, turned, pace)
        borne = abs(self.off.drop_v[k]) < 5e-3 and abs(self.apart.drop_v[k]) < 5e-3
        load_pace = dt / (15.0 + dt) if borne else pace
        self.load_a[k] += load_pace * (a - self.load_a[k])
        self.mean_v[k] += load_pace * (mean_v - self.mean_v[k])
        low = self.off.drop_v[k] > 0.018
        at_end = low or float(self.bench.state.cell_v[k]) < self.low_end_v
        spent_v = max(out, 0.0) / 0.01
        more_v = min(max(self.off.drop_v[k] - before_v, 0.0), abs(out) / 0.01)
        self.end_v[k] = min(self.end_v[k] + min(more_v, spent_v), 1.0) if at_end else spent_v
        most_v = abs(out) / 0.01
        moved_v = min(max(self.off.drop_v[k] - (1.0 - pace) * before_v, -most_v), most_v)
        self.way_v[k] = max((1.0 - pace) * self.way_v[k] + moved_v, 0.0)
        self.own.follow(k, own, turned, self.own.pace(k, own, gain) if low else gain)
        self.apart.follow(k, apart, turned, self.apart.pace(k, apart, gain))

    def change(self, k: int, a: float, mean_v: float) -> float:
        """What the change of the load does to the mean cell; negative as less is discharged."""
        more_v = self.ohm() * (a - self.load_a[k]) * float(self.bench.config.number[y.PER_CELL])
        return math.copysign(max(abs(more_v), abs(mean_v - self.mean_v[k])), more_v)

    def share(self, k: int, sign: float, most: float) -> float:
        if self.change_v2s[k] == 0.0:
            return most
        return min((max(sign * self.answer_v2s[k], 0.0) + 20 * 5e-3**2) / self.change_v2s[k] + 0.1, most)

    def watch(self, k: int, a: float, mean_v: float, dt: float) -> None:
        b = self.bench
        change_v = self.change(k, a, mean_v)
        answer_v = math.copysign(1.0, change_v) * self.off.drop_v[k]
        most = self.share(k, math.copysign(1.0, answer_v), float(load_share(b.resistance, b.resistance_std)))
        more_v = self.ohm() * (a - self.load_a[k]) * float(b.config.number[y.PER_CELL])
        if abs(more_v) > 0.01 and self.flat(k, a, mean_v) and abs(answer_v) < most * abs(change_v):
            keep = 600.0 / (600.0 + dt)
            self.change_v2s[k] = keep * self.change_v2s[k] + dt * change_v**2
            self.answer_v2s[k] = keep * self.answer_v2s[k] + dt * abs(change_v) * answer_v

    def curve_v(self, a: float, mean_v: float) -> float:
        return mean_v + self.ohm() * a * float(self.bench.config.number[y.PER_CELL])

    def on_flat(self, k: int) -> bool:
        soc, far = float(self.bench.soc[k]), 1.5 * float(self.bench.soc_std[k])
        return soc - far > 0.2 and soc + far < 0.9

    def flat(self, k: int, a: float, mean_v: float) -> bool:
        c = self.bench.config.number
        return self.on_flat(k) or float(c[y.SPREAD_V_LOW]) < self.curve_v(a, mean_v) < float(c[y.SPREAD_V_HIGH])

    def ohm(self) -> float:
        b = self.bench
        warm = float(warmth(b.config, b.seen.degc_mean))
        return float(b.config.number[y.FAST_OHM]) * float(mean_factor(b.resistance)) * warm

    def low_end(self, a: float, mean_v: float) -> float:
        b = self.bench
        drop_v = self.ohm() * a * float(b.config.number[y.PER_CELL])
        row, went = int(row_of(b.estimator, b.seen.degc_mean)), b.state.number[y.WENT_SOC]
        return float(empty_v(b.config, b.state, b.estimator.nodes, row, f4(mean_v), went, f4(drop_v)))

    def largest(self, a: float, mean_v: float, volts: Any, dt: float) -> tuple[float, int]:
        b, c = self.bench, self.bench.config.number
        per_cell, degc = float(c[y.PER_CELL]), b.seen.degc_mean
        ohm = self.ohm()
        row, nodes = int(row_of(b.estimator, degc)), b.estimator.nodes
        rise_v = np.concatenate(([0.0], np.maximum(-self.off.drop_v, 0.0), [0.0]))
        drops: list[tuple[float, int]] = []
        of_all_v = np.zeros(N)
        for k in range(N):
            soc, std = float(b.soc[k]), float(b.soc_std[k])
            drop_v = min(self.off.drop_v[k], self.apart.drop_v[k], self.own.drop_v[k] + 5e-3)
            third_v = sorted((0.0, 0.0, 0.0, *(v for v, _ in drops)))[-3]
            if drop_v <= 5e-3 or drop_v <= third_v or not abs(soc) < 10.0 or not abs(std) < 10.0:
                continue
            more_a = a - self.load_a[k]
            not_low = self.on_flat(k) or self.curve_v(a, mean_v) > float(c[y.SPREAD_V_LOW])
            share = float(load_share(b.resistance, b.resistance_std)) if more_a > 0.0 else 0.15
            if not_low and more_a > 0.0:
                share = self.share(k, 1.0, share)
            explained_v = share * abs(self.change(k, a, mean_v))
            if not_low:
                explained_v = min(explained_v, self.off.drop_v[k] - self.before_v[k])
            off, went = min(3.0 * std, 0.1), f4(self.went)
            if not not_low:
                most_share = float(load_share(b.resistance, b.resistance_std))
                explained_v += most_share * max(self.own.drop_v[k] - self.off.drop_v[k], 0.0)
            bend_v = max(float(bent(nodes, row, f4(soc), f4(sign * off), went)) for sign in (-1, 1))
            by_curve_v = min(bend_v, self.way_v[k]) + (self.end_v[k] if volts[k] < self.low_end_v else 0.0)
            if (went < 0.0 and soc < off) or (went > 0.0 and soc + off > 1.0):
                by_curve_v = max(by_curve_v, min(bend_v + min(self.moved / 0.03, 1.0), self.way_v[k]))
            explained_v += by_curve_v
            of_all_v[k] = explained_v + 5e-3
            risen_v = max(rise_v[k], rise_v[k + 2])
            beside_v = risen_v + 0.1 * max(risen_v - 0.05, 0.0)
            lower_v = mean_v - volts[k] + 0.01
            was_v = self.mean_v[k] + self.apart.usual_v[k] + ohm * self.load_a[k] * per_cell
            if soc > 0.9 and was_v > float(c[y.SPREAD_V_HIGH]) + 0.02:
                lower_v -= 0.15 * ohm * abs(a) * per_cell
            drops.append((min(drop_v - explained_v - beside_v, lower_v), -k))
            if not_low:
                self.before_v[k] += dt / (1.0 + dt) * max(drops[-1][0] - self.before_v[k], 0.0)
        drops.sort(reverse=True)
        drops += [(0.0, 0)] * 3
        flows = min(max(self.moved / 0.03, abs(a) / float(c[y.REST_A])), 1.0)
        at = -drops[0][1]
        sag_v = (
            drops[0][0] - 2.0 * flows * min(max(drops[2][0], 0.0), of_all_v[at]) - b.state.cell_looks[y.LEAST_CHANGE]
        )
        if self.flat(at, a, mean_v):
            flows = min(flows, abs(a - self.load_a[at]) / (10.0 * float(c[y.REST_A])))
        return float(of_one_cell(b.config, f4(sag_v), degc, f4(flows))), at


class Rack:
    """A bench with its sudden sags, and the reference beside it."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.state = d.SuddenState(
            *(np.zeros(N if f.dims == "cells" else int(f.dims), np.dtype(f.kind)) for f in d.STATE_FIELDS)
        )
        d.sudden_init(self.state)
        self.reference = Reference(bench)

    def compare(self, dt_s: float, before_v: float = 0.0) -> int:
        """One step of both, which must agree in all that they remember and tell; the cell that is told, or -1."""
        b, s, r = self.bench, self.state, self.reference
        b.look(dt_s)
        b.values[F.CELL_SAG], b.places[F.CELL_SAG] = before_v, NO_INDEX
        d.sudden_step(
            b.config, b.state, s, b.estimator, b.seen, b.model_v, b.soc, b.soc_std, b.resistance, b.resistance_std,
            b.values, b.places, f4(dt_s),
        )  # fmt: skip
        sag_v, at = r.step(dt_s, before_v)
        assert s.number == pytest.approx([r.went, r.moved, r.last_a, r.last_mean_v], rel=1e-4, abs=1e-8)
        for found, expected in (
            *((s.off_v, r.off.usual_v), (s.drop_v, r.off.drop_v), (s.own_v, r.own.usual_v), (s.sunk_v, r.own.drop_v)),
            *(
                (s.apart_v, r.apart.usual_v),
                (s.fall_v, r.apart.drop_v),
                (s.mean_v, r.mean_v),
                (s.load_a / 1e3, r.load_a / 1e3),
                (s.end_v, r.end_v),
                (s.way_v, r.way_v),
                (s.change_v2s, r.change_v2s),
                (s.answer_v2s, r.answer_v2s),
                (s.before_v, r.before_v),
            ),
        ):
            assert (np.isnan(found) == np.isnan(expected)).all()
            assert np.nanmax(abs(found - expected) / np.maximum(abs(expected), 1.0), initial=0.0) < 2e-5
        assert (s.bled == r.bled).all()
        assert float(b.value(F.CELL_SAG)) == pytest.approx(sag_v, abs=5e-5, nan_ok=True)
        assert b.where(F.CELL_SAG) == (NO_INDEX if at < 0 else at)
        return at


@pytest.mark.parametrize("seed", range(7))
def test_it_is_what_the_description_says(make_signals: Any, seed: int) -> None:
    """Loads that come and go, cells that sink and come back, alone or with others, at any SoC; bled, missing, absurd."""
    rng = np.random.default_rng(seed)
    bench = make_signals(n_parallel=1 + seed % 2)
    rack = Rack(bench)
    bench.resistance[:] = rng.uniform(0.9, 1.4)
    bench.resistance_std[:] = rng.choice([0.0, 0.05, 0.12])
    sunk_v, told, places = np.zeros(N), 0, set()
    current_a = 0.0
    for _ in range(300):
        dt_s = float(rng.choice([0.5, 1.0, 2.0, 10.0]))
        if rng.random() < 0.05:
            current_a = rng.choice([0.0, 5.0, -5.0, 150.0, -280.0, 280.0]) * bench.info.n_parallel
            bench.state.number[y.WENT_SOC] = rng.choice([-0.05, 0.05])
            bench.m.sensor_degc[:] = rng.choice([0.0, 25.0, 40.0])
        if rng.random() < 0.1:
            sunk_v = np.where(rng.random(N) < rng.choice([0.03, 0.15]), rng.uniform(-0.02, 0.1, N), 0.0)
        if rng.random() < 0.05:
            bench.asked[:] = rng.random(N) < rng.choice([0.0, 0.2])
            bench.m.cell_v_quality[:] = np.where(rng.random(N) < 0.05, Quality.MISSING, 0)
            if rng.random() < 0.1:  # a single one is left
                bench.m.cell_v_quality[1:] = Quality.MISSING
            bench.soc[:] = rng.choice([0.02, 0.3, 0.5, 0.98])
            bench.soc_std[:] = rng.choice([0.001, 0.01, 0.05])
        bench.head["current_a"] = current_a
        mean_v = rng.choice([3.3, 3.3, 3.31, 3.0]) - 1e-4 * current_a / bench.info.n_parallel
        bench.m.cell_v[:] = mean_v - sunk_v + rng.normal(0.0, 2e-4, N) - 0.005 * bench.asked
        bench.model_v[:] = mean_v + (rng.random(N) < 0.01) * rng.choice([0.03, 5.5])
        at = rack.compare(dt_s, rng.choice([0.0, 0.0, 0.0, 0.02, math.nan]))
        told += at >= 0
        places.add(at)
    assert told > 30
    assert len(places) > 5
