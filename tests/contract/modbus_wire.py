"""A twin offered on Modbus, and the rack at the other end of the wire, for tests that want to know when what is there."""

import time
from collections.abc import Callable
from typing import Any, Protocol, Self

from hal.contract import Clock, Command, Measurement, Rack, RackInfo
from hal.registry import open_rack
from hal.serve.modbus import ModbusServer


class Moved(Clock, Protocol):
    """A clock that tests move."""

    def move(self, seconds: float) -> None:
        """Let time pass."""
        ...


class Wired:
    """A twin offered on a wire, and the rack at its other end.

    What the loops of both sides do by the clock happens here in turn: a command goes to the twin before the next
    reading, and a reading waits until it has come over the wire. `options` are more of the client's.
    """

    def __init__(self, url: str, clock: Moved, twin: Rack, options: str = "") -> None:
        self.clock, self.twin = clock, twin
        twin.open()
        self.server = ModbusServer(url, twin.info, clock)
        self.sample = Measurement(twin.info.n_cells, twin.info.n_sensors)
        self.received = Command(twin.info.n_cells, twin.info.n_sensors)
        self._show()
        self.server.start()
        joint = "&" if "?" in self.server.address else "?"
        self.rack: Any = open_rack(f"modbus:{self.server.address}{joint}poll=0.001{options}", clock=clock)

    @property
    def info(self) -> RackInfo:
        info: RackInfo = self.rack.info
        return info

    def open(self) -> None:
        self._show()
        self.rack.open()

    def _show(self) -> None:
        self.twin.read(self.sample)
        self.server.publish(self.sample)

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20.0
        while not condition():
            assert time.monotonic() < deadline, "nothing came over the wire"
            time.sleep(0.001)

    def read(self, out: Measurement) -> None:
        self.rack.read(out)  # raises where the twin would not be asked, either
        self._show()
        newest = self.server.registers.map.source.count % 65535
        self._until(lambda: self.rack.report.step == newest)
        self.rack.read(out)

    def write(self, command: Command) -> None:
        self.rack.write(command)
        self._until(lambda: self.server.take(self.received))
        self.twin.write(self.received)

    def close(self) -> None:
        self.rack.close()
        if self.server.take(self.received):
            self.twin.write(self.received)
            self.clock.move(0.1)  # contactors take a moment to open

    def end(self) -> None:
        self.rack.close()
        self.server.stop()
        self.twin.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
