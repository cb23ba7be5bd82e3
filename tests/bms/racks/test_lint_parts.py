"""Lints of the parts' settings at their edges; whole wrong files are in test_check.py."""

import math
from typing import Any

import pytest

from bms.racks.lint_parts import share

from .conftest import Look


def told(look: Look, **changes: Any) -> list[tuple[str, str]]:
    return [(f.severity, f.key) for f in look(**changes)]


def test_share_of_a_polyline() -> None:
    line = ((0.0, 0.0), (10.0, 1.0), (50.0, 0.5))
    assert [share(line, x) for x in (-5.0, 0.0, 5.0, 10.0, 30.0, 60.0)] == [0.0, 0.0, 0.5, 1.0, 0.75, 0.5]


def test_precharge_must_fit_the_time(look: Look) -> None:
    """RC = 0.5 s: five of them are 2.5 s; charged to 2 % after 1.96 s, and two steps for each of four stages."""
    key = "fault.precharge_timeout.fatal.threshold"
    for time_s, found in ((2.4, [("error", key)]), (9.9, [("error", key)]), (10.0, [])):
        assert told(look, fault={"precharge_timeout": {"fatal": {"threshold": time_s}}}) == found


def test_the_resistor_must_bear_the_attempts(look: Look) -> None:
    """C V^2 / 2 = 5.76 kJ at 1518 V, and the next attempt begins below half of what the resistor bears."""
    once_j = 0.5 * 5e-3 * (416 * 3.65) ** 2
    assert told(look, machine={"resistor_j": 1.99 * once_j}) == [("error", "machine.resistor_j")]
    assert told(look, machine={"resistor_j": 2.5 * once_j}) == [("error", "machine.precharge_attempts")]
    assert told(look, machine={"resistor_j": 3.1 * once_j}) == []


def test_a_wide_ratio_is_hard_on_contacts(look: Look) -> None:
    assert told(look, machine={"precharge_ratio": 0.06}) == [("warning", "machine.precharge_ratio")]


def test_the_weld_test_must_see_the_link_fall(look: Look) -> None:
    """RC of the link is 250 s: half of what it falls by must be more than 0.5 % of its voltage."""
    least_s = -250.0 * math.log(1.0 - 0.005 / 0.5)
    assert told(look, machine={"weld_test_s": 0.99 * least_s}) == [("error", "machine.weld_test_s")]
    assert told(look, machine={"weld_test_s": 1.01 * least_s}) == []
    assert told(look, machine={"weld_test_s": 0.1, "weld_test": False}) == []


def test_a_contactor_needs_time_to_follow(look: Look) -> None:
    assert told(look, machine={"contactor_time_out_s": 1.5}) == [("error", "machine.contactor_time_out_s")]
    # the ramp takes 3 s, the last of it acts a step later and is seen a step after that
    assert told(look, machine={"ramp_time_out_s": 4.9}) == [("warning", "machine.ramp_time_out_s")]
    assert told(look, machine={"ramp_time_out_s": 5.0}) == []


def test_the_fuse_must_bear_what_is_allowed_for_ever(look: Look) -> None:
    """1.5 times for 10 s, cooling with 120 s: a little overload never fills the budget, 1.1 times the rating does."""
    filled = (1.5**2 - 1) * 120 * (1 - math.exp(-10 / 120))
    edge = math.sqrt(1 + filled / 120)
    assert told(look, signals={"rated_charge_c": 1.01 / edge}) == []
    assert told(look, signals={"rated_charge_c": 0.99 / edge}) == [("error", "signals.rated_charge_c")]


def test_boards_and_resistors(look: Look) -> None:
    one_w = 3.65**2 / 33.0
    assert told(look, balancing={"board_w": 0.99 * one_w}) == [("error", "balancing.board_w")]
    assert told(look, balancing={"board_w": 16.1 * one_w}) == [("warning", "balancing.board_w")]
    assert told(look, balancing={"bleed_ohm": 1.2, "board_w": 20.0}) == [("warning", "balancing.bleed_ohm")]
    assert told(look, balancing={"v_stop": 2.4}) == [("error", "balancing.v_stop")]
    assert told(look, balancing={"module_cells": 417}) == [("warning", "balancing.module_cells")]


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("limits", "voltage_margin_v", 0.12),
        ("limits", "degc_margin", 15.0),
        ("limits", "rise_per_s", 0.6),
        ("limits", "soc_max", 0.4),
        ("limits", "soc_min", 0.6),
        ("limits", "scan_s", 1.0),
        ("signals", "max_age_s", 11.0),
        ("cooling", "hot_degc", 46.0),
    ],
)
def test_settings_that_are_probably_not_meant(look: Look, table: str, key: str, value: float) -> None:
    assert ("warning", f"{table}.{key}") in told(look, **{table: {key: value}})


def test_polylines(look: Look) -> None:
    cold = [[0.0, 0.0], [10.0, 1.0], [55.0, 0.0]]
    assert told(look, limits={"charge_degc": cold}) == []
    assert told(look, limits={"charge_degc": [[0.0, 0.0], [55.0, 0.0]]}) == [("error", "limits.charge_degc")]
    for line in ([[0.0, 1.0], [1.1, 0.5]], [[-0.1, 1.0], [1.0, 0.5]]):
        assert told(look, limits={"charge_soc": line}) == [("error", "limits.charge_soc")]


def test_a_narrow_window_is_told_by_its_narrower_end(look: Look) -> None:
    assert told(look, limits={"soc_max": 0.6}) == []
    assert told(look, limits={"soc_min": 0.6, "soc_max": 0.7}) == [("warning", "limits.soc_min")]


def test_a_hot_set_point_is_a_fault(look: Look) -> None:
    assert told(look, cooling={"max_degc": 60.0}) == [("error", "cooling.max_degc")]


def test_transport_needs_room_above_empty(look: Look) -> None:
    found = told(look, rack={"cell": "na_185"}, machine={"transport_allowed": True, "transport_v": 0.5})
    assert ("warning", "fault.transport_voltage.warning.threshold") in found


def test_an_insulation_monitor_that_ends_early(look: Look) -> None:
    found = told(look, signals={"insulation_max_ohm": 500e3})
    assert ("warning", "fault.insulation.warning.threshold") in found
