"""The layouts of the contract: the bytes that numpy and C agree on, and the views into them."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal import contract
from hal.contract import COMMAND, MEASUREMENT, TRUTH, Command, Layout, Measurement, Record, Truth

LAYOUTS = [MEASUREMENT, COMMAND, TRUTH]
RECORDS = [Measurement, Command, Truth]
C_TYPE = {"f4": "float", "f8": "double", "u1": "uint8_t", "u2": "uint16_t", "u4": "uint32_t"}


def length(dims: str, n_cells: int, n_sensors: int) -> int:
    """How long an array is."""
    return int(dims) if dims.isdigit() else {"cells": n_cells, "sensors": n_sensors}[dims]


sizes = pytest.mark.parametrize(("n_cells", "n_sensors"), [(1, 1), (3, 2), (96, 24), (416, 105)])


def c_source(layout: Layout, n_cells: int, n_sensors: int) -> str:
    """A C program that prints the offset of every field and the sizes of the equivalent struct."""
    head = "".join(f"{C_TYPE[f.kind]} {f.name}; " for f in layout.scalars)
    body = "".join(f"{C_TYPE[f.kind]} {f.name}[{length(f.dims, n_cells, n_sensors)}]; " for f in layout.arrays)
    names = [f"head.{f.name}" for f in layout.scalars] + [f.name for f in layout.arrays]
    prints = "".join(f'printf("{name} %zu\\n", offsetof(struct layout, {name}));\n' for name in names)
    return (
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n"
        f"struct head {{ {head} }};\nstruct layout {{ struct head head; {body} }};\n"
        f'int main(void) {{\n{prints}printf("size %zu\\nhead_size %zu\\n", '
        "sizeof(struct layout), sizeof(struct head));\nreturn 0;\n}\n"
    )


def offsets(layout: Layout, n_cells: int, n_sensors: int) -> dict[str, int]:
    """What numpy says of the same."""
    dtype = layout.dtype(n_cells, n_sensors)
    assert dtype.fields is not None
    assert layout.head_dtype.fields is not None
    found = {f"head.{f.name}": dtype.fields["head"][1] + layout.head_dtype.fields[f.name][1] for f in layout.scalars}
    found |= {f.name: dtype.fields[f.name][1] for f in layout.arrays}
    return found | {"size": dtype.itemsize, "head_size": layout.head_dtype.itemsize}


@sizes
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_numpy_and_c_agree_on_every_byte(layout: Layout, n_cells: int, n_sensors: int, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) is installed")
    source = tmp_path / "layout.c"
    source.write_text(c_source(layout, n_cells, n_sensors))
    subprocess.run([compiler, "-std=c11", "-o", str(tmp_path / "layout"), str(source)], check=True)
    printed = subprocess.run([str(tmp_path / "layout")], check=True, capture_output=True, text=True).stdout
    assert {name: int(value) for name, value in map(str.split, printed.splitlines())} == offsets(
        layout, n_cells, n_sensors
    )


@sizes
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_field_lies_where_its_type_wants_it(layout: Layout, n_cells: int, n_sensors: int) -> None:
    found = offsets(layout, n_cells, n_sensors)
    for field in layout.fields:
        name = field.name if field.dims else f"head.{field.name}"
        assert found[name] % np.dtype(field.kind).itemsize == 0, name
    # so that records follow each other in a file or a shared memory without a misaligned double
    assert found["size"] % 8 == 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_head_does_not_depend_on_the_size_of_the_rack(layout: Layout) -> None:
    assert layout.dtype(1, 1)["head"] == layout.dtype(416, 105)["head"] == layout.head_dtype


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_digest_changes_with_every_field(layout: Layout) -> None:
    seen = {layout.digest()}
    changes = []
    for k, field in enumerate(layout.fields):
        before, after = layout.fields[:k], layout.fields[k + 1 :]
        changes.append((*before, *after))
        changes.append((*before, dataclasses.replace(field, name=field.name + "x"), *after))
        changes.append((*before, dataclasses.replace(field, kind="u2" if field.kind != "u2" else "u4"), *after))
        changes.append(
            (*before, dataclasses.replace(field, dims="sensors" if field.dims == "cells" else "cells"), *after)
        )
        if after:
            changes.append((*before, after[0], field, *after[1:]))
    seen |= {Layout(layout.name, fields).digest() for fields in changes}
    assert len(seen) == len(changes) + 1


def test_the_digest_changes_with_name_and_version_but_not_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = MEASUREMENT.digest()
    assert re.fullmatch("[0-9a-f]{16}", digest)
    reworded = tuple(dataclasses.replace(f, doc="said otherwise") for f in MEASUREMENT.fields)
    assert Layout("Measurement", reworded).digest() == digest
    assert Layout("Other", MEASUREMENT.fields).digest() != digest
    monkeypatch.setattr(contract, "LAYOUT_VERSION", contract.LAYOUT_VERSION + 1)
    assert MEASUREMENT.digest() != digest


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_fields_are_unique_and_explained(layout: Layout) -> None:
    names = [f.name for f in layout.fields]
    assert len(set(names)) == len(names)
    assert all(f.doc and f.kind in C_TYPE for f in layout.fields)
    assert all(f.dims in ("", "cells", "sensors") or f.dims.isdigit() for f in layout.fields)


def test_every_measured_value_has_a_quality_and_an_age() -> None:
    names = {f.name: f for f in MEASUREMENT.fields}
    for field in MEASUREMENT.fields:
        if field.kind == "f4" and not field.name.endswith("_age_s"):
            age, quality = names[f"{field.name}_age_s"], names[f"{field.name}_quality"]
            assert (age.kind, age.dims, quality.kind, quality.dims) == ("f4", field.dims, "u1", field.dims)


@sizes
@pytest.mark.parametrize("record_type", RECORDS, ids=lambda kind: kind.__name__)
def test_arrays_and_head_are_views_of_raw(record_type: type[Record], n_cells: int, n_sensors: int) -> None:
    record = record_type(n_cells, n_sensors)
    assert bytes(record.raw) == bytes(record.layout.dtype(n_cells, n_sensors).itemsize)
    for k, field in enumerate(record.layout.arrays, start=1):
        view = getattr(record, field.name)
        assert view.shape == (length(field.dims, n_cells, n_sensors),)
        assert view.dtype == field.kind
        assert view.flags.c_contiguous
        assert np.shares_memory(view, record.raw)
        view[-1] = k
        assert record.raw[field.name][0, -1] == k
    record.head["time_s"] = 12.5
    assert record.raw["head"]["time_s"][0] == 12.5


def test_a_type_names_every_array_of_its_layout() -> None:
    for record_type in RECORDS:
        assert {f.name for f in record_type.layout.arrays} <= set(record_type.__annotations__)


@pytest.mark.parametrize("record_type", RECORDS, ids=lambda kind: kind.__name__)
@given(content=st.data())
def test_copy_takes_every_value_and_shares_nothing(record_type: type[Record], content: st.DataObject) -> None:
    source, target = record_type(3, 2), record_type(3, 2)
    size = source.raw.itemsize
    source.raw.view(np.uint8)[:] = np.frombuffer(content.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    target.copy_from(source)
    for name in source.layout.head_dtype.names or ():
        assert target.head[name].tobytes() == source.head[name].tobytes()
    for field in source.layout.arrays:
        assert getattr(target, field.name).tobytes() == getattr(source, field.name).tobytes()
    assert not np.shares_memory(source.raw, target.raw)


def test_flags_have_one_bit_each_and_fit_a_byte() -> None:
    for flags in (contract.Quality, contract.Contactor):
        values = [int(f) for f in flags]
        assert all(v.bit_count() == 1 and v < 256 for v in values)
        assert len(set(values)) == len(values)
    assert contract.Quality.GOOD == 0
    assert contract.Contactor.NONE == 0


@sizes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_records_side_by_side_are_those_of_single_racks(layout: Layout, n_cells: int, n_sensors: int) -> None:
    info = contract.RackInfo("x", n_cells, n_sensors, 1, 1.0, "", np.zeros(n_cells, np.uint16))
    many = contract.bulk(layout, info, 5)
    rows = contract.rows_of(many)
    assert many.shape == (5,)
    assert rows.shape == (5, layout.dtype(n_cells, n_sensors).itemsize)
    one = RECORDS[LAYOUTS.index(layout)](n_cells, n_sensors)
    one.bytes[:] = np.arange(one.bytes.size) % 251
    many[3] = one.raw[0]
    for name, *_ in one.layout.dtype(n_cells, n_sensors).descr:
        if name and name != "head":
            np.testing.assert_array_equal(many[name][3].view(np.uint8), one.raw[name][0].view(np.uint8))
    rows[2] = one.bytes
    assert many[2].tobytes() == one.raw.tobytes()
    assert not rows[4].any()


def test_a_blank_record_has_the_size_of_its_model_and_nothing_in_it() -> None:
    model = Command(7, 2)
    model.bytes[:] = 1
    blank = model.blank()
    assert (type(blank), blank.n_cells, blank.n_sensors) == (Command, 7, 2)
    assert not blank.bytes.any()
    assert model.bytes.all()
