"""Sodium-ion cells down to 0 V and a little beyond: what the rack does there stays a number, and bounded."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hal.contract import COMMAND, MEASUREMENT
from sim import cell, link
from sim import electronics as E
from sim import layout as Y
from sim.rack import RackTwin, rack_config
from sim.site import Site

NO_LIMIT = np.full(4, 1e12)


def make(soc: float, **table: Any) -> RackTwin:
    data = cell.load("na_185")
    rack = RackTwin(data, rack_config(data, {"n_series": 9, **table}))
    rack.cells[Y.C_SOC] = soc + 0.002 * np.linspace(-1, 1, rack.n_cells)
    rack.settle()
    rack._start_j = rack.stored_j()  # the books begin here
    return rack


def check(rack: RackTwin) -> None:
    for values in (rack.bank.cells, rack.bank.groups, rack.bank.work):
        assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(np.delete(rack.string, [Y.S_FORCED_A, Y.S_EVENT_A])))


def test_below_empty_the_voltage_runs_on_along_its_last_slope() -> None:
    """Some 46 V per unit of SoC between 0 and 0.4 %: 1.53 V at 0, 0 V 3.3 % below."""
    volts = [float(make(soc).levels[Y.V_NOW, 4]) for soc in (0.001, 0.0, -0.01, -0.02, -0.033, -0.05)]
    assert volts[1] == pytest.approx(1.53, abs=0.03)
    slopes = np.diff(volts) / np.diff([0.001, 0.0, -0.01, -0.02, -0.033, -0.05])
    np.testing.assert_allclose(slopes[1:], slopes[1], rtol=1e-9)
    assert slopes[1] == pytest.approx(46.0, rel=0.1)
    assert volts[-1] < -0.5


def test_bleeding_reaches_0_v_and_the_books_close() -> None:
    rack = make(-0.005, bleed_ohm=0.5)  # the last slope is one of 666,000 As / 46 V = 14 kF: 2 h
    rack.set_balance(np.ones(9, np.uint8))
    for _ in range(40):
        rack.advance(Y.OPEN, np.zeros(600), False, NO_LIMIT, 1.0)
        check(rack)
    assert np.all(np.abs(rack.levels[Y.V_NOW]) < 0.05)
    books = rack.balance()
    assert abs(books.residual_j) < 1e-6 * books.bleed_j
    assert books.bleed_j > 1e3


def test_a_reversed_cell_in_a_discharged_string() -> None:
    rack = make(0.02, initial_degc=20.0)
    rack.cells[Y.C_SOC, 4] = -0.02
    rack.settle()
    rack.advance(Y.CLOSED, np.full(900, 20.0), True, NO_LIMIT, 1.0)
    check(rack)
    assert rack.levels[Y.V_NOW, 4] < -0.5
    assert rack.levels[Y.V_NOW, 0] > 0.5
    rack.advance(Y.CLOSED, np.full(900, -20.0), True, NO_LIMIT, 1.0)
    assert rack.levels[Y.V_NOW, 4] > 0.0
    check(rack)


@given(
    soc=st.floats(-0.08, 0.01),
    request=st.one_of(st.floats(-1e6, 1e6), st.just(0.0)),
    in_ampere=st.booleans(),
    path=st.sampled_from([Y.OPEN, Y.PRECHARGE, Y.CLOSED]),
    bus_v=st.floats(0.0, 1400.0),
    dt_s=st.sampled_from([0.01, 0.1, 1.0]),
    limit_a=st.sampled_from([0.0, 5.0, 200.0]),
    limit_w=st.sampled_from([0.0, 100.0, 1e6]),
)
@example(soc=-0.0625, request=-1.0, in_ampere=False, path=2, bus_v=0.0, dt_s=0.01, limit_a=200.0, limit_w=100.0)
@settings(max_examples=200)
def test_whatever_is_asked_of_an_empty_pack_is_answered_by_numbers_within_the_limits(
    soc: float, request: float, in_ampere: bool, path: int, bus_v: float, dt_s: float, limit_a: float, limit_w: float
) -> None:
    rack = make(soc)
    rack.string[Y.S_BUS_V] = bus_v if path == Y.PRECHARGE else max(rack.string[Y.S_PACK_V], 0.0)
    limits = np.array([limit_a, limit_a, limit_w, limit_w])
    rack.advance(path, np.full(3, request), in_ampere, limits, dt_s)
    check(rack)
    assert abs(rack.string[Y.S_PCS_A]) <= limit_a
    assert abs(rack.string[Y.S_PCS_A] * rack.string[Y.S_BUS_V]) <= limit_w * (1 + 1e-9) + 1e-9


@given(e=st.floats(-2000, 2000), r=st.floats(1e-4, 10.0), watt=st.floats(-1e7, 1e7))
def test_the_current_for_a_power_is_a_number_and_draws_nothing_from_a_reversed_source(
    e: float, r: float, watt: float
) -> None:
    amp = link.current_for(e, r, watt)
    assert not np.isnan(amp)
    if watt >= 0.0:
        assert 0.0 <= amp <= max(e, 0.0) / (2 * r) * (1 + 1e-9)
    else:
        assert amp <= 0.0


def test_out_of_0_v_by_precharge_and_a_small_current() -> None:
    """A pack at 0 V goes on the link through its precharge, then takes a small constant current."""
    tables = {
        "rack": {"n_series": 9, "cells_per_sensor": 3, "watchdog_s": 1e9},
        "duty": {"kind": "constant", "current_a": -9.0},
        "sensors": {"ideal": True},
    }
    site = Site("na_185", tables)
    record, commands = np.zeros(1, MEASUREMENT.dtype(9, 3)), np.zeros(1, COMMAND.dtype(9, 3))
    site.attach(record, commands)
    rack = site.twin()
    rack.cells[Y.C_SOC] = -0.034
    rack.settle()
    site.start(0.0)
    head, asked = record["head"], commands["head"]
    assert abs(record["cell_v"]).max() < 0.2
    assert not record["cell_v_quality"].any()  # 0 V is in the range of the front-ends, and so is a little less
    asked["cooling_degc"] = 25.0
    asked["contactors"] = E.MAIN_NEGATIVE | E.PRECHARGE
    assert site.command() == (-1, 0)
    site.run(5.0)
    assert head["bus_v"][0] == pytest.approx(head["pack_v"][0], abs=0.1)
    asked["contactors"] = E.MAINS
    asked["limit_charge_a"], asked["limit_charge_w"] = 20.0, 1e5
    assert site.command() == (-1, 0)
    site.run(1.0)
    assert head["current_a"][0] == pytest.approx(-9.0, abs=0.1)
    site.run(3600.0)
    assert head["current_a"][0] == pytest.approx(-9.0, abs=0.1)
    assert record["cell_v"].min() > 1.5
    assert not site.events
    check(rack)
