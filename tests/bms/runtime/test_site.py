"""`bms run` on a site: the decisions of single racks, recordings of chosen ones, how it ends, and its mistakes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from bms.cli import main
from bms.core.machine_table import Request
from bms.runtime import SITE_SERIES, SUMMARY, run, site
from bms.runtime.clock import VirtualClock
from bms.runtime.loop import Loop
from bms.runtime.replay import replay
from bms.runtime.scenario import Scenario
from hal.backends.replay import FILE_NAME, Recording
from hal.contract import Contactor, RackState
from hal.errors import ConfigError, LinkError
from hal.ranges import Ranges

TABLES = {"rack": {"n_series": 8, "module_groups": 4, "seed": 3}, "duty": {"start_s": 8.0}}
URL = "sim:site?racks={}&n_series=8&module_groups=4&seed=3&duty.start_s=8"


@pytest.fixture
def scenario(cell_file: Path):
    def make(racks: int, **changes) -> Scenario:
        values = {"name": "site", "rack": f"sim:site?racks={racks}", "cell": str(cell_file), "duration_s": 60.0}
        return Scenario(**{**values, "tables": {**TABLES, **changes.pop("tables", {})}, **changes})

    return make


def opened(scenario: Scenario, n_threads: int = 1):
    clock = VirtualClock()
    made = site.open_site(scenario, clock)
    made.open()
    return made, site.make_controller(scenario, made, clock, Ranges(n_threads)), clock


@pytest.mark.parametrize("n_threads", [1, 3])
def test_each_rack_is_decided_on_as_on_its_own(scenario, n_threads: int) -> None:
    """More racks than one range; the duty is one that does not look at what racks publish."""
    tables = {"duty": {"kind": "constant", "c_rate": -0.3, "start_s": 8.0}}
    many, controller, clock = opened(scenario(35, tables=tables), n_threads)
    singles = []
    for k in (0, 1, 31, 32, 34):
        alone = scenario(1, rack="sim:lfp_280", tables={**tables, "rack": {**TABLES["rack"], "seed": 3 + k}})
        own_clock = VirtualClock()
        rack = run.open_rack(alone, own_clock)
        rack.open()
        singles.append((k, rack, run.make_controller(alone, rack, own_clock), own_clock))
    for step in range(40):
        many.read(controller.measurement.raw)
        together = controller.step(Request.CONNECT, 1.0)
        many.write(controller.command.raw)
        clock.wait_until(step + 1.0, lambda: False)
        for k, rack, single, own_clock in singles:
            rack.read(single.measurement)
            own = single.step(Request.CONNECT, 1.0)
            rack.write(single.command)
            own_clock.wait_until(step + 1.0, lambda: False)
            assert single.command.bytes.tobytes() == controller.command.rows[k].tobytes()
            assert own & ~together == 0
            soc, std = controller.soc()
            np.testing.assert_array_equal(soc[k], single.soc)
            np.testing.assert_array_equal(std[k], single.soc_std)
    assert np.all(controller.command.head["state"] == RackState.CONNECTED)


def test_a_run_leaves_series_and_summary(scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.execute(scenario(3), tmp_path, quiet=False) == 0
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert (summary["n_racks"], summary["n_cells"], summary["steps"]) == (3, 24, summary["loop"]["steps"])
    assert summary["states_at_end"] == {"STANDBY": 3}
    assert summary["most_connected"] == 3
    assert summary["loop"]["opened"]
    assert summary["faults"] == []
    assert summary["events"] == []
    assert 0 < summary["soc_rmse_percent"] < 30
    rows = np.genfromtxt(tmp_path / SITE_SERIES, delimiter=",", names=True)
    assert len(rows) == summary["steps"]
    assert rows["time_s"][-1] == summary["simulated_s"]
    assert rows["connected"].max() == 3
    out = capsys.readouterr().out
    assert "3 racks, 24 cells: 6" in out
    assert out.rstrip().endswith(str(tmp_path))


def test_chosen_racks_are_recorded_and_replay_without_a_difference(scenario, tmp_path: Path) -> None:
    assert site.execute(scenario(5), tmp_path, record_racks="0, 4,0") == 0
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["recorded_racks"] == [0, 4]
    assert summary["recorded_steps_differing"] == 0
    recorded = {}
    for rack in (0, 4):
        recording = Recording(tmp_path / f"rack-{rack}")
        outcome = replay(recording)
        assert (outcome.steps, outcome.steps_differing, outcome.closed) == (summary["steps"], 0, True)
        assert recording.header["about"]["rack"] == rack
        recorded[rack] = (tmp_path / f"rack-{rack}" / FILE_NAME).read_bytes()
    assert recorded[0] != recorded[4]


def test_a_fault_of_one_rack_fails_the_run_and_stops_no_other(scenario, tmp_path: Path) -> None:
    fault = [{"kind": "interlock_open", "rack": [1], "at_s": 30.0}]
    assert site.execute(scenario(3, tables={"fault": fault}), tmp_path) == run.FAILED
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["states_at_end"] == {"STANDBY": 2, "FAULT": 1}
    assert summary["faults"] == ["INTERLOCK_OPEN"]
    assert summary["racks_with_faults_at_end"] == 1
    assert 29.0 < summary["first_fault_s"] < 33.0
    rows = np.genfromtxt(tmp_path / SITE_SERIES, delimiter=",", names=True)
    assert rows["connected"][35:55].tolist() == [2.0] * 20


def test_when_reading_fails_all_contactors_are_opened_without_the_controllers(scenario) -> None:
    made, controller, clock = opened(scenario(3))
    adapter = site.SiteAsRack(made)
    calls = iter(range(1000))

    def failing(out) -> None:
        if next(calls) == 30:
            raise LinkError("the cable is out")
        made.read(out.raw)

    adapter.read = failing
    loop = Loop(adapter, controller, clock, 1.0)
    with pytest.raises(LinkError, match="the cable is out"):
        loop.run(100.0)
    assert loop.stats.opened
    made.read(controller.measurement.raw)
    assert np.all(controller.measurement.head["contactors"] == Contactor.NONE)
    assert not made.events, "no contactor broke a current"


def test_a_signal_ends_a_run_in_order(scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = site.SiteController.step
    count = iter(range(10**6))

    def interrupting(self, request: int, dt_s: float) -> int:
        if next(count) == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, request, dt_s)

    monkeypatch.setattr(site.SiteController, "step", interrupting)
    assert site.execute(scenario(2, duration_s=3600.0), tmp_path) == run.SIGNALLED + signal.SIGTERM
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["loop"]["ended_by"] == "SIGTERM"
    assert summary["loop"]["opened"]
    assert summary["steps"] < 40


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rack", "sim:site"], "how many racks?"),
        (["--rack", URL.format("0")], "racks = 0"),
        (["--rack", URL.format("2") + "&cell=lpf_280"], "did you mean 'lfp_280'?"),
        (["--rack", URL.format("2"), "--record-racks", "2"], "--record-racks 2: expected numbers in 0..1"),
        (["--rack", URL.format("2"), "--record-racks", "0;1"], "--record-racks 0;1"),
        (["--rack", "sim:lfp_280", "--record-racks", "0"], "--record-racks 0: for a site"),
        (["--rack", URL.format("2"), "--cell", "nmc_ev"], "choose --cell and --rack that fit"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_site_of_a_scenario_keeps_its_url_when_a_cell_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[run]\nrack = "sim:site?racks=4"\n[site]\nshare_spread = 0.1\n')
    chosen = run.choose(str(path), None, "lfp_280")
    assert (chosen.rack, chosen.cell) == ("sim:site?racks=4", "lfp_280")
    assert site.open_site(chosen, VirtualClock()).n_racks == 4


def test_a_mistake_in_a_table_names_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[run]\nrack = "sim:site?racks=4"\n[site]\nshare = 0.1\n')
    with pytest.raises(ConfigError, match=r"scenario .*bad.toml: \[site\]: unknown key 'share'"):
        site.open_site(run.choose(str(path), None, None), VirtualClock())


def test_samples_are_as_many_as_are_useful() -> None:
    assert site.sample_every(600.0, 1.0) == 2
    assert site.sample_every(86400.0, 1.0) == 360
    assert site.sample_every(10.0, 1.0) == 1
    assert site.sample_every(float("inf"), 1.0) == 1
