"""The ledger: for each expected row, inject -> detect -> react -> contactors open against the budget; and what failed.

All times of the ledger are in ms since the injection. Contactors count as open `contactor_actuation_s` after they were
asked to. The budget of a fatal row is its FTTI, to open contactors; that of another row is its set time, the time that
its value counts if it is one, and `SLACK_STEPS` steps, to its detection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bms.core.faults import ABOUT, Fault, Place, Reaction, Row, row_of, text_of
from bms.runtime.explain import place_text
from bms.trial.expect import OPENING, ExpectRow
from bms.trial.lead import EVENTS, HEATING, Lead, lead_of, name_of
from bms.trial.log import MAINS, Log
from bms.trial.play import Played, state_name
from bms.trial.quantity import number
from hal.contract import RackState, Severity

SLACK_STEPS = 4.0  # the sample before, that of the fault, and one each for a source and its age
HOT_K = 10.0  # above the hottest temperature allowed: cells are damaged, runaway is far beyond
FUSE_RATINGS = 3.3  # of the largest current allowed: what the fuse leaves


@dataclass
class Entry:
    """A line of the ledger; times in ms since the injection, None for what did not happen or does not apply."""

    row: int
    fault: str
    tier: str
    inject_s: float
    detect_ms: float | None = None
    react_ms: float | None = None
    open_ms: float | None = None
    budget_ms: float | None = None
    place: str = ""
    value: float | None = None
    unit: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def spent_ms(self) -> float | None:
        """What counts against the budget: to open contactors for a fatal row, to detection for another."""
        return self.open_ms if self.tier == "fatal" else self.detect_ms


@dataclass
class Verdict:
    """What came of a trial: the ledger, what failed, and the cells of the coverage matrix that it filled."""

    entries: list[Entry]
    failures: list[str]
    cells: list[tuple[int, str, str, str, str]]
    lead: Lead | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def judge(played: Played) -> Verdict:
    """Hold the log of a trial against its expectations, and against what holds for every trial."""
    entries = [_entry(played, row) for row in played.trial.expect.rows]
    failures = [text for entry in entries for text in entry.failures]
    for rule in (_closing, _opening, _unexpected, _cause, _cooling, _forbidden, _damage, _end, _bounds):
        failures.extend(rule(played))
    lead = _lead(played)
    failures.extend(_burnt(played, lead))
    cells = [cell for entry in entries if not entry.failures for cell in _cells(played, entry)]
    return Verdict(entries, failures, cells, lead)


def _first(hits: Any) -> int | None:
    """The first true step."""
    k = int(np.argmax(hits)) if len(hits) else 0
    return k if len(hits) and hits[k] else None


def _begins(shown: Any) -> Any:
    """The steps in which something that comes and goes begins to be shown."""
    return np.flatnonzero(shown & ~np.concatenate(([False], shown[:-1])))


def _row(played: Played, fault: Fault, severity: Severity) -> Row | None:
    return next((row for row in played.settings.rows if (row.fault, row.severity) == (fault, severity)), None)


def _entry(played: Played, wanted: ExpectRow) -> Entry:
    """One line of the ledger."""
    log, row = played.log, _row(played, wanted.fault, wanted.severity)
    name = f"{text_of(wanted.fault)} {wanted.severity.name.lower()}"
    entry = Entry(wanted.id, wanted.fault.name.lower(), wanted.severity.name.lower(), _since(played, wanted, row))
    entry.unit = ABOUT[wanted.fault].unit
    hit = _first(log.shows(wanted.fault, wanted.severity))
    if row is None:
        entry.failures.append(f"{name}: this row is not in the fault table")
    entry.budget_ms = _budget_ms(played, wanted, row)
    if hit is None:
        entry.failures.append(f"{name}: not seen")
        return entry
    base_s = entry.inject_s
    if math.isnan(base_s):
        base_s = entry.inject_s = float(log.time_s[hit])
    entry.detect_ms = 1e3 * (float(log.time_s[hit]) - base_s)
    entry.value = float(log.value[hit, wanted.fault])
    entry.place = place_text(wanted.fault, int(log.where[hit, wanted.fault])).strip()
    if entry.detect_ms < -1e-6:
        entry.failures.append(f"{name}: seen {-entry.detect_ms:.0f} ms before the injection")
    if row is not None:
        row = replace(row, reaction=row.reaction | wanted.reaction)
        _follow(played, row, hit, base_s, entry)
        if wanted.severity == Severity.FATAL and wanted.open_ms is not None and not row.reaction & OPENING:
            entry.failures.append(f"{name}: it does not open the contactors, {wanted.open_ms:.0f} ms allowed")
    spent, react_ms = entry.spent_ms, entry.react_ms
    if wanted.react_ms is not None and (react_ms is None or react_ms > wanted.react_ms + 1e-6):
        done = "no reaction" if react_ms is None else f"reaction after {react_ms:.0f} ms"
        entry.failures.append(f"{name}: {done}, {wanted.react_ms:.0f} ms allowed")
    if wanted.detect_ms is not None and entry.detect_ms > wanted.detect_ms + 1e-6:
        entry.failures.append(f"{name}: detected after {entry.detect_ms:.0f} ms, {wanted.detect_ms:.0f} ms allowed")
    if spent is not None and entry.budget_ms is not None and spent > entry.budget_ms + 1e-6:
        what = "contactors open" if entry.tier == "fatal" else "detected"
        entry.failures.append(f"{name}: {what} after {spent:.0f} ms, {entry.budget_ms:.0f} ms allowed")
    where = int(log.where[hit, wanted.fault])
    if wanted.at and where not in wanted.at:
        entry.failures.append(f"{name}: seen at {where}, expected at {' or '.join(map(str, wanted.at))}")
    if wanted.value is not None:
        low, high = (number(v, played.values, name) for v in wanted.value)
        if not low <= entry.value <= high:
            entry.failures.append(f"{name}: value {entry.value:.5g}, expected {low:.5g}..{high:.5g}")
    return entry


def _since(played: Played, wanted: ExpectRow, row: Row | None) -> float:
    """The moment that times count from, s of the run; NaN where it never came."""
    if isinstance(wanted.since, float):
        return wanted.since
    if wanted.since == "injection":
        return played.injected[0][0] if played.injected else 0.0
    if row is None:
        return math.nan
    # the last time before it is seen: an excursion that ends before its set time is none; NaN holds what was
    sign = 1.0 if ABOUT[wanted.fault].above else -1.0
    hit = _first(played.log.shows(wanted.fault, wanted.severity))
    values = sign * played.log.value[: None if hit is None else hit + 1, wanted.fault]
    known = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    with np.errstate(invalid="ignore"):
        beyond = (values > sign * row.threshold)[known] & (known >= 0)
    inside = np.flatnonzero(~beyond)
    k = int(inside[-1]) + 1 if inside.size else 0
    return math.nan if k >= len(values) else float(played.log.time_s[k])


def _budget_ms(played: Played, wanted: ExpectRow, row: Row | None) -> float | None:
    """The budget of a line: the trial's own, or what follows from the row."""
    if wanted.severity == Severity.FATAL:
        if wanted.open_ms is not None:
            return wanted.open_ms
        return None if row is None or row.ftti_s is None else 1e3 * row.ftti_s
    if wanted.detect_ms is not None:
        return wanted.detect_ms
    if row is None:
        return None
    counts_s = row.threshold if ABOUT[row.fault].unit == "s" and wanted.since != "threshold" else 0.0
    return 1e3 * (row.set_s + counts_s + SLACK_STEPS * played.trial.scenario.period_s)


def _follow(played: Played, row: Row, hit: int, base_s: float, entry: Entry) -> None:
    """Whether what the row demands is done from step `hit` on."""
    log, settings = played.log, played.settings
    name = f"{text_of(row.fault)} {row.severity.name.lower()}"
    shown = log.shows(row.fault, row.severity)[hit:]
    time_s = log.time_s[hit:] - log.time_s[hit]
    begins = _begins(shown)  # a row that went and comes again ramps anew
    since_s = time_s - time_s[begins][np.searchsorted(begins, np.arange(len(shown)), "right") - 1]
    reacted: list[float] = []
    before = max(hit - 1, 0)
    for which, stop in (("discharge", Reaction.NO_DISCHARGE), ("charge", Reaction.NO_CHARGE)):
        rated_a = getattr(settings.basis, f"{which}_a")
        limit_a = getattr(log, f"{which}_a")[hit:]
        if row.reaction & Reaction.DERATE:
            most_a = max(settings.limits.derate * rated_a, 1e-3)
            if limit_a[0] > 1.001 * most_a:
                entry.failures.append(f"{name}: the {which} limit is {limit_a[0]:.1f} A, not derated to {most_a:.1f} A")
            reacted.append(0.0)
        if row.reaction & stop:
            left = np.maximum(1.0 - since_s / settings.limits.ramp_s, 0.0) * rated_a * 1.001
            wrong = _first(shown & (limit_a > left + 1e-3))
            if wrong is not None:
                entry.failures.append(
                    f"{name}: the {which} limit is {limit_a[wrong]:.1f} A, {since_s[wrong]:g} s after"
                )
            fell = _first((limit_a < getattr(log, f"{which}_a")[before]) | (limit_a == 0.0))
            if fell is not None:
                reacted.append(float(time_s[fell]))
    if row.reaction & Reaction.NO_BALANCING and np.any(shown & (log.bled[hit:] > 0)):
        entry.failures.append(f"{name}: cells are bled all the same")
    if row.reaction & Reaction.COOL and np.any(shown & (log.cooling_degc[hit:] > settings.cooling.min_degc + 0.01)):
        entry.failures.append(f"{name}: the coolant is not asked to be as cold as it goes")
    if row.reaction & OPENING:
        opened = _first(log.asked[hit:] == 0)
        if opened is None:
            entry.failures.append(f"{name}: the contactors stay closed")
        else:
            fell = _first((log.discharge_a[hit:] < log.discharge_a[before]) | (log.asked[hit:] == 0))
            reacted.append(float(time_s[opened if fell is None else fell]))
            actuation_s = settings.machine.contactor_actuation_s if log.asked[before] else 0.0
            entry.open_ms = 1e3 * (float(log.time_s[hit + opened]) + actuation_s - base_s)
            asked = log.asked[hit:]
            closing = _first(shown[1:] & (asked[1:] & ~asked[:-1] != 0))
            if closing is not None:
                at_s = log.time_s[hit + closing + 1]
                entry.failures.append(f"{name}: a contactor is asked to close at {at_s:g} s while it is shown")
    if reacted:
        entry.react_ms = 1e3 * (float(log.time_s[hit]) + min(reacted) - base_s)


# --- what holds for every trial -------------------------------------------------------------------------------------


def _forbidding(played: Played) -> Any:
    """In which steps a row is shown that forbids to close contactors."""
    log = played.log
    result = np.zeros(len(log), np.bool_)
    for row in played.settings.rows:
        if row.reaction & (Reaction.NO_CLOSE | OPENING):
            result |= log.shows(row.fault, row.severity)
    return result


def _closing(played: Played) -> list[str]:
    """No contactor is closed against a fault."""
    log = played.log
    before = np.concatenate(([0], log.asked[:-1]))
    added = (log.asked & ~before) != 0
    wrong = _first(added & _forbidding(played))
    if wrong is not None:
        return [f"a contactor is closed at {log.time_s[wrong]:g} s although {_shown_text(log, wrong)} forbids it"]
    if played.trial.expect.never_closed and (closed := _first(log.closed)) is not None:
        return [f"the contactors are closed at {log.time_s[closed]:g} s, expected never"]
    return []


def _shown_text(log: Log, k: int) -> str:
    shown = [f for f in Fault for s in (Severity.FATAL, Severity.WARNING) if log.shows(f, s)[k]]
    return ", ".join(text_of(fault) for fault in dict.fromkeys(shown)) or "nothing that is shown"


def _opening(played: Played) -> list[str]:
    """Whatever is fatal opens, each time that it comes: at once, or after a ramp that ends."""
    log, settings, failures = played.log, played.settings, []
    for row in settings.rows:
        if not row.reaction & OPENING:
            continue
        for hit in _begins(log.shows(row.fault, row.severity)):
            at_once = bool(row.reaction & Reaction.OPEN)
            latest_s = log.time_s[hit] + (0.0 if at_once else settings.machine.ramp_time_out_s) + log.dt_s[hit] + 1e-6
            late = _first((log.time_s >= log.time_s[hit]) & (log.asked == 0))
            if log.time_s[-1] > latest_s and (
                late is None or log.time_s[late] > latest_s - (log.dt_s[hit] if at_once else 0)
            ):
                failures.append(
                    f"{text_of(row.fault)}: shown at {log.time_s[hit]:g} s, but the contactors are not asked to open"
                )
            elif late is not None and played.trial.expect.contactors != "welded":
                parted = _first(~log.closed[late:])
                if parted is None or parted > 1:
                    failures.append(f"{text_of(row.fault)}: the contactors were asked to open and did not part")
    return failures[:1]


def _unexpected(played: Played) -> list[str]:
    """No fatal fault but those that are expected or allowed; `quiet`: no warning either."""
    expect, log = played.trial.expect, played.log
    known = expect.allow | {row.fault for row in expect.rows if row.severity == Severity.FATAL}
    failures = []
    for severity in (Severity.FATAL, Severity.WARNING) if expect.quiet else (Severity.FATAL,):
        for fault in Fault:
            if fault not in known and (k := _first(log.shows(fault, severity))) is not None:
                failures.append(f"unexpected: {text_of(fault)} {severity.name.lower()} at {log.time_s[k]:g} s")
    return failures


def _cause(played: Played) -> list[str]:
    """The first cause is one that was expected, at the place where it was."""
    expect, log = played.trial.expect, played.log
    fatal = {row.id for row in expect.rows if row.severity == Severity.FATAL}
    k = _first(log.cause != 0)
    if k is None:
        return ["no cause is told"] if expect.cause else []
    cause, index = int(log.cause[k]), int(log.cause_index[k])
    fault = row_of(cause)[0]
    right = expect.cause or (expect.allow | {row_of(row)[0] for row in fatal} if fatal else frozenset({fault}))
    if fault not in right:
        return [f"the cause is told as {text_of(fault)}"]
    cells = list(expect.cause_at)
    places = {Place.CELL: cells, Place.SENSOR: [int(k) for k in played.info.sensor_of_cell[cells]]}
    if cells and index not in places.get(ABOUT[fault].place, [index]):
        return [f"the cause is told as {text_of(fault)}{place_text(fault, index)}, not where it is"]
    return []


def _cooling(played: Played) -> list[str]:
    """Coolant as cold as it goes, for as long as a row is shown that asks for it."""
    log, least_degc = played.log, played.settings.cooling.min_degc
    for row in played.settings.rows:
        if row.reaction & Reaction.COOL:
            warm = _first(log.shows(row.fault, row.severity) & (log.cooling_degc > least_degc + 0.01))
            if warm is not None:
                name = f"{text_of(row.fault)} {row.severity.name.lower()}"
                return [f"{name}: coolant of {log.cooling_degc[warm]:.1f} degC is asked for at {log.time_s[warm]:g} s"]
    return []


def _forbidden(played: Played) -> list[str]:
    """Rows that the trial rules out."""
    return [
        f"{text_of(fault)} {severity.name.lower()} was shown"
        for fault, severity in played.trial.expect.forbid
        if played.log.shows(fault, severity).any()
    ]


def _damage(played: Played) -> list[str]:
    """No cell came near damage with closed contactors, and nothing happened to the contactors: the twin's truth."""
    log, failures = played.log, []
    if played.has_truth:
        burns = bool(played.trial.expect.leads)  # then it is the lead time that says what was too late
        path = np.concatenate(([False], log.closed[:-1]))  # what was measured belongs to the command before
        hottest = played.settings.cell.limits.degc_max + HOT_K
        hot = _first(path & (log.true_degc.max(axis=1) > hottest))
        if hot is not None and not burns:
            failures.append(
                f"a cell reached {log.true_degc[hot].max():.1f} degC with closed contactors at {log.time_s[hot]:g} s"
            )
        most_a = FUSE_RATINGS * max(played.settings.basis.discharge_a, played.settings.basis.charge_a)
        if (strong := _first(path & (np.abs(log.true_a) > most_a))) is not None:
            failures.append(f"{log.true_a[strong]:.0f} A flowed at {log.time_s[strong]:g} s, more than the fuse leaves")
    welds = [text for text in played.events if "weld" in text]
    if welds and played.trial.expect.contactors != "welded":
        failures.append(f"the contactors were harmed: {welds[0]}")
    return failures


def _end(played: Played) -> list[str]:
    """State and contactors at the end."""
    expect, log, failures = played.trial.expect, played.log, []
    state = RackState(int(log.state[-1]))
    if expect.state and state not in expect.state:
        wanted = " or ".join(s.name.lower() for s in expect.state)
        failures.append(f"the state at the end is {state.name.lower()}, expected {wanted}")
    asked, closed = int(log.asked[-1]), bool(log.closed[-1])
    if expect.contactors == "closed" and not (closed and asked & MAINS == MAINS):
        failures.append("the contactors are open at the end, expected closed")
    if expect.contactors == "open" and (closed or asked):
        failures.append("the contactors are closed at the end, expected open")
    if expect.contactors == "welded" and asked:
        failures.append("the contactors are asked to be closed at the end")
    return failures


def _bounds(played: Played) -> list[str]:
    """Numbers that must not be passed while the contactors are closed, as they are measured."""
    log, failures = played.log, []
    path = np.concatenate(([False], log.closed[:-1]))
    measured = {
        "cell_v_max": (log.v_max, 1.0), "cell_v_min": (log.v_min, -1.0), "degc_max": (log.degc.max(axis=1), 1.0),
        "charge_a_max": (-log.true_a, 1.0), "discharge_a_max": (log.true_a, 1.0),
    }  # fmt: skip
    at_end = {
        "current_at_end_a": abs(float(log.true_a[-1])),
        "charge_limit_at_end_a": float(log.charge_a[-1]),
        "discharge_limit_at_end_a": float(log.discharge_a[-1]),
    }
    for key, bound in played.trial.expect.bounds:
        most = number(bound, played.values, f"[expect] bounds.{key}")
        if key in at_end:
            if at_end[key] > most:
                failures.append(f"{key} = {at_end[key]:.5g}, at most {most:.5g} expected")
            continue
        values, sign = measured[key]
        with np.errstate(invalid="ignore"):
            k = _first(path & (sign * values > sign * most))
        if k is not None:
            failures.append(f"{key} = {values[k]:.5g} at {log.time_s[k]:g} s, expected not beyond {most:.5g}")
    return failures


# --- what burns -----------------------------------------------------------------------------------------------------


def _lead(played: Played) -> Lead | None:
    """Lead times, where a cell vented or ignited or the trial asks for them."""
    fire, trial = played.fire, played.trial
    if fire is None or not (trial.expect.leads or fire.cells("vented") or fire.cells("ignited")):
        return None
    heating = [entry for entry in trial.faults if entry["kind"] in HEATING]
    injected_s = min((float(entry.get("at_s", 0.0)) for entry in heating), default=0.0)
    if any("at_state" in entry for entry in heating):  # then its time counts from there
        injected_s = played.injected[0][0]
    chemistry = trial.scenario.tables.get("rack", {}).get("side_reactions") or played.settings.cell.chemistry
    return lead_of(played.log, fire, injected_s, name_of(trial.faults), str(chemistry))


def _burnt(played: Played, lead: Lead | None) -> list[str]:
    """Lead times that are too short, and numbers of cells that have burnt."""
    expect, failures = played.trial.expect, []
    if not (expect.leads or expect.vented or expect.ignited):
        return []
    if played.fire is None:
        return ["nothing burns in this rack: it cannot tell, and expect.lead, vented and ignited cannot be judged"]
    for wanted in expect.leads:
        assert lead is not None  # there is one wherever one is expected
        found_s = lead.before(wanted.before, wanted.of)
        name = f"before {wanted.before.replace('_', ' ')}"
        if found_s is None:
            failures.append(f"no {wanted.of} row is shown {name}")
        elif found_s < wanted.min_s:
            failures.append(f"the first {wanted.of} row is shown {found_s:.0f} s {name}, {wanted.min_s:g} s expected")
    for event, bounds in zip(EVENTS, (expect.vented, expect.ignited), strict=False):
        n = played.fire.cells(event)
        if bounds is not None and not bounds[0] <= n <= bounds[1]:
            failures.append(f"{n} cells have {event}, expected {bounds[0]}..{bounds[1]}")
    return failures


# --- coverage -------------------------------------------------------------------------------------------------------


def _cells(played: Played, entry: Entry) -> list[tuple[int, str, str, str, str]]:
    """The cell of the coverage matrix that a line fills: row, state and conditions at the injection."""
    log = played.log
    k = max(int(np.searchsorted(log.time_s, entry.inject_s - 1e-6)) - 1, 0)  # the step before
    degc, soc = float(np.nanmean(log.degc[k])), float(log.soc[k])
    chemistry = played.settings.cell.chemistry
    return [(entry.row, state_name(int(log.state[k])), chemistry, degc_band(degc), soc_band(soc))]


def degc_band(degc: float) -> str:
    """The column of a temperature in the coverage matrix."""
    return "cold" if degc < 5.0 else "hot" if degc > 40.0 else "mild"


def soc_band(soc: float) -> str:
    """The column of a state of charge in the coverage matrix."""
    return "empty" if soc < 0.15 else "full" if soc > 0.85 else "middle"


BANDS = {
    "cold": "< 5 degC",
    "mild": "5..40 degC",
    "hot": "> 40 degC",
    "empty": "< 15 %",
    "middle": "15..85 %",
    "full": "> 85 %",
}
"""What the columns mean."""
