"""A small control channel of `bms serve`: HTTP with JSON on the loopback interface.

| request | |
| --- | --- |
| `GET /state` | what the rack does, who controls it, which faults there are |
| `POST /inject` | `{"kind": "cell_v_missing", "index": [3]}`: a `[[fault]]` entry, from now on; `for_s`: so long |
| `POST /clear` | `{}` ends all faults, `{"kind": "..."}` those of one kind |

Requests are carried out by the loop, between two measurements.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from hal.contract import HasFaults, Measurement
from hal.errors import ConfigError, LinkError

HOST = "127.0.0.1"
LONGEST_BODY = 65536
ANSWER_S = 10.0
"""How long a request waits for the loop."""


class Served(Protocol):
    """What the channel looks into: the loop."""

    rack: Any
    measurement: Measurement

    def state(self) -> dict[str, Any]:
        """What `GET /state` tells."""
        ...


Job = Callable[[Served], dict[str, Any]]


class Control:
    """Listens on 127.0.0.1:`port` (0: any free one, and `port` tells which). The loop calls `answer`."""

    def __init__(self, port: int) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"--control {port}: expected a port, 0..65535")
        self.port = port
        self._jobs: queue.SimpleQueue[tuple[Job, queue.SimpleQueue[dict[str, Any]]]] = queue.SimpleQueue()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen. Raises `LinkError`: the port is taken."""
        handler = type("Handler", (_Handler,), {"control": self})
        try:
            self._server = ThreadingHTTPServer((HOST, self.port), handler)
        except OSError as error:
            raise LinkError(f"--control {self.port}: cannot listen: {error.strerror}; choose another port") from None
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="control", daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def ask(self, job: Job) -> dict[str, Any]:
        """Have the loop do `job`; from any thread. Raises `TimeoutError`."""
        done: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._jobs.put((job, done))
        try:
            return done.get(timeout=ANSWER_S)
        except queue.Empty:
            raise TimeoutError from None

    def answer(self, served: Served) -> None:
        """Carry out what has been asked; called by the loop."""
        while True:
            try:
                job, done = self._jobs.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(job(served))
            except ConfigError as error:
                done.put({"error": str(error)})


def inject(served: Served, fault: dict[str, Any]) -> dict[str, Any]:
    """Break the twin. Raises `ConfigError`: a mistake in `fault`, or no twin."""
    rack = _twin(served)
    fault = dict(fault)
    if "for_s" in fault:
        for_s = fault.pop("for_s")
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or for_s <= 0:
            raise ConfigError(f"for_s = {for_s!r}: expected a number of seconds, greater than 0")
        start_s = fault.setdefault("at_s", float(served.measurement.head["time_s"][0]))
        fault["until_s"] = start_s + for_s
    rack.inject(fault)
    return {"faults": rack.faults}


def clear(served: Served, what: dict[str, Any]) -> dict[str, Any]:
    """Mend the twin. Raises `ConfigError`."""
    rack = _twin(served)
    if what.keys() - {"kind"}:
        raise ConfigError(f"unknown key '{min(what.keys() - {'kind'})}' (known: kind)")
    return {"cleared": rack.clear(what.get("kind")), "faults": rack.faults}


def _twin(served: Served) -> HasFaults:
    if not isinstance(served.rack, HasFaults):
        raise ConfigError("this rack is no twin: faults cannot be injected")
    return served.rack


class _Handler(BaseHTTPRequestHandler):
    control: Control
    timeout = ANSWER_S

    def do_GET(self) -> None:
        if self.path == "/state":
            self._do(lambda served: served.state())
        else:
            self._reply(404, {"error": f"{self.path}: unknown; GET /state, POST /inject, POST /clear"})

    def do_POST(self) -> None:
        actions = {"/inject": inject, "/clear": clear}
        action = actions.get(self.path)
        if action is None:
            self._reply(404, {"error": f"{self.path}: unknown; GET /state, POST /inject, POST /clear"})
            return
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if not 0 <= length <= LONGEST_BODY:
                raise ValueError
            body = json.loads(self.rfile.read(length) or b"{}")
            if not isinstance(body, dict):
                raise ValueError
        except ValueError:
            self._reply(400, {"error": "the body is not a JSON object"})
            return
        self._do(lambda served: action(served, body))

    def _do(self, job: Job) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in ("127.0.0.1", "localhost"):
            self._reply(403, {"error": "for this computer alone"})  # a web page must not reach it by another name
            return
        try:
            told = self.control.ask(job)
        except TimeoutError:
            self._reply(503, {"error": f"the loop has not answered within {ANSWER_S:g} s"})
            return
        self._reply(400 if "error" in told else 200, told)

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        data = (json.dumps(content) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on the terminal."""
