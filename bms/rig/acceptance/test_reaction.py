"""What the rack does when something is wrong: faults are injected into what it tells, and it must open in time."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bms.core.faults import Fault, Reaction
from bms.core.machine_table import Request
from bms.rig.bench import Faults
from bms.rig.driver import Driver
from hal.contract import RackState, Severity

CASES: list[tuple[Fault, dict[str, Any]]] = [
    (Fault.INTERLOCK_OPEN, {"channel": "interlock_closed", "kind": "zero"}),
    (Fault.EMERGENCY_STOP, {"channel": "emergency_stop", "kind": "stuck", "value": 1.0}),
    (Fault.CELL_OVERVOLTAGE, {"channel": "cell_v", "kind": "stuck", "index": 1, "value": "v_max + 0.3"}),
    (Fault.CELL_UNDERVOLTAGE, {"channel": "cell_v", "kind": "stuck", "index": 1, "value": "v_min - 0.3"}),
    (Fault.CELL_VOLTAGE_LOST, {"channel": "cell_v", "kind": "missing", "index": 1}),
    (Fault.TEMPERATURE_LOST, {"channel": "sensor_degc", "kind": "missing", "index": 0}),
    (Fault.CURRENT_LOST, {"channel": "current_a", "kind": "missing"}),
    (Fault.SHORT_CIRCUIT, {"channel": "current_a", "kind": "full_scale", "value": 1e5}),
    (Fault.FEEDBACK_LOST, {"channel": "contactors", "kind": "missing"}),
    (Fault.SAMPLE_LOST, {"channel": "", "kind": "drop"}),
]
"""A fault, and what is injected; the voltages are those of the configured cell."""

NAMES = [fault.name.lower() for fault, _ in CASES]


def inject(faults: Faults, controller: Driver, change: dict[str, Any]) -> None:
    """Inject a change of the table above."""
    cell = controller.settings.cell
    values = {"v_max + 0.3": cell.limits.v_max + 0.3, "v_min - 0.3": cell.v_min - 0.3}
    faults.change(**{key: values.get(value, value) if key == "value" else value for key, value in change.items()})


def opens_in_time(controller: Driver, fault: Fault) -> None:
    """The contactors are asked to open within the fault-tolerant time of a fatal row that is shown, and stay so."""
    rows = [row for tier in Severity if tier and (row := controller.row(fault, tier)) and row.ftti_s is not None]
    if not rows:
        pytest.skip(f"the fault table has no fatal row for {fault.name.lower()}")
    budget_s = max(row.ftti_s or math.inf for row in rows)
    took_s = controller.until(lambda d: d.asked == 0, budget_s, what=f"opened for {fault.name.lower()}")
    assert took_s <= budget_s
    assert controller.cause is not None, "opened, but no fatal fault is shown"
    controller.run(5 * controller.period_s)
    assert controller.asked == 0


@pytest.mark.parametrize(("fault", "change"), CASES, ids=NAMES)
def test_it_opens_in_time(fault: Fault, change: dict[str, Any], controller: Driver, faults: Faults) -> None:
    """In use, the contactors open within the fault-tolerant time; the rack then is in FAULT or EMERGENCY_STOP."""
    controller.connect()
    controller.run(15.0)
    inject(faults, controller, change)
    opens_in_time(controller, fault)
    assert controller.state in (RackState.FAULT, RackState.EMERGENCY_STOP, RackState.OPENING, RackState.RAMP_DOWN)


@pytest.mark.parametrize("fault", ["interlock_open", "cell_voltage_lost"])
def test_it_does_not_close_by_itself_and_does_after_a_reset(fault: str, controller: Driver, faults: Faults) -> None:
    """What is latched is not reset while the cause is there, stays when it goes, and ends with a reset."""
    kind, change = CASES[NAMES.index(fault)]
    row = controller.row(kind)
    if row is None or not row.reaction & Reaction.LATCH or row.reaction & Reaction.SERVICE:
        pytest.skip(f"{fault} is not latched until a reset")
    controller.connect()
    controller.run(5.0)
    inject(faults, controller, change)
    opens_in_time(controller, kind)
    controller.run(30.0)
    controller.step(Request.RESET)
    assert controller.shows(kind), "reset although the cause is there"
    faults.clear()
    controller.run(row.clear_s + 30.0, Request.CONNECT)
    assert controller.asked == 0, "closed by itself"
    controller.run(2 * controller.period_s, Request.RESET)
    assert not controller.shows(kind), "the reset did not help"
    controller.connect()


@pytest.mark.parametrize("kind", ["drop", "stale", "exception"])
def test_a_dead_wire_opens_in_time(kind: str, controller: Driver, faults: Faults) -> None:
    """Nothing usable arrives any more: the contactors open within the longest time that a lost value is borne."""
    controller.connect()
    controller.run(15.0)
    faults.wire(**{kind: 1.0})
    opens_in_time(controller, Fault.CELL_VOLTAGE_LOST)


def test_a_poor_wire_is_borne(controller: Driver, faults: Faults) -> None:
    """One frame of a hundred is lost: the rack stays in use."""
    controller.connect()
    faults.wire(drop=0.01)
    controller.run(60.0)
    assert controller.state == RackState.CONNECTED
    assert controller.shown() == []


def test_an_emergency_stop_that_is_requested_opens_at_once(controller: Driver) -> None:
    """In the step of the request; the feedback follows."""
    controller.connect()
    controller.run(5.0)
    controller.step(Request.EMERGENCY_STOP)
    assert controller.asked == 0
    controller.until(lambda d: d.closed == 0, 5.0, what="the feedback says open")
    assert controller.state in (RackState.EMERGENCY_STOP, RackState.OPENING)


@pytest.mark.rack_needs("contactors")
def test_a_rack_that_hears_nothing_opens_by_itself(controller: Driver) -> None:
    """The heart-beat stands still for 30 s: a rack must not stay closed without a controller."""
    controller.connect()
    for _ in range(round(30.0 / controller.period_s)):
        controller.wait()
    assert controller.closed == 0, "still closed 30 s after the last command"
