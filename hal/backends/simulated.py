"""The twin as a rack: the only door from the product to `sim`.

`sim:CELL?key=value&...`: CELL is a cell of the twin with the rack that its file describes; keys without a dot change
the table `[rack]`, `table.key` another one. The tables `[rack]`, `[duty]`, `[sensors]`, `[environment]` and `[[fault]]`
of a scenario come as options.

Each `read` integrates the physics to the clock's time under the last command, in equal sub-steps of at most
`[rack] substep_s`, then samples the sensors. The PCS follows the duty inside the published limits and draws nothing
unless both main contactors are closed.

Stricter than a rack: a command that makes no sense raises `ValueError`. Harmful but possible commands have their
physical consequence: closing onto a DC link that is not charged, or opening a current beyond what the contactors can
break, welds them. The feedback then says closed, and `events` tells why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hal.backends.twin import PROGRAM
from hal.contract import Capabilities, Clock, Command, Measurement, Quality, RackInfo, Truth
from hal.errors import ConfigError, LinkError, nearest
from sim import ageing
from sim import cell as twin_cell
from sim import electronics as E
from sim import layout as Y
from sim.burning import Burning, burning
from sim.config import TwinError, from_table
from sim.site import Site

TABLES = ("rack", "duty", "sensors", "environment", "fault")

QUALITIES = int(Quality.OUT_OF_RANGE), int(Quality.MISSING)
_LIMITS = ("limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w")


class MonotonicClock:
    """Seconds of the computer's monotonic clock since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def now_s(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._start


def _value(text: str) -> Any:
    """A query value as TOML would read it: whole number, number, true or false, otherwise text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text, text)


def scenario_tables(
    options: Mapping[str, Any], query: Mapping[str, str], url: str, known: tuple[str, ...]
) -> dict[str, Any]:
    """The tables of the twin that a scenario (`options`) and the query of a rack's URL describe; the query wins.

    `known` names the tables, `rack` and `fault` among them. Raises `ConfigError`.
    """
    tables: dict[str, Any] = {}
    for name, table in options.items():
        if name not in known:
            raise ConfigError(f"the twin has no table [{name}]{nearest(name, known)}")
        if name == "fault" and isinstance(table, (list, tuple)):
            tables[name] = list(table)
        elif name != "fault" and isinstance(table, Mapping):
            tables[name] = dict(table)
        else:
            raise ConfigError(f"[{name}] = {table!r}: expected {'[[fault]] tables' if name == 'fault' else 'a table'}")
    plain = tuple(name for name in known if name != "fault")
    for key, text in query.items():
        name, dot, inner = key.rpartition(".")
        name = name if dot else "rack"
        if name not in plain:
            raise ConfigError(f"rack URL '{url}': the twin has no table [{name}]{nearest(name, plain)}")
        tables.setdefault(name, {})[inner] = _value(text)
    return tables


class SimulatedRack:
    """A twin behind the contract (`hal.contract.Rack` and `HasTruth`)."""

    programs = (PROGRAM,)
    """Native programs that this rack runs; whoever opens it may prepare them before."""

    def __init__(
        self,
        address: str,
        *,
        query: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the twin of cell `address`. Raises `ConfigError` for anything unknown in `query` or `options`."""
        tables = scenario_tables(options or {}, query or {}, f"sim:{address}", TABLES)
        self._clock: Clock = clock if clock is not None else MonotonicClock()
        try:
            self.site = Site(address, tables, qualities=QUALITIES)
        except TwinError as error:
            where = "" if address in cell_names() else f"rack URL 'sim:{address}': "
            raise ConfigError(f"{where}{error}") from None
        self.twin = self.site.twin()
        self._faults = list(tables.get("fault", ()))
        self.sensors, self.duty = self.site.sensors, self.site.duty
        self.environment, self.events = self.site.environment, self.site.events
        self._info = rack_info(f"sim:{address}", self.site)
        self._open = False
        self._start_s: float | None = None
        size = self._info.n_cells, self._info.n_sensors
        self._last, self._command = Measurement(*size), Command(*size)
        self._at_s, self._sequence = self._last.head["time_s"], self._last.head["sequence"]
        prepare(self._last.raw, self.site)
        self.site.attach(self._last.raw, self._command.raw)

    @property
    def info(self) -> RackInfo:
        """Description of the rack."""
        return self._info

    def open(self) -> None:
        """Switch the rack's electronics on; the twin's time starts with the first opening."""
        if self._open:
            return
        self._open = True
        now = self._clock.now_s()
        if self._start_s is None:
            self._start_s = now
        self.site.start(now - self._start_s)
        self._stamp()

    def read(self, out: Measurement) -> None:
        """Advance the physics to the clock's time and fill `out`. Raises `LinkError` when not open."""
        self._need_open()
        if out.n_cells != self._info.n_cells or out.n_sensors != self._info.n_sensors:
            raise ValueError(
                f"measurement for {out.n_cells} cells and {out.n_sensors} sensors, "
                f"the rack has {self._info.n_cells} and {self._info.n_sensors}"
            )
        assert self._start_s is not None
        elapsed = self._clock.now_s() - self._start_s - self.site.time_s
        if elapsed > 0.0:
            self.site.run(elapsed)
            self._stamp()
        out.copy_from(self._last)

    def _stamp(self) -> None:
        stalled = self.site.stalled
        if stalled is not None and stalled[0]:
            return  # the record is an old one
        self._at_s[0] = self.site.time_s + (self._start_s or 0.0)
        self._sequence[0] = self.site.sequence & 0xFFFFFFFF

    def write(self, command: Command) -> None:
        """Take the command over. Raises `ValueError` for one that no rack could follow, `LinkError` when not open."""
        self._need_open()
        if command.n_cells != self._info.n_cells:
            raise ValueError(f"balancing mask for {command.n_cells} cells, the rack has {self._info.n_cells}")
        self._command.bytes[...] = command.bytes
        rack, wrong = self.site.command()
        if rack >= 0:
            raise ValueError(complaint(self._command.raw[0], wrong))

    def close(self) -> None:
        """Open the contactors and switch the electronics off."""
        if self._open:
            self.site.stop()
            self._stamp()
            self._open = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The faults of the twin, as `[[fault]]` entries; times are from the first opening."""
        return [dict(entry) for entry in self._faults]

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Have one more fault, an entry of `[[fault]]`, from now on where it does not say `at_s`.

        Raises `ConfigError` for a mistake in it.
        """
        self._set_faults([*self._faults, {"at_s": self.site.time_s, **fault}])

    def clear(self, kind: str | None = None) -> int:
        """End the faults of this kind, or all; what they have done stays. Returns how many there were."""
        kept = [entry for entry in self._faults if kind is not None and entry.get("kind") != kind]
        count = len(self._faults) - len(kept)
        self._set_faults(kept)
        return count

    def _set_faults(self, entries: list[Any]) -> None:
        try:
            self.site.set_faults(entries)
        except TwinError as error:
            raise ConfigError(str(error)) from None
        self._faults = entries

    def truth(self, out: Truth) -> None:
        """Fill `out` with the state at the time of the last `read`."""
        if out.n_cells != self._info.n_cells:
            raise ValueError(f"truth for {out.n_cells} cells, the rack has {self._info.n_cells}")
        self.site.truth(out.raw, self._start_s or 0.0)

    def burning(self) -> Burning:
        """What has burnt, cell by cell, at the time of the last `read`; its times are from the first opening."""
        return burning(self.twin)

    @property
    def contactors_closed(self) -> int:
        """What is really closed, as `Contactor` bits."""
        logic = self.site.bank.logic[0]
        return int(logic[Y.L_REQUESTED] & ~logic[Y.L_STUCK] | logic[Y.L_WELDED])

    def _need_open(self) -> None:
        if not self._open:
            raise LinkError(f"{self._info.name} is not open")


def rack_info(name: str, site: Site) -> RackInfo:
    """Description of one rack of the twin."""
    config, cell = site.bank.config, site.bank.cell
    return RackInfo(
        name=name,
        n_cells=config.n_series,
        n_sensors=site.sensors.n_sensors,
        n_parallel=config.n_parallel,
        capacity_ah=site.rating.capacity_ah,
        cell=cell.head.name,
        sensor_of_cell=site.sensors.sensor_of_cell,
        capabilities=Capabilities(
            contactors=True,
            precharge=True,
            balancing=True,
            cooling=True,
            insulation=True,
            coolant_flow=True,
            gas=True,
            bleed_feedback=True,
            shuttle=config.shuttle,
            truth=True,
        ),
    )


def prepare(raw: npt.NDArray[np.void], site: Site) -> None:
    """Fill in what no sample changes: ages of the values, the closed interlock."""
    raw["cell_v_age_s"] = site.sensors.cell_age_s
    raw["head"]["current_a_age_s"] = site.sensors.current_age_s
    raw["head"]["interlock_closed"] = 1


def complaint(command: np.void, wrong: int) -> str:
    """What is wrong with a command, as text; `wrong` is one of `electronics.WRONG_...`."""
    head = command["head"]
    if wrong == E.WRONG_CONTACTORS:
        return f"contactors = {int(head['contactors']):#x}: bits that no contactor has"
    if wrong == E.WRONG_COOLING:
        return f"cooling_degc = {float(head['cooling_degc'])}: no coolant has this temperature"
    if wrong == E.WRONG_BALANCE:
        return f"balance = {int(command['balance'].max())}: the mask holds 0 and 1"
    if wrong == E.WRONG_SHUTTLE:
        return f"shuttle = {int(command['shuttle'].max())}: the codes are 0, 1 and 2"
    if wrong == E.WRONG_SHUTTLE_LAST:
        return f"shuttle = {int(command['shuttle'][-1])} for the last group: there is no next one"
    if wrong == E.WRONG_SHUTTLE_ABSENT:
        return f"shuttle = {int(command['shuttle'].max())}: this rack has no active balancer ([rack] shuttle = true)"
    name = _LIMITS[wrong - E.WRONG_LIMIT]
    return f"{name} = {float(head[name])}: a published limit is a number >= 0"


def virtual_lab(cell: str, seed: int = 0) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Laboratory tests of one twin cell; see `sim.lab.run`. Raises `ConfigError` for an unknown cell."""
    from sim import lab

    try:
        return lab.run(cell, seed)
    except TwinError as error:
        raise ConfigError(str(error)) from None


def aged_rack(cell: str, use: Mapping[str, float], rack: Mapping[str, Any]) -> dict[str, float]:
    """Keys of `[rack]` for a rack of this cell that went through `use` (see `sim.ageing.Use`).

    `rack`: the table for a new one, of which the spreads count. Raises `ConfigError`: no data of its chemistry.
    """
    chemistry = cell_chemistry(cell)
    try:
        went_through = from_table(ageing.Use, use, "[age]")
        if went_through.years == 0.0:
            return {}
        if chemistry not in ageing.CHEMISTRIES:
            raise TwinError(
                f"[age] years = {went_through.years:g}: there is no ageing data of {chemistry}, only of "
                f"{', '.join(ageing.CHEMISTRIES)}; give [rack] capacity_factor and resistance_factor instead"
            )
        spreads = {key: float(rack[key]) for key in ("capacity_spread", "resistance_spread") if key in rack}
        return asdict(ageing.aged(went_through, **spreads))
    except TwinError as error:
        raise ConfigError(str(error)) from None


def cell_names() -> tuple[str, ...]:
    """Cells that the twin has."""
    return twin_cell.names()


def cell_chemistry(cell: str) -> str:
    """Chemistry of one of the twin's cells, as `bms identify` names it. Raises `ConfigError` for an unknown cell."""
    try:
        return twin_cell.load(cell).head.chemistry
    except TwinError as error:
        raise ConfigError(str(error)) from None
