"""The codecs' gate to the compiler: integer kernels only, so that no floating-point rule is at stake."""

from __future__ import annotations

from pathlib import Path

from hal.engine import Program

PROGRAM = Program(
    "codec",
    place="hal.codec.jit:PROGRAM",
    about="the recorder",
    modules=("hal.codec.recording",),
    sources=(Path(__file__).parent,),
)
kernel = PROGRAM.kernel
