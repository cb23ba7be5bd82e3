"""A rack offered as a device on a CAN bus: its measurements as the profile's messages, commands back.

The bus is paced as the medium is: so many seconds of bus time pass for each second of the clock, and a message that
finds no room waits for the next call. At most one scan goes out at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from hal.codec import can_profile
from hal.codec.bus_time import frame_s, load
from hal.codec.can_wire import CommandWire, MeasurementWire, impossible
from hal.codec.frames import Codec, Inbox, Outbox
from hal.contract import Clock, Command, Measurement, RackInfo
from hal.errors import ConfigError
from hal.links.can_link import CanLink, parse_address
from hal.registry import parse_url

DUE_S = 1e-4  # a message goes out this long before its time rather than one call later


class CanServer:
    """The rack `info` on the bus of `url`, `can:INTERFACE:CHANNEL?profile=...`; `clock` tells when a message is due.

    `bus_load` is the share of the bus that measurements and commands take, `frame_s` the bus time of each message.
    `link` counts what goes wrong on the bus, `inbox` what is wrong with frames, `refused` commands that no rack could
    follow. Raises `ConfigError` for a wrong URL and for a profile that is not of this size.
    """

    def __init__(self, url: str, info: RackInfo, clock: Clock | None = None) -> None:
        parts = parse_url(url)
        if parts.scheme != "can":
            raise ConfigError(f"'{url}': the scheme is '{parts.scheme}', not can; write can:INTERFACE:CHANNEL")
        self.address = parse_address(parts.address, parts.query)
        sizes: Mapping[str, int] = {"n_cells": info.n_cells, "n_sensors": info.n_sensors}
        for key, size in sizes.items():
            if self.address.rack.get(key, size) != size:
                raise ConfigError(f"'{url}': {key} = {self.address.rack[key]}, the rack has {size}; leave it out")
        profile = can_profile.load(
            self.address.profile, fd=self.address.fd, rack=sizes, address=info.name, serving=True
        )
        self.profile, self.info = profile, info
        self._now_s = time.monotonic if clock is None else clock.now_s
        self._sent = Codec(profile.database, profile.measurement_messages(derived=True), profile.protection)
        self._received = Codec(profile.database, profile.command_messages(), profile.protection)
        self.inbox, self._outbox = Inbox(self._received), Outbox(self._sent)
        self._measurement = MeasurementWire(profile, self._sent, derived=True)
        self._commands = CommandWire(profile, self._received)
        self.refused = 0
        self._taken = Command(info.n_cells, info.n_sensors)
        bitrate = self.address.bitrate or profile.bitrate
        data_bitrate = self.address.data_bitrate or profile.data_bitrate
        fast = data_bitrate if profile.fd else None
        self._rows = np.array(self._measurement.sendable)
        rows = [self._sent.rows[r] for r in self._rows]
        self.frame_s = np.array([frame_s(row.message, bitrate, fast) for row in rows])
        self._cycle_s = np.array([row.cycle_s for row in rows])
        # pages come one after the other, each at its place in the round
        self._first_s = self._cycle_s.copy()
        pages: dict[int, int] = {}
        for k, row in enumerate(rows):
            if row.page is not None:
                pages[row.message.key] = pages.get(row.message.key, 0) + 1
                self._first_s[k] = pages[row.message.key] * row.message.cycle_s
        bus_load = load(rows, bitrate, fast) + load(
            (self._received.rows[r] for r in self._commands.sendable), bitrate, fast
        )
        self._commit = next(
            r for r, row in enumerate(self._received.rows) if row.page is None and row.message.name == profile.commit
        )
        if bus_load > 1.0:
            raise ConfigError(
                f"'{url}': the messages of {info.n_cells} cells need {bus_load:.0%} of a bus of {bitrate} bit/s; "
                "raise bitrate, or use fd=1"
            )
        self.bus_load = bus_load
        self._counts_beats = "heartbeat" not in profile.command
        self._beats = 0
        self._due_s = np.full(len(rows), -np.inf)
        self._credit_s = float(self.frame_s.sum())
        self._last_s = 0.0
        told = {**asdict(info), "layout": profile.layout}
        for key, name in profile.identity.items():
            self._sent.value[self._sent.place(name)] = told[key]
        self.link = CanLink(
            self.address, self.inbox, self._now_s, bitrate=bitrate, data_bitrate=data_bitrate, expects_peer=False
        )

    def start(self) -> None:
        """Open the bus. Raises `ConfigError` or `LinkError`."""
        self.link.open()
        self._last_s = self._now_s()
        self._due_s[:] = -np.inf
        self._credit_s = float(self.frame_s.sum())

    def publish(self, measurement: Measurement) -> None:
        """Send the messages that are due, as far as the medium could carry them since the last call; never waits long.

        Call it several times in a cycle; a message that is late keeps its place in the cycle.
        """
        now_s = self._now_s()
        self._credit_s = min(self._credit_s + now_s - self._last_s, float(self.frame_s.sum()))
        self._last_s = now_s
        due = np.flatnonzero(self._due_s <= now_s + DUE_S)
        due = due[np.argsort(self._due_s[due], kind="stable")]
        fits = int(np.searchsorted(np.cumsum(self.frame_s[due]), self._credit_s + 1e-12, side="right"))
        due = due[:fits]
        if len(due) == 0:
            return
        self._credit_s -= float(self.frame_s[due].sum())
        after = self._due_s[due] + self._cycle_s[due]
        self._due_s[due] = np.where(after > now_s, after, now_s + self._first_s[due])
        self._measurement.load(measurement)
        self._sent.encode()
        self.link.send(self._outbox.frames(self._rows[due].tolist()))

    def take(self, out: Command) -> bool:
        """The newest command since the last call, if its last frame came and is good: fills `out`, returns whether.

        Frames with a wrong CRC, counter or length are as good as never sent. What a command repeats is taken from the
        newest good frame; limits and masks that are not repeated become 0. Where commands have no heart-beat, each of
        them is one.
        """
        commit = self._commit
        with self.link.lock:
            arrived_s = self.inbox.arrived_s.copy()
            committed_s = float(arrived_s[commit])
            if not np.isfinite(arrived_s[self._commands.sendable]).all() or not self.inbox.fresh[commit]:
                return False
            self.inbox.fresh[commit] = False
            self.inbox.snapshot()
        self._received.decode()
        self._commands.store(self._taken, arrived_s, committed_s)
        if impossible(self._taken, self.info.capabilities):
            self.refused += 1
            return False
        if self._counts_beats:
            self._beats += 1
            self._taken.head["heartbeat"] = self._beats
        out.copy_from(self._taken)
        return True

    def stop(self) -> None:
        """Close the bus."""
        self.link.close()
