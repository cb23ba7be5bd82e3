"""Self-test, precharge, closing and opening."""

from __future__ import annotations

import pytest

from bms.core.machine_table import Request
from bms.rig.driver import MAINS, Driver
from hal.contract import Contactor, RackState


def test_it_connects_and_nothing_fatal_is_shown(controller: Driver) -> None:
    """CONNECTED within two minutes, both mains seen closed, the precharge contactor open."""
    controller.connect()
    controller.run(10.0)
    assert controller.state == RackState.CONNECTED
    assert controller.closed == MAINS
    assert controller.shown() == []


@pytest.mark.rack_needs("precharge")
def test_the_link_is_charged_before_the_second_main_closes(controller: Driver) -> None:
    """With the precharge contactor the link rises to nine tenths of the string, and only then both mains are asked."""
    precharged, link_v, string_v, first = False, 0.0, 0.0, True

    def closing(driver: Driver) -> bool:
        nonlocal precharged, link_v, string_v, first
        m = driver.measurement
        precharged |= bool(driver.asked & Contactor.PRECHARGE)
        if driver.asked & MAINS == MAINS and first:
            link_v, string_v, first = float(m.head["bus_v"][0]), float(m.head["pack_v"][0]), False
        return driver.state == RackState.CONNECTED

    controller.until(closing, 120.0, Request.CONNECT, "connected")
    assert precharged, "the precharge contactor was never asked for"
    assert link_v >= 0.9 * string_v, f"the link had {link_v:.1f} V of {string_v:.1f} V"


def test_the_feedback_follows_what_is_asked(controller: Driver) -> None:
    """In each step the feedback is what was asked, or becomes so within the configured time."""
    late_s = worst_s = 0.0

    def seen(driver: Driver) -> bool:
        nonlocal late_s, worst_s
        late_s = late_s + driver.period_s if driver.closed != driver.asked else 0.0
        worst_s = max(worst_s, late_s)
        return driver.state == RackState.CONNECTED

    controller.until(seen, 120.0, Request.CONNECT, "connected")
    # the measurement of a step is older than what it asks for: two periods more
    assert worst_s <= controller.settings.machine.contactor_time_out_s + 2 * controller.period_s


def test_it_stops_and_connects_again(controller: Driver) -> None:
    """The request to open ramps the limits to 0 A and opens; the same rack connects again."""
    controller.connect()
    controller.run(5.0)
    opened_s = controller.open()
    machine = controller.settings.machine
    assert opened_s <= machine.ramp_time_out_s + machine.opening_time_out_s + 4 * controller.period_s
    head = controller.command.head[0]
    assert head["limit_discharge_a"] == head["limit_charge_a"] == 0.0
    controller.connect()


def test_limits_are_zero_unless_it_is_connected(controller: Driver) -> None:
    """An inverter that keeps the limits draws nothing before the contactors are closed."""

    def kept(driver: Driver) -> bool:
        head = driver.command.head[0]
        zero = head["limit_discharge_a"] == head["limit_charge_a"] == 0.0
        assert zero or driver.state == RackState.CONNECTED, str(driver)
        return driver.state == RackState.CONNECTED

    controller.until(kept, 120.0, Request.CONNECT, "connected")


def test_the_current_stays_within_the_limits(controller: Driver) -> None:
    """For a minute of use, within what the fault table calls info."""
    controller.connect()
    controller.run(30.0)
    beyond_a = 0.0
    for _ in range(round(30.0 / controller.period_s)):
        head = controller.command.head[0]
        limits_a = -float(head["limit_charge_a"]), float(head["limit_discharge_a"])
        controller.step()
        now_a = float(controller.measurement.head["current_a"][0])
        beyond_a = max(beyond_a, now_a - limits_a[1], limits_a[0] - now_a)
    assert beyond_a <= 0.05 * controller.rack.info.capacity_ah
