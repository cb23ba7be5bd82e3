"""The rack at the far end of a Modbus wire: snapshots, ages, lost connections, and devices that are only half there."""

import logging
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from hal.backends.modbus import LinkReport, ModbusRack
from hal.codec.modbus import Refusal, Refused
from hal.contract import Command, Measurement, Quality, Rack, RackInfo
from hal.errors import ConfigError, LinkError
from hal.registry import is_live, open_rack
from hal.serve.modbus import ModbusServer
from hal.serve.registers import Session


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


class Pair:
    """A served rack on paper and the rack at the other end of the wire."""

    def __init__(self, info: RackInfo, measured: Callable[..., Measurement], commanded: Callable[..., Command]) -> None:
        self.info, self.measured, self.commanded = info, measured, commanded
        self.clock = Time()
        self.seed = 1
        self.server = ModbusServer("tcp://127.0.0.1:0", info, self.clock)
        self.show()
        self.server.start()
        self.rack = self.client()
        self.out = Measurement(info.n_cells, info.n_sensors)

    def client(self, **query: Any) -> ModbusRack:
        options = {"poll": "0.005", "timeout": "2", **{key: str(value) for key, value in query.items()}}
        return ModbusRack(self.server.address, query=options, clock=self.clock)

    def show(self, seed: int | None = None) -> Measurement:
        self.seed = seed or self.seed
        m = self.measured(self.info, self.seed)
        m.head["time_s"], m.head["sequence"] = self.clock.now, self.seed
        self.server.publish(m)
        return m

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20.0
        while not condition():
            assert time.monotonic() < deadline, f"{self.rack.report} {self.rack.troubles}"
            time.sleep(0.001)

    def arrived(self) -> Measurement:
        """What the rack shows once it has the newest step."""
        self.until(lambda: self.rack.report.step == self.server.registers.map.source.count)
        self.rack.read(self.out)
        return self.out

    def end(self) -> None:
        self.rack.close()
        self.server.stop()


@pytest.fixture
def pair(
    info_of: Callable[..., RackInfo], measured: Callable[..., Measurement], commanded: Callable[..., Command]
) -> Iterator[Pair]:
    made = Pair(info_of(20), measured, commanded)
    yield made
    made.end()


def test_it_is_a_rack_that_lives_in_real_time(pair: Pair) -> None:
    pair.rack.open()
    assert isinstance(pair.rack, Rack)
    assert is_live("modbus:tcp://a:1")
    assert is_live("chaos:FILE?rack=modbus:tcp://a:1")
    assert not is_live("sim:lfp_280")
    assert isinstance(open_rack(f"modbus:{pair.server.address}?unit=1&poll=0.5"), ModbusRack)


def test_snapshots_follow_the_device(pair: Pair) -> None:
    pair.rack.open()
    for seed in (2, 3, 4):
        pair.clock.now += 1.0
        m = pair.show(seed)
        out = pair.arrived()
        assert np.array_equal(out.cell_v, m.cell_v)
        assert out.head["time_s"] == m.head["time_s"]
        assert np.allclose(out.cell_v_age_s, m.cell_v_age_s)
    assert pair.rack.report.torn == 0
    assert pair.rack.troubles == []


def test_what_has_not_changed_is_not_read_again(pair: Pair) -> None:
    pair.rack.open()
    polls = pair.rack.report.polls
    pair.until(lambda: pair.rack.report.polls > polls + 5)
    assert pair.rack.report.snapshots == 1


def test_ages_grow_while_nothing_new_comes_and_then_it_is_stale(pair: Pair) -> None:
    pair.rack.open()
    out = pair.arrived()
    fresh = out.cell_v_age_s.copy()
    sequence = int(out.head["sequence"][0])
    pair.clock.now += 1.5
    pair.rack.read(out)
    assert np.allclose(out.cell_v_age_s, fresh + 1.5)
    assert not out.cell_v_quality.any()
    pair.clock.now += 1.0
    pair.rack.read(out)
    assert (out.cell_v_quality == Quality.STALE).all()
    assert out.head["contactors_quality"] == out.head["current_a_quality"] == Quality.STALE
    assert out.head["sequence"] == sequence
    pair.show(2)
    assert not pair.arrived().cell_v_quality.any()
    assert out.head["sequence"] == sequence + 1


def test_a_command_arrives_and_closing_opens_the_contactors(pair: Pair) -> None:
    pair.rack.open()
    command, received = pair.commanded(pair.info), pair.commanded(pair.info, 9)
    pair.rack.write(command)
    pair.until(lambda: pair.server.take(received))
    assert received.bytes.tobytes() == command.bytes.tobytes()
    pair.rack.close()
    assert pair.server.take(received)
    assert received.head["contactors"] == received.head["limit_discharge_a"] == received.head["limit_charge_w"] == 0
    assert not received.balance.any()
    assert received.head["heartbeat"] == command.head["heartbeat"] + 1


def test_who_only_looks_does_not_take_control(pair: Pair) -> None:
    pair.rack.open()
    pair.arrived()
    pair.rack.close()
    assert pair.server.registers.commands == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("contactors", 8),
        ("limit_discharge_a", -1),
        ("limit_charge_w", np.nan),
        ("cooling_degc", np.nan),
        ("balance", 2),
        ("shuttle", 3),
    ],
)
def test_an_impossible_command_is_refused_at_once(pair: Pair, field: str, value: float) -> None:
    pair.rack.open()
    command = pair.commanded(pair.info)
    if field in ("balance", "shuttle"):
        getattr(command, field)[0] = value
    else:
        command.head[field] = value
    with pytest.raises(ValueError, match=field):
        pair.rack.write(command)
    assert pair.server.registers.commands == 0


def test_a_lost_connection_is_found_again(pair: Pair) -> None:
    pair.rack.open()
    port = pair.server.wire.port  # type: ignore[union-attr]
    pair.server.stop()
    pair.until(lambda: not pair.rack.report.connected)
    pair.clock.now += 3.0
    pair.rack.read(pair.out)
    assert (pair.out.cell_v_quality == Quality.STALE).all()
    pair.rack.write(pair.commanded(pair.info, 1))
    pair.clock.now += 3.0
    pair.rack.write(pair.commanded(pair.info, 2))
    assert pair.server.wire.port == port  # type: ignore[union-attr]
    pair.show(5)
    pair.server.start()
    out = pair.arrived()
    assert np.array_equal(out.cell_v, pair.measured(pair.info, 5).cell_v)
    assert any(text.startswith("connection lost: ") for text in pair.rack.troubles)
    received = pair.commanded(pair.info)
    pair.until(lambda: pair.server.take(received))
    assert received.bytes.tobytes() == pair.commanded(pair.info, 2).bytes.tobytes(), "the newest one alone"


def test_an_old_command_is_not_sent_after_an_outage(pair: Pair) -> None:
    pair.rack.open()
    pair.server.stop()
    pair.until(lambda: not pair.rack.report.connected)
    pair.rack.write(pair.commanded(pair.info))
    pair.clock.now += 2.5
    pair.server.start()
    pair.until(lambda: pair.rack.report.dropped == 1)
    assert pair.server.registers.commands == 0


def test_a_device_that_starts_anew_does_not_turn_time_back(pair: Pair) -> None:
    pair.rack.open()
    pair.clock.now = 100.0
    pair.show(7)
    before = float(pair.arrived().head["time_s"][0])
    sequence = int(pair.out.head["sequence"][0])
    pair.clock.now = 0.0
    pair.show(2)
    out = pair.arrived()
    assert out.head["time_s"] == before
    assert out.head["sequence"] == sequence + 1
    pair.clock.now = 1.0
    pair.show(3)
    assert pair.arrived().head["time_s"] == before + 1.0


def test_another_device_at_the_same_place_is_not_taken_for_the_rack(
    pair: Pair, info_of: Callable[..., RackInfo]
) -> None:
    pair.rack.open()
    port = pair.server.wire.port  # type: ignore[union-attr]
    pair.server.stop()
    pair.until(lambda: not pair.rack.report.connected)
    other = ModbusServer(f"tcp://127.0.0.1:{port}", info_of(24), pair.clock)
    other.start()
    try:
        pair.until(lambda: any("another device answers: it has 24 cells, not 20" in t for t in pair.rack.troubles))
    finally:
        other.stop()


def test_closing_while_nobody_answers_takes_no_longer_than_the_time_outs(pair: Pair) -> None:
    pair.rack.open()
    pair.rack.write(pair.commanded(pair.info))
    pair.until(lambda: pair.rack.report.commands == 1)
    pair.server.stop()
    pair.until(lambda: not pair.rack.report.connected)
    began = time.monotonic()
    pair.rack.close()
    assert time.monotonic() - began < 10.0


# ------------------------------------------------------------------------------------------------- devices that are odd


def refusing(
    monkeypatch: pytest.MonkeyPatch, *, read: Any = None, write: Any = None, code: Refused = Refused.ILLEGAL_ADDRESS
) -> None:
    """The device refuses requests that begin at these addresses."""
    reads, writes = Session.read, Session.write

    def read_or_refuse(self: Session, start: int, count: int) -> bytes:
        if read is not None and read(start, count):
            raise Refusal(code)
        return reads(self, start, count)

    def write_or_refuse(self: Session, start: int, values: bytes) -> None:
        if write is not None and write(start):
            raise Refusal(code)
        writes(self, start, values)

    monkeypatch.setattr(Session, "read", read_or_refuse)
    monkeypatch.setattr(Session, "write", write_or_refuse)


def test_a_rejected_command_is_named_once_and_reading_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusing(monkeypatch, write=lambda start: True, code=Refused.BUSY)
    caplog.set_level(logging.WARNING)
    pair.rack.open()
    for k in range(1, 4):
        pair.rack.write(pair.commanded(pair.info, k))
        pair.until(lambda k=k: pair.rack.report.refused == k)
    (trouble,) = pair.rack.troubles
    assert trouble.startswith("command rejected: the device refuses to write ")
    assert trouble.endswith("busy (exception 6)")
    assert len(caplog.records) == 1
    pair.show(3)
    assert not pair.arrived().cell_v_quality.any()


def test_a_block_that_is_refused_is_missing_and_named(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    second = [p for p in pair.server.registers.map.placed if p.model.id == 805][1]
    cells = second.start("lithium-ion-module-cell")
    refusing(monkeypatch, read=lambda start, count: start <= cells < start + count and count > 2)
    pair.rack.open()
    out = pair.arrived()
    assert out.cell_v_quality.tolist()[16:] == 4 * [Quality.MISSING]
    assert not out.cell_v_quality[:16].any()
    assert any("what lies there is MISSING" in text for text in pair.rack.troubles)


def shortened(pair: Pair, monkeypatch: pytest.MonkeyPatch, during: Callable[[int], None] = lambda start: None) -> None:
    """The chain ends before the models of ours, as with a battery from the shop; `during` is told of each request."""
    first = next(p for p in pair.server.registers.map.placed if p.model.id == 64800)
    reads = Session.read

    def shorter(self: Session, start: int, count: int) -> bytes:
        during(start)
        data = bytearray(reads(self, start, count))
        if start <= first.address < start + count:
            data[2 * (first.address - start) : 2 * (first.address - start) + 2] = b"\xff\xff"
        return bytes(data)

    monkeypatch.setattr(Session, "read", shorter)


def test_a_device_without_our_models_is_read_and_not_controlled(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(pair, monkeypatch)
    pair.rack.open()
    assert pair.rack.info.n_sensors == 20
    assert not pair.rack.info.capabilities.contactors
    lacking, reading = pair.rack.troubles
    assert "bus_v" in lacking
    assert "it can be read, not controlled" in reading
    out = Measurement(20, 20)
    pair.rack.read(out)
    assert not out.cell_v_quality.any()
    assert out.head["bus_v_quality"] == Quality.MISSING


def test_one_counter_is_read_again_at_the_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A battery that goes on while it is read: what was read of two steps is never shown."""
    busy = [False]
    cells = next(p for p in pair.server.registers.map.placed if p.model.id == 805)

    def during(start: int) -> None:
        if busy[0] and start > cells.address:
            pair.show(3)

    shortened(pair, monkeypatch, during)
    pair.rack.open()
    busy[0] = True
    pair.show(2)
    pair.until(lambda: pair.rack.report.torn > 1)
    assert pair.rack.report.snapshots == 1
    busy[0] = False
    pair.until(lambda: pair.rack.report.snapshots > 1)
    out = Measurement(20, 20)
    pair.rack.read(out)
    assert np.array_equal(out.cell_v, pair.measured(pair.info, 3).cell_v)


def test_a_torn_walk_is_not_shown(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that serves no walks goes on between two requests: the counters at both ends differ."""
    pair.rack.open()
    end = pair.server.registers.map.placed[-2].start("end")
    reads = Session.read
    torn = [True]

    def live(self: Session, start: int, count: int) -> bytes:
        data = bytearray(reads(self, start, count))
        if torn[0] and start <= end < start + count:
            data[2 * (end - start) + 3] ^= 1
        return bytes(data)

    monkeypatch.setattr(Session, "read", live)
    before = pair.rack.report.snapshots
    pair.show(2)
    pair.until(lambda: pair.rack.report.torn > 1)
    pair.rack.read(pair.out)
    assert np.array_equal(pair.out.cell_v, pair.measured(pair.info, 1).cell_v)
    assert pair.rack.report.snapshots == before
    torn[0] = False
    assert np.array_equal(pair.arrived().cell_v, pair.measured(pair.info, 2).cell_v)


# ------------------------------------------------------------------------------------------------------------- opening


def test_nobody_there_is_one_line_with_a_remedy(pair: Pair) -> None:
    pair.server.stop()
    with pytest.raises(LinkError) as error:
        pair.rack.open()
    assert str(error.value) == (
        f"rack URL 'modbus:{pair.server.address}': Connection refused; is the device on, and are host, port and unit right?"
    )
    with pytest.raises(LinkError, match=r"No such file or directory; is the device on, and are port, baud"):
        ModbusRack("rtu:///dev/no_such_port").open()
    with pytest.raises(RuntimeError, match="not open"):
        _ = pair.rack.info


def test_a_device_that_keeps_silent_is_told(pair: Pair) -> None:
    silent = ModbusServer("rtu://pty?unit=9", pair.info, pair.clock)
    silent.start()
    try:
        with pytest.raises(LinkError, match=r"no answer within 0.1 s"):
            ModbusRack(f"rtu://{silent.wire.device}", query={"timeout": "0.1"}).open()  # type: ignore[union-attr]
    finally:
        silent.stop()


def test_what_is_no_sunspec_device_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, read=lambda start, count: start == 40000)
    with pytest.raises(LinkError, match=r"no SunSpec mark at 40000, 0, 50000; give a profile that fits"):
        pair.rack.open()


@pytest.mark.parametrize(
    ("length", "said"), [(0, "the chain of models is broken"), (60000, "broken"), (4, "too short by")]
)
def test_a_broken_chain_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch, length: int, said: str) -> None:
    reads = Session.read
    third = next(p for p in pair.server.registers.map.placed if p.model.id == 804)

    def broken(self: Session, start: int, count: int) -> bytes:
        data = reads(self, start, count)
        return struct.pack(">H", length) if (start, count) == (third.address + 1, 1) else data

    monkeypatch.setattr(Session, "read", broken)
    with pytest.raises(LinkError, match=said):
        pair.rack.open()


@pytest.mark.parametrize(
    ("address", "query", "said"),
    [
        ("tcp://a:1", {"baud": "9600"}, "unknown option 'baud'"),
        ("tcp://a:1", {"unit": "x"}, "unit = x"),
        ("tcp://a:1", {"profile": "x"}, "unknown profile"),
        ("a:1", {}, "expected tcp://HOST:PORT"),
        ("tls://a:1", {"cert": "/nowhere"}, "cannot be used"),
    ],
)
def test_mistakes_in_the_url_are_told(address: str, query: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        ModbusRack(address, query=query)
    assert str(error.value).startswith(f"rack URL 'modbus:{address}': " if "profile" not in query else "unknown")
    assert said in str(error.value)


def test_tables_of_a_twin_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no table \[duty\]: leave it out"):
        ModbusRack("tcp://a:1", options={"duty": {"kind": "constant"}, "fault": []})


def test_a_report_counts_from_nothing() -> None:
    assert {getattr(LinkReport(), f.name) for f in fields(LinkReport)} == {0, -1.0}
    assert replace(LinkReport(), polls=1).polls == 1
