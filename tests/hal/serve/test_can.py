"""A rack offered on CAN: paced as the bus is, and no damaged or impossible command gets through."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import can
import numpy as np
import pytest
from can_bus import wait_for

from hal.codec import can_profile
from hal.codec.can_wire import CommandWire
from hal.codec.dbc import EXTENDED, parse
from hal.codec.frames import Codec, Outbox, Verdict, crc8
from hal.contract import Command, Measurement, RackInfo
from hal.errors import ConfigError
from hal.serve.can import CanServer, frame_s

BUSES = itertools.count()


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


def info(n_cells: int, n_sensors: int) -> RackInfo:
    return replace(can_profile.load("reference", rack={"n_cells": n_cells, "n_sensors": n_sensors}).info, name="twin")


class Bench:
    """A server, and a bare bus beside it."""

    def __init__(self, n_cells: int = 12, n_sensors: int = 3, query: str = "") -> None:
        channel = f"serve{next(BUSES)}"
        self.clock = Time()
        self.server = CanServer(f"can:virtual:{channel}{query}", info(n_cells, n_sensors), self.clock)
        self.bus = can.Bus(interface="virtual", channel=channel, ignore_config=True)
        self.server.start()
        self.measurement, self.command = Measurement(n_cells, n_sensors), Command(n_cells, n_sensors)
        profile = self.server.profile
        codec = Codec(profile.database, profile.command_messages(), profile.protection)
        self.wire, self.outbox = CommandWire(profile, codec), Outbox(codec)
        self.sent = 0

    def published(self) -> list[can.Message]:
        self.server.publish(self.measurement)
        found = []
        while (message := self.bus.recv(0.0)) is not None:
            found.append(message)
        return found

    def frames(self, command: Command) -> list[tuple[int, bytes]]:
        self.wire.load(command)
        self.wire.codec.encode()
        return self.outbox.frames(range(len(self.wire.codec.rows)))

    def send(self, frames: list[tuple[int, bytes]]) -> None:
        for key, data in frames:
            self.bus.send(can.Message(arbitration_id=key, data=data, is_extended_id=False))
        self.sent += len(frames)
        wait_for(lambda: self.server.link.counters.received >= self.sent, "the server has not heard it")

    def close(self) -> None:
        self.server.stop()
        self.bus.shutdown()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def order(heartbeat: int, contactors: int = 3) -> Command:
    c = Command(12, 3)
    c.head["heartbeat"], c.head["contactors"], c.head["cooling_degc"] = heartbeat, contactors, 20.0
    c.head["limit_discharge_a"] = 100.0
    c.balance[4] = 1
    return c


def test_messages_go_out_in_their_cycles(bench: Bench) -> None:
    n = len(bench.server.frame_s)
    counts = []
    for k in range(101):
        bench.clock.now = k * 0.02
        counts.append(len(bench.published()))
    assert counts[0] == n
    assert counts[5] == n - 1, "the identity comes every second"
    assert counts[50] == n
    assert [k for k, count in enumerate(counts) if count] == list(range(0, 101, 5))


def test_a_late_call_does_not_shift_the_cycle(bench: Bench) -> None:
    bench.published()
    seen = []
    for now in (0.13, 0.19, 0.2, 0.95, 0.99, 1.05):
        bench.clock.now = now
        seen.append(bool(bench.published()))
    assert seen == [True, False, True, True, False, True]


def test_no_more_goes_out_than_the_bus_can_carry() -> None:
    """At 125 kbit/s a scan of 60 cells every 0.1 s is 38 % of the bus."""
    bench = Bench(60, 15, "?bitrate=125000")
    try:
        whole = float(bench.server.frame_s.sum())
        sent_s = 0.0
        for k in range(400):
            bench.clock.now = k * 0.005
            sent_s += len(bench.published()) * bench.server.frame_s[0]
            assert sent_s <= bench.clock.now + whole + 1e-9
        load = float((bench.server.frame_s / bench.server._cycle_s).sum())
        assert 0.3 < load < bench.server.bus_load, "commands take some, too"
        assert sent_s > 0.9 * load * bench.clock.now
        bench.clock.now += 100.0
        assert len(bench.published()) * bench.server.frame_s[0] <= whole + 1e-9, "no burst after a pause"
        assert bench.server._credit_s < whole, "time that nobody used is not kept"
    finally:
        bench.close()


def test_what_finds_no_room_goes_first_the_next_time(bench: Bench) -> None:
    names = {m.identifier: m.name for m in bench.server.profile.database.messages}
    everything = [names[m.arbitration_id] for m in bench.published()]
    bench.server._credit_s = 0.0
    bench.clock.now = 0.1
    bench.server._last_s = 0.1 - 3.5 * float(bench.server.frame_s[0])
    first = [names[m.arbitration_id] for m in bench.published()]
    assert len(first) == 3
    bench.clock.now = 0.15
    rest = [names[m.arbitration_id] for m in bench.published()]
    assert {*first, *rest} == {*everything} - {"RackIdentity"}
    assert not {*first} & {*rest}


@pytest.mark.parametrize(("identifier", "length", "bits"), [(0x100, 8, 135), (0x100, 0, 55), (EXTENDED | 5, 8, 160)])
def test_a_frame_takes_its_bits_at_the_most(identifier: int, length: int, bits: int) -> None:
    """Davis, Burns, Bril, Lukkien, Controller Area Network (CAN) schedulability analysis, 2007, equations 1 and 2."""
    (message,) = parse(f"BO_ {identifier} M: {length} A\n", "x").messages
    assert frame_s(message, 500_000, None) == pytest.approx(bits / 500_000)


def test_a_frame_of_can_fd_is_short() -> None:
    (message,) = parse("BO_ 5 M: 64 A\n", "x").messages
    assert 300e-6 < frame_s(message, 500_000, 2_000_000) < 500e-6


def test_a_command_is_taken_once(bench: Bench) -> None:
    out = bench.command
    assert not bench.server.take(out)
    bench.send(bench.frames(order(7)))
    assert bench.server.take(out)
    assert (out.head["heartbeat"][0], out.head["contactors"][0], out.balance.sum()) == (7, 3, 1)
    assert not bench.server.take(out)
    bench.send(bench.frames(order(8)))
    bench.send(bench.frames(order(9, 0)))
    assert bench.server.take(out)
    assert (out.head["heartbeat"][0], out.head["contactors"][0]) == (9, 0)


def test_nothing_is_taken_before_all_of_it_has_come(bench: Bench) -> None:
    frames = bench.frames(order(1))
    bench.send(frames[1:])
    assert not bench.server.take(bench.command)
    bench.send(bench.frames(order(2)))
    assert bench.server.take(bench.command)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: bytes((data[0] ^ 0x10,)) + data[1:],
        lambda data: data[:2] + bytes((data[2] ^ 0x01,)) + data[3:],
        lambda data: data[:7],
    ],
)
def test_a_damaged_last_frame_changes_nothing(bench: Bench, damage: Callable[[bytes], bytes]) -> None:
    bench.send(bench.frames(order(1, 0)))
    assert bench.server.take(bench.command)
    frames = bench.frames(order(2, 3))
    bench.send([*frames[:-1], (frames[-1][0], damage(frames[-1][1]))])
    assert not bench.server.take(bench.command)
    assert bench.command.head["contactors"][0] == 0
    assert bench.server.inbox.counts[Verdict.WRONG_CRC] + bench.server.inbox.counts[Verdict.WRONG_LENGTH] == 1


def test_a_command_that_comes_again_is_not_taken_again(bench: Bench) -> None:
    frames = bench.frames(order(1, 3))
    bench.send(frames)
    assert bench.server.take(bench.command)
    bench.send(frames)
    assert not bench.server.take(bench.command)
    assert bench.server.inbox.counts[Verdict.REPEATED] == len(frames)


def test_a_limit_that_is_no_longer_said_becomes_0(bench: Bench) -> None:
    bench.send(bench.frames(order(1)))
    assert bench.server.take(bench.command)
    limits = {m.name: m.key for m in bench.server.profile.database.messages}["CurrentLimits"]
    for k in range(2, 12):
        bench.clock.now += 0.1
        bench.send([frame for frame in bench.frames(order(k)) if frame[0] != limits])
        assert bench.server.take(bench.command)
    assert bench.command.head["limit_discharge_a"][0] == 0.0
    assert bench.command.head["contactors"][0] == 3


def test_an_impossible_command_is_refused_and_counted(bench: Bench) -> None:
    """One that a foreign controller sends: well protected, and no coolant has this temperature."""
    c = order(1)
    c.head["cooling_degc"] = 300.0
    bench.send(bench.frames(c))
    assert not bench.server.take(bench.command)
    assert bench.server.refused == 1


def test_a_hundred_thousand_frames_of_noise_make_no_command(bench: Bench) -> None:
    """Straight into the inbox, as a bus would be too slow: what passes must have had a right checksum."""
    server = bench.server
    bench.send(bench.frames(order(1, 0)))
    assert server.take(bench.command)
    rng = np.random.default_rng(3)
    keys = rng.choice([row.message.key for row in server._received.rows], 100_000).tolist()
    noise, lengths = rng.bytes(800_000), rng.integers(0, 9, 100_000).tolist()
    right = 0
    for k, key in enumerate(keys):
        data = noise[8 * k : 8 * k + lengths[k]]
        verdict = server.inbox.accept(key, data, 1.0)
        passes = len(data) == 8 and crc8(bytes((key & 255, key >> 8)) + data[1:]) == data[0]
        right += passes
        assert passes or verdict in (Verdict.WRONG_CRC, Verdict.WRONG_LENGTH)
        if server.inbox.fresh[-1]:
            assert verdict is Verdict.ACCEPTED
            server.take(bench.command)
    assert right < 100_000 / 9 / 256 * 2
    assert server.inbox.counts[Verdict.ACCEPTED] <= right + bench.sent


def test_wrong_urls_are_told() -> None:
    size: Any = info(12, 3)
    for url, complaint in (
        ("modbus:virtual:a", "the scheme is 'modbus', not can"),
        ("can:virtual:a?n_cells=5", "n_cells = 5, the rack has 12; leave it out"),
        ("can:virtual:a?profile=none.toml", "none.toml: cannot be read"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            CanServer(url, size)
    with pytest.raises(
        ConfigError, match=r"the messages of 1000 cells need \d+% of a bus of 500000 bit/s; raise bitrate"
    ):
        CanServer("can:virtual:a", info(1000, 250))
    CanServer("can:virtual:a?fd=1", info(1000, 250))
