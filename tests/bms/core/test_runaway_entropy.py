"""Reversible heat of cells whose SoC differs: what of the heat at a sensor it explains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bms.core import runaway as r
from bms.core.faults import Fault
from bms.core.runaway_setup import runaway_config, runaway_state
from hal.contract import NO_INDEX

f4 = np.float32
HEAT = Fault.HEAT_RESIDUAL
V_PER_K = np.interp(np.linspace(0.0, 1.0, r.N_ENTROPY), [0.0, 0.1, 1.0], [-6e-4, -1e-4, -1e-4])
SENSOR, CELL = 2, 10  # a sensor, and one of its cells, 8 to 11
OBSERVER_S = 120.0
KELVIN = 298.15
AMPERE = 280.0


class Rack:
    """Six sensors of four cells each, at 25 degC and 1C of discharge; the cells are at 10 %."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.config = runaway_config(55.0, v_per_k=V_PER_K)
        self.state = runaway_state(6)
        r.runaway_init(self.state)
        bench.soc[:] = 0.1
        bench.head["current_a"] = AMPERE

    def run(self, seconds: float, dt_s: float = 1.0, sensors: bool = True) -> None:
        b = self.bench
        for _ in range(round(seconds / dt_s)):
            b.look(dt_s)
            if sensors:
                b.m.sensor_degc[:] = 25.0
            r.runaway_step(
                self.config, self.state, b.config, b.state, b.seen, f4(1), b.soc, b.values, b.places, f4(dt_s)
            )


@pytest.fixture
def rack(bench: Any) -> Rack:
    return Rack(bench)


def mean_v_per_k(rack: Rack) -> float:
    return float(np.interp(rack.bench.soc.mean(), np.linspace(0.0, 1.0, r.N_ENTROPY), V_PER_K))


@pytest.mark.parametrize("dt_s", [4.0, 30.0])
def test_the_reversible_heat_of_an_emptier_cell_is_that_of_bernardi(rack: Rack, dt_s: float) -> None:
    """- I T dU/dT, beyond that of the mean cell, at the sensor of that cell alone."""
    rack.bench.soc[CELL] = 0.02
    rack.run(1200.0, dt_s)
    exact_w = AMPERE * KELVIN * (mean_v_per_k(rack) + 5e-4)
    assert float(rack.state.reversible_w[SENSOR]) == pytest.approx(exact_w, rel=0.01)
    assert int(rack.state.far[SENSOR]) == CELL
    assert float(np.delete(rack.state.reversible_w, SENSOR).max()) == 0.0


def test_it_passes_two_lags_as_the_heat_does_that_is_observed(rack: Rack) -> None:
    """1 - (1 + t/T) exp(-t/T), and the same way down."""
    rack.bench.soc[CELL] = 0.02
    rack.run(20.0)
    rack.state.passing_w[:] = rack.state.reversible_w[:] = 0.0
    whole_w = AMPERE * KELVIN * (mean_v_per_k(rack) + 5e-4)
    rack.run(2 * OBSERVER_S, 2.0)
    assert float(rack.state.reversible_w[SENSOR]) == pytest.approx(whole_w * (1 - 3 * math.exp(-2)), rel=0.02)
    rack.bench.head["current_a"] = 0.0
    rack.run(2 * OBSERVER_S, 2.0)
    up, down = 1 - math.exp(-2), 1 - 3 * math.exp(-2)
    assert float(rack.state.reversible_w[SENSOR]) == pytest.approx(
        whole_w * (down * math.exp(-2) + up * 2 * math.exp(-2)), rel=0.03
    )


def test_what_it_gives_off_is_taken_off(rack: Rack) -> None:
    rack.bench.soc[CELL] = 0.02
    rack.run(600.0, 10.0)
    rack.state.heat_w[SENSOR] = 30.0
    rack.state.place_w[:] = 0.0
    rack.run(1e-3, 1e-3)
    own_w = float(rack.state.heat_w[SENSOR] - rack.state.number[r.MEAN_W])
    assert own_w - float(rack.state.reversible_w[SENSOR]) == pytest.approx(rack.bench.value(HEAT), abs=1e-3)
    assert float(rack.state.reversible_w[SENSOR]) > 20.0
    assert rack.bench.where(HEAT) == SENSOR


@pytest.mark.parametrize(("current_a", "soc"), [(AMPERE, 0.5), (-AMPERE, 0.02), (0.0, 0.02)])
def test_what_cools_or_does_nothing_explains_nothing(rack: Rack, current_a: float, soc: float) -> None:
    """Where the curve is straight, on charge, and at rest."""
    rack.bench.soc[CELL] = soc
    rack.bench.head["current_a"] = current_a
    rack.run(600.0, 10.0)
    assert float(rack.state.reversible_w[SENSOR]) < 0.1 * AMPERE * KELVIN * 5e-4


def test_the_cell_that_is_furthest_from_the_mean_counts(rack: Rack) -> None:
    """Whether it is emptier or fuller, wherever among the cells of its sensor, and until another is further."""
    rack.bench.soc[CELL], rack.bench.soc[CELL + 1], rack.bench.soc[0] = 0.05, 0.04, 0.2
    rack.run(30.0)
    assert (int(rack.state.far[SENSOR]), int(rack.state.far[0])) == (CELL + 1, 0)
    assert all(4 * sensor <= far < 4 * sensor + 4 for sensor, far in enumerate(rack.state.far))
    rack.bench.soc[CELL] = 0.03
    rack.run(10.0)
    assert int(rack.state.far[SENSOR]) == CELL
    assert float(rack.state.v_per_k[SENSOR]) == pytest.approx(-4.5e-4, rel=1e-3)


def test_of_two_that_are_as_far_the_one_that_was_furthest_stays(rack: Rack) -> None:
    rack.bench.soc[8:12] = 0.02
    rack.run(30.0)
    rack.state.far[SENSOR] = CELL
    rack.run(10.0)
    assert int(rack.state.far[SENSOR]) == CELL


@pytest.mark.parametrize("dt_s", [0.25, 1.0, 5.0])
def test_all_cells_are_asked_in_ten_seconds(rack: Rack, dt_s: float) -> None:
    rack.run(10.0 - dt_s, dt_s)
    assert math.isnan(float(rack.state.number[r.MEAN_SOC]))
    rack.run(2 * dt_s, dt_s)
    assert (rack.state.far != NO_INDEX).all()
    assert float(rack.state.number[r.MEAN_SOC]) == pytest.approx(0.1)
    assert float(rack.state.number[r.MEAN_V_PER_K]) == pytest.approx(-1e-4, rel=1e-3)


def test_a_long_step_asks_each_once(rack: Rack) -> None:
    rack.run(600.0, 600.0)
    assert float(rack.state.number[r.DUE]) == 0.0
    assert int(rack.state.next[0]) == 0
    assert float(rack.state.number[r.MEAN_SOC]) == pytest.approx(0.1)


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -math.inf, 1e30, 10.0])
def test_an_estimate_that_is_none_explains_nothing(rack: Rack, absurd: float) -> None:
    """Nor is it part of the mean, nor taken for the furthest of its sensor."""
    rack.bench.soc[CELL], rack.bench.soc[CELL + 1] = absurd, 0.05
    rack.run(600.0, 10.0)
    assert float(np.delete(rack.state.reversible_w, SENSOR).max()) == 0.0
    assert (int(rack.state.far[SENSOR]), math.isfinite(rack.bench.value(HEAT))) == (CELL + 1, True)
    exact_w = AMPERE * KELVIN * (float(rack.state.number[r.MEAN_V_PER_K]) + 3.5e-4)
    assert float(rack.state.reversible_w[SENSOR]) == pytest.approx(exact_w, rel=0.05)
    assert float(rack.state.number[r.MEAN_SOC]) == pytest.approx((22 * 0.1 + 0.05) / 23)
    rack.bench.soc[CELL] = 0.02
    rack.run(20.0)
    assert int(rack.state.far[SENSOR]) == CELL


def test_a_cell_whose_estimate_is_lost_gives_way_to_another(rack: Rack) -> None:
    rack.bench.soc[CELL] = 0.02
    rack.run(30.0)
    assert int(rack.state.far[SENSOR]) == CELL
    rack.bench.soc[CELL] = math.nan
    rack.run(10.0)
    assert int(rack.state.far[SENSOR]) != CELL


def test_without_any_estimate_there_is_no_mean(rack: Rack) -> None:
    rack.bench.soc[:] = math.nan
    rack.run(60.0)
    assert math.isnan(float(rack.state.number[r.MEAN_V_PER_K]))
    assert float(rack.state.reversible_w.max()) == 0.0
    assert math.isfinite(rack.bench.value(HEAT))


@pytest.mark.parametrize(
    ("soc", "v_per_k"), [(-0.5, -6e-4), (0.0, -6e-4), (0.025, -4.75e-4), (1.0, -1e-4), (1.5, -1e-4)]
)
def test_entropy_is_linear_between_its_nodes_and_flat_beyond(rack: Rack, soc: float, v_per_k: float) -> None:
    assert float(r._v_per_k(rack.config, f4(soc))) == pytest.approx(v_per_k, rel=1e-5)


@pytest.mark.parametrize(("soc", "v_per_k"), [(0.0, 2e-4), (0.025, 1e-4), (0.975, 2e-4), (1.0, 4e-4)])
def test_entropy_may_bend_up_to_either_end(soc: float, v_per_k: float) -> None:
    bent = np.zeros(r.N_ENTROPY)
    bent[[0, -1]] = 2e-4, 4e-4
    config = runaway_config(55.0, v_per_k=bent)
    assert float(r._v_per_k(config, f4(soc))) == pytest.approx(v_per_k, rel=1e-4)


@pytest.mark.parametrize("soc", [math.nan, math.inf, -math.inf, 10.0, -10.0])
def test_an_soc_that_is_none_has_no_entropy(rack: Rack, soc: float) -> None:
    assert math.isnan(r._v_per_k(rack.config, f4(soc)))
