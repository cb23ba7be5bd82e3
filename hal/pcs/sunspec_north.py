"""A rack under its controller as a SunSpec device: `SunSpecNorth("modbus:tcp://127.0.0.1:5020", info, clock, ratings)`.

The server, its wires, caps, TLS and roles are those of `hal.serve.modbus`, with the same options but `profile`; and

| option | |
| --- | --- |
| `silent` | longest time in s for which `CtrlHb` may stand still while the rack is to be connected, 10 |
| `access` | `control`, or `read`: no register can be written, and nothing is asked of the controller |

Registers are those of `hal/profiles/sunspec/north.toml`.
"""

from __future__ import annotations

import math
import time
import tomllib
from collections.abc import Callable

from hal.codec.modbus import Refusal, Refused
from hal.codec.modbus_url import parse
from hal.codec.register_map import RegisterMap
from hal.codec.register_profile import Profile
from hal.codec.register_profile import parse as parse_profile
from hal.codec.register_tables import completed
from hal.contract import Clock, Command, Measurement, RackInfo
from hal.errors import ConfigError
from hal.pcs import Ask, Ratings, events
from hal.pcs.energy_manager import VALUES, EnergyManager
from hal.pcs.told import known, ratings_told, state_of, tell
from hal.registry import parse_url
from hal.serve.modbus import WIRE_OPTIONS, address_of, control_s, hold_s, wire_at
from hal.serve.sessions import InControl, Walk

SILENT_S = 10.0
ACCESS = ("control", "read")
BATTERY = 802
LARGEST_INT, LARGEST_UINT = 0x7FFF, 0xFFFE


def north_profile(ratings: Ratings) -> Profile:
    """The map of a served rack with the changes of north.toml, and scale factors that fit the ratings."""
    text = events.FOLDER.joinpath("north.toml").read_text(encoding="utf-8")
    table = completed(tomllib.loads(text), events.FOLDER, "north.toml")
    battery = next(entry for entry in table["model"] if entry["id"] == BATTERY)["points"]
    rated_w = max(ratings.charge_w, ratings.discharge_w)
    for name, largest, room in (
        ("W_SF", 1.25 * rated_w, LARGEST_INT),  # what flows may be more than is rated
        ("WChaDisChaMax_SF", rated_w, LARGEST_UINT),
        ("WHRtg_SF", ratings.energy_wh, LARGEST_UINT),
    ):
        battery[name] = {"value": _exponent(largest, room, battery[name]["value"])}
    return parse_profile(table, events.FOLDER, "north.toml")


def _exponent(largest: float, room: int, otherwise: int) -> int:
    """The least power of ten (0 or more) that `largest` has room with."""
    if not math.isfinite(largest):
        return otherwise
    return max(0, math.ceil(math.log10(max(largest, 1.0) / room)))


class NorthRegisters(InControl):
    """Registers that a controller fills and an energy manager writes its orders to. Thread-safe."""

    def __init__(
        self,
        registers: RegisterMap,
        clock: Clock,
        manager: EnergyManager,
        ratings: Ratings,
        *,
        writable: bool,
        hold_s: float,
        control_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hold_s` is time of the computer, `control_s` time of `clock`."""
        super().__init__(registers, clock, control_s=control_s)
        self.manager, self.hold_s, self.monotonic = manager, hold_s, monotonic
        self._ratings, self._events = ratings, events.load()
        self.orders = _orders(registers) if writable else {}
        """Address -> order."""
        self.now = registers.encode()

    def publish(self, measurement: Measurement, command: Command, now_s: float, *, local: bool) -> None:
        """Make a step what the next walks show."""
        source = self.map.source
        with self._lock:  # an order that comes meanwhile is shown until it is done
            known(measurement, source.measurement)
            source.command.copy_from(command)
            source.commanded = bool(command.head["heartbeat"][0])  # before the first step nothing is estimated
            source.count = (source.count + 1) & 0xFFFFFFFF
            self.manager.saw(state_of(command))
            source.told = tell(self._events, self._ratings, self.manager, measurement, command, now_s, local=local)
            self.now = self.map.encode()

    def session(self) -> NorthSession:
        """What a new connection sees."""
        return NorthSession(self)

    def write(self, start: int, values: bytes) -> None:
        """Give orders, which the registers show at once. Raises `Refusal`: impossible, or not followed now."""
        words = [int.from_bytes(values[k : k + 2], "big") for k in range(0, len(values), 2)]
        with self._lock:
            if not self.manager.give((self.orders[start + k], word) for k, word in enumerate(words)):
                raise Refusal(Refused.ILLEGAL_VALUE)
            self._commanded_s = self.clock.now_s()
            self.now = _patched(self.now, 2 * (start - self.map.base), values)


def _orders(registers: RegisterMap) -> dict[int, str]:
    """The address of every register that takes an order."""
    found: dict[int, str] = {}
    for slot in registers.slots:
        order = slot.spec.channel.removeprefix("told.")
        one = registers.profile.find(slot.model)
        if order in VALUES and slot.point.writable and one is not None and one.writable:
            found |= {int(address): order for address in slot.words().reshape(-1)}
    return found


def _patched(registers: bytes, at: int, values: bytes) -> bytes:
    return registers[:at] + values + registers[at + len(values) :]


class NorthSession:
    """What one connection sees: `hal.serve.sessions.Session`."""

    def __init__(self, served: NorthRegisters) -> None:
        self._served = served
        self._walk = Walk(served.map.base, served.map.size, hold_s=served.hold_s, monotonic=served.monotonic)

    def read(self, start: int, count: int) -> bytes:
        """Registers of this session's walk. Raises `Refusal`."""
        return self._walk.read(start, count, lambda: self._served.now)

    def write(self, start: int, values: bytes) -> None:
        """Give orders, all of them or none. Raises `Refusal`."""
        served = self._served
        if not all(address in served.orders for address in range(start, start + len(values) // 2)):
            raise Refusal(Refused.ILLEGAL_ADDRESS)
        served.claim(self)
        served.write(start, values)
        if self._walk.registers:
            self._walk.registers = _patched(self._walk.registers, 2 * (start - served.map.base), values)

    def close(self) -> None:
        """The connection has ended: control is given up. What was ordered holds until the heart-beat is missed."""
        self._served.release(self)


class SunSpecNorth:
    """`hal.pcs.North` on Modbus."""

    def __init__(self, url: str, info: RackInfo, clock: Clock, ratings: Ratings) -> None:
        """Prepare to show the rack `info` at `url`. Raises `ConfigError` for anything unknown in it."""
        parts = parse_url(url)
        place = parse(parts.address, parts.query, url)
        place.check((*WIRE_OPTIONS[place.wire], "silent", "access"))
        access = place.query.get("access", "control")
        if access not in ACCESS:
            raise ConfigError(f"{url}: access = {access}: expected control, or read for a side that only looks")
        self.steers = access == "control"
        self.manager = EnergyManager(place.number("silent", SILENT_S, 1.0, 3600.0))
        profile = north_profile(ratings)
        per_module = place.whole("cells_per_module", profile.cells_per_module, 1, 1000)
        registers = RegisterMap(profile, info, cells_per_module=per_module)
        registers.source.told = {**ratings_told(ratings), **self.manager.shown()}
        self.registers = NorthRegisters(
            registers,
            clock,
            self.manager,
            ratings,
            writable=self.steers,
            hold_s=hold_s(place),
            control_s=control_s(place),
        )
        self.wire = wire_at(place, self.registers)

    @property
    def address(self) -> str:
        """Where it can be reached."""
        return f"modbus:{address_of(self.wire)}"

    @property
    def silences(self) -> int:
        """How often the energy manager has fallen silent while the rack was to be connected."""
        return self.manager.silences

    def start(self) -> None:
        """Begin to serve. Raises `LinkError`."""
        self.wire.start()

    def ask(self, now_s: float) -> Ask:
        """What the energy manager wants; a side that only looks wants nothing else than the rack does."""
        return self.manager.step(now_s) if self.steers else Ask.CONNECT

    def publish(self, measurement: Measurement, command: Command, now_s: float, *, local: bool) -> None:
        """Show a step."""
        self.registers.publish(measurement, command, now_s, local=local)

    def stop(self) -> None:
        """Let go of the wire."""
        self.wire.stop()
