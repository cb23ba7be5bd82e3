"""What is told of a step: state, limits, and values that are not good."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.codec.register_profile import TOLD
from hal.contract import Command, Measurement, Quality, RackState
from hal.pcs import Ratings, events
from hal.pcs.energy_manager import EnergyManager
from hal.pcs.told import known, tell

RATINGS = Ratings(charge_v=58.0, discharge_v=42.0, energy_wh=14_600.0)
N, SENSORS = 8, 2


def told(
    state: RackState = RackState.CONNECTED,
    *,
    manager: EnergyManager | None = None,
    charge_a: float = 100.0,
    discharge_a: float = 200.0,
    now_s: float = 0.0,
    local: bool = False,
    warning: int = 0,
    fatal: int = 0,
) -> dict[str, float]:
    m, c = Measurement(N, SENSORS), Command(N, SENSORS)
    m.head["contactors"] = 3 if state in (RackState.CONNECTED, RackState.RAMP_DOWN) else 0
    c.head["state"], c.head["limit_charge_a"], c.head["limit_discharge_a"] = state, charge_a, discharge_a
    for words, fault in ((c.fault_warning, warning), (c.fault_fatal, fatal)):
        if fault:
            words[fault // 32] = 1 << fault % 32
    return tell(events.load(), RATINGS, manager or EnergyManager(10.0), m, c, now_s, local=local)


def test_every_field_is_told_and_no_other() -> None:
    assert set(told()) == set(TOLD)


@pytest.mark.parametrize("state", list(RackState))
def test_the_state_is_that_of_the_table(state: RackState) -> None:
    seen = told(state)
    assert seen["state"] == events.load().state[state]
    assert seen["closed"] == (state in (RackState.CONNECTED, RackState.RAMP_DOWN))


def test_connected_but_nothing_may_flow_is_standby() -> None:
    assert told(charge_a=0.0, discharge_a=0.0)["state"] == 4
    assert told(charge_a=0.0)["state"] == told(discharge_a=0.0)["state"] == 3
    assert told(RackState.RAMP_DOWN, charge_a=0.0, discharge_a=0.0)["state"] == 6


@pytest.mark.parametrize("fault", [22, 23])
def test_connected_beyond_the_window_of_charge_is_its_protection(fault: int) -> None:
    assert told(warning=fault)["state"] == told(fatal=fault)["state"] == 5
    assert told(RackState.STANDBY, warning=fault)["state"] == 1


@given(st.floats(width=32), st.floats(width=32))
def test_no_more_than_the_limit_is_told(charge_a: float, discharge_a: float) -> None:
    seen = told(charge_a=charge_a, discharge_a=discharge_a)
    for name, limit in (("charge_limit_a", charge_a), ("discharge_limit_a", discharge_a)):
        assert 0.0 <= seen[name] <= max(limit if limit == limit else 0.0, 0.0) * (1 + 1e-6) + 1e-3
        if 0.1 <= limit < 1e5:
            assert seen[name] > limit - 0.1


def test_the_heart_beat_counts_seconds_and_leaves_out_65535() -> None:
    assert [told(now_s=t)["hb"] for t in (0.0, 0.95, 1.0, 65534.9, 65535.0)] == [0, 0, 1, 65534, 0]


def test_silence_is_an_event_of_its_own() -> None:
    manager = EnergyManager(5.0)
    manager.give([("set_op", 1)])
    manager.step(0.0)
    assert told(manager=manager)["evt1"] == told(manager=manager)["evt_vnd1"] == 0
    manager.step(6.0)
    seen = told(manager=manager)
    assert (seen["evt1"], seen["evt_vnd1"], seen["manager"]) == (1, 1 << 15, 2)


def test_why_a_string_does_not_connect() -> None:
    disabled = EnergyManager(5.0)
    disabled.give([("set_ena", 2)])
    disabled.step(0.0)
    reasons = {
        (RackState.STANDBY, None): (0, 0),
        (RackState.STANDBY, disabled): (4, 3),
        (RackState.MAINTENANCE, disabled): (4, 2),
        (RackState.LOCKOUT, None): (0, 4),
    }
    for (state, manager), expected in reasons.items():
        seen = told(state, manager=manager)
        assert (seen["con_fail"], seen["disabled_for"]) == expected
    seen = told(RackState.FAULT, manager=disabled, fatal=31)
    assert (seen["con_fail"], seen["disabled_for"]) == (1, 1), "a fault is told before who has disabled it"
    assert told(local=True)["local"] == 1


def test_a_value_that_is_not_good_is_no_value(measured: Any, info_of: Any) -> None:
    info = info_of(8)
    m, out = measured(info), Measurement(info.n_cells, info.n_sensors)
    known(m, out)
    assert out.bytes.tobytes() == m.bytes.tobytes()
    m.head["current_a_quality"], m.head["insulation_ohm_quality"] = Quality.STALE, Quality.MISSING
    m.cell_v_quality[3], m.sensor_degc_quality[1] = Quality.OPEN_WIRE, Quality.FROZEN
    known(m, out)
    assert math.isnan(out.head["current_a"][0])
    assert math.isnan(out.head["insulation_ohm"][0])
    assert np.flatnonzero(np.isnan(out.cell_v)).tolist() == [3]
    assert np.flatnonzero(np.isnan(out.sensor_degc)).tolist() == [1]
    assert out.head["pack_v"][0] == m.head["pack_v"][0]
    assert not np.isnan(m.cell_v).any(), "the controller's own is left alone"
