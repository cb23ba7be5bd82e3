"""The comparison of cells against the same in plain numpy: what is common to all, each cell's own, and which has sunk."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bms.core import plausibility_model as p
from bms.core import signals_layout as y
from bms.core.estimator_layout import N_DEGC, N_SOC, NODE, OCV
from bms.core.faults import Fault
from hal.contract import NO_INDEX, Quality

F = Fault
f4 = np.float32
F8 = npt.NDArray[np.float64]
RESIDUAL_S, SAG_S = 10.0, 600.0


class Reference:
    """What `judge` remembers and tells of cells, in float64."""

    def __init__(self, bench: Any) -> None:
        n = bench.innovation.size
        self.n = n
        self.residual_v, self.usual_v, self.sunk_soc = np.zeros(n), np.zeros(n), np.full(n, np.inf)
        self.apart_v, self.own_v, self.slow_v = np.zeros(n), np.zeros(n), math.nan
        self.went = self.moved = self.start_s = 0.0
        self.scalars = bench.estimator.scalars[0]
        self.nodes = bench.estimator.nodes.astype(np.float64).reshape(N_DEGC, N_SOC, NODE)
        self.numbers = bench.config.number.astype(np.float64)

    def ocv(self, soc: Any) -> Any:
        return np.interp(soc, np.linspace(0.0, 1.0, N_SOC), self.nodes[self.row, :, OCV])

    def step(self, bench: Any, dt_s: float) -> tuple[tuple[float, int], tuple[float, int]]:
        """((largest residual, its cell), (largest sag, its cell))."""
        degc = float(bench.seen.degc_mean)
        row = (degc - float(self.scalars.degc_first)) * float(self.scalars.nodes_per_kelvin)
        self.row = int(np.clip(np.floor(row + 0.5), 0, N_DEGC - 1))
        innovation, soc, std = (x[: self.n].astype(np.float64) for x in (bench.innovation, bench.soc, bench.soc_std))
        cell_v, model_v = bench.state.cell_v.astype(np.float64), bench.model_v[: self.n].astype(np.float64)
        self.cell_v = cell_v
        usable, calm, held = (bench.state.cell_use & bit != 0 for bit in (y.USABLE, y.CALM, y.HELD))
        known = (np.abs(soc) < 10) & (np.abs(std) < 10)
        per_cell, rate = self.numbers[y.PER_CELL], float(self.scalars.rate)

        gone = -float(bench.state.number[y.HELD_A]) * per_cell * rate * dt_s
        kept = SAG_S / (SAG_S + dt_s)
        self.went, self.moved = (self.went + gone) * kept, (self.moved + abs(gone)) * kept
        least = min(self.moved, 0.03)
        went = max(self.went, least) if self.went >= 0 else min(self.went, -least)
        ohm = self.numbers[y.FAST_OHM] * math.exp(self.numbers[y.OHM_PER_KELVIN] * (25.0 - degc))
        # of a resistance that is not known: 0.12 is published of it before anything is
        unknown = min(max(1.5 * float(bench.resistance_std[0]) / 0.12, 0.15), 1.5)
        most_a = max(self.moved / SAG_S / rate, abs(float(bench.state.number[y.HELD_A])) * per_cell)
        load_v = (0.15 + 0.2 * (unknown - 0.15)) * ohm * most_a
        flows = abs(float(bench.state.number[y.HELD_A])) / self.numbers[y.REST_A]
        third = 2 * min(max(least / 0.03, flows), 1.0)
        mean_cell_v, low_v, high_v = float(bench.seen.cell_v_mean), *self.numbers[[y.SPREAD_V_LOW, y.SPREAD_V_HIGH]]
        self.slow_v = mean_cell_v if math.isnan(self.slow_v) else mean_cell_v + kept * (self.slow_v - mean_cell_v)
        if not low_v <= mean_cell_v <= high_v:
            load_v += 0.15 * abs(mean_cell_v - self.slow_v)
        drop_v = ohm * float(bench.state.number[y.HELD_A]) * per_cell
        empty = self.went < 0 and mean_cell_v < low_v - drop_v and np.median(cell_v[usable]) < low_v - drop_v
        self.empty_v = float(self.ocv(0.05)) - drop_v if empty else -math.inf
        self.full_v = float(self.ocv(0.97)) - drop_v if mean_cell_v + drop_v > high_v else math.inf

        compared = calm & (np.abs(innovation) < 100) & known
        mean_v, worst = math.nan, (math.nan, -1)
        if compared.any():
            off_v = innovation - self.residual_v
            mean_v, common_v = near_mean(innovation[compared]), near_mean(off_v[compared])
            low_v = self.low_v(cell_v, usable, float(bench.seen.cell_v_mean), flows, dt_s)
            low_v = np.maximum(low_v - cell_v, 0.0)
            apart_v = cell_v - float(bench.seen.cell_v_mean)
            worst = self.residual(innovation, soc, std, mean_v, common_v, low_v, apart_v, usable & known, calm, dt_s)
        explained = went, load_v, least / 0.03, third
        sag_v, at = self.sag(soc, std, cell_v, model_v, held & known, usable, calm, mean_v, explained, kept, bench)
        sag_v = max(sag_v - float(bench.state.cell_looks[y.LEAST_CHANGE]), 0.0)
        return worst, (sag_v * min(math.exp(self.numbers[y.OHM_PER_KELVIN] * (degc - 25.0)), 2.0), at)

    def low_v(self, cell_v: F8, usable: Any, mean_v: float, flows: float, dt_s: float) -> float:
        """In the first minute, at rest: where a cell lies with 10 % less charge than one that is 30 mV below the mean."""
        self.start_s = 60.0 if flows >= 1 else self.start_s
        if self.start_s >= 60:
            return -math.inf
        self.start_s += dt_s
        nodes = np.linspace(0.0, 1.0, N_SOC)
        curve = self.ocv(nodes)

        def soc_of(volt: float) -> float:
            above = np.flatnonzero(curve >= volt)
            return float(nodes[max(above[0] - 1, 0)]) if above.size else 1.0

        soc = soc_of(mean_v - 0.03) - 0.1
        low_v, high_v = self.ocv(soc), self.ocv(soc_of(mean_v + 0.03) + 0.1) + 0.03
        balanced = (usable & (cell_v < low_v)).sum() <= 3 and not (usable & (cell_v > high_v)).any()
        return float(low_v) if soc > 0 and balanced else -math.inf

    def residual(
        self,
        innovation: F8,
        soc: F8,
        std: F8,
        mean_v: float,
        common_v: float,
        low_v: F8,
        apart_v: F8,
        judged: Any,
        calm: Any,
        dt_s: float,
    ) -> tuple[float, int]:
        gain, slow = dt_s / (RESIDUAL_S + dt_s), dt_s / (SAG_S + dt_s)
        taken = calm & (np.abs(innovation) < 100)
        off_v = innovation - common_v
        first = taken & np.isinf(self.sunk_soc)
        self.residual_v = np.where(first, off_v, self.residual_v)
        self.usual_v = np.where(first, np.minimum(off_v, 5e-3), self.usual_v)
        self.own_v = np.where(first, innovation, self.own_v)
        self.apart_v = np.where(first, apart_v, self.apart_v)
        self.sunk_soc[first] = np.nan
        change = gain * (off_v - self.residual_v) - slow * (mean_v - common_v)
        self.residual_v = np.where(taken, self.residual_v + change, self.residual_v)
        follow = np.where(np.isnan(self.sunk_soc), slow, slow / 6)
        self.usual_v += np.where(taken, follow * (np.minimum(self.residual_v, 5e-3) - self.usual_v), 0.0)
        self.own_v += np.where(taken, follow * (innovation - self.own_v), 0.0)
        self.apart_v += np.where(taken, follow * (apart_v - self.apart_v), 0.0)
        self.own_v = np.where(taken & (low_v > 0), np.maximum(self.own_v, innovation + low_v), self.own_v)
        lifted = np.maximum(self.apart_v, apart_v + low_v)
        self.apart_v = np.where(taken & (low_v > 0), lifted, self.apart_v)
        raised = np.maximum(self.usual_v, self.residual_v + low_v)
        self.usual_v = np.where(taken & (low_v > 0), raised, self.usual_v)
        size_v = np.where((self.residual_v < 0) | (self.cell_v < self.full_v), np.abs(self.residual_v), 0.0)
        left_v = size_v - self.anywhere(soc, 3.0 * std)
        left_v = np.maximum(np.where(judged & (size_v > 5e-3), left_v, 0.0), 0.0)
        first_v, _, third_v = np.sort(left_v)[-1:-4:-1]
        return max(float(first_v - 2 * third_v), 0.0), int(np.argmax(left_v))

    def anywhere(self, soc: F8, off: F8) -> Any:
        """The larger side of the curve, which goes on as it ends for what of `off` lies beyond."""
        volt = self.nodes[self.row, :, OCV]
        above_v = np.minimum(np.maximum(soc + off - 1, 0), off) * (volt[-1] - volt[-2]) * (N_SOC - 1)
        below_v = np.minimum(np.maximum(off - soc, 0), off) * (volt[1] - volt[0]) * (N_SOC - 1)
        here_v = self.ocv(soc)
        return np.maximum(self.ocv(soc + off) + above_v - here_v, here_v - self.ocv(soc - off) + below_v)

    def sag(
        self,
        soc: F8,
        std: F8,
        cell_v: F8,
        model_v: F8,
        judged: Any,
        usable: Any,
        calm: Any,
        mean_v: float,
        explained: tuple[float, float, float, float],
        kept: float,
        bench: Any,
    ) -> tuple[float, int]:
        off_v = cell_v - model_v
        bled = usable & ~calm & (np.abs(off_v) < 100)
        bled_v = math.nan
        if bled.sum() >= 2:
            near = bled & (np.abs(off_v - off_v[bled].mean()) < 0.1)
            bled_v = off_v[near].mean() if near.sum() >= 2 else math.nan
        soc_known = np.abs(soc) < 10
        mean_soc = soc[soc_known].sum() / max(soc_known.sum(), 1)
        told: list[float] = [0.0, 0.0, 0.0]
        at = -1
        others_v = np.fmax(mean_v, bled_v)
        rise_v = self.residual_v - self.usual_v
        rise_v = np.where(usable & ~calm, np.fmax(rise_v, off_v - others_v - self.usual_v - 5e-3), rise_v)
        for k in range(self.n):
            sag_v = self.usual_v[k] - self.residual_v[k]
            if not calm[k]:
                now_v = self.usual_v[k] - off_v[k]
                sag_v = np.nanmax([sag_v, now_v + bled_v - 0.02, now_v + mean_v - 0.1])
            if not judged[k]:
                continue
            sunk, learnt_v = math.isfinite(self.sunk_soc[k]), 0.0
            if sunk:
                learnt = (self.sunk_soc[k] - (soc[k] - mean_soc)) * kept
                self.sunk_soc[k] = soc[k] - mean_soc + learnt
                learnt_v = self.ocv(soc[k] + max(learnt, 0.0)) - self.ocv(soc[k])
                sag_v += learnt_v
            sag_v = min(sag_v, self.own_v[k] - off_v[k] + learnt_v + (5e-3 if calm[k] else 0.02))
            if not sunk and not (sag_v > 5e-3 and sag_v > told[2]):
                continue
            risen_v = max([0.0, *(rise_v[j] for j in (k - 1, k + 1) if 0 <= j < self.n)])
            risen_v += 0.1 * max(risen_v - 0.05, 0.0)
            sag_v = self.unexplained(k, float(sag_v - risen_v), soc[k], std[k], cell_v[k], explained, bench)
            if not sunk and sag_v > 0.018:
                self.sunk_soc[k] = soc[k] - mean_soc
            elif sag_v < 0.012:
                self.sunk_soc[k] = np.nan
            if sag_v > told[0]:
                at = k
            told = sorted([*told, sag_v], reverse=True)[:3]
        return max(told[0] - explained[3] * told[2], 0.0), at

    def unexplained(
        self,
        k: int,
        sag_v: float,
        soc: float,
        std: float,
        cell_v: float,
        explained: tuple[float, float, float, float],
        bench: Any,
    ) -> float:
        went, load_v, end_v, _ = explained
        off = min(3 * std, 0.1)
        if cell_v < self.empty_v:
            sag_v -= 1.0
        elif soc < off or soc + off > 1:
            sag_v -= end_v
        bent = [
            abs(self.ocv(soc + o) - self.ocv(soc) - self.ocv(soc - went + o) + self.ocv(soc - went))
            for o in (off, -off)
        ]
        sag_v -= max(bent) + load_v
        low_v = float(bench.seen.cell_v_mean) - cell_v
        if bench.state.cell_use[k] & y.CALM:
            low_v = min(low_v, low_v + self.apart_v[k])
        return min(sag_v, low_v + 0.01)


def near_mean(values: F8) -> float:
    """Mean of those that are not more than 0.1 V from the mean without lowest and highest, if most are."""
    if values.size <= 2:
        return float(values.mean())
    centre_v = np.sort(values)[1:-1].mean()
    near = values[np.abs(values - centre_v) <= 0.1]
    return float(near.mean() if 4 * near.size >= 3 * values.size else centre_v)


def disturb(bench: Any, rng: np.random.Generator) -> None:
    """Now and then a cell sinks, rises, reads nonsense, is lost, or is bled; currents and SoC wander."""
    n = bench.innovation.size
    bench.head["current_a"] = bench.current_a = float(np.clip(bench.current_a + rng.normal(0, 40), -280, 280))
    bench.own_v *= 0.98
    if rng.random() < 0.15:
        bench.own_v[rng.integers(n)] += rng.choice([-0.4, -0.08, -0.06, -0.03, -0.02, 0.03, 0.2])
    bench.innovation[:] = bench.own_v + rng.normal(0, 0.002, n) + rng.normal(0, 0.01)
    bench.m.cell_v[:] = 3.3 + bench.own_v
    bench.soc[:] = np.clip(bench.soc + rng.normal(0, 0.003, n), 0.0, 1.0)
    bench.m.cell_v_quality[:] = 0
    if rng.random() < 0.3:
        bench.asked[:] = rng.random(n) < rng.choice([0.0, 0.0, 0.05, 0.3, 1.0], p=[0.2, 0.2, 0.2, 0.2, 0.2])
    if rng.random() < 0.1:
        bench.m.cell_v_quality[rng.integers(n)] = Quality.MISSING
    bench.soc_std[:] = bench.deviation
    # what is absurd is no estimate: from 10 on
    if rng.random() < 0.1:
        bench.soc_std[rng.integers(n)] = rng.choice([np.nan, 10.0])
    if rng.random() < 0.05:
        bench.soc[rng.integers(n)] = 10.0
    if rng.random() < 0.1:
        bench.innovation[rng.integers(n)] = rng.choice([np.nan, 300.0])


@pytest.mark.parametrize("seed", range(12))
def test_cells_are_compared_as_the_reference_does(make_signals: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bench = make_signals(16 if seed % 2 else 5, 4, cells_per_chip=1)
    n = bench.innovation.size
    bench.own_v, bench.current_a, bench.deviation = np.zeros(n), 0.0, rng.choice([0.002, 0.01, 0.04])
    bench.soc[:] = rng.uniform(0.02, 0.98) + rng.normal(0, 0.01, n)
    bench.m.sensor_degc[:] = rng.uniform(-5, 40)
    bench.resistance_std[:] = rng.choice([0.12, 0.05, 0.01])
    reference = Reference(bench)
    for k in range(150):
        dt_s = float(rng.choice([0.1, 1.0, 5.0]))
        disturb(bench, rng)
        bench.look(dt_s)
        bench.judge(dt_s)
        (residual_v, at), (sag_v, sunk_at) = reference.step(bench, dt_s)
        text = f"seed {seed}, step {k}"
        assert bench.state.residual_v == pytest.approx(reference.residual_v, abs=2e-5, rel=1e-4), text
        assert bench.state.usual_v == pytest.approx(reference.usual_v, abs=2e-5, rel=1e-4), text
        assert bench.state.sunk_soc == pytest.approx(reference.sunk_soc, abs=2e-5, nan_ok=True), text
        assert bench.value(F.MODEL_RESIDUAL) == pytest.approx(residual_v, abs=3e-5, rel=1e-4, nan_ok=True), text
        assert bench.value(F.CELL_SAG) == pytest.approx(sag_v, abs=3e-5, rel=1e-4), text
        if residual_v > 1e-4:
            assert bench.where(F.MODEL_RESIDUAL) == at, text
        if sag_v > 1e-4:
            assert bench.where(F.CELL_SAG) == sunk_at, text


def test_of_two_means_neither_counts_what_is_far_from_it() -> None:
    zeros, known = np.zeros(6, np.float32), np.full(6, 0.5, np.float32)
    use = np.full(6, y.USABLE | y.CALM, np.uint8)
    innovation = np.array([0.01, 0.02, 0.03, 0.02, 0.02, -0.9], np.float32)
    residual = np.array([0.0, 0.0, 0.0, 0.0, 0.0, -0.91], np.float32)
    mean_v, own_v, soc, std, count = p._common(innovation, residual, known, zeros, use)
    assert (mean_v, own_v) == (pytest.approx(0.02, abs=1e-6), pytest.approx((0.1 + 0.01) / 6, abs=1e-6))
    assert (soc, std, count) == (0.5, 0.0, 6)
    mean_v, own_v, *_ = p._common(innovation, zeros, known, zeros, use)
    assert (mean_v, own_v) == (pytest.approx(0.02, abs=1e-6), pytest.approx(0.02, abs=1e-6))
    # half and half: there is no mean that is near to anything
    innovation[:] = 0.5, 0.5, 0.5, -0.5, -0.5, -0.5
    mean_v, own_v, *_ = p._common(innovation, zeros, known, zeros, use)
    assert (mean_v, own_v) == (pytest.approx(0.0, abs=1e-6), pytest.approx(0.0, abs=1e-6))


ZEROS, HALF = np.zeros(4, np.float32), np.full(4, 0.5, np.float32)
CALM = np.full(4, y.USABLE | y.CALM, np.uint8)


def test_near_is_up_to_100_mv() -> None:
    innovation = np.array([0.0, 0.1, 0.05, 0.1001], np.float32)
    assert p._near(innovation, ZEROS, HALF, ZEROS, CALM, 4, f4(0), f4(0)) == (f4(0.05), f4(0.05))
    # the two means have a centre of their own
    residual = np.array([0.0, 0.1, 0.05, -0.4], np.float32)
    mean_v, own_v = p._near(innovation, residual, HALF, ZEROS, CALM, 4, f4(0.09), f4(0.0))
    assert (mean_v, own_v) == (pytest.approx(0.0625250, abs=1e-6), 0.0)
    # less than three quarters are near: the centre
    innovation[:2] = 0.2, -0.2
    assert p._near(innovation, innovation, HALF, ZEROS, CALM, 4, f4(0.07), f4(0.01)) == (f4(0.07), f4(0.0))
    assert p._near(innovation, ZEROS, HALF, ZEROS, CALM, 4, f4(0.07), f4(0.01)) == (f4(0.07), f4(0.01))
    innovation[0] = 0.1
    assert p._near(innovation, ZEROS, HALF, ZEROS, CALM, 4, f4(0.07), f4(0.5)) == (
        pytest.approx(0.2501 / 3, abs=1e-6),
        f4(0.5),
    )
    # what is absurd is no estimate, and who is not calm is not looked at
    soc, std, use = HALF.copy(), ZEROS.copy(), CALM.copy()
    soc[0], std[1], use[2] = 10.0, 10.0, y.USABLE
    innovation[:] = 0.09, 0.08, 0.07, 0.06
    assert p._near(innovation, ZEROS, soc, std, use, 1, f4(0.07), f4(0.07)) == (f4(0.06), f4(0.06))


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_each_cells_own_may_be_far_alone(sign: int) -> None:
    """No innovation is far, but one is from what was the cell's own, on either side of a centre that is not 0."""
    innovation = np.array([0.0, 0.0, 0.0, 0.0, 0.0], np.float32)
    residual = sign * np.array([0.06, 0.06, 0.06, 0.06, -0.05], np.float32)
    known, use = np.full(5, 0.5, np.float32), np.full(5, y.USABLE | y.CALM, np.uint8)
    _, own_v, *_ = p._common(innovation, residual, known, 0 * known, use)
    assert own_v == pytest.approx(-0.06 * sign, abs=1e-6)


def test_bled_cells_have_a_mean_of_those_within_100_mv(make_signals: Any) -> None:
    bench = make_signals(5, 2)
    bench.state.cell_use[:] = y.USABLE
    model_v = np.zeros(5, np.float32)
    bench.state.cell_v[:] = 0.1, -0.1, np.nan, np.nan, np.nan
    assert math.isnan(p._bled_mean(bench.state, model_v))
    bench.state.cell_v[:] = 0.02, 0.04, np.nan, np.nan, np.nan
    assert p._bled_mean(bench.state, model_v) == pytest.approx(0.03, abs=1e-6)
    bench.state.cell_v[:] = 0.02, 0.04, 0.0, 0.0, -0.3
    assert p._bled_mean(bench.state, model_v) == pytest.approx(0.015, abs=1e-6)
    bench.state.cell_v[:] = 0.02, np.nan, np.nan, np.nan, np.nan
    assert math.isnan(p._bled_mean(bench.state, model_v))


@pytest.mark.parametrize("soc", [0.1, 0.9])
def test_beyond_the_end_of_a_curve_more_is_explained(bench: Any, soc: float) -> None:
    bench.look()
    bench.state.cell_v[:] = 0.0
    row = int(p.row_of(bench.estimator, f4(25.0)))
    here, std = np.full(24, soc, np.float32), np.ones(24, np.float32)
    sag = bench.state, bench.estimator.nodes, row, f4(5.0)
    assert p._unexplained(*sag, here, std, 3, f4(0.0), f4(0.0), f4(0.75), f4(-9.0), f4(9.0), f4(0.0)) == 5.0
    out = here + np.float32(0.001 if soc > 0.5 else -0.001)
    assert p._unexplained(*sag, out, std, 3, f4(0.0), f4(0.0), f4(0.75), f4(-9.0), f4(9.0), f4(0.0)) == 4.25
    assert p._unexplained(*sag, here, std, 3, f4(0.0), f4(0.0), f4(0.75), f4(0.1), f4(9.0), f4(0.0)) == 4.0
    assert p._unexplained(*sag, here, std, 3, f4(0.0), f4(0.0), f4(0.75), f4(-9.0), f4(9.0), f4(0.25)) == 4.75


def test_of_two_that_are_alike_the_first_is_told(bench: Any) -> None:
    bench.soc_std[:] = 0.005
    bench.m.cell_v[[6, 9]] = 3.2
    for _ in range(30):
        bench.innovation[:] = 0.0
        bench.innovation[[6, 9]] = -0.09
        bench.look()
        bench.judge()
    assert (bench.where(F.CELL_SAG), bench.where(F.MODEL_RESIDUAL)) == (6, 6)


def test_nothing_to_compare_is_told_as_nothing(make_signals: Any) -> None:
    bench = make_signals(5, 2)
    bench.m.cell_v_quality[:] = Quality.MISSING
    bench.look()
    bench.judge()
    assert math.isnan(bench.value(F.MODEL_RESIDUAL))
    assert bench.where(F.MODEL_RESIDUAL) == bench.where(F.CELL_SAG) == NO_INDEX
    assert bench.value(F.CELL_SAG) == 0.0


def test_the_three_largest_are_kept_in_order() -> None:
    for volt, ranked in (
        (0.9, (0.9, 0.5, 0.4)),
        (0.45, (0.5, 0.45, 0.4)),
        (0.35, (0.5, 0.4, 0.35)),
        (0.1, (0.5, 0.4, 0.3)),
    ):
        assert p.ranked(f4(0.5), f4(0.4), f4(0.3), f4(volt)) == tuple(f4(x) for x in ranked)
