"""Records over the wire: every field of a measurement and of a command survives within the step of its signal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.codec import can_profile
from hal.codec.can_profile import CanProfile
from hal.codec.can_wire import CommandWire, MeasurementWire, impossible
from hal.codec.frames import Codec
from hal.contract import MEASUREMENT, NO_INDEX, Capabilities, Command, Measurement, Quality, RackState

N_CELLS, N_SENSORS = 7, 3
PROFILE = can_profile.load("reference", rack={"n_cells": N_CELLS, "n_sensors": N_SENSORS})

STEPS = {
    "current_a": (0.01, -80_000.0, 80_000.0),
    "pack_v": (0.01, -80_000.0, 80_000.0),
    "bus_v": (0.01, -80_000.0, 80_000.0),
    "insulation_ohm": (1.0, 0.0, 1.07e9),
    "coolant_in_degc": (0.05, -100.0, 719.0),
    "coolant_out_degc": (0.05, -100.0, 719.0),
    "coolant_flow_lpm": (0.1, 0.0, 1638.2),
    "cell_v": (1e-4, -1.5, 5.0534),
    "sensor_degc": (0.1, -60.0, 349.4),
}
"""Channel: step, smallest and largest value on the wire."""

BYTES = {"contactors": 7, "interlock_closed": 1, "insulation_rail": 2, "emergency_stop": 1, "gas_alarm": 1}


class Wires:
    """Both ends of a wire without loss."""

    def __init__(self, profile: CanProfile = PROFILE) -> None:
        codec = Codec(profile.database, profile.measurement_messages(), profile.protection)
        self.measurement = MeasurementWire(profile, codec)
        orders = Codec(profile.database, profile.command_messages(), profile.protection)
        self.command = CommandWire(profile, orders)
        self.arrived_s = np.zeros(len(codec.rows))
        self.ordered_s = np.zeros(len(orders.rows))

    def over(self, m: Measurement, now_s: float = 0.0) -> Measurement:
        codec = self.measurement.codec
        self.measurement.load(m)
        codec.encode()
        codec.decode()
        self.measurement.fill(self.arrived_s, now_s)
        return self.measurement.record

    def order(self, c: Command, committed_s: float = 0.0) -> Command:
        codec, out = self.command.codec, Command(c.n_cells, c.n_sensors)
        self.command.load(c)
        codec.encode()
        codec.decode()
        self.command.store(out, self.ordered_s, committed_s)
        return out


WIRES = Wires()


def field(m: Measurement, name: str) -> Any:
    array = {f.name: f.dims for f in MEASUREMENT.fields}[name]
    return m.raw[name][0] if array else m.head[name]


@given(st.integers(0, 2**32 - 1))
def test_every_field_of_a_measurement_survives(seed: int) -> None:
    rng, m = np.random.default_rng(seed), Measurement(N_CELLS, N_SENSORS)
    for name, (_, low, high) in STEPS.items():
        values = field(m, name)
        values[...] = low + (high - low) * rng.random(values.shape)
    for name, top in BYTES.items():
        m.head[name] = rng.integers(0, top, endpoint=True)
    m.head["sequence"] = rng.integers(1 << 24)
    m.bleeding[:] = rng.integers(0, 2, N_CELLS)
    out = WIRES.over(m)
    for name, (step, _, high) in STEPS.items():
        assert np.all(np.abs(field(out, name) - field(m, name)) <= 0.5001 * step + abs(high) * 2**-23), name
        assert not field(out, f"{name}_quality").any()
        assert not field(out, f"{name}_age_s").any()
    for name in (*BYTES, "contactors_quality", "gas_alarm_quality", "bleeding_quality"):
        assert out.head[name] == m.head[name]
    assert out.bleeding.tolist() == m.bleeding.tolist()
    assert WIRES.measurement.sample_number() == (m.head["sequence"][0], 1 << 24)


@pytest.mark.parametrize("name", [*STEPS, "contactors", "gas_alarm", "bleeding"])
@pytest.mark.parametrize("quality", [q for q in Quality if q])
def test_a_value_that_is_not_good_is_not_good_at_the_other_end(name: str, quality: Quality) -> None:
    """One bit on the wire: no value is MISSING again, a doubtful one is DEVICE_INVALID. The others stay good."""
    m = Measurement(N_CELLS, N_SENSORS)
    field(m, f"{name}_quality")[0] = quality
    if name in STEPS:
        field(m, name)[0] = 1.0
    out = WIRES.over(m)
    expected = Quality.MISSING if quality is Quality.MISSING else Quality.DEVICE_INVALID
    for guard in (f.name for f in MEASUREMENT.fields if f.name.endswith("_quality")):
        qualities = np.atleast_1d(field(out, guard)).tolist()
        wanted = [0] * len(qualities)
        wanted[0] = int(expected) if guard == f"{name}_quality" else 0
        assert qualities == wanted, guard
    if name in STEPS:
        value = field(out, name)[0]
        assert np.isnan(value) if expected is Quality.MISSING else value == pytest.approx(1.0, abs=STEPS[name][0])


def test_not_a_number_is_no_value() -> None:
    m = Measurement(N_CELLS, N_SENSORS)
    m.cell_v[2] = np.nan
    m.head["current_a"] = np.nan
    out = WIRES.over(m)
    assert out.cell_v_quality.tolist() == [0, 0, Quality.MISSING, 0, 0, 0, 0]
    assert out.head["current_a_quality"][0] == Quality.MISSING


def test_what_is_beyond_the_wire_becomes_its_end() -> None:
    m = Measurement(N_CELLS, N_SENSORS)
    m.cell_v[:2] = -3.0, 9.0
    m.sensor_degc[:] = 900.0
    m.head["insulation_ohm"] = np.inf
    out = WIRES.over(m)
    assert out.cell_v[:2].tolist() == pytest.approx([-1.5, 5.0534])
    assert out.sensor_degc.tolist() == pytest.approx([349.4] * 3)
    assert out.head["insulation_ohm"][0] == pytest.approx((1 << 30) - 2)
    assert not out.cell_v_quality.any()


def test_late_values_are_stale_and_those_that_never_came_missing() -> None:
    wires, m = Wires(), Measurement(N_CELLS, N_SENSORS)
    m.cell_v[:] = 3.3
    rows = wires.measurement.codec.rows
    names = [row.message.name for row in rows]
    wires.arrived_s[:] = 10.0
    wires.arrived_s[names.index("CellVoltages_001")] = 9.6
    wires.arrived_s[names.index("Temperatures_000")] = -np.inf
    out = wires.over(m, 10.0)
    assert not out.cell_v_quality.any()
    assert out.cell_v_age_s.tolist() == pytest.approx([0, 0, 0, 0.4, 0.4, 0.4, 0])
    assert out.sensor_degc_quality.tolist() == [Quality.MISSING] * 3
    assert np.isnan(out.sensor_degc).all()
    assert np.isinf(out.sensor_degc_age_s).all()
    wires.measurement.fill(wires.arrived_s, 10.2)  # 5 cycles of 0.1 s and a bit for one, not yet for the others
    assert out.cell_v_quality.tolist() == [0, 0, 0, Quality.STALE, Quality.STALE, Quality.STALE, 0]
    assert out.cell_v.tolist() == pytest.approx([3.3] * 7, abs=1e-4)
    m.head["interlock_closed"], m.head["emergency_stop"] = 1, 1
    wires.arrived_s[:] = 0.0
    assert wires.over(m, 0.4).head["interlock_closed"][0] == 1
    late = wires.over(m, 0.6).head
    assert (late["interlock_closed"][0], late["emergency_stop"][0]) == (1, 1), "a frame that is late is no open loop"
    assert late["contactors_quality"][0] == Quality.STALE
    assert wires.over(m, 5.0).head["interlock_closed"][0] == 1
    unheard = wires.over(m, 5.1).head
    assert (unheard["interlock_closed"][0], unheard["emergency_stop"][0]) == (0, 1), "not known to be closed"
    m.head["interlock_closed"] = 0
    assert wires.over(m, 0.4).head["interlock_closed"][0] == 0


def sensible(rng: np.random.Generator) -> Command:
    c = Command(N_CELLS, N_SENSORS)
    for name, top in (("heartbeat", 2**32 - 1), ("contactors", 7), ("state", 14), ("severity", 3), ("flow", 2)):
        c.head[name] = rng.integers(0, top, endpoint=True)
    for name, top in (("n_faults", 500), ("cause", 65535)):
        c.head[name] = rng.integers(0, top, endpoint=True)
    c.head["cooling_degc"] = -60 + 150 * rng.random()
    for name, limit in (("discharge_a", 1e5), ("charge_a", 1e3), ("discharge_w", 1.6e7), ("charge_w", 1e5)):
        c.head[f"limit_{name}"] = limit * rng.random()
    c.balance[:] = rng.integers(0, 2, N_CELLS)
    return c


@given(st.integers(0, 2**32 - 1))
def test_a_command_survives(seed: int) -> None:
    c = sensible(np.random.default_rng(seed))
    out = WIRES.order(c)
    for name in ("heartbeat", "contactors", "state", "severity", "flow", "n_faults", "cause"):
        assert out.head[name] == c.head[name], name
    assert out.head["cooling_degc"] == pytest.approx(c.head["cooling_degc"], abs=0.0501)
    for name, step in (("discharge_a", 0.01), ("charge_a", 0.01), ("discharge_w", 1.0), ("charge_w", 1.0)):
        sent = float(c.head[f"limit_{name}"][0])
        assert float(out.head[f"limit_{name}"][0]) == pytest.approx(sent, abs=0.5 * step + sent * 2**-22)
    assert out.balance.tolist() == c.balance.tolist()
    assert not impossible(out, PROFILE.info.capabilities)


def test_what_the_controller_no_longer_says_does_not_stay() -> None:
    wires, c = Wires(), sensible(np.random.default_rng(3))
    c.head["limit_discharge_a"], c.head["contactors"], c.head["state"] = 100.0, 3, RackState.CONNECTED
    c.balance[:] = 1
    names = [row.message.name for row in wires.command.codec.rows]
    wires.ordered_s[:] = 5.0
    for late in ("CurrentLimits", "BalanceMask_00", "CoolingCommand"):
        wires.ordered_s[names.index(late)] = 4.45
    out = wires.order(c, 5.0)
    assert (out.head["limit_discharge_a"][0], out.balance.any()) == (0.0, False)
    assert (out.head["contactors"][0], out.head["state"][0]) == (3, RackState.CONNECTED)
    assert out.head["limit_discharge_w"][0] > 0
    assert out.head["cooling_degc"][0] == pytest.approx(c.head["cooling_degc"][0], abs=0.06)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("contactors", 8, "contactors = 0x8: bits that no contactor has"),
        ("limit_charge_a", -1.0, "limit_charge_a = -1.0: a published limit is a number >= 0"),
        ("limit_discharge_w", np.nan, "limit_discharge_w = nan"),
        ("limit_discharge_a", np.inf, "limit_discharge_a = inf"),
        ("cooling_degc", 91.0, "cooling_degc = 91.0: no coolant has this temperature"),
        ("cooling_degc", np.nan, "cooling_degc = nan"),
        ("balance", 2, "balance = 2: the mask holds 0 and 1"),
        ("shuttle", 1, "shuttle = 1: this rack has no active balancer"),
    ],
)
def test_an_impossible_command_is_told(name: str, value: float, complaint: str) -> None:
    c = Command(N_CELLS, N_SENSORS)
    assert impossible(c, Capabilities()) == ""
    target = c.raw[name] if name in ("balance", "shuttle") else c.head[name]
    target[...] = value
    assert complaint in impossible(c, Capabilities())


def test_a_value_too_large_for_the_wire_is_refused() -> None:
    c = Command(N_CELLS, N_SENSORS)
    c.head["limit_charge_a"] = 2e5
    with pytest.raises(ValueError, match=r"limit_charge_a = 200000: the profile carries up to 167772"):
        WIRES.order(c)


def test_a_profile_may_lack_fields_turn_a_sign_and_hold_one_constant(tmp_path: Path) -> None:
    (tmp_path / "own.dbc").write_text(
        'BO_ 10 Measured: 8 Rack\n SG_ Amps : 0|16@1- (0.1,0) [0|0] "A" B\n SG_ Volt : 16|16@1+ (0.001,0) [0|0] "V" B\n'
        ' SG_ Degc : 32|8@1- (1,0) [0|0] "" B\nBO_ 11 Order: 1 B\n SG_ Close : 0|3@1+ (1,0) [0|0] "" R\n'
        'BA_DEF_DEF_ "GenMsgCycleTime" 100;\n'
    )
    (tmp_path / "own.toml").write_text(
        '[can]\ndbc = "own.dbc"\nbitrate = 250000\ncommit = "Order"\n[rack]\nn_cells = 1\nn_sensors = 1\n'
        'capacity_ah = 1\n[measurement]\ncurrent_a = { signal = "Amps", factor = -1 }\ncell_v = { signal = "Volt" }\n'
        'sensor_degc = { signal = "Degc" }\ninterlock_closed = { constant = 1 }\n[command]\n'
        'contactors = { signal = "Close" }\n'
    )
    wires = Wires(can_profile.load(str(tmp_path / "own.toml")))
    codec = wires.measurement.codec
    m = Measurement(1, 1)
    m.head["current_a"] = 12.0
    out = wires.over(m)
    assert codec.value[codec.place("Amps")] == -12.0
    assert out.head["current_a"][0] == 12.0
    assert out.head["interlock_closed"][0] == 1
    assert out.head["contactors_quality"][0] == Quality.MISSING
    assert np.isnan(out.head["pack_v"][0])
    assert np.isinf(out.head["pack_v_age_s"][0])
    assert wires.measurement.sample_number() is None
    c = Command(1, 1)
    c.head["contactors"], c.head["cause_index"] = 3, NO_INDEX
    assert wires.order(c).head["contactors"][0] == 3
