"""The cache cannot hurt: whatever becomes of its files and folders, the numbers are right and the file is good again."""

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hal.engine import Program, cache

Make = Callable[..., Program]
Said = Callable[[Program], list[Any]]

HEAD = cache.HEAD.size
KEY = b"k" * 32


def sealed(body: bytes) -> bytes:
    """`body` under a valid header."""
    return cache.HEAD.pack(cache.MAGIC, len(body), hashlib.sha256(body).digest()) + body


def flipped(place: int) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        return bytes(spoilt)

    return flip


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    **{f"magic word, byte {k}": flipped(k) for k in (0, 7)},
    **{f"length, byte {k}": flipped(8 + k) for k in range(8)},
    **{f"digest, byte {k}": flipped(16 + k) for k in (0, 15, 31)},
    **{f"key, byte {k}": flipped(HEAD + k) for k in (0, 31)},
    **{f"code, byte {k}": flipped(HEAD + 32 + k) for k in (0, 1, 17, 64, 200, 500, 999)},
    "last byte": flipped(-1),
    **{f"cut to {k} bytes": (lambda content, k=k: content[:k]) for k in (0, 1, 8, HEAD - 1, HEAD, HEAD + 32, 700)},
    "cut by one byte": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "no code": lambda content: sealed(content[HEAD : HEAD + 32]),
    "a valid file under another key": lambda content: sealed(bytes(32) + content[HEAD + 32 :]),
    "text": lambda content: b"#!/bin/sh\nexit 1\n",
}


@pytest.fixture(scope="module")
def healthy() -> dict[str, bytes]:
    return {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_a_compilation_and_is_replaced(
    small: Make, said: Said, expected: list[Any], folder: Path, damage: str, healthy: dict[str, bytes]
) -> None:
    program = small()
    path = cache.path_in(folder, "small", program.key())
    if not healthy:
        program.load()
        healthy["file"] = path.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    spoilt = DAMAGES[damage](healthy["file"])
    assert spoilt != healthy["file"]
    path.write_bytes(spoilt)
    assert not small().ready()
    assert said(small()) == expected
    assert path.read_bytes() == healthy["file"]
    assert small().ready()


@pytest.mark.parametrize(
    "what", ["directory", "full directory", "dangling link", "link", "fifo", "unreadable", "foreign"]
)
def test_something_else_in_the_place_of_the_file(
    small: Make, said: Said, expected: list[Any], folder: Path, tmp_path: Path, what: str
) -> None:
    program, other = small(), small("other", prefix="rackbms_small")
    assert said(program) == expected
    said(other)
    path = cache.path_in(folder, "small", program.key())
    good = path.read_bytes()
    path.unlink()
    if what.endswith("directory"):
        path.mkdir()
        if what.startswith("full"):
            (path / "file").write_text("")
    elif what == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "link":
        (tmp_path / "elsewhere").write_bytes(good)
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "fifo":
        os.mkfifo(path)  # reading it would wait for ever
    elif what == "unreadable":
        path.write_bytes(good[:-1])
        path.chmod(0)
    else:
        path.write_bytes(cache.path_in(folder, "other", other.key()).read_bytes())
    assert said(small()) == expected
    assert stat.S_ISREG(path.lstat().st_mode)
    assert path.read_bytes() == good
    assert not (tmp_path / "nowhere").exists()


def test_code_comes_back_as_it_was_kept(folder: Path) -> None:
    assert cache.load("p", KEY) is None
    path = cache.store("p", KEY, b"code")
    assert path is not None
    assert path.parent == folder
    assert path.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0
    assert cache.load("p", KEY) == b"code"
    assert cache.load("p", b"q" * 32) is None
    assert cache.load("q", KEY) is None


def test_old_programs_and_unfinished_files_go(folder: Path) -> None:
    for k in range(cache.KEPT + 3):
        path = cache.store("p", bytes([k]) * 32, b"%d" % k)
        assert path is not None
        os.utime(path, (1000 + k, 1000 + k))
    assert cache.store("other", KEY, b"code")
    old, new = folder / ".p-x.part", folder / ".p-y.part"
    for part, age_s in ((old, 2 * cache.ABANDONED_S), (new, 0.0)):
        part.write_bytes(b"half")
        os.utime(part, (time.time() - age_s,) * 2)
    last = bytes([cache.KEPT + 3]) * 32
    assert cache.store("p", last, b"last")
    assert cache.load("p", last) == b"last"
    assert [cache.load("p", bytes([k]) * 32) for k in range(cache.KEPT + 3)][-cache.KEPT + 1 :] == [b"4", b"5", b"6"]
    assert len(list(folder.glob("p-*.bin"))) == cache.KEPT
    assert cache.load("other", KEY) == b"code"
    assert (old.exists(), new.exists()) == (False, True)


def test_the_folder_that_is_named_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path / "file"))
    assert cache.folders() == [tmp_path / "file" / "rackbms"]
    assert cache.store("p", KEY, b"code") is None
    assert cache.load("p", KEY) is None
    assert not cache.writable()


def test_without_a_home_among_the_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RACKBMS_CACHE_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = tmp_path / f"rackbms-{os.getuid()}"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folders() == [tmp_path / "xdg" / "rackbms", own]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folders() == [tmp_path / "home" / ".cache" / "rackbms", own]

    (tmp_path / "home").write_text("no folder can be made here")
    assert cache.writable()
    path = cache.store("p", KEY, b"code")
    assert path is not None
    assert path.parent == own
    assert cache.load("p", KEY) == b"code"

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert cache.folders() == [own]
    assert cache.load("p", KEY) == b"code"


@pytest.mark.parametrize("spoil", ["writable for all", "writable for the group", "of another user", "a link", "a file"])
def test_a_folder_that_others_can_fill_is_not_used(
    folder: Path, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.store("p", KEY, b"code")
    if spoil.startswith("writable"):
        folder.chmod(0o777 if spoil.endswith("all") else 0o770)
    elif spoil == "of another user":
        if os.getuid() == 0:
            os.chown(folder, 12345, 12345)
        else:
            monkeypatch.setattr(os, "getuid", lambda: 12345)
    else:
        folder.rename(tmp_path / "moved")
        if spoil == "a link":
            folder.symlink_to(tmp_path / "moved")
        else:
            folder.write_text("")
    assert cache.load("p", KEY) is None
    assert cache.store("p", KEY, b"code") is None
    assert not cache.writable()


def test_nothing_is_written_where_nothing_can_be(
    small: Make, said: Said, expected: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**kwargs: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache.tempfile, "mkstemp", refuse)
    assert said(small()) == expected
    assert list(folder.iterdir()) == []


def test_a_full_disk_leaves_no_half_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cache.store("p", KEY, b"code") is None
    assert list(folder.iterdir()) == []


def test_the_digest_of_sources_follows_names_contents_and_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_text("1")
    (tmp_path / "a" / "note.txt").write_text("not a source")
    (tmp_path / "b.py").write_text("2")
    sources = [tmp_path / "a", tmp_path / "b.py"]
    seen = {cache.digest_of(sources)}
    (tmp_path / "a" / "note.txt").write_text("changed")
    assert cache.digest_of(sources) in seen
    for change in (
        lambda: (tmp_path / "a" / "x.py").write_text("3"),
        lambda: (tmp_path / "a" / "x.py").rename(tmp_path / "a" / "y.py"),
        lambda: (tmp_path / "a" / "z.py").write_text(""),
        sources.reverse,
    ):
        change()
        seen.add(cache.digest_of(sources))
    seen.add(cache.digest_of(sources, "word"))
    seen.add(cache.digest_of(sources, "wo", "rd"))
    assert len(seen) == 7
