"""A device as others build it, by data alone: pages, big-endian, millivolts, flags for bad values, a bit for each relay."""

from pathlib import Path

import cantools
import numpy as np
import pytest
from can_bus import BusRack, Far

from hal.contract import Command, Measurement, Quality

N_CELLS, N_SENSORS = 12, 3


def dbc() -> str:
    """The way of foxBMS 2: cells come four to a frame, 13 bits in mV and a flag each, the page in byte 0."""
    lines = ["BO_ 544 State: 8 Device"]
    for k, name in enumerate(("Negative", "Positive", "Pre", "LoopOpen", "Stop")):
        lines.append(f' SG_ {name} : {k}|1@0+ (1,0) [0|1] "" Master')
    lines.append(' SG_ Iso : 63|8@0+ (100,0) [0|25500] "kOhm" Master')
    lines.append("BO_ 546 Values: 8 Device")
    lines.append(' SG_ Amps : 7|20@0- (0.01,0) [0|0] "A" Master\n SG_ Volt : 31|20@0+ (0.01,0) [0|0] "V" Master')
    lines.append('BO_ 592 Cells: 8 Device\n SG_ Page M : 7|8@0+ (1,0) [0|0] "" Master')
    for k in range(N_CELLS + 4):
        lines.append(f' SG_ Bad_{k:03} m{k // 4} : {12 + k % 4}|1@0+ (1,0) [0|1] "" Master')
        lines.append(f' SG_ Cell_{k:03} m{k // 4} : {(11, 30, 33, 52)[k % 4]}|13@0+ (1,0) [0|8191] "mV" Master')
    lines.append('BO_ 608 Degrees: 8 Device\n SG_ Page M : 7|8@0+ (1,0) [0|0] "" Master')
    for k in range(6):
        lines.append(f' SG_ Degc_{k} m0 : {23 + 8 * k}|8@0- (1,0) [0|0] "degC" Master')
    lines.append("BO_ 528 Request: 8 Master")
    for k, name in enumerate(("CloseNegative", "ClosePositive", "ClosePre")):
        lines.append(f' SG_ {name} : {k}|1@0+ (1,0) [0|1] "" Device')
    return "\n".join(lines) + "\n"


TOML = f"""
[can]
dbc = "own.dbc"
bitrate = 500000
commit = "Request"
cycle_ms = {{ State = 100, Values = 100, Cells = 100, Degrees = 200, Request = 100 }}
[rack]
cell = "lfp_280"
n_cells = {N_CELLS}
n_sensors = {N_SENSORS}
capacity_ah = 280
[capabilities]
contactors = true
precharge = true
[measurement]
current_a = {{ signal = "Amps", factor = -1 }}
pack_v = {{ signal = "Volt" }}
cell_v = {{ signal = "Cell_{{:03}}", invalid = "Bad_{{:03}}", factor = 0.001 }}
sensor_degc = {{ signal = "Degc_{{}}" }}
contactors = {{ bits = ["Positive", "Negative", "Pre"] }}
interlock_closed = {{ signal = "LoopOpen", factor = -1, offset = 1 }}
emergency_stop = {{ signal = "Stop" }}
insulation_ohm = {{ signal = "Iso", factor = 1000 }}
[command]
contactors = {{ bits = ["ClosePositive", "CloseNegative", "ClosePre"] }}
"""


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


@pytest.fixture
def profile(tmp_path: Path) -> str:
    (tmp_path / "own.dbc").write_text(dbc())
    (tmp_path / "own.toml").write_text(TOML)
    return str(tmp_path / "own.toml")


def test_it_is_read_and_commanded_without_code(profile: str) -> None:
    clock, url = Time(), f"can:virtual:own?profile={profile}"
    far = Far(url, options={"fault": [{"kind": "cell_v_missing", "index": [5], "at_s": 2.0}]})
    rack = BusRack(url, far, clock)
    m, c = Measurement(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)
    with rack:
        rack.read(m)
        true = far.measurement
        assert np.abs(m.cell_v - true.cell_v).max() <= 0.51e-3
        assert np.abs(m.sensor_degc - true.sensor_degc).max() <= 0.51
        assert (m.head["interlock_closed"][0], m.head["emergency_stop"][0]) == (1, 0)
        assert m.head["insulation_ohm"][0] == pytest.approx(min(float(true.head["insulation_ohm"][0]), 25.5e6), abs=5e4)
        assert m.head["gas_alarm_quality"][0] == Quality.MISSING, "no such signal"
        for _ in range(12):
            c.head["contactors"] = 0b110
            rack.far.publish(clock.now)
            rack.rack.write(c)
            received = rack.rack.link.counters.sent
            far.take(clock.now, received)
            clock.now += 0.3
            rack.read(m)
        assert m.head["contactors"][0] == true.head["contactors"][0] == 0b110
        assert m.cell_v_quality.tolist() == [0] * 5 + [Quality.MISSING] + [0] * 6
        assert m.head["current_a"][0] == pytest.approx(float(true.head["current_a"][0]), abs=0.011)
        clock.now += 0.9  # a page of cells has its turn every 0.3 s, stale after 5 turns; the rest after 5 cycles
        rack.rack.read(m)
        assert not m.cell_v_quality[:4].any()
        assert m.head["current_a_quality"][0] == Quality.STALE
        clock.now += 0.7
        rack.rack.read(m)
        assert (m.cell_v_quality[:4] == Quality.STALE).all()


def test_cantools_decodes_every_page_that_is_sent(profile: str) -> None:
    url = f"can:virtual:own2?profile={profile}"
    far = Far(url, options={})
    far.rack.open()
    far.rack.read(far.measurement)
    server = far.server
    server._measurement.load(far.measurement)
    server._sent.encode()
    peer = cantools.database.load_string(dbc(), "dbc")
    seen: dict[str, float] = {}
    for key, data in server._outbox.frames(server._rows.tolist()):
        seen |= peer.decode_message(key, data)
    assert [seen[f"Cell_{k:03}"] for k in range(N_CELLS)] == pytest.approx(1e3 * far.measurement.cell_v, abs=0.51)
    assert not any(seen[f"Bad_{k:03}"] for k in range(N_CELLS))
    assert "Cell_012" not in seen, "a page that the rack has no cells for"
    assert seen["Amps"] == pytest.approx(-float(far.measurement.head["current_a"][0]), abs=0.006)
    far.rack.close()
