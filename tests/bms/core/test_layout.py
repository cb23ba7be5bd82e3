"""The records of the controller: what kernels find in their bytes is what numpy finds, for every size of rack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core import (
    balancing,
    cooling,
    diagnosis,
    growing,
    guard,
    health_layout,
    leak,
    machine,
    power,
    records,
    runaway,
    signals_layout,
    sudden,
    thermometer,
)
from bms.core import layout as layout_module
from bms.core.estimator_layout import SETTINGS, EstimatorConfig
from bms.core.layout import (
    ALIGN,
    CONFIG,
    STATE,
    Config,
    Parts,
    State,
    config_of,
    config_record,
    fill_estimator,
    state_of,
)
from bms.core.step import command_of, measurement_of
from hal.contract import Command, Field, Layout, Measurement, Record
from hal.engine import kernel as kernels
from hal.engine.kernel import Kernel

cells = st.integers(1, 3000)
sensors = st.integers(1, 400)


def place_of(array: np.ndarray, record: Record) -> tuple[int, int, str]:
    """Where a view lies in the bytes of a record: offset, size, type."""
    return array.ctypes.data - record.bytes.ctypes.data, array.nbytes, array.dtype.base.str


CONFIG_PARTS = tuple(
    m.CONFIG_FIELDS
    for m in (signals_layout, diagnosis, machine, power, health_layout, leak, balancing, cooling, runaway, thermometer)
)
STATE_PARTS = tuple(
    m.STATE_FIELDS
    for m in (
        *(
            signals_layout,
            diagnosis,
            machine,
            power,
            health_layout,
            leak,
            balancing,
            guard,
            runaway,
            sudden,
            growing,
            thermometer,
        ),
    )
)


@pytest.fixture(scope="module", autouse=True)
def plainly() -> Iterator[None]:
    """Kernels as plain Python: compiling them in memory, one after the other, would take most of a minute."""
    ours = [k for module in (layout_module, records) for k in vars(module).values() if isinstance(k, Kernel)]
    before, kernels.PLAIN = kernels.PLAIN, True
    yield
    kernels.PLAIN = before
    for k in ours:
        k.forget()


def named(part: tuple[np.ndarray, ...], fields: tuple[Field, ...]) -> dict[str, np.ndarray]:
    return {f.name: array for f, array in zip(fields, part, strict=True)}


def check(record: Record, found: dict[str, np.ndarray]) -> None:
    """Every array of the layout is found, where numpy has it."""
    fields = record.raw.dtype.fields
    assert fields is not None
    head = found.pop("head")
    assert place_of(head, record)[:2] == (0, record.layout.head_dtype.itemsize)
    assert head.dtype.names == tuple(f.name for f in record.layout.scalars)
    assert set(found) == {f.name for f in record.layout.arrays}
    for name, array in found.items():
        dtype, offset = fields[name][:2]
        assert place_of(array, record) == (offset, dtype.itemsize, dtype.base.str), name


@given(cells, sensors)
def test_kernels_find_the_arrays_of_a_configuration(n_cells: int, n_sensors: int) -> None:
    config = Config(n_cells, n_sensors)
    config.head["n_cells"] = n_cells
    c = config_of.py_func(config.bytes)
    found = {"head": c.estimator.scalars, "nodes": c.estimator.nodes}
    for part, fields in zip(Parts._fields, CONFIG_PARTS, strict=True):
        found |= named(getattr(c, part), fields)
    check(config, found)
    assert place_of(c.words, config)[:2] == (4, config.bytes.size - 4)


@given(cells, sensors)
def test_kernels_find_the_arrays_of_a_memory(n_cells: int, n_sensors: int) -> None:
    state = State(n_cells, n_sensors)
    s = state_of.py_func(state.bytes, n_cells, n_sensors)
    filters = s.estimator._asdict()
    found = {"head": filters.pop("shared"), **filters}
    for part, fields in zip(s._fields[1:], STATE_PARTS, strict=True):
        found |= named(getattr(s, part), fields)
    check(state, found)


@given(cells, sensors)
def test_kernels_find_the_arrays_of_measurement_and_command(n_cells: int, n_sensors: int) -> None:
    measurement, command = Measurement(n_cells, n_sensors), Command(n_cells, n_sensors)
    check(measurement, measurement_of.py_func(measurement.bytes, n_cells, n_sensors)._asdict())
    check(command, command_of.py_func(command.bytes, n_cells)._asdict())


@given(cells, sensors)
def test_blocks_and_nodes_start_on_a_cache_line(n_cells: int, n_sensors: int) -> None:
    for record, first in ((Config(n_cells, n_sensors), "nodes"), (State(n_cells, n_sensors), "blocks")):
        assert record.layout.align == ALIGN == 64
        assert record.bytes.ctypes.data % ALIGN == 0
        assert record.bytes.size % ALIGN == 0, "so that the next of many racks is aligned as well"
        assert place_of(getattr(record, first), record)[0] % ALIGN == 0


def altered(layout: Layout, at: int, **changes: str) -> Layout:
    fields = list(layout.fields)
    fields[at] = replace(fields[at], **changes)
    return Layout(layout.name, tuple(fields), layout.align)


@pytest.mark.parametrize("layout", [CONFIG, STATE], ids=lambda layout: layout.name)
def test_the_digest_tells_every_layout_from_every_other(layout: Layout) -> None:
    same = Layout(layout.name, layout.fields, layout.align)
    assert same.digest() == layout.digest()
    digests = [layout.digest(), Layout("Other", layout.fields, layout.align).digest()]
    digests.append(Layout(layout.name, layout.fields, 2 * layout.align).digest())
    digests.append(Layout(layout.name, layout.fields[1:], layout.align).digest())
    digests.append(Layout(layout.name, (*layout.fields[1:], layout.fields[0]), layout.align).digest())
    for k, f in enumerate(layout.fields):
        digests.append(altered(layout, k, name=f.name + "_").digest())
        digests.append(altered(layout, k, kind="f8").digest())
        digests.append(altered(layout, k, dims=f.dims + "*2" if f.dims else "2").digest())
    assert len(set(digests)) == len(digests)
    assert altered(layout, 0, doc="said in other words").digest() == layout.digest()


def parts() -> tuple[EstimatorConfig, Parts]:
    """Configurations of estimator and all parts with numbers that can be told apart."""
    template = Config(2, 1)
    scalars = np.zeros(1, CONFIG.head_dtype)
    for k, setting in enumerate(SETTINGS):
        scalars[setting.name] = k + 1
    nodes = np.arange(template.nodes.size, dtype=np.float32)
    made = []
    for kind, fields in zip(Parts.__annotations__.values(), CONFIG_PARTS, strict=True):
        arrays = [getattr(template, f.name) for f in fields]
        made.append(
            getattr(layout_module, kind.__forward_arg__)(*(np.arange(1, a.size + 1).astype(a.dtype) for a in arrays))
        )
    return EstimatorConfig(scalars, nodes), Parts(*made)


def test_a_configuration_holds_what_it_was_made_of() -> None:
    estimator, made = parts()
    config = config_record(estimator, made, [1, 0], 2, 4)
    assert config.head["per_cell"] == 0.25
    assert (config.head["n_cells"][0], config.head["n_sensors"][0]) == (2, 2)
    for k, setting in enumerate(SETTINGS):
        assert config.head[setting.name] == k + 1
    np.testing.assert_array_equal(config.nodes, estimator.nodes)
    assert config.sensor_of_cell.tolist() == [1, 0]
    for part, fields in zip(made, CONFIG_PARTS, strict=True):
        for f, array in zip(fields, part, strict=True):
            if f.name != "sensor_of_cell":
                np.testing.assert_array_equal(getattr(config, f.name), array)


def test_a_configuration_carries_its_digest_and_every_word_counts() -> None:
    estimator, made = parts()
    config = config_record(estimator, made, [1, 0], 2, 4)
    assert config.head["digest"] == config.digest
    words = config.bytes.view(np.uint32)
    for k in (1, len(words) // 2, len(words) - 1):
        words[k] ^= 1
        assert config.head["digest"] != config.digest, k
        words[k] ^= 1
    assert config.head["digest"] == config.digest


def test_a_sensor_that_the_rack_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="names sensor 2, the rack has 2"):
        config_record(*parts(), [0, 2], 2, 1)
    with pytest.raises(ValueError, match="names sensor 0"):
        config_record(*parts(), [], 2, 1)


def test_the_estimator_can_be_given_another_cell() -> None:
    estimator, made = parts()
    config = config_record(estimator, made, [1, 0], 2, 4)
    other = EstimatorConfig(estimator.scalars.copy(), estimator.nodes + 1)
    other.scalars["capacity_ah"] = 77.0
    fill_estimator(config, other)
    assert config.head["capacity_ah"] == 77.0
    assert config.nodes[0] == 1.0
    assert config.head["per_cell"] == 0.25


def test_one_size_does_not_fit_another() -> None:
    with pytest.raises(ValueError, match="17 cells and 2 sensors does not fit one for 16 and 2"):
        State(16, 2).copy_from(State(17, 2))
