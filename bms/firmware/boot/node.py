"""A controller that exists only here: `python -m bms.firmware.boot.node --can URL --key KEY.pub`, or `--serial`.

It has the boot loader's C, a flash in memory, and in place of a program something that confirms itself after a while,
or does not. `bms flash` is tried against it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import sys
import tempfile
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from bms.firmware.boot import host
from bms.firmware.identity import layouts_hash
from bms.firmware.keys import public_key
from hal.errors import RackBmsError
from hal.flash.can_bus import CanPlace, can_place
from hal.registry import parse_url

POLL_S = 0.002
HEALTHY_AFTER_S = 1.0
MOST_SAID = 8192


class Node:
    """A controller that speaks UDS. `now_ms` is given with each call, so that its time is whatever time you like."""

    def __init__(self, controller: host.Controller, healthy: bool = True, healthy_after_ms: int = 0) -> None:
        self.controller = controller
        self.healthy, self.healthy_after_ms = healthy, healthy_after_ms
        self.starts = 0
        library = controller.library
        for name in ("start", "frame", "poll", "take", "bytes", "wants_reset"):
            getattr(library, f"host_node_{name}").restype = ctypes.c_bool
        library.host_node_said.restype = ctypes.c_size_t
        self.choice = host.Choice()
        self._started_ms = 0
        self._unconfirmed = False

    def start(self, now_ms: int) -> None:
        """Power comes, or it was reset. Raises `PowerLost`."""
        self.choice = self.controller.boot()
        self.starts += 1
        self._started_ms, self._unconfirmed = now_ms, self.choice.record.trial == self.choice.slot != host.NO_SLOT
        self._powered(self.controller.library.host_node_start(ctypes.byref(self.choice)))

    def contactors(self, all_open: bool) -> None:
        """What their feedback says."""
        self.controller.library.host_node_contactors(ctypes.c_bool(all_open))

    def frame(self, data: bytes, now_ms: int) -> None:
        """A frame for it is on the bus. Raises `PowerLost`."""
        self._powered(self.controller.library.host_node_frame(data, len(data), now_ms))

    def poll(self, now_ms: int) -> Iterator[bytes]:
        """Let time pass; gives the frames that it sends. Raises `PowerLost`."""
        library = self.controller.library
        self._powered(library.host_node_poll(now_ms))
        frame = ctypes.create_string_buffer(8)
        while library.host_node_take(frame):
            yield frame.raw
        if library.host_node_wants_reset():
            self.start(now_ms)
        if self._unconfirmed and self.healthy and now_ms - self._started_ms >= self.healthy_after_ms:
            self._unconfirmed = not self.controller.confirm(self.choice.slot)

    def serial(self, data: bytes) -> bytes:
        """Bytes have come over its serial line; gives those that it sends. Raises `PowerLost`."""
        self._powered(self.controller.library.host_node_bytes(data, len(data)))
        said = ctypes.create_string_buffer(MOST_SAID)
        count = self.controller.library.host_node_said(said, MOST_SAID)
        return said.raw[:count]

    def told(self) -> str:
        """What runs, in words."""
        slot, facts, record = self.choice.slot, self.choice.facts, self.choice.record
        if slot == host.NO_SLOT:
            return "no image is good: the boot loader waits for one"
        version = "{}.{}.{}+{}".format(*facts.version)
        return (
            f"runs {version} in slot {slot}, security counter {record.counter}; {host.Event(record.event).name.lower()}"
        )

    @staticmethod
    def _powered(done: bool) -> None:
        if not done:
            raise host.PowerLost


class Ends(Protocol):
    """What a node is connected to."""

    def turn(self, node: Node) -> None:
        """Bring to `node` what has come, and away what it sends; wait no longer than `POLL_S` for it."""
        ...


class OnBus:
    """A python-can bus, at `place`."""

    def __init__(self, place: CanPlace, bus: Any) -> None:
        self.place, self.bus = place, bus

    def turn(self, node: Node) -> None:
        """See `Ends`."""
        import can

        message = self.bus.recv(POLL_S)
        if message is not None and message.arbitration_id == self.place.request_id:
            node.frame(bytes(message.data), _now_ms())
        for frame in node.poll(_now_ms()):
            self.bus.send(can.Message(arbitration_id=self.place.response_id, data=frame, is_extended_id=False))


class OnLine:
    """A serial line, by its file descriptor."""

    def __init__(self, line: int) -> None:
        self.line = line

    def turn(self, node: Node) -> None:
        """See `Ends`."""
        if select.select([self.line], [], [], POLL_S)[0]:
            os.write(self.line, node.serial(os.read(self.line, 4096)))
        for _ in node.poll(_now_ms()):
            pass  # nobody is on its bus


def serve(node: Node, ends: Ends, ending: list[bool]) -> None:
    """Be a node until `ending` has something in it; each start is told."""
    told = 0
    node.start(_now_ms())
    while not ending:
        if told != node.starts:
            told = node.starts
            print(node.told(), flush=True)
        ends.turn(node)


@contextmanager
def pty() -> Iterator[tuple[int, str]]:
    """A serial line between processes: this end's descriptor, and the name of the other end."""
    own, other = os.openpty()
    try:
        tty.setraw(other)
        yield own, os.ttyname(other)
    finally:
        os.close(own)
        os.close(other)


def _ends(url: str | None, stack: ExitStack) -> Ends:
    if url is not None:
        place = can_place(parse_url(url))
        return OnBus(place, stack.enter_context(place.open()))
    line, name = stack.enter_context(pty())
    print(f"serial line at {name}", flush=True)
    return OnLine(line)


def _now_ms() -> int:
    return int(time.monotonic() * 1000) & 0xFFFFFFFF


def main(words: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns 0, or 2 where an option is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bms.firmware.boot.node", description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--can", metavar="URL", help="on a bus: can:INTERFACE:CHANNEL?...")
    where.add_argument("--serial", action="store_true", help="on a serial line, whose name is printed")
    parser.add_argument("--key", required=True, type=Path, help="public key of whoever may sign images and send them")
    parser.add_argument("--board", default="host", help="its name (default: host)")
    parser.add_argument("--slot", type=int, default=256, metavar="KIB", help="size of a slot (default: 256)")
    parser.add_argument("--unhealthy", action="store_true", help="a new image never confirms itself")
    parser.add_argument("--connected", action="store_true", help="its contactors are closed")
    args = parser.parse_args(words)
    ending: list[bool] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.append(True))
    try:
        key = public_key(args.key)
        board = host.Board(key, key, layouts_hash(), args.board, sector_size=4096, slot_sectors=args.slot // 4)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            controller = host.Controller(board, host.library(Path(folder)))
            node = Node(controller, not args.unhealthy, int(1000 * HEALTHY_AFTER_S))
            node.contactors(not args.connected)
            serve(node, _ends(args.can, stack), ending)
    except RackBmsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
