import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.backends.simulated import MonotonicClock, SimulatedRack, cell_names, virtual_lab
from hal.contract import Clock, Command, Contactor, HasTruth, Measurement, Quality, Rack, Truth
from hal.errors import ConfigError, LinkError
from sim import layout as Y

MAINS = Contactor.MAIN_POSITIVE | Contactor.MAIN_NEGATIVE
PRECHARGE = Contactor.MAIN_NEGATIVE | Contactor.PRECHARGE
IDLE: dict[str, Any] = {"duty": {"kind": "constant"}, "sensors": {"ideal": True}}


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def now_s(self) -> float:
        return self.now


class Bench:
    """An open twin of a few cells with one command and one measurement."""

    def __init__(self, cell: str = "lfp_280", options: dict[str, Any] | None = None, **rack: Any) -> None:
        self.clock = Time()
        tables = {**IDLE, **(options or {})}
        tables["rack"] = {"n_series": 16, "cells_per_sensor": 4, **rack}
        self.rack = SimulatedRack(cell, clock=self.clock, options=tables)
        self.rack.open()
        info = self.rack.info
        self.m = Measurement(info.n_cells, info.n_sensors)
        self.command = Command(info.n_cells, info.n_sensors)
        self.truth_out = Truth(info.n_cells, info.n_sensors)
        self.command.head["cooling_degc"] = 25.0
        self.limit(200.0)

    def limit(self, ampere: float) -> None:
        for name in ("limit_discharge_a", "limit_charge_a"):
            self.command.head[name] = ampere
        for name in ("limit_discharge_w", "limit_charge_w"):
            self.command.head[name] = 1e6

    def write(self, contactors: int | None = None) -> None:
        if contactors is not None:
            self.command.head["contactors"] = contactors
        self.command.head["heartbeat"] += 1
        self.rack.write(self.command)

    def run(self, seconds: float, step_s: float = 1.0) -> Measurement:
        for _ in range(round(seconds / step_s)):
            self.clock.now += step_s
            self.rack.read(self.m)
            self.write()
        return self.m

    def connect(self) -> None:
        self.write(PRECHARGE)
        self.run(10.0)
        self.write(MAINS)
        self.run(1.0)
        assert not self.rack.events

    def truth(self) -> Truth:
        self.rack.truth(self.truth_out)
        return self.truth_out


def test_it_is_a_rack_with_truth() -> None:
    rack = SimulatedRack("nmc_ev")
    assert isinstance(rack, Rack)
    assert isinstance(rack, HasTruth)
    info = rack.info
    assert (info.n_cells, info.n_parallel, info.n_sensors, info.cell) == (96, 2, 16, "nmc_ev")
    assert info.capacity_ah == pytest.approx(112.6)
    assert info.sensor_of_cell.tolist() == [k // 6 for k in range(96)]
    assert info.capabilities.balancing
    assert info.capabilities.truth
    assert info.capabilities.coolant_flow
    assert info.capabilities.gas
    assert info.capabilities.bleed_feedback
    assert not info.capabilities.shuttle
    assert SimulatedRack("nmc_ev", query={"shuttle": "true"}).info.capabilities.shuttle
    assert set(cell_names()) == {"lfp_280", "na_185", "nmc_ev"}


def test_precharge_then_closing_is_gentle() -> None:
    bench = Bench()
    bench.write(PRECHARGE)
    m = bench.run(0.2, 0.1)
    assert 0 < m.head["bus_v"][0] < 0.5 * m.head["pack_v"][0]
    assert m.head["current_a"][0] > 0.2
    assert m.head["contactors"][0] == PRECHARGE
    bench.run(10.0)
    assert m.head["bus_v"][0] == pytest.approx(m.head["pack_v"][0], rel=0.01)
    bench.write(MAINS)
    bench.run(1.0)
    assert not bench.rack.events
    assert m.head["contactors"][0] == MAINS
    bench.write(0)
    bench.run(1.0)
    assert m.head["contactors"][0] == 0
    assert m.head["current_a"][0] == 0.0
    before = float(m.head["bus_v"][0])
    bench.run(100.0)
    assert m.head["bus_v"][0] == pytest.approx(before * math.exp(-100 / 250), rel=0.01)  # 5 mF, 50 kohm


def test_closing_onto_an_uncharged_link_welds() -> None:
    bench = Bench(n_series=416)
    bench.write(MAINS)
    bench.run(1.0)
    assert "inrush" in bench.rack.events[0].text
    bench.write(0)
    m = bench.run(2.0)
    assert m.head["contactors"][0] == MAINS
    assert m.head["bus_v"][0] > 0.9 * m.head["pack_v"][0]


def test_breaking_too_large_a_current_welds() -> None:
    bench = Bench(options={"duty": {"kind": "constant", "c_rate": 1.0}}, contactor_break_a=150.0)
    bench.connect()
    bench.run(5.0)
    assert bench.m.head["current_a"][0] > 200 * 0.95
    bench.write(0)
    m = bench.run(2.0)
    assert m.head["contactors"][0] == MAINS
    assert m.head["current_a"][0] > 190
    assert "welded" in bench.rack.events[0].text


def test_opening_under_load_is_noted_and_stops_the_current() -> None:
    bench = Bench(options={"duty": {"kind": "constant", "c_rate": 0.5}})
    bench.connect()
    bench.run(5.0)
    bench.write(0)
    m = bench.run(1.0)
    assert m.head["current_a"][0] == 0.0
    assert "under load" in bench.rack.events[0].text


def test_the_rack_opens_when_the_heartbeat_stands_still() -> None:
    bench = Bench(watchdog_s=5.0)
    bench.connect()
    beat = bench.clock.now
    for _ in range(8):
        bench.clock.now += 1.0
        bench.rack.read(bench.m)
        bench.rack.write(bench.command)  # the same heart-beat again
        assert (bench.m.head["contactors"][0] == 0) == (bench.clock.now - beat > 5.0)
    assert [event.time_s for event in bench.rack.events] == [beat - 100.0 + 5.0]
    assert "no heart-beat for 5 s" in bench.rack.events[0].text


def test_the_heartbeat_counts_within_a_long_wait_too() -> None:
    bench = Bench(options={"duty": {"kind": "constant", "c_rate": 0.5}}, watchdog_s=5.0)
    bench.connect()
    before = bench.truth().head["energy_out_j"][0]
    bench.clock.now += 3600.0
    bench.rack.read(bench.m)
    assert bench.m.head["contactors"][0] == 0
    power = 0.5 * 280 * bench.m.head["pack_v"][0]
    assert bench.truth().head["energy_out_j"][0] - before == pytest.approx(5.0 * power, rel=0.02)


def test_the_pcs_stays_within_the_published_limits() -> None:
    bench = Bench(options={"duty": {"kind": "constant", "c_rate": 2.0}})
    bench.connect()
    for ampere in (120.0, 30.0, 0.0):
        bench.limit(ampere)
        bench.write()
        bench.run(3.0)
        # the link's bleed resistor and capacitor draw some milliampere beside the PCS
        assert bench.m.head["current_a"][0] == pytest.approx(ampere, abs=0.02)
    bench.limit(500.0)
    bench.command.head["limit_discharge_w"] = 1000.0
    bench.write()
    bench.run(3.0)
    assert bench.truth().head["power_w"][0] == pytest.approx(1000.0, rel=0.01)


def test_discharge_is_positive() -> None:
    for c_rate in (0.5, -0.5):
        bench = Bench(options={"duty": {"kind": "constant", "c_rate": c_rate}})
        bench.connect()
        soc, volt = bench.truth().soc.copy(), bench.m.cell_v.copy()
        bench.run(60.0)
        assert np.sign(bench.m.head["current_a"][0]) == np.sign(c_rate)
        assert np.all(np.sign(soc - bench.truth().soc) == np.sign(c_rate))
        assert np.all(np.sign(volt - bench.m.cell_v) == np.sign(c_rate))
        moved = bench.m.head["current_a"][0] * 60 / 3600 / bench.truth().capacity_ah
        np.testing.assert_allclose(soc - bench.truth().soc, moved, rtol=0.02)


def test_truth_adds_up() -> None:
    bench = Bench("nmc_ev", {"duty": {"kind": "constant", "c_rate": 0.5}})
    bench.connect()
    bench.run(600.0)
    truth, twin = bench.truth(), bench.rack.twin
    head = truth.head
    assert head["time_s"][0] == bench.clock.now == bench.m.head["time_s"][0]
    # the inverter gets its power; the link's bleed resistor takes some watt more
    assert head["power_w"][0] == pytest.approx(0.5 * bench.rack.info.capacity_ah * 16 * 3.752, rel=0.01)
    assert head["energy_out_j"][0] == pytest.approx(head["power_w"][0] * 601, rel=0.01)
    assert head["energy_in_j"][0] == 0.0
    capacity, soc, degc = (twin.by_group(row) for row in (Y.C_CAPACITY_AS, Y.C_SOC, Y.C_DEGC))
    np.testing.assert_allclose(truth.capacity_ah, capacity.sum(axis=1) / 3600)
    np.testing.assert_allclose(truth.soc, (soc * capacity).sum(axis=1) / capacity.sum(axis=1))
    np.testing.assert_array_equal(truth.cell_degc, degc.max(axis=1))
    np.testing.assert_allclose(truth.resistance, twin.by_group(Y.C_SCALE).mean(axis=1))
    assert head["pack_v"][0] == pytest.approx(bench.m.head["pack_v"][0], rel=1e-6)


def test_balancing_bleeds_the_chosen_groups() -> None:
    bench = Bench(self_discharge_spread=0.0)
    before = bench.truth().soc.copy()
    bench.command.balance[3] = 1
    bench.write()
    bench.run(3600.0, 10.0)
    lost = before - bench.truth().soc
    assert lost[3] - lost[0] == pytest.approx(0.1 / 280, rel=0.05)  # 3.3 V over 33 ohm for an hour
    bench.command.balance[3] = 0
    bench.write()
    before = bench.truth().soc.copy()
    bench.run(3600.0, 10.0)
    lost = before - bench.truth().soc
    assert lost[3] == pytest.approx(lost[0], rel=0.05)  # self-discharge alone, by capacity


def test_an_aged_rack_says_so_in_its_truth_and_keeps_its_nameplate() -> None:
    factors = {"capacity_factor": 0.85, "resistance_factor": 1.4}
    for cell, capacity_ah in (("lfp_280", 280.0), ("nmc_ev", 112.6)):
        bench = Bench(cell, capacity_spread=0.0, resistance_spread=0.0, **factors)
        np.testing.assert_allclose(bench.truth().capacity_ah, 0.85 * capacity_ah)
        np.testing.assert_allclose(bench.truth().resistance, 1.4)
        assert bench.rack.info.capacity_ah == pytest.approx(capacity_ah)


def test_what_a_healthy_rack_reports_beside_its_values() -> None:
    bench = Bench(cells_per_sensor=4)
    bench.command.balance[[0, 15]] = 1
    bench.write()
    m = bench.run(1.0)
    assert np.flatnonzero(m.bleeding).tolist() == [0, 15]
    # 0.1 ohm a wire, 0.1 A: the bled group reads 20 mV low, its neighbour 10 mV high
    shift = m.cell_v - np.array(bench.rack.twin.levels[Y.V_NOW])
    np.testing.assert_allclose(shift[[0, 1, 2, 14, 15]], [-0.02, 0.01, 0, 0.01, -0.02], atol=5e-4)
    head = m.head
    assert head["coolant_flow_lpm"][0] == pytest.approx(40.0)
    for name in ("insulation_rail", "emergency_stop", "gas_alarm"):
        assert head[name][0] == 0
    assert head["interlock_closed"][0] == 1
    for name in head.dtype.names or ():
        if name.endswith("_quality"):
            assert head[name][0] == Quality.GOOD


def test_cooling_follows_the_set_point_within_the_chiller() -> None:
    bench = Bench()
    for wanted, reached in ((20.0, 20.0), (5.0, 15.0), (60.0, 40.0)):
        bench.command.head["cooling_degc"] = wanted
        bench.write()
        bench.run(1800.0, 10.0)
        assert bench.m.head["coolant_in_degc"][0] == pytest.approx(reached, abs=0.01)
        assert abs(bench.m.head["coolant_out_degc"][0] - reached) < 3.0


def test_time_and_sequence() -> None:
    bench = Bench()
    bench.rack.read(bench.m)
    again = Measurement(16, 4)
    bench.rack.read(again)  # the clock stands still: nothing new was measured
    assert again.raw.tobytes() == bench.m.raw.tobytes()
    bench.clock.now += 0.25
    bench.rack.read(bench.m)
    assert bench.m.head["sequence"][0] == again.head["sequence"][0] + 1
    assert bench.m.head["time_s"][0] == 100.25
    bench.clock.now -= 5.0  # a clock that is set back does not turn the physics back
    bench.rack.read(bench.m)
    assert bench.m.head["time_s"][0] == 100.25


def test_the_cadence_of_reading_hardly_matters() -> None:
    """Updates are exact for any sub-step, so that a read at odd times sees the same rack."""
    soc = []
    for step_s in (0.1, 1.0, 7.0):
        bench = Bench(options={"duty": {"kind": "constant", "c_rate": 0.5}})
        bench.connect()
        bench.run(70.0, step_s)
        soc.append(bench.truth().soc.copy())
    np.testing.assert_allclose(soc[0], soc[1], atol=1e-6)
    np.testing.assert_allclose(soc[2], soc[1], atol=1e-6)


def test_two_twins_of_one_seed_are_the_same_bit_for_bit() -> None:
    def run(seed: int) -> bytes:
        options = {"duty": {"kind": "frequency_regulation", "start_s": 0.0}, "sensors": {}}
        bench = Bench(options=options, seed=seed)
        bench.connect()
        out = []
        for _ in range(200):
            bench.run(1.0)
            out.append(bench.m.raw.tobytes() + bench.truth().raw.tobytes())
        return b"".join(out)

    assert run(1) == run(1)
    assert run(1) != run(2)


BITS = """
import hashlib
from hal.backends.simulated import SimulatedRack
from hal.contract import Command, Measurement, Truth

class Clock:
    now = 0.0
    def now_s(self):
        return self.now

OPTIONS = {"duty": {"start_s": 0.0}, "fault": [{"kind": "cell_heat", "index": [3], "value": 5.0}]}
clock = Clock()
rack = SimulatedRack("nmc_ev", query={"n_series": "34", "seed": "5", "shuttle": "true"}, clock=clock, options=OPTIONS)
rack.open()
m, c, t = (kind(rack.info.n_cells, rack.info.n_sensors) for kind in (Measurement, Command, Truth))
c.balance[::3] = 1
c.shuttle[[2, 7, 31]] = [1, 2, 1]
c.head["cooling_degc"], c.head["soc_mean"] = 20.0, 0.5
c.head["limit_discharge_a"] = c.head["limit_charge_a"] = 90.0
c.head["limit_discharge_w"] = c.head["limit_charge_w"] = 1e5
digest = hashlib.sha256()
for k, contactors in enumerate((0b110, 0b110, 0b011, 0b011, 0)):
    c.head["contactors"], c.head["heartbeat"] = contactors, k + 1
    rack.write(c)
    clock.now += 0.7 + k
    rack.read(m)
    rack.truth(t)
    digest.update(m.raw.tobytes() + t.raw.tobytes())
print(m.head["sequence"][0], digest.hexdigest())
"""


def test_vectors_give_the_bits_of_plain_python(repository: Path) -> None:
    """Whatever the compiler makes of the kernels, the order of every operation is the one that is written there."""
    found = []
    for jit in ("1", "0"):
        environment = {**os.environ, "RACKBMS_JIT": jit, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", BITS]
        run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=True)
        found.append(run.stdout)
    assert found[0] == found[1]
    assert found[0].startswith("6 ")


# --- impossible commands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["limit_discharge_a", "limit_charge_a", "limit_discharge_w", "limit_charge_w"])
@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf])
def test_a_limit_that_is_none_is_refused(name: str, value: float) -> None:
    bench = Bench()
    bench.command.head[name] = value
    with pytest.raises(ValueError, match=name):
        bench.write()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("contactors", 8, "contactors = 0x8"),
        ("cooling_degc", math.nan, "cooling_degc = nan"),
        ("cooling_degc", 200.0, "cooling_degc = 200"),
    ],
)
def test_an_impossible_command_is_refused_whole(name: str, value: float, message: str) -> None:
    bench = Bench()
    bench.command.head["contactors"] = PRECHARGE
    bench.command.head[name] = value
    with pytest.raises(ValueError, match=message):
        bench.write()
    assert bench.rack.contactors_closed == 0


def test_a_mask_that_is_none_is_refused() -> None:
    bench = Bench()
    bench.command.balance[2] = 2
    with pytest.raises(ValueError, match="balance = 2"):
        bench.write()
    with pytest.raises(ValueError, match="balancing mask for 15 cells, the rack has 16"):
        bench.rack.write(Command(15, 4))
    with pytest.raises(ValueError, match="measurement for 16 cells and 5 sensors"):
        bench.rack.read(Measurement(16, 5))
    with pytest.raises(ValueError, match="truth for 3 cells"):
        bench.rack.truth(Truth(3, 1))


@pytest.mark.parametrize(
    ("shuttle", "group", "code", "message"),
    [
        (False, 3, 1, r"shuttle = 1: this rack has no active balancer \(\[rack\] shuttle = true\)"),
        (True, 3, 3, "shuttle = 3: the codes are 0, 1 and 2"),
        (True, 15, 1, "shuttle = 1 for the last group: there is no next one"),
        (True, 15, 2, "shuttle = 2 for the last group: there is no next one"),
    ],
)
def test_an_impossible_balancer_is_refused(shuttle: bool, group: int, code: int, message: str) -> None:
    bench = Bench(shuttle=shuttle)
    bench.command.shuttle[group] = code
    with pytest.raises(ValueError, match=message):
        bench.write()


def test_charge_is_moved_between_neighbours() -> None:
    bench = Bench(shuttle=True, self_discharge_spread=0.0, capacity_spread=0.0)
    before = bench.truth().soc.copy()
    bench.command.shuttle[4] = 1
    bench.write()
    bench.run(3600.0, 10.0)
    moved_ah = (bench.truth().soc - before) * 280.0
    np.testing.assert_allclose(moved_ah[3:7] - moved_ah[3], [0, -2.0, 1.8, 0], atol=0.02)


def test_unknown_soc_is_no_error() -> None:
    bench = Bench()
    bench.command.head["soc_mean"] = math.nan
    bench.write()


def test_closed_means_closed() -> None:
    bench = Bench()
    bench.connect()
    bench.rack.close()
    bench.rack.close()
    for action in (lambda: bench.rack.read(bench.m), lambda: bench.rack.write(bench.command)):
        with pytest.raises(LinkError, match="sim:lfp_280 is not open"):
            action()
    with bench.rack as rack:
        rack.read(bench.m)
        assert bench.m.head["contactors"][0] == 0


# --- faults -----------------------------------------------------------------------------------------------------------


def with_faults(*faults: dict[str, Any], **rack: Any) -> Bench:
    return Bench(options={"fault": list(faults)}, **rack)


def test_missing_values_are_flagged_while_the_fault_lasts() -> None:
    bench = with_faults(
        {"kind": "cell_v_missing", "index": [2, 5], "at_s": 2.0, "until_s": 4.0},
        {"kind": "sensor_missing", "index": [1], "at_s": 2.0, "until_s": 4.0},
        {"kind": "current_missing", "at_s": 2.0, "until_s": 4.0},
        {"kind": "interlock_open", "at_s": 2.0, "until_s": 4.0},
        {"kind": "insulation", "value": 5e4, "at_s": 2.0, "until_s": 4.0},
    )
    for second in range(1, 7):
        m = bench.run(1.0)
        broken = 2 <= second < 4
        missing = Quality.MISSING if broken else Quality.GOOD
        for k in range(16):
            bad = broken and k in (2, 5)
            assert m.cell_v_quality[k] == (Quality.MISSING if bad else Quality.GOOD)
            assert math.isnan(m.cell_v[k]) == bad
        assert m.sensor_degc_quality.tolist() == [0, missing, 0, 0]
        assert math.isnan(m.sensor_degc[1]) == broken
        assert m.head["current_a_quality"][0] == missing
        assert math.isnan(m.head["current_a"][0]) == broken
        assert m.head["interlock_closed"][0] == (not broken)
        assert m.head["insulation_ohm"][0] == pytest.approx(5e4 if broken else 2e6)


def test_frozen_voltages_keep_their_value() -> None:
    bench = Bench(
        options={"sensors": {}, "fault": [{"kind": "cell_v_frozen", "index": [0], "at_s": 3.0, "until_s": 8.0}]}
    )
    seen = []
    for _ in range(10):
        m = bench.run(1.0)
        seen.append(float(m.cell_v[0]))
        assert m.cell_v_quality[0] == 0
    assert len(set(seen[1:7])) == 1  # from the last good sample on
    assert seen[8] != seen[6]


def test_a_stalled_device_gives_its_last_sample_again() -> None:
    bench = Bench(options={"sensors": {}, "fault": [{"kind": "scan_stalled", "at_s": 3.0, "until_s": 6.0}]})
    seen = [(bench.run(1.0).raw.tobytes(), int(bench.m.head["sequence"][0]), float(bench.m.head["time_s"][0]))
            for _ in range(8)]  # fmt: skip
    assert len({raw for raw, _, _ in seen[1:5]}) == 1
    assert [sequence for _, sequence, _ in seen] == [2, 3, 3, 3, 3, 7, 8, 9]
    assert [time_s for _, _, time_s in seen] == [101, 102, 102, 102, 102, 106, 107, 108]


def test_current_beyond_the_range_is_flagged() -> None:
    bench = Bench(
        options={"duty": {"kind": "constant", "c_rate": 0.5}, "sensors": {"ideal": True, "current_max_c": 0.1}}
    )
    bench.connect()
    bench.run(3.0)
    assert bench.m.head["current_a_quality"][0] == Quality.OUT_OF_RANGE
    assert bench.m.head["current_a"][0] == pytest.approx(28.0)


def test_without_coolant_the_cells_warm_up() -> None:
    hot = []
    for faults in ([], [{"kind": "coolant_stop", "until_s": 3000.0}]):
        bench = Bench(options={"duty": {"kind": "constant", "c_rate": -0.5}, "fault": faults})
        bench.connect()
        bench.run(2400.0, 5.0)
        hot.append(bench.truth().cell_degc.mean())
    assert hot[1] > hot[0] + 1.0
    bench.limit(0.0)
    bench.run(3600.0, 5.0)
    assert bench.truth().cell_degc.mean() < hot[1] - 3.0  # the pump runs again


# --- configuration ----------------------------------------------------------------------------------------------------


def make(query: dict[str, str] | None = None, **options: Any) -> SimulatedRack:
    return SimulatedRack("lfp_280", query=query or {}, options=options)


def test_query_wins_over_options_and_reaches_every_table() -> None:
    rack = make(
        {
            "n_series": "8",
            "seed": "7",
            "sensors.ideal": "true",
            "duty.kind": "constant",
            "environment.ambient_degc": "-5",
        },
        rack={"n_series": 4, "initial_soc": 0.25},
        duty={"c_rate": 0.1},
    )
    assert rack.info.n_cells == 8
    assert rack.twin.config.seed == 7
    assert rack.twin.config.initial_soc == 0.25
    assert rack.sensors.config.ideal
    assert rack.environment.ambient_degc == -5.0
    assert type(rack.duty).__name__ == "Constant"


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ({"n_seris": "4"}, {}, "[rack]: unknown key 'n_seris' (did you mean 'n_series'?)"),
        ({"n_series": "many"}, {}, "[rack] n_series = 'many': expected a whole number"),
        ({"duti.kind": "csv"}, {}, "no table [duti] (did you mean 'duty'?)"),
        ({"fault.kind": "x"}, {}, "no table [fault]"),
        ({}, {"sensor": {}}, "no table [sensor] (did you mean 'sensors'?)"),
        ({}, {"rack": 3}, "[rack] = 3: expected a table"),
        ({}, {"fault": {}}, "[fault] = {}: expected [[fault]] tables"),
        ({}, {"sensors": {"scan": 1.0}}, "[sensors]: unknown key 'scan' (did you mean 'scan_s'?)"),
        ({}, {"environment": {"ambient": 1.0}}, "[environment]: unknown key 'ambient'"),
        ({}, {"duty": {"kind": "cicle"}}, "did you mean 'cycle'"),
        ({}, {"fault": [{"kind": "sensor_missing", "index": [104]}]}, "index 104 is not in 0..103"),
    ],
)
def test_anything_unknown_is_refused(query: dict[str, str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(query, **options)
    assert message in str(caught.value)


def test_unknown_cells_are_refused() -> None:
    for action in (lambda: SimulatedRack("lpf_280"), lambda: virtual_lab("lpf_280")):
        with pytest.raises(ConfigError, match=r"unknown twin cell 'lpf_280' \(did you mean 'lfp_280'\?\)"):
            action()


def test_without_a_clock_it_takes_the_computers() -> None:
    clock: Clock = MonotonicClock()
    first = clock.now_s()
    assert 0 <= first <= clock.now_s()
    rack = SimulatedRack("nmc_ev", query={"n_series": "2"})
    m = Measurement(2, rack.info.n_sensors)
    with rack:
        rack.read(m)
        before = float(m.head["time_s"][0])
        rack.read(m)
        assert m.head["time_s"][0] >= before
