"""`bms run` from the outside: which rack and cell it takes, what it leaves, how it ends, and its mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bms.cli import main
from bms.runtime import PAGE, SERIES, SUMMARY
from bms.runtime import run as module
from bms.runtime.clock import VirtualClock
from bms.runtime.replay import replay
from bms.runtime.run import choose, configuration, execute, first_guess, open_rack
from hal.backends.replay import FILE_NAME, Recording
from hal.contract import Measurement
from hal.errors import ConfigError, DataError

SMALL = "sim:lfp_280?n_series=8&module_groups=4&seed=3&duty.start_s=8"


# --------------------------------------------------------------------------------------------- what the options mean


def test_no_options_mean_a_day_of_frequency_regulation() -> None:
    scenario = choose(None, None, None)
    assert scenario.name == "frequency_regulation"
    assert scenario.rack == "sim:lfp_280"
    assert scenario.cell == ""
    assert scenario.duration_s == 86400.0


@pytest.mark.parametrize(
    ("cell", "name"), [("na_185", "sodium_cycle"), ("nmc_ev", "nmc_v2g"), ("lfp_280", "frequency_regulation")]
)
def test_a_cell_alone_brings_rack_and_scenario(cell: str, name: str) -> None:
    scenario = choose(None, None, cell)
    assert (scenario.name, scenario.rack, scenario.cell) == (name, f"sim:{cell}", cell)


def test_cell_and_scenario_put_the_cell_into_the_twin() -> None:
    scenario = choose("frequency_regulation", None, "na_185")
    assert (scenario.rack, scenario.cell) == ("sim:na_185", "na_185")
    assert scenario.tables["duty"]["kind"] == "frequency_regulation"


def test_a_cell_that_no_twin_has_is_the_controllers_alone() -> None:
    scenario = choose(None, None, "some/cell.toml")
    assert (scenario.rack, scenario.cell) == ("sim:lfp_280", "some/cell.toml")


def test_a_rack_keeps_its_own_settings_unless_a_scenario_is_asked_for() -> None:
    assert choose(None, SMALL, None).tables == {}
    assert choose(None, SMALL, None).rack == SMALL
    assert choose("sodium_cycle", "sim:na_185?n_series=4", None).tables["duty"]["kind"] == "cycle"
    assert choose(None, SMALL, "x.toml").cell == "x.toml"


def test_a_recording_as_rack_brings_its_times_and_cell(recorded: Path) -> None:
    scenario = choose(None, f"replay:{recorded}", None)
    about = Recording(recorded).header["about"]["scenario"]
    assert (scenario.duration_s, scenario.period_s, scenario.cell) == (120.0, 1.0, about["cell"])
    assert scenario.tables == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--speed", "fast"], "--speed fast: expected max, or a number"),
        (["--speed", "0"], "--speed 0"),
        (["--speed", "nan"], "--speed nan"),
        (["--duration", "soon"], "--duration = 'soon': expected a time"),
        (["--period", "0"], "--period = '0'"),
        (["--scenario", "sodium_cycl"], "did you mean 'sodium_cycle'?"),
        (["--rack", "simm:lfp_280"], "did you mean 'sim'?"),
        (["--rack", "sim:lfp_28"], "did you mean 'lfp_280'?"),
        (["--rack", SMALL + "&n_parralel=2"], "did you mean 'n_parallel'?"),
        (["--rack", SMALL, "--cell", "no/such.toml"], "no/such.toml"),
        (["--rack", "replay:nothing/here"], "nothing/here"),
        (["--cell", "lfp_a123"], "no twin has the cell 'lfp_a123' (known: lfp_280"),
        (["--cell", "lfp_28"], "unknown cell 'lfp_28' (did you mean 'lfp_280'?)"),
        (["--spede", "1"], "did you mean '--speed'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words: list[str], message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["run", "--quiet", "--no-report", *words])
    except SystemExit as leave:
        code = leave.code
    out, err = capsys.readouterr()
    assert code == 2
    assert message in err
    assert err.startswith("bms: error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == [], "nothing is left of a run that never started"


def test_a_cell_of_another_size_is_refused(cell_file: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "tiny.toml"
    other.write_text(cell_file.read_text().replace("capacity_ah = [280.0]", "capacity_ah = [2.0]"))
    code = main(["run", "--rack", SMALL, "--cell", str(other), "--out", str(tmp_path / "o"), "--duration", "10"])
    assert code == 2
    assert "has 2 Ah, but the rack sim:lfp_280 has 280 Ah" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused(cell_file: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    code = main(["run", "--rack", SMALL, "--cell", str(cell_file), "--out", str(tmp_path / "file" / "o")])
    assert code == 2
    assert "--out" in capsys.readouterr().err


def test_folders_of_their_own_when_none_is_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.time, "strftime", lambda text: "20260101-000000")
    folders = []
    for _ in range(3):
        folders.append(module._folder(None, "x"))
        folders[-1].mkdir(parents=True)
    assert [f.name for f in folders] == ["20260101-000000-x", "20260101-000000-x-2", "20260101-000000-x-3"]
    assert all(f.parent.name == "runs" for f in folders)


# ---------------------------------------------------------------------------------------------------- what it leaves


def test_a_run_leaves_recording_summary_and_page(cell_file: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    code = main(
        ["run", "--rack", SMALL, "--cell", str(cell_file), "--duration", "2min", "--period", "0.5", "--out", str(out)]
    )
    said = capsys.readouterr().out
    assert code == 0
    page = out / "report.html"
    assert said.splitlines()[-1] == str(page)
    assert "CONNECTED" in said
    assert "0 missed deadlines" in said
    summary = json.loads((out / "summary.json").read_text())
    assert 240 < summary["steps"] < 260
    assert summary["loop"]["opened"]
    assert summary["faults"] == []
    assert summary["scenario"]["period_s"] == 0.5
    assert summary["recording_bytes"] == (out / FILE_NAME).stat().st_size
    assert summary["soc_within_3_sigma_percent"] > 90
    recording = Recording(out)
    assert replay(recording).steps_differing == 0
    assert recording.end == {"ended_by": "duration", "opened": True}


def test_what_an_earlier_run_left_is_removed_first(small, tmp_path: Path, monkeypatch) -> None:
    for name in (SERIES, SUMMARY, PAGE):
        (tmp_path / name).write_text("old")
    monkeypatch.setattr("bms.runtime.loop.Loop.run", lambda self, duration_s: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        execute(small(), tmp_path, report=False)
    assert [f.name for f in tmp_path.iterdir()] == [FILE_NAME]


def test_a_disk_that_fills_up_is_told_after_the_contactors_have_opened(small, tmp_path: Path, monkeypatch) -> None:
    from bms.runtime.recording import Recorder

    append = Recorder.append

    def fail(self, *args) -> None:
        self.error = self.error or OSError(28, "No space left on device")
        append(self, *args)

    monkeypatch.setattr(Recorder, "append", fail)
    with pytest.raises(DataError, match="incomplete: No space left"):
        execute(small(), tmp_path, report=False)
    assert json.loads((tmp_path / SUMMARY).read_text())["loop"]["opened"]


def test_told_soc_is_believed(small, tmp_path: Path) -> None:
    execute(small(initial_soc=0.3, initial_soc_std=0.002, duration_s=5.0), tmp_path, report=False)
    first = next(iter(Recording(tmp_path)))
    assert first.command["head"]["soc_mean"][0] == pytest.approx(0.3, abs=0.01)


def test_the_same_scenario_gives_the_same_recording(small, tmp_path: Path) -> None:
    steps = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        execute(small(duration_s=30.0), tmp_path / name, report=False)
        steps.append([s.measurement.tobytes() + s.command.tobytes() for s in Recording(tmp_path / name)])
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"kind": "current_missing", "at_s": 20.0}, "CURRENT_LOST"),
        ({"kind": "cell_v_missing", "at_s": 20.0, "index": [3]}, "CELL_VOLTAGE_LOST"),
        ({"kind": "interlock_open", "at_s": 20.0}, "INTERLOCK_OPEN"),
        ({"kind": "emergency_stop", "at_s": 20.0}, "EMERGENCY_STOP"),
        ({"kind": "contactor_weld", "at_s": 20.0}, "CONTACTOR_WELDED"),
    ],
)
def test_a_run_that_ends_in_a_fault_exits_1_and_says_why(small, tmp_path: Path, fault: dict, name: str) -> None:
    code = execute(small(fault=[fault]), tmp_path, report=False)
    assert code == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["faults"] == [name]
    assert replay(Recording(tmp_path)).steps_differing == 0


def test_a_rack_that_breaks_down_leaves_a_closed_recording(small, tmp_path: Path, monkeypatch) -> None:
    from hal.backends.simulated import SimulatedRack

    calls = [0]
    read = SimulatedRack.read

    def break_down(self, out) -> None:
        calls[0] += 1
        if calls[0] == 2 + 16:  # the controller is made after two reads
            raise ZeroDivisionError("inside the rack")
        read(self, out)

    monkeypatch.setattr(SimulatedRack, "read", break_down)
    with pytest.raises(ZeroDivisionError):
        execute(small(), tmp_path, report=False)
    recording = Recording(tmp_path)
    assert len(list(recording)) == 15
    assert recording.end == {"ended_by": "ZeroDivisionError", "opened": True}


def test_an_unknown_cell_of_a_rack_is_refused(small, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        execute(small(cell="nonsense"), tmp_path, report=False)


# ------------------------------------------------------------------------------------------------- how it is stopped


def start(cell_file: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bms", "run", "--rack", SMALL, "--cell", str(cell_file), "--out", str(out)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*command, "--no-report", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            return
    pytest.fail(f"never said {word}: {''.join(seen)}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_opens_the_contactors_and_closes_the_recording(
    cell_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """In real time, ten steps a second; the signal comes once it says that it is connected."""
    with start(cell_file, tmp_path, "--speed", "1", "--period", "0.1", "--duration", "1h") as process:
        wait_for(process, "CONNECTED")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "STANDBY" in rest
    recording = Recording(tmp_path)
    assert replay(recording).steps_differing == 0
    assert recording.end == {"ended_by": number.name, "opened": True}
    assert json.loads((tmp_path / "summary.json").read_text())["loop"]["opened"]


def test_a_killed_run_leaves_a_recording_that_replays(cell_file: Path, tmp_path: Path, capsys) -> None:
    with start(cell_file, tmp_path, "--duration", "30d") as process:
        wait_for(process, "CONNECTED")
        path = tmp_path / FILE_NAME
        while path.stat().st_size < 300_000 and process.poll() is None:
            pass  # until the first blocks are on the disk
        process.kill()
        process.communicate(timeout=60)
    assert main(["replay", str(tmp_path), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert ", 0 differences" in out
    assert "cut" in out
    assert not (tmp_path / "summary.json").exists()
    # and the report can be made of it
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("degc", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_a_cell_without_a_temperature_is_guessed_without_one(degc: float) -> None:
    """Nothing is known of it, and nothing is spoiled for the others."""
    chosen = choose(None, SMALL, None)
    rack = open_rack(chosen, VirtualClock())
    info = rack.info
    cell, _ = configuration(chosen, info)
    m = Measurement(info.n_cells, info.n_sensors)
    m.cell_v[:], m.sensor_degc[:] = 3.2, 25.0
    m.sensor_degc[0] = degc
    soc, std = first_guess(chosen, cell, m.raw[0], info)
    blind = np.asarray(info.sensor_of_cell) == 0
    assert (soc[blind] == 0.5).all()
    assert (std[blind] > 0.28).all()
    assert np.unique(soc[~blind]).size == 1
    assert (std[~blind] < 0.1).all()
