"""The records of the controller: what kernels find in their bytes is what numpy finds, for every size of rack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core.control import ControlConfig
from bms.core.estimator_layout import SETTINGS, EstimatorConfig
from bms.core.layout import ALIGN, CONFIG, STATE, Config, State, config_of, config_record, fill_estimator, state_of
from bms.core.step import command_of, measurement_of
from hal.contract import Command, Layout, Measurement, Record

cells = st.integers(1, 3000)
sensors = st.integers(1, 400)


def place_of(array: np.ndarray, record: Record) -> tuple[int, int, str]:
    """Where a view lies in the bytes of a record: offset, size, type."""
    return array.ctypes.data - record.bytes.ctypes.data, array.nbytes, array.dtype.base.str


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
    found = {"head": c.estimator.scalars, "nodes": c.estimator.nodes, "sensor_of_cell": c.sensor_of_cell}
    check(config, found | c.control._asdict())


@given(cells, sensors)
def test_kernels_find_the_arrays_of_a_memory(n_cells: int, n_sensors: int) -> None:
    state = State(n_cells, n_sensors)
    s = state_of.py_func(state.bytes, n_cells, n_sensors)
    filters = s.estimator._asdict()
    found = {"head": filters.pop("shared"), **filters, **s.control._asdict()}
    check(state, found | {name: getattr(s, name) for name in ("sensor_degc", "cell_degc", "cell_quality")})


@given(cells, sensors)
def test_kernels_find_the_arrays_of_measurement_and_command(n_cells: int, n_sensors: int) -> None:
    measurement, command = Measurement(n_cells, n_sensors), Command(n_cells, n_sensors)
    check(measurement, measurement_of.py_func(measurement.bytes, n_cells, n_sensors)._asdict())
    check(command, command_of.py_func(command.bytes, n_cells)._asdict())


def test_compiled_kernels_find_the_same() -> None:
    """The places above are those of the plain Python functions: three of them once more, compiled."""
    state, config = State(37, 5), Config(37, 5)
    config.head["n_cells"] = 37
    s, c = state_of(state.bytes, 37, 5), config_of(config.bytes)
    for array, name in ((s.estimator.out, "out"), (s.cell_quality, "cell_quality"), (s.control.timer, "timer")):
        array[-1] = 7
        assert getattr(state, name)[-1] == 7, name
    c.control.has[-1], c.estimator.scalars["per_cell"] = 9, 0.5
    assert config.has[-1] == 9
    assert config.head["per_cell"] == 0.5


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


def parts() -> tuple[EstimatorConfig, ControlConfig]:
    """Configurations of estimator and control with numbers that can be told apart."""
    template = Config(1, 1)
    scalars = np.zeros(1, CONFIG.head_dtype)
    for k, setting in enumerate(SETTINGS):
        scalars[setting.name] = k + 1
    nodes = np.arange(template.nodes.size, dtype=np.float32)
    number, table = (np.arange(getattr(template, name).size, dtype=np.float32) for name in ("number", "table"))
    return EstimatorConfig(scalars, nodes), ControlConfig(number, table, np.array([1, 0, 1], np.uint8))


def test_a_configuration_holds_what_it_was_made_of() -> None:
    estimator, control = parts()
    config = config_record(estimator, control, [2, 0, 1, 1], 3, 4)
    head = config.head[0]
    assert (head["n_cells"], head["n_sensors"], head["per_cell"]) == (4, 3, 0.25)
    assert [head[s.name] for s in SETTINGS] == list(range(1, len(SETTINGS) + 1))
    assert config.sensor_of_cell.tolist() == [2, 0, 1, 1]
    for name, array in (("nodes", estimator.nodes), *control._asdict().items()):
        np.testing.assert_array_equal(getattr(config, name), array, err_msg=name)


def test_the_estimator_can_be_replaced_by_itself() -> None:
    config = Config(3, 2)
    config.head["n_cells"], config.head["per_cell"] = 3, 0.5
    estimator, _ = parts()
    fill_estimator(config, estimator)
    assert (config.head["n_cells"], config.head["per_cell"]) == (3, 0.5), "the rack stays as it is"
    assert config.head["nodes_per_soc"] == 1.0
    np.testing.assert_array_equal(config.nodes, estimator.nodes)


@pytest.mark.parametrize(("sensor_of_cell", "n_sensors"), [([0, 1, 3], 3), ([0], 0), ([], 3), ([0, -1], 4)])
def test_a_cell_without_a_sensor_is_refused(sensor_of_cell: list[int], n_sensors: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        config_record(*parts(), sensor_of_cell, n_sensors, 1)


def test_one_size_does_not_fit_another() -> None:
    with pytest.raises(ValueError, match="17 cells and 2 sensors does not fit one for 16 and 2"):
        State(16, 2).copy_from(State(17, 2))
