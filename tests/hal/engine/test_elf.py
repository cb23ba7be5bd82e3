"""ELF files of both widths, as LLVM writes them."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from hal.engine.elf import Elf, undefined_symbols
from hal.engine.targets import PROCESSORS

TEXT = """
target triple = "{triple}"
@kept = constant [5 x i32] [i32 1, i32 2, i32 3, i32 4, i32 5]
@room = global [100 x i8] zeroinitializer
declare void @outside()
define void @inside() nounwind {{ call void @outside() ret void }}
"""


@pytest.mark.parametrize("name", sorted(PROCESSORS))
def test_symbols_and_sections(name: str) -> None:
    target = PROCESSORS[name].target
    code = target.machine().emit_object(llvm.parse_assembly(TEXT.format(triple=target.triple)))
    elf = Elf(code)
    assert elf.undefined() == {"outside"} == undefined_symbols(code)
    found = {symbol.name: elf.sections[symbol.section] for symbol in elf.symbols() if symbol.name in ("kept", "room")}
    assert elf.content(found["kept"])[:8] == bytes([1, 0, 0, 0, 2, 0, 0, 0])
    assert (found["kept"].loaded, found["kept"].written, found["kept"].kept) == (True, False, True)
    assert (found["room"].loaded, found["room"].written, found["room"].kept) == (True, True, False)
    assert (found["room"].size, elf.content(found["room"])) == (100, bytes(100))
    assert [section.name for section in elf.sections if section.name == ".text"] == [".text"]


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not an ELF file"):
        Elf(b"MZ something else")
    assert undefined_symbols(b"MZ something else") == set()
