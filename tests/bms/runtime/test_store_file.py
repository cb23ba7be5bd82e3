"""A file of the state store: what is read of it is one whole generation, or nothing with a reason."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.runtime import store_file as files
from bms.runtime.store_file import Cause, Saved

MEMORY = Path("/dev/shm")


def generation(n: int, **sections: bytes) -> Saved:
    """What is saved as number `n`."""
    content = sections or {"soc": bytes([n % 251]) * 40, "wear": bytes([(n + 100) % 251, n % 256]) * 12}
    return Saved(content, dict.fromkeys(content, f"layout-{n}"), n, 10.0 * n, Cause.CRASH, (1, 2, 3, n))


def encoded(saved: Saved) -> list[tuple[object, ...]]:
    """Its records as SQLite gives them back: text as bytes."""
    return [tuple(v.encode() if isinstance(v, str) else v for v in row) for row in files.rows_of(saved)]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a file goes: in memory where possible, with pages as small as SQLite has them."""
    monkeypatch.setattr(files, "PAGE_BYTES", 512)
    if not MEMORY.is_dir():
        yield tmp_path / "s.db"
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name) / "s.db"


# --- records ---------------------------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(
    st.dictionaries(names, st.binary(max_size=50), max_size=6),
    st.integers(0, 2**60),
    st.floats(0, 1e12),
    st.sampled_from(Cause),
)
def test_records_give_back_what_they_were_made_of(sections, sequence, time_s, cause) -> None:
    saved = Saved(sections, dict.fromkeys(sections, "x"), sequence, time_s, cause, (4, 3, 2, 1))
    assert files.saved_of(encoded(saved)) == saved
    assert files.saved_of(reversed(encoded(saved))) == saved, "in any order"


def test_rows_of_two_saves_are_never_taken_together() -> None:
    """Every record whole, every checksum right, but not of one save."""
    old, new = encoded(generation(4)), encoded(generation(6))
    assert files.saved_of(new).sections == generation(6).sections
    mixed = [[(old, new)[pick >> k & 1][k] for k in range(3)] for pick in range(1, 7)]
    missing = [new[:2], new[::2], new[1:]]
    for rows in [*mixed, *missing, [*new, new[2]], [*new, *old], []]:
        with pytest.raises(files.DamagedError):
            files.saved_of(rows)


@pytest.mark.parametrize("field", range(6), ids=["name", "sequence", "time", "schema", "payload", "checksum"])
def test_a_record_with_one_field_changed_is_damaged_and_the_head_still_counts(field: int) -> None:
    rows = encoded(generation(4))
    other = encoded(generation(6, other=b"x"))[1][field]
    for value in (other, None, "text"):
        rows[1] = (*rows[1][:field], value, *rows[1][field + 1 :])
        with pytest.raises(files.DamagedError) as error:
            files.saved_of(rows)
        assert error.value.sequence == 4, "that it was the fourth is known all the same"


def test_without_a_head_nothing_is_known() -> None:
    rows = encoded(generation(4))
    with pytest.raises(files.DamagedError, match="the head is missing") as error:
        files.saved_of(rows[1:])
    assert error.value.sequence == -1


def test_a_note_that_is_none_of_ours_is_damage() -> None:
    """The checksum fits, but no cause has this number: written by another version."""
    head = "", 4, 1.0, "", struct.pack("<B3x4I", 9, 0, 0, 0, 0)
    with pytest.raises(files.DamagedError, match="its note is not one of ours"):
        files.saved_of([(b"", 4, 1.0, b"", head[4], files.checksum(*head))])


def test_lengths_are_part_of_the_checksum() -> None:
    """What moves from one field into the next is noticed, though all bytes are the same."""
    assert files.checksum("ab", 1, 0.0, "c", b"d") != files.checksum("a", 1, 0.0, "bc", b"d")
    assert files.checksum("a", 1, 0.0, "bc", b"d") != files.checksum("a", 1, 0.0, "b", b"cd")


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_new_file_holds_what_it_was_made_for(path: Path) -> None:
    files.create_file(path, generation(3))
    found = files.read_file(path)
    assert (found.saved, found.whole, found.sequence, found.damage) == (generation(3), True, 3, "")
    assert files.examine(path) == found
    assert sorted(p.name for p in path.parent.iterdir()) == ["s.db"]


def test_a_file_that_could_not_be_completed_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(files, "write", fails)
    with pytest.raises(sqlite3.OperationalError):
        files.create_file(path, generation(3))
    assert not path.exists()
    monkeypatch.undo()
    files.create_file(path, generation(4))  # what was left of the first attempt is in nobody's way
    assert files.read_file(path).saved == generation(4)


def test_a_write_that_fails_leaves_the_generation_before(path: Path) -> None:
    files.create_file(path, generation(3))
    bad = Saved({"a": b"1"}, {"a": "x"}, sequence=2**63)  # more than SQLite holds
    with contextlib.closing(files.connect(path)) as connection, pytest.raises(OverflowError):
        files.write(connection, bad)
    assert files.read_file(path).saved == generation(3)


def test_every_bit_of_the_page_of_records(path: Path) -> None:
    files.create_file(path, generation(4))
    image = path.read_bytes()
    for bit in range(8 * 512, 8 * len(image)):
        data = bytearray(image)
        data[bit >> 3] ^= 1 << (bit & 7)
        path.write_bytes(data)
        found = files.read_file(path)
        assert found.saved in (None, generation(4)), bit
        assert found.saved is not None or found.damage, "there is a reason"


def test_pages_of_two_saves_are_never_taken_together(path: Path) -> None:
    """Sections over many pages: every mixture of two generations of a file is one of them, or nothing."""
    saves = [generation(n, **{name: bytes([n]) * 700 for name in "abc"}) for n in (3, 5)]
    images = []
    files.create_file(path, generation(1, **dict.fromkeys("abc", b"\x01" * 700)))
    for saved in saves:
        with contextlib.closing(files.connect(path)) as connection:
            files.write(connection, saved)
            files.empty_wal(connection)
        images.append(path.read_bytes())
    first, second = images
    pages = len(second) // 512
    assert len(first) == len(second)
    rng = random.Random(5)
    whole = 0
    for _ in range(1500):
        chosen = rng.getrandbits(pages)
        path.write_bytes(b"".join((first, second)[chosen >> k & 1][512 * k : 512 * (k + 1)] for k in range(pages)))
        found = files.read_file(path)
        if found.saved is not None:
            whole += 1
            assert found.saved in saves
    assert whole < 1000


def test_a_file_of_somebody_else_is_read_and_not_written_to(path: Path) -> None:
    files.create_file(path, generation(4))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id=7")
    found = files.read_file(path)
    assert (found.saved, found.whole) == (generation(4), False)
    assert found.damage.startswith("PRAGMA application_id")


def test_looking_at_a_file_changes_nothing(path: Path) -> None:
    path.write_bytes(b"rot" * 500)
    found = files.examine(path)
    assert (found.there, found.saved, found.whole, found.sequence) == (True, None, False, -1)
    assert path.read_bytes() == b"rot" * 500
    assert sorted(p.name for p in path.parent.iterdir()) == ["s.db"]


def test_a_wal_alone_is_something_that_is_there(path: Path) -> None:
    assert files.examine(path) == files.Found(False, damage="the file is missing")
    Path(f"{path}-wal").write_bytes(b"x")
    assert files.examine(path) == files.Found(True, damage="the file is missing")


def test_what_is_moved_aside_keeps_its_wal_and_the_last_name_is_used_again(path: Path) -> None:
    for n in range(files.KEPT_ASIDE + 2):
        path.write_bytes(b"%d" % n)
        Path(f"{path}-wal").write_bytes(b"wal %d" % n)
        target = files.move_aside(path)
        assert (target.read_bytes(), Path(f"{target}-wal").read_bytes()) == (b"%d" % n, b"wal %d" % n)
        assert not os.path.lexists(path)
    assert target.name == f"s.db.damaged-{files.KEPT_ASIDE}"
    assert path.with_name("s.db.damaged-1").read_bytes() == b"0"
