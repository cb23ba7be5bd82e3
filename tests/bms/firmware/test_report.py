"""The report of a build: what is added up, and how it is shown."""

from __future__ import annotations

import llvmlite.binding as llvm

from bms.firmware import report
from bms.firmware.build import LAYOUTS
from hal.engine.elf import Elf
from hal.engine.stack import Depth
from hal.engine.targets import PROCESSORS

TEXT = """
target triple = "thumbv7em-none-eabihf"
@kept = constant [25 x i32] [{words}]
@changed = global [10 x i32] [{fewer}]
@room = global [1000 x i8] zeroinitializer
declare i64 @__moddi3(i64, i64)
define i64 @rackbms_rest(i64 %a, i64 %b) nounwind {{ %c = call i64 @__moddi3(i64 %a, i64 %b) ret i64 %c }}
"""


def elf() -> Elf:
    words = ", ".join(f"i32 {k + 1}" for k in range(25))
    fewer = ", ".join(f"i32 {k + 1}" for k in range(10))
    text = TEXT.format(words=words, fewer=fewer)
    return Elf(PROCESSORS["cortex-m7"].target.machine().emit_object(llvm.parse_assembly(text)))


def test_flash_holds_what_is_kept_and_ram_what_is_written() -> None:
    found = elf()
    text = sum(section.size for section in found.sections if section.name.startswith((".text", ".ARM.ex")))
    assert report.flash_and_ram(found) == (text + 100 + 40, 40 + 1000)


def test_every_number_is_shown() -> None:
    facts = report.Facts(
        target="cortex-m7",
        processor=PROCESSORS["cortex-m7"],
        versions={"numba": "1.2"},
        hashes={"kernels": "abcd"},
        layouts=LAYOUTS,
        rack=(16, 2),
        kernels=elf(),
        stack={"rackbms_rest": Depth(1234, ("rackbms_rest", "__moddi3"))},
        firmware=elf(),
    )
    lines = [" ".join(line.split()) for line in report.text(facts).splitlines()]
    assert "target thumbv7em-none-eabihf cortex-m7" in lines
    assert f"layout of State {LAYOUTS[1].digest()}" in lines
    assert f"state, in RAM {LAYOUTS[1].dtype(16, 2).itemsize:,}" in lines
    assert "whole firmware, in RAM 1,040" in lines
    assert "rackbms_rest 1,234 rackbms_rest > __moddi3" in lines
    assert "defined rackbms_rest" in lines
    assert "needed __moddi3" in lines
    assert lines[-1].endswith("exact helpers for integers of 64 bits)")
