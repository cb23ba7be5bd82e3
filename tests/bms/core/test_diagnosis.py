"""The fault table: debounce against a slow model, latches and their reset, the first cause, what is shown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms.core import diagnosis as d
from bms.core.faults import ABOUT, N_FAULTS, N_TIERS, Context, Fault, Reaction, Row
from hal.contract import N_FAULT_WORDS, NO_INDEX, Severity

f4 = np.float32
ALWAYS = int(Context.ALWAYS)
OVER, UNDER = Fault.CELL_OVERVOLTAGE, Fault.PACK_UNDERVOLTAGE
NOTHING = Reaction.NONE


def row(fault: Fault = OVER, severity: Severity = Severity.FATAL, **changes: Any) -> Row:
    """A row of round numbers: set beyond 3.75 for 1 s, cleared at 3.5 for 2 s; `changes` replace them."""
    above = ABOUT[fault].above
    fields: dict[str, Any] = {
        "threshold": 3.75 if above else 3.5, "clear": 3.5 if above else 3.75, "set_s": 1.0, "clear_s": 2.0,
        "reaction": Reaction.OPEN,
    }  # fmt: skip
    return Row(fault, severity, **(fields | changes))


class Table:
    """A table with its memory; `run` makes one step with the values and places given for its faults."""

    def __init__(self, *rows: Row) -> None:
        self.config = d.diagnosis_config(rows)
        self.state = d.diagnosis_state()

    def run(
        self,
        value: float | dict[Fault, float],
        dt_s: float = 0.5,
        context: int = ALWAYS,
        reset: bool = False,
        service: bool = False,
    ) -> int:
        for fault, seen in (value if isinstance(value, dict) else {OVER: value}).items():
            self.state.value[fault] = seen
        return int(d.diagnose(self.config, self.state, context, reset, service, f4(dt_s)))

    def status(self, fault: Fault = OVER, severity: Severity = Severity.FATAL) -> int:
        return int(self.state.status[N_TIERS * fault + severity - 1])


def test_a_row_is_set_after_its_time_and_cleared_after_its_time() -> None:
    table = Table(row())
    assert [table.run(4.0) for _ in range(2)] == [0, int(Reaction.OPEN)]
    assert [table.run(3.5) for _ in range(4)] == [32, 32, 32, 0]


def test_small_values_are_wrong_where_the_fault_says_so() -> None:
    table = Table(row(UNDER))
    context = int(Context.WINDOW)
    assert [table.run({UNDER: 3.0}, context=context) for _ in range(2)] == [0, 32]
    assert [table.run({UNDER: 3.7}, 1.0, context) for _ in range(3)] == [32, 32, 32]  # between the two
    assert [table.run({UNDER: 3.75}, 1.0, context) for _ in range(2)] == [32, 0]


def test_at_the_threshold_nothing_is_set_yet() -> None:
    table = Table(row(set_s=0.0))
    assert table.run(3.75) == 0
    assert table.run(float(np.nextafter(f4(3.75), f4(4)))) == 32


def test_no_set_time_means_at_once() -> None:
    assert Table(row(set_s=0.0)).run(4.0, 0.01) == 32


def test_a_step_longer_than_the_set_time_sets_at_once() -> None:
    assert Table(row(set_s=1.0)).run(4.0, 1.0) == 32
    assert Table(row(set_s=1.0)).run(4.0, 60.0) == 32


@pytest.mark.parametrize("between", [3.6, 3.5, 0.0, -math.inf])
def test_what_is_not_beyond_takes_back_half_of_its_time(between: float) -> None:
    table = Table(row())
    assert [table.run(x) for x in (4.0, between, 4.0, 4.0)] == [0, 0, 0, 32]
    table = Table(row())  # 0.75 s less half of 0.5 s: another quarter is too little, two are not
    assert [table.run(x, 0.25) for x in (4.0, 4.0, 4.0, between, between, 4.0, 4.0)] == [0] * 6 + [32]


@pytest.mark.parametrize("pause_s", [2.0, 60.0])
def test_what_has_faded_away_asks_for_the_whole_time_again(pause_s: float) -> None:
    table = Table(row(set_s=1.5))
    assert [table.run(x, s) for x, s in ((4.0, 1.0), (3.0, pause_s), (4.0, 1.0))] == [0, 0, 0]
    assert table.run(4.0, 0.5) == 32


def told_s(there_s: int, period_s: int, set_s: float, hours: float = 2.0) -> float:
    """When a value is told that is beyond for the first part of each period, s; infinite: never in two hours."""
    table = Table(row(set_s=set_s, clear_s=60.0))
    for second in range(round(3600 * hours)):
        if table.run(4.0 if second % period_s < there_s else 3.0, 1.0):
            return second + 1.0
    return math.inf


@pytest.mark.parametrize(("set_s", "after_s"), [(5.0, 5.0), (10.0, 16.0), (30.0, 54.0), (60.0, 114.0)])
def test_what_is_there_for_two_thirds_of_the_time_is_told_by_every_row(set_s: float, after_s: float) -> None:
    """Six seconds more in each period of twelve; the rows of the insulation."""
    assert told_s(8, 12, set_s) == after_s


@pytest.mark.parametrize(
    ("there_s", "period_s", "told"), [(1, 2, True), (5, 12, True), (4, 12, False), (1, 3, False), (9, 60, False)]
)
def test_what_is_there_for_more_than_a_third_of_the_time_is_told(there_s: int, period_s: int, told: bool) -> None:
    assert math.isfinite(told_s(there_s, period_s, 10.0)) == told


@pytest.mark.parametrize("there_s", [1, 6, 11])
def test_what_comes_and_goes_is_not_cleared_between(there_s: int) -> None:
    table = Table(row(set_s=0.0, clear_s=12.0))
    assert all(table.run(4.0 if second % 12 < there_s else 3.0, 1.0) for second in range(600))


def test_the_time_towards_clear_is_not_that_towards_set() -> None:
    """A row that has cleared starts from nothing, and so does one that has been set."""
    table = Table(row(set_s=2.0, clear_s=2.0))
    values = [4.0, 4.0, 3.0, 3.0, 4.0, 4.0, 3.0, 4.0, 3.0, 3.0]
    assert [table.run(x, 1.0) != 0 for x in values] == [False, True, True, False, False, True, True, True, True, False]


@pytest.mark.parametrize("outside", [3.6, 4.0, math.inf])
def test_one_sample_that_is_not_inside_starts_the_clear_time_anew(outside: float) -> None:
    table = Table(row(set_s=0.0, clear_s=1.0))
    assert [table.run(x) for x in (4.0, 3.4, outside, 3.4, 3.4)] == [32, 32, 32, 32, 0]


def test_what_is_not_known_holds_the_timers() -> None:
    table = Table(row())
    assert [table.run(x) for x in (4.0, math.nan, math.nan, 4.0)] == [0, 0, 0, 32]
    assert [table.run(x) for x in (3.0, 3.0, 3.0, math.nan, math.nan, 3.0)] == [32, 32, 32, 32, 32, 0]


def test_infinity_is_a_number() -> None:
    table = Table(row(set_s=0.0, clear_s=0.0))
    assert [table.run(x) for x in (math.inf, -math.inf)] == [32, 0]


def test_a_fault_that_does_not_apply_counts_as_inside_whatever_its_value() -> None:
    table = Table(row(UNDER, set_s=0.0, clear_s=1.0))
    for value in (1.0, math.nan):
        assert table.run({UNDER: 1.0}, context=int(Context.WINDOW)) == 32
        assert [table.run({UNDER: value}, context=ALWAYS) for _ in range(2)] == [32, 0]


def test_every_gate_and_direction_is_that_of_the_fault() -> None:
    config = d.diagnosis_config([])
    for fault in Fault:
        assert config.gate[fault] == int(ABOUT[fault].gate)
        assert bool(config.above[fault]) == ABOUT[fault].above


@pytest.mark.parametrize("dt_s", [math.nan, 0.0, -1.0])
def test_no_time_passes_in_a_step_without_length(dt_s: float) -> None:
    table = Table(row(), row(UNDER, set_s=0.0))
    assert [table.run({OVER: 4.0, UNDER: 1.0}, dt_s, int(Context.ALWAYS | Context.WINDOW)) for _ in range(9)] == [
        32
    ] * 9
    assert table.status(OVER) == 0
    assert table.status(UNDER) == d.ACTIVE


def test_endless_steps_stay_finite() -> None:
    table = Table(row(set_s=1e9))
    table.run(4.0, math.inf)
    assert table.state.timer.max() == 1e6  # eleven days, longer than any time of a row
    for _ in range(3):
        table.run(4.0, math.inf)
    assert np.isfinite(table.state.timer).all()


def test_rounding_does_not_ask_for_one_more_sample() -> None:
    table = Table(row(set_s=2.0))
    assert [table.run(4.0, 0.1) for _ in range(20)] == [0] * 19 + [32]


@pytest.mark.parametrize(("dt_s", "reaction"), [(0.9992, 32), (0.9988, 0)])
def test_rounding_gives_away_a_thousandth_of_a_step(dt_s: float, reaction: int) -> None:
    assert Table(row(set_s=1.0)).run(4.0, dt_s) == reaction


def model(values: list[float], steps: list[float], set_s: float, clear_s: float) -> list[bool]:
    """The same rule, sample by sample: slow and obvious."""
    active, run_s, shown = False, 0.0, []
    for value, dt_s in zip(values, steps, strict=True):
        if not math.isnan(value):
            towards = value <= 3.5 if active else value > 3.75
            away_s = 0.0 if active else max(run_s - dt_s / 2, 0.0)
            run_s = run_s + dt_s if towards else away_s
            if towards and run_s >= (clear_s if active else set_s) - 1e-3 * dt_s:
                active, run_s = not active, 0.0
        shown.append(active)
    return shown


@settings(max_examples=150, deadline=None)
@given(
    samples=st.lists(
        st.tuples(st.sampled_from([4.0, 3.6, 3.5, 3.0, math.nan, math.inf, -math.inf, 3.75]), st.integers(1, 480)),
        max_size=60,
    ),
    set_s=st.sampled_from([0.0, 0.25, 1.0, 7.5]),
    clear_s=st.sampled_from([0.0, 0.5, 5.0]),
)
def test_debounce_is_that_of_the_slow_model(samples: list[tuple[float, int]], set_s: float, clear_s: float) -> None:
    """Steps are whole eighths of a second: their sums are exact, so that there is one right answer."""
    values, steps = [v for v, _ in samples], [n / 8 for _, n in samples]
    table = Table(row(set_s=set_s, clear_s=clear_s))
    shown = [table.run(v, s) == int(Reaction.OPEN) for v, s in zip(values, steps, strict=True)]
    assert shown == model(values, steps, set_s, clear_s)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 3.0)), min_size=1, max_size=60))
def test_no_row_clears_before_its_clear_time(samples: list[tuple[bool, float]]) -> None:
    table = Table(row(set_s=0.0, clear_s=5.0))
    inside_s = 0.0
    for inside, dt_s in samples:
        before = table.status()
        table.run(3.0 if inside else 4.0, dt_s)
        inside_s = inside_s + dt_s if inside else 0.0
        if before and not table.status():
            assert inside_s >= 5.0 - 1e-2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 3.0)), min_size=1, max_size=80))
def test_no_row_is_set_before_it_was_beyond_for_its_set_time_in_all(samples: list[tuple[bool, float]]) -> None:
    table = Table(row(set_s=5.0, clear_s=1e6))
    beyond_s = longest_s = run_s = 0.0
    for beyond, dt_s in samples:
        before = table.status()
        table.run(4.0 if beyond else 3.0, dt_s)
        beyond_s += dt_s if beyond else 0.0
        run_s = run_s + dt_s if beyond else 0.0
        longest_s = max(longest_s, run_s)
        if not before and table.status():
            assert beyond_s >= 5.0 - 1e-2
    assert table.status() or longest_s < 5.0 + 1e-2


# latches


def latched(*changes: Reaction) -> Table:
    """A row that latches, set and no longer active."""
    reaction = Reaction.OPEN | Reaction.LATCH
    for extra in changes:
        reaction |= extra
    table = Table(row(set_s=0.0, clear_s=0.0, reaction=reaction))
    table.run(4.0)
    assert table.status() == d.ACTIVE | d.LATCHED
    table.run(3.0)
    assert table.status() == d.LATCHED
    return table


def test_a_latched_row_stays_until_it_is_reset() -> None:
    table = latched()
    assert all(table.run(3.0, 60.0) & Reaction.OPEN for _ in range(5))
    assert table.run(3.0, reset=True) == 0
    assert table.status() == 0
    assert table.state.word[d.REFUSED] == 0


def test_a_row_without_latch_needs_no_reset_and_hears_none() -> None:
    table = Table(row(set_s=0.0))
    assert table.run(4.0, reset=True) == 32
    assert table.state.word[d.REFUSED] == 0


@pytest.mark.parametrize("value", [4.0, 3.6, math.nan, math.inf])
def test_a_reset_is_refused_while_the_cause_is_there_or_not_known_to_be_gone(value: float) -> None:
    table = latched()
    assert table.run(value, reset=True) & Reaction.OPEN
    assert table.status() & d.LATCHED
    assert table.state.word[d.REFUSED] == 1
    table.run(3.0)
    assert table.state.word[d.REFUSED] == 1  # what the last reset left is still shown
    table.run(3.0, reset=True)
    assert table.status() == 0
    assert table.state.word[d.REFUSED] == 0


def test_a_reset_is_refused_while_the_row_is_active_although_the_value_is_back() -> None:
    table = Table(row(set_s=0.0, clear_s=10.0, reaction=Reaction.LATCH))
    table.run(4.0)
    table.run(3.0, reset=True)
    assert table.status() == d.ACTIVE | d.LATCHED
    assert table.state.word[d.REFUSED] == 1


def test_a_row_for_service_is_reset_in_service_only() -> None:
    table = latched(Reaction.SERVICE)
    assert table.run(3.0, reset=True) != 0
    assert table.state.word[d.REFUSED] == 1
    assert table.run(3.0, reset=False, service=True) != 0
    assert table.run(3.0, reset=True, service=True) == 0


def test_a_row_that_is_set_again_while_latched_is_active_again() -> None:
    table = latched()
    table.run(4.0)
    assert table.status() == d.ACTIVE | d.LATCHED


def test_a_fault_that_does_not_apply_any_more_can_be_reset() -> None:
    table = Table(row(UNDER, set_s=0.0, clear_s=0.0, reaction=Reaction.LATCH))
    table.run({UNDER: 1.0}, context=int(Context.WINDOW))
    table.run({UNDER: math.nan}, context=ALWAYS)
    table.run({UNDER: math.nan}, context=ALWAYS, reset=True)
    assert table.status(UNDER) == 0


# cause, reactions, what is shown


def test_the_first_fatal_row_is_the_cause_until_none_is_left() -> None:
    a, b = Fault.CHARGE_HOT, OVER
    context = int(Context.ALWAYS | Context.CHARGING)
    table = Table(
        *(row(f, s, set_s=0.0, clear_s=0.0, reaction=Reaction.LATCH) for f in (a, b) for s in list(Severity)[2:])
    )
    table.state.where[a], table.state.where[b] = 7, 9
    table.run({a: 3.0, b: 3.0}, context=context)
    assert list(table.state.word) == [0, NO_INDEX, 0]
    assert table.state.number[d.CAUSE_VALUE] == 0
    table.run({a: 60.0}, context=context)
    table.state.where[a] = 8
    table.run({a: 61.0, b: 4.0}, context=context)
    assert table.state.word[d.CAUSE] == 10 * a + Severity.FATAL
    assert table.state.word[d.CAUSE_INDEX] == 7
    assert table.state.number[d.CAUSE_VALUE] == 60.0
    table.run({a: 3.0}, context=context, reset=True)  # the other one is still there, and takes its place
    assert table.state.word[d.CAUSE] == 10 * b + Severity.FATAL
    assert (table.state.word[d.CAUSE_INDEX], table.state.number[d.CAUSE_VALUE]) == (9, 4.0)
    table.run({b: 3.0}, context=context, reset=True)
    assert list(table.state.word) == [0, NO_INDEX, 0]
    assert table.state.number[d.CAUSE_VALUE] == 0
    table.run({b: 5.0}, context=context)
    assert table.state.word[d.CAUSE] == 10 * b + Severity.FATAL
    assert table.state.word[d.CAUSE_INDEX] == 9


def test_of_rows_that_come_together_the_one_that_explains_is_the_cause() -> None:
    """A broken wire shows as over-voltage in the same sample; what comes later explains nothing any more."""
    a, b, c = Fault.CELL_OVERVOLTAGE, Fault.OPEN_SENSE_WIRE, Fault.MODEL_RESIDUAL
    table = Table(*(row(f, Severity.FATAL, set_s=0.0, clear_s=0.0, reaction=Reaction.LATCH) for f in (a, b, c)))
    table.state.where[a], table.state.where[b] = 7, 9
    table.run({a: 60.0, b: 61.0, c: 1.0})
    assert table.state.word[d.CAUSE] == 10 * b + Severity.FATAL
    assert (table.state.word[d.CAUSE_INDEX], table.state.number[d.CAUSE_VALUE]) == (9, 61.0)
    table.run({a: 60.0, b: 61.0, c: 70.0})
    assert table.state.word[d.CAUSE] == 10 * b + Severity.FATAL


@pytest.mark.parametrize("severity", [Severity.INFO, Severity.WARNING])
def test_only_fatal_rows_are_a_cause(severity: Severity) -> None:
    """Not even one that is looked at earlier in the same step."""
    table = Table(row(severity=severity, set_s=0.0), row(Fault.ESTIMATE_INVALID, set_s=0.0))
    table.run(4.0)
    assert table.state.word[d.CAUSE] == 0
    table.run({OVER: 3.0}, 60.0)
    table.run({OVER: 4.0, Fault.ESTIMATE_INVALID: 9.0})
    assert table.state.word[d.CAUSE] == 10 * Fault.ESTIMATE_INVALID + Severity.FATAL


@pytest.mark.parametrize("value", [math.nan, 4.0, 3.6])
@pytest.mark.parametrize("unset", [Fault.CELL_OVERVOLTAGE, Fault.ESTIMATE_INVALID])
def test_a_fatal_row_that_is_not_set_is_no_cause(unset: Fault, value: float) -> None:
    """Looked at ahead of those that are set, or behind them; its value is not known, on the way, or between."""
    a, b = Fault.SHORT_CIRCUIT, Fault.OPEN_SENSE_WIRE
    table = Table(row(unset), row(a, set_s=0.0), row(b, set_s=0.0))
    table.run({unset: value, a: 8.0, b: 9.0})
    assert table.state.word[d.CAUSE] == 10 * b + Severity.FATAL
    assert table.state.number[d.CAUSE_VALUE] == 9.0


def test_the_first_of_those_that_remain_takes_its_place() -> None:
    """By the number of the fault, up to the last there is; a warning is none."""
    first, a, b, last = Fault.INTERLOCK_OPEN, Fault.SHORT_CIRCUIT, Fault.OPEN_SENSE_WIRE, max(Fault)
    latch = {"set_s": 0.0, "clear_s": 0.0, "reaction": Reaction.LATCH}
    rows = [row(f, **latch) for f in (first, a, b, last)]
    table = Table(*rows, row(OVER, Severity.WARNING, **latch))
    context = ALWAYS | int(ABOUT[last].gate)
    table.run({first: 9.0}, context=context)
    table.state.where[[a, b, last]] = 4, 5, 6
    table.run({a: 10.0, b: 11.0, last: 12.0, OVER: 13.0}, context=context)
    assert table.state.word[d.CAUSE] == 10 * first + Severity.FATAL
    table.run({first: 0.0}, context=context, reset=True)
    assert [table.status(f) for f in (first, a, b, last)] == [0, 3, 3, 3]
    assert table.state.word[d.CAUSE] == 10 * a + Severity.FATAL
    assert (table.state.word[d.CAUSE_INDEX], table.state.number[d.CAUSE_VALUE]) == (4, 10.0)
    table.run({a: 0.0, b: 0.0}, context=context, reset=True)
    assert table.state.word[d.CAUSE] == 10 * last + Severity.FATAL
    assert (table.state.word[d.CAUSE_INDEX], table.state.number[d.CAUSE_VALUE]) == (6, 12.0)


@pytest.mark.parametrize("word", [10 * N_FAULTS + 3, 10 * N_FAULTS + 13, 2**32 - 1])
def test_a_cause_that_is_no_fault_is_forgotten(word: int) -> None:
    """Damaged memory; nothing is read behind the end of the table."""
    table = Table(row(set_s=0.0))
    table.run(4.0)
    table.state.word[d.CAUSE] = word
    table.run(4.0)
    assert table.state.word[d.CAUSE] == 10 * OVER + Severity.FATAL


def test_a_cause_lasts_as_long_as_fatal_rows_and_no_longer() -> None:
    """Whether rows of other severities are there does not matter."""
    table = Table(row(set_s=0.0, clear_s=0.0), row(Fault.INTERLOCK_OPEN, Severity.WARNING, set_s=0.0))
    for seen, cause in (
        ({OVER: 4.0}, 10 * OVER + 3),
        ({}, 10 * OVER + 3),
        ({Fault.INTERLOCK_OPEN: 9.0}, 10 * OVER + 3),
    ):
        table.run(seen)
        assert table.state.word[d.CAUSE] == cause
    table.run({OVER: 3.0})
    assert table.status(Fault.INTERLOCK_OPEN, Severity.WARNING) == d.ACTIVE
    assert table.state.word[d.CAUSE] == 0


def test_reactions_of_all_rows_add_up() -> None:
    table = Table(
        row(severity=Severity.INFO, set_s=0.0, reaction=Reaction.COOL),
        row(severity=Severity.WARNING, set_s=0.0, threshold=3.9, reaction=Reaction.DERATE | Reaction.NO_CHARGE),
        row(severity=Severity.FATAL, set_s=0.0, threshold=4.1, reaction=Reaction.OPEN),
    )
    assert table.run(3.8) == Reaction.COOL
    assert table.run(4.0) == Reaction.COOL | Reaction.DERATE | Reaction.NO_CHARGE
    assert table.run(4.2) == Reaction.COOL | Reaction.DERATE | Reaction.NO_CHARGE | Reaction.OPEN


def test_bits_and_severity_of_what_is_shown() -> None:
    table = Table(
        row(severity=Severity.INFO, set_s=0.0, reaction=NOTHING),
        row(Fault.INTERLOCK_OPEN, Severity.WARNING, set_s=0.0, reaction=NOTHING),
        row(Fault.ESTIMATE_INVALID, Severity.FATAL, set_s=0.0, clear_s=0.0, reaction=Reaction.LATCH),
    )
    words = [np.full(N_FAULT_WORDS, 0xFFFFFFFF, np.uint32) for _ in range(3)]

    def shown() -> list[set[int]]:
        self_bits = [sum(int(word) << 32 * k for k, word in enumerate(severity)) for severity in words]
        return [{k for k in range(32 * N_FAULT_WORDS) if bits >> k & 1} for bits in self_bits]

    assert d.fault_bits(table.state, *words) == 0
    assert shown() == [set(), set(), set()]
    assert d.worst(table.state) == Severity.NONE
    table.run({OVER: 4.0})
    assert d.fault_bits(table.state, *words) == 1
    assert shown() == [{OVER}, set(), set()]
    assert d.worst(table.state) == Severity.INFO
    table.run({Fault.INTERLOCK_OPEN: 9.0})
    assert d.worst(table.state) == Severity.WARNING
    table.run({Fault.ESTIMATE_INVALID: 9.0})
    table.run({Fault.ESTIMATE_INVALID: 0.0})  # latched only
    assert d.fault_bits(table.state, *words) == 3
    assert shown() == [{OVER}, {Fault.INTERLOCK_OPEN}, {Fault.ESTIMATE_INVALID}]
    assert d.worst(table.state) == Severity.FATAL


@pytest.mark.parametrize("fault", Fault, ids=lambda f: f.name)
def test_every_fault_has_its_bit(fault: Fault) -> None:
    table = Table(*(row(fault, s, set_s=0.0) for s in list(Severity)[1:]))
    table.run({fault: 9.0 if ABOUT[fault].above else 1.0}, context=0xFFFF)
    words = [np.zeros(N_FAULT_WORDS, np.uint32) for _ in range(3)]
    assert d.fault_bits(table.state, *words) == 3
    for severity in words:
        assert sum(int(word) << 32 * k for k, word in enumerate(severity)) == 1 << fault


def test_values_of_faults_without_rows_are_not_looked_at() -> None:
    table = Table()
    table.state.value[:] = math.inf
    assert table.run(math.inf, 60.0, context=0xFFFF) == 0
    assert not table.state.status.any()
    assert not table.state.timer.any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32), min_size=N_FAULTS, max_size=N_FAULTS), st.floats(width=32), st.integers(0, 511))
def test_any_value_leads_to_a_defined_state(values: list[float], dt_s: float, context: int) -> None:
    rows = [
        row(f, s, threshold=1.0 if ABOUT[f].above else -1.0, clear=0.0, set_s=0.0)
        for f in Fault
        for s in list(Severity)[1:]
    ]
    table = Table(*rows)
    table.state.value[:] = values
    d.diagnose(table.config, table.state, context, True, True, f4(dt_s))
    assert np.isfinite(table.state.timer).all()
    assert table.state.status.max() <= d.ACTIVE
    for fault in Fault:
        beyond = values[fault] > 1.0 if ABOUT[fault].above else values[fault] < -1.0
        applies = bool(ABOUT[fault].gate & context)
        assert [table.status(fault, s) for s in list(Severity)[1:]] == [int(beyond and applies)] * 3


def test_fresh_memory_knows_nothing() -> None:
    state = d.diagnosis_state()
    for array in state:
        array[:] = 1
    d.diagnosis_init(state)
    assert np.isnan(state.value).all()
    assert (state.where == NO_INDEX).all()
    assert not state.timer.any()
    assert not state.status.any()
    assert list(state.word) == [0, NO_INDEX, 0]
    assert not state.number.any()


def test_fields_are_those_of_the_arrays() -> None:
    for fields, arrays in ((d.CONFIG_FIELDS, Table(row()).config), (d.STATE_FIELDS, d.diagnosis_state())):
        for field, array in zip(fields, arrays, strict=True):
            assert array.dtype == np.dtype(field.kind), field.name
            assert array.size == int(np.prod([int(x) for x in field.dims.split("*")])), field.name


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(severity=Severity.NONE)], "CELL_OVERVOLTAGE: a row needs a severity"),
        ([row(), row()], "CELL_OVERVOLTAGE FATAL: there are two rows"),
        ([row(threshold=math.nan)], "numbers, and times >= 0"),
        ([row(clear=math.nan)], "numbers, and times >= 0"),
        ([row(set_s=-1.0)], "numbers, and times >= 0"),
        ([row(clear_s=-1.0)], "numbers, and times >= 0"),
    ],
)
def test_wrong_rows_are_refused(rows: list[Row], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        d.diagnosis_config(rows)
