"""The contract between the controller and whatever holds the cells.

Sign convention, stated once: **positive current and positive power discharge the battery** (generator
convention; as in foxBMS, PyBaMM and Plett). Every backend converts to it. SoC is 0..1. Units are in the names.

`MEASUREMENT`, `COMMAND` and `TRUTH` are the one definition of the layouts: numpy dtypes come from it (and the C
header of the firmware will), with the alignment rules of C, so that both sides agree on every byte. The scalars of a
layout form a nested struct `head`, whose type does not depend on the size of the rack; the arrays follow.

A measured value that is missing, late or implausible is data, not an exception: it has a `Quality` and an age.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

F4 = npt.NDArray[np.float32]
U1 = npt.NDArray[np.uint8]
U2 = npt.NDArray[np.uint16]
U4 = npt.NDArray[np.uint32]

LAYOUT_VERSION = 2

LANES = 16
"""Cells that a vector loop of the core takes together: arrays over `lanes` are padded to whole vectors."""


class Quality(IntFlag):
    """Why a measured value should not be trusted; 0 = good. One byte per channel."""

    GOOD = 0
    MISSING = 1  # never received, or the device sent no value
    STALE = 2  # older than the backend's limit for this channel
    OUT_OF_RANGE = 4  # outside what the sensor can measure
    FROZEN = 8  # has not changed for longer than is plausible
    IMPLAUSIBLE = 16  # contradicts other channels
    DEVICE_INVALID = 32  # the device itself marks the value as invalid
    OPEN_WIRE = 64  # sense wire or sensor cable open


class Contactor(IntFlag):
    """Contactors of a rack, as bits: requests in a command, feedback in a measurement (1 = closed)."""

    NONE = 0
    MAIN_POSITIVE = 1
    MAIN_NEGATIVE = 2
    PRECHARGE = 4


class RackState(IntEnum):
    """State of the controller, published with every command."""

    INIT = 0
    STANDBY = 1
    PRECHARGE = 2
    CONNECTED = 3
    OPENING = 4  # contactors are asked to open; feedback and weld test are awaited
    FAULT = 5
    SELF_TEST = 6
    RAMP_DOWN = 7  # contactors still closed, limits ramp to 0 A
    LOCKOUT = 8  # too many attempts to precharge: the resistor cools down
    MAINTENANCE = 9  # contactors open, held by a person
    EMERGENCY_STOP = 10
    TRANSPORT_DRAIN = 11  # contactors open, all cells are bled towards 0 V
    TRANSPORT = 12  # at 0 V, for shipping
    TRANSPORT_PRECHARGE = 13  # on the way out of transport
    TRANSPORT_CHARGE = 14  # closed for a small charge current alone, until every cell is above its lower limit


class Flow(IntEnum):
    """Which way current flows, published with every command."""

    IDLE = 0
    DISCHARGE = 1
    CHARGE = 2


class Severity(IntEnum):
    """Severity of the worst fault shown: info, warning and fatal are MOL, RSL and MSL of foxBMS."""

    NONE = 0
    INFO = 1
    WARNING = 2
    FATAL = 3


class Constraint(IntEnum):
    """Why a published limit is what it is."""

    NONE = 0
    STATE = 1  # the rack is not connected
    FAULT = 2  # the reaction to a fault; the index is the row of the fault table
    DATA = 3  # a cell or sensor whose value is not known
    RATING = 4  # the largest current of cell or configuration
    CELL_VOLTAGE = 5  # the cell would reach its voltage limit within the horizon
    PACK_VOLTAGE = 6
    SOC = 7  # the end of the SoC window, uncertainty included
    TEMPERATURE = 8  # the derating polyline over temperature
    SOC_DERATING = 9  # the derating polyline over SoC
    HEAT = 10  # the cell would reach its temperature limit within the horizon
    FUSE = 11  # I2t of fuse and contactors
    RISE = 12  # the limit rises no faster
    MEASURED_VOLTAGE = 13  # the measured voltage is near its limit, whatever the model says


class Shuttle(IntEnum):
    """What an active balancer does with a group."""

    NONE = 0
    TO_NEXT = 1  # move charge from this group to the next
    FROM_NEXT = 2  # move charge from the next group to this


HORIZONS_S = (2.0, 10.0, 60.0, 900.0)
"""Horizons of the published limits."""

N_FAULT_WORDS = 3
"""Words of 32 faults in a command, for each severity."""

NO_INDEX = 65535
"""Index of a cell or sensor where there is none."""


@dataclass(frozen=True)
class Field:
    """One field of a layout: `dims` is '' for a scalar, or the length of an array as a product: 'cells', 'lanes*4'."""

    name: str
    kind: str  # numpy type code: f4, f8, i4, u1, u2, u4
    doc: str
    dims: str = ""


def channel(name: str, doc: str, dims: str = "") -> tuple[Field, Field, Field]:
    """A measured float32 value with its quality (`Quality`, one byte) and its age."""
    return (
        Field(name, "f4", doc, dims),
        Field(f"{name}_age_s", "f4", f"age of `{name}` when the measurement was taken", dims),
        Field(f"{name}_quality", "u1", f"`Quality` flags of `{name}`", dims),
    )


class Layout:
    """A fixed binary layout: scalars in the nested struct `head`, then the arrays, aligned as C aligns them.

    Lengths are products of numbers, 'cells', 'sensors' and `lanes` (cells, rounded up to whole vectors of `LANES`).
    With `align`, the head takes a multiple of so many bytes, and so does the whole.
    """

    def __init__(self, name: str, fields: tuple[Field, ...], align: int = 1) -> None:
        self.name = name
        self.fields = fields
        self.align = align
        self.scalars = tuple(f for f in fields if not f.dims)
        self.arrays = tuple(f for f in fields if f.dims)
        head = np.dtype([(f.name, f.kind) for f in self.scalars], align=True)
        self.head_dtype = self._padded(head)

    def _padded(self, dtype: np.dtype[np.void]) -> np.dtype[np.void]:
        size = -(-dtype.itemsize // self.align) * self.align
        if size == dtype.itemsize:
            return dtype
        names = list(dtype.names or ())
        spec: Any = {
            "names": names,
            "formats": [dtype[name] for name in names],
            "offsets": [dtype.fields[name][1] for name in names] if dtype.fields else [],
            "itemsize": size,
        }
        padded: np.dtype[np.void] = np.dtype(spec, align=True)
        return padded

    def dtype(self, n_cells: int, n_sensors: int) -> np.dtype[np.void]:
        """The structured dtype for a rack of `n_cells` series groups and `n_sensors` temperature sensors."""
        size = {"cells": n_cells, "sensors": n_sensors, "lanes": -(-n_cells // LANES) * LANES}
        parts: list[Any] = [("head", self.head_dtype)]
        for f in self.arrays:
            length = math.prod(int(part) if part.isdigit() else size[part] for part in f.dims.split("*"))
            parts.append((f.name, f.kind, (length,)))
        return self._padded(np.dtype(parts, align=True))

    def digest(self) -> str:
        """Hash of names, types and order: two sides with the same digest agree on the bytes."""
        text = f"{LAYOUT_VERSION} {self.name} " + " ".join(f"{f.name}:{f.kind}:{f.dims}" for f in self.fields)
        return hashlib.sha256((text + (f" {self.align}" if self.align > 1 else "")).encode()).hexdigest()[:16]


MEASUREMENT = Layout(
    "Measurement",
    (
        Field("time_s", "f8", "time of the sample on the rack's clock, never decreasing"),
        Field("sequence", "u4", "counts samples; an unchanged number means that nothing new was measured"),
        *channel("current_a", "string current, positive = discharge"),
        *channel("pack_v", "voltage of the series string, battery side of the contactors"),
        *channel("bus_v", "voltage of the DC link, inverter side of the contactors"),
        *channel("insulation_ohm", "insulation resistance, worse of the two rails to ground"),
        *channel("coolant_in_degc", "coolant temperature at the inlet"),
        *channel("coolant_out_degc", "coolant temperature at the outlet"),
        *channel("coolant_flow_lpm", "coolant flow through the rack, litres per minute"),
        Field("contactors", "u1", "`Contactor` feedback, auxiliary contacts"),
        Field("contactors_quality", "u1", "`Quality` flags of `contactors`"),
        Field("interlock_closed", "u1", "1 = the high-voltage interlock loop is closed"),
        Field("insulation_rail", "u1", "the rail that `insulation_ohm` is of: 1 positive, 2 negative, 0 not told"),
        Field("emergency_stop", "u1", "1 = an emergency stop is pressed"),
        Field("gas_alarm", "u1", "1 = smoke or gas is detected"),
        Field("gas_alarm_quality", "u1", "`Quality` flags of `gas_alarm`"),
        Field("bleeding_quality", "u1", "`Quality` flags of `bleeding`"),
        *channel("cell_v", "terminal voltage of each series group of parallel cells", "cells"),
        *channel(
            "sensor_degc", "temperature of each sensor; `RackInfo.sensor_of_cell` maps cells to sensors", "sensors"
        ),
        Field("bleeding", "u1", "1 = the bleed switch of this group is seen to be on", "cells"),
    ),
)

COMMAND = Layout(
    "Command",
    (
        Field("time_s", "f8", "time of the measurement that this command answers"),
        Field("heartbeat", "u4", "counts control steps; a rack that sees it stand still must open"),
        Field("contactors", "u1", "`Contactor` request, 1 = close"),
        Field("state", "u1", "`RackState` of the controller"),
        Field("severity", "u1", "`Severity` of the worst fault shown"),
        Field("flow", "u1", "`Flow` of the string current"),
        Field("n_faults", "u2", "rows of the fault table that are active or latched"),
        Field("cause", "u2", "id of the fatal fault that came first, until it is reset; 0 = none"),
        Field("cause_index", "u2", "cell or sensor that it was seen at, or `NO_INDEX`"),
        Field("cause_value", "f4", "what was seen then, in the unit of the fault"),
        Field("reset_refused", "u2", "latched faults that the last reset left, because their cause was present"),
        Field("cooling_degc", "f4", "set-point of the coolant temperature"),
        Field("limit_discharge_a", "f4", "largest discharge current allowed now, >= 0"),
        Field("limit_charge_a", "f4", "largest charge current allowed now, >= 0 (a magnitude)"),
        Field("limit_discharge_w", "f4", "largest discharge power allowed now, >= 0"),
        Field("limit_charge_w", "f4", "largest charge power allowed now, >= 0 (a magnitude)"),
        Field("soc_min", "f4", "smallest cell SoC, 0..1"),
        Field("soc_mean", "f4", "mean cell SoC, 0..1"),
        Field("soc_max", "f4", "largest cell SoC, 0..1"),
        Field("soc_std", "f4", "largest standard deviation of a cell's SoC"),
        Field("soh_min", "f4", "smallest capacity of a cell, relative to its type's"),
        Field("soh_mean", "f4", "mean capacity, relative to the type's"),
        Field("resistance_max", "f4", "largest resistance of a cell, relative to its type's"),
        Field("horizon_a", "f4", "current limits: discharge for each of `HORIZONS_S`, then charge, >= 0", "8"),
        Field("horizon_w", "f4", "power limits, in the same order", "8"),
        Field("reason_value", "f4", "what the constraint looked at: the 8 limits, then discharge, charge now", "10"),
        Field("reason_margin", "f4", "how far that is from where the limit would be 0, same unit", "10"),
        Field("fault_info", "u4", "bits of the faults of severity info", f"{N_FAULT_WORDS}"),
        Field("fault_warning", "u4", "bits of the faults of severity warning", f"{N_FAULT_WORDS}"),
        Field("fault_fatal", "u4", "bits of the faults of severity fatal, active or latched", f"{N_FAULT_WORDS}"),
        Field("reason_index", "u2", "cell, sensor or fault that the constraint is about, or `NO_INDEX`", "10"),
        Field("reason", "u1", "`Constraint` of each limit", "10"),
        Field("balance", "u1", "1 = bleed this group", "cells"),
        Field("shuttle", "u1", "`Shuttle`: what an active balancer does with this group", "cells"),
    ),
)

TRUTH = Layout(
    "Truth",
    (
        Field("time_s", "f8", "time of the twin"),
        Field("current_a", "f8", "string current, positive = discharge"),
        Field("pack_v", "f8", "voltage of the series string"),
        Field("power_w", "f8", "power at the rack's DC terminals, positive = discharge"),
        Field("heat_w", "f8", "heat released inside the cells"),
        Field("energy_out_j", "f8", "energy delivered at the DC terminals since the start"),
        Field("energy_in_j", "f8", "energy taken in at the DC terminals since the start"),
        Field("soc", "f8", "true SoC of each series group, 0..1", "cells"),
        Field("capacity_ah", "f8", "true capacity of each series group", "cells"),
        Field("resistance", "f8", "true resistance of each series group, relative to its type's", "cells"),
        Field("cell_degc", "f8", "true core temperature of each series group (hottest parallel cell)", "cells"),
    ),
)


class Record:
    """One instance of a layout: `raw` (1,), its `bytes` (size,), `head` the scalars (1,), attributes for the arrays.

    All of them are views of the same memory. Nothing is allocated after construction.
    """

    layout: Layout

    def __init__(self, n_cells: int, n_sensors: int) -> None:
        self.n_cells = n_cells
        self.n_sensors = n_sensors
        dtype = self.layout.dtype(n_cells, n_sensors)
        room = np.zeros(dtype.itemsize + self.layout.align, np.uint8)
        start = -room.ctypes.data % self.layout.align
        self.raw: npt.NDArray[np.void] = room[start : start + dtype.itemsize].view(dtype)
        self.bytes: U1 = self.raw.view(np.uint8)
        self.head: npt.NDArray[np.void] = self.raw["head"]
        for f in self.layout.arrays:
            setattr(self, f.name, self.raw[f.name][0])

    def blank(self) -> Self:
        """A record of the same size, all zeros."""
        return type(self)(self.n_cells, self.n_sensors)

    def copy_from(self, other: Self) -> None:
        """Take over all values of `other`. Raises `ValueError` where sizes differ (numpy would cut in silence)."""
        if self.n_cells != other.n_cells or self.n_sensors != other.n_sensors:
            raise ValueError(
                f"{self.layout.name} for {other.n_cells} cells and {other.n_sensors} sensors "
                f"does not fit one for {self.n_cells} and {self.n_sensors}"
            )
        self.bytes[...] = other.bytes  # numpy would go through the fields one by one


class Measurement(Record):
    """What a rack reports: see `MEASUREMENT` for every field and its unit."""

    layout = MEASUREMENT
    cell_v: F4
    cell_v_age_s: F4
    cell_v_quality: U1
    sensor_degc: F4
    sensor_degc_age_s: F4
    sensor_degc_quality: U1
    bleeding: U1


class Command(Record):
    """What the controller asks for: see `COMMAND` for every field and its unit."""

    layout = COMMAND
    horizon_a: F4
    horizon_w: F4
    reason_value: F4
    reason_margin: F4
    fault_info: U4
    fault_warning: U4
    fault_fatal: U4
    reason_index: U2
    reason: U1
    balance: U1
    shuttle: U1


class Truth(Record):
    """What only a twin knows; recorded beside the measurements, never shown to the controller. See `TRUTH`."""

    layout = TRUTH
    soc: npt.NDArray[np.float64]
    capacity_ah: npt.NDArray[np.float64]
    resistance: npt.NDArray[np.float64]
    cell_degc: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Capabilities:
    """What a rack can do; the controller is configured from it and never asks for the rest."""

    contactors: bool = True
    precharge: bool = True
    balancing: bool = False
    cooling: bool = False
    insulation: bool = False
    coolant_flow: bool = False  # the flow is measured
    gas: bool = False  # there is a smoke or gas detector
    bleed_feedback: bool = False  # bleed switches are seen
    shuttle: bool = False  # charge can be moved between neighbours
    truth: bool = False  # a twin: `truth()` works


@dataclass(frozen=True)
class RackInfo:
    """Fixed description of a rack, known once it is open.

    `sensor_of_cell[k]` is the temperature sensor that stands for series group `k`.
    """

    name: str
    n_cells: int
    n_sensors: int
    n_parallel: int
    capacity_ah: float
    cell: str  # the cell file that the controller should use, or '' where the rack cannot tell
    sensor_of_cell: U2
    capabilities: Capabilities = field(default_factory=Capabilities)


@runtime_checkable
class Clock(Protocol):
    """Where time comes from. A twin advances its physics to `now_s()` when it is read."""

    def now_s(self) -> float:
        """Seconds since the start of the run, never decreasing."""
        ...


@runtime_checkable
class Rack(Protocol):
    """A rack behind the HAL: real, on a bus, simulated, or recorded.

    Used as a context manager; `open` and `close` may each be called more than once. `close` leaves the contactors open.
    """

    @property
    def info(self) -> RackInfo:
        """Description of the rack; valid after `open`."""
        ...

    def open(self) -> None:
        """Reach the device. Raises `hal.errors.LinkError` or `ConfigError`."""
        ...

    def read(self, out: Measurement) -> None:
        """Fill `out` with the newest values, without waiting for new ones; never raises for bad values."""
        ...

    def write(self, command: Command) -> None:
        """Pass the command on. An impossible command raises `ValueError`: it is never clipped in silence."""
        ...

    def close(self) -> None:
        """Open the contactors and release the device."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def bulk(layout: Layout, info: RackInfo, n_racks: int) -> npt.NDArray[np.void]:
    """Records of `layout` for many racks of one kind: a structured array (n_racks,), zeros, aligned as the layout asks.

    `rows_of(array)` are its bytes, each row those of a rack's own record.
    """
    dtype = layout.dtype(info.n_cells, info.n_sensors)
    room = np.zeros(n_racks * dtype.itemsize + layout.align, np.uint8)
    start = -room.ctypes.data % layout.align
    return room[start : start + n_racks * dtype.itemsize].view(dtype)


def rows_of(records: npt.NDArray[np.void]) -> U1:
    """The bytes of an array of records, (n_racks, size of one): a view."""
    return records.view(np.uint8).reshape(len(records), -1)


@runtime_checkable
class Site(Protocol):
    """Many racks of one kind behind the HAL, read and commanded together: as `Rack`, with records from `bulk`.

    Rack k of a site behaves as a rack of its own would: the same bytes in row k.
    """

    @property
    def info(self) -> RackInfo:
        """Description of each rack; valid after `open`."""
        ...

    @property
    def n_racks(self) -> int:
        """How many racks there are."""
        ...

    def open(self) -> None:
        """Reach the devices. Raises `hal.errors.LinkError` or `ConfigError`."""
        ...

    def read(self, out: npt.NDArray[np.void]) -> None:
        """Fill `out`, `MEASUREMENT` (n_racks,), with the newest values, as `Rack.read` does."""
        ...

    def write(self, commands: npt.NDArray[np.void]) -> None:
        """Pass `commands`, `COMMAND` (n_racks,), on. One impossible command raises `ValueError`, and none is taken."""
        ...

    def close(self) -> None:
        """Open all contactors and release the devices."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class HasSiteTruth(Protocol):
    """A site that is a twin and can tell what is really so."""

    def truth(self, out: npt.NDArray[np.void]) -> None:
        """Fill `out`, `TRUTH` (n_racks,), with the state at the time of the last `read`."""
        ...


@runtime_checkable
class HasTruth(Protocol):
    """A rack that is a twin and can tell what is really so."""

    def truth(self, out: Truth) -> None:
        """Fill `out` with the state at the time of the last `read`."""
        ...


@runtime_checkable
class HasFaults(Protocol):
    """A rack that is a twin and can be broken while it runs."""

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The faults that there are, or will be, as `[[fault]]` entries of a scenario."""
        ...

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Have one more fault, from now on where it does not say `at_s`. Raises `ConfigError` for a mistake in it."""
        ...

    def clear(self, kind: str | None = None) -> int:
        """End the faults of this kind, or all. Returns how many there were."""
        ...
