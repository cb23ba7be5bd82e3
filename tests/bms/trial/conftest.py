"""Small trials, made of tables, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bms.trial import case
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
