"""The codecs' gates to the compiler.

The recorder's kernels handle whole numbers only, so that no floating-point rule is at stake. Those of the CAN codec
scale raw values to physical ones in double precision, under the rules of `hal.engine`, and are a program of their own.
"""

from __future__ import annotations

from pathlib import Path

from hal.engine import Program

PROGRAM = Program(
    "codec",
    place="hal.codec.jit:PROGRAM",
    about="the recorder",
    modules=("hal.codec.recording",),
    sources=(Path(__file__).parent / "jit.py", Path(__file__).parent / "recording.py"),
)
kernel = PROGRAM.kernel

CAN = Program(
    "can",
    place="hal.codec.jit:CAN",
    about="the CAN codec",
    modules=("hal.codec.frames",),
    sources=tuple(Path(__file__).parent / name for name in ("jit.py", "frames.py", "can_protection.py")),
)
can_kernel = CAN.kernel
