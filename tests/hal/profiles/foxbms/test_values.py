"""What goes over foxBMS's wires, judged by its public description: every signal that is sent, and every one that is read."""

import itertools
import math
from typing import Any

import can
import numpy as np
import pytest
from can_bus import wait_for

from hal.backends.can import CanRack
from hal.codec import can_profile
from hal.codec.can_wire import CommandWire, MeasurementWire
from hal.codec.frames import Codec, Inbox, Outbox, Verdict
from hal.contract import Command, Measurement, Quality
from hal.serve.can import CanServer

N_CELLS, N_SENSORS = 216, 180
IVT = {"I": "current_a", "U1": "pack_v", "U3": "bus_v", "W": "power_w", "As": "charge_as", "Wh": "energy_wh"}
CLOSED = {6: 2, 7: 3, 8: 3, 9: 3}
"""Contactors by state of the unit: the negative one while it precharges."""

BUSES = itertools.count()


class Sender:
    """A rack as the measuring electronics of a unit, on paper."""

    def __init__(self, name: str = "foxbms,bender") -> None:
        self.profile = can_profile.load(name, serving=True)
        profile = self.profile
        self.codec = Codec(profile.database, profile.measurement_messages(derived=True), profile.protection)
        self.wire, self.outbox = MeasurementWire(profile, self.codec, derived=True), Outbox(self.codec)

    def frames(self, m: Measurement) -> list[tuple[int, bytes]]:
        self.wire.load(m)
        self.codec.encode()
        return self.outbox.frames(self.wire.sendable)


def random_measurement(seed: int) -> Measurement:
    """Values within the range of the wire, a tenth of them bad or missing."""
    rng, m = np.random.default_rng(seed), Measurement(N_CELLS, N_SENSORS)
    m.cell_v[:] = 8.19 * rng.random(N_CELLS)
    m.sensor_degc[:] = -127 + 254 * rng.random(N_SENSORS)
    for values, quality in ((m.cell_v, m.cell_v_quality), (m.sensor_degc, m.sensor_degc_quality)):
        bad = rng.random(len(values)) < 0.1
        quality[bad] = rng.choice([int(q) for q in Quality if q], bad.sum())
        values[(quality & Quality.MISSING) != 0] = np.nan
    for name, size in (("current_a", 2000.0), ("pack_v", 1500.0), ("bus_v", 1500.0)):
        m.head[name] = size * (2 * rng.random() - 1)
        m.head[f"{name}_quality"] = rng.choice([0, 0, 0, int(Quality.STALE)])
    m.head["insulation_ohm"] = 6e7 * rng.random()
    m.head["insulation_ohm_quality"] = rng.choice([0, int(Quality.DEVICE_INVALID)])
    return m


@pytest.mark.parametrize("seed", range(10))
def test_all_that_is_sent_is_what_was_meant(foxbms_dbc: Any, seed: int) -> None:
    sender = Sender()
    m = random_measurement(seed)
    scan = sender.frames(m)
    told: dict[str, Any] = {}
    for key, data in scan:
        told |= foxbms_dbc.decode_message(key, data, decode_choices=False)
    for k in range(N_CELLS):
        assert told[f"CellVoltage_{k:03}_invalidFlag"] == (m.cell_v_quality[k] == 0), "1 is valid"
        if not math.isnan(m.cell_v[k]):
            assert abs(told[f"CellVoltage_{k:03}"] - 1e3 * m.cell_v[k]) <= 0.5001
    for k in range(N_SENSORS):
        assert told[f"CellTemperature_{k:03}_invalidFlag"] == (m.sensor_degc_quality[k] == 0)
        if not math.isnan(m.sensor_degc[k]):
            assert abs(told[f"CellTemperature_{k:03}"] - m.sensor_degc[k]) <= 0.5001
    head = m.head[0]
    power_w = float(head["current_a"]) * float(head["pack_v"])
    meant = {"I": 1e3 * head["current_a"], "U1": 1e3 * head["pack_v"], "U3": 1e3 * head["bus_v"], "W": power_w}
    bad_i, bad_u, bad_b = (head[f"{name}_quality"] != 0 for name in ("current_a", "pack_v", "bus_v"))
    flags = {"I": bad_i, "U1": bad_u, "U3": bad_b, "W": bad_i or bad_u, "As": bad_i, "Wh": bad_i or bad_u}
    for number, short in zip((0, 1, 3, 5, 6, 7), IVT, strict=True):
        assert told[f"IVT_ID_Result_{short}"] == number
        assert told[f"IVT_MsgCount_Result_{short}"] == 0, "the first of each"
        assert told[f"IVT_Result_{short}_Channel_Error"] == flags[short]
        assert not any(told[f"IVT_Result_{short}_{kind}"] for kind in ("System_Error", "Measurement_Error", "OCS"))
        assert abs(told[f"IVT_Result_{short}"] - meant.get(short, 0.0)) <= 0.5001
    assert told["II_VIFC_STATUS_00_IsoMeasurement"] == (head["insulation_ohm_quality"] != 0)
    assert abs(told["II_IMC_R_ISO"] - 1e-3 * head["insulation_ohm"]) <= 0.5001
    other = {name for name in told if name.startswith("II_") and name not in ("II_VIFC_STATUS_00_IsoMeasurement", "II_IMC_R_ISO")}  # fmt: skip
    assert not any(told[name] for name in other)
    assert told.keys() - other == {
        *(f"CellVoltage_{k:03}{end}" for k in range(N_CELLS) for end in ("", "_invalidFlag")),
        *(f"CellTemperature_{k:03}{end}" for k in range(N_SENSORS) for end in ("", "_invalidFlag")),
        *(f"IVT_{kind}{short}" for kind in ("ID_Result_", "MsgCount_Result_", "Result_") for short in IVT),
        *(f"IVT_Result_{s}_{f}" for s in IVT for f in ("OCS", "System_Error", "Measurement_Error", "Channel_Error")),
        *("AFE_CellVoltages_Mux", "AFE_CellTemperatures_Mux"),
        *("II_VIFC_STATUS_00_IsoMeasurement", "II_IMC_R_ISO"),
    }, "every signal was looked at"


def test_the_counter_of_the_sensor_runs_to_15_and_charge_and_energy_add_up(foxbms_dbc: Any) -> None:
    sender, m = Sender(), Measurement(N_CELLS, N_SENSORS)
    m.head["current_a"], m.head["pack_v"] = 100.0, 720.0
    told: dict[str, Any] = {}
    for step in range(37):
        m.head["time_s"] = 0.5 * step
        for key, data in sender.frames(m):
            told |= foxbms_dbc.decode_message(key, data, decode_choices=False)
        assert told["IVT_MsgCount_Result_I"] == step % 16
    assert (told["IVT_Result_As"], told["IVT_Result_Wh"], told["IVT_Result_W"]) == (1800, 360, 72000)


def unit_frames(dbc: Any, values: dict[str, float]) -> list[tuple[int, bytes]]:
    """All frames of a unit, as the public description packs `values`; what is not given is 0."""
    found = []
    for name in (
        "f_BmsState",
        "f_PackValuesP0",
        "f_PackValuesP1",
        "f_StringState",
        "f_CellVoltages",
        "f_CellTemperatures",
    ):
        message = dbc.get_message_by_name(name)
        mux = next((s for s in message.signals if s.is_multiplexer), None)
        for page in [None] if mux is None else sorted(mux.choices):
            wanted = {s.name for s in message.signals if s.multiplexer_ids is None or page in s.multiplexer_ids}
            given = {signal: values.get(f"{name}.{signal}", values.get(signal, 0)) for signal in wanted}
            if mux is not None:
                given[mux.name] = page
            found.append((message.frame_id, message.encode(given, strict=False)))
    return found


class Reader:
    """A unit as a rack, on paper."""

    def __init__(self, name: str = "foxbms") -> None:
        self.profile = can_profile.load(name)
        self.codec = Codec(self.profile.database, self.profile.measurement_messages(), self.profile.protection)
        self.wire, self.inbox = MeasurementWire(self.profile, self.codec), Inbox(self.codec)

    def read(self, frames: list[tuple[int, bytes]], now_s: float = 0.0) -> Measurement:
        for key, data in frames:
            assert self.inbox.accept(key, data, now_s) in (Verdict.ACCEPTED, Verdict.UNKNOWN)
        self.inbox.snapshot()
        self.codec.decode()
        self.wire.fill(self.inbox.arrived_s, now_s)
        return self.wire.record


@pytest.mark.parametrize("seed", range(10))
def test_all_that_a_unit_tells_is_read(foxbms_dbc: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "Current": round(rng.uniform(-655, 655), 2),
        "BatteryVoltage": round(rng.uniform(-1600, 1600), 1),
        "BusVoltage": round(rng.uniform(-1600, 1600), 1),
        "f_PackValuesP1.InsulationResistance": 7 * int(rng.integers(8191)),
        "BmsState": int(rng.integers(12)),
    }
    bits = (
        *("InsulationMonitoring", "InterlockState", "StringCurrentMeasurementError"),
        *("StringVoltageMeasurementError", "PositiveContactorError", "NegativeContactorError"),
    )
    values |= {name: int(rng.integers(2)) for name in bits}
    cell_mv, cell_ok = rng.integers(8192, size=N_CELLS), rng.integers(2, size=N_CELLS)
    degc, degc_ok = rng.integers(-128, 128, size=N_SENSORS), rng.integers(2, size=N_SENSORS)
    for k in range(N_CELLS):
        values[f"CellVoltage_{k:03}"], values[f"CellVoltage_{k:03}_invalidFlag"] = int(cell_mv[k]), int(cell_ok[k])
    for k in range(N_SENSORS):
        values[f"CellTemperature_{k:03}"], values[f"CellTemperature_{k:03}_invalidFlag"] = int(degc[k]), int(degc_ok[k])
    m = Reader().read(unit_frames(foxbms_dbc, values))
    head, invalid = m.head[0], int(Quality.DEVICE_INVALID)
    assert head["current_a"] == pytest.approx(values["Current"], abs=1e-3)
    assert head["current_a_quality"] == invalid * values["StringCurrentMeasurementError"]
    assert head["pack_v"] == pytest.approx(values["BatteryVoltage"], abs=1e-2)
    assert head["pack_v_quality"] == invalid * values["StringVoltageMeasurementError"]
    assert (head["bus_v"], head["bus_v_quality"]) == (pytest.approx(values["BusVoltage"], abs=1e-2), 0)
    assert head["insulation_ohm"] == pytest.approx(1e3 * values["f_PackValuesP1.InsulationResistance"])
    assert head["insulation_ohm_quality"] == invalid * (1 - values["InsulationMonitoring"])
    wrong = values["PositiveContactorError"] or values["NegativeContactorError"]
    assert (head["contactors"], head["contactors_quality"]) == (CLOSED.get(values["BmsState"], 0), invalid * wrong)
    assert head["interlock_closed"] == 1 - values["InterlockState"]
    absent = (cell_mv == 8191) & (cell_ok == 0)
    assert np.array_equal(np.isnan(m.cell_v), absent)
    assert np.abs(m.cell_v - 1e-3 * cell_mv)[~absent].max() < 1e-6
    assert np.array_equal(m.cell_v_quality == 0, cell_ok == 1)
    absent = (degc == -128) & (degc_ok == 0)
    assert np.array_equal(m.sensor_degc[~absent], degc[~absent])
    assert np.array_equal(m.sensor_degc_quality == 0, degc_ok == 1)
    for name in ("coolant_in_degc", "gas_alarm", "bleeding"):
        assert head[f"{name}_quality"] == Quality.MISSING, "a unit does not tell"


@pytest.mark.parametrize("contactors", [*range(9), 255])
def test_a_request_is_a_mode(foxbms_dbc: Any, contactors: int) -> None:
    profile = can_profile.load("foxbms")
    codec = Codec(profile.database, profile.command_messages(), profile.protection)
    wire, c = CommandWire(profile, codec), Command(N_CELLS, N_SENSORS)
    c.head["contactors"] = contactors
    c.balance[:] = 1
    wire.load(c)
    codec.encode()
    ((key, data),) = Outbox(codec).frames(wire.sendable)
    told = foxbms_dbc.decode_message(key, data, decode_choices=False)
    assert key == 0x210
    assert told.pop("RequestBmsMode") == (contactors in (2, 3)), "the unit does the rest by itself"
    assert not any(told.values())


@pytest.mark.parametrize("state", range(16))
def test_the_contactors_of_a_served_rack_follow_the_unit(foxbms_dbc: Any, state: int) -> None:
    discharge, charge, discharge_w, charge_w = np.random.default_rng(state).integers(4096, size=4).tolist()
    profile = can_profile.load("foxbms", serving=True)
    codec = Codec(profile.database, profile.command_messages(), profile.protection)
    wire, inbox, c = CommandWire(profile, codec), Inbox(codec), Command(N_CELLS, N_SENSORS)
    states, limits = (foxbms_dbc.get_message_by_name(name) for name in ("f_BmsState", "f_PackLimits"))
    told = {s.name: 0 for s in (*states.signals, *limits.signals)}
    told |= {"BmsState": state, "MaximumDischargeCurrent": 0.25 * discharge, "MaximumChargeCurrent": 0.25 * charge}
    told |= {"MaximumDischargePower": 0.1 * discharge_w, "MaximumChargePower": 0.1 * charge_w}
    for message in (limits, states):
        data = message.encode({s.name: told[s.name] for s in message.signals})
        assert inbox.accept(message.frame_id, data, 0.0) == Verdict.ACCEPTED
    inbox.snapshot()
    codec.decode()
    wire.store(c, inbox.arrived_s, 0.0)
    head = c.head[0]
    assert head["contactors"] == {6: 6, 7: 3, 8: 3, 9: 3}.get(state, 0)
    assert (head["limit_discharge_a"], head["limit_charge_a"]) == (0.25 * discharge, 0.25 * charge)
    assert head["limit_discharge_w"] == pytest.approx(100.0 * discharge_w)
    assert head["limit_charge_w"] == pytest.approx(100.0 * charge_w)


def test_a_value_is_no_fresher_than_the_word_that_it_is_good(foxbms_dbc: Any) -> None:
    """The bit that the current is wrong comes in a message of its own: without it the current is not believed."""
    reader = Reader()
    every = unit_frames(foxbms_dbc, {"Current": 12.0, **{f"CellVoltage_{k:03}_invalidFlag": 1 for k in range(N_CELLS)}})
    assert reader.read(every).head["current_a_quality"][0] == 0
    silent = [frame for frame in every if frame[0] != 0x240]
    assert reader.read(silent, 0.25).head["current_a_quality"][0] == 0
    m = reader.read(silent, 0.35)
    assert (m.head["current_a_quality"][0], m.head["current_a_age_s"][0]) == (Quality.STALE, 0.0)
    assert m.head["bus_v_quality"][0] == 0
    late = Reader()
    assert late.read(silent).head["current_a_quality"][0] == Quality.MISSING


@pytest.mark.parametrize("name", ["foxbms,ivt", "foxbms,ivt,bender", "foxbms,bender"])
def test_sensors_beside_a_unit_replace_what_it_says(foxbms_dbc: Any, name: str) -> None:
    reader = Reader(name)
    frames = unit_frames(
        foxbms_dbc, {"Current": 12.0, "BatteryVoltage": 700.0, "f_PackValuesP1.InsulationResistance": 7000}
    )
    for short, value in (("Curr", -123456), ("V1", 712345), ("V3", 712000)):
        message = foxbms_dbc.get_message_by_name(f"CS_IsabellenhuetteIvtString0{short}")
        given = {s.name: 0 for s in message.signals}
        result = next(s.name for s in message.signals if s.length == 32)
        frames.append((message.frame_id, message.encode(given | {result: value}, strict=False)))
    message = foxbms_dbc.get_message_by_name("IMD_BenderIso165c_Info")
    outdated = {s.name: 0 for s in message.signals} | {"II_IMC_R_ISO": 500, "II_VIFC_STATUS_08_Outdated": 1}
    frames.append((message.frame_id, message.encode(outdated)))
    head = reader.read(frames).head[0]
    assert head["current_a"] == pytest.approx(-123.456 if "ivt" in name else 12.0)
    assert head["pack_v"] == pytest.approx(712.345 if "ivt" in name else 700.0)
    assert head["bus_v"] == pytest.approx(712.0 if "ivt" in name else 0.0)
    bender = "bender" in name
    assert head["insulation_ohm"] == (500e3 if bender else 7e6)
    assert head["insulation_ohm_quality"] == Quality.DEVICE_INVALID, "outdated, or nobody measures"


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


def test_a_unit_on_a_bus_is_read_commanded_and_closed(foxbms_dbc: Any) -> None:
    channel, clock = f"foxbms{next(BUSES)}", Time()
    bus = can.Bus(interface="virtual", channel=channel, ignore_config=True)
    rack = CanRack(f"virtual:{channel}", query={"profile": "foxbms"}, clock=clock)
    values: dict[str, Any] = {"BmsState": 8, "BatteryVoltage": 712.3, "Current": -20.5}
    frames = unit_frames(foxbms_dbc, values)
    rack.link.open()
    for key, data in frames:
        bus.send(can.Message(arbitration_id=key, data=data, is_extended_id=False))
    wait_for(lambda: rack.link.counters.received >= len(frames), "frames are missing")
    rack._open = True
    m, c = Measurement(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)
    rack.read(m)
    assert (m.head["contactors"][0], m.head["pack_v"][0]) == (3, pytest.approx(712.3))
    c.head["contactors"] = 3
    rack.write(c)
    rack.close()
    modes = []
    while (message := bus.recv(0.5)) is not None:
        modes.append(foxbms_dbc.decode_message(message.arbitration_id, message.data)["RequestBmsMode"])
        if len(modes) == 4:
            break
    assert modes == ["Discharge", "Standby", "Standby", "Standby"]
    bus.shutdown()


def test_a_served_rack_gives_its_pages_one_after_the_other_and_takes_the_unit_as_its_controller(
    foxbms_dbc: Any,
) -> None:
    channel, clock = f"foxbms{next(BUSES)}", Time()
    info = can_profile.load("foxbms", rack={"n_cells": 18, "n_sensors": 8}).info
    server = CanServer(f"can:virtual:{channel}?profile=foxbms", info, clock)
    bus = can.Bus(interface="virtual", channel=channel, ignore_config=True)
    server.start()
    m, c = Measurement(18, 8), Command(18, 8)
    m.cell_v[:] = 3.3

    def published() -> list[tuple[int, int]]:
        server.publish(m)
        found = []
        while (message := bus.recv(0.0)) is not None:
            found.append((message.arbitration_id, message.data[0]))
        return found

    first = published()
    assert len(first) == len(set(first)) == 5 + 2 + 6, "everything once"
    pages: list[int] = []
    for step in range(1, 11):
        clock.now = 0.02 * step
        now = [page for key, page in published() if key == 0x270]
        assert len(now) == 1, "5 pages of 4 cells in 0.1 s: one in 0.02 s"
        pages += now
    assert pages == [0, 1, 2, 3, 4] * 2
    assert 0.02 < server.bus_load < 0.1
    for beat in (1, 2):
        for name, given in (("f_PackLimits", {"MaximumDischargeCurrent": 100.0}), ("f_BmsState", {"BmsState": 7})):
            message = foxbms_dbc.get_message_by_name(name)
            data = message.encode({s.name: 0 for s in message.signals} | given)
            bus.send(can.Message(arbitration_id=message.frame_id, data=data, is_extended_id=False))
        wait_for(lambda: server.link.counters.received >= 2 * beat, "the server has not heard it")  # noqa: B023
        assert server.take(c)
        assert (c.head["contactors"][0], c.head["limit_discharge_a"][0]) == (3, 100.0)
        assert c.head["heartbeat"][0] == beat, "the unit has no heart-beat: each of its messages is one"
    server.stop()
    bus.shutdown()
