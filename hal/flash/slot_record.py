"""The record of a Linux controller: which slot starts, how often it was tried, what happened.

The meaning of its fields is that of the boot loader's record (bms/firmware/boot/record.h). It exists twice, each
replaced as a whole, one after the other: whatever is cut off or rots, the other one is there. Of two that are good the
one with the larger number counts. The checksum finds accidents, not attacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from hal.flash import disk as disks
from hal.flash.disk import Disk

FILES = ("state-0", "state-1")
SLOTS = ("a", "b")
FORMAT = 1
LOG_LINES = 16
"""Events that are remembered."""
LONGEST_LINE = 400
LARGEST_NUMBER = 2**53
MOST_TRIES = 1_000_000


class Event(StrEnum):
    """What happened last."""

    NOTHING = "nothing yet"
    ADOPTED = "found on the disk and taken over"
    ARMED = "a new bundle waits for its trial at the next start"
    TRIED = "on trial: the next start is that of the bundle before, unless it confirms itself"
    CONFIRMED = "confirmed"
    REVERTED = "the bundle before: the new one did not confirm itself"
    REFUSED = "a new bundle was refused"
    OPENED = "a slot is being written"


@dataclass(frozen=True)
class Record:
    """Slots are names of `SLOTS`, or '' for none; `counter` is the smallest security counter that may still start."""

    number: int = 0
    active: str = ""
    trial: str = ""
    failed: str = ""
    running: str = ""
    tries: int = 0
    counter: int = 0
    event: Event = Event.NOTHING
    why: str = ""
    log: tuple[str, ...] = ()

    def told(self, event: Event, at: str, what: str = "", why: str = "") -> Record:
        """With an event, and a line about it in the log: `at` is the time, `what` the bundle."""
        line = f"{at}  {what}{': ' if what else ''}{event}{': ' if why else ''}{why}"
        return replace(self, event=event, why=_line(why), log=(*self.log, _line(line))[-LOG_LINES:])

    def to_bytes(self) -> bytes:
        """As JSON with a checksum."""
        content = {"format": FORMAT, **{field.name: getattr(self, field.name) for field in fields(self)}}
        return (json.dumps({**content, "check": _check(content)}, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Record | None:
        """Undo `to_bytes`; None for anything that it does not make."""
        try:
            content = json.loads(data)
            event = Event(content["event"])
            values = {field.name: content[field.name] for field in fields(cls)}
            found = cls(**{**values, "event": event, "log": tuple(content["log"])})
            good = found._is_sound() and found.to_bytes() == data
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return found if good else None

    def _is_sound(self) -> bool:
        slots = (self.active, self.trial, self.failed, self.running)
        numbers = {self.number: LARGEST_NUMBER, self.tries: MOST_TRIES, self.counter: 2**32 - 1}
        return (
            all(slot in ("", *SLOTS) for slot in slots)
            and all(type(number) is int and 0 <= number <= most for number, most in numbers.items())
            and all(isinstance(line, str) and len(line) <= LONGEST_LINE for line in (self.why, *self.log))
            and len(self.log) <= LOG_LINES
        )


def load(disk: Disk) -> tuple[Record | None, bool]:
    """The record that counts, None where there is none; and whether it is there twice. Never raises."""
    found = [_read(disk, name) for name in FILES]
    good = [record for record in found if record is not None]
    return max(good, key=lambda record: record.number, default=None), found[0] == found[1]


def store(disk: Disk, record: Record) -> Record:
    """Have `record` on the disk, under the next number; gives it with that.

    The one that counts is replaced last. Raises `OSError` where the new one may not have been written.
    """
    last = [_read(disk, name) for name in FILES]
    numbers = [-1 if found is None else found.number for found in last]
    record = replace(record, number=max(numbers) + 1)
    first = 0 if numbers[0] <= numbers[1] else 1
    disks.replace(disk, FILES[first], record.to_bytes())
    with contextlib.suppress(OSError):  # it counts already; a start repeats what failed here
        disks.replace(disk, FILES[1 - first], record.to_bytes())
    return record


def other(slot: str) -> str:
    """The slot that is not `slot`."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


def _read(disk: Disk, name: str) -> Record | None:
    try:
        return Record.from_bytes(disk.read(name))
    except OSError:
        return None


def _check(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_LINE]
