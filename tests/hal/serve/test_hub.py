"""The hub: frames go to every other client of the bus, and nothing that a client sends harms the rest."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import can
import pytest
from can.interfaces.socketcand import SocketCanDaemonBus

from hal.serve import hub as hub_module
from hal.serve.hub import LOOPBACK, MAX_CLIENTS, MAX_LINE, Hub, main


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(0) as running:
        yield running


def bus(hub: Hub, channel: str = "can0") -> SocketCanDaemonBus:
    return SocketCanDaemonBus(channel=channel, host=LOOPBACK, port=hub.port)


class Raw:
    """A client that writes what it likes."""

    def __init__(self, hub: Hub) -> None:
        self.socket = socket.create_connection((LOOPBACK, hub.port), timeout=5.0)
        self.text = b""

    def expect(self, text: bytes) -> None:
        while text not in self.text:
            data = self.socket.recv(4096)
            assert data, f"closed before {text!r}"
            self.text += data
        self.text = self.text.split(text, 1)[1]

    def say(self, text: bytes, answer: bytes) -> None:
        self.socket.sendall(text)
        self.expect(answer)

    def is_closed(self) -> bool:
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(4096):
                pass
        return True


def frame(number: int, data: bytes = b"\1\2", extended: bool = False) -> can.Message:
    return can.Message(arbitration_id=number, data=data, is_extended_id=extended)


def test_a_frame_reaches_every_other_client_of_its_bus(hub: Hub) -> None:
    with bus(hub) as one, bus(hub) as two, bus(hub) as three, bus(hub, "can1") as elsewhere:
        for number, extended in ((0x123, False), (0x12345678, True), (0x7, True)):
            one.send(frame(number, bytes(range(8)), extended))
            for other in (two, three):
                got = other.recv(5.0)
                assert got is not None
                assert (got.arbitration_id, got.is_extended_id, bytes(got.data)) == (number, extended, bytes(range(8)))
        elsewhere.send(frame(1))
        two.send(frame(2, b""))
        got = one.recv(5.0)
        assert got is not None
        assert (got.arbitration_id, len(got.data)) == (2, 0)
        assert elsewhere.recv(0.0) is None


def test_nothing_is_lost_and_the_order_kept(hub: Hub) -> None:
    with bus(hub) as one, bus(hub) as two:
        for k in range(5000):
            one.send(frame(k % 2048, k.to_bytes(4, "big")))
        for k in range(5000):
            got = two.recv(5.0)
            assert got is not None
            assert int.from_bytes(got.data, "big") == k


def test_frames_wait_until_a_new_client_has_read_the_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """python-can reads the answer to rawmode with whatever comes behind it, and gives up."""

    def settled() -> None:
        until_s = time.monotonic() + 5.0
        while any(c.quiet_until_s == float("inf") for c in hub._clients):
            assert time.monotonic() < until_s
            time.sleep(0.001)

    with bus(hub) as one, bus(hub) as two:
        settled()  # the hub has answered them before it takes down when
        monkeypatch.setattr(hub_module, "QUIET_S", 3.0)
        client = Raw(hub)
        client.expect(b"< hi >")
        client.say(b"< open can0 >", b"< ok >")
        client.socket.sendall(b"< rawmode >")
        settled()
        one.send(frame(5))
        assert two.recv(5.0) is not None, "the hub has passed it on"
        assert client.socket.recv(4096) == b"< ok >"
        client.expect(b"< frame 005 ")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"< send 123 2 1 >",
        b"< send 12 0 >",
        b"< send 123 9 1 >",
        b"< send 123 1 1FF >",
        b"< x >",
        b"\xff\xfe >",
        b">>>",
    ],
)
def test_nonsense_is_answered_and_passed_to_no_one(hub: Hub, nonsense: bytes) -> None:
    with bus(hub) as other:
        client = Raw(hub)
        client.expect(b"< hi >")
        client.say(b"< send 001 0 >", b"< error")  # not before a bus is open
        client.say(b"< open can0 >", b"< ok >")
        client.say(b"< rawmode >", b"< ok >")
        client.say(nonsense, b"< error")
        client.socket.sendall(b"< send 0")  # in two pieces
        client.say(b"07 1 AA >< echo >", b"< echo >")
        got = other.recv(5.0)
        assert got is not None
        assert (got.arbitration_id, bytes(got.data)) == (7, b"\xaa")


def test_a_client_that_never_ends_a_line_is_cut_off(hub: Hub) -> None:
    client = Raw(hub)
    client.socket.sendall(b"<" + b"x" * (MAX_LINE + 1))
    assert client.is_closed()


def test_a_client_that_does_not_read_is_cut_off_and_the_rest_is_served(hub: Hub) -> None:
    deaf = Raw(hub)
    deaf.expect(b"< hi >")
    deaf.say(b"< open can0 >", b"< ok >")
    deaf.say(b"< rawmode >", b"< ok >")
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with bus(hub) as one, bus(hub) as two:
        until_s, sent = time.monotonic() + 60.0, 0
        while len(hub._clients) == 3:
            assert time.monotonic() < until_s
            for _ in range(500):
                one.send(frame(1, bytes(8)))
                sent += 1
            for _ in range(500):
                assert two.recv(5.0) is not None
        assert deaf.is_closed()


def test_no_more_clients_than_there_is_room_for(hub: Hub) -> None:
    clients = [Raw(hub) for _ in range(MAX_CLIENTS)]
    for client in clients:
        client.expect(b"< hi >")
    assert Raw(hub).is_closed()
    clients[0].socket.close()
    until_s = time.monotonic() + 5.0
    while len(hub._clients) == MAX_CLIENTS:
        assert time.monotonic() < until_s
        time.sleep(0.001)
    Raw(hub).expect(b"< hi >")


def test_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-m", "hal.serve.hub", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().split()[-1].partition(":")
        with SocketCanDaemonBus(channel="c", host=host, port=int(port)):
            assert main(["--port", port]) == 2
        process.terminate()
        assert process.wait(10.0) == 0
    assert f"--port {port}: cannot listen there" in capsys.readouterr().err
