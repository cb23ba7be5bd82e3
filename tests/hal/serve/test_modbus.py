"""A served rack as clients that nobody here wrote see it, and mistakes in the server's URL."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sunspec2.device
from pymodbus.client import ModbusTcpClient
from sunspec2.modbus.client import SunSpecModbusClientDeviceRTU, SunSpecModbusClientDeviceTCP

from hal.contract import Measurement, RackInfo
from hal.errors import ConfigError
from hal.serve.modbus import ModbusServer

CELLS = "lithium-ion-module-cell"


@pytest.fixture
def own_models(repository: Any) -> Iterator[None]:
    """pysunspec2 knows our models, too."""
    before = sunspec2.device.get_model_defs_path()
    sunspec2.device.set_model_defs_path([*before, str(repository / "hal" / "profiles" / "sunspec")])
    yield
    sunspec2.device.set_model_defs_path(before)


def scanned(server: ModbusServer) -> Any:
    device = SunSpecModbusClientDeviceTCP(1, "127.0.0.1", server.wire.port, timeout=10)  # type: ignore[union-attr]
    device.scan()
    assert [one.error_info for one in device.model_list if one.model_def and one.error_info] == []
    return device


@pytest.mark.usefixtures("own_models")
def test_pysunspec2_walks_all_models_without_complaint(serving: Callable[..., ModbusServer], site: Any) -> None:
    device = scanned(serving())
    assert [one.model_id for one in device.model_list] == [1, 802, 803, 804, 805, 805, 64800, 64801, 64802]
    m = site.measured(site.info)
    battery = device.models[802][0]
    assert battery.A.cvalue == pytest.approx(float(m.head["current_a"][0]), abs=0.05)
    assert battery.V.cvalue == pytest.approx(float(m.head["pack_v"][0]), abs=0.05)
    assert battery.CellVMax.cvalue == pytest.approx(float(m.cell_v.max()))
    volts = [cell.CellV.cvalue for module in device.models[805] for cell in module.groups[CELLS]]
    degc = [cell.CellTmp.cvalue for module in device.models[805] for cell in module.groups[CELLS]]
    assert np.allclose(volts, m.cell_v)
    assert np.allclose(degc, m.sensor_degc[site.info.sensor_of_cell], atol=1e-5)
    assert device.models[1][0].Opt.value == "I>0 discharges"
    measurement = device.models[64801][0]
    assert measurement.A.value == pytest.approx(float(m.head["current_a"][0]))
    assert [cell.Q.value for cell in measurement.cell] == m.cell_v_quality.tolist()
    assert measurement.Snap.value == measurement.end[0].SnapEnd.value == 1


def test_pysunspec2_passes_by_the_models_that_it_does_not_know(serving: Callable[..., ModbusServer]) -> None:
    device = scanned(serving())
    assert [one.model_id for one in device.model_list] == [1, 802, 803, 804, 805, 805]
    assert device.models[803][0].NStr.value == 1


def test_pysunspec2_reads_a_coherent_refresh(serving: Callable[..., ModbusServer], site: Any) -> None:
    """Models read in order after the scan show one control step although the rack goes on."""
    server = serving()
    device = SunSpecModbusClientDeviceTCP(1, "127.0.0.1", server.wire.port, timeout=10)  # type: ignore[union-attr]
    device.scan(connect=True, full_model_read=True)
    device.connect()
    try:
        for seed in (2, 3):
            server.publish(site.measured(site.info, seed))
            expected = site.measured(site.info, seed).cell_v
            device.models[802][0].read()
            for module in device.models[805]:
                server.publish(site.measured(site.info, 77))
                module.read()
            volts = [cell.CellV.cvalue for module in device.models[805] for cell in module.groups[CELLS]]
            assert np.allclose(volts, expected)
            assert device.models[802][0].CellVMax.cvalue == pytest.approx(float(expected.max()))
    finally:
        device.disconnect()


def test_pysunspec2_writes_a_heart_beat(serving: Callable[..., ModbusServer], site: Any, own_models: None) -> None:
    server = serving()
    device = scanned(server)
    device.connect()
    command = device.models[64802][0]
    for name, value in (("LimDisA", 10.0), ("LimChaA", 20.0), ("LimDisW", 1e3), ("LimChaW", 2e3), ("CoolC", 22.5)):
        getattr(command, name).value = value
    command.Con.value, command.Hb.value = 3, 41
    command.mask[1].Bleed.value = 0b1000
    command.write()
    command.Hb.value = 42
    command.write()
    device.disconnect()
    out = site.commanded(site.info)
    assert server.take(out)
    head = out.head[0]
    assert (head["heartbeat"], head["contactors"], head["limit_charge_a"], head["cooling_degc"]) == (42, 3, 20.0, 22.5)
    assert np.flatnonzero(out.balance).tolist() == [19]


def test_pysunspec2_over_a_serial_line(site: Any) -> None:
    server = ModbusServer("rtu://pty?baud=1000000", site.info, site.clock)
    server.publish(site.measured(site.info))
    server.start()
    device = SunSpecModbusClientDeviceRTU(1, server.wire.device, 115200, timeout=10)  # type: ignore[union-attr]
    try:
        device.scan()
        assert [one.error_info for one in device.model_list if one.model_def and one.error_info] == []
        assert device.models[805][1].NCell.value == 4
    finally:
        device.close()
        server.stop()


def test_pymodbus_reads_every_register(serving: Callable[..., ModbusServer], site: Any) -> None:
    server = serving()
    client = ModbusTcpClient("127.0.0.1", port=server.wire.port, timeout=10)  # type: ignore[union-attr]
    assert client.connect()
    words: list[int] = []
    for start in range(0, site.map.size, 125):
        count = min(125, site.map.size - start)
        read = client.read_holding_registers if start % 250 else client.read_input_registers
        words += read(40000 + start, count=count).registers
    assert b"".join(word.to_bytes(2, "big") for word in words) == server.registers.now
    assert client.read_coils(0, count=1).exception_code == 1
    assert client.read_holding_registers(40000 + site.map.size, count=1).exception_code == 2
    assert client.write_register(40002, 1).exception_code == 2
    assert client.write_register(site.address(64802, "Con"), 3).isError() is False
    client.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("udp://a:1", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:0?baud=9600", "unknown option 'baud'"),
        ("tcp://127.0.0.1:0?unit=0", "unit = 0: expected a number in 1..247"),
        ("tcp://127.0.0.1:0?connections=0", "connections = 0"),
        ("tcp://127.0.0.1:0?profile=nothing", "unknown profile 'nothing'"),
        ("tcp://127.0.0.1:0?idle=x", "idle = x"),
        ("tcp://127.0.0.1", ""),
        ("rtu://pty?parity=Q", "parity = Q"),
    ],
)
def test_mistakes_in_the_url_are_told(url: str, said: str, site: Any) -> None:
    if not said:
        assert ModbusServer(url, site.info, site.clock).wire.port == 502  # type: ignore[union-attr]
        return
    with pytest.raises(ConfigError) as error:
        ModbusServer(url, site.info, site.clock)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_modules_may_be_larger(site: Any, info_of: Callable[..., RackInfo]) -> None:
    server = site.server(cells_per_module=24)
    assert [p.model.id for p in server.registers.map.placed].count(805) == 1


def test_before_the_first_measurement_nothing_is_good(site: Any) -> None:
    server = site.server()
    m = Measurement(site.info.n_cells, site.info.n_sensors)
    site.reader.decode(_image(server), m)
    assert m.cell_v_quality.all()
    assert m.head["current_a_quality"][0]


def _image(server: ModbusServer) -> Any:
    from hal.codec.register_reader import Image

    image = Image()
    image.put(server.registers.map.base, np.frombuffer(server.registers.now, ">u2").tolist())
    return image
