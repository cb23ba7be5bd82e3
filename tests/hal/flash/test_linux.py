"""Flashing a Linux controller: what is refused and why, and that it goes on where it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_yard import Yard, slots
from frail_disk import FrailDisk

from hal.errors import ConfigError, LinkError
from hal.flash import linux
from hal.flash.answers import Refused
from hal.flash.bundle import Entry, Manifest, pack
from hal.flash.disk import PIECE
from hal.flash.linux import LinuxFlasher, LinuxPlace, linux_place
from hal.flash.slot_record import Event
from hal.flash.source import Folder
from hal.registry import parse_url


@pytest.fixture
def old(yard: Yard) -> FrailDisk:
    """A controller that runs 1.1.0 with security counter 3."""
    return yard.controller(yard.offer("1.1.0", 3))


def stored(yard: Yard, manifest: Manifest, suffix: str = ".tar") -> Path:
    return next((yard.folder / "targets").glob(f"*.{manifest.name}{suffix}"))


def refused(yard: Yard, disk: FrailDisk, manifest: Manifest) -> str:
    """The reason, which the controller remembers, too; what ran before still does, and nothing waits."""
    with pytest.raises(Refused) as caught:
        yard.flash(disk, manifest)
    why = str(caught.value)
    assert why.startswith("linux:/x: refused: ")
    assert "\n" not in why
    record = slots(disk).record()
    assert (record.event, record.why) == (Event.REFUSED, why.removeprefix("linux:/x: refused: "))
    assert record.log[-1].endswith(record.why)
    assert (str(slots(disk).choose().manifest.version), slots(disk).record().trial) == ("1.1.0", "")
    return record.why


def test_a_bundle_is_installed_in_the_other_slot_and_told(yard: Yard, old: FrailDisk) -> None:
    flasher = LinuxFlasher(slots(old), "linux:/x")
    assert flasher.state().told() == f"rackpc: runs 1.1.0 from slot a, configuration {'33' * 8}; confirmed"
    steps: list[tuple[int, int]] = []
    new = yard.offer("1.2.0", 3)
    flasher.flash(new.archive, yard.source, lambda done, size: steps.append((done, size)))
    size = stored(yard, new).stat().st_size
    assert steps == [(0, size), (PIECE, size), (size, size)]
    assert flasher.state().told().endswith("; 1.2.0 in slot b waits for its trial at the next start")
    assert old.names("incoming") == []
    assert str(slots(old).choose().manifest.version) == "1.2.0"
    assert flasher.state().told() == (
        f"rackpc: runs 1.2.0 from slot b, configuration {'33' * 8}; "
        "on trial: the next start is that of the bundle before, unless it confirms itself"
    )


def test_what_runs_or_waits_already_is_left_alone(yard: Yard, old: FrailDisk) -> None:
    new = yard.offer("1.2.0", 3)
    yard.flash(old, new)
    before = old.all()
    yard.flash(old, new)
    assert old.all() == before
    slots(old).choose()
    slots(old).confirm("b", self_test_passed=True, rack_healthy=True)
    before = old.all()
    yard.flash(old, new)
    assert old.all() == before


def test_a_bundle_that_did_not_confirm_itself_may_be_flashed_again(yard: Yard, old: FrailDisk) -> None:
    new = yard.offer("1.2.0", 3)
    for _ in range(2):
        yard.flash(old, new)
        assert str(slots(old).choose().manifest.version) == "1.2.0"
        assert str(slots(old).choose().manifest.version) == "1.1.0"


def test_while_one_is_on_trial_nothing_is_flashed(yard: Yard, old: FrailDisk) -> None:
    yard.flash(old, yard.offer("1.2.0", 3))
    slots(old).choose()
    with pytest.raises(Refused, match="on trial: wait until it has confirmed itself"):
        yard.flash(old, yard.offer("1.3.0", 3))


def test_after_the_first_bundle_a_second_goes_into_the_other_slot(yard: Yard) -> None:
    """One that has not confirmed itself, with nothing to go back to, may be replaced by another."""
    yard.offer("1.0.0")
    disk = yard.set_up()
    yard.flash(disk, yard.offer("1.1.0"))
    assert slots(disk).choose().slot == "a"
    yard.flash(disk, yard.offer("1.2.0"))
    assert slots(disk).choose().slot == "b"
    assert slots(disk).choose().slot == "a", "taken over, for the other one did not confirm itself"


@pytest.mark.parametrize(
    ("number", "counter", "changes", "reason"),
    [
        ("1.2.0", 2, {}, "its security counter is 2, that of a bundle that ran before 3"),
        ("1.0.9", 3, {}, "version 1.0.9 is older than 1.1.0, which runs; --allow-older takes it"),
        ("1.2.0", 3, {"board": "other"}, "it is for the board other, this is rackpc"),
        ("1.2.0", 3, {"machine": "aarch64"}, "it is for the processor aarch64, this is x86_64"),
        ("1.2.0", 3, {"layouts": "00" * 8}, f"it has other layouts of records ({'00' * 8}) than the controller ({'11' * 8})"),
        ("1.2.0", 3, {"kernels": "00" * 8}, "its library was made of other sources than the controller's rackbms: 0.1.0"),
    ],
)  # fmt: skip
def test_a_bundle_that_does_not_fit(
    yard: Yard, old: FrailDisk, number: str, counter: int, changes: dict[str, str], reason: str
) -> None:
    assert refused(yard, old, yard.offer(number, counter, **changes)) == reason
    assert old.names("incoming") == [], "it was not even fetched"


def test_an_older_one_is_taken_where_that_is_meant(yard: Yard, old: FrailDisk) -> None:
    yard.flash(old, yard.offer("1.0.9", 3), allow_older=True)
    assert str(slots(old).choose().manifest.version) == "1.0.9"
    slots(old).confirm("b", self_test_passed=True, rack_healthy=True)
    with pytest.raises(Refused, match="security counter"):
        yard.flash(old, yard.offer("1.0.8", 2), allow_older=True)


def test_a_bit_is_flipped_in_a_bundle_or_its_manifest(yard: Yard, old: FrailDisk) -> None:
    new = yard.offer("1.2.0", 3)
    for suffix, reason in ((".tar", "the bundle was changed after"), (".json", "its manifest was changed after")):
        path = stored(yard, new, suffix)
        data = path.read_bytes()
        for at in range(0, len(data), len(data) // 40):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            assert refused(yard, old, new).startswith(reason)
        path.write_bytes(data[:-1])
        assert "cut short" in refused(yard, old, new)
        path.write_bytes(data + b"\0" * 100_000)
        assert "long" in refused(yard, old, new)
        path.unlink()
        assert "is missing" in refused(yard, old, new)
        path.write_bytes(data)
    yard.flash(old, new)
    assert str(slots(old).choose().manifest.version) == "1.2.0"


def test_a_repository_that_expired_or_is_of_others(yard: Yard, old: FrailDisk, keys, tmp_path: Path) -> None:
    new = yard.offer("1.2.0", 3)
    yard.repository.renew(yard.key, yard.expiry(days=-1))
    assert "has expired" in refused(yard, old, new)
    other = Yard(tmp_path / "other", keys[2], keys[2], keys[0])
    other.offer("1.2.0", 3)
    assert "another key than the controller trusts" in refused(other, old, new)


def test_a_repository_of_yesterday(yard: Yard, old: FrailDisk, tmp_path: Path) -> None:
    past = Yard(tmp_path / "past", yard.key, yard.root_key, yard.other_key)
    shutil.copytree(yard.folder, past.folder)
    new = yard.offer("1.2.0", 3)
    yard.flash(old, new)
    slots(old).choose()
    slots(old).choose()
    assert "older perhaps" in refused(past, old, yard.bundle("1.1.0", 3)[0])


def test_a_bundle_with_the_wrong_content_under_a_right_signature(yard: Yard, old: FrailDisk) -> None:
    """As a mistake in making it would be: the signature is not asked what it has signed."""
    manifest, files = yard.bundle("1.2.0", 3)
    other, other_files = yard.bundle("1.2.1", 3)
    names = (manifest.archive, f"{manifest.name}.json")
    for archive, told, reason in (
        (pack(other, other_files), manifest.to_bytes(), "has another manifest than the one that was signed"),
        (pack(manifest, {**files, "rack.toml": b"y = 1\n"}), manifest.to_bytes(), "rack.toml was changed"),
        (b"no tar", manifest.to_bytes(), "no bundle"),
        (pack(manifest, files), b"{}", "no manifest of a bundle"),
    ):
        shelf = Yard(yard.folder.parent / reason[:12], yard.key, yard.root_key, yard.other_key)
        shelf.repository.create(yard.key, yard.root_key, yard.expiry())
        shelf.repository.add(yard.key, yard.expiry(), dict(zip(names, (archive, told), strict=True)))
        shelf.repository.renew(yard.key, yard.expiry())  # newer than what the controller has seen
        assert reason in refused(shelf, old.copy(), manifest)


def test_a_bundle_that_is_too_large(yard: Yard, old: FrailDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    new = yard.offer("1.2.0", 3)
    monkeypatch.setattr(linux, "LARGEST", 1000)
    assert "1000 at most" in refused(yard, old, new)
    monkeypatch.setattr(linux, "LARGEST_MANIFEST", 100)
    assert "its manifest has" in refused(yard, old, new)


class Falling(Folder):
    """A repository that is lost after some pieces of a bundle."""

    def __init__(self, path: Path, pieces: int) -> None:
        super().__init__(path)
        self.pieces = pieces
        self.offsets: list[int] = []

    def stream(self, name: str, offset: int) -> Iterator[bytes]:
        if not name.endswith(".tar"):
            yield from super().stream(name, offset)
            return
        self.offsets.append(offset)
        for k, piece in enumerate(super().stream(name, offset)):
            if k == self.pieces:
                raise LinkError("the line is dead")
            yield piece


def test_an_interrupted_flash_goes_on_where_it_was(yard: Yard, old: FrailDisk) -> None:
    new = yard.offer("1.2.0", 3)
    flasher = LinuxFlasher(slots(old), "linux:/x")
    source = Falling(yard.folder, 1)
    steps: list[int] = []
    with pytest.raises(LinkError, match="the line is dead"):
        flasher.flash(new.archive, source, lambda done, size: steps.append(done))
    flasher.flash(new.archive, source, lambda done, size: steps.append(done))
    assert source.offsets == [0, PIECE]
    assert steps == [0, PIECE, PIECE, stored(yard, new).stat().st_size]
    assert str(slots(old).choose().manifest.version) == "1.2.0"


def test_what_was_fetched_and_rots_is_fetched_again(yard: Yard, old: FrailDisk) -> None:
    new = yard.offer("1.2.0", 3)
    sha256 = Entry.of(stored(yard, new).read_bytes()).sha256
    for there in (b"\0" * 1000, b"\0" * 10_000_000, stored(yard, new).read_bytes()[:-5] + b"12345"):
        disk = old.copy()
        for name in (f"incoming/{sha256}.part", "incoming/older.part"):
            handle = disk.create(name)
            disk.write(handle, there)
        yard.flash(disk, new)
        assert disk.names("incoming") == []
        assert str(slots(disk).choose().manifest.version) == "1.2.0"


def test_places() -> None:
    assert linux_place(parse_url("linux:/opt/rackbms")) == LinuxPlace(Path("/opt/rackbms"))
    assert linux_place(parse_url("linux:/opt/rackbms?slot=b")).slot == "b"
    for url, reason in (
        ("linux:opt", "which folder"), ("linux:", "which folder"), ("linux:/x?slot=c", "expected a or b"),
        ("linux:/x?slut=a", "did you mean 'slot'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            linux_place(parse_url(url))


def test_a_name_that_is_none(yard: Yard, old: FrailDisk) -> None:
    yard.offer("1.2.0", 3)
    with pytest.raises(ConfigError, match="expected the name of a bundle"):
        LinuxFlasher(slots(old), "x").flash("signed.bin", yard.source)
    assert "it has: rackbms-rackpc-1.1.0.tar, rackbms-rackpc-1.2.0.tar" in refused(
        yard, old, replace(yard.bundle("1.3.0")[0])
    )
