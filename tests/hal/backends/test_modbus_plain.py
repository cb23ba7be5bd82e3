"""A device of plain registers on a wire: the example of docs/modbus.md, served and reached, with no SunSpec about it."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from modbus_wire import Wired
from pymodbus.client import ModbusTcpClient

from hal.contract import Command, Measurement, Quality
from hal.errors import LinkError
from hal.registry import open_rack

DOCS = Path(__file__).parents[3] / "docs" / "modbus.md"


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[Wired]:
    found = re.search(r"```toml\n(.*?)```", DOCS.read_text().partition("## Plain registers")[2], re.DOTALL)
    assert found is not None
    profile = tmp_path / "plain.toml"
    profile.write_text(found[1])
    clock = Time()
    twin = open_rack("sim:lfp_280?n_series=16", clock=clock, options={"duty": {"kind": "constant", "c_rate": 0.3}})
    made = Wired(f"tcp://127.0.0.1:0?profile={profile}", clock, twin, f"&profile={profile}")
    yield made
    made.end()


def test_it_is_read_and_commanded(wired: Wired) -> None:
    m, c = Measurement(16, 4), Command(16, 4)
    with wired as rack:
        assert rack.info.cell == "lfp_280"
        rack.read(m)
        true = wired.sample
        assert np.abs(m.cell_v - true.cell_v).max() <= 0.501e-3
        assert np.abs(m.sensor_degc - true.sensor_degc).max() <= 0.0501
        assert not m.cell_v_quality.any()
        assert (m.head["interlock_closed"][0], m.head["contactors"][0]) == (1, 0)
        assert m.head["insulation_ohm_quality"][0] == Quality.MISSING
        c.head["heartbeat"], c.head["contactors"], c.head["limit_discharge_a"] = 1, 2, 70.0
        c.balance[3] = 1
        rack.write(c)
        for _ in range(3):
            wired.clock.move(0.2)
            rack.read(m)
        assert m.head["contactors"][0] == 2
        assert wired.received.head["limit_discharge_a"][0] == 70.0
        assert m.bleeding.tolist() == wired.sample.bleeding.tolist() == [0] * 3 + [1] + [0] * 12


def test_a_client_that_nobody_here_wrote_reads_the_manuals_numbers(wired: Wired) -> None:
    with wired as rack:
        m = Measurement(16, 4)
        rack.read(m)
        host, _, port = wired.server.address.removeprefix("tcp://").partition(":")
        with ModbusTcpClient(host, port=int(port)) as client:
            cells = client.read_holding_registers(200, count=62, device_id=1).registers[::4]
            low, high = client.read_holding_registers(102, count=2, device_id=1).registers
            assert client.read_holding_registers(40000, count=2, device_id=1).isError(), "no mark"
        assert cells == np.rint(1e3 * wired.sample.cell_v.astype(float)).astype(int).tolist()
        assert (high << 16 | low) == round(1e3 * float(wired.sample.head["pack_v"][0]))


def test_the_wrong_profile_is_told(wired: Wired) -> None:
    with wired, pytest.raises(LinkError, match="no SunSpec mark at 40000, 0, 50000"):
        open_rack(f"modbus:{wired.server.address}", clock=wired.clock).open()
