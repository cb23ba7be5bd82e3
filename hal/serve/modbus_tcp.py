"""Modbus/TCP: connections in a thread of their own, with a cap, an idle time-out and back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

from hal.codec import modbus
from hal.codec.modbus import FramingError, MbapStream, Refused
from hal.errors import LinkError
from hal.serve.sessions import Shared

STARTING_S = 10.0
STOPPING_S = 5.0
BACKLOG = 128
HANDSHAKE_S = 5.0
ANY_UNIT = (0, 255)
"""Units by which a Modbus/TCP device itself is addressed (Messaging Implementation Guide, 4.4.2.1)."""

Rules = Callable[[asyncio.BaseTransport], frozenset[int]]
"""Function codes that whoever is at the other end may use."""


@dataclass
class Counts:
    """What a server has seen."""

    connections: int = 0
    refused_connections: int = 0
    idle_closed: int = 0
    requests: int = 0
    exceptions: int = 0
    damaged: int = 0


class _Connection(asyncio.Protocol):
    """One client. Requests are answered in order, each by itself, however the bytes arrive."""

    def __init__(self, wire: TcpWire) -> None:
        self._wire = wire
        self._stream = MbapStream()
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        wire = self._wire
        if len(wire.open) >= wire.most:
            wire.counts.refused_connections += 1
            transport.abort()
            return
        wire.open.add(self)
        wire.counts.connections += 1
        self._allowed = wire.rules(transport) if wire.rules is not None else None
        self._transport = transport
        self._session = wire.served.session()
        self._heard_s = wire.loop.time()
        self._timer = wire.loop.call_later(wire.idle_s, self._look)

    def _look(self) -> None:
        """Close what has asked nothing for too long; half a request does not count."""
        assert self._transport is not None
        silent_s = self._wire.loop.time() - self._heard_s
        if silent_s >= self._wire.idle_s:
            self._wire.counts.idle_closed += 1
            self._transport.abort()
        else:
            self._timer = self._wire.loop.call_later(self._wire.idle_s - silent_s, self._look)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._stream.feed(data)
            self._serve()

    def _serve(self) -> None:
        assert self._transport is not None
        counts = self._wire.counts
        try:
            for transaction, unit, pdu in self._stream.frames():
                counts.requests += 1
                self._heard_s = self._wire.loop.time()
                reply = self._answer(unit, pdu)
                counts.exceptions += reply[0] >> 7
                self._transport.write(modbus.mbap(transaction, unit, reply))
                if self._paused:
                    break  # the client does not read: go on when it does
        except FramingError:
            counts.damaged += 1
            self._transport.abort()

    def _answer(self, unit: int, pdu: bytes) -> bytes:
        if unit != self._wire.unit and unit not in ANY_UNIT:
            return modbus.refusal(pdu, Refused.NO_SUCH_UNIT)
        if self._allowed is not None and pdu[0] not in self._allowed:
            return modbus.refusal(pdu, Refused.ILLEGAL_FUNCTION)
        return modbus.answer(pdu, self._session)

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._serve()
            if not self._paused:
                self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._wire.open.discard(self)
            self._session.close()
            if self._timer is not None:
                self._timer.cancel()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


class TcpWire:
    """Listens on `host`:`port` (0: any free one; `port` then tells which), at most `most` connections at a time."""

    def __init__(
        self,
        text: str,
        host: str,
        port: int,
        served: Shared,
        *,
        unit: int,
        most: int,
        idle_s: float,
        context: ssl.SSLContext | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.text, self.host, self.port = text, host, port
        self.served, self.unit, self.most, self.idle_s = served, unit, most, idle_s
        self.rules = rules
        self.counts = Counts()
        self.open: set[_Connection] = set()
        self._context = context
        self.secured = context is not None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen. Raises `LinkError`: the address is not ours, or taken."""
        if self._thread is not None:
            return
        started = threading.Event()
        failed: list[OSError] = []
        self._thread = threading.Thread(
            target=self._run, args=(started, failed), name=f"modbus {self.text}", daemon=True
        )
        self._thread.start()
        if not started.wait(STARTING_S) or failed:
            why = failed[0].strerror or str(failed[0]) if failed else "no answer from the system"
            self.stop()
            raise LinkError(
                f"{self.text}: cannot listen on {self.host}:{self.port}: {why}; choose another port, "
                f"or stop what uses it"
            )

    def _run(self, started: threading.Event, failed: list[OSError]) -> None:
        try:
            asyncio.run(self._serve(started))
        except OSError as error:
            failed.append(error)
        finally:
            started.set()

    async def _serve(self, started: threading.Event) -> None:
        self.loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        server = await self.loop.create_server(
            lambda: _Connection(self),
            self.host,
            self.port,
            ssl=self._context,
            backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_S if self.secured else None,
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._ending.wait()
        server.close()
        for connection in list(self.open):
            connection.abort()
        while self.open:
            await asyncio.sleep(0)  # connections are told that they are lost in the next round

    def stop(self) -> None:
        """Close the port and every connection."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(RuntimeError, AttributeError):  # it never came to listen
            self.loop.call_soon_threadsafe(self._ending.set)
        thread.join(STOPPING_S)
