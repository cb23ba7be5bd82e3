"""Records of the contract to values of CAN signals and back, as a profile says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.codec.can_derived import DERIVED, Derived
from hal.codec.can_profile import CanProfile
from hal.codec.can_profile_file import Channel
from hal.codec.frames import Codec
from hal.contract import COMMAND, MEASUREMENT, Capabilities, Command, Contactor, Measurement, Quality, RackInfo

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

COOLANT_DEGC = (-60.0, 90.0)
"""No coolant is colder or hotter."""

LIMITS = ("limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w")

_KINDS = {f.name: f.kind for f in (*MEASUREMENT.fields, *COMMAND.fields, *DERIVED.values())}
_DIMS = {f.name: f.dims for f in (*MEASUREMENT.fields, *COMMAND.fields, *DERIVED.values())}
_GUARDED = {f.name.removesuffix("_quality") for f in MEASUREMENT.fields if f.name.endswith("_quality")}
_AGED = {f.name.removesuffix("_age_s") for f in MEASUREMENT.fields if f.name.endswith("_age_s")}
NOT_KNOWN_TO_BE_SAFE = ("interlock_closed",)  # 0 where it is not known: these have no quality to tell


def impossible(command: Command, capabilities: Capabilities) -> str:
    """What makes `command` one that no rack could follow, or ''."""
    head = command.head
    if int(head["contactors"][0]) & ~int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE):
        return f"contactors = {int(head['contactors'][0]):#x}: bits that no contactor has"
    for name in LIMITS:
        value = float(head[name][0])
        if not 0.0 <= value < math.inf:
            return f"{name} = {value}: a published limit is a number >= 0"
    cooling_degc = float(head["cooling_degc"][0])
    if not COOLANT_DEGC[0] <= cooling_degc <= COOLANT_DEGC[1]:
        return f"cooling_degc = {cooling_degc}: no coolant has this temperature"
    if command.balance.max(initial=0) > 1:
        return f"balance = {int(command.balance.max())}: the mask holds 0 and 1"
    if command.shuttle.any() and not capabilities.shuttle:
        return f"shuttle = {int(command.shuttle.max())}: this rack has no active balancer"
    return ""


@dataclass(frozen=True)
class Part:
    """A channel's places in the flat arrays of all channels."""

    name: str
    lo: int
    hi: int
    array: bool
    real: bool
    bits: bool
    table: Mapping[int, int]
    send: Mapping[int, int]
    other: int

    def looked_up(self, value: float) -> float:
        """The value of the field that the signal stands for."""
        return self.table.get(int(value), self.other) if self.table and not math.isnan(value) else value

    def coded(self, value: Any) -> Any:
        """What its signals are to hold: bit by bit, where each has one, or as the table says."""
        if self.table:
            return float(self.send.get(int(value[0]), self.send[self.other]))
        return (int(value[0]) >> np.arange(self.hi - self.lo)) & 1 if self.bits else value


class Flat:
    """All channels of a profile in a row: places in the codec, factors, and which part is whose.

    Signals that the profile holds `fixed` get their value, once and for all.
    """

    def __init__(self, codec: Codec, channels: Mapping[str, Channel], fixed: Mapping[str, float]) -> None:
        self.codec = codec
        for name, value in fixed.items():
            if name in codec.index:
                codec.value[codec.index[name]] = value
        row_of = np.zeros(len(codec.value), np.int64)
        for r, row in enumerate(codec.rows):
            row_of[row.first : row.first + len(row.signals)] = r
        places: list[int] = []
        valid: list[int] = []
        factor: list[float] = []
        offset: list[float] = []
        inverted: list[bool] = []
        self.parts: list[Part] = []
        for channel in channels.values():
            if channel.constant is not None:
                continue
            lo = len(places)
            places += [codec.place(name) for name in channel.signals]
            guards = [codec.place(name) for name in channel.valid] or [-1]
            valid += guards if len(guards) == len(channel.signals) else guards * len(channel.signals)
            factor += [channel.factor] * len(channel.signals)
            offset += [channel.offset] * len(channel.signals)
            inverted += [channel.inverted] * len(channel.signals)
            name = channel.name
            shape = bool(_DIMS[name]), _KINDS[name][0] == "f", channel.bits
            self.parts.append(Part(name, lo, len(places), *shape, channel.table, channel.send, channel.other))
        self.places: I8 = np.array(places, np.int64)
        self.factor: F8 = np.array(factor)
        self.offset: F8 = np.array(offset)
        self.valid: I8 = np.array(valid, np.int64)
        self.guarded = self.valid >= 0
        self.valid[~self.guarded] = 0
        self.good = np.where(np.array(inverted, bool), 0, 1).astype(np.uint64)  # what a guard says of a good value
        self.rows: I8 = row_of[self.places]
        self.absent = codec.absent[self.places]
        self.needed = sorted({*self.rows.tolist(), *row_of[self.valid[self.guarded]].tolist()})
        self.row_of = row_of
        self.guard_rows: I8 = np.where(self.guarded, row_of[self.valid], self.rows)
        self.guarded_from_elsewhere = bool((self.guard_rows != self.rows).any())

    def values(self) -> F8:
        """Values of all channels, decoded before."""
        values: F8 = self.codec.value[self.places] * self.factor + self.offset
        return values

    def sendable(self, more: Sequence[int] = ()) -> list[int]:
        """Rows that something is in, and those of the signals `more`; of a message with pages these alone."""
        rows = self.codec.rows
        paged = {row.message.key for row in rows if row.page is not None}
        wanted = sorted({*self.needed, *(int(self.row_of[place]) for place in more)})
        return [r for r in wanted if rows[r].page is not None or rows[r].message.key not in paged]


class MeasurementWire:
    """Measurements to and from the signals of `codec`; the profile's derived values only go out, where they are wanted.

    `sendable` are the rows that make a scan, `record` is the measurement that `fill` fills, `sequence` the place of the
    sample's number or None.
    """

    def __init__(self, profile: CanProfile, codec: Codec, derived: bool = False) -> None:
        self.codec = codec
        self._derived = Derived() if derived and profile.derived else None
        channels = {**profile.measurement, **(profile.derived if derived else {})}
        sequence = channels.pop("sequence", None)
        self.flat = Flat(codec, channels, profile.fixed)
        self.sequence = None if sequence is None else codec.place(sequence.signals[0])
        self._bits = 0 if self.sequence is None else codec.signals[self.sequence].length
        self.sendable = self.flat.sendable(
            [codec.place(name) for name in (*profile.identity.values(), *(sequence.signals if sequence else ()))]
        )
        cycles_s = np.array([row.cycle_s for row in codec.rows])
        self.limit_s = profile.stale_cycles * cycles_s[self.flat.rows]
        self._guard_limit_s = profile.stale_cycles * cycles_s[self.flat.guard_rows]
        info = profile.info
        self.record = Measurement(info.n_cells, info.n_sensors)
        self._constant(profile.measurement)
        self._quality = np.zeros(len(self.flat.places), np.uint8)

    def _constant(self, channels: Mapping[str, Channel]) -> None:
        """Fill in what no frame changes: fields that the profile does not have, and those that it holds constant."""
        for f in MEASUREMENT.fields:
            if f.name in _GUARDED and f.name not in channels:
                if f.kind == "f4":
                    _put(self.record, f.name, np.nan)
                _put(self.record, f"{f.name}_quality", int(Quality.MISSING))
                if f.name in _AGED:
                    _put(self.record, f"{f.name}_age_s", np.inf)
        for channel in channels.values():
            if channel.constant is not None:
                _put(self.record, channel.name, channel.constant)

    def fill(self, arrived_s: F8, now_s: float) -> None:
        """Fill `record` from the decoded codec; `arrived_s` f8[n_rows] is when each row came, `now_s` the time now.

        What never came, or comes without a value, is MISSING; what is late, or what says that it is good, STALE; what
        has validity bit 0 DEVICE_INVALID.
        """
        flat, codec = self.flat, self.codec
        values = flat.values()
        age_s = now_s - arrived_s[flat.rows]
        never = np.isinf(age_s)
        late = age_s > self.limit_s
        if flat.guarded_from_elsewhere:
            guard_age_s = now_s - arrived_s[flat.guard_rows]
            never |= np.isinf(guard_age_s)
            late |= guard_age_s > self._guard_limit_s
        invalid = flat.guarded & (codec.raw[flat.valid] != flat.good) & ~never
        gone = invalid & (codec.raw[flat.places] == flat.absent)
        quality = np.where(late, np.uint8(Quality.STALE), np.uint8(0))
        quality[invalid & ~gone] |= np.uint8(Quality.DEVICE_INVALID)
        quality[gone] |= np.uint8(Quality.MISSING)
        quality[never] = np.uint8(Quality.MISSING)
        values[gone | never] = np.nan
        record, head = self.record, self.record.head
        for part in flat.parts:
            if part.array:
                _put(record, part.name, _typed(values[part.lo : part.hi], part.real))
                if part.name in _AGED:
                    _put(record, f"{part.name}_age_s", age_s[part.lo : part.hi])
                q = quality[part.lo : part.hi]
                _put(record, f"{part.name}_quality", q if _DIMS[f"{part.name}_quality"] else np.bitwise_or.reduce(q))
                continue
            q = quality[part.lo]
            value = values[part.lo]
            if part.bits:
                q = np.bitwise_or.reduce(quality[part.lo : part.hi])
                value = sum(int(bit) << k for k, bit in enumerate(np.nan_to_num(values[part.lo : part.hi])))
            value = part.looked_up(value)
            if not part.real:
                value = 0 if np.isnan(value) or (q != 0 and part.name in NOT_KNOWN_TO_BE_SAFE) else int(value) & 0xFF
            head[part.name] = value
            if part.name in _AGED:
                head[f"{part.name}_age_s"] = age_s[part.lo]
            if part.name in _GUARDED:
                head[f"{part.name}_quality"] = q

    def sample_number(self) -> tuple[int, int] | None:
        """The decoded number of the sample and how many there are, or None if the profile has none."""
        return None if self.sequence is None else (int(self.codec.raw[self.sequence]), 1 << self._bits)

    def load(self, measurement: Measurement) -> None:
        """Put `measurement` into the values of the codec, to be encoded. What is out of range becomes the nearest."""
        flat, codec, head = self.flat, self.codec, measurement.head
        values = np.empty(len(flat.places))
        quality = np.zeros(len(flat.places), np.uint8)
        derived = {} if self._derived is None else self._derived.take(measurement)
        for part in flat.parts:
            if part.name in derived:
                values[part.lo], quality[part.lo] = derived[part.name]
                continue
            values[part.lo : part.hi] = part.coded(measurement.raw[part.name][0] if part.array else head[part.name])
            if part.name in _GUARDED:
                guard = f"{part.name}_quality"
                quality[part.lo : part.hi] = measurement.raw[guard][0] if _DIMS[guard] else head[guard]
        values[quality & Quality.MISSING != 0] = np.nan
        codec.value[flat.places] = (values - flat.offset) / flat.factor
        good = (quality == 0) & ~np.isnan(values)
        codec.value[flat.valid[flat.guarded]] = np.where(good, flat.good, 1 - flat.good)[flat.guarded]
        if self.sequence is not None:
            codec.value[self.sequence] = int(head["sequence"][0]) % (1 << self._bits)


class CommandWire:
    """Commands to and from the signals of `codec`; `sendable` are the rows that make one."""

    def __init__(self, profile: CanProfile, codec: Codec) -> None:
        self.codec = codec
        self.info: RackInfo = profile.info
        self.flat = Flat(codec, profile.command, profile.fixed)
        signals = [codec.signals[place] for place in self.flat.places]
        raw = [s.raw_range() for s in signals]
        ends = np.array([[end * s.scale + s.offset for end in r] for s, r in zip(signals, raw, strict=True)])
        self.low, self.high = ends.min(axis=1), ends.max(axis=1)
        self.limit_s = profile.stale_cycles * np.array([codec.rows[r].cycle_s for r in self.flat.rows])
        self.sendable = self.flat.sendable()

    def load(self, command: Command) -> None:
        """Put `command` into the values of the codec. Raises `ValueError` for a value that the wire cannot carry."""
        flat = self.flat
        values = np.empty(len(flat.places))
        for part in flat.parts:
            values[part.lo : part.hi] = part.coded(command.raw[part.name][0] if part.array else command.head[part.name])
            if part.name == "heartbeat":
                values[part.lo] %= 1.0 + self.high[part.lo]
        values = (values - flat.offset) / flat.factor
        outside = (values < self.low) | (values > self.high)
        if outside.any():
            k = int(np.argmax(outside))
            name = next(part.name for part in flat.parts if part.lo <= k < part.hi)
            raise ValueError(
                f"{name} = {values[k] * flat.factor[k] + flat.offset[k]:g}: the profile carries up to {self.high[k]:g}"
            )
        self.codec.value[flat.places] = values

    def store(self, out: Command, arrived_s: F8, committed_s: float) -> None:
        """Fill `out` from the decoded codec. What came long before `committed_s`, the time of the last frame, is 0.

        A limit or a mask that the controller no longer says must not stay; the set-point of the cooling may.
        """
        flat = self.flat
        values = flat.values()
        late = committed_s - arrived_s[flat.rows] > self.limit_s
        out.bytes[...] = 0
        for part in flat.parts:
            value = values[part.lo : part.hi]
            if part.table:
                value = np.array([part.looked_up(float(value[0]))])
            if part.name != "cooling_degc":
                value = np.where(late[part.lo : part.hi], 0.0, value)
            if part.bits:
                value = np.array([sum(int(bit) << k for k, bit in enumerate(value))])
            if not part.real:
                top = float(np.iinfo(np.dtype(_KINDS[part.name])).max)
                value = np.clip(value, 0.0, top)
            target: Any = out.raw[part.name][0] if part.array else out.head[part.name]
            target[...] = value


def _put(record: Measurement, name: str, value: Any) -> None:
    target = record.raw[name] if _DIMS[name] else record.head[name]
    target[...] = value


def _typed(values: F8, real: bool) -> Any:
    """Values for a field: whole numbers where the field has those, 0 where there is no value."""
    return values if real else np.clip(np.nan_to_num(values, nan=0.0), 0.0, 255.0)
