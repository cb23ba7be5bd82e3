"""Two CAN buses as one: every frame of one goes to the other. So many can talk to a device at a serial adapter.

A serial port has room for one program. With its bus joined to a hub (`hal.serve.hub`), a rack, a flasher and a listener
share it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Self

from hal.errors import LinkError
from hal.links.can_link import CanAddress, no_room, open_bus

BITRATE = 500_000
TURN_S = 0.1  # a thread looks so often whether it is to end
ROOM_S, SOON_S = 1.0, 0.002  # for a bus to have room for a frame again; between two attempts


class Bridge:
    """Joins two buses from entering to leaving; used as a context manager.

    Raises `ConfigError` or `LinkError` where one cannot be opened.
    """

    def __init__(self, one: CanAddress, other: CanAddress) -> None:
        self.addresses = one, other
        self.passed = 0
        self.lost = 0
        """Frames that found no room on the other side."""
        self._buses: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._ending = threading.Event()
        self._broken: LinkError | None = None

    def check(self) -> None:
        """Raises `LinkError` where one of the buses was lost."""
        if self._broken is not None:
            raise self._broken

    def __enter__(self) -> Self:
        try:
            for address in self.addresses:
                rate = address.bitrate or BITRATE
                self._buses.append(open_bus(address, rate, address.data_bitrate or rate))
        except BaseException:
            self._close()
            raise
        for source in (0, 1):
            self._threads.append(threading.Thread(target=self._run, args=(source,), name="can bridge", daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._close()

    def _close(self) -> None:
        for bus in self._buses:
            with contextlib.suppress(Exception):  # a bus that is gone already
                bus.shutdown()

    def _run(self, source: int) -> None:
        at = source
        try:
            while not self._ending.is_set():
                at = source
                message = self._buses[source].recv(TURN_S)
                if message is not None and not message.is_error_frame:
                    at = 1 - source
                    self._pass(self._buses[at], message)
        except Exception as error:  # drivers raise what they like
            self._broken = LinkError(f"{self.addresses[at]}: lost: {error}")
            self._ending.set()

    def _pass(self, bus: Any, message: Any) -> None:
        end_s = time.monotonic() + ROOM_S
        while True:
            try:
                bus.send(message)
            except Exception as error:  # drivers raise what they like
                if not no_room(error):
                    raise
                if time.monotonic() > end_s:
                    self.lost += 1
                    return
                time.sleep(SOON_S)
            else:
                self.passed += 1
                return
