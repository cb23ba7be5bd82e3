"""The bus that a controller is flashed over: a `can:` URL, with the identifiers of requests and of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hal.errors import ConfigError
from hal.links.can_link import CanAddress, open_bus, parse_address
from hal.registry import RackUrl

REQUEST_ID, RESPONSE_ID = 0x7E0, 0x7E8
"""Identifiers of ISO 15765-4 for the first controller, which no profile of ours uses."""
LARGEST_ID = 0x7FF
BITRATE = 500_000


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
