"""The same loop on a rack behind Modbus: whatever breaks, its decisions are those on the twin itself, to the bit."""

from typing import Any

import pytest
from modbus_wire import Wired

from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.contract import RackState
from hal.registry import open_rack

PERIOD_S, FAULT_S, END_S = 0.2, 20.0, 35.0
FAULTS = {
    "": RackState.CONNECTED,
    "cell_v_missing": RackState.FAULT,
    "sensor_missing": None,
    "current_missing": RackState.FAULT,
    "pack_v_missing": None,
    "interlock_open": RackState.FAULT,
    "emergency_stop": RackState.EMERGENCY_STOP,
    "gas_alarm": RackState.FAULT,
    "insulation": RackState.FAULT,
}
"""Fault of the twin after 20 s, and the state that it must lead to at some time (None: any)."""


class Moving(VirtualClock):
    """A clock that the wire moves, too."""

    def move(self, seconds: float) -> None:
        self.wait_until(self.now_s() + seconds, lambda: False)


def decisions(n_cells: int, options: dict[str, Any], wire: bool) -> tuple[list[bytes], list[int]]:
    """Every command, and every state, of a run at 5 Hz, on the twin or on the twin behind Modbus."""
    clock = Moving()
    commands: list[bytes] = []
    states: list[int] = []
    twin: Any = open_rack(f"sim:lfp_280?n_series={n_cells}", clock=clock, options=options)
    rack = Wired("tcp://127.0.0.1:0", clock, twin) if wire else twin
    with rack:
        controller = make_controller(Scenario(rack="sim:lfp_280", period_s=PERIOD_S), rack, clock)

        def keep(*_: object) -> None:
            commands.append(controller.command.bytes.tobytes())
            states.append(int(controller.command.head["state"][0]))

        Loop(rack, controller, clock, PERIOD_S, observers=(keep,)).run(END_S)
    if wire:
        rack.end()
    return commands, states


@pytest.mark.parametrize("kind", FAULTS)
def test_decisions_are_those_on_the_twin_itself(kind: str) -> None:
    n_cells = 16 if kind else 416
    fault: dict[str, Any] = {"kind": kind, "at_s": FAULT_S}
    fault |= {"index": [1]} if kind in ("cell_v_missing", "sensor_missing") else {}
    fault |= {"value": 1e3} if kind == "insulation" else {}
    options = {"duty": {"kind": "constant", "c_rate": 0.3}, "fault": [fault] if kind else []}
    (direct, states), (wired, _) = (decisions(n_cells, options, wire) for wire in (False, True))
    assert RackState.CONNECTED in states
    assert FAULTS[kind] is None or FAULTS[kind] in states
    assert len(direct) == len(wired)
    different = [k for k, (a, b) in enumerate(zip(direct, wired, strict=True)) if a != b]
    assert different == []
