"""A wrapper around any rack that falsifies what it reports: `Chaos(rack, [Change("current_a", "nan", from_s=10.0)])`.

The rack itself stays healthy; what is written to it goes through untouched. A fault of the twin is a piece of hardware
that breaks; a change is any damage to any field of the measurement, so that protection can be tried against what nobody
has thought of. It is deterministic for `seed`, and `read` raises nothing that the rack does not.

| kind | what becomes of the values of `channel` (those at `index`, or all) |
| --- | --- |
| `nan`, `inf` | not a number; infinite, with the sign of `value` or a drawn one. Whole numbers: all bits set |
| `zero`, `full_scale` | 0; the largest number of its type with a drawn sign, or `value` |
| `stuck` | `value`, or what was reported last before |
| `offset`, `gain` | `value` more; `value` times as much |
| `swap` | the two values at `index` are exchanged; without `index` the bytes of each value stand in the wrong order |
| `missing` | no value, flagged as missing |
| `stale` | what was reported last before, while its age grows |
| `delay` | what was measured `value` samples ago, as if it were new |
| `flicker` | missing during half of each period of `value` seconds; the phase is drawn |
| `drop` | without `channel`: the whole measurement is the one reported last before, sequence number included |

Faults of the wire come by rate (`hal.backends.chaos_wire`), beneath the changes.

As a URL: `chaos+URL?chaos.drop=0.01&chaos.seed=3`, with rates and their times as keys; `chaos.file=FILE.toml` names a
file with `seed`, `[wire]` and `[[change]]` tables, over which the keys win. Or `chaos:FILE.toml?rack=URL&...`.
"""

from __future__ import annotations

import math
import tomllib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import numpy.typing as npt

from hal.backends.chaos_wire import NO_FAULTS, Wire, WireFaults
from hal.backends.wrapper import Wrapper
from hal.contract import MEASUREMENT, Clock, Command, Measurement, Quality, Rack
from hal.errors import ConfigError, LinkError, nearest
from hal.registry import open_rack

KINDS = (
    *("nan", "inf", "zero", "full_scale", "stuck", "offset", "gain", "swap"),
    *("missing", "stale", "delay", "flicker", "drop"),
)
"""Every kind of change."""

_FIELDS = {field.name: field for field in MEASUREMENT.fields}
_NEEDS_VALUE = ("offset", "gain", "delay", "flicker")
_NEEDS_QUALITY = ("missing", "flicker")


@dataclass(frozen=True)
class Change:
    """One damage to a measurement, from `from_s` until `until_s` after its first reading; kinds: see the module.

    `channel` is any field of `hal.contract.MEASUREMENT`, qualities and ages too. Raises `ConfigError`.
    """

    channel: str
    kind: str
    index: int | tuple[int, ...] | None = None
    value: float | None = None
    from_s: float = 0.0
    until_s: float | None = None

    def __post_init__(self) -> None:
        where = f"change '{self.kind}' of '{self.channel}'"
        if self.kind not in KINDS:
            raise ConfigError(f"{where}: unknown kind{nearest(self.kind, KINDS)}")
        if (self.kind == "drop") != (self.channel == ""):
            raise ConfigError(f"{where}: 'drop' is of the whole measurement, and it alone has channel = ''")
        if self.channel and self.channel not in _FIELDS:
            raise ConfigError(f"{where}: a measurement has no such field{nearest(self.channel, _FIELDS)}")
        if self.value is None and self.kind in _NEEDS_VALUE:
            raise ConfigError(f"{where}: value is missing")
        if self.value is not None and math.isnan(self.value):
            raise ConfigError(f"{where}: value is not a number; use the kind 'nan'")
        if self.kind == "delay" and self.value not in range(1, 10_001):
            raise ConfigError(f"{where}: value = {self.value:g}: samples, a whole number from 1 to 10,000")
        if self.kind == "flicker" and not (self.value is not None and 0 < self.value < math.inf):
            raise ConfigError(f"{where}: value = {self.value:g}: a period in s, larger than 0")
        if self.kind in _NEEDS_QUALITY and f"{self.channel}_quality" not in _FIELDS:
            raise ConfigError(f"{where}: this field has no quality")
        if self.kind == "stale" and f"{self.channel}_age_s" not in _FIELDS:
            raise ConfigError(f"{where}: this field has no age")
        if self.index is not None and (not self.channel or not _FIELDS[self.channel].dims):
            raise ConfigError(f"{where}: index = {self.shown}, where there is one value only: leave it out")
        if self.kind == "swap" and self.index is not None and len(self.places) != 2:
            raise ConfigError(f"{where}: index = {self.shown}: name two places, or none")

    @property
    def shown(self) -> str:
        """The index as a file has it."""
        return str(list(self.index) if isinstance(self.index, tuple) else self.index)

    @property
    def places(self) -> list[int]:
        """The index as a list."""
        return [] if self.index is None else [self.index] if isinstance(self.index, int) else list(self.index)

    def active(self, time_s: float) -> bool:
        """Whether it is there so long after the first reading."""
        return self.from_s <= time_s and (self.until_s is None or time_s < self.until_s)


class _Damage:
    """A change at work on the measurements of one rack."""

    def __init__(self, change: Change, rng: np.random.Generator) -> None:
        self.change = change
        self._at: Any = change.places or slice(None)
        self._sign = 1.0 if rng.random() < 0.5 else -1.0
        self._phase = float(rng.random())
        self._held: npt.NDArray[Any] | None = None
        self._held_age_s: npt.NDArray[Any] | None = None
        self._since_s = 0.0

    def hold(self, time_s: float, before: Measurement | None, now: Measurement) -> None:
        """Note what was reported when it begins at `time_s`; forget it when it has ended."""
        c = self.change
        if not c.active(time_s):
            self._held = None
        elif self._held is None:
            source = now if before is None else before
            self._held = _values(source, c.channel).copy()
            if c.kind == "stale":
                self._held_age_s = _values(source, f"{c.channel}_age_s").copy()
            self._since_s = float(source.head["time_s"][0])

    def apply(self, time_s: float, out: Measurement, past: deque[Measurement]) -> None:
        """Damage `out`; `past` are the true measurements, the latest first."""
        c, at = self.change, self._at
        values = _values(out, c.channel)
        if c.kind == "delay":
            source = past[min(int(c.value or 0), len(past) - 1)]
            for name in (c.channel, f"{c.channel}_quality"):
                if name in _FIELDS:
                    place = self._beside(name)
                    _values(out, name)[place] = _values(source, name)[place]
        elif c.kind == "missing" or (c.kind == "flicker" and self._off(time_s)):
            values[at] = np.nan if values.dtype.kind == "f" else 0
            _values(out, f"{c.channel}_quality")[self._beside(f"{c.channel}_quality")] |= int(Quality.MISSING)
        elif c.kind == "stale":
            assert self._held is not None
            assert self._held_age_s is not None
            grown_s = max(float(out.head["time_s"][0]) - self._since_s, 0.0)
            values[at] = self._held[at]
            with np.errstate(over="ignore"):  # the time may be damaged as well
                _values(out, f"{c.channel}_age_s")[at] = self._held_age_s[at] + np.float32(grown_s)
        elif c.kind != "flicker":
            values[at] = self._damaged(values[at])

    def _beside(self, name: str) -> Any:
        """Where the change is in a field that belongs to its channel: some arrays have one quality for all."""
        return self._at if _FIELDS[name].dims else slice(None)

    def _off(self, time_s: float) -> bool:
        """Whether a flickering value is away."""
        return ((time_s - self.change.from_s) / (self.change.value or 1.0) + self._phase) % 1.0 < 0.5

    def _damaged(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Damaged values of those that a healthy rack has."""
        c = self.change
        real = values.dtype.kind == "f"
        if c.kind in ("nan", "inf", "full_scale"):
            if c.kind == "full_scale" and c.value is not None:
                return _number(np.full_like(values, 0), np.full(values.shape, c.value))
            if not real:
                return np.full_like(values, np.iinfo(values.dtype).max)  # as a bus says "not available"
            sign = self._sign if c.value is None else math.copysign(1.0, c.value)
            largest = {"nan": np.nan, "inf": np.inf, "full_scale": np.finfo(values.dtype).max}[c.kind]
            return np.full_like(values, sign * largest)
        if c.kind == "zero":
            return np.zeros_like(values)
        if c.kind == "stuck":
            if c.value is not None:
                return _number(values, np.full(values.shape, c.value))
            assert self._held is not None
            return np.asarray(self._held[self._at])
        if c.kind == "swap":
            return values[::-1] if c.places else values.byteswap()
        assert c.value is not None
        with np.errstate(all="ignore"):
            wide = values.astype(np.float64)
            return _number(values, wide + c.value if c.kind == "offset" else wide * c.value)


def _number(like: npt.NDArray[Any], wide: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Numbers in the type of others, held within the range of whole ones."""
    with np.errstate(all="ignore"):
        if like.dtype.kind == "f":
            return wide.astype(like.dtype)
        top = float(np.iinfo(like.dtype).max)
        return np.clip(np.nan_to_num(wide, nan=top, posinf=top, neginf=0.0), 0.0, top).astype(like.dtype)


def _values(measurement: Measurement, name: str) -> npt.NDArray[Any]:
    """A field of a measurement as an array that can be written."""
    if not name:
        return measurement.bytes
    values: npt.NDArray[Any] = measurement.raw[name][0] if _FIELDS[name].dims else measurement.head[name]
    return values


class Chaos(Wrapper):
    """A rack (`hal.contract.Rack`) whose measurements are damaged; all else is the rack's own.

    Changes apply in their order, on top of what the wire does. What only some racks have is handed through.
    """

    def __init__(self, rack: Rack, changes: Iterable[Change] = (), seed: int = 0, wire: WireFaults = NO_FAULTS) -> None:
        """`seed` is for what a change leaves open, and for the wire. Raises `ConfigError` for a negative one."""
        if seed < 0:
            raise ConfigError(f"seed = {seed}: must not be negative")
        super().__init__(rack)
        self.seed = seed
        self._wire_faults = wire
        self._wire_now = wire
        self._wire: Wire | None = None
        self._damages = [
            _Damage(change, np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number)))))
            for number, change in enumerate(changes)
        ]
        self._n_own = len(self._damages)
        self._depth = 1 + max((int(d.change.value or 0) for d in self._damages if d.change.kind == "delay"), default=0)
        self._past: deque[Measurement] = deque(maxlen=self._depth)
        self._true: Measurement | None = None
        self._out: Measurement | None = None
        self._start_s = 0.0

    def open(self) -> None:
        """Reach the device. Raises `ConfigError` for a change at a place that the rack does not have."""
        self._rack.open()
        if self._true is not None:
            return
        info = self._rack.info
        blank = Measurement(info.n_cells, info.n_sensors)
        try:
            for damage in self._damages:
                self._check(damage.change, blank)
        except ConfigError:
            self._rack.close()
            raise
        self._true = blank
        if self._wire_faults.any:
            self._wire = Wire(self._wire_faults, info, self.seed)

    @staticmethod
    def _check(change: Change, blank: Measurement) -> None:
        size = len(_values(blank, change.channel))
        if any(not 0 <= place < size for place in change.places):
            raise ConfigError(
                f"change '{change.kind}' of '{change.channel}': index = {change.shown}: not in 0..{size - 1}"
            )

    def inject(self, *changes: Change, wire: WireFaults | None = None) -> None:
        """Add `changes`, and put `wire` in the place of the wire's faults; their times count from the last reading.

        Raises `ConfigError` for a change at a place that the rack does not have, `LinkError` before the rack is open.
        """
        if self._true is None:
            raise LinkError("a fault is injected into a rack that is not open")
        now_s = 0.0 if self._out is None else float(self._true.head["time_s"][0]) - self._start_s
        for change in changes:
            self._check(change, self._true)
            end_s = None if change.until_s is None else change.until_s + now_s
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, len(self._damages)))))
            self._damages.append(_Damage(replace(change, from_s=change.from_s + now_s, until_s=end_s), rng))
            if change.kind == "delay" and int(change.value or 0) >= self._depth:
                self._depth = int(change.value or 0) + 1
                self._past = deque(self._past, maxlen=self._depth)
        if wire is not None:
            self._rewire(wire)

    def clear(self) -> None:
        """End what was injected; what it was made with stays."""
        del self._damages[self._n_own :]
        if self._wire_now is not self._wire_faults:
            self._rewire(self._wire_faults)

    def _rewire(self, wire: WireFaults) -> None:
        self._wire_now = wire
        self._wire = Wire(wire, self.info, self.seed, self._out) if wire.any else None

    def read(self, out: Measurement) -> None:
        """Fill `out` with the damaged measurement."""
        true = self._true
        if true is None:
            self._rack.read(out)  # says that it is not open
            return
        before = true.bytes.copy()
        self._rack.read(true)
        if self._out is None or not np.array_equal(before, true.bytes):
            now_s = float(true.head["time_s"][0])
            self._measured(true if self._wire is None else self._wire.receive(true), now_s)
        assert self._out is not None
        out.copy_from(self._out)

    def _measured(self, true: Measurement, now_s: float) -> None:
        """Take a measurement over that came from the wire at `now_s`."""
        if self._out is None:
            self._start_s = now_s
        time_s = now_s - self._start_s
        kept = true.blank() if len(self._past) < self._depth else self._past.pop()
        kept.copy_from(true)
        self._past.appendleft(kept)
        active = []
        for damage in self._damages:
            damage.hold(time_s, self._out, true)
            if damage.change.active(time_s):
                active.append(damage)
        if self._out is None:
            self._out = true.blank()
        elif any(damage.change.kind == "drop" for damage in active):
            return
        self._out.copy_from(true)
        for damage in active:
            if damage.change.kind != "drop":
                damage.apply(time_s, self._out, self._past)

    def write(self, command: Command) -> None:
        """Pass the command on, unless the wire loses it."""
        if self._wire is None or self._wire.passes_command():
            self._rack.write(command)


def open_chaos(
    address: str, *, query: Mapping[str, str], clock: Clock | None = None, options: Mapping[str, Any] | None = None
) -> Chaos:
    """The rack `query['rack']` under the changes in the file `address`; other keys are that rack's.

    Raises `ConfigError`.
    """
    keys = dict(query)
    if "rack" not in keys:
        raise ConfigError(f"rack URL 'chaos:{address}': which rack? For example chaos:FILE.toml?rack=sim:lfp_280")
    url = keys.pop("rack")
    rest = "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in keys.items())
    url += ("&" if "?" in url else "?") + rest if rest else ""
    return _chaos(open_rack(url, clock=clock, options=options), _file(address), address)


def wrap(rack: Rack, *, keys: Mapping[str, str], clock: Clock | None, options: Mapping[str, Any], url: str) -> Chaos:
    """`rack` under the faults of the keys `chaos.*`, the file `chaos.file` and the table `[chaos]`.

    Raises `ConfigError`.
    """
    given = dict(keys)
    tables = {**options, **(_file(given.pop("file")) if "file" in given else {})}
    known = {field.name for field in fields(WireFaults)}
    wire = dict(tables.get("wire", {})) if isinstance(tables.get("wire", {}), Mapping) else tables["wire"]
    for key, text in given.items():
        if key not in (*known, "seed"):
            raise ConfigError(f"rack URL '{url}': unknown key 'chaos.{key}'{nearest(key, (*known, 'seed', 'file'))}")
        try:
            number = int(text) if key == "seed" else float(text)
        except ValueError:
            kind = "a whole number" if key == "seed" else "a number"
            raise ConfigError(f"rack URL '{url}': chaos.{key} = {text}: expected {kind}") from None
        if key == "seed":
            tables["seed"] = number
        elif isinstance(wire, dict):
            wire[key] = number
    try:
        return _chaos(rack, {**tables, "wire": wire}, keys.get("file", "[chaos]"))
    except ConfigError as error:
        raise ConfigError(str(error) if "file" in keys else f"rack URL '{url}': {error}") from None


def _file(address: str) -> dict[str, Any]:
    """The tables of a file. Raises `ConfigError`."""
    try:
        return tomllib.loads(Path(address).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{address}: cannot be read: {error}") from error


def _chaos(rack: Rack, tables: Mapping[str, Any], where: str) -> Chaos:
    """`rack` under what `tables` describe. Raises `ConfigError`."""
    for key in tables:
        if key not in ("seed", "change", "wire"):
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, ('seed', 'change', 'wire'))}")
    seed, wire = tables.get("seed", 0), tables.get("wire", {})
    if not isinstance(seed, int):
        raise ConfigError(f"{where}: seed = {seed!r}: expected a whole number")
    known = {field.name for field in fields(WireFaults)}
    if not isinstance(wire, Mapping):
        raise ConfigError(f"{where}: wire = {wire!r}: expected a table, [wire]")
    for key in wire:
        if key not in known:
            raise ConfigError(f"{where}: [wire] unknown key '{key}'{nearest(key, known)}")
    return Chaos(rack, _changes(where, tables.get("change", [])), seed, WireFaults(**wire))


def _changes(address: str, entries: Any) -> list[Change]:
    """The `[[change]]` tables of a file. Raises `ConfigError`."""
    known = {field.name for field in fields(Change)}
    changes = []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{address}: change = {entries!r}: expected [[change]] tables")
    for number, entry in enumerate(entries, start=1):
        where = f"{address}: [[change]] number {number}"
        for key, value in entry.items():
            if key not in known:
                raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, known)}")
            whole = isinstance(value, int) and not isinstance(value, bool)
            listed = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
            wanted = {
                "channel": (isinstance(value, str), "text"),
                "kind": (isinstance(value, str), "text"),
                "index": (whole or listed, "a whole number or a list of them"),
            }.get(key, (whole or isinstance(value, float), "a number"))
            if not wanted[0]:
                raise ConfigError(f"{where}: {key} = {value!r}: expected {wanted[1]}")
        if "kind" not in entry:
            raise ConfigError(f"{where}: the key 'kind' is missing")
        index = entry.get("index")
        given = {"channel": "", **entry, "index": tuple(index) if isinstance(index, list) else index}
        changes.append(Change(**given))
    return changes
