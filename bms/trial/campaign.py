"""Campaigns: one trial, many times, with what is varied drawn from a seed or taken from grids. See docs/campaign.md.

Sample k depends on the campaign's seed, on k and on the name of what is varied, on nothing else: neither on other
samples nor on who plays them, so one more variation leaves the others as they were.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from bms.core.faults import Fault
from bms.racks.tables import merged
from bms.runtime import scenario as scenarios
from bms.trial import case
from bms.trial.campaign_vary import Vary, parse_vary
from bms.trial.case import Trial
from hal.contract import Severity
from hal.errors import ConfigError, nearest
from hal.registry import parse_url

FORMAT = 1
MOST_SAMPLES = 1_000_000
OWN = ("campaign", "base", "age", "vary", "detect", "require")
AGE = ("years", "degc", "soc_low", "soc_high", "cycles_per_day")
VARIED = (*case.TABLES, "change", "internal", "expect", "age")
"""Tables that a variation may reach into."""
TIERS = {severity.name.lower(): severity for severity in Severity if severity}


@dataclass(frozen=True)
class Require:
    """What makes the command succeed; a bound that is None is not asked for."""

    passed: float = 1.0  # share of the samples
    detected: float | None = None  # share of those with something injected
    false_alarms_per_rack_year: float | None = None  # as the upper end of its interval


@dataclass(frozen=True)
class Campaign:
    """A campaign. `base` are the tables of its trial; `n` is the number of samples at each point of the grids."""

    name: str
    source: str
    description: str = ""
    n: int = 100
    seed: int = 0
    base: Mapping[str, Any] = field(default_factory=dict)
    age: Mapping[str, Any] = field(default_factory=dict)
    varied: tuple[Vary, ...] = ()
    tier: Severity = Severity.WARNING
    faults: tuple[Fault, ...] = ()  # that count as detection; all of them where empty
    require: Require = field(default_factory=Require)

    @cached_property
    def points(self) -> int:
        """Points of all grids together."""
        return math.prod(len(vary.options) for vary in self.varied if vary.kind == "grid")

    @property
    def total(self) -> int:
        """Number of samples."""
        return self.n * self.points

    @property
    def first(self) -> range:
        """Samples that are looked at before any is played: every point of the grids, and a few draws."""
        return range(min(self.total, max(self.points, 20), 200))

    def id_of(self, k: int) -> str:
        """Name of sample `k`."""
        return f"{self.name}-{k:06d}"

    def values(self, k: int) -> dict[str, Any]:
        """What is varied in sample `k`, by name: what goes into its tables."""
        found: dict[str, Any] = {}
        point = k % self.points
        for vary in self.varied:
            if vary.kind == "grid":
                point, place = divmod(point, len(vary.options))
                found[vary.name] = vary.options[place]
            else:
                found[vary.name] = vary.draw(self.seed, k)
        return found

    def shown(self, k: int) -> dict[str, Any]:
        """The same as it stands in the results: numbers, and labels of what is no number."""
        values = self.values(k)
        return {vary.name: vary.shown(values[vary.name]) for vary in self.varied}

    def trial(self, k: int) -> Trial:
        """The trial of sample `k`. Raises `ConfigError`."""
        tables = copy.deepcopy({**self.base, "age": dict(self.age)})
        values = self.values(k)
        for vary in self.varied:
            for path in vary.paths:
                _put(tables, path, values[vary.name], f"{self.source}: [vary.{vary.name}]")
        age = tables.pop("age")
        where = f"{self.source}: sample {k}"
        for key in ("run", "rack"):
            case.table_of(tables, key, where)
        if age:
            rack_table = tables.setdefault("rack", {})
            rack_table.update(_aged(age, tables.get("run", {}), rack_table, where))
        return case.parse(tables, self.id_of(k), self.source)[0]

    def racks(self) -> list[str]:
        """URLs of all racks that samples may have."""
        urls = {str(case.table_of(self.base, "run", self.source).get("rack", case.RACK))}
        for vary in self.varied:
            for value in vary.options:
                if vary.paths[0] == "run.rack":
                    urls.add(str(value))
                elif vary.paths[0] == "run" and isinstance(value, Mapping) and "rack" in value:
                    urls.add(str(value["rack"]))
        return sorted(urls)

    @cached_property
    def digest(self) -> str:
        """Of everything that a sample follows from; not of how many there are."""
        content = [
            FORMAT, self.name, self.seed, self.base, self.age, int(self.tier), [int(f) for f in self.faults],
            [vary.to_json() for vary in self.varied],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def number_of(self, text: str) -> int:
        """The sample that a user names by id or number. Raises `ConfigError`."""
        digits = text.removeprefix(f"{self.name}-")
        if not digits.isdigit() or int(digits) >= self.total:
            raise ConfigError(
                f"--only {text}: no such sample; {self.id_of(0)} to {self.id_of(self.total - 1)}, or their numbers"
            )
        return int(digits)


def shipped() -> dict[str, Path]:
    """Campaigns that come with the package, by name."""
    folder = Path(str(resources.files("bms").joinpath("trial", "campaigns")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name_or_path: str, n: int | None = None, seed: int | None = None) -> Campaign:
    """A campaign by path, or by name in the package; `n` and `seed` replace the file's. Raises `ConfigError`."""
    path = Path(name_or_path)
    known = shipped()
    if path.suffix != ".toml" and "/" not in name_or_path:
        if name_or_path not in known:
            raise ConfigError(f"unknown campaign '{name_or_path}'{nearest(name_or_path, known)}; or give a .toml file")
        path = known[name_or_path]
    source = f"campaigns/{path.name}" if path in known.values() else str(path)
    found = parse(case.read(path), path.stem, source, path.parent)
    changes: dict[str, Any] = {key: value for key, value in (("n", n), ("seed", seed)) if value is not None}
    return _checked(replace(found, **changes)) if changes else found


def parse(tables: Mapping[str, Any], name: str, source: str, folder: Path = Path()) -> Campaign:
    """The campaign that the `tables` of a file describe; files it names are looked for in `folder`.

    Raises `ConfigError`: one line with file, field, value and remedy.
    """
    scenarios.finite(tables, source)
    allowed = (*OWN, *case.TABLES, "change", "internal", "expect", "tags", "clause", "gap")
    for key in tables:
        if key not in allowed:
            raise ConfigError(f"{source}: unknown table or key '{key}'{nearest(key, allowed)}")
    own = _table(tables, "campaign", source, ("description", "n", "seed"))
    description = own.get("description", "")
    if not isinstance(description, str):
        raise ConfigError(f"{source}: [campaign] description = {description!r}: expected text")
    inline = {key: value for key, value in tables.items() if key not in OWN}
    base = merged(_base(_table(tables, "base", source, ("trial", "file")), source, folder), inline)
    varied = tables.get("vary", {})
    if not isinstance(varied, Mapping):
        raise ConfigError(f"{source}: vary = {varied!r}: expected [vary.NAME] tables")
    tier, faults = _detect(_table(tables, "detect", source, ("tier", "faults")), source)
    return _checked(
        Campaign(
            name=name,
            source=source,
            description=description,
            n=own.get("n", 100),
            seed=own.get("seed", 0),
            base=base,
            age=_table(tables, "age", source, AGE),
            varied=tuple(parse_vary(key, content, source) for key, content in varied.items()),
            tier=tier,
            faults=faults,
            require=_require(_table(tables, "require", source, tuple(Require.__dataclass_fields__)), source),
        )
    )


def _checked(found: Campaign) -> Campaign:
    """`found`, if its samples can be made. Raises `ConfigError`."""
    for key, least in (("n", 1), ("seed", 0)):
        value = getattr(found, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"{found.source}: [campaign] {key} = {value!r}: expected a whole number, at least {least}"
            )
    if found.total > MOST_SAMPLES:
        raise ConfigError(
            f"{found.source}: [campaign] n = {found.n}: {found.total:,} samples with its grids, at most "
            f"{MOST_SAMPLES:,}; lessen it, or the grids"
        )
    reached: dict[str, str] = {}
    for vary in found.varied:
        for path in vary.paths:
            where = f"{found.source}: [vary.{vary.name}] path = '{path}'"
            table, _, key = path.partition(".")
            if table not in VARIED:
                raise ConfigError(f"{where}: there is no table '{table}' to vary{nearest(table, VARIED)}")
            if table == "age" and key not in AGE:
                raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, AGE)}")
            if path in reached:
                raise ConfigError(f"{where}: [vary.{reached[path]}] varies it, too; remove one")
            reached[path] = vary.name
            if table == "rack":
                for url in found.racks():
                    if key in parse_url(url).query:
                        raise ConfigError(f"{where}: the rack '{url}' sets {key}, which wins; remove it from the URL")
    # what is wrong with a path or a range shows here, not after an hour
    for k in found.first:
        found.trial(k)
    return found


def _base(table: Mapping[str, Any], source: str, folder: Path) -> dict[str, Any]:
    """The tables of the trial that a campaign starts from; nothing where it names none."""
    if not table:
        return {}
    wanted, file = table.get("trial"), table.get("file")
    if not isinstance(wanted, str):
        raise ConfigError(f"{source}: [base] trial = {wanted!r}: expected the id of a trial")
    if file is not None and not isinstance(file, str):
        raise ConfigError(f"{source}: [base] file = {file!r}: expected the name of a file with trials")
    ids: list[str] = []
    for path in case.library() if file is None else [folder / file]:
        for tables, id_ in case.expanded(case.read(path), path.stem, str(path)):
            if id_ == wanted:
                return dict(tables)
            ids.append(id_)
    raise ConfigError(f"{source}: [base] trial = '{wanted}': no such trial{nearest(wanted, ids) if ids else ''}")


def _table(tables: Mapping[str, Any], name: str, source: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    content = tables.get(name, {})
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source}: {name} = {content!r}: expected a table, [{name}]")
    for key in content:
        if key not in known:
            raise ConfigError(f"{source}: [{name}]: unknown key '{key}'{nearest(key, known)}")
    return content


def _detect(table: Mapping[str, Any], source: str) -> tuple[Severity, tuple[Fault, ...]]:
    tier, names = table.get("tier", "warning"), table.get("faults", [])
    if tier not in TIERS:
        raise ConfigError(f"{source}: [detect] tier = {tier!r}: expected {', '.join(TIERS)}")
    if not isinstance(names, list):
        raise ConfigError(f"{source}: [detect] faults = {names!r}: expected a list of faults")
    known = {fault.name.lower(): fault for fault in Fault}
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"{source}: [detect] faults = {name!r}: no such fault{nearest(str(name), known)}")
    return TIERS[tier], tuple(known[name] for name in names)


def _require(table: Mapping[str, Any], source: str) -> Require:
    for key, value in table.items():
        most = math.inf if key == "false_alarms_per_rack_year" else 1.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            wanted = "a number of at least 0" if most > 1.0 else "a share in 0..1"
            raise ConfigError(f"{source}: [require] {key} = {value!r}: expected {wanted}")
    return Require(**table)


def _put(tables: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Set the place that `path` names, such as `fault.0.value`; a table is laid over what is there."""
    where = f"{where} path = '{path}'"
    parts = path.split(".")
    at: Any = tables
    for depth, part in enumerate(parts[:-1]):
        if isinstance(at, dict):
            empty: Any = [] if depth == 0 and part in case.LISTS else {}
            at = at.setdefault(part, empty)
        else:
            at = at[_place(at, part, ".".join(parts[:depth]), where)]
        if not isinstance(at, dict | list):
            raise ConfigError(f"{where}: '{'.'.join(parts[: depth + 1])}' is {at!r}, no table; mend the path")
    last: Any = parts[-1]
    if isinstance(at, list):
        last = _place(at, last, ".".join(parts[:-1]), where)
        at[last] = merged(at[last], value) if isinstance(value, Mapping) and isinstance(at[last], Mapping) else value
        return
    if parts[0] == "fault" and last == "index" and isinstance(value, int):
        value = [value]
    before = at.get(last)
    at[last] = merged(before, value) if isinstance(value, Mapping) and isinstance(before, Mapping) else value


def _place(content: list[Any], part: str, what: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(content):
        raise ConfigError(f"{where}: '{what}' has {len(content)} entries, counted from 0; '{part}' is none of them")
    return int(part)


def _aged(age: Mapping[str, Any], run: Mapping[str, Any], rack: Mapping[str, Any], where: str) -> dict[str, float]:
    """Keys of `[rack]` for a rack that has aged; factors that the trial sets itself are multiplied."""
    from hal.backends.simulated import aged_rack

    url = parse_url(str(run.get("rack", case.RACK)))
    if url.scheme != "sim":
        raise ConfigError(f"{where}: [age]: only a twin ages, the rack is '{run.get('rack')}'; remove the table")
    set_already = [key for key in url.query if key.endswith(("_factor", "_spread"))]
    if set_already:
        raise ConfigError(f"{where}: [age]: the rack's URL sets {set_already[0]}, which wins; remove it from the URL")
    try:
        found = aged_rack(url.address, age, rack)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for key in ("capacity_factor", "resistance_factor"):
        if key in found:
            found[key] *= float(rack.get(key, 1.0))
    return found
