"""A bridge: frames pass in both directions, and a bus that is lost is told."""

from __future__ import annotations

import can
import pytest
from can.interfaces.virtual import VirtualBus

from hal.errors import LinkError
from hal.links.can_link import parse_address
from hal.serve import bridge as bridge_module
from hal.serve.bridge import Bridge

ONE, OTHER = parse_address("virtual:bridge-1", {}), parse_address("virtual:bridge-2", {})


def bus(number: int) -> can.BusABC:
    return can.Bus(interface="virtual", channel=f"bridge-{number}")


def test_frames_pass_in_both_directions_and_do_not_come_back() -> None:
    message = can.Message(arbitration_id=0x12345678, is_extended_id=True, data=range(8))
    with bus(1) as one, bus(2) as other, Bridge(ONE, OTHER) as bridge:
        for sender, receiver in ((one, other), (other, one)):
            sender.send(message)
            found = receiver.recv(5.0)
            assert found is not None
            assert found.equals(message, timestamp_delta=None, check_channel=False, check_direction=False)
            assert sender.recv(0.05) is None
        bridge.check()
        assert (bridge.passed, bridge.lost) == (2, 0)


def test_a_bus_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: VirtualBus, message: can.Message, timeout: float | None = None) -> None:
        raise can.CanOperationError("the adapter was pulled out")

    with bus(1) as one, Bridge(ONE, OTHER) as bridge:
        first_send = VirtualBus.send
        monkeypatch.setattr(bridge._buses[1], "send", gone.__get__(bridge._buses[1]))
        first_send(one, can.Message(arbitration_id=1))
        for thread in bridge._threads:
            thread.join(5.0)
        with pytest.raises(LinkError, match="can:virtual:bridge-2: lost: the adapter was pulled out"):
            bridge.check()


def test_no_room_is_waited_for_and_counted_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "ROOM_S", 0.01)
    left = [can.CanTimeoutError("no room")] * 2

    class Full:
        def send(self, message: can.Message) -> None:
            if left:
                raise left.pop()

    bridge = Bridge(ONE, OTHER)
    bridge._pass(Full(), can.Message())
    assert (bridge.passed, bridge.lost) == (1, 0)
    left += [can.CanTimeoutError("no room")] * 1000
    bridge._pass(Full(), can.Message())
    assert (bridge.passed, bridge.lost) == (1, 1)


def test_one_that_cannot_be_opened() -> None:
    nobody = parse_address("socketcand:can0", {"host": "127.0.0.1", "port": "1"})
    with pytest.raises(LinkError, match="no socketcand server"), Bridge(ONE, nobody):
        pass
