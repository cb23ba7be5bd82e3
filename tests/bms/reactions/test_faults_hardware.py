"""Faults of contactors, sources, sensors, health and of the controller itself, provoked through the HAL: how far each goes, what is done about it, in time, and told why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bms.core.estimator_setup import rows_view
from bms.core.faults import Fault, row_id
from bms.core.guard import DIGEST, RESET_CAUSE, STORE_VERDICT
from bms.core.health_layout import PAIRS, ROWS
from bms.core.machine import TRANSPORTED
from bms.core.machine_table import Request
from hal.contract import RackState, Severity

AT_S = 39.01

F = Fault
WARNING, FATAL = Severity.WARNING, Severity.FATAL
ONE_TIER = (
    *(F.CONTACTOR_WELDED, F.CONTACTOR_STUCK_OPEN, F.WELD_VOLTAGE, F.CONFIG_DAMAGED),
    *(F.PRECHARGE_TIMEOUT, F.PRECHARGE_VOLTAGE, F.PRECHARGE_CURRENT, F.RUNAWAY, F.RUNAWAY_RATES),
)
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


def _aged(trial: Any) -> None:
    """Cell 4 has lost a half of its capacity, and a store remembers it."""
    trial.state.health_capacity[4], trial.state.health_capacity_std[4] = 0.52, 0.01
    trial.state.health_cell.reshape(-1, ROWS)[4, PAIRS] = 2.0


def _guard(word: int, value: int) -> Callable[[Any], None]:
    def prepare(trial: Any) -> None:
        trial.state.guard_word[word] = value

    return prepare


def _other_configuration(trial: Any) -> None:
    trial.state.guard_word[DIGEST] ^= 1


def _flipped(trial: Any) -> None:
    """One bit of the derating of the charge current over temperature."""
    trial.config.power_polyline.view(np.uint32)[20] ^= 1


def _poisoned(trial: Any) -> None:
    """Cell 9 loses what is known of it."""
    rows_view(trial.state.blocks)[:, 0, 9] = np.nan


def _transported(trial: Any) -> None:
    """The rack was sent at 0 V, and a store remembers it."""
    trial.state.machine_word[TRANSPORTED] = 1


MODULE = [4, 5, 6, 7]  # of sensor 1
FAST = {"sensors": {"degc_tau_s": 1.0}}
DRAWN = {"duty": {"current_a": 200.0, "start_s": AT_S}}
MACHINE = {"transport_allowed": True, "transport_settle_s": 10.0}
TRANSPORT = overlay(machine=MACHINE)

CASES = [
    case(
        F.CONTACTOR_WELDED,
        wrong=[{"kind": "contactor_weld", "index": [0]}],
        asks=[(40.0, Request.OPEN)],
        where=1,
        value=(1, 1),
        ends=False,
        slow=True,
        parts=False,
    ),
    case(
        F.CONTACTOR_STUCK_OPEN,
        wrong=[{"kind": "contactor_stuck_open", "index": [1]}],
        where=2,
        value=(1, 1),
        holds=False,
    ),
    case(
        F.WELD_CURRENT,
        # a link that is apart from the string would prove that the current is the sensor's
        changes=[
            {"channel": "current_a", "kind": "stuck", "value": 10.0},
            {"channel": "bus_v", "kind": "stuck", "value": 52.7},
        ],
        asks=[(0.0, Request.OPEN)],
        value=(10, 10),
        shut=True,
        parts=False,
    ),
    case(
        F.WELD_VOLTAGE,
        wrong=[{"kind": "contactor_weld"}, {"kind": "feedback_stuck_at", "value": 0, "at_s": 41.5}],
        asks=[(40.0, Request.OPEN)],
        value=(1, 1),
        ends=False,
        slow=True,
        parts=False,
    ),
    case(F.STUCK_OPEN_VOLTAGE, wrong=[{"kind": "bus_v_stuck_at", "value": 40.0}], value=(0.2, 0.25), holds=False),
    case(
        F.CONTACTOR_WORN,
        WARNING,
        setup=overlay(machine={"contactor_mechanical_operations": 0.5}),
        asks=[(40.0, Request.OPEN)],
        value=(2.0, 2.1),
        ends=False,
    ),
    case(
        F.PRECHARGE_TIMEOUT,
        wrong=[{"kind": "link_load", "value": 400.0, "at_s": 0.0}],
        setup=lower(F.PRECHARGE_TIMEOUT, "fatal", threshold=10.0),
        value=(10, 12),
        shut=True,
        by_itself=True,
    ),
    case(F.PRECHARGE_VOLTAGE, wrong=[{"kind": "precharge_open", "at_s": 0.0}], shut=True, by_itself=True),
    case(
        F.PRECHARGE_CURRENT,
        wrong=[{"kind": "link_load", "value": 0.5, "at_s": 0.0}],
        setup={"rack": {"precharge_ohm": 5.0}},
        shut=True,
        by_itself=True,
    ),
    case(
        F.PRECHARGE_RESISTOR,
        wrong=[{"kind": "link_load", "value": 0.5, "at_s": 0.0}],
        setup={"period_s": 0.1, **overlay(machine={"resistor_j": 10.0})},
        shut=True,
        by_itself=True,
    ),
    case(
        F.PRECHARGE_ATTEMPTS,
        WARNING,
        wrong=[{"kind": "precharge_open", "at_s": 0.0}],
        watch_s=100,
        shut=True,
        by_itself=True,
    ),
    case(
        F.SELF_TEST,
        changes=[{"channel": "bus_v", "kind": "missing", "from_s": 0.0}],
        value=(58.0, 60.0),
        watch_s=60.0,
        slow=True,
        shut=True,
        holds=False,
    ),
    case(F.COOLANT_FLOW, WARNING, wrong=[{"kind": "coolant_stop"}], value=(0, 0.1)),
    case(
        F.COOLANT_HOT,
        WARNING,
        wrong=[{"kind": "coolant_hot", "value": 60.0}],
        value=(55, 60.5),
        watch_s=100,
        lingers_s=300.0,
    ),
    case(
        F.COOLANT_COLD,
        WARNING,
        wrong=[{"kind": "coolant_hot", "value": -35.0}],
        value=(-36, -30),
        watch_s=100,
        lingers_s=300.0,
    ),
    case(F.CELL_VOLTAGE_LOST, wrong=[{"kind": "cell_v_missing", "index": [7]}], where=7, value=(10, 12)),
    case(F.TEMPERATURE_LOST, wrong=[{"kind": "sensor_missing", "index": [3]}], where=3, value=(60, 62), watch_s=100),
    case(F.CURRENT_LOST, wrong=[{"kind": "current_missing"}], value=(5, 7)),
    case(F.PACK_VOLTAGE_LOST, wrong=[{"kind": "pack_v_missing"}], value=(30, 32)),
    case(F.BUS_VOLTAGE_LOST, wrong=[{"kind": "bus_v_missing"}], value=(300, 302), watch_s=400),
    case(F.FEEDBACK_LOST, wrong=[{"kind": "feedback_missing"}], value=(30, 32)),
    case(F.COOLANT_LOST, WARNING, wrong=[{"kind": "coolant_flow_missing"}], watch_s=310),
    case(F.GAS_LOST, wrong=[{"kind": "gas_missing"}], value=(3600, 3602), watch_s=3700),
    case(F.BLEED_LOST, WARNING, wrong=[{"kind": "bleed_feedback_missing"}], watch_s=310),
    case(F.SAMPLE_LOST, wrong=[{"kind": "scan_stalled"}], value=(5, 7)),
    case(
        F.OPEN_SENSE_WIRE,
        wrong=[{"kind": "open_wire", "index": [6], "value": 0.55}],
        setup={"rack": {"initial_soc": 0.06, "soc_spread": 0.002}},
        where=5,
        value=(0.5, 0.56),
    ),
    case(
        F.CELL_VOLTAGE_FROZEN,
        wrong=[{"kind": "cell_v_frozen", "index": [3], "at_s": 38.5}],
        setup=DRAWN,
        where=3,
        value=(0.05, 0.2),
        holds=False,
    ),
    case(
        F.TEMPERATURE_FROZEN,
        wrong=[
            {"kind": "sensor_frozen", "index": [1]},
            {"kind": "cell_heat", "index": list(range(16)), "value": 250.0},
        ],
        where=1,
        value=(5, 8),
        watch_s=400,
        slow=True,
        lingers_s=400.0,
    ),
    case(
        F.CURRENT_IMPLAUSIBLE,
        wrong=[{"kind": "current_frozen"}, {"kind": "pcs_ignores_limits", "value": 270.0}],
        setup={"duty": {"current_a": -250.0}},
        value=(140, 400),
        lingers_s=640.0,  # what it reads through open contactors is told as an offset
    ),
    case(
        F.CURRENT_GAIN,
        wrong=[{"kind": "current_gain", "value": -1.0}],
        setup={
            "kind": "na_185",
            "duty": {"kind": "frequency_regulation", "seed": 1},
            **overlay(fault={"current_implausible": {"fatal": {"enabled": False}}}),
        },
        value=(0.8, 2.0),
        watch_s=1000,
        slow=True,
        holds=False,
        lingers_s=600.0,
    ),
    # what the filter has learnt of the sensor, it does not forget at rest
    case(
        F.CURRENT_OFFSET,
        wrong=[{"kind": "current_offset", "value": 60.0}],
        setup={"kind": "na_185", "duty": {"kind": "frequency_regulation", "seed": 1}},
        value=(14.8, 20),
        watch_s=4000,
        slow=True,
        ends=False,
    ),
    case(F.SUM_IMPLAUSIBLE, wrong=[{"kind": "pack_v_gain", "value": 1.045}], value=(0.03, 0.05)),
    case(
        F.TEMPERATURE_NEIGHBOUR,
        wrong=[{"kind": "sensor_offset", "index": [0], "value": 17.5, "at_s": 0.0}],
        where=0,
        value=(15, 20),
        watch_s=100,
    ),
    case(
        F.TEMPERATURE_MODEL,
        wrong=[{"kind": "cell_heat", "index": list(range(16)), "value": 450.0}],
        value=(15, 20),
        watch_s=900,
        where=3,
        slow=True,
        again=False,
        lingers_s=900.0,
    ),
    # 1.5 and 3.7 K/s; the rise would be told first
    case(
        F.RUNAWAY,
        wrong=[{"kind": "cell_heat", "index": MODULE, "value": 8000.0, "until_s": AT_S + 16.0}],
        setup=FAST | overlay(runaway={"hot_degc": 35.0}, fault={"temperature_rise": {"fatal": {"enabled": False}}}),
        where=7,
        value=(4, 20),
        slow=True,
        holds=False,
        lingers_s=400.0,
        again=False,
    ),
    case(
        F.RUNAWAY_RATES,
        wrong=[{"kind": "cell_heat", "index": MODULE, "value": 24000.0, "until_s": AT_S + 8.0}],
        setup=FAST,
        where=7,
        value=(3, 3),
        holds=False,
        lingers_s=400.0,
        again=False,
    ),
    case(
        F.HEAT_RESIDUAL,
        wrong=[{"kind": "cell_heat", "index": MODULE, "value": 120.0}],
        where=1,
        value=(60, 120),
        watch_s=500,
        slow=True,
        lingers_s=3000.0,
        again=False,
    ),
    case(
        F.MODEL_RESIDUAL,
        wrong=[{"kind": "cell_v_offset", "index": [8], "value": -0.35}],
        setup={"rack": {"initial_soc": 0.1}, **overlay(fault={"cell_sag": {"fatal": {"enabled": False}}})},
        where=8,
        value=(0.2, 0.3),
        watch_s=120,
        lingers_s=200.0,
    ),
    case(
        F.CELL_SAG,
        wrong=[{"kind": "internal_short", "index": [8], "value": 0.012}],
        where=8,
        value=(0.045, 0.08),
        watch_s=130,
        lingers_s=300.0,
    ),
    case(
        F.STRING_SAG,
        changes=[{"channel": "pack_v", "kind": "offset", "value": -0.7}],
        value=(0.16, 0.3),
    ),
    case(
        F.VALUE_OUT_OF_RANGE,
        WARNING,
        changes=[{"channel": "cell_v", "kind": "full_scale", "index": 4}],
        where=4,
        value=(1, 1),
        watch_s=8,
    ),
    case(F.FEEDBACK_INVALID, changes=[{"channel": "contactors", "kind": "full_scale"}], value=(1, 1)),
    case(
        F.CELL_LEAK,
        wrong=[{"kind": "cell_leak", "index": [11], "value": 1.0}],
        setup={"period_s": 10.0, "rack": {"initial_soc": 0.3}},
        where=11,
        watch_s=86400,
        ends=False,
        slow=True,
    ),
    case(F.BLEED_STUCK_ON, WARNING, wrong=[{"kind": "bleed_stuck_on", "index": [6]}], where=6, value=(1, 1)),
    case(
        F.BLEED_STUCK_OFF,
        WARNING,
        wrong=[{"kind": "bleed_stuck_off", "index": list(range(16))}],
        setup={"rack": {"initial_soc": 0.1, "soc_spread": 0.02}},
        watch_s=200,
        where=0,
    ),
    case(
        F.CAPACITY_LOW,
        WARNING,
        setup={"prepare": _aged, **lower(F.CAPACITY_LOW, set_s=60.0)},
        where=4,
        value=(0.5, 0.6),
        watch_s=400,
        ends=False,
    ),
    case(
        F.RESISTANCE_HIGH,
        WARNING,
        setup={
            "rack": {"resistance_factor": 3.5},
            "duty": {"kind": "cycle", "charge_c": 0.5, "charge_h": 0.05, "discharge_h": 0.05, "rest_h": 0.02},
            **overlay(
                fault={
                    "resistance_high": {"warning": {"threshold": 2.0, "clear": 1.9, "set_s": 60.0}},
                    "current_implausible": {"warning": {"enabled": False}, "fatal": {"enabled": False}},
                }
            ),
        },
        watch_s=7200,
        ends=False,
        where=3,  # cells are compared four at a time: the largest of the first four is above before the others are looked at
    ),
    case(
        F.TRANSPORT_REVERSED,
        wrong=[{"kind": "cell_v_stuck_at", "index": [3], "value": -0.2, "at_s": 80.0}],
        setup={
            "kind": "na_185",
            "rack": {"initial_soc": -0.03, "soc_spread": 0.0},
            "prepare": _transported,
            **TRANSPORT,
        },
        asks=[(0.0, Request.TRANSPORT)],
        where=3,
        shut=True,
        watch_s=100,
    ),
    case(
        F.TRANSPORT_VOLTAGE,
        WARNING,
        setup={
            "kind": "na_185",
            "rack": {"initial_soc": -0.02, "soc_spread": 0.0},
            "prepare": _transported,
            "controller": {**TRANSPORT["controller"], "machine": {**MACHINE, "transport_v": 0.8}},
        },
        asks=[(0.0, Request.TRANSPORT)],
        where=11,
        value=(0.5, 0.6),
        shut=True,
        watch_s=700,
        ends=False,
    ),
    case(F.DEADLINE_MISSED, late=(40.0, 11.0), setup={"rack": {"watchdog_s": 60.0}}, value=(11, 13), holds=False),
    case(F.CONFIG_MISMATCH, WARNING, poke=(40.0, _other_configuration), value=(1, 1), ends=False),
    case(F.CONFIG_DAMAGED, poke=(40.0, _flipped), value=(1, 1), watch_s=60, ends=False),
    case(F.RESET_CAUSE, WARNING, setup={"prepare": _guard(RESET_CAUSE, 3)}, where=3, value=(3, 3), ends=False),
    case(F.STORE_DAMAGED, WARNING, setup={"prepare": _guard(STORE_VERDICT, 2)}, value=(2, 2), ends=False),
    # the filters share what they know of the current: one that is lost is left out of it
    case(F.ESTIMATE_INVALID, poke=(40.0, _poisoned), where=9, value=(1, 1), watch_s=60, ends=False),
]


def _names(cases: list[dict[str, Any]]) -> list[str]:
    return [case["fault"].name.lower() for case in cases]


def test_every_fault_of_hardware_is_provoked() -> None:
    # a cell tells its own temperature after many minutes of regulation: `heated_at_work` of the library
    assert {case["fault"] for case in CASES} == {fault for fault in Fault if fault >= 34} - {Fault.CELL_HOT}


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


def test_a_healthy_rack_in_transport_shows_nothing(trial: Any) -> None:
    """At 0 V the model of the cells has ended: what compares with it looks away."""
    t = trial(kind="na_185", rack={"initial_soc": -0.03, "soc_spread": 0.0}, prepare=_transported, **TRANSPORT)
    last = t.run(300.0, Request.TRANSPORT)
    assert last.state == RackState.TRANSPORT
    assert not any(m.shown(WARNING) | m.shown(Severity.FATAL) for m in t.log)


def test_a_short_circuit_is_called_by_its_name(trial: Any) -> None:
    t = trial(faults=[{"kind": "pcs_ignores_limits", "value": 900.0, "at_s": 39.0}])
    t.run(60.0)
    cause = t.first(lambda m: m.cause != 0).cause
    assert cause == row_id(F.SHORT_CIRCUIT, FATAL)


def test_a_precharge_that_takes_too_long_is_told(trial: Any) -> None:
    t = trial(faults=[{"kind": "link_load", "value": 400.0}])
    t.run(60.0)
    assert any(m.cause == row_id(F.PRECHARGE_TIMEOUT, FATAL) for m in t.log)


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
