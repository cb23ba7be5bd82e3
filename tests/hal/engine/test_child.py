"""A program in a process of its own: what it says, what is seen of its memory, and how it ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from hal.engine.child import Child, installed
from hal.errors import ConfigError, LinkError

STORE = (0x1000, 64)


class Shell(Child):
    """A few words of a shell, at a socket."""

    def __init__(self, words: str) -> None:
        super().__init__("shell", b"", STORE)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.launch(("/bin/sh", "-c", words, "sh", str(self.shared)), theirs.fileno())


@pytest.fixture
def echo() -> Iterator[Shell]:
    with Shell("cat") as child:
        yield child


def test_what_is_sent_comes_back_and_silence_is_nothing(echo: Shell) -> None:
    echo.send(b"abc")
    assert echo.receive(10.0) == b"abc"
    assert echo.receive(0.001) == b""


def test_its_memory_is_a_file_that_both_see() -> None:
    with Shell('printf xyz | dd of="$1" conv=notrunc 2>/dev/null; echo done') as child:
        assert child.receive(10.0) == b"done\n"
        assert child.memory(0x1000, 4).tobytes() == b"xyz\0"
        child.memory(0x1002, 1)[:] = 7
        assert child.shared.read_bytes()[:4] == b"xy\x07\0"
        for address, size in ((0xFFF, 4), (0x1000, 65)):
            with pytest.raises(LinkError, match=f"shell: {size} bytes at 0x{address:x} are not in the memory"):
                child.memory(address, size)


def test_one_that_ends_has_its_last_line_told() -> None:
    with Shell("echo first >&2; echo no disc >&2") as child:
        with pytest.raises(LinkError, match="shell has gone: no disc"):
            child.receive(10.0)
        folder = child.shared.parent
    assert not folder.exists()
    child.close()


def test_one_that_takes_nothing_has_not_gone() -> None:
    with Shell("echo starts >&2; exec sleep 60") as child:
        child.answer_s = 0.05
        with pytest.raises(LinkError, match="shell takes no bytes any more"):
            child.send(bytes(1 << 24))


def test_a_missing_emulator_names_its_package() -> None:
    with pytest.raises(ConfigError, match=r"qemu-none is not installed: apt-get install qemu-user \(\.ci/toolchain"):
        installed("qemu-none", "qemu-user")
    assert installed("sh", "dash").endswith("/sh")
