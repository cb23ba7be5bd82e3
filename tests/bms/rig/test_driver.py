from typing import Any

import pytest

from bms.core.faults import Fault
from bms.core.machine_table import Request
from bms.rig.driver import Driver
from bms.runtime.clock import VirtualClock
from bms.runtime.scenario import Scenario
from hal.contract import Contactor, RackState, Severity
from hal.registry import open_rack


@pytest.fixture
def driver() -> Any:
    clock = VirtualClock()
    with open_rack("chaos+sim:lfp_280?n_series=16", clock=clock) as rack:
        yield Driver(rack, Scenario(rack="sim:lfp_280"), clock)


def test_time_passes_as_the_period_says(driver: Driver) -> None:
    driver.step()
    assert driver.now_s == pytest.approx(1.0)
    driver.run(10.0)
    assert driver.now_s == pytest.approx(11.0)
    driver.run(0.5)
    assert driver.now_s == pytest.approx(12.0)


def test_what_is_asked_holds(driver: Driver) -> None:
    took_s = driver.connect()
    assert 1.0 < took_s < 60.0
    driver.run(20.0)
    assert driver.state == RackState.CONNECTED
    assert driver.closed == driver.asked == Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE
    assert driver.open() < 30.0
    driver.run(20.0)
    assert driver.closed == 0


def test_what_does_not_come_is_told_with_the_state(driver: Driver) -> None:
    with pytest.raises(
        AssertionError, match=r"a miracle: not within 3 s; state .*, contactors asked 0b000, seen 0b000"
    ):
        driver.until(lambda d: False, 3.0, Request.OPEN, "a miracle")
    assert driver.now_s == pytest.approx(4.0)  # the step after the three seconds


def test_faults_and_rows_have_names(driver: Driver) -> None:
    driver.connect()
    driver.rack.inject(wire_change("interlock_closed"))  # type: ignore[attr-defined]
    driver.until(lambda d: d.asked == 0, 5.0)
    assert driver.cause == Fault.INTERLOCK_OPEN
    assert driver.shown() == [Fault.INTERLOCK_OPEN]
    assert driver.shows(Fault.INTERLOCK_OPEN)
    assert not driver.shows(Fault.GAS_ALARM)
    row = driver.row(Fault.INTERLOCK_OPEN)
    assert row is not None
    assert row.ftti_s == 2.0
    assert driver.row(Fault.INTERLOCK_OPEN, Severity.INFO) is None


def wire_change(channel: str) -> Any:
    from hal.backends.chaos import Change

    return Change(channel, "zero")


def test_a_restart_forgets(driver: Driver) -> None:
    driver.connect()
    assert driver.stop()
    driver.restart()
    assert driver.state == RackState.INIT
    assert int(driver.command.head["heartbeat"][0]) == 0
    driver.connect()


def test_a_silent_controller_writes_nothing(driver: Driver) -> None:
    driver.connect()
    beat = int(driver.command.head["heartbeat"][0])
    for _ in range(30):
        driver.wait()
    assert int(driver.command.head["heartbeat"][0]) == beat
    assert driver.closed == 0  # the rack has opened by itself
