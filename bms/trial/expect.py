"""What a trial expects: rows of the fault table and their times, the end, and what must not happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bms.core.faults import Fault, Reaction, row_id
from bms.racks.faults import REACTIONS
from bms.trial.lead import EVENTS, OF
from bms.trial.quantity import check
from hal.contract import RackState, Severity
from hal.errors import ConfigError, nearest

FAULTS = {fault.name.lower(): fault for fault in Fault}
TIERS = {s.name.lower(): s for s in Severity if s}
STATES = {state.name.lower(): state for state in RackState}
ENDS = ("open", "closed", "welded")
SINCE = ("injection", "threshold")
LIMITS = Reaction.DERATE | Reaction.NO_CHARGE | Reaction.NO_DISCHARGE
OPENING = Reaction.OPEN | Reaction.RAMP_OPEN
"""Reactions that can be timed."""

_ROW_KEYS = ("fault", "tiers", "since", "detect_ms", "react_ms", "open_ms", "at", "value", "reaction")
_KEYS = (
    *("row", "state", "contactors", "allow", "forbid", "quiet", "never_closed", "bounds"),
    *("lead", "vented", "ignited", "cause", "cause_at"),
)
_LEAD_KEYS = ("before", "min_s", "of")
BOUNDS = (
    *("cell_v_max", "cell_v_min", "degc_max", "charge_a_max", "discharge_a_max"),
    *("current_at_end_a", "charge_limit_at_end_a", "discharge_limit_at_end_a"),
)


@dataclass(frozen=True)
class ExpectRow:
    """One row that must be seen. Times in ms since `since`: the injection, the last moment before at which what the row
    looks at passes its threshold, or a time of the run in s. `None`: the budget follows from the fault table.
    `reaction` must be done beside what the table demands.
    """

    fault: Fault
    severity: Severity
    since: str | float = "injection"
    detect_ms: float | None = None
    open_ms: float | None = None
    react_ms: float | None = None
    reaction: Reaction = Reaction.NONE
    at: tuple[int, ...] = ()
    value: tuple[Any, Any] | None = None

    @property
    def id(self) -> int:
        """Number of the row of the fault table."""
        return row_id(self.fault, self.severity)


@dataclass(frozen=True)
class ExpectLead:
    """A row of at least the tier `of` must be shown `min_s` before the event `before`, if that comes."""

    before: str
    min_s: float = 0.0
    of: str = "fatal"


@dataclass(frozen=True)
class Expect:
    """Everything that a trial expects; see docs/trial.md for each key."""

    rows: tuple[ExpectRow, ...] = ()
    state: tuple[RackState, ...] = ()
    contactors: str = ""
    allow: frozenset[Fault] = frozenset()
    forbid: tuple[tuple[Fault, Severity], ...] = ()
    quiet: bool = False
    never_closed: bool = False
    bounds: tuple[tuple[str, Any], ...] = ()
    leads: tuple[ExpectLead, ...] = ()
    vented: tuple[int, int] | None = None
    ignited: tuple[int, int] | None = None
    cause: frozenset[Fault] = frozenset()
    cause_at: tuple[int, ...] = ()


def parse(table: Mapping[str, Any], where: str) -> Expect:
    """The table `[expect]`. Raises `ConfigError`."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expect = {table!r}: expected a table, [expect]")
    where = f"{where}: [expect]"
    _known(table, _KEYS, where)
    for key in ("quiet", "never_closed"):
        if not isinstance(table.get(key, False), bool):
            raise ConfigError(f"{where} {key} = {table[key]!r}: expected true or false")
    contactors = table.get("contactors", "")
    if contactors != "" and contactors not in ENDS:
        raise ConfigError(f"{where} contactors = {contactors!r}: one of: {', '.join(ENDS)}")
    bounds = table.get("bounds", {})
    if not isinstance(bounds, Mapping):
        raise ConfigError(f"{where} bounds = {bounds!r}: expected a table, [expect.bounds]")
    _known(bounds, BOUNDS, f"{where} bounds")
    for key, value in bounds.items():
        check(value, f"{where} bounds.{key}")
    rows = table.get("row", [])
    if not isinstance(rows, list):
        raise ConfigError(f"{where} row = {rows!r}: expected [[expect.row]] tables")
    expect = Expect(
        rows=tuple(
            row for number, entry in enumerate(rows, 1) for row in _rows(entry, f"{where}: row number {number}")
        ),
        state=tuple(
            _name(name, STATES, f"{where} state") for name in _listed(table.get("state", []), f"{where} state")
        ),
        contactors=contactors,
        allow=_faults(table, "allow", where),
        forbid=tuple(
            _row_name(name, f"{where} forbid") for name in _listed(table.get("forbid", []), f"{where} forbid")
        ),
        quiet=table.get("quiet", False),
        never_closed=table.get("never_closed", False),
        bounds=tuple(bounds.items()),
        leads=_leads(table.get("lead", []), f"{where} lead"),
        vented=_cells(table.get("vented"), f"{where} vented"),
        ignited=_cells(table.get("ignited"), f"{where} ignited"),
        cause=_faults(table, "cause", where),
        cause_at=_places(table.get("cause_at", []), f"{where} cause_at", "a cell"),
    )
    _check_contradictions(expect, where)
    return expect


def _check_contradictions(expect: Expect, where: str) -> None:
    """Raise `ConfigError` for what no run can fulfil, or where one key makes another vain."""
    expected = {(row.fault, row.severity) for row in expect.rows}
    for fault, severity in expect.forbid:
        name, tier = fault.name.lower(), severity.name.lower()
        if severity == Severity.FATAL and fault in expect.allow:
            raise ConfigError(f"{where} forbid = '{name}': allow has it, too; remove it from one of them")
        if (fault, severity) in expected:
            raise ConfigError(f"{where} forbid = '{name}.{tier}': [[expect.row]] expects it; remove one of them")
    if expect.never_closed and expect.contactors == "closed":
        raise ConfigError(f"{where} contactors = 'closed': contradicts never_closed = true; remove one of them")
    told = expect.allow | {fault for fault, severity in expected if severity == Severity.FATAL}
    for row in expect.rows:
        if expect.quiet and row.severity == Severity.WARNING and row.fault not in told:
            name = row.fault.name.lower()
            raise ConfigError(
                f"{where} quiet = true: [[expect.row]] expects a warning of {name}; remove quiet, or allow '{name}'"
            )


def _leads(content: Any, where: str) -> tuple[ExpectLead, ...]:
    """`[expect.lead]`, or `[[expect.lead]]` for several events."""
    entries = [content] if isinstance(content, Mapping) else content
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"{where} = {content!r}: expected a table, [expect.lead]")
    for entry in entries:
        _known(entry, _LEAD_KEYS, where)
        if "before" not in entry:
            raise ConfigError(f"{where}: the key 'before' is missing; one of: {', '.join(EVENTS)}")
        for key, known in (("before", EVENTS), ("of", tuple(OF))):
            if entry.get(key, known[-1] if key == "of" else None) not in known:
                raise ConfigError(f"{where}: {key} = {entry.get(key)!r}: one of: {', '.join(known)}")
        if not (_is_number(entry.get("min_s", 0.0)) and entry.get("min_s", 0.0) >= 0):
            raise ConfigError(f"{where}: min_s = {entry['min_s']!r}: expected a time in s, 0 or more")
    return tuple(ExpectLead(e["before"], float(e.get("min_s", 0.0)), e.get("of", "fatal")) for e in entries)


def _cells(value: Any, where: str) -> tuple[int, int] | None:
    """`[fewest, most]` cells."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and n >= 0 for n in value):
        raise ConfigError(f"{where} = {value!r}: expected [fewest, most] cells")
    if value[0] > value[1]:
        raise ConfigError(f"{where} = {value!r}: the fewest are more than the most; take {value[::-1]}")
    return value[0], value[1]


def _rows(entry: Any, where: str) -> list[ExpectRow]:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected a table, [[expect.row]]")
    _known(entry, _ROW_KEYS, where)
    if "fault" not in entry:
        raise ConfigError(f"{where}: the key 'fault' is missing; name a fault of docs/faults.md")
    fault = _name(entry["fault"], FAULTS, f"{where}: fault")
    tiers = [
        _name(name, TIERS, f"{where}: tiers") for name in _listed(entry.get("tiers", ["fatal"]), f"{where}: tiers")
    ]
    since = entry.get("since", "injection")
    if not (since in SINCE or (_is_number(since) and since >= 0)):
        raise ConfigError(
            f"{where}: since = {since!r}: expected 'injection', 'threshold' or a time of the run in s, 0 or more"
        )
    for key in ("detect_ms", "react_ms", "open_ms"):
        if key in entry and not (_is_number(entry[key]) and entry[key] > 0):
            raise ConfigError(f"{where}: {key} = {entry[key]!r}: expected a time in ms, larger than 0")
    at = _places(entry.get("at", []), f"{where}: at", "a cell or sensor")
    value = entry.get("value")
    if value is not None:
        if not isinstance(value, list) or len(value) != 2:
            raise ConfigError(f"{where}: value = {value!r}: expected [lowest, highest]")
        for item in value:
            check(item, f"{where}: value")
    if not tiers:
        raise ConfigError(f"{where}: tiers = []: name at least one of: {', '.join(TIERS)}")
    if "open_ms" in entry and Severity.FATAL not in tiers:
        raise ConfigError(
            f"{where}: open_ms = {entry['open_ms']!r}: is of the fatal tier alone, which tiers does not name; leave "
            "open_ms out, or add 'fatal'"
        )
    return [
        ExpectRow(
            fault,
            tier,
            since if isinstance(since, str) else float(since),
            entry.get("detect_ms"),
            entry.get("open_ms"),
            entry.get("react_ms"),
            _reaction(entry, where),
            at,
            None if value is None else (value[0], value[1]),
        )
        for tier in tiers
    ]


def _faults(table: Mapping[str, Any], key: str, where: str) -> frozenset[Fault]:
    return frozenset(_name(name, FAULTS, f"{where} {key}") for name in _listed(table.get(key, []), f"{where} {key}"))


def _places(at: Any, where: str, what: str) -> tuple[int, ...]:
    at = [at] if isinstance(at, int) else at
    if not isinstance(at, list) or not all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in at):
        raise ConfigError(f"{where} = {at!r}: expected the number of {what}, or a list of them")
    return tuple(at)


def _reaction(entry: Mapping[str, Any], where: str) -> Reaction:
    reaction = Reaction.NONE
    for name in _listed(entry.get("reaction", []), f"{where}: reaction"):
        reaction |= _name(name, REACTIONS, f"{where}: reaction")
    return reaction


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")


def _listed(value: object, where: str) -> list[Any]:
    """A list, or one text for a list of one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ConfigError(f"{where} = {value!r}: expected a name or a list of names")
    return value


def _name(name: object, known: Mapping[str, Any], where: str) -> Any:
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{where} = {name!r}: not known{nearest(str(name), known)}")
    return known[name]


def _row_name(text: object, where: str) -> tuple[Fault, Severity]:
    """`FAULT` for its fatal row, `FAULT.TIER` for another."""
    fault, dot, tier = str(text).partition(".")
    return _name(fault, FAULTS, where), _name(tier, TIERS, where) if dot else Severity.FATAL
