"""The errors that are put on a trace are those that the names say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bms.cells import CellParameters
from bms.lab.conditions import Condition, Result, calibration, conditions, judge, worst
from bms.lab.estimate import Score
from bms.lab.trace import Trace


@pytest.fixture(scope="module")
def trace(plain_cell: CellParameters, dynamic: Callable[..., dict[str, np.ndarray]]) -> Trace:
    d = dynamic(plain_cell)
    return Trace(2.0 * d["time_s"] + 5, d["current_a"], d["voltage_v"], d["temperature_degc"], d["soc_true"])


def of(trace: Trace, key: str) -> list[Condition]:
    return list(conditions(trace, 2.0, key))


def test_a_is_the_trace_itself(trace: Trace) -> None:
    (a,) = of(trace, "a")
    assert a.trace is trace
    assert (a.initial_soc, a.initial_soc_std, a.after_s) == (1.0, None, 0.0)


def test_c_is_cut_at_sixty_per_cent_and_told_wrong(trace: Trace) -> None:
    up, down = of(trace, "c")
    assert (up.key, down.key) == ("c+", "c-")
    for c, sign in ((up, 1), (down, -1)):
        assert c.trace.soc_true is not None
        assert c.trace.time_s[0] == 0.0
        assert 0.599 < c.trace.soc_true[0] < 0.6
        assert c.initial_soc == pytest.approx(c.trace.soc_true[0] + sign * 0.15)
        assert (c.initial_soc_std, c.after_s) == (0.15, 3600.0)
        n = c.trace.time_s.size
        assert np.all(trace.soc_true[: trace.time_s.size - n] >= 0.6)  # type: ignore[index]
        np.testing.assert_array_equal(c.trace.voltage_v, trace.voltage_v[-n:])


def test_c_needs_an_hour_below_sixty_per_cent(trace: Trace) -> None:
    assert trace.soc_true is not None
    assert of(replace(trace, soc_true=0.7 + 0.3 * trace.soc_true), "c") == []
    assert of(replace(trace, time_s=0.1 * trace.time_s), "c") == []


def test_d_is_a_bias_of_both_signs(trace: Trace) -> None:
    found = [c.trace.current_a - trace.current_a for c in of(trace, "d")]
    np.testing.assert_allclose(found[0], 0.02, atol=1e-12)
    np.testing.assert_allclose(found[1], -0.02, atol=1e-12)
    assert all(c.initial_soc == 1.0 for c in of(trace, "d"))


def test_e_is_d_told_too_low_with_and_without_a_deviation(trace: Trace) -> None:
    found = of(trace, "e")
    assert {(float(np.sign(c.trace.current_a[0] - trace.current_a[0])), c.initial_soc_std) for c in found} == {
        (1.0, None), (1.0, 0.15), (-1.0, None), (-1.0, 0.15),
    }  # fmt: skip
    assert {(c.initial_soc, c.after_s) for c in found} == {(0.8, 3600.0)}


def test_f_is_every_sign_of_every_error(trace: Trace) -> None:
    found = of(trace, "f")
    signs = set()
    for c in found:
        slope, offset = np.polyfit(trace.current_a, c.trace.current_a, 1)
        error = c.trace.voltage_v - trace.voltage_v
        assert abs(slope - 1) == pytest.approx(0.005)
        assert abs(offset) == pytest.approx(0.02)
        assert abs(error.mean()) == pytest.approx(0.002, abs=1e-4)
        assert error.std() == pytest.approx(0.002, rel=0.05)
        signs.add((slope > 1, offset > 0, error.mean() > 0))
    assert len(signs) == len(found) == 8


def test_the_noise_depends_on_the_seed_alone(trace: Trace) -> None:
    a, b, c = (next(conditions(trace, 2.0, "f", seed)).trace.voltage_v for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_without_a_reference_nothing_can_be_judged(trace: Trace) -> None:
    with pytest.raises(ValueError, match="soc_true"):
        of(replace(trace, soc_true=None), "a")


def test_a_good_cell_file_is_robust(plain_cell: CellParameters, trace: Trace) -> None:
    found = judge(plain_cell, [("made", replace(trace, time_s=0.5 * (trace.time_s - 5)))], "ad")
    assert [r.condition.key for r in found] == ["a", "d", "d"]
    assert worst(found)["a"].rmse < 0.005
    assert worst(found)["a"].rmse < worst(found)["d"].rmse < 0.015
    assert worst(found)["d"].coverage > 0.99


def test_the_worst_of_everything_counts(trace: Trace) -> None:
    a, d = of(trace, "a")[0], of(trace, "d")[0]
    found = [
        Result("x", a, Score(0.01, 0.02, 1.0, 0.01)),
        Result("y", a, Score(0.005, 0.05, 0.9, 0.03)),
        Result("x", d, Score(0.03, 0.03, 0.95, 0.02)),
    ]
    assert worst(found) == {"a": Score(0.01, 0.05, 0.9, 0.02), "d": Score(0.03, 0.03, 0.95, 0.02)}
    assert calibration(found) == pytest.approx(0.02 / np.sqrt((1e-4 + 0.25e-4 + 9e-4) / 3))
