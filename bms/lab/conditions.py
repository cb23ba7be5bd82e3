"""How robust is a cell file? The same trace again under the errors of real sensors and real start values.

    a  as measured, started at the right SoC
    c  cut where SoC first falls below 60 %, started 15 % too high and too low, judged after an hour
    d  the current sensor is off by 1 % of 1C
    e  d, and started 20 % too low, judged after an hour
    f  the current sensor is off by 1 % of 1C and by 0.5 % of its reading, the voltage by 2 mV with 2 mV of noise

Each error is applied with every combination of signs; the noise is drawn from a seed. What counts is the worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from bms.cells import CellParameters
from bms.lab.estimate import Score, estimate, score
from bms.lab.trace import Trace

KEYS = "acdef"
SIGNS = (1.0, -1.0)
BIAS_C = 0.01  # of the current sensor, relative to the capacity
GAIN = 0.005
OFFSET_V, NOISE_V = 0.002, 0.002
START_SOC, START_STD = 0.15, 0.15  # condition c: error of the start value, and the deviation told with it
TOLD_LOW_SOC = 0.2  # condition e
CUT_SOC = 0.6
SETTLE_S = 3600.0


@dataclass(frozen=True)
class Condition:
    """A trace with its errors, what the estimator is told about the start, and from when on it is judged."""

    key: str
    label: str
    trace: Trace
    initial_soc: float
    initial_soc_std: float | None  # None: the default of `bms estimate`
    after_s: float = 0.0


@dataclass(frozen=True)
class Result:
    """One trace under one condition."""

    name: str
    condition: Condition
    score: Score


def _cut(trace: Trace, first: int) -> Trace:
    truth = None if trace.soc_true is None else trace.soc_true[first:]
    return Trace(
        trace.time_s[first:] - trace.time_s[first], trace.current_a[first:], trace.voltage_v[first:],
        trace.temperature_degc[first:], truth,
    )  # fmt: skip


def conditions(trace: Trace, capacity_ah: float, keys: str = KEYS, seed: int = 0) -> Iterator[Condition]:
    """Variants of `trace` (which must have `soc_true`) under the conditions in `keys`.

    Condition c is left out where SoC does not fall through 60 % at least an hour before the end.
    """
    if trace.soc_true is None:
        raise ValueError("conditions need a trace with soc_true")
    start = float(np.clip(trace.soc_true[0], 0.0, 1.0))
    one_percent_a = BIAS_C * capacity_ah
    if "a" in keys:
        yield Condition("a", "as measured", trace, start, None)
    below = np.flatnonzero(trace.soc_true < CUT_SOC)
    if "c" in keys and below.size and below[0] > 0:
        cut = _cut(trace, int(below[0]))
        assert cut.soc_true is not None
        if cut.time_s[-1] > SETTLE_S:
            for sign in SIGNS:
                told = float(cut.soc_true[0]) + sign * START_SOC
                yield Condition(
                    "c+" if sign > 0 else "c-", f"start {100 * sign * START_SOC:+.0f} %", cut, told, START_STD, SETTLE_S
                )
    for sign in SIGNS:
        bias = f"bias {100 * sign * BIAS_C:+.0f} % of 1C"
        biased = replace(trace, current_a=trace.current_a + sign * one_percent_a)
        if "d" in keys:
            yield Condition("d", bias, biased, start, None)
        if "e" in keys and trace.time_s[-1] - trace.time_s[0] > SETTLE_S:
            told = max(start - TOLD_LOW_SOC, 0.0)
            yield Condition("e", f"{bias}, told {told:.2f}", biased, told, None, SETTLE_S)
            yield Condition("e", f"{bias}, told {told:.2f} +- {START_STD}", biased, told, START_STD, SETTLE_S)
    if "f" in keys:
        noise_v = NOISE_V * np.random.default_rng(seed).standard_normal(trace.time_s.size)
        for bias_sign, gain_sign, volt_sign in product(SIGNS, repeat=3):
            yield Condition(
                "f",
                f"bias {100 * bias_sign * BIAS_C:+.0f} % of 1C, gain {100 * gain_sign * GAIN:+.1f} %, "
                f"voltage {1e3 * volt_sign * OFFSET_V:+.0f} mV",
                replace(
                    trace,
                    current_a=trace.current_a * (1 + gain_sign * GAIN) + bias_sign * one_percent_a,
                    voltage_v=trace.voltage_v + volt_sign * OFFSET_V + noise_v,
                ),
                start,
                None,
            )  # fmt: skip


def judge(cell: CellParameters, traces: Iterable[tuple[str, Trace]], keys: str = KEYS, seed: int = 0) -> list[Result]:
    """Estimate every trace under every condition."""
    results = []
    for name, trace in traces:
        for condition in conditions(trace, cell.capacity_ah, keys, seed):
            found = estimate(condition.trace, cell, condition.initial_soc, condition.initial_soc_std)
            results.append(Result(name, condition, score(condition.trace, found, condition.after_s)))
    return results


def worst(results: Sequence[Result]) -> dict[str, Score]:
    """For each condition: the largest RMSE, the largest error, the smallest coverage and the mean deviation."""
    merged: dict[str, Score] = {}
    for key in dict.fromkeys(r.condition.key for r in results):
        scores = [r.score for r in results if r.condition.key == key]
        merged[key] = Score(
            max(s.rmse for s in scores),
            max(s.max_error for s in scores),
            min(s.coverage for s in scores),
            float(np.mean([s.mean_std for s in scores])),
        )
    return merged


def calibration(results: Sequence[Result]) -> float:
    """Mean reported deviation over RMSE, pooled: 1 = honest, above = timid, below = over-confident."""
    scores = [r.score for r in results]
    return float(np.mean([s.mean_std for s in scores]) / np.sqrt(np.mean([s.rmse**2 for s in scores])))
