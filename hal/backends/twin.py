"""The twin's native program: compiled by the engine, so that the twin starts without a compiler and without waiting.

`sim` knows nothing of the engine and would compile in memory; importing this module gives it the program instead.
"""

from __future__ import annotations

from pathlib import Path

from hal.engine import Program
from sim import jit

PROGRAM = Program(
    "twin",
    place="hal.backends.twin:PROGRAM",
    about="the twin",
    modules=("sim.kernels", "sim.electronics"),
    sources=(Path(jit.__file__).parent,),
    prefix="racktwin",
    kind=jit.Kernel,
    entries=jit.ENTRIES,
)

jit.Kernel.provider = PROGRAM.native
