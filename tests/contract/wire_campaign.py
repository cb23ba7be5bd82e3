"""A trial behind a wire with faults: what is shown is compared with what is true, step by step.

A channel is *bad* while it is older than the row for its loss allows, or further off than that which the table calls
implausible. The contactors may stay closed on a bad channel no longer than the fault-tolerant time of the row that is
for it, and never close on one that is old, nor on one that has been wrong for longer than a row needs to tell it from
noise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bms.core.faults import Fault, Reaction
from bms.core.machine_table import Request
from hal.backends.chaos import Chaos
from hal.backends.chaos_wire import WireFaults
from hal.contract import Measurement, Rack, RackState, Severity

F = Fault
FATAL = Severity.FATAL
RATES = (0.01, 0.1, 1.0)
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


class Campaign:
    """A trial behind a wire, and how long each channel has been bad while the contactors were closed."""

    def __init__(
        self,
        trial: Any,
        seed: int = 1,
        wire: WireFaults | None = None,
        reach: Callable[[Any], Rack] | None = None,
        **setup: Any,
    ) -> None:
        """`wire`: faults that are there from the start. `reach` puts the twin of the trial behind a real wire."""
        self.t = trial(**{"duty": {"current_a": 60.0}, **setup})
        self.chaos = Chaos(self.t.twin if reach is None else reach(self.t), (), seed)
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

    def bad(self) -> set[str]:
        """The channels that are old or wrong now."""
        return {name for name, (lost, _, off) in CHANNELS.items() if self._old(name, lost) or self._off(name) > off}

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
