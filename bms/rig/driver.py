"""The product's controller on a rack, asked step by step: what the tests of a bench drive."""

from __future__ import annotations

from collections.abc import Callable

from bms.core.faults import Fault, Row
from bms.core.machine_table import Request
from bms.core.step import Controller
from bms.runtime.clock import LoopClock
from bms.runtime.loop import SETTLED, Loop
from bms.runtime.recording import Telling
from bms.runtime.run import make_controller, rack_config
from bms.runtime.scenario import Scenario
from hal.contract import Command, Contactor, Measurement, Rack, RackState, Severity

MAINS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE)
CONNECTS_S = 120.0
"""Self-test, precharge and closing are over by then, on any rack."""


class Driver:
    """A controller on an open rack. `measurement` and `command` are of the last step, `settings` its configuration.

    Every step reads, decides and writes as `bms run` does, then waits for the next; what is asked holds until another
    `Request` is given. On a twin the waiting takes no time. Raises `ConfigError` if the rack and the configuration do
    not fit.
    """

    def __init__(self, rack: Rack, scenario: Scenario, clock: LoopClock) -> None:
        self.rack, self.scenario, self.clock = rack, scenario, clock
        self.period_s = scenario.period_s
        self.settings = rack_config(scenario, rack.info)
        self._rows = {(row.fault, row.severity): row for row in self.settings.rows}
        self._asked = Request.OPEN
        self.restart()

    def restart(self) -> None:
        """Start the controller anew, with nothing in its memory; the contactors must be open."""
        self.controller: Controller = make_controller(self.scenario, self.rack, self.clock)
        about = {"scenario": self.scenario.to_json(), "sample_every": 1, "speed": None}
        telling = Telling(self.rack, self.rack.info, self.controller, about)
        self._loop = Loop(self.rack, self.controller, self.clock, self.period_s, recorder=telling)
        self._asked = Request.OPEN

    @property
    def measurement(self) -> Measurement:
        """What the rack told in the last step."""
        return self.controller.measurement

    @property
    def command(self) -> Command:
        """What was decided in the last step."""
        return self.controller.command

    @property
    def state(self) -> RackState:
        """State of the controller."""
        return RackState(int(self.command.head["state"][0]))

    @property
    def asked(self) -> int:
        """Contactors that the controller asks to be closed, as `Contactor` bits."""
        return int(self.command.head["contactors"][0])

    @property
    def closed(self) -> int:
        """Contactors that are seen to be closed, as `Contactor` bits; quality is not looked at."""
        return int(self.measurement.head["contactors"][0])

    @property
    def now_s(self) -> float:
        """Time of the bench."""
        return self.clock.now_s()

    @property
    def cause(self) -> Fault | None:
        """The fatal fault that came first, until it is reset."""
        cause = int(self.command.head["cause"][0])
        return Fault(cause // 10) if cause else None

    def shows(self, fault: Fault, severity: Severity = Severity.FATAL) -> bool:
        """Whether this row of the fault table is active or latched."""
        words = (self.command.fault_info, self.command.fault_warning, self.command.fault_fatal)[severity - 1]
        return bool(int(words[fault // 32]) >> (fault % 32) & 1)

    def shown(self, severity: Severity = Severity.FATAL) -> list[Fault]:
        """The faults whose row of this severity is active or latched."""
        return [fault for fault in Fault if self.shows(fault, severity)]

    def row(self, fault: Fault, severity: Severity = Severity.FATAL) -> Row | None:
        """A row of the fault table; None where it is switched off."""
        return self._rows.get((fault, severity))

    def step(self, request: Request | None = None) -> None:
        """One step, and the wait for the next."""
        self._asked = self._asked if request is None else request
        self._loop.step(self._asked)

    def wait(self) -> None:
        """One period in which the controller is silent: the rack is read, nothing is decided and nothing written."""
        self.clock.wait_until(self.now_s + self.period_s, lambda: False)
        self.rack.read(self.measurement)

    def run(self, seconds: float, request: Request | None = None) -> None:
        """Steps for so long, one at the least."""
        end_s = self.now_s + seconds * (1 - 1e-9)
        self.step(request)
        while self.now_s < end_s:
            self.step()

    def until(
        self, wanted: Callable[[Driver], bool], within_s: float, request: Request | None = None, what: str = ""
    ) -> float:
        """Steps until `wanted` holds; returns the time it took in s.

        Raises `AssertionError`, with what the controller shows then, if that is longer than `within_s`.
        """
        start_s = self.now_s
        self.step(request)
        while not wanted(self):
            took_s = self.now_s - start_s
            assert took_s <= within_s, f"{what or 'what was waited for'}: not within {within_s:g} s; {self}"
            self.step()
        return self.now_s - self.period_s - start_s

    def connect(self, within_s: float = CONNECTS_S) -> float:
        """Ask to connect until that is done; returns the time it took in s."""
        return self.until(lambda d: d.state == RackState.CONNECTED, within_s, Request.CONNECT, "connected")

    def open(self, within_s: float = 60.0) -> float:
        """Ask to open until the contactors are seen open; returns the time it took in s."""
        return self.until(lambda d: d.state in SETTLED and d.closed == 0, within_s, Request.OPEN, "open")

    def stop(self) -> bool:
        """Open the contactors, in order where that works, else at once. Returns whether they are seen open."""
        return self._loop.finish()

    def __str__(self) -> str:
        faults = ", ".join(fault.name.lower() for fault in self.shown()) or "none"
        return (
            f"state {self.state.name.lower()}, contactors asked {self.asked:#05b}, seen {self.closed:#05b}, "
            f"fatal faults: {faults}"
        )
