"""What a scenario may say of faults, and what is answered when it cannot be."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sim.config import TwinError
from sim.faults import FAULT_KINDS, fault_configs


def test_faults_come_and_go() -> None:
    (fault, lasting) = fault_configs(
        [
            {"kind": "cell_v_missing", "at_s": 5.0, "until_s": 10.0, "index": [0, 3]},
            {"kind": "insulation", "at_s": 7, "value": 1000},
        ],
        4,
        1,
    )
    assert [fault.active(t) for t in (4.9, 5.0, 9.9, 10.0)] == [False, True, True, False]
    assert [lasting.active(t) for t in (6.9, 7.0, 1e9)] == [False, True, True]
    assert lasting.value == 1000.0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "cell_v_missin"}, "did you mean 'cell_v_missing'?"),
        ({}, "'kind' is missing"),
        ({"kind": "cell_v_missing"}, "index is missing"),
        ({"kind": "cell_v_missing", "index": [4]}, "index 4 is not in 0..3"),
        ({"kind": "cell_v_missing", "index": [-1]}, "index -1"),
        ({"kind": "sensor_missing", "index": [2]}, "index 2 is not in 0..1"),
        ({"kind": "insulation"}, "value is missing"),
        ({"kind": "interlock_open", "value": 1.0}, "value is not used"),
        ({"kind": "interlock_open", "index": [1]}, "index is not used"),
        ({"kind": "interlock_open", "at_s": 5.0, "until_s": 5.0}, "until_s must be later"),
        ({"kind": "interlock_open", "at": 5.0}, "unknown key 'at'"),
        ("interlock_open", "expected a table"),
    ],
)
def test_bad_faults_are_refused(entry: object, message: str) -> None:
    with pytest.raises(TwinError) as caught:
        fault_configs([entry], 4, 2)  # type: ignore[list-item]
    assert message in str(caught.value)
    assert "[[fault]]" in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "cell_v_stuck_at", "index": [1]}, "value is missing (in V)"),
        ({"kind": "cell_v_swapped", "index": [1]}, "index = [1]: name two groups"),
        ({"kind": "cell_v_swapped", "index": [1, 1]}, "index = [1, 1]: name two groups"),
        ({"kind": "open_wire", "index": [0]}, "index 0 is not in 1..3"),
        ({"kind": "contactor_weld", "index": [3]}, "index 3 is not in 0..2"),
        ({"kind": "insulation", "value": 1e4, "index": [0]}, "index 0 is not in 1..2"),
        ({"kind": "insulation", "value": 1e4, "index": [1, 2]}, "name one rail"),
        ({"kind": "insulation", "value": -1.0}, "value = -1 ohm: must not be negative"),
        ({"kind": "cell_leak", "index": [0], "value": 0.0}, "value = 0 ohm: must be positive"),
        ({"kind": "link_load", "value": -5.0}, "value = -5 ohm: must be positive"),
        ({"kind": "feedback_stuck_at", "value": 8.0}, "value = 8: contactor bits are a whole number, 0..7"),
        ({"kind": "feedback_stuck_at", "value": 0.5}, "value = 0.5: contactor bits"),
        ({"kind": "sensor_offset", "index": [0, 0], "value": 1.0}, "index = [0, 0]: a number stands twice"),
        ({"kind": "coolant_hot", "value": "hot"}, "expected a finite number"),
        ({"kind": "internal_short", "index": [0], "value": 0.0}, "value = 0 ohm: must be positive"),
        ({"kind": "internal_short", "index": [0], "value": 1.0, "ramp_s": -1.0}, "ramp_s = -1: must not be negative"),
        ({"kind": "cell_leak", "index": [0], "value": 1.0, "ramp_s": 5.0}, "ramp_s is not used by this kind"),
        ({"kind": "heater", "index": [0], "value": -5.0}, "value = -5 W: must be positive"),
        ({"kind": "cell_heat", "index": [0], "value": -5.0}, "value = -5 W: must not be negative"),
        ({"kind": "joint_resistance", "index": [0], "value": -1e-3}, "value = -0.001 ohm: must not be negative"),
        ({"kind": "cell_capacity", "index": [0], "value": 0.0}, "value = 0 times: must be > 0, <= 1"),
        ({"kind": "cell_capacity", "index": [0], "value": 1.1}, "value = 1.1 times: must be > 0, <= 1"),
        ({"kind": "coolant_blocked", "index": [1]}, "index 1 is not in 0..0"),
    ],
)
def test_what_a_kind_needs_is_named(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(TwinError) as caught:
        fault_configs([entry], 4, 2)
    assert message in str(caught.value)
    assert "[[fault]]" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_may_be_left_out() -> None:
    entries = [{"kind": kind} for kind in ("contactor_weld", "contactor_stuck_open")]
    entries += [{"kind": "open_wire", "index": [3]}, {"kind": "insulation", "value": 0}]  # type: ignore[dict-item]
    assert [fault.value for fault in fault_configs(entries, 4, 2)] == [None, None, None, 0.0]


def test_what_comes_little_by_little() -> None:
    short, joint, capacity = fault_configs(
        [
            {"kind": "internal_short", "index": [0], "value": 0.01, "at_s": 100, "ramp_s": 10},
            {"kind": "joint_resistance", "index": [0], "value": 0.004, "at_s": 100, "ramp_s": 10},
            {"kind": "cell_capacity", "index": [0], "value": 0.6, "at_s": 100, "ramp_s": 10},
        ],
        4,
        1,
    )
    for fault, values in ((short, (10.0, 0.01, 0.01)), (joint, (0.0, 0.004, 0.004)), (capacity, (1.0, 0.6, 0.6))):
        assert [fault.ramped(t) for t in (100.0, 110.0, 1e9)] == pytest.approx(values)
    assert (joint.ramped(105.0), capacity.ramped(105.0)) == pytest.approx((0.002, 0.8))
    (sudden,) = fault_configs([{"kind": "cell_capacity", "index": [0], "value": 0.6, "at_s": 100}], 4, 1)
    assert sudden.ramped(100.0) == 0.6


def test_every_kind_is_told_and_can_be_asked_for() -> None:
    for name, kind in FAULT_KINDS.items():
        assert len(kind.about) > 15
        assert ("`index`" in kind.about) == bool(kind.index), name
        assert ("`value`" in kind.about) == bool(kind.value), name
        entry: dict[str, Any] = {"kind": name}
        if kind.index:
            entry["index"] = [1, 2] if kind.index == "pair" else [1]
        if kind.value:
            entry["value"] = 1.0
        assert fault_configs([entry], 4, 2, n_modules=2)[0].active(0.0)


def test_the_fires_of_the_text_can_be_asked_for(repository: Path) -> None:
    text = (repository / "docs" / "runaway.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    faults = fault_configs(tomllib.loads(block)["fault"], 416, 104, n_modules=8)
    assert [fault.kind for fault in faults] == [
        "internal_short", "heater", "pcs_ignores_limits", "coolant_stop", "coolant_blocked",
    ]  # fmt: skip
    assert faults[0].ramped(3600.0) == pytest.approx(2.0)
    assert faults[0].ramped(4200.0) == faults[0].ramped(1e9) == 2e-3
