"""What faults and states of a controller are called in SunSpec: the table `hal/profiles/sunspec/events.toml`.

Bits and numbers have the names that the models give them; this is where they are looked up.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.codec.sunspec import model
from hal.contract import N_FAULT_WORDS, Command, RackState
from hal.errors import ConfigError, nearest

FOLDER = resources.files("hal.profiles").joinpath("sunspec")
NO_FAILURE = 0


@dataclass(frozen=True)
class Event:
    """What one fault shows: masks of Evt1 for fatal and warning, of EvtVnd1 for both; see the table for the rest."""

    alarm: int
    warning: int
    vendor: int = 0
    con_fail: int = NO_FAILURE
    con_fail_from_warning: bool = False
    state: int | None = None


@dataclass(frozen=True)
class Shown:
    """Words of events, and what else follows from faults; `state` instead of CONNECTED, if it is not None."""

    evt1: int
    vendor: int
    near: int
    con_fail: int
    state: int | None


class Events:
    """The table, looked up. Raises `ConfigError` for a name that the models do not have, or a state without one."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._where = where
        battery, string = model(802, FOLDER).fixed.points, model(804, FOLDER).fixed.points
        self._bits, self._failures = battery["Evt1"].symbols, string["ConFail"].symbols
        self._states, self._vendor = battery["State"].symbols, dict(table["vendor"])
        self.state = {
            state: self._number(self._states, table["state"].get(state.name), f"[state] {state.name}")
            for state in RackState
        }
        """State of model 802 for each state of the controller."""
        self.faults: dict[int, Event] = {}
        """By the number of the fault."""
        self.names: dict[int, str] = {}
        for n, entry in enumerate(table["event"], 1):
            event = self._event(entry, f"[[event]] number {n}")
            for name, number in entry["faults"].items():
                if number in self.faults:
                    raise ConfigError(f"{where}: [[event]] number {n}: the fault {number} ({name}) stands there twice")
                self.faults[number], self.names[number] = event, name
        self.other = Event(self._mask(["OTHER_ALARM"], "alarm"), self._mask(["OTHER_WARNING"], "warning"))
        """What a fault shows that the table does not know."""
        self.silent = 1 << self._number(self._vendor, "energy_manager_silent", "[vendor]")
        self.communication = self._mask(["COMMUNICATION_ERROR"], "alarm")
        self.connected = self._states["CONNECTED"]
        self.standby = self._states["STANDBY"]
        self.string_fault = self._failures["STRING_FAULT"]
        self.not_enabled = self._failures["STRING_NOT_ENABLED"]

    def _number(self, symbols: Mapping[str, int], name: object, place: str) -> int:
        if name not in symbols:
            raise ConfigError(f"{self._where}: {place}: '{name}' has no number{nearest(str(name), symbols)}")
        return symbols[str(name)]

    def _mask(self, names: list[str], place: str) -> int:
        mask = 0
        for name in names:
            mask |= 1 << self._number(self._bits, name, place)
        return mask

    def _event(self, entry: Mapping[str, Any], place: str) -> Event:
        vendor = 1 << self._number(self._vendor, entry["vendor"], f"{place}, vendor") if "vendor" in entry else 0
        state = self._number(self._states, entry["state"], f"{place}, state") if "state" in entry else None
        fail = self._number(self._failures, entry.get("con_fail", "STRING_FAULT"), f"{place}, con_fail")
        return Event(
            self._mask(entry["alarm"], f"{place}, alarm"),
            self._mask(entry["warning"], f"{place}, warning"),
            vendor,
            fail,
            entry.get("con_fail_from") == "warning",
            state,
        )

    def of(self, fault: int) -> Event:
        """What the fault of that number shows."""
        return self.faults.get(fault, self.other)

    def shown(self, command: Command) -> Shown:
        """What the faults of a command show together. ConFail is that of the fault that came first, if one is fatal."""
        evt1 = vendor = near = 0
        con_fail, state = NO_FAILURE, None
        for fault in bits(command.fault_info):
            near |= self.of(fault).warning
        for fault in bits(command.fault_warning):
            event = self.of(fault)
            evt1, vendor = evt1 | event.warning, vendor | event.vendor
            state = event.state if state is None else state
            if event.con_fail_from_warning:
                con_fail = con_fail or event.con_fail
        fatal = list(bits(command.fault_fatal))
        for fault in fatal:
            event = self.of(fault)
            evt1, vendor = evt1 | event.alarm, vendor | event.vendor
            state = event.state if state is None else state
        if fatal:
            first = int(command.head["cause"][0]) // 10
            con_fail = self.of(first if first in fatal else fatal[0]).con_fail or self.string_fault
        return Shown(evt1, vendor, near, con_fail, state)


def bits(words: npt.NDArray[np.uint32]) -> Iterator[int]:
    """Numbers of the faults that are set in `words` u4[3], rising."""
    for k in range(N_FAULT_WORDS):
        word = int(words[k])
        while word:
            lowest = word & -word
            yield 32 * k + lowest.bit_length() - 1
            word ^= lowest


@cache
def load() -> Events:
    """The table that comes with the package. Raises `ConfigError` where the models of SunSpec are not installed."""
    file = FOLDER.joinpath("events.toml")
    return Events(tomllib.loads(file.read_text(encoding="utf-8")), "events.toml")
