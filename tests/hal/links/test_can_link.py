"""A bus that fails in every way that python-can tells of, and in the ones that it hides."""

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import can
import pytest

from hal.codec.dbc import EXTENDED, parse
from hal.codec.frames import Codec, Inbox
from hal.errors import ConfigError, LinkError
from hal.links import can_link
from hal.links.can_link import CanLink, parse_address
from hal.serve.hub import LOOPBACK, Hub

DBC = 'BO_ 291 M: 2 A\n SG_ x : 0|16@1+ (1,0) [0|0] "" B\nBO_ 2147483649 N: 1 A\n SG_ y : 0|8@1+ (1,0) [0|0] "" B\n'
PATIENCE_S = 20.0


def wait_for(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.001)


def make(address: str, expects_peer: bool = True, **query: str) -> CanLink:
    database = parse(DBC, "x.dbc")
    inbox = Inbox(Codec(database, database.messages))
    where = parse_address(address, query)
    return CanLink(where, inbox, lambda: 7.0, bitrate=500_000, data_bitrate=2_000_000, expects_peer=expects_peer)


class Driver:
    """A bus of a device that does what the test says: gives messages, or raises."""

    def __init__(self) -> None:
        self.script: deque[Any] = deque()
        self.sent: list[can.Message] = []
        self.send_error: Exception | None = None
        self.state = can.BusState.ACTIVE
        self.closed = False
        self.wake = threading.Event()

    def recv(self, timeout: float) -> can.Message | None:
        if not self.script:
            self.wake.wait(timeout)
            self.wake.clear()
        if not self.script:
            return None
        item = self.script.popleft()
        if isinstance(item, BaseException):
            raise item
        message: can.Message = item
        return message

    def send(self, message: can.Message, timeout: float) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)

    def shutdown(self) -> None:
        self.closed = True

    def say(self, *items: Any) -> None:
        self.script.extend(items)
        self.wake.set()


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> list[Driver]:
    """Every bus that was opened, in order."""
    opened: list[Driver] = []

    def open_bus(**given: Any) -> Driver:
        assert given["ignore_config"] is True
        assert given["bitrate"] == 500_000
        opened.append(Driver())
        return opened[-1]

    monkeypatch.setattr(can, "Bus", open_bus)
    monkeypatch.setattr(can_link, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(can_link, "TURN_S", 0.005)
    return opened


@pytest.fixture
def link(drivers: list[Driver]) -> Iterator[CanLink]:
    made = make("pcan:usb1")
    made.open()
    yield made
    made.close()


def message(number: int = 291, data: bytes = b"\1\2", **given: Any) -> can.Message:
    return can.Message(arbitration_id=number, data=data, is_extended_id=given.pop("extended", False), **given)


def test_frames_arrive_and_leave(link: CanLink, drivers: list[Driver]) -> None:
    drivers[0].say(message(), message(1, b"\5", extended=True), message(1), message(is_remote_frame=True))
    wait_for(lambda: link.counters.received == 3)
    link.inbox.snapshot()
    link.inbox.codec.decode()
    assert link.inbox.codec.value.tolist() == [0x201, 5]
    assert link.inbox.arrived_s.tolist() == [7.0, 7.0]
    link.send([(5, b"a"), (5 | EXTENDED, b"b")])
    assert [(m.arbitration_id, m.is_extended_id, bytes(m.data)) for m in drivers[0].sent] == [
        (5, False, b"a"),
        (5, True, b"b"),
    ]
    assert (link.counters.sent, link.counters.not_sent) == (2, 0)


def test_a_driver_that_raises_is_opened_again(link: CanLink, drivers: list[Driver]) -> None:
    link.inbox.counter = [3, 3]
    for error in (can.CanOperationError("unplugged"), OSError("gone"), ZeroDivisionError("a driver")):
        before = len(drivers)
        drivers[-1].say(error)
        wait_for(lambda before=before: len(drivers) == before + 1 and link.connected)  # type: ignore[misc]
        assert drivers[before - 1].closed
    assert (link.counters.lost_links, link.counters.reconnects) == (3, 3)
    assert link.inbox.counter == [-1, -1], "the counters start anew"
    drivers[-1].say(message())
    wait_for(lambda: link.counters.received == 1)


def test_sending_finds_a_lost_bus_and_does_not_raise(link: CanLink, drivers: list[Driver]) -> None:
    drivers[0].send_error = can.CanOperationError("gone")
    link.send([(1, b"a"), (2, b"b")])
    assert link.counters.not_sent == 2
    wait_for(lambda: len(drivers) == 2 and link.connected)
    link.send([(3, b"c")])
    assert [m.arbitration_id for m in drivers[1].sent] == [3]


@pytest.mark.parametrize("full", [can.CanTimeoutError("late"), can.CanOperationError("Transmit buffer full")])
def test_a_full_queue_is_no_lost_bus(link: CanLink, drivers: list[Driver], full: Exception) -> None:
    drivers[0].send_error = full
    link.send([(1, b"a"), (2, b"b")])
    assert (link.counters.not_sent, link.counters.lost_links, link.connected) == (2, 0, True)


def test_error_frames_and_bus_off_are_counted(link: CanLink, drivers: list[Driver]) -> None:
    drivers[0].say(message(0x4, is_error_frame=True), message(can_link.BUS_OFF, is_error_frame=True))
    wait_for(lambda: link.counters.error_frames == 2)
    assert (link.counters.bus_off, link.counters.received) == (1, 0)
    drivers[0].state = can.BusState.ERROR  # what other drivers tell
    wait_for(lambda: len(drivers) == 2 and link.connected)
    assert (link.counters.bus_off, link.counters.lost_links) == (2, 1)


def test_closing_and_opening_twice_is_harmless(link: CanLink, drivers: list[Driver]) -> None:
    link.open()
    assert len(drivers) == 1
    link.close()
    link.close()
    assert drivers[0].closed
    assert not link.connected
    link.send([(1, b"")])
    assert link.counters.not_sent == 1
    link.open()
    assert len(drivers) == 2


def test_a_server_that_dies_is_noticed_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """python-can's interface returns None for ever then, and spins."""
    monkeypatch.setattr(can_link, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(can_link, "LONGEST_PAUSE_S", 0.05)
    hub = Hub(0).__enter__()
    link = make("socketcand:can0", host=LOOPBACK, port=str(hub.port))
    other = make("socketcand:can0", host=LOOPBACK, port=str(hub.port), expects_peer=False)
    link.open()
    other.open()
    try:
        other.send([(291, b"\1\2")])
        wait_for(lambda: link.counters.received == 1)
        hub.__exit__(None, None, None)
        started_s = time.monotonic()
        wait_for(lambda: not link.connected and not other.connected)
        assert time.monotonic() - started_s < 5.0
        spent_s = time.process_time()
        link._ending.wait(0.3)
        assert time.process_time() - spent_s < 0.2, "no spinning"
        with Hub(hub.port):
            wait_for(lambda: link.connected and other.connected)
            other.send([(291, b"\1\2")])
            wait_for(lambda: link.counters.received == 2)
            assert link.counters.reconnects == 1
            link.close()
            other.close()
    finally:
        link.close()
        other.close()


def test_a_server_that_falls_silent_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(can_link, "SILENCE_S", 0.2)
    monkeypatch.setattr(can_link, "FIRST_PAUSE_S", 0.01)
    with Hub(0) as hub:
        link = make("socketcand:can0", host=LOOPBACK, port=str(hub.port))
        waiting = make("socketcand:can0", host=LOOPBACK, port=str(hub.port), expects_peer=False)
        link.open()
        waiting.open()
        wait_for(lambda: link.counters.reconnects == 2)
        assert waiting.counters.lost_links == 0, "a rack waits for its controller"
        link.close()
        waiting.close()


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def test_a_refused_connection_is_told_at_once() -> None:
    started_s = time.monotonic()
    port = free_port()
    with pytest.raises(LinkError, match=rf"no socketcand server at 127.0.0.1:{port} \(.*refused\); start one there$"):
        make("socketcand:can0", host=LOOPBACK, port=str(port)).open()
    assert time.monotonic() - started_s < 5.0


def test_what_is_no_socketcand_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says something else, and one that says nothing: python-can would wait for it for ever."""
    monkeypatch.setattr(can_link, "GREETING_S", 0.1)
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        link = make("socketcand:can0", host=LOOPBACK, port=str(port))
        with pytest.raises(
            LinkError, match=rf"no socketcand server at 127.0.0.1:{port} \(timed out\); start one there"
        ):
            link.open()

        def answer() -> None:
            for _ in range(2):
                server.accept()[0].sendall(b"SSH-2.0")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(LinkError, match=rf"what listens at 127.0.0.1:{port} is no socketcand server; look at host"):
            link.open()
        thread.join()


def test_a_device_that_is_not_there_is_told() -> None:
    for address in ("socketcan:nosuch0", "slcan:/dev/nosuch"):
        with pytest.raises(LinkError) as caught:
            make(address).open()
        assert f"can:{address}: cannot be opened: " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_unknown_interface_is_told() -> None:
    with pytest.raises(ConfigError, match=r"unknown interface 'socketcn' \(did you mean 'socketcand?'\?\)"):
        make("socketcn:can0").open()


@pytest.mark.parametrize("error", [ValueError("bitrate 3\nof many"), TypeError("no such keyword")])
def test_an_option_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(**given: Any) -> None:
        assert (given["x"], given["y"], given["z"]) == (1, "text", True)
        raise error

    monkeypatch.setattr(can, "Bus", refuse)
    with pytest.raises(ConfigError, match=r"^can:pcan:usb1: (bitrate 3|no such keyword); look at the keys of the URL$"):
        make("pcan:usb1", **{"bus.x": "1", "bus.y": "text", "bus.z": "true"}).open()


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: Any) -> None:
        raise can.CanInterfaceNotImplementedError("no library of the maker")

    monkeypatch.setattr(can, "Bus", refuse)
    with pytest.raises(ConfigError, match="no library of the maker; install what this interface needs"):
        make("pcan:usb1").open()


def test_a_driver_that_did_not_load_is_told_and_python_can_says_nothing_beside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**given: Any) -> None:
        logging.getLogger("can.kvaser").warning("Kvaser canlib is unavailable.")
        raise NameError("name 'canGetNumberOfChannels' is not defined")

    monkeypatch.setattr(can, "Bus", refuse)
    with pytest.raises(ConfigError, match="^can:kvaser:0: the driver of 'kvaser' is not installed; install it$"):
        make("kvaser:0").open()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("address", "query", "complaint"),
    [
        ("virtual", {}, "rack URL 'can:virtual': expected can:INTERFACE:CHANNEL, for example can:socketcan:can0"),
        (":can0", {}, "expected can:INTERFACE:CHANNEL"),
        ("virtual:", {}, "expected can:INTERFACE:CHANNEL"),
        ("virtual:a", {"bitrat": "1"}, "unknown key 'bitrat' (did you mean 'bitrate'?)"),
        ("virtual:a", {"bitrate": "fast"}, "bitrate = fast: expected a number above 0"),
        ("virtual:a", {"bitrate": "0"}, "bitrate = 0: expected a number above 0"),
        ("virtual:a", {"timeout_s": "nan"}, "timeout_s = nan: expected a number above 0"),
        ("virtual:a", {"n_cells": "1.5"}, "n_cells = 1.5: expected a number above 0"),
        ("virtual:a", {"fd": "yes"}, "fd = yes: write 1 or 0"),
        ("socketcand:a", {"host": "h"}, "port is missing; write can:socketcand:can0?host=...&port=29536"),
        ("socketcand:a", {"host": "h", "port": "1", "fd": "1"}, "socketcand carries classic CAN only"),
    ],
)
def test_a_url_with_a_mistake_is_told(address: str, query: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(address, query)
    assert complaint in str(caught.value)


def test_a_url_in_its_parts() -> None:
    query = {"fd": "true", "bitrate": "250000", "timeout_s": "0.5", "n_cells": "12", "cell": "lfp_280", "bus.x": "1"}
    found = parse_address("slcan:/dev/ttyUSB0:2", query)
    assert (found.interface, found.channel, found.fd, found.timeout_s) == ("slcan", "/dev/ttyUSB0:2", True, 0.5)
    assert str(found) == "can:slcan:/dev/ttyUSB0:2"
    assert (found.bitrate, found.rack, found.options) == (250000, {"n_cells": 12, "cell": "lfp_280"}, {"x": "1"})
