"""`bms identify` from the command line: files in, cell file and table out, mistakes in one line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bms.cells import load
from bms.cli import main
from bms.lab.identify import _labels
from bms.lab.trace import write_columns
from hal.backends import simulated

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bms(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> tuple[int, str, str]:
        try:
            code = main([str(w) for w in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def refused(result: tuple[int, str, str], *mentions: str) -> None:
    code, _, err = result
    lines = [line for line in err.splitlines() if "bms: error:" in line]
    assert code == 2
    assert len(lines) == 1
    assert "Traceback" not in err
    for mention in mentions:
        assert mention in lines[0]


@pytest.fixture(scope="module")
def made(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell identified from slow.csv.gz and duty.csv."""
    out = tmp_path_factory.mktemp("identified") / "cell.toml"
    words = ["identify", "--ocv", files / "slow.csv.gz", "--dynamic", files / "duty.csv", "-o", out]
    assert main([str(w) for w in words]) == 0
    return out


def test_a_cell_file_with_its_plot(made: Path, files: Path) -> None:
    cell = load(made)
    assert (cell.name, cell.chemistry) == ("cell", "lfp")
    assert cell.source == "tests: slow.csv.gz, duty.csv"
    assert cell.capacity_ah == pytest.approx(2.0, rel=1e-3)
    assert made.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_same_input_gives_the_same_bytes(bms: Run, made: Path, files: Path, tmp_path: Path) -> None:
    code, _, err = bms(
        "identify", "--ocv", files / "slow.csv.gz", "--dynamic", files / "duty.csv", "-o", tmp_path / "cell.toml"
    )
    assert code == 0, err
    assert (tmp_path / "cell.toml").read_bytes() == made.read_bytes()
    assert (tmp_path / "cell.png").read_bytes() == made.with_suffix(".png").read_bytes()


def test_the_table_tells_the_fit_and_what_was_held_back(bms: Run, files: Path, tmp_path: Path) -> None:
    code, out, err = bms(
        "identify", "--ocv", files / "slow.csv.gz", "--dynamic", files / "duty.csv", "--check", files / "other.csv",
        "--chemistry", "nmc", "--name", "mine", "--source", "a test", "-o", tmp_path / "c.toml", "--no-plot",
    )  # fmt: skip
    assert code == 0, err
    rows = {line.split()[0]: line.split() for line in out.splitlines() if ".csv" in line}
    assert rows["duty.csv"][2] == "fit"
    assert rows["other.csv"][2:4] == ["held", "back"]
    assert 0 < float(rows["duty.csv"][3]) < 2.0
    assert 0 < float(rows["other.csv"][4]) < 4.0
    assert "warning: tests at one temperature only (25 degC)" in out
    assert "capacity 2 Ah" in out
    assert not (tmp_path / "c.png").exists()
    cell = load(tmp_path / "c.toml")
    assert (cell.name, cell.chemistry, cell.source) == ("mine", "nmc", "a test")


def test_without_a_dynamic_test_the_slow_one_must_do(bms: Run, files: Path, tmp_path: Path) -> None:
    code, _, err = bms("identify", "--ocv", files / "slow.csv.gz", "-o", tmp_path / "c.toml", "--no-plot")
    assert code == 0, err
    assert load(tmp_path / "c.toml").capacity_ah == pytest.approx(2.0, rel=5e-3)


def test_files_of_one_name_in_two_folders_are_two_files() -> None:
    assert _labels(["a/x.csv", "b/x.csv", "b/y.csv", "b/y.csv"]) == {
        "a/x.csv": "a/x.csv",
        "b/x.csv": "b/x.csv",
        "b/y.csv": "y.csv",
    }


def test_from_a_twin(bms: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulated.virtual_lab
    monkeypatch.setattr(
        simulated, "virtual_lab", lambda cell: {k: v for k, v in whole(cell).items() if k.endswith("P25")}
    )
    code, out, err = bms("identify", "--from-twin", "na_185", "-o", tmp_path / "c.toml", "--no-plot")
    assert code == 0, err
    cell = load(tmp_path / "c.toml")
    assert cell.chemistry.startswith("na")
    assert cell.source == "virtual laboratory test of the twin's cell na_185"
    assert cell.capacity_ah == pytest.approx(185, rel=0.05)
    rmse_mv = [float(line.split()[3]) for line in out.splitlines() if " fit " in line]
    assert rmse_mv
    assert max(rmse_mv) < 15.0


def test_plain_discharges_tell_ocv_and_resistance(bms: Run, tmp_path: Path) -> None:
    """Two constant currents on a cell whose voltage is 3 + z - 0.05 ohm i: the curve between them is not measured anywhere."""
    n = 1801
    for rate_c in (0.5, 2.0):
        z = np.linspace(1.0, 0.0, n)
        columns = {
            "time_s": np.linspace(0.0, 3600.0 / rate_c, n),
            "current_a": np.full(n, 2.0 * rate_c),
            "voltage_v": 3.0 + z - 0.05 * 2.0 * rate_c,
            "temperature_degc": np.full(n, 25.0),
        }
        write_columns(tmp_path / f"{rate_c:g}c.csv", columns)
    out = tmp_path / "c.toml"
    code, text, err = bms("identify", "--dynamic", *sorted(tmp_path.glob("*.csv")), "-o", out, "--no-plot")
    assert code == 0, err
    assert "hysteresis unknown" in text
    assert "RC pairs and hysteresis cannot be told apart" in text
    cell = load(out)
    assert cell.capacity_ah == pytest.approx(2.0, rel=1e-3)
    whole = cell.r0_ohm + cell.rct_ohm + cell.r_ohm.sum(axis=0)
    middle = whole[1, cell.soc_r.size // 2]
    assert middle == pytest.approx(0.05, rel=0.3), "bent and straight resistances share it"
    assert cell.ocv(0.5) == pytest.approx(3.5, abs=0.03), "not the 3.45 V of the slower discharge"


def test_options_that_do_not_go_together(bms: Run, files: Path, tmp_path: Path) -> None:
    out, slow = ("-o", tmp_path / "c.toml"), files / "slow.csv.gz"
    refused(bms("identify", *out), "give either --ocv", "or --from-twin")
    refused(bms("identify", "--ocv", slow, "--from-twin", "lfp_280", *out), "give either --ocv")
    refused(bms("identify", "--from-twin", "lfp_280", "--dynamic", slow, *out), "--from-twin CELL alone")
    refused(bms("identify", "--dynamic", files / "duty.csv", *out), "--ocv FILE... is missing")
    refused(bms("identify", "--from-twin", "lpf_280", *out), "unknown", "did you mean 'lfp_280'?")
    refused(
        bms("identify", "--ocv", slow, "--chemistry", "lpf", *out), "--chemistry lpf: unknown", "did you mean 'lfp'?"
    )
    refused(bms("identify", "--ocv", slow, "-o", tmp_path / "c.json"), "a cell file ends in .toml")
    refused(bms("identify", "--ocv", slow, "-o", tmp_path / "none/c.toml"), "does not exist")
    refused(bms("identify", "--ocv", slow), "-o")
    assert not (tmp_path / "c.toml").exists()


def test_files_that_cannot_be_used(bms: Run, files: Path, tmp_path: Path) -> None:
    slow, out = files / "slow.csv.gz", ("-o", tmp_path / "c.toml")
    whole = gzip.decompress(slow.read_bytes()).decode()
    bad = tmp_path / "bad.csv"

    def with_content(content: str | bytes, name: str = "bad.csv") -> tuple[int, str, str]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return bms("identify", "--ocv", path, *out)

    refused(bms("identify", "--ocv", tmp_path / "none.csv", *out), "none.csv")
    refused(bms("identify", "--ocv", slow, "--check", tmp_path / "none.csv", *out), "none.csv")
    refused(with_content(""), str(bad), "empty")
    refused(with_content(whole.replace("voltage_v", "volt")), str(bad), "voltage_v")
    refused(with_content(slow.read_bytes()[:-200], "bad.csv.gz"), "bad.csv.gz")
    lines = whole.splitlines()
    refused(with_content("\n".join([lines[0], lines[1], "60.0,nan,3.4,25.0,1.0", *lines[3:]])), str(bad), "current_a")
    assert not (tmp_path / "c.toml").exists()
