"""Numbers of a command in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bms.core.faults import Fault, row_id
from bms.runtime import explain
from hal.contract import NO_INDEX, Command, Constraint, Measurement, Severity


def test_masks_join_the_words_of_one_command_and_of_many() -> None:
    one = np.array([1 << Fault.CELL_OVERVOLTAGE, 1 << Fault.CONTACTOR_WELDED - 32, 0], np.uint32)
    other = np.array([0, 0, 1 << Fault.CELL_LEAK - 64], np.uint32)
    assert explain.faults_in(explain.mask_of(one)) == [Fault.CELL_OVERVOLTAGE, Fault.CONTACTOR_WELDED]
    both = explain.mask_of(np.stack([one, other]))
    assert explain.fault_text(both) == "cell overvoltage, contactor welded, cell leak"
    assert explain.fault_text(0) == ""


@pytest.mark.parametrize(
    ("fault", "index", "value", "text"),
    [
        (Fault.CELL_OVERVOLTAGE, 17, 3.7123, "cell overvoltage at cell 17: 3.7123 V"),
        (Fault.CHARGE_HOT, 3, 57.0, "charge hot at sensor 3: 57 degC"),
        (Fault.CONTACTOR_WELDED, 1, 1.0, "contactor welded at main positive: 1"),
        (Fault.INSULATION_NEGATIVE, 2, 9e4, "insulation negative at rail negative: 90000 ohm"),
        (Fault.INTERLOCK_OPEN, NO_INDEX, 1.0, "interlock open: 1"),
        (Fault.CELL_VOLTAGE_LOST, NO_INDEX, 4.0, "cell voltage lost: 4 s"),
    ],
)
def test_a_cause_names_fault_place_and_value(fault: Fault, index: int, value: float, text: str) -> None:
    controller = made(52)
    head = controller.command.head
    head["cause"], head["cause_index"], head["cause_value"] = row_id(fault, Severity.FATAL), index, value
    assert explain.cause_text(controller) == text


def test_without_a_cause_there_is_no_text() -> None:
    assert explain.cause_text(made(52)) == ""


def made(n_cells: int) -> Any:
    """What a controller of modules of 52 cells holds, with a sensor for four cells."""
    config = SimpleNamespace(
        balancing_size=np.array([16, 52, 1, 0], np.uint32), sensor_of_cell=np.arange(n_cells, dtype=np.uint16) // 4
    )
    return SimpleNamespace(command=Command(n_cells, 13), measurement=Measurement(n_cells, 13), config=config)


@pytest.mark.parametrize(
    ("fault", "index", "text"),
    [
        (Fault.CELL_SAG, 51, ", module 1 of 8"),
        (Fault.CELL_SAG, 52, ", module 2 of 8"),
        (Fault.CELL_SAG, 415, ", module 8 of 8"),
        (Fault.HEAT_RESIDUAL, 12, ", module 1 of 8"),
        (Fault.HEAT_RESIDUAL, 13, ", module 2 of 8"),
        (Fault.HEAT_RESIDUAL, 4000, ""),
        (Fault.CELL_SAG, NO_INDEX, ""),
        (Fault.GAS_ALARM, NO_INDEX, ""),
        (Fault.CONTACTOR_WELDED, 1, ""),
    ],
)
def test_a_cause_names_the_module(fault: Fault, index: int, text: str) -> None:
    assert explain.module_text(made(416), fault, index) == text


@pytest.mark.parametrize(
    ("reason", "index", "text"),
    [
        (Constraint.RATING, NO_INDEX, "rating: 3.3 A, 0.25 to go"),
        (Constraint.CELL_VOLTAGE, 5, "cell voltage at the end of the horizon of cell 5: 3.3 V, 0.25 to go"),
        (Constraint.TEMPERATURE, 2, "temperature of sensor 2: 3.3 degC, 0.25 to go"),
        (Constraint.STATE, NO_INDEX, "not connected"),
        (Constraint.FAULT, row_id(Fault.CELL_LEAK, Severity.WARNING), "reaction to a fault: cell leak"),
        (Constraint.FAULT, NO_INDEX, "reaction to a fault"),
    ],
)
def test_a_reason_names_constraint_place_and_margin(reason: Constraint, index: int, text: str) -> None:
    command = Command(8, 2)
    command.reason[9], command.reason_index[9] = reason, index
    command.reason_value[9], command.reason_margin[9] = 3.3, 0.25
    assert explain.reason_text(command, 9) == text


def test_every_constraint_and_limit_has_words() -> None:
    command = Command(1, 1)
    for constraint in Constraint:
        command.reason[0] = constraint
        assert explain.reason_text(command, 0)
    assert explain.limit_names()[4:6] == ["charge 2 s", "charge 10 s"]
    assert len(explain.limit_names()) == len(command.reason)
