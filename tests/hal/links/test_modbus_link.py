"""The wire below a Modbus rack: a peer that nobody here wrote, and answers that cannot be used."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from hal.codec.modbus_url import parse
from hal.links.modbus_link import Down, Link, RefusedError


class Peer:
    """Accepts one connection after another, and answers each request with what `reply` makes of it."""

    def __init__(self, reply: Callable[[bytes], bytes | None]) -> None:
        self.reply = reply
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            with one:
                while data := one.recv(4096):
                    answer = self.reply(data)
                    if answer is None:
                        break
                    one.sendall(answer)


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[bytes], bytes | None]], Link]]:
    made: list[Peer] = []
    links: list[Link] = []

    def make(reply: Callable[[bytes], bytes | None]) -> Link:
        made.append(Peer(reply))
        link = Link(parse(f"tcp://127.0.0.1:{made[-1].port}", {}, "x"), 1, 0.3)
        link.connect()
        links.append(link)
        return link

    yield make
    for link in links:
        link.close()
    for one in made:
        one.listener.close()


def words(request: bytes, *values: int) -> bytes:
    data = b"".join(value.to_bytes(2, "big") for value in values)
    return request[:4] + (len(data) + 3).to_bytes(2, "big") + request[6:8] + bytes((len(data),)) + data


def test_registers_are_read_and_written(peer: Callable[..., Link]) -> None:
    link = peer(lambda request: words(request, 7, 8) if request[7] == 3 else request[:4] + b"\0\6" + request[6:12])
    assert link.read(100, 2) == [7, 8]
    link.write(100, [1, 2, 3])


def test_an_exception_is_a_refusal_and_the_connection_stays(peer: Callable[..., Link]) -> None:
    link = peer(lambda request: request[:4] + b"\0\3" + request[6:7] + bytes((request[7] | 0x80, 2)))
    for _ in range(3):
        with pytest.raises(RefusedError, match=r"refuses to read 5 registers from 9: illegal address \(exception 2\)"):
            link.read(9, 5)
    odd = peer(lambda request: request[:4] + b"\0\3" + request[6:7] + bytes((request[7] | 0x80, 99)))
    with pytest.raises(RefusedError, match=r"unknown code \(exception 99\)"):
        odd.write(9, [1])


def test_a_device_that_closes_the_connection_is_told(peer: Callable[..., Link]) -> None:
    with pytest.raises(Down, match="^the device closes the connection: it has no room, or wants TLS with a cert"):
        peer(lambda _: None).read(9, 5)


@pytest.mark.parametrize(
    "reply",
    [
        lambda request: None,
        lambda request: b"",
        lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda request: words(request, 7)[:-1],
        lambda request: words(request, 7),
        lambda request: words(request, 7, 8, 9),
        lambda request: b"\xff\xff" + words(request, 7, 8)[2:],
    ],
)
def test_an_answer_that_cannot_be_used_gives_the_connection_up(
    peer: Callable[..., Link], reply: Callable[[bytes], bytes | None]
) -> None:
    link = peer(reply)
    with pytest.raises(Down):
        link.read(100, 2)
    with pytest.raises(Down, match="not connected"):
        link.read(100, 2)


def test_a_refused_connection_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    link = Link(parse(f"tcp://127.0.0.1:{port}", {}, "x"), 1, 1.0)
    with pytest.raises(Down, match="Connection refused"):
        link.connect()
    with pytest.raises(Down, match="no_such_port|No such file"):
        Link(parse("rtu:/dev/no_such_port", {}, "x"), 1, 1.0).connect()
