"""Rows of a campaign: detection, fire and false alarms as the twin's truth and the log tell them, and the digest."""

from __future__ import annotations

import pytest

from bms.trial import campaign_sample
from bms.trial.campaign_sample import columns, played_sample, run_sample
from hal.errors import ConfigError


def one(plan, value: float, **more):
    tables = {
        "run": {"rack": "sim:lfp_280?n_series=16&module_groups=16", "duration": "300s"},
        # a cell with a sensor of its own
        "fault": [{"kind": "internal_short", "index": [5], "value": value, "at_s": 39.01}],
        **more,
    }
    return run_sample(plan(tables), 0)


def test_a_hard_short_is_seen_opened_and_burns(plan) -> None:
    row = one(plan, 1e-3)
    assert row["injected_s"] == 39.01
    assert 0 < row["detect_s"] <= row["open_s"] < row["vented_s"]
    assert row["lead_venting_s"] == pytest.approx(row["vented_s"] - row["detect_s"])
    assert row["max_degc"] > 150
    assert row["cause"].endswith(".fatal")
    assert not row["passed"]
    assert "unexpected" in row["failure"]


def test_a_soft_short_is_not_seen_within_minutes(plan) -> None:
    row = one(plan, 3.0)
    for name in ("detect_s", "detected_by", "open_s", "cause", "vented_s", "ignited_s", "lead_venting_s"):
        assert row[name] is None, name
    assert row["passed"]
    assert row["failure"] == ""
    assert row["max_degc"] < 30
    assert row["sound_s"] == 40.0  # the samples at 0..39 s


def test_only_named_faults_and_tiers_count_as_detection(plan) -> None:
    # a soft short is a warning first, of a hard one all tiers are set at once
    assert one(plan, 0.03)["detect_s"] < one(plan, 0.03, detect={"tier": "fatal"})["detect_s"]
    fatal = one(plan, 1e-3, detect={"tier": "fatal"})
    gas = one(plan, 1e-3, detect={"faults": ["gas_alarm"]})
    assert fatal["detect_s"] < gas["detect_s"]
    assert fatal["detected_by"].endswith(".fatal")
    assert gas["detected_by"].startswith("gas_alarm.")


def test_what_was_shown_before_the_injection_is_a_false_alarm_and_no_detection(plan) -> None:
    touchy = {"fault": {"voltage_spread": {tier: {"threshold": 1e-5, "set_s": 1.0} for tier in ("info", "warning")}}}
    row = one(plan, 3.0, controller=touchy)
    assert row["false_warnings"] == 1
    assert row["false_trips"] == 0
    assert row["false_rows"] == "voltage_spread.warning"
    assert row["detect_s"] is None


def test_a_healthy_rack_has_nothing_to_detect(plan) -> None:
    row = run_sample(plan({"run": {"duration": "60s"}}), 0)
    assert row["injected_s"] is None
    assert row["detect_s"] is None
    assert row["sound_s"] == row["simulated_s"] == 60.0
    assert (row["false_warnings"], row["false_trips"], row["passed"]) == (0, 0, True)


def test_a_row_has_all_columns_with_their_types(plan, rows) -> None:
    types = columns(plan())
    for row in rows:
        assert list(row) == list(types)
        for name, kind in types.items():
            assert row[name] is None or type(row[name]) is kind, name
    assert [row["vary.years"] for row in rows] == [0, 10] * 4
    assert {row["capacity_factor"] for row in rows} == {1.0, rows[1]["capacity_factor"]}


def test_the_same_again_and_another_digest_for_what_differs(plan, rows) -> None:
    assert run_sample(plan(), 5) == rows[5]
    assert len({row["digest"] for row in rows}) == len(rows)


def test_a_trial_that_breaks_is_a_finding(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **more: object) -> None:
        raise ZeroDivisionError("in the controller")

    monkeypatch.setattr(campaign_sample, "play", broken)
    row, played = played_sample(plan(), 2)
    assert played is None
    assert row["passed"] is False
    assert row["failure"] == "broke: ZeroDivisionError: in the controller"
    assert row["vary.cell"] is not None


def test_a_wrong_field_of_the_twin_ends_it(plan) -> None:
    with pytest.raises(ConfigError, match="trial 'shorts-000000'.*initial_sok"):
        run_sample(plan(rack={"initial_sok": 0.5}), 0)


def test_kernels_are_made_ready_once(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(campaign_sample.pool, "prepare", lambda *args, **more: calls.append(args))
    campaign_sample.warm.cache_clear()
    for _ in range(3):
        campaign_sample.warm(("sim:lfp_280",), "jit")
    assert len(calls) == 1
    campaign_sample.warm.cache_clear()
