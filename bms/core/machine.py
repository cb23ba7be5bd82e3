"""The state machine of the rack: which contactors are asked for, and what their faults look at.

`machine_signals` writes the values of the faults about contactors, precharge, weld test and transport, ahead of the
diagnosis; `machine_advance` makes one transition at most, by the table of `bms.core.machine_table`, and returns the
contactors to ask for. Both are called once a step, in this order.

Nothing here decides by name of a state: what a node asks for, waits for and leads to travels in the configuration.
A word that no table knows (damaged memory) leads to FAULT with open contactors.

Times longer than a few hours are counted in whole seconds beside a fraction: float32 alone would stand still.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bms.core.current_zero import apart, least_gap, less_zero, zero_followed
from bms.core.faults import Fault, Reaction
from bms.core.jit import f4, i4, kernel
from bms.core.machine_table import (
    BOTH_MAINS,
    CLEAR,
    N_NODES,
    NODE_COLUMNS,
    NODE_CONTACTORS,
    NODE_DRAIN,
    NODE_FIRST,
    NODE_HOLD,
    NODE_HOLD_NOT,
    NODE_LAST,
    NODE_LIMITS,
    NODE_STATE,
    NODE_TRANSPORT,
    ROW_COLUMNS,
    ROW_END,
    ROW_FORBID,
    ROW_NEED,
    SET,
    TABLE,
    Input,
    Limits,
    Node,
    Request,
)
from bms.core.precharge import doubted, left_alone, link_v, precharges, resistor_heat_j, resistor_stored_j
from bms.core.seen import Seen
from hal.contract import F4, NO_INDEX, U2, U4, Contactor, Field

# MachineConfig.setting
OPEN_A, PRECHARGE_RATIO, PRECHARGE_FLOOR_V, PRECHARGE_A, SUM_RATIO = range(5)
PRECHARGE_OHM, LINK_F, LINK_TAU_S, LINK_FINAL, ACTUATION_S = range(5, 10)
RESISTOR_J, RESISTOR_TAU_S, RESISTOR_RESTART, PACK_MAX_V = range(10, 14)
WELD_FALL, WELD_MATCH, WELD_LOW = range(14, 17)
RATED_A, LOAD_OPERATIONS, MECHANICAL_OPERATIONS = range(17, 20)
TRANSPORT_V, FILLED_V, WINDOW_V, BEHIND_V = range(20, 24)
ZERO_A, CLOSE_V = 24, 25
N_SETTINGS = 26

# MachineConfig.time, for each node
TIME_OUT_S, HOLD_TIME_S = 0, 1
TIME_COLUMNS = 2

# MachineConfig.flag
CONTACTOR_MASK, ATTEMPTS_MAX, TRANSPORT_ALLOWED, WELD_TESTED, N_CELLS = range(5)
N_FLAGS = 5

# MachineState.number
MODE_FRACTION_S, HOLD_S, RESISTOR_HEAT_J, BUS_V, LINK_FROM_V, WELD_FROM_V, LAST_A, PRECHARGE_S, OPERATED_S = range(9)
LEAST_GAP_V, READ_OPEN_A = 9, 10
N_NUMBERS = 11

# MachineState.word: OPERATIONS counts openings of MAIN_POSITIVE, MAIN_NEGATIVE, PRECHARGE; LEFT: see `left_alone`,
# DOUBTED: see `doubted`, APART: samples in a row, up to 2, in which the link was `apart`
NODE, MODE, ASKED, LIMITS, DRAIN, ATTEMPTS, TRANSPORTED, MODE_SECONDS, WELD, FROM, ROW, LEFT, DOUBTED, APART = range(14)
OPERATIONS = 14
N_CONTACTORS = 3
N_WORDS = OPERATIONS + N_CONTACTORS

# MachineState.word[WELD]
WELD_RUNNING, WELD_PASSED, WELD_HELD = range(3)

NO_ROW = len(TABLE)
"""`word[ROW]` as long as no transition was made."""

CONFIG_FIELDS: tuple[Field, ...] = (
    Field("machine_setting", "f4", "settings of the state machine", f"{N_SETTINGS}"),
    Field("machine_time", "f4", "time-out and hold time of each node, s", f"{N_NODES}*{TIME_COLUMNS}"),
    Field("machine_transition", "u4", "table of transitions: from, need, forbid, to", f"{len(TABLE)}*{ROW_COLUMNS}"),
    Field("machine_node", "u4", "what holds in each node", f"{N_NODES}*{NODE_COLUMNS}"),
    Field("machine_flag", "u4", "whole numbers of the state machine", f"{N_FLAGS}"),
)

STATE_FIELDS: tuple[Field, ...] = (
    Field("machine_number", "f4", "numbers of the state machine", f"{N_NUMBERS}"),
    Field("machine_wear", "f4", "wear of each contactor, 1 = end of life", f"{N_CONTACTORS}"),
    Field("machine_word", "u4", "words of the state machine", f"{N_WORDS}"),
)

# plain integers, because kernels know no enumerations
_MAIN_POSITIVE, _MAIN_NEGATIVE, _PRECHARGE = (
    int(c) for c in (Contactor.MAIN_POSITIVE, Contactor.MAIN_NEGATIVE, Contactor.PRECHARGE)
)
_MAINS = int(BOTH_MAINS)
_R_OPEN, _R_RESET, _R_STOP = int(Request.OPEN), int(Request.RESET), int(Request.EMERGENCY_STOP)
_I_OPEN, _I_CONNECT, _I_RESET, _I_STOP = (int(b) for b in (Input.OPEN, Input.CONNECT, Input.RESET, Input.STOP))
_MUST_OPEN, _MUST_RAMP, _NO_CLOSE, _FATAL = (
    int(b) for b in (Input.MUST_OPEN, Input.MUST_RAMP, Input.NO_CLOSE, Input.FATAL)
)
_COMPLETE, _FOLLOWED, _QUIET, _CHARGED = (int(b) for b in (Input.COMPLETE, Input.FOLLOWED, Input.QUIET, Input.CHARGED))
_SETTLED, _TIME_OUT, _ATTEMPTS_LEFT, _COOL = (
    int(b) for b in (Input.SETTLED, Input.TIME_OUT, Input.ATTEMPTS_LEFT, Input.COOL)
)
_ALLOWED, _TRANSPORTED, _EMPTY, _FILLED = (
    int(b) for b in (Input.ALLOWED, Input.TRANSPORTED, Input.EMPTY, Input.FILLED)
)
_N_INIT, _N_CONNECTED, _N_FAULT, _N_OPENING, _N_RAMP_DOWN = (
    int(n) for n in (Node.INIT, Node.CONNECTED, Node.FAULT, Node.OPENING, Node.RAMP_DOWN)
)
_N_WELD_TEST, _N_TRANSPORT, _N_TRANSPORT_CHARGE, _N_SELF_TEST = (
    int(n) for n in (Node.WELD_TEST, Node.TRANSPORT, Node.TRANSPORT_CHARGE, Node.SELF_TEST)
)
_LINK, _TRANSPORT_LINK = int(Node.PRECHARGE_LINK), int(Node.TRANSPORT_LINK)
_SET, _CLEAR = SET, CLEAR
_FULL = int(Limits.FULL)

_OPEN_REACTION, _RAMP_REACTION, _NO_CLOSE_REACTION = (
    int(r) for r in (Reaction.OPEN, Reaction.RAMP_OPEN, Reaction.NO_CLOSE)
)

_EMERGENCY_STOP, _WELDED, _STUCK_OPEN = (
    int(f) for f in (Fault.EMERGENCY_STOP, Fault.CONTACTOR_WELDED, Fault.CONTACTOR_STUCK_OPEN)
)
_SAMPLE_LOST, _DEADLINE = int(Fault.SAMPLE_LOST), int(Fault.DEADLINE_MISSED)
_WELD_CURRENT, _WELD_VOLTAGE, _STUCK_OPEN_VOLTAGE, _WORN = (
    int(f) for f in (Fault.WELD_CURRENT, Fault.WELD_VOLTAGE, Fault.STUCK_OPEN_VOLTAGE, Fault.CONTACTOR_WORN)
)
_PRECHARGE_TIMEOUT, _PRECHARGE_VOLTAGE, _PRECHARGE_CURRENT, _PRECHARGE_RESISTOR, _PRECHARGE_ATTEMPTS = range(
    int(Fault.PRECHARGE_TIMEOUT), int(Fault.PRECHARGE_ATTEMPTS) + 1
)
_REVERSED, _TRANSPORT_HIGH = int(Fault.TRANSPORT_REVERSED), int(Fault.TRANSPORT_VOLTAGE)
_SELF_TEST, _CURRENT_OFFSET = int(Fault.SELF_TEST), int(Fault.CURRENT_OFFSET)

_NO_PLACE = np.uint16(NO_INDEX)
_NAN = f4(np.nan)
_LONGEST_STEP_S = f4(1e5)
_LARGEST_A = f4(1e6)
_SMALL = 10  # below so many times the floor a voltage is no measure for shares


class MachineConfig(NamedTuple):
    """Constants of the state machine, made by `bms.core.machine_setup.machine_config`; see `CONFIG_FIELDS`."""

    setting: F4
    time: F4
    transition: U4
    node: U4
    flag: U4


class MachineState(NamedTuple):
    """Memory of the state machine, owned by the caller; see `STATE_FIELDS`.

    To be kept over a restart: `wear`, and of `word` OPERATIONS, TRANSPORTED and ATTEMPTS.
    """

    number: F4
    wear: F4
    word: U4


def machine_state() -> MachineState:
    """Zeros of the right size; `machine_init` makes a memory of them."""
    return MachineState(
        np.zeros(N_NUMBERS, np.float32), np.zeros(N_CONTACTORS, np.float32), np.zeros(N_WORDS, np.uint32)
    )


@kernel
def machine_init(config: MachineConfig, state: MachineState) -> None:
    """Fresh memory: INIT, contactors open, nothing worn, not in transport."""
    state.number[:] = f4(0)
    state.wear[:] = f4(0)
    state.word[:] = np.uint32(0)
    state.word[ROW] = NO_ROW
    state.word[MODE] = config.node[_N_INIT * NODE_COLUMNS + NODE_STATE]
    state.number[HOLD_S] = f4(-1)
    state.number[BUS_V] = _NAN
    state.number[LEAST_GAP_V] = _NAN
    state.number[READ_OPEN_A] = _NAN


@kernel
def node_of(state: MachineState) -> int:
    """The present node; FAULT if the word is none."""
    node = i4(state.word[NODE])
    return int(node) if 0 <= node < N_NODES else _N_FAULT


@kernel
def mode_s(state: MachineState) -> f4:
    """Time since the present node was entered, s."""
    return f4(f4(state.word[MODE_SECONDS]) + state.number[MODE_FRACTION_S])


@kernel
def _sane(dt_s: f4) -> f4:
    """The time step, in 0..1e5 s even if it is not a number."""
    if dt_s > f4(0):
        return min(dt_s, _LONGEST_STEP_S)
    return f4(0)


@kernel
def _tick(state: MachineState, dt_s: f4) -> None:
    fraction = state.number[MODE_FRACTION_S] + dt_s
    if not (f4(0) <= fraction < f4(1e6)):  # damaged memory
        fraction = f4(0)
    whole = i4(fraction)
    state.number[MODE_FRACTION_S] = fraction - f4(whole)
    if state.word[MODE_SECONDS] < np.uint32(2_000_000_000):  # 63 years, and no further
        state.word[MODE_SECONDS] += np.uint32(whole)


@kernel
def _followed(config: MachineConfig, state: MachineState, seen: Seen) -> bool:
    """True if the feedback is what was asked for in the last step."""
    mask = int(i4(config.flag[CONTACTOR_MASK]))
    closed = int(i4(seen.closed))
    return bool(mask == 0 or (closed >= 0 and closed & mask == int(i4(state.word[ASKED]))))


@kernel
def _flowing_a(config: MachineConfig, state: MachineState, seen: Seen) -> f4:
    """The current of a precharge, A: what is read less the sensor's zero, as far as it is known."""
    return f4(less_zero(f4(seen.current_a), state.number[READ_OPEN_A], config.setting[ZERO_A]))


@kernel
def _warm(config: MachineConfig, state: MachineState, seen: Seen, dt_s: f4) -> None:
    """Follow the heat of the precharge resistor. A string voltage that is not known counts as the highest."""
    c, number = config.setting, state.number
    asked = int(i4(state.word[ASKED]))
    heat_j = f4(0)
    bus_v = f4(seen.bus_v)
    if asked & _PRECHARGE != 0 and asked & _MAIN_POSITIVE == 0:
        pack_v = f4(seen.pack_v)
        if np.isnan(pack_v):
            pack_v = c[PACK_MAX_V]
        flowing_a = _flowing_a(config, state, seen)
        heat_j = resistor_heat_j(pack_v, bus_v, number[BUS_V], flowing_a, c[PRECHARGE_OHM], c[LINK_F], dt_s)
    number[BUS_V] = bus_v
    if dt_s > f4(0):
        number[RESISTOR_HEAT_J] = resistor_stored_j(number[RESISTOR_HEAT_J], heat_j, c[RESISTOR_TAU_S], dt_s)


@kernel
def _link_near_v(config: MachineConfig, pack_v: f4) -> f4:
    """How far a link may be from the string and still stand at its voltage, V."""
    return max(config.setting[PRECHARGE_RATIO] * pack_v, config.setting[PRECHARGE_FLOOR_V])


@kernel
def _weld_test(config: MachineConfig, state: MachineState, seen: Seen, node: int) -> None:
    """Judge the link after an opening: with open contactors it discharges through its own resistor.

    Welded mains hold it at the string's voltage. The evidence is a link that has fallen by less than a share of what
    its RC predicts for the duration of the test, and still stands at the string's voltage. It passes as soon as it has
    fallen so far; evidence is taken back when the link falls later on. A link that was low already, that is shared
    with other sources (`WELD_TESTED` = 0) or is not measured proves nothing.
    """
    c, word = config.setting, state.word
    bus_v, pack_v, from_v = f4(seen.bus_v), f4(seen.pack_v), state.number[WELD_FROM_V]
    fallen = bool(bus_v <= from_v * (f4(1) - c[WELD_FALL]))
    if node == _N_WELD_TEST:
        if fallen and from_v > c[WELD_LOW] * pack_v:
            word[DOUBTED] = 0  # a sensor that shows nothing else than full would not have followed
        if config.flag[WELD_TESTED] == 0 or not from_v > c[WELD_LOW] * pack_v or fallen:
            word[WELD] = WELD_PASSED
        elif mode_s(state) >= config.time[node * TIME_COLUMNS + TIME_OUT_S]:
            holds = abs(bus_v - pack_v) <= c[WELD_MATCH] * pack_v
            word[WELD] = WELD_HELD if holds else WELD_PASSED
    elif word[WELD] == WELD_HELD and fallen:
        word[WELD] = WELD_PASSED


@kernel
def _share_of(config: MachineConfig, pack_v: f4) -> f4:
    """What voltages are related to: the string's, but not so little that noise would become a large share."""
    return max(pack_v, f4(_SMALL) * config.setting[PRECHARGE_FLOOR_V])


@kernel
def _precharge_values(config: MachineConfig, state: MachineState, seen: Seen, node: int, value: F4) -> None:
    """Values of the faults about precharge: link against RC curve, current against Ohm's law, time, heat, attempts.

    The curve of the link begins when the contactor has had its time to close.
    """
    c = config.setting
    pack_v, bus_v = f4(seen.pack_v), f4(seen.bus_v)
    has_resistor = int(i4(config.flag[CONTACTOR_MASK])) & _PRECHARGE != 0
    value[_PRECHARGE_TIMEOUT] = state.number[PRECHARGE_S] if has_resistor else f4(0)
    value[_PRECHARGE_VOLTAGE] = f4(0)
    value[_PRECHARGE_CURRENT] = f4(0)
    if has_resistor and node in (_LINK, _TRANSPORT_LINK):
        flowing_s = max(mode_s(state) - c[ACTUATION_S], f4(0))
        expected_v = link_v(pack_v * c[LINK_FINAL], state.number[LINK_FROM_V], flowing_s, c[LINK_TAU_S])
        value[_PRECHARGE_VOLTAGE] = (expected_v - bus_v) / _share_of(config, pack_v)
        if np.isnan(pack_v):
            value[_PRECHARGE_CURRENT] = _NAN
        else:
            most_a = max(pack_v / c[PRECHARGE_OHM], c[PRECHARGE_A])
            value[_PRECHARGE_CURRENT] = abs(_flowing_a(config, state, seen)) / most_a
    value[_PRECHARGE_RESISTOR] = state.number[RESISTOR_HEAT_J] / c[RESISTOR_J] if has_resistor else f4(0)
    value[_PRECHARGE_ATTEMPTS] = f4(state.word[ATTEMPTS])


@kernel
def _open_values(config: MachineConfig, state: MachineState, seen: Seen, value: F4, where: U2, dt_s: f4) -> None:
    """A current through contactors that should be open is a weld's; or, where it is proven that they are, an offset."""
    word, number = state.word, state.number
    mask, asked, closed = int(i4(config.flag[CONTACTOR_MASK])), int(i4(word[ASKED])), int(i4(seen.closed))
    pack_v, current_a = f4(seen.pack_v), f4(seen.current_a)
    gap_v = abs(pack_v - f4(seen.bus_v))
    number[LEAST_GAP_V] = least_gap(number[LEAST_GAP_V], gap_v) if asked == 0 else _NAN
    shown_open = mask != 0 and asked == 0 and closed >= 0 and closed & mask == 0
    proven = shown_open and apart(gap_v, number[LEAST_GAP_V], _link_near_v(config, pack_v), pack_v)
    # one sample alone may hold voltages of two moments
    word[APART] = np.uint32(0) if not proven else np.uint32(1) if word[APART] == 0 else np.uint32(2)
    proven = word[APART] == 2
    if proven:
        number[READ_OPEN_A] = zero_followed(number[READ_OPEN_A], current_a, dt_s)
    elif asked & _MAINS == _MAINS:
        number[READ_OPEN_A] = _NAN
    value[_WELD_CURRENT] = f4(0) if proven or mask == 0 else abs(current_a)
    offset_a = abs(number[READ_OPEN_A])
    if offset_a > value[_CURRENT_OFFSET] or (np.isnan(value[_CURRENT_OFFSET]) and not np.isnan(offset_a)):
        value[_CURRENT_OFFSET], where[_CURRENT_OFFSET] = offset_a, _NO_PLACE


@kernel
def _place_of(bits: int) -> np.uint16:
    """The first of the contactors in `bits`, as its bit."""
    if bits == 0:
        return _NO_PLACE
    return np.uint16(bits & -bits)


@kernel
def machine_signals(
    config: MachineConfig, state: MachineState, seen: Seen, request: int, value: F4, where: U2, dt_s: f4
) -> None:
    """Count the time, follow resistor and weld test, and write the values of the machine's own faults.

    To be called once a step, behind the signals, ahead of diagnosis and `machine_advance`. A value that cannot be
    formed is NaN.
    An emergency stop that is requested adds to the measured one.
    """
    c, word = config.setting, state.word
    dt_s = _sane(dt_s)
    node = node_of(state)
    _tick(state, dt_s)
    state.number[OPERATED_S] = min(state.number[OPERATED_S] + dt_s, _LONGEST_STEP_S)
    state.number[PRECHARGE_S] = state.number[PRECHARGE_S] + dt_s if precharges(node) else f4(0)
    if request == _R_RESET:
        word[ATTEMPTS] = 0  # here, so that the diagnosis can let go of the fault in the same step
    all_open, was = word[ASKED] == 0, word[DOUBTED] != 0
    near_v = _link_near_v(config, f4(seen.pack_v))
    doubt = doubted(was, all_open, f4(seen.pack_v), f4(seen.bus_v), state.number[BUS_V], near_v)
    word[DOUBTED] = np.uint32(1) if doubt and config.flag[WELD_TESTED] != 0 else np.uint32(0)
    _warm(config, state, seen, dt_s)
    _weld_test(config, state, seen, node)

    current_a, pack_v, bus_v = f4(seen.current_a), f4(seen.pack_v), f4(seen.bus_v)
    if not np.isnan(current_a):
        state.number[LAST_A] = current_a
    mask, asked, closed = int(i4(config.flag[CONTACTOR_MASK])), int(i4(word[ASKED])), int(i4(seen.closed))
    if request == _R_STOP:
        value[_EMERGENCY_STOP] = f4(1)

    welded, stuck = closed & ~asked & mask, asked & ~closed & mask
    value[_WELDED], where[_WELDED] = f4(1) if welded != 0 else f4(0), _place_of(welded)
    value[_STUCK_OPEN], where[_STUCK_OPEN] = f4(1) if stuck != 0 else f4(0), _place_of(stuck)
    # a sample from before the contactors were operated says nothing of whether they followed
    before = value[_SAMPLE_LOST] > f4(0) and value[_SAMPLE_LOST] >= state.number[OPERATED_S]
    if mask != 0 and (closed < 0 or before):
        value[_WELDED], where[_WELDED] = _NAN, _NO_PLACE
        value[_STUCK_OPEN], where[_STUCK_OPEN] = _NAN, _NO_PLACE
        stuck = 0
    left = stuck != 0 and left_alone(value[_DEADLINE], state.number[OPERATED_S], c[ACTUATION_S])
    word[LEFT] = np.uint32(1) if left else np.uint32(0)
    if left:
        value[_STUCK_OPEN], where[_STUCK_OPEN] = _NAN, _NO_PLACE

    for fault in range(_WELD_CURRENT, _SELF_TEST + 1):
        where[fault] = _NO_PLACE  # these concern the rack
    _open_values(config, state, seen, value, where, dt_s)
    value[_WELD_VOLTAGE] = f4(1) if word[WELD] == WELD_HELD else f4(0)
    value[_STUCK_OPEN_VOLTAGE] = f4(0)
    if mask & _PRECHARGE != 0:  # without it there is no voltage of the link
        value[_STUCK_OPEN_VOLTAGE] = _NAN if left else abs(pack_v - bus_v) / _share_of(config, pack_v)
    value[_WORN] = max(state.wear[0], state.wear[1])
    value[_SELF_TEST] = mode_s(state) if node in (_N_INIT, _N_SELF_TEST) else f4(0)
    _precharge_values(config, state, seen, node, value)

    # a cell that stays low while the mean is inside the window again counts as if it were reversed
    low_v = f4(seen.cell_v_low)
    if node == _N_TRANSPORT_CHARGE and f4(seen.cell_v_mean) >= c[WINDOW_V]:
        low_v -= c[BEHIND_V]
    value[_REVERSED] = low_v
    where[_REVERSED] = np.uint16(seen.cell_low_at) if seen.cell_low_at >= 0 else _NO_PLACE
    value[_TRANSPORT_HIGH] = f4(seen.cell_v_high) if node == _N_TRANSPORT else f4(0)
    where[_TRANSPORT_HIGH] = _NO_PLACE
    if node == _N_TRANSPORT and seen.cell_high_at >= 0:
        where[_TRANSPORT_HIGH] = np.uint16(seen.cell_high_at)


@kernel
def _request_bit(request: int) -> int:
    """The input of a request, which has its number; what no request is counts as OPEN."""
    return 1 << request if _R_OPEN <= request <= _R_STOP else _I_OPEN


@kernel
def link_charged(config: MachineConfig, seen: Seen, flowing_a: f4) -> bool:
    """True if the link stands at the string's voltage and the precharge current `flowing_a` has decayed.

    The string voltage must agree with the cells, or a sensor that reads 0 V would call an empty link charged.
    """
    c = config.setting
    if int(i4(config.flag[CONTACTOR_MASK])) & _PRECHARGE == 0:
        return True
    pack_v = f4(seen.pack_v)
    sum_v = f4(seen.cell_v_mean) * f4(config.flag[N_CELLS])
    return bool(
        abs(pack_v - f4(seen.bus_v)) <= max(c[PRECHARGE_RATIO] * pack_v, c[CLOSE_V])
        and abs(pack_v - sum_v) <= c[SUM_RATIO] * abs(sum_v) + c[PRECHARGE_FLOOR_V]
        and abs(flowing_a) <= c[PRECHARGE_A]
    )


@kernel
def machine_inputs(
    config: MachineConfig, state: MachineState, seen: Seen, reaction: int, fatal: bool, request: int
) -> int:
    """Word of `machine_table.Input` for this step, without SETTLED and TIME_OUT, which belong to a node."""
    c, word, flag = config.setting, state.word, config.flag
    bits: int = _request_bit(request)
    if seen.emergency_stop != 0:
        bits |= _I_STOP
    if reaction & _OPEN_REACTION != 0 or word[LEFT] != 0:
        bits |= _MUST_OPEN
    if reaction & _RAMP_REACTION != 0:
        bits |= _MUST_RAMP
    if reaction & _NO_CLOSE_REACTION != 0:
        bits |= _NO_CLOSE
    if fatal:
        bits |= _FATAL
    if seen.complete:
        bits |= _COMPLETE
        if f4(seen.cell_v_high) <= c[TRANSPORT_V]:
            bits |= _EMPTY
        if f4(seen.cell_v_low) >= c[FILLED_V]:
            bits |= _FILLED
    if _followed(config, state, seen):
        bits |= _FOLLOWED
    if abs(f4(seen.current_a)) <= c[OPEN_A]:
        bits |= _QUIET
    if link_charged(config, seen, _flowing_a(config, state, seen)) and word[DOUBTED] == 0:
        bits |= _CHARGED
    if word[ATTEMPTS] < flag[ATTEMPTS_MAX]:
        bits |= _ATTEMPTS_LEFT
    if state.number[RESISTOR_HEAT_J] <= c[RESISTOR_RESTART] * c[RESISTOR_J]:
        bits |= _COOL
    if flag[TRANSPORT_ALLOWED] != 0:
        bits |= _ALLOWED
    if word[TRANSPORTED] != 0:
        bits |= _TRANSPORTED
    return bits


@kernel
def _waiting(config: MachineConfig, state: MachineState, node: int, bits: int, dt_s: f4) -> int:
    """`bits` with SETTLED and TIME_OUT. What is about to settle is not cut off by a time-out: steps may be long."""
    number = state.number
    hold = int(i4(config.node[node * NODE_COLUMNS + NODE_HOLD]))
    hold_not = int(i4(config.node[node * NODE_COLUMNS + NODE_HOLD_NOT]))
    if hold != 0 and bits & hold == hold and bits & hold_not == 0:
        number[HOLD_S] = number[HOLD_S] + dt_s if number[HOLD_S] >= f4(0) else f4(0)
        if number[HOLD_S] >= config.time[node * TIME_COLUMNS + HOLD_TIME_S]:
            bits |= _SETTLED
    else:
        number[HOLD_S] = f4(-1)
        if mode_s(state) >= config.time[node * TIME_COLUMNS + TIME_OUT_S]:
            bits |= _TIME_OUT
    if node == _N_WELD_TEST and state.word[WELD] != WELD_RUNNING:
        bits |= _TIME_OUT
    return bits


@kernel
def _enter(config: MachineConfig, state: MachineState, seen: Seen, node: int, bits: int) -> None:
    """Take over a new node, and what entering it means for attempts, link and transport."""
    word, number = state.word, state.number
    left = node_of(state)
    if (precharges(left) or left == _N_TRANSPORT_CHARGE) and node in (_N_OPENING, _N_RAMP_DOWN):
        if bits & (_I_CONNECT | _I_RESET) != 0:  # it failed: nobody wanted it to end
            word[ATTEMPTS] += np.uint32(1)
    elif node == _N_CONNECTED:
        word[ATTEMPTS] = 0
    if node in (_LINK, _TRANSPORT_LINK):
        number[LINK_FROM_V] = f4(seen.bus_v)
    elif node == _N_WELD_TEST:
        number[WELD_FROM_V] = f4(seen.bus_v)
        word[WELD] = WELD_RUNNING
    transport = config.node[node * NODE_COLUMNS + NODE_TRANSPORT]
    if transport == _SET:
        word[TRANSPORTED] = 1
    elif transport == _CLEAR:
        word[TRANSPORTED] = 0
    word[FROM] = left
    word[NODE] = node
    word[MODE_SECONDS] = 0
    number[MODE_FRACTION_S] = f4(0)
    number[HOLD_S] = f4(-1)


@kernel
def _wear(config: MachineConfig, state: MachineState, asked: int) -> None:
    """Count the contactors that open now: each operation costs a share of the mechanical life, and one under load a
    share of the electrical, which falls with the square of the current that is interrupted.
    """
    c = config.setting
    before = int(i4(state.word[ASKED]))
    opens = before & ~asked
    load = min(abs(state.number[LAST_A]), _LARGEST_A) / c[RATED_A]
    for k in range(N_CONTACTORS):
        if opens >> k & 1 != 0:
            # beside a closed main the precharge contactor carries nothing
            bypassed = 1 << k == _PRECHARGE and before & _MAIN_POSITIVE != 0
            worn = f4(0) if bypassed else load * load / c[LOAD_OPERATIONS]
            state.word[OPERATIONS + k] += np.uint32(1)
            state.wear[k] += f4(1) / c[MECHANICAL_OPERATIONS] + worn


@kernel
def machine_advance(
    config: MachineConfig,
    state: MachineState,
    seen: Seen,
    reaction: int,
    fatal: bool,
    request: int,
    dt_s: f4,
) -> int:
    """Make one transition at most; returns the contactors to ask for.

    `reaction` are bits of `faults.Reaction`, `fatal` whether a fatal fault is active or latched, `request` a
    `machine_table.Request`. Writes NODE, MODE, ASKED, LIMITS (`machine_table.Limits`) and DRAIN of `state.word`.
    """
    word = state.word
    if i4(word[NODE]) != node_of(state):
        _enter(config, state, seen, _N_FAULT, 0)
    node = node_of(state)
    bits = machine_inputs(config, state, seen, reaction, fatal, request)
    bits = _waiting(config, state, node, bits, _sane(dt_s))
    first = int(i4(config.node[node * NODE_COLUMNS + NODE_FIRST]))
    last = int(i4(config.node[node * NODE_COLUMNS + NODE_LAST]))
    for row in range(first, last):
        at = row * ROW_COLUMNS
        need = int(i4(config.transition[at + ROW_NEED]))
        forbid = int(i4(config.transition[at + ROW_FORBID]))
        if bits & need == need and bits & forbid == 0:
            _enter(config, state, seen, int(i4(config.transition[at + ROW_END])), bits)
            word[ROW] = row
            break
    node = node_of(state)
    at = node * NODE_COLUMNS
    asked: int = int(i4(config.node[at + NODE_CONTACTORS])) & int(i4(config.flag[CONTACTOR_MASK]))
    _wear(config, state, asked)
    if np.uint32(asked) != word[ASKED]:
        state.number[OPERATED_S] = f4(0)
    word[ASKED] = asked
    word[MODE] = config.node[at + NODE_STATE]
    word[LIMITS] = config.node[at + NODE_LIMITS]
    word[DRAIN] = config.node[at + NODE_DRAIN]
    return asked
