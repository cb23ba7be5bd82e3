"""Where the rack is on a CAN bus: what is on the bus itself."""

from __future__ import annotations

from typing import Any

from bms.rig.driver import Driver


def test_the_bus_carries_frames_and_no_error_frame(bus: Any, controller: Driver) -> None:
    """Within five seconds of use frames are heard beside the controller's own link, and none is an error frame."""
    heard = errors = 0
    controller.run(5.0)
    while (message := bus.recv(timeout=0.0)) is not None:
        heard += 1
        errors += bool(message.is_error_frame)
    assert heard > 0, "nothing was heard: is this the bus that the rack is on?"
    assert errors == 0
