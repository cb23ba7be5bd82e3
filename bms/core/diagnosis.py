"""The fault table: debounces what the other parts have seen, and says what must be done about it.

A fault has up to three rows, one for each severity, all looking at the same value. A row is set when the value has been
beyond its threshold for `set_s`, and cleared when it has been at or inside the clear threshold for `clear_s`; both are
times, whatever the length of a step. A step counts with its whole length, so that a step longer than `set_s` sets the
row at once.

The time towards set fades while the value is not beyond, half as fast as it grows: what comes and goes is told if it is
there for more than a third of the time. The time towards clear starts anew instead: nothing is cleared while it comes
and goes.

A value that is not a number holds the rows as they are, because what is missing has a fault of its own. A fault that
does not apply now (`gate` without a bit of the context) counts as being inside. A row that latches stays until it is
reset, which is refused while its cause is there, or is not known to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bms.core.faults import (
    ABOUT,
    CLEAR,
    CLEAR_S,
    COLUMNS,
    N_FAULTS,
    N_TIERS,
    SET_S,
    THRESHOLD,
    Fault,
    Reaction,
    Row,
)
from bms.core.jit import f4, kernel
from hal.contract import F4, N_FAULT_WORDS, NO_INDEX, U1, U2, U4, Field, Severity

N_ROWS = N_FAULTS * N_TIERS
"""Places for rows: row `N_TIERS * fault + severity - 1`."""

# bits of DiagnosisState.status
ACTIVE, LATCHED = 1, 2

# DiagnosisState.number
CAUSE_VALUE, N_NUMBERS = 0, 1

# DiagnosisState.word: `CAUSE` is a row id as `faults.row_id`, 0 = none; `REFUSED` rows that the last reset left
CAUSE, CAUSE_INDEX, REFUSED, N_WORDS = 0, 1, 2, 3

_FATAL = int(Severity.FATAL)
_LATCH = int(Reaction.LATCH)
_SERVICE = int(Reaction.SERVICE)
_ROUNDING = f4(1e-3)
_FADES = f4(0.5)  # the time towards set, for each second in which the value is not beyond
_DT_MAX_S = f4(1e6)

CONFIG_FIELDS = (
    Field("fault_table", "f4", "threshold, clear, set_s, clear_s of each row; threshold NaN: no row", f"{N_ROWS * 4}"),
    Field("fault_reaction", "u4", "`Reaction` of each row", f"{N_ROWS}"),
    Field("fault_gate", "u2", "`Context` in which each fault applies", f"{N_FAULTS}"),
    Field("fault_above", "u1", "1 = large values are wrong, 0 = small ones", f"{N_FAULTS}"),
)

STATE_FIELDS = (
    Field("fault_value", "f4", "what each fault sees, NaN = not known", f"{N_FAULTS}"),
    Field("fault_timer", "f4", "time that each row has been on the way to set or clear, s", f"{N_ROWS}"),
    Field("fault_number", "f4", "value of the fatal fault that came first", f"{N_NUMBERS}"),
    Field("fault_word", "u4", "its row, where it was seen; rows that the last reset left", f"{N_WORDS}"),
    Field("fault_where", "u2", "where each fault is seen", f"{N_FAULTS}"),
    Field("fault_status", "u1", "1 = active, 2 = latched, for each row", f"{N_ROWS}"),
)


class DiagnosisConfig(NamedTuple):
    """The table: see `CONFIG_FIELDS`. A row that does not exist has a threshold that is not a number."""

    table: F4
    reaction: U4
    gate: U2
    above: U1


class DiagnosisState(NamedTuple):
    """Memory of the table: see `STATE_FIELDS`. `value` and `where` are written by whoever sees the faults."""

    value: F4
    timer: F4
    number: F4
    word: U4
    where: U2
    status: U1


def diagnosis_config(rows: Iterable[Row]) -> DiagnosisConfig:
    """The table of `rows`. Raises `ValueError` for a row given twice, without severity, or whose numbers are none."""
    table = np.full((N_ROWS, COLUMNS), np.nan, np.float32)
    reaction = np.zeros(N_ROWS, np.uint32)
    for row in rows:
        if row.severity == Severity.NONE:
            raise ValueError(f"{row.fault.name}: a row needs a severity")
        at = N_TIERS * row.fault + row.severity - 1
        if not np.isnan(table[at, THRESHOLD]):
            raise ValueError(f"{row.fault.name} {row.severity.name}: there are two rows")
        numbers = (row.threshold, row.clear, row.set_s, row.clear_s)
        if np.isnan(numbers).any() or row.set_s < 0 or row.clear_s < 0:
            raise ValueError(f"{row.fault.name} {row.severity.name} = {numbers}: numbers, and times >= 0, are needed")
        table[at] = numbers
        reaction[at] = int(row.reaction)
    gate = np.zeros(N_FAULTS, np.uint16)
    above = np.ones(N_FAULTS, np.uint8)
    for fault in Fault:
        gate[fault] = int(ABOUT[fault].gate)
        above[fault] = ABOUT[fault].above
    return DiagnosisConfig(table.ravel(), reaction, gate, above)


def diagnosis_state() -> DiagnosisState:
    """Fresh memory: nothing seen, nothing wrong."""
    state = DiagnosisState(
        np.zeros(N_FAULTS, np.float32),
        np.zeros(N_ROWS, np.float32),
        np.zeros(N_NUMBERS, np.float32),
        np.zeros(N_WORDS, np.uint32),
        np.zeros(N_FAULTS, np.uint16),
        np.zeros(N_ROWS, np.uint8),
    )
    diagnosis_init(state)
    return state


@kernel
def diagnosis_init(state: DiagnosisState) -> None:
    """Fresh memory: nothing seen, nothing wrong. All of `state` is written."""
    state.value[:] = f4(np.nan)
    state.timer[:] = f4(0)
    state.number[:] = f4(0)
    state.word[:] = np.uint32(0)
    state.word[CAUSE_INDEX] = np.uint32(NO_INDEX)
    state.where[:] = np.uint16(NO_INDEX)
    state.status[:] = np.uint8(0)


@kernel
def _side(config: DiagnosisConfig, value: f4, row: int, fault: int, applies: bool) -> int:
    """Where a value is: 1 beyond the threshold, -1 at or inside the clear threshold, 0 between, 2 not known."""
    if not applies:
        return -1
    threshold = config.table[COLUMNS * row + THRESHOLD]
    clear = config.table[COLUMNS * row + CLEAR]
    if np.isnan(value):
        return 2
    if config.above[fault] == 0:
        value, threshold, clear = -value, -threshold, -clear
    if value > threshold:
        return 1
    return -1 if value <= clear else 0


@kernel
def _debounce(config: DiagnosisConfig, state: DiagnosisState, row: int, side: int, dt_s: f4) -> bool:
    """Let the time of a row run; True if it becomes active now.

    A thousandth of a step is given away, so that rounding does not ask for one sample more.
    """
    if side == 2:
        return False
    active = state.status[row] & ACTIVE != 0
    if side != (-1 if active else 1):
        state.timer[row] = f4(0) if active else max(state.timer[row] - _FADES * dt_s, f4(0))
        return False
    time_s = state.timer[row] + dt_s
    column = CLEAR_S if active else SET_S
    if time_s + _ROUNDING * dt_s < config.table[COLUMNS * row + column]:
        state.timer[row] = time_s
        return False
    state.timer[row] = f4(0)
    if active:
        state.status[row] &= np.uint8(LATCHED)
    else:
        state.status[row] |= np.uint8(ACTIVE)
        if config.reaction[row] & _LATCH != 0:
            state.status[row] |= np.uint8(LATCHED)
    return not active


@kernel
def _is_shown(state: DiagnosisState, row_id: int) -> bool:
    """True if that fatal row is active or latched."""
    fault = row_id // 10
    return bool(fault < N_FAULTS and state.status[N_TIERS * fault + _FATAL - 1] != 0)


@kernel
def _next_cause(state: DiagnosisState) -> None:
    """The cause has been reset, but others have not: the first of them takes its place."""
    for k in range(N_FAULTS):
        fault = N_FAULTS - 1 - k
        if state.status[N_TIERS * fault + _FATAL - 1] != 0:
            state.word[CAUSE] = np.uint32(10 * fault + _FATAL)
            state.word[CAUSE_INDEX] = state.where[fault]
            state.number[CAUSE_VALUE] = state.value[fault]


@kernel
def diagnose(
    config: DiagnosisConfig, state: DiagnosisState, context: int, request_reset: bool, service: bool, dt_s: f4
) -> int:
    """Run the table over `state.value`; returns the bits of `Reaction` of all rows that are active or latched.

    `context` has bits of `Context`. `request_reset`: a person wants latched rows to go; `service`: also those that need
    a person at the rack. `word[REFUSED]` then counts the latched rows that stayed.

    Of several fatal rows that become active in one step, the last is the cause: faults are numbered from what they do
    to what explains it (a broken sense wire explains an over-voltage).
    """
    if not dt_s > f4(0):  # also NaN: no time has passed
        dt_s = f4(0)
    dt_s = min(dt_s, _DT_MAX_S)
    open_ = state.word[CAUSE] == 0
    demanded = 0
    refused = 0
    fatal = False
    for fault in range(N_FAULTS):
        value = state.value[fault]
        applies = int(config.gate[fault]) & context != 0
        for tier in range(N_TIERS):
            row = N_TIERS * fault + tier
            if np.isnan(config.table[COLUMNS * row + THRESHOLD]):
                continue
            side = _side(config, value, row, fault, applies)
            if _debounce(config, state, row, side, dt_s) and tier == _FATAL - 1 and open_:
                state.word[CAUSE] = np.uint32(10 * fault + _FATAL)
                state.word[CAUSE_INDEX] = state.where[fault]
                state.number[CAUSE_VALUE] = value
            reaction = int(config.reaction[row])
            if request_reset and state.status[row] & LATCHED != 0:
                if state.status[row] & ACTIVE != 0 or side != -1 or (reaction & _SERVICE != 0 and not service):
                    refused += 1
                else:
                    state.status[row] = np.uint8(0)
            if state.status[row] != 0:
                demanded |= reaction
                fatal = fatal or tier == _FATAL - 1
    if request_reset:
        state.word[REFUSED] = np.uint32(refused)
    if not fatal:
        state.word[CAUSE] = np.uint32(0)
        state.word[CAUSE_INDEX] = np.uint32(NO_INDEX)
        state.number[CAUSE_VALUE] = f4(0)
    elif not _is_shown(state, int(state.word[CAUSE])):
        _next_cause(state)
    return int(demanded)


@kernel
def worst(state: DiagnosisState) -> int:
    """The worst `Severity` that is active or latched."""
    severity = 0
    for row in range(N_ROWS):
        if state.status[row] != 0:
            severity = max(severity, row % N_TIERS + 1)
    return int(severity)


@kernel
def fault_bits(state: DiagnosisState, info: U4, warning: U4, fatal: U4) -> int:
    """Fill the words of each severity, u4[N_FAULT_WORDS], with the bits of what is active or latched.

    Returns how many rows that are.
    """
    for k in range(N_FAULT_WORDS):
        info[k] = np.uint32(0)
        warning[k] = np.uint32(0)
        fatal[k] = np.uint32(0)
    shown = 0
    for fault in range(N_FAULTS):
        word, bit = fault // 32, np.uint32(1 << (fault % 32))
        if state.status[N_TIERS * fault] != 0:
            info[word] |= bit
            shown += 1
        if state.status[N_TIERS * fault + 1] != 0:
            warning[word] |= bit
            shown += 1
        if state.status[N_TIERS * fault + 2] != 0:
            fatal[word] |= bit
            shown += 1
    return int(shown)
