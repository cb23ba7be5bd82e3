"""The inverter's frames, decoded by cantools from the DBC that is shipped; its heart-beat; a bus that fails."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import can
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms.core.faults import Fault
from hal.contract import Command, Contactor, Measurement, Quality, RackInfo, RackState, Severity
from hal.errors import ConfigError
from hal.pcs import inverter_can as pcs
from hal.pcs.inverter_can import Battery, InverterCan, frames
from hal.registry import open_rack

cantools = pytest.importorskip("cantools")

N, SENSORS = 16, 4
BATTERY = Battery(charge_v=57.6, discharge_v=40.0)
INFO = RackInfo("small", N, SENSORS, 1, 280.0, "lfp_280", np.repeat(np.arange(4, dtype=np.uint16), 4))


@pytest.fixture(scope="module")
def dbc() -> Any:
    path = resources.files("hal.profiles").joinpath("pylontech", "pylontech_lv.dbc")
    return cantools.database.load_string(path.read_text(), "dbc")


def records() -> tuple[Measurement, Command]:
    m, c = Measurement(N, SENSORS), Command(N, SENSORS)
    m.head["pack_v"], m.head["current_a"] = 52.34, 61.27
    m.sensor_degc[:] = [24.0, 25.0, 26.0, 27.4]
    c.head["state"], c.head["contactors"] = RackState.CONNECTED, Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE
    c.head["limit_charge_a"], c.head["limit_discharge_a"] = 140.07, 280.0
    c.head["soc_mean"], c.head["soh_mean"] = 0.534, 0.981
    return m, c


def decoded(dbc: Any, m: Measurement, c: Command, *, silent: bool = False) -> dict[str, Any]:
    """Every signal of the six frames."""
    told: dict[str, Any] = {}
    for number, content in frames(BATTERY, m, c, silent=silent):
        message = dbc.get_message_by_frame_id(number)
        assert len(content) == message.length
        told |= message.decode(content)
    return told


def test_the_dbc_says_what_is_sent_and_how_often(dbc: Any) -> None:
    m, c = records()
    sent = {number for number, _ in frames(BATTERY, m, c, silent=False)}
    assert sent == {message.frame_id for message in dbc.messages} - {pcs.ALIVE}
    assert {message.cycle_time for message in dbc.messages} == {1000 * pcs.PERIOD_S}
    assert all(not message.is_extended_frame for message in dbc.messages)


def test_values_come_out_as_they_went_in(dbc: Any) -> None:
    told = decoded(dbc, *records())
    assert told["charge_v"] == pytest.approx(57.6)
    assert told["discharge_v"] == pytest.approx(40.0)
    assert told["charge_limit_a"] == pytest.approx(140.0)  # rounded down
    assert told["discharge_limit_a"] == pytest.approx(280.0)
    assert (told["soc_percent"], told["soh_percent"]) == (53, 98)
    assert told["pack_v"] == pytest.approx(52.34)
    assert told["charging_a"] == pytest.approx(-61.3)  # positive charges there
    assert told["battery_degc"] == pytest.approx(25.6)
    assert (told["charge_enabled"], told["discharge_enabled"], told["force_charge_now"]) == (1, 1, 0)
    assert (told["letter_p"], told["letter_n"], told["modules"]) == (ord("P"), ord("N"), 1)
    assert told["maker"].to_bytes(8, "little") == b"RACKBMS "
    assert not any(value for name, value in told.items() if name.startswith(("stopped", "alarm")))


@pytest.mark.parametrize(
    "state", [state for state in RackState if state not in (RackState.CONNECTED, RackState.TRANSPORT_CHARGE)]
)
def test_nothing_may_flow_through_a_rack_that_is_not_connected(state: RackState, dbc: Any) -> None:
    m, c = records()
    c.head["state"] = state
    told = decoded(dbc, m, c)
    assert (
        told["charge_limit_a"] == told["discharge_limit_a"] == told["charge_enabled"] == told["discharge_enabled"] == 0
    )


def test_nothing_may_flow_where_the_inverter_is_silent(dbc: Any) -> None:
    told = decoded(dbc, *records(), silent=True)
    assert (
        told["charge_limit_a"] == told["discharge_limit_a"] == told["charge_enabled"] == told["discharge_enabled"] == 0
    )
    assert told["pack_v"] == pytest.approx(52.34)


def test_one_way_alone(dbc: Any) -> None:
    m, c = records()
    c.head["limit_charge_a"] = 0.0
    told = decoded(dbc, m, c)
    assert (told["charge_enabled"], told["discharge_enabled"]) == (0, 1)


NAMES = {
    "high_voltage": ("CELL_OVERVOLTAGE", "PACK_OVERVOLTAGE"),
    "low_voltage": ("CELL_UNDERVOLTAGE", "DEEP_DISCHARGE", "PACK_UNDERVOLTAGE"),
    "hot": ("CHARGE_HOT", "DISCHARGE_HOT"),
    "cold": ("CHARGE_COLD", "DISCHARGE_COLD"),
    "discharge_current": ("DISCHARGE_CURRENT", "DISCHARGE_I2T", "DISCHARGE_LIMIT"),
    "charge_current": ("CHARGE_CURRENT", "CHARGE_I2T", "CHARGE_LIMIT"),
}


@pytest.mark.parametrize("fault", list(Fault))
def test_faults_are_told_under_their_names(fault: Fault, dbc: Any) -> None:
    shown = {name for name, faults in NAMES.items() if fault.name in faults}
    m, c = records()
    c.fault_fatal[fault // 32] = 1 << fault % 32
    c.head["severity"] = Severity.FATAL
    told = decoded(dbc, m, c)
    assert {name for name in NAMES if told[f"stopped_{name}"]} == shown
    assert told["stopped_system"] == (not shown)
    m, c = records()
    c.fault_warning[fault // 32] = 1 << fault % 32
    c.head["severity"] = Severity.WARNING
    told = decoded(dbc, m, c)
    assert {name for name in NAMES if told[f"alarm_{name}"]} == shown
    assert told["alarm_communication"] == (fault.name.endswith("_LOST"))
    assert not any(value for name, value in told.items() if name.startswith("stopped"))


@given(st.data())
def test_whatever_is_measured_goes_out_as_numbers(data: st.DataObject) -> None:
    m, c = records()
    number = st.floats(width=32)
    for name in ("pack_v", "current_a"):
        m.head[name] = data.draw(number)
    m.sensor_degc[0] = data.draw(number)
    limits = [data.draw(number), data.draw(number)]
    c.head["limit_charge_a"], c.head["limit_discharge_a"] = limits
    c.head["soc_mean"], c.head["soh_mean"] = data.draw(number), data.draw(number)
    out = dict(frames(BATTERY, m, c, silent=False))
    for at, limit in zip((2, 4), limits, strict=True):
        told_a = int.from_bytes(out[pcs.LIMITS][at : at + 2], "little", signed=True) / 10
        assert 0.0 <= told_a <= (max(limit, 0.0) if not math.isnan(limit) else 0.0) + 1e-3
    assert out[pcs.CHARGE][0] <= 100


def test_a_value_that_is_not_good_is_not_told(dbc: Any) -> None:
    m, c = records()
    m.head["pack_v_quality"] = Quality.STALE
    m.sensor_degc_quality[:] = Quality.MISSING
    m.sensor_degc_quality[1] = 0
    told = decoded(dbc, m, c)
    assert told["pack_v"] == 0.0
    assert told["battery_degc"] == 25.0


# --- on a bus ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def wire() -> Any:
    """Both ends of a bus: the battery's and the inverter's."""
    with (
        can.Bus(interface="virtual", channel="inverter") as ours,
        can.Bus(interface="virtual", channel="inverter") as theirs,
    ):
        yield ours, theirs


def alive(bus: Any, **about: Any) -> None:
    bus.send(can.Message(**{"arbitration_id": pcs.ALIVE, "data": bytes(8), "is_extended_id": False, **about}))


def heard(bus: Any) -> list[can.Message]:
    found = []
    while (message := bus.recv(timeout=0.0)) is not None:
        found.append(message)
    return found


def test_every_frame_goes_out_once_a_second(wire: Any) -> None:
    ours, theirs = wire
    inverter = InverterCan(ours, INFO, BATTERY)
    m, c = records()
    counts = []
    for step in range(100):
        inverter.update(m, c, 0.1 * step)
        counts.append(len(heard(theirs)))
    assert [k for k, n in enumerate(counts) if n] == list(range(0, 100, 10))
    assert set(counts) == {0, 6}
    assert inverter.sent == 60
    inverter.update(m, c, 60.0)  # a pause is not made up for
    inverter.update(m, c, 60.1)
    assert len(heard(theirs)) == 6


def limits_a(bus: Any) -> tuple[float, float]:
    (frame,) = [message for message in heard(bus) if message.arbitration_id == pcs.LIMITS]
    return tuple(int.from_bytes(frame.data[k : k + 2], "little") / 10 for k in (2, 4))  # type: ignore[return-value]


def test_a_heart_beat_that_stops_takes_the_limits_away(wire: Any) -> None:
    ours, theirs = wire
    inverter = InverterCan(ours, INFO, BATTERY, silent_s=5.0)
    m, c = records()
    inverter.update(m, c, 0.0)
    assert inverter.silent
    assert limits_a(theirs) == (0.0, 0.0)  # nobody has been heard yet
    seen = {}
    for second in range(1, 30):
        if second <= 10 or second >= 20:
            alive(theirs)
        inverter.update(m, c, float(second))
        seen[second] = limits_a(theirs)
    assert all(seen[k] == (140.0, 280.0) for k in (*range(1, 16), *range(20, 30)))
    assert all(seen[k] == (0.0, 0.0) for k in range(16, 20))


@pytest.mark.parametrize(
    "about", [{"arbitration_id": 0x306}, {"is_extended_id": True}, {"is_remote_frame": True}, {"is_error_frame": True}]
)
def test_other_frames_are_no_heart_beat(about: dict[str, Any], wire: Any) -> None:
    ours, theirs = wire
    inverter = InverterCan(ours, INFO, BATTERY)
    alive(theirs, **({**about, "data": b""} if "is_remote_frame" in about else about))
    inverter.update(*records(), 0.0)
    assert inverter.silent


def test_a_full_bus_does_not_hold_up_a_step() -> None:
    class Endless:
        asked = 0

        def recv(self, timeout: float | None = None) -> can.Message:
            self.asked += 1
            return can.Message(arbitration_id=0x100, is_extended_id=False)

        def send(self, msg: can.Message, timeout: float | None = None) -> None: ...

    bus = Endless()
    InverterCan(bus, INFO, BATTERY).update(*records(), 0.0)
    assert bus.asked == pcs.AT_ONCE


@pytest.mark.parametrize("error", [can.CanOperationError("no buffer"), OSError("down")])
def test_a_bus_that_fails_is_counted_and_raises_nothing(error: Exception) -> None:
    class Broken:
        def recv(self, timeout: float | None = None) -> None:
            raise error

        def send(self, msg: can.Message, timeout: float | None = None) -> None:
            raise error

    inverter = InverterCan(Broken(), INFO, BATTERY)
    inverter.update(*records(), 0.0)
    assert inverter.errors == 2
    assert str(error) in inverter.last_error
    assert inverter.sent == 0


def test_the_controller_on_a_twin_leads_an_inverter(wire: Any, dbc: Any) -> None:
    """A run of the real thing: limits appear when it connects, and go when the inverter does."""
    from bms.core.machine_table import Request
    from bms.rig.driver import Driver
    from bms.runtime.clock import VirtualClock
    from bms.runtime.scenario import Scenario

    ours, theirs = wire
    clock = VirtualClock()
    options = {"duty": {"kind": "constant", "c_rate": 0.2}}
    with open_rack("sim:lfp_280?n_series=16", clock=clock, options=options) as rack:
        driver = Driver(rack, Scenario(rack="sim:lfp_280"), clock)
        inverter = InverterCan(ours, rack.info, BATTERY)
        told: dict[str, Any] = {}
        seen = []
        for second in range(60):
            if second < 50:
                alive(theirs)
            driver.step(Request.CONNECT)
            inverter.update(driver.measurement, driver.command, clock.now_s())
            for message in heard(theirs):
                told |= dbc.decode_message(message.arbitration_id, message.data)
            seen.append((driver.state, told["discharge_limit_a"], told["charging_a"], told["pack_v"]))
        driver.stop()
    assert seen[0][1] == 0.0
    assert seen[48][0] == RackState.CONNECTED
    assert seen[48][1] == pytest.approx(280.0)
    assert seen[48][2] == pytest.approx(-56.0, abs=1.0)  # 0.2 C out of 280 Ah
    assert 51.0 < seen[48][3] < 54.0
    assert seen[-1][1] == 0.0


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"charge_v": 1500.0}, "charge_v = 1500 V: this protocol is for batteries of up to 327.67 V; use SunSpec"),
        ({"charge_v": 30.0}, "both above 0, and the first below the second"),
        ({"maker": "TOO LONG A NAME"}, "maker = 'TOO LONG A NAME': up to eight ASCII letters"),
        ({"modules": 300}, "modules = 300"),
    ],
)
def test_batteries_that_do_not_fit_are_refused(about: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Battery(**{"charge_v": 57.6, "discharge_v": 40.0, **about})
    assert says in str(caught.value)


def test_racks_and_times_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="silent_s = 0.5"):
        InverterCan(None, INFO, BATTERY, silent_s=0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="more than 5 V a cell"):
        InverterCan(None, INFO, Battery(charge_v=100.0, discharge_v=40.0))  # type: ignore[arg-type]
