"""Faults of the twin that come and go while it runs."""

from typing import Any

import numpy as np
import pytest

from hal.backends.simulated import SimulatedRack
from hal.contract import Command, HasFaults, Measurement, Quality
from hal.errors import ConfigError


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


class Bench:
    """An open twin of 16 ideal cells at rest."""

    def __init__(self) -> None:
        self.clock = Time()
        tables = {"duty": {"kind": "constant"}, "sensors": {"ideal": True}, "rack": {"n_series": 16}}
        self.rack = SimulatedRack("lfp_280", clock=self.clock, options=tables)
        self.rack.open()
        info = self.rack.info
        self.m, self.command = Measurement(info.n_cells, info.n_sensors), Command(info.n_cells, info.n_sensors)
        self.command.head["cooling_degc"] = 25.0

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.now += 1.0
            self.rack.read(self.m)
            self.command.head["heartbeat"] += 1
            self.rack.write(self.command)


def test_a_twin_can_be_broken() -> None:
    assert isinstance(Bench().rack, HasFaults)


def test_faults_come_and_go_while_it_runs() -> None:
    bench, healthy = Bench(), Bench()
    bench.run(3.0)
    healthy.run(3.0)
    bench.rack.inject({"kind": "cell_v_missing", "index": [2]})
    bench.rack.inject({"kind": "interlock_open", "until_s": bench.rack.site.time_s + 2.0})
    bench.rack.inject({"kind": "feedback_missing"})
    bench.rack.inject({"kind": "insulation", "value": 5e3})
    bench.run(1.0)
    assert np.flatnonzero(bench.m.cell_v_quality).tolist() == [2]
    assert bench.m.head["interlock_closed"] == 0
    assert bench.m.head["contactors_quality"] == Quality.MISSING
    assert bench.m.head["insulation_ohm"] < 1e4
    bench.run(2.0)
    assert bench.m.head["interlock_closed"] == 1
    assert [fault["kind"] for fault in bench.rack.faults] == [
        "cell_v_missing", "interlock_open", "feedback_missing", "insulation",
    ]  # fmt: skip
    assert bench.rack.clear("insulation") == 1
    assert bench.rack.clear() == 3
    assert bench.rack.faults == []
    bench.run(1.0)
    healthy.run(4.0)
    assert np.array_equal(bench.m.cell_v, healthy.m.cell_v)
    names = [name for name in bench.m.head.dtype.names or () if name != "sequence"]
    assert all(bench.m.head[name] == healthy.m.head[name] for name in names)


def test_a_short_that_is_cleared_leaves_no_leak_behind() -> None:
    bench = Bench()
    leak = bench.rack.site._breaking
    assert leak is None
    bench.rack.inject({"kind": "internal_short", "index": [1], "value": 1.0})
    bench.run(10.0)
    bench.rack.inject({"kind": "cell_leak", "index": [3], "value": 5.0})
    bench.run(10.0)
    bench.rack.clear()
    breaking = bench.rack.site._breaking
    assert breaking is not None
    assert np.array_equal(breaking._leak_s, breaking._healthy_leak_s)
    assert np.ptp(breaking._healthy_leak_s[:, 0, 1:4]) < 1e-3


def test_what_has_burnt_stays_burnt_and_is_counted_once() -> None:
    bench = Bench()
    bench.rack.inject({"kind": "gas_alarm"})
    first = bench.rack.site._breaking
    assert first is not None
    healthy = first._healthy_leak_s.copy()
    first._added_s[0, 0, 2] += 0.5  # a cell that has burnt
    for _ in range(3):
        bench.rack.inject({"kind": "interlock_open"})
        bench.run(1.0)
    last = bench.rack.site._breaking
    assert last is not None
    assert np.array_equal(last._healthy_leak_s, healthy)
    assert last._leak_s[0, 0, 2] == pytest.approx(healthy[0, 0, 2] + 0.5)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "cell_v_mising", "index": [1]}, "did you mean 'cell_v_missing'"),
        ({"kind": "cell_v_missing", "index": [16]}, "index 16 is not in 0..15"),
        ({"kind": "cell_heat", "index": [1], "value": 5.0}, "use kind = 'heater'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_mistake_in_an_injected_fault_changes_nothing(fault: dict[str, Any], said: str) -> None:
    bench = Bench()
    bench.rack.inject({"kind": "gas_alarm"})
    with pytest.raises(ConfigError, match=said):
        bench.rack.inject(fault)
    bench.run(1.0)
    assert bench.m.head["gas_alarm"] == 1
    assert len(bench.rack.faults) == 1
