"""What the reactions do not do yet: each of these is to pass, and then its mark goes."""

from __future__ import annotations

from typing import Any

import pytest

from bms.core.faults import Fault, row_id
from bms.core.machine_table import Request
from hal.backends.chaos import Change
from hal.contract import Severity

AT_S = 39.01
F = Fault
WARNING, FATAL = Severity.WARNING, Severity.FATAL


def gap(reason: str) -> pytest.MarkDecorator:
    """Strict, so that what is mended is noticed."""
    return pytest.mark.xfail(strict=True, reason=reason)


@gap("the trace of a current that stands still decays within half a minute, and the warning with it")
def test_a_current_sensor_that_says_zero_does_not_go_unnoticed(trial: Any) -> None:
    """274 A flow, for ten minutes, and 0 A are measured: limits, I2t and SoC are blind."""
    t = trial(
        faults=[{"kind": "current_stuck_at", "value": 0.0, "at_s": AT_S}],
        duty={"current_a": 280.0, "start_s": AT_S},
        rack={"initial_soc": 0.9},
    )
    t.connected()
    last = t.run(640.0)
    assert last.true_a < 150.0


@gap("where all sensors stand still, none of them stands still against the mean")
def test_temperatures_that_all_stand_still_are_seen_before_the_cells_are_hot(trial: Any) -> None:
    t = trial(
        changes=[Change("sensor_degc", "stuck", from_s=AT_S)],
        faults=[{"kind": "cell_heat", "index": list(range(16)), "value": 100.0, "at_s": AT_S}],
        duty={"current_a": -280.0},
        environment={"coolant_min_degc": 30.0},
    )
    t.connected()
    t.run(3600.0)
    t.check_truth()


@gap("the response of the cells is judged by the resistances of their type, not by those that are known")
@pytest.mark.parametrize(("kind", "charge_c"), [("lfp_280", 0.9), ("na_185", 0.9), ("nmc_ev", 0.45)])
def test_a_rack_that_has_aged_to_twice_its_resistance_shows_no_wrong_current(
    kind: str, charge_c: float, trial: Any
) -> None:
    cycle = {"kind": "cycle", "charge_c": charge_c, "discharge_c": 0.9, "charge_h": 0.03, "discharge_h": 0.03}
    t = trial(kind=kind, rack={"resistance_factor": 2.0}, duty={**cycle, "rest_h": 0.01})
    t.run(1200.0)
    assert not any(m.shows(F.CURRENT_IMPLAUSIBLE, WARNING) for m in t.log)


@gap("the threshold, 3C, is where the twin's sensor ends: no value is beyond it")
def test_a_short_circuit_is_called_by_its_name(trial: Any) -> None:
    t = trial(faults=[{"kind": "pcs_ignores_limits", "value": 900.0, "at_s": 39.0}])
    t.run(60.0)
    cause = t.first(lambda m: m.cause != 0).cause
    assert cause == row_id(F.SHORT_CIRCUIT, FATAL)


@gap("the machine gives the link 15 s, the row 19 s of a time that starts anew in each stage")
def test_a_precharge_that_takes_too_long_is_told(trial: Any) -> None:
    t = trial(faults=[{"kind": "link_load", "value": 400.0}])
    t.run(60.0)
    assert any(m.cause == row_id(F.PRECHARGE_TIMEOUT, FATAL) for m in t.log)


@gap("machine.ramp_time_out_s is limits.ramp_s: at a step a second the last fifth of the current is broken, not ramped")
def test_where_the_current_is_not_seen_the_ramp_still_ends_before_the_contactors_open(trial: Any) -> None:
    t = trial(faults=[{"kind": "insulation", "value": 3000.0, "at_s": AT_S}], duty={"current_a": 280.0})
    t.connected()
    t.run(80.0)
    opened = next(k for k, m in enumerate(t.log) if m.time_s > AT_S and not m.path)
    assert abs(t.log[opened - 1].true_a) <= 0.02 * t.info.capacity_ah


@gap("the cause is forgotten with the last fatal row only: it may be one that was reset")
def test_the_cause_is_a_fault_that_is_still_there(trial: Any) -> None:
    """Two fatal faults; the first is reset, the second stays: the second is the reason for FAULT now."""
    t = trial(
        faults=[
            {"kind": "interlock_open", "at_s": AT_S, "until_s": 60.0},
            {"kind": "insulation", "value": 3000.0, "at_s": AT_S},
        ]
    )
    t.run(80.0)
    last = t.step(Request.RESET)
    assert not last.shows(F.INTERLOCK_OPEN, FATAL)
    assert last.shows(F.INSULATION, FATAL)
    assert last.cause == row_id(F.INSULATION, FATAL)
