"""The codecs' gate: their kernels are entries of one program, and whole numbers only."""

import re

from hal.codec import jit


def test_the_kernels_of_the_recorder_are_one_program() -> None:
    assert set(jit.PROGRAM.entries) == {"pack", "unpack"}
    assert jit.PROGRAM.table.program == "codec"


def test_no_floating_point_instruction_is_in_it() -> None:
    assembly = jit.PROGRAM.assembly()
    assert re.search(r"rackbms_codec_pack:", assembly)
    assert not re.search(r"\b\w*(addss|mulss|addsd|mulsd|addps|addpd|fadd|fmul)\b", assembly)
