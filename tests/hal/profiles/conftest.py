"""What others say of the same wires."""

from pathlib import Path
from typing import Any

import cantools
import pytest


@pytest.fixture(scope="session")
def foxbms_dbc(shared_data: Path) -> Any:
    """The public CAN description of foxBMS 2, as cantools reads it; skipped where it is not there."""
    path = shared_data / "foxbms" / "foxbms.dbc"
    if not path.is_file():
        pytest.skip(f"the CAN description of foxBMS 2 not found at {path}")
    return cantools.database.load_file(path)
