"""A rack of link, resistor and contactors that is integrated exactly, for the kernels of the state machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bms.core import machine as m
from bms.core.faults import N_FAULTS, Fault
from bms.core.jit import f4
from bms.core.machine_setup import MachineSettings, machine_config
from bms.core.machine_table import Node, Request
from bms.core.seen import Seen
from hal.contract import Capabilities, RackInfo

N_CELLS, CAPACITY_AH, CELL_V = 352, 185.0, 3.0
PACK_V = N_CELLS * CELL_V
LIMITS = type("Limits", (), {"v_min": 1.5, "v_max": 4.05, "max_discharge_c": 1.0})()
OHM, FARAD, BLEED_OHM = 100.0, 5e-3, 5e4
QUICK = MachineSettings(
    transport_allowed=True, transport_settle_s=10.0, transport_drain_time_out_s=1e6, transport_charge_time_out_s=1000.0
)
POSITIVE, NEGATIVE, PRECHARGE = 1, 2, 4


def config_for(machine: MachineSettings = QUICK, **capabilities: bool) -> m.MachineConfig:
    info = RackInfo("rack", N_CELLS, 88, 1, CAPACITY_AH, "", np.zeros(N_CELLS, np.uint16), Capabilities(**capabilities))
    return machine_config(LIMITS, info, machine, "na_layered")


@dataclass
class Rig:
    """A rack and its machine. `reactions` stands for the diagnosis: (values) -> (reaction, fatal)."""

    config: m.MachineConfig = field(default_factory=config_for)
    dt_s: float = 0.1
    welded: int = 0  # contactors that stay closed
    lying: bool = False  # feedback shows what is asked, not what is
    shorted: bool = False  # the link cannot be charged
    held_v: float | None = None  # something else holds the link at this voltage
    load_a: float = 0.0  # while both mains are closed
    offset_a: float = 0.0  # of the current sensor
    cell_v: float = CELL_V
    lost: frozenset[str] = frozenset()  # names of `Seen` that are not known
    complete: bool = True
    pressed: int = 0
    reactions: Callable[[Rig], tuple[int, bool]] = lambda rig: (0, False)

    def __post_init__(self) -> None:
        self.state = m.machine_state()
        m.machine_init(self.config, self.state)
        self.value = np.full(N_FAULTS, np.nan, np.float32)
        self.where = np.full(N_FAULTS, 7, np.uint16)
        self.bus_v = 0.0
        self.time_s = 0.0
        self.asked = 0
        self.path: list[Node] = [Node.INIT]
        self.history: list[int] = [0]

    @property
    def node(self) -> Node:
        return Node(int(self.state.word[m.NODE]))

    @property
    def pack_v(self) -> float:
        return N_CELLS * self.cell_v

    def _move(self) -> float:
        """The link over one step, exactly; returns the string current at its end."""
        closed = self.asked | self.welded
        if closed & 3 == 3:
            self.bus_v = self.pack_v
            return self.load_a
        if closed & 6 == 6 and not self.shorted:
            final = self.pack_v * BLEED_OHM / (OHM + BLEED_OHM)
            tau = FARAD * OHM * BLEED_OHM / (OHM + BLEED_OHM)
            self.bus_v = final + (self.bus_v - final) * math.exp(-self.dt_s / tau)
            return (self.pack_v - self.bus_v) / OHM
        if closed & 6 == 6:
            self.bus_v = 0.0
            return self.pack_v / OHM
        self.bus_v *= math.exp(-self.dt_s / (FARAD * BLEED_OHM))
        return 0.0

    def seen(self, current_a: float) -> Seen:
        v = self.cell_v
        closed = self.asked if self.lying else self.asked | self.welded
        floats = {
            "current_a": current_a + self.offset_a, "pack_v": self.pack_v, "bus_v": self.bus_v if self.held_v is None else self.held_v,
            "cell_v_low": v - 0.01, "cell_v_high": v + 0.01, "cell_v_mean": v,
            "degc_low": 25.0, "degc_high": 25.0, "degc_mean": 25.0, "coolant_in_degc": 20.0,
        }  # fmt: skip
        known = {k: f4(np.nan if k in self.lost else x) for k, x in floats.items()}
        return Seen(
            cell_low_at=-1 if "cell_v_low" in self.lost else 17,
            cell_high_at=-1 if "cell_v_high" in self.lost else 18,
            sensor_low_at=0,
            sensor_high_at=0,
            closed=-1 if "closed" in self.lost else closed,
            flow=0,
            complete=self.complete,
            emergency_stop=self.pressed,
            **known,
        )

    def step(self, request: int = Request.OPEN) -> Node:
        seen = self.seen(self._move())
        m.machine_signals(self.config, self.state, seen, int(request), self.value, self.where, f4(self.dt_s))
        reaction, fatal = self.reactions(self)
        args = (int(reaction), bool(fatal), int(request), f4(self.dt_s))
        self.asked = int(m.machine_advance(self.config, self.state, seen, *args))
        self.time_s += self.dt_s
        if self.node != self.path[-1]:
            self.path.append(self.node)
        if self.asked != self.history[-1]:
            self.history.append(self.asked)
        return self.node

    def run(self, request: int, until: Node, at_most_s: float = 100.0) -> float:
        """Steps under `request` until the node is there; returns the time that it took."""
        start_s = self.time_s
        while self.step(request) != until:
            assert self.time_s - start_s < at_most_s, (self.path, self.value[34:45])
        return self.time_s - start_s

    def hold(self, request: int, seconds: float) -> None:
        for _ in range(round(seconds / self.dt_s)):
            self.step(request)

    def at(self, fault: Fault) -> float:
        return float(self.value[fault])


def connected(**options: object) -> Rig:
    rig = Rig(**options)  # type: ignore[arg-type]
    rig.run(Request.CONNECT, Node.CONNECTED)
    return rig
