"""Tables of the fault table: from columns to rows and back."""

from bms.core.faults import Fault, Reaction, Row
from bms.racks import faults
from hal.contract import Severity

ROW = Row(
    Fault.CELL_OVERVOLTAGE, Severity.FATAL, 3.7, 3.65, 1.0, 10.0,
    Reaction.OPEN | Reaction.NO_CLOSE | Reaction.LATCH, 4.0,
)  # fmt: skip


def test_columns_say_all_that_a_row_is() -> None:
    assert faults.key_of(ROW) == "cell_overvoltage.fatal"
    assert faults.columns_of(ROW) == {
        "threshold": 3.7, "clear": 3.65, "set_s": 1.0, "clear_s": 10.0, "reaction": ["no_close", "open"],
        "latch": True, "service": False, "ftti_s": 4.0,
    }  # fmt: skip
    assert faults.apply([], {"cell_overvoltage": {"fatal": faults.columns_of(ROW)}}, "s") == [ROW]


def test_every_reaction_has_a_name_and_flags_have_keys_of_their_own() -> None:
    named = Reaction.NONE
    for flag in faults.REACTIONS.values():
        named |= flag
    assert named | Reaction.LATCH | Reaction.SERVICE == Reaction(sum(Reaction))
    assert not named & (Reaction.LATCH | Reaction.SERVICE)


def test_differences_are_the_columns_that_differ() -> None:
    usual = [ROW, Row(Fault.GAS_ALARM, Severity.FATAL, 0.5, 0.5, 2.0, 60.0, Reaction.OPEN, 5.0)]
    ours = [Row(Fault.CELL_OVERVOLTAGE, Severity.FATAL, 3.72, 3.65, 1.0, 10.0, ROW.reaction, 4.0)]
    told = faults.differences(ours, usual)
    assert told == {
        "cell_overvoltage": {"fatal": {"threshold": 3.72}},
        "gas_alarm": {"fatal": {"enabled": False}},
    }
    assert faults.apply(usual, told, "s") == ours
    assert faults.differences(usual, usual) == {}
