"""The outcome of one trial, small enough to be handed from process to process: verdict, ledger, and curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bms.trial.case import Trial
from bms.trial.lead import Lead
from bms.trial.ledger import Entry, Verdict, judge
from bms.trial.play import Played, play, state_name
from hal.errors import ConfigError, DataError, GoneError

log = logging.getLogger(__name__)

PASSED, FAILED, GAP = "passed", "failed", "gap"
COLUMNS = 160  # samples of a curve
HEAT_ROWS, HEAT_COLUMNS = 52, 96  # of a temperature map
CURVES = ("v_min", "v_mean", "v_max", "current_a", "true_a", "discharge_a", "charge_a")


@dataclass
class Curves:
    """What the page draws: samples (n,) of `CURVES`, times of changes of state, and temperatures as (rows, columns)."""

    time_s: npt.NDArray[np.float32]
    lines: dict[str, npt.NDArray[np.float32]]
    states: list[tuple[float, str]]
    heat: npt.NDArray[np.float32]
    heat_of: str  # cells or sensors


@dataclass
class Outcome:
    """What came of one trial."""

    id: str
    source: str
    description: str
    clause: str
    gap: str
    tags: tuple[str, ...]
    status: str
    failures: list[str]
    entries: list[Entry]
    cells: list[tuple[int, str, str, str, str]]
    injected: list[tuple[float, str]]
    rack: str
    seed: int
    digest: str
    simulated_s: float
    wall_s: float
    state_at_end: str
    open_at_end: bool  # no contactor is asked to be closed
    lead: Lead | None = None  # where something burnt, or might have
    curves: Curves | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the curves."""
        values = asdict(self)
        del values["curves"]
        return values | {"lead": None if self.lead is None else self.lead.to_json()}


def run_one(trial: Trial, controller: Mapping[str, Any] | None = None, *, curves: bool = True) -> Outcome:
    """Play and judge a trial; `controller` are changes of the configuration. Raises `ConfigError`."""
    return attempted(trial, lambda: _run(trial, controller, curves=curves))


def _run(trial: Trial, controller: Mapping[str, Any] | None, *, curves: bool) -> Outcome:
    begun = time.perf_counter()
    played = play(trial, controller)
    return outcome_of(played, judge(played), time.perf_counter() - begun, curves=curves)


def attempted(trial: Trial, run: Callable[[], Outcome]) -> Outcome:
    """What `run` makes of `trial`; where it breaks down, `trial` has failed with the text of the error, and no other.

    Raises `ConfigError` and `DataError`: these say what to mend; and `GoneError`, without a controller to try.
    """
    begun = time.perf_counter()
    try:
        return run()
    except (ConfigError, DataError, GoneError):
        raise
    except Exception as error:
        text = f"{trial.source}: broke down: {type(error).__name__}: {error}; this is an error of the program"
        log.debug("trial '%s'", trial.id, exc_info=True)
        return Outcome(
            id=trial.id,
            source=trial.source,
            description=trial.scenario.description,
            clause=trial.clause,
            gap=trial.gap,
            tags=trial.tags,
            status=FAILED,
            failures=[text],
            entries=[],
            cells=[],
            injected=[],
            rack=trial.scenario.rack,
            seed=0,
            digest="",
            simulated_s=0.0,
            wall_s=time.perf_counter() - begun,
            state_at_end="",
            open_at_end=False,
        )


def outcome_of(played: Played, verdict: Verdict, wall_s: float, *, curves: bool) -> Outcome:
    """What is handed on of a trial that was played and judged in `wall_s`."""
    trial = played.trial
    status, failures = PASSED if verdict.passed else FAILED, verdict.failures
    if trial.gap:
        status = FAILED if verdict.passed else GAP
        failures = ["known as a gap, but it passes: remove the key 'gap'"] if verdict.passed else verdict.failures
    return Outcome(
        id=trial.id,
        source=trial.source,
        description=trial.scenario.description,
        clause=trial.clause,
        gap=trial.gap,
        tags=trial.tags,
        status=status,
        failures=failures,
        entries=verdict.entries,
        cells=verdict.cells,
        injected=played.injected,
        rack=trial.scenario.rack,
        seed=played.seed,
        digest=played.digest,
        simulated_s=float(played.log.dt_s.sum()),
        wall_s=wall_s,
        state_at_end=state_name(int(played.log.state[-1])),
        open_at_end=int(played.log.asked[-1]) == 0,
        lead=verdict.lead,
        curves=_curves(played) if curves else None,
    )


def _curves(played: Played) -> Curves:
    log = played.log
    at = np.unique(np.linspace(0, len(log) - 1, min(COLUMNS, len(log))).astype(int))
    changes = np.flatnonzero(np.diff(log.state.astype(int), prepend=-1))
    heat, heat_of = (log.true_degc, "cells, true") if played.has_truth else (log.degc, "sensors")
    columns = np.unique(np.linspace(0, len(log) - 1, min(HEAT_COLUMNS, len(log))).astype(int))
    shown = heat[columns].T
    if len(shown) > HEAT_ROWS:
        shown = np.stack([part.max(axis=0) for part in np.array_split(shown, HEAT_ROWS)])
    return Curves(
        log.time_s[at].astype(np.float32),
        {name: getattr(log, name)[at].astype(np.float32) for name in CURVES},
        [(float(log.time_s[k]), state_name(int(log.state[k]))) for k in changes],
        shown.astype(np.float32),
        heat_of,
    )
