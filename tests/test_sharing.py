"""The tests are shared out as `tests/sharing.py` says, and what it names exists."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest

pytest.importorskip("xdist")

from tests.sharing import LONG, TOGETHER, Sharing


@pytest.fixture
def files(repository: Path) -> list[str]:
    return [path.relative_to(repository).as_posix() for path in sorted((repository / "tests").rglob("test_*.py"))]


def test_what_is_named_exists(files: list[str]) -> None:
    for names in TOGETHER:
        assert sum(1 for file in files if names.match(file)) > 1, names.pattern
    groups = [names.pattern for names in TOGETHER]
    for name in LONG:
        assert name in groups or any(file.startswith(name) for file in files), name


class Worker:
    """Keeps the numbers of the tests that it is sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.sent += numbers


def test_each_file_is_handed_out_once_the_long_ones_first(files: list[str]) -> None:
    tests, worker = [f"{file}::test_{k}" for file in files for k in range(2)], Worker()
    sharing = object.__new__(Sharing)  # compiles nothing
    sharing.registered_collections, sharing.assigned_work = {worker: tests}, {}
    sharing.workqueue = OrderedDict()
    for test in tests:
        sharing.workqueue.setdefault(sharing._split_scope(test), {})[test] = False
    sent = []
    while sharing.workqueue:
        worker.sent = []
        sharing._assign_work_unit(worker)
        sent.append([tests[number] for number in worker.sent])
    assert sorted(test for unit in sent for test in unit) == sorted(tests)
    for names in TOGETHER:
        assert sum(1 for unit in sent if any(names.match(test) for test in unit)) == 1, names.pattern
    assert sent[0] == [f"{LONG[0]}.py::test_0", f"{LONG[0]}.py::test_1"]
    assert all(test.startswith(LONG[1]) for test in sent[1])
    assert all(test.startswith("tests/bms/core/test_estimator") or "health" in test for test in sent[3])
