"""What the inverter (PCS) asks of the rack over time: deterministic for its seed.

A duty is asked once per sub-step with what a PCS can see (`PcsView`) and answers with a power in watt, or a current in
ampere where `in_ampere` is set; positive = discharge. The rack then clips to the published limits.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.config import TwinError, check_ranges, from_table, hint, key, require

F8 = npt.NDArray[np.float64]

HOUR_S = 3600.0
DAY_S = 86400.0


@dataclass
class PcsView:
    """What the PCS and its energy manager see: the SoC that the BMS publishes, and their own meters."""

    soc: float = 0.5
    current_a: float = 0.0  # of the PCS, positive = discharge
    connected: bool = False


@dataclass(frozen=True)
class Rating:
    """Size of the rack, for duties stated relative to it."""

    capacity_ah: float
    nominal_v: float

    @property
    def energy_wh(self) -> float:
        """Nominal energy."""
        return self.capacity_ah * self.nominal_v


class Duty(ABC):
    """A request over time. Called with times that never decrease."""

    in_ampere: bool = False

    @abstractmethod
    def request(self, time_s: float, view: PcsView) -> float:
        """Power in W (or current in A) wanted from `time_s` on."""


@dataclass(frozen=True)
class ConstantConfig:
    """`kind = "constant"`: one power, one C-rate (of power: 1 = nominal energy in an hour), or one current."""

    kind: str = key("which duty", "constant")
    power_w: float = key("power", 0.0)
    c_rate: float = key("power, 1 is the nominal energy in an hour", 0.0, unit="C")
    current_a: float = key("current; at most one of the three is given", 0.0)
    start_s: float = key("nothing before", 0.0)

    def __post_init__(self) -> None:
        check_ranges(self, "[duty]")


class Constant(Duty):
    """The same power, or current, from `start_s` on."""

    def __init__(self, config: ConstantConfig, rating: Rating) -> None:
        given = [name for name in ("power_w", "c_rate", "current_a") if getattr(config, name)]
        require(len(given) <= 1, f"[duty]: {' and '.join(given)} exclude each other")
        self._start_s = config.start_s
        self.in_ampere = config.current_a != 0.0
        self._wanted = config.current_a or config.power_w or config.c_rate * rating.energy_wh

    def request(self, time_s: float, view: PcsView) -> float:
        """Power in W, or current in A."""
        return self._wanted if time_s >= self._start_s else 0.0


@dataclass(frozen=True)
class CycleConfig:
    """`kind = "cycle"`: charge, rest, discharge, rest, and again, at constant current.

    A charge or discharge ends when the BMS has held the current below `taper` of the wanted one for `taper_s` (its
    limits fall to 0 at the end of the voltage window), when the published SoC reaches its bound, or after `*_h` hours.
    """

    kind: str = key("which duty", "cycle")
    charge_c: float = key("current of the charge", 0.5, above=0)
    discharge_c: float = key("current of the discharge", 0.5, above=0)
    charge_h: float = key("longest charge", 12.0, above=0)
    discharge_h: float = key("longest discharge", 12.0, above=0)
    rest_h: float = key("rest after each", 0.5, low=0)
    soc_low: float = key("a discharge ends here", 0.0, low=0, high=1)
    soc_high: float = key("a charge ends here; larger than soc_low", 1.0, low=0, high=1)
    taper: float = key(
        "share of the wanted current below which it counts as held back; less than 1", 0.05, low=0, high=1
    )
    taper_s: float = key("so long it must be held back to end", 30.0, low=0)
    start_with: str = key('"charge" or "discharge"', "charge")
    start_s: float = key("nothing before", 60.0)

    def __post_init__(self) -> None:
        require(self.start_with in ("charge", "discharge"), f"[duty] start_with = '{self.start_with}'"
                + hint(self.start_with, ("charge", "discharge")))  # fmt: skip
        check_ranges(self, "[duty]")
        require(self.taper < 1, f"[duty] taper = {self.taper}: must be less than 1")
        require(self.soc_low < self.soc_high, "[duty]: soc_low must be less than soc_high")


class Cycle(Duty):
    """Full cycles, in current mode."""

    in_ampere = True
    _CHARGE, _REST_FULL, _DISCHARGE, _REST_EMPTY = range(4)

    def __init__(self, config: CycleConfig, rating: Rating) -> None:
        self._c = config
        self._charge_a = -config.charge_c * rating.capacity_ah
        self._discharge_a = config.discharge_c * rating.capacity_ah
        self._phase = self._REST_EMPTY if config.start_with == "charge" else self._REST_FULL
        self._end_s = config.start_s
        self._held_since_s = math.inf
        self._wanted_a = 0.0

    def request(self, time_s: float, view: PcsView) -> float:
        """Current in A."""
        c = self._c
        wanted = self._wanted_a
        if wanted != 0.0:
            if view.connected and abs(view.current_a) < c.taper * abs(wanted):
                self._held_since_s = min(self._held_since_s, time_s)
            else:
                self._held_since_s = math.inf
            done = time_s >= self._end_s or time_s - self._held_since_s > c.taper_s
            done = done or (wanted < 0 and view.soc >= c.soc_high) or (wanted > 0 and view.soc <= c.soc_low)
        else:
            done = time_s >= self._end_s and view.connected
        if done:
            self._phase = (self._phase + 1) % 4
            self._held_since_s = math.inf
            hours, self._wanted_a = {
                self._CHARGE: (c.charge_h, self._charge_a),
                self._REST_FULL: (c.rest_h, 0.0),
                self._DISCHARGE: (c.discharge_h, self._discharge_a),
                self._REST_EMPTY: (c.rest_h, 0.0),
            }[self._phase]
            self._end_s = time_s + hours * HOUR_S
        return self._wanted_a


@dataclass(frozen=True)
class FrequencyConfig:
    """`kind = "frequency_regulation"`: droop on a synthetic grid frequency, the energy re-centred slowly.

    The frequency is 50 Hz plus two Ornstein-Uhlenbeck processes (fast: `sd_hz` with `tau_s`; slow wander: `wander_hz`
    with `wander_tau_s`), of the size measured in continental Europe: standard deviation about 20 mHz [Schaefer et al.,
    Nature Energy 3 (2018) 119]. Droop as for frequency containment: nothing within `dead_band_hz`, all of the power at
    `full_hz`.
    """

    kind: str = key("which duty", "frequency_regulation")
    seed: int = key("of the frequency", 1, low=0)
    power_c: float = key("full power", 0.5, above=0)
    sd_hz: float = key("standard deviation of the fast process", 0.017, low=0)
    tau_s: float = key("its time constant", 60.0, above=0)
    wander_hz: float = key("standard deviation of the slow one", 0.012, low=0)
    wander_tau_s: float = key("its time constant", 900.0, above=0)
    dead_band_hz: float = key("no power within", 0.010, low=0)
    full_hz: float = key("full power from here on; larger than dead_band_hz", 0.060)
    recentre_soc: float = key("where the energy is brought back to", 0.5, low=0, high=1)
    recentre_band: float = key("no re-centring this close to the target, in SoC", 0.05, low=0)
    recentre_c: float = key("largest re-centring power", 0.1, low=0)
    recentre_gain: float = key("power per unit of SoC beyond the band", 1.0, low=0, unit="C")
    start_s: float = key("nothing before", 60.0)

    def __post_init__(self) -> None:
        check_ranges(self, "[duty]")
        require(self.full_hz > self.dead_band_hz, "[duty]: full_hz must be larger than dead_band_hz")


class FrequencyRegulation(Duty):
    """Frequency containment reserve; the frequency deviation has one value per second, made hour by hour."""

    def __init__(self, config: FrequencyConfig, rating: Rating) -> None:
        self._c = config
        self._full_w = config.power_c * rating.energy_wh
        self._recentre_w = config.recentre_c * rating.energy_wh
        self._gain_w = config.recentre_gain * rating.energy_wh
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((config.seed, 0xF4E))))
        self._fast = config.sd_hz * float(self._rng.standard_normal())
        self._slow = config.wander_hz * float(self._rng.standard_normal())
        self._hour = -1
        self._deviation: list[float] = []

    def _next_hour(self) -> None:
        c = self._c
        noise = self._rng.standard_normal((3600, 2))
        keep_fast, keep_slow = math.exp(-1 / c.tau_s), math.exp(-1 / c.wander_tau_s)
        kick = noise * (c.sd_hz * math.sqrt(1 - keep_fast**2), c.wander_hz * math.sqrt(1 - keep_slow**2))
        self._deviation = []
        for fast, slow in kick.tolist():
            self._fast = self._fast * keep_fast + fast
            self._slow = self._slow * keep_slow + slow
            self._deviation.append(self._fast + self._slow)
        self._hour += 1

    def deviation_hz(self, time_s: float) -> float:
        """Grid frequency minus 50 Hz at `time_s` (its whole second); times must not go back beyond the hour."""
        while self._hour < time_s // HOUR_S:
            self._next_hour()
        return self._deviation[int(time_s - self._hour * HOUR_S)]

    def request(self, time_s: float, view: PcsView) -> float:
        """Power in W."""
        c = self._c
        if time_s < c.start_s or not view.connected:
            return 0.0
        deviation = self.deviation_hz(time_s)
        beyond = max(abs(deviation) - c.dead_band_hz, 0.0) / (c.full_hz - c.dead_band_hz)
        power = -math.copysign(min(beyond, 1.0) * self._full_w, deviation)
        off = view.soc - c.recentre_soc
        excess = math.copysign(max(abs(off) - c.recentre_band, 0.0), off)
        return power + min(max(excess * self._gain_w, -self._recentre_w), self._recentre_w)


@dataclass(frozen=True)
class CsvConfig:
    """`kind = "csv"`: columns time_s, power_w of `path`; each power holds until the next row."""

    path: str = key("the file")
    kind: str = key("which duty", "csv")
    scale: float = key("the powers are multiplied by this", 1.0)
    repeat: bool = key("from the start again after the last row, which says when the profile ends", False)

    def __post_init__(self) -> None:
        check_ranges(self, "[duty]")


class FromCsv(Duty):
    """A recorded power profile; 0 after its end unless repeated."""

    def __init__(self, config: CsvConfig, rating: Rating) -> None:
        self._time_s, self._power_w = _read_profile(Path(config.path))
        self._power_w *= config.scale
        self._repeat = config.repeat
        # the last row says when the profile ends
        self._end_s = float(self._time_s[-1])

    def request(self, time_s: float, view: PcsView) -> float:
        """Power in W."""
        at = time_s
        if self._repeat:
            first = float(self._time_s[0])
            at = first + (time_s - first) % (self._end_s - first) if time_s >= first else time_s
        if at < self._time_s[0] or at >= self._end_s:
            return 0.0
        return float(self._power_w[int(np.searchsorted(self._time_s, at, side="right")) - 1])


def _read_profile(path: Path) -> tuple[F8, F8]:
    where = f"[duty] path = '{path}'"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            for column in ("time_s", "power_w"):
                require(column in header, f"{where}: the column '{column}' is missing")
            places = header.index("time_s"), header.index("power_w")
            data: list[tuple[float, float]] = []
            for line, row in enumerate(rows, start=2):
                try:
                    pair = float(row[places[0]]), float(row[places[1]])
                except (ValueError, IndexError):
                    raise TwinError(f"{where}: line {line}: time_s and power_w must be numbers") from None
                require(all(map(math.isfinite, pair)), f"{where}: line {line}: not a finite number")
                require(not data or pair[0] > data[-1][0], f"{where}: line {line}: time_s does not rise")
                data.append(pair)
    except (OSError, UnicodeDecodeError) as error:
        raise TwinError(f"{where}: cannot be read ({error})") from None
    require(len(data) >= 2, f"{where}: at least two rows are needed")
    table = np.array(data)
    return table[:, 0].copy(), table[:, 1].copy()


@dataclass(frozen=True)
class V2gConfig:
    """`kind = "v2g"`: a car's day. Two drives with regeneration, charging at noon and at night, to the grid at dusk.

    Hours are times of day. Power in C-rates of the nominal energy; the drive is a seeded sequence of accelerations,
    cruising and braking with `drive_c` as its mean.
    """

    kind: str = key("which duty", "v2g")
    seed: int = key("of the drives", 1, low=0)
    start_hour: float = key("time of day at which the run begins", 0.0)
    drive_hours: tuple[float, ...] = key("when the drives begin", (7.5, 17.0))
    drive_h: float = key("length of a drive", 0.75, above=0)
    drive_c: float = key("mean power of a drive", 0.22, above=0)
    peak_c: float = key("peak power of the strongest acceleration, where the mean is 0.22", 2.0, above=0)
    regen_c: float = key("peak power of the strongest braking, where the mean is 0.22", 0.8, above=0)
    grid_hours: tuple[float, ...] = key("[from, to] within 0..24, to the grid", (18.5, 21.5))
    grid_c: float = key("power to the grid", 0.15, above=0)
    charge_c: float = key("power of the charges", 0.17, above=0)
    noon_hours: tuple[float, ...] = key("[from, to] within 0..24, a charge", (11.0, 14.0))
    night_hours: tuple[float, ...] = key("[from, to] within 0..24, a charge", (0.5, 6.5))
    soc_reserve: float = key("vehicle-to-grid ends here", 0.3, low=0, high=1)
    soc_target: float = key("a charge ends here; larger than soc_reserve", 0.85, low=0, high=1)

    def __post_init__(self) -> None:
        check_ranges(self, "[duty]")
        for name in ("grid_hours", "noon_hours", "night_hours"):
            span = getattr(self, name)
            require(
                len(span) == 2 and 0 <= span[0] <= span[1] <= 24, f"[duty] {name} = {list(span)}: [from, to] in hours"
            )
        require(self.soc_reserve < self.soc_target, "[duty]: soc_reserve must be less than soc_target")


class VehicleToGrid(Duty):
    """A car pack's day."""

    def __init__(self, config: V2gConfig, rating: Rating) -> None:
        self._c = config
        self._energy_w = rating.energy_wh
        self._day = -1
        self._drives: list[F8] = []

    def _new_day(self, day: int) -> None:
        self._day = day
        self._drives = [
            drive_profile(round(self._c.drive_h * HOUR_S), (self._c.seed, day, k), self._c.peak_c, self._c.regen_c)
            for k in range(len(self._c.drive_hours))
        ]

    def request(self, time_s: float, view: PcsView) -> float:
        """Power in W."""
        c = self._c
        clock_s = time_s + c.start_hour * HOUR_S
        day, second = divmod(clock_s, DAY_S)
        if int(day) != self._day:
            self._new_day(int(day))
        hour = second / HOUR_S
        for start, drive in zip(c.drive_hours, self._drives, strict=True):
            if start <= hour < start + c.drive_h:
                return float(drive[min(int(second - start * HOUR_S), len(drive) - 1)]) * c.drive_c * self._energy_w
        if c.grid_hours[0] <= hour < c.grid_hours[1]:
            return c.grid_c * self._energy_w if view.soc > c.soc_reserve else 0.0
        for span in (c.noon_hours, c.night_hours):
            if span[0] <= hour < span[1]:
                return -c.charge_c * self._energy_w if view.soc < c.soc_target else 0.0
        return 0.0


def drive_profile(seconds: int, seed: int | tuple[int, ...], peak: float, regen: float) -> F8:
    """A seeded drive of `seconds` values, mean 1, ratios `peak` and `regen` to the mean power as for C-rates of 0.22.

    Stop, accelerate, cruise and brake follow each other as in city traffic; the result is scaled to a mean of 1.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    parts: list[F8] = []
    total = 0
    while total < seconds:
        stop, up, cruise, down = (int(rng.integers(a, b)) for a, b in ((0, 25), (5, 15), (10, 90), (4, 12)))
        strength = float(rng.uniform(0.3, 1.0))
        hum = 0.08 * rng.standard_normal(cruise)
        parts += [
            np.full(stop, 0.02),
            np.linspace(0.3, 1.0, up) * strength * peak,
            np.clip(0.18 * peak * strength + hum, 0.0, None),
            -np.linspace(1.0, 0.1, down) * strength * regen,
        ]
        total += stop + up + cruise + down
    profile = np.concatenate(parts)[:seconds]
    return np.asarray(profile / max(float(profile.mean()), 0.05))


KINDS: dict[str, tuple[type[Any], Callable[[Any, Rating], Duty]]] = {
    "constant": (ConstantConfig, Constant),
    "cycle": (CycleConfig, Cycle),
    "frequency_regulation": (FrequencyConfig, FrequencyRegulation),
    "csv": (CsvConfig, FromCsv),
    "v2g": (V2gConfig, VehicleToGrid),
}


def make(table: Mapping[str, Any], rating: Rating, where: str = "[duty]") -> Duty:
    """Make the duty that `table` describes (key `kind`, default frequency regulation). Raises `TwinError`."""
    kind = table.get("kind", "frequency_regulation")
    if kind not in KINDS:
        raise TwinError(f"{where} kind = {kind!r}{hint(str(kind), KINDS)}")
    config, build = KINDS[kind]
    if "kind" not in table:
        own = {field.name for field in dataclasses.fields(config)}
        for key in table:
            others = [name for name, (other, _) in KINDS.items() if key in {f.name for f in dataclasses.fields(other)}]
            require(
                key in own or not others,
                f"{where}: the key 'kind' is missing, and '{key}' is none of {kind}, the default: give kind = "
                f"{' or '.join(map(repr, others))}",
            )
    return build(from_table(config, table, where), rating)
