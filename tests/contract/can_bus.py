"""A twin behind a CAN bus, for the suite: both sides move in step, on a clock that the suite moves.

`python can_bus.py URL` is the side of the rack as a process of its own: it obeys the methods of `Far`, one line of JSON
for each call. `python can_bus.py URL TWIN` serves a twin in real time, until its standard input is closed.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from hal.backends.can import CanRack
from hal.contract import Clock, Command, Measurement, Rack, RackInfo
from hal.registry import open_rack
from hal.serve.can import CanServer

TWIN = "sim:lfp_280?n_series=12"
OPTIONS = {
    "duty": {"kind": "constant", "c_rate": 0.3},
    "fault": [
        {"kind": "cell_v_missing", "index": [1], "at_s": 20.0},
        {"kind": "sensor_missing", "index": [0], "at_s": 20.0},
    ],
}
ATTEMPTS = 3
"""A machine that stands still for a second is a rack that is rightly lost; one that does so three times is not to blame."""
PATIENCE_S = 20.0  # for what takes milliseconds, on a machine that is busy


def wait_for(done: Callable[[], bool], what: str) -> None:
    """Look again and again, for a bounded time."""
    until_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until_s, what
        time.sleep(0.0005)


class FarSide(Protocol):
    """The side of the rack."""

    def start(self, now_s: float) -> None: ...
    def publish(self, now_s: float) -> int: ...
    def take(self, now_s: float, received: int) -> bool: ...
    def stop(self) -> None: ...


class Far:
    """A twin and a server, in this process."""

    def __init__(self, url: str, twin: str | Rack = TWIN, options: Any = OPTIONS) -> None:
        """`twin`: its URL, or one whose clock is moved by whoever moves this one."""
        self.now = 0.0
        self.rack = open_rack(twin, clock=self, options=options) if isinstance(twin, str) else twin
        info = self.rack.info
        self.server = CanServer(url, info, self)
        self.measurement, self.command = (kind(info.n_cells, info.n_sensors) for kind in (Measurement, Command))

    def now_s(self) -> float:
        return self.now

    def start(self, now_s: float) -> None:
        self.now = now_s
        self.rack.open()
        self.server.start()

    def publish(self, now_s: float) -> int:
        """Show what the twin measures now; returns how many frames have been sent in all."""
        self.now = now_s
        self.rack.read(self.measurement)
        self.server.publish(self.measurement)
        return self.server.link.counters.sent

    def take(self, now_s: float, received: int) -> bool:
        """Wait for so many frames in all, and pass a command on, if they make one."""
        self.now = now_s
        wait_for(lambda: self.server.link.counters.received >= received, "frames of the command are missing")
        if not self.server.take(self.command):
            return False
        self.rack.write(self.command)
        return True

    def stop(self) -> None:
        self.rack.close()
        self.server.stop()


class FarProcess:
    """The same in a process of its own."""

    def __init__(self, url: str) -> None:
        words = [sys.executable, __file__, url]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, name: str, *values: float) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, *values]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, now_s: float) -> None:
        self.call("start", now_s)

    def publish(self, now_s: float) -> int:
        return int(self.call("publish", now_s))

    def take(self, now_s: float, received: int) -> bool:
        return bool(self.call("take", now_s, received))

    def stop(self) -> None:
        self.call("stop")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.process.wait()


class BusRack:
    """A `CanRack` whose other side moves along: what was sent is waited for, so that nothing depends on timing.

    On a bus that is `lossy` a command need not arrive.
    """

    lossy = False

    def __init__(self, url: str, far: FarSide, clock: Clock, *at_the_end: Callable[[], object]) -> None:
        rack = open_rack(url, clock=clock)
        assert isinstance(rack, CanRack)
        self.rack, self.far, self.clock = rack, far, clock
        self._running = False
        self._missed = 0  # frames sent while this side was not there
        self._at_the_end = at_the_end

    @property
    def info(self) -> RackInfo:
        return self.rack.info

    def open(self) -> None:
        if self._running:
            self.rack.open()
            return
        self.far.start(self.clock.now_s())
        failed: list[BaseException] = []

        def opening() -> None:
            try:
                self.rack.open()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=opening)
        thread.start()
        wait_for(lambda: self.rack.link.connected or bool(failed), "the bus does not open")
        sent = self.far.publish(self.clock.now_s())
        thread.join()
        if failed:
            raise failed[0]
        self._missed = sent - self.rack.link.counters.received
        self._running = True

    def read(self, out: Measurement) -> None:
        if self._running:
            sent = self.far.publish(self.clock.now_s())
            wait_for(lambda: self.rack.link.counters.received + self._missed >= sent, "frames are missing")
        self.rack.read(out)

    def write(self, command: Command) -> None:
        self.rack.write(command)
        taken = self.far.take(self.clock.now_s(), self.rack.link.counters.sent)
        assert taken or self.lossy

    def close(self) -> None:
        if self._running:
            self.rack.close()
            taken = self.far.take(self.clock.now_s(), self.rack.link.counters.sent)
            assert taken or self.lossy
            self.far.stop()
            self._running = False

    def end(self) -> None:
        """Take down what is around the rack."""
        for action in self._at_the_end:
            action()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextlib.contextmanager
def hub_process() -> Iterator[str]:
    """A hub in a process of its own; gives the query that a URL needs for it."""
    words = [sys.executable, "-m", "hal.serve.hub", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().split()[-1].partition(":")
        try:
            yield f"host={host}&port={port}"
        finally:
            process.terminate()


class SlcanPair:
    """Two serial CAN adapters on one bus: what comes out of one pseudo-terminal as a frame goes into the other."""

    def __init__(self) -> None:
        import tty

        pairs = [os.openpty() for _ in range(2)]
        self._masters, self._slaves = ([pair[k] for pair in pairs] for k in range(2))
        for slave in self._slaves:
            tty.setraw(slave)
        self.names = [os.ttyname(slave) for slave in self._slaves]
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        unread = dict.fromkeys(self._masters, b"")
        others = dict(zip(self._masters, reversed(self._masters), strict=True))
        while self._woken not in (ready := select.select([*self._masters, self._woken], [], [])[0]):
            for master in ready:
                *lines, unread[master] = (unread[master] + os.read(master, 65536)).split(b"\r")
                frames = b"".join(line + b"\r" for line in lines if line[:1] in (b"t", b"T"))
                while frames:
                    frames = frames[os.write(others[master], frames) :]

    def close(self) -> None:
        os.write(self._wake, b"x")
        self._thread.join()
        for end in (*self._masters, *self._slaves, self._woken, self._wake):
            os.close(end)


def main(url: str) -> None:
    far = Far(url)
    for line in sys.stdin:
        name, *values = json.loads(line)
        print(json.dumps(getattr(far, name)(*values)), flush=True)


def serve(url: str, twin: str) -> None:
    """Print "ready", serve in turns of 10 ms, and print what the link and the inbox have counted."""
    far, began_s = Far(url, twin, {"duty": {"kind": "constant", "c_rate": 0.3}}), time.monotonic()
    far.start(0.0)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        now_s = time.monotonic() - began_s
        far.publish(now_s)
        far.take(now_s, 0)
    far.stop()
    print(json.dumps({"counts": far.server.inbox.counts, "lost": far.server.inbox.lost, "refused": far.server.refused}))


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) == 2 else serve(*sys.argv[1:])
