"""How deep a stack gets: frames as three processors make them, chains of calls, and what cannot be told."""

from __future__ import annotations

import pytest

from hal.engine.stack import Frame, deepest, frames

THUMB = """
\t.thumb_func
leaf:
\tbx\tlr
.Lfunc_end0:
middle:                                 @ @middle
\t.fnstart
\tpush.w\t{r4, r5, r6, r7, r8, r9, r10, r11, lr}
\tsub\tsp, #4
\tvpush\t{d8, d9, d10}
\tsub.w\tsp, sp, #5728
\tstr\tr0, [sp, #16]
\tbl\tleaf
\tb\t.LBB1_2
.LBB1_2:
\tadd.w\tsp, sp, #5728
\tpop.w\t{r4, r5, r6, r7, r8, r9, r10, r11, pc}
top:
\tstr\tlr, [sp, #-8]!
\tcbz\tr0, .LBB2_1
\tbl\tmiddle
.LBB2_1:
\tldr\tlr, [sp], #8
\tb.w\tleaf
"""

LISTED = """
00000100 <top>:
     100:\tb580      \tpush\t{r7, lr}
     102:\tf7ff fffe \tbl\t200 <leaf>
     106:\te7fe      \tb.n\t106 <top+0x6>

00000200 <leaf>:
     200:\tb084      \tsub\tsp, #16
     202:\ted2d 8b10 \tvpush\t{d8-d15}
     206:\t4770      \tbx\tlr
"""

A64 = """
first:
\tstp\td9, d8, [sp, #-112]!               // 16-byte Folded Spill
\tsub\tsp, sp, #1, lsl #12                // =4096
\tsub\tsp, sp, #1760
\tbl\tsecond
second:
\tret
"""

RISCV = """
first:
\taddi\tsp, sp, -1200
\tsw\tra, 1196(sp)                        # 4-byte Folded Spill
\tlui\ta1, 1
\taddi\ta1, a1, 552
\tsub\tsp, sp, a1
\tcall\tsecond
second:
\tret
"""


def test_frames_and_calls_of_thumb() -> None:
    found = frames(THUMB)
    assert {name: frame.size for name, frame in found.items()} == {
        "leaf": 0,
        "middle": 9 * 4 + 4 + 3 * 8 + 5728,
        "top": 8,
    }
    assert found["top"].calls == {"middle", "leaf"}
    depth = deepest(found, "top")
    assert (depth.size, depth.chain) == (8 + 5792, ("top", "middle", "leaf"))


@pytest.mark.parametrize(
    ("text", "entry", "size", "chain"),
    [
        (LISTED, "top", 8 + 16 + 64, ("top", "leaf")),
        (A64, "first", 112 + 4096 + 1760, ("first", "second")),
        (RISCV, "first", 1200 + 4096 + 552, ("first", "second")),
    ],
)
def test_frames_of_other_texts(text: str, entry: str, size: int, chain: tuple[str, ...]) -> None:
    depth = deepest(frames(text), entry)
    assert (depth.size, depth.chain) == (size, chain)


def test_what_lies_outside_takes_what_is_said() -> None:
    assert deepest({"a": Frame(8, {"memcpy"})}, "a", outside=40).size == 48


def test_recursion_has_no_limit() -> None:
    with pytest.raises(ValueError, match="a -> b -> a: calls itself"):
        deepest({"a": Frame(8, {"b"}), "b": Frame(8, {"a"})}, "a")


@pytest.mark.parametrize("instruction", ["blx\tr3", "sub\tsp, sp, r4", "and\tsp, r4", "jalr\ta5"])
def test_what_cannot_be_told_is_an_error(instruction: str) -> None:
    found = frames(f"above:\n\tbl\tbelow\nbelow:\n\t{instruction}\n")
    with pytest.raises(ValueError, match="below: .* cannot be told"):
        deepest(found, "above")


def test_a_stack_that_is_aligned_takes_as_much_as_it_may() -> None:
    assert frames("f:\n\tmov\tr4, sp\n\tbfc\tr4, #0, #6\n\tmov\tsp, r4\n")["f"].size == 63
