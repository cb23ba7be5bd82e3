"""What all tests share."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, and before anything imports numpy

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(REPOSITORY / "tests" / "contract"))  # racks behind a bus, that many tests use

# the first example of a test may compile a kernel or import a library, and a busy machine is no reason to fail
settings.register_profile("rackbms", deadline=None)
settings.load_profile("rackbms")


# numba makes millions of objects that live until it is done: looking for garbage among them less often saves 7 %
gc.set_threshold(100_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files go to processes as `tests/sharing.py` says, with `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.sharing import Sharing

    return Sharing(config, log)


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
