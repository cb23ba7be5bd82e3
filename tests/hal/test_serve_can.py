"""A CAN server has exactly the interface of a server."""

from dataclasses import replace

from hal.codec import can_profile
from hal.contract import Command, Measurement
from hal.serve import Server
from hal.serve.can import CanServer


class Still:
    def now_s(self) -> float:
        return 0.0


def test_starting_and_stopping_twice_is_harmless() -> None:
    info = replace(can_profile.load("reference", rack={"n_cells": 12, "n_sensors": 3}).info, name="twin")
    server: Server = CanServer("can:virtual:serve_twice", info, Still())
    server.start()
    server.start()
    server.publish(Measurement(12, 3))
    out = Command(12, 3)
    out.bytes[...] = 7
    assert not server.take(out)
    assert (out.bytes == 7).all()
    server.stop()
    server.stop()
    server.publish(Measurement(12, 3))  # nobody hears it
    server.start()
    server.stop()
