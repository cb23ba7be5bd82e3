"""What a controller believes of a repository: nothing that is rolled back, mixed, expired, or signed by others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundle_yard import Yard, slots
from frail_disk import FrailDisk, PowerLostError, Watched, cut, power_lost

from hal.errors import ConfigError, LinkError
from hal.flash import disk as disks
from hal.flash import trust
from hal.flash.answers import Refused
from hal.flash.source import Folder


@dataclass
class Past:
    """A repository that was copied at some times."""

    yard: Yard
    folder: Path

    def keep(self, name: str) -> Folder:
        shutil.copytree(self.yard.folder, self.folder / name)
        return Folder(self.folder / name)


@pytest.fixture
def past(yard: Yard, tmp_path: Path) -> Past:
    yard.offer("1.0.0")
    return Past(yard, tmp_path / "past")


def accept(disk: FrailDisk, source: Folder) -> trust.Offer:
    found = trust.refresh(disk, source)
    trust.keep(disk, found)
    return found


def refused(disk: FrailDisk, source: Folder) -> str:
    before = disk.all()
    with pytest.raises(Refused) as caught:
        trust.refresh(disk, source)
    assert disk.all() == before
    return str(caught.value)


def metadata(source: Folder, name: str) -> Path:
    return source.path / "metadata" / name


def test_a_repository_that_is_rolled_back_or_frozen(past: Past) -> None:
    disk = past.yard.set_up()
    old = past.keep("old")
    accept(disk, old)
    past.yard.offer("1.1.0")
    offer = accept(disk, past.yard.source)
    assert {"rackbms-rackpc-1.0.0.tar", "rackbms-rackpc-1.1.0.tar"} <= offer.targets.targets.keys()
    assert "older perhaps" in refused(disk, old)
    accept(disk, past.yard.source)  # the same again is no rollback


def test_metadata_of_different_times_is_not_mixed(past: Past) -> None:
    old = past.keep("old")
    past.yard.offer("1.1.0")
    new = past.keep("new")
    for name, other in (("3.targets.json", "2.targets.json"), ("3.snapshot.json", "2.snapshot.json")):
        mixed = past.keep(f"mixed-{name}")
        shutil.copy(metadata(old, other), metadata(mixed, name))
        assert "metadata" in refused(past.yard.set_up(), mixed)
        metadata(mixed, name).unlink()
        assert "lacks a file" in refused(past.yard.set_up(), mixed)
    accept(past.yard.set_up(), new)


def test_expired(past: Past) -> None:
    yard = past.yard
    yard.repository.renew(yard.key, yard.expiry(days=-1))
    assert "has expired" in refused(yard.set_up(), yard.source)
    yard.repository.renew(yard.key, yard.expiry(days=1))
    disk = yard.set_up()
    accept(disk, yard.source)
    yard.repository.rotate(yard.root_key, yard.root_key, yard.key, yard.expiry(root_days=-1))
    assert "root.json is expired" in refused(disk, yard.source)


def test_another_repository(past: Past, keys: tuple[Path, Path, Path], tmp_path: Path) -> None:
    other = Yard(tmp_path / "other", keys[2], keys[2], keys[0])
    other.offer("1.0.0")
    disk = past.yard.set_up()
    assert "another key" in refused(disk, other.source)
    with pytest.raises(ConfigError, match="trusts another root already"):
        trust.pin(disk, other.root, "1.root.json")
    trust.pin(disk, past.yard.root, "1.root.json")


def test_every_byte_of_the_metadata(past: Past) -> None:
    """A bit of every fifth byte of each file that is fetched."""
    source = past.keep("spoilt")
    disk = past.yard.set_up()
    tried = 0
    for name in ("timestamp.json", "2.snapshot.json", "2.targets.json"):
        path = metadata(source, name)
        data = path.read_bytes()
        for at in range(0, len(data), 5):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            refused(disk, source)
            tried += 1
        path.write_bytes(data[:-9])
        refused(disk, source)
        path.write_bytes(data + b" " * (6 << 20))
        assert "too long" in refused(disk, source)
        path.write_bytes(data)
    assert tried > 200
    accept(disk, source)


def test_a_signature_that_is_spelt_in_another_way(past: Past) -> None:
    """Upper case means the same to who decodes it, and is not what was signed to the last byte."""
    source = past.keep("spelt")
    path = metadata(source, "timestamp.json")
    head, sig, rest = path.read_text().partition('"sig":"')
    path.write_text(f"{head}{sig}{rest[:128].upper()}{rest[128:]}")
    assert "timestamp.json was changed" in refused(past.yard.set_up(), source)


@pytest.fixture
def rotated(past: Past, keys: tuple[Path, Path, Path]) -> Yard:
    """The key for bundles is replaced, and that of the root."""
    yard = past.yard
    assert yard.repository.rotate(yard.root_key, keys[2], keys[2], yard.expiry()) == 2
    new = Yard(yard.folder, keys[2], keys[2], keys[0])
    new.offer("1.1.0")
    return new


def test_keys_are_replaced_and_what_was_installed_before_still_starts(past: Past, rotated: Yard) -> None:
    disk = rotated.set_up()
    assert len(trust.roots(disk)) == 1
    accept(disk, rotated.source)
    assert [root.version for root in trust.roots(disk)] == [1, 2]
    assert rotated.root == disk.read(trust.PINNED)


def test_a_bundle_of_an_older_root_starts_after_a_rotation(yard: Yard, keys: tuple[Path, Path, Path]) -> None:
    disk = yard.controller(yard.offer("1.0.0"))
    yard.repository.rotate(yard.root_key, yard.root_key, keys[2], yard.expiry())
    new = Yard(yard.folder, keys[2], keys[1], keys[0])
    second = new.offer("1.1.0")
    assert slots(disk).choose().slot == "a"
    new.flash(disk, second)
    assert str(slots(disk).choose().manifest.version) == "1.1.0"
    assert str(slots(disk).choose().manifest.version) == "1.0.0"
    with pytest.raises(ConfigError, match="signed with another key; bms bundle rotate"):
        yard.offer("1.2.0")


def test_a_root_that_the_one_before_has_not_signed(past: Past, rotated: Yard, tmp_path: Path) -> None:
    forged = Yard(tmp_path / "forged", past.yard.other_key, past.yard.other_key, past.yard.key)
    forged.offer("1.0.0")
    forged.repository.rotate(forged.root_key, forged.root_key, forged.key, forged.expiry())
    source = past.keep("forged root")
    shutil.copy(metadata(forged.source, "2.root.json"), metadata(source, "2.root.json"))
    assert "another key" in refused(rotated.set_up(), source)
    disk = rotated.set_up()
    disks.replace(disk, "trust/2.root.json", metadata(forged.source, "2.root.json").read_bytes())
    assert len(trust.roots(disk)) == 1


def test_power_is_cut_while_metadata_is_kept(past: Past, rotated: Yard) -> None:
    """Whatever part of it is there, the same repository is accepted, and the one before never again once it is whole."""
    before = rotated.set_up()
    accept(before, past.keep("new"))
    rotated.offer("1.2.0")
    offer = trust.refresh(before, rotated.source)

    def keep(disk: FrailDisk) -> None:
        trust.keep(disk, offer)

    watched = Watched(before.copy())
    keep(watched)  # type: ignore[arg-type]
    assert len(watched.calls) == 3 * 7
    seen = set()
    for at in range(len(watched.calls)):
        for seed in range(4):
            meddled = Watched(before.copy())
            meddled.at, meddled.meddle = at, cut("amid", power_lost)
            with pytest.raises(PowerLostError):
                keep(meddled)  # type: ignore[arg-type]
            disk = meddled.disk.after_cut(seed)  # type: ignore[attr-defined]
            key = frozenset(disk.all().items())
            if key not in seen:
                seen.add(key)
                accept(disk, rotated.source)
                assert disk.read("trust/timestamp.json") == offer.files["timestamp.json"]
    assert len(seen) > 10


def test_metadata_that_rots_is_fetched_again(past: Past) -> None:
    disk = past.yard.set_up()
    offer = accept(disk, past.yard.source)
    for name in trust.LATEST:
        disks.replace(disk, f"trust/{name}", b"rotten")
    accept(disk, past.yard.source)
    assert disk.read("trust/targets.json") == offer.files["targets.json"]


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:-30], lambda data: data.replace(b"1", b"2", 1)])
def test_what_is_no_root(past: Past, spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ConfigError, match="x.json: no root of trust"):
        trust.pin(FrailDisk(), spoil(past.yard.root), "x.json")
    with pytest.raises(ConfigError, match="no root of trust"):
        trust.pin(FrailDisk(), metadata(past.yard.source, "timestamp.json").read_bytes(), "timestamp.json")


def test_a_bundle_that_is_not_there(past: Past) -> None:
    with pytest.raises(Refused, match=r"no bundle x.tar \(it has: rackbms-rackpc-1.0.0.tar\)"):
        accept(past.yard.set_up(), past.yard.source).target("x.tar")


def test_a_repository_that_cannot_be_reached(past: Past) -> None:
    class Away(Folder):
        def stream(self, name: str, offset: int):  # type: ignore[no-untyped-def]
            raise LinkError("the network is down")

    with pytest.raises(LinkError, match="the network is down"):
        trust.refresh(past.yard.set_up(), Away(past.yard.folder))
