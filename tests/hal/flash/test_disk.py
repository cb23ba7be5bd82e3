"""The disk of a Linux controller, real and in memory: the same answers, and what only a real one can be asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from frail_disk import CHANGING, FrailDisk, Watched

from hal.flash import disk as disks
from hal.flash.disk import Disk, RealDisk


@pytest.fixture(params=["real", "in memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return RealDisk(tmp_path) if request.param == "real" else FrailDisk()


def test_files_folders_and_links(disk: Disk) -> None:
    disks.make_folder(disk, "f")
    disks.make_folder(disk, "f")
    disks.replace(disk, "f/x", b"one")
    disks.replace(disk, "f/x", b"two" * 50_000)
    assert disk.read("f/x") == b"two" * 50_000
    assert (disk.size("f/x"), disk.size("f/none")) == (150_000, 0)
    with disks.closing(disk, disk.append("f/y")) as handle:
        disks.write_all(disk, handle, b"a")
    with disks.closing(disk, disk.append("f/y")) as handle:
        disks.write_all(disk, handle, b"b")
    assert disk.read("f/y") == b"ab"
    assert disk.names("f") == ["x", "y"]
    assert disk.target("current") == ""
    for target in ("f", "g"):
        disks.point(disk, "current", target)
        assert disk.target("current") == target
    disk.symlink("h", "current.new")  # as a cut may leave it
    disks.point(disk, "current", "f")
    assert disk.names("") == ["current", "f"]
    disks.empty(disk, "f")
    assert disk.names("f") == []


def test_what_is_no_file_is_not_read_or_written(disk: Disk) -> None:
    disk.mkdir("folder")
    disk.symlink("folder", "link")
    for name in ("none", "link", "folder"):
        with pytest.raises(OSError):
            disk.read(name)
    with pytest.raises(OSError):
        disk.create("link")


def test_a_real_file_is_no_larger_than_it_may_be_and_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "LARGEST", 3)
    (tmp_path / "three").write_bytes(b"123")
    (tmp_path / "four").write_bytes(b"1234")
    os.mkfifo(tmp_path / "pipe")
    disk = RealDisk(tmp_path)
    assert disk.read("three") == b"123"
    for name in ("four", "pipe"):
        with pytest.raises(OSError, match="too large"):
            disk.read(name)


def test_an_error_names_its_file(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    handle = disk.create("x")
    disk.close(handle)
    for call in (disk.sync, disk.close, lambda handle: disk.write(handle, b"1"), lambda handle: disk.chmod(handle, 0)):
        with pytest.raises(OSError) as caught:
            call(handle)
        assert caught.value.filename == "x"


def test_a_write_that_takes_nothing_is_an_error() -> None:
    class Full(FrailDisk):
        def write(self, handle: disks.Handle, data: bytes) -> int:
            return 0

    with pytest.raises(OSError, match="nothing is written"):
        disks.write_file(Full(), "x", b"1")


def test_the_disk_in_memory_loses_what_is_not_synced() -> None:
    disk = FrailDisk()
    disks.replace(disk, "x", b"old")
    handle = disk.create("x")
    disk.write(handle, b"new")
    assert disk.read("x") == b"new"
    left = {disk.after_cut(seed).read("x") for seed in range(64)}
    assert {b"old", b"", b"new", b"n"} <= left, "nothing, the cut alone, all, and a torn write"
    disk.sync(handle)
    assert {disk.after_cut(seed).read("x") for seed in range(64)} == {b"new"}
    disk.rename("x", "y")
    assert {tuple(disk.after_cut(seed).names("")) for seed in range(64)} == {("x",), ("y",)}


def test_every_change_goes_through_the_interface(tmp_path: Path) -> None:
    """What wrappers cut off is all there is: each method that changes a disk is watched."""
    methods = {name for name in vars(Disk) if not name.startswith("_")}
    assert methods - set(CHANGING) == {"read", "size", "names", "target"}
    watched = Watched(RealDisk(tmp_path))
    disks.replace(watched, "x", b"1")  # type: ignore[arg-type]
    assert len(watched.calls) == 7
