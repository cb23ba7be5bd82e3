"""An inverter as a side: its heart-beat over a link, frames that nobody waits for, and the end of its protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import can
import numpy as np
import pytest

from hal.contract import Command, Measurement, RackInfo, RackState
from hal.errors import ConfigError, LinkError
from hal.pcs import Ask, Ratings
from hal.pcs.inverter_can import ALIVE, LIMITS, REQUESTS
from hal.pcs.inverter_north import WAITING, InverterNorth, LinkBus

INFO = RackInfo("small", 16, 4, 1, 280.0, "lfp_280", np.repeat(np.arange(4, dtype=np.uint16), 4))
RATINGS = Ratings(charge_v=58.2, discharge_v=40.2)
PATIENCE_S = 20.0


class Time:
    now = 0.0

    def now_s(self) -> float:
        return self.now


def wait_for(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.0005)


class Plant:
    """A side, and the inverter's end of its bus."""

    def __init__(self, channel: str) -> None:
        self.clock = Time()
        self.north = InverterNorth(f"can:virtual:{channel}?silent=5", INFO, self.clock, RATINGS)
        self.theirs = can.Bus(interface="virtual", channel=channel)
        self.m, self.c = Measurement(16, 4), Command(16, 4)
        self.c.head["limit_charge_a"] = self.c.head["limit_discharge_a"] = 100.0
        self.c.head["state"] = RackState.CONNECTED
        self.north.start()

    def beat(self, data: bytes = bytes(8), **about: Any) -> None:
        before = self.north.bus.link.counters.received
        self.theirs.send(can.Message(**{"arbitration_id": ALIVE, "data": data, "is_extended_id": False, **about}))
        wait_for(lambda: self.north.bus.link.counters.received > before)

    def step(self, now_s: float) -> Ask:
        self.clock.now = now_s
        self.north.publish(self.m, self.c, now_s, local=False)
        return self.north.ask(now_s)

    def heard(self, count: int) -> dict[int, bytes]:
        """The newest content of each frame, once so many have come."""
        found: dict[int, bytes] = {}
        for _ in range(count):
            message = self.theirs.recv(PATIENCE_S)
            assert message is not None
            found[message.arbitration_id] = bytes(message.data)
        return found


@pytest.fixture
def plant(request: pytest.FixtureRequest) -> Iterator[Plant]:
    plant = Plant(request.node.name)
    yield plant
    plant.north.stop()
    plant.theirs.shutdown()


def test_connected_as_long_as_the_inverter_is_heard(plant: Plant) -> None:
    assert plant.step(0.0) == Ask.OPEN
    assert plant.heard(6)[REQUESTS] == b"\0\0"
    for k in range(1, 10):
        plant.beat()
        assert plant.step(float(k)) == Ask.CONNECT
    assert plant.heard(54)[REQUESTS] == b"\xc0\0"
    assert plant.step(14.0) == Ask.CONNECT
    assert plant.step(14.1) == Ask.OPEN
    assert plant.north.silences == 1
    plant.step(15.0)
    assert plant.heard(12)[LIMITS][2:6] == b"\0\0\0\0"
    plant.beat()
    assert plant.step(15.1) == Ask.CONNECT, "the protocol has no other word for it"
    assert plant.north.silences == 1


@pytest.mark.parametrize("data", [b"", b"\1", bytes(8)])
def test_a_heart_beat_counts_whatever_is_in_it(plant: Plant, data: bytes) -> None:
    plant.beat(data)
    assert plant.step(0.0) == Ask.CONNECT


@pytest.mark.parametrize("about", [{"arbitration_id": 0x306}, {"is_extended_id": True}, {"arbitration_id": LIMITS}])
def test_other_frames_are_no_heart_beat(plant: Plant, about: dict[str, Any]) -> None:
    plant.beat(**about)
    assert plant.step(0.0) == Ask.OPEN


def test_a_bus_that_takes_no_frames_holds_nothing_up(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, going = threading.Event(), threading.Event()

    def stuck(frames: Any) -> None:
        taken.set()
        assert going.wait(PATIENCE_S)

    monkeypatch.setattr(plant.north.bus.link, "send", stuck)
    for k in range(10):
        plant.step(float(k))
    inverter = plant.north.inverter
    assert taken.wait(PATIENCE_S)
    assert inverter.errors >= 7, "three rounds at most find room"
    assert inverter.sent <= WAITING + 7
    assert inverter.last_error == "the bus takes no frames"
    going.set()


def test_starting_and_stopping_twice_is_harmless(plant: Plant) -> None:
    plant.north.start()
    plant.north.stop()
    plant.north.stop()
    plant.north.start()
    plant.beat()
    assert plant.step(0.0) == Ask.CONNECT
    assert isinstance(plant.north.bus, LinkBus)


def test_a_string_above_what_the_protocol_holds_is_refused_in_one_line() -> None:
    tall = RackInfo("tall", 416, 104, 1, 280.0, "lfp_280", np.repeat(np.arange(104, dtype=np.uint16), 4))
    with pytest.raises(ConfigError) as error:
        InverterNorth("can:virtual:tall", tall, Time(), Ratings(charge_v=1514.2, discharge_v=1044.2))
    assert "can:virtual:tall: inverter: charge_v = 1514.2 V" in str(error.value)
    assert "up to 327.67 V; use SunSpec" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bus_that_is_not_there_is_told() -> None:
    north = InverterNorth("can:socketcand:can0?host=127.0.0.1&port=1", INFO, Time(), RATINGS)
    with pytest.raises(LinkError, match="no socketcand server"):
        north.start()
    assert north.address == "can:socketcand:can0?host=127.0.0.1&port=1"
