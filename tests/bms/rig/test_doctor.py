"""The command: what it prints, its exit codes, and that it leaves the rack as it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bms.cli import main
from hal.backends.replay import Recording

RACK = "sim:lfp_280?n_series=24&duty.kind=constant&duty.c_rate=0.3"


def test_a_healthy_rack_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--rack", RACK, "--connect"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"{RACK}: 60 samples in 59 s: 0 findings, 0 checks not judged"
    assert all(" good " in line or line.endswith("good") for line in out.splitlines()[:-1]), out


def test_what_is_not_judged_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--rack", RACK, "--for", "30s"]) == 0
    out = capsys.readouterr().out
    assert "sign of the current   not judged at rest: the current has not changed" in out
    assert "30 samples in 29 s: 0 findings, 2 checks not judged" in out


def test_a_finding_comes_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--rack", "chaos+" + RACK + "&chaos.swap_words=1"]) == 1
    out = capsys.readouterr().out
    assert "bytes and words       wrong" in out
    assert "        change the order of words of this signal in the profile" in out


def test_a_rack_that_the_controller_does_not_connect_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--rack", "chaos+" + RACK + "&chaos.swap_words=1", "--connect", "--for", "40"])
    last = capsys.readouterr().out.splitlines()[-2]
    assert last.startswith("the controller did not connect: it is in ")


def test_json_is_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--rack", "chaos+" + RACK + "&chaos.bus_off=1&chaos.from_s=20", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["findings"] == 1
    assert told["samples"] == 20
    (wrong,) = [check for check in told["checks"] if check["state"] == "wrong"]
    assert wrong["check"] == "update"
    assert set(wrong["findings"][0]) == {"place", "what", "remedy"}
    assert {check["state"] for check in told["checks"]} == {"good", "wrong", "not judged"}


@pytest.mark.parametrize("connect", [False, True])
def test_the_rack_is_written_to_only_when_that_is_asked_for(connect: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.bms"
    words = ["doctor", "--rack", f"record+{RACK}&record.to={path}", "--for", "40s"]
    assert main([*words, "--connect"] if connect else words) == 0
    steps = [
        (int(s.command["head"]["heartbeat"][0]), int(s.measurement["head"]["contactors"][0])) for s in Recording(path)
    ]
    assert any(beat for beat, _ in steps) == connect
    assert (0b011 in [closed for _, closed in steps]) == connect
    assert steps[-1][1] == 0


def test_a_recording_can_be_looked_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.bms"
    assert main(["doctor", "--rack", f"record+{RACK}&record.to={path}", "--connect"]) == 0
    assert main(["doctor", "--rack", f"replay:{path}"]) == 0
    assert "60 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rack", "sin:lfp_280"], "unknown scheme 'sin' (did you mean 'sim'?)"),
        (["--rack", "sim:lfp_280", "--for", "soon"], "--for = 'soon': expected a time"),
        (["--rack", "sim:lfp_280", "--cell", "lfp_28"], "unknown cell 'lfp_28'"),
        (["--rack", "replay:none.bms"], "none.bms: cannot be read"),
        (["--rack", "replay:none.bms", "--connect"], "a recording has no contactors; leave it out"),
        (["--rack", "sim:site?racks=2"], "a site of many racks"),
    ],
)
def test_mistakes_are_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
