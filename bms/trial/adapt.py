"""Trials of the library on a configuration or at a period of one's own: `--config FILE`, `--period TIME`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bms import racks
from bms.racks.tables import merged
from bms.trial.case import Trial
from hal.errors import ConfigError

OF_THE_RACK = ("name", "cell", "n_series", "n_parallel", "capacity_ah")
"""Keys of `[rack]` that the trial's own rack decides: most are small."""


def with_period(trials: Sequence[Trial], period_s: float) -> list[Trial]:
    """`trials` with so much time between two steps."""
    return [replace(trial, scenario=replace(trial.scenario, period_s=period_s)) for trial in trials]


def with_config(trials: Sequence[Trial], name_or_path: str) -> list[Trial]:
    """The trials on racks of the cell that a configuration is for, with its settings below the changes of each trial.

    Thresholds, times and reactions are those of the file; the size of the rack and the period are the trial's. Raises
    `ConfigError` if the file is wrong, or if there is no trial on such a cell.
    """
    config = racks.load(name_or_path)
    found = [trial for trial in trials if trial.scenario.rack.partition("?")[0] == f"sim:{config.rack.cell}"]
    if not found:
        raise ConfigError(
            f"{name_or_path}: rack.cell = '{config.rack.cell}': none of these trials has a twin of this cell; write "
            f"trials with [run] config = '{name_or_path}'"
        )
    tables = {name: table for name, table in config.tables.items() if name not in ("format", "timing")}
    rack = {key: value for key, value in tables.get("rack", {}).items() if key not in OF_THE_RACK}
    tables = {**tables, "rack": rack}
    return [
        replace(trial, scenario=replace(trial.scenario, controller=merged(tables, trial.scenario.controller)))
        for trial in found
    ]
