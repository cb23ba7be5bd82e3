"""The state machine as a table: one row for each transition, one for each node, and what is drawn and proven from them.

A *node* is a state of the rack (`hal.contract.RackState`) or a stage of one: closing passes four nodes, opening two.
Each step looks at one word of inputs (`Input`); of the rows of the present node, the first whose `need` bits are all
set and whose `forbid` bits are all clear fires. At most one fires in a step; where none does, the node stays.

The kernel (`bms.core.machine`) walks the arrays that `arrays` makes of this table; the diagram and the tables in
docs/state_machine.md are `diagram` and `listing`; the exhaustive check enumerates it: all three are the same machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from hal.contract import U4, Contactor, RackState


class Request(IntEnum):
    """What the operator or the energy manager wants of the rack: it holds as long as it is given."""

    OPEN = 0
    CONNECT = 1
    RESET = 2  # forget what is latched and no longer present; contactors stay as they are
    MAINTENANCE = 3  # stay open, closed to every request but another one
    TRANSPORT = 4  # drain all cells to 0 V, where the chemistry bears it
    EMERGENCY_STOP = 5  # as the button on the rack


class Limits(IntEnum):
    """Which current limits a node allows."""

    ZERO = 0
    FULL = 1
    RAMP = 2  # from what they were to 0
    TRANSPORT_CHARGE = 3  # a small charge current alone


class Input(IntFlag):
    """One bit for each thing that a transition may depend on. The first five are requests, of which one at most is set;
    an emergency stop that is requested sets `STOP` and none of them.
    """

    OPEN = 1 << 0
    CONNECT = 1 << 1
    RESET = 1 << 2
    MAINTENANCE = 1 << 3
    TRANSPORT = 1 << 4
    STOP = 1 << 5  # an emergency stop is pressed or requested
    MUST_OPEN = 1 << 6  # a fault demands to open at once
    MUST_RAMP = 1 << 7  # a fault demands to ramp to 0 A and to open
    NO_CLOSE = 1 << 8  # a fault demands not to close
    FATAL = 1 << 9  # a fatal fault is active or latched
    COMPLETE = 1 << 10  # all that closing depends on is measured, fresh and plausible
    FOLLOWED = 1 << 11  # the feedback of the contactors is what was asked for
    QUIET = 1 << 12  # hardly any current flows
    CHARGED = 1 << 13  # the link is at the voltage of the string, and the precharge current has decayed
    SETTLED = 1 << 14  # what the node waits for (`NodeRow.hold`) has held for the node's hold time
    TIME_OUT = 1 << 15  # the node's time is over, or there is nothing left to wait for
    ATTEMPTS_LEFT = 1 << 16  # fewer attempts to precharge have failed in a row than are allowed
    COOL = 1 << 17  # the precharge resistor bears another attempt
    ALLOWED = 1 << 18  # the cells bear 0 V
    TRANSPORTED = 1 << 19  # the cells have left their voltage window for transport
    EMPTY = 1 << 20  # every cell is known to be at 0 V
    FILLED = 1 << 21  # every cell is known to be inside its voltage window


NOTHING = Input(0)


class Node(IntEnum):
    """Nodes of the machine. Those of transport come last; numbers are kept in the memory of the controller."""

    INIT = 0
    SELF_TEST = 1
    STANDBY = 2
    PRECHARGE_NEGATIVE = 3  # MAIN_NEGATIVE closes
    PRECHARGE_LINK = 4  # the link charges through the resistor
    PRECHARGE_POSITIVE = 5  # MAIN_POSITIVE closes beside the resistor
    PRECHARGE_RELEASE = 6  # PRECHARGE opens
    CONNECTED = 7
    RAMP_DOWN = 8
    OPENING = 9
    WELD_TEST = 10
    FAULT = 11
    LOCKOUT = 12
    MAINTENANCE = 13
    EMERGENCY_STOP = 14
    TRANSPORT_DRAIN = 15
    TRANSPORT = 16
    TRANSPORT_NEGATIVE = 17
    TRANSPORT_LINK = 18
    TRANSPORT_POSITIVE = 19
    TRANSPORT_RELEASE = 20
    TRANSPORT_CHARGE = 21


N_NODES = len(Node)

KEEP, SET, CLEAR = 0, 1, 2
"""What entering a node does to the memory of transport."""

_N, _P, _M = Contactor.MAIN_NEGATIVE, Contactor.PRECHARGE, Contactor.MAIN_POSITIVE
BOTH_MAINS = _M | _N


@dataclass(frozen=True)
class NodeRow:
    """What holds while the machine is in a node. `time_out` and `hold_time` name settings of `MachineSettings`.

    `hold` are the inputs that must hold (and `hold_not` those that must not) for `hold_time` until `SETTLED`.
    """

    node: Node
    state: RackState
    contactors: Contactor = Contactor.NONE
    limits: Limits = Limits.ZERO
    drain: bool = False
    transport: int = KEEP
    time_out: str = ""
    hold: Input = NOTHING
    hold_not: Input = NOTHING
    hold_time: str = ""


@dataclass(frozen=True)
class Transition:
    """One row: from `start` to `end` if all of `need` and none of `forbid` is there, and no row before it fired."""

    start: Node
    need: Input
    forbid: Input
    end: Node
    why: str


_S, _I, _T = RackState, Input, Node

NODES: tuple[NodeRow, ...] = (
    NodeRow(_T.INIT, _S.INIT, time_out="init_time_out_s"),
    NodeRow(
        _T.SELF_TEST,
        _S.SELF_TEST,
        time_out="self_test_time_out_s",
        hold=_I.COMPLETE | _I.FOLLOWED,
        hold_not=_I.NO_CLOSE,
        hold_time="self_test_s",
    ),
    NodeRow(_T.STANDBY, _S.STANDBY, transport=CLEAR),
    NodeRow(
        _T.PRECHARGE_NEGATIVE,
        _S.PRECHARGE,
        _N,
        time_out="contactor_time_out_s",
        hold=_I.FOLLOWED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(
        _T.PRECHARGE_LINK,
        _S.PRECHARGE,
        _N | _P,
        time_out="precharge_time_out_s",
        hold=_I.FOLLOWED | _I.CHARGED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(
        _T.PRECHARGE_POSITIVE,
        _S.PRECHARGE,
        _N | _P | _M,
        time_out="contactor_time_out_s",
        hold=_I.FOLLOWED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(
        _T.PRECHARGE_RELEASE,
        _S.PRECHARGE,
        _N | _M,
        time_out="contactor_time_out_s",
        hold=_I.FOLLOWED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(_T.CONNECTED, _S.CONNECTED, _N | _M, Limits.FULL, transport=CLEAR),
    NodeRow(_T.RAMP_DOWN, _S.RAMP_DOWN, _N | _M, Limits.RAMP, time_out="ramp_time_out_s"),
    NodeRow(_T.OPENING, _S.OPENING, time_out="opening_time_out_s"),
    NodeRow(_T.WELD_TEST, _S.OPENING, time_out="weld_test_s"),
    NodeRow(_T.FAULT, _S.FAULT),
    NodeRow(_T.LOCKOUT, _S.LOCKOUT, time_out="lockout_time_out_s", hold=_I.COOL, hold_time="lockout_s"),
    NodeRow(_T.MAINTENANCE, _S.MAINTENANCE),
    NodeRow(_T.EMERGENCY_STOP, _S.EMERGENCY_STOP),
    NodeRow(
        _T.TRANSPORT_DRAIN,
        _S.TRANSPORT_DRAIN,
        drain=True,
        transport=SET,
        time_out="transport_drain_time_out_s",
        hold=_I.EMPTY,
        hold_time="transport_settle_s",
    ),
    NodeRow(_T.TRANSPORT, _S.TRANSPORT, drain=True),
    NodeRow(
        _T.TRANSPORT_NEGATIVE,
        _S.TRANSPORT_PRECHARGE,
        _N,
        time_out="contactor_time_out_s",
        hold=_I.FOLLOWED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(
        _T.TRANSPORT_LINK,
        _S.TRANSPORT_PRECHARGE,
        _N | _P,
        time_out="precharge_time_out_s",
        hold=_I.FOLLOWED | _I.CHARGED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(
        _T.TRANSPORT_POSITIVE,
        _S.TRANSPORT_PRECHARGE,
        _N | _P | _M,
        time_out="contactor_time_out_s",
        hold=_I.FOLLOWED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(
        _T.TRANSPORT_RELEASE,
        _S.TRANSPORT_PRECHARGE,
        _N | _M,
        time_out="contactor_time_out_s",
        hold=_I.FOLLOWED,
        hold_time="contactor_settle_s",
    ),
    NodeRow(
        _T.TRANSPORT_CHARGE,
        _S.TRANSPORT_CHARGE,
        _N | _M,
        Limits.TRANSPORT_CHARGE,
        time_out="transport_charge_time_out_s",
        hold=_I.FILLED,
        hold_time="transport_filled_s",
    ),
)

PRECHARGING = (_T.PRECHARGE_NEGATIVE, _T.PRECHARGE_LINK, _T.PRECHARGE_POSITIVE, _T.PRECHARGE_RELEASE)
TRANSPORT_PRECHARGING = (_T.TRANSPORT_NEGATIVE, _T.TRANSPORT_LINK, _T.TRANSPORT_POSITIVE, _T.TRANSPORT_RELEASE)

_NONE = NOTHING
_MUST = _I.MUST_OPEN | _I.MUST_RAMP | _I.NO_CLOSE
_STAY_CLOSED = _I.CONNECT | _I.RESET
_MAY_CLOSE = _I.CONNECT | _I.COMPLETE | _I.FOLLOWED | _I.ATTEMPTS_LEFT | _I.COOL


def _stop(node: Node) -> Transition:
    return Transition(node, _I.STOP, _NONE, _T.EMERGENCY_STOP, "emergency stop")


def _stages(nodes: Sequence[Node], end: Node) -> list[Transition]:
    """Rows of the four stages of closing: whatever is wrong breaks off, then the next stage, then its time-out."""
    rows = []
    for k, node in enumerate(nodes):
        rows.append(_stop(node))
        for bit, why in (
            (_I.MUST_OPEN, "a fault demands to open"),
            (_I.MUST_RAMP, "a fault demands to open"),
            (_I.NO_CLOSE, "a fault demands not to close"),
            (_I.FATAL, "fatal fault"),
        ):
            rows.append(Transition(node, bit, _NONE, _T.OPENING, why))
        rows.append(Transition(node, _NONE, _I.COMPLETE, _T.OPENING, "data is missing"))
        rows.append(Transition(node, _NONE, _STAY_CLOSED, _T.OPENING, "no longer requested"))
        need = _I.SETTLED | _I.FOLLOWED | (_I.CHARGED if k == 1 else _NONE)
        why = ("negative closed", "link charged", "positive closed", "resistor off")[k]
        rows.append(Transition(node, need, _NONE, nodes[k + 1] if k < 3 else end, why))
        rows.append(Transition(node, _I.TIME_OUT, _NONE, _T.OPENING, "time-out"))
    return rows


def _closed(node: Node) -> list[Transition]:
    """Rows of a node in which current may flow."""
    return [
        _stop(node),
        Transition(node, _I.MUST_OPEN, _NONE, _T.OPENING, "a fault demands to open at once"),
        Transition(node, _I.MUST_RAMP, _NONE, _T.RAMP_DOWN, "a fault demands to ramp and open"),
        Transition(node, _I.FATAL, _NONE, _T.RAMP_DOWN, "fatal fault"),
        Transition(node, _NONE, _STAY_CLOSED, _T.RAMP_DOWN, "no longer requested"),
    ]


TABLE: tuple[Transition, ...] = (
    _stop(_T.INIT),
    Transition(_T.INIT, _I.COMPLETE, _NONE, _T.SELF_TEST, "first complete sample"),
    Transition(_T.INIT, _I.TIME_OUT, _NONE, _T.SELF_TEST, "time-out"),
    #
    _stop(_T.SELF_TEST),
    Transition(_T.SELF_TEST, _I.FATAL, _NONE, _T.FAULT, "fatal fault"),
    Transition(
        _T.SELF_TEST,
        _I.SETTLED | _I.COMPLETE | _I.FOLLOWED | _I.TRANSPORTED,
        _I.NO_CLOSE,
        _T.TRANSPORT_DRAIN,
        "passed, in transport",
    ),
    Transition(_T.SELF_TEST, _I.SETTLED | _I.COMPLETE | _I.FOLLOWED, _I.NO_CLOSE, _T.STANDBY, "passed"),
    Transition(_T.SELF_TEST, _I.TIME_OUT, _NONE, _T.FAULT, "time-out"),
    #
    _stop(_T.STANDBY),
    Transition(_T.STANDBY, _I.FATAL, _NONE, _T.FAULT, "fatal fault"),
    Transition(_T.STANDBY, _I.MAINTENANCE, _NONE, _T.MAINTENANCE, "maintenance"),
    Transition(
        _T.STANDBY, _I.TRANSPORT | _I.ALLOWED | _I.COMPLETE | _I.FOLLOWED, _NONE, _T.TRANSPORT_DRAIN, "transport"
    ),
    Transition(_T.STANDBY, _MAY_CLOSE, _MUST, _T.PRECHARGE_NEGATIVE, "connect"),
    #
    *_stages(PRECHARGING, _T.CONNECTED),
    *_closed(_T.CONNECTED),
    #
    _stop(_T.RAMP_DOWN),
    Transition(_T.RAMP_DOWN, _I.MUST_OPEN, _NONE, _T.OPENING, "a fault demands to open at once"),
    Transition(_T.RAMP_DOWN, _I.QUIET, _NONE, _T.OPENING, "no current"),
    Transition(_T.RAMP_DOWN, _I.TIME_OUT, _NONE, _T.OPENING, "time-out"),
    #
    _stop(_T.OPENING),
    Transition(_T.OPENING, _I.FOLLOWED, _NONE, _T.WELD_TEST, "feedback says open"),
    Transition(_T.OPENING, _I.TIME_OUT, _NONE, _T.FAULT, "time-out"),
    #
    _stop(_T.WELD_TEST),
    Transition(_T.WELD_TEST, _I.TIME_OUT | _I.FATAL, _NONE, _T.FAULT, "tested, fatal fault"),
    Transition(_T.WELD_TEST, _I.TIME_OUT | _I.TRANSPORTED, _NONE, _T.TRANSPORT_DRAIN, "tested, in transport"),
    Transition(_T.WELD_TEST, _I.TIME_OUT, _I.ATTEMPTS_LEFT, _T.LOCKOUT, "tested, no attempt left"),
    Transition(_T.WELD_TEST, _I.TIME_OUT, _NONE, _T.STANDBY, "tested"),
    #
    _stop(_T.FAULT),
    Transition(_T.FAULT, _I.MAINTENANCE, _NONE, _T.MAINTENANCE, "maintenance"),
    Transition(
        _T.FAULT,
        _I.RESET | _I.COMPLETE | _I.FOLLOWED | _I.TRANSPORTED,
        _I.FATAL,
        _T.TRANSPORT_DRAIN,
        "reset, in transport",
    ),
    Transition(_T.FAULT, _I.RESET | _I.COMPLETE | _I.FOLLOWED, _I.FATAL, _T.STANDBY, "reset"),
    #
    _stop(_T.LOCKOUT),
    Transition(_T.LOCKOUT, _I.FATAL, _NONE, _T.FAULT, "fatal fault"),
    Transition(_T.LOCKOUT, _I.SETTLED | _I.COOL, _NONE, _T.STANDBY, "cooled down"),
    Transition(_T.LOCKOUT, _I.TIME_OUT, _NONE, _T.FAULT, "time-out"),
    #
    _stop(_T.MAINTENANCE),
    Transition(_T.MAINTENANCE, _NONE, _I.MAINTENANCE, _T.SELF_TEST, "another request"),
    #
    # by way of OPENING, so that feedback and weld test come after this opening too
    Transition(_T.EMERGENCY_STOP, _I.RESET, _I.STOP, _T.OPENING, "released and reset"),
    #
    _stop(_T.TRANSPORT_DRAIN),
    Transition(_T.TRANSPORT_DRAIN, _I.FATAL, _NONE, _T.FAULT, "fatal fault"),
    Transition(_T.TRANSPORT_DRAIN, _I.MAINTENANCE, _NONE, _T.MAINTENANCE, "maintenance"),
    Transition(_T.TRANSPORT_DRAIN, _I.FILLED, _I.TRANSPORT, _T.STANDBY, "all cells in their window, not requested"),
    Transition(_T.TRANSPORT_DRAIN, _I.SETTLED | _I.EMPTY, _NONE, _T.TRANSPORT, "all cells at 0 V"),
    Transition(_T.TRANSPORT_DRAIN, _MAY_CLOSE, _MUST, _T.TRANSPORT_NEGATIVE, "connect"),
    Transition(_T.TRANSPORT_DRAIN, _I.TIME_OUT, _NONE, _T.FAULT, "time-out"),
    #
    _stop(_T.TRANSPORT),
    Transition(_T.TRANSPORT, _I.FATAL, _NONE, _T.FAULT, "fatal fault"),
    Transition(_T.TRANSPORT, _I.MAINTENANCE, _NONE, _T.MAINTENANCE, "maintenance"),
    Transition(_T.TRANSPORT, _I.FILLED, _I.TRANSPORT, _T.STANDBY, "all cells in their window, not requested"),
    Transition(_T.TRANSPORT, _MAY_CLOSE, _MUST, _T.TRANSPORT_NEGATIVE, "connect"),
    #
    *_stages(TRANSPORT_PRECHARGING, _T.TRANSPORT_CHARGE),
    *_closed(_T.TRANSPORT_CHARGE),
    Transition(_T.TRANSPORT_CHARGE, _I.SETTLED | _I.FILLED, _NONE, _T.CONNECTED, "all cells in their window"),
    Transition(_T.TRANSPORT_CHARGE, _I.TIME_OUT, _NONE, _T.RAMP_DOWN, "time-out"),
)
"""Every transition, rows of a node together, in the order in which they are looked at."""

# columns of a row of transitions
ROW_START, ROW_NEED, ROW_FORBID, ROW_END = range(4)
ROW_COLUMNS = 4

# columns of a node: rows FIRST <= r < LAST of the table are its own
NODE_STATE, NODE_CONTACTORS, NODE_LIMITS, NODE_DRAIN, NODE_TRANSPORT = range(5)
NODE_HOLD, NODE_HOLD_NOT, NODE_FIRST, NODE_LAST = range(5, 9)
NODE_COLUMNS = 9


def arrays(table: Sequence[Transition] = TABLE, nodes: Sequence[NodeRow] = NODES) -> tuple[U4, U4]:
    """The table as the kernel takes it: (`transition` u4[len(table) * 4], `node` u4[N_NODES * 9]).

    Raises `ValueError` where rows of one node do not stand together, or a node has no row or two.
    """
    if [n.node for n in nodes] != list(Node):
        raise ValueError("nodes: one for each Node, in their order")
    transition = np.array([[t.start, t.need, t.forbid, t.end] for t in table], np.uint32)
    start = [t.start for t in table]
    node = np.zeros((N_NODES, NODE_COLUMNS), np.uint32)
    for row in nodes:
        first = start.index(row.node) if row.node in start else 0
        last = first + start.count(row.node)
        if any(s != row.node for s in start[first:last]):
            raise ValueError(f"{row.node.name}: its rows do not stand together")
        node[row.node] = (
            row.state,
            row.contactors,
            row.limits,
            row.drain,
            row.transport,
            row.hold,
            row.hold_not,
            first,
            last,
        )
    return transition.ravel(), node.ravel()


def following(table: Sequence[Transition], node: Node, inputs: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The node after one step, for each word of `inputs`, by the plain meaning of the table."""
    end = np.full(inputs.shape, node, np.uint32)
    open_still = np.ones(inputs.shape, bool)
    for row in table:
        if row.start == node:
            fires = open_still & (inputs & np.uint32(row.need) == row.need) & (inputs & np.uint32(row.forbid) == 0)
            end[fires] = row.end
            open_still &= ~fires
    return end


def _bits(mask: Input) -> list[str]:
    return [bit.name or "" for bit in Input if bit & mask]


def _condition(row: Transition) -> str:
    return " & ".join([*_bits(row.need), *("!" + name for name in _bits(row.forbid))])


def diagram(table: Sequence[Transition] = TABLE, nodes: Sequence[NodeRow] = NODES) -> str:
    """The machine as a mermaid state diagram; stages stand inside their state.

    The edges to EMERGENCY_STOP, which every other node has, are left out for the sake of legibility.
    """
    lines = ["stateDiagram-v2", "    [*] --> INIT"]
    for state in RackState:
        stages = [n.node.name for n in nodes if n.state == state]
        if len(stages) > 1:
            lines.append(f"    state {state.name}_ {{")
            lines.extend(f"        {name}" for name in stages)
            lines.append("    }")
    edges: dict[tuple[Node, Node], list[str]] = {}
    for row in table:
        if row.end != Node.EMERGENCY_STOP:
            reasons = edges.setdefault((row.start, row.end), [])
            if row.why not in reasons:
                reasons.append(row.why)
    lines.extend(f"    {a.name} --> {b.name} : {' / '.join(reasons)}" for (a, b), reasons in edges.items())
    return "\n".join(lines)


def listing(table: Sequence[Transition] = TABLE, nodes: Sequence[NodeRow] = NODES) -> str:
    """Nodes and transitions as two Markdown tables."""
    lines = [
        "| node | state | contactors asked | limits | time-out | settles when | for |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for n in nodes:
        contactors = " + ".join(c.name or "" for c in Contactor if c & n.contactors) or "none"
        hold = " & ".join([*_bits(n.hold), *("!" + name for name in _bits(n.hold_not))])
        limits = n.limits.name.lower().replace("_", " ") + (", cells bled" if n.drain else "")
        time_out, hold_time = (f"`{text}`" if text else "-" for text in (n.time_out, n.hold_time))
        lines.append(
            f"| {n.node.name} | {n.state.name} | {contactors} | {limits} | {time_out} | {hold or '-'} | {hold_time} |"
        )
    lines += ["", "| from | if | to | why |", "| --- | --- | --- | --- |"]
    lines.extend(f"| {t.start.name} | {_condition(t)} | {t.end.name} | {t.why} |" for t in table)
    return "\n".join(lines)
