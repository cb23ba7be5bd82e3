"""Which faults are looked at: with open and closed contactors, in each stage of closing, in transport."""

from __future__ import annotations

import pytest

from bms.core import machine as m
from bms.core.faults import Context
from bms.core.machine_context import machine_context
from bms.core.machine_table import Node, Request

from .machine_rig import Rig


def test_context() -> None:
    rig = Rig()
    rig.run(Request.OPEN, Node.STANDBY)
    base = Context.ALWAYS | Context.WINDOW
    assert machine_context(rig.state, 0) == base | Context.OPENED | Context.RESTING
    rig.step(Request.CONNECT)
    assert machine_context(rig.state, 0) == base | Context.PRECHARGING | Context.RESTING
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert machine_context(rig.state, 1) == base | Context.CLOSED | Context.DISCHARGING
    assert machine_context(rig.state, -1) == base | Context.CLOSED | Context.CHARGING
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    assert machine_context(rig.state, 0) == Context.ALWAYS | Context.TRANSPORT | Context.OPENED | Context.RESTING


@pytest.mark.parametrize("node", Node, ids=lambda n: n.name)
def test_precharge_is_looked_at_in_its_stages(node: Node) -> None:
    rig = Rig()
    rig.state.word[m.NODE] = node
    stages = [Node.PRECHARGE_NEGATIVE, Node.PRECHARGE_LINK, Node.PRECHARGE_POSITIVE, Node.PRECHARGE_RELEASE]
    stages += [Node.TRANSPORT_NEGATIVE, Node.TRANSPORT_LINK, Node.TRANSPORT_POSITIVE, Node.TRANSPORT_RELEASE]
    assert bool(machine_context(rig.state, 0) & Context.PRECHARGING) == (node in stages)
