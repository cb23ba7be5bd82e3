"""The loop on a Modbus wire that spoils 1 %, 10 % and all of the answers."""

import time
from typing import Any

import numpy as np
import pytest
from modbus_spoiler import KINDS, Spoiler

from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.backends import modbus
from hal.contract import Command, Measurement, RackInfo, RackState
from hal.registry import open_rack
from hal.serve.modbus import ModbusServer

TWIN = "sim:lfp_280?n_series=16"
PERIOD_S, TIME_OUT_S = 1.0, 0.02
BEGINS_S, HEALED_S, END_S = 20.0, 52.0, 60.0
RATES = ((BEGINS_S, 28.0, 0.01), (28.0, 36.0, 0.1), (36.0, HEALED_S, 1.0))
STALE_S = 2.0
BLIND_S = 15.0
"""The fault-tolerant time of a lost sample: so long may the contactors stay closed."""
FALSE_S = 2.0
"""No row tells a wrong value of a single sample from a true one; several in a row are seen."""
HALF_STEP_V = 0.51e-4
PATIENCE_S = 20.0
FAILURES = 4
"""So many attempts of the client fail in a period before the loop goes on without news; where all fail, one will do."""

HARMLESS = ("duplicate", "reorder")
"""Nothing is lost that the client would not ask for again."""
TRUE = ("drop", "delay", "stale", "bus_off", "exception", *HARMLESS)
"""Faults of which TCP and Modbus let nothing false through."""


def rate_at(now_s: float) -> float:
    return next((rate for from_s, until_s, rate in RATES if from_s <= now_s < until_s), 0.0)


class Behind:
    """A twin, its server, a bad wire and the rack in front of it, moved in step."""

    def __init__(self, kind: str, clock: VirtualClock) -> None:
        self.clock = clock
        self.twin: Any = open_rack(TWIN, clock=clock, options={"duty": {"kind": "constant", "c_rate": 0.3}})
        self.twin.open()
        self.info: RackInfo = self.twin.info
        self.server = ModbusServer("tcp://127.0.0.1:0?connections=500", self.info, clock)
        size = self.info.n_cells, self.info.n_sensors
        self.true, self.before, self.received = Measurement(*size), Measurement(*size), Command(*size)
        self.show()
        self.server.start()
        port = int(self.server.address.rpartition(":")[2])
        self.wire = Spoiler(port, kind, lambda: rate_at(clock.now_s()), clock.now_s, 1.0, 2 * TIME_OUT_S)
        url = f"modbus:tcp://127.0.0.1:{self.wire.port}?poll=0.001&stale={STALE_S}"
        self.rack: Any = open_rack(url, clock=clock)

    def show(self) -> None:
        self.before.copy_from(self.true)
        self.twin.read(self.true)
        self.server.publish(self.true)

    @property
    def new(self) -> bool:
        """Whether the newest step has come over the wire."""
        return bool(self.rack.report.step == self.server.registers.map.source.count % 65535)

    def _tried(self) -> int:
        report = self.rack.report
        return int(report.lost + report.refused + report.torn)

    def wait(self, come: Any) -> None:
        """Wait until something has come, or while the wire is bad for some failures."""
        until_s, tried, polls = time.monotonic() + PATIENCE_S, self._tried(), self.rack.report.polls
        while not come():
            most = FAILURES if rate_at(self.clock.now_s()) < 1.0 and not self.wire.held else 1
            if self.wire.bad and (self._tried() >= tried + most or self.rack.report.polls > polls + 2 * most):
                return
            assert time.monotonic() < until_s, "nothing came over the wire"
            time.sleep(0.0005)

    def read(self, out: Measurement) -> None:
        self.show()
        self.wait(lambda: self.new)
        self.rack.read(out)

    def write(self, command: Command) -> None:
        self.rack.write(command)
        taken = []
        self.wait(lambda: taken or (self.server.take(self.received) and taken.append(True)) or taken)
        if taken:
            self.twin.write(self.received)

    def __enter__(self) -> "Behind":
        self.rack.open()
        link = self.rack._link  # opened with more patience: a busy machine is no reason to fail
        link.timeout_s = link._client.comm_params.timeout_connect = TIME_OUT_S
        return self

    def __exit__(self, *error: object) -> None:
        self.rack.close()
        self.wire.__exit__()
        self.server.stop()
        self.twin.close()


class Ride:
    """A run with a bad wire in its middle, step by step."""

    def __init__(self, kind: str) -> None:
        clock = VirtualClock()
        seen: list[tuple[float, int, int, float, float]] = []
        with Behind(kind, clock) as both:
            controller = make_controller(Scenario(rack=TWIN, period_s=PERIOD_S), both, clock)
            m, head = controller.measurement, controller.command.head

            def observe(*_: object) -> None:
                good = m.cell_v_quality == 0
                used = good & (m.cell_v_age_s < PERIOD_S / 2)
                # an answer may have been under way while the twin made its step, in no time
                off = np.minimum(np.abs(m.cell_v - both.true.cell_v), np.abs(m.cell_v - both.before.cell_v))
                off_v = float(off[used].max(initial=0.0))
                age_s = float(np.where(good, m.cell_v_age_s, np.inf).max())
                seen.append((clock.now_s(), int(head["state"][0]), int(head["contactors"][0]), off_v, age_s))

            Loop(both, controller, clock, PERIOD_S, observers=(observe,)).run(END_S)
            self.hits = both.wire.hits
            self.troubles = " ".join(both.rack.troubles)
        self.time_s, self.state, self.contactors, self.wrong_v, self.age_s = map(np.array, zip(*seen, strict=True))

    def between(self, from_s: float, until_s: float) -> Any:
        return (self.time_s >= from_s - 1e-6) & (self.time_s < until_s - 1e-6)

    def closed_s(self, bad: Any) -> float:
        """The longest time for which the contactors were to be closed in steps that are `bad`."""
        longest = now = 0
        for one in bad & (self.contactors != 0):
            now = now + 1 if one else 0
            longest = max(longest, now)
        return longest * PERIOD_S


@pytest.mark.parametrize("kind", KINDS)
def test_it_decides_on_what_is_so_and_opens_when_it_is_blind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modbus, "BACK_OFF_S", (0.001, 0.002))
    ride = Ride(kind)
    assert ride.hits > 5, "the damage was there"
    assert (ride.state[ride.between(17.0, BEGINS_S)] == RackState.CONNECTED).all()
    if kind in TRUE:
        assert ride.wrong_v.max() <= HALF_STEP_V, "a value that is called fresh and good is right"
    assert ride.closed_s(ride.age_s > STALE_S) <= BLIND_S
    assert ride.closed_s(ride.wrong_v > HALF_STEP_V) <= FALSE_S
    if kind in HARMLESS:
        assert (ride.state[ride.between(BEGINS_S, END_S - 5.0)] == RackState.CONNECTED).all()
    else:
        assert (ride.contactors[ride.between(RATES[-1][0] + BLIND_S, END_S)] == 0).all(), "and it is latched"
    healed = ride.between(HEALED_S + 2.0, HEALED_S + 8.0)
    assert ride.age_s[healed].max() < STALE_S
    assert ride.wrong_v[healed].max() <= HALF_STEP_V, "all is heard again"
