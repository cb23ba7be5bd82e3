"""A small twin under the whole controller, with something wrong: what the tests of the reactions try out.

A `Trial` is one run: a rack of 16 cells, faults of the twin, damage by `Chaos`, requests. It notes of each step what was
decided and what is really so. Commands go to the twin, which raises for those that no rack could follow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

from bms.core.diagnosis import ACTIVE
from bms.core.faults import ABOUT, Fault, Reaction, Row, row_id
from bms.core.layout import Config
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.racks import RackConfig
from bms.racks.tables import merged
from bms.runtime.clock import VirtualClock
from bms.runtime.run import configuration, first_guess, rack_config
from bms.runtime.scenario import Scenario
from hal.backends.chaos import Change, Chaos
from hal.contract import COMMAND, NO_INDEX, Command, Constraint, Contactor, Measurement, RackState, Severity
from hal.registry import open_rack
from sim import layout as twin

MAINS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE)
CONNECTED_S = 40.0
"""At a step a second: the contactors close within 12 s, and the limits have risen 20 s later."""

# where cells are damaged: nothing may lead there before the contactors are open
DAMAGE_HIGH_V = 0.1  # above v_max; GB 44240-2024 8.3 goes to 1.1 times of it
DAMAGE_LOW_V = 0.5  # below v_min: copper dissolves
DAMAGE_K = 10.0  # above the hottest temperature allowed; runaway is far beyond
DAMAGE_C = 3.3  # what the fuse leaves

_FLOATS = [f.name for f in COMMAND.fields if f.kind in ("f4", "f8")]


class Moment(NamedTuple):
    """A step: what was decided, and what had really been so just before."""

    time_s: float
    state: RackState
    asked: int
    path: bool  # both mains are closed, now that the command was written
    discharge_a: float
    charge_a: float
    cause: int
    cause_index: int
    cause_value: float
    bits: tuple[int, int, int]  # of the faults shown: info, warning, fatal
    value: Any
    where: Any
    cooling_degc: float
    bled: int
    refused: int
    reason: Any
    reason_index: Any
    true_v: tuple[float, float]
    true_degc: float
    true_a: float

    def shows(self, fault: Fault, severity: Severity) -> bool:
        """Whether this row is active or latched."""
        return bool(self.bits[severity - 1] >> int(fault) & 1)

    def shown(self, severity: Severity) -> set[Fault]:
        """The faults with an active or latched row of this severity."""
        return {fault for fault in Fault if self.shows(fault, severity)}


def _word(words: Any) -> int:
    return sum(int(word) << 32 * k for k, word in enumerate(words))


_KNOWN: dict[str, tuple[Any, RackConfig, Config]] = {}


def _configured(scenario: Scenario, info: Any) -> tuple[Any, RackConfig, Config]:
    """Cell, settings and record, remembered: to read and parse the files takes longer than a trial."""
    key = json.dumps([scenario.period_s, scenario.config, scenario.controller, info.name, info.n_cells])
    if key not in _KNOWN:
        cell, record = configuration(scenario, info)
        _KNOWN[key] = cell, rack_config(scenario, info), record
    return _KNOWN[key]


class Trial:
    """A rack and its controller, step by step. `log` has a `Moment` for each."""

    def __init__(
        self,
        *,
        kind: str = "lfp_280",
        period_s: float = 1.0,
        controller: Mapping[str, Any] | None = None,
        faults: Sequence[Mapping[str, Any]] = (),
        changes: Sequence[Change] = (),
        rack: Mapping[str, Any] | None = None,
        duty: Mapping[str, Any] | None = None,
        sensors: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        initial_soc: float | None = None,
        initial_soc_std: float | None = None,
        prepare: Callable[[Trial], None] | None = None,
        unknown: bool = False,
        echo: bool = False,
        seed: int = 0,
    ) -> None:
        """`controller`: changes of the configuration. `prepare` is called before the first step. `unknown`: the SoC may
        be told as not a number. `echo`: so may the time, which is that of the measurement.
        """
        tables: dict[str, Any] = {
            "rack": {"n_series": 16, "module_groups": 16, "seed": 3, **(rack or {})},
            "duty": {"kind": "constant", **(duty or {})},
            "fault": [dict(fault) for fault in faults],
        }
        for name, table in (("sensors", sensors), ("environment", environment)):
            if table:
                tables[name] = dict(table)
        scenario = Scenario(
            name="trial",
            rack=f"sim:{kind}",
            period_s=period_s,
            controller=controller or {},
            initial_soc=initial_soc,
            initial_soc_std=initial_soc_std,
            tables=tables,
        )
        self.period_s, self._unknown, self._echo = period_s, unknown, echo
        self.clock = VirtualClock()
        self.twin: Any = open_rack(scenario.rack, clock=self.clock, options=tables)
        self.rack: Any = Chaos(self.twin, changes, seed) if changes else self.twin
        self.rack.open()
        info = self.info = self.rack.info
        cell, self.settings, record = _configured(scenario, info)
        self.cell = cell
        self.config = Config(info.n_cells, info.n_sensors)
        self.config.copy_from(record)  # so that a trial may damage its own
        measurement = self.measurement = Measurement(info.n_cells, info.n_sensors)
        command = self.command = Command(info.n_cells, info.n_sensors)
        self.rack.read(measurement)
        soc, std = first_guess(scenario, cell, measurement.raw[0], info)
        self.controller = Controller(self.config, initial_state(self.config, soc, std), measurement, command)
        self.state = self.controller.state
        self.rows = {(row.fault, row.severity): row for row in self.settings.rows}
        self.log: list[Moment] = []
        self._last_s = -period_s
        if prepare is not None:
            prepare(self)

    def row(self, fault: Fault, severity: Severity) -> Row:
        """A row of the table."""
        return self.rows[fault, severity]

    @property
    def next_s(self) -> float:
        """Time of the next step."""
        return self._last_s + self.period_s

    def step(self, request: Request = Request.CONNECT, late_s: float = 0.0) -> Moment:
        """One step, `late_s` after its time."""
        now_s = self._last_s + self.period_s + late_s
        self.clock.wait_until(now_s, lambda: False)
        dt_s, self._last_s = now_s - self._last_s, now_s
        self.rack.read(self.measurement)
        self.controller.step(request, dt_s)
        self.rack.write(self.command)
        moment = self._moment(now_s)
        self.log.append(moment)
        return moment

    def run(self, until_s: float, request: Request = Request.CONNECT) -> Moment:
        """Steps as long as they are before `until_s`, and at least one."""
        moment = self.step(request)
        while self._last_s + self.period_s < until_s - 1e-6:
            moment = self.step(request)
        return moment

    def connected(self, until_s: float = CONNECTED_S) -> Moment:
        """Run to `until_s`; the rack must be in use then, and nothing wrong."""
        moment = self.run(until_s)
        assert moment.state == RackState.CONNECTED
        assert not moment.shown(Severity.FATAL)
        return moment

    def first(self, wanted: Callable[[Moment], bool], since_s: float = -1.0) -> Moment | None:
        """The first step from `since_s` on that is as `wanted`."""
        return next((m for m in self.log if m.time_s >= since_s - 1e-6 and wanted(m)), None)

    def ledger(self, row: Row, appeared_s: float) -> dict[str, Any]:
        """How a row was reached, times in s since the fault appeared; NaN for what did not happen."""
        hit = self.first(lambda m: m.shows(row.fault, row.severity))
        opened = None if hit is None else self.first(lambda m: m.asked == 0, hit.time_s)
        contacts_s = self.settings.machine.contactor_actuation_s
        return {
            "id": row.id,
            "detected_s": math.nan if hit is None else hit.time_s - appeared_s,
            "opened_s": math.nan if opened is None else opened.time_s + contacts_s - appeared_s,
            "ftti_s": math.nan if row.ftti_s is None else row.ftti_s,
        }

    def _moment(self, now_s: float) -> Moment:
        head, command, state = self.command.head[0], self.command, self.state
        for name in _FLOATS:
            value = head[name] if name in COMMAND.head_dtype.names else getattr(command, name)
            if (
                name in _MAY_BE_ENDLESS
                or (self._unknown and name.startswith("soc"))
                or (self._echo and name == "time_s")
            ):
                continue
            assert np.isfinite(value).all(), (now_s, name, value)
        volts = self.twin.twin.levels[twin.V_NOW]
        return Moment(
            now_s,
            RackState(int(head["state"])),
            int(head["contactors"]),
            self.twin.contactors_closed & MAINS == MAINS,
            float(head["limit_discharge_a"]),
            float(head["limit_charge_a"]),
            int(head["cause"]),
            int(head["cause_index"]),
            float(head["cause_value"]),
            (_word(command.fault_info), _word(command.fault_warning), _word(command.fault_fatal)),
            state.fault_value.copy(),
            state.fault_where.copy(),
            float(head["cooling_degc"]),
            int(command.balance.sum()),
            int(head["reset_refused"]),
            command.reason.copy(),
            command.reason_index.copy(),
            (float(volts.min()), float(volts.max())),
            float(self.twin.twin.cells[twin.C_DEGC].max()),
            float(self.twin.twin.string[twin.S_AMPERE]),
        )

    def check_truth(self, until_s: float = math.inf) -> None:
        """No cell came near damage while the contactors were closed."""
        limits = self.cell.limits
        most_a = DAMAGE_C * self.info.capacity_ah
        before = self.log[0]
        for m in self.log:
            if before.path and m.time_s <= until_s:
                low, high = m.true_v
                assert limits.v_min - DAMAGE_LOW_V <= low, (m.time_s, low)
                assert high <= limits.v_max + DAMAGE_HIGH_V, (m.time_s, high)
                assert m.true_degc <= limits.degc_max + DAMAGE_K, (m.time_s, m.true_degc)
                assert abs(m.true_a) <= most_a, (m.time_s, m.true_a)
            before = m

    def check_limits(self, row: Row, at: Moment) -> None:
        """What `row` demands of limits, balancing and coolant holds from `at` on, where it was first shown."""
        settings, demanded = self.settings, row.reaction
        k = next(k for k, m in enumerate(self.log) if m.time_s == at.time_s)
        before, ramp_s = self.log[max(k - 1, 0)], settings.limits.ramp_s
        shown = [m for m in self.log[k:] if m.shows(row.fault, row.severity)]
        for name, bit in (("discharge_a", Reaction.NO_DISCHARGE), ("charge_a", Reaction.NO_CHARGE)):
            limit_a, rated_a = getattr(at, name), getattr(settings.basis, name)
            if demanded & Reaction.DERATE:
                assert limit_a <= settings.limits.derate * rated_a * 1.001
                assert limit_a <= max(getattr(before, name), 0.01 * rated_a)
            if demanded & bit:
                # the ramp is of the whole limit, and each step takes its share of it
                for m in shown:
                    left = max(1.0 - (m.time_s - at.time_s) / ramp_s, 0.0)
                    assert getattr(m, name) <= left * rated_a * 1.001, (m.time_s, name)
        if demanded & Reaction.NO_BALANCING:
            assert all(m.bled == 0 for m in shown)
        if demanded & Reaction.COOL:
            assert all(m.cooling_degc == pytest.approx(settings.cooling.min_degc) for m in shown)


_MAY_BE_ENDLESS = ("reason_value", "reason_margin", "cause_value")


AT_S = 39.01
"""When most faults appear: just after a sample, the worst moment; hardware breaks at the sample before."""
LIMITING = Reaction.DERATE | Reaction.NO_CHARGE | Reaction.NO_DISCHARGE


@dataclass(frozen=True)
class Case:
    """How to provoke a fault, and what to expect.

    `wrong`: faults of the twin, `changes`: of `Chaos`, from AT_S until well after the reaction, unless they say
    otherwise. `poke`: what is done to the controller's own memory, and when. `asks`: what is requested, and from when;
    to connect, before. `late`: a step that comes late, by how much. `reaches`: the highest tier; `where` and `value`
    are told of it. `watch_s`: for so long it is waited for.
    `slow`: physics takes its time, so that time counts from when the value is beyond the threshold, not from AT_S.
    `holds`: the cause is still there once the contactors are open. `ends`: it can go away. `shut`: the contactors are
    open anyway. `early`: it is there from the start. `parts`: the contacts still do. `by_itself`: it ends with what it
    ended. `lingers_s`: for so long filters, or heat, go on after the cause. `again`: the rack can be used afterwards.
    """

    fault: Fault
    reaches: Severity = Severity.FATAL
    wrong: Sequence[Mapping[str, Any]] = ()
    changes: Sequence[Mapping[str, Any]] = ()
    poke: tuple[float, Callable[[Any], None]] | None = None
    setup: Mapping[str, Any] = field(default_factory=dict)
    asks: Sequence[tuple[float, Request]] = ()
    late: tuple[float, float] | None = None
    where: int = NO_INDEX
    value: tuple[float, float] = (-math.inf, math.inf)
    watch_s: float = 40.0
    slow: bool = False
    holds: bool = True
    ends: bool = True
    shut: bool = False
    early: bool = False
    parts: bool = True
    by_itself: bool = False
    lingers_s: float = 0.0
    again: bool = True


def _at_s(kind: str) -> float:
    """What is measured goes wrong in a sample, hardware with a step of the physics that begins."""
    hardware = ("pcs", "contactor", "link", "precharge", "cell_leak", "cell_heat", "bleed_stuck", "coolant_stop")
    return math.floor(AT_S) if kind.startswith((*hardware, "coolant_hot")) else AT_S


def _play(case: Case, **setup: Any) -> tuple[Trial, Request, float]:
    """Run a case until its reaction must be there; `setup` replaces keys of the case's own."""
    ends_s = AT_S + case.watch_s + 80.0
    t = Trial(
        faults=[{"at_s": _at_s(wrong["kind"]), "until_s": ends_s, **wrong} for wrong in case.wrong],
        changes=[Change(**{"from_s": AT_S, "until_s": ends_s, **change}) for change in case.changes],
        unknown=case.fault == Fault.ESTIMATE_INVALID,
        **{**case.setup, **setup},
    )
    asks, late, poke, request = list(case.asks), case.late, case.poke, Request.CONNECT
    while t.next_s <= AT_S + case.watch_s:
        while asks and asks[0][0] <= t.next_s:
            request = asks.pop(0)[1]
        if poke is not None and poke[0] <= t.next_s:
            poke[1](t)
            poke = None
        late_s = 0.0
        if late is not None and late[0] <= t.next_s:
            late_s, late = late[1], None
        t.step(request, late_s)
    return t, request, ends_s


def _appeared_s(case: Case, t: Trial) -> float:
    """When the fault was there to be seen."""
    if not (case.slow or case.early or case.shut):
        return AT_S
    row = t.row(case.fault, case.reaches)
    sign = 1.0 if ABOUT[case.fault].above else -1.0
    seen = t.first(lambda m: sign * m.value[case.fault] > sign * row.threshold)
    assert seen is not None
    return float(seen.time_s)


def check_reaction(**about: Any) -> None:
    """A case (see `Case`) goes as far as it should, in time, is told with place and value, and ends as it should."""
    case = Case(**about)
    t, request, ends_s = _play(case)
    row = t.row(case.fault, case.reaches)
    hit = t.first(lambda m: m.shows(case.fault, case.reaches))
    assert hit is not None, "not seen"
    if not case.shut:
        in_use = t.first(lambda m: m.state == RackState.CONNECTED)
        assert in_use is not None
        assert in_use.time_s < max(hit.time_s, AT_S)

    # explained
    assert hit.where[case.fault] == case.where
    low, high = case.value
    assert low <= hit.value[case.fault] <= high
    if case.reaches == Severity.FATAL:
        assert hit.cause == row_id(case.fault, Severity.FATAL)
        assert hit.cause_index == case.where
        assert hit.cause_value == pytest.approx(hit.value[case.fault], rel=1e-6)
        assert t.log[-1].cause in (hit.cause, 0 if not row.reaction & Reaction.LATCH else hit.cause)
    if row.reaction & LIMITING and case.reaches == Severity.WARNING:
        told = {
            int(index)
            for m in t.log
            for why, index in zip(m.reason, m.reason_index, strict=True)
            if why == Constraint.FAULT
        }
        assert row.id in told

    # done
    t.check_limits(row, hit)
    if row.reaction & Reaction.OPEN:
        assert hit.asked == 0
    if case.reaches == Severity.FATAL:
        ramp_s = t.settings.machine.ramp_time_out_s + t.period_s
        opened = t.first(lambda m: m.asked == 0, hit.time_s)
        assert opened is not None
        assert opened.time_s <= hit.time_s + ramp_s
        assert all(m.asked == 0 for m in t.log if m.time_s >= opened.time_s and m.shows(case.fault, Severity.FATAL))
        # in time: the contacts part once they are asked to
        assert row.ftti_s is not None
        entry = t.ledger(row, _appeared_s(case, t))
        assert entry["opened_s"] <= entry["ftti_s"], entry
        if case.parts:
            assert not opened.path
    else:
        assert t.first(lambda m: m.shows(case.fault, Severity.FATAL)) is None
    t.check_truth()
    if case.reaches == Severity.WARNING and row.reaction & Reaction.NO_CLOSE:
        t.run(t.next_s + 30.0, Request.OPEN)
        since = len(t.log)
        t.run(t.next_s + 40.0, Request.CONNECT)
        assert all(m.asked == 0 for m in t.log[since:])
    _reset(case, t, row, request, ends_s)


def _fades_s(t: Trial, row: Row, ends_s: float) -> float:
    """How long the time without a source takes to fall to where its row clears, back at `ends_s`; 0 for other faults."""
    if row.fault == Fault.SAMPLE_LOST or not (
        row.fault.name.endswith("_LOST") or row.fault == Fault.INSULATION_INVALID
    ):
        return 0.0
    fade_s = 4.0 / 3.0 * min(r.threshold for r in t.settings.rows if r.fault == row.fault)
    lost_s = max(float(t.state.fault_value[row.fault]) + ends_s - t.next_s + 2.0 * t.period_s, row.clear)
    return math.log(lost_s / row.clear) / math.log(1.0 + t.period_s / fade_s) + t.period_s


def _reset(case: Case, t: Trial, row: Row, request: Request, ends_s: float) -> None:
    """A latched row is not reset while its cause is there, and is afterwards; others go by themselves, in their time."""
    latched, settle_s = bool(row.reaction & Reaction.LATCH), 5.0 * t.period_s
    gone_s = ends_s + row.clear_s + settle_s + case.lingers_s + _fades_s(t, row, ends_s)
    then = request if request == Request.TRANSPORT else Request.CONNECT

    def shown(m: Moment) -> bool:
        return m.shows(case.fault, case.reaches)

    if latched and (case.holds or not case.ends):
        assert t.state.fault_status[3 * case.fault + case.reaches - 1] & ACTIVE
        refused = t.step(Request.RESET)
        assert shown(refused)
        assert refused.refused >= 1
        assert refused.asked == 0
    if not case.ends:
        return
    if not latched:
        if case.by_itself:
            return
        last = t.run(ends_s + row.clear_s - 2.0 * t.period_s, then)
        assert row.clear_s < 5.0 * t.period_s or shown(last)
        assert not shown(t.run(gone_s, then))
        return
    # the cause goes, the row stays, and nothing closes
    t.run(ends_s, request)
    since = len(t.log)
    assert shown(t.run(gone_s, then))
    assert all(m.asked == 0 for m in t.log[since:])
    if row.reaction & Reaction.SERVICE:
        assert shown(t.step(Request.RESET))
        assert t.run(t.next_s + settle_s, Request.MAINTENANCE).state == RackState.MAINTENANCE
    assert not shown(t.step(Request.RESET))
    # and the rack can be used again, once what came with it has gone, too
    if not case.shut and case.again:
        t.run(t.next_s + 400.0, Request.MAINTENANCE)
        t.run(t.next_s + settle_s, Request.RESET)
        again = t.run(t.next_s + 60.0)
        assert again.state == RackState.CONNECTED
        assert again.cause == 0


def check_warning(**about: Any) -> None:
    """Without the fatal tier, what the warning of a case demands is in force until something else opens."""
    case = Case(**about)
    name = case.fault.name.lower()
    tables = merged(case.setup.get("controller", {}), {"fault": {name: {"fatal": {"enabled": False}}}})
    t, _, _ = _play(case, controller=tables)
    row = t.row(case.fault, Severity.WARNING)
    hit = t.first(lambda m: m.shows(case.fault, Severity.WARNING))
    assert t.first(lambda m: m.shows(case.fault, Severity.FATAL)) is None
    assert hit is not None
    assert hit.where[case.fault] in (case.where, NO_INDEX)
    t.check_limits(row, hit)
    t.check_truth(until_s=hit.time_s)
    if row.reaction & Reaction.NO_CLOSE:
        opened = t.run(t.next_s + 30.0, Request.OPEN)
        assert opened.asked == 0
        since = len(t.log)
        t.run(t.next_s + 30.0, Request.CONNECT)
        assert not any(m.path for m in t.log[since:])


@pytest.fixture(scope="session")
def trial() -> type[Trial]:
    """`Trial`, to be made with what is wrong."""
    return Trial


@pytest.fixture(scope="session")
def reacts() -> Callable[..., None]:
    """`check_reaction`."""
    return check_reaction


@pytest.fixture(scope="session")
def warns() -> Callable[..., None]:
    """`check_warning`."""
    return check_warning
