"""What an energy manager wants, and that it must stay there: by example, and as a state machine of hypothesis."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hal.contract import RackState
from hal.pcs import Ask
from hal.pcs.energy_manager import MOST_WAITING, REFUSING, VALUES, EnergyManager, Presence

SILENT_S = 5.0


@pytest.fixture
def manager() -> EnergyManager:
    return EnergyManager(SILENT_S)


def step(manager: EnergyManager, now_s: float, state: RackState = RackState.STANDBY) -> Ask:
    """A step after which the controller is in `state`."""
    asked = manager.step(now_s)
    manager.saw(state)
    return asked


def test_nobody_wants_anything_at_first(manager: EnergyManager) -> None:
    assert step(manager, 0.0) == step(manager, 1000.0) == Ask.OPEN
    assert (manager.presence, manager.silences) == (Presence.NONE, 0)
    assert manager.shown()["set_op"] == 2
    assert math.isnan(manager.shown()["ctrl_hb"])


@pytest.mark.parametrize("order", ["set_op", "set_con"])
def test_connected_as_long_as_the_heart_beat_moves(manager: EnergyManager, order: str) -> None:
    assert manager.give([("ctrl_hb", 1), (order, 1)])
    assert step(manager, 0.0) == Ask.CONNECT
    for k in range(1, 20):
        assert manager.give([("ctrl_hb", k % 3)])
        assert step(manager, 4.0 * k) == Ask.CONNECT
    assert step(manager, 4.0 * 19 + SILENT_S) == Ask.CONNECT
    assert step(manager, 4.0 * 19 + SILENT_S + 0.1) == Ask.OPEN
    assert (manager.presence, manager.silences, manager.shown()["set_op"]) == (Presence.SILENT, 1, 2)


def test_a_heart_beat_that_stands_still_is_none(manager: EnergyManager) -> None:
    manager.give([("ctrl_hb", 7), ("set_op", 1)])
    asked = []
    for k in range(10):
        asked.append(step(manager, float(k)))
        assert manager.give([("ctrl_hb", 7)])
    assert asked == [Ask.CONNECT] * 6 + [Ask.OPEN] * 4


def test_without_any_heart_beat_it_is_connected_for_so_long_and_once(manager: EnergyManager) -> None:
    assert manager.give([("set_op", 1)])
    assert step(manager, 100.0) == Ask.CONNECT
    for k in range(20):
        manager.give([("set_op", 1)])  # again and again: contactors must not close and open all day
        asked = step(manager, 100.0 + k)
        assert asked == (Ask.CONNECT if k <= SILENT_S else Ask.OPEN)
    assert not manager.give([("set_op", 1)])
    assert manager.give([("ctrl_hb", 1), ("set_op", 1)])
    assert step(manager, 120.0) == Ask.CONNECT


def test_who_has_disconnected_may_leave(manager: EnergyManager) -> None:
    manager.give([("ctrl_hb", 1), ("set_op", 1)])
    step(manager, 0.0)
    manager.give([("set_op", 2)])
    assert step(manager, 1.0) == Ask.OPEN
    assert step(manager, 100.0) == Ask.OPEN
    assert (manager.presence, manager.silences) == (Presence.NONE, 0)


@pytest.mark.parametrize("state", sorted(REFUSING))
def test_a_trip_ends_what_was_wanted_and_to_connect_is_refused(manager: EnergyManager, state: RackState) -> None:
    manager.give([("ctrl_hb", 1), ("set_op", 1)])
    assert step(manager, 0.0, RackState.CONNECTED) == Ask.CONNECT
    assert step(manager, 0.1, state) == Ask.CONNECT
    assert not manager.wants
    assert not manager.give([("set_op", 1)])
    assert not manager.give([("ctrl_hb", 2), ("set_con", 1)])
    assert step(manager, 0.2, RackState.STANDBY) == Ask.OPEN, "it is not remembered"
    assert manager.shown()["ctrl_hb"] == 1, "of what is refused nothing is taken"
    assert manager.give([("set_op", 1)])
    assert step(manager, 0.3, RackState.STANDBY) == Ask.CONNECT


def test_a_reset_is_given_once_and_shown_until_then(manager: EnergyManager) -> None:
    manager.give([("ctrl_hb", 1), ("set_op", 1)])
    step(manager, 0.0)
    assert manager.give([("alm_rst", 1)])
    assert manager.shown()["alm_rst"] == 1
    assert step(manager, 0.1, RackState.CONNECTED) == Ask.RESET
    assert manager.shown()["alm_rst"] == 0
    assert step(manager, 0.2, RackState.CONNECTED) == Ask.CONNECT
    manager.give([("alm_rst", 0)])
    assert step(manager, 0.3, RackState.CONNECTED) == Ask.CONNECT


def test_a_string_that_is_disabled_does_not_connect(manager: EnergyManager) -> None:
    manager.give([("ctrl_hb", 1), ("set_op", 1)])
    step(manager, 0.0)
    manager.give([("set_ena", 2)])
    assert not manager.give([("set_op", 1)]), "what waits counts already"
    assert manager.shown()["set_ena"] == 2
    assert step(manager, 0.1) == Ask.OPEN
    assert (manager.enabled, manager.shown()["set_ena"]) == (False, 0)
    assert not manager.give([("set_con", 1)])
    assert manager.give([("set_ena", 0), ("set_con", 0)])
    assert (step(manager, 0.2), manager.enabled) == (Ask.OPEN, False)
    assert manager.give([("set_ena", 1), ("set_con", 1)])
    assert step(manager, 0.3) == Ask.CONNECT


@pytest.mark.parametrize(
    "order", [("set_op", 0), ("set_op", 3), ("set_con", 3), ("set_ena", 65535), ("alm_rst", 2), ("alm_rst", 65535)]
)
def test_what_no_order_is_changes_nothing(manager: EnergyManager, order: tuple[str, int]) -> None:
    before = manager.shown()
    assert not manager.give([("alm_rst", 1), order])
    assert str(manager.shown()) == str(before)
    assert step(manager, 0.0) == Ask.OPEN


def test_a_controller_that_does_not_step_takes_no_more_orders(manager: EnergyManager) -> None:
    taken = [manager.give([("ctrl_hb", k % 60)]) for k in range(MOST_WAITING + 10)]
    assert taken == [True] * MOST_WAITING + [False] * 10
    step(manager, 0.0)
    assert manager.give([("set_op", 1)])


class Machine(RuleBasedStateMachine):
    """Orders, time and trips in any order; the rules hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = EnergyManager(SILENT_S)
        self.now_s = 0.0
        self.state = RackState.STANDBY
        self.moved_s = -math.inf  # when the heart-beat moved, or a first connect was taken
        self.beat: int | None = None
        self.asked = Ask.OPEN
        self.accepted: list[tuple[str, int]] = []

    @rule(
        orders=st.lists(
            st.sampled_from(sorted(VALUES)).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 4))), max_size=4
        )
    )
    def give(self, orders: list[tuple[str, int]]) -> None:
        if self.manager.give(orders):
            self.accepted += orders
            assert all(value in VALUES[name] for name, value in orders)

    @rule(dt_s=st.sampled_from([0.1, 1.0, 4.9, 6.0]), state=st.sampled_from(list(RackState)))
    def step(self, dt_s: float, state: RackState) -> None:
        self.now_s, before = self.now_s + dt_s, self.asked
        orders, self.accepted = self.accepted, []
        for name, value in orders:
            if name == "ctrl_hb" and value != self.beat:
                self.beat, self.moved_s = value, self.now_s
        connects = [order for order in orders if order in (("set_op", 1), ("set_con", 1))]
        if connects and self.manager.presence == Presence.NONE:
            self.moved_s = self.now_s
        self.asked = self.manager.step(self.now_s)
        if self.asked == Ask.CONNECT:
            assert self.state not in REFUSING
            assert self.now_s - self.moved_s <= SILENT_S, "nobody is there"
            assert before != Ask.OPEN or connects, "nobody has asked for it"
        assert (self.asked == Ask.RESET) == (("alm_rst", 1) in orders)
        self.manager.saw(state)
        self.state = state

    @precondition(lambda self: not self.accepted)
    @invariant()
    def what_is_done_shows_as_done(self) -> None:
        shown = self.manager.shown()
        assert (shown["alm_rst"], shown["set_con"], shown["set_ena"]) == (0, 0, 0)
        assert shown["set_op"] == (1 if self.manager.wants else 2)

    @invariant()
    def who_is_silent_or_disabled_wants_nothing(self) -> None:
        assert not (self.manager.wants and (self.manager.presence != Presence.HEARD or not self.manager.enabled))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
