"""What a client makes of the registers of a device: blocks, the rack behind them, records in and out."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.codec.register_map import RegisterMap
from hal.codec.register_profile import load
from hal.codec.register_reader import GAP, Image, Reader, blocks
from hal.codec.sunspec import Placed
from hal.contract import MEASUREMENT, Command, Measurement, Quality, RackInfo

PROFILE = load("sunspec")


def image_of(served: RegisterMap) -> Image:
    image = Image()
    image.put(served.base, np.frombuffer(served.encode(), ">u2").tolist())
    return image


def reader_of(served: RegisterMap, models: Sequence[int] | None = None) -> tuple[Reader, Image]:
    """A client that sees these models of a device (all of them)."""
    image = image_of(served)
    placed = [p for p in served.placed if models is None or p.model.id in models]
    return Reader(PROFILE, placed, image, "the rack"), image


@given(st.sets(st.integers(0, 2000), min_size=1), st.integers(1, 125))
def test_blocks_cover_what_is_needed_and_stay_small(addresses: set[int], most: int) -> None:
    found = blocks(addresses, most)
    covered = [at for block in found for at in range(block.start, block.start + block.count)]
    assert addresses <= set(covered)
    assert len(covered) == len(set(covered))
    assert all(1 <= block.count <= most for block in found)
    assert covered == sorted(covered)
    assert len(covered) - len(addresses) <= (GAP - 1) * len(addresses)


@pytest.mark.parametrize("n_cells", [1, 16, 37, 416])
@pytest.mark.parametrize("shuttle", [False, True])
def test_a_measurement_comes_out_as_it_went_in(
    n_cells: int, shuttle: bool, info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    info = info_of(n_cells, shuttle=shuttle)
    m = measured(info)
    m.cell_v[0] = -0.5
    m.cell_v_quality[-1] = Quality.OPEN_WIRE
    served = RegisterMap(PROFILE, info)
    served.source.measurement.copy_from(m)
    reader, image = reader_of(served)
    out = Measurement(info.n_cells, info.n_sensors)
    reader.decode(image, out)
    for field in MEASUREMENT.fields:
        sent = m.raw[field.name] if field.dims else m.head[field.name]
        got = out.raw[field.name] if field.dims else out.head[field.name]
        tolerance = 1e-6 if field.kind == "f4" else 0  # float32 of a product with 10^SF
        assert np.allclose(sent.astype(float), got.astype(float), rtol=tolerance, atol=tolerance), field.name
    described = replace(reader.info, name=info.name)
    assert np.array_equal(described.sensor_of_cell, info.sensor_of_cell)
    capabilities = replace(info.capabilities, truth=False)
    assert replace(described, sensor_of_cell=info.sensor_of_cell) == replace(info, capabilities=capabilities)
    assert reader.missing == []


def test_values_that_are_not_there_are_missing(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    info = info_of(20)
    m = measured(info)
    m.cell_v[5] = m.sensor_degc[2] = m.head["bus_v"] = np.nan
    served = RegisterMap(PROFILE, info)
    served.source.measurement.copy_from(m)
    reader, image = reader_of(served)
    out = Measurement(20, 5)
    reader.decode(image, out)
    assert np.isnan(out.cell_v[5])
    assert out.cell_v_quality.nonzero()[0].tolist() == [5]
    assert out.sensor_degc_quality.tolist() == [0, 0, Quality.MISSING, 0, 0]
    assert out.head["bus_v_quality"] == Quality.MISSING


def test_a_plain_sunspec_battery_is_a_rack_that_can_be_read(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    """No model of ours: a sensor for each cell, no commands, and what nobody tells is MISSING by name."""
    info = info_of(20)
    served = RegisterMap(PROFILE, info)
    served.source.measurement.copy_from(measured(info))
    reader, image = reader_of(served, (1, 802, 803, 804, 805))
    assert (reader.info.n_cells, reader.info.n_sensors) == (20, 20)
    assert reader.info.capacity_ah == 280.0
    assert not reader.writable
    assert not reader.info.capabilities.contactors
    assert reader.missing == [
        "bus_v", "coolant_flow_lpm", "coolant_in_degc", "coolant_out_degc", "gas_alarm", "insulation_ohm",
    ]  # fmt: skip
    out = Measurement(20, 20)
    reader.decode(image, out)
    m = served.source.measurement
    assert np.allclose(out.cell_v, m.cell_v)
    assert np.allclose(out.sensor_degc, m.sensor_degc[info.sensor_of_cell], atol=1e-5)
    assert np.array_equal(out.bleeding, m.bleeding)
    assert out.head["current_a"] == pytest.approx(m.head["current_a"], abs=0.05)
    assert out.head["current_a_quality"] == out.head["contactors_quality"] == out.head["bleeding_quality"] == 0
    assert out.head["contactors"] == 3
    assert out.head["bus_v_quality"] == out.head["gas_alarm_quality"] == Quality.MISSING
    assert out.head["interlock_closed"] == 1


def test_registers_that_could_not_be_read_are_missing(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    info = info_of(20)
    served = RegisterMap(PROFILE, info)
    served.source.measurement.copy_from(measured(info))
    reader, image = reader_of(served)
    second = [p for p in served.placed if p.model.id == 805][1]
    image.forget(second.address, 100)
    out = Measurement(20, 5)
    reader.decode(image, out)
    assert out.cell_v_quality.tolist() == 16 * [0] + 4 * [Quality.MISSING]
    assert np.isnan(out.cell_v[16:]).all()
    assert not np.isnan(out.cell_v[:16]).any()


def test_steps_are_compared_at_both_ends(info_of: Callable[..., RackInfo]) -> None:
    served = RegisterMap(PROFILE, info_of(20))
    served.source.count = 65535 + 4
    reader, image = reader_of(served)
    assert reader.steps(image) == (4, 4)
    assert reader.probe is not None
    assert reader.probe.count == 1
    assert reader.probe.start >= reader.blocks[0].start
    assert [b.start for b in reader.blocks] == sorted(b.start for b in reader.blocks)


@pytest.mark.parametrize(
    ("n_cells", "shuttle", "requests"), [(20, False, 1), (416, False, 1), (416, True, 2), (2000, False, 2)]
)
def test_a_command_is_written_with_the_commit_point_last(
    n_cells: int,
    shuttle: bool,
    requests: int,
    info_of: Callable[..., RackInfo],
    measured: Callable[..., Measurement],
    commanded: Callable[..., Command],
) -> None:
    info = info_of(n_cells, shuttle=shuttle)
    served = RegisterMap(PROFILE, info)
    served.source.measurement.copy_from(measured(info))
    reader, image = reader_of(served)
    command = commanded(info)
    writes = reader.writes(command)
    assert len(writes) == requests
    assert all(len(values) <= 123 for _, values in writes)
    at, values = writes[-1]
    assert served.commit <= set(range(at, at + len(values)))
    for start, registers in writes:
        image.put(start, registers)
        assert set(range(start, start + len(registers))) <= served.writable
    out = Command(info.n_cells, info.n_sensors)
    words = image.words[served.base : served.base + served.size]
    served.decode_command(words.astype(">u2").tobytes(), out)
    assert out.bytes.tobytes() == command.bytes.tobytes()


def without(served: RegisterMap, model: int) -> list[Placed]:
    return [p for p in served.placed if p.model.id != model]


def test_a_device_that_contradicts_itself_is_told(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    served = RegisterMap(PROFILE, info_of(20))
    served.source.measurement.copy_from(measured(info_of(20)))
    with pytest.raises(ValueError, match="no model with the voltages of cells .it would be 805"):
        Reader(PROFILE, without(served, 805), image_of(served), "x")
    modules = [p for p in served.placed if p.model.id == 805]
    fewer = [p for p in served.placed if p is not modules[1]]
    with pytest.raises(ValueError, match="16 cells, but the map of sensors is for 20"):
        Reader(PROFILE, fewer, image_of(served), "x")


def test_scale_factors_are_those_of_the_device(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    served = RegisterMap(PROFILE, info_of(20))
    served.source.measurement.copy_from(measured(info_of(20)))
    image = image_of(served)
    first = next(p for p in served.placed if p.model.id == 805)
    factor = first.address + first.model.fixed.points["CellV_SF"].offset
    image.put(factor, [0x10000 - 3])
    reader = Reader(PROFILE, served.placed, image, "x")
    out = Measurement(20, 5)
    reader.decode(image, out)
    m = served.source.measurement
    assert np.allclose(out.cell_v[:16], 10 * m.cell_v[:16])
    assert np.allclose(out.cell_v[16:], m.cell_v[16:])
