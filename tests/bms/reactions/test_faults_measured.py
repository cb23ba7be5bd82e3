"""Faults of what cells and safety inputs say, provoked through the HAL: how far each goes, what is done about it, in time, and told why."""

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
ONE_TIER = (F.DEEP_DISCHARGE, F.SHORT_CIRCUIT, F.INTERLOCK_OPEN, F.EMERGENCY_STOP, F.GAS_ALARM)
"""Faults of which there is no half."""


def case(fault: Fault, reaches: Severity = Severity.FATAL, **more: Any) -> dict[str, Any]:
    """A case for `reacts`: see `Case` in conftest.py."""
    return {"fault": fault, "reaches": reaches, **more}


def overlay(**tables: Any) -> dict[str, Any]:
    """Setup with changes of the configuration."""
    return {"controller": tables}


def lower(fault: Fault, tier: str = "warning", **columns: float) -> dict[str, Any]:
    """Setup with other numbers in a row: where physics would take weeks."""
    return overlay(fault={fault.name.lower(): {tier: columns}})


COLD_5 = {"rack": {"initial_degc": -8.0, "degc_spread": 0.0}}

CASES = [
    case(
        F.CELL_OVERVOLTAGE, wrong=[{"kind": "cell_v_offset", "index": [5], "value": 0.6}], where=5, value=(3.85, 3.95)
    ),
    case(
        F.CELL_UNDERVOLTAGE, wrong=[{"kind": "cell_v_offset", "index": [6], "value": -0.95}], where=6, value=(2.3, 2.4)
    ),
    case(
        F.DEEP_DISCHARGE,
        wrong=[{"kind": "cell_v_offset", "index": [15], "value": -1.4}],
        where=15,
        value=(1.8, 2.0),
    ),
    case(F.PACK_OVERVOLTAGE, wrong=[{"kind": "pack_v_gain", "value": 1.15}], value=(60.0, 61.0)),
    case(F.PACK_UNDERVOLTAGE, wrong=[{"kind": "pack_v_gain", "value": 0.7}], value=(36.0, 38.0)),
    case(
        F.VOLTAGE_SPREAD,
        setup={"rack": {"soc_spread": 0.3, "seed": 44}, **overlay(balancing={"start_soc": 0.9})},
        watch_s=330.0,
        ends=False,
        where=6,
    ),
    case(F.DISCHARGE_CURRENT, wrong=[{"kind": "pcs_ignores_limits", "value": 340.0}], value=(335, 345), holds=False),
    case(F.CHARGE_CURRENT, wrong=[{"kind": "pcs_ignores_limits", "value": -340.0}], value=(335, 345), holds=False),
    case(
        F.DISCHARGE_I2T,
        wrong=[{"kind": "pcs_ignores_limits", "value": 307.0}],
        setup=overlay(signals={"overload": 1.1}),
        value=(1.0, 1.3),
        slow=True,
        holds=False,
    ),
    case(
        F.CHARGE_I2T,
        wrong=[{"kind": "pcs_ignores_limits", "value": -307.0}],
        setup=overlay(signals={"overload": 1.1}),
        value=(1.0, 1.3),
        slow=True,
        holds=False,
    ),
    case(
        F.SHORT_CIRCUIT,
        wrong=[{"kind": "pcs_ignores_limits", "value": 900.0}],
        setup={"sensors": {"current_max_c": 3.5}},
        value=(850, 950),
        holds=False,
    ),
    case(
        F.DISCHARGE_LIMIT,
        wrong=[{"kind": "pcs_ignores_limits", "value": 230.0}],
        setup=COLD_5,
        value=(60, 200),
        holds=False,
    ),
    case(
        F.CHARGE_LIMIT,
        wrong=[{"kind": "pcs_ignores_limits", "value": -220.0}],
        setup={"rack": {"initial_degc": 10.0, "degc_spread": 0.0}},
        value=(60, 200),
        holds=False,
    ),
    case(
        F.CHARGE_HOT,
        wrong=[{"kind": "pcs_ignores_limits", "value": -100.0}],
        setup={"rack": {"initial_degc": 59.0, "degc_spread": 0.0}},
        value=(57.0, 60.0),
        where=3,
        holds=False,
    ),
    case(
        F.DISCHARGE_HOT,
        wrong=[{"kind": "cell_heat", "index": list(range(16)), "value": 400.0}],
        setup={"rack": {"initial_degc": 58.0, "degc_spread": 0.0}},
        value=(59.0, 61.0),
        watch_s=200.0,
        where=3,
        slow=True,
        ends=False,
    ),
    case(
        F.CHARGE_COLD,
        wrong=[{"kind": "pcs_ignores_limits", "value": -50.0}],
        setup={"rack": {"initial_degc": -6.0, "degc_spread": 0.0}},
        value=(-7, -3),
        where=1,
        holds=False,
    ),
    case(
        F.DISCHARGE_COLD,
        wrong=[{"kind": "pcs_ignores_limits", "value": 50.0}],
        setup={"rack": {"initial_degc": -25.0, "degc_spread": 0.0}},
        value=(-26, -23),
        where=1,
        holds=False,
    ),
    case(
        F.TEMPERATURE_RISE,
        wrong=[{"kind": "cell_heat", "index": [9, 10], "value": 3000.0}],
        where=2,
        watch_s=60.0,
        again=False,
        lingers_s=200.0,
    ),
    case(
        F.TEMPERATURE_SPREAD,
        wrong=[
            {"kind": "sensor_offset", "index": [k], "value": offset, "at_s": 0.0}
            for k, offset in enumerate((-11.5, -3.8, 3.8, 11.5))
        ],
        value=(20, 25),
        watch_s=100,
        early=True,
        where=0,
    ),
    case(
        F.SOC_LOW,
        WARNING,
        setup={"rack": {"initial_soc": 0.02}, **lower(F.SOC_LOW, threshold=0.05, clear=0.06)},
        watch_s=100,
        ends=False,
        where=4,
    ),
    case(
        F.SOC_HIGH,
        WARNING,
        setup={"rack": {"initial_soc": 0.99}, **lower(F.SOC_HIGH, threshold=0.95, clear=0.9)},
        watch_s=100,
        ends=False,
        where=8,
    ),
    case(
        F.SOC_UNCERTAIN,
        WARNING,
        setup=lower(F.SOC_UNCERTAIN, threshold=0.05, clear=0.04, set_s=60.0),
        watch_s=100,
        ends=False,
        where=11,
    ),
    case(F.INSULATION, wrong=[{"kind": "insulation", "value": 3000.0}], value=(2500, 3500)),
    case(
        F.INSULATION_POSITIVE,
        wrong=[{"kind": "insulation", "value": 3000.0, "index": [1]}],
        where=1,
        value=(2500, 3500),
    ),
    case(
        F.INSULATION_NEGATIVE,
        wrong=[{"kind": "insulation", "value": 3000.0, "index": [2]}],
        where=2,
        value=(2500, 3500),
    ),
    case(F.INSULATION_INVALID, wrong=[{"kind": "insulation_missing"}], value=(1800, 1803), watch_s=1900),
    case(F.INTERLOCK_OPEN, wrong=[{"kind": "interlock_open"}], value=(1, 1)),
    case(F.EMERGENCY_STOP, wrong=[{"kind": "emergency_stop"}], value=(1, 1)),
    case(F.EMERGENCY_STOP, asks=[(40.0, Request.EMERGENCY_STOP)], value=(1, 1)),
    case(F.GAS_ALARM, wrong=[{"kind": "gas_alarm"}], value=(1, 1)),
]


def _names(cases: list[dict[str, Any]]) -> list[str]:
    return [case["fault"].name.lower() for case in cases]


def test_every_fault_of_what_is_measured_is_provoked() -> None:
    assert {case["fault"] for case in CASES} == {fault for fault in Fault if fault < 34}


@pytest.mark.parametrize("about", CASES, ids=_names(CASES))
def test_a_fault_leads_to_its_reaction_in_time_and_explained(about: dict[str, Any], reacts: Any) -> None:
    reacts(**about)


WARNED = [about for about in CASES if about["reaches"] == Severity.FATAL and about["fault"] not in ONE_TIER]


@pytest.mark.parametrize("about", WARNED, ids=_names(WARNED))
def test_the_warning_before_it_has_its_reaction_too(about: dict[str, Any], warns: Any) -> None:
    warns(**about)


def test_what_has_one_tier_only_opens_at_once(trial: Any) -> None:
    rows = trial().rows
    assert all((fault, WARNING) not in rows for fault in ONE_TIER)


def test_the_sensor_that_is_wrong_is_named_next_to_an_end(trial: Any) -> None:
    t = trial(faults=[{"kind": "sensor_offset", "index": [2], "value": 17.5}])
    t.run(120.0)
    hit = t.first(lambda m: m.shows(F.TEMPERATURE_NEIGHBOUR, FATAL))
    assert hit.cause_index == 2


def test_a_spread_opens_within_its_time_while_cells_are_bled(trial: Any) -> None:
    t = trial(rack={"soc_spread": 0.3, "seed": 44})
    t.run(700.0)
    row = t.row(F.VOLTAGE_SPREAD, FATAL)
    seen = t.first(lambda m: m.value[F.VOLTAGE_SPREAD] > row.threshold)
    opened = t.first(lambda m: not m.path, 20.0)
    assert opened is not None
    assert opened.time_s - seen.time_s <= row.ftti_s


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


@pytest.mark.parametrize(("kind", "charge_c"), [("lfp_280", 0.9), ("na_185", 0.9), ("nmc_ev", 0.45)])
@pytest.mark.parametrize("factor", [2.0, 2.5])
def test_a_rack_that_has_aged_to_twice_its_resistance_shows_no_wrong_current(
    kind: str, charge_c: float, factor: float, trial: Any
) -> None:
    cycle = {"kind": "cycle", "charge_c": charge_c, "discharge_c": 0.9, "charge_h": 0.03, "discharge_h": 0.03}
    t = trial(kind=kind, rack={"resistance_factor": factor}, duty={**cycle, "rest_h": 0.01})
    t.run(1200.0)
    assert not any(m.shows(F.CURRENT_IMPLAUSIBLE, WARNING) for m in t.log)


@pytest.mark.parametrize("kind", ["lfp_280", "na_185", "nmc_ev"])
@pytest.mark.parametrize(
    ("current_c", "read_c", "frozen_s"), [(0.5, 0.0, 0.0), (-0.5, 0.0, 0.0), (-0.25, 0.5, 0.0), (0.5, None, 60.0)]
)
def test_a_step_of_half_the_1_h_current_behind_a_sensor_that_stands_still_opens_in_time(
    kind: str, current_c: float, read_c: float | None, frozen_s: float, trial: Any
) -> None:
    """It reads a number from the step on, or has kept its last value for a minute before."""
    capacity_ah = {"lfp_280": 280.0, "na_185": 185.0, "nmc_ev": 112.0}[kind]
    fault = {"kind": "current_frozen", "at_s": AT_S}
    if read_c is not None:
        fault = {"kind": "current_stuck_at", "value": read_c * capacity_ah, "at_s": AT_S}
    start_s = AT_S + frozen_s
    t = trial(kind=kind, faults=[fault], duty={"current_a": current_c * capacity_ah, "start_s": start_s})
    assert t.run(start_s).path
    t.run(start_s + 40.0)
    opened = t.first(lambda m: not m.path, start_s)
    assert opened is not None
    assert opened.time_s - start_s <= t.row(F.CURRENT_IMPLAUSIBLE, FATAL).ftti_s
    assert opened.cause == row_id(F.CURRENT_IMPLAUSIBLE, FATAL)
