"""A rack that stands still as a whole is flagged while current flows, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from hal.backends.alive import Alive
from hal.backends.chaos import Change, Chaos
from hal.backends.chaos_wire import NO_FAULTS, WireFaults
from hal.contract import MEASUREMENT, Command, Measurement, Quality
from hal.errors import ConfigError
from hal.registry import open_rack

N = 8


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


class Bench:
    """A twin under current, behind a wire, watched."""

    def __init__(self, *changes: Change, wire: WireFaults = NO_FAULTS, c_rate: float = 0.3, **alive: float) -> None:
        self.clock = Time()
        duty = {"duty": {"kind": "constant", "c_rate": c_rate}}
        chaos = Chaos(open_rack(f"sim:lfp_280?n_series={N}", clock=self.clock, options=duty), changes, 0, wire)
        self.rack = Alive(chaos, **alive)
        self.rack.open()
        self.m, self.command = Measurement(N, 2), Command(N, 2)
        self.command.head["cooling_degc"] = 25.0
        self.command.head["limit_discharge_a"], self.command.head["limit_discharge_w"] = 1e3, 1e6

    def run(self, seconds: int) -> list[bool]:
        """For each second: whether the cells are flagged as frozen."""
        frozen = []
        for _ in range(seconds):
            self.clock.now += 1.0
            self.command.head["heartbeat"] += 1
            self.command.head["contactors"] = 0b110 if self.clock.now < 10.0 else 0b011
            self.rack.write(self.command)
            self.rack.read(self.m)
            frozen.append(bool((self.m.cell_v_quality & Quality.FROZEN).all()))
        return frozen


def test_a_frozen_wire_is_flagged_on_every_channel_and_one_change_ends_it() -> None:
    bench = Bench(wire=WireFaults(freeze=1.0, from_s=20.5, until_s=40.5))
    frozen = bench.run(33)
    assert abs(bench.m.head["current_a"][0]) > 80.0
    assert frozen.index(True) == 30  # at 31 s, the tenth sample that equals the one before it
    for field in MEASUREMENT.fields:
        if field.name.endswith("_quality"):
            values = bench.m.raw[field.name][0] if field.dims else bench.m.head[field.name]
            assert (values & Quality.FROZEN).all(), field.name
    frozen += bench.run(20)
    assert all(frozen[30:41])  # the wire is frozen up to 41 s, and holds for another
    assert not any(frozen[43:])


def test_a_rack_that_lives_is_never_flagged() -> None:
    assert not any(Bench().run(300))


@pytest.mark.parametrize("channel", ["cell_v", "current_a", "pack_v"])
def test_one_channel_that_stands_still_is_for_others_to_find(channel: str) -> None:
    assert not any(Bench(Change(channel, "stuck", from_s=20.0)).run(60))


def test_at_rest_nothing_is_flagged() -> None:
    assert not any(Bench(wire=WireFaults(freeze=1.0, from_s=20.5), c_rate=0.01).run(60))
    assert any(Bench(wire=WireFaults(freeze=1.0, from_s=20.5), c_rate=0.05, least_c=0.04).run(60))


def test_samples_that_do_not_come_are_no_equal_samples() -> None:
    bench = Bench(wire=WireFaults(bus_off=1.0, from_s=20.5))
    assert not any(bench.run(60))


def test_opening_again_forgets() -> None:
    bench = Bench(wire=WireFaults(freeze=1.0, from_s=20.5))
    assert bench.run(40)[-1]
    bench.rack.close()
    bench.rack.open()
    assert not any(bench.run(9))


def test_as_a_url() -> None:
    rack: Any = open_rack("alive+chaos+sim:lfp_280?n_series=4&alive.after_s=3&alive.least_c=0.1&chaos.drop=0.1")
    assert isinstance(rack, Alive)
    assert (rack._after_s, rack._least_c) == (3.0, 0.1)
    assert isinstance(rack._rack, Chaos)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("alive.aftr_s=3", "unknown key 'alive.aftr_s' (did you mean 'after_s'?)"),
        ("alive.after_s=x", "alive.after_s = x: expected a number"),
        ("alive.least_c=0", "alive.least_c = 0: a number greater than 0"),
    ],
)
def test_keys_that_cannot_be_are_refused(query: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_rack(f"alive+sim:lfp_280?{query}")
    assert says in str(caught.value)
