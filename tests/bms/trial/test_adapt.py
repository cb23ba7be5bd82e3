"""The library on a configuration of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bms import racks
from bms.trial import adapt, case
from bms.trial.outcome import run_one
from hal.errors import ConfigError

MINE = """
format = 1
[rack]
cell = "lfp_280"
n_series = 208
coolant_flow_lpm = 20.0
[fault.cell_overvoltage.fatal]
threshold = 3.69
[fault.interlock_open.fatal]
enabled = false
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return str(path)


def test_thresholds_are_those_of_the_file_and_sizes_those_of_the_trial(mine: str) -> None:
    trials = case.load_all(case.library())
    found = {trial.id: trial for trial in adapt.with_config(trials, mine)}
    assert all(trial.scenario.rack.startswith("sim:lfp_280") for trial in found.values())
    good = run_one(found["cell_overvoltage-lfp-fatal"])
    assert good.status == "passed"
    assert good.entries[0].value == pytest.approx(3.695, abs=1e-3)
    # what the file switched off is missed, and what a trial changes stays
    assert run_one(found["interlock_open-lfp"]).status == "failed"
    assert found["i2t-lfp-discharge"].scenario.controller["signals"]["overload"] == 1.1
    assert "n_series" not in found["i2t-lfp-discharge"].scenario.controller["rack"]


@pytest.mark.parametrize("name", racks.names())
def test_a_shipped_configuration_changes_nothing(name: str) -> None:
    trials = [trial for trial in case.load_all(case.library()) if trial.id.startswith("gas_alarm-")]
    (adapted,) = adapt.with_config(trials, name)
    (plain,) = [trial for trial in trials if trial.id == adapted.id]
    assert run_one(adapted).digest == run_one(plain).digest


def test_a_cell_without_a_twin_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text('format = 1\n[rack]\ncell = "lfp_a123"\n')
    with pytest.raises(ConfigError, match="none of these trials has a twin of this cell"):
        adapt.with_config(case.load_all(case.library()), str(path))


def test_another_period(make) -> None:
    (trial,) = adapt.with_period([make()], 0.1)
    outcome = run_one(trial)
    assert outcome.status == "passed"
    assert outcome.entries[0].detect_ms == pytest.approx(90.0)  # the next sample after 39.01 s
