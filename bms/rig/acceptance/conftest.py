"""What the tests of acceptance share."""

from __future__ import annotations

import pytest

from bms.rig.plugin import NO_RACK


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a rack there is nothing to accept."""
    if items and not (config.getoption("--rack") or config.getoption("--rack-env")):
        raise pytest.UsageError(NO_RACK)
