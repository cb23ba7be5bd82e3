"""A rack as registers: the chain of models for a rack of some size, and records in and out of it.

Both sides use it: a server lays the models out for its rack, a client takes them as the device shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.codec.register_profile import ModelSpec, Profile, Spec
from hal.codec.register_values import F8, KINDS, U2, absent, from_words, text_to_words, to_words
from hal.codec.sunspec import END, HEADER, MARK, Placed, Point
from hal.contract import MEASUREMENT, NO_INDEX, Capabilities, Command, Measurement, Quality, RackInfo
from hal.errors import ConfigError

I8 = npt.NDArray[np.int64]

MASK_GROUPS = 16
PAIR_GROUPS = 8
COUNTER = 65535
"""A counter in a register of 16 bits goes on from 0 after so many: 65535 would mean "no value"."""


@dataclass(frozen=True, eq=False)
class Slot:
    """One point in all its places: `at` (n,) are addresses, `scale` what a raw number is multiplied with."""

    model: int
    point: Point
    spec: Spec
    scope: str
    at: I8
    scale: float | F8
    group: str = ""

    def words(self) -> I8:
        """Addresses of all registers, (n, size), the high word first."""
        order = np.arange(self.point.size)
        return self.at[:, None] + (order[::-1] if self.spec.low_word_first else order)


@dataclass(frozen=True)
class Sizes:
    """How often there is what: `modules` (m,) is the number of series groups in each module."""

    modules: I8
    n_sensors: int

    @property
    def n_cells(self) -> int:
        """Series groups."""
        return int(self.modules.sum())

    def of(self, scope: str) -> int:
        """Repetitions of a scope (see `register_profile.SCOPES`)."""
        n = self.n_cells
        sizes = {"module": len(self.modules), "cell": n, "sensor": self.n_sensors, "rack": 1}
        return {"mask": -(-n // MASK_GROUPS), "pairs": -(-n // PAIR_GROUPS), **sizes}[scope]


def sizes_of(info: RackInfo, cells_per_module: int) -> Sizes:
    """A rack in modules of `cells_per_module`; the last one takes what is left."""
    full, rest = divmod(info.n_cells, cells_per_module)
    return Sizes(np.array([cells_per_module] * full + [rest] * bool(rest), np.int64), info.n_sensors)


def chain(profile: Profile, sizes: Sizes, base: int, capabilities: Capabilities) -> list[Placed]:
    """The models of the profile one after another, from `base` (of the mark), or where their addresses are.

    Raises `ConfigError`: no room.
    """
    if profile.blocks:
        return [Placed(block.model, block.address, block.counts) for block in profile.blocks]
    placed: list[Placed] = []
    address = base + 2
    for one in profile.models:
        if one.needs and not getattr(capabilities, one.needs):
            continue
        for k in range(sizes.of("module") if one.each == "module" else 1):
            counts = {name: _repeats(scope, one, sizes, k) for name, (scope, _) in one.groups.items()}
            placed.append(Placed(one.model, address, counts))
            address = placed[-1].end
    if address + HEADER > 65536:
        raise ConfigError(
            f"{profile.source}: a rack of {sizes.n_cells} cells needs registers up to {address + 1}, "
            f"and addresses end at 65535: take a lower base or serve a smaller rack"
        )
    return placed


def _repeats(scope: str, one: ModelSpec, sizes: Sizes, module: int) -> int:
    if one.each == "module" and scope == "cell":
        return int(sizes.modules[module])
    return sizes.of(scope)


def slots(profile: Profile, placed: Sequence[Placed], words: Mapping[int, int] | None = None) -> list[Slot]:
    """Every point that the profile feeds, where `placed` has it.

    Scale factors are the profile's, or where `words` are given (register by address), what the device says.
    """
    found = []
    for one in profile.models:
        instances = [p for p in placed if p.model.id == one.model.id]
        if not instances:
            continue
        places: list[tuple[str, str, Mapping[str, Spec], Mapping[str, Point], list[I8]]] = [
            (one.each, "", one.points, one.model.fixed.points, [np.array([p.address]) for p in instances])
        ]
        for group in one.model.groups:
            scope, specs = one.groups[group.name]
            starts = [p.start(group.name) + group.size * np.arange(p.counts[group.name]) for p in instances]
            places.append((scope, group.name, specs, group.points, starts))
        for scope, group_name, specs, points, starts in places:
            for name, spec in specs.items():
                point = points[name]
                if point.kind not in KINDS and point.kind != "string":
                    raise ConfigError(f"{profile.source}: point {one.model.id}.{name}: type {point.kind} is not fed")
                scale = [
                    np.full(len(at), _scale(point, one, p, words)) for at, p in zip(starts, instances, strict=True)
                ]
                at = np.concatenate(starts) + point.offset
                found.append(Slot(one.model.id, point, spec, scope, at, np.concatenate(scale), group_name))
    return found


def _scale(point: Point, one: ModelSpec, placed: Placed, words: Mapping[int, int] | None) -> float:
    if point.sf is None:
        return 1.0
    if isinstance(point.sf, int):
        return float(10.0**point.sf)
    factor = one.model.fixed.points.get(point.sf)
    if words is not None and factor is not None:
        raw = words.get(placed.address + factor.offset, 0x8000)
        return 1.0 if raw == 0x8000 else float(10.0 ** (raw - 0x10000 if raw & 0x8000 else raw))
    spec = one.points.get(point.sf)
    return 1.0 if spec is None or spec.value is None else float(10.0 ** int(spec.value))


def nothing_measured(out: Measurement) -> Measurement:
    """Fill `out` with what is known of a rack that has not been heard yet: nothing. Returns it."""
    for f in MEASUREMENT.fields:
        target = out.raw[f.name] if f.dims else out.head[f.name]
        if f.name.endswith("_quality"):
            target[...] = Quality.MISSING
        else:
            measured = f.kind == "f4" and not f.name.endswith("_age_s")
            target[...] = np.nan if measured else 0
    return out


class Source:
    """Values of fields for points: the newest measurement and command, the description, what the server counts."""

    def __init__(self, info: RackInfo, sizes: Sizes) -> None:
        self.info, self.sizes = info, sizes
        self.measurement = nothing_measured(Measurement(info.n_cells, info.n_sensors))
        self.command = Command(info.n_cells, info.n_sensors)
        self.commanded = False
        self.count = 0
        self.told: dict[str, float] = {}
        """Values of `register_profile.TOLD`; what is not here has no value."""
        self._starts = np.concatenate(([0], np.cumsum(sizes.modules)[:-1]))
        self._kept: dict[str, F8] = {}

    def refresh(self) -> None:
        """Forget what was worked out for an earlier measurement."""
        self._kept.clear()

    def text(self, channel: str) -> str:
        """A field of the description as text."""
        return str(getattr(self.info, channel.removeprefix("info.")))

    def field(self, channel: str) -> F8:
        """All values of a field, as float64 (n,)."""
        if channel not in self._kept:
            self._kept[channel] = self._field(channel)
        return self._kept[channel]

    def _field(self, channel: str) -> F8:
        room, dot, name = channel.partition(".")
        if channel == "served.count":
            return np.array([self.count], np.float64)
        if room == "told":
            return np.array([self.told.get(name, np.nan)], np.float64)
        if channel == "cell_degc":
            return self.field("sensor_degc")[self.info.sensor_of_cell]
        if dot and room == "info":
            holder: Any = self.info if hasattr(self.info, name) else self.info.capabilities
            return np.atleast_1d(np.asarray(getattr(holder, name), np.float64))
        record: Any = self.command if dot else self.measurement
        name = name if dot else channel
        values = getattr(record, name, None)
        if values is not None:
            numbers = np.asarray(values, np.float64)
            return np.where(numbers == NO_INDEX, np.nan, numbers) if name == "reason_index" else numbers
        one = record.head[name].astype(np.float64)
        if dot and not self.commanded and record.head[name].dtype.kind == "f":
            one[:] = np.nan  # nothing has been asked for yet
        if name == "cause_index" and one[0] == NO_INDEX:
            one[:] = np.nan
        return one

    def bit(self, name: str) -> int:
        """One bit: a field that is not 0, `!` its opposite, `:N` bit N of a field of 32-bit words."""
        channel, _, number = name.lstrip("!").partition(":")
        if number:
            words = self.field(channel)
            on = bool(int(words[int(number) // 32]) >> (int(number) % 32) & 1)
        else:
            on = bool(self.field(channel)[0])
        return int(on != name.startswith("!"))

    def values(self, slot: Slot) -> F8:
        """Numbers (n,) for all places of a slot, unscaled."""
        spec = slot.spec
        n = len(slot.at)
        if spec.value is not None:
            return np.full(n, float(spec.value))
        if spec.bits:
            return np.full(n, float(sum(self.bit(name) << k for k, name in enumerate(spec.bits))))
        if spec.product:
            return np.full(n, np.prod([self.field(name)[0] for name in spec.product]))
        if spec.prefix:
            text = self.text(spec.channel)
            fits = [number for start, number in spec.prefix.items() if text.startswith(start)]
            return np.full(n, float(fits[0] if fits else spec.other))
        if spec.table:
            return np.full(n, float(spec.table.get(str(int(self.field(spec.channel)[0])), spec.other)))
        return self._taken(slot, n) * spec.factor

    def _taken(self, slot: Slot, n: int) -> F8:
        take, modules = slot.spec.take, self.sizes.modules
        if take == "count":
            return modules.astype(np.float64) if slot.scope == "module" else np.full(n, float(self.sizes.n_cells))
        if take == "number":
            return np.arange(1.0, n + 1)
        if take in ("modules", "masks", "pairs"):
            return np.full(n, float(self.sizes.of({"modules": "module", "masks": "mask", "pairs": "pairs"}[take])))
        values = self.field(slot.spec.channel)
        if slot.scope == "mask":
            return _packed(values, MASK_GROUPS, 1)
        if slot.scope == "pairs":
            return _packed(values, PAIR_GROUPS, 2)
        if take == "counter":
            return values % COUNTER
        if take == "below":
            return np.maximum(-values, 0.0)
        if take in ("value", "bit"):
            return np.repeat(values[slot.spec.index], n) if n == 1 or len(values) == 1 else values
        return self._over_cells(take, values, slot.scope)

    def _over_cells(self, take: str, values: F8, scope: str) -> F8:
        """A maximum, mean, ... over the cells of each module, or of the rack; values that are not there do not count.

        For the rack, the place of a maximum or minimum is the number of its module, for a module that of the cell.
        """
        starts = self._starts if scope == "module" else np.array([0])
        if take in ("sum", "mean"):
            there = np.isfinite(values)
            total = np.add.reduceat(np.where(there, values, 0.0), starts)
            count = np.add.reduceat(there.astype(np.float64), starts)
            with np.errstate(invalid="ignore"):
                return np.where(count > 0, total, np.nan) if take == "sum" else total / count
        if not take.endswith("_at"):
            return np.asarray((np.fmax if take == "max" else np.fmin).reduceat(values, starts), np.float64)
        worst = -np.inf if take == "max_at" else np.inf
        known = np.where(np.isfinite(values), values, worst)
        find = np.argmax if take == "max_at" else np.argmin
        if scope == "rack":
            return np.array([float(np.searchsorted(self._starts, find(known), side="right"))])
        ends = np.append(starts[1:], len(values))
        return np.array([1.0 + find(known[a:b]) for a, b in zip(starts, ends, strict=True)])


def _packed(values: F8, per_word: int, bits: int) -> F8:
    """Small numbers side by side in words, the first in the lowest bits."""
    n_words = -(-len(values) // per_word)
    padded = np.zeros(n_words * per_word, np.int64)
    padded[: len(values)] = values
    shifts = bits * np.arange(per_word)
    return np.asarray((padded.reshape(n_words, per_word) << shifts).sum(axis=1), np.float64)


def unpacked(words: F8, n: int, per_word: int, bits: int) -> npt.NDArray[np.uint8]:
    """The first `n` of the numbers that lie side by side in words."""
    shifts = bits * np.arange(per_word)
    every = (words.astype(np.int64)[:, None] >> shifts) & ((1 << bits) - 1)
    return every.reshape(-1)[:n].astype(np.uint8)


class RegisterMap:
    """The registers of a rack that is served: `base`, and `size` of them up to and with the end of the chain."""

    def __init__(self, profile: Profile, info: RackInfo, *, cells_per_module: int | None = None) -> None:
        """Lay the models out for the rack `info`. Raises `ConfigError` where the addresses do not suffice."""
        self.profile, self.info = profile, info
        told = profile.rack
        if told is not None and (info.n_cells, info.n_sensors) != (told.n_cells, told.n_sensors):
            raise ConfigError(
                f"{profile.source}: [rack] n_cells = {told.n_cells}, n_sensors = {told.n_sensors}: the rack has "
                f"{info.n_cells} and {info.n_sensors}; change the profile"
            )
        sizes = sizes_of(info, cells_per_module or profile.cells_per_module)
        self.placed = chain(profile, sizes, profile.base[0], info.capabilities)
        self.base = min(placed.address for placed in self.placed) if profile.blocks else profile.base[0]
        self.slots = slots(profile, self.placed)
        self.source = Source(info, sizes)
        end = max(placed.end for placed in self.placed)
        self.size = end + (0 if profile.blocks else HEADER) - self.base
        self._fixed = self._skeleton()
        self._changing = [slot for slot in self.slots if slot.spec.value is None and not _is_info(slot.spec)]
        for slot in self.slots:
            if slot not in self._changing:
                self._put(self._fixed, slot)
        self.written = [slot for slot in self.slots if self._writes(slot)]
        every = np.concatenate([slot.words().reshape(-1) for slot in self.written] or [np.zeros(0, np.int64)])
        self.writable = frozenset(every.tolist())
        """Addresses that may be written."""
        commit = [s.words().reshape(-1) for s in self.written if (s.model, s.point.name) == profile.commit]
        self.commit = frozenset(commit[0].tolist()) if commit else frozenset()
        """Addresses whose writing makes a command effective."""

    def _writes(self, slot: Slot) -> bool:
        one = self.profile.find(slot.model)
        return one is not None and one.writable and slot.point.writable and slot.spec.channel.startswith("command.")

    def _skeleton(self) -> U2:
        """All that no measurement changes: the mark, headers of models, points that have no value."""
        words = np.zeros(self.size, np.uint16)
        if self.profile.blocks:
            return words  # no mark, no headers, and all points carry something
        words[:2] = np.frombuffer(MARK, ">u2")
        for placed in self.placed:
            at = placed.address - self.base
            for point in placed.model.fixed.points.values():
                words[at + point.offset : at + point.offset + point.size] = absent(point.kind, point.size)
            words[at], words[at + 1] = placed.model.id, placed.model.length(placed.counts)
            for group in placed.model.groups:
                pattern = [w for point in group.points.values() for w in absent(point.kind, point.size)]
                start = placed.start(group.name) - self.base
                count = placed.counts[group.name]
                words[start : start + count * group.size] = np.tile(np.array(pattern, np.uint16), count)
        words[-2], words[-1] = END, 0
        return words

    def _put(self, words: U2, slot: Slot) -> None:
        if slot.point.kind == "string":
            text = str(slot.spec.value) if slot.spec.value is not None else self.source.text(slot.spec.channel)
            words[slot.words() - self.base] = text_to_words(text, slot.point.size)
            return
        values = self.source.values(slot)
        words[slot.words() - self.base] = to_words(slot.point.kind, values / slot.scale)

    def encode(self) -> bytes:
        """All registers, 2 bytes each, for what `source` holds now."""
        self.source.refresh()
        words = self._fixed.copy()
        for slot in self._changing:
            self._put(words, slot)
        return words.astype(">u2").tobytes()

    def decode_command(self, registers: bytes, out: Command) -> None:
        """Fill `out` from all registers. Raises `ValueError` for numbers that no command can hold."""
        words = np.frombuffer(registers, ">u2").astype(np.uint16)
        for slot in self.written:
            read_command(slot, words[slot.words() - self.base], out)


def _is_info(spec: Spec) -> bool:
    names = [*([spec.channel] if spec.channel else []), *spec.bits, *spec.product]
    fixed = spec.take in ("count", "number", "modules", "masks", "pairs")
    return fixed or all(name.startswith("info.") for name in names)


def read_command(slot: Slot, words: U2, out: Command) -> None:
    """Take the field of a slot over into a command; `words` (n, size). Raises `ValueError`: a number that is none."""
    name = slot.spec.channel.removeprefix("command.")
    values = from_words(slot.point.kind, words) / slot.spec.factor
    if slot.scope == "mask":
        out.balance[:] = unpacked(values, out.n_cells, MASK_GROUPS, 1)
    elif slot.scope == "pairs":
        out.shuttle[:] = unpacked(values, out.n_cells, PAIR_GROUPS, 2)
    else:
        array = getattr(out, name, None)
        target = out.head[name] if array is None else array
        if target.dtype.kind == "u":
            value = NO_INDEX if np.isnan(values[0]) and name == "cause_index" else values[0]
            if not 0 <= value <= np.iinfo(target.dtype).max:
                raise ValueError(f"{name} = {value}: not a number from 0 to {np.iinfo(target.dtype).max}")
            target[slot.spec.index if array is not None else 0] = int(value)
        else:
            target[slot.spec.index if array is not None else 0] = values[0] * float(np.ravel(slot.scale)[0])
