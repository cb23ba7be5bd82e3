"""Scenarios that set a rack on fire: shorts, heaters, coolant, overcharge; and what is measured of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hal.backends.twin  # noqa: F401  # its program is kept on disk, and need not be compiled here
from hal.contract import COMMAND, MEASUREMENT
from sim import electronics as E
from sim import layout as Y
from sim.burning import Burning, burning
from sim.rack import RackTwin
from sim.site import Site

EVEN = {f"{name}_spread": 0.0 for name in ("capacity", "resistance", "soc", "degc", "coolant", "self_discharge")}


class Bench:
    """A rack of eight full groups with ideal sensors, its contactors open."""

    def __init__(self, *faults: dict[str, Any], cell: str = "lfp_280", **tables: Any) -> None:
        rack = {
            "n_series": 8,
            "module_groups": 8,
            "cells_per_sensor": 2,
            "watchdog_s": 1e9,
            "initial_soc": 0.95,
            **EVEN,
        }
        rack |= tables.pop("rack", {})
        self.site = Site(cell, {"sensors": {"ideal": True}, **tables, "rack": rack, "fault": list(faults)})
        self.record = np.zeros(1, MEASUREMENT.dtype(rack["n_series"], self.site.sensors.n_sensors))
        self.commands = np.zeros(1, COMMAND.dtype(rack["n_series"], self.site.sensors.n_sensors))
        self.site.attach(self.record, self.commands)
        self.twin = self.site.twin()
        self.site.start(0.0)

    def run(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            self.site.run(step_s)

    @property
    def truth(self) -> Burning:
        return burning(self.twin)


def test_a_short_becomes_hard_little_by_little() -> None:
    """From 1,000 times its value evenly on a logarithmic scale: after a third of the ramp a tenth of that."""
    bench = Bench({"kind": "internal_short", "index": [3], "value": 0.5, "at_s": 100.0, "ramp_s": 300.0})
    seen = {}
    for time_s in (99.0, 100.0, 200.0, 300.0, 400.0, 500.0):
        bench.run(time_s - bench.site.time_s)
        bench.run(1.0)
        seen[time_s] = float(bench.truth.short_s[3, 0])
    assert seen[99.0] == 0.0
    for time_s, ohm in ((100.0, 500.0), (200.0, 50.0), (300.0, 5.0), (400.0, 0.5), (500.0, 0.5)):
        assert 1.0 / seen[time_s] == pytest.approx(ohm, rel=1e-6)
    assert np.count_nonzero(bench.truth.short_s) == 1
    leak = bench.twin.groups[Y.G_LEAK_S]
    assert leak[3] - leak[2] == pytest.approx(2.0, rel=1e-3)
    assert bench.truth.degc[3, 0] > bench.truth.degc[2, 0] + 0.1


def test_what_a_soft_short_left_is_gone_when_it_ends() -> None:
    bench = Bench({"kind": "internal_short", "index": [3], "value": 5.0, "at_s": 2.0, "until_s": 8.0})
    healthy = bench.twin.groups[Y.G_LEAK_S].copy()
    bench.run(6.0)
    assert bench.truth.short_s[3, 0] == pytest.approx(0.2)
    bench.run(6.0)
    assert not bench.truth.short_s.any()
    np.testing.assert_allclose(bench.twin.groups[Y.G_LEAK_S], healthy, rtol=1e-9)


def test_a_hard_short_burns_the_cell_and_the_rack_measures_it() -> None:
    bench = Bench({"kind": "internal_short", "index": [3], "value": 2e-3, "at_s": 10.0})
    s = bench.twin.string
    bench.run(60.0)
    assert bench.record["cell_v"][0, 3] < 3.2 < bench.record["cell_v"][0, 2]
    bench.run(540.0)
    truth = bench.truth
    assert np.argwhere(truth.burnt).tolist() == [[3, 0]]
    assert 10.0 < truth.vented_s[3, 0] < truth.ignited_s[3, 0] < 600.0
    assert abs(bench.record["cell_v"][0, 3]) < 0.5
    assert bench.record["head"]["gas_alarm"][0] == 1
    assert bench.record["sensor_degc"][0].argmax() in (1, 2)  # no sensor is on the cell, two on its neighbours
    assert s[Y.S_PACK_V] < 7.1 * 3.45
    before = float(s[Y.S_AIR_PPM])
    bench.run(4200.0, 60.0)
    assert s[Y.S_AIR_PPM] < 0.01 * before
    assert bench.record["head"]["gas_alarm"][0] == 0
    assert abs(bench.twin.balance().residual_j) < 1e-6 * bench.twin.balance().released_j


def test_gas_is_told_when_there_is_enough_of_it() -> None:
    """The detector follows the air with its time constant; a fault of the detector comes on top."""
    bench = Bench(
        {"kind": "gas_alarm", "at_s": 100.0, "until_s": 110.0}, sensors={"ideal": True, "gas_alarm_ppm": 500.0}
    )
    s = bench.twin.string
    s[Y.S_AIR_PPM], s[Y.S_AWAKE] = 1000.0, 1.0
    bench.run(10.0)
    assert bench.record["head"]["gas_alarm"][0] == 0
    assert s[Y.S_DETECTOR_PPM] == pytest.approx(1000.0 * (1.0 - np.exp(-10 / 15)), rel=0.05)
    bench.run(5.0)
    assert bench.record["head"]["gas_alarm"][0] == 1
    s[Y.S_AIR_PPM] = s[Y.S_DETECTOR_PPM] = 0.0
    bench.run(5.0)
    assert bench.record["head"]["gas_alarm"][0] == 0
    bench.run(85.0)
    assert bench.record["head"]["gas_alarm"][0] == 1
    bench.run(10.0)
    assert bench.record["head"]["gas_alarm"][0] == 0


def test_a_heater_is_at_one_cell_and_in_the_books() -> None:
    bench = Bench(
        {"kind": "heater", "index": [4], "value": 30.0, "until_s": 100.0}, cell="nmc_ev", rack={"n_parallel": 2}
    )
    bench.run(100.0)
    degc = bench.truth.degc
    assert degc[4, 0] > degc[4, 1] + 1.0
    assert degc[4, 1] > degc[5, 1]
    books = bench.twin.balance()
    assert books.heater_j == pytest.approx(3000.0)
    assert abs(books.residual_j) < 1e-6 * books.heater_j
    bench.run(10.0)
    assert bench.twin.balance().heater_j == pytest.approx(3000.0)


def test_a_blocked_branch_warms_its_module_alone() -> None:
    bench = Bench(
        {"kind": "coolant_blocked", "index": [1], "at_s": 10.0, "until_s": 1200.0},
        {"kind": "cell_heat", "index": [0, 4], "value": 100.0},
        rack={"module_groups": 4},
    )
    share = bench.twin.cells[Y.C_COOLANT_SHARE].copy()
    bench.run(1200.0)
    degc = bench.truth.degc[:, 0]
    assert degc[4] > degc[0] + 3.0
    np.testing.assert_array_equal(bench.twin.cells[Y.C_COOLANT_SHARE] == 0.0, np.arange(8) >= 4)
    assert bench.twin.string[Y.S_FLOW_W_PER_K] == 290.0  # the pump runs
    bench.run(1.0)
    np.testing.assert_array_equal(bench.twin.cells[Y.C_COOLANT_SHARE], share)


def test_lost_cooling_and_a_heater_burn_what_cooling_would_have_saved() -> None:
    faults: list[dict[str, Any]] = [{"kind": "heater", "index": [0], "value": 350.0}]
    saved, burnt = Bench(*faults), Bench(*faults, {"kind": "coolant_stop"})
    for bench in (saved, burnt):
        bench.run(2 * 3600.0, 60.0)
    assert not saved.truth.burnt.any()
    assert burnt.truth.burnt[0, 0]


def test_a_pcs_that_ignores_limits_overcharges_until_it_burns() -> None:
    overcharge = {"kind": "pcs_ignores_limits", "value": -280.0, "at_s": 20.0}
    bench = Bench(overcharge, {"kind": "coolant_stop"}, rack={"initial_soc": 0.98})
    asked = bench.commands["head"]
    asked["cooling_degc"], asked["soc_mean"] = 25.0, 0.5
    for contactors in (E.MAIN_NEGATIVE | E.PRECHARGE, E.MAINS):
        asked["contactors"] = contactors
        asked["heartbeat"] += 1
        assert bench.site.command() == (-1, 0)
        bench.run(8.0)
    bench.run(40 * 60.0)
    truth = bench.truth
    assert truth.charge_lost.min() > 0.01
    assert np.isfinite(truth.vented_s).any()
    assert truth.burnt.any()


def test_the_cadence_of_reading_hardly_matters_in_a_fire() -> None:
    """Reads every 60 s, every second and every 100 ms: ignition within two sub-steps of some minutes."""
    times = []
    for step_s in (60.0, 1.0, 0.1):
        bench = Bench({"kind": "internal_short", "index": [1], "value": 4e-3}, rack={"n_series": 3, "module_groups": 3})
        bench.run(900.0, step_s)
        times.append((bench.truth.vented_s[1, 0], bench.truth.ignited_s[1, 0]))
    np.testing.assert_allclose(times, [times[0]] * 3, atol=2.0)


FIRE = """
import hashlib
import numpy as np
from sim import cell
from sim import layout as Y
from sim.rack import RackTwin, rack_config
rack = RackTwin("nmc_ev", rack_config(cell.load("nmc_ev"), {"n_series": 2, "initial_soc": 1.0}))
rack.cells[Y.C_DEGC] = [150.0, 215.0, 40.0, 30.0]
rack.string[Y.S_AWAKE] = 1.0
rack.settle()
rack.advance(Y.CLOSED, np.full(4, 30.0), True, np.full(4, 1e12), 1.0)
bank = rack.bank
print(rack.burn[Y.B_IGNITION_S], hashlib.sha256(bank.cells.tobytes() + bank.burn.tobytes() + bank.string.tobytes()).hexdigest())
"""


def test_vectors_give_the_bits_of_plain_python_in_a_fire(repository: Path) -> None:
    answers = []
    for jit in ("1", "0"):
        environment = {**os.environ, "RACKBMS_JIT": jit, "PYTHONPATH": str(repository)}
        code = ("import hal.backends.twin\n" if jit == "1" else "") + FIRE
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    assert "0." in answers[0]
    assert answers[0] == answers[1]


def test_a_burning_rack_of_a_site_is_the_one_it_would_be_alone() -> None:
    """To the last bit; and the other racks of the site never hear of it."""
    rack = {"n_series": 6, "module_groups": 6, "initial_soc": 0.9, "watchdog_s": 1e9}
    short = {"kind": "internal_short", "index": [2], "value": 2e-3, "at_s": 5.0}
    banks = []
    for n_racks, seed, faults in ((3, 4, [{**short, "rack": [1]}]), (1, 5, [short]), (3, 4, [])):
        site = Site("lfp_280", {"rack": {**rack, "seed": seed}, "fault": faults}, n_racks)
        record = np.zeros(n_racks, MEASUREMENT.dtype(6, site.sensors.n_sensors))
        site.attach(record, np.zeros(n_racks, COMMAND.dtype(6, site.sensors.n_sensors)))
        site.start(0.0)
        for _ in range(60):
            site.run(7.0)
        banks.append(site.bank)
    burnt, alone, healthy = banks
    assert burning(RackTwin(burnt.cell, bank=burnt, index=1)).burnt.any()
    for name in ("cells", "groups", "burn", "string"):
        np.testing.assert_array_equal(getattr(burnt, name)[1], getattr(alone, name)[0])
        np.testing.assert_array_equal(getattr(burnt, name)[[0, 2]], getattr(healthy, name)[[0, 2]])
    assert burnt.string[1, Y.S_GAS_MOL] > 1.0
