"""What all tests share."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, and before anything imports numpy

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(REPOSITORY / "tests" / "contract"))  # racks behind a bus, that many tests use

# the first example of a test may compile a kernel or import a library, and a busy machine is no reason to fail
settings.register_profile("rackbms", deadline=None)
settings.load_profile("rackbms")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of laboratory data beside the repository; the test is skipped where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"laboratory data not found at {folder}")
    return folder
