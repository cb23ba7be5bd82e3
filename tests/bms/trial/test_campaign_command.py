"""`bms trial campaign` from the command line: results, resuming, one sample again, exit codes, one line for an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="results are Parquet: pip install 'rackbms[parquet]'")

from bms import cli
from bms.trial import campaign_command, campaign_pool
from bms.trial.campaign_store import TABLE, read

FILE = """
[campaign]
n = 3
seed = 7
[run]
rack = "sim:lfp_280?n_series=16&module_groups=16"
duration = "60s"
[[fault]]
kind = "interlock_open"
at_s = 39.01
[expect]
allow = ["interlock_open"]
[vary.at_s]
path = "fault.0.at_s"
uniform = [38.0, 50.0]
[vary.years]
path = "age.years"
grid = [0, 10]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "covers.toml"
    path.write_text(FILE)
    return str(path)


def campaign(*words: object) -> int:
    return cli.main(["trial", "campaign", *map(str, words)])


def test_a_campaign_leaves_table_summary_and_page(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert campaign(file, "--out", out, "--jobs", 1) == 0
    rows = read(out / TABLE)
    assert [row["sample"] for row in rows] == list(range(6))
    assert all(row["detected_by"] == "interlock_open.fatal" for row in rows)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["shares"]["detected"]["hits"] == summary["samples"] == 6
    assert (out / "summary.html").read_text().startswith("<!doctype html>")
    told = capsys.readouterr()
    assert "covers: 6 of 6 samples" in told.out
    assert "samples: 6 of 6" in told.err


def test_resume_after_an_interrupt_and_a_torn_part(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert campaign(file, "--out", whole, "--jobs", 1, "--quiet") == 0
    run_local = campaign_pool.run_local

    def interrupted(plan, samples, jobs, engine, done):
        run_local(plan, list(samples)[:2], 1, engine, done)
        raise KeyboardInterrupt

    monkeypatch.setattr(campaign_pool, "run_local", interrupted)
    for left in (2, 4):
        assert campaign(file, "--out", out, "--quiet", *(["--resume"] if left > 2 else [])) == 130
        assert f"interrupted: {left} of 6 samples are in {out}; go on with" in capsys.readouterr().out
    part = out / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    played: list[int] = []

    def counted(plan, samples, *rest):
        played.extend(samples)
        return run_local(plan, samples, *rest)

    monkeypatch.setattr(campaign_pool, "run_local", counted)
    assert campaign(file, "--out", out, "--jobs", 2, "--quiet", "--resume") == 0
    assert played == [0, 1, 4, 5]
    assert (out / TABLE).read_bytes() == (whole / TABLE).read_bytes()
    assert (out / "summary.html").read_bytes() == (whole / "summary.html").read_bytes()
    # once more: nothing is left to do; and then longer
    assert campaign(file, "--out", out, "--quiet", "--resume") == 0
    assert campaign(file, "--out", out, "--quiet", "--resume", "--n", 4, "--jobs", 1) == 0
    assert played == [0, 1, 4, 5, 6, 7]
    assert read(out / TABLE)[:6] == read(whole / TABLE)


def test_one_sample_again_is_the_same_and_can_be_replayed(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert campaign(file, "--out", out, "--jobs", 1, "--quiet") == 0
    capsys.readouterr()
    assert campaign(file, "--only", "covers-000003", "--out", out) == 0
    told = capsys.readouterr().out
    assert "the same as in the results, bit for bit" in told
    assert f"bms replay {out / 'covers-000003'}" in told
    assert (out / "covers-000003" / "ledger.html").is_file()
    assert cli.main(["replay", str(out / "covers-000003")]) == 0
    assert "0 differences" in capsys.readouterr().out


def test_one_sample_that_differs_is_told(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert campaign(file, "--out", out, "--jobs", 1, "--quiet") == 0
    monkeypatch.setattr("bms.trial.campaign_sample.digest", lambda log: "other")
    assert campaign(file, "--only", "3", "--out", out) == 1
    assert "NOT the same as in the results" in capsys.readouterr().out


def test_one_sample_of_another_seed_has_no_place_there(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert campaign(file, "--out", out, "--jobs", 1, "--quiet") == 0
    before = sorted(out.rglob("*"))
    capsys.readouterr()
    assert campaign(file, "--seed", 9, "--only", 3, "--out", out) == 2
    error = capsys.readouterr().err
    assert f"--out {out}: holds samples of another campaign, or of another --seed (digest = " in error
    assert error.count("\n") == 1
    assert sorted(out.rglob("*")) == before
    assert campaign(file, "--only", 3, "--out", out) == 0
    assert "the same as in the results" in capsys.readouterr().out


def test_a_campaign_that_misses_what_it_requires(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(file).write_text(FILE.replace('allow = ["interlock_open"]', "quiet = true"))
    assert campaign(file, "--out", tmp_path / "out", "--jobs", 1, "--quiet") == 1
    assert "not reached: passed: 0.00%, required are 100.00%" in capsys.readouterr().out


def test_a_sample_that_cannot_be_played_is_told_before_any_is(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign_pool, "run_local", None)
    Path(file).write_text(FILE + '[vary.cell]\npath = "expect.cause_at"\nintegers = [0, 30]\n')
    assert campaign(file, "--out", tmp_path / "out", "--quiet") == 2
    assert "[expect] cause_at = " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sample_that_cannot_be_played_leaves_the_folder_to_the_mended_campaign(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    late = FILE.replace("at_s = 39.01", 'at_s = 39.01\nat_state = "connected"')
    Path(file).write_text(late.replace("uniform = [38.0, 50.0]", "grid = [30.0, 55.0]"))
    assert campaign(file, "--out", out, "--jobs", 1, "--quiet") == 2
    assert "after the last step" in capsys.readouterr().err
    assert list(out.glob("part-*"))
    Path(file).write_text(FILE)
    assert campaign(file, "--out", out, "--jobs", 1, "--quiet") == 0
    assert len(read(out / TABLE)) == 6


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--jobs", 0], "--jobs 0: at least one"),
        (["--n", 0], "--n 0: must be at least 1"),
        (["--seed", -1], "--seed -1: must be at least 0"),
        (["--resume"], "--resume: give the folder"),
        (["--scheduler", "localhost:8786"], "expected an address such as tcp://"),
        (["--only", "covers-000006"], "no such sample; covers-000000 to covers-000005"),
    ],
)
def test_wrong_options(file: str, words: list, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign(file, *words) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_what_is_missing_is_named(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert campaign(file, "--scheduler", "tcp://127.0.0.1:1", "--out", Path(file).parent / "out", "--quiet") == 2
    assert "pip install 'rackbms[dask]'" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert campaign(file) == 2
    assert "pip install 'rackbms[parquet]'" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        campaign("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--scheduler" in text
    assert "short_circuits" in text
    assert all(line in text for line in campaign_command.EXAMPLES.splitlines()[:3])
