"""The client's side of a register map: what to read of a device, and records in and out of what was read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.codec.modbus import MOST_READ, MOST_WRITTEN
from hal.codec.register_map import COUNTER, I8, Sizes, Slot, Source, nothing_measured, slots
from hal.codec.register_profile import Profile
from hal.codec.register_values import F8, U2, from_words, to_words, words_to_text
from hal.codec.sunspec import Placed
from hal.contract import MEASUREMENT, Capabilities, Command, Measurement, Quality, RackInfo

GAP = 8
"""Registers that nobody needs are read along where there are no more of them between two that are needed."""

_CAN = tuple(Capabilities.__dataclass_fields__)
_CHANNELS = {f.name.removesuffix("_quality") for f in MEASUREMENT.fields if f.name.endswith("_quality")}
_DEFAULTS = {"interlock_closed": 1}


class Image:
    """Registers of a device that have been read: `words` and whether each is `known`, by address."""

    def __init__(self) -> None:
        self.words: U2 = np.zeros(65536, np.uint16)
        self.known: npt.NDArray[np.bool_] = np.zeros(65536, np.bool_)

    def put(self, start: int, values: Sequence[int]) -> None:
        """Registers from `start` have been read."""
        self.words[start : start + len(values)] = values
        self.known[start : start + len(values)] = True

    def forget(self, start: int, count: int) -> None:
        """These registers could not be read."""
        self.known[start : start + count] = False

    def numbers(self, slot: Slot) -> F8:
        """Values (n,) of a slot, scaled; NaN where there is none, or it was not read."""
        places = slot.words()
        values = from_words(slot.point.kind, self.words[places]) * slot.scale / slot.spec.factor
        values[~self.known[places].all(axis=1)] = np.nan
        return values

    def by_address(self) -> dict[int, int]:
        """Known registers."""
        return {int(at): int(self.words[at]) for at in np.flatnonzero(self.known)}


@dataclass(frozen=True)
class Block:
    """Registers that one request reads."""

    start: int
    count: int


def blocks(addresses: Iterable[int], most: int = MOST_READ, gap: int = GAP) -> list[Block]:
    """The fewest requests, within reason, that read all `addresses`, in rising order."""
    found: list[list[int]] = []
    for at in sorted(set(addresses)):
        if found and at - found[-1][1] <= gap and at - found[-1][0] < most:
            found[-1][1] = at
        else:
            found.append([at, at])
    return [Block(first, last - first + 1) for first, last in found]


class Reader:
    """A rack behind registers, once its models and what does not change have been read into `image`."""

    def __init__(self, profile: Profile, placed: Sequence[Placed], image: Image, name: str) -> None:
        """Find out what the rack is. Raises `ValueError`: the device does not show the cells of a rack."""
        self.placed = tuple(placed)
        every = slots(profile, placed, image.by_address())
        cells = [s for s in every if s.spec.channel == "cell_v" and s.scope == "cell" and s.spec.take == "value"]
        if not cells:
            wanted = [
                str(one.model.id)
                for one in profile.models
                for scope, specs in one.groups.values()
                if scope == "cell" and any(s.channel == "cell_v" and s.take == "value" for s in specs.values())
            ]
            raise ValueError(f"no model with the voltages of cells (it would be {' or '.join(wanted) or 'none'})")
        first = cells[0]
        modules = [p.counts[first.group] for p in placed if p.model.id == first.model]
        told = profile.rack
        self.info = replace(told, name=name) if told is not None else _describe(every, image, int(sum(modules)), name)
        self.sizes = Sizes(np.array(modules, np.int64), self.info.n_sensors)
        self._check(every)
        self.measured = [s for s in every if _is_measured(s)]
        self._source = Source(self.info, self.sizes)
        self._source.commanded = True
        specs = {one.model.id: one for one in profile.models}
        self.commanded = [
            s for s in every
            if s.spec.channel.startswith("command.") and s.spec.plain and specs[s.model].writable and s.point.writable
        ]  # fmt: skip
        commit = [s for s in self.commanded if (s.model, s.point.name) == profile.commit]
        if not commit:
            self.commanded = []
        self._commit = int(commit[0].at[0]) if commit else -1
        self.step = [next((s for s in every if (s.model, s.point.name) == at), None) for at in profile.step]
        needed = np.concatenate([s.words().reshape(-1) for s in [*self.measured, *filter(None, self.step)]])
        self.blocks = blocks(needed.tolist())
        self._first_cell = _first_cells(self.info)
        self._told = {s.spec.channel for s in self.measured}

    def _check(self, every: Sequence[Slot]) -> None:
        for slot in every:
            if slot.scope in ("cell", "sensor") and len(slot.at) != self.sizes.of(slot.scope):
                raise ValueError(
                    f"model {slot.model} has {slot.point.name} for {len(slot.at)} {slot.scope}s, "
                    f"but the rack has {self.sizes.of(slot.scope)}"
                )

    @property
    def missing(self) -> list[str]:
        """Channels of a measurement that the device does not tell."""
        told = self._told | ({"sensor_degc"} if "cell_degc" in self._told else set())
        return sorted(name for name in _CHANNELS if name not in told)

    @property
    def writable(self) -> bool:
        """Whether there is a place for commands."""
        return bool(self.commanded)

    @property
    def probe(self) -> Block | None:
        """One request that tells whether there is something new; None where the device does not count its steps."""
        slot = self.step[0] if self.step else None
        return None if slot is None else Block(int(slot.at[0]), slot.point.size)

    def steps(self, image: Image) -> tuple[float, float]:
        """What the step counters at both ends say, modulo 65535; NaN where there is none."""
        told = [float(image.numbers(s)[0]) % COUNTER if s is not None else np.nan for s in self.step]
        first, last = [*told, np.nan, np.nan][:2]
        return first, last

    def decode(self, image: Image, out: Measurement) -> None:
        """Fill `out` with what was read. Ages are the device's; what it does not tell has the quality MISSING."""
        nothing_measured(out)
        out.head["interlock_closed"] = 1
        below: Slot | None = None
        for slot in self.measured:
            if slot.spec.take == "below":
                below = slot
            else:
                self._fill(slot, image.numbers(slot), out)
        if below is not None:
            out.cell_v -= np.nan_to_num(image.numbers(below), nan=0.0).astype(np.float32)
        for name in _CHANNELS:
            self._grade(name, out)

    def _fill(self, slot: Slot, values: F8, out: Measurement) -> None:
        name = slot.spec.channel
        if name == "cell_degc":
            name, values = "sensor_degc", values[self._first_cell]
        array = getattr(out, name, None)
        target = out.head[name] if array is None else array
        if target.dtype.kind == "f":
            target[:] = np.where(np.isnan(values), 0.0, values) if name.endswith("_age_s") else values
            return
        nothing = int(Quality.MISSING) if name.endswith("_quality") else _DEFAULTS.get(name, 0)
        most = np.iinfo(target.dtype).max
        whole = np.where(np.isnan(values), nothing, np.clip(values, 0, most)).astype(np.int64)
        target[:] = whole & 1 if slot.spec.take == "bit" else whole

    def _grade(self, name: str, out: Measurement) -> None:
        """Quality of a channel: the device's, MISSING where there is no value."""
        values = _place(out, name)
        quality = _place(out, f"{name}_quality")
        alias = "cell_degc" if name == "sensor_degc" else name
        if f"{name}_quality" not in self._told:
            quality[:] = 0 if name in self._told or alias in self._told else Quality.MISSING
        if values.dtype.kind == "f":
            quality[np.isnan(values) & (quality == 0)] = Quality.MISSING

    def writes(self, command: Command) -> list[tuple[int, list[int]]]:
        """Requests that pass `command` on, (address, registers); the last one makes it effective."""
        source = self._source
        source.command.copy_from(command)
        source.refresh()
        words: dict[int, int] = {}
        for slot in self.commanded:
            coded = to_words(slot.point.kind, source.values(slot) / slot.scale)
            words.update(zip(slot.words().reshape(-1).tolist(), coded.reshape(-1).tolist(), strict=True))
        found = blocks(words, MOST_WRITTEN, 1)
        last = [b for b in found if b.start <= self._commit < b.start + b.count]
        ordered = [b for b in found if b not in last] + last
        return [(b.start, [words[at] for at in range(b.start, b.start + b.count)]) for b in ordered]


def _place(out: Measurement, name: str) -> Any:
    array = getattr(out, name, None)
    return out.head[name] if array is None else array


def _is_measured(slot: Slot) -> bool:
    channel = slot.spec.channel
    return slot.spec.plain and not channel.startswith(("command.", "info.", "served."))


def _first_cells(info: RackInfo) -> I8:
    """The first cell of each sensor."""
    return np.array([int(np.argmax(info.sensor_of_cell == k)) for k in range(info.n_sensors)], np.int64)


def _describe(every: Sequence[Slot], image: Image, n_cells: int, name: str) -> RackInfo:
    """What the rack is: as the device describes it, else what its cells show (a sensor for each of them)."""
    told: dict[str, Any] = {}
    can: dict[str, bool] = {}
    for slot in every:
        channel = slot.spec.channel
        if slot.spec.bits and all(bit.startswith("info.") for bit in slot.spec.bits):
            flags = image.numbers(slot)[0]
            for k, bit in enumerate(slot.spec.bits):
                can[bit.removeprefix("info.")] = bool(np.isfinite(flags) and int(flags) >> k & 1)
        elif channel.startswith("info.") and slot.spec.plain:
            field = channel.removeprefix("info.")
            if slot.point.kind == "string":
                told[field] = words_to_text(image.words[slot.words()[0]])
            elif np.isfinite(values := image.numbers(slot)).all():
                told[field] = values
    sensors = told.get("sensor_of_cell")
    n_sensors = int(told["n_sensors"][0]) if "n_sensors" in told and sensors is not None else n_cells
    sensor_of_cell = np.arange(n_cells) if sensors is None else sensors
    if len(sensor_of_cell) != n_cells or set(sensor_of_cell.astype(int).tolist()) != set(range(n_sensors)):
        raise ValueError(f"{n_cells} cells, but the map of sensors is for {len(sensor_of_cell)} with {n_sensors}")
    contradicts = "n_cells" in told and int(told["n_cells"][0]) != n_cells
    if contradicts:
        raise ValueError(f"{n_cells} cells are shown, but the device says that it has {int(told['n_cells'][0])}")
    if not can:
        can = {"contactors": False, "precharge": False}
    can["truth"] = False
    return RackInfo(
        name=name,
        n_cells=n_cells,
        n_sensors=n_sensors,
        n_parallel=max(1, int(told["n_parallel"][0])) if "n_parallel" in told else 1,
        capacity_ah=float(told["capacity_ah"][0]) if "capacity_ah" in told else float("nan"),
        cell=told.get("cell", ""),
        sensor_of_cell=sensor_of_cell.astype(np.uint16),
        capabilities=Capabilities(**{key: value for key, value in can.items() if key in _CAN}),
    )
