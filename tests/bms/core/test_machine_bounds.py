"""Where exactly the state machine changes its mind: numbers that single precision holds without rounding.

What is allowed up to a bound is allowed at the bound, and a time is over when it has been reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bms.core import machine as m
from bms.core.faults import N_FAULTS, Fault, Reaction
from bms.core.machine_setup import MachineSettings, machine_config
from bms.core.machine_table import Input, Node, Request
from bms.core.seen import Seen
from hal.contract import NO_INDEX, Capabilities, RackInfo

f4 = np.float32
N_CELLS, PACK_V = 256, 768.0  # 3 V each
LIMITS = type("Limits", (), {"v_min": 1.5, "v_max": 4.0, "max_discharge_c": 1.0})()
ROUND = {
    "precharge_ratio": 1 / 64, "precharge_floor_v": 4.0, "precharge_sum_ratio": 1 / 32, "precharge_done_c": 1 / 64,
    "open_c": 1 / 32, "weld_low": 1 / 8, "weld_match": 1 / 64, "transport_v": 1 / 8, "transport_margin_v": 1 / 16,
    "resistor_j": 30000.0, "resistor_restart": 0.5, "transport_allowed": True,
}  # fmt: skip
"""Shares that are powers of two, so that bounds can be met exactly."""


class Machine:
    """The kernels alone, with a measurement of round numbers: 768 V, no current, an empty link."""

    def __init__(self, contactors: bool = True, precharge: bool = True, **settings: Any) -> None:
        can = Capabilities(contactors=contactors, precharge=precharge)
        info = RackInfo("rack", N_CELLS, 64, 1, 256.0, "", np.zeros(N_CELLS, np.uint16), can)
        self.config = machine_config(LIMITS, info, MachineSettings(**ROUND | settings), "na_layered")
        self.state = m.machine_state()
        m.machine_init(self.config, self.state)
        self.value = np.full(N_FAULTS, np.nan, np.float32)
        self.where = np.full(N_FAULTS, 7, np.uint16)
        self.measured: dict[str, float] = {
            "current_a": 0.0, "pack_v": PACK_V, "bus_v": 0.0, "cell_v_low": 3.0, "cell_v_high": 3.0, "cell_v_mean": 3.0,
            "degc_low": 25.0, "degc_high": 25.0, "degc_mean": 25.0, "coolant_in_degc": 20.0,
        }  # fmt: skip
        self.closed, self.complete = 0, True

    def seen(self, **changes: float) -> Seen:
        floats = {k: f4(v) for k, v in (self.measured | changes).items()}
        return Seen(
            cell_low_at=1, cell_high_at=2, sensor_low_at=0, sensor_high_at=0, closed=self.closed, flow=0,
            complete=self.complete, emergency_stop=False, **floats,
        )  # fmt: skip

    def signals(self, dt_s: float = 0.0, **changes: float) -> None:
        m.machine_signals(self.config, self.state, self.seen(**changes), 1, self.value, self.where, f4(dt_s))

    def step(self, request: int, dt_s: float, reaction: int = 0, fatal: bool = False) -> Node:
        self.signals(dt_s)
        self.closed = int(
            m.machine_advance(self.config, self.state, self.seen(), reaction, fatal, int(request), f4(dt_s))
        )
        return Node(int(self.state.word[m.NODE]))

    def inputs(self, **changes: float) -> Input:
        return Input(m.machine_inputs(self.config, self.state, self.seen(**changes), 0, False, Request.CONNECT))

    def enter(self, node: Node, asked: int = 0) -> None:
        self.state.word[m.NODE], self.state.word[m.ASKED] = node, asked
        self.closed = asked

    def at(self, fault: Fault) -> float:
        return float(self.value[fault])


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_fresh_memory(machine: Machine) -> None:
    state = machine.state
    for array in state:
        array[:] = 77
    m.machine_init(machine.config, state)
    numbers = np.zeros(m.N_NUMBERS)
    numbers[m.HOLD_S] = -1.0  # nothing has held yet, and nothing has been measured
    numbers[m.BUS_V], numbers[m.LEAST_GAP_V], numbers[m.READ_OPEN_A] = math.nan, math.nan, math.nan
    np.testing.assert_array_equal(state.number, numbers)
    words = np.zeros(m.N_WORDS)
    words[m.ROW] = m.NO_ROW
    np.testing.assert_array_equal(state.word, words)
    assert not state.wear.any()


def beyond(number: float, up: bool = True) -> float:
    """The next number that single precision knows."""
    return float(np.nextafter(f4(number), f4(np.inf if up else -np.inf)))


def bounds() -> Iterator[Any]:
    """(name, what is measured, input), at the bound."""
    yield pytest.param("current_a", 8.0, True, Input.QUIET, id="current to open at: 1/32 C of 256 Ah")
    yield pytest.param("current_a", -8.0, False, Input.QUIET, id="of either direction")
    yield pytest.param("cell_v_high", 0.125, True, Input.EMPTY, id="empty")
    yield pytest.param("cell_v_low", 1.5625, False, Input.FILLED, id="inside its window: v_min + 1/16 V")


@pytest.mark.parametrize(("name", "bound", "up", "bit"), list(bounds()))
def test_inputs_at_their_bounds(machine: Machine, name: str, bound: float, up: bool, bit: Input) -> None:
    assert bit in machine.inputs(**{name: bound})
    assert bit not in machine.inputs(**{name: beyond(bound, up)})


def test_the_resistor_at_the_heat_to_start_at(machine: Machine) -> None:
    machine.state.number[m.RESISTOR_HEAT_J] = 15000.0
    assert Input.COOL in machine.inputs()
    machine.state.number[m.RESISTOR_HEAT_J] = beyond(15000.0)
    assert Input.COOL not in machine.inputs()


@pytest.mark.parametrize(
    ("fine", "wrong"),
    [
        ({"bus_v": 756.0}, {"bus_v": beyond(756.0, False)}),  # 768 V / 64 = 12 V below the string
        ({"bus_v": 780.0}, {"bus_v": beyond(780.0)}),
        ({"bus_v": 768.0, "current_a": 4.0}, {"bus_v": 768.0, "current_a": beyond(4.0)}),  # 1/64 C of 256 Ah
        # the sum of the cells is 768 V: 768 V / 32 + 4 V apart
        ({"pack_v": 740.0, "bus_v": 740.0}, {"pack_v": beyond(740.0, False), "bus_v": 740.0}),
        ({"pack_v": 796.0, "bus_v": 796.0}, {"pack_v": beyond(796.0), "bus_v": 796.0}),
    ],
)
def test_a_link_is_charged_up_to_its_bounds(machine: Machine, fine: dict[str, float], wrong: dict[str, float]) -> None:
    for measured, charged in ((fine, True), (wrong, False)):
        seen = machine.seen(**measured)
        assert m.link_charged(machine.config, seen, f4(seen.current_a)) == charged


@pytest.mark.parametrize(("pack_v", "near_v"), [(32.0, 0.75), (64.0, 1.0)])
def test_contactors_of_a_short_string_close_onto_what_they_bear(machine: Machine, pack_v: float, near_v: float) -> None:
    """0.75 V, or 1/64 of the string where that is more; the floor of 4 V is the sensors'."""
    machine.config.setting[m.CLOSE_V] = 0.75
    measured = {"pack_v": pack_v, "cell_v_mean": pack_v / N_CELLS}
    for bus_v, charged in ((pack_v - near_v, True), (beyond(pack_v - near_v, False), False)):
        seen = machine.seen(bus_v=bus_v, **measured)
        assert m.link_charged(machine.config, seen, f4(0)) == charged


def test_a_hold_time_is_over_when_it_is_reached() -> None:
    """The hold begins with the step that first sees everything in order: 1 s of self-test are four steps more."""
    machine = Machine(self_test_s=1.0)
    path = [machine.step(Request.OPEN, 0.25) for _ in range(6)]
    assert path == [Node.SELF_TEST] * 5 + [Node.STANDBY]


def test_a_hold_that_is_broken_off_begins_anew() -> None:
    machine = Machine(self_test_s=1.0)
    path = [machine.step(Request.OPEN, 0.25) for _ in range(4)]
    machine.complete = False
    path.append(machine.step(Request.OPEN, 0.25))
    machine.complete = True
    path += [machine.step(Request.OPEN, 0.25) for _ in range(5)]
    assert path == [Node.SELF_TEST] * 9 + [Node.STANDBY]


def test_a_time_out_comes_when_it_is_reached() -> None:
    machine = Machine(init_time_out_s=2.0)
    machine.complete = False
    path = [machine.step(Request.OPEN, 0.25) for _ in range(8)]
    assert path == [Node.INIT] * 7 + [Node.SELF_TEST]


def test_the_self_test_tells_for_how_long_it_waits() -> None:
    """In both of its nodes; elsewhere there is nothing to wait for."""
    machine = Machine(init_time_out_s=2.0, self_test_time_out_s=3.0)
    machine.complete = False
    told = []
    while machine.step(Request.OPEN, 0.5) != Node.FAULT:
        told.append(machine.at(Fault.SELF_TEST))
    assert told == [0.5, 1.0, 1.5, 2.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    machine.step(Request.OPEN, 0.5)
    assert machine.at(Fault.SELF_TEST) == 0.0
    assert machine.where[Fault.SELF_TEST] == NO_INDEX


# weld test


@pytest.mark.parametrize(
    ("bus_v", "seconds", "verdict"),
    [
        (780.0, 10, m.WELD_HELD),  # within 1/64 of the string's 768 V when the time is over
        (780.0, 9, m.WELD_RUNNING),
        (beyond(780.0), 10, m.WELD_PASSED),
        (756.0, 10, m.WELD_HELD),
        (beyond(756.0, False), 10, m.WELD_PASSED),
    ],
)
def test_evidence_of_welding_at_its_bounds(machine: Machine, bus_v: float, seconds: int, verdict: int) -> None:
    machine.enter(Node.WELD_TEST)
    machine.state.number[m.WELD_FROM_V] = 768.0
    machine.state.word[m.MODE_SECONDS] = seconds
    machine.signals(bus_v=bus_v)
    assert machine.state.word[m.WELD] == verdict


@pytest.mark.parametrize(("from_v", "verdict"), [(96.0, m.WELD_PASSED), (beyond(96.0), m.WELD_RUNNING)])
def test_a_link_that_was_low_proves_nothing(machine: Machine, from_v: float, verdict: int) -> None:
    """Low is an eighth of the string's voltage."""
    machine.enter(Node.WELD_TEST)
    machine.state.number[m.WELD_FROM_V] = from_v
    machine.signals(bus_v=96.0)
    assert machine.state.word[m.WELD] == verdict


def test_a_link_has_fallen_when_it_has_fallen_so_far(machine: Machine) -> None:
    bound = f4(768.0) * (f4(1) - machine.config.setting[m.WELD_FALL])
    for bus_v, verdict in ((beyond(bound), m.WELD_RUNNING), (float(bound), m.WELD_PASSED)):
        machine.enter(Node.WELD_TEST)
        machine.state.number[m.WELD_FROM_V] = 768.0
        machine.signals(bus_v=bus_v)
        assert machine.state.word[m.WELD] == verdict


@pytest.mark.parametrize(
    ("from_v", "bus_v", "doubted"),
    [(768.0, 700.0, 0), (768.0, 768.0, 1), (96.0, 70.0, 1), (beyond(96.0), 70.0, 0), (90.0, 90.0, 1)],
)
def test_a_link_that_falls_in_a_weld_test_is_doubted_no_more(from_v: float, bus_v: float, doubted: int) -> None:
    """Unless it was low before. Here sensors may be 700 V apart, so that nothing else tells it from the string."""
    machine = Machine(precharge_floor_v=700.0)
    machine.enter(Node.WELD_TEST)
    machine.state.number[m.WELD_FROM_V], machine.state.word[m.DOUBTED] = from_v, 1
    machine.signals(bus_v=bus_v)
    assert machine.state.word[m.DOUBTED] == doubted


# numbers that are none


@pytest.mark.parametrize(("heat_j", "kept_j"), [(math.nan, 1e30), (1.25e30, 1e30), (math.inf, 1e30), (1e29, 1e29)])
def test_heat_is_bounded(machine: Machine, heat_j: float, kept_j: float) -> None:
    """It must be able to cool down again; what is no number counts as hot. A step of 2^-10 s takes off 3e-6."""
    machine.state.number[m.RESISTOR_HEAT_J] = heat_j
    machine.signals(2.0**-10)
    assert machine.state.number[m.RESISTOR_HEAT_J] == pytest.approx(kept_j, rel=1e-5)


def test_a_step_without_length_neither_heats_nor_cools(machine: Machine) -> None:
    machine.state.number[m.RESISTOR_HEAT_J] = 1000.0
    machine.signals(0.0)
    assert machine.state.number[m.RESISTOR_HEAT_J] == 1000.0


@pytest.mark.parametrize(("fraction_s", "time_s"), [(999_999.0, 999_999.125), (999_999.875, 0.0), (1.25e6, 0.0)])
def test_a_fraction_of_a_million_seconds_is_damaged(machine: Machine, fraction_s: float, time_s: float) -> None:
    machine.state.number[m.MODE_FRACTION_S] = fraction_s
    machine.signals(0.125)
    assert m.mode_s(machine.state) == time_s


def test_wear_of_an_absurd_current_is_bounded() -> None:
    """1e6 A, 1e4 times the rated 100 A: an opening costs 1e8 / 1000 lives."""
    machine = Machine(contactor_rated_a=100.0)
    machine.enter(Node.CONNECTED, 3)
    machine.measured["current_a"] = -1e30
    assert machine.step(Request.CONNECT, 0.125, int(Reaction.OPEN)) == Node.OPENING
    np.testing.assert_allclose(machine.state.wear, [1e5, 1e5, 0.0], rtol=1e-5)


# what is counted, and where


def test_a_fault_that_opens_a_connected_rack_is_no_failed_attempt(machine: Machine) -> None:
    machine.enter(Node.CONNECTED, 3)
    machine.step(Request.CONNECT, 0.5, int(Reaction.RAMP_OPEN))
    assert machine.state.word[m.NODE] == Node.RAMP_DOWN
    assert machine.step(Request.CONNECT, 0.5, int(Reaction.OPEN)) == Node.OPENING
    assert machine.state.word[m.ATTEMPTS] == 0


def test_a_rack_that_is_connected_has_all_attempts_again(machine: Machine) -> None:
    machine.enter(Node.PRECHARGE_RELEASE, 7)
    machine.state.word[m.ATTEMPTS] = 2
    m._enter(machine.config, machine.state, machine.seen(), int(Node.CONNECTED), 0)
    assert machine.state.word[m.ATTEMPTS] == 0


def test_the_first_of_several_contactors_is_named(machine: Machine) -> None:
    machine.closed = 6
    machine.signals()
    assert (machine.at(Fault.CONTACTOR_WELDED), machine.where[Fault.CONTACTOR_WELDED]) == (1.0, 2)
    machine.enter(Node.PRECHARGE_POSITIVE, 7)
    machine.closed = 0
    machine.signals()
    assert (machine.at(Fault.CONTACTOR_STUCK_OPEN), machine.where[Fault.CONTACTOR_STUCK_OPEN]) == (1.0, 1)


def test_a_rack_without_contactors_has_none_to_look_at() -> None:
    machine = Machine(contactors=False, precharge=False)
    machine.closed = -1
    machine.signals(current_a=50.0)
    for fault in (Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN, Fault.WELD_CURRENT, Fault.STUCK_OPEN_VOLTAGE):
        assert machine.at(fault) == 0.0, fault.name
    machine.closed = 0
    for _ in range(3):
        machine.signals(1.0, current_a=50.0)
    assert math.isnan(machine.at(Fault.CURRENT_OFFSET)), "what flows there is no offset"
    machine = Machine(precharge=False)  # without a link the current still tells of welding
    machine.signals(current_a=-50.0)
    assert machine.at(Fault.WELD_CURRENT) == 50.0


@pytest.mark.parametrize(("word", "after"), [(0, 1), (1, 2), (2, 2), (2**31, 2), (2**32 - 1, 2)])
def test_samples_that_prove_open_contactors_are_counted_to_two(machine: Machine, word: int, after: int) -> None:
    machine.state.word[m.APART] = word
    machine.signals(current_a=5.0)
    assert machine.state.word[m.APART] == after
    assert machine.at(Fault.WELD_CURRENT) == (0.0 if after == 2 else 5.0)
    machine.signals(current_a=5.0, bus_v=PACK_V)
    assert machine.state.word[m.APART] == 0


@pytest.mark.parametrize("dt_s", [0.1, 1.0])
def test_a_sample_from_before_the_contactors_were_operated_says_nothing_of_them(machine: Machine, dt_s: float) -> None:
    """Samples that stop in the very step of an operation are lost, and no contactor is welded or stuck."""
    both = Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN
    machine.enter(Node.CONNECTED, 3)
    machine.closed = 3
    machine.step(Request.CONNECT, 100.0)
    machine.step(Request.CONNECT, dt_s, int(Reaction.OPEN))
    assert machine.state.number[m.OPERATED_S] == 0.0
    machine.closed = 3  # as it was
    for k in range(1, 4):
        machine.value[Fault.SAMPLE_LOST] = k * dt_s
        machine.signals(dt_s=dt_s)
        assert all(math.isnan(machine.at(fault)) for fault in both)
    # the next one is newer, however old it gets
    for age_s in (0.0, 2.0 * dt_s):
        machine.value[Fault.SAMPLE_LOST] = age_s
        machine.signals(dt_s=dt_s)
        assert machine.at(Fault.CONTACTOR_WELDED) == 1.0
    assert machine.state.number[m.OPERATED_S] == pytest.approx(5 * dt_s)


def test_what_the_rack_has_opened_while_its_controller_was_silent_is_opened_in_order(machine: Machine) -> None:
    """After a late step open contactors are no fault, and are not asked to close again onto a link of any voltage."""
    machine.enter(Node.CONNECTED, 3)
    machine.closed = 3
    machine.step(Request.CONNECT, 100.0)
    machine.closed = 0
    machine.value[Fault.DEADLINE_MISSED] = 2.5
    machine.signals(2.5)
    assert math.isnan(machine.at(Fault.CONTACTOR_STUCK_OPEN))
    assert math.isnan(machine.at(Fault.STUCK_OPEN_VOLTAGE))
    assert machine.state.word[m.LEFT] == 1
    assert machine.step(Request.CONNECT, 2.5) == Node.OPENING
    assert machine.closed == 0
    # nothing is left over for the next step
    machine.value[Fault.DEADLINE_MISSED] = 1.0
    machine.signals(1.0)
    assert machine.state.word[m.LEFT] == 0
    assert machine.at(Fault.CONTACTOR_STUCK_OPEN) == 0.0
    assert machine.at(Fault.STUCK_OPEN_VOLTAGE) == 1.0  # the link of the machine is at 0 V


@pytest.mark.parametrize(("closed", "left"), [(3, 0), (2, 1), (1, 1), (0, 1), (-1, 0)])
def test_any_contactor_that_is_open_after_a_silence_was_opened_and_no_other(
    machine: Machine, closed: int, left: int
) -> None:
    """Nor one of which nothing is known."""
    machine.enter(Node.CONNECTED, 3)
    machine.step(Request.CONNECT, 100.0)
    machine.closed = closed
    machine.value[Fault.DEADLINE_MISSED] = 2.5
    machine.signals(2.5)
    assert machine.state.word[m.LEFT] == left


@pytest.mark.parametrize(("periods", "since_s"), [(1.4, 100.0), (3.0, 0.0)])
def test_a_contactor_is_stuck_open_in_time_or_before_it_can_have_closed(
    machine: Machine, periods: float, since_s: float
) -> None:
    """A step that is hardly late, or one within the time that a contactor takes, excuses nothing."""
    machine.enter(Node.CONNECTED, 3)
    machine.closed = 3
    machine.step(Request.CONNECT, 0.0)
    machine.state.number[m.OPERATED_S] = since_s
    machine.closed = 1
    machine.value[Fault.DEADLINE_MISSED] = periods
    machine.signals(0.05)  # `contactor_actuation_s` is 0.1
    assert machine.at(Fault.CONTACTOR_STUCK_OPEN) == 1.0
    assert machine.state.word[m.LEFT] == 0
