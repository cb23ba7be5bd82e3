"""The filter works on whole vectors: the machine code says so, for processors with 512 and with 256 bits.

The targets are fixed, so that the test says the same whatever it runs on. What is looked at are basic blocks: runs of
instructions without a way in or out. One loop over 16 cells of the filter is one such block, or two.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest

from bms.core.estimator import estimator_step
from bms.core.jit import PROGRAM
from bms.core.layout import config_of, state_of
from hal.engine import Program
from hal.engine.compile import Target

TARGETS = {
    "zmm": Target("x86_64-unknown-linux-gnu", "x86-64-v4", "-prefer-256-bit"),
    "ymm": Target("x86_64-unknown-linux-gnu", "x86-64-v3", ""),
}
ARITHMETIC = re.compile(r"v?(add|sub|mul|div|sqrt|min|max)[sp]s")
FUSED = re.compile(r"vfn?m(add|sub)\w*")
DOUBLE = re.compile(r"v?((add|sub|mul|div|sqrt|min|max|u?comi|round|rndscale)[sp]d|cvt\w*([sp]d2|2[sp]d)\w*)")
LOOP = 20  # a block with so many operations on whole vectors is a loop over the lanes


FILTER = Program("filter", place=f"{__name__}:FILTER", about="the filter alone", modules=(__name__,), sources=())


@FILTER.kernel("i4(u1[::1], u1[::1], f4[::1], u1[::1], f4[::1], f4, f4)")
def filter_alone(config, state, cell_v, quality, degc, current_a, dt_s):
    """A step of the filter without the rest of the controller, whose loops are other ones."""
    c = config_of(config)
    head = c.estimator.scalars[0]
    s = state_of(state, int(head.n_cells), int(head.n_sensors))
    return np.int32(estimator_step(c.estimator, s.estimator, cell_v, quality, degc, current_a, np.uint8(0), dt_s))


@dataclass
class Block:
    """Instructions of one basic block: operation and operands."""

    code: list[tuple[str, str]] = field(default_factory=list)

    def arithmetic(self, register: str) -> Counter[str]:
        """How often add, sub, mul, ... works on vectors of single precision of this kind of register."""
        packed = [
            m[1] for op, to in self.code if (m := ARITHMETIC.fullmatch(op)) and op.endswith("ps") and register in to
        ]
        return Counter(packed)

    def all_arithmetic(self) -> int:
        return sum(1 for op, _ in self.code if ARITHMETIC.fullmatch(op))

    def matches(self, pattern: str) -> list[str]:
        return [f"{op} {to}" for op, to in self.code if re.match(pattern, op)]


def blocks_of(assembly: str) -> list[Block]:
    found = [Block()]
    for line in assembly.splitlines():
        if re.match(r"[A-Za-z_.][\w.$@]*:", line):
            found.append(Block())
        elif m := re.match(r"\t([a-z]\w*)\s*(.*)", line):
            found[-1].code.append((m[1], m[2]))
            if m[1].startswith("j"):
                found.append(Block())
    return found


@cache
def blocks_for(program: Program) -> dict[str, list[Block]]:
    """The code of a program for each target, by the name of its widest registers."""
    return {name: blocks_of(text) for name, text in zip(TARGETS, program.assemblies([*TARGETS.values()]), strict=True)}


@pytest.fixture(scope="module", params=list(TARGETS))
def code(request: pytest.FixtureRequest) -> tuple[str, list[Block]]:
    """Name of the widest registers of a target, and the filter's code for it."""
    return request.param, blocks_for(FILTER)[request.param]


def loops(code: tuple[str, list[Block]]) -> list[Block]:
    register, blocks = code
    return [block for block in blocks if block.arithmetic(register).total() >= LOOP]


def test_the_update_is_one_run_of_whole_vectors(code: tuple[str, list[Block]]) -> None:
    """Nine states, 45 numbers of their covariance and nine sensitivities, without a branch between them."""
    register, blocks = code
    update = max(blocks, key=Block.all_arithmetic)
    wide = update.arithmetic(register)
    assert wide["mul"] > 220
    assert wide["add"] + wide["sub"] > 200
    assert wide.total() > 0.9 * update.all_arithmetic()
    assert wide["div"] == 1, "one for 16 cells, or for eight"
    assert wide["sqrt"] == 0


def test_all_loops_of_the_filter_work_on_whole_vectors(code: tuple[str, list[Block]]) -> None:
    register, _ = code
    found = loops(code)
    assert len(found) >= 3, "update, slow noises, bias"
    wide = sum((block.arithmetic(register) for block in found), Counter[str]())
    assert wide.total() > 0.9 * sum(block.all_arithmetic() for block in found)
    assert wide["mul"] + wide["add"] + wide["sub"] > 600
    assert wide["div"] == 1
    assert 1 <= wide["sqrt"] <= 2, "of the deviation"
    for block in found:
        assert not block.matches(r"v?(div|sqrt)ss"), "what is the same for all cells is calculated once"


def test_nothing_is_gathered_number_by_number(code: tuple[str, list[Block]]) -> None:
    for block in loops(code):
        assert not block.matches("vp?gather")
        assert not block.matches("call")


@pytest.mark.parametrize("name", list(TARGETS))
def test_nothing_is_fused_and_nothing_is_double(name: str) -> None:
    """In the whole of the core: single precision, each operation rounded."""
    for block in blocks_for(PROGRAM)[name]:
        for op, to in block.code:
            assert not FUSED.fullmatch(op), f"{op} {to}"
            assert not DOUBLE.fullmatch(op), f"{op} {to}"


@pytest.mark.parametrize(
    ("line", "fused", "double"),
    [
        ("vfmadd231ps\t%zmm1, %zmm2, %zmm3", True, False),
        ("vfnmadd213ss\t%xmm1, %xmm2, %xmm3", True, False),
        ("vmulsd\t%xmm1, %xmm2, %xmm3", False, True),
        ("vcvtss2sd\t%xmm1, %xmm2, %xmm3", False, True),
        ("vcvtps2pd\t%xmm1, %ymm2", False, True),
        ("ucomisd\t%xmm1, %xmm2", False, True),
        ("vmovsd\t(%rax), %xmm2", False, False),
        ("vpmaxsd\t%ymm1, %ymm2, %ymm3", False, False),
        ("vmulps\t%zmm1, %zmm2, %zmm3", False, False),
    ],
)
def test_what_is_looked_for_would_be_found(line: str, fused: bool, double: bool) -> None:
    block = blocks_of(f"name:\n\t{line}\n")[-1]
    ((op, _),) = block.code
    assert bool(FUSED.fullmatch(op)) == fused
    assert bool(DOUBLE.fullmatch(op)) == double
    assert block.all_arithmetic() == (op == "vmulps")
