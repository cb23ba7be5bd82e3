"""Which process of pytest-xdist runs which tests: whole files, the long ones first, and little is compiled twice."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from xdist.scheduler import LoadFileScheduling

COMPILE = """
from bms.core.jit import PROGRAM as core
from bms.lab.jit import PROGRAM as lab
from hal.backends.twin import PROGRAM as twin
from hal.codec.jit import PROGRAM as codec
from hal.engine import prepare
prepare((core, twin, codec, lab))
"""

TOGETHER = tuple(
    re.compile(f"tests/bms/{names}")
    for names in (
        r"core/test_(estimator|health)",
        r"core/test_(first_look|plausibility|signals|sources)",
        r"core/test_machine",
        r"core/test_power",
        r"firmware/test_(build_image|bundle|processes)",
    )
)
"""Files of one process: each process compiles for itself those helpers of the controller that their tests call, and
what one file has left in the cache for a processor the next one finds."""

LONG = (
    "tests/bms/firmware/test_boards",  # leaves in the cache what all processors have in common
    "tests/bms/core/test_coverage",
    "tests/bms/runtime/test_loop_memory",
    TOGETHER[0].pattern,
    TOGETHER[4].pattern,
    TOGETHER[1].pattern,
    "tests/bms/core/test_vectorised",
    "tests/bms/runtime/test_loop.",
    "tests/bms/rig/test_plugin",
    "tests/bms/lab/test_accuracy",
    "tests/bms/runtime/test_run.",
    "tests/bms/firmware/loader/test_emulated",
)
"""How the names of what one process runs begin that comes first, in this order; everything else comes after it."""


class Sharing(LoadFileScheduling):
    """As `--dist loadfile`, in an order of its own; what most tests need is compiled while they are collected."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        self._compiling = subprocess.Popen([sys.executable, "-c", COMPILE])

    def schedule(self) -> None:
        """Hand out the first files."""
        self._compiling.wait()
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        together = [names.pattern for names in TOGETHER if names.match(nodeid)]
        return together[0] if together else super()._split_scope(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=_place), last=False)
        super()._assign_work_unit(node)


def _place(scope: str) -> int:
    return next((k for k, name in enumerate(LONG) if scope.startswith(name)), len(LONG))
