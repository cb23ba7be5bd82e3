"""The compiler: wide vectors, strict arithmetic, nothing needed from outside, for this and other processors."""

import platform
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hal.engine import Program
from hal.engine import compile as compiler
from hal.engine.compile import CompileError, Target, undefined_symbols

Make = Callable[..., Program]

X86 = Target("x86_64-unknown-linux-gnu", "x86-64-v3", "")
CORTEX = Target("thumbv7em-none-eabihf", "cortex-m4", "")
AARCH = Target("aarch64-unknown-linux-gnu", "cortex-a72", "")
f4 = np.float32


def entry(program: Program, signature: str, function: Callable[..., Any]) -> str:
    """Add an entry to `program`; returns its name."""
    made = program.kernel(signature)(function)
    made.py_func.__module__ = "hal.engine"
    program.__dict__.pop("entries", None)
    return made.__name__


def module(program: Program, target: Target) -> str:
    """The optimised program in LLVM's language."""
    return str(program._module(program.table, program.entries, target))


def test_a_loop_becomes_vectors_without_asking_whether_arrays_overlap(small: Make) -> None:
    text = module(small(), X86)
    assert "<8 x float>" in text
    assert "memcheck" not in text
    body = small().assembly(X86).split("rackbms_small_weighted:")[1].split(".Lfunc_end")[0]
    assert re.search(r"vmulps\s.*%ymm", body)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks at instructions of x86-64")
def test_all_of_this_processor_is_used(small: Make) -> None:
    wide = "zmm" if "+avx512f" in Target.host().features else "ymm"
    assert re.search(rf"vmulps\s.*%{wide}", small().assembly())


def test_several_processors_of_one_kind_get_what_each_gets_alone(small: Make) -> None:
    targets = [X86, Target(X86.triple, "x86-64-v4", "-prefer-256-bit"), Target(X86.triple, "x86-64", "")]
    texts = small().assemblies(targets)
    assert texts == [small().assembly(target) for target in targets]
    assert len(set(texts)) == len(targets)


def test_arithmetic_is_strict(small: Make) -> None:
    def fused(a: Any, b: Any, c: Any) -> Any:
        return a * b + c

    def residue(a: Any, b: Any) -> Any:
        return (a + b) - a

    def is_nan(a: Any) -> Any:
        return a != a

    def ratio(a: Any, b: Any) -> Any:
        return a / b

    program = small()
    entry(program, "f4(f4, f4, f4)", fused)
    entry(program, "f4(f4, f4)", residue)
    entry(program, "b1(f4)", is_nan)
    entry(program, "f4(f4, f4)", ratio)
    text = module(program, Target.host())
    assert not re.search(r"\bfast\b|contract|llvm\.fm|reassoc|nnan|ninf", text)
    assert not re.search(r"\bvfn?m(add|sub)", program.assembly())
    # 1.0001^2 rounds to its float32 neighbour, which the sum leaves as 0; a fused operation would leave the rest
    a = f4(1.0001)
    assert program.entries["fused"](a, a, -(a * a)) == 0.0
    # residue, the difference would be b itself; one by one, b vanishes beside 1e8
    assert program.entries["residue"](1e8, 1.0) == 0.0
    assert program.entries["is_nan"](np.nan) is True
    assert program.entries["ratio"](1.0, 0.0) == np.inf
    assert np.isnan(program.entries["ratio"](0.0, 0.0))


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_goes_in_and_comes_out(small: Make, kind: str) -> None:
    def last(values: Any, scalar: Any) -> Any:
        values[1] = scalar
        return values[0]

    program = small()
    entry(program, f"{kind}({kind}[::1], {kind})", last)
    dtype = np.dtype(kind)
    high = np.finfo(dtype).max if kind[0] == "f" else np.iinfo(dtype).max
    low = np.finfo(dtype).min if kind[0] == "f" else np.iinfo(dtype).min
    values = np.array([high, 0], dtype)
    assert program.entries["last"](values, low) == high
    assert values[1] == low


def test_an_entry_that_can_raise_is_refused(small: Make) -> None:
    def strict(x: Any) -> Any:
        if x < 0:
            raise ValueError
        return x

    program = small()
    entry(program, "f4(f4)", strict)
    with pytest.raises(CompileError, match="strict: an entry must not raise, and this one can"):
        program.compile()


def test_a_way_out_that_cannot_be_taken_does_no_harm(small: Make) -> None:
    def strict(k: Any) -> Any:
        if k < 0:
            raise ValueError
        return k

    def checked(k: Any) -> Any:
        return strict_kernel(k) if k > -5 and k != -4 and k >= 0 else 0

    program = small()
    strict_kernel = program.kernel(strict)
    entry(program, "i8(i8)", checked)
    assert [program.entries["checked"](k) for k in (3, -3)] == [3, 0]


def test_an_entry_that_allocates_is_refused(small: Make) -> None:
    def grown(values: Any) -> Any:
        more = np.zeros(2 * values.size)
        more[: values.size] = values
        return more[-1]

    program = small()
    entry(program, "f8(f8[::1])", grown)
    with pytest.raises(Exception, match="zeros"):
        program.compile()


def test_the_c_library_is_called_only_where_that_is_allowed(small: Make) -> None:
    def warm(x: Any) -> Any:
        return np.exp(x)

    program = small()
    entry(program, "f8(f8)", warm)
    with pytest.raises(CompileError, match="the object needs exp, which a program must do without"):
        program.compile()
    program = small(mathematics=True)
    entry(program, "f8(f8)", warm)
    assert undefined_symbols(program.compile()) == {"exp"}
    assert program.entries["warm"](0.0) == 1.0


def test_a_wrong_result_type_is_refused(small: Make) -> None:
    def halved(x: Any) -> Any:
        return x / 2

    program = small()
    entry(program, "i4(i4)", halved)
    with pytest.raises(CompileError, match="halved: returns float64, its signature says int32"):
        program.compile()


def test_the_same_object_every_time(small: Make) -> None:
    assert small().compile() == small().compile()


@pytest.mark.parametrize(("target", "machine", "wide"), [(CORTEX, 40, 1), (AARCH, 183, 2), (X86, 62, 2)])
def test_objects_for_other_processors(small: Make, target: Target, machine: int, wide: int) -> None:
    program = small()
    if target is CORTEX:
        program.entries.pop("total")  # this one works in double precision, which the processor has not
    code = program.compile(target)
    assert code[:4] == b"\x7fELF"
    assert (int.from_bytes(code[18:20], "little"), code[4]) == (machine, wide)
    assert b"rackbms_small_weighted" in code
    assert b'"program": "small"' in code


def test_software_arithmetic_is_refused(small: Make) -> None:
    with pytest.raises(CompileError, match="__adddf3"):
        small().compile(CORTEX)


@pytest.mark.parametrize("target", [CORTEX, AARCH, X86])
def test_undefined_symbols_are_found_in_every_kind_of_object(target: Target) -> None:
    llvm = compiler.llvm
    text = (
        f'target triple = "{target.triple}"\n'
        "@there = global i32 7\n@elsewhere = external global i32\ndeclare i32 @outside(i32)\n"
        "define i32 @inside(i32 %x) #0 {\n %y = load i32, ptr @elsewhere\n %a = add i32 %x, %y\n"
        " %b = call i32 @outside(i32 %a)\n ret i32 %b\n}\nattributes #0 = { nounwind }\n"
    )
    machine = target.machine()
    assert undefined_symbols(machine.emit_object(llvm.parse_assembly(text))) - {"_GLOBAL_OFFSET_TABLE_"} == {
        "outside",
        "elsewhere",
    }
    assert undefined_symbols(b"MZ something else") == set()


def test_numba_is_as_before_afterwards(small: Make) -> None:
    import numba
    from numba.core.registry import cpu_target

    before = cpu_target.target_context._internal_codegen
    program = small()
    entry(program, "f8(f8)", lambda x: x.nothing_of_this_name)
    with pytest.raises(Exception, match="nothing_of_this_name"):
        program.compile()
    assert cpu_target.target_context._internal_codegen is before
    assert numba.njit(lambda x: x + 1)(1) == 2
