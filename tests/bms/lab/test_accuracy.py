"""The accuracy that is promised, on measured and computed laboratory data, with one tuning for all cells.

Cells are identified from the files of `bench/accuracy.py` and judged on its bars, for every combination of signs of the
sensor errors. A bar missed here is a promise broken: mend the model or the filter, not the bar.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bms.lab.conditions import Result, calibration, worst

SETS = {"a123": "a c+ c- d e f", "na_fast": "a d e f", "na": "a d f", "lfp": "a d f"}
CASES = [(name, key) for name, keys in SETS.items() for key in keys.split()]


@pytest.fixture(scope="session")
def bench(repository: Path) -> ModuleType:
    """`bench/accuracy.py`, which knows the files and the bars."""
    spec = importlib.util.spec_from_file_location("bench_accuracy", repository / "bench" / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def judged(shared_data: Path, bench: ModuleType) -> dict[str, list[Result]]:
    """All results of all sets; the cells are identified once."""
    return {name: bench.results(shared_data, name, bench.identified(shared_data, name)) for name in bench.SETS}


def test_every_bar_is_tested(bench: ModuleType) -> None:
    assert {name: " ".join(one.bars) for name, one in bench.SETS.items()} == SETS


@pytest.mark.parametrize(("name", "key"), CASES, ids=[f"{name} {key}" for name, key in CASES])
def test_the_error_stays_below_the_bar(judged: dict[str, list[Result]], bench: ModuleType, name: str, key: str) -> None:
    rmse, largest = bench.SETS[name].bars[key]
    results = [r for r in judged[name] if r.condition.key == key]
    assert len(results) >= len(bench.SETS[name].judged) * (8 if key == "f" else 1)
    found = worst(results)[key]
    assert 100 * found.rmse <= rmse, bench.table(name, results)
    assert 100 * found.max_error <= largest, bench.table(name, results)


@pytest.mark.parametrize("name", list(SETS))
def test_the_truth_lies_within_three_deviations(judged: dict[str, list[Result]], name: str) -> None:
    missed = [
        f"{r.name}, {r.condition.label}: {100 * r.score.coverage:.2f} %"
        for r in judged[name]
        if r.score.coverage < 0.99
    ]
    assert not missed


def test_the_deviations_are_neither_timid_nor_bold(judged: dict[str, list[Result]]) -> None:
    assert 0.5 <= calibration([r for results in judged.values() for r in results]) <= 3.0


def test_the_ohmic_resistance_is_even_where_no_current_step_shows_it(shared_data: Path, bench: ModuleType) -> None:
    """The A123 duties leave 90..100 % SoC at constant current; left free, R0 fell there to a hundredth at 45 degC."""
    r0_ohm = bench.identified(shared_data, "a123").r0_ohm
    assert np.all(r0_ohm.min(axis=1) > 0.7 * np.median(r0_ohm, axis=1))


def test_a_temperature_that_was_not_identified_stays_honest(shared_data: Path, bench: ModuleType) -> None:
    """25 degC left out, 20 K from the next dynamic test on both sides: within the bars, and the deviation knows."""
    left_out = "a123/dyn_P25.csv.gz"
    results = bench.results(shared_data, "a123", bench.identified(shared_data, "a123", (left_out,)), (left_out,))
    for key, found in worst(results).items():
        rmse, largest = bench.SETS["a123"].bars[key]
        assert found.coverage >= 0.99, bench.table("a123", results)
        assert 100 * found.rmse <= rmse, bench.table("a123", results)
        assert 100 * found.max_error <= largest, bench.table("a123", results)
