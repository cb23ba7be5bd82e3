"""The one gate to the compiler: every kernel of the controller is decorated here.

`@kernel` makes a helper, `@kernel("i4(u1[::1], f4)")` an entry of the controller's native program: see
`hal.engine.kernel` for what a kernel may do and for the floating-point rules. Literals in kernels are wrapped
(`f4(0.5)`), so that float32 stays float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hal import contract
from hal.engine import Program
from hal.engine.intrinsics import carve as carve
from hal.engine.intrinsics import prefetch as prefetch
from hal.engine.intrinsics import transpose as transpose

f4 = np.float32
i4 = np.int32

PROGRAM = Program(
    "core",
    place="bms.core.jit:PROGRAM",
    about="estimator, protection and control",
    modules=("bms.core.step",),
    sources=(Path(__file__).parent, Path(contract.__file__)),
    prefix="rackbms",
)
"""Everything that a controller runs; the firmware and `bms build` are made of it."""

kernel = PROGRAM.kernel
