"""Opening: ramp, reactions, feedback of the contactors, weld test and wear."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bms.core import machine as m
from bms.core.faults import Fault, Reaction
from bms.core.jit import f4
from bms.core.machine_setup import MachineSettings
from bms.core.machine_table import Limits, Node, Request
from hal.contract import NO_INDEX

from .machine_rig import (
    CAPACITY_AH,
    N_CELLS,
    NEGATIVE,
    OHM,
    PACK_V,
    POSITIVE,
    PRECHARGE,
    Rig,
    config_for,
    connected,
)


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
    rig = connected(config=config_for(MachineSettings(precharge_ratio=0.05)))
    rig.held_v = share * PACK_V
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


def test_a_current_through_contactors_that_are_proven_open_is_the_sensors() -> None:
    """The link has fallen by 0.5 % after 1.3 s, RC = 250 s; until then the current may be a weld's."""
    rig = connected(offset_a=6.0)
    rig.value[Fault.CURRENT_OFFSET] = 1.0
    rig.run(Request.OPEN, Node.OPENING)
    rig.step(Request.OPEN)
    assert (rig.at(Fault.WELD_CURRENT), rig.at(Fault.CURRENT_OFFSET)) == (6.0, 1.0)
    rig.hold(Request.OPEN, 1.6)
    assert (rig.at(Fault.WELD_CURRENT), rig.at(Fault.CURRENT_OFFSET)) == (0.0, pytest.approx(6.0))
    assert rig.where[Fault.CURRENT_OFFSET] == NO_INDEX
    rig.value[Fault.CURRENT_OFFSET] = 9.0  # what the estimator has found is more
    rig.step(Request.OPEN)
    assert rig.at(Fault.CURRENT_OFFSET) == 9.0
    rig.run(Request.CONNECT, Node.CONNECTED)
    rig.value[Fault.CURRENT_OFFSET] = 1.0
    rig.step(Request.CONNECT)
    assert rig.at(Fault.CURRENT_OFFSET) == 1.0  # under load it is the estimator's business again


@pytest.mark.parametrize("case", ["welded", "welded, and the feedback lies", "no link", "no feedback", "held"])
def test_a_current_counts_as_a_welds_where_nothing_proves_otherwise(case: str) -> None:
    rig = connected(load_a=6.0)
    rig.run(Request.OPEN, Node.RAMP_DOWN)
    rig.welded = POSITIVE | NEGATIVE if "welded" in case else 0
    rig.lying = "lies" in case
    rig.offset_a = 0.0 if rig.welded else 6.0
    rig.lost = frozenset({"no link": {"bus_v"}, "no feedback": {"closed"}}.get(case, ()))
    rig.held_v = PACK_V if case == "held" else None
    rig.value[Fault.CURRENT_OFFSET] = 1.0
    rig.run(Request.OPEN, Node.OPENING)
    for _ in range(100):
        rig.step(Request.OPEN)
        assert (rig.at(Fault.WELD_CURRENT), rig.at(Fault.CURRENT_OFFSET)) == (6.0, 1.0)


def test_one_sample_of_two_moments_proves_nothing() -> None:
    rig = connected(lying=True, load_a=6.0)
    rig.welded = POSITIVE | NEGATIVE
    rig.run(Request.OPEN, Node.WELD_TEST)
    rig.held_v = 0.9 * PACK_V
    rig.step(Request.OPEN)
    assert rig.at(Fault.WELD_CURRENT) == 6.0
    rig.held_v = None
    rig.step(Request.OPEN)
    rig.held_v = 0.9 * PACK_V
    rig.step(Request.OPEN)
    assert rig.at(Fault.WELD_CURRENT) == 6.0


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
