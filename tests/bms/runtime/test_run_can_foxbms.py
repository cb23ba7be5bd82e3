"""The loop on a foxBMS 2 unit, played by a twin: what its wire lacks, the loop does without, and it opens when blind."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from can_bus import BusRack, Far, wait_for

from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.run import make_controller
from bms.runtime.scenario import Scenario
from hal.codec.can_profile import FOLDER
from hal.contract import Contactor, RackState
from hal.profiles.foxbms import generate

N_CELLS, N_SENSORS = 12, 3
TWIN = f"sim:lfp_280?n_series={N_CELLS}"
PRECHARGE_S = 3.0
CHANGES = {"fault": {"contactor_stuck_open": {"fatal": {"set_s": 4.0}}}}
MAINS = Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE


class Unit(Far):
    """A unit: asked for a mode, it precharges and closes by itself, and opens by itself when nobody asks any more."""

    def __init__(self, url: str, options: Any, silent_s: float) -> None:
        super().__init__(url, TWIN, options)
        self.silent_s = silent_s
        self.asked_s = np.inf
        self.closing = 0

    def publish(self, now_s: float) -> int:
        """Show what the twin measures; of the resistor's contactor a unit says nothing."""
        self.now = now_s
        self.rack.read(self.measurement)
        self.measurement.head["contactors"] &= int(MAINS)
        if now_s < self.silent_s:
            self.server.publish(self.measurement)
        return self.server.link.counters.sent

    def take(self, now_s: float, received: int) -> bool:
        self.now = now_s
        wait_for(lambda: self.server.link.counters.received >= received, "frames are missing")
        taken = self.server.take(self.command)
        head = self.command.head
        if head["contactors"][0] == MAINS:
            self.asked_s = min(self.asked_s, now_s)
            if now_s < self.asked_s + PRECHARGE_S:
                head["contactors"] = Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE
        else:
            self.asked_s = np.inf
        for name in ("limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w"):
            head[name] = 100.0 if name.endswith("_a") else 3e4  # its own, which 0x210 does not carry
        head["cooling_degc"] = 25.0
        self.rack.write(self.command)
        return taken


def unit_profile(folder: Path) -> str:
    """The profile without the other side, which `serve` would take."""
    text = (FOLDER / "foxbms" / "profile.toml").read_text()
    for old, new in (("serve =", "# serve ="), ("216", str(N_CELLS)), ("180", str(N_SENSORS))):
        assert old in text
        text = text.replace(old, new)
    (folder / f"unit_{N_CELLS}.dbc").write_text(generate.unit(N_CELLS, N_SENSORS))
    (folder / "unit.toml").write_text(text)
    return str(folder / "unit.toml")


def run(folder: Path, name: str, fault: dict[str, Any] | None, silent_s: float = np.inf) -> npt.NDArray[np.void]:
    """Every command of 40 s at 10 Hz."""
    clock = VirtualClock()
    options = {"duty": {"kind": "constant", "c_rate": 0.3}, "fault": [fault] if fault else []}
    unit = Unit(f"can:virtual:{name}?profile={unit_profile(folder)}", options, silent_s)
    rack = BusRack(f"can:virtual:{name}?profile=foxbms&n_cells={N_CELLS}&n_sensors={N_SENSORS}", unit, clock)
    seen: list[npt.NDArray[np.void]] = []
    with rack:
        scenario = Scenario(rack=TWIN, cell="lfp_280", period_s=0.1, controller=CHANGES)
        controller = make_controller(scenario, rack, clock)
        loop = Loop(rack, controller, clock, 0.1, observers=(lambda *_: seen.append(controller.command.raw.copy()),))
        loop.run(40.0)
    return np.concatenate(seen)


def states(commands: npt.NDArray[np.void]) -> list[str]:
    """The states of a run in order, each once."""
    found = commands["head"]["state"]
    return [RackState(int(s)).name for k, s in enumerate(found) if k == 0 or s != found[k - 1]]


def test_a_unit_is_closed_used_and_opened(tmp_path: Path) -> None:
    commands = run(tmp_path, "sound", None)
    closed = ["SELF_TEST", "STANDBY", "PRECHARGE", "CONNECTED"]
    assert states(commands) == [*closed, "RAMP_DOWN", "OPENING", "STANDBY"]
    head = commands["head"]
    waited_s = 0.1 * float((head["state"] == RackState.PRECHARGE).sum())
    assert PRECHARGE_S <= waited_s <= PRECHARGE_S + 1.0, "until the unit has closed"
    connected = head[head["state"] == RackState.CONNECTED]
    assert connected["limit_discharge_a"].max() > 200.0
    assert not commands["fault_warning"].any()
    assert not commands["balance"].any(), "the unit chooses by itself"
    soc = connected["soc_mean"]
    assert soc[0] - soc[-1] == pytest.approx(0.3 * 0.1 * len(soc) / 3600.0, rel=0.1), "0.3 C"


@pytest.mark.parametrize("kind", ["cell_v_missing", "interlock_open"])
def test_a_fault_that_the_wire_tells_opens(tmp_path: Path, kind: str) -> None:
    fault = {"kind": kind, "at_s": 20.0} | ({"index": [1]} if kind == "cell_v_missing" else {})
    commands = run(tmp_path, kind, fault)
    assert "CONNECTED" in states(commands)
    assert states(commands)[-1] == "FAULT"
    assert not commands["head"]["contactors"][-1]


def test_a_unit_that_falls_silent_is_told_to_open(tmp_path: Path) -> None:
    """There is no counter on this wire, so that a silent unit shows by the age of its values alone."""
    commands = run(tmp_path, "silent", None, silent_s=20.0)
    head = commands["head"]
    opened_s = 0.1 * float(np.flatnonzero(head["state"] == RackState.CONNECTED)[-1] + 1)
    assert 20.0 < opened_s <= 25.0
    assert states(commands)[-1] == "FAULT"
    assert not head["contactors"][-1]
