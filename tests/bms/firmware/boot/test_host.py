"""The boot loader's decisions, and what its C says of itself to Python."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bms.firmware.boot import host, sources
from bms.firmware.boot.host import NO_SLOT, Controller, Event, Outcome, PowerLost, Verdict
from hal.errors import ConfigError

CRASH = (0x43524153, 4, 0x1234, 0x5678, 0x82, 0x20000000, 77, 99)


@pytest.fixture
def controller(workshop) -> Controller:
    """One with an image in slot 0 that has proved itself."""
    made = workshop.controller()
    assert made.update(NO_SLOT, workshop.image("1.0.0", 1, b"one")) is Outcome.GOOD
    assert made.arm(0) is Verdict.GOOD
    assert made.confirm(made.boot().slot)
    return made


@pytest.mark.parametrize(
    ("kind", "header", "prefix"),
    [(Verdict, "image.h", "IMAGE_"), (Event, "record.h", "EVENT_"), (Outcome, "update.h", "UPDATE_")],
)
def test_numbers_are_those_of_the_c(kind: type[Verdict], header: str, prefix: str) -> None:
    found = re.findall(rf"^ +{prefix}(\w+) = (\d+),", (host.FOLDER / header).read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in found} == {member.name: int(member) for member in kind}


def test_structures_are_those_of_the_c(tmp_path: Path, workshop) -> None:
    structures = {
        "port_facts": host.Facts, "image_facts": host.ImageFacts, "boot_record": host.Record,
        "boot_choice": host.Choice, "host_counters": host.Counters,
    }  # fmt: skip
    lines = ['#include "host.h"']
    for name, structure in structures.items():
        lines.append(f'_Static_assert(sizeof({name}) == {host.ctypes.sizeof(structure)}, "{name}");')
        for field, _ in structure._fields_:
            offset = getattr(structure, field).offset
            lines.append(f'_Static_assert(offsetof({name}, {field}) == {offset}, "{name}.{field}");')
    (tmp_path / "check.c").write_text("\n".join(lines))
    subprocess.run(["cc", "-std=c11", "-fsyntax-only", f"-I{host.FOLDER}", tmp_path / "check.c"], check=True)


def test_a_controller_without_an_image_starts_none(workshop) -> None:
    controller = workshop.controller()
    choice = controller.boot()
    assert (choice.slot, choice.record.number, controller.counters.operations) == (NO_SLOT, 0, 0)
    assert controller.free_slot(NO_SLOT) == 0
    assert not controller.confirm(NO_SLOT)


def test_an_image_from_the_factory_is_adopted(workshop) -> None:
    controller = workshop.controller()
    images = [
        workshop.image("1.0.0", 3, b"one"),
        workshop.image("1.0.1", 3, b"two"),
        workshop.image("9.0.0", 2, b"three"),
    ]
    for first, second, expected in ((0, 1, 1), (1, 0, 0), (0, 2, 0), (2, 0, 1)):
        controller.new()
        for slot, image in enumerate((images[first], images[second])):
            controller.slot(slot)[: len(image)] = image
        choice = controller.boot()
        assert (choice.slot, choice.record.active, choice.record.counter) == (expected, expected, 3)
        assert Event(choice.record.event) is Event.ADOPTED
        before = controller.counters.operations
        assert controller.boot().slot == expected
        assert controller.counters.operations == before  # a start writes nothing where nothing changes


@pytest.mark.parametrize("evidence", [(False, False), (False, True), (True, False)])
def test_a_trial_is_confirmed_with_all_evidence_only(controller: Controller, workshop, evidence) -> None:
    assert controller.update(0, workshop.image("2.0.0", 1, b"two")) is Outcome.GOOD
    assert controller.arm(1) is Verdict.GOOD
    assert controller.boot().slot == 1
    assert not controller.confirm(1, *evidence)
    assert controller.free_slot(1) == NO_SLOT  # the image before stays until the trial is over
    assert controller.update(1, b"x" * 64) is Outcome.NO_SLOT
    assert controller.boot().slot == 0
    assert not controller.confirm(1)  # too late


def test_confirming_again_changes_nothing(controller: Controller) -> None:
    before = controller.counters.operations
    assert controller.confirm(0)
    assert not controller.confirm(1)
    assert controller.counters.operations == before


def test_the_image_that_runs_is_never_written(controller: Controller) -> None:
    before = bytes(controller.slot(0))
    assert controller.update(0, b"x" * controller.board.slot_size) is Outcome.GOOD
    assert bytes(controller.slot(0)) == before
    assert controller.arm(0) is Verdict.OTHER_SLOT
    assert controller.arm(1) is Verdict.ABSENT
    assert controller.boot().slot == 0


def test_an_update_goes_on_from_any_sector(controller: Controller, workshop) -> None:
    image = workshop.image("2.0.0", 1, bytes(range(256)) * 10)
    assert controller.update(0, image[:1500]) is Outcome.GOOD
    assert controller.arm(1) is not Verdict.GOOD
    for offset in (1, 512, controller.board.slot_size, controller.board.slot_size + 1024):
        assert controller.update(0, b"x" * (offset + 1), offset) is Outcome.OUT_OF_RANGE
    assert controller.update(0, image, 1024) is Outcome.GOOD
    assert controller.arm(1) is Verdict.GOOD
    assert controller.counters.violations == 0


def test_a_damaged_image_is_replaced_by_the_other_one(controller: Controller, workshop) -> None:
    assert controller.update(0, workshop.image("2.0.0", 1, b"two")) is Outcome.GOOD
    assert controller.arm(1) is Verdict.GOOD
    assert controller.confirm(controller.boot().slot)
    controller.slot(1)[600] ^= 1  # a bit of flash has turned
    choice = controller.boot()
    assert (choice.slot, Event(choice.record.event), choice.record.counter) == (0, Event.ADOPTED, 1)


def test_an_image_that_has_failed_is_nothing_to_fall_back_to(controller: Controller, workshop) -> None:
    assert controller.update(0, workshop.image("2.0.0", 1, b"two")) is Outcome.GOOD
    assert controller.arm(1) is Verdict.GOOD
    assert [controller.boot().slot for _ in range(2)] == [1, 0]
    controller.slot(0)[600] ^= 1
    assert controller.boot().slot == NO_SLOT


def test_an_image_that_nobody_has_armed_is_nothing_to_fall_back_to(controller: Controller, workshop) -> None:
    assert controller.update(0, workshop.image("2.0.0", 1, b"two")) is Outcome.GOOD
    controller.slot(0)[600] ^= 1
    assert controller.boot().slot == NO_SLOT


def test_what_is_refused_is_remembered_with_its_reason(controller: Controller, workshop) -> None:
    assert controller.update(0, workshop.image("2.0.0", 0, b"two")) is Outcome.GOOD
    assert controller.arm(1) is Verdict.OLDER
    choice = controller.boot()
    assert (choice.slot, choice.record.event, choice.record.verdict) == (0, Event.REFUSED, Verdict.OLDER)


@pytest.mark.parametrize("which", [0, 1])
def test_one_record_that_is_lost_does_no_harm(controller: Controller, which: int) -> None:
    start = controller.board.size - (2 - which) * controller.board.sector_size
    for _ in range(2):  # it is written again, so that the other one may be lost next
        controller.flash[start + 12] ^= 1
        choice = controller.boot()
        assert (choice.slot, choice.record.counter, Event(choice.record.event)) == (0, 1, Event.CONFIRMED)
        start = 2 * controller.board.size - 3 * controller.board.sector_size - start
    before = controller.counters.operations
    assert controller.boot().slot == 0
    assert controller.counters.operations == before


def test_a_bit_of_a_record_that_has_turned_is_noticed(controller: Controller) -> None:
    before = bytes(controller.boot().record)
    start = controller.board.size - 2 * controller.board.sector_size
    for at in range(len(before)):
        for sector in (start, start + controller.board.sector_size):
            controller.flash[sector + at] ^= 1 << at % 8
            record = controller.boot().record
            assert (record.active, record.counter, record.event) == (0, 1, Event.CONFIRMED), at
            assert record.number == int.from_bytes(before[4:8], "little") + 1 + 2 * at + (sector > start)


@pytest.mark.parametrize("which", [0, 1])
def test_the_newer_of_two_records_counts(workshop, which: int) -> None:
    """As they are where power was cut between the two."""
    controller = workshop.controller()
    assert controller.update(NO_SLOT, workshop.image("1.0.0", 1, b"one")) is Outcome.GOOD
    assert controller.arm(0) is Verdict.GOOD
    assert controller.boot().slot == 0
    size = controller.board.sector_size
    start = controller.board.size - (2 - which) * size
    older = bytes(controller.flash[start : start + size])
    assert controller.confirm(0)
    controller.flash[start : start + size] = older
    for at in range(8):  # also where power is cut while they are made alike
        controller.cut(at)
        with pytest.raises(PowerLost):
            controller.boot()
        assert Event(controller.boot().record.event) is Event.CONFIRMED
        controller.flash[start : start + size] = older


def test_what_a_crash_has_left_is_kept_and_written_once(controller: Controller) -> None:
    controller.crash(CRASH)
    assert tuple(controller.boot().record.crash) == CRASH
    before = controller.counters.operations
    controller.crash((*CRASH[:6], 1234, 5))  # the same again, some steps later
    assert tuple(controller.boot().record.crash) == CRASH
    assert controller.counters.operations == before
    controller.crash((*CRASH[:2], 0x4321, *CRASH[3:]))
    assert controller.boot().record.crash[2] == 0x4321
    controller.crash(None)
    assert controller.boot().record.crash[2] == 0x4321


def test_where_nothing_can_be_remembered_nothing_new_is_tried(workshop) -> None:
    """The sectors of the records are worn out: the image that is there runs, and stays the one that does."""
    controller = workshop.controller()
    facts = controller.board.facts()
    facts.records[0] = facts.records[1] = controller.board.size
    controller.library.host_new(host.ctypes.byref(facts), controller.board.size)
    image, newer = workshop.image("1.0.0", 1, b"one"), workshop.image("2.0.0", 1, b"two")
    controller.slot(0)[: len(image)] = image
    assert controller.boot().slot == 0
    assert controller.update(0, newer) is Outcome.FLASH
    assert controller.arm(1) is Verdict.ABSENT
    controller.slot(0)[: len(newer)] = newer
    assert controller.arm(0) is Verdict.UNREADABLE
    assert not controller.confirm(0)


@pytest.mark.parametrize("write_size", [8, 16, 32])
def test_flashes_with_other_units(workshop, write_size: int) -> None:
    controller = workshop.controller(write_size=write_size, sector_size=512, slot_sectors=20)
    assert controller.update(NO_SLOT, workshop.image("1.0.0", 1, b"p" * 3001)) is Outcome.GOOD
    assert controller.arm(0) is Verdict.GOOD
    assert controller.boot().slot == 0
    assert controller.counters.violations == 0


def test_the_flash_in_memory_is_strict(controller: Controller) -> None:
    erase, write = controller.library.port_erase, controller.library.port_write
    for call in (
        lambda: write(0x4000, b"x" * 32, 32),  # written before
        lambda: write(0x7FF0, b"x" * 32, 32),  # not aligned
        lambda: write(0x7000, b"x" * 31, 31),
        lambda: write(controller.board.size, b"x" * 32, 32),  # outside
        lambda: erase(0x4020),
        lambda: erase(controller.board.size),
    ):
        before = controller.counters.violations
        assert not call() & 0xFF
        assert controller.counters.violations == before + 1


def test_the_c_is_clean_and_small_for_a_microcontroller(tmp_path: Path, workshop) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed: apt-get install gcc-arm-none-eabi")
    sources.fetch(tmp_path)
    own = [path for path in sorted(host.FOLDER.glob("*.c")) if not path.name.startswith("host")]
    usual = ["arm-none-eabi-gcc", "-c", "-Os", "-mcpu=cortex-m7", "-mthumb", "-ffunction-sections", f"-I{tmp_path}"]
    subprocess.run([*usual, *host.WARNINGS, "-fanalyzer", *own], cwd=tmp_path, check=True)
    lines = subprocess.run(
        ["arm-none-eabi-size", "-t", *(tmp_path / f"{path.stem}.o" for path in own)],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    text, _, bss = map(int, lines[-1].split()[:3])
    assert text < 10240, "the boot loader without cryptography"
    assert bss < 8192


def test_mistakes_of_the_compiler_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ConfigError, match="no C compiler found"):
        host.library(tmp_path)
    with pytest.raises(ConfigError, match="the boot loader cannot be compiled: "):
        host._run(["cc", "-c", tmp_path / "none.c"])
