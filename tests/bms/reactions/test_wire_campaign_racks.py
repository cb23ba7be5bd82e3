"""The same faults of the wire before racks that are reached over CAN and over Modbus."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from can_bus import BusRack, Far
from modbus_wire import Wired
from wire_campaign import FATAL, RATES, SEEN_OPEN, Campaign

from bms.core.faults import Reaction
from hal.backends.chaos_wire import KINDS, WireFaults
from hal.contract import RackState

CONNECTED_S, FOR_S, HEALED_S = 40.0, 30.0, 40.0
NUMBERS = itertools.count()


class Reach:
    """Puts the twin of a trial on a bus; `end` takes down what is around it."""

    def __init__(self, wire: str) -> None:
        self.wire, self._around = wire, ExitStack()

    def __call__(self, trial: Any) -> Any:
        info = trial.info
        if self.wire == "modbus":
            rack: Any = Wired("tcp://127.0.0.1:0", trial.clock, trial.twin)
        else:
            url = f"can:virtual:campaign{next(NUMBERS)}?n_cells={info.n_cells}&n_sensors={info.n_sensors}"
            rack = BusRack(url, Far(url, trial.twin), trial.clock)
            self._around.callback(rack.close)
        self._around.callback(rack.end)
        return rack

    def end(self) -> None:
        self._around.close()


@pytest.fixture(params=["can", "modbus"])
def reach(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    made = Reach(request.param)
    yield made
    made.end()


@pytest.mark.parametrize("kind", KINDS)
def test_no_use_on_bad_data_and_back_again(kind: str, reach: Callable[[Any], Any], trial: Any) -> None:
    """One rate after the other on one rack, as long as nothing has latched; on a new one after that."""
    campaign = None
    for rate in RATES:
        if campaign is None:
            campaign = Campaign(trial, reach=reach)
            assert campaign.run(CONNECTED_S).state == RackState.CONNECTED
        campaign.chaos.inject(wire=WireFaults(**{kind: rate}))
        campaign.run(campaign.t.next_s + FOR_S)
        campaign.check_budgets()
        opened = campaign.opened_by()
        if rate == 1.0:
            assert (opened in SEEN_OPEN[kind]) if kind in SEEN_OPEN else opened is None
        campaign.chaos.clear()
        healed = campaign.run(campaign.t.next_s + HEALED_S)
        assert not campaign.bad(), "what is told is fresh and right again"
        if not healed.shown(FATAL):
            assert healed.state == RackState.CONNECTED
            continue
        assert healed.asked == 0
        assert all(campaign.t.row(fault, FATAL).reaction & Reaction.LATCH for fault in healed.shown(FATAL))
        campaign = None
