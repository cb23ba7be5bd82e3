"""A weakened controller is noticed."""

from __future__ import annotations

import pytest

from bms import racks
from bms.core.faults import Fault
from bms.trial import case, pool, weaken
from bms.trial.coverage import row_text
from hal.contract import Severity

ROWS = {row.id: row for row in racks.load("lfp_280").rows}


def test_ways_to_spoil_a_row() -> None:
    fatal, info = ROWS[303], ROWS[11]
    assert weaken.overlay(fatal, "off") == {"fault": {"interlock_open": {"fatal": {"enabled": False}}}}
    assert weaken.overlay(fatal, "slow") == {"fault": {"interlock_open": {"fatal": {"set_s": 2.0}}}}
    assert weaken.overlay(info, "slow") is None


def test_every_row_has_a_trial_that_expects_it() -> None:
    jobs = weaken.jobs_of(case.load_all(case.library()), "off")
    tried = {row.id for row, _, _ in jobs}
    assert tried == {row.id for name in racks.names() for row in racks.load(name).rows}
    assert all(not trial.gap for _, trial, _ in jobs)


SEEDED = ["cell_overvoltage.fatal", "insulation.warning", "gas_alarm.fatal", "charge_cold.info", "sample_lost.fatal"]


@pytest.mark.parametrize("how", weaken.HOW)
def test_a_seeded_weakness_is_caught(how: str) -> None:
    jobs = []
    seen = set()
    for row, trial, changes in weaken.jobs_of(case.load_all(case.library()), how):
        # the quick ones: one trial for each row
        if row_text(row.id) in SEEDED and row.id not in seen and trial.scenario.duration_s <= 150.0:
            seen.add(row.id)
            jobs.append((row, trial, changes))
    outcomes = pool.run_all([(trial, changes) for _, trial, changes in jobs], curves=False)
    found = weaken.collect(jobs, outcomes, how)
    assert len(found) == (5 if how == "off" else 3)
    assert all(weakness.caught_by for weakness in found), found


def test_the_healthy_controller_is_not_blamed(make) -> None:
    trial = make()
    jobs = [(ROWS[303], trial, {}), (ROWS[13], trial, {})]
    outcomes = pool.run_all([(trial, None), (trial, None)], curves=False)
    found = weaken.collect(jobs, outcomes, "off")
    assert [(weakness.tried, weakness.caught_by, weakness.opened) for weakness in found] == [(1, [], 1), (1, [], 1)]
    assert ROWS[303].fault == Fault.INTERLOCK_OPEN
    assert ROWS[303].severity == Severity.FATAL
