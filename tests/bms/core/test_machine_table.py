from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bms.core import machine_table as t
from bms.core.machine_table import NODES, TABLE, Input, Node, Request, Transition
from hal.contract import Contactor, RackState

DOC = Path(__file__).parents[3] / "docs" / "state_machine.md"


def between(text: str, name: str) -> str:
    """What the document has between the markers of `name`."""
    return text.split(f"<!-- {name}: begin -->\n")[1].split(f"\n<!-- {name}: end -->")[0]


def test_document_is_drawn_from_the_table() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert between(text, "diagram") == f"```mermaid\n{t.diagram()}\n```"
    assert between(text, "listing") == t.listing()


def test_numbers_of_requests_and_nodes_stay() -> None:
    """Requests are recorded, nodes are kept in memories: neither may be renumbered."""
    assert [r.name for r in Request] == ["OPEN", "CONNECT", "RESET", "MAINTENANCE", "TRANSPORT", "EMERGENCY_STOP"]
    assert [int(r) for r in Request] == list(range(6))
    assert [int(n) for n in Node] == list(range(22))
    assert (Node.CONNECTED, Node.FAULT, Node.TRANSPORT) == (7, 11, 16)


def test_every_state_has_a_node() -> None:
    assert {n.state for n in NODES} == set(RackState)
    stages = [n.contactors for n in NODES if n.state == RackState.PRECHARGE]
    negative, positive, precharge = Contactor.MAIN_NEGATIVE, Contactor.MAIN_POSITIVE, Contactor.PRECHARGE
    assert stages == [negative, negative | precharge, negative | precharge | positive, negative | positive]
    assert stages == [n.contactors for n in NODES if n.state == RackState.TRANSPORT_PRECHARGE]


def test_arrays_hold_the_table() -> None:
    transition, node = t.arrays()
    rows = transition.reshape(-1, t.ROW_COLUMNS)
    assert rows.dtype == node.dtype == np.uint32
    for array, row in zip(rows, TABLE, strict=True):
        assert tuple(array) == (row.start, row.need, row.forbid, row.end)
    for array, row in zip(node.reshape(-1, t.NODE_COLUMNS), NODES, strict=True):
        first, last = array[t.NODE_FIRST], array[t.NODE_LAST]
        assert {r.start for r in TABLE[first:last]} == {row.node}
        assert last - first == sum(r.start == row.node for r in TABLE)
        assert array[t.NODE_STATE] == row.state
        assert array[t.NODE_CONTACTORS] == row.contactors
        assert (array[t.NODE_HOLD], array[t.NODE_HOLD_NOT]) == (row.hold, row.hold_not)
        assert tuple(array[[t.NODE_LIMITS, t.NODE_DRAIN, t.NODE_TRANSPORT]]) == (row.limits, row.drain, row.transport)


def test_arrays_refuse_rows_that_stand_apart_and_nodes_that_are_missing() -> None:
    with pytest.raises(ValueError, match=r"INIT: its rows do not stand together"):
        t.arrays((*TABLE[1:], TABLE[0]))
    with pytest.raises(ValueError, match=r"one for each Node"):
        t.arrays(TABLE, NODES[1:])


def test_a_node_without_rows_stays() -> None:
    _, node = t.arrays([row for row in TABLE if row.start != Node.FAULT])
    fault = node.reshape(-1, t.NODE_COLUMNS)[Node.FAULT]
    assert fault[t.NODE_FIRST] == fault[t.NODE_LAST]


def test_the_first_row_that_fits_fires() -> None:
    a = Transition(Node.INIT, Input.COMPLETE, Input.STOP, Node.STANDBY, "a")
    b = Transition(Node.INIT, Input.COMPLETE | Input.QUIET, t.NOTHING, Node.FAULT, "b")
    word = np.array(
        [0, Input.COMPLETE, Input.COMPLETE | Input.STOP, Input.COMPLETE | Input.STOP | Input.QUIET], np.uint32
    )
    np.testing.assert_array_equal(
        t.following([a, b], Node.INIT, word), [Node.INIT, Node.STANDBY, Node.INIT, Node.FAULT]
    )
    np.testing.assert_array_equal(t.following([a, b], Node.FAULT, word), [Node.FAULT] * 4)


def test_drawing_shows_reasons_stages_and_conditions() -> None:
    drawn = t.diagram()
    assert "    PRECHARGE_LINK --> OPENING : " in drawn
    assert "RAMP_DOWN --> OPENING : a fault demands to open at once / no current / time-out" in drawn
    assert "--> EMERGENCY_STOP" not in drawn
    assert "    state PRECHARGE_ {\n        PRECHARGE_NEGATIVE\n        PRECHARGE_LINK\n" in drawn
    assert "| EMERGENCY_STOP | RESET & !STOP | OPENING | released and reset |" in t.listing()
    other = [dataclasses.replace(TABLE[0], why="changed"), *TABLE[1:]]
    assert t.listing(other) != t.listing()
