"""Small trials, made of tables, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bms.trial import campaign, case
from bms.trial.campaign import Campaign
from bms.trial.campaign_sample import run_sample
from bms.trial.case import Trial
from bms.trial.outcome import Outcome, run_one

INTERLOCK: dict[str, Any] = {
    "run": {"duration": "60s", "description": "somebody opens a cover"},
    "fault": [{"kind": "interlock_open", "at_s": 39.01}],
    "expect": {"row": [{"fault": "interlock_open"}]},
}
"""A trial that passes."""


def make_trial(tables: Mapping[str, Any] | None = None, name: str = "mine", **more: Any) -> Trial:
    return case.parse({**(INTERLOCK if tables is None else tables), **more}, name, "mine.toml")[0]


@pytest.fixture(scope="session")
def make() -> Callable[..., Trial]:
    """Makes a trial of tables: the one of the interlock, with keys replaced, unless others are given."""
    return make_trial


@pytest.fixture(scope="session")
def passed() -> Outcome:
    """A trial that passed, with curves."""
    return run_one(make_trial(clause="IEC 0 & <1>"))


@pytest.fixture(scope="session")
def failed() -> Outcome:
    """One that failed, because it expects too much."""
    expect = {"state": "connected", "row": [{"fault": "interlock_open", "detect_ms": 500}]}
    return run_one(make_trial(name="fails", expect=expect))


@pytest.fixture(scope="session")
def gap() -> Outcome:
    """One that is known to fail."""
    return run_one(
        make_trial(name="known", gap="too much is asked", expect={"state": "connected", "allow": ["interlock_open"]})
    )


CAMPAIGN: dict[str, Any] = {
    "campaign": {"n": 4, "seed": 7},
    "run": {"rack": "sim:lfp_280?n_series=16&module_groups=16", "duration": "70s"},
    "fault": [{"kind": "internal_short", "index": [3], "value": 0.002, "at_s": 39.01}],
    "expect": {
        "allow": ["cell_sag", "heat_residual", "temperature_rise", "runaway", "model_residual", "discharge_hot"]
    },
    "vary": {
        "ohm": {"path": "fault.0.value", "log_uniform": [1e-3, 1.0]},
        "cell": {"path": "fault.0.index", "integers": [0, 15]},
        "years": {"path": "age.years", "grid": [0, 10]},
    },
}
"""A campaign of eight samples of an internal short, some milliseconds each."""


def make_campaign(tables: Mapping[str, Any] | None = None, **more: Any) -> Campaign:
    return campaign.parse({**(CAMPAIGN if tables is None else tables), **more}, "shorts", "shorts.toml")


@pytest.fixture(scope="session")
def plan() -> Callable[..., Campaign]:
    """Makes a campaign of tables: that of shorts, with tables replaced, unless others are given."""
    return make_campaign


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """What comes of the campaign of shorts, played in this process."""
    shorts = make_campaign()
    return [run_sample(shorts, k) for k in range(shorts.total)]
