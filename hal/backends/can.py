"""A rack on a CAN bus: `can:INTERFACE:CHANNEL?profile=reference&bitrate=500000&...`.

INTERFACE is one of python-can's. Frames are received in the background; `read` takes the newest values of all signals,
each with its age and quality, and never waits. A lost bus makes values stale and is opened again. See `docs/can.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from hal.codec import can_profile
from hal.codec.can_wire import LIMITS, CommandWire, MeasurementWire, impossible
from hal.codec.frames import Codec, Inbox, Outbox
from hal.codec.jit import CAN
from hal.contract import Clock, Command, Contactor, Measurement, RackInfo
from hal.errors import ConfigError, LinkError
from hal.links.can_link import CanLink, parse_address

CLOSING_FRAMES = 3  # the command to open is repeated: it is the last one
SEQUENCE_MASK = 0xFFFFFFFF
PATIENCE_S, ROUNDS = 5.0, 2.0  # how long to wait for all messages: so many seconds, and rounds of the slowest
SIZES = ("n_cells", "n_sensors")


class OtherSizeError(ConfigError):
    """The rack says that it has other `sizes` (keys of the table [rack]) than the profile."""

    def __init__(self, text: str, sizes: Mapping[str, int]) -> None:
        super().__init__(text)
        self.sizes = sizes


class CanRack:
    """A rack behind a CAN profile (`hal.contract.Rack`). `link` and `inbox` count what goes wrong on the bus.

    A rack that speaks the reference profile may have another size than the shipped DBC: where the URL gives none, it is
    taken over from the rack when it is opened first.
    """

    programs = (CAN,)
    """Native programs that this rack runs; whoever opens it may prepare them before."""

    live = True
    """The other side does not wait: real time passes."""

    def __init__(
        self,
        address: str,
        *,
        query: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the profile; nothing is opened yet. Raises `ConfigError` for what is unknown in `query` or `options`."""
        self.address = parse_address(address, query or {})
        for name in (table for table, content in (options or {}).items() if content):
            raise ConfigError(f"rack URL '{self.address.url}': a rack on a bus has no table [{name}]; take it out")
        self._now_s: Callable[[], float] = time.monotonic if clock is None else clock.now_s
        self._adapts = self.address.profile == can_profile.REFERENCE and not {*SIZES} & {*self.address.rack}
        self._open = False
        self._number: int | None = None
        self._accepted = -1
        self._prepare({})

    def _prepare(self, sizes: Mapping[str, int]) -> None:
        """Make all that depends on the size of the rack."""
        address, rack = self.address, {**self.address.rack, **sizes}
        profile = can_profile.load(address.profile, fd=address.fd, rack=rack, address=address.url)
        self.profile = profile
        self._info = profile.info
        protection = profile.protection
        self._received = Codec(profile.database, profile.measurement_messages(), protection)
        self._sent = Codec(profile.database, profile.command_messages(), protection)
        self.inbox = Inbox(self._received)
        self._outbox = Outbox(self._sent)
        self._measurement = MeasurementWire(profile, self._received)
        self._commands = CommandWire(profile, self._sent)
        self._last = Command(self._info.n_cells, self._info.n_sensors)
        self._last.head["cooling_degc"] = 25.0
        self.link = CanLink(
            self.address,
            self.inbox,
            self._now_s,
            bitrate=self.address.bitrate or profile.bitrate,
            data_bitrate=self.address.data_bitrate or profile.data_bitrate,
            expects_peer=True,
        )

    @property
    def info(self) -> RackInfo:
        """Description of the rack, from the profile and the rack's own frames; valid after `open`."""
        return self._info

    def open(self) -> None:
        """Open the bus and wait for every message once. Raises `ConfigError`, or `LinkError` after `timeout_s`."""
        if self._open:
            return
        try:
            self._reach()
        except OtherSizeError as other:
            if not self._adapts:
                raise
            self._prepare(other.sizes)
            self._reach()
        self._adapts = False
        self._open = True

    def _reach(self) -> None:
        with self.link.lock:
            self.inbox.arrived_s[:] = -np.inf
        self.link.open()
        try:
            self._wait_for_all()
        except BaseException:
            self.link.close()
            raise

    def _wait_for_all(self) -> None:
        inbox, patience_s = self.inbox, self._patience_s()
        until_s = time.monotonic() + patience_s
        messages = [row.message for row in self._received.rows]
        identity = {self._received.place(name): key for key, name in self.profile.identity.items()}
        telling = {
            r for r, row in enumerate(self._received.rows) for k in identity if 0 <= k - row.first < len(row.signals)
        }
        needed, before = self._measurement.sendable, self.link.counters.received
        with self.link.lock:
            while True:
                came_here = np.isfinite(inbox.arrived_s)
                here = came_here[needed]
                if telling and came_here[list(telling)].all():
                    self._identify()
                    telling = set()
                if here.all():
                    return
                rest_s = until_s - time.monotonic()
                if rest_s <= 0:
                    break
                self.link.heard.wait(rest_s)
            received = self.link.counters.received - before
        first = messages[needed[int(np.argmin(here))]]
        came = f"{int(here.sum())} of {len(here)} messages came"
        if not received:
            came = "no frame came"
        elif not here.any():
            came = f"{received} frames came, and none of them was good"
        raise LinkError(
            f"{self.address.url}: {came} in {patience_s:g} s, not {first.name} ({first.identifier:#x}); is "
            f"the rack on, does it speak '{self.address.profile}', is the bit rate right?"
        )

    def _patience_s(self) -> float:
        """How long to wait for all messages and pages once."""
        slowest_s = max(self._received.rows[r].cycle_s for r in self._measurement.sendable)
        return self.address.timeout_s or max(PATIENCE_S, ROUNDS * slowest_s)

    def _identify(self) -> None:
        """Compare what the rack says of itself with the profile. Raises `ConfigError`."""
        self.inbox.snapshot()
        self._received.decode()
        told = {key: float(self._received.value[self._received.place(n)]) for key, n in self.profile.identity.items()}
        if (layout := told.get("layout", self.profile.layout)) != self.profile.layout:
            raise ConfigError(
                f"{self.address.url}: the rack speaks layout {layout:g} of '{self.address.profile}', this is layout "
                f"{self.profile.layout}; use the profile that came with the rack"
            )
        info = self._info
        sizes = {key: int(told.get(key, getattr(info, key))) for key in SIZES}
        if any(size != getattr(info, key) for key, size in sizes.items()):
            query = "&".join(f"{key}={size}" for key, size in sizes.items())
            raise OtherSizeError(
                f"{self.address.url}: the profile has {info.n_cells} cells and {info.n_sensors} sensors, the rack says "
                f"{query}; put that into the URL",
                sizes,
            )
        fixed = self.address.rack
        if "n_parallel" in told and "n_parallel" not in fixed:
            info = replace(info, n_parallel=int(told["n_parallel"]))
        if "capacity_ah" in told and "capacity_ah" not in fixed:
            info = replace(info, capacity_ah=told["capacity_ah"])
        self._info = info

    def read(self, out: Measurement) -> None:
        """Fill `out` with what has arrived, without waiting. Raises `LinkError` when not open."""
        self._need_open()
        if out.n_cells != self._info.n_cells or out.n_sensors != self._info.n_sensors:
            raise ValueError(
                f"measurement for {out.n_cells} cells and {out.n_sensors} sensors, "
                f"the rack has {self._info.n_cells} and {self._info.n_sensors}"
            )
        with self.link.lock:
            self.inbox.snapshot()
            arrived_s, accepted = self.inbox.arrived_s.copy(), self.inbox.counts[0]
            now_s = self._now_s()
        self._received.decode()
        self._measurement.fill(arrived_s, now_s)
        record = self._measurement.record
        if accepted != self._accepted:
            self._accepted = accepted
            record.head["time_s"] = max(float(arrived_s.max()), float(record.head["time_s"][0]))
            record.head["sequence"] = self._next(int(record.head["sequence"][0]))
        out.copy_from(record)

    def _next(self, sequence: int) -> int:
        """The number of this sample: it goes on by what the rack's number did, or by one where the rack has none."""
        told = self._measurement.sample_number()
        if told is None:
            return (sequence + 1) & SEQUENCE_MASK
        number, values = told
        step = 1 if self._number is None else (number - self._number) % values
        self._number = number
        return (sequence + (step if step < values // 2 else 1)) & SEQUENCE_MASK

    def write(self, command: Command) -> None:
        """Send the command. Raises `ValueError` for one that no rack could follow, `LinkError` when not open."""
        self._need_open()
        if command.n_cells != self._info.n_cells:
            raise ValueError(f"balancing mask for {command.n_cells} cells, the rack has {self._info.n_cells}")
        if wrong := impossible(command, self._info.capabilities):
            raise ValueError(wrong)
        self._commands.load(command)
        self._last.copy_from(command)
        self._send()

    def _send(self) -> None:
        self._sent.encode()
        self.link.send(self._outbox.frames(self._commands.sendable))

    def close(self) -> None:
        """Send the command that opens the contactors, and close the bus."""
        if not self._open:
            return
        self._open = False
        last = self._last
        last.head["contactors"] = Contactor.NONE
        last.balance[:] = 0
        for name in LIMITS:
            last.head[name] = 0.0
        for _ in range(CLOSING_FRAMES):
            last.head["heartbeat"] += 1
            self._commands.load(last)
            self._send()
        self.link.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _need_open(self) -> None:
        if not self._open:
            raise LinkError(f"{self.address.url} is not open")
