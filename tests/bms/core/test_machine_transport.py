"""To transport at 0 V, and back."""

from __future__ import annotations

import math

import pytest

from bms.core import machine as m
from bms.core.faults import Context, Fault
from bms.core.jit import f4
from bms.core.machine_context import machine_context
from bms.core.machine_setup import MachineSettings
from bms.core.machine_table import Limits, Node, Request
from hal.contract import NO_INDEX

from .machine_rig import (
    NEGATIVE,
    POSITIVE,
    Rig,
    config_for,
    connected,
)


def test_transport_there_and_back() -> None:
    rig = connected()
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    assert rig.state.word[m.DRAIN] == 1
    assert rig.state.word[m.TRANSPORTED] == 1
    rig.cell_v = 0.095  # the highest at 0.105 V, above transport_v
    rig.hold(Request.TRANSPORT, 15.0)
    assert rig.node == Node.TRANSPORT_DRAIN
    rig.cell_v = 0.05
    assert rig.run(Request.TRANSPORT, Node.TRANSPORT) == pytest.approx(10.0, abs=0.2)  # transport_settle_s
    assert rig.state.word[m.DRAIN] == 1
    rig.hold(Request.OPEN, 5.0)
    assert rig.node == Node.TRANSPORT
    rig.run(Request.CONNECT, Node.TRANSPORT_CHARGE)
    assert rig.asked == POSITIVE | NEGATIVE
    assert rig.state.word[m.LIMITS] == Limits.TRANSPORT_CHARGE
    assert rig.state.word[m.DRAIN] == 0
    rig.cell_v = 1.55  # the lowest at 1.54 V, below v_min + transport_margin_v
    rig.hold(Request.CONNECT, 100.0)
    assert rig.node == Node.TRANSPORT_CHARGE
    rig.cell_v = 1.57
    assert rig.run(Request.CONNECT, Node.CONNECTED) == pytest.approx(60.0, abs=0.3)  # transport_filled_s
    assert rig.state.word[m.TRANSPORTED] == 0
    assert rig.state.word[m.LIMITS] == Limits.FULL


def test_transport_that_is_broken_off_returns_to_transport() -> None:
    rig = connected()
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    rig.cell_v = 0.5  # outside the window, not yet empty
    rig.hold(Request.OPEN, 5.0)
    assert rig.node == Node.TRANSPORT_DRAIN  # there are two ways out: down to 0 V, or charged
    rig.run(Request.CONNECT, Node.TRANSPORT_CHARGE)
    rig.run(Request.OPEN, Node.TRANSPORT_DRAIN)
    assert rig.path[-5:-1] == [Node.TRANSPORT_CHARGE, Node.RAMP_DOWN, Node.OPENING, Node.WELD_TEST]
    rig.cell_v = 2.0  # somebody charged them
    rig.hold(Request.TRANSPORT, 5.0)
    assert rig.node == Node.TRANSPORT_DRAIN
    assert rig.step(Request.OPEN) == Node.STANDBY
    assert rig.state.word[m.TRANSPORTED] == 0


def test_transport_charge_that_never_ends_is_tried_no_more_than_the_attempts() -> None:
    rig = Rig(cell_v=0.5, dt_s=1.0)
    rig.state.word[m.TRANSPORTED] = 1
    rig.hold(Request.CONNECT, 5000.0)
    assert rig.path.count(Node.TRANSPORT_CHARGE) == 3
    assert rig.node == Node.TRANSPORT_DRAIN


def test_transport_is_for_cells_that_bear_it() -> None:
    rig = Rig(config=config_for(MachineSettings(transport_allowed=False)))
    rig.hold(Request.TRANSPORT, 5.0)
    assert rig.node == Node.STANDBY


def test_a_start_in_transport_looks_at_no_window() -> None:
    rig = Rig(cell_v=0.02)
    rig.state.word[m.TRANSPORTED] = 1  # from the store
    assert machine_context(rig.state, 0) & Context.WINDOW == 0
    rig.run(Request.OPEN, Node.TRANSPORT)
    assert rig.path == [Node.INIT, Node.SELF_TEST, Node.TRANSPORT_DRAIN, Node.TRANSPORT]


def test_transport_values() -> None:
    rig = Rig(cell_v=0.02)
    rig.state.word[m.TRANSPORTED] = 1
    reversed_, high = Fault.TRANSPORT_REVERSED, Fault.TRANSPORT_VOLTAGE
    rig.run(Request.OPEN, Node.TRANSPORT_DRAIN)
    assert (rig.at(high), rig.where[high]) == (0.0, NO_INDEX)  # not at rest yet
    rig.run(Request.OPEN, Node.TRANSPORT)
    rig.step()
    assert (rig.at(reversed_), rig.where[reversed_]) == (pytest.approx(0.01), 17)
    assert (rig.at(high), rig.where[high]) == (pytest.approx(0.03), 18)
    rig.lost = frozenset({"cell_v_low", "cell_v_high"})
    rig.step()
    assert math.isnan(rig.at(reversed_))
    assert math.isnan(rig.at(high))
    assert rig.where[reversed_] == rig.where[high] == NO_INDEX
    rig.lost = frozenset()
    rig.run(Request.CONNECT, Node.TRANSPORT_CHARGE)
    rig.step(Request.CONNECT)
    assert rig.at(reversed_) == pytest.approx(0.01)
    # a cell that stays at 0.3 V with the mean at v_min counts as reversed by 0.2 V
    seen = rig.seen(0.0)._replace(cell_v_low=f4(0.3), cell_v_mean=f4(1.5))
    m.machine_signals(rig.config, rig.state, seen, 1, rig.value, rig.where, f4(0.1))
    assert rig.at(reversed_) == pytest.approx(-0.2)
