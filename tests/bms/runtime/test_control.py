"""The control channel of `bms serve`: what it tells, what it breaks, and who it does not listen to."""

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bms.runtime.control import Control
from hal.contract import Measurement
from hal.errors import ConfigError, LinkError


class Twin:
    """Remembers its faults."""

    def __init__(self) -> None:
        self.faults: list[dict[str, Any]] = []

    def inject(self, fault: dict[str, Any]) -> None:
        if fault.get("kind") == "wrong":
            raise ConfigError("[[fault]] kind = 'wrong'")
        self.faults.append(dict(fault))

    def clear(self, kind: str | None = None) -> int:
        before = len(self.faults)
        self.faults = [fault for fault in self.faults if kind is not None and fault["kind"] != kind]
        return before - len(self.faults)


class Loop:
    """Answers the channel as the loop does, in a thread of its own."""

    def __init__(self, rack: Any) -> None:
        self.rack, self.measurement = rack, Measurement(4, 1)
        self.measurement.head["time_s"] = 12.0
        self.control = Control(0)
        self.control.start()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.ending.wait(0.002):
            self.control.answer(self)

    def state(self) -> dict[str, Any]:
        return {"rack": "twin"}

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        one = http.client.HTTPConnection("127.0.0.1", self.control.port, timeout=10)
        one.request(method, path, body, headers)
        reply = one.getresponse()
        found = reply.status, json.loads(reply.read())
        one.close()
        return found

    def end(self) -> None:
        self.ending.set()
        self.thread.join(10)
        self.control.stop()
        self.control.stop()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(Twin())
    yield made
    made.end()


def test_the_state_is_told(loop: Loop) -> None:
    assert loop.ask("GET", "/state") == (200, {"rack": "twin"})


def test_faults_come_and_go(loop: Loop) -> None:
    assert loop.ask("POST", "/inject", '{"kind": "a"}') == (200, {"faults": [{"kind": "a"}]})
    status, told = loop.ask("POST", "/inject", '{"kind": "b", "for_s": 3}')
    assert (status, told["faults"][1]) == (200, {"kind": "b", "at_s": 12.0, "until_s": 15.0})
    assert loop.ask("POST", "/clear", '{"kind": "a"}')[1]["cleared"] == 1
    assert loop.ask("POST", "/clear") == (200, {"cleared": 1, "faults": []})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/", "", 404, "GET /state"),
        ("POST", "/state", "{}", 404, "POST /inject"),
        ("POST", "/inject", "[1]", 400, "not a JSON object"),
        ("POST", "/inject", "{", 400, "not a JSON object"),
        ("POST", "/inject", '{"kind": "wrong"}', 400, "kind = 'wrong'"),
        ("POST", "/inject", '{"kind": "a", "for_s": -1}', 400, "for_s = -1"),
        ("POST", "/clear", '{"king": "a"}', 400, "unknown key 'king'"),
        ("POST", "/inject", " " * 70000, 400, "not a JSON object"),
    ],
)
def test_mistakes_are_told(loop: Loop, method: str, path: str, body: str, status: int, said: str) -> None:
    found, told = loop.ask(method, path, body)
    assert found == status
    assert said in told["error"]
    assert loop.rack.faults == []


def test_a_web_page_cannot_reach_it_by_another_name(loop: Loop) -> None:
    assert loop.ask("GET", "/state", Host="evil.example")[0] == 403
    assert loop.ask("GET", "/state", Host=f"localhost:{loop.control.port}")[0] == 200


def test_a_rack_that_is_no_twin_cannot_be_broken() -> None:
    loop = Loop(object())
    try:
        assert loop.ask("POST", "/inject", '{"kind": "a"}') == (
            400,
            {"error": "this rack is no twin: faults cannot be injected"},
        )
    finally:
        loop.end()


def test_a_port_that_is_taken_is_told(loop: Loop) -> None:
    with pytest.raises(LinkError, match="choose another port"):
        Control(loop.control.port).start()
    with pytest.raises(ConfigError, match="--control 70000"):
        Control(70000)
