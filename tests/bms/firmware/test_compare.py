"""Two decisions side by side: equal ones pass, a difference is told by field, place and bits."""

from __future__ import annotations

import numpy as np
import pytest

from bms.core.layout import State
from bms.firmware.compare import FIELDS_SHOWN, Decision, Difference, check
from hal.contract import Command

SIZE = 20, 3


def decision() -> Decision:
    return Decision(0, Command(*SIZE).bytes, State(*SIZE).bytes)


def test_what_is_the_same_passes_even_where_it_is_no_number() -> None:
    pair = decision(), decision()
    for one in pair:
        one.state.view(np.float32)[100] = np.nan
    check(1, 0.0, SIZE, *pair)


def test_fields_and_bits_are_told() -> None:
    theirs, ours = decision(), decision()
    command, state = Command(*SIZE), State(*SIZE)
    command.head["limit_charge_a"], command.balance[7] = 1.5, 1
    state.out[33] = np.nan
    theirs = Decision(0x102, command.bytes, state.bytes)
    with pytest.raises(Difference) as raised:
        check(12, 1.1, SIZE, theirs, ours)
    text = str(raised.value)
    assert text.startswith("step 12 (t = 1.1 s): the board and this computer differ: status 0x102 != 0x0; ")
    assert "command.limit_charge_a 1.5 (0x3fc00000) != 0.0 (0x00000000)" in text
    assert "command.balance[7] 1 != 0" in text
    assert "state.out[33] nan (0x7fc00000) != 0.0 (0x00000000)" in text


def test_the_sign_of_zero_counts_and_that_of_nan_does_not() -> None:
    states = State(*SIZE), State(*SIZE)
    for state, value in zip(states, (np.nan, -np.nan), strict=True):
        state.out[3] = value
    theirs, ours = (Decision(0, Command(*SIZE).bytes, state.bytes) for state in states)
    assert theirs.state.tobytes() != ours.state.tobytes()
    check(1, 0.0, SIZE, theirs, ours)
    for state, value in zip(states, (0.0, -0.0), strict=True):
        state.out[4] = value
    with pytest.raises(Difference, match=r"state.out\[4\] 0.0 \(0x00000000\) != -0.0 \(0x80000000\)$"):
        check(1, 0.0, SIZE, theirs, ours)
    for state, value in zip(states, (1.0, np.nan), strict=True):
        state.out[4] = value
    with pytest.raises(Difference, match=r"state.out\[4\] 1.0 .* != nan"):
        check(1, 0.0, SIZE, theirs, ours)


def test_many_differences_are_counted() -> None:
    theirs, ours = decision(), decision()
    theirs.command[:] = 1
    with pytest.raises(Difference) as raised:
        check(1, 0.0, SIZE, theirs, ours)
    assert str(raised.value).count(";") == FIELDS_SHOWN
    assert str(raised.value).endswith(f"and {len(Command.layout.fields) - FIELDS_SHOWN} more")
