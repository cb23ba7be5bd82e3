"""The bus that a controller is flashed over: a `can:` URL, with the identifiers of requests and of answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from hal.errors import ConfigError
from hal.links.can_link import CanAddress, no_room, open_bus, parse_address
from hal.registry import RackUrl

REQUEST_ID, RESPONSE_ID = 0x7E0, 0x7E8
"""Identifiers of ISO 15765-4 for the first controller, which no profile of ours uses."""
LARGEST_ID = 0x7FF
BITRATE = 500_000
ROOM_S, SOON_S = 1.0, 0.002  # for an adapter to have room for a frame again; between two attempts


@dataclass(frozen=True)
class CanPlace:
    """A controller on a bus."""

    address: CanAddress
    request_id: int = REQUEST_ID
    response_id: int = RESPONSE_ID

    def open(self) -> Any:
        """The python-can bus. Raises `ConfigError` or `LinkError`."""
        return open_bus(self.address, self.address.bitrate or BITRATE, self.address.data_bitrate or BITRATE)

    def __str__(self) -> str:
        return str(self.address)


def can_place(url: RackUrl) -> CanPlace:
    """The controller of `can:INTERFACE:CHANNEL?request_id=0x7e0&response_id=0x7e8&...`. Raises `ConfigError`."""
    if url.scheme != "can":
        raise ConfigError(f"'{url.scheme}:{url.address}': flashed over can: or serial:, for example can:socketcan:can0")
    query = dict(url.query)
    ids = {
        key: _identifier(query, key, default)
        for key, default in (("request_id", REQUEST_ID), ("response_id", RESPONSE_ID))
    }
    if ids["request_id"] == ids["response_id"]:
        raise ConfigError(f"'{url.scheme}:{url.address}': request_id and response_id are the same; give two")
    return CanPlace(parse_address(url.address, query), **ids)


def _identifier(query: dict[str, str], key: str, default: int) -> int:
    text = query.pop(key, None)
    if text is None:
        return default
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= LARGEST_ID:
        raise ConfigError(f"{key} = {text}: expected an identifier from 0 to 0x7ff")
    return value


class Frames:
    """The frames of a python-can bus for can-isotp, whose threads must not meet what drivers raise.

    An adapter that has no room is waited for: on a real bus a frame takes longer than to hand it over. What else goes
    wrong is kept in `error`, and nothing comes or goes afterwards.
    """

    def __init__(self, bus: Any) -> None:
        self.bus = bus
        self.error: Exception | None = None

    def receive(self, timeout_s: float) -> Any:
        """The next frame as can-isotp has it, or None."""
        from isotp import CanMessage

        if self.error is not None:
            time.sleep(timeout_s)
            return None
        try:
            message = self.bus.recv(timeout_s)
        except Exception as error:  # drivers raise what they like
            self.error = error
            return None
        if message is None or message.is_error_frame or message.is_remote_frame:
            return None
        return CanMessage(message.arbitration_id, data=message.data, extended_id=message.is_extended_id)

    def send(self, frame: Any) -> None:
        """Send a frame of can-isotp."""
        import can

        message = can.Message(arbitration_id=frame.arbitration_id, data=frame.data, is_extended_id=False)
        end_s = time.monotonic() + ROOM_S
        while self.error is None:
            try:
                self.bus.send(message)
            except Exception as error:  # drivers raise what they like
                if not no_room(error) or time.monotonic() > end_s:
                    self.error = error
                time.sleep(SOON_S)
            else:
                return
