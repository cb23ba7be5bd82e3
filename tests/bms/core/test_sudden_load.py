"""Hard shorts and changes of the load, which sink cells of more resistance as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bms.core import signals_layout as y
from bms.core.faults import Fault
from hal.contract import Quality
from tests.bms.core.sudden_rig import CELL, Rack

F = Fault


@pytest.fixture
def rack(make_signals: Any) -> Rack:
    made = Rack(make_signals())
    made.run(300)
    return made


def test_a_load_that_comes_sinks_a_cell_with_more_resistance(rack: Rack) -> None:
    rack.bench.head["current_a"] = 0.0
    rack.run(600)
    rack.state.change_v2s[:] = 0.0  # it has not been watched
    bench = rack.bench
    ohm = float(bench.config.number[y.FAST_OHM] * bench.config.number[y.PER_CELL])
    bench.head["current_a"] = 280.0
    own_v = 0.06 * 22 / 24
    known_v = rack.run(1, 0.06)
    assert known_v == pytest.approx(own_v - 0.15 * ohm * 280, abs=1e-3)
    rack.state.before_v[:] = 0.0
    bench.resistance_std[:] = 0.12  # nothing is known of the resistances: 42 %
    assert rack.step() == pytest.approx(own_v - 0.42 * ohm * 280, abs=2e-3)


def of_unknown_resistance(rack: Rack, *load_a: float, more: float = 0.0, seconds: int = 30) -> float:
    """Changes of the load that `CELL` answers with `more` of the drop; what is told at the end. Gives ohm of a cell."""
    bench = rack.bench
    bench.resistance_std[:] = 0.12
    ohm = float(bench.config.number[y.FAST_OHM] * bench.config.number[y.PER_CELL])
    for current_a in load_a:
        bench.head["current_a"] = current_a
        bench.m.cell_v[:] = 3.3 - ohm * current_a
        bench.m.cell_v[CELL] -= more * ohm * current_a
        bench.model_v[:] = 3.3 - ohm * current_a
        for _ in range(seconds):
            assert rack.step() == 0.0
    return ohm


def at_a_step(rack: Rack, ohm: float, current_a: float, sunk_v: float) -> float:
    """What is told of a cell that sinks by `sunk_v` as the load becomes `current_a`."""
    rack.bench.head["current_a"] = current_a
    rack.bench.m.cell_v[:] = rack.bench.model_v[:] = 3.3 - ohm * current_a
    rack.bench.m.cell_v[CELL] -= sunk_v
    return rack.step()


def test_a_cell_may_sink_as_it_did_at_earlier_changes_of_the_load(make_signals: Any) -> None:
    """One that answered like the others has its place and 10 %, one with a quarter more resistance that as well."""
    told_v = []
    for more in (0.0, 0.25):
        rack = Rack(make_signals())
        ohm = of_unknown_resistance(rack, 0.0, -280.0, 0.0, -280.0, more=more)
        ratio = rack.state.answer_v2s[CELL] / rack.state.change_v2s[CELL]
        assert ratio == pytest.approx(more * 23 / 24, rel=0.05, abs=0.002)
        share = 0.1 + ratio + 5e-4 / rack.state.change_v2s[CELL]
        told_v.append(at_a_step(rack, ohm, 280.0, 0.07))
        changed_v = ohm * (280.0 - rack.state.load_a[CELL])
        rise_v = -rack.state.drop_v[CELL + 1]
        assert told_v[-1] == pytest.approx(rack.state.drop_v[CELL] - share * changed_v - rise_v, abs=2e-3)
    assert told_v[0] > 0.04 > 0.03 > told_v[1]


def test_small_changes_tell_little_of_an_answer(make_signals: Any) -> None:
    rack = Rack(make_signals())
    ohm = of_unknown_resistance(rack, 0.0, 60.0, 0.0, 60.0)
    assert 0.0 < rack.state.change_v2s[CELL] < 0.01
    share = 0.1 + 5e-4 / rack.state.change_v2s[CELL]
    assert at_a_step(rack, ohm, 280.0, 0.05) == pytest.approx(0.05 * 22 / 24 - share * ohm * 220, abs=2e-3)
    assert 0.17 < share < 0.2


@pytest.mark.parametrize("why", ["it sinks too far", "it is bled", "it is missing", "there is an end of the curve"])
def test_an_answer_that_may_be_another_is_not_taken_down(make_signals: Any, why: str) -> None:
    rack = Rack(make_signals())
    ohm = of_unknown_resistance(rack, 0.0)
    bench = rack.bench
    if why == "it is bled":
        bench.asked[CELL] = 1
        rack.step()
    if why == "it is missing":
        bench.m.cell_v_quality[CELL] = Quality.MISSING
    if why == "there is an end of the curve":
        bench.soc[:] = 0.95
        bench.config.number[y.SPREAD_V_HIGH] = 3.29
    for _ in range(5):
        at_a_step(rack, ohm, 280.0, 0.06 if why == "it sinks too far" else 0.0)
    assert rack.state.change_v2s[CELL] == 0.0
    assert rack.state.change_v2s[3] > 0.0 or why == "there is an end of the curve"


def test_what_a_load_did_not_explain_as_it_came_it_never_does(make_signals: Any) -> None:
    """A short two seconds before the load comes, of which nothing is known; half of it is taken for noticed each second."""
    told_v = []
    for seconds in (0, 2):
        rack = Rack(make_signals())
        ohm = of_unknown_resistance(rack, 0.0)
        for _ in range(seconds):
            at_a_step(rack, ohm, 0.0, 0.05)
        told_v.append(at_a_step(rack, ohm, 280.0, 0.05))
    assert told_v[0] == pytest.approx(0.05 * 22 / 24 - 0.42 * ohm * 280, abs=1e-3)
    assert told_v[1] == pytest.approx(0.05 * 22 / 24 * 0.75, abs=3e-3)


def test_what_has_come_back_explains_again(make_signals: Any) -> None:
    rack = Rack(make_signals())
    ohm = of_unknown_resistance(rack, 0.0)
    for _ in range(3):
        at_a_step(rack, ohm, 0.0, 0.05)
    assert rack.state.before_v[CELL] > 0.03
    at_a_step(rack, ohm, 0.0, 0.0)
    assert rack.state.before_v[CELL] == 0.0


def test_where_cells_are_nearly_empty_no_earlier_answer_counts(make_signals: Any) -> None:
    """Their resistance grows there, that of the emptiest first."""
    told_v = []
    for soc, low_v in ((0.5, 3.0), (0.1, 3.4)):
        rack = Rack(make_signals())
        ohm = of_unknown_resistance(rack, 0.0, -280.0)
        rack.bench.soc[:] = soc
        rack.bench.config.number[y.SPREAD_V_LOW] = low_v
        at_a_step(rack, ohm, -280.0, 0.07)
        told_v.append(at_a_step(rack, ohm, 280.0, 0.07))
        assert (rack.state.before_v[CELL] > 0.0) == (soc == 0.5)
    assert told_v[0] > 0.03 > told_v[1]


def test_what_all_answer_a_load_with_explains_more_than_the_resistance_of_the_type(rack: Rack) -> None:
    """Of an old, cold or empty rack all fall by 0.5 V, twice as much as expected: 15 % of it may be one cell's own."""
    rack.bench.m.cell_v[:] -= 0.5
    rack.bench.model_v[:] -= 0.25
    rack.bench.m.cell_v[CELL] -= 0.06
    rack.step()
    assert rack.bench.value(F.CELL_SAG) == 0.0


def test_a_load_that_goes_sinks_a_cell_with_less_resistance(rack: Rack) -> None:
    """That is never far below the others: 15 %, however little is known."""
    bench = rack.bench
    bench.resistance_std[:] = 0.12
    ohm = float(bench.config.number[y.FAST_OHM] * bench.config.number[y.PER_CELL])
    bench.head["current_a"] = 0.0
    assert rack.run(1, 0.06) == pytest.approx(0.06 * 22 / 24 - 0.15 * ohm * 280, abs=1e-3)


@pytest.mark.parametrize(("mean_v", "soc", "share"), [(2.9, 0.1, 0.15), (3.3, 0.1, 0.0), (2.9, 0.5, 0.0)])
def test_near_empty_what_the_model_lacks_of_all_differs_as_resistances_do(
    make_signals: Any, mean_v: float, soc: float, share: float
) -> None:
    """All are 0.13 V below what the model expects, and one 60 mV more."""
    seen = {}
    for lacks_v in (0.0, 0.13):
        bench = make_signals()
        rack = Rack(bench)
        bench.soc[:], bench.m.cell_v[:], bench.model_v[:] = soc, mean_v, mean_v
        bench.state.number[y.WENT_SOC] = 0.05
        for _ in range(600):
            rack.step()
        bench.model_v[:] += np.float32(lacks_v)
        bench.m.cell_v[CELL] -= np.float32(0.06)
        seen[lacks_v] = rack.step()
    assert seen[0.0] - seen[0.13] == pytest.approx(share * 0.13, abs=5e-4)
