"""The kernels of the state machine against a rack of link, resistor and contactors that is integrated exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import machine as m
from bms.core.faults import N_FAULTS, Context, Fault, Reaction
from bms.core.jit import f4
from bms.core.machine_setup import MachineSettings, machine_config
from bms.core.machine_table import Limits, Node, Request
from bms.core.seen import Seen
from hal.contract import NO_INDEX, Capabilities, RackInfo, RackState

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
            "current_a": current_a, "pack_v": self.pack_v, "bus_v": self.bus_v if self.held_v is None else self.held_v,
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


def test_contactors_close_in_order_and_the_link_is_charged_before_the_second_main() -> None:
    rig = Rig()
    while rig.step(Request.CONNECT) != Node.PRECHARGE_POSITIVE:
        pass
    assert abs(rig.bus_v - PACK_V) <= 0.02 * PACK_V
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert rig.history == [0, NEGATIVE, NEGATIVE | PRECHARGE, POSITIVE | NEGATIVE | PRECHARGE, POSITIVE | NEGATIVE]
    word = rig.state.word
    assert word[m.MODE] == RackState.CONNECTED
    assert word[m.LIMITS] == Limits.FULL
    assert word[m.FROM] == Node.PRECHARGE_RELEASE


@pytest.mark.parametrize("dt_s", [0.01, 0.1, 1.0, 5.0, 60.0])
def test_heat_of_the_resistor_does_not_depend_on_the_step(dt_s: float) -> None:
    """Charging a capacitor from a source loses C V^2 / 2 in the resistor, however it is done."""
    cold = config_for(MachineSettings(resistor_tau_s=1e7))
    rig = Rig(config=cold, dt_s=dt_s)
    rig.run(Request.CONNECT, Node.CONNECTED, at_most_s=1000.0)
    half_cv2 = 0.5 * FARAD * PACK_V**2
    assert rig.at(Fault.PRECHARGE_RESISTOR) * 30e3 == pytest.approx(half_cv2, rel=0.02)


def test_resistor_cools_exponentially() -> None:
    for dt_s in (0.5, 30.0, 300.0):
        rig = Rig(dt_s=dt_s)
        rig.state.number[m.RESISTOR_HEAT_J] = 20e3
        rig.hold(Request.OPEN, 300.0)
        assert rig.state.number[m.RESISTOR_HEAT_J] == pytest.approx(20e3 / math.e, rel=1e-3)


@pytest.mark.parametrize(
    ("lost", "watt"),
    [
        (set(), PACK_V**2 / OHM),
        ({"bus_v"}, PACK_V**2 / OHM),
        ({"bus_v", "pack_v", "current_a"}, (N_CELLS * 4.05) ** 2 / OHM),
    ],
)
def test_a_shorted_link_heats_the_resistor_by_ohms_law(lost: set[str], watt: float) -> None:
    """What is not known counts as the worst: the string at its upper limit across the resistor."""
    rig = Rig(config=config_for(MachineSettings(resistor_tau_s=1e7)), shorted=True)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    rig.lost = frozenset(lost)
    rig.hold(Request.CONNECT, 1.0)
    assert rig.state.number[m.RESISTOR_HEAT_J] == pytest.approx(watt, rel=0.01)


def test_current_counts_where_the_voltages_see_nothing() -> None:
    rig = Rig(config=config_for(MachineSettings(resistor_tau_s=1e7)))
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    seen = rig.seen(8.0)._replace(bus_v=f4(PACK_V))
    rig.state.number[m.BUS_V] = PACK_V
    m.machine_signals(rig.config, rig.state, seen, 1, rig.value, rig.where, f4(0.5))
    assert rig.state.number[m.RESISTOR_HEAT_J] == pytest.approx(8.0**2 * OHM * 0.5)


def test_resistor_heats_and_cools_within_a_long_step() -> None:
    """E' = P - E/tau for one step of tau: P tau (1 - 1/e)."""
    rig = Rig(config=config_for(MachineSettings(resistor_tau_s=10.0)), shorted=True)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    rig.dt_s = 10.0
    rig.step(Request.CONNECT)
    watt = PACK_V**2 / OHM
    assert rig.state.number[m.RESISTOR_HEAT_J] == pytest.approx(watt * 10.0 * (1.0 - 1.0 / math.e), rel=1e-3)


@pytest.mark.parametrize("node", Node, ids=lambda n: n.name)
def test_precharge_is_looked_at_in_its_stages(node: Node) -> None:
    rig = Rig()
    rig.state.word[m.NODE] = node
    stages = [Node.PRECHARGE_NEGATIVE, Node.PRECHARGE_LINK, Node.PRECHARGE_POSITIVE, Node.PRECHARGE_RELEASE]
    stages += [Node.TRANSPORT_NEGATIVE, Node.TRANSPORT_LINK, Node.TRANSPORT_POSITIVE, Node.TRANSPORT_RELEASE]
    assert bool(m.machine_context(rig.state, 0) & Context.PRECHARGING) == (node in stages)


def test_precharge_follows_its_curve() -> None:
    """With the actuation time left out the link is never behind; at first all current of Ohm's law flows."""
    rig = Rig(config=config_for(MachineSettings(contactor_actuation_s=0.0)), dt_s=0.02)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    seen: list[float] = []
    while rig.node == Node.PRECHARGE_LINK:
        rig.step(Request.CONNECT)
        assert abs(rig.at(Fault.PRECHARGE_VOLTAGE)) < 1e-4
        seen.append(rig.at(Fault.PRECHARGE_CURRENT))
    assert seen[0] == pytest.approx(math.exp(-0.02 / 0.5), rel=0.01)
    assert seen == sorted(seen, reverse=True)
    assert rig.at(Fault.PRECHARGE_TIMEOUT) == pytest.approx(0.02 * len(seen), rel=0.01)


def test_precharge_curve_starts_at_the_voltage_of_the_link() -> None:
    rig = Rig(config=config_for(MachineSettings(contactor_actuation_s=0.0)), dt_s=0.02)
    rig.run(Request.CONNECT, Node.PRECHARGE_NEGATIVE)
    rig.bus_v = 0.6 * PACK_V
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    while rig.node == Node.PRECHARGE_LINK:
        rig.step(Request.CONNECT)
        assert abs(rig.at(Fault.PRECHARGE_VOLTAGE)) < 1e-4


def test_a_shorted_link_falls_behind_its_curve() -> None:
    rig = Rig(shorted=True)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    rig.hold(Request.CONNECT, 0.6)  # 0.5 s = 1 tau after the actuation time
    final = BLEED_OHM / (OHM + BLEED_OHM)
    assert rig.at(Fault.PRECHARGE_VOLTAGE) == pytest.approx(final * (1 - math.exp(-1 / final)), rel=0.01)
    assert rig.at(Fault.PRECHARGE_CURRENT) == pytest.approx(1.0, rel=0.01)
    rig.lost = frozenset({"bus_v"})
    rig.step(Request.CONNECT)
    assert math.isnan(rig.at(Fault.PRECHARGE_VOLTAGE))
    rig.lost = frozenset({"pack_v"})
    rig.step(Request.CONNECT)
    assert math.isnan(rig.at(Fault.PRECHARGE_CURRENT))


def test_attempts_run_out_then_lockout_then_only_a_reset_allows_another() -> None:
    rig = Rig(
        shorted=True, reactions=lambda r: (Reaction.OPEN, True) if r.at(Fault.PRECHARGE_VOLTAGE) > 0.3 else (0, False)
    )
    rig.run(Request.CONNECT, Node.LOCKOUT)
    assert rig.path.count(Node.PRECHARGE_LINK) == 3
    assert rig.at(Fault.PRECHARGE_ATTEMPTS) == 3.0
    assert rig.run(Request.CONNECT, Node.STANDBY, 4000.0) >= 60.0  # lockout_s
    assert rig.state.number[m.RESISTOR_HEAT_J] <= 15e3
    rig.hold(Request.CONNECT, 100.0)
    assert rig.node == Node.STANDBY
    rig.step(Request.RESET)
    assert rig.at(Fault.PRECHARGE_ATTEMPTS) == 0.0  # at once, so that the diagnosis lets go in the same step
    rig.shorted = False
    rig.run(Request.CONNECT, Node.CONNECTED)


def test_the_resistor_must_have_cooled_down_for_another_attempt() -> None:
    rig = Rig()
    rig.run(Request.OPEN, Node.STANDBY)
    rig.state.number[m.RESISTOR_HEAT_J] = 30e3  # half of it, the level to start at, is left after tau ln 2
    assert rig.run(Request.CONNECT, Node.PRECHARGE_NEGATIVE, 1000.0) == pytest.approx(300.0 * math.log(2.0), rel=0.01)


def test_the_machine_breaks_off_by_itself_if_the_table_has_no_row_for_it() -> None:
    rig = Rig(shorted=True)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    assert rig.run(Request.CONNECT, Node.OPENING) == pytest.approx(15.0, abs=0.2)  # precharge_time_out_s
    assert rig.state.word[m.ATTEMPTS] == 1


def test_what_the_operator_breaks_off_is_no_failed_attempt() -> None:
    rig = Rig()
    for _ in range(5):
        rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
        rig.run(Request.OPEN, Node.STANDBY)
    assert rig.state.word[m.ATTEMPTS] == 0


def test_outside_the_link_stage_there_is_nothing_to_compare() -> None:
    rig = Rig(load_a=50.0)
    for node in (Node.STANDBY, Node.PRECHARGE_POSITIVE, Node.CONNECTED):
        rig.run(Request.CONNECT, node)
        rig.step(Request.CONNECT)
        rig.step(Request.CONNECT)
        assert rig.at(Fault.PRECHARGE_VOLTAGE) == rig.at(Fault.PRECHARGE_CURRENT) == 0.0
    assert rig.at(Fault.PRECHARGE_TIMEOUT) == 0.0


def test_success_forgets_failed_attempts() -> None:
    rig = Rig(shorted=True)
    rig.run(Request.CONNECT, Node.OPENING)
    rig.shorted = False
    assert rig.state.word[m.ATTEMPTS] == 1
    rig.run(Request.CONNECT, Node.CONNECTED, at_most_s=1000.0)  # the resistor has to cool down
    assert rig.state.word[m.ATTEMPTS] == 0


def test_a_string_sensor_at_zero_does_not_call_an_empty_link_charged() -> None:
    rig = Rig(shorted=True)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    seen = rig.seen(0.0)
    assert not m.link_charged(rig.config, seen._replace(pack_v=f4(0), bus_v=f4(0)))
    assert m.link_charged(rig.config, seen._replace(bus_v=f4(0.981 * PACK_V)))
    assert not m.link_charged(rig.config, seen._replace(bus_v=f4(0.979 * PACK_V)))
    assert not m.link_charged(rig.config, seen._replace(bus_v=f4(1.021 * PACK_V)))
    assert not m.link_charged(rig.config, seen._replace(bus_v=f4(PACK_V), current_a=f4(1.9)))  # 0.01 C = 1.85 A
    sagging = seen._replace(pack_v=f4(0.94 * PACK_V), bus_v=f4(0.94 * PACK_V))  # the sum differs by more than 5 %
    assert not m.link_charged(rig.config, sagging)


def test_ramp_waits_for_the_current_but_not_for_ever() -> None:
    rig = connected(load_a=100.0)
    took_s = rig.run(Request.OPEN, Node.OPENING)
    assert took_s == pytest.approx(5.0, abs=0.25)  # ramp_time_out_s and two steps
    rig = connected(load_a=100.0)
    rig.step()
    assert rig.state.word[m.LIMITS] == Limits.RAMP
    rig.hold(Request.OPEN, 1.0)
    assert rig.node == Node.RAMP_DOWN
    rig.load_a = 0.019 * CAPACITY_AH  # open_c = 0.02
    assert rig.step() == Node.OPENING


def test_unknown_current_does_not_end_the_ramp_early() -> None:
    rig = connected()
    rig.lost = frozenset({"current_a"})
    assert rig.run(Request.OPEN, Node.OPENING) == pytest.approx(5.0, abs=0.25)


@pytest.mark.parametrize("request_", [Request.OPEN, Request.MAINTENANCE, Request.TRANSPORT, 9, -3])
def test_every_request_but_connect_and_reset_opens(request_: int) -> None:
    rig = connected()
    rig.hold(Request.RESET, 5.0)
    assert rig.node == Node.CONNECTED
    assert rig.step(request_) == Node.RAMP_DOWN


def test_reactions_open_with_and_without_ramp() -> None:
    for reaction, fatal, node in (
        (Reaction.OPEN | Reaction.RAMP_OPEN, True, Node.OPENING),
        (Reaction.RAMP_OPEN, False, Node.RAMP_DOWN),
        (Reaction.NONE, True, Node.RAMP_DOWN),
        (Reaction.NO_CLOSE | Reaction.DERATE | Reaction.NO_CHARGE, False, Node.CONNECTED),
    ):
        rig = connected(load_a=100.0)
        rig.reactions = lambda _, reaction=reaction, fatal=fatal: (reaction, fatal)
        assert rig.step(Request.CONNECT) == node
    rig = connected(load_a=100.0)
    rig.step()
    rig.reactions = lambda _: (Reaction.OPEN, True)
    assert rig.step() == Node.OPENING  # the rest of the ramp is skipped
    assert rig.asked == 0


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


def test_contactor_feedback_names_the_contactor() -> None:
    rig = connected()
    welded, stuck = Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN
    assert (rig.at(welded), rig.at(stuck)) == (0.0, 0.0)
    assert rig.where[welded] == rig.where[stuck] == NO_INDEX
    rig.welded = PRECHARGE
    rig.step(Request.CONNECT)
    assert (rig.at(welded), rig.where[welded], rig.at(stuck)) == (1.0, PRECHARGE, 0.0)
    seen = rig.seen(0.0)._replace(closed=POSITIVE)
    m.machine_signals(rig.config, rig.state, seen, 1, rig.value, rig.where, f4(0.1))
    assert (rig.at(stuck), rig.where[stuck], rig.at(welded)) == (1.0, NEGATIVE, 0.0)
    rig.lost = frozenset({"closed"})
    rig.step(Request.CONNECT)
    assert math.isnan(rig.at(welded))
    assert math.isnan(rig.at(stuck))


def test_every_fault_of_the_machine_says_where() -> None:
    """Open contactors that say so are known to be open; what concerns the rack has no place; cell 0 is one."""
    rig = Rig(cell_v=0.02)
    rig.state.word[m.TRANSPORTED] = 1
    rig.run(Request.OPEN, Node.TRANSPORT)
    rig.step()
    assert (rig.at(Fault.CONTACTOR_WELDED), rig.at(Fault.CONTACTOR_STUCK_OPEN)) == (0.0, 0.0)
    own = [Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN, *range(Fault.WELD_CURRENT, Fault.SELF_TEST + 1)]
    assert [int(f) for f in np.flatnonzero(rig.where == NO_INDEX)] == own
    seen = rig.seen(0.0)._replace(cell_low_at=0, cell_high_at=0)
    m.machine_signals(rig.config, rig.state, seen, 0, rig.value, rig.where, f4(0.1))
    assert rig.where[Fault.TRANSPORT_REVERSED] == rig.where[Fault.TRANSPORT_VOLTAGE] == 0


def test_a_welded_contactor_keeps_the_machine_from_closing_again() -> None:
    rig = connected()
    rig.welded = POSITIVE
    assert rig.run(Request.OPEN, Node.FAULT) == pytest.approx(5.0, abs=0.5)  # opening_time_out_s
    rig.hold(Request.RESET, 2.0)
    assert rig.node == Node.FAULT


def test_weld_test_passes_as_soon_as_the_link_has_fallen() -> None:
    """Half of what RC = 250 s predicts for 10 s: ln(1/(1 - (1 - exp(-10/250))/2)) 250 s = 4.95 s."""
    rig = connected()
    rig.run(Request.OPEN, Node.WELD_TEST)
    expected_s = -250.0 * math.log(1.0 - 0.5 * (1.0 - math.exp(-10.0 / 250.0)))
    assert rig.run(Request.OPEN, Node.STANDBY) == pytest.approx(expected_s, abs=0.2)
    assert rig.at(Fault.WELD_VOLTAGE) == 0.0


def test_weld_test_finds_contactors_whose_feedback_lies() -> None:
    rig = connected(lying=True)
    rig.welded = POSITIVE | NEGATIVE
    rig.run(Request.OPEN, Node.WELD_TEST)
    assert rig.run(Request.OPEN, Node.STANDBY) == pytest.approx(10.0, abs=0.2)
    assert rig.at(Fault.WELD_VOLTAGE) == 1.0
    rig.hold(Request.RESET, 20.0)
    assert rig.at(Fault.WELD_VOLTAGE) == 1.0  # it stays as long as the link does
    rig.welded = 0
    rig.hold(Request.OPEN, 6.0)
    assert rig.at(Fault.WELD_VOLTAGE) == 0.0


@pytest.mark.parametrize(("share", "evidence"), [(1.019, 1.0), (1.021, 0.0)])
def test_welded_contactors_hold_the_link_at_the_string_voltage(share: float, evidence: float) -> None:
    rig = connected(held_v=share * PACK_V, config=config_for(MachineSettings(precharge_ratio=0.05)))
    rig.run(Request.OPEN, Node.STANDBY)
    assert rig.at(Fault.WELD_VOLTAGE) == evidence


def test_weld_evidence_counts_in_the_step_that_ends_the_test() -> None:
    rig = connected(lying=True, reactions=lambda r: (0, r.at(Fault.WELD_VOLTAGE) > 0.5))
    rig.welded = POSITIVE | NEGATIVE
    rig.run(Request.OPEN, Node.FAULT)
    assert Node.STANDBY not in rig.path[3:]


@pytest.mark.parametrize("case", ["low", "unknown", "switched off", "other source"])
def test_weld_test_proves_nothing_without_ground(case: str) -> None:
    rig = connected(config=config_for(MachineSettings(weld_test=case != "switched off")), lying=True)
    rig.welded = POSITIVE | NEGATIVE
    rig.run(Request.OPEN, Node.OPENING)
    if case == "low":
        rig.held_v = 0.09 * PACK_V  # weld_low = 0.1
    elif case == "other source":
        rig.held_v = 0.97 * PACK_V  # not the string's voltage, weld_match = 0.02
    elif case == "unknown":
        rig.lost = frozenset({"bus_v"})
    rig.run(Request.OPEN, Node.WELD_TEST)
    took_s = rig.run(Request.OPEN, Node.STANDBY)
    assert took_s == pytest.approx(10.0 if case == "other source" else 0.1, abs=0.2)
    assert rig.at(Fault.WELD_VOLTAGE) == 0.0


def test_little_voltage_is_no_measure_for_shares() -> None:
    """In transport the string has a few volts: shares are of ten times precharge_floor_v, 50 V, at least."""
    rig = connected(cell_v=10.0 / N_CELLS)
    rig.held_v = 5.0
    rig.step(Request.CONNECT)
    assert rig.at(Fault.STUCK_OPEN_VOLTAGE) == pytest.approx(0.1, rel=1e-4)


def test_electrical_evidence() -> None:
    rig = connected(load_a=-42.0)
    rig.held_v = 0.9 * PACK_V
    rig.step(Request.CONNECT)
    assert rig.at(Fault.STUCK_OPEN_VOLTAGE) == pytest.approx(0.1, rel=1e-4)
    assert rig.at(Fault.WELD_CURRENT) == pytest.approx(42.0)  # the gate of the table looks at it with open contactors
    rig.lost = frozenset({"pack_v"})
    rig.step(Request.CONNECT)
    assert math.isnan(rig.at(Fault.STUCK_OPEN_VOLTAGE))


def test_wear_counts_the_square_of_the_interrupted_current() -> None:
    mechanical, electrical = 1e-5, 1e-3
    rig = connected(load_a=-2.0 * CAPACITY_AH)  # twice the rated current, 1 C
    word, wear = rig.state.word, rig.state.wear
    np.testing.assert_array_equal(word[m.OPERATIONS :], [0, 0, 1])  # PRECHARGE has opened
    assert wear[2] == pytest.approx(mechanical)  # beside the closed main it carried nothing
    rig.run(Request.OPEN, Node.STANDBY)
    np.testing.assert_array_equal(word[m.OPERATIONS :], [1, 1, 1])
    np.testing.assert_allclose(wear[:2], mechanical + 4.0 * electrical, rtol=1e-5)
    assert rig.at(Fault.CONTACTOR_WORN) == pytest.approx(mechanical + 4.0 * electrical)
    rig.load_a = 0.0
    rig.run(Request.CONNECT, Node.CONNECTED)
    rig.run(Request.OPEN, Node.STANDBY)
    np.testing.assert_allclose(wear[:2], 2 * mechanical + 4.0 * electrical, rtol=1e-5)


def test_wear_of_the_precharge_contactor_counts_what_it_carried() -> None:
    rig = Rig(shorted=True)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    rig.step(Request.CONNECT)
    rig.run(Request.OPEN, Node.STANDBY)
    load = PACK_V / OHM / CAPACITY_AH
    np.testing.assert_allclose(rig.state.wear, [0.0, *[1e-5 + 1e-3 * load**2] * 2], rtol=1e-4)


def test_the_more_worn_main_contactor_counts() -> None:
    rig = Rig()
    for wear in ((0.3, 0.2, 0.9), (0.2, 0.3, 0.9)):
        rig.state.wear[:] = wear
        rig.step()
        assert rig.at(Fault.CONTACTOR_WORN) == pytest.approx(0.3)


def test_wear_takes_the_last_known_current() -> None:
    rig = connected(load_a=CAPACITY_AH)
    rig.step(Request.CONNECT)
    rig.lost = frozenset({"current_a"})
    rig.run(Request.OPEN, Node.OPENING)
    np.testing.assert_allclose(rig.state.wear[:2], 1e-5 + 1e-3, rtol=1e-5)


def test_transport_there_and_back() -> None:
    rig = connected()
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    assert rig.state.word[m.DRAIN] == 1
    assert rig.state.word[m.TRANSPORTED] == 1
    rig.cell_v = 0.095  # the highest at 0.105 V, above transport_v
    rig.hold(Request.TRANSPORT, 15.0)
    assert rig.node == Node.TRANSPORT_DRAIN
    rig.cell_v = 0.05
    assert rig.run(Request.TRANSPORT, Node.TRANSPORT) == pytest.approx(10.0, abs=0.2)  # transport_settle_s
    assert rig.state.word[m.DRAIN] == 1
    rig.hold(Request.OPEN, 5.0)
    assert rig.node == Node.TRANSPORT
    rig.run(Request.CONNECT, Node.TRANSPORT_CHARGE)
    assert rig.asked == POSITIVE | NEGATIVE
    assert rig.state.word[m.LIMITS] == Limits.TRANSPORT_CHARGE
    assert rig.state.word[m.DRAIN] == 0
    rig.cell_v = 1.55  # the lowest at 1.54 V, below v_min + transport_margin_v
    rig.hold(Request.CONNECT, 100.0)
    assert rig.node == Node.TRANSPORT_CHARGE
    rig.cell_v = 1.57
    assert rig.run(Request.CONNECT, Node.CONNECTED) == pytest.approx(60.0, abs=0.3)  # transport_filled_s
    assert rig.state.word[m.TRANSPORTED] == 0
    assert rig.state.word[m.LIMITS] == Limits.FULL


def test_transport_that_is_broken_off_returns_to_transport() -> None:
    rig = connected()
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    rig.cell_v = 0.5  # outside the window, not yet empty
    rig.hold(Request.OPEN, 5.0)
    assert rig.node == Node.TRANSPORT_DRAIN  # there are two ways out: down to 0 V, or charged
    rig.run(Request.CONNECT, Node.TRANSPORT_CHARGE)
    rig.run(Request.OPEN, Node.TRANSPORT_DRAIN)
    assert rig.path[-5:-1] == [Node.TRANSPORT_CHARGE, Node.RAMP_DOWN, Node.OPENING, Node.WELD_TEST]
    rig.cell_v = 2.0  # somebody charged them
    rig.hold(Request.TRANSPORT, 5.0)
    assert rig.node == Node.TRANSPORT_DRAIN
    assert rig.step(Request.OPEN) == Node.STANDBY
    assert rig.state.word[m.TRANSPORTED] == 0


def test_transport_charge_that_never_ends_is_tried_no_more_than_the_attempts() -> None:
    rig = Rig(cell_v=0.5, dt_s=1.0)
    rig.state.word[m.TRANSPORTED] = 1
    rig.hold(Request.CONNECT, 5000.0)
    assert rig.path.count(Node.TRANSPORT_CHARGE) == 3
    assert rig.node == Node.TRANSPORT_DRAIN


def test_transport_is_for_cells_that_bear_it() -> None:
    rig = Rig(config=config_for(MachineSettings(transport_allowed=False)))
    rig.hold(Request.TRANSPORT, 5.0)
    assert rig.node == Node.STANDBY


def test_a_start_in_transport_looks_at_no_window() -> None:
    rig = Rig(cell_v=0.02)
    rig.state.word[m.TRANSPORTED] = 1  # from the store
    assert m.machine_context(rig.state, 0) & Context.WINDOW == 0
    rig.run(Request.OPEN, Node.TRANSPORT)
    assert rig.path == [Node.INIT, Node.SELF_TEST, Node.TRANSPORT_DRAIN, Node.TRANSPORT]


def test_transport_values() -> None:
    rig = Rig(cell_v=0.02)
    rig.state.word[m.TRANSPORTED] = 1
    reversed_, high = Fault.TRANSPORT_REVERSED, Fault.TRANSPORT_VOLTAGE
    rig.run(Request.OPEN, Node.TRANSPORT_DRAIN)
    assert (rig.at(high), rig.where[high]) == (0.0, NO_INDEX)  # not at rest yet
    rig.run(Request.OPEN, Node.TRANSPORT)
    rig.step()
    assert (rig.at(reversed_), rig.where[reversed_]) == (pytest.approx(0.01), 17)
    assert (rig.at(high), rig.where[high]) == (pytest.approx(0.03), 18)
    rig.lost = frozenset({"cell_v_low", "cell_v_high"})
    rig.step()
    assert math.isnan(rig.at(reversed_))
    assert math.isnan(rig.at(high))
    assert rig.where[reversed_] == rig.where[high] == NO_INDEX
    rig.lost = frozenset()
    rig.run(Request.CONNECT, Node.TRANSPORT_CHARGE)
    rig.step(Request.CONNECT)
    assert rig.at(reversed_) == pytest.approx(0.01)
    # a cell that stays at 0.3 V with the mean at v_min counts as reversed by 0.2 V
    seen = rig.seen(0.0)._replace(cell_v_low=f4(0.3), cell_v_mean=f4(1.5))
    m.machine_signals(rig.config, rig.state, seen, 1, rig.value, rig.where, f4(0.1))
    assert rig.at(reversed_) == pytest.approx(-0.2)


def test_weeks_are_counted_in_short_steps() -> None:
    """float32 alone would stand still: 5e6 s + 0.1 s = 5e6 s."""
    rig = Rig(config=config_for(MachineSettings(transport_allowed=True, transport_drain_time_out_s=5_000_010.0)))
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    rig.state.word[m.MODE_SECONDS] = 5_000_000
    assert rig.run(Request.TRANSPORT, Node.FAULT) == pytest.approx(10.0, abs=1.2)


def test_context() -> None:
    rig = Rig()
    rig.run(Request.OPEN, Node.STANDBY)
    base = Context.ALWAYS | Context.WINDOW
    assert m.machine_context(rig.state, 0) == base | Context.OPENED | Context.RESTING
    rig.step(Request.CONNECT)
    assert m.machine_context(rig.state, 0) == base | Context.PRECHARGING | Context.RESTING
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert m.machine_context(rig.state, 1) == base | Context.CLOSED | Context.DISCHARGING
    assert m.machine_context(rig.state, -1) == base | Context.CLOSED | Context.CHARGING
    rig.run(Request.TRANSPORT, Node.TRANSPORT_DRAIN)
    assert m.machine_context(rig.state, 0) == Context.ALWAYS | Context.TRANSPORT | Context.OPENED | Context.RESTING


def test_rack_without_contactors_connects_without_asking_for_any() -> None:
    rig = Rig(config=config_for(contactors=False, precharge=False), lost=frozenset({"closed", "bus_v"}))
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert rig.history == [0]
    for fault in (Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN, Fault.WELD_CURRENT, Fault.STUCK_OPEN_VOLTAGE):
        assert rig.at(fault) == 0.0
    rig.run(Request.OPEN, Node.STANDBY)


def test_rack_without_precharge_closes_its_mains_at_once() -> None:
    rig = Rig(config=config_for(precharge=False), lost=frozenset({"bus_v"}))
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert rig.history == [0, NEGATIVE, POSITIVE | NEGATIVE]
    assert rig.at(Fault.PRECHARGE_TIMEOUT) == rig.at(Fault.PRECHARGE_RESISTOR) == 0.0
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
