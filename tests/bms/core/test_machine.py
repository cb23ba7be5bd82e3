"""The kernels of the state machine: start, faults, context, time, and what must not happen on nonsense."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import machine as m
from bms.core.faults import N_FAULTS, Fault, Reaction
from bms.core.jit import f4
from bms.core.machine_setup import MachineSettings
from bms.core.machine_table import Node, Request
from bms.core.seen import Seen
from hal.contract import NO_INDEX

from .machine_rig import (
    POSITIVE,
    PRECHARGE,
    Rig,
    config_for,
    connected,
)


def test_start_waits_for_a_second_of_order() -> None:
    rig = Rig()
    assert rig.run(Request.OPEN, Node.STANDBY) == pytest.approx(1.2, abs=0.11)  # one step each, and self_test_s
    assert rig.path == [Node.INIT, Node.SELF_TEST, Node.STANDBY]
    assert rig.history == [0]


def test_start_without_data_ends_in_fault() -> None:
    rig = Rig(complete=False)
    took_s = rig.run(Request.OPEN, Node.FAULT)
    assert took_s == pytest.approx(10.0 + 60.0, abs=0.5)  # init_time_out_s, self_test_time_out_s


def test_self_test_starts_again_when_something_is_out_of_order() -> None:
    rig = Rig()
    rig.hold(Request.OPEN, 0.8)
    rig.complete = False
    rig.step()
    rig.complete = True
    assert rig.run(Request.OPEN, Node.STANDBY) == pytest.approx(1.1, abs=0.11)


def test_fault_is_left_by_reset_alone_and_not_with_a_fault() -> None:
    rig = connected()
    rig.reactions = lambda _: (Reaction.OPEN, True)
    rig.run(Request.CONNECT, Node.FAULT)
    rig.hold(Request.RESET, 1.0)
    assert rig.node == Node.FAULT
    rig.reactions = lambda _: (0, False)
    rig.hold(Request.CONNECT, 1.0)
    assert rig.node == Node.FAULT
    assert rig.step(Request.RESET) == Node.STANDBY


@pytest.mark.parametrize("how", ["pressed", "requested"])
def test_emergency_stop(how: str) -> None:
    rig = connected(load_a=100.0)
    rig.value[Fault.EMERGENCY_STOP] = 0.0
    rig.pressed = int(how == "pressed")
    assert rig.step(Request.CONNECT if rig.pressed else Request.EMERGENCY_STOP) == Node.EMERGENCY_STOP
    assert rig.asked == 0
    assert rig.at(Fault.EMERGENCY_STOP) == (0.0 if rig.pressed else 1.0)  # the pressed one is written by the signals
    rig.hold(Request.RESET if rig.pressed else Request.EMERGENCY_STOP, 1.0)
    assert rig.node == Node.EMERGENCY_STOP
    rig.pressed = 0
    rig.hold(Request.CONNECT, 1.0)
    assert rig.node == Node.EMERGENCY_STOP
    rig.run(Request.RESET, Node.STANDBY)
    assert rig.path[-4:] == [Node.EMERGENCY_STOP, Node.OPENING, Node.WELD_TEST, Node.STANDBY]


def test_maintenance_closes_nothing_and_leads_through_the_self_test() -> None:
    rig = connected()
    rig.run(Request.MAINTENANCE, Node.MAINTENANCE)
    rig.hold(Request.MAINTENANCE, 5.0)
    assert rig.node == Node.MAINTENANCE
    assert rig.step(Request.CONNECT) == Node.SELF_TEST


def test_every_fault_of_the_machine_says_where() -> None:
    """Open contactors that say so are known to be open; what concerns the rack has no place; cell 0 is one."""
    rig = Rig(cell_v=0.02)
    rig.state.word[m.TRANSPORTED] = 1
    rig.run(Request.OPEN, Node.TRANSPORT)
    rig.step()
    assert (rig.at(Fault.CONTACTOR_WELDED), rig.at(Fault.CONTACTOR_STUCK_OPEN)) == (0.0, 0.0)
    own = [Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN, *range(Fault.WELD_CURRENT, Fault.SELF_TEST + 1)]
    own.append(Fault.CURRENT_OFFSET)  # what the sensor reads then is its own
    assert [int(f) for f in np.flatnonzero(rig.where == NO_INDEX)] == own
    seen = rig.seen(0.0)._replace(cell_low_at=0, cell_high_at=0)
    m.machine_signals(rig.config, rig.state, seen, 0, rig.value, rig.where, f4(0.1))
    assert rig.where[Fault.TRANSPORT_REVERSED] == rig.where[Fault.TRANSPORT_VOLTAGE] == 0


def test_weeks_are_counted_in_short_steps() -> None:
    """float32 alone would stand still: 5e6 s + 0.1 s = 5e6 s."""
    rig = Rig(config=config_for(MachineSettings(transport_allowed=True, transport_drain_time_out_s=5_000_010.0)))
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    rig.state.word[m.MODE_SECONDS] = 5_000_000
    assert rig.run(Request.TRANSPORT, Node.FAULT) == pytest.approx(10.0, abs=1.2)


def test_rack_without_contactors_connects_without_asking_for_any() -> None:
    rig = Rig(config=config_for(contactors=False, precharge=False), lost=frozenset({"closed", "bus_v"}))
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert rig.history == [0]
    for fault in (Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN, Fault.WELD_CURRENT, Fault.STUCK_OPEN_VOLTAGE):
        assert rig.at(fault) == 0.0
    rig.run(Request.OPEN, Node.STANDBY)


def test_feedback_of_contactors_that_the_rack_has_not_is_ignored() -> None:
    rig = Rig(config=config_for(precharge=False), welded=PRECHARGE, lost=frozenset({"bus_v"}))
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert rig.at(Fault.CONTACTOR_WELDED) == 0.0


@pytest.mark.parametrize("dt_s", [math.nan, 0.0, -1.0])
def test_a_step_that_is_no_time_counts_as_none(dt_s: float) -> None:
    rig = Rig(complete=False)
    rig.dt_s = 0.5
    rig.step()
    m.machine_signals(rig.config, rig.state, rig.seen(0.0), 0, rig.value, rig.where, f4(dt_s))
    assert m.mode_s(rig.state) == 0.5


def test_an_endless_step_counts_as_a_day() -> None:
    rig = connected()
    m.machine_signals(rig.config, rig.state, rig.seen(0.0), 1, rig.value, rig.where, f4(math.inf))
    assert m.mode_s(rig.state) == pytest.approx(1e5, abs=1.0)


@pytest.mark.parametrize("fraction", [math.nan, math.inf, -5.0, 2e6])
def test_damaged_time_starts_anew(fraction: float) -> None:
    rig = Rig(complete=False)
    rig.state.number[m.MODE_FRACTION_S] = fraction
    rig.step()
    assert m.mode_s(rig.state) == 0.0


def test_time_does_not_run_over() -> None:
    rig = connected()
    rig.state.word[m.MODE_SECONDS] = 2_000_000_000
    rig.dt_s = 5.0
    rig.step(Request.CONNECT)
    assert rig.state.word[m.MODE_SECONDS] == 2_000_000_000


def test_long_steps_do_not_run_into_time_outs() -> None:
    rig = Rig(dt_s=60.0)
    rig.run(Request.CONNECT, Node.CONNECTED, at_most_s=1000.0)
    assert Node.OPENING not in rig.path


@pytest.mark.parametrize("word", [22, 77, 2**31, 2**32 - 1])
def test_a_node_that_does_not_exist_is_a_fault(word: int) -> None:
    rig = connected()
    rig.state.word[m.NODE] = word
    assert rig.step(Request.CONNECT) == Node.FAULT
    assert rig.asked == 0


@given(steps=st.lists(st.floats(0.015625, 3.0, width=32), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_time_outs_are_kept_to_a_step(steps: list[float]) -> None:
    rig = connected(load_a=100.0)
    rig.step()
    passed_s = 0.0
    for k in range(2000):
        rig.dt_s = steps[k % len(steps)]
        passed_s += rig.dt_s
        if rig.step() == Node.OPENING:
            break
    assert 5.0 - 1e-3 <= passed_s <= 5.0 + rig.dt_s + 1e-3


any_float = st.one_of(
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 3.4e38, -3.4e38, 1e-45]), st.floats(width=32)
)


@given(
    floats=st.lists(any_float, min_size=11, max_size=11),
    closed=st.integers(-1, 255),
    words=st.lists(st.integers(0, 2**32 - 1), min_size=m.N_WORDS, max_size=m.N_WORDS),
    node=st.integers(0, 21),
    numbers=st.lists(any_float, min_size=m.N_NUMBERS, max_size=m.N_NUMBERS),
    flags=st.tuples(st.booleans(), st.integers(0, 255), st.integers(0, 511), st.booleans(), st.integers(-5, 300)),
)
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # plain Python tells of overflow
def test_nothing_raises_and_nothing_closes_on_nonsense(
    floats: list[float],
    closed: int,
    words: list[int],
    node: int,
    numbers: list[float],
    flags: tuple[bool, int, int, bool, int],
) -> None:
    config = config_for()
    state = m.machine_state()
    state.word[:] = words
    state.word[m.NODE] = node
    state.number[:] = numbers
    complete, pressed, reaction, fatal, request = flags
    x = [f4(v) for v in floats]
    seen = Seen(*x[:6], 3, 4, *x[6:9], 0, 0, x[9], closed, 0, complete, pressed)
    value, where = np.zeros(N_FAULTS, np.float32), np.zeros(N_FAULTS, np.uint16)
    before = int(config.node[9 * node + 1])
    m.machine_signals(config, state, seen, request, value, where, x[10])
    asked = m.machine_advance(config, state, seen, reaction, fatal, request, x[10])
    assert asked in (0, 2, 3, 6, 7)
    if asked & ~before:
        assert complete
        assert not pressed
        assert not fatal
        assert not reaction & (Reaction.OPEN | Reaction.RAMP_OPEN | Reaction.NO_CLOSE)
    if asked & ~before & POSITIVE:
        assert abs(float(seen.bus_v) - float(seen.pack_v)) <= max(0.02 * float(seen.pack_v), 5.0) * 1.001
