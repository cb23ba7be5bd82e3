"""A CAN bus between processes, for machines whose kernel has none: `python -m hal.serve.hub --port 29536`.

It speaks the ASCII protocol of socketcand in raw mode (github.com/linux-can/socketcand, doc/protocol.md) on the
loopback interface: `< open BUS >`, `< rawmode >`, `< send ID LENGTH BYTES >` in, `< frame ID TIME BYTES >` out to every
other client of the same bus. No pace and no arbitration: that is the business of who sends.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
PORT = 29536

MAX_CLIENTS = 64
MAX_UNREAD = 1 << 20  # a client that lets so many bytes wait is cut off
MAX_LINE = 256  # a client that opens a bracket and goes on for so long does not speak socketcand
QUIET_S = 0.02  # python-can takes frames right behind the answer to rawmode for a part of it

_SEND = re.compile(r"< send ([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8}) ([0-8])((?: [0-9A-Fa-f]{1,2}){0,8}) {1,2}>")
_OPEN = re.compile(r"< open (\S{1,32}) >")


@dataclass(eq=False)
class _Client:
    """One connection: `bus` is '' until it has opened one, `quiet_until_s` infinite until it is in raw mode."""

    socket: socket.socket
    bus: str = ""
    quiet_until_s: float = float("inf")
    unread: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    held: bytearray = field(default_factory=bytearray)


class Hub:
    """The hub, listening at `port` (0: any that is free) from the moment it is made. Used as a context manager: served
    by a thread from entering to leaving. Raises `OSError` where the port is taken.
    """

    def __init__(self, port: int = PORT) -> None:
        self._listener = socket.create_server((LOOPBACK, port))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._wake = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._clients: list[_Client] = []
        self._ending = False
        self._thread: threading.Thread | None = None

    def serve(self) -> None:
        """Pass frames on until `stop` is called."""
        try:
            while not self._ending:
                for key, events in self._selector.select(self._pause_s()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.data, _Client):
                        self._attend(key.data, events)
                self._release()
        finally:
            for client in list(self._clients):
                self._cut(client)
            self._selector.close()
            for end in (self._listener, self._waker, self._wake):
                end.close()

    def stop(self) -> None:
        """End `serve`; all connections are closed."""
        self._ending = True
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve, name="can hub", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _pause_s(self) -> float | None:
        waiting = [c.quiet_until_s for c in self._clients if c.held and c.quiet_until_s < float("inf")]
        return max(min(waiting) - time.monotonic(), 0.0) if waiting else None

    def _release(self) -> None:
        """Send what was held back from clients that had just entered raw mode."""
        now_s = time.monotonic()
        for client in list(self._clients):
            if client.held and client.quiet_until_s <= now_s:
                held, client.held = bytes(client.held), bytearray()
                self._put(client, held)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)
        self._put(client, b"< hi >")

    def _cut(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.socket)
            client.socket.close()

    def _attend(self, client: _Client, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._put(client, b"")
        if not events & selectors.EVENT_READ or client not in self._clients:
            return
        try:
            data = client.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._cut(client)
            return
        client.unread += data
        while (end := client.unread.find(b">")) >= 0:
            line = client.unread[: end + 1].decode("ascii", "replace").lstrip()
            del client.unread[: end + 1]
            self._obey(client, line)
            if client not in self._clients:
                return
        if len(client.unread) > MAX_LINE:
            self._cut(client)

    def _obey(self, client: _Client, line: str) -> None:
        if (frame := _SEND.fullmatch(line)) is not None and client.bus:
            data = [f"{int(byte, 16):02X}" for byte in frame[3].split()]
            if len(data) != int(frame[2]):
                self._put(client, b"< error frame of another length >")
                return
            text = f"< frame {frame[1].upper()} {time.time():.6f} {''.join(data)} >".encode("ascii")
            for other in list(self._clients):
                if other is not client and other.bus == client.bus and other.quiet_until_s < float("inf"):
                    if other.held or other.quiet_until_s > time.monotonic():
                        other.held += text
                    else:
                        self._put(other, text)
        elif (opened := _OPEN.fullmatch(line)) is not None:
            client.bus = opened[1]
            self._put(client, b"< ok >")
        elif line == "< rawmode >" and client.bus:
            self._put(client, b"< ok >")
            client.quiet_until_s = time.monotonic() + QUIET_S
        elif line == "< echo >":
            self._put(client, b"< echo >")
        else:
            self._put(client, b"< error unknown command >")

    def _put(self, client: _Client, data: bytes) -> None:
        client.unsent += data
        try:
            sent = client.socket.send(client.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._cut(client)
            return
        del client.unsent[:sent]
        if len(client.unsent) > MAX_UNREAD:
            self._cut(client)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.socket, events, client)


def main(words: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Prints the address when it listens. Returns 0, or 2 where the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m hal.serve.hub", description="a CAN bus between processes")
    parser.add_argument("--port", type=int, default=PORT, help=f"port on {LOOPBACK}, 0: any (default: {PORT})")
    args = parser.parse_args(words)
    try:
        hub = Hub(args.port)
    except (OSError, OverflowError) as error:
        print(f"--port {args.port}: cannot listen there: {error}; name another", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: hub.stop())
    print(f"socketcand hub at {LOOPBACK}:{hub.port}", flush=True)
    hub.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
