"""A rack on Modbus: `modbus:tcp://HOST:PORT?unit=1`, `modbus:tls://HOST:PORT?ca=...` or `modbus:rtu://DEVICE?baud=N`.

What lies where is found out by SunSpec discovery, with a profile that says what carries what (`docs/modbus.md`). A
thread of its own polls: `read` copies the newest coherent snapshot, `write` leaves the newest command for the thread:
neither waits for the wire. What the device does not tell is MISSING, what is older than `stale` seconds is STALE.

| option | |
| --- | --- |
| `unit` | unit of the device, 1 |
| `profile` | name or .toml file, `sunspec` |
| `poll` | seconds between two looks at the device, 0.05 |
| `timeout` | seconds that an answer may take, 1 |
| `stale` | seconds after which values are marked as stale, and queued commands dropped, 2 |
| `baud`, `parity`, `stop` | serial line: 19200, N, 1 |
| `ca`, `cert`, `key`, `name` | TLS: who signs the server, our certificate and key, the server's name in its own |
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from hal.backends.simulated import MonotonicClock
from hal.codec.modbus_url import parse
from hal.codec.register_map import chain, sizes_of
from hal.codec.register_profile import Profile, load
from hal.codec.register_reader import Image, Reader
from hal.codec.sunspec import END, MARK, Placed, place
from hal.contract import MEASUREMENT, Clock, Command, Contactor, Measurement, Quality, RackInfo, RackState
from hal.errors import ConfigError, LinkError
from hal.links.modbus_link import TLS_OPTIONS, Down, Link, RefusedError

log = logging.getLogger(__name__)

BACK_OFF_S = 0.1, 5.0
"""First and longest wait before another attempt to connect."""

TRIES = 3
"""Attempts to read all registers of one control step, before the next look."""

LONGEST_CHAIN = 1000
"""Models that a device may have."""

CLOSING_S = 3.0
"""How long `close` waits for the last command to arrive, beyond the time-outs of the wire."""

_COMMON = ("unit", "profile", "poll", "timeout", "stale")
_OPTIONS = {
    "tcp": _COMMON,
    "tls": (*_COMMON, *TLS_OPTIONS),
    "rtu": (*_COMMON, "baud", "parity", "stop"),
}
_LIMITS = ("limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w")


@dataclass
class LinkReport:
    """What has happened on the wire since the rack was made."""

    connected: bool = False
    polls: int = 0
    snapshots: int = 0
    torn: int = 0  # walks given up because the device had gone on to another control step
    lost: int = 0  # connections that broke, or answers that did not come
    refused: int = 0  # requests that the device answered with an exception
    commands: int = 0  # commands that took effect
    dropped: int = 0  # commands too old when the wire was there again
    step: float = -1.0  # what the device's step counter says in the newest snapshot


class ModbusRack:
    """`hal.contract.Rack` over Modbus. `report` counts what happens, `troubles` names what is wrong with the device."""

    live = True
    """Real time passes for it, whatever the loop does."""

    def __init__(
        self,
        address: str,
        *,
        query: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare for the device at `address`. Raises `ConfigError` for anything unknown in `query` or `options`."""
        self._text = f"modbus:{address}"
        for table, content in (options or {}).items():
            if content:
                raise ConfigError(f"rack URL '{self._text}': a device on a wire has no table [{table}]: leave it out")
        self.place = where = parse(address, query or {}, f"rack URL '{self._text}'")
        where.check(_OPTIONS[where.wire])
        self._clock: Clock = clock if clock is not None else MonotonicClock()
        self._profile = load(where.query.get("profile", "sunspec"))
        self._poll_s = where.number("poll", 0.05, 0.0, 3600.0)
        self._stale_s = where.number("stale", 2.0, 0.0, 3600.0)
        timeout_s = where.number("timeout", 1.0, 0.01, 60.0)
        self._link = Link(where, where.whole("unit", 1, 1, 247), timeout_s)
        self._closing_s = CLOSING_S + 4 * timeout_s
        self.report = LinkReport()
        self.troubles: list[str] = []
        """What the device lacks or refuses, each named once."""
        self._reader: Reader | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Condition()
        self._ending = False

    # --- the loop's side ------------------------------------------------------------------------------------------

    @property
    def info(self) -> RackInfo:
        """Description of the rack; valid after `open`."""
        return self._known().info

    def _known(self) -> Reader:
        if self._reader is None:
            raise RuntimeError("the rack is not open")
        return self._reader

    def open(self) -> None:
        """Connect, find the models, read a first snapshot, begin to poll. Raises `LinkError` or `ConfigError`."""
        if self._thread is not None:
            return
        self._image = Image()
        try:
            self._connect()
            info = self._known().info
            self._last = Measurement(info.n_cells, info.n_sensors)
            self._snapshot = Measurement(info.n_cells, info.n_sensors)
            self._received_s = self._clock.now_s()
            self._step, self._shift_s, self._sample = -1.0, 0.0, -1
            if not self._look():
                raise Down("its values never stand still long enough to be read in one control step")
        except (Down, RefusedError) as error:
            self._link.close()
            raise LinkError(f"{self.place.text}: {error}; {self._remedy(error)}") from None
        self._queued: Command | None = None
        self._queued_s = 0.0
        self._said: Command | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._work, name=self._text, daemon=True)
        self._thread.start()

    def _remedy(self, error: Exception) -> str:
        if isinstance(error, RefusedError):
            return "is it the right device, unit and profile?"
        if self.place.wire == "rtu":
            return "is the device on, and are port, baud rate, parity and unit right?"
        return "is the device on, and are host, port and unit right?"

    def read(self, out: Measurement) -> None:
        """Copy the newest snapshot; ages grow until there is another."""
        self._need_open()
        info = self._known().info
        if out.n_cells != info.n_cells or out.n_sensors != info.n_sensors:
            raise ValueError(
                f"measurement for {out.n_cells} cells and {out.n_sensors} sensors, "
                f"the rack has {info.n_cells} and {info.n_sensors}"
            )
        with self._wake:
            out.copy_from(self._snapshot)
            late_s = max(self._clock.now_s() - self._received_s, 0.0)
        if late_s > 0.0:
            _grow_old(out, late_s, late_s > self._stale_s)

    def write(self, command: Command) -> None:
        """Leave `command` for the wire; an older one that is still waiting is forgotten."""
        self._need_open()
        info = self._known().info
        if command.n_cells != info.n_cells:
            raise ValueError(f"balancing mask for {command.n_cells} cells, the rack has {info.n_cells}")
        _check(command)
        kept = command.blank()
        kept.copy_from(command)
        with self._wake:
            self._queued, self._queued_s = kept, self._clock.now_s()
            self._said = kept
            self._wake.notify()

    def close(self) -> None:
        """Ask for open contactors, if anything was asked for before, and let go of the device."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._wake:
            if self._said is not None:
                self._queued, self._queued_s = _release(self._said), self._clock.now_s()
            self._ending = True
            self._wake.notify()
        thread.join(self._closing_s)
        self._link.close()
        self.report.connected = False

    def _need_open(self) -> None:
        if self._thread is None:
            raise LinkError(f"{self._text} is not open")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the wire's side ------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Reach the device and find out what it is. Raises `Down`, `RefusedError` or `LinkError`."""
        self._link.connect()
        image = Image()
        try:
            reader = Reader(self._profile, discover(self._link, self._profile, image), image, self._text)
        except ValueError as error:
            raise LinkError(
                f"{self.place.text}: not a rack that can be used: {error}; give a profile that fits (?profile=FILE)"
            ) from None
        known = self._reader
        if known is not None and (known.info.n_cells, known.info.n_sensors) != (
            reader.info.n_cells,
            reader.info.n_sensors,
        ):
            raise Down(f"another device answers: it has {reader.info.n_cells} cells, not {known.info.n_cells}")
        self._reader, self._image = reader, image
        self.report.connected = True
        if reader.missing:
            self._trouble(f"the device does not tell {', '.join(reader.missing)}: these are MISSING")
        if not reader.writable:
            self._trouble("the device has no model for commands: it can be read, not controlled")

    def _trouble(self, text: str) -> None:
        if text not in self.troubles:
            self.troubles.append(text)
            log.warning("%s: %s", self._text, text)

    def _work(self) -> None:
        next_look_s = time.monotonic() + self._poll_s
        wait_s = BACK_OFF_S[0]
        while True:
            with self._wake:
                while not (self._ending or (self._queued is not None and self.report.connected)):
                    rest_s = next_look_s - time.monotonic()
                    if rest_s <= 0.0:
                        break
                    self._wake.wait(rest_s)
                command, queued_s, ending = self._queued, self._queued_s, self._ending
                self._queued = None
            try:
                if not self.report.connected and not (ending and command is None):
                    self._connect()
                    wait_s = BACK_OFF_S[0]
                if command is not None:
                    self._send(command, queued_s)
                if ending:
                    return
                if time.monotonic() >= next_look_s:
                    self._look()
                    next_look_s = time.monotonic() + self._poll_s
            except (Down, LinkError) as error:
                self._link.close()
                self.report.connected = False
                self.report.lost += 1
                self._trouble(f"connection lost: {error}")
                if ending:
                    return
                next_look_s = time.monotonic() + wait_s
                wait_s = min(2.0 * wait_s, BACK_OFF_S[1])
            except RefusedError as error:
                self.report.refused += 1
                self._trouble(str(error))
                if ending:
                    return
                next_look_s = time.monotonic() + max(self._poll_s, BACK_OFF_S[0])

    def _send(self, command: Command, queued_s: float) -> None:
        """Pass a command on. A refusal is named and ends there; the next command is tried again."""
        if self._clock.now_s() - queued_s > self._stale_s:
            self.report.dropped += 1
            return
        try:
            for start, values in self._known().writes(command):
                self._link.write(start, values)
            self.report.commands += 1
        except RefusedError as error:
            self.report.refused += 1
            self._trouble(f"command rejected: {error}")

    def _look(self) -> bool:
        """Take a snapshot over, if the device has a new one. Returns whether the one that there is is coherent."""
        reader = self._known()
        self.report.polls += 1
        probe = reader.probe
        if probe is not None:
            self._image.put(probe.start, self._link.read(probe.start, probe.count))
            told, _ = reader.steps(self._image)
            if told == self._step:
                return True
        for _ in range(TRIES):
            if self._walk(reader):
                return True
        self.report.torn += 1
        return False

    def _walk(self, reader: Reader) -> bool:
        """Read everything once; False where the device went on meanwhile."""
        for block in reader.blocks:
            try:
                self._image.put(block.start, self._link.read(block.start, block.count))
            except RefusedError as error:
                self.report.refused += 1
                self._image.forget(block.start, block.count)
                self._trouble(f"{error}: what lies there is MISSING")
        first, last = reader.steps(self._image)
        probe = reader.probe
        if np.isnan(last) and not np.isnan(first) and probe is not None:
            self._image.put(probe.start, self._link.read(probe.start, probe.count))
            last, _ = reader.steps(self._image)
        if first != last and not (np.isnan(first) and np.isnan(last)):
            return False
        reader.decode(self._image, self._last)
        self._publish(first)
        return True

    def _publish(self, step: float) -> None:
        """Make what was decoded the newest snapshot, with a time and a number that never go back."""
        reader, head = self._known(), self._last.head
        now_s = self._clock.now_s()
        told = {slot.spec.channel for slot in reader.measured}
        device_s = float(head["time_s"][0]) if "time_s" in told else now_s
        sample = int(head["sequence"][0]) if "sequence" in told else self._sample + 1
        with self._wake:
            before = self._snapshot.head
            if device_s + self._shift_s < before["time_s"][0]:
                self._shift_s = float(before["time_s"][0]) - device_s  # the device has started anew
            head["time_s"] = device_s + self._shift_s
            head["sequence"] = before["sequence"][0] + (sample != self._sample)
            self._sample, self._step = sample, step
            self.report.step = step
            self._snapshot.copy_from(self._last)
            self._received_s = now_s
            self.report.snapshots += 1


def discover(link: Link, profile: Profile, image: Image) -> list[Placed]:
    """The models of the device that the profile knows, with what their registers hold now put into `image`.

    Plain registers are where the profile says. Raises `Down`, `RefusedError`, or `ValueError`: not a SunSpec device, or
    a chain that cannot be followed.
    """
    if profile.rack is not None:
        return chain(profile, sizes_of(profile.rack, profile.cells_per_module), 0, profile.rack.capabilities)
    base = None
    for address in profile.base:
        try:
            words = link.read(address, 2)
        except RefusedError:
            continue
        if b"".join(word.to_bytes(2, "big") for word in words) == MARK:
            base = address
            break
    if base is None:
        raise ValueError(f"no SunSpec mark at {', '.join(map(str, profile.base))}")
    found: list[Placed] = []
    at = base + 2
    for _ in range(LONGEST_CHAIN):
        model_id = link.read(at, 1)[0]
        if model_id == END:
            return found
        length = link.read(at + 1, 1)[0]
        end = at + 2 + length
        if length == 0 or end > 65535:
            raise ValueError(f"model {model_id} at {at} has the length {length}: the chain of models is broken")
        one = profile.find(model_id)
        if one is not None:
            for start in range(at, end, 125):
                count = min(125, end - start)
                try:
                    image.put(start, link.read(start, count))
                except RefusedError:
                    image.forget(start, count)
            points = one.model.fixed.points
            values = {name: int(image.words[at + p.offset]) for name, p in points.items() if p.size == 1}
            try:
                found.append(place(one.model, at, length, values))
            except ValueError as error:
                raise ValueError(f"model {model_id} at {at}: {error}") from None
        at = end
    raise ValueError(f"more than {LONGEST_CHAIN} models: the chain never ends")


def _grow_old(out: Measurement, late_s: float, stale: bool) -> None:
    for field in MEASUREMENT.fields:
        values = out.raw[field.name] if field.dims else out.head[field.name]
        if field.name.endswith("_age_s"):
            values += np.float32(late_s)
        elif stale and field.name.endswith("_quality"):
            values |= np.uint8(Quality.STALE)


def _check(command: Command) -> None:
    """Raises `ValueError` for what no rack could follow."""
    head = command.head
    if int(head["contactors"][0]) & ~int(Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE):
        raise ValueError(f"contactors = {int(head['contactors'][0]):#x}: bits that no contactor has")
    if not np.isfinite(head["cooling_degc"][0]):
        raise ValueError(f"cooling_degc = {float(head['cooling_degc'][0])}: no coolant has this temperature")
    for name in _LIMITS:
        if not head[name][0] >= 0:
            raise ValueError(f"{name} = {float(head[name][0])}: a published limit is a number >= 0")
    for name, most in (("balance", 1), ("shuttle", 2)):
        values = getattr(command, name)
        if values.size and values.max() > most:
            raise ValueError(f"{name} = {int(values.max())}: the codes are 0..{most}")


def _release(said: Command) -> Command:
    """The command that opens everything, after `said`."""
    command = said.blank()
    head = command.head
    head["heartbeat"] = (int(said.head["heartbeat"][0]) + 1) & 0xFFFFFFFF
    for name in ("time_s", "cooling_degc", "soc_min", "soc_mean", "soc_max", "cause", "cause_index", "severity"):
        head[name] = said.head[name]
    head["state"] = RackState.STANDBY
    return command
