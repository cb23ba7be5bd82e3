"""Configurations to change: a small LFP rack, and what a change of it makes `check` say."""

from collections.abc import Callable
from typing import Any

import pytest

from bms import racks
from bms.racks.check import check
from bms.racks.findings import Finding

Look = Callable[..., list[Finding]]


@pytest.fixture(scope="session")
def lfp() -> racks.RackConfig:
    return racks.load("lfp_280")


@pytest.fixture(scope="session")
def look(lfp: racks.RackConfig) -> Look:
    """Findings about the shipped LFP rack with the tables given as keyword arguments over its own."""

    def looked(**changes: Any) -> list[Finding]:
        return check(racks.overlay(lfp, changes, "changed.toml"))

    return looked
