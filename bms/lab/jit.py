"""The laboratory's gate to the compiler: kernels of its own, and the controller's within loops over whole traces."""

from __future__ import annotations

from pathlib import Path

from bms.core.jit import PROGRAM as CORE
from hal.engine import Program

PROGRAM = Program(
    "lab",
    place="bms.lab.jit:PROGRAM",
    about="the laboratory's loops over traces",
    modules=("bms.lab.trace_kernel",),
    sources=(Path(__file__).parent / "jit.py", Path(__file__).parent / "trace_kernel.py", *CORE.sources),
    mathematics=True,
)

kernel = PROGRAM.kernel
