"""An inverter on a CAN bus as a side of a controller: `InverterNorth("can:socketcan:can1", info, clock, ratings)`.

The bus is opened, watched and opened again as that of a `can:` rack, with the same keys (`hal.links.can_link`), and

| option | |
| --- | --- |
| `profile` | `pylontech`, the one protocol that there is (`hal.pcs.inverter_can`) |
| `silent` | an inverter whose 0x305 was not heard for so long, s, counts as gone, 5 |
| `maker`, `modules` | what the inverter shows of the battery |

The protocol has no word for "connect": as long as the inverter is heard, the rack may be connected.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import TypeVar, cast

import can

from hal.codec.dbc import EXTENDED
from hal.codec.frames import Inbox, Verdict
from hal.contract import Clock, Command, Measurement, RackInfo
from hal.errors import ConfigError, nearest
from hal.links.can_link import CanLink, parse_address
from hal.pcs import Ask, Ratings
from hal.pcs.inverter_can import ALIVE, Battery, InverterCan
from hal.registry import parse_url

PROFILES = ("pylontech",)
BITRATE = 500_000
SILENT_S = 5.0
OWN_KEYS = ("profile", "silent", "maker", "modules")
WAITING = 12
"""Frames that may wait for the bus, two rounds; what finds no room is not sent."""

N = TypeVar("N", int, float)


class _Beats:
    """What `CanLink` uses of an inbox: notes that the inverter was heard, whatever the length of its frame."""

    def __init__(self) -> None:
        self.heard = False

    def accept(self, key: int, data: bytes | bytearray, now_s: float) -> Verdict:
        if key != ALIVE or key & EXTENDED:
            return Verdict.UNKNOWN
        self.heard = True
        return Verdict.ACCEPTED

    def forget_counters(self) -> None:
        """There are none."""


class LinkBus:
    """`hal.pcs.inverter_can.Bus` on a link: neither `send` nor `recv` waits, a thread of its own does."""

    def __init__(self, link: CanLink, beats: _Beats) -> None:
        self.link, self._beats = link, beats
        self._waiting: queue.Queue[can.Message | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the bus. Raises `LinkError` or `ConfigError`."""
        if self._thread is None:
            self.link.open()
            self._thread = threading.Thread(target=self._run, name="inverter", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Send what waits, and close the bus."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()
            self.link.close()

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Put a frame behind those that wait. Raises `can.CanError`: there is no room, for the bus takes none."""
        try:
            self._waiting.put_nowait(msg)
        except queue.Full:
            raise can.CanOperationError("the bus takes no frames") from None

    def recv(self, timeout: float | None = None) -> can.Message | None:
        """The heart-beat, if it has come since it was last taken."""
        with self.link.lock:
            heard, self._beats.heard = self._beats.heard, False
        return can.Message(arbitration_id=ALIVE, is_extended_id=False) if heard else None

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            self.link.send([(message.arbitration_id, bytes(message.data))])


class InverterNorth:
    """`hal.pcs.North` for an inverter."""

    def __init__(self, url: str, info: RackInfo, clock: Clock, ratings: Ratings) -> None:
        """Prepare to talk to the inverter at `url`. Raises `ConfigError`: a mistake, or a string above 327.67 V."""
        parts = parse_url(url)
        own = {key: value for key, value in parts.query.items() if key in OWN_KEYS}
        profile = own.get("profile", PROFILES[0])
        if profile not in PROFILES:
            raise ConfigError(f"{url}: profile = {profile}: no protocol of inverters{nearest(profile, PROFILES)}")
        address = parse_address(parts.address, {k: v for k, v in parts.query.items() if k not in OWN_KEYS})
        if address.rack or address.fd:
            raise ConfigError(f"{url}: fd, and keys of a rack, have no meaning for an inverter; leave them out")
        try:
            battery = Battery(
                ratings.charge_v,
                ratings.discharge_v,
                own.get("maker", Battery.maker),
                _number(own, "modules", int, Battery.modules),
            )
            beats = _Beats()
            link = CanLink(
                address,
                cast(Inbox, beats),
                clock.now_s,
                bitrate=address.bitrate or BITRATE,
                data_bitrate=BITRATE,
                expects_peer=False,
            )
            self.bus = LinkBus(link, beats)
            self.inverter = InverterCan(self.bus, info, battery, silent_s=_number(own, "silent", float, SILENT_S))
        except ConfigError as error:
            raise ConfigError(f"{url}: {error}") from None
        self._url = url
        self._was_heard = False
        self.silences = 0
        """How often the inverter has fallen silent."""

    @property
    def address(self) -> str:
        """The bus."""
        return self._url

    def start(self) -> None:
        """Open the bus. Raises `LinkError` or `ConfigError`."""
        self.bus.start()

    def ask(self, now_s: float) -> Ask:
        """Whether the inverter is there."""
        return Ask.OPEN if self.inverter.silent else Ask.CONNECT

    def publish(self, measurement: Measurement, command: Command, now_s: float, *, local: bool) -> None:
        """Tell the inverter, once a second, and look whether it was heard."""
        self.inverter.update(measurement, command, now_s)
        heard = not self.inverter.silent
        self.silences += self._was_heard and not heard
        self._was_heard = heard

    def stop(self) -> None:
        """Close the bus."""
        self.bus.stop()


def _number(query: Mapping[str, str], key: str, kind: type[N], otherwise: N) -> N:
    try:
        return kind(query[key]) if key in query else otherwise
    except ValueError:
        whole = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{key} = {query[key]}: expected {whole}") from None
