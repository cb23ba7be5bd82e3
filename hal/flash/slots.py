"""Which bundle a Linux controller starts: the one that has proved itself, or a new one for its trial.

The rules are those of the boot loader (bms/firmware/boot/boot.h): a new bundle is written into the slot that does not
run, is armed, and is started once; unless it confirms itself, the next start is that of the bundle before. Whatever is
decided is written down first, and done afterwards. A bundle is checked from end to end before each start.

In one thing they differ: where there is nothing to go back to, a trial is repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hal.errors import ConfigError, LinkError
from hal.flash import disk as disks
from hal.flash import slot_record, trust
from hal.flash.answers import Refused
from hal.flash.bundle import MANIFEST, Entry, Manifest, misfit
from hal.flash.disk import Disk
from hal.flash.slot_record import SLOTS, Event, Record, other

log = logging.getLogger(__name__)

BOARD = f"{trust.FOLDER}/board"
CURRENT = "current"
FOLDERS = (trust.FOLDER, "slots", "slots/a", "slots/b", "incoming")
ON_TRIAL = "the bundle that runs is on trial: wait until it has confirmed itself, or start the controller again"
TRIES = 1
"""How often a new bundle is started without having confirmed itself, while there is another one."""


Alone = Callable[[], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True)
class Identity:
    """What a bundle has to fit: the processor, and hashes of the `rackbms` that is installed on the controller."""

    machine: str
    layouts: str
    kernels: str


@dataclass(frozen=True)
class Choice:
    """The bundle to start, and whether this is its trial."""

    slot: str
    manifest: Manifest
    record: Record

    @property
    def on_trial(self) -> bool:
        """Whether it still has to confirm itself."""
        return self.record.trial == self.slot


class Slots:
    """The two slots of a controller and its record. `now` is the time for the log.

    `alone` keeps others from deciding meanwhile: a start may come while a bundle is flashed or confirms itself.
    """

    def __init__(
        self, disk: Disk, identity: Identity, now: datetime | None = None, alone: Alone = contextlib.nullcontext
    ) -> None:
        self.disk = disk
        self.identity = identity
        self._now = now
        self._alone = alone

    # --- looking ----------------------------------------------------------------------------------------------------

    def record(self) -> Record:
        """What the controller remembers; an empty record where that is nothing."""
        return slot_record.load(self.disk)[0] or Record()

    def board(self) -> str:
        """The controller's name. Raises `ConfigError` where it has not been set up."""
        try:
            return self.disk.read(BOARD).decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError("no controller is set up there; give --trust 1.root.json and --board NAME once") from None

    def check(self, slot: str, counter: int) -> Manifest:
        """Check the bundle in a slot from end to end, signature first. Raises `Refused` with the reason."""
        folder = folder_of(slot)
        try:
            names = self.disk.names(folder)
            if not names:
                raise Refused("there is no bundle")
            if MANIFEST not in names or trust.TARGETS not in names:
                raise Refused(f"{MANIFEST} or {trust.TARGETS} is missing")
            files = {name: self.disk.read(f"{folder}/{name}") for name in names}
        except OSError as error:
            raise Refused(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
        manifest = trust.signed_manifest(trust.roots(self.disk), files.pop(MANIFEST), files.pop(trust.TARGETS))
        if wrong := misfit(manifest, {name: Entry.of(data) for name, data in files.items()}):
            raise Refused(wrong)
        self.fits(manifest, counter)
        return manifest

    def fits(self, manifest: Manifest, counter: int) -> None:
        """Raise `Refused` for a bundle that is not for this controller, or too old."""
        board, own = self.board(), self.identity
        if manifest.board != board:
            raise Refused(f"it is for the board {manifest.board}, this is {board}")
        if manifest.machine != own.machine:
            raise Refused(f"it is for the processor {manifest.machine}, this is {own.machine}")
        if manifest.layouts != own.layouts:
            raise Refused(f"it has other layouts of records ({manifest.layouts}) than the controller ({own.layouts})")
        if manifest.kernels != own.kernels:
            raise Refused(f"its library was made of other sources than the controller's rackbms: {manifest.rackbms}")
        if manifest.counter < counter:
            raise Refused(f"its security counter is {manifest.counter}, that of a bundle that ran before {counter}")

    def good(self, slot: str, counter: int) -> Manifest | None:
        """The bundle in a slot, or None where it is not good."""
        try:
            return self.check(slot, counter) if slot else None
        except Refused as refusal:
            log.info("slot %s: %s", slot, refusal)
            return None

    # --- starting ---------------------------------------------------------------------------------------------------

    def choose(self) -> Choice:
        """At each start: what is to be started.

        Raises `Refused` where no bundle is good, `ConfigError` where no controller is set up.
        """
        with self._alone():
            return self._choose()

    def _choose(self) -> Choice:
        self.board()
        trust.roots(self.disk)
        before, twice = slot_record.load(self.disk)
        record = before or Record()
        choice = self._trial(record)
        if choice is not None:
            try:
                return self._begin(choice, written=choice.record == before)
            except OSError as error:
                # without a record of its start a trial would never end
                log.warning("no trial of slot %s: %s: %s", choice.slot, error.filename, error.strerror)
                choice = None
        record = self._ended(record)
        choice = self._proven(record)
        record = record if choice is None else replace(choice.record, running=choice.slot)
        with self._disk_may_fail("the record"):
            if record != before or not twice:
                record = slot_record.store(self.disk, record)
        if choice is None:
            raise self._none_good(record)
        self._switch(choice.slot)
        return replace(choice, record=record)

    def look(self) -> Choice:
        """What `choose` would start now, with nothing changed. Raises as it does."""
        self.board()
        trust.roots(self.disk)
        record = self.record()
        choice = self._trial(record) or self._proven(self._ended(record))
        if choice is None:
            raise self._none_good(record)
        return choice

    def _none_good(self, record: Record) -> Refused:
        reasons = [f"slot {slot}: {self._flaw(slot, record)}" for slot in SLOTS]
        return Refused(f"no bundle is good ({'; '.join(reasons)}); bring one with bms flash")

    def _flaw(self, slot: str, record: Record) -> str:
        try:
            self.check(slot, record.counter)
        except Refused as refusal:
            return str(refusal)
        return "it has failed" if slot == record.failed else "it waits for a disk that can be written"

    def _trial(self, record: Record) -> Choice | None:
        """The trial that is due, if there is one."""
        manifest = self.good(record.trial, record.counter)
        if manifest is None:
            return None
        if record.tries >= TRIES:
            fallback = self._proven(replace(record, failed=record.trial, trial=""))
            return Choice(record.trial, manifest, record) if fallback is None else None
        record = replace(record, tries=record.tries + 1, running=record.trial)
        return Choice(record.trial, manifest, record.told(Event.TRIED, self._time(), manifest.name))

    def _begin(self, choice: Choice, *, written: bool) -> Choice:
        if not written:
            choice = replace(choice, record=slot_record.store(self.disk, choice.record))
        self._switch(choice.slot)
        return choice

    def _ended(self, record: Record) -> Record:
        """The record when the trial in it, if any, is over or could not begin."""
        if not record.trial:
            return record
        try:
            name = self.check(record.trial, record.counter).name
        except Refused as refusal:
            ended = record.told(Event.REFUSED, self._time(), f"slot {record.trial}", str(refusal))
            return replace(ended, failed=record.trial, trial="", tries=0)
        if record.tries < TRIES:
            return record  # its start could not be written down: it waits
        return replace(record.told(Event.REVERTED, self._time(), name), failed=record.trial, trial="", tries=0)

    def _proven(self, record: Record) -> Choice | None:
        """The bundle that has proved itself; without one the newest that is good, and has not failed."""
        manifest = self.good(record.active, record.counter)
        if manifest is not None:
            return Choice(record.active, manifest, record)
        found = [
            (manifest.counter, manifest.version, slot, manifest)
            for slot in SLOTS
            if slot not in (record.failed, record.active, record.trial)
            and (manifest := self.good(slot, record.counter)) is not None
        ]
        if not found:
            return None
        counter, _, slot, manifest = max(found, key=lambda one: one[:3])
        record = replace(record, active=slot, counter=counter)
        return Choice(slot, manifest, record.told(Event.ADOPTED, self._time(), manifest.name))

    def _switch(self, slot: str) -> None:
        """Have `current` lead to the slot that runs; the record counts, this is for people."""
        with self._disk_may_fail(CURRENT):
            if self.disk.target(CURRENT) != folder_of(slot):
                disks.point(self.disk, CURRENT, folder_of(slot))

    # --- a bundle that runs -----------------------------------------------------------------------------------------

    def confirm(self, slot: str, *, self_test_passed: bool, rack_healthy: bool) -> bool:
        """By the bundle that runs from `slot`, as often as it likes: it has proved itself.

        False where evidence is missing, or another one is on trial. Raises `OSError` where that could not be written.
        """
        with self._alone():
            return self_test_passed and rack_healthy and self._confirm(slot)

    def _confirm(self, slot: str) -> bool:
        record = self.record()
        if record.trial != slot:
            return record.active == slot
        manifest = self.good(slot, record.counter)
        if manifest is None:
            return False
        proven = replace(record, active=slot, trial="", failed="", tries=0, counter=manifest.counter)
        slot_record.store(self.disk, proven.told(Event.CONFIRMED, self._time(), manifest.name))
        return True

    # --- a new bundle -----------------------------------------------------------------------------------------------

    def free(self) -> str:
        """The slot for a new bundle; '' while one that runs has not confirmed itself."""
        record = self.record()
        if not record.active:
            used = record.running or record.trial
            return other(used) if used else SLOTS[0]
        free = other(record.active)
        return "" if free == record.running and record.tries else free

    def open(self, name: str) -> str:
        """Gives the slot that is to be written: whatever is in it counts no longer. Raises `Refused`, `OSError`."""
        with self._alone():
            record, slot = self.record(), self.free()
            if not slot:
                raise Refused(ON_TRIAL)
            opened = replace(record, trial="" if record.trial == slot else record.trial, failed=slot, tries=0)
            slot_record.store(self.disk, opened.told(Event.OPENED, self._time(), name))
            return slot

    def arm(self, slot: str) -> Manifest:
        """The bundle in a slot is to be started next. Raises `Refused` where it is not good, `OSError`."""
        with self._alone():
            record = self.record()
            manifest = self.check(slot, record.counter)
            armed = replace(record, trial=slot, failed="", tries=0)
            slot_record.store(self.disk, armed.told(Event.ARMED, self._time(), manifest.name))
            return manifest

    def refused(self, what: str, why: str) -> None:
        """Remember that a bundle was refused, if the disk lets it be written."""
        with self._alone(), self._disk_may_fail("the record"):
            slot_record.store(self.disk, self.record().told(Event.REFUSED, self._time(), what, why))

    def set_up(self, root: bytes, board: str, source: str) -> None:
        """Make a controller of an empty folder, which trusts `root`; may be repeated.

        `source` names the root in messages. Raises `ConfigError`, `OSError`.
        """
        for folder in FOLDERS:
            disks.make_folder(self.disk, folder)
        trust.pin(self.disk, root, source)
        known = self.board() if self.disk.size(BOARD) else board
        if known != board:
            raise ConfigError(f"--board {board}: the controller is a {known} already; set it up in an empty folder")
        disks.replace(self.disk, BOARD, f"{board}\n".encode())

    def _time(self) -> str:
        return (self._now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M:%S")

    @contextlib.contextmanager
    def _disk_may_fail(self, what: str) -> Iterator[None]:
        """A disk that cannot be written is no reason not to start what has proved itself."""
        try:
            yield
        except OSError as error:
            log.warning("%s is left as it is: %s: %s", what, error.filename, error.strerror)


def folder_of(slot: str) -> str:
    """The folder of a slot."""
    return f"slots/{slot}"


@contextlib.contextmanager
def held(root: Path, what: str, *, wait: bool) -> Iterator[None]:
    """Hold a controller against others: `what` is 'incoming' for who flashes, 'slots' for a decision.

    Raises `LinkError` where it is held by another already, unless it is to `wait`; `ConfigError` without a controller.
    """
    try:
        number = os.open(root / what, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"linux:{root}: no controller is set up there ({error.strerror}); give --trust 1.root.json and --board once"
        ) from None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise LinkError(f"linux:{root}: another bms flash is at work there; wait until it has ended") from None
    finally:
        os.close(number)
