"""Where a repository is read: a folder and a web server, from any byte on."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal.errors import ConfigError, LinkError
from hal.flash.source import PIECE, Folder, MissingError, Source, Web, source

CONTENT = bytes(range(256)) * 1000


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A server that knows ranges; `plain` ones are served without."""

    ranges = True
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.asked.append(wanted)
        if not wanted or not self.ranges:
            super().do_GET()
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        data = Path(self.translate_path(self.path)).read_bytes()
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206)
        self.end_headers()
        self.wfile.write(data[begin:])

    def log_message(self, *words: object) -> None:
        pass


class Plain(Ranges):
    ranges = False


@pytest.fixture(params=["folder", "ranges", "plain"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a+b c").write_bytes(CONTENT)
    if request.param == "folder":
        yield Folder(tmp_path)
        return
    handler = functools.partial(Ranges if request.param == "ranges" else Plain, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Web(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("offset", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(CONTENT) - 1, len(CONTENT)])
def test_from_any_byte_on(repository: Source, offset: int) -> None:
    Ranges.asked.clear()
    pieces = list(repository.stream("sub/a+b c", offset))
    assert b"".join(pieces) == CONTENT[offset:]
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    if isinstance(repository, Web):
        assert Ranges.asked == [f"bytes={offset}-" if offset else ""]


def test_what_is_missing(repository: Source) -> None:
    with pytest.raises(MissingError, match="sub/none is missing"):
        list(repository.stream("sub/none", 0))


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LinkError, match="the same command goes on where it was cut off"):
        list(Web(f"http://127.0.0.1:{port}").stream("x", 0))


def test_a_server_that_breaks_off_and_one_that_answers_with_an_error() -> None:
    for answer, reason in (
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabc", "the same command goes on"),
        (b"HTTP/1.0 500 Oh\r\n\r\n", "the server answers 500 Oh"),
        (b"nothing of the kind\r\n\r\n", "the same command goes on"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve(server: socket.socket = server, answer: bytes = answer) -> None:
                peer, _ = server.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            with pytest.raises(LinkError, match=reason):
                list(Web(f"http://127.0.0.1:{server.getsockname()[1]}").stream("x", 0))
            thread.join()


def test_a_folder_without_a_repository(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no repository there"):
        source(str(tmp_path))
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "timestamp.json").touch()
    assert str(source(str(tmp_path))) == str(tmp_path)
    assert str(source("https://example.org/repo/")) == "https://example.org/repo"
    (tmp_path / "x").mkdir()
    with pytest.raises(LinkError, match="x: cannot be read"):
        list(Folder(tmp_path).stream("x", 0))
