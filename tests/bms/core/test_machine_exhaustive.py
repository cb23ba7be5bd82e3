"""Every node with every combination of inputs: what must never happen, and what must happen in time.

The words of inputs are enumerated, not sampled: at most one request, times the 17 other bits. `broken` holds the rules
that each single transition must keep; the paths follow below; `wanted` says once more, in another form, where each node
leads to, so that every change of a row is noticed. At the end the kernel itself runs over measured inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
from functools import lru_cache

import numpy as np
import pytest

from bms.core import machine as m
from bms.core.faults import Reaction
from bms.core.jit import f4, i4, kernel
from bms.core.machine_setup import MachineSettings, machine_config
from bms.core.machine_table import (
    BOTH_MAINS,
    CLEAR,
    KEEP,
    N_NODES,
    NODES,
    PRECHARGING,
    SET,
    TABLE,
    TRANSPORT_PRECHARGING,
    Input,
    Limits,
    Node,
    Request,
    Transition,
    following,
)
from bms.core.seen import Seen
from hal.contract import Capabilities, RackInfo
from hal.engine.kernel import PLAIN

In, T = Input, Node
REQUESTS = (In.OPEN, In.CONNECT, In.RESET, In.MAINTENANCE, In.TRANSPORT, In(0))
REQUEST_BITS = In.OPEN | In.CONNECT | In.RESET | In.MAINTENANCE | In.TRANSPORT
OTHERS = tuple(bit for bit in Input if not bit & REQUEST_BITS)

CONTACTORS = np.array([n.contactors for n in NODES], np.uint32)
MAINS = np.array([n.contactors & BOTH_MAINS == BOTH_MAINS for n in NODES])
OPEN_NODES = np.array([n.contactors == 0 for n in NODES])
STAGES = (*PRECHARGING, *TRANSPORT_PRECHARGING)
RESTING = {T.STANDBY, T.CONNECTED, T.FAULT, T.MAINTENANCE, T.EMERGENCY_STOP, T.TRANSPORT}


def words(bits: tuple[Input, ...] = OTHERS) -> np.ndarray:
    """Every word over `bits`, with every request; without a request only where a stop is requested."""
    others = np.zeros(1, np.uint32)
    for bit in bits:
        others = np.concatenate([others, others | np.uint32(bit)])
    word = np.concatenate([others | np.uint32(r) for r in REQUESTS[:-1]])
    stopped = others[others & np.uint32(In.STOP) != 0]
    return np.concatenate([word, stopped])


def has(word: np.ndarray, bits: Input) -> np.ndarray:
    """All of `bits` are set."""
    return word & np.uint32(bits) == bits


def some(word: np.ndarray, bits: Input) -> np.ndarray:
    """Any of `bits` is set."""
    return word & np.uint32(bits) != 0


def broken(node: Node, word: np.ndarray, end: np.ndarray) -> list[str]:
    """The rules that the transitions from `node` to `end` break, for each word of inputs."""
    found = []

    def rule(name: str, holds: np.ndarray) -> None:
        if not np.all(holds):
            found.append(name)

    grows = CONTACTORS[end] & ~CONTACTORS[node] != 0
    moved = end != node
    rule("a stop opens everything at once", ~has(word, In.STOP) | (end == T.EMERGENCY_STOP))
    rule("an opening fault opens everything at once", ~has(word, In.MUST_OPEN) | OPEN_NODES[end])
    rule(
        "a fatal or ramping fault leaves nothing but a ramp closed",
        ~some(word, In.FATAL | In.MUST_RAMP) | OPEN_NODES[end] | (end == T.RAMP_DOWN),
    )
    rule("a ramp begins only where current may flow", (end != T.RAMP_DOWN) | MAINS[node])
    forbidden = In.STOP | In.MUST_OPEN | In.MUST_RAMP | In.NO_CLOSE | In.FATAL
    rule("nothing closes against a fault", ~grows | ~some(word, forbidden))
    rule("nothing closes on missing data", ~grows | has(word, In.COMPLETE))
    rule("nothing closes without request", ~grows | some(word, In.CONNECT | In.RESET))
    rule("nothing closes before the last contactor followed", ~grows | has(word, In.FOLLOWED))
    if OPEN_NODES[node]:
        start = In.CONNECT | In.ATTEMPTS_LEFT | In.COOL
        rule("an attempt starts by request, if the resistor bears it", ~grows | has(word, start))
    if node in STAGES:
        bad = some(word, forbidden) | ~has(word, In.COMPLETE) | ~some(word, In.CONNECT | In.RESET)
        rule("closing is broken off", ~bad | OPEN_NODES[end])
    for stages, last in ((PRECHARGING, T.CONNECTED), (TRANSPORT_PRECHARGING, T.TRANSPORT_CHARGE)):
        for before, after in itertools.pairwise((*stages, last)):
            entered = moved & (end == after)
            by = np.full(word.shape, node == before)
            need = In.SETTLED | In.FOLLOWED
            if after in (T.PRECHARGE_POSITIVE, T.TRANSPORT_POSITIVE):
                need |= In.CHARGED
            by &= has(word, need)
            if after == T.CONNECTED and node == T.TRANSPORT_CHARGE:
                by |= has(word, In.SETTLED | In.FILLED)
            rule(f"{after.name} comes after {before.name}", ~entered | by)
    row = NODES[node]
    if row.time_out:
        rule("a time-out leads out", ~has(word, In.TIME_OUT) | some(word, In.SETTLED) | moved)
    if row.hold:
        settled = has(word, In.SETTLED | row.hold) & ~some(word, row.hold_not)
        rule("what was waited for leads out", ~settled | moved)
    rule("open on request", ~has(word, In.OPEN) | ~MAINS[end] | (end == T.RAMP_DOWN))
    rule(
        "0 V only where the cells bear it",
        (end != T.TRANSPORT_DRAIN) | ~moved | some(word, In.ALLOWED | In.TRANSPORTED),
    )
    in_window = has(word, In.FILLED) | ~has(word, In.TRANSPORTED)
    if node not in (T.INIT, T.EMERGENCY_STOP, T.STANDBY, T.CONNECTED):
        rule("STANDBY is for cells in their window", (end != T.STANDBY) | in_window | (node == T.LOCKOUT))
    if node in (T.FAULT, T.EMERGENCY_STOP):
        person = some(word, In.RESET | In.MAINTENANCE | In.STOP)
        rule("only a person leads out", ~moved | person)
    if node == T.FAULT:
        rule("no way out with a fault", ~moved | ~has(word, In.FATAL) | some(word, In.MAINTENANCE | In.STOP))
    return found


def wanted(node: Node, w: np.ndarray) -> np.ndarray:
    """Where each word leads to from `node`, said without the table."""
    end = np.full(w.shape, node, np.uint32)
    undecided = np.ones(w.shape, bool)

    def go(to: Node, when: np.ndarray) -> None:
        end[undecided & when] = to
        np.logical_and(undecided, ~when, out=undecided)

    open_fault, ramp_fault, fatal = has(w, In.MUST_OPEN), has(w, In.MUST_RAMP), has(w, In.FATAL)
    wish = some(w, In.CONNECT | In.RESET)
    settled, over = has(w, In.SETTLED), has(w, In.TIME_OUT)
    in_transport = has(w, In.TRANSPORTED)
    sound = has(w, In.COMPLETE | In.FOLLOWED)
    may_close = has(w, In.CONNECT | In.COMPLETE | In.FOLLOWED | In.ATTEMPTS_LEFT | In.COOL)
    may_close &= ~some(w, In.MUST_OPEN | In.MUST_RAMP | In.NO_CLOSE)
    go(T.EMERGENCY_STOP, has(w, In.STOP))
    if node in STAGES:
        stages, last = (
            (PRECHARGING, T.CONNECTED) if node in PRECHARGING else (TRANSPORT_PRECHARGING, T.TRANSPORT_CHARGE)
        )
        at = stages.index(node)
        go(T.OPENING, open_fault | ramp_fault | fatal | has(w, In.NO_CLOSE) | ~has(w, In.COMPLETE) | ~wish)
        done = settled & has(w, In.FOLLOWED) & (has(w, In.CHARGED) if at == 1 else True)
        go((*stages, last)[at + 1], done)
        go(T.OPENING, over)
    elif node in (T.CONNECTED, T.TRANSPORT_CHARGE):
        go(T.OPENING, open_fault)
        go(T.RAMP_DOWN, ramp_fault | fatal | ~wish)
        if node == T.TRANSPORT_CHARGE:
            go(T.CONNECTED, settled & has(w, In.FILLED))
            go(T.RAMP_DOWN, over)
    elif node == T.RAMP_DOWN:
        go(T.OPENING, open_fault | has(w, In.QUIET) | over)
    elif node == T.OPENING:
        go(T.WELD_TEST, has(w, In.FOLLOWED))
        go(T.FAULT, over)
    elif node == T.WELD_TEST:
        go(T.FAULT, over & fatal)
        go(T.TRANSPORT_DRAIN, over & in_transport)
        go(T.LOCKOUT, over & ~has(w, In.ATTEMPTS_LEFT))
        go(T.STANDBY, over)
    elif node == T.EMERGENCY_STOP:
        go(T.OPENING, has(w, In.RESET))
    elif node == T.MAINTENANCE:
        go(T.SELF_TEST, ~has(w, In.MAINTENANCE))
    elif node == T.INIT:
        go(T.SELF_TEST, has(w, In.COMPLETE) | over)
    elif node == T.FAULT:
        go(T.MAINTENANCE, has(w, In.MAINTENANCE))
        reset = has(w, In.RESET) & sound & ~fatal
        go(T.TRANSPORT_DRAIN, reset & in_transport)
        go(T.STANDBY, reset)
    else:
        go(T.FAULT, fatal)
        if node == T.SELF_TEST:
            passed = settled & sound & ~has(w, In.NO_CLOSE)
            go(T.TRANSPORT_DRAIN, passed & in_transport)
            go(T.STANDBY, passed)
            go(T.FAULT, over)
        elif node == T.LOCKOUT:
            go(T.STANDBY, settled & has(w, In.COOL))
            go(T.FAULT, over)
        else:
            go(T.MAINTENANCE, has(w, In.MAINTENANCE))
            if node == T.STANDBY:
                go(T.TRANSPORT_DRAIN, has(w, In.TRANSPORT | In.ALLOWED) & sound)
                go(T.PRECHARGE_NEGATIVE, may_close)
            else:
                go(T.STANDBY, has(w, In.FILLED) & ~has(w, In.TRANSPORT))
                if node == T.TRANSPORT_DRAIN:
                    go(T.TRANSPORT, settled & has(w, In.EMPTY))
                go(T.TRANSPORT_NEGATIVE, may_close)
                if node == T.TRANSPORT_DRAIN:
                    go(T.FAULT, over)
    return end


@lru_cache(maxsize=1)
def everything() -> tuple[np.ndarray, np.ndarray]:
    """(all words, the next node u1[N_NODES, words])."""
    word = words()
    return word, np.array([following(TABLE, node, word) for node in Node], np.uint8)


def test_words_are_all_there() -> None:
    word, _ = everything()
    assert len(np.unique(word)) == word.size == 5 * 2**17 + 2**16


@pytest.mark.parametrize("node", Node, ids=lambda n: n.name)
def test_no_rule_is_broken(node: Node) -> None:
    word, end = everything()
    assert broken(node, word, end[node]) == []


@pytest.mark.parametrize("node", Node, ids=lambda n: n.name)
def test_every_word_leads_where_it_is_wanted(node: Node) -> None:
    word, end = everything()
    np.testing.assert_array_equal(end[node], wanted(node, word))


def test_every_row_fires_for_some_word_and_every_node_is_reached() -> None:
    word, _ = everything()
    # the kernel never reports a time-out of what is about to settle
    word = word[~has(word, In.SETTLED | In.TIME_OUT)]
    for node in Node:
        rows = [row for row in TABLE if row.start == node]
        left = np.ones(word.shape, bool)
        for row in rows:
            fires = left & has(word, row.need) & ~some(word, row.forbid)
            assert np.any(fires), row
            left &= ~fires
    reached, new = set(), {Node.INIT}
    while new:
        reached |= new
        new = {row.end for row in TABLE if row.start in new} - reached
    assert reached == set(Node)


def test_only_resting_nodes_have_no_time_out() -> None:
    assert {n.node for n in NODES if not n.time_out} == RESTING
    assert {n.node for n in NODES if n.hold_time} == {n.node for n in NODES if n.hold}


def test_current_is_allowed_only_where_both_mains_are_closed_and_bleeding_only_where_none_is() -> None:
    for row in NODES:
        if row.limits != Limits.ZERO:
            assert row.contactors == BOTH_MAINS
        if row.drain:
            assert row.contactors == 0
    assert NODES[T.CONNECTED].limits == Limits.FULL
    assert NODES[T.RAMP_DOWN].limits == Limits.RAMP
    assert NODES[T.TRANSPORT_CHARGE].limits == Limits.TRANSPORT_CHARGE
    assert {n.node for n in NODES if n.drain} == {T.TRANSPORT_DRAIN, T.TRANSPORT}
    assert {n.node for n in NODES if n.transport == SET} == {T.TRANSPORT_DRAIN}
    assert {n.node for n in NODES if n.transport == CLEAR} == {T.STANDBY, T.CONNECTED}
    assert sum(n.transport == KEEP for n in NODES) == N_NODES - 3


def _index() -> np.ndarray:
    """The place of each word in `everything()`; words that do not exist lead to 0."""
    word, _ = everything()
    place = np.zeros(1 << 22, np.uint32)
    place[word] = np.arange(word.size, dtype=np.uint32)
    return place


def test_constant_inputs_lead_to_rest() -> None:
    """No livelock: whatever stays as it is, the machine comes to rest, and attempts to close are bounded.

    Followed at once from every node, in and out of transport, with every count of attempts: what a node waits for
    settles if its inputs are there, else its time-out comes. A reset that is held is given anew each time that FAULT
    is entered, so that cycles through FAULT under RESET are the operator's.
    """
    limit = 2
    free = In.SETTLED | In.TIME_OUT | In.TRANSPORTED | In.ATTEMPTS_LEFT
    base = words(tuple(bit for bit in OTHERS if not bit & free))
    _, end = everything()
    place = _index()
    hold = np.array([n.hold for n in NODES], np.uint32)
    hold_not = np.array([n.hold_not for n in NODES], np.uint32)
    timed = np.array([bool(n.time_out) for n in NODES])
    memory = np.array([n.transport for n in NODES])
    stage = np.array([n in STAGES or n == T.TRANSPORT_CHARGE for n in Node])
    combos = np.array(list(itertools.product(range(N_NODES), (0, 1), range(limit + 1))), np.uint32)
    c = np.tile(base, len(combos))
    node, carried, attempts = (np.repeat(combos[:, k], base.size) for k in range(3))
    resets = np.zeros(node.shape, np.uint32)
    moves = 0
    while node.size:
        moves += 1
        assert moves < 40  # three attempts of four stages, and what follows
        attempts = np.where(has(c, In.RESET), 0, attempts)
        w = c | np.where(carried == 1, np.uint32(In.TRANSPORTED), 0).astype(np.uint32)
        w |= np.where(attempts < limit, np.uint32(In.ATTEMPTS_LEFT), 0).astype(np.uint32)
        held = (hold[node] != 0) & (w & hold[node] == hold[node]) & (w & hold_not[node] == 0)
        at_once = end[node, place[w]]
        later = np.where(
            held,
            end[node, place[w | np.uint32(In.SETTLED)]],
            np.where(timed[node], end[node, place[w | np.uint32(In.TIME_OUT)]], node),
        )
        to = np.where(at_once != node, at_once, later).astype(np.uint32)
        resets += ((node == T.FAULT) & (to != node) & has(c, In.RESET)).astype(np.uint32)
        failed = stage[node] & ((to == T.OPENING) | (to == T.RAMP_DOWN)) & some(c, In.CONNECT | In.RESET)
        attempts = np.where(to == T.CONNECTED, 0, attempts + failed)
        carried = np.where(memory[to] == SET, 1, np.where(memory[to] == CLEAR, 0, carried))
        goes_on = (to != node) & (resets < 2)
        node, carried, attempts, resets, c = (x[goes_on] for x in (to, carried, attempts, resets, c))


def test_an_opening_request_opens_within_the_ramp() -> None:
    """Under a request to open, and under any fault, two moves at most: into the ramp, out of it by its time-out."""
    word, end = everything()
    for cause in (In.OPEN, In.MAINTENANCE, In.TRANSPORT, In.FATAL, In.MUST_RAMP):
        under = has(word, cause)
        for node in Node:
            assert np.all(OPEN_NODES[end[node][under]] | (end[node][under] == T.RAMP_DOWN)), (cause, node)
        late = under & has(word, In.TIME_OUT)
        assert np.all(OPEN_NODES[end[T.RAMP_DOWN][late]])


SHARE_BY_RULES = 0.7
"""Of the changes that change anything, more than this share break one of the rules of `broken` in one step."""


def mutants(row: Transition) -> list[tuple[str, Transition | None]]:
    """Every single change of a row: dropped, each bit of either mask toggled, each other target."""
    changed: list[tuple[str, Transition | None]] = [("dropped", None)]
    for bit in Input:
        changed.append((f"need {bit.name}", dataclasses.replace(row, need=row.need ^ bit)))
        changed.append((f"forbid {bit.name}", dataclasses.replace(row, forbid=row.forbid ^ bit)))
    changed.extend((f"to {n.name}", dataclasses.replace(row, end=n)) for n in Node if n != row.end)
    return changed


def test_every_change_of_a_row_is_noticed() -> None:
    """Over the words of the node's own bits and the toggled one.

    What changes nothing can only be a condition that is added to a row without need, for one of two reasons: the row
    is not asked where the condition would fail (a row before it has fired, or another request excludes it), or a row
    behind it leads to the same node. Dropping a row, another target, or one condition less is always noticed.
    """
    silent, by_rules, total = [], 0, 0
    for node in Node:
        rows = [row for row in TABLE if row.start == node]
        own = NODES[node].hold and In.SETTLED
        for row in rows:
            own |= row.need | row.forbid
        word = words(tuple(bit for bit in OTHERS if bit & own))
        cases = {In(0): (word, wanted(node, word))}
        for extra in OTHERS:
            if not extra & own:
                word = words(tuple(bit for bit in OTHERS if bit & (own | extra)))
                cases[extra] = (word, wanted(node, word))
        for k, row in enumerate(rows):
            for name, mutant in mutants(row):
                bit = In(0) if mutant is None else (mutant.need ^ row.need) | (mutant.forbid ^ row.forbid)
                word, want = cases.get(bit, cases[In(0)])
                end = following([*rows[:k], *([] if mutant is None else [mutant]), *rows[k + 1 :]], node, word)
                total += 1
                if not np.array_equal(end, want):
                    by_rules += bool(broken(node, word, end))
                    continue
                assert mutant is not None, row
                assert mutant.end == row.end, name
                assert mutant.need & row.need == row.need, (row, name)
                assert mutant.forbid & row.forbid == row.forbid, (row, name)
                silent.append((row, name))
    assert total == sum(1 + 2 * len(Input) + N_NODES - 1 for _ in TABLE)
    assert by_rules > SHARE_BY_RULES * (total - len(silent)), (by_rules, total, len(silent))


N_CELLS, CAPACITY_AH = 352, 185.0
INFO = RackInfo("rack", N_CELLS, 88, 1, CAPACITY_AH, "", np.zeros(N_CELLS, np.uint16), Capabilities())
LIMITS = type("Limits", (), {"v_min": 1.5, "v_max": 4.05, "max_discharge_c": 1.0})()
CONFIG = machine_config(LIMITS, INFO, MachineSettings(transport_allowed=True), "na_layered")
EVER = 1e9  # longer than every time-out and every hold time
ALL = Reaction.OPEN | Reaction.RAMP_OPEN | Reaction.NO_CLOSE

# what is measured and asked in one case, with the inputs that it should become
CASES: dict[str, list[tuple[tuple[float, ...], Input]]] = {
    "request": [
        ((r,), bit)
        for r, bit in (
            (Request.OPEN, In.OPEN),
            (Request.CONNECT, In.CONNECT),
            (Request.RESET, In.RESET),
            (Request.MAINTENANCE, In.MAINTENANCE),
            (Request.TRANSPORT, In.TRANSPORT),
            (Request.EMERGENCY_STOP, In.STOP),
            (9, In.OPEN),  # no request
        )
    ],
    "stop": [((0,), In(0)), ((1,), In.STOP)],
    "reaction": [
        ((Reaction.DERATE | Reaction.COOL | Reaction.LATCH,), In(0)),
        ((Reaction.OPEN,), In.MUST_OPEN),
        ((Reaction.RAMP_OPEN,), In.MUST_RAMP),
        ((Reaction.NO_CLOSE,), In.NO_CLOSE),
        ((ALL,), In.MUST_OPEN | In.MUST_RAMP | In.NO_CLOSE),
    ],
    "fatal": [((0,), In(0)), ((1,), In.FATAL)],
    # unknown, as asked, one contactor apart
    "closed": [((-1,), In(0)), ((0,), In.FOLLOWED), ((1,), In(0))],
    # 0 A; 1.5 % of the capacity, too much behind the precharge resistor, but little enough to open; not known
    "current": [
        ((0.0,), In.QUIET | In.CHARGED),
        ((-0.015 * CAPACITY_AH,), In.QUIET),
        ((np.nan,), In(0)),
    ],
    # string over sum of the cells, link over string
    "link": [((1.0, 1.0), In.CHARGED), ((1.0, 0.0), In(0)), ((0.0, 0.0), In(0)), ((1.0, np.nan), In(0))],
    # attempts, heat of the resistor over what it bears, transport
    "memory": [
        ((0, 0.0, 0), In.ATTEMPTS_LEFT | In.COOL),
        ((3, 0.0, 0), In.COOL),
        ((2, 0.6, 1), In.ATTEMPTS_LEFT | In.TRANSPORTED),
        ((0, 0.4, 1), In.ATTEMPTS_LEFT | In.COOL | In.TRANSPORTED),
    ],
    # complete, lowest, highest and mean cell
    "cells": [
        ((1, 0.01, 0.05, 0.03), In.COMPLETE | In.EMPTY | In.CHARGED),
        ((1, 0.01, 3.0, 2.0), In.COMPLETE | In.CHARGED),
        ((1, 2.9, 3.1, 3.0), In.COMPLETE | In.FILLED | In.CHARGED),
        ((0, 2.9, 3.1, 3.0), In.CHARGED),
        ((0, 0.01, 0.05, 0.03), In.CHARGED),
        ((0, np.nan, np.nan, np.nan), In(0)),
    ],
    # what was waited for has held so long; time in the node
    "time": [((-1.0, 0.0), In(0)), ((EVER, 0.0), In.SETTLED), ((-1.0, EVER), In.TIME_OUT), ((EVER, EVER), In.SETTLED)],
}
CHARGED_NEEDS = ("current", "link", "cells")


def cases() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(values f4[n, 18], inputs u4[n], held long enough, time over): the product of everything in `CASES`."""
    sizes = [len(options) for options in CASES.values()]
    at = np.indices(sizes).reshape(len(sizes), -1)
    columns, word, charged = [], np.zeros(at.shape[1], np.uint32), np.ones(at.shape[1], bool)
    for (name, options), place in zip(CASES.items(), at, strict=True):
        columns.append(np.array([values for values, _ in options], np.float32)[place])
        bits = np.array([bit for _, bit in options], np.uint32)[place]
        if name == "time":
            long, over = bits & np.uint32(In.SETTLED) != 0, np.isin(place, (2, 3))
            continue
        if name in CHARGED_NEEDS:
            charged &= bits & np.uint32(In.CHARGED) != 0
        word |= bits & ~np.uint32(In.CHARGED)
    word[charged] |= np.uint32(In.CHARGED)
    stopped = has(word, In.STOP)
    word |= np.uint32(In.ALLOWED)
    assert np.any(stopped)
    return np.concatenate(columns, axis=1), word, long, over


@kernel
def sweep(config, state, values, node, asked, out):  # type: ignore[no-untyped-def]
    """`machine_advance` for each row of `values` from `node`; `out` gets node, contactors, limits, drain and state."""
    for k in range(values.shape[0]):
        v = values[k]
        state.word[m.NODE] = node
        state.word[m.ASKED] = asked
        state.word[m.WELD] = 0
        state.word[m.ATTEMPTS] = np.uint32(v[8])
        state.number[m.RESISTOR_HEAT_J] = v[9] * config.setting[m.RESISTOR_J]
        state.word[m.TRANSPORTED] = np.uint32(v[10])
        state.number[m.HOLD_S] = v[15]
        state.word[m.MODE_SECONDS] = np.uint32(v[16])
        state.number[m.MODE_FRACTION_S] = f4(0)
        pack_v = v[6] * v[14] * f4(config.flag[m.N_CELLS])
        closed = -1 if v[4] < f4(0) else asked ^ i4(v[4])
        seen = Seen(
            v[5], pack_v, pack_v * v[7], v[12], v[13], v[14], 0, 1, f4(25), f4(25), f4(25), 0, 0, f4(20), closed, 0,
            v[11] != f4(0), i4(v[1]),
        )  # fmt: skip
        out[k, 1] = m.machine_advance(config, state, seen, i4(v[2]), v[3] != f4(0), i4(v[0]), f4(0.1))
        out[k, 0] = state.word[m.NODE]
        out[k, 2] = state.word[m.LIMITS]
        out[k, 3] = state.word[m.DRAIN]
        out[k, 4] = state.word[m.MODE]


def test_the_kernel_means_what_the_table_says() -> None:
    """11 million steps of the kernel: from each node, the product of discrete measurements, requests and memories."""
    values, word, long, over = cases()
    if PLAIN:  # some thousand are what plain Python does in the time
        values, word, long, over = (x[::4999] for x in (values, word, long, over))
    values = np.ascontiguousarray(values)
    state = m.machine_state()
    m.machine_init(CONFIG, state)
    out = np.zeros((len(values), 5), np.uint8)
    rows = np.array([[n.node, n.contactors, n.limits, n.drain, n.state] for n in NODES], np.uint8)
    for n in NODES:
        sweep(CONFIG, state, values, int(n.node), int(n.contactors), out)
        held = (n.hold != 0) & has(word, n.hold) & ~some(word, n.hold_not)
        w = word.copy()
        w[held & long] |= np.uint32(In.SETTLED)
        if n.time_out:
            w[~held & over] |= np.uint32(In.TIME_OUT)
        end = following(TABLE, n.node, w)
        np.testing.assert_array_equal(out, rows[end], err_msg=n.node.name)
