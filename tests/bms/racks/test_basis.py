"""How rows are put together."""

from bms.core.faults import Fault, Reaction, Row
from bms.racks.basis import Table, rounded
from hal.contract import Severity


def test_only_the_fatal_tier_gets_the_fault_tolerant_time() -> None:
    table = Table()
    table.add(
        Fault.CELL_LEAK,
        warning=(150.00000001, 100.0, 60.0, 30.0, Reaction.DERATE),
        fatal=(500.0, 300.0, 5.0, 30.0, Reaction.OPEN),
        ftti_s=60.0,
    )
    assert table.rows == [
        Row(Fault.CELL_LEAK, Severity.WARNING, 150.0, 100.0, 60.0, 30.0, Reaction.DERATE, None),
        Row(Fault.CELL_LEAK, Severity.FATAL, 500.0, 300.0, 5.0, 30.0, Reaction.OPEN, 60.0),
    ]


def test_numbers_have_six_digits() -> None:
    assert [rounded(x) for x in (1535.04000001, 0.0123456789, -20.5)] == [1535.04, 0.0123457, -20.5]
