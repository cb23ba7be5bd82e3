"""Power is cut in the middle of every operation on the flash: something good always starts, and nothing else ever does.

A dry run counts the operations of an action. Then the action is played once for each of them and each way of being cut off,
and once more with a second cut at each operation of the start that follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bms.firmware.boot.host import NO_SLOT, Controller, Event, Outcome, PowerLost, Verdict

SEEDS = range(8)  # of what is left; both ends of what can be are among them
OLD, NEW = b"old " * 300, b"new " * 450


@dataclass
class Bench:
    """A controller with two images, the old one confirmed in slot 0."""

    controller: Controller
    old: bytes
    new: bytes

    def prepare(self) -> None:
        self.controller.new()
        self.install(NO_SLOT, self.old)
        assert self.controller.boot().slot == 0
        assert self.controller.confirm(0)
        assert self.controller.boot().slot == 0

    def install(self, running: int, image: bytes) -> None:
        assert self.controller.update(running, image) is Outcome.GOOD
        assert self.controller.arm(self.controller.free_slot(running)) is Verdict.GOOD

    def running(self) -> bytes:
        """Start; gives the image that runs, which must be one of the two, to the last byte."""
        slot = self.controller.boot().slot
        assert slot != NO_SLOT, "bricked"
        image = (self.old, self.new)[slot]
        assert self.controller.slot(slot)[: len(image)] == image, "an image that is not whole was started"
        return image

    def update_at_last(self) -> None:
        """After whatever happened, the new image can be installed, proves itself, and stays."""
        running = self.controller.boot().slot
        if self.controller.free_slot(running) == NO_SLOT:
            running = self.controller.boot().slot  # a trial is over with the next start
        if running == 0:
            self.install(running, self.new)
            assert self.running() == self.new
            assert self.controller.confirm(1)
        assert self.running() == self.running() == self.new
        assert self.controller.counters.violations == 0


@pytest.fixture(scope="module")
def bench(workshop) -> Bench:
    new = workshop.image("2.0.0", 2, NEW)
    return Bench(workshop.controller(), workshop.image("1.0.0", 1, OLD), new)


def update(bench: Bench) -> None:
    bench.install(0, bench.new)


def armed(bench: Bench) -> None:
    bench.prepare()
    update(bench)


def tried(bench: Bench) -> None:
    armed(bench)
    assert bench.controller.boot().slot == 1


def boot(bench: Bench) -> None:
    bench.controller.boot()


def confirm(bench: Bench) -> None:
    assert bench.controller.confirm(1)


ACTIONS: dict[str, tuple[Callable[[Bench], None], Callable[[Bench], None], str]] = {
    "update": (Bench.prepare, update, "old new"),
    "trial": (armed, boot, "old new"),
    "revert": (tried, boot, "old"),
    "confirm": (tried, confirm, "old new"),
}
"""What comes before, what is cut, and what may run afterwards."""


def operations(bench: Bench, before: Callable[[Bench], None], action: Callable[[Bench], None]) -> int:
    before(bench)
    start = bench.controller.counters.operations
    action(bench)
    return bench.controller.counters.operations - start


def test_a_dry_run_finds_operations_to_cut(bench: Bench) -> None:
    counts = {name: operations(bench, before, action) for name, (before, action, _) in ACTIONS.items()}
    units, sectors = -(-len(bench.new) // 32), -(-len(bench.new) // 1024)
    record = 2 * (1 + 3)  # a sector and 96 bytes, twice
    assert counts == {"update": units + sectors + 2 * record, "trial": record, "revert": record, "confirm": record}


@pytest.mark.parametrize("name", ACTIONS)
def test_power_is_cut_at_every_operation(bench: Bench, name: str) -> None:
    before, action, may_run = ACTIONS[name]
    names = {bench.old: "old", bench.new: "new"}
    seen = set()
    for at in range(operations(bench, before, action)):
        for seed in SEEDS:
            before(bench)
            bench.controller.cut(at, seed)
            with pytest.raises(PowerLost):
                action(bench)
            seen.add(names[bench.running()])
            bench.update_at_last()
    assert seen <= set(may_run.split())


@pytest.mark.parametrize("name", ACTIONS)
def test_power_is_cut_again_during_the_start_that_follows(bench: Bench, name: str) -> None:
    before, action, _ = ACTIONS[name]
    cuts = 0
    for at in range(operations(bench, before, action)):
        for seed in SEEDS:
            for second in range(16):
                before(bench)
                bench.controller.cut(at, seed)
                with pytest.raises(PowerLost):
                    action(bench)
                bench.controller.cut(second, seed + 1)
                try:
                    bench.controller.boot()
                except PowerLost:
                    cuts += 1
                else:
                    break  # this start has no more operations
                bench.running()
                bench.update_at_last()
    bench.controller.cut()
    assert cuts > 0


def test_a_confirmed_image_stays_confirmed(bench: Bench) -> None:
    """What was acknowledged is never lost, whatever is cut afterwards."""
    for at in range(16):
        tried(bench)
        confirm(bench)
        bench.controller.cut(at, at)
        with pytest.raises(PowerLost):
            bench.controller.update(1, bench.old)
        assert bench.running() == bench.new


class Life(RuleBasedStateMachine):
    """Any order of what can happen to a controller, with power cut anywhere."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.bench.prepare()
        self.running: int | None = 0

    def attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except PowerLost:
            self.running = None

    @rule(after=st.integers(0, 90), seed=st.integers(0, 2**16))
    def power_will_be_cut(self, after: int, seed: int) -> None:
        self.bench.controller.cut(after, seed)

    @precondition(lambda self: self.running is not None)
    @rule(offset=st.integers(0, 2), whole=st.booleans())
    def update(self, offset: int, whole: bool) -> None:
        free = self.bench.controller.free_slot(self.running)
        if free != NO_SLOT:
            image = (self.bench.old, self.bench.new)[free]
            end = len(image) if whole else len(image) // 2
            self.attempt(lambda: self.bench.controller.update(self.running, image[:end], offset * 1024))

    @precondition(lambda self: self.running is not None)
    @rule()
    def arm(self) -> None:
        self.attempt(lambda: self.bench.controller.arm(1 - (self.running or 0)))

    @precondition(lambda self: self.running is not None)
    @rule(self_test_passed=st.booleans(), rack_healthy=st.booleans())
    def confirm(self, self_test_passed: bool, rack_healthy: bool) -> None:
        self.attempt(lambda: self.bench.controller.confirm(self.running, self_test_passed, rack_healthy))

    @rule()
    def start(self) -> None:
        def boot() -> None:
            slot = self.bench.controller.boot().slot
            assert slot != NO_SLOT, "bricked"
            image = (self.bench.old, self.bench.new)[slot]
            assert self.bench.controller.slot(slot)[: len(image)] == image
            self.running = slot

        self.attempt(boot)

    @invariant()
    def the_flash_stands_it(self) -> None:
        assert self.bench.controller.counters.violations == 0


def test_any_order_of_events(bench: Bench) -> None:
    """Slots hold images with one security counter here, so that either may follow the other."""

    class Here(Life):
        pass

    Here.bench = bench
    run_state_machine_as_test(Here, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))


def test_what_happened_is_remembered(bench: Bench) -> None:
    bench.prepare()
    events = [Event(bench.controller.boot().record.event)]
    update(bench)
    for _ in range(2):
        events.append(Event(bench.controller.boot().record.event))
    assert events == [Event.CONFIRMED, Event.TRIED, Event.REVERTED]
    record = bench.controller.boot().record
    assert (record.active, record.trial, record.failed) == (0, NO_SLOT, 1)
