"""The loops over cells of the twin work on whole vectors: its machine code for processors with 512 bits says so.

The target is fixed, so that the test says the same whatever it runs on. A loop is a basic block with many operations on
whole vectors; where vectors may not be used, because memory might overlap, a scalar copy of it stands beside it.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from hal.backends.twin import PROGRAM
from hal.engine.compile import Target

TARGET = Target("x86_64-unknown-linux-gnu", "x86-64-v4", "-prefer-256-bit")
ARITHMETIC = re.compile(r"v(add|sub|mul|div|sqrt)([sp])d")
LOOP = 20


@pytest.fixture(scope="module")
def blocks() -> list[Counter[str]]:
    """For each basic block how often it adds, multiplies, ...: 'wide mul' on eight numbers, 'mul' on fewer."""
    found: list[Counter[str]] = [Counter()]
    for line in PROGRAM.assembly(TARGET).splitlines():
        if re.match(r"[A-Za-z_.][\w.$@]*:", line):
            found.append(Counter())
        elif m := re.match(r"\t([a-z]\w*)\s*(.*)", line):
            if a := ARITHMETIC.fullmatch(m[1]):
                found[-1][f"wide {a[1]}" if "zmm" in m[2] else a[1]] += 1
            elif m[1] in ("vpmullq", "vgatherqpd"):
                found[-1][m[1]] += "zmm" in m[2]
            if m[1].startswith("j"):
                found.append(Counter())
    return found


def wide(block: Counter[str]) -> int:
    return sum(n for name, n in block.items() if name.startswith("wide"))


def test_what_follows_from_the_state_is_one_run_of_whole_vectors(blocks: list[Counter[str]]) -> None:
    """Arrhenius factors and charge transfer: both exponentials, asinh with its root, and no branch between them."""
    largest = max(blocks, key=wide)
    assert wide(largest) > 100
    assert largest["wide sqrt"] >= 1
    assert largest["wide div"] >= 3
    assert sum(largest.values()) - wide(largest) < 5


def test_all_loops_over_cells_work_on_whole_vectors(blocks: list[Counter[str]]) -> None:
    loops = [block for block in blocks if wide(block) >= LOOP]
    assert len(loops) >= 6, "what follows from the state, the source, the cells, the sensors"
    total = sum(loops, Counter[str]())
    narrow = sum(n for name, n in total.items() if name in ("add", "sub", "mul", "div", "sqrt"))
    assert narrow < 0.05 * wide(total)
    assert total["wide div"] > 20


def test_noise_is_drawn_eight_numbers_at_a_time(blocks: list[Counter[str]]) -> None:
    assert max(block["vpmullq"] for block in blocks) >= 4


def test_the_table_is_not_picked_from_memory_number_by_number(blocks: list[Counter[str]]) -> None:
    assert sum(block["vgatherqpd"] for block in blocks) == 0
