"""A controller's memory from here: seen from outside, as by a debugger, or asked for over its link.

Between two steps, people look at its state (a recorder, a report) and alter it (a fault of the memory in a trial).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from hal.contract import U1
from hal.engine.child import Child
from hal.engine.frames import BLOCK, Identity, Record
from hal.engine.remote import Remote
from hal.errors import ConfigError, LinkError


class Memory(Protocol):
    """Configuration and state of a controller, as bytes."""

    def put(self, config: U1, state: U1) -> None:
        """Have it work with these, where somebody has altered them. Raises `ConfigError`, `LinkError`."""
        ...

    def state(self, expected: U1 | None) -> U1:
        """Its state now; `expected` is what it probably is. Raises `LinkError`."""
        ...


class Seen:
    """Memory that both sides see."""

    def __init__(self, child: Child, identity: Identity) -> None:
        self._config = child.memory(identity.config_address, identity.config_size)
        self._state = child.memory(identity.state_address, identity.state_size)

    def put(self, config: U1, state: U1) -> None:
        """See `Memory`."""
        for own, given in ((self._config, config), (self._state, state)):
            if not np.array_equal(own, given):
                own[:] = given

    def state(self, expected: U1 | None) -> U1:
        """See `Memory`."""
        del expected
        return self._state


class Asked:
    """Memory at the other end of a link: what is as expected is told by checksums, and only the rest is sent.

    `config` is that which both sides have agreed on.
    """

    def __init__(self, remote: Remote, config: U1) -> None:
        self._remote = remote
        self._config = config.copy()
        self._state: U1 | None = None  # what it has, as far as that is known

    def put(self, config: U1, state: U1) -> None:
        """See `Memory`."""
        name = self._remote.channel.name
        if not np.array_equal(self._config, config):
            raise ConfigError(f"{name}: its configuration lies in its flash and cannot be altered while it runs")
        for first, end in blocks(state.size):
            part = state[first:end]
            if self._state is None or not np.array_equal(self._state[first:end], part):
                self._remote.write(Record.STATE, first, part.tobytes())
        self._state = state.copy()

    def state(self, expected: U1 | None) -> U1:
        """See `Memory`."""
        assert expected is not None
        found = expected.copy()
        sums = self._remote.sums(Record.STATE)
        places = list(blocks(found.size))
        if len(sums) != len(places):
            raise LinkError(f"{self._remote.channel.name}: {len(sums)} checksums of its memory, expected {len(places)}")
        for (first, end), crc in zip(places, sums.tolist(), strict=True):
            if zlib.crc32(found[first:end].data) != crc:
                found[first:end] = np.frombuffer(self._remote.read(Record.STATE, first, end - first), np.uint8)
        self._state = found
        return found


def blocks(size: int) -> Iterator[tuple[int, int]]:
    """First byte and end of each block of a record."""
    for first in range(0, size, BLOCK):
        yield first, min(first + BLOCK, size)
