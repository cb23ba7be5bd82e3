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

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hal.backends.twin import PROGRAM
from hal.contract import Capabilities, Clock, Command, Contactor, Measurement, Quality, RackInfo, Truth
from hal.errors import ConfigError, LinkError, nearest
from sim import cell as twin_cell
from sim import duty as twin_duty
from sim import kernels as K
from sim import lab as twin_lab
from sim import sensors as S
from sim.config import TwinError, from_table
from sim.environment import EnvironmentConfig, FaultConfig, fault_configs
from sim.rack import RackTwin, rack_config

TABLES = ("rack", "duty", "sensors", "environment", "fault")

_MAINS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE)
_KNOWN_CONTACTORS = int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE)
_SCALARS = ("current_a", "pack_v", "bus_v", "insulation_ohm", "coolant_in_degc", "coolant_out_degc")


@dataclass(frozen=True)
class Event:
    """Something that happened to the hardware of the twin."""

    time_s: float
    text: str


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


def _tables(options: Mapping[str, Any], query: Mapping[str, str], url: str) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for name, table in options.items():
        if name not in TABLES:
            raise ConfigError(f"the twin has no table [{name}]{nearest(name, TABLES)}")
        if name == "fault" and isinstance(table, (list, tuple)):
            tables[name] = list(table)
        elif name != "fault" and isinstance(table, Mapping):
            tables[name] = dict(table)
        else:
            raise ConfigError(f"[{name}] = {table!r}: expected {'[[fault]] tables' if name == 'fault' else 'a table'}")
    for key, text in query.items():
        name, dot, inner = key.rpartition(".")
        name = name if dot else "rack"
        if name not in TABLES[:-1]:
            raise ConfigError(f"rack URL '{url}': the twin has no table [{name}]{nearest(name, TABLES[:-1])}")
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
        tables = _tables(options or {}, query or {}, f"sim:{address}")
        self._clock: Clock = clock if clock is not None else MonotonicClock()
        try:
            cell = twin_cell.load(address)
            config = rack_config(cell, tables.get("rack", {}))
            self.environment = from_table(EnvironmentConfig, tables.get("environment", {}), "[environment]")
            self._sensor_config = from_table(S.SensorConfig, tables.get("sensors", {}), "[sensors]")
            middle_v = float(cell.table[len(cell.table) // 2, twin_cell.COL_U])
            rating = twin_duty.Rating(cell.head.capacity_ah * config.n_parallel, middle_v * config.n_series)
            self.duty = twin_duty.make(tables.get("duty", {}), rating)
            n_sensors = -(-config.n_series // config.cells_per_sensor)
            self.faults: tuple[FaultConfig, ...] = fault_configs(tables.get("fault", ()), config.n_series, n_sensors)
            self.twin = RackTwin(cell, config)
            self.sensors = S.SensorBank(self.twin, self._sensor_config)
        except TwinError as error:
            raise ConfigError(str(error)) from None
        self.events: list[Event] = []
        self._info = RackInfo(
            name=f"sim:{address}",
            n_cells=config.n_series,
            n_sensors=n_sensors,
            n_parallel=config.n_parallel,
            capacity_ah=rating.capacity_ah,
            cell=cell.head.name,
            sensor_of_cell=self.sensors.sensor_of_cell,
            capabilities=Capabilities(
                contactors=True, precharge=True, balancing=True, cooling=True, insulation=True, truth=True
            ),
        )
        self._open = False
        self._start_s: float | None = None
        self._time_s = 0.0
        self._sequence = 0
        self._requested = 0
        self._welded = 0
        self._path = K.OPEN
        self._limits = np.zeros(4)
        self._soc = config.initial_soc
        self._heartbeat = -1
        self._heartbeat_s = 0.0
        self._expired = False
        self._view = twin_duty.PcsView()
        self._requests = np.zeros(64)
        self._last = Measurement(config.n_series, n_sensors)
        self._flow_w_per_k = config.coolant_w_per_k_flow
        self._coolant_g = self.twin.cells[K.C_COOLANT_W_PER_K].copy()
        self._prepare_last()

    def _prepare_last(self) -> None:
        last = self._last
        last.cell_v_age_s[:] = self.sensors.cell_age_s
        last.head["current_a_age_s"] = self.sensors.current_age_s
        last.head["interlock_closed"] = 1

    # --- the contract ---------------------------------------------------------------------------------------------

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
        self._heartbeat_s = now - self._start_s
        self._expired = False
        self._sample(0.0)

    def read(self, out: Measurement) -> None:
        """Advance the physics to the clock's time and fill `out`. Raises `LinkError` when not open."""
        self._need_open()
        if out.n_cells != self._info.n_cells or out.n_sensors != self._info.n_sensors:
            raise ValueError(
                f"measurement for {out.n_cells} cells and {out.n_sensors} sensors, "
                f"the rack has {self._info.n_cells} and {self._info.n_sensors}"
            )
        assert self._start_s is not None
        elapsed = self._clock.now_s() - self._start_s - self._time_s
        if elapsed > 0.0:
            self._pass(elapsed)
            self._sample(elapsed)
        out.copy_from(self._last)

    def write(self, command: Command) -> None:
        """Take the command over. Raises `ValueError` for one that no rack could follow, `LinkError` when not open."""
        self._need_open()
        if command.n_cells != self._info.n_cells:
            raise ValueError(f"balancing mask for {command.n_cells} cells, the rack has {self._info.n_cells}")
        head = command.head[0]
        contactors = int(head["contactors"])
        if contactors & ~_KNOWN_CONTACTORS:
            raise ValueError(f"contactors = {contactors:#x}: bits that no contactor has")
        limits = (
            float(head["limit_discharge_a"]),
            float(head["limit_charge_a"]),
            float(head["limit_discharge_w"]),
            float(head["limit_charge_w"]),
        )
        for name, limit in zip(("discharge_a", "charge_a", "discharge_w", "charge_w"), limits, strict=True):
            if not 0.0 <= limit < math.inf:
                raise ValueError(f"limit_{name} = {limit}: a published limit is a number >= 0")
        cooling = float(head["cooling_degc"])
        if not -60.0 <= cooling <= 90.0:
            raise ValueError(f"cooling_degc = {cooling}: no coolant has this temperature")
        if command.balance.max(initial=0) > 1:
            raise ValueError(f"balance = {int(command.balance.max())}: the mask holds 0 and 1")
        environment = self.environment
        self.twin.string[K.S_COOLANT_SET] = min(
            max(cooling, environment.coolant_min_degc), environment.coolant_max_degc
        )
        self.twin.set_balance(command.balance)
        self._limits[:] = limits
        soc = float(head["soc_mean"])
        if math.isfinite(soc):  # NaN: the controller does not know it (yet); the energy manager keeps the last
            self._soc = soc
        heartbeat = int(head["heartbeat"])
        if heartbeat != self._heartbeat:
            self._heartbeat = heartbeat
            self._heartbeat_s = self._time_s
            self._expired = False
        # without a living controller nothing closes
        self._switch(0 if self._expired else contactors)

    def close(self) -> None:
        """Open the contactors and switch the electronics off."""
        if self._open:
            self._switch(0)
            self._limits[:] = 0.0
            self.twin.groups[K.G_BLEED_S] = 0.0
            self._sample(0.0)
            self._open = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def truth(self, out: Truth) -> None:
        """Fill `out` with the state at the time of the last `read`."""
        twin, s = self.twin, self.twin.string
        if out.n_cells != self._info.n_cells:
            raise ValueError(f"truth for {out.n_cells} cells, the rack has {self._info.n_cells}")
        out.head[0] = (
            self._time_s + (self._start_s or 0.0),
            s[K.S_AMPERE],
            s[K.S_PACK_V],
            s[K.S_POWER_W],
            s[K.S_HEAT_W],
            s[K.S_OUT_J],
            s[K.S_IN_J],
        )
        if twin.n_parallel == 1:
            out.soc[:] = twin.cells[K.C_SOC]
            np.divide(twin.cells[K.C_CAPACITY_AS], 3600.0, out=out.capacity_ah)
            out.cell_degc[:] = twin.cells[K.C_DEGC]
            return
        capacity = twin.by_group(K.C_CAPACITY_AS)
        total = capacity.sum(axis=1)
        out.soc[:] = (twin.by_group(K.C_SOC) * capacity).sum(axis=1) / total
        out.capacity_ah[:] = total / 3600.0
        out.cell_degc[:] = twin.by_group(K.C_DEGC).max(axis=1)

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def contactors_closed(self) -> int:
        """What is really closed, as `Contactor` bits."""
        return self._requested | self._welded

    def _need_open(self) -> None:
        if not self._open:
            raise LinkError(f"{self._info.name} is not open")

    def _note(self, text: str) -> None:
        self.events.append(Event(self._time_s, text))

    def _switch(self, requested: int) -> None:
        """Let the contactors follow a request, with what that does to them and to the DC link."""
        before = self._path
        self._requested = requested
        closed = self.contactors_closed
        if closed & _MAINS == _MAINS:
            path = K.CLOSED
        elif closed & Contactor.MAIN_NEGATIVE and closed & Contactor.PRECHARGE:
            path = K.PRECHARGE
        else:
            path = K.OPEN
        if path == before:
            return
        config, s = self.twin.config, self.twin.string
        if path == K.CLOSED:
            ohm = float(self.twin.groups[K.G_EFF_OHM].sum()) + config.busbar_ohm * config.n_series
            inrush = abs(float(s[K.S_PACK_V] - s[K.S_BUS_V])) / (ohm + config.main_path_ohm)
            s[K.S_INRUSH_A] = max(float(s[K.S_INRUSH_A]), inrush)
            if inrush > config.contactor_make_a:
                self._welded |= _MAINS
                self._note(f"closed onto an uncharged link: {inrush:.0f} A inrush, main contactors welded")
        elif before == K.CLOSED and abs(s[K.S_AMPERE]) > config.contactor_break_a:
            self._welded |= _MAINS
            self._note(f"tried to break {s[K.S_AMPERE]:.0f} A: main contactors welded")
            return
        elif before == K.CLOSED and abs(s[K.S_PCS_A]) > 0.02 * self._info.capacity_ah:
            self._note(f"contactors opened under load, {s[K.S_AMPERE]:.0f} A")
        self._path = path
        if path == K.OPEN:
            # no current from this instant on
            s[K.S_AMPERE] = s[K.S_PREVIOUS_A] = s[K.S_PCS_A] = s[K.S_POWER_W] = 0.0
            self.twin.settle()

    def _pass(self, elapsed: float) -> None:
        """Let time pass, and the rack open by itself when the heart-beat stops within it."""
        patience = self._heartbeat_s + self.twin.config.watchdog_s - self._time_s
        if self._path != K.OPEN and elapsed > patience + 1e-9:
            if patience > 0.0:
                self._advance(patience)
                elapsed -= patience
            if not self._expired:
                self._expired = True
                self._note(f"no heart-beat for {self.twin.config.watchdog_s:g} s: the rack opened its contactors")
            self._switch(0)
        self._advance(elapsed)

    def _advance(self, elapsed: float) -> None:
        config, twin, view, s = self.twin.config, self.twin, self._view, self.twin.string
        self._apply_faults()
        s[K.S_AMBIENT] = self.environment.ambient_at(self._time_s)
        n = max(1, math.ceil(elapsed / config.substep_s - 1e-9))
        if n > len(self._requests):
            self._requests = np.zeros(2 * n)
        dt = elapsed / n
        view.soc = self._soc
        view.connected = self._path == K.CLOSED
        view.current_a = float(s[K.S_PCS_A])
        for k in range(n):
            self._requests[k] = self.duty.request(self._time_s + k * dt, view)
        twin.advance(self._path, self._requests[:n], self.duty.in_ampere, self._limits, dt)
        self._time_s += elapsed

    def _apply_faults(self) -> None:
        """Faults that change the hardware, as opposed to what is measured of it."""
        if not self.faults:
            return
        now = self._time_s
        stopped = False
        for fault in self.faults:
            if fault.kind == "contactor_weld" and fault.active(now) and not self._welded:
                self._welded = self.contactors_closed & _MAINS
            stopped = stopped or (fault.kind == "coolant_stop" and fault.active(now))
        if stopped != (self.twin.p[K.P_FLOW_W_PER_K] == 0.0):
            self.twin.p[K.P_FLOW_W_PER_K] = 0.0 if stopped else self._flow_w_per_k
            self.twin.cells[K.C_COOLANT_W_PER_K] = 0.0 if stopped else self._coolant_g

    def _sample(self, dt_s: float) -> None:
        last, now = self._last, self._time_s
        self._sequence += 1
        insulation = self.environment.insulation_ohm
        for fault in self.faults:
            if fault.kind == "insulation" and fault.active(now):
                assert fault.value is not None
                insulation = fault.value
        frozen = [f for f in self.faults if f.kind == "cell_v_frozen" and f.active(now)]
        kept = [(f.index, last.cell_v[list(f.index)]) for f in frozen] if self._sequence > 1 else []
        values = self.sensors.sample(
            self._sequence,
            dt_s,
            insulation,
            last.cell_v,
            last.cell_v_quality,
            last.sensor_degc,
            int(Quality.OUT_OF_RANGE),
        )
        head = last.head
        head["time_s"] = now + (self._start_s or 0.0)
        head["sequence"] = self._sequence & 0xFFFFFFFF
        for name, value in zip(_SCALARS, values.tolist(), strict=True):
            head[name] = value
        head["contactors"] = self.contactors_closed
        outside = abs(values[S.AMPERE]) >= self.sensors.current_max_a
        head["current_a_quality"] = int(Quality.OUT_OF_RANGE) if outside else 0
        for index, cell_v in kept:
            last.cell_v[list(index)] = cell_v
        if self.faults:
            self._break_sensors(now)

    def _break_sensors(self, now: float) -> None:
        last, head = self._last, self._last.head
        head["interlock_closed"] = 1
        last.sensor_degc_quality[:] = 0
        missing = int(Quality.MISSING)
        for fault in self.faults:
            if not fault.active(now):
                continue
            index: npt.NDArray[np.int64] = np.array(fault.index, dtype=np.int64)
            if fault.kind == "cell_v_missing":
                last.cell_v[index] = np.nan
                last.cell_v_quality[index] = missing
            elif fault.kind == "sensor_missing":
                last.sensor_degc[index] = np.nan
                last.sensor_degc_quality[index] = missing
            elif fault.kind == "current_missing":
                head["current_a"] = np.nan
                head["current_a_quality"] = missing
            elif fault.kind == "current_offset":
                head["current_a"] += fault.value
            elif fault.kind == "interlock_open":
                head["interlock_closed"] = 0


def virtual_lab(cell: str, seed: int = 0) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Laboratory tests of one twin cell; see `sim.lab.run`. Raises `ConfigError` for an unknown cell."""
    try:
        return twin_lab.run(cell, seed)
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
