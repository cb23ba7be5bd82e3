"""The C header of a library: layouts of records, numbers with a meaning, functions; all from the same definitions.

A record is one run of bytes: the scalars of its `head`, a C structure, then the arrays, whose places depend on the size
of the rack and are given by functions. The header asserts size and offsets when it is compiled.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Sequence
from enum import IntEnum, IntFlag

import numpy as np

from hal.contract import LANES, Field, Layout
from hal.engine import Program
from hal.engine.signature import C_NAMES, Signature

Numbers = type[IntEnum] | type[IntFlag]

_OPENING = """\
/* {title}
 *
 * Made by `bms build`; do not edit.
 *
 * Records are runs of bytes that the caller owns, aligned to {align} bytes: a structure of scalars, `..._head`, then
 * arrays, to which the functions named after them point. Each array of bytes given to a function comes with its size.
 * The arrays of one call must not overlap. No function allocates, waits, or keeps a pointer.
 */
#ifndef {guard}
#define {guard}

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define {guard}_ASSERT(condition) static_assert(condition, #condition)
extern "C" {{
#else
#define {guard}_ASSERT(condition) _Static_assert(condition, #condition)
#endif

/* cells, rounded up to whole vectors */
#define {upper}_LANES(n_cells) (((n_cells) + {more}) / {lanes} * {lanes})
"""

_CLOSING = """
#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""


def header(program: Program, layouts: Sequence[Layout], numbers: Sequence[Numbers], title: str, notes: str = "") -> str:
    """The header of `program`, whose functions take records of `layouts`; `numbers` become enumerations.

    `notes`: lines of C about the processor that it is for.
    """
    prefix = program.prefix
    upper = prefix.upper()
    names = {
        "title": title,
        "align": max(layout.align for layout in layouts),
        "guard": f"{upper}_H",
        "upper": upper,
        "more": LANES - 1,
        "lanes": LANES,
    }
    parts = [_OPENING.format(**names) + _digests(upper, program, layouts) + notes]
    parts += [_enumeration(prefix, kind) for kind in numbers]
    parts += [_record(prefix, layout) for layout in layouts]
    parts += [_prototype(program, name, signature) for name, signature in program.table.entries.items()]
    return "\n".join(parts) + _CLOSING.format(**names)


def layouts_digest(layouts: Sequence[Layout]) -> str:
    """Hash of all `layouts` together, 16 hexadecimal digits."""
    return hashlib.sha256(" ".join(layout.digest() for layout in layouts).encode()).hexdigest()[:16]


def processor_notes(prefix: str, name: str, triple: str) -> str:
    """Lines of C that refuse a compiler for another processor than `name`, or one that passes numbers differently.

    `triple`: LLVM's word for the processor, '' for this computer, whose compiler is known to fit.
    """
    upper = prefix.upper()
    named = f'#define {upper}_TARGET "{name}"'
    if not triple:
        return f"\n/* made for this computer */\n{named}\n"
    bits = 64 if triple.startswith("aarch64") else 32
    lines = [
        f"\n/* made for {name} */",
        named,
        f"{upper}_H_ASSERT(sizeof(void *) == {bits // 8}); /* the object is for a processor of {bits} bits */",
        f"{upper}_H_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);",
    ]
    if triple.startswith("thumb"):
        lines += [
            "#ifdef __ARM_PCS_VFP",
            '#error "the functions take float arguments in core registers: compile with -mfloat-abi=softfp"',
            "#endif",
        ]
    elif triple.startswith("riscv"):
        lines += ["#ifndef __riscv_float_abi_single", '#error "compile with -mabi=ilp32f"', "#endif"]
    return "\n".join(lines) + "\n"


def _digests(upper: str, program: Program, layouts: Sequence[Layout]) -> str:
    return (
        "\n/* of all layouts together, and of the sources of the functions */\n"
        f'#define {upper}_LAYOUTS "{layouts_digest(layouts)}"\n'
        f'#define {upper}_KERNELS "{program.table.digest[:16]}"\n'
    )


def _comment(text: str, indent: str = "") -> str:
    """`text` as a comment of C, its lines as they are."""
    lines = text.replace("*/", "* /").strip().splitlines()
    return f"{indent}/* " + f"\n{indent} * ".join(line.strip() for line in lines).replace(" * \n", " *\n") + " */"


def _enumeration(prefix: str, kind: Numbers) -> str:
    name = _snake(kind.__name__)
    members = [f"    {prefix.upper()}_{name.upper()}_{member.name} = {int(member)}," for member in kind]
    return "\n".join([_comment(inspect.getdoc(kind) or ""), f"enum {prefix}_{name} {{", *members, "};", ""])


def _record(prefix: str, layout: Layout) -> str:
    """Structure of the head, assertions about it, and functions for the arrays and the size of the record."""
    name = f"{prefix}_{_snake(layout.name)}"
    upper, head = name.upper(), layout.head_dtype
    lines = [f'#define {upper}_LAYOUT "{layout.digest()}"', "", "typedef struct {"]
    end = 0
    for field in layout.scalars:
        assert head.fields is not None
        dtype, offset, *_ = head.fields[field.name]
        lines.append(f"    {C_NAMES[field.kind]} {field.name}; {_comment(field.doc)}")
        end = offset + dtype.itemsize
    if end != head.itemsize and layout.align > head.alignment:
        lines.append(f"    uint8_t reserved[{head.itemsize - end}];")
    lines += [f"}} {name}_head;", f"{prefix.upper()}_H_ASSERT(sizeof({name}_head) == {head.itemsize});"]
    for field in layout.scalars:
        assert head.fields is not None
        offset = head.fields[field.name][1]
        lines.append(f"{prefix.upper()}_H_ASSERT(offsetof({name}_head, {field.name}) == {offset});")
    lines += ["", *_places(prefix, name, layout)]
    return "\n".join(lines)


def _places(prefix: str, name: str, layout: Layout) -> Iterable[str]:
    """Functions that point to each array of a record, and the one that gives the size of the record."""
    upper, sizes = prefix.upper(), "size_t n_cells, size_t n_sensors"
    unused = "(void)n_cells; (void)n_sensors;"
    end, largest = f"sizeof({name}_head)", layout.head_dtype.alignment
    for field in layout.arrays:
        width = np.dtype(field.kind).itemsize
        largest = max(largest, width)
        at, kind = f"{name}_{field.name}_at", C_NAMES[field.kind]
        start = end if width == 1 else f"({end} + {width - 1}) / {width} * {width}"
        yield f"static inline size_t {at}({sizes}) {{\n    {unused}\n    return {start};\n}}"
        yield _comment(f"{field.doc}: [{_length(upper, field)}]")
        yield f"static inline {kind} *{name}_{field.name}(void *record, {sizes}) {{"
        yield f"    return ({kind} *)((uint8_t *)record + {at}(n_cells, n_sensors));\n}}"
        end = f"{at}(n_cells, n_sensors) + {_length(upper, field)} * {width}"
    whole = max(largest, layout.align)
    yield _comment("bytes of the whole record")
    yield f"static inline size_t {name}_size({sizes}) {{\n    {unused}"
    yield f"    return ({end} + {whole - 1}) / {whole} * {whole};\n}}\n"


def _length(upper: str, field: Field) -> str:
    """Number of items of an array, as C."""
    words = {"cells": "n_cells", "sensors": "n_sensors", "lanes": f"{upper}_LANES(n_cells)"}
    return " * ".join(words.get(part, part) for part in field.dims.split("*"))


def _prototype(program: Program, name: str, text: str) -> str:
    signature, function = Signature(text), program.entries[name].py_func
    parameters: list[str] = []
    for parameter, argument in zip(inspect.signature(function).parameters, signature.arguments, strict=True):
        kind = C_NAMES[argument.kind]
        if argument.ndim == 0:
            parameters.append(f"{kind} {parameter}")
            continue
        dimensions = ("size",) if argument.ndim == 1 else [f"size{k}" for k in range(argument.ndim)]
        parameters += [f"{kind} *{parameter}", *(f"int64_t {parameter}_{dimension}" for dimension in dimensions)]
    inner = ",\n    ".join(parameters) or "void"
    declared = f"{C_NAMES[signature.result]} {program.prefix}_{name}(\n    {inner});"
    return f"{_comment(inspect.getdoc(function) or '')}\n{declared}\n"


def _snake(name: str) -> str:
    """`RackState` as `rack_state`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() and k else letter.lower() for k, letter in enumerate(name))
