"""Fits at single temperatures become one cell file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from bms.cells import CellParameters, parse
from bms.cells.writer import dump
from bms.lab import fit as f
from bms.lab.assemble import LIMITS, _slow_nodes, assemble, expected_error, group, predict
from bms.lab.curves import Slow, read_dynamic, read_slow
from bms.lab.estimate import estimate, score
from bms.lab.trace import Trace

Columns = dict[str, np.ndarray]


def dummy(degc: float, name: str) -> f.Dynamic:
    n = np.zeros(3)
    return f.Dynamic(name, n, n, n, degc, n, n)


def test_tests_of_one_temperature_come_together() -> None:
    groups = group([dummy(25.3, "c"), dummy(-5.0, "a"), dummy(23.9, "b"), dummy(45.0, "d")])
    assert [[t.name for t in g] for g in groups] == [["a"], ["b", "c"], ["d"]]
    assert [t.degc for t in groups[1]] == [24.6, 24.6]


@pytest.fixture(scope="module")
def tests_at(
    plain_cell: CellParameters, slow: Callable[..., Columns], dynamic: Callable[..., Columns]
) -> Callable[[Sequence[float]], tuple[list[Slow], list[f.Dynamic]]]:
    def make(temperatures: Sequence[float]) -> tuple[list[Slow], list[f.Dynamic]]:
        slows = [read_slow(f"slow {t:g}", slow(plain_cell, t)) for t in temperatures]
        return slows, [read_dynamic(f"duty {t:g}", dynamic(plain_cell, t), slows[0])[0] for t in temperatures]

    return make


@pytest.fixture(scope="module")
def two_temperatures(tests_at: Callable[..., tuple[list[Slow], list[f.Dynamic]]]) -> tuple[CellParameters, list[str]]:
    slows, tests = tests_at([0.0, 25.0])
    return assemble(slows, tests, name="made", chemistry="lfp", source="the tests")


def test_the_result_is_a_cell_file(two_temperatures: tuple[CellParameters, list[str]]) -> None:
    import tomllib

    cell, warnings = two_temperatures
    assert warnings == []
    assert parse(tomllib.loads(dump(cell)), "made").degc.tolist() == [0.0, 25.0]
    assert cell.capacity_ah == pytest.approx(2.0, rel=1e-3)
    assert (cell.limits.degc_min_charge, cell.limits.max_charge_c) == (LIMITS["lfp"][0], LIMITS["lfp"][3])


def test_the_cell_is_the_one_that_was_tested(
    two_temperatures: tuple[CellParameters, list[str]], plain_cell: CellParameters
) -> None:
    cell, _ = two_temperatures
    for degc in (0.0, 25.0):
        for soc in (0.15, 0.3, 0.5, 0.7, 0.9):
            assert cell.ocv(soc, degc) == pytest.approx(plain_cell.ocv(soc, degc), abs=2e-3)
    total, expected = (c.r0_ohm + c.rct_ohm + c.r_ohm.sum(axis=0) for c in (cell, plain_cell))
    k = cell.soc_r.size // 2
    assert total[0, k] / total[1, k] == pytest.approx(expected[0, 2] / expected[1, 2], rel=0.1)


def test_it_predicts_a_duty_that_it_has_not_seen(
    two_temperatures: tuple[CellParameters, list[str]], plain_cell: CellParameters, dynamic: Callable[..., Columns]
) -> None:
    d = dynamic(plain_cell, 25.0, seed=7)
    other = f.Dynamic("other", d["time_s"], d["current_a"], d["voltage_v"], 25.0, d["soc_true"], d["temperature_degc"])
    error = (other.voltage_v - predict(two_temperatures[0], other))[other.soc > 0.1]
    assert np.sqrt(np.mean(error**2)) < 4e-3
    trace = Trace(other.time_s, other.current_a, other.voltage_v, other.temperature_degc, other.soc)
    s = score(trace, estimate(trace, two_temperatures[0], 1.0))
    assert s.rmse < 0.01
    assert s.coverage > 0.99


def test_one_temperature_is_enough_and_says_what_it_cannot_know(
    tests_at: Callable[..., tuple[list[Slow], list[f.Dynamic]]],
) -> None:
    cell, warnings = assemble(*tests_at([25.0]), name="made", chemistry="nmc", source="the tests")
    assert cell.degc.tolist() == [5.0, 25.0, 45.0]
    assert len(warnings) == 1
    assert "one temperature only (25 degC)" in warnings[0]
    k = cell.soc_r.size // 2
    np.testing.assert_allclose(cell.r0_ohm[0, k] / cell.r0_ohm[1, k], float(f.arrhenius(5.0, 25.0)), rtol=1e-6)
    np.testing.assert_array_equal(cell.capacity, cell.capacity[:1].repeat(3))
    assert cell.voltage_error_v[0] > cell.voltage_error_v[1], "far from a test, less is certain"
    assert cell.voltage_error_v[2] > cell.voltage_error_v[1]


def test_without_a_slow_charge_hysteresis_is_none_and_that_is_said(
    tests_at: Callable[..., tuple[list[Slow], list[f.Dynamic]]],
) -> None:
    slows, tests = tests_at([25.0])
    one_way = [Slow(s.name, s.degc, s.rate_c, s.capacity_ah, s.discharge_v, None, s.v_low, s.v_high) for s in slows]
    cell, warnings = assemble(one_way, tests, name="made", chemistry="lfp", source="the tests")
    assert any("no slow charge in slow 25: hysteresis unknown" in w for w in warnings)
    assert np.max(cell.hysteresis_v) <= 1e-4 + 1e-9


def test_a_slow_test_where_no_duty_was_driven_adds_a_temperature(
    tests_at: Callable[..., tuple[list[Slow], list[f.Dynamic]]], plain_cell: CellParameters
) -> None:
    slows, tests = tests_at([0.0, 25.0])
    cell, _ = assemble(slows, tests[1:], name="made", chemistry="lfp", source="the tests")
    assert cell.degc.tolist() == [0.0, 25.0]
    assert cell.voltage_error_v[0] > cell.voltage_error_v[1]
    assert cell.ocv(0.5, 0.0) < cell.ocv(0.5, 25.0) + 1e-3


def test_the_slowest_of_two_tests_counts() -> None:
    v = np.linspace(3, 4, f.SOC_OCV.size)
    at = {
        name: Slow(name, degc, rate, 2.0, v, None, 3.0, 4.0)
        for name, degc, rate in (("fast", 26.0, 0.09), ("slow", 25.0, 0.03), ("cold", 0.0, 0.05))
    }
    assert [s.name for s in _slow_nodes(list(at.values()))] == ["cold", "slow"]


def test_tests_that_contradict_each_other_raise_the_expected_error(
    tests_at: Callable[..., tuple[list[Slow], list[f.Dynamic]]],
) -> None:
    """One of two equal duties reads 10 mV high: the fit halves that (5 mV each), the prediction from the other has it whole."""
    slow, (test,) = tests_at([25.0])
    high = replace(test, name="high", voltage_v=test.voltage_v + 0.010)
    base_v, gap_v = slow[0].base_v, slow[0].half_gap_v
    both = f.fit_temperature([test, high], base_v, hysteresis_max_v=gap_v)
    own = f.slow_error([test, high], both.residual_v)
    assert own == pytest.approx(0.005, rel=0.2)
    expected = expected_error([test, high], both, base_v, gap_v, f.BENDS_C[-1])
    assert expected == pytest.approx(np.sqrt(0.5 * (0.005**2 + 0.010**2)), rel=0.2)
    alone = f.fit_temperature([test], base_v, hysteresis_max_v=gap_v)
    assert expected_error([test], alone, base_v, gap_v, f.BENDS_C[-1]) == f.slow_error([test], alone.residual_v)
