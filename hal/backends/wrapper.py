"""What the wrappers around a rack share: all that they do not change is the rack's own."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from hal.contract import Command, Measurement, Rack, RackInfo

PRIVATE = ("steered", "decided")
"""What is not handed through: a recorder below a wrapper that changes values saw others than the controller."""


class Wrapper:
    """A rack (`hal.contract.Rack`) around another one. What only some racks have (`truth`, `events`) goes through."""

    def __init__(self, rack: Rack) -> None:
        self._rack = rack
        if hasattr(rack, "truth"):
            self.truth = rack.truth  # so that it satisfies `HasTruth` where the rack does

    @property
    def info(self) -> RackInfo:
        """Description of the rack."""
        return self._rack.info

    def open(self) -> None:
        """Reach the device. Raises what the rack raises."""
        self._rack.open()

    def read(self, out: Measurement) -> None:
        """Fill `out` with the newest values."""
        self._rack.read(out)

    def write(self, command: Command) -> None:
        """Pass the command on."""
        self._rack.write(command)

    def close(self) -> None:
        """Open the contactors and release the device."""
        self._rack.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """What only this kind of rack has."""
        if name.startswith("_") or name in PRIVATE:
            raise AttributeError(name)
        return getattr(self._rack, name)
