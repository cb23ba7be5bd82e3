"""A CAN bus through python-can: opened, read in the background, watched, and opened again when it was lost.

python-can tells little of a bus that has gone: its socketcand interface returns nothing for ever once its server has
died, and spins. Here every interface is watched for what it does tell (exceptions, error frames, bus-off), and
socketcand for a server that has gone or fallen silent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hal.codec.dbc import EXTENDED
from hal.codec.frames import Inbox
from hal.errors import ConfigError, LinkError, RackBmsError, nearest

log = logging.getLogger(__name__)

TURN_S = 0.1  # the reader looks around so often, also when nothing comes
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0  # between two attempts to open a lost bus
SILENCE_S = 3.0  # a socketcand server that says nothing for so long is taken for dead
GREETING_S = 2.0  # for a socketcand server to say that it is one; python-can would wait for ever
SEND_S = 0.05  # longest wait for room in the queue of an adapter
BUS_OFF = 0x40  # of an error frame's identifier, as Linux has it (linux/can/error.h)
INSTANT_S = 1e-3
DEAD_AFTER = 50  # empty answers at once, one after the other, of a socket that should have waited

RACK_KEYS: dict[str, type] = {"cell": str, "n_cells": int, "n_sensors": int, "n_parallel": int, "capacity_ah": float}
KEYS = ("profile", "bitrate", "data_bitrate", "fd", "timeout_s", "host", "port", *RACK_KEYS)
BUS_PREFIX = "bus."


@dataclass(frozen=True)
class CanAddress:
    """A `can:` URL in its parts. `options` go to python-can as they are, `rack` changes the profile's table [rack].

    `timeout_s` is None where the URL does not say it.
    """

    url: str
    interface: str
    channel: str
    profile: str = "reference"
    bitrate: int | None = None
    data_bitrate: int | None = None
    fd: bool = False
    timeout_s: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    rack: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The URL without its query."""
        return self.url


def parse_address(address: str, query: Mapping[str, str]) -> CanAddress:
    """The parts of `can:INTERFACE:CHANNEL?key=value&...`. Raises `ConfigError`."""
    url = f"can:{address}"
    interface, colon, channel = address.partition(":")
    if not interface or not colon or not channel:
        raise ConfigError(f"rack URL '{url}': expected can:INTERFACE:CHANNEL, for example can:socketcan:can0")
    values: dict[str, Any] = {}
    options: dict[str, Any] = {}
    rack: dict[str, Any] = {}
    for key, text in query.items():
        if key.startswith(BUS_PREFIX):
            options[key.removeprefix(BUS_PREFIX)] = text
        elif key in RACK_KEYS:
            rack[key] = _number(url, key, text, RACK_KEYS[key])
        elif key == "host":
            options[key] = text
        elif key == "port":
            options[key] = _number(url, key, text, int)
        elif key == "fd":
            if text not in ("0", "1", "true", "false"):
                raise ConfigError(f"rack URL '{url}': fd = {text}: write 1 or 0")
            values[key] = text in ("1", "true")
        elif key == "profile":
            values[key] = text
        elif key in KEYS:
            values[key] = _number(url, key, text, float if key == "timeout_s" else int)
        else:
            raise ConfigError(f"rack URL '{url}': unknown key '{key}'{nearest(key, KEYS)}")
    if interface == "socketcand":
        for key in ("host", "port"):
            if key not in options:
                raise ConfigError(f"rack URL '{url}': {key} is missing; write can:socketcand:can0?host=...&port=29536")
        if values.get("fd"):
            raise ConfigError(f"rack URL '{url}': fd = 1: socketcand carries classic CAN only; leave it out")
    return CanAddress(url, interface, channel, options=options, rack=rack, **values)


def _number(url: str, key: str, text: str, kind: type) -> Any:
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise ConfigError(f"rack URL '{url}': {key} = {text}: expected a number above 0")
    return value


@dataclass
class LinkCounters:
    """What a link has seen since it was made; frames that are no good are counted in `hal.codec.frames.Inbox`."""

    received: int = 0
    sent: int = 0
    not_sent: int = 0
    error_frames: int = 0
    bus_off: int = 0
    lost_links: int = 0
    reconnects: int = 0


class CanLink:
    """A bus whose frames go to `inbox`, under `lock`, stamped with `now_s()`.

    `connected` tells whether the bus is open now, `heard` is notified (with `lock`) when a frame has come. With
    `expects_peer`, silence of a socketcand server counts as its death.
    """

    def __init__(
        self,
        address: CanAddress,
        inbox: Inbox,
        now_s: Callable[[], float],
        *,
        bitrate: int,
        data_bitrate: int,
        expects_peer: bool,
    ) -> None:
        self.address = address
        self.inbox = inbox
        self.counters = LinkCounters()
        self.lock = threading.Lock()
        self.heard = threading.Condition(self.lock)
        self._now_s = now_s
        self._bitrate, self._data_bitrate = bitrate, data_bitrate
        self._expects_peer = expects_peer and address.interface == "socketcand"
        self._sending = threading.Lock()
        self._ending = threading.Event()
        self._bus: Any = None
        self._thread: threading.Thread | None = None
        self._last_frame_s = 0.0

    @property
    def connected(self) -> bool:
        """Whether the bus is open."""
        return self._bus is not None

    def open(self) -> None:
        """Open the bus and begin to read. Raises `ConfigError` or `LinkError`."""
        if self._thread is not None:
            return
        self._ending.clear()
        self.inbox.forget_counters()
        self._bus = self._connect()
        self._last_frame_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"can {self.address.channel}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the reading and close the bus."""
        if self._thread is None:
            return
        self._ending.set()
        self._thread.join()
        self._thread = None
        bus, self._bus = self._bus, None
        if bus is not None:
            with contextlib.suppress(Exception):  # a bus that is gone already
                bus.shutdown()

    def send(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Send (identifier with its mark, bytes). What cannot be sent is counted; the reader opens the bus again."""
        import can

        with self._sending:
            bus = self._bus
            for key, data in frames:
                if bus is None or bus is not self._bus:
                    self.counters.not_sent += 1
                    continue
                message = can.Message(
                    arbitration_id=key & ~EXTENDED,
                    is_extended_id=key & EXTENDED != 0,
                    data=data,
                    is_fd=self.address.fd,
                    bitrate_switch=self.address.fd,
                )
                try:
                    bus.send(message, timeout=SEND_S)
                    self.counters.sent += 1
                except Exception as error:  # drivers raise what they like
                    self.counters.not_sent += 1
                    if not no_room(error):
                        self._drop(bus, error)

    # --- the reader -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            bus = self._bus
            if bus is None:
                if self._ending.wait(pause_s):
                    return
                pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
                self._reconnect()
                continue
            try:
                message = bus.recv(TURN_S)
                if message is None:
                    self._look(bus)
                else:
                    pause_s = FIRST_PAUSE_S
                    self._take(message)
            except Exception as error:  # drivers raise what they like
                self._drop(bus, error)

    def _take(self, message: Any) -> None:
        self._last_frame_s = time.monotonic()
        if message.is_error_frame:
            self.counters.error_frames += 1
            if message.arbitration_id & BUS_OFF:
                self.counters.bus_off += 1
                log.warning("%s: the controller is bus-off", self.address.url)
            return
        if message.is_remote_frame:
            return
        key = message.arbitration_id | (EXTENDED if message.is_extended_id else 0)
        with self.lock:
            self.counters.received += 1
            self.inbox.accept(key, message.data, self._now_s())
            self.heard.notify_all()

    def _look(self, bus: Any) -> None:
        """Nothing came: is the bus still there?"""
        import can

        if bus.state == can.BusState.ERROR:
            self.counters.bus_off += 1
            raise LinkError("bus-off")
        if self._expects_peer and time.monotonic() - self._last_frame_s > SILENCE_S:
            raise LinkError(f"nothing heard for {SILENCE_S:g} s")

    def _drop(self, bus: Any, error: Exception) -> None:
        """Let go of a bus that failed."""
        if self._bus is not bus:
            return
        self._bus = None
        self.counters.lost_links += 1
        log.warning("%s: lost (%s); trying again", self.address.url, _first_line(error))
        with contextlib.suppress(Exception):
            bus.shutdown()

    def _reconnect(self) -> None:
        try:
            bus = self._connect()
        except RackBmsError:
            return
        with self.lock:
            self.inbox.forget_counters()
        self._last_frame_s = time.monotonic()
        self.counters.reconnects += 1
        self._bus = bus
        log.warning("%s: found again", self.address.url)

    # --- opening ----------------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        return open_bus(self.address, self._bitrate, self._data_bitrate)


def open_bus(address: CanAddress, bitrate: int, data_bitrate: int) -> Any:
    """The python-can bus of an address, which may name other rates. Raises `ConfigError` or `LinkError`."""
    import can
    from can.util import cast_from_string

    given = {
        key: cast_from_string(value) if isinstance(value, str) else value for key, value in address.options.items()
    }
    logging.getLogger("can").setLevel(logging.CRITICAL)  # what fails is told here, once
    options: dict[str, Any] = {"bitrate": bitrate, **given}
    if address.fd:
        options |= {"fd": True, "data_bitrate": data_bitrate}
    try:
        if address.interface == "socketcand":
            return _socketcand(address)
        if address.interface == "virtual":
            kind = can.CanProtocol.CAN_FD if address.fd else can.CanProtocol.CAN_20
            return can.Bus(interface="virtual", channel=address.channel, protocol=kind, ignore_config=True)
        return can.Bus(interface=address.interface, channel=address.channel, ignore_config=True, **options)
    except RackBmsError:
        raise
    except (can.CanInterfaceNotImplementedError, NotImplementedError, ImportError) as error:
        known = sorted(can.VALID_INTERFACES)
        if address.interface not in known:
            raise ConfigError(
                f"{address.url}: unknown interface '{address.interface}'{nearest(address.interface, known)}"
            ) from None
        raise ConfigError(f"{address.url}: {_first_line(error)}; install what this interface needs") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{address.url}: {_first_line(error)}; look at the keys of the URL") from None
    except NameError:  # so does python-can where the library of a vendor did not load
        raise ConfigError(f"{address.url}: the driver of '{address.interface}' is not installed; install it") from None
    except Exception as error:  # drivers raise what they like
        raise LinkError(
            f"{address.url}: cannot be opened: {_first_line(error)}; is the device there, and up?"
        ) from None


def _socketcand(address: CanAddress) -> Any:
    """A bus at a socketcand server, which python-can would wait 10 s for, and never miss."""
    from can import CanOperationError
    from can.interfaces.socketcand import SocketCanDaemonBus

    class Watched(SocketCanDaemonBus):
        """Tells when its server has gone: a closed socket is always ready, and has nothing."""

        empty = 0

        def _recv_internal(self, timeout: float | None) -> tuple[Any, bool]:
            began = time.monotonic()
            message, filtered = super()._recv_internal(timeout)
            instant = message is None and (timeout is None or timeout > 2 * INSTANT_S)
            self.empty = self.empty + 1 if instant and time.monotonic() - began < INSTANT_S else 0
            if self.empty >= DEAD_AFTER:
                raise CanOperationError("the server has closed the connection")
            return message, filtered

    host, port = str(address.options["host"]), int(address.options["port"])
    try:
        with socket.create_connection((host, port), timeout=GREETING_S) as probe:
            greeting = probe.recv(64)
    except OSError as error:
        raise LinkError(
            f"{address.url}: no socketcand server at {host}:{port} ({error.strerror or error}); start one there"
        ) from None
    if not greeting.startswith(b"< hi"):
        raise LinkError(f"{address.url}: what listens at {host}:{port} is no socketcand server; look at host and port")
    return Watched(channel=address.channel, host=host, port=port, tcp_tune=os.name != "nt")


def no_room(error: Exception) -> bool:
    """Whether the adapter only has no room for now."""
    import can

    return isinstance(error, can.CanTimeoutError) or "buffer full" in str(error).lower()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
