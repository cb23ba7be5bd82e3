"""What a controller answers about its images, in words."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hal.errors import LinkError, RackBmsError
from hal.flash.image import HASH_BYTES, LONGEST_BOARD, Version

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""What a flasher tells: bytes that are there, and bytes of the whole image."""


BACK_S, PAUSE_S = 15.0, 0.2  # for a controller to start again; between two questions whether it has


class Refused(RackBmsError):
    """The controller does not take the image, or not now: one line with the reason."""


GOOD, OLDER = 0, 10
VERDICTS = {
    GOOD: "the image is good",
    1: "there is no image",
    2: "the image is malformed: lengths or records that cannot be",
    3: "the image is too large for its slot",
    4: "the image is signed with another key than the controller's",
    5: "the image was changed after it was signed: its hash does not fit",
    6: "the signature is not that of the image",
    7: "the image is linked for the other slot",
    8: "the image is for another board",
    9: "the image has other layouts of records than the controller",
    OLDER: "the security counter of the image is smaller than that of an image that ran before",
    11: "the flash of the controller cannot be read or written",
}
"""Why an image is refused, by the number that the boot loader gives."""

TRIED, REVERTED, REFUSED = 3, 5, 6
EVENTS = {
    0: "",
    1: "found in the flash and taken over",
    2: "a new image waits for its trial at the next start",
    TRIED: "on trial: the next start is that of the image before, unless it confirms itself",
    4: "confirmed",
    REVERTED: "the image before: the new one did not confirm itself",
    REFUSED: "a new image was refused",
    7: "a slot is being written",
}
"""What happened last, by the number that the boot loader gives."""

NO_SLOT = 0xFF
STATE = struct.Struct(f">5B3B4I{HASH_BYTES}s{HASH_BYTES}s{LONGEST_BOARD}s")
VERSION = struct.Struct(">BBHI")


@dataclass(frozen=True)
class State:
    """What runs, and what may be done. Slots are 0, 1 or None."""

    version: Version | None
    running: int | None
    active: int | None
    trial: int | None
    failed: int | None
    free: int | None
    event: int
    verdict: int
    contactors_open: bool
    counter: int
    sector_size: int
    slot_size: int
    config: bytes
    layouts: bytes
    board: str

    @property
    def confirmed(self) -> bool:
        """Whether the image that runs has proved itself."""
        return self.running is not None and self.running == self.active

    def told(self) -> str:
        """In one line."""
        if self.running is None:
            return f"{self.board}: no image is good; the boot loader waits for one"
        words = f"{self.board}: runs {self.version} from slot {self.running}, configuration {self.config.hex()}"
        event = EVENTS.get(self.event, f"event {self.event}")
        if self.event == REFUSED:
            event += f": {VERDICTS.get(self.verdict, self.verdict)}"
        return f"{words}; {event}" if event else words


def state(raw: bytes, version: bytes) -> State:
    """The state of a controller from its answers. Raises `LinkError` where they have another size than they should."""
    if len(raw) != STATE.size or len(version) != VERSION.size:
        raise LinkError(f"its state has {len(raw)} bytes, expected {STATE.size}: is it a controller of this version?")
    *slots, event, verdict, is_open, counter, sector, slot_size, _, config, layouts, board = STATE.unpack(raw)
    running, active, trial, failed, free = (None if slot == NO_SLOT else slot for slot in slots)
    return State(
        version=None if running is None else Version(*VERSION.unpack(version)),
        running=running,
        active=active,
        trial=trial,
        failed=failed,
        free=free,
        event=event,
        verdict=verdict,
        contactors_open=bool(is_open),
        counter=counter,
        sector_size=sector,
        slot_size=slot_size,
        config=config,
        layouts=layouts,
        board=board.rstrip(b"\0").decode("ascii", "backslashreplace"),
    )


class Standing(Protocol):
    """What runs, as every way to ask a controller tells it."""

    @property
    def version(self) -> Version | None:
        """Version of the image that runs, None without one."""
        ...

    @property
    def running(self) -> int | None:
        """Its slot."""
        ...

    @property
    def confirmed(self) -> bool:
        """Whether it has proved itself."""
        ...

    def told(self) -> str:
        """In one line."""
        ...


S = TypeVar("S", bound=Standing)


def wait_until_settled(ask: Callable[[], S], before: int | None, wait_s: float, tell: Callable[[float], None]) -> S:
    """Ask again and again, until the image that was flashed is confirmed, or the one of slot `before` runs again.

    Gives what runs then, or after `wait_s`. `tell` is told after how many seconds it is still on trial. Raises
    `LinkError` where the controller is silent to the end.
    """
    start_s = time.monotonic()
    while True:
        spent_s = time.monotonic() - start_s
        try:
            found = ask()
        except LinkError:  # it starts again, perhaps
            if spent_s >= wait_s:
                raise
        else:
            if found.confirmed or found.running in (None, before) or spent_s >= wait_s:
                return found
        tell(spent_s)
        time.sleep(PAUSE_S)


def wait_until_back(place: object, ask: Callable[[], T]) -> T:
    """Ask again and again, until the controller at `place` runs again. Raises `LinkError` when it stays away."""
    end_s = time.monotonic() + BACK_S
    while True:
        time.sleep(PAUSE_S)
        try:
            return ask()
        except LinkError:
            if time.monotonic() > end_s:
                raise LinkError(f"{place}: took the image, and did not come back within {BACK_S:g} s") from None
