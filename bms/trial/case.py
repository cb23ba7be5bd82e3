"""Trials from TOML: the scenario of `bms run` with what goes wrong and what is expected. See docs/trial.md.

A file without `[[trial]]` is one trial. With it, the other tables are what all its trials share, and `[axis.NAME]`
tables multiply a trial: one for each value, laid over, with `{NAME}` in its texts replaced.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import operator
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bms import racks
from bms.core.faults import Reaction
from bms.racks.faults import REACTIONS
from bms.racks.tables import merged
from bms.runtime import scenario as scenarios
from bms.runtime.scenario import BACKEND_TABLES, Scenario
from bms.trial import internal
from bms.trial.expect import LIMITS, OPENING, STATES, Expect, ExpectRow
from bms.trial.expect import parse as parse_expect
from bms.trial.quantity import check, is_number
from hal.backends.chaos import Change
from hal.contract import Severity
from hal.errors import ConfigError, nearest
from hal.registry import is_live, is_site, unwrapped

RACK = "sim:lfp_280?n_series=16&module_groups=16&seed=3"
"""The rack of a trial that names none: small, because most faults do not ask for more."""
DURATION_S = 120.0
MOST_STEPS = 1_000_000
"""Of one trial: its log holds every step, at some 700 bytes and more for each cell and sensor."""

RAMPS_ITSELF = ("internal_short", "joint_resistance", "cell_capacity")
"""Kinds of faults of the twin that come little by little, over `ramp_s`, where no `from` is given."""

TABLES = ("run", "controller", "request", *(name for name in BACKEND_TABLES if name != "site"))
OWN = ("change", "internal", "expect", "tags", "clause", "gap")
GROUP = ("axis", "trial")
LISTS = ("fault", "change", "internal", "request")

_INJECTED = {
    "fault": ("kind", "at_s", "until_s", "index", "value", "ramp_s", "from", "at_state"),
    "change": ("kind", "channel", "at_s", "until_s", "index", "value", "ramp_s", "from", "at_state"),
    "internal": ("kind", "at_s", "index", "value", "at_state"),
}
_WORD = re.compile(r"\{\s*([\w-]+)\s*\}")
"""What an axis replaces in a text."""
NOTHING = Expect()


@dataclass(frozen=True)
class Trial:
    """One trial. `faults`, `changes` and `internals` are what goes wrong, as the file says it, times in s.

    `gap` says why it is known to fail: then it counts as a gap while it does, and as a failure once it passes.
    """

    id: str
    scenario: Scenario
    faults: tuple[Mapping[str, Any], ...] = ()
    changes: tuple[Mapping[str, Any], ...] = ()
    internals: tuple[Mapping[str, Any], ...] = ()
    expect: Expect = NOTHING
    tags: tuple[str, ...] = ()
    clause: str = ""
    gap: str = ""
    source: str = ""

    @property
    def injected(self) -> tuple[Mapping[str, Any], ...]:
        """Everything that goes wrong."""
        return (*self.faults, *self.changes, *self.internals)


def _folder() -> Path:
    return Path(str(resources.files("bms").joinpath("trial", "library")))


def library() -> list[Path]:
    """The files that come with the package."""
    return sorted(_folder().glob("*.toml"))


def load_all(paths: Iterable[str | Path]) -> list[Trial]:
    """The trials of all files, in their order. Raises `ConfigError`; two trials of one id are an error, too."""
    found: dict[str, Trial] = {}
    for path in paths:
        for trial in load(path):
            if trial.id in found:
                raise ConfigError(
                    f"{trial.source}: the trial '{trial.id}' is in {found[trial.id].source}, too; rename one"
                )
            found[trial.id] = trial
    return list(found.values())


def hint(name: str, trials: Iterable[Trial]) -> str:
    """The end of an error line about an id that no trial has."""
    close = difflib.get_close_matches(name, [trial.id for trial in trials], n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else "; `bms trial list` shows all"


def check_rows(trials: Iterable[Trial]) -> None:
    """Raise `ConfigError` for a trial that expects a row which is not in the fault table of its configuration, or that
    times a reaction which the row does not demand.

    A configuration is known by the name of its own, or of the rack's cell. Rows that the trial changes itself are.
    """
    for trial in trials:
        scenario = trial.scenario
        name = scenario.config or scenario.rack.partition("?")[0].removeprefix("sim:")
        if scenario.cell or name not in racks.names():
            continue
        for row in trial.expect.rows:
            fault, tier = row.fault.name.lower(), row.severity.name.lower()
            where = f"{trial.source}: trial '{trial.id}': [expect]: row fault = '{fault}'"
            tiers, own = _tiers(name).get(fault, {}), scenario.controller.get("fault", {}).get(fault, {})
            if tier not in (*tiers, *own):
                has = ", ".join(tiers) or "none of this fault"
                raise ConfigError(
                    f"{where}: tiers = '{tier}': not in the fault table of {name}, which has: {has}; name one of them, "
                    f"or add the row with [controller.fault.{fault}.{tier}]"
                )
            words = own.get(tier, {}).get("reaction")
            demanded = [tiers[tier]] if words is None and tier in tiers else [REACTIONS[word] for word in words or []]
            _check_reaction(row, functools.reduce(operator.or_, demanded, row.reaction), where)


def _check_reaction(row: ExpectRow, reaction: Reaction, where: str) -> None:
    """Raise `ConfigError` if `row` times what its `reaction` does not contain."""
    for key, most_ms, timed, wanted in (
        ("react_ms", row.react_ms, LIMITS | OPENING, "lowers a limit or opens the contactors"),
        ("open_ms", row.open_ms if row.severity == Severity.FATAL else None, OPENING, "opens the contactors"),
    ):
        if most_ms is not None and not reaction & timed:
            raise ConfigError(
                f"{where}: {key} = {most_ms:g}: nothing in the reaction of its {row.severity.name.lower()} row "
                f"{wanted}; leave {key} out"
            )


@functools.cache
def _tiers(name: str) -> dict[str, dict[str, Reaction]]:
    """The reaction of each tier of each fault in the table of a configuration that comes with the package."""
    found: dict[str, dict[str, Reaction]] = {}
    for row in racks.load(name).rows:
        found.setdefault(row.fault.name.lower(), {})[row.severity.name.lower()] = row.reaction
    return found


def read(path: Path) -> dict[str, Any]:
    """The tables of a file as they stand. Raises `ConfigError`."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def load(path: str | Path) -> list[Trial]:
    """The trials of one file. Raises `ConfigError`: one line with file, field, value and remedy."""
    path = Path(path)
    tables = read(path)
    # a report of the library is the same wherever the package lies
    return parse(tables, path.stem, f"library/{path.name}" if path.parent == _folder() else str(path))


def parse(tables: Mapping[str, Any], name: str, source: str) -> list[Trial]:
    """The trials that the `tables` of a file describe. Raises `ConfigError`."""
    return [_trial(own, trial, source) for own, trial in expanded(tables, name, source)]


def expanded(tables: Mapping[str, Any], name: str, source: str) -> Iterable[tuple[Mapping[str, Any], str]]:
    """The tables of each trial of a file, with nothing left of its axes, and its id. Raises `ConfigError`."""
    known = (*TABLES, *OWN, *GROUP)
    for key in tables:
        if key not in known:
            raise ConfigError(f"{source}: unknown table or key '{key}'{nearest(key, known)}")
    entries = tables.get("trial")
    if entries is None:
        if "axis" in tables:
            raise ConfigError(f"{source}: [axis] is for a file with [[trial]] tables")
        if not any(key in tables for key in (*TABLES, "change", "internal", "expect")):
            raise ConfigError(
                f"{source}: holds no table of a trial; give at least [run], with what goes wrong in [[fault]], "
                "[[change]] or [[internal]], and what must come of it in [expect]"
            )
        yield tables, name
        return
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"{source}: trial = {entries!r}: expected [[trial]] tables")
    shared = {key: value for key, value in tables.items() if key not in GROUP}
    axes = _axes(tables.get("axis", {}), f"{source}: [axis]")
    made: list[tuple[Mapping[str, Any], str]] = []
    for number, entry in enumerate(entries, 1):
        made += _expanded(entry, shared, axes, f"{source}: [[trial]] number {number}", source)
    for axis in axes:
        if not any(axis in entry.get("over", []) for entry in entries):
            raise ConfigError(
                f"{source}: [axis] {axis}: no trial goes over it; give one over = ['{axis}'], or remove the axis"
            )
    yield from made


Axis = dict[str, Mapping[str, Any]]


def _axes(table: Any, where: str) -> dict[str, Axis]:
    """Axes by name: the values of each, with what is laid over for it."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} = {table!r}: expected [axis.NAME] tables")
    axes: dict[str, Axis] = {}
    for name, values in table.items():
        if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
            axes[name] = {value: {} for value in values}
        elif isinstance(values, Mapping) and values and all(isinstance(v, Mapping) for v in values.values()):
            axes[name] = dict(values)
        else:
            raise ConfigError(
                f"{where} {name} = {values!r}: expected a list of names in quotes, such as {name} = "
                f'["1", "2"], or a table for each value, [axis.{name}.VALUE]'
            )
    return axes


def _expanded(
    entry: Mapping[str, Any], shared: Mapping[str, Any], axes: Mapping[str, Axis], where: str, source: str
) -> Iterable[tuple[Mapping[str, Any], str]]:
    known = (*TABLES, *OWN, "name", "over", "axis", "description")
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where}: unknown table or key '{key}'{nearest(key, known)}")
    if "name" not in entry:
        raise ConfigError(f"{where}: the key 'name' is missing; give it a name without blanks and slashes")
    name = entry["name"]
    if not isinstance(name, str) or not name or set(name) & set(" /{}"):
        raise ConfigError(f"{where}: name = {name!r}: expected a name without blanks and slashes")
    where = f"{source}: trial '{name}'"
    own_axes = _axes(entry.get("axis", {}), f"{where}: axis")
    over = entry.get("over", [])
    if not isinstance(over, list) or not all(axis in axes for axis in over):
        raise ConfigError(f"{where}: over = {over!r}: expected names of [axis] tables (known: {', '.join(axes)})")
    own = {key: value for key, value in entry.items() if key not in ("name", "over", "axis", "description")}
    if "description" in entry:
        own = merged({"run": {"description": entry["description"]}}, own)
    names = [*over, *own_axes]
    values = [axes[axis] for axis in over] + list(own_axes.values())
    for chosen in itertools.product(*values):
        below: dict[str, Any] = dict(shared)
        for axis, value in zip(over, chosen, strict=False):
            below = merged(below, axes[axis][value])
        below = merged(below, own)
        for axis, value in zip(list(own_axes), chosen[len(over) :], strict=True):
            below = merged(below, own_axes[axis][value])
        filled = _filled(below, dict(zip(names, chosen, strict=True)))
        yield filled, "-".join((name, *chosen))


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    """`value` with the words for their `{NAME}` in all texts; a text that is nothing but one becomes its number."""
    if isinstance(value, str):
        if value[:1] == "{" and is_number(word := words.get(value[1:-1], "")):
            return float(word) if set(word) & set(".eE") else int(word)
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(item, words) for key, item in value.items()}
    return [_filled(item, words) for item in value] if isinstance(value, list) else value


def _check_filled(tables: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` for a `{NAME}` that no axis of the trial has replaced."""
    for path, value in scenarios.leaves(tables):
        if isinstance(value, str) and (left := _WORD.search(value)):
            name = left[1]
            raise ConfigError(
                f"{where}: {scenarios.place_of(path)} = {value!r}: no axis '{name}' goes with this trial; name it in "
                f"its over, give the trial axis.{name}, or remove {left[0]}"
            )


def _trial(tables: Mapping[str, Any], name: str, source: str) -> Trial:
    """One trial from its tables."""
    where = f"{source}: trial '{name}'"
    scenarios.finite(tables, where)
    _check_filled(tables, where)
    for key in LISTS:
        content = tables.get(key, [])
        if not isinstance(content, list) or not all(isinstance(entry, Mapping) for entry in content):
            raise ConfigError(f"{where}: {key} = {content!r}: expected [[{key}]] tables")
    injected = {
        key: tuple(_injected(key, entry, k, where) for k, entry in enumerate(tables.get(key, []), 1))
        for key in _INJECTED
    }
    run = {"rack": RACK, "duration": DURATION_S, **table_of(tables, "run", where)}
    rest = {key: tables[key] for key in TABLES if key in tables and key != "fault"}
    for key in ("rack", "duty", "sensors", "environment"):
        table_of(tables, key, where)
    try:
        scenario = scenarios.parse({**rest, "run": run}, name, source)
    except ConfigError as error:
        text = str(error).removeprefix(f"scenario {source}: ")
        raise ConfigError(f"{where}: {text}") from None
    _check_rack(scenario.rack, f"{where}: [run] rack = {scenario.rack!r}")
    if scenario.duration_s / scenario.period_s > MOST_STEPS:
        raise ConfigError(
            f"{where}: [run] duration = {run['duration']!r}: {scenario.duration_s / scenario.period_s:,.0f} steps, at "
            f"most {MOST_STEPS:,}; shorten it, or lengthen period_s"
        )
    expect = parse_expect(tables.get("expect", {}), where)
    _check_times(scenario, injected, expect, run["duration"], where)
    tags, clause, gap = tables.get("tags", []), tables.get("clause", ""), tables.get("gap", "")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ConfigError(f"{where}: tags = {tags!r}: expected a list of texts")
    for key, value in (("clause", clause), ("gap", gap)):
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {key} = {value!r}: expected text")
    return Trial(
        id=name,
        scenario=scenario,
        faults=injected["fault"],
        changes=injected["change"],
        internals=injected["internal"],
        expect=expect,
        tags=(*tags, *(["clauses"] if clause else [])),
        clause=clause,
        gap=gap,
        source=source,
    )


def last_step_s(scenario: Scenario) -> float:
    """Time of the last step of a run, s; what comes later is not seen."""
    return (math.ceil(scenario.duration_s / scenario.period_s * (1 - 1e-12)) - 1) * scenario.period_s


def _check_times(
    scenario: Scenario,
    injected: Mapping[str, Sequence[Mapping[str, Any]]],
    expect: Expect,
    duration: object,
    where: str,
) -> None:
    """Raise `ConfigError` for what would come after the end of the run: it would try nothing."""
    times = [
        (f"[[{table}]] number {number}: at_s", float(entry.get("at_s", 0.0)))
        for table, entries in injected.items()
        for number, entry in enumerate(entries, 1)
    ]
    times += [(f"[[request]] number {number}: at", at_s) for number, (at_s, _) in enumerate(scenario.requests, 1)]
    times += [
        (f"[expect]: row fault = '{row.fault.name.lower()}': since", row.since)
        for row in expect.rows
        if isinstance(row.since, float)
    ]
    for what, at_s in times:
        if at_s > last_step_s(scenario):
            raise ConfigError(
                f"{where}: {what} = {at_s:g}: after the last step, {last_step_s(scenario):g} s, of a run with [run] "
                f"duration = {duration!r}; let it come earlier, or lengthen the run"
            )
    for table, entries in injected.items():
        for number, entry in enumerate(entries, 1):
            if "at_state" not in entry:
                check_ramp(entry, entry.get("at_s", 0.0), scenario.duration_s, f"{where}: [[{table}]] number {number}")


def check_ramp(
    entry: Mapping[str, Any], at_s: float, end_s: float, where: str, end: str = "the end of the run"
) -> None:
    """Raise `ConfigError` for a ramp from `at_s` on whose value is not reached before `end_s`, which is `end`."""
    ramp_s = entry.get("ramp_s", 0.0)
    if at_s + ramp_s > end_s:
        raise ConfigError(
            f"{where}: ramp_s = {ramp_s:g}: its value is reached at {at_s + ramp_s:g} s, after {end}, {end_s:g} s; "
            "shorten the ramp, or let the end come later"
        )


def _check_rack(url: str, where: str) -> None:
    """Raise `ConfigError` unless `url` names one rack that answers to the controller on a virtual clock."""
    try:
        scheme, site = unwrapped(url)[1].scheme, is_site(url)
        live = not site and scheme != "sim" and is_live(url)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    remedy = "a trial needs the twin of one rack: name one, such as 'sim:lfp_280'"
    if site:
        raise ConfigError(f"{where}: a site of many racks; {remedy}")
    if scheme == "replay":
        raise ConfigError(f"{where}: a recording does not answer to the controller; {remedy}, or take `bms run`")
    if live:
        raise ConfigError(f"{where}: a rack on a wire lives in real time; {remedy}, or see docs/bench_rig.md")


def table_of(tables: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """The table `key`, empty where there is none. Raises `ConfigError` for what is no table."""
    content = tables.get(key, {})
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: {key} = {content!r}: expected a table, [{key}]")
    return content


def _injected(table: str, entry: Mapping[str, Any], number: int, where: str) -> Mapping[str, Any]:
    """An entry of `[[fault]]`, `[[change]]` or `[[internal]]`, checked as far as that needs no rack."""
    where = f"{where}: [[{table}]] number {number}"
    for key in entry:
        if key not in _INJECTED[table]:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, _INJECTED[table])}")
    if "kind" not in entry:
        raise ConfigError(f"{where}: the key 'kind' is missing; docs/trial.md names the kinds")
    if not isinstance(entry["kind"], str):
        raise ConfigError(f"{where}: kind = {entry.get('kind')!r}: expected the name of a kind")
    entry = dict(entry)
    for key in ("at_s", "until_s", "ramp_s"):
        if key in entry:
            entry[key] = scenarios.seconds(entry[key], f"{where}: {key}", zero=True)
    if "until_s" in entry and entry["until_s"] <= entry.get("at_s", 0.0):
        raise ConfigError(f"{where}: until_s = {entry['until_s']:g}: must be later than at_s")
    check_ramp(entry, entry.get("at_s", 0.0), entry.get("until_s", math.inf), where, "its until_s")
    if "at_state" in entry and entry["at_state"] not in STATES:
        state = entry["at_state"]
        raise ConfigError(f"{where}: at_state = {state!r}: no such state{nearest(str(state), STATES)}")
    for key in ("value", "from"):
        if key in entry:
            check(entry[key], f"{where}: {key}")
    own_ramp = table == "fault" and entry["kind"] in RAMPS_ITSELF and "from" not in entry
    if "ramp_s" in entry and not own_ramp and ("value" not in entry or "from" not in entry):
        raise ConfigError(f"{where}: ramp_s = {entry['ramp_s']!r}: a ramp goes from `from` to `value`; give both")
    if "from" in entry and "ramp_s" not in entry:
        raise ConfigError(f"{where}: from = {entry['from']!r}: only a ramp begins somewhere; give ramp_s, or remove it")
    if table == "internal":
        internal.check(entry, where)
    if table == "change":
        _check_change(entry, where)
    return entry


def _check_change(entry: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` for a change that no rack could have."""
    index, value = entry.get("index"), entry.get("value")
    places = index if isinstance(index, list) else [] if index is None else [index]
    if not all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in places):
        raise ConfigError(f"{where}: index = {index!r}: expected a whole number or a list of them")
    if "channel" not in entry and entry["kind"] != "drop":
        raise ConfigError(
            f"{where}: kind = {entry['kind']!r}: the key 'channel' is missing; name a field of a measurement, such as "
            "'cell_v' (only the kind 'drop' has none)"
        )
    if not isinstance(entry.get("channel", ""), str):
        raise ConfigError(f"{where}: channel = {entry['channel']!r}: expected the name of a field of a measurement")
    try:
        Change(
            entry.get("channel", ""),
            entry["kind"],
            tuple(index) if isinstance(index, list) else index,
            1.0 if isinstance(value, str) else value,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
