"""One trial played: rack, controller and what goes wrong, step by step on a virtual clock, and a log of every step."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bms.core.layout import Config
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.racks import RackConfig
from bms.racks.record import record
from bms.racks.tables import merged
from bms.runtime.clock import VirtualClock
from bms.runtime.run import first_guess, prepare_folder, rack_config
from bms.runtime.scenario import Scenario
from bms.runtime.takedown import TakeDown
from bms.trial import fit, internal
from bms.trial.case import Trial, check_ramp, last_step_s
from bms.trial.expect import STATES
from bms.trial.lead import Fire, fire_of
from bms.trial.log import Log
from bms.trial.quantity import number, quantities, resolved
from hal.backends.chaos import Change, Chaos
from hal.backends.replay import FILE_NAME
from hal.contract import (
    Command,
    HasTruth,
    Measurement,
    Rack,
    RackInfo,
    RackState,
    Truth,
)
from hal.errors import ConfigError
from hal.registry import open_rack

RAMP_STEPS = 50
WORDS = frozenset({"kind", "channel", "path", "start_with", "at_state", "side_reactions"})
"""Keys that hold text as it is; any other text is a quantity of the rack."""


@dataclass
class Played:
    """A trial that was played: its log, and all that judging needs.

    `injected`: (time in s, text), first the one that times count from.
    """

    trial: Trial
    log: Log
    settings: RackConfig
    values: Mapping[str, float]
    info: RackInfo
    injected: list[tuple[float, str]]
    digest: str
    seed: int
    events: list[str]
    has_truth: bool
    fire: Fire | None = None
    burning: Any = None  # of a twin: what has burnt at the end


_KNOWN: dict[str, tuple[RackConfig, Config]] = {}


def _configured(scenario: Scenario, info: RackInfo) -> tuple[RackConfig, Config]:
    """Settings and record of a rack, remembered: reading and parsing the files takes longer than a trial."""
    rack = {**asdict(info), "sensor_of_cell": info.sensor_of_cell.tolist()}
    key = json.dumps([scenario.period_s, scenario.config, scenario.cell, scenario.controller, rack])
    if key not in _KNOWN:
        settings = rack_config(scenario, info)
        _KNOWN[key] = settings, record(settings, info)
    return _KNOWN[key]


def configuration(trial: Trial) -> Config:
    """The record of the configuration that `trial` is played with. Raises `ConfigError`."""
    return _configured(trial.scenario, _info(trial.scenario))[1]


def _info(scenario: Scenario) -> RackInfo:
    size = {k: v for k, v in scenario.tables.get("rack", {}).items() if not isinstance(v, str)}
    return _info_of(scenario.rack, json.dumps(size, default=str))


@functools.lru_cache(maxsize=256)
def _info_of(url: str, size: str) -> RackInfo:
    return open_rack(url, clock=VirtualClock(), options={"rack": json.loads(size)}).info


@dataclass(frozen=True)
class _Plan:
    """A trial with the numbers of its rack: all that is known before anything happens."""

    trial: Trial
    info: RackInfo
    settings: RackConfig
    config: Config
    values: Mapping[str, float]
    tables: Mapping[str, Any]
    where: str

    def timed(self, starts: Sequence[float]) -> tuple[list[dict[str, Any]], ...]:
        """`[[fault]]`, `[[change]]` and `[[internal]]` with numbers and times of the run; see `_timed`."""
        trial, found, left = self.trial, [], list(starts)
        for name, entries in (("fault", trial.faults), ("change", trial.changes), ("internal", trial.internals)):
            mine, left = left[: len(entries)], left[len(entries) :]
            found.append(_timed(entries, mine, self.values, trial.scenario.period_s, f"{self.where}: [[{name}]]"))
        return tuple(found)

    def rack(self, faults: Sequence[Any], changes: Sequence[Mapping[str, Any]], clock: VirtualClock) -> Rack:
        """The rack in which they happen, not open yet."""
        url = self.trial.scenario.rack
        rack: Rack = open_rack(url, clock=clock, options={**self.tables, "fault": faults})
        return Chaos(rack, [_change(change) for change in changes]) if changes else rack


def _planned(trial: Trial, where: str) -> _Plan:
    info = _info(trial.scenario)
    settings, config = _configured(trial.scenario, info)
    values = quantities(settings)
    fit.check(trial, info, config, values, where)
    tables = trial.scenario.tables
    tables = {name: resolved(table, values, f"{where}: [{name}]", WORDS) for name, table in tables.items()}
    return _Plan(trial, info, settings, config, values, tables, where)


@contextmanager
def _naming(trial: Trial) -> Iterator[str]:
    """Gives what errors of `trial` begin with, and puts it in front of those that lack it."""
    where = f"{trial.source}: trial '{trial.id}'"
    try:
        yield where
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(trial.source) else f"{where}: {text}") from error


def check(trial: Trial) -> None:
    """Raise `ConfigError` for what can be known to be wrong with `trial` without playing it."""
    with _naming(trial) as where:
        plan = _planned(trial, where)
        faults, changes, _ = plan.timed([0.0] * len(trial.injected))
        rack = plan.rack(faults, changes, VirtualClock())
        if changes:  # their places are looked at once the rack is open
            with rack:
                pass


def play(trial: Trial, controller: Mapping[str, Any] | None = None, record: Path | None = None) -> Played:
    """Play `trial`. Raises `ConfigError`.

    `controller` are changes of the configuration that the trial knows nothing of: its quantities, budgets and
    expectations stay those of its own. `record`: a folder for a recording, which `bms replay` opens.
    """
    with _naming(trial) as where:
        return _play(trial, where, controller or {}, record)


def _play(trial: Trial, where: str, controller: Mapping[str, Any], record_to: Path | None) -> Played:
    scenario = trial.scenario
    plan = _planned(trial, where)
    config = plan.config
    if controller:
        changed = replace(scenario, controller=merged(scenario.controller, controller))
        config = _configured(changed, plan.info)[1]
    starts = _starts(trial, scenario, where, controller)
    faults, changes, internals = plan.timed(starts)
    clock = VirtualClock()
    rack = plan.rack(faults, changes, clock)
    with rack:
        own = _controller(scenario, rack, plan.settings, config)
        taken = None if record_to is None else _taken(record_to, trial, rack.info, own)
        runner = _Runner(rack, own, clock, scenario, sorted(internals, key=lambda entry: entry["at_s"]), taken)
        log = runner.run()
        burning = rack.burning() if hasattr(rack, "burning") else None
        if taken is not None:
            taken.close({"ended_by": "duration", "opened": int(log.asked[-1]) == 0})
            taken.complain()
    injected = _told(trial, starts)
    return Played(
        trial, log, plan.settings, plan.values, plan.info, injected,
        hashlib.sha256(config.bytes.tobytes()).hexdigest()[:16],
        int(plan.tables.get("rack", {}).get("seed", _query_seed(scenario.rack))),
        [str(getattr(event, "text", event)) for event in getattr(rack, "events", ())],
        runner.truth is not None,
        fire_of(rack, faults),
        burning,
    )  # fmt: skip


def _controller(scenario: Scenario, rack: Rack, settings: RackConfig, config: Config) -> Controller:
    """The controller of an open rack, with a configuration of its own: a trial may damage it."""
    info = rack.info
    own = Config(info.n_cells, info.n_sensors)
    own.copy_from(config)
    measurement = Measurement(info.n_cells, info.n_sensors)
    rack.read(measurement)
    soc, std = first_guess(scenario, settings.cell, measurement.raw[0], info)
    return Controller(own, initial_state(own, soc, std), measurement, Command(info.n_cells, info.n_sensors))


def _taken(folder: Path, trial: Trial, info: RackInfo, controller: Controller) -> TakeDown:
    """What takes down every step of a trial into `folder`."""
    scenario = trial.scenario
    about = {"scenario": scenario.to_json(), "sample_every": 1, "speed": None, "trial": trial.id}
    prepare_folder(folder)
    return TakeDown(folder, folder / FILE_NAME, info, controller, about, scenario.period_s)


def _query_seed(url: str) -> int:
    from hal.registry import parse_url

    return int(parse_url(url).query.get("seed", "1"))


def _told(trial: Trial, starts: Sequence[float]) -> list[tuple[float, str]]:
    """What was injected and when, in words; that which its times count from comes first."""
    told = []
    for k, (entry, start_s) in enumerate(zip(trial.injected, starts, strict=True)):
        text = entry["kind"] if "channel" not in entry else f"{entry['channel']} {entry['kind']}"
        if "index" in entry:
            index = entry["index"]
            text += f" at {index}" if not isinstance(index, list) or len(index) <= 2 else f" at {len(index)} places"
        if "value" in entry:
            text += f": {entry['value']}"
        inside = k >= len(trial.injected) - len(trial.internals)
        told.append(("at_state" not in entry, inside, start_s + float(entry.get("at_s", 0.0)), text))
    told += [
        (True, True, at_s, f"request {request.name.lower()}")
        for at_s, request in trial.scenario.requests
        if request == Request.EMERGENCY_STOP
    ]
    return [(at_s, text) for _, _, at_s, text in sorted(told)]


def _starts(trial: Trial, scenario: Scenario, where: str, controller: Mapping[str, Any]) -> list[float]:
    """What the times of each entry are counted from: 0, or when its state is reached in a run without those entries."""
    starts = [0.0] * len(trial.injected)
    if not any("at_state" in entry for entry in trial.injected):
        return starts

    def kept(entries: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
        return tuple(entry for entry in entries if "at_state" not in entry)

    dry = replace(trial, faults=kept(trial.faults), changes=kept(trial.changes), internals=kept(trial.internals))
    log = _play(dry, where, controller, None).log
    for k, entry in enumerate(trial.injected):
        if "at_state" in entry:
            hits = np.flatnonzero(log.state == STATES[entry["at_state"]])
            if not hits.size:
                raise ConfigError(
                    f"{where}: at_state = '{entry['at_state']}': without the fault this state is never reached; change "
                    f"[[request]] or the duration"
                )
            starts[k] = float(log.time_s[hits[0]])
            at_s = starts[k] + float(entry.get("at_s", 0.0))
            if at_s > last_step_s(scenario):
                raise ConfigError(
                    f"{where}: kind = '{entry['kind']}': at_s = {entry['at_s']:g} after at_state = "
                    f"'{entry['at_state']}' is {at_s:g} s: after the last step, {last_step_s(scenario):g} s; "
                    "lengthen [run] duration"
                )
            check_ramp(entry, at_s, scenario.duration_s, f"{where}: kind = '{entry['kind']}'")
    return starts


def _timed(
    entries: tuple[Mapping[str, Any], ...],
    starts: Sequence[float],
    values: Mapping[str, float],
    period_s: float,
    where: str,
) -> list[dict[str, Any]]:
    """Entries with numbers for quantities, times of the run, and ramps as stairs."""
    made: list[dict[str, Any]] = []
    for k, (given, start_s) in enumerate(zip(entries, starts, strict=True)):
        entry = {key: value for key, value in given.items() if key not in ("at_state", "ramp_s", "from")}
        entry["at_s"] = float(given.get("at_s", 0.0)) + start_s
        if "until_s" in given and "at_state" in given:
            entry["until_s"] = float(given["until_s"]) + start_s
        if "value" in given:
            entry["value"] = number(given["value"], values, f"{where} number {k + 1}: value")
        ramp_s = float(given.get("ramp_s", 0.0))
        if ramp_s and "from" not in given:  # the twin's own ramp
            made.append({**entry, "ramp_s": ramp_s})
            continue
        if not ramp_s:
            made.append(entry)
            continue
        first = number(given["from"], values, f"{where} number {k + 1}: from")
        n = min(RAMP_STEPS, max(2, math.ceil(ramp_s / period_s)))
        for stair in range(1, n + 1):
            begins_s = entry["at_s"] + ramp_s * (stair - 1) / n
            piece = {**entry, "at_s": begins_s, "value": first + (entry["value"] - first) * stair / n}
            if stair < n:
                piece["until_s"] = begins_s + ramp_s / n
            if begins_s < entry.get("until_s", math.inf):
                made.append(piece)
    return made


def _change(entry: Mapping[str, Any]) -> Change:
    index = entry.get("index")
    return Change(
        entry.get("channel", ""),
        entry["kind"],
        tuple(index) if isinstance(index, list) else index,
        entry.get("value"),
        entry["at_s"],
        entry.get("until_s"),
    )


class _Runner:
    """The loop of a trial: read, decide, write, note."""

    def __init__(
        self,
        rack: Rack,
        controller: Controller,
        clock: VirtualClock,
        scenario: Scenario,
        internals: list[dict[str, Any]],
        taken: TakeDown | None,
    ) -> None:
        self.rack, self.controller, self.clock, self.scenario = rack, controller, clock, scenario
        self.internals, self.taken = internals, taken
        info = rack.info
        self.teller = rack if info.capabilities.truth and isinstance(rack, HasTruth) else None
        self.truth = None if self.teller is None else Truth(info.n_cells, info.n_sensors)
        n = math.ceil(scenario.duration_s / scenario.period_s) + 2
        self.log = Log(n, info, controller, self.truth)
        self.seen: Any = rack if hasattr(rack, "contactors_closed") else None

    def run(self) -> Log:
        """All steps of the trial."""
        scenario, period_s = self.scenario, self.scenario.period_s
        requests, asked = list(scenario.requests), Request.CONNECT
        now_s, last_s = self.clock.now_s(), self.clock.now_s() - period_s
        ends_s = now_s + scenario.duration_s * (1 - 1e-12)
        while now_s < ends_s:
            while requests and requests[0][0] <= now_s:
                asked = requests.pop(0)[1]
            while self.internals and self.internals[0]["at_s"] <= now_s:
                entry = self.internals.pop(0)
                if entry["kind"] == "late_step":
                    now_s += entry["value"]
                else:
                    internal.apply(entry, self.controller)
            self.clock.wait_until(now_s, lambda: False)
            self.rack.read(self.controller.measurement)
            status = self.controller.step(asked, now_s - last_s)
            self.rack.write(self.controller.command)
            if self.teller is not None and self.truth is not None:
                self.teller.truth(self.truth)
            closed = None if self.seen is None else self.seen.contactors_closed
            self.log.add(now_s, now_s - last_s, asked, closed)
            if self.taken is not None:
                self.taken.add(now_s - last_s, asked, status, self.controller, self.truth)
            last_s, now_s = now_s, now_s + period_s
        return self.log


def state_name(code: int) -> str:
    """Name of a state as it is shown."""
    return RackState(code).name.lower()
