"""Results on disk: whole after a kill, a torn part is played again, nothing of two campaigns mixes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="results are Parquet: pip install 'rackbms[parquet]'")

from bms.trial.campaign_store import ABOUT, TABLE, Store, read, replace_with
from hal.errors import DataError

MADE = {"engine": "jit", "kernels": "abc"}


def filled(folder: Path, plan, rows, chosen=range(8)) -> Store:
    """A folder with a part for every two of the chosen samples."""
    store = Store(folder, plan(), MADE, resume=False)
    for count, k in enumerate(chosen, 1):
        store.add(rows[k])
        if count % 2 == 0:
            store.flush()
    return store


def test_rows_come_back_as_they_were(plan, rows, tmp_path: Path) -> None:
    store = filled(tmp_path / "a", plan, rows, [5, 1, 0, 7, 2])
    assert len(list((tmp_path / "a").glob("part-*.parquet"))) == 2
    again = Store(tmp_path / "a", plan(), MADE, resume=True)
    assert again.rows == {k: rows[k] for k in (5, 1, 0, 7)}
    store.flush()
    assert Store(tmp_path / "a", plan(), MADE, resume=True).rows == {k: rows[k] for k in (5, 1, 0, 7, 2)}


def test_the_table_follows_from_the_rows_alone(plan, rows, tmp_path: Path) -> None:
    one, two = (
        filled(tmp_path / n, plan, rows, k).finish() for n, k in (("a", range(8)), ("b", [3, 6, 0, 1, 7, 2, 5, 4]))
    )
    assert one.read_bytes() == two.read_bytes()
    assert read(one) == rows
    assert sorted(path.name for path in one.parent.iterdir()) == [ABOUT, TABLE]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_torn_part_is_left_aside(plan, rows, tmp_path: Path, kept: float, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "a", plan, rows)
    part = tmp_path / "a" / "part-00001.parquet"
    content = part.read_bytes()
    part.write_bytes(content[: int(kept * len(content))])
    (tmp_path / "a" / "part-00009.parquet.tmp").write_bytes(b"half")
    again = Store(tmp_path / "a", plan(), MADE, resume=True)
    assert sorted(again.rows) == [0, 1, 4, 5, 6, 7]
    assert "part-00001.parquet: torn, its samples are played again" in capsys.readouterr().err
    assert not list((tmp_path / "a").glob("*.tmp"))
    for k in (2, 3):
        again.add(rows[k])
    assert read(again.finish()) == rows


def test_a_part_never_replaces_another(plan, rows, tmp_path: Path) -> None:
    filled(tmp_path / "a", plan, rows, [0, 1, 2, 3])
    again = Store(tmp_path / "a", plan(), MADE, resume=True)
    again.add(rows[4])
    again.flush()
    assert sorted(Store(tmp_path / "a", plan(), MADE, resume=True).rows) == [0, 1, 2, 3, 4]


def test_a_finished_campaign_can_be_made_longer(plan, rows, tmp_path: Path) -> None:
    filled(tmp_path / "a", plan, rows, range(6)).finish()
    again = Store(tmp_path / "a", plan(campaign={"n": 9, "seed": 7}), MADE, resume=True)
    assert sorted(again.rows) == list(range(6))


def test_a_folder_without_results_can_be_used(plan, rows, tmp_path: Path) -> None:
    Store(tmp_path / "a", plan(campaign={"n": 1}), MADE, resume=False)
    (tmp_path / "a" / "shorts-000002").mkdir()
    store = Store(tmp_path / "a", plan(), MADE, resume=False)
    store.add(rows[0])
    store.flush()
    assert list(Store(tmp_path / "a", plan(), MADE, resume=True).rows) == [0]


def test_a_campaign_that_was_given_up_leaves_the_folder_to_another(plan, rows, tmp_path: Path) -> None:
    folder, other = tmp_path / "a", plan(campaign={"n": 4, "seed": 8})
    filled(folder, plan, rows, range(4)).give_up()
    assert sorted(Store(folder, plan(), MADE, resume=True).rows) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="is not empty"):  # it was taken up again
        Store(folder, other, MADE, resume=False)
    again = Store(folder, plan(), MADE, resume=True)
    again.give_up()
    (folder / "part-00007.parquet.tmp").write_bytes(b"half")
    assert Store(folder, other, MADE, resume=False).rows == {}
    assert [path.name for path in folder.iterdir()] == [ABOUT]
    assert Store(folder, other, MADE, resume=True).rows == {}


@pytest.mark.parametrize("name", [TABLE, "notes.txt", "part-00001.parquet.torn"])
def test_what_else_is_in_the_folder_is_never_given_up(plan, rows, tmp_path: Path, name: str) -> None:
    filled(tmp_path / "a", plan, rows, range(4)).give_up()
    (tmp_path / "a" / name).write_bytes(b"worth keeping")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="is not empty"):
        Store(tmp_path / "a", plan(), MADE, resume=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_refused(plan, rows, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    filled(folder, plan, rows)
    with pytest.raises(DataError, match="is not empty; go on with --resume"):
        Store(folder, plan(), MADE, resume=False)
    with pytest.raises(DataError, match="digest = .*rows of both would mix"):
        Store(folder, plan(campaign={"n": 4, "seed": 8}), MADE, resume=True)
    with pytest.raises(DataError, match="kernels = abc, now it is def"):
        Store(folder, plan(), {**MADE, "kernels": "def"}, resume=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no campaign"):
        Store(tmp_path / "b", plan(), MADE, resume=True)
    (folder / ABOUT).write_text("half {")
    with pytest.raises(DataError, match="is no description of a campaign"):
        Store(folder, plan(), MADE, resume=True)
    (tmp_path / "c").write_text("a file")
    with pytest.raises(DataError, match="cannot be used"):
        Store(tmp_path / "c", plan(), MADE, resume=False)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    replace_with(path, b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_with(path, b"after")
    assert path.read_bytes() == b"before"
