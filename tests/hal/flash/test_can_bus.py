"""Where a controller is, from a URL."""

from __future__ import annotations

import can
import pytest

from hal.errors import ConfigError
from hal.flash import can_bus
from hal.flash.can_bus import CanPlace, Frames, can_place
from hal.registry import parse_url


def place(url: str) -> CanPlace:
    return can_place(parse_url(url))


def test_identifiers_have_defaults_and_can_be_given() -> None:
    assert (place("can:virtual:a").request_id, place("can:virtual:a").response_id) == (0x7E0, 0x7E8)
    given = place("can:virtual:a?request_id=0x123&response_id=7&bitrate=250000")
    assert (given.request_id, given.response_id, given.address.bitrate) == (0x123, 7, 250000)
    assert str(given) == "can:virtual:a"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sim:lfp_280", "'sim:lfp_280': flashed over can: or serial:, for example can:socketcan:can0"),
        ("can:virtual:a?request_id=x", "request_id = x: expected an identifier from 0 to 0x7ff"),
        ("can:virtual:a?response_id=0x800", "response_id = 0x800: expected an identifier"),
        ("can:virtual:a?response_id=0x7e0", "request_id and response_id are the same"),
        ("can:virtual", "expected can:INTERFACE:CHANNEL"),
        ("can:virtual:a?requst_id=1", "unknown key 'requst_id'"),
    ],
)
def test_what_is_wrong_is_named(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        place(url)


def test_the_bus_is_opened() -> None:
    with place("can:virtual:test_can_bus").open() as bus:
        assert bus.channel_id == "test_can_bus"


class Adapter:
    """Sends and receives what it is told, or raises it."""

    def __init__(self, *turns: object) -> None:
        self.turns = list(turns)
        self.sent: list[can.Message] = []

    def _turn(self) -> object:
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        if isinstance(turn, Exception):
            raise turn
        return turn

    def recv(self, timeout_s: float) -> object:
        return self._turn()

    def send(self, message: can.Message) -> None:
        self._turn()
        self.sent.append(message)


def test_an_adapter_without_room_is_waited_for() -> None:
    isotp = pytest.importorskip("isotp", reason="pip install 'rackbms[firmware]'")
    adapter = Adapter(can.CanTimeoutError("full"), can.CanOperationError("Transmit buffer full"), None)
    frames = Frames(adapter)
    frames.send(isotp.CanMessage(0x7E0, data=b"abc"))
    assert [(m.arbitration_id, bytes(m.data), m.is_extended_id) for m in adapter.sent] == [(0x7E0, b"abc", False)]
    assert frames.error is None


def test_what_a_bus_raises_is_kept_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    isotp = pytest.importorskip("isotp", reason="pip install 'rackbms[firmware]'")
    monkeypatch.setattr(can_bus, "ROOM_S", 0.0)
    gone, full = can.CanOperationError("gone"), can.CanTimeoutError("full")
    for adapter in (Adapter(gone), Adapter(full)):
        frames = Frames(adapter)
        frames.send(isotp.CanMessage(0x7E0, data=b"abc"))
        assert frames.error is adapter.turns[0]
        assert frames.receive(0.0) is None
    frames = Frames(Adapter(gone, can.Message()))
    assert frames.receive(0.0) is None
    assert frames.error is gone
    assert frames.receive(0.0) is None
    frames.send(isotp.CanMessage(0x7E0, data=b"abc"))
    assert frames.bus.sent == []


def test_frames_that_carry_nothing_are_passed_over() -> None:
    pytest.importorskip("isotp", reason="pip install 'rackbms[firmware]'")
    good = can.Message(arbitration_id=0x7E8, data=b"abc", is_extended_id=False)
    frames = Frames(Adapter(None, can.Message(is_error_frame=True), can.Message(is_remote_frame=True), good))
    assert [frames.receive(0.0) for _ in range(3)] == [None] * 3
    found = frames.receive(0.0)
    assert (found.arbitration_id, bytes(found.data), found.is_extended_id) == (0x7E8, b"abc", False)
