"""Which bundle starts: trial, confirmation, revert, and that nothing starts that is not right to the last byte."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from bundle_yard import IDENTITY, NOW, Yard, slots
from frail_disk import FrailDisk

from hal.errors import ConfigError
from hal.flash import disk as disks
from hal.flash import slot_record, trust
from hal.flash.answers import Refused
from hal.flash.slot_record import FILES, Event
from hal.flash.slots import Identity, Slots


@pytest.fixture(scope="module")
def armed(stock: Yard) -> FrailDisk:
    """1.0.0 has proved itself in slot a, 1.1.0 waits in slot b. Not to be changed."""
    disk = stock.controller(stock.bundle("1.0.0")[0])
    stock.flash(disk, stock.bundle("1.1.0")[0])
    return disk


@pytest.fixture
def disk(armed: FrailDisk) -> FrailDisk:
    return armed.copy()


def start(disk: FrailDisk) -> tuple[str, Event]:
    choice = slots(disk).choose()
    assert choice.record == slot_record.load(disk)[0]
    return str(choice.manifest.version), choice.record.event


def test_trial_and_revert(disk: FrailDisk) -> None:
    assert [start(disk) for _ in range(3)] == [
        ("1.1.0", Event.TRIED), ("1.0.0", Event.REVERTED), ("1.0.0", Event.REVERTED),
    ]  # fmt: skip
    record = slots(disk).record()
    assert (record.active, record.trial, record.failed) == ("a", "", "b")
    assert [line.rpartition(": ")[2] for line in record.log[-2:]] == [
        "the next start is that of the bundle before, unless it confirms itself",
        "the new one did not confirm itself",
    ]
    assert record.log[-1].startswith(f"{NOW:%Y-%m-%d %H:%M:%S} rackbms-rackpc-1.1.0: ")


def test_a_trial_that_confirms_itself_stays(disk: FrailDisk) -> None:
    choice = slots(disk).choose()
    assert choice.on_trial
    assert not slots(disk).confirm("b", self_test_passed=True, rack_healthy=False)
    assert not slots(disk).confirm("b", self_test_passed=False, rack_healthy=True)
    assert slots(disk).record().trial == "b", "evidence was missing"
    assert slots(disk).confirm("a", self_test_passed=True, rack_healthy=True), "it has proved itself before"
    assert slots(disk).confirm("b", self_test_passed=True, rack_healthy=True)
    assert slots(disk).confirm("b", self_test_passed=True, rack_healthy=True), "as often as it likes"
    assert not slots(disk).confirm("a", self_test_passed=True, rack_healthy=True)
    assert [start(disk)[0] for _ in range(2)] == ["1.1.0", "1.1.0"]
    assert not slots(disk).choose().on_trial


def test_a_bundle_that_was_damaged_during_its_trial_is_not_confirmed(disk: FrailDisk) -> None:
    start(disk)
    disks.replace(disk, "slots/b/rack.toml", b"x = 2\n")
    assert not slots(disk).confirm("b", self_test_passed=True, rack_healthy=True)
    assert start(disk) == ("1.0.0", Event.REFUSED)


def test_looking_changes_nothing(disk: FrailDisk) -> None:
    before = disk.all()
    assert str(slots(disk).look().manifest.version) == "1.1.0"
    assert disk.all() == before
    assert disk.root.entries()["state-0"].pending == []


def test_without_the_record_the_newest_that_is_good_starts(disk: FrailDisk) -> None:
    for name in FILES:
        disks.replace(disk, name, b"rotten")
    assert start(disk) == ("1.1.0", Event.ADOPTED)
    assert slot_record.load(disk)[1], "and the record is whole again"


def test_a_record_that_is_there_once_is_written_twice_again(stock: Yard) -> None:
    for name in FILES:
        proven = stock.controller(stock.bundle("1.0.0")[0])
        disks.replace(proven, name, b"rotten")
        assert start(proven) == ("1.0.0", Event.CONFIRMED)
        assert slot_record.load(proven)[1]


def test_a_slot_that_is_being_written_is_nothing_to_fall_back_to(disk: FrailDisk) -> None:
    assert slots(disk).open("rackbms-rackpc-1.2.0") == "b"
    disks.replace(disk, "slots/a/rack.toml", b"x = 2\n")
    with pytest.raises(Refused, match="no bundle is good"):
        slots(disk).choose()


def test_a_damaged_bundle_gives_way_to_the_other_one(disk: FrailDisk) -> None:
    start(disk)
    assert slots(disk).confirm("b", self_test_passed=True, rack_healthy=True)
    disks.replace(disk, "slots/b/librackbms.so", b"\x7fELF")
    assert start(disk) == ("1.0.0", Event.ADOPTED)


def test_every_file_of_a_slot_is_checked_to_the_last_byte(disk: FrailDisk) -> None:
    """Each byte of the small files and a sample of the library, one bit after the other."""
    checked = 0
    for name in disk.names("slots/b"):
        data = disk.read(f"slots/b/{name}")
        places = range(len(data)) if len(data) < 3000 else range(0, len(data), 997)
        for at in places:
            bit = 1 << at % 8
            spoilt = disk.copy()
            disks.replace(spoilt, f"slots/b/{name}", data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            with pytest.raises(Refused):
                slots(spoilt).check("b", 0)
            checked += 1
    assert checked > 1500


def test_files_that_are_missing_cut_short_or_one_too_many(disk: FrailDisk) -> None:
    for name in disk.names("slots/b"):
        data = disk.read(f"slots/b/{name}")
        for spoil in (b"", data[:-1], data + b"\n", None):
            spoilt = disk.copy()
            if spoil is None:
                spoilt.unlink(f"slots/b/{name}")
            else:
                disks.replace(spoilt, f"slots/b/{name}", spoil)
            assert start(spoilt) == ("1.0.0", Event.REFUSED), name
    disks.replace(disk, "slots/b/more.so", b"")
    assert start(disk) == ("1.0.0", Event.REFUSED)
    assert slots(disk).record().why == "more.so does not belong to it"


def test_a_link_in_place_of_a_file_is_refused(disk: FrailDisk) -> None:
    disk.unlink("slots/b/rack.toml")
    disk.symlink("../a/rack.toml", "slots/b/rack.toml")
    assert start(disk) == ("1.0.0", Event.REFUSED)
    assert "rack.toml: cannot be read" in slots(disk).record().why


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (replace(IDENTITY, layouts="00" * 8), "other layouts of records"),
        (replace(IDENTITY, kernels="00" * 8), "other sources than the controller's rackbms"),
        (replace(IDENTITY, machine="aarch64"), "for the processor x86_64, this is aarch64"),
    ],
)
def test_a_bundle_for_another_rackbms_does_not_start(disk: FrailDisk, identity: Identity, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        Slots(disk, identity, NOW).check("b", 0)
    with pytest.raises(Refused, match="no bundle is good"):
        Slots(disk, identity, NOW).choose()


def test_the_counter_and_the_board(disk: FrailDisk) -> None:
    with pytest.raises(Refused, match="security counter is 1, that of a bundle that ran before 2"):
        slots(disk).check("b", 2)
    disks.replace(disk, "trust/board", b"other\n")
    with pytest.raises(Refused, match="for the board rackpc, this is other"):
        slots(disk).check("b", 0)


def test_the_free_slot(disk: FrailDisk, stock: Yard) -> None:
    new = stock.set_up()
    assert slots(new).free() == "a"
    stock.flash(new, stock.bundle("1.0.0")[0])
    assert slots(new).free() == "b", "the only bundle there is stays, though it was never tried"
    assert slots(disk).free() == "b", "it waits for its trial: another may take its place"
    start(disk)
    assert slots(disk).free() == "", "on trial"
    start(disk)
    assert slots(disk).free() == "b", "it did not confirm itself"


def test_a_start_during_a_flash_begins_no_trial_of_what_is_being_written(disk: FrailDisk, stock: Yard) -> None:
    """What was armed is opened again; and what has begun its trial meanwhile is not."""
    slots(disk).open("rackbms-rackpc-1.2.0")
    assert start(disk)[0] == "1.0.0"
    stock.flash(disk, stock.bundle("1.1.0")[0])
    start(disk)
    before = disk.all()
    with pytest.raises(Refused, match="on trial"):
        slots(disk).open("rackbms-rackpc-1.2.0")
    assert disk.all() == before


def test_decisions_are_made_alone(disk: FrailDisk) -> None:
    entered: list[str] = []

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        assert entered.count("in") == entered.count("out")
        entered.append("in")
        try:
            yield
        finally:
            entered.append("out")

    here = Slots(disk, IDENTITY, NOW, alone)
    here.choose()
    here.confirm("b", self_test_passed=True, rack_healthy=True)
    here.open("x")
    with contextlib.suppress(Refused):
        here.arm("c")
    here.refused("x", "y")
    assert entered.count("in") == 5


def test_setting_up_twice_and_otherwise(stock: Yard, disk: FrailDisk) -> None:
    slots(disk).set_up(stock.root, "rackpc", "1.root.json")
    with pytest.raises(ConfigError, match="--board other: the controller is a rackpc already"):
        slots(disk).set_up(stock.root, "other", "1.root.json")
    assert start(disk)[0] == "1.1.0"


def test_without_a_root_nothing_starts_and_it_can_be_pinned_again(stock: Yard, disk: FrailDisk) -> None:
    disks.replace(disk, trust.PINNED, b"rotten")
    with pytest.raises(ConfigError, match=r"1\.root\.json"):
        slots(disk).choose()
    slots(disk).set_up(stock.root, "rackpc", "1.root.json")
    assert start(disk)[0] == "1.1.0"
