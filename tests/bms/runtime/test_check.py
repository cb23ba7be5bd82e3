"""`bms check`: what it prints, and its exit codes."""

import json
from pathlib import Path

import pytest

from bms.cli import Parser
from bms.runtime import check
from hal.errors import ConfigError

WRONG = Path(__file__).parents[1] / "racks" / "wrong"


def run(*words: str) -> int:
    parser = Parser("bms check", "")
    check.add_arguments(parser)
    return check.run(parser.parse_all(words))


def test_a_sound_rack_is_one_line_and_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lfp_280") == 0
    out = capsys.readouterr().out
    assert out.startswith("lfp_280.toml: 416s1p of lfp_280, ")
    assert out.endswith(" fault rows: no findings\n")
    assert out.count("\n") == 1


def test_an_error_is_named_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    path = WRONG / "overvoltage_beyond_chemistry.toml"
    assert run(str(path)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"error   {path}: fault.cell_overvoltage.fatal.threshold = 4.2: beyond the 3.8 V")
    assert lines[0].endswith("; take about 3.7 V: v_max of the cell + 50 mV")
    assert lines[1].endswith(": 1 error, 0 warnings")
    assert "\033" not in "".join(lines)


def test_warnings_alone_are_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(WRONG / "one_sample_decides.toml")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warning ")
    assert lines[1].endswith(": 0 errors, 1 warning")


def test_another_cell_can_be_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lfp_280", "--cell", "na_185") == 1  # polylines of the file allow charging at -10 degC and below
    out = capsys.readouterr().out
    assert "of na_185" in out.splitlines()[-1]


def test_json_has_the_same_findings(capsys: pytest.CaptureFixture[str]) -> None:
    path = WRONG / "overvoltage_beyond_chemistry.toml"
    assert run(str(path), "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["cell"], told["errors"], told["warnings"]) == (str(path), "lfp_280", 1, 0)
    assert told["findings"][0]["severity"] == "error"
    assert told["findings"][0]["key"] == "fault.cell_overvoltage.fatal.threshold"
    assert told["findings"][0]["value"] == "4.2"
    assert told["findings"][0]["remedy"].startswith("take about 3.7 V")


def test_colour_is_for_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    run(str(WRONG / "one_sample_decides.toml"))
    assert capsys.readouterr().out.startswith("\033[33mwarning\033[0m ")
    monkeypatch.setenv("NO_COLOR", "1")
    run(str(WRONG / "one_sample_decides.toml"))
    assert capsys.readouterr().out.startswith("warning ")


def test_what_cannot_be_read_is_one_line_of_error(tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    path.write_text("format = 1\n[rak]\n")
    with pytest.raises(ConfigError, match="rak: unknown table \\(did you mean 'rack'\\?\\)"):  # bms.cli exits with 2
        run(str(path))


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    out = capsys.readouterr().out
    assert "bms check site/rack7.toml --json" in out
    assert "Exit codes: 0 no errors" in out


def test_a_sound_profile_is_one_line_and_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--profile", "reference") == 0
    out = capsys.readouterr().out
    assert out == "profile reference: 416 cells, 104 sensors, 190 messages, 51% of 500000 bit/s: no findings\n"


def test_mistakes_in_a_profile_are_lines_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "map.toml"
    path.write_text('format = 1\n[[model]]\nid = 802\n[model.points]\nV = "pack_v"\n')
    assert run("--profile", str(path)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        f"error   profile {path}: field cell_v: missing: no model tells the voltages of the cells"
    )
    assert lines[-1] == f"profile {path}: 1 models, 1 points: 1 error, 4 warnings"
    assert run("--profile", str(path), "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["errors"], told["warnings"]) == (str(path), 1, 4)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "give one of CONFIG"),
        (("lfp_280", "--profile", "reference"), "give one of CONFIG"),
        (("--profile", "reference", "--cell", "lfp_280"), "--cell lfp_280: a profile knows no cell; leave it out"),
    ],
)
def test_one_thing_is_looked_at(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        run(*words)
