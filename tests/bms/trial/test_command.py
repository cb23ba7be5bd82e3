"""`bms trial` from the command line: files, exit codes, and what is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bms import cli
from bms.trial import case, command, coverage, play

GOOD = """
[run]
description = "somebody opens a cover"
duration = "60s"
[[fault]]
kind = "interlock_open"
at_s = 39.01
[[expect.row]]
fault = "interlock_open"
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


def bms(*words: object) -> int:
    return cli.main(["trial", *map(str, words)])


def test_a_trial_that_passes(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert bms("run", good, "--out", out, "--jobs", 1, "--quiet") == 0
    text = capsys.readouterr().out
    assert "1 trials: 1 passed, 0 failed" in text
    assert "simulation" in text
    document = json.loads((out / command.LEDGER).read_text())
    assert document["trials"][0]["entries"][0]["open_ms"] == pytest.approx(1090.0)
    assert ET.parse(out / command.JUNIT).getroot().find(".//testcase").get("name") == "good"
    assert "<svg" in (out / command.PAGE).read_text()


def test_a_trial_that_fails_ends_with_1_and_leaves_a_recording(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good.write_text(GOOD + "detect_ms = 500\n")
    out = tmp_path / "out"
    assert bms("run", good, "--out", out, "--jobs", 1, "--quiet", "--record", "--matrix") == 1
    text = capsys.readouterr().out
    assert "FAILED  good: somebody opens a cover" in text
    assert "990 ms, 500 ms allowed" in text
    assert "never exercised: cell_overvoltage.fatal" in text
    assert cli.main(["replay", str(out / "good")]) == 0
    assert "0 differences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            GOOD.replace("interlock_open", "interlock_opn", 1),
            "good.toml: trial 'good': [[fault]] kind = 'interlock_opn'",
        ),
        (GOOD + "detect = 5\n", "unknown key 'detect'"),
        (
            GOOD.replace('"interlock_open"\nat_s = 39.01', '"cell_heat"\nindex = [0]\nvalue = -5.0'),
            "good.toml: trial 'good': [[fault]] kind = 'cell_heat': value = -5 W: must not be negative",
        ),
        (
            GOOD + 'tiers = ["info"]\n',
            "good.toml: trial 'good': [expect]: row fault = 'interlock_open': tiers = 'info': not in the fault table of "
            "lfp_280, which has: fatal; name one of them, or add the row with [controller.fault.interlock_open.info]",
        ),
        ("[run", "not valid TOML"),
        ("# nothing but this line was written\n", "good.toml: holds no table of a trial; give at least [run], "),
        (
            GOOD + "at = 3\n",
            "good.toml: trial 'good': [expect]: row fault = 'interlock_open': at = 3: this fault is of the rack as a whole",
        ),
        (
            GOOD + "[expect]\nbounds.cell_v_max = nan\n",
            "good.toml: trial 'good': [expect.bounds] cell_v_max = nan: not a",
        ),
    ],
)
def test_a_wrong_file_is_one_line_and_2(
    text: str, complaint: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good.write_text(text)
    assert bms("run", good, "--out", tmp_path / "out", "--quiet") == 2
    assert not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    assert error.startswith("bms: error: ")
    assert complaint in error
    assert error.count("\n") == 1


def test_a_row_that_the_trial_adds_may_be_expected(good: Path) -> None:
    added = (
        "[controller.fault.interlock_open.info]\nthreshold = 0.5\nclear = 0.5\nset_s = 0\nclear_s = 0\nreaction = []"
    )
    good.write_text(f'{GOOD}tiers = ["info"]\n{added}\n')
    case.check_rows(case.load(good))


def test_recording_is_told_after_the_summary(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good.write_text(GOOD + "detect_ms = 500\n")
    assert bms("run", good, "--out", tmp_path / "out", "--jobs", 1, "--record") == 1
    told = capsys.readouterr()
    assert told.out.index("1 trials: 0 passed, 1 failed") < told.out.index(f"bms replay {tmp_path / 'out' / 'good'}")
    assert "playing 1 failed trials once more, to record them\nrecordings: 1 of 1\n" in told.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run", "--filter", "zzz"), "--filter zzz: no trial has this in its id or tags; `bms trial list` shows all"),
        (
            ("run", "--filter", "interlock_open*", "--pack", "clauses"),
            "--filter interlock_open* --pack clauses: 3 trials have this in their id or tags, such as "
            "'interlock_open-lfp', but none of them is in this pack; leave out one of the two",
        ),
        (("run", "--filter", "zzz", "--pack", "clauses"), "--filter zzz: no trial has this in its id or tags"),
        (("run", "--pack", "clause"), "did you mean 'clauses'"),
        (("run", "--all", "x.toml"), "--all is the library"),
        (("run", "--jobs", "0"), "at least one process"),
        (("sweep", "nothing"), "no trial of the library has this id"),
        (("run", "none.toml"), "cannot be read"),
    ],
)
def test_wrong_options(words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bms(*words) == 2
    assert complaint in capsys.readouterr().err


def test_list_filters_by_id_pattern_and_tag(capsys: pytest.CaptureFixture[str]) -> None:
    assert bms("list", "--filter", "interlock_open-*") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [f"interlock_open-{rack}" for rack in ("lfp", "na", "nmc")]
    assert lines[-1] == "3 trials"
    assert bms("list", "--pack", "clauses") == 0
    text = capsys.readouterr().out
    for clause in (
        "IEC 62619 8.2.2",
        "IEC 62619 8.2.3",
        "IEC 62619 8.2.4",
        "UL 1973",
        "GB 44240 8.3",
        "GB 44240 8.6",
        "36276",
    ):
        assert clause in text


def test_the_library_fails_where_a_row_is_never_exercised(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row is demanded: with it all is well, with another the command fails and prints the matrix."""
    monkeypatch.setattr(case, "library", lambda: [good])
    words = ("run", "--all", "--jobs", 1, "--quiet", "--out", tmp_path / "out")
    monkeypatch.setattr(coverage, "table_rows", lambda: (303,))
    assert bms(*words) == 0
    assert "never exercised" not in capsys.readouterr().out
    monkeypatch.setattr(coverage, "table_rows", lambda: (303, 13))
    assert bms(*words) == 1
    text = capsys.readouterr().out
    assert "never exercised: cell_overvoltage.fatal (row 13)" in text
    assert "1 rows of the fault table were never exercised" in text


def test_sweep_and_weaken(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bms("sweep", good, "--stop", "20s", "--end", "30s", "--jobs", 1, "--quiet", "--out", tmp_path) == 0
    assert "good: 30 ticks, 0 failed" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "sweep.json").read_text())) == 30
    assert bms("weaken", good, "--jobs", 1, "--quiet", "--out", tmp_path) == 0
    assert "1 of 1 rows are noticed" in capsys.readouterr().out
    assert json.loads((tmp_path / "weaken.json").read_text())[0]["caught_by"] == ["good"]


def test_a_folder_that_cannot_be_written(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "_Runner", None)  # nothing is played
    (tmp_path / "file").write_text("")
    for words in (("run",), ("sweep", "--stop", "20s", "--end", "30s"), ("weaken",)):
        for out in (tmp_path / "file", tmp_path / "file" / "x"):
            assert bms(*words, good, "--jobs", 1, "--quiet", "--out", out) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"bms: error: --out {out}: cannot be written: ")
            assert error.endswith("; name a folder, which is made if it is not there\n")


@pytest.mark.parametrize("words", [("run",), ("weaken",)])
def test_nothing_is_played_before_all_trials_are_looked_at(
    words: tuple[str, ...],
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(play, "_Runner", None)
    (tmp_path / "late.toml").write_text(GOOD + "[[change]]\nchannel = 'cell_v'\nkind = 'nan'\nindex = 99\n")
    assert bms(*words, good, tmp_path / "late.toml", "--jobs", 1, "--quiet", "--out", tmp_path / "out") == 2
    assert "late.toml: trial 'late': change 'nan' of 'cell_v': index = 99: not in 0..15" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_trial_that_breaks_down_when_it_is_looked_at_fails_when_it_is_played(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(play.fit, "check", broken)
    assert bms("run", good, "--jobs", 1, "--quiet", "--out", tmp_path / "out") == 1
    assert "broke down: KeyError: 'x'" in capsys.readouterr().out
