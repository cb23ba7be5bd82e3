"""Closing: the precharge resistor, the link and its curve, and attempts that fail."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bms.core import machine as m
from bms.core.faults import Fault, Reaction
from bms.core.jit import f4
from bms.core.machine_setup import MachineSettings
from bms.core.machine_table import Limits, Node, Request
from bms.core.seen import Seen
from hal.contract import RackState

from .machine_rig import (
    BLEED_OHM,
    FARAD,
    N_CELLS,
    NEGATIVE,
    OHM,
    PACK_V,
    POSITIVE,
    PRECHARGE,
    QUICK,
    Rig,
    config_for,
)


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


def test_precharge_follows_its_curve() -> None:
    """With the actuation time left out the link is never behind; at first all current of Ohm's law flows."""
    rig = Rig(config=config_for(MachineSettings(contactor_actuation_s=0.0)), dt_s=0.02)
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    before_s = rig.at(Fault.PRECHARGE_TIMEOUT)
    assert before_s > 0.0, "it counts from the first stage"
    seen: list[float] = []
    while rig.node == Node.PRECHARGE_LINK:
        rig.step(Request.CONNECT)
        assert abs(rig.at(Fault.PRECHARGE_VOLTAGE)) < 1e-4
        seen.append(rig.at(Fault.PRECHARGE_CURRENT))
    assert seen[0] == pytest.approx(math.exp(-0.02 / 0.5), rel=0.01)
    assert seen == sorted(seen, reverse=True)
    assert rig.at(Fault.PRECHARGE_TIMEOUT) == pytest.approx(before_s + 0.02 * len(seen), rel=0.01)


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
    assert rig.run(Request.CONNECT, Node.OPENING) == pytest.approx(30.0, abs=0.2)  # precharge_time_out_s
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

    def charged(seen: Seen) -> bool:
        return bool(m.link_charged(rig.config, seen, f4(seen.current_a)))

    assert not charged(seen._replace(pack_v=f4(0), bus_v=f4(0)))
    assert charged(seen._replace(bus_v=f4(0.981 * PACK_V)))
    assert not charged(seen._replace(bus_v=f4(0.979 * PACK_V)))
    assert not charged(seen._replace(bus_v=f4(1.021 * PACK_V)))
    assert not charged(seen._replace(bus_v=f4(PACK_V), current_a=f4(1.9)))  # 0.01 C = 1.85 A
    sagging = seen._replace(pack_v=f4(0.94 * PACK_V), bus_v=f4(0.94 * PACK_V))  # the sum differs by more than 5 %
    assert not charged(sagging)


@pytest.mark.parametrize("offset_a", [2.5, -2.5, 5.5, -5.5])
def test_what_the_sensor_reads_while_all_is_open_is_no_current_of_a_precharge(offset_a: float) -> None:
    """1.4 % and 3 % of 185 A: as quick, as cold and as little current as with a sensor without offset."""
    rig, sound = Rig(offset_a=offset_a), Rig()
    for r in (rig, sound):
        r.run(Request.CONNECT, Node.PRECHARGE_LINK)
        r.step(Request.CONNECT)
    assert rig.at(Fault.PRECHARGE_CURRENT) == pytest.approx(sound.at(Fault.PRECHARGE_CURRENT), rel=1e-3)
    took_s = [r.run(Request.CONNECT, Node.CONNECTED) for r in (rig, sound)]
    assert took_s[0] == pytest.approx(took_s[1], abs=0.11)
    heat_j = [r.state.number[m.RESISTOR_HEAT_J] for r in (rig, sound)]
    assert heat_j[0] == pytest.approx(heat_j[1], rel=1e-2)


def test_no_more_of_it_is_taken_off_than_a_share_of_the_capacity() -> None:
    """Of 5 % of 185 A 3 % are: 2 % are more than `precharge_done_c`."""
    rig = Rig(offset_a=0.05 * 185.0)
    with pytest.raises(AssertionError):
        rig.run(Request.CONNECT, Node.CONNECTED, at_most_s=25.0)
    assert rig.node == Node.PRECHARGE_LINK
    assert rig.at(Fault.CURRENT_OFFSET) == pytest.approx(0.05 * 185.0)  # and it goes on being told
    quick = replace(QUICK, precharge_zero_c=0.05)
    Rig(config=config_for(quick), offset_a=0.05 * 185.0).run(Request.CONNECT, Node.CONNECTED)


def test_a_current_that_begins_with_the_precharge_is_no_offset() -> None:
    rig = Rig()
    rig.run(Request.CONNECT, Node.PRECHARGE_LINK)
    rig.offset_a = 2.5  # a load on the link
    with pytest.raises(AssertionError):
        rig.run(Request.CONNECT, Node.CONNECTED, at_most_s=25.0)


def test_rack_without_precharge_closes_its_mains_at_once() -> None:
    rig = Rig(config=config_for(precharge=False), lost=frozenset({"bus_v"}))
    rig.run(Request.CONNECT, Node.CONNECTED)
    assert rig.history == [0, NEGATIVE, POSITIVE | NEGATIVE]
    assert rig.at(Fault.PRECHARGE_TIMEOUT) == rig.at(Fault.PRECHARGE_RESISTOR) == 0.0
    rig.run(Request.OPEN, Node.STANDBY)


def first_sight(held_v: float | None, weld_test: bool = True) -> Rig:
    """A rack whose link reads `held_v` from the first sample on, and never anything else."""
    rig = Rig(config=config_for(MachineSettings(weld_test=weld_test)), held_v=held_v)
    rig.run(Request.OPEN, Node.STANDBY)
    return rig


def test_a_link_that_was_always_full_is_no_charged_link() -> None:
    """Its sensor may show nothing else, and the resistor may be burnt: the main contactor stays open."""
    rig = first_sight(PACK_V)
    rig.hold(Request.CONNECT, 25.0)
    assert rig.node == Node.PRECHARGE_LINK
    assert all(asked & POSITIVE == 0 for asked in rig.history)


def test_where_others_hold_the_link_it_may_be_full_from_the_start() -> None:
    rig = first_sight(PACK_V, weld_test=False)
    rig.run(Request.CONNECT, Node.CONNECTED)


def test_a_link_that_was_seen_to_fall_is_believed() -> None:
    """A controller that starts while the link is still charged waits until it has lost 2 %: 5 s of its 250 s."""
    rig = Rig()
    rig.bus_v = PACK_V
    rig.run(Request.OPEN, Node.STANDBY)
    assert rig.state.word[m.DOUBTED] == 1
    rig.hold(Request.OPEN, 6.0)
    assert rig.state.word[m.DOUBTED] == 0
    rig.run(Request.CONNECT, Node.CONNECTED)


def test_a_link_that_falls_as_in_a_weld_test_is_believed() -> None:
    """A controller that starts on a charged link, and is to connect at once, needs one attempt more.

    In a rack of few cells the floor, 5 V, is a large share of the string, and the link takes minutes to lose it.
    """
    rig = Rig(config=config_for(MachineSettings(precharge_floor_v=0.3 * PACK_V)))
    rig.bus_v = PACK_V
    tried: set[int] = set()
    for _ in range(1000):
        rig.hold(Request.CONNECT, rig.dt_s)
        tried.add(int(rig.state.word[m.ATTEMPTS]))
        if rig.node == Node.CONNECTED:
            break
        assert rig.node not in (Node.LOCKOUT, Node.FAULT)
    assert rig.node == Node.CONNECTED
    assert max(tried) == 1


def test_a_link_that_jumps_up_with_open_contactors_is_doubted() -> None:
    rig = first_sight(0.5 * PACK_V)
    assert rig.state.word[m.DOUBTED] == 0
    rig.held_v = PACK_V
    rig.hold(Request.OPEN, 1.0)
    assert rig.state.word[m.DOUBTED] == 1


def test_a_link_is_not_doubted_for_having_been_connected() -> None:
    rig = Rig()
    rig.run(Request.CONNECT, Node.CONNECTED)
    rig.run(Request.OPEN, Node.STANDBY)
    assert rig.state.word[m.DOUBTED] == 0
