"""The state store: what it gives back is a state that was saved, or nothing, whatever became of its files."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from bms.runtime import store_file as files
from bms.runtime.store import Cause, Loaded, Saver, StateStore, Verdict
from hal.errors import ConfigError, DataError

GOOD, OLDER, EMPTY, LOST, OTHER = Verdict
SCHEMA = "layout-1"
SLOTS = ("s-a.db", "s-b.db")
MEMORY = Path("/dev/shm")


def content(n: int) -> dict[str, bytes]:
    """The state that is saved as number `n`."""
    return {"soc": bytes([n % 251]) * 40, "wear": bytes([(n + 100) % 251, n % 256]) * 12}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder in memory where there is one: thousands of images are written. Pages are as small as SQLite has them."""
    monkeypatch.setattr(files, "PAGE_BYTES", 512)
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        (Path(name) / "store").mkdir()
        yield Path(name) / "store"


def image_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def put(folder: Path, image: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in image.items():
        (folder / name).write_bytes(data)


def load(folder: Path) -> Loaded:
    with StateStore(folder / "s") as store:
        loaded = store.load(SCHEMA)
        assert store.error is None
    return loaded


def saved(folder: Path, last: int) -> dict[str, bytes]:
    """The files after `last` saves and an ordered end of the process."""
    with StateStore(folder / "s") as store:
        for n in range(1, last + 1):
            assert store.save(content(n), SCHEMA) == n
    return image_of(folder)


def check(loaded: Loaded, allowed: set[int], what: object) -> None:
    """`loaded` is one of the states `allowed`, byte for byte."""
    assert loaded.verdict in (GOOD, OLDER), (what, loaded)
    assert loaded.sequence in allowed, (what, loaded)
    assert loaded.sections == content(loaded.sequence), (what, loaded)


# --- what a store does -----------------------------------------------------------------------------------------------


def test_the_last_state_comes_back(folder: Path) -> None:
    clock = iter([10.0, 20.0, 30.0]).__next__
    with StateStore(folder / "s", clock) as store:
        assert store.load(SCHEMA).verdict == EMPTY
        for n in (1, 2, 3):
            assert store.save(content(n), SCHEMA) == n
    loaded = load(folder)
    assert (loaded.verdict, loaded.sequence, loaded.time_s) == (GOOD, 3, 30.0)
    assert loaded.sections == content(3)


def test_a_save_needs_no_load_and_takes_up_the_count(folder: Path) -> None:
    saved(folder, 2)
    with StateStore(folder / "s") as store:
        assert store.save(content(3), SCHEMA) == 3
        assert store.load(SCHEMA).sections == content(3)


def test_sections_may_come_and_go(folder: Path) -> None:
    with StateStore(folder / "s") as store:
        store.save({"a": b"1", "b": b""}, SCHEMA)
        store.save({"b": b"2", "c": b"\0" * 5000}, SCHEMA)
        store.save({"d'; --": b"3"}, SCHEMA)
        assert store.load(SCHEMA).sections == {"d'; --": b"3"}


def test_a_clock_without_a_time_is_survived(folder: Path) -> None:
    with StateStore(folder / "s", lambda: float("nan")) as store:
        assert store.save(content(1), SCHEMA) == 1
        assert store.load(SCHEMA).time_s == 0.0


@pytest.mark.parametrize(
    ("sections", "schema"),
    [
        ({"": b"x"}, SCHEMA),
        ({"a": bytes(files.MAX_BYTES + 1)}, SCHEMA),
        ({str(k): b"" for k in range(files.MAX_SECTIONS + 1)}, SCHEMA),
        ({"a" * 256: b""}, SCHEMA),
        ({"a": b""}, "s" * 256),
    ],
)
def test_what_no_store_holds_is_refused_before_anything_is_touched(folder: Path, sections, schema) -> None:
    with StateStore(folder / "s") as store:
        with pytest.raises(ValueError):
            store.save(sections, schema)
        assert sorted(p.name for p in folder.iterdir()) == ["s.lock"]


def test_another_layout_is_refused_by_section(folder: Path) -> None:
    with StateStore(folder / "s") as store:
        store.save({"soc": b"1", "wear": b"2"}, {"soc": "soc-1", "wear": "wear-1"})
        same = store.load({"soc": "soc-1", "wear": "wear-1"})
        half = store.load({"soc": "soc-2", "wear": "wear-1"})
        none = store.load("all-2")
        unknown = store.load({"wear": "wear-1"})
    assert (same.verdict, same.refused) == (GOOD, ())
    assert (half.verdict, half.sections, half.refused) == (OTHER, {"wear": b"2"}, ("soc",))
    assert "laid out differently and not used: soc" in half.message
    assert (none.verdict, none.sections, none.refused) == (OTHER, None, ("soc", "wear"))
    assert (unknown.verdict, unknown.sections) == (OTHER, {"wear": b"2"})


def test_the_files_do_not_grow(folder: Path) -> None:
    """Ten thousand saves: the old generation is overwritten in place and the WAL cut, so the bound is two snapshots."""
    payload = bytes(3000)
    with StateStore(folder / "s") as store:
        for n in range(1, 10_001):
            assert store.save({"soc": payload, "more": payload[: n % 700]}, SCHEMA) == n
            if n % 1000 == 0:
                sizes = {name: len(data) for name, data in image_of(folder).items()}
                assert sizes.keys() == {*SLOTS, "s.lock", *(f"{name}-wal" for name in SLOTS)}
                assert sum(sizes.values()) <= 2 * (4 * 512 + 1024 + 2 * 3700)


def test_the_files_are_sqlite_in_wal_mode(folder: Path) -> None:
    """For people with a shell: `sqlite3 s-a.db 'select name, sequence from record'`."""
    saved(folder, 3)
    with sqlite3.connect(folder / SLOTS[1]) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        rows = connection.execute("SELECT name, sequence, schema, length(payload) FROM record ORDER BY name").fetchall()
    connection.close()
    assert rows == [("", 3, "", 28), ("soc", 3, SCHEMA, 40), ("wear", 3, SCHEMA, 24)]


def test_saves_are_synchronous(folder: Path) -> None:
    with StateStore(folder / "s") as store:
        store.save(content(1), SCHEMA)
        assert store._connection(1).execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


# --- starts ----------------------------------------------------------------------------------------------------------


def start(folder: Path, end: Cause | None) -> tuple[Cause, tuple[int, ...]]:
    """A run that saves once; `end` None: it is killed afterwards."""
    with StateStore(folder / "s") as store:
        loaded = store.load(SCHEMA)
        assert store.begin()
        store.save(content(7), SCHEMA)
        if end is not None:
            store.save(content(8), SCHEMA, end)
    return loaded.cause, loaded.starts


def test_the_cause_of_a_start_is_how_the_run_before_ended(folder: Path) -> None:
    assert start(folder, Cause.ORDERED) == (Cause.FIRST, (1, 0, 0, 0))
    assert start(folder, None) == (Cause.ORDERED, (1, 1, 0, 0))
    assert start(folder, Cause.OPERATOR) == (Cause.CRASH, (1, 1, 1, 0))
    assert start(folder, Cause.ORDERED) == (Cause.OPERATOR, (1, 1, 1, 1))
    assert start(folder, Cause.ORDERED) == (Cause.ORDERED, (1, 2, 1, 1))


def test_a_crash_before_the_first_save_is_one(folder: Path) -> None:
    start(folder, Cause.ORDERED)
    with StateStore(folder / "s") as store:
        assert store.load(SCHEMA).cause == Cause.ORDERED
        store.begin()
    loaded = load(folder)
    assert (loaded.verdict, loaded.cause, loaded.sections) == (GOOD, Cause.CRASH, content(8))


def test_a_crash_before_anything_was_saved_leaves_an_empty_store(folder: Path) -> None:
    with StateStore(folder / "s") as store:
        store.load(SCHEMA)
        assert store.begin() == 1
    loaded = load(folder)
    assert (loaded.verdict, loaded.cause, loaded.starts) == (EMPTY, Cause.CRASH, (1, 0, 1, 0))


def test_begin_keeps_sections_of_another_layout(folder: Path) -> None:
    saved(folder, 1)
    with StateStore(folder / "s") as store:
        assert store.load("layout-2").verdict == OTHER
        assert store.begin() == 2
    assert load(folder).sections == content(1)


def test_looking_twice_counts_one_start(folder: Path) -> None:
    saved(folder, 1)
    with StateStore(folder / "s") as store:
        assert store.load(SCHEMA).starts == store.load(SCHEMA).starts


# --- damage ----------------------------------------------------------------------------------------------------------


def test_any_bit_of_a_file_of_a_closed_store(folder: Path) -> None:
    """One bit of every byte of both files through a whole start; what it mends is whole again."""
    image = saved(folder, 4)
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    verdicts: Counter[tuple[str, Verdict]] = Counter()
    for name in SLOTS:
        for at in range(len(image[name])):
            data = bytearray(image[name])
            data[at] ^= 1 << rng.randrange(8)
            put(folder, {**image, name: bytes(data)})
            loaded = load(folder)
            # the damaged file never takes the other one with it
            check(loaded, {3, 4} if name == SLOTS[0] else {4}, (name, at, seed))
            verdicts[name, loaded.verdict] += 1
            assert (loaded.sequence == 4) or loaded.verdict == OLDER
            if at % 8 == 0:
                again = load(folder)
                assert (again.verdict, again.sections) == (GOOD, loaded.sections), (name, at, seed)
                assert loaded.verdict == GOOD or (folder / f"{name}.damaged-1").exists()
    assert all(verdicts[name, OLDER] > 200 for name in SLOTS)  # the flips do hit something


def test_every_truncation_of_a_closed_store(folder: Path) -> None:
    image = saved(folder, 4)
    for name in SLOTS:
        for length in range(0, len(image[name]), 3):
            put(folder, {**image, name: image[name][:length]})
            loaded = load(folder)
            check(loaded, {3} if name == SLOTS[0] else {4}, (name, length))
            assert loaded.verdict == OLDER  # also where the newer file is the whole one: that cannot be told


def torn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], bytes, bytes, bytes]:
    """Image after save 3; then, of the file of save 4: before, its WAL once it is committed, and after."""
    wal = []
    empty = files.empty_wal

    def spy(connection: sqlite3.Connection) -> None:
        wal.append((folder / f"{SLOTS[0]}-wal").read_bytes())
        empty(connection)

    image = saved(folder, 3)
    with monkeypatch.context() as patch, StateStore(folder / "s") as store:
        patch.setattr(files, "empty_wal", spy)
        assert store.save(content(4), SCHEMA) == 4
    return image, image[SLOTS[0]], wal[0], (folder / SLOTS[0]).read_bytes()


def test_a_save_torn_at_every_byte_of_its_wal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, before, wal, after = torn(folder, monkeypatch)
    sequences = []
    for length in range(len(wal) + 1):
        put(folder, {**image, SLOTS[0]: before, f"{SLOTS[0]}-wal": wal[:length]})
        loaded = load(folder)
        check(loaded, {3, 4}, length)
        assert loaded.verdict == GOOD  # what was not acknowledged is not missed
        sequences.append(loaded.sequence)
    assert sequences == sorted(sequences)
    assert sequences[-1] == 4  # all of it is there: acknowledged
    # cut short while it was being emptied: the file itself holds the state
    for length in range(0, len(wal) + 1, 5):
        put(folder, {**image, SLOTS[0]: after, f"{SLOTS[0]}-wal": wal[:length]})
        check(load(folder), {4}, length)


def test_a_save_torn_at_every_byte_of_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, before, wal, after = torn(folder, monkeypatch)
    assert len(before) == len(after)
    changed = [k for k in range(len(before)) if before[k] != after[k]]
    for k in changed:
        for mixed in (after[:k] + before[k:], before[:k] + after[k:]):
            # in order: the WAL is complete before the file is touched
            put(folder, {**image, SLOTS[0]: mixed, f"{SLOTS[0]}-wal": wal})
            check(load(folder), {4}, k)
            # a disk that lies about the order
            put(folder, {**image, SLOTS[0]: mixed})
            check(load(folder), {3, 4}, k)


def test_any_bit_of_a_wal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, before, wal, _ = torn(folder, monkeypatch)
    rng = random.Random(1)
    for at in range(len(wal)):
        data = bytearray(wal)
        data[at] ^= 1 << rng.randrange(8)
        put(folder, {**image, SLOTS[0]: before, f"{SLOTS[0]}-wal": bytes(data)})
        check(load(folder), {3, 4}, at)


def test_both_files_damaged_is_lost_and_nothing_is_deleted(folder: Path) -> None:
    image = saved(folder, 4)
    for round_ in (1, 2):
        broken = {name: image[name][:600] + b"?" + image[name][601:-20] for name in SLOTS}
        for name, data in broken.items():
            (folder / name).write_bytes(data)
        with StateStore(folder / "s") as store:
            loaded = store.load(SCHEMA)
            assert (loaded.verdict, loaded.sections, loaded.cause) == (LOST, None, Cause.CRASH)
            assert "s-a.db:" in loaded.message
            assert "s-b.db:" in loaded.message
            for name, data in broken.items():
                assert (folder / f"{name}.damaged-{round_}").read_bytes() == data
            assert store.save(content(9), SCHEMA) == 1  # and it goes on
    assert load(folder).sections == content(9)


def test_first_state_damaged_is_lost_not_empty(folder: Path) -> None:
    image = saved(folder, 1)
    put(folder, {**image, SLOTS[1]: b""})
    assert load(folder).verdict == LOST


def test_a_damaged_first_save_after_begin_is_lost(folder: Path) -> None:
    with StateStore(folder / "s") as store:
        store.begin()
        store.save(content(2), SCHEMA)
    (folder / SLOTS[0]).write_bytes(b"rot")
    loaded = load(folder)
    assert (loaded.verdict, loaded.cause, loaded.starts) == (LOST, Cause.CRASH, (1, 0, 1, 0))


@pytest.mark.parametrize("name", SLOTS)
def test_a_missing_file_may_have_held_the_newest(folder: Path, name: str) -> None:
    saved(folder, 4)
    (folder / name).unlink()
    loaded = load(folder)
    check(loaded, {3, 4}, name)
    assert (loaded.verdict, "its file is missing" in loaded.message) == (OLDER, True)
    assert load(folder).verdict == GOOD


def test_only_the_newest_damaged_files_are_ever_replaced(folder: Path) -> None:
    saved(folder, 2)
    for n in range(files.KEPT_ASIDE + 3):
        (folder / SLOTS[0]).write_bytes(b"%d" % n)
        load(folder)
    kept = {p.name: p.read_bytes() for p in folder.glob("*.damaged-*")}
    assert len(kept) == files.KEPT_ASIDE
    assert kept[f"{SLOTS[0]}.damaged-1"] == b"0"
    assert kept[f"{SLOTS[0]}.damaged-{files.KEPT_ASIDE}"] == b"%d" % (files.KEPT_ASIDE + 2)


def test_a_start_that_dies_while_it_mends_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends at every step of the repair in turn: the next start finds the state all the same."""

    class Killed(BaseException):
        pass

    image = saved(folder, 4)
    rotten = image[SLOTS[1]][:-60] + b"?" + image[SLOTS[1]][-59:]
    odd = bytearray(image[SLOTS[0]])
    odd[68:72] = b"????"  # the application id: records whole, but not to be written to
    ends = 0
    for damage in ({SLOTS[1]: rotten}, {SLOTS[0]: bytes(odd)}, {SLOTS[0]: bytes(odd), SLOTS[1]: rotten}):
        for deadline in range(1, 20):
            calls = 0

            def dying(function):
                def call(*args, **kwargs):
                    nonlocal calls
                    calls += 1
                    if calls >= deadline:  # noqa: B023
                        raise Killed
                    return function(*args, **kwargs)

                return call

            put(folder, {**image, **damage})
            with monkeypatch.context() as patch:
                for name in ("write", "create_file", "move_aside", "sync_folder", "empty_wal"):
                    patch.setattr(files, name, dying(getattr(files, name)))
                patch.setattr(files.os, "replace", dying(files.os.replace))
                store = StateStore(folder / "s")
                try:
                    assert store.load(SCHEMA).sections == content(4)
                except Killed:
                    ends += 1
                finally:
                    store.close()
            loaded = load(folder)
            assert loaded.sections == content(4), (damage.keys(), deadline, loaded)
            assert load(folder).verdict == GOOD
    assert ends > 15


# --- disks -----------------------------------------------------------------------------------------------------------


def odd_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(b"x")


@pytest.mark.parametrize(
    "make",
    [
        odd_directory,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(2000)),
        lambda path: path.write_bytes(random.Random(2).randbytes(5000)),
        lambda path: path.symlink_to("nowhere"),
        lambda path: sqlite3.connect(path).execute("CREATE TABLE record (other)"),
        lambda path: path.touch() or path.open("r+b").truncate(files.MAX_FILE_BYTES + 1),
    ],
    ids=["directory", "empty", "zeros", "noise", "dangling", "other table", "huge"],
)
def test_what_stands_in_place_of_a_file_is_moved_aside(folder: Path, make) -> None:
    saved(folder, 4)
    for name in SLOTS:
        (folder / name).unlink()
    make(folder / SLOTS[0])
    with StateStore(folder / "s") as store:
        assert store.load(SCHEMA).verdict == LOST
        assert store.error is None
        assert store.save(content(1), SCHEMA) == 1
    assert load(folder).sections == content(1)
    assert "s-a.db.damaged-1" in os.listdir(folder)


def test_a_wal_without_its_file_is_never_taken_for_that_of_a_new_one(folder: Path, monkeypatch) -> None:
    image, _, wal, _ = torn(folder, monkeypatch)
    put(folder, {SLOTS[1]: image[SLOTS[1]], f"{SLOTS[0]}-wal": wal})
    loaded = load(folder)
    assert (loaded.verdict, loaded.sections) == (OLDER, content(3))
    assert (folder / f"{SLOTS[0]}.damaged-1-wal").read_bytes() == wal


@pytest.mark.parametrize("parent", ["file/below", "/proc/rackbms"])
def test_a_folder_that_cannot_be_is_reported(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with StateStore(tmp_path / parent / "s") as store:
        assert store.load(SCHEMA).verdict == EMPTY
        assert store.save(content(1), SCHEMA) == 0
        assert isinstance(store.error, DataError)
        assert "the state cannot be saved" in str(store.error)


def test_a_full_disk_costs_saves_but_not_the_state(folder: Path) -> None:
    """The system lets no file grow past a few bytes, as a full disk does; then there is room again."""
    saved(folder, 4)
    store = StateStore(folder / "s")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        loaded = store.load(SCHEMA)  # there is no room for a copy either
        assert (loaded.verdict, loaded.sections) == (GOOD, content(4))
        for _ in range(3):
            assert store.save(content(5), SCHEMA) == 0
            assert store.error is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert store.save(content(5), SCHEMA) == 5
    assert store.error is None
    store.close()
    assert load(folder).sections == content(5)
    assert not list(folder.glob("*.damaged*"))


def test_a_disk_without_permission_reads_as_lost_and_lets_the_loop_go_on(folder: Path, monkeypatch) -> None:
    saved(folder, 4)
    with monkeypatch.context() as patch:

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        patch.setattr(Path, "lstat", refuse)
        patch.setattr(files.sqlite3, "connect", lambda *a, **k: (_ for _ in ()).throw(sqlite3.OperationalError("no")))
        patch.setattr(files.os, "replace", refuse)
        with StateStore(folder / "s") as store:
            loaded = store.load(SCHEMA)
            assert (loaded.verdict, "Permission denied" in loaded.message) == (LOST, True)
            assert store.save(content(5), SCHEMA) == 0
    assert load(folder).sections == content(4)  # nothing was touched


def test_damage_found_while_running_is_moved_aside_and_saving_goes_on(folder: Path) -> None:
    with StateStore(folder / "s") as store:
        store.save(content(1), SCHEMA)
        store.save(content(2), SCHEMA)
        store._let_go()
        for name in SLOTS:
            (folder / name).write_bytes(b"rot" * 500)
        assert [store.save(content(n), SCHEMA) for n in (3, 4)] == [3, 4]
        (folder / SLOTS[1]).unlink()
        assert store.save(content(5), SCHEMA) == 5
    assert load(folder).sections == content(5)
    assert len(list(folder.glob("*.damaged-1"))) == 2


# --- processes -------------------------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
from pathlib import Path
from bms.runtime.store import StateStore
def content(n):
    return {"soc": bytes([n % 251]) * 40, "wear": bytes([(n + 100) % 251, n % 256]) * 12}
store = StateStore(Path(sys.argv[1]))
loaded = store.load(sys.argv[2])
n = loaded.sequence
os.write(1, b"%d\\n" % n)
while True:
    n += 1
    assert store.save(content(n), sys.argv[2]) == n
    os.write(1, b"%d\\n" % n)
"""


def test_killed_at_any_moment_the_last_acknowledged_state_is_there(folder: Path) -> None:
    """SIGKILL during saves, again and again on one store: the state found is the last acknowledged or the one after."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    acknowledged = 0
    for round_ in range(16):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder / "s"), SCHEMA], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            first = int(child.stdout.readline())
            assert first >= acknowledged
            told = [int(child.stdout.readline()) for _ in range(2)]
            time.sleep(rng.uniform(0, 0.01))
            child.kill()
            lines = child.stdout.read().split(b"\n")
        told += [int(line) for line in lines[:-1]]
        acknowledged = max([first, *told])
        with StateStore(folder / "s") as store:
            loaded = store.load(SCHEMA)
        assert acknowledged <= loaded.sequence <= acknowledged + 1, (round_, seed)
        if loaded.sequence:
            assert (loaded.verdict, loaded.sections) == (GOOD, content(loaded.sequence)), (round_, seed)
    assert acknowledged >= 2 * 16


def test_a_second_process_is_told_and_the_first_goes_on(tmp_path: Path) -> None:
    with StateStore(tmp_path / "s") as store:
        store.save(content(1), SCHEMA)
        with pytest.raises(ConfigError, match="another process has this state store"):
            StateStore(tmp_path / "s")
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path / "s"), SCHEMA], capture_output=True, text=True, check=False
        )
        assert child.returncode == 1
        assert "ConfigError: " in child.stderr
        assert store.save(content(2), SCHEMA) == 2
    with StateStore(tmp_path / "s") as store:  # free again
        assert store.load(SCHEMA).sections == content(2)


def test_the_thread_saves_the_newest_and_then_the_end(folder: Path) -> None:
    with StateStore(folder / "s") as store:
        saver = Saver(store)
        for n in range(1, 200):
            saver.put(content(n), SCHEMA)
        sequence = saver.close(content(200), SCHEMA, Cause.OPERATOR)
        assert saver.error is None
        assert 1 <= sequence <= 200
    loaded = load(folder)
    assert (loaded.sections, loaded.cause, loaded.sequence) == (content(200), Cause.OPERATOR, sequence)
