"""A rack laid out as registers: the chain of models, values of every kind, and what may be written."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hal.codec.register_map import RegisterMap, unpacked
from hal.codec.register_profile import load
from hal.contract import NO_INDEX, Command, Measurement, RackInfo
from hal.errors import ConfigError

PROFILE = load("sunspec")


class Device:
    """Registers of a rack on paper, with points by name."""

    def __init__(self, info: RackInfo, measurement: Measurement, command: Command | None = None) -> None:
        self.map = RegisterMap(PROFILE, info)
        source = self.map.source
        source.measurement.copy_from(measurement)
        if command is not None:
            source.command.copy_from(command)
            source.commanded = True
        source.count = 65536 + 7
        self.data = self.map.encode()

    def word(self, address: int) -> int:
        return int(struct.unpack_from(">H", self.data, 2 * (address - self.map.base))[0])

    def raw(self, model: int, point: str, group: str = "", k: int = 0, instance: int = 0) -> Any:
        placed = [p for p in self.map.placed if p.model.id == model][instance]
        if group:
            spec = next(g for g in placed.model.groups if g.name == group)
            at, one = placed.start(group) + k * spec.size, spec.points[point]
        else:
            at, one = placed.address, placed.model.fixed.points[point]
        code = {"float32": "f", "float64": "d", "int16": "h", "sunssf": "h", "uint32": "I", "bitfield32": "I"}.get(
            one.kind, "H"
        )
        return struct.unpack_from(f">{code}", self.data, 2 * (at + one.offset - self.map.base))[0]


@pytest.fixture
def info(info_of: Callable[..., RackInfo]) -> RackInfo:
    return info_of(20)


@pytest.fixture
def device(info: RackInfo, measured: Callable[..., Measurement], commanded: Callable[..., Command]) -> Device:
    return Device(info, measured(info), commanded(info))


def test_the_chain_of_models_holds_together(device: Device) -> None:
    assert device.data[:4] == b"SunS"
    at, found = device.map.base + 2, []
    while device.word(at) != 0xFFFF:
        found.append(device.word(at))
        at += 2 + device.word(at + 1)
    assert found == [1, 802, 803, 804, 805, 805, 64800, 64801, 64802]
    assert at + 2 == device.map.base + device.map.size == device.map.base + len(device.data) // 2


@pytest.mark.parametrize(("n_cells", "modules"), [(1, [1]), (16, [16]), (17, [16, 1]), (416, [16] * 26)])
def test_a_module_for_each_sixteen_cells(
    n_cells: int, modules: list[int], info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    device = Device(info_of(n_cells), measured(info_of(n_cells)))
    assert [device.raw(805, "NCell", instance=k) for k in range(len(modules))] == modules
    assert device.raw(804, "NMod") == device.raw(803, "StrNMod", "string") == len(modules)
    assert [device.raw(804, "ModNCell", "lithium_ion_string_module", k) for k in range(len(modules))] == modules


def test_a_whole_rack_has_the_registers_of_the_standard(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]
) -> None:
    """1 + 802 + 803 + 804 + 26 x 805: 2 + 68 + 64 + 60 + 464 + 26 x 108 registers, then our own."""
    device = Device(info_of(416), measured(info_of(416)))
    first = next(p for p in device.map.placed if p.model.id == 64800)
    assert first.address - device.map.base == 2 + 68 + 64 + 60 + 464 + 26 * 108


def test_values_of_cells_lie_where_they_belong(device: Device, info: RackInfo) -> None:
    m = device.map.source.measurement
    for cell in range(info.n_cells):
        module, k = divmod(cell, 16)
        group = "lithium-ion-module-cell"
        assert device.raw(805, "CellV", group, k, module) == round(float(m.cell_v[cell]) * 1e4)
        raw = device.raw(805, "CellTmp", group, k, module)
        assert raw == round(float(m.sensor_degc[info.sensor_of_cell[cell]]) * 10)
        assert device.raw(805, "CellSt", group, k, module) == m.bleeding[cell]
        assert device.raw(64801, "Q", "cell", cell) == m.cell_v_quality[cell]
        assert device.raw(64801, "Age", "cell", cell) == round(float(m.cell_v_age_s[cell]) * 1e3)


def test_summaries_are_those_of_the_cells(device: Device) -> None:
    m = device.map.source.measurement
    volts = m.cell_v.astype(float)
    assert device.raw(802, "CellVMax") == round(volts.max() * 1e4)
    assert device.raw(802, "CellVMinMod") == 1 + volts.argmin() // 16
    assert device.raw(805, "CellVMaxCell", instance=1) == 1 + volts[16:].argmax()
    assert device.raw(805, "CellVMin", instance=0) == round(volts[:16].min() * 1e4)
    assert device.raw(805, "V", instance=1) == round(volts[16:].sum() * 100)
    assert device.raw(804, "NCellBal") == m.bleeding.sum()
    assert device.raw(804, "ModCellVAvg", "lithium_ion_string_module", 1) == round(volts[16:].mean() * 1e4)
    assert device.raw(802, "W") == round(float(m.head["pack_v"][0]) * float(m.head["current_a"][0]) / 100)


def test_positive_current_discharges_and_the_common_model_says_so(device: Device) -> None:
    m = device.map.source.measurement
    assert device.raw(802, "A") == round(float(m.head["current_a"][0]) * 10) > 0
    assert b"I>0 discharges" in device.data
    m.head["current_a"] = -12.5
    device.data = device.map.encode()
    assert device.raw(802, "A") == -125
    assert device.raw(802, "W") < 0
    assert device.raw(64801, "A") == -12.5


def test_a_value_that_is_not_there_is_no_number_on_the_wire(device: Device) -> None:
    m = device.map.source.measurement
    m.cell_v[17], m.sensor_degc[0] = np.nan, np.nan
    m.head["pack_v"] = np.nan
    device.data = device.map.encode()
    group = "lithium-ion-module-cell"
    assert device.raw(805, "CellV", group, 1, 1) == 0xFFFF
    assert device.raw(805, "CellTmp", group, 0, 0) == -0x8000
    assert device.raw(802, "V") == 0xFFFF
    assert device.raw(802, "W") == -0x8000
    assert np.isnan(device.raw(64801, "PackV"))
    rest = np.delete(m.cell_v, 17)
    assert device.raw(802, "CellVMax") == round(float(rest.max()) * 1e4)
    m.cell_v[16:] = np.nan
    device.data = device.map.encode()
    assert device.raw(805, "CellVMax", instance=1) == device.raw(805, "CellVAvg", instance=1) == 0xFFFF


def test_a_reversed_cell_is_told_beside_its_voltage(device: Device) -> None:
    m = device.map.source.measurement
    m.cell_v[3] = -1.25
    device.data = device.map.encode()
    assert device.raw(805, "CellV", "lithium-ion-module-cell", 3) == 0
    assert device.raw(64801, "Below", "cell", 3) == 12500


def test_counters_never_look_like_no_value(device: Device) -> None:
    assert device.raw(802, "Hb") == (65536 + 7) % 65535
    assert device.raw(64801, "Snap") == device.raw(64801, "SnapEnd", "end") == 65536 + 7


@pytest.mark.parametrize(("contactors", "state", "set_op"), [(0, 1, 2), (6, 2, 2), (3, 3, 1), (7, 3, 1), (1, 1, 2)])
def test_the_state_follows_from_the_contactors(device: Device, contactors: int, state: int, set_op: int) -> None:
    device.map.source.measurement.head["contactors"] = contactors
    device.data = device.map.encode()
    assert (device.raw(802, "State"), device.raw(802, "SetOp")) == (state, set_op)
    assert device.raw(804, "ConSt") == contactors


def test_events_of_the_vendor(device: Device) -> None:
    head = device.map.source.measurement.head
    device.map.source.command.fault_fatal[:] = 0
    for name, value, expected in (("gas_alarm", 1, 1), ("emergency_stop", 1, 3), ("interlock_closed", 0, 7)):
        head[name] = value
        device.data = device.map.encode()
        assert device.raw(802, "EvtVnd1") == expected
    device.map.source.command.fault_fatal[86 // 32] = 1 << 86 % 32
    device.data = device.map.encode()
    assert device.raw(802, "EvtVnd1") == 0b1111


def test_the_type_follows_from_the_cell(info_of: Callable[..., RackInfo], measured: Callable[..., Measurement]) -> None:
    from dataclasses import replace

    for cell, expected in (("lfp_280", 4), ("na_layered_100", 99), ("unheard_of", 0)):
        info = replace(info_of(16), cell=cell)
        assert Device(info, measured(info)).raw(802, "Typ") == expected


def test_only_the_command_may_be_written(device: Device) -> None:
    placed = next(p for p in device.map.placed if p.model.id == 64802)
    fixed = placed.model.fixed.points
    assert placed.address + fixed["Con"].offset in device.map.writable
    assert placed.address + fixed["NMask"].offset not in device.map.writable
    assert {placed.address, placed.address + 1}.isdisjoint(device.map.writable)
    assert min(device.map.writable) > placed.address
    assert max(device.map.writable) == placed.end - 1
    assert device.map.commit == {placed.address + fixed["Hb"].offset, placed.address + fixed["Hb"].offset + 1}


@pytest.mark.parametrize("shuttle", [False, True])
def test_a_command_comes_out_as_it_went_in(
    shuttle: bool,
    info_of: Callable[..., RackInfo],
    measured: Callable[..., Measurement],
    commanded: Callable[..., Command],
) -> None:
    info = info_of(37, shuttle=shuttle)
    command = commanded(info)
    command.head["cause_index"] = NO_INDEX
    device = Device(info, measured(info), command)
    assert (64803 in [p.model.id for p in device.map.placed]) == shuttle
    out = Command(info.n_cells, info.n_sensors)
    device.map.decode_command(device.data, out)
    assert out.bytes.tobytes() == command.bytes.tobytes()


def test_a_number_that_no_command_holds_is_refused(device: Device, info: RackInfo) -> None:
    at = next(s for s in device.map.written if s.point.name == "State").at[0] - device.map.base
    data = device.data[: 2 * at] + b"\x01\x00" + device.data[2 * at + 2 :]
    with pytest.raises(ValueError, match="state = 256"):
        device.map.decode_command(data, Command(info.n_cells, info.n_sensors))


def test_before_the_first_measurement_nothing_looks_good(info: RackInfo) -> None:
    served = RegisterMap(PROFILE, info)
    assert np.isnan(served.source.measurement.cell_v).all()
    assert served.source.measurement.cell_v_quality.all()


def test_a_rack_too_large_for_the_addresses_is_told(info_of: Callable[..., RackInfo]) -> None:
    with pytest.raises(ConfigError, match="addresses end at 65535"):
        RegisterMap(PROFILE, info_of(4000))


def test_masks_come_apart() -> None:
    assert unpacked(np.array([5.0, 1.0]), 18, 16, 1).tolist() == [1, 0, 1] + 13 * [0] + [1, 0]
    assert unpacked(np.array([0b100100.__float__()]), 3, 8, 2).tolist() == [0, 1, 2]
