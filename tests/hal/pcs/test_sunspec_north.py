"""The registers of the north side, without a controller: what they show, and which orders they take."""

from __future__ import annotations

import math
import socket
import ssl
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sunspec2.modbus.client import SunSpecModbusClientDeviceRTU

from hal.codec.modbus import Refusal, Refused, mbap
from hal.codec.register_map import RegisterMap
from hal.contract import NO_INDEX, Command, Measurement, Quality, RackInfo, RackState
from hal.pcs import Ask, Ratings
from hal.pcs.sunspec_north import NorthRegisters, SunSpecNorth, north_profile

RATINGS = Ratings(58.2, 40.2, 14_634.0, 14_600.0, 14_601.0, 0.05, 0.95)
INFO = RackInfo("paper", 20, 5, 1, 280.0, "lfp_280", np.repeat(np.arange(5, dtype=np.uint16), 4))


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


class Side:
    """A side with points by name, and steps on paper."""

    def __init__(self, options: str = "", ratings: Ratings = RATINGS) -> None:
        self.clock = Time()
        self.north = SunSpecNorth(f"modbus:tcp://127.0.0.1:0{options}", INFO, self.clock, ratings)
        self.registers: NorthRegisters = self.north.registers
        self.session = self.registers.session()
        self.m, self.c = Measurement(20, 5), Command(20, 5)
        self.c.head["heartbeat"] = 1

    def place(self, model: int, name: str) -> tuple[int, Any]:
        placed = next(p for p in self.registers.map.placed if p.model.id == model)
        if name in placed.model.fixed.points:
            point = placed.model.fixed.points[name]
            return placed.address + point.offset, point
        group = next(g for g in placed.model.groups if name in g.points)
        return placed.start(group.name) + group.points[name].offset, group.points[name]

    def raw(self, model: int, name: str, session: Any = None) -> Any:
        at, point = self.place(model, name)
        data = (session or self.registers.session()).read(at, point.size)
        code = {"int16": "h", "sunssf": "h", "uint32": "I", "bitfield32": "I", "float32": "f", "float64": "d"}
        return struct.unpack(">" + code.get(point.kind, "H"), data)[0]

    def write(self, model: int, name: str, value: int, session: Any = None) -> None:
        (session or self.session).write(self.place(model, name)[0], value.to_bytes(2, "big"))

    def step(self, state: RackState = RackState.STANDBY, dt_s: float = 0.1) -> Ask:
        self.clock.now += dt_s
        asked = self.north.ask(self.clock.now)
        self.c.head["state"] = state
        self.north.publish(self.m, self.c, self.clock.now, local=False)
        return asked


@pytest.fixture
def side() -> Side:
    return Side()


ORDERS = [
    (802, "CtrlHb"),
    (802, "AlmRst"),
    (802, "SetOp"),
    (802, "SetInvState"),
    (803, "StrSetEna"),
    (803, "StrSetCon"),
    (804, "SetEna"),
    (804, "SetCon"),
]


def test_what_is_measured_and_decided_is_shown(side: Side) -> None:
    m, c = side.m, side.c
    m.head["pack_v"], m.head["current_a"], m.head["contactors"] = 52.34, -61.27, 3
    m.cell_v[:] = np.linspace(3.2, 3.39, 20)
    m.sensor_degc[:] = [24.0, 25.0, 26.0, 27.0, 31.5]
    c.head["limit_charge_a"], c.head["limit_discharge_a"] = 140.07, 279.99
    c.head["soc_mean"], c.head["soh_mean"], c.head["cause_index"] = 0.534, 0.981, NO_INDEX
    c.reason[9], c.reason_index[9], c.reason_index[8], c.reason_margin[9] = 5, 17, NO_INDEX, 0.25
    c.horizon_a[7], c.reason[7] = 77.5, 10
    side.step(RackState.CONNECTED, 12.3)
    expected = {
        802: {"V": 523, "A": -613, "W": -3207, "W_SF": 0, "AChaMax": 1400, "ADisChaMax": 2799, "SoC": 5340, "SoH": 9810}
        | {"State": 3, "StateVnd": 3, "SetOp": 2, "AlmRst": 0, "CtrlHb": 65535, "Hb": 12, "LocRemCtl": 0}
        | {"WHRtg": 14634, "WHRtg_SF": 0, "WChaRteMax": 14600, "WDisChaRteMax": 14601, "VMax": 582, "VMin": 402}
        | {"SoCMax": 9500, "SoCMin": 500, "CellVMax": 33900, "CellVMaxMod": 2, "CellVMin": 32000, "CellVMinMod": 1}
        | {"Evt1": 0, "Evt2": 0, "EvtVnd1": 0, "EvtVnd2": 0, "Typ": 4, "AHRtg": 2800},
        803: {"NStr": 1, "NStrCon": 1, "ModTmpMax": 315, "ModTmpMin": 240, "StrSt": 3, "StrConFail": 0, "StrDisRsn": 0},
        804: {"NMod": 2, "St": 3, "ConFail": 0, "SetEna": 0, "SetCon": 0, "ConSt": 3, "V": 523, "A": -613},
        64804: {"Snap": 1, "SnapEnd": 1, "RackSt": 3, "ChaWhy": 5, "ChaAt": 17, "DisAt": 65535, "CauseAt": 65535}
        | {"ChaMrg": 0.25, "ChaA900": 77.5, "ChaWhy900": 10, "HbTms": 100, "Mgr": 0},
    }  # fmt: skip
    assert {model: {n: side.raw(model, n) for n in names} for model, names in expected.items()} == expected


def test_a_value_that_is_not_good_is_no_value(side: Side) -> None:
    side.m.head["pack_v_quality"] = Quality.STALE
    side.m.cell_v[:], side.m.cell_v_quality[4] = 3.3, Quality.OPEN_WIRE
    side.m.cell_v[4] = 5.0
    side.step()
    assert [side.raw(802, name) for name in ("V", "W", "CellVMax")] == [65535, -32768, 33000]
    assert side.raw(804, "V") == 65535


def test_before_the_first_step_there_is_a_nameplate_and_nothing_else(side: Side) -> None:
    assert [side.raw(802, n) for n in ("WHRtg", "VMax", "V", "State", "SoC")] == [14634, 582, 65535, 65535, 65535]


def test_before_the_first_decision_nothing_is_estimated(side: Side) -> None:
    side.c.head["heartbeat"] = 0
    side.step(RackState.INIT)
    assert [side.raw(802, n) for n in ("State", "SoC", "SoH", "AChaMax")] == [2, 65535, 65535, 0]
    side.c.head["heartbeat"] = 1
    side.step(RackState.INIT)
    assert side.raw(802, "SoC") == 0


@pytest.mark.parametrize(
    ("ratings", "w_sf", "wh_sf"),
    [
        (RATINGS, 0, 0),
        (Ratings(1500, 1000, 372e3, 383e3, 383e3), 2, 1),
        (Ratings(1500, 1000, 6.6e6, 4e6, 1e6), 3, 3),
        (Ratings(1500, 1000), 2, 2),
    ],
)
def test_scale_factors_fit_the_rack(ratings: Ratings, w_sf: int, wh_sf: int) -> None:
    points = next(one for one in north_profile(ratings).models if one.model.id == 802).points
    assert (points["W_SF"].value, points["WHRtg_SF"].value) == (w_sf, wh_sf)
    if not math.isnan(ratings.charge_w):
        assert 1.2 * ratings.charge_w / 10**w_sf < 32767
        assert ratings.energy_wh / 10**wh_sf < 65535


@pytest.mark.parametrize(("model", "name"), ORDERS)
def test_every_order_is_taken_where_the_models_have_it(side: Side, model: int, name: str) -> None:
    side.step()
    side.write(model, name, 1)
    assert side.raw(model, name) == side.raw(model, name, side.session) == 1
    side.step()
    assert side.raw(model, name) == (1 if name in ("CtrlHb", "SetOp", "SetInvState") else 0)


def test_everything_else_is_for_reading(side: Side) -> None:
    allowed = {side.place(model, name)[0] for model, name in ORDERS}
    registers = side.registers.map
    for address in range(registers.base, registers.base + registers.size):
        if address not in allowed:
            with pytest.raises(Refusal) as refusal:
                side.session.write(address, b"\0\1")
            assert refusal.value.code == Refused.ILLEGAL_ADDRESS


@pytest.mark.parametrize("model", [802, 803, 804])
def test_a_model_that_is_not_writable_takes_no_orders(side: Side, model: int) -> None:
    profile = north_profile(RATINGS)
    models = tuple(replace(one, writable=one.writable and one.model.id != model) for one in profile.models)
    registers = NorthRegisters(
        RegisterMap(replace(profile, models=models), INFO),
        side.clock,
        side.north.manager,
        RATINGS,
        writable=True,
        hold_s=1.0,
        control_s=1.0,
    )
    assert set(registers.orders) == {side.place(*order)[0] for order in ORDERS if order[0] != model}


def test_a_side_that_only_looks_takes_no_orders_and_wants_nothing() -> None:
    side = Side("?access=read")
    for model, name in ORDERS:
        with pytest.raises(Refusal) as refusal:
            side.write(model, name, 1)
        assert refusal.value.code == Refused.ILLEGAL_ADDRESS
    assert side.step() == side.step(RackState.FAULT) == Ask.CONNECT


def test_orders_and_what_they_ask_for(side: Side) -> None:
    side.step()
    side.write(802, "CtrlHb", 1)
    side.write(802, "SetOp", 1)
    assert side.step(RackState.PRECHARGE) == Ask.CONNECT
    assert [side.raw(802, n) for n in ("SetOp", "State", "CtrlHb")] == [1, 2, 1]
    side.write(804, "SetCon", 2)
    assert side.raw(804, "SetCon") == 2
    assert side.step(RackState.CONNECTED) == Ask.OPEN
    assert (side.raw(804, "SetCon"), side.raw(802, "SetOp")) == (0, 2)
    side.write(802, "AlmRst", 1)
    assert side.step() == Ask.RESET
    assert side.step() == Ask.OPEN


def test_what_the_inverter_does_is_shown_and_nothing_follows(side: Side) -> None:
    side.step()
    assert side.raw(802, "SetInvState") == 1
    side.write(802, "SetInvState", 3)
    assert [side.step(), side.step()] == [Ask.OPEN, Ask.OPEN]
    assert side.raw(802, "SetInvState") == 3


def test_an_order_that_came_during_a_step_shows_until_the_next(side: Side) -> None:
    side.step()
    asked = side.north.ask(0.2)
    side.write(802, "AlmRst", 1)  # between the question and the answer of one step
    side.north.publish(side.m, side.c, 0.2, local=False)
    assert (asked, side.raw(802, "AlmRst")) == (Ask.OPEN, 1)
    assert side.step(RackState.FAULT) == Ask.RESET
    assert side.raw(802, "AlmRst") == 0


@pytest.mark.parametrize(("name", "value"), [("SetOp", 0), ("SetOp", 3), ("AlmRst", 2), ("SetInvState", 4)])
def test_an_impossible_order_is_refused_and_changes_nothing(side: Side, name: str, value: int) -> None:
    side.step()
    before = side.registers.now
    with pytest.raises(Refusal) as refusal:
        side.write(802, name, value)
    assert refusal.value.code == Refused.ILLEGAL_VALUE
    assert side.registers.now == before


def test_to_connect_is_refused_while_there_is_a_fault(side: Side) -> None:
    side.step(RackState.FAULT)
    with pytest.raises(Refusal) as refusal:
        side.write(802, "SetOp", 1)
    assert refusal.value.code == Refused.ILLEGAL_VALUE
    side.write(802, "AlmRst", 1)


def test_two_orders_in_one_request_are_both_taken_or_none(side: Side) -> None:
    side.step()
    at = side.place(802, "CtrlHb")[0]
    side.session.write(at, struct.pack(">HH", 5, 1))  # CtrlHb and AlmRst stand side by side
    assert side.step() == Ask.RESET
    with pytest.raises(Refusal):
        side.session.write(at, struct.pack(">HH", 6, 7))
    side.step()
    assert side.raw(802, "CtrlHb") == 5
    with pytest.raises(Refusal):
        side.session.write(at + 1, struct.pack(">HH", 1, 4))  # AlmRst, and a register for reading
    assert side.step() == Ask.OPEN


def test_one_connection_is_in_control(side: Side) -> None:
    side.step()
    other = side.registers.session()
    side.write(802, "CtrlHb", 1)
    side.step(dt_s=4.0)
    with pytest.raises(Refusal) as refusal:
        side.write(802, "SetOp", 1, other)
    assert refusal.value.code == Refused.BUSY
    side.write(802, "CtrlHb", 2)
    side.step(dt_s=4.0)
    with pytest.raises(Refusal):
        side.write(802, "SetOp", 1, other)
    side.session.close()
    side.write(802, "SetOp", 1, other)
    assert side.step() == Ask.CONNECT


def test_a_walk_sees_one_step_and_the_orders_of_its_own_connection(side: Side) -> None:
    side.step(RackState.CONNECTED)
    side.session.read(40000, 100)
    side.c.head["soc_mean"] = 0.7
    side.write(802, "CtrlHb", 9)
    side.step(RackState.CONNECTED)
    assert side.raw(64804, "Snap", side.session) == 1
    assert side.session.read(side.place(802, "CtrlHb")[0], 1) == b"\0\x09"
    assert side.raw(64804, "Snap") == 2


@settings(max_examples=100)
@given(st.data())
def test_whatever_is_written_leaves_registers_that_can_be_read(data: st.DataObject) -> None:
    side = SHARED
    registers = side.registers.map
    start = data.draw(st.sampled_from([side.place(*order)[0] for order in ORDERS])) - data.draw(st.integers(0, 2))
    words = data.draw(st.lists(st.integers(0, 65535) | st.integers(0, 3), min_size=1, max_size=4))
    try:
        side.session.write(start, struct.pack(f">{len(words)}H", *words))
    except Refusal as refusal:
        assert refusal.code in (Refused.ILLEGAL_ADDRESS, Refused.ILLEGAL_VALUE)
    asked = side.step(data.draw(st.sampled_from(list(RackState))))
    assert asked in list(Ask)
    assert len(side.registers.now) == 2 * registers.size
    assert side.raw(802, "AlmRst") == 0
    assert side.raw(802, "SetOp") in (1, 2)


SHARED = Side()


@settings(max_examples=100)
@given(st.randoms(use_true_random=False))
def test_records_of_any_bytes_are_shown_somehow(random: Any) -> None:
    for record in (SHARED.m, SHARED.c):
        record.bytes[:] = np.frombuffer(random.randbytes(len(record.bytes)), np.uint8)
    with np.errstate(all="ignore"):
        SHARED.north.publish(SHARED.m, SHARED.c, 1.0, local=False)
    assert SHARED.raw(802, "State") in (1, 2, 3, 4, 5, 6, 99)
    assert len(SHARED.registers.now) == 2 * SHARED.registers.map.size


# ------------------------------------------------------------------------------------------------------------ on wires


@pytest.mark.parametrize(("role", "may"), [("controller", True), ("operator", False)])
def test_over_tls_the_role_of_a_controller_gives_orders_and_others_read(role: str, may: bool, tmp_path: Path) -> None:
    certificates = pytest.importorskip("certificates")
    authority = certificates.Authority(tmp_path, "authority")
    (cert, key), (own, own_key) = authority.issue("server"), authority.issue("client", certificates.utf8(role))
    north = SunSpecNorth(f"modbus:tls://127.0.0.1:0?cert={cert}&key={key}&ca={authority.path}", INFO, Time(), RATINGS)
    north.start()
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(own, own_key)
    port = int(north.address.rpartition(":")[2])
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10.0) as plain,
            context.wrap_socket(plain, server_hostname="rack") as client,
        ):
            replies = []
            for pdu in (struct.pack(">BHH", 3, 40000, 2), struct.pack(">BHH", 6, 40120, 1)):  # the mark; SetOp
                client.sendall(mbap(1, 1, pdu))
                replies.append(client.recv(260)[7:])
    finally:
        north.stop()
    assert replies[0] == b"\x03\x04SunS"
    assert replies[1] == (struct.pack(">BHH", 6, 40120, 1) if may else bytes((0x86, Refused.ILLEGAL_FUNCTION)))
    assert north.ask(0.0) == (Ask.CONNECT if may else Ask.OPEN)


def test_pysunspec2_steers_over_a_serial_line() -> None:
    north = SunSpecNorth("modbus:rtu://pty?baud=1000000", INFO, Time(), RATINGS)
    north.publish(Measurement(20, 5), Command(20, 5), 3.0, local=False)
    north.start()
    device = SunSpecModbusClientDeviceRTU(1, north.wire.device, 115200, timeout=10)  # type: ignore[union-attr]
    try:
        device.scan()
        battery = device.models[802][0]
        assert (battery.State.value, battery.Hb.value) == (2, 3)
        battery.SetOp.value = 1
        battery.write()
    finally:
        device.close()
        north.stop()
    assert north.ask(3.1) == Ask.CONNECT
