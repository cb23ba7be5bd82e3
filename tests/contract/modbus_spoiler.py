"""A wire between a Modbus/TCP client and its server that loses, delays, repeats and falsifies answers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self

import numpy as np

KINDS = (
    *("drop", "delay", "duplicate", "reorder", "corrupt"),
    *("stale", "freeze", "bus_off", "exception", "swap_words"),
)
HEADER = 7
BUSY = 6


def frame(stream: socket.socket) -> bytes:
    """The next frame, with its header; b"" at the end."""
    head = _exactly(stream, HEADER)
    return head and head + _exactly(stream, struct.unpack(">H", head[4:6])[0] - 1)


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            return b""
        data += part
    return data


class Spoiler:
    """Listens at `port` and asks the server at `behind`. Of the answers `rate()` meet with the fault `kind`.

    What holds (`stale`, `freeze`, `bus_off`) holds for `hold_s` of `now_s`; a delayed answer comes after `late_s`.
    """

    def __init__(
        self,
        behind: int,
        kind: str,
        rate: Callable[[], float],
        now_s: Callable[[], float],
        hold_s: float,
        late_s: float,
    ) -> None:
        self.behind, self.kind, self.rate, self.now_s = behind, kind, rate, now_s
        self.hold_s, self.late_s = hold_s, late_s
        self.hits = 0
        self._rng = np.random.default_rng(1)
        self._until_s = -np.inf
        self._kept: dict[bytes, bytes] = {}
        self._before = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._run, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not self._held("bus_off"):
                    with socket.create_connection(("127.0.0.1", self.behind)) as server:
                        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        self._pass_on(client, server)

    @property
    def held(self) -> bool:
        """Whether what holds does so now."""
        return self.now_s() < self._until_s

    @property
    def bad(self) -> bool:
        """Whether an answer may be spoilt now."""
        return self.held or self.rate() > 0.0

    def _held(self, kind: str) -> bool:
        return self.kind == kind and self.held

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        while request := frame(client):
            server.sendall(request)
            answer = frame(server)
            hit = bool(self._rng.random() < self.rate())
            if hit and self.kind in ("stale", "freeze", "bus_off"):
                self._until_s = self.now_s() + self.hold_s
            self.hits += hit
            if self._held("bus_off"):
                return
            client.sendall(self._spoilt(request, answer, hit))
            self._before = answer

    def _spoilt(self, request: bytes, answer: bytes, hit: bool) -> bytes:
        """What comes instead of an answer."""
        kind, asked = self.kind, request[HEADER:]
        if self._held("freeze"):
            return answer[:HEADER] + self._kept.setdefault(asked, answer[HEADER:])
        self._kept[asked] = answer[HEADER:]
        if self._held("stale") or (hit and kind == "drop"):
            return b""
        if not hit:
            return answer
        if kind == "delay":
            time.sleep(self.late_s)
        if kind == "exception":
            return answer[:4] + b"\0\3" + answer[6:7] + bytes((answer[HEADER] | 0x80, BUSY))
        if kind == "corrupt":
            bits = int.from_bytes(answer, "big") ^ 1 << int(self._rng.integers(0, 8 * len(answer)))
            return bits.to_bytes(len(answer), "big")
        if kind == "swap_words" and answer[HEADER] == 3:
            head, words = answer[: HEADER + 2], answer[HEADER + 2 :]
            whole = len(words) // 4 * 4
            turned = b"".join(words[k + 2 : k + 4] + words[k : k + 2] for k in range(0, whole, 4))
            return head + turned + words[whole:]
        return {"duplicate": 2 * answer, "reorder": self._before + answer}.get(kind, answer)
