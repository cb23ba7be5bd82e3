"""Faults of a wire, by rate: what `chaos+URL?chaos.drop=0.01&chaos.seed=3` does to measurements on their way.

A measurement travels in frames: each scalar channel is one, four cells or four sensors share one, the status inputs
(contactors, interlock, emergency stop, gas) share one, the bleed switches another. A rate is the share of frames, from
0 to 1, that a fault hits, each drawn on its own; of `bus_off` it is the share of samples. What a rate is drawn for
depends on the seed and the number of the sample alone.

| fault | what the receiver sees of a frame that is hit |
| --- | --- |
| `drop` | nothing: its values stay, and grow older |
| `delay` | its values `delay_s` later, as if they were new |
| `duplicate` | the frame of the sample before once more, after its own, as if it were new |
| `reorder` | nothing; then, after the next sample's, this one's, as if it were new |
| `corrupt` | one bit of one of its values flipped, and no checksum to tell |
| `stale` | nothing for `hold_s`: its values stay, and grow older |
| `freeze` | for `hold_s` the same values, as if they were new |
| `bus_off` | nothing of any frame for `hold_s`; nor does the rack get a command |
| `exception` | an answer without values: they are flagged as missing; inputs stay as they were |
| `swap_words` | the two 16-bit words of each value in the wrong order (single bytes stay) |

With `drop` and `exception`, commands are lost at the same rate. A command is never falsified: it is protected on every
wire. The receiver has no checksum, no alive counter and no time-out of its own: this is the worst of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hal.contract import MEASUREMENT, Measurement, Quality, RackInfo
from hal.errors import ConfigError

KINDS = (
    *("drop", "delay", "duplicate", "reorder", "corrupt"),
    *("stale", "freeze", "bus_off", "exception", "swap_words"),
)
"""Faults of a wire."""

CELLS_PER_FRAME = 4
STALE_S = 1.0
"""Values that have no age, as the feedback of the contactors, are flagged as stale when they are older."""

_STATUS = ("contactors", "interlock_closed", "insulation_rail", "emergency_stop", "gas_alarm")
_FIELDS = {field.name: field for field in MEASUREMENT.fields}


@dataclass(frozen=True)
class WireFaults:
    """Rates of the faults of a wire (see the module), in force from `from_s` until `until_s` after the first reading.

    Raises `ConfigError`.
    """

    drop: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    stale: float = 0.0
    freeze: float = 0.0
    bus_off: float = 0.0
    exception: float = 0.0
    swap_words: float = 0.0
    delay_s: float = 0.5
    hold_s: float = 1.0
    from_s: float = 0.0
    until_s: float = math.inf

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                raise ConfigError(f"chaos.{field.name} = {value!r}: expected a number")
            if field.name in KINDS and not 0.0 <= value <= 1.0:
                raise ConfigError(f"chaos.{field.name} = {value:g}: a rate is from 0 to 1")
            if field.name in ("delay_s", "hold_s") and not 0.0 < value < math.inf:
                raise ConfigError(f"chaos.{field.name} = {value:g}: a time in s, greater than 0")
        if not 0.0 <= self.from_s < self.until_s:
            raise ConfigError(
                f"chaos.from_s = {self.from_s:g}: must not be negative, and earlier than until_s = {self.until_s:g}"
            )

    @property
    def any(self) -> bool:
        """Whether any rate is greater than 0."""
        return any(getattr(self, kind) > 0.0 for kind in KINDS)


NO_FAULTS = WireFaults()


@dataclass(frozen=True)
class _Frame:
    """Values that travel together: names of fields and the places in them."""

    names: tuple[str, ...]
    at: slice

    @property
    def values(self) -> tuple[str, ...]:
        """The fields that hold values."""
        return tuple(name for name in self.names if not name.endswith(("_age_s", "_quality")))


def frames(n_cells: int, n_sensors: int) -> list[_Frame]:
    """The frames of a measurement of so many cells and sensors. Time and sequence are the receiver's own."""
    made = []
    head = [field.name for field in MEASUREMENT.scalars if field.name not in ("time_s", "sequence")]
    for name in head:
        if f"{name}_age_s" in _FIELDS:
            made.append(_Frame((name, f"{name}_age_s", f"{name}_quality"), slice(None)))
    made.append(_Frame((*_STATUS, "contactors_quality", "gas_alarm_quality"), slice(None)))
    made.append(_Frame(("bleeding", "bleeding_quality"), slice(None)))
    for name, n in (("cell_v", n_cells), ("sensor_degc", n_sensors)):
        for first in range(0, n, CELLS_PER_FRAME):
            at = slice(first, min(first + CELLS_PER_FRAME, n))
            made.append(_Frame((name, f"{name}_age_s", f"{name}_quality"), at))
    return made


class Wire:
    """A wire with faults between a rack (`info`) and its receiver; deterministic for `seed`.

    `shown`: what the receiver has heard before, if anything; the clock of its own numbers goes on from there.
    """

    def __init__(self, faults: WireFaults, info: RackInfo, seed: int, shown: Measurement | None = None) -> None:
        self.faults = faults
        self._frames = frames(info.n_cells, info.n_sensors)
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 0x77697265))))
        self._commands = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 0x636D64))))
        size = info.n_cells, info.n_sensors
        self._shown, self._before = Measurement(*size), Measurement(*size)
        self._given = Measurement(*size)
        n = len(self._frames)
        self._fields = [[self._field_of(name) for name in frame.names] for frame in self._frames]
        self._until_s = {kind: np.full(n, -math.inf) for kind in ("stale", "freeze")}
        self._off_until_s = -math.inf
        self._late: list[tuple[float, int, list[npt.NDArray[Any]]]] = []
        self._taken_s = np.full(n, -math.inf)
        self._start_s: float | None = None
        self._now_s = 0.0
        self._sequence = 0
        self._never()
        if shown is not None:
            self._shown.copy_from(shown)
            self._before.copy_from(shown)
            self._start_s = self._now_s = float(shown.head["time_s"][0])
            self._sequence = int(shown.head["sequence"][0])
            self._taken_s[:] = self._now_s

    @staticmethod
    def _field_of(name: str) -> tuple[str, bool]:
        return name, bool(_FIELDS[name].dims)

    def _view(self, measurement: Measurement, name: str, array: bool, at: slice) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = measurement.raw[name][0][at] if array else measurement.head[name]
        return values

    def _never(self) -> None:
        """What the receiver shows before it has heard anything."""
        for frame, names in zip(self._frames, self._fields, strict=True):
            for name, array in names:
                values = self._view(self._shown, name, array, frame.at if array else slice(None))
                if name.endswith("_quality"):
                    values |= np.uint8(Quality.MISSING)
                elif values.dtype.kind == "f" and not name.endswith("_age_s"):
                    values[...] = np.nan

    @property
    def _active(self) -> bool:
        since_s = self._now_s - (self._start_s or 0.0)
        return self.faults.from_s <= since_s < self.faults.until_s

    def passes_command(self) -> bool:
        """Whether the next command reaches the rack."""
        f = self.faults
        lost = float(self._commands.random()) < 1.0 - (1.0 - f.drop) * (1.0 - f.exception)
        return not (self._now_s < self._off_until_s or (self._active and lost))

    def receive(self, true: Measurement) -> Measurement:
        """What the receiver shows once the rack has sent `true`; the next call overwrites it."""
        now_s = float(true.head["time_s"][0])
        if self._start_s is None:
            self._start_s = self._now_s = now_s
            self._before.copy_from(true)
        self._age(max(now_s - self._now_s, 0.0))
        self._now_s = now_s
        f = self.faults
        draws = self._rng.random((len(KINDS), len(self._frames)))
        rates = np.array([getattr(f, kind) if self._active else 0.0 for kind in KINDS])
        hit = dict(zip(KINDS, draws < rates[:, None], strict=True))
        picks = self._rng.integers(0, 1 << 30, len(self._frames))
        if hit["bus_off"][0]:
            self._off_until_s = now_s + f.hold_s
        for kind, until_s in self._until_s.items():
            until_s[hit[kind]] = now_s + f.hold_s
        off = now_s < self._off_until_s
        due = [entry for entry in self._late if entry[0] <= now_s]
        self._late = [entry for entry in self._late if entry[0] > now_s]
        heard = False
        if not off:
            heard = self._deliver(true, hit, picks, now_s)
            for _, k, content in due:  # after the frames of this sample, and therefore on top of them
                self._put(k, content, now_s)
                heard = True
        self._before.copy_from(true)
        if heard:
            self._sequence += 1
            self._shown.head["time_s"], self._shown.head["sequence"] = now_s, self._sequence & 0xFFFFFFFF
        self._flag_old(now_s)
        self._given.copy_from(self._shown)
        return self._given

    def _deliver(self, true: Measurement, hit: dict[str, npt.NDArray[np.bool_]], picks: Any, now_s: float) -> bool:
        """Let the frames of `true` arrive. Returns whether any did."""
        f = self.faults
        touched = np.any(list(hit.values()), axis=0) | (now_s < np.maximum(*self._until_s.values()))
        kept = {int(k): self._content(self._shown, int(k)) for k in np.flatnonzero(touched)}
        heard = not touched.all()
        if heard:  # most frames come as they were sent: all at once, then those back that do not
            head = self._shown.head[["time_s", "sequence"]].copy()
            self._shown.copy_from(true)
            self._shown.head[["time_s", "sequence"]] = head
            self._taken_s[~touched] = now_s
            for k, content in kept.items():
                self._set(k, content)
        for k in kept:
            if hit["drop"][k] or now_s < self._until_s["stale"][k]:
                continue
            if hit["delay"][k] or hit["reorder"][k]:
                due_s = now_s + f.delay_s if hit["delay"][k] else math.nextafter(now_s, math.inf)
                self._late.append((due_s, k, self._content(true, k)))
                continue
            content = self._content(self._before if hit["duplicate"][k] else true, k)
            if hit["exception"][k]:
                self._refuse(k, content)
            elif now_s < self._until_s["freeze"][k] and self._taken_s[k] > -math.inf:
                content = self._frozen(k, content)
            if hit["corrupt"][k]:
                self._flip(k, content, int(picks[k]))
            if hit["swap_words"][k]:
                for (name, _), values in zip(self._fields[k], content, strict=True):
                    if name in self._frames[k].values and values.dtype.itemsize == 4:
                        values.view(np.uint16).reshape(-1, 2)[:] = values.view(np.uint16).reshape(-1, 2)[:, ::-1].copy()
            self._put(k, content, now_s)
            heard = True
        return heard

    def _content(self, measurement: Measurement, k: int) -> list[npt.NDArray[Any]]:
        """A copy of what a frame holds."""
        return [self._view(measurement, name, array, self._frames[k].at).copy() for name, array in self._fields[k]]

    def _put(self, k: int, content: list[npt.NDArray[Any]], now_s: float) -> None:
        """Let the receiver take over a frame."""
        self._set(k, content)
        self._taken_s[k] = now_s

    def _set(self, k: int, content: list[npt.NDArray[Any]]) -> None:
        """Show this content of a frame."""
        for (name, array), values in zip(self._fields[k], content, strict=True):
            self._view(self._shown, name, array, self._frames[k].at)[...] = values

    def _refuse(self, k: int, content: list[npt.NDArray[Any]]) -> None:
        """Turn the content of a frame into an answer without values; inputs are held, since not all have a quality."""
        held = self._content(self._shown, k)
        for (name, _), values, before in zip(self._fields[k], content, held, strict=True):
            if name.endswith("_quality"):
                values |= np.uint8(Quality.MISSING)
            elif not name.endswith("_age_s"):
                values[...] = np.nan if values.dtype.kind == "f" else before

    def _frozen(self, k: int, content: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The content of a frame with the values that were shown before."""
        held = self._content(self._shown, k)
        return [
            fresh if name.endswith("_age_s") else old
            for (name, _), fresh, old in zip(self._fields[k], content, held, strict=True)
        ]

    def _flip(self, k: int, content: list[npt.NDArray[Any]], pick: int) -> None:
        """Flip the bit `pick` of the values of a frame."""
        names = self._frames[k].values
        octets = [
            values.view(np.uint8) for (name, _), values in zip(self._fields[k], content, strict=True) if name in names
        ]
        bit = pick % (8 * sum(part.size for part in octets))
        for part in octets:
            if bit < 8 * part.size:
                part[bit // 8] ^= np.uint8(1 << bit % 8)
                return
            bit -= 8 * part.size

    def _age(self, passed_s: float) -> None:
        """All that is shown grows older."""
        for field in MEASUREMENT.fields:
            if field.name.endswith("_age_s"):
                ages = self._shown.raw[field.name] if field.dims else self._shown.head[field.name]
                ages += np.float32(passed_s)

    def _flag_old(self, now_s: float) -> None:
        """Flag what has no age and has not been heard of for long."""
        for k, frame in enumerate(self._frames):
            if frame.names[-1].endswith("_quality") and f"{frame.names[0]}_age_s" not in frame.names:
                old = now_s - self._taken_s[k] > STALE_S
                if old and self._taken_s[k] > -math.inf:
                    for name in frame.names:
                        if name.endswith("_quality"):
                            self._shown.head[name] |= np.uint8(Quality.STALE)
