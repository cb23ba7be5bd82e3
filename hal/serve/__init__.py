"""The opposite side of the HAL: a rack offered as a device on a wire."""

from __future__ import annotations

from typing import Protocol

from hal.contract import Command, Measurement


class Server(Protocol):
    """A rack on one wire. Made as `Server(url, info, clock)`; `start` and `stop` may each be called more than once."""

    def start(self) -> None:
        """Begin to serve, in threads of its own. Raises `hal.errors.LinkError` where the wire cannot be had."""
        ...

    def publish(self, measurement: Measurement) -> None:
        """Offer a new measurement, all of it at once."""
        ...

    def take(self, out: Command) -> bool:
        """Fill `out` with the newest command since the last call. False, and `out` as it was: there is none."""
        ...

    def stop(self) -> None:
        """Let go of the wire and of all who are connected."""
        ...
