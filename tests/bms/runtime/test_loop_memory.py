"""A loop that runs for months must not grow: Python's objects are counted over a million steps, and its collections."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller, open_rack
from bms.runtime.scenario import Scenario

STEPS = 1_000_000
SETTLED = 2_000


class Census:
    """An observer that counts allocated blocks once the loop has settled, and at the end; the collector's runs, too."""

    def __init__(self) -> None:
        self.blocks: dict[int, int] = {}
        self.collected = [0, 0, 0]

    def __call__(self, step: int, now_s: float, dt_s: float, truth: object) -> None:
        if step in (SETTLED, STEPS):
            self.blocks[step] = sys.getallocatedblocks()

    def note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and SETTLED in self.blocks and STEPS not in self.blocks:
            self.collected[info["generation"]] += 1
            assert info["collected"] == 0, "a step leaves nothing behind that only the collector finds"


@pytest.fixture
def usual_collector() -> Iterator[None]:
    """The collector runs as often as in a process of the controller, not as seldom as among tests."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("usual_collector")
def test_a_million_steps_leave_no_object_behind() -> None:
    """Read, decide, write and observe on the smallest twin: as many blocks of memory at the end as at the start."""
    clock, census = VirtualClock(), Census()
    scenario = Scenario(rack="sim:lfp_280", cell="lfp_280", tables={"rack": {"n_series": 1}})
    rack = open_rack(scenario, clock)
    with rack:
        loop = Loop(rack, make_controller(scenario, rack, clock), clock, 0.1, observers=(census,))
        gc.callbacks.append(census.note)
        try:
            stats = loop.run(0.1 * STEPS)
        finally:
            gc.callbacks.remove(census.note)
    assert stats.steps > STEPS
    grown = census.blocks[STEPS] - census.blocks[SETTLED]
    assert abs(grown) < 100, f"{grown} blocks more after a million steps"
    assert gc.get_freeze_count() == 0, "the loop gives the collector back what it kept from it"
