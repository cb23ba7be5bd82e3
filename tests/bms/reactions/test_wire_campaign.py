"""Faults of the wire at 1 %, 10 % and 100 %, under the whole controller on the twin: see `wire_campaign`."""

from __future__ import annotations

import math
from typing import Any

import pytest
from wire_campaign import FATAL, RATES, SEEN_OPEN, Campaign

from bms.core.faults import Fault
from hal.backends.alive import AFTER_S, Alive
from hal.backends.chaos_wire import KINDS, WireFaults
from hal.contract import RackState

F = Fault
KINDS_OF_RACKS = ("lfp_280", "na_185", "nmc_ev")
CONNECTED_S, FOR_S = 40.0, 120.0

BEARS = ("drop", "delay", "duplicate", "reorder", "stale", "freeze", "bus_off", "exception")
"""Faults that must not cost the use of the rack at 1 %: nothing that arrives is wrong by more than a sample."""


LOST = ("sample_lost", "cell_voltage_lost", "current_lost", "pack_voltage_lost", "temperature_lost", "feedback_lost")


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_use_on_bad_data_and_back_again(kind: str, rate: float, trial: Any) -> None:
    for seed in (1, 2):
        campaign = Campaign(trial, seed)
        assert campaign.run(CONNECTED_S).state == RackState.CONNECTED
        campaign.chaos.inject(wire=WireFaults(**{kind: rate}))
        campaign.run(CONNECTED_S + FOR_S)
        campaign.check_budgets()
        opened = campaign.opened_by()
        if rate == 1.0 and kind == "freeze":
            assert opened == F.CELL_VOLTAGE_FROZEN
        elif rate == 1.0:
            assert (opened in SEEN_OPEN[kind]) if kind in SEEN_OPEN else opened is None
        elif rate == 0.01 and kind in BEARS:
            assert opened is None
            assert min(m.discharge_a for m in campaign.t.log[40:]) > 0.0
        campaign.check_recovery()


@pytest.mark.parametrize("kind", sorted(SEEN_OPEN))
def test_nothing_closes_where_every_frame_is_bad(kind: str, trial: Any) -> None:
    campaign = Campaign(trial, wire=WireFaults(**{kind: 1.0}), unknown=True, echo=True, initial_soc=0.5)
    campaign.run(CONNECTED_S + FOR_S)
    assert not any(m.asked for m in campaign.t.log)
    assert not any(m.path for m in campaign.t.log)


@pytest.mark.parametrize("rate", [0.01, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_closes_on_bad_data_while_the_wire_is_poor(kind: str, rate: float, trial: Any) -> None:
    """From the first reading on: when a contactor is asked to close no channel is old, or wrong but for a moment."""
    for seed in range(1, 6):
        campaign = Campaign(trial, seed, WireFaults(**{kind: rate}), unknown=True, echo=True, initial_soc=0.5)
        campaign.run(CONNECTED_S + FOR_S)
        campaign.check_budgets()


@pytest.mark.parametrize("kind", ["drop", "stale", "bus_off", "exception"])
def test_an_overload_behind_a_dead_wire_ends_in_time(kind: str, trial: Any) -> None:
    """The inverter disregards the limits just when nothing is heard any more."""
    wrong = {"kind": "pcs_ignores_limits", "at_s": CONNECTED_S, "value": 340.0}
    campaign = Campaign(trial, faults=[wrong])
    campaign.run(CONNECTED_S)
    campaign.chaos.inject(wire=WireFaults(**{kind: 1.0}))
    campaign.run(CONNECTED_S + FOR_S)
    campaign.check_budgets()
    last = [m for m in campaign.t.log if m.path][-1]
    row = campaign.t.row(F.SAMPLE_LOST, FATAL)
    assert last.time_s - CONNECTED_S <= row.ftti_s
    assert math.isclose(campaign.t.log[-1].true_a, 0.0, abs_tol=1.0)


@pytest.mark.parametrize("kind", ["delay", "duplicate", "reorder"])
def test_an_overload_seen_late_is_as_much_later_as_the_wire(kind: str, trial: Any) -> None:
    opened_s = []
    for wire in (WireFaults(), WireFaults(**{kind: 1.0})):
        wrong = {"kind": "pcs_ignores_limits", "at_s": CONNECTED_S + 20.0, "value": 340.0}
        campaign = Campaign(trial, faults=[wrong])
        campaign.run(CONNECTED_S)
        campaign.chaos.inject(wire=wire)
        campaign.run(CONNECTED_S + 60.0)
        assert campaign.opened_by() == F.DISCHARGE_CURRENT
        opened_s.append(next(m.time_s for m in campaign.t.log[41:] if m.asked == 0))
    assert 0.0 <= opened_s[1] - opened_s[0] <= 1.0 + 1e-6  # a sample


def test_the_budgets_bite(trial: Any) -> None:
    """A controller that waits ten minutes for what is lost fails the campaign."""
    late = {
        name: {tier: {"threshold": 600.0 + k} for k, tier in enumerate(("info", "warning", "fatal"))} for name in LOST
    }
    campaign = Campaign(trial, controller={"fault": late})
    campaign.t.rows = Campaign(trial).t.rows
    campaign.run(CONNECTED_S)
    campaign.chaos.inject(wire=WireFaults(drop=1.0))
    campaign.run(CONNECTED_S + FOR_S)
    with pytest.raises(AssertionError):
        campaign.check_budgets()


@pytest.mark.parametrize("kind", KINDS_OF_RACKS)
def test_an_overload_behind_a_wire_that_is_frozen_as_a_whole_ends_in_time(kind: str, trial: Any) -> None:
    """The values of a rack that stands still as a whole contradict nothing; but noise moves none, as `alive+` sees first."""
    seen = {}
    for watched in (False, True):
        wrong_a = 1.15 * trial(kind=kind).settings.basis.discharge_a
        wrong = {"kind": "pcs_ignores_limits", "at_s": CONNECTED_S, "until_s": CONNECTED_S + FOR_S, "value": wrong_a}
        campaign = Campaign(trial, kind=kind, duty={"c_rate": 0.2}, faults=[wrong])
        if watched:
            campaign.t.rack = Alive(campaign.chaos)
        campaign.run(CONNECTED_S)
        campaign.chaos.inject(wire=WireFaults(freeze=1.0))
        campaign.run(CONNECTED_S + FOR_S)
        seen[watched] = [m.time_s for m in campaign.t.log if m.path][-1] - CONNECTED_S
    lost = campaign.t.row(F.CURRENT_LOST, FATAL)
    assert seen[True] <= AFTER_S + lost.ftti_s
    assert seen[True] < seen[False] < 50.0
    campaign.check_recovery()
