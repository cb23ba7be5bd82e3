"""Names and numbers of the faults: each has a bit and a description, and a row's number can be read back."""

from __future__ import annotations

import pytest

from bms.core.faults import ABOUT, N_FAULTS, Fault, Place, Reaction, Row, row_id, row_of, text_of
from hal.contract import N_FAULT_WORDS, Severity

SHOWN = (Severity.INFO, Severity.WARNING, Severity.FATAL)


def test_every_fault_has_a_bit_of_its_own_and_a_description() -> None:
    assert set(ABOUT) == set(Fault)
    assert len({int(fault) for fault in Fault}) == len(Fault)
    assert all(0 < fault < N_FAULTS for fault in Fault), "0 is no fault"
    assert N_FAULTS <= 32 * N_FAULT_WORDS
    for fault, about in ABOUT.items():
        assert about.text, fault
        assert about.unit, fault
        assert about.gate, f"{fault.name} would never be looked at"


def test_what_cells_do_has_a_cell() -> None:
    of_cells = [fault for fault in Fault if fault.name.startswith("CELL_")]
    assert len(of_cells) > 3
    assert all(ABOUT[fault].place == Place.CELL for fault in of_cells)


@pytest.mark.parametrize("severity", SHOWN)
def test_the_number_of_a_row_is_read_back(severity: Severity) -> None:
    for fault in Fault:
        row = Row(fault, severity, 1.0, 0.5, 1.0, 2.0, Reaction.NONE)
        assert row.id == row_id(fault, severity) == int(f"{int(fault)}{int(severity)}")
        assert row_of(row.id) == (fault, severity)


@pytest.mark.parametrize("number", [-1, 1, 14, 19, 10 * (N_FAULTS + 1) + 3])
def test_a_number_that_no_row_has_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        row_of(number)


def test_names_are_read_as_words() -> None:
    assert text_of(Fault.CELL_OVERVOLTAGE) == "cell overvoltage"
    assert len({text_of(fault) for fault in Fault}) == len(Fault)


def test_reactions_are_bits_of_their_own() -> None:
    bits = [int(reaction) for reaction in Reaction]
    assert all(bit & (bit - 1) == 0 for bit in bits)
    assert len(set(bits)) == len(bits)
