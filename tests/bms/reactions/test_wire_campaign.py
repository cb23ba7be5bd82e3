"""Faults of the wire at 1 %, 10 % and 100 %, under the whole controller on the twin.

What is shown is compared with what is true, channel by channel: a channel is *bad* while it is older than the row for
its loss allows, or further off than that which the table calls implausible. The contactors may stay closed on a bad
channel no longer than the fault-tolerant time of the row that is for it, and never close on one that is old, nor on one
that has been wrong for longer than a row needs to tell it from noise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from bms.core.faults import Fault, Reaction
from bms.core.machine_table import Request
from hal.backends.alive import AFTER_S, Alive
from hal.backends.chaos import Chaos
from hal.backends.chaos_wire import KINDS, WireFaults
from hal.contract import Measurement, RackState, Severity

F = Fault
FATAL = Severity.FATAL
RATES = (0.01, 0.1, 1.0)
KINDS_OF_RACKS = ("lfp_280", "na_185", "nmc_ev")
CONNECTED_S, FOR_S = 40.0, 120.0
COOLS_S = 900.0
"""A current that was never there has warmed the fuse in the books; it must cool down there, too."""

# channel: (loss, what tells that its value is wrong, how far off that is)
CHANNELS: dict[str, tuple[Fault, Fault, float]] = {
    "cell_v": (F.CELL_VOLTAGE_LOST, F.SUM_IMPLAUSIBLE, 0.2),  # the tier `info` of an open sense wire
    "current_a": (F.CURRENT_LOST, F.CURRENT_IMPLAUSIBLE, 98.0),  # its fatal threshold
    "pack_v": (F.PACK_VOLTAGE_LOST, F.SUM_IMPLAUSIBLE, 0.03 * 52.8),  # the same
    "sensor_degc": (F.TEMPERATURE_LOST, F.TEMPERATURE_MODEL, 15.0),  # the same
}

SEEN_OPEN = {
    # where every frame is hit, the first of these faults that opens
    "drop": {F.SAMPLE_LOST},
    "stale": {F.SAMPLE_LOST},
    "bus_off": {F.SAMPLE_LOST},
    "exception": {F.CURRENT_LOST},
    "corrupt": {F.SHORT_CIRCUIT, F.EMERGENCY_STOP, F.INTERLOCK_OPEN, F.PACK_OVERVOLTAGE, F.PACK_UNDERVOLTAGE},
    "swap_words": {F.SHORT_CIRCUIT, F.PACK_OVERVOLTAGE, F.PACK_UNDERVOLTAGE, F.CURRENT_LOST},
}
"""Faults at 100 % that must open, and why; the others deliver what was true a moment ago."""

DEBOUNCED_S = 2.0
"""A possible value that is wrong for no longer than the shortest set times is not told apart from a true one."""

BEARS = ("drop", "delay", "duplicate", "reorder", "stale", "freeze", "bus_off", "exception")
"""Faults that must not cost the use of the rack at 1 %: nothing that arrives is wrong by more than a sample."""


LOST = ("sample_lost", "cell_voltage_lost", "current_lost", "pack_voltage_lost", "temperature_lost", "feedback_lost")


class Campaign:
    """A trial behind a wire, and how long each channel has been bad while the contactors were closed."""

    def __init__(self, trial: Any, seed: int = 1, wire: WireFaults | None = None, **setup: Any) -> None:
        self.t = trial(**{"duty": {"current_a": 60.0}, **setup})
        self.chaos = Chaos(self.t.twin, (), seed)
        self.chaos.open()
        self.t.rack = self.chaos
        if wire is not None:
            self.chaos.inject(wire=wire)
        self.true = Measurement(self.t.info.n_cells, self.t.info.n_sensors)
        self.worst_s: dict[str, float] = defaultdict(float)
        self._bad_s: dict[str, float] = defaultdict(float)
        self._wrong_s: dict[str, float] = defaultdict(float)
        self._asked = 0

    def run(self, until_s: float, request: Request = Request.CONNECT) -> Any:
        """Steps until then; the rules that hold at every one of them are checked."""
        t = self.t
        while t.next_s < until_s - 1e-6:
            m = t.step(request)
            t.twin.read(self.true)
            closed, closing = bool(m.asked), bool(m.asked & ~self._asked)
            self._asked = m.asked
            for name, (lost, _, off) in CHANNELS.items():
                wrong = self._off(name) > off
                bad = self._old(name, lost) or wrong
                self._wrong_s[name] = self._wrong_s[name] + t.period_s if wrong else 0.0
                self._bad_s[name] = self._bad_s[name] + t.period_s if bad and closed else 0.0
                self.worst_s[name] = max(self.worst_s[name], self._bad_s[name])
                if closing:
                    assert not self._old(name, lost), (m.time_s, name, "closes on an old value")
                    assert self._wrong_s[name] <= DEBOUNCED_S, (m.time_s, name, "closes on a wrong value")
        t.check_truth()
        return t.log[-1]

    def _old(self, name: str, lost: Fault) -> bool:
        """Whether the channel is missing, or older than the row of its loss allows."""
        shown = self.t.measurement
        values, ages, quality = (
            np.atleast_1d(shown.raw[f] if f in shown.raw.dtype.names else shown.head[f])
            for f in (name, f"{name}_age_s", f"{name}_quality")
        )
        limit_s = self.t.row(lost, Severity.INFO).threshold
        return bool((quality != 0).any() or not np.isfinite(values).all() or (ages > limit_s).any())

    def _off(self, name: str) -> float:
        """How far what is shown is off."""
        shown, true = (
            np.atleast_1d(m.raw[name] if name in m.raw.dtype.names else m.head[name]).astype(float)
            for m in (self.t.measurement, self.true)
        )
        gap = np.abs(shown - true)
        return float(np.where(np.isfinite(gap), gap, 0.0).max())

    def check_budgets(self) -> None:
        """No channel was bad for longer than its rows bear, while the contactors were closed."""
        for name, (lost, wrong, _) in CHANNELS.items():
            budget_s = min(self.t.row(fault, FATAL).ftti_s for fault in (lost, wrong))
            assert self.worst_s[name] <= budget_s, (name, self.worst_s[name], budget_s)

    def opened_by(self) -> Fault | None:
        """The fatal fault that came first."""
        cause = next((m.cause for m in self.t.log if m.cause), 0)
        return Fault(cause // 10) if cause else None

    def check_recovery(self) -> None:
        """The fault of the wire ends. What is not latched goes by itself; the rest is reset as its rows say."""
        t = self.t
        self.chaos.clear()
        m = self.run(t.next_s + 60.0)
        if not m.shown(FATAL):
            assert m.state == RackState.CONNECTED
        else:
            assert m.asked == 0
            latched = [t.row(fault, FATAL) for fault in m.shown(FATAL)]
            assert all(row.reaction & Reaction.LATCH for row in latched)
            self.run(t.next_s + 1.0, Request.RESET)  # an emergency stop goes first
            if any(row.reaction & Reaction.SERVICE for row in latched):
                self.run(t.next_s + COOLS_S, Request.MAINTENANCE)
            else:
                self.run(t.next_s + COOLS_S, Request.OPEN)
            self.run(t.next_s + 5.0, Request.RESET)
            m = self.run(t.next_s + 100.0)
            assert m.state == RackState.CONNECTED, (m.state, m.shown(FATAL))
            assert m.cause == 0
        m = self.run(t.next_s + 200.0)
        assert m.discharge_a == pytest.approx(t.settings.basis.discharge_a)


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
        if rate == 1.0:
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
    """The values of a rack that stands still as a whole contradict nothing; `alive+` notices that they stand still."""
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
    assert seen[False] > FOR_S - 5.0  # without it nobody does
    campaign.check_recovery()
