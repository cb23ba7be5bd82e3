"""The boot loader's C, compiled for this computer, with a flash in memory and power that can be cut."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from bms.firmware.boot import sources
from hal.engine import cache
from hal.errors import ConfigError

FOLDER = Path(__file__).parent
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
STRICT = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
"""For C on this computer: what C does not define, an index beyond its array above all, ends the process at once."""

NO_SLOT = 0xFFFFFFFF
NEVER = 0xFFFFFFFF
HASH, BOARD, CRASH, DIGEST = 8, 16, 8, 64


class Verdict(IntEnum):
    """What the boot loader says of an image: `image_verdict` of image.h."""

    GOOD = 0
    ABSENT = 1
    MALFORMED = 2
    TOO_LARGE = 3
    OTHER_KEY = 4
    CHANGED = 5
    FORGED = 6
    OTHER_SLOT = 7
    OTHER_BOARD = 8
    OTHER_LAYOUTS = 9
    OLDER = 10
    UNREADABLE = 11


class Event(IntEnum):
    """What happened last: `boot_event` of record.h."""

    NONE = 0
    ADOPTED = 1
    ARMED = 2
    TRIED = 3
    CONFIRMED = 4
    REVERTED = 5
    REFUSED = 6
    OPENED = 7


class Outcome(IntEnum):
    """What came of writing: `update_result` of update.h."""

    GOOD = 0
    NO_SLOT = 1
    OUT_OF_RANGE = 2
    NOT_OPEN = 3
    FLASH = 4


class PowerLost(Exception):
    """Power was cut in the middle."""


class Facts(ctypes.Structure):
    """`port_facts`."""

    _fields_ = (
        ("sector_size", ctypes.c_uint32),
        ("write_size", ctypes.c_uint32),
        ("slot_size", ctypes.c_uint32),
        ("slots", ctypes.c_uint32 * 2),
        ("records", ctypes.c_uint32 * 2),
        ("image_key", ctypes.c_uint8 * 32),
        ("access_key", ctypes.c_uint8 * 32),
        ("layouts", ctypes.c_uint8 * HASH),
        ("board", ctypes.c_char * BOARD),
    )


class ImageFacts(ctypes.Structure):
    """`image_facts`."""

    _fields_ = (
        ("version", ctypes.c_uint32 * 4),
        ("counter", ctypes.c_uint32),
        ("start", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint8 * HASH),
        ("layouts", ctypes.c_uint8 * HASH),
        ("board", ctypes.c_char * BOARD),
        ("digest", ctypes.c_uint8 * DIGEST),
    )


class Record(ctypes.Structure):
    """`boot_record`."""

    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("number", ctypes.c_uint32),
        ("active", ctypes.c_uint32),
        ("trial", ctypes.c_uint32),
        ("tries", ctypes.c_uint32),
        ("failed", ctypes.c_uint32),
        ("counter", ctypes.c_uint32),
        ("event", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("crash", ctypes.c_uint32 * CRASH),
        ("reserved", ctypes.c_uint32 * 6),
        ("check", ctypes.c_uint32),
    )


class Choice(ctypes.Structure):
    """`boot_choice`."""

    _fields_ = (("slot", ctypes.c_uint32), ("facts", ImageFacts), ("record", Record))


class Counters(ctypes.Structure):
    """`host_counters`."""

    _fields_ = (("operations", ctypes.c_uint32), ("violations", ctypes.c_uint32), ("lost", ctypes.c_uint32))


@dataclass(frozen=True)
class Board:
    """A controller's flash, in bytes, and what it takes for an image of its own."""

    image_key: bytes
    access_key: bytes
    layouts: bytes
    name: str = "host"
    sector_size: int = 1024
    write_size: int = 32
    slot_sectors: int = 8
    first: int = field(default=0x4000)
    """Where the first slot lies; below is the boot loader."""

    @property
    def slot_size(self) -> int:
        """Bytes of a slot."""
        return self.slot_sectors * self.sector_size

    @property
    def slots(self) -> tuple[int, int]:
        """Addresses of the slots."""
        return self.first, self.first + self.slot_size

    @property
    def size(self) -> int:
        """Bytes of the whole flash."""
        return self.first + 2 * self.slot_size + 2 * self.sector_size

    def facts(self) -> Facts:
        """As the C has it."""
        records = self.size - 2 * self.sector_size, self.size - self.sector_size
        return Facts(
            self.sector_size,
            self.write_size,
            self.slot_size,
            self.slots,
            records,
            (ctypes.c_uint8 * 32)(*self.image_key),
            (ctypes.c_uint8 * 32)(*self.access_key),
            (ctypes.c_uint8 * HASH)(*self.layouts),
            self.name.encode("ascii"),
        )


class Controller:
    """A controller that is new. Each call is what it does with power; it raises `PowerLost` where that is cut.

    The C has one controller in each copy of the library: a `Controller` has a copy of its own.
    """

    def __init__(self, board: Board, library: Path) -> None:
        self.board = board
        self._folder = tempfile.TemporaryDirectory()  # a second copy by another name is loaded a second time
        own = Path(self._folder.name) / library.name
        shutil.copyfile(library, own)
        self.library: Any = ctypes.CDLL(str(own))
        self.library.host_flash.restype = ctypes.POINTER(ctypes.c_uint8)
        self.library.host_count.restype = Counters
        self.library.boot_free_slot.restype = ctypes.c_uint32
        for name in ("boot", "check", "update", "arm", "confirm"):
            getattr(self.library, f"host_{name}").restype = ctypes.c_bool
        self.new()

    def new(self) -> None:
        """Erase all: a controller as it leaves the factory, with counters at 0."""
        facts = self.board.facts()
        self.library.host_new(ctypes.byref(facts), self.board.size)

    @property
    def flash(self) -> memoryview:
        """The whole flash, to look at or to spoil."""
        address = ctypes.addressof(self.library.host_flash().contents)
        return memoryview((ctypes.c_uint8 * self.board.size).from_address(address)).cast("B")

    def slot(self, which: int) -> memoryview:
        """The bytes of a slot."""
        start = self.board.slots[which]
        return self.flash[start : start + self.board.slot_size]

    @property
    def counters(self) -> Counters:
        """Operations on the flash, and what no flash would stand."""
        found: Counters = self.library.host_count()
        return found

    def cut(self, after: int = NEVER, seed: int = 0) -> None:
        """Cut power in the middle of the operation after `after` others; `seed` decides what is left."""
        self.library.host_cut(after, seed)

    def crash(self, words: Iterable[int] | None) -> None:
        """What the next start finds of a crash."""
        self.library.host_crash((ctypes.c_uint32 * CRASH)(*words) if words is not None else None)

    def boot(self) -> Choice:
        """Start: which slot's program runs, and what is remembered."""
        choice = Choice()
        self._powered(self.library.host_boot(ctypes.byref(choice)))
        return choice

    def check(self, slot: int, counter: int = 0) -> tuple[Verdict, ImageFacts]:
        """What the boot loader says of the image in a slot."""
        verdict, facts = ctypes.c_int(), ImageFacts()
        self._powered(self.library.host_check(slot, counter, ctypes.byref(verdict), ctypes.byref(facts)))
        return Verdict(verdict.value), facts

    def free_slot(self, running: int) -> int:
        """The slot for a new image while that of `running` runs."""
        return int(self.library.boot_free_slot(running))

    def update(self, running: int, image: bytes, offset: int = 0) -> Outcome:
        """Write an image, from `offset` on, into the slot that is free while that of `running` runs."""
        result, rest = ctypes.c_int(), image[offset:]
        self._powered(self.library.host_update(running, rest, offset, len(rest), ctypes.byref(result)))
        return Outcome(result.value)

    def arm(self, slot: int) -> Verdict:
        """Let the image in a slot have its trial at the next start."""
        verdict = ctypes.c_int()
        self._powered(self.library.host_arm(slot, ctypes.byref(verdict)))
        return Verdict(verdict.value)

    def confirm(self, slot: int, self_test_passed: bool = True, rack_healthy: bool = True) -> bool:
        """The program of a slot says that it has proved itself."""
        done = ctypes.c_bool()
        evidence = self_test_passed | rack_healthy << 1
        self._powered(self.library.host_confirm(slot, evidence, ctypes.byref(done)))
        return done.value

    def _powered(self, done: bool) -> None:
        if not done:
            raise PowerLost


def library(folder: Path) -> Path:
    """The boot loader for this computer, in `folder`: compiled, or kept from before. Raises `ConfigError`."""
    made = folder / "libboot.so"
    own = sorted(path for path in FOLDER.iterdir() if path.suffix in (".c", ".h"))
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise ConfigError(
            f"no C compiler found ({os.environ.get('CC') or 'cc'}): install gcc or clang, or name one in CC"
        )
    key = hashlib.sha256(b"".join(path.read_bytes() for path in own))
    key.update(" ".join([compiler, *STRICT, *(pinned.sha256 for pinned in sources.DISTRIBUTIONS)]).encode())
    code = cache.load("boot", key.digest())
    if code is None:
        _compile(compiler, [path for path in own if path.suffix == ".c"], made)
        cache.store("boot", key.digest(), made.read_bytes())
    else:
        made.write_bytes(code)
    return made


def _compile(compiler: str, own: Iterable[Path], made: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources.fetch(folder)
        usual = [compiler, "-O2", "-fPIC", "-c", f"-I{folder}"]
        jobs: list[list[str | Path]] = [[*usual, *sources.OPTIONS, folder / source] for source in sources.SOURCES]
        jobs += [[*usual, *WARNINGS, *STRICT, source] for source in own]
        objects = [folder / f"{k}.o" for k in range(len(jobs))]
        for words, target in zip(jobs, objects, strict=True):
            _run([*words, "-o", target])
        _run([compiler, "-shared", "-o", made, *objects])


def _run(words: list[str | Path]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr.strip()[-200:]]
        raise ConfigError(f"the boot loader cannot be compiled: {lines[0]}")
