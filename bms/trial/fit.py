"""What a trial names and expects, held against the size and the numbers of its rack before it is played.

A place that the rack does not have, or bounds that leave room for nothing or for all, would pass or fail whatever the
controller does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bms.core.faults import ABOUT, Fault, Place
from bms.core.layout import Config
from bms.trial import internal
from bms.trial.case import Trial
from bms.trial.expect import Expect
from bms.trial.quantity import number
from hal.contract import RackInfo
from hal.errors import ConfigError

_CODES = {
    Place.CONTACTOR: ((1, 2, 4), "1 (main positive), 2 (main negative) or 4 (precharge)"),
    Place.RAIL: ((1, 2), "1 (positive) or 2 (negative)"),
    Place.CAUSE: ((1, 2, 3), "1 (orderly end), 2 (operator) or 3 (crash)"),
}
"""What a place that is counted by codes may be, and in words."""


def check(trial: Trial, info: RackInfo, config: Config, values: Mapping[str, float], where: str) -> None:
    """Raise `ConfigError` if `trial` does not fit its rack, whose quantities are `values`."""
    expect, where = trial.expect, f"{where}: [expect]"
    for row in expect.rows:
        place = f"{where}: row fault = '{row.fault.name.lower()}'"
        _check_at(row.fault, row.at, info, place)
        if row.value is not None:
            low, high = (number(value, values, f"{place}: value") for value in row.value)
            if low > high:
                raise ConfigError(
                    f"{place}: value = {list(row.value)!r}: nothing lies between {low:g} and {high:g}; take "
                    f"{list(row.value)[::-1]!r}"
                )
    for key, bound in expect.bounds:
        number(bound, values, f"{where} bounds.{key}")
    _check_within(expect.cause_at, info.n_cells, "cells", f"{where} cause_at")
    _check_burnt(expect, info.n_cells * info.n_parallel, where)
    for entry in trial.internals:
        internal.check_place(entry, config)


def _check_at(fault: Fault, at: Sequence[int], info: RackInfo, where: str) -> None:
    """Raise `ConfigError` for a place at which `fault` is never seen."""
    place = ABOUT[fault].place
    if at and place == Place.RACK:
        raise ConfigError(f"{where}: at = {_shown(at)}: this fault is of the rack as a whole; leave at out")
    if place in _CODES:
        codes, words = _CODES[place]
        if any(k not in codes for k in at):
            raise ConfigError(f"{where}: at = {_shown(at)}: expected {words}")
    elif place == Place.SENSOR:
        _check_within(at, info.n_sensors, "sensors", f"{where}: at")
    else:
        _check_within(at, info.n_cells, "cells", f"{where}: at")


def _check_within(at: Sequence[int], n: int, what: str, where: str) -> None:
    if any(k >= n for k in at):
        raise ConfigError(f"{where} = {_shown(at)}: this rack has the {what} 0..{n - 1}; name one of these")


def _check_burnt(expect: Expect, n: int, where: str) -> None:
    """Raise `ConfigError` for numbers of burnt cells that a rack of `n` cells cannot have, or cannot but have."""
    for key, bounds in (("vented", expect.vented), ("ignited", expect.ignited)):
        if bounds is not None and bounds[1] > n:
            raise ConfigError(f"{where} {key} = {list(bounds)}: this rack has {n} cells; lessen the most")
        if bounds == (0, n):
            raise ConfigError(f"{where} {key} = {list(bounds)}: any number of its {n} cells would do; leave it out")


def _shown(at: Sequence[int]) -> str:
    """Places as a file has them."""
    return str(at[0] if len(at) == 1 else list(at))
