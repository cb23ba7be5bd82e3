"""What is handed on of a trial."""

from __future__ import annotations

import json
import pickle

import numpy as np

from bms.trial.outcome import COLUMNS, CURVES, FAILED, GAP, HEAT_COLUMNS, HEAT_ROWS, PASSED, Outcome, run_one


def test_statuses(passed: Outcome, failed: Outcome, gap: Outcome, make) -> None:
    assert (passed.status, failed.status, gap.status) == (PASSED, FAILED, GAP)
    assert failed.failures
    assert gap.failures
    closed = run_one(make(gap="not any more"))
    assert closed.status == FAILED
    assert "remove the key 'gap'" in closed.failures[0]


def test_curves_are_bounded(passed: Outcome, make) -> None:
    whole = {
        "run": {"rack": "sim:lfp_280?n_series=104&module_groups=52", "duration": "400s"},
        "duty": {"kind": "constant"},
    }
    for outcome in (passed, run_one(make(whole))):
        curves = outcome.curves
        assert curves is not None
        assert set(curves.lines) == set(CURVES)
        assert len(curves.time_s) <= COLUMNS
        assert curves.heat.shape[0] <= HEAT_ROWS
        assert curves.heat.shape[1] <= HEAT_COLUMNS
        assert np.isfinite(curves.heat).all()
        assert curves.states[0][0] == 0.0


def test_it_is_json_and_goes_from_process_to_process(passed: Outcome) -> None:
    assert json.loads(json.dumps(passed.to_json()))["entries"][0]["row"] == 303
    assert pickle.loads(pickle.dumps(passed)).id == "mine"
    assert "curves" not in passed.to_json()
    assert passed.open_at_end
    assert passed.simulated_s == 60.0
