"""Playing a trial: times, ramps, states that are waited for, and the same log each time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bms.core.faults import Fault
from bms.runtime.scenario import Scenario
from bms.trial.play import RAMP_STEPS, _timed, play, state_name
from hal.backends.replay import Recording
from hal.contract import RackState, Severity
from hal.errors import ConfigError


def test_the_log_has_every_step(make) -> None:
    played = play(make())
    log = played.log
    assert len(log) == 60
    assert np.allclose(np.diff(log.time_s), 1.0)
    assert log.closed[38]
    assert not log.closed[-1]
    shown = log.shows(Fault.INTERLOCK_OPEN, Severity.FATAL)
    assert log.time_s[np.flatnonzero(shown)[0]] == 40.0
    assert played.injected == [(39.01, "interlock_open")]
    assert played.seed == 3
    assert played.has_truth
    with pytest.raises(AttributeError):
        log.nothing  # noqa: B018


def test_the_same_trial_gives_the_same_log(make) -> None:
    one, two = play(make()), play(make())
    for name in ("bits", "value", "discharge_a", "true_degc", "current_a"):
        assert np.array_equal(getattr(one.log, name), getattr(two.log, name), equal_nan=True), name
    assert one.digest == two.digest


def test_a_changed_controller_keeps_the_trial_s_own_numbers(make) -> None:
    off = {"fault": {"interlock_open": {"fatal": {"enabled": False}}}}
    one, two = play(make()), play(make(), off)
    assert one.digest != two.digest
    assert one.values == two.values
    assert not two.log.shows(Fault.INTERLOCK_OPEN, Severity.FATAL).any()


def test_a_fault_waits_for_a_state(make) -> None:
    fault = {"kind": "interlock_open", "at_state": "precharge", "at_s": 2.0}
    played = play(make(fault=[fault]))
    healthy = play(make(fault=[])).log
    reached_s = healthy.time_s[np.flatnonzero(healthy.state == RackState.PRECHARGE)[0]]
    assert played.injected[0][0] == reached_s + 2.0
    assert not played.log.closed.any()


def test_a_state_that_is_never_reached_is_told(make) -> None:
    fault = {"kind": "interlock_open", "at_state": "lockout"}
    with pytest.raises(
        ConfigError, match="mine.toml: trial 'mine': at_state = 'lockout': without the fault this state"
    ):
        play(make(fault=[fault]))


def test_each_kind_of_entry_is_shifted_by_its_own_state(make) -> None:
    played = play(
        make(
            fault=[{"kind": "interlock_open", "at_state": "connected"}],
            internal=[{"kind": "reset_cause", "value": 3, "at_s": 0.0}],
        )
    )
    assert played.log.shows(Fault.RESET_CAUSE, Severity.WARNING)[0]
    assert played.injected[0][1] == "interlock_open"


def test_a_ramp_is_a_stair_that_ends_at_its_value() -> None:
    entry = {"kind": "cell_v_offset", "at_s": 10.0, "until_s": 50.0, "from": 1.0, "value": "v_max", "ramp_s": 20.0}
    stairs = _timed((entry,), [5.0], {"v_max": 3.0}, 1.0, "here")
    assert len(stairs) == 20
    assert stairs[0]["at_s"] == 15.0
    assert stairs[0]["value"] == pytest.approx(1.1)
    assert stairs[-1]["value"] == 3.0
    assert stairs[-1]["until_s"] == 50.0  # not of a state, so it stays
    assert all(a["until_s"] == pytest.approx(b["at_s"]) for a, b in pairwise(stairs))
    assert (
        len(_timed(({**entry, "ramp_s": 1000.0, "until_s": 2000.0},), [0.0], {"v_max": 3.0}, 1.0, "here")) == RAMP_STEPS
    )


def test_what_the_backend_refuses_names_file_and_trial(make) -> None:
    with pytest.raises(ConfigError, match=r"mine.toml: trial 'mine': \[\[fault\]\] kind = 'interlock' \(did you mean"):
        play(make(fault=[{"kind": "interlock"}]))
    with pytest.raises(ConfigError, match=r"mine.toml: trial 'mine': change 'offset' of 'cell_v': index = 99"):
        play(make(change=[{"channel": "cell_v", "kind": "offset", "value": 1, "index": 99}]))
    with pytest.raises(ConfigError, match=r"mine.toml: trial 'mine': .*rack"):
        play(make(rack={"n_serie": 4}))


def test_a_recording_is_one_of_the_trial(make, tmp_path: Path) -> None:
    played = play(make(), record=tmp_path / "kept")
    recording = Recording(tmp_path / "kept")
    assert recording.header["about"]["trial"] == "mine"
    assert recording.info.n_cells == played.info.n_cells == 16


def test_a_rack_of_one_s_own_configuration(make) -> None:
    changed = play(make(controller={"limits": {"max_discharge_c": 0.5}}))
    assert changed.values["discharge_a"] == pytest.approx(140.0)
    assert isinstance(changed.trial.scenario, Scenario)
    assert state_name(3) == "connected"


@pytest.mark.parametrize("other", ["n_parallel=4", "cells_per_sensor=1"])
def test_racks_of_one_name_and_size_have_configurations_of_their_own(other: str, make) -> None:
    """Whichever was played before it in this process."""
    rack = "sim:lfp_280?n_series=16&module_groups=16"
    first, second = (play(make({"run": {"rack": url, "duration": "2s"}})) for url in (rack, f"{rack}&{other}"))
    assert first.digest != second.digest
    assert len(second.log) > 0


def test_a_cell_file_of_another_cell_is_refused_as_by_a_run(make) -> None:
    run = {"rack": "sim:na_185?n_series=16&module_groups=16&seed=3", "cell": "nmc_ev", "duration": "10s"}
    with pytest.raises(ConfigError, match=r"^mine\.toml: trial 'mine': cell 'nmc_ev' has 56\.289 Ah.*\[run\] cell"):
        play(make({"run": run}))


def test_a_fault_after_a_state_must_come_before_the_end(make) -> None:
    fault = {"kind": "interlock_open", "at_state": "connected", "at_s": 55.0}
    with pytest.raises(ConfigError, match=r"at_s = 55 after at_state = 'connected' is .* after the last step, 59 s"):
        play(make(fault=[fault]))
    ramp = {"kind": "sensor_offset", "index": [0], "at_state": "connected", "from": 0, "value": 9, "ramp_s": 55}
    with pytest.raises(ConfigError, match=r"kind = 'sensor_offset': ramp_s = 55: .* s, after the end of the run, 60 s"):
        play(make(fault=[ramp]))


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"run": {"rack": "sim:zzz"}}, "rack URL 'sim:zzz': unknown twin cell 'zzz'"),
        ({"rack": {"side_reactions": "zzz"}}, r"\[rack\] side_reactions = 'zzz': unknown side reactions \(known: "),
        (
            {"duty": {"current_a": 3}},
            r"\[duty\]: the key 'kind' is missing, and 'current_a' is none of frequency_regulation, the default: "
            r"give kind = 'constant'",
        ),
        (
            {"change": [{"kind": "nan", "channel": "cell_v", "index": [99]}]},
            r"index = \[99\]: not in 0\.\.15",
        ),
    ],
)
def test_mistakes_in_tables_of_the_rack_name_the_field(tables: dict, complaint: str, make) -> None:
    with pytest.raises(ConfigError, match=rf"^mine\.toml: trial 'mine': .*{complaint}"):
        play(make(tables))
