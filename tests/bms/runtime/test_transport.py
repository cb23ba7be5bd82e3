"""The 0 V transport state on the twin: there, a night at 0 V, and back, without a cell reversed or a fault."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bms.core.machine_table import Request
from bms.runtime import SUMMARY, scenario
from bms.runtime.clock import VirtualClock
from bms.runtime.run import execute, make_controller, open_rack
from hal.contract import Contactor, RackState
from hal.errors import ConfigError


def test_a_rack_is_drained_rests_at_0_v_and_comes_back(tmp_path: Path) -> None:
    """Four cells with a drain of minutes: below SoC 0 the cell behaves like a capacitor of 14 kF behind its resistor."""
    chosen = scenario.load("sodium_transport")
    chosen = replace(
        chosen,
        rack="sim:na_185?n_series=4",
        duration_s=6 * 3600.0,
        requests=((0.0, Request.TRANSPORT), (3 * 3600.0, Request.CONNECT)),
        tables={**chosen.tables, "rack": {**chosen.tables["rack"], "bleed_ohm": 0.05, "sense_ohm": 0.0001}},
        controller={
            **chosen.controller,
            "signals": {"sense_ohm": 0.0001},
            "balancing": {"bleed_ohm": 0.05, "board_w": 6000.0},
        },
    )
    clock = VirtualClock()
    rack = open_rack(chosen, clock)
    lowest_v, order, charge_a = np.inf, [], []
    with rack:
        controller = make_controller(chosen, rack, clock)
        m, c = controller.measurement, controller.command
        for k in range(int(chosen.duration_s)):
            request = Request.TRANSPORT if k < 3 * 3600 else Request.CONNECT
            clock.wait_until(float(k), lambda: False)
            rack.read(m)
            controller.step(request, 1.0)
            rack.write(c)
            state = RackState(int(c.head["state"][0]))
            if not order or order[-1] != state:
                order.append(state)
            lowest_v = min(lowest_v, float(m.cell_v.min()))
            if state == RackState.TRANSPORT:
                assert rack.contactors_closed == Contactor.NONE
            if state == RackState.TRANSPORT_CHARGE:
                charge_a.append(-float(m.head["current_a"][0]))
                assert c.head["limit_discharge_a"] == 0.0
            assert c.head["severity"] < 3, state
        assert rack.events == []
    assert [state.name for state in order] == [
        "SELF_TEST", "STANDBY", "TRANSPORT_DRAIN", "TRANSPORT", "TRANSPORT_PRECHARGE", "TRANSPORT_CHARGE", "CONNECTED",
    ]  # fmt: skip
    assert lowest_v > -0.02, "no cell is reversed"
    assert np.median(charge_a) == pytest.approx(0.02 * 185.0, rel=0.05), "C/50 until every cell is in its window"


def test_a_restart_in_transport_stays_in_transport(tmp_path: Path) -> None:
    """Cells at 0 V are no fault for a controller that remembers why; for one that does not, they are."""
    chosen = scenario.load("sodium_transport")
    tables = {**chosen.tables, "rack": {**chosen.tables["rack"], "bleed_ohm": 0.05, "sense_ohm": 0.0001}}
    changes = {
        **chosen.controller,
        "signals": {"sense_ohm": 0.0001},
        "balancing": {"bleed_ohm": 0.05, "board_w": 6000.0},
    }
    first = replace(
        chosen, rack="sim:na_185?n_series=4", duration_s=9000.0, requests=((0.0, Request.TRANSPORT),), tables=tables,
        controller=changes,
    )  # fmt: skip
    execute(first, tmp_path / "first", report=False, store=tmp_path / "store")
    assert json.loads((tmp_path / "first" / SUMMARY).read_text())["state_at_end"] in ("TRANSPORT", "TRANSPORT_DRAIN")
    empty = {**tables, "rack": {**tables["rack"], "initial_soc": -0.0315, "soc_spread": 0.0}}
    second = replace(first, duration_s=300.0, tables=empty, initial_soc=0.0, initial_soc_std=0.01)
    for name, store, states in (
        ("with", tmp_path / "store", ("TRANSPORT", "TRANSPORT_DRAIN")),
        ("without", None, ("FAULT",)),
    ):
        execute(second, tmp_path / name, report=False, store=store)
        assert json.loads((tmp_path / name / SUMMARY).read_text())["state_at_end"] in states, name


def test_cells_that_do_not_bear_0_v_are_refused(tmp_path: Path) -> None:
    chosen = replace(
        scenario.load("frequency_regulation"),
        rack="sim:lfp_280?n_series=4",
        controller={"machine": {"transport_allowed": True}},
    )
    with pytest.raises(ConfigError, match="transport_allowed = True: only sodium-ion"):
        execute(chosen, tmp_path, report=False)
