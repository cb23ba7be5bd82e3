"""Broken sense wires: told by voltages alone, and where the charge of the cells explains what looks like one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import open_wire as w
from bms.core.faults import Fault
from bms.core.first_look import ocv
from bms.core.signals_layout import CALM, USABLE

f4 = np.float32


def use_of(n: int, *without: int) -> Any:
    use = np.full(n, USABLE | CALM, np.uint8)
    use[list(without)] = 0
    return use


@pytest.mark.parametrize(
    ("deviation", "value"),
    [
        ((0.5, -0.5), 0.5),  # the border between the two has drifted
        ((0.5, -0.3), 0.3 - 0.2),  # 0.2 V are not common
        ((0.5, 0.5), 0.0),  # both high is no open wire
        ((0.5, 0.0), 0.0),
        ((-0.4, 0.4), 0.4),
    ],
)
def test_an_open_wire_sets_neighbours_apart_in_opposite_directions(
    deviation: tuple[float, float], value: float
) -> None:
    v = np.full(10, 3.3, np.float32)
    v[4:6] += deviation
    seen, at = w.open_wire(v, use_of(10), f4(3.3))
    assert float(seen) == pytest.approx(value, abs=1e-5)
    assert at == (4 if value > 0 else at)


def test_of_equally_open_wires_the_first_is_named() -> None:
    v = np.full(10, 3.25, np.float32)
    v[[2, 7]] += f4(0.5)
    v[[3, 8]] -= f4(0.5)
    assert w.open_wire(v, use_of(10), f4(3.25)) == (0.5, 2)


@pytest.mark.parametrize("pair", range(9))
def test_every_pair_of_neighbours_is_looked_at(pair: int) -> None:
    v = np.full(10, 3.25, np.float32)
    v[pair : pair + 2] += np.float32([0.25, -0.25])
    assert w.open_wire(v, use_of(10), f4(3.25)) == (0.25, pair)


def test_of_a_wire_between_cells_that_are_bled_less_is_told() -> None:
    v = np.array([3.25, 3.75, 2.75, 3.25], np.float32)
    for bled in ([1], [2], [0, 1, 2, 3]):
        use = use_of(4)
        use[bled] = USABLE
        seen, at = w.open_wire(v, use, f4(3.25))
        assert (float(seen), at) == (pytest.approx(0.4), 1)
    use = use_of(4)
    use[0] = USABLE
    assert w.open_wire(v, use, f4(3.25)) == (0.5, 1)


def test_an_open_wire_next_to_a_lost_cell_is_not_judged() -> None:
    v = np.array([3.3, 3.8, 2.8, 3.3], np.float32)
    assert w.open_wire(v, use_of(4, 2), f4(3.3))[0] == 0.0
    seen, at = w.open_wire(v, use_of(4, 1, 3), f4(3.3))
    assert math.isnan(seen)
    assert at == -1
    assert math.isnan(w.open_wire(v, use_of(4), f4(math.nan))[0])
    assert w.open_wire(v, use_of(4, 0, 1), f4(3.3)) == (0.0, -1)  # the last two can be judged


LOW, HIGH, MEAN = 0.05, 0.18, 0.115


def near_empty(make_signals: Any, wire_v: float = 0.0) -> tuple[Any, ...]:
    """Arguments of `open_wire_beyond`: cells 4 and 5 of ten have `LOW` and `HIGH` SoC, the others `MEAN`."""
    bench = make_signals()
    nodes = bench.estimator.nodes
    soc = np.full(10, MEAN, np.float32)
    soc[4:6] = LOW, HIGH
    v = np.array([ocv(nodes, 0, f4(z)) for z in soc], np.float32)
    v[6:8] += np.float32([wire_v, -wire_v])
    return v, use_of(10), f4(v[0]), nodes, 0, soc, f4(MEAN)


def test_what_the_charge_of_the_cells_explains_is_no_broken_wire(make_signals: Any) -> None:
    """At 5 and 18 % the curve is steep."""
    given = near_empty(make_signals)
    apart_v, at = w.open_wire(*given[:3])
    assert at == 4
    assert float(apart_v) > 0.02
    assert w.open_wire_beyond(*given)[0] == pytest.approx(0.0, abs=1e-5)


def test_beside_them_a_broken_wire_is_found(make_signals: Any) -> None:
    assert w.open_wire_beyond(*near_empty(make_signals, 0.3)) == (pytest.approx(0.3, abs=1e-5), 6)


def test_no_more_than_a_tenth_of_the_charge_is_believed(make_signals: Any) -> None:
    """What a filter has made of a broken wire may be anything."""
    v, use, mean_v, nodes, row, soc, mean_soc = near_empty(make_signals)
    soc[4:6] = -1.0, 1.0
    v[4:6] = mean_v - 0.6, mean_v + 0.6
    low_v, high_v = (abs(float(ocv(nodes, row, f4(MEAN + off)) - mean_v)) for off in (-0.1, 0.1))
    expected_v = min(0.6 - low_v, 0.6 - high_v) - abs(high_v - low_v)
    assert w.open_wire_beyond(v, use, mean_v, nodes, row, soc, mean_soc) == (pytest.approx(expected_v, abs=1e-5), 4)


def test_without_an_estimate_nothing_is_explained(make_signals: Any) -> None:
    v, use, mean_v, nodes, row, soc, mean_soc = near_empty(make_signals, 0.4)
    soc[:] = math.nan
    v[4:6] = mean_v
    for known in (mean_soc, f4(math.nan)):
        assert w.open_wire_beyond(v, use, mean_v, nodes, row, soc, known) == (pytest.approx(0.4, abs=1e-5), 6)


ALIKE_V = 3.25


def alike(make_signals: Any, deviation: dict[int, float], *lost: int) -> tuple[float, int]:
    """`open_wire_beyond` of ten cells of the same charge, some apart from the mean by so much, some not read."""
    v = np.full(10, ALIKE_V, np.float32)
    for k, apart_v in deviation.items():
        v[k] += f4(apart_v)
    model_v = np.full(10, ALIKE_V, np.float32)
    nodes = make_signals().estimator.nodes
    apart_v, at = w.open_wire_beyond(v, use_of(10, *lost), f4(ALIKE_V), nodes, 0, model_v, f4(0.5))
    return float(apart_v), int(at)


def test_beyond_the_charge_every_pair_of_neighbours_is_looked_at(make_signals: Any) -> None:
    assert alike(make_signals, {}) == (0.0, -1)
    for pair in range(9):
        assert alike(make_signals, {pair: 0.25, pair + 1: -0.25}) == (0.25, pair)


def test_beyond_the_charge_the_first_of_equally_open_wires_is_named(make_signals: Any) -> None:
    assert alike(make_signals, {2: 0.25, 3: -0.25, 7: 0.25, 8: -0.25}) == (0.25, 2)


@pytest.mark.parametrize("lost", [4, 5])
def test_beyond_the_charge_a_wire_next_to_a_lost_cell_is_not_judged(make_signals: Any, lost: int) -> None:
    assert alike(make_signals, {4: 0.25, 5: -0.25}, lost) == (0.0, -1)


def test_a_model_of_a_hundred_volts_is_none(make_signals: Any) -> None:
    """Damaged memory; nothing else is taken for an estimate either."""
    v, use, mean_v, nodes, row, model_v, mean_soc = near_empty(make_signals, 0.4)
    v[4:6] = mean_v
    model_v[:] = 3.2
    model_v[6] = 100.0
    assert w.open_wire_beyond(v, use, mean_v, nodes, row, model_v, mean_soc) == (pytest.approx(0.4, abs=1e-5), 6)


def test_the_only_estimate_there_is_explains_nothing(make_signals: Any) -> None:
    """It is compared with the mean of those that are known, which is itself."""
    v, use, mean_v, nodes, row, model_v, mean_soc = near_empty(make_signals, 0.4)
    v[4:6] = mean_v
    model_v[:] = math.nan
    model_v[6] = 3.2
    assert w.open_wire_beyond(v, use, mean_v, nodes, row, model_v, mean_soc) == (pytest.approx(0.4, abs=1e-5), 6)


def test_the_controller_takes_off_what_the_charge_explains(make_signals: Any) -> None:
    bench = make_signals()
    low_v, high_v = 0.3, 0.3
    bench.m.cell_v[6:8] = 3.3 - low_v, 3.3 + high_v
    bench.look()
    told_v = bench.value(Fault.OPEN_SENSE_WIRE)
    bench.soc[6:8] -= np.float32([0.4, -0.4])
    bench.judge()
    assert 0.0 < bench.value(Fault.OPEN_SENSE_WIRE) < told_v
    assert bench.where(Fault.OPEN_SENSE_WIRE) == 6


@pytest.mark.parametrize(("risen_v", "explained_v"), [(0.0, 0.0), (0.05, 0.05), (0.15, 0.16), (0.8, 0.875)])
def test_a_neighbour_that_rises_explains_a_little_more_than_that(risen_v: float, explained_v: float) -> None:
    assert float(w.explained_by(f4(risen_v))) == pytest.approx(explained_v)
