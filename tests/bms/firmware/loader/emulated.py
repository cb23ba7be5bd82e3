"""What the tests of flashing on emulated boards work with: images, a flash, and a board whose rack is measured."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from bms.core.machine_table import Request
from bms.firmware import boards, keys, sign
from bms.firmware.identity import layouts_hash
from bms.firmware.loader.flash_file import flash_file
from hal.contract import Measurement
from hal.engine.child import ANSWER_S
from hal.engine.emulator import Emulator
from hal.engine.frames import Identity, Kind, pack, question
from hal.engine.remote import Remote
from hal.errors import LinkError
from hal.flash.can_bus import can_place
from hal.flash.image import parse
from hal.flash.uds import UdsFlasher
from hal.registry import open_rack, parse_url

BOARD = boards.BOARDS["cortex-m7"]
RACK = "sim:lfp_280?n_series=16&module_groups=16&seed=3"
CRASH = 9  # a kind of frame that only the program of these tests knows: it runs into an instruction that is none


@dataclass(frozen=True)
class Workshop:
    """Makes images for the board, of one program."""

    key: Path
    loader: bytes
    programs: tuple[bytes, bytes]
    config: bytes

    def image(self, slot: int, version: str, counter: int) -> bytes:
        return sign.signed(
            self.programs[slot],
            self.key,
            version=version,
            counter=counter,
            board=BOARD.machine,
            config=self.config,
            layouts=layouts_hash(),
            address=BOARD.slots[slot],
        )


@dataclass
class Bench:
    """A board in an emulator. A thread measures its rack ten times a second over the link, unless it is `silent`."""

    emulator: Emulator
    record: Measurement
    silent: bool = False
    link: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"can:slcan:{self.emulator.port}"

    def flasher(self, key: Path | None = None) -> UdsFlasher:
        return UdsFlasher(can_place(parse_url(self.url)), None if key is None else keys.private_key(key).sign)

    @contextlib.contextmanager
    def hurried(self, answer_s: float = 0.2) -> Iterator[Remote]:
        """The program, over the link alone; what does not come within `answer_s` is taken for lost."""
        with self.link:
            self.emulator.answer_s = answer_s
            try:
                yield Remote(self.emulator)
            finally:
                self.emulator.answer_s = ANSWER_S

    def hello(self) -> Identity:
        """What the program says over the link, as soon as the boot loader has started it."""
        for _ in range(100):
            with contextlib.suppress(LinkError), self.hurried() as program:
                return program.hello()
        pytest.fail("the program does not start")

    def crash(self) -> None:
        """Let the program run into an instruction that is none."""
        with self.link:
            self.emulator.send(pack(CRASH, 0))

    def measure(self) -> None:
        head = self.record.head
        while not self._ending.wait(0.1):
            head["time_s"] += 0.1
            head["sequence"] += 1
            with self.link:  # what the board says has to be read, or else it waits
                if not self.silent:
                    frame = question(Request.OPEN, 0.0, 0, None, self.record.bytes)
                    self.emulator.send(pack(Kind.MEASURE, 0, frame))
                self.emulator.receive(0.0)

    def __enter__(self) -> Self:
        self.hello()
        self._line = os.open(self.emulator.port, os.O_RDWR | os.O_NOCTTY)  # QEMU looks but once a second who opens it
        self._thread = threading.Thread(target=self.measure)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self.emulator.close()
        if self._line >= 0:
            os.close(self._line)
            self._line = -1


def bench(workshop: Workshop, flash: Path) -> Bench:
    """The board with what `flash` holds."""
    with open_rack(RACK) as rack:
        record = Measurement(rack.info.n_cells, rack.info.n_sensors)
        rack.read(record)
    return Bench(Emulator(BOARD.emulator, BOARD.machine, workshop.loader, BOARD.store, None, kept=flash), record)


def nearly_there(flash: Path, slot: int, image: bytes) -> None:
    """Put all but the last sectors of an image into a slot, as if its sending had been cut off."""
    count = (len(image) // boards.SECTOR_SIZE - 1) * boards.SECTOR_SIZE
    at = boards.SLOTS_AT + slot * boards.SLOT_SIZE
    marks = boards.SLOTS_AT + (3 << 20) + slot * boards.SLOT_SIZE // boards.WRITE_SIZE
    with flash.open("r+b") as file:
        for place, content in ((at, image[:count]), (marks, bytes(count // boards.WRITE_SIZE))):
            file.seek(place)
            file.write(content)


def new_flash(folder: Path, image: bytes) -> Path:
    """A flash that leaves the factory with `image`."""
    path = folder / "flash"
    assert flash_file(path, BOARD, (image, parse(image)))
    return path
