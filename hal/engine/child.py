"""A program in a process of its own: its link is a socket, and a part of its memory is a file that both sides see."""

from __future__ import annotations

import contextlib
import mmap
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from hal.contract import U1
from hal.errors import ConfigError, LinkError

ANSWER_S = 30.0
_TIED = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
"""What has the program end with this process, even where that is killed; on Linux."""


def installed(command: str, package: str) -> str:
    """Path of an emulator. Raises `ConfigError` with the package that brings it."""
    program = shutil.which(command)
    if program is None:
        raise ConfigError(f"{command} is not installed: apt-get install {package} (.ci/toolchain does so)")
    return program


class Child:
    """The program `elf`, the content of a file, once `launch` has been called; used as a context manager.

    `store`: address and size in bytes of the memory that is seen; it lies in the file `shared`,
    which is `kept` where that is given, and stays.
    """

    answer_s = ANSWER_S

    def __init__(self, name: str, elf: bytes, store: tuple[int, int], kept: Path | None = None) -> None:
        self.name = name
        self.store = store
        self._folder = Path(tempfile.mkdtemp(prefix="rackbms-"))
        self.program, self.shared = self._folder / "program", kept or self._folder / "memory"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.program.write_bytes(elf)
        self.program.chmod(0o700)
        with self.shared.open("w+b" if kept is None else "r+b") as file:
            if kept is None:
                file.truncate(store[1])
            self._memory = mmap.mmap(file.fileno(), store[1])

    def launch(self, words: Sequence[str], link: int | None = None) -> subprocess.Popen[bytes]:
        """Start the process; `link`: what its standard input and output are."""
        with (self._folder / "said").open("wb") as said:
            own, out = (subprocess.DEVNULL, said) if link is None else (link, link)
            self._process = subprocess.Popen(  # of another session: Ctrl-C is for this process, which then ends it
                (*_TIED, *words), stdin=own, stdout=out, stderr=said, start_new_session=True
            )
        return self._process

    def memory(self, address: int, size: int) -> U1:
        """Bytes of the memory that is seen, (size,): a view that reads and writes what the program sees."""
        first = address - self.store[0]
        if not 0 <= first <= first + size <= self.store[1]:
            raise LinkError(f"{self.name}: {size} bytes at 0x{address:x} are not in the memory that can be seen")
        return np.frombuffer(self._memory, np.uint8, size, first)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        assert self._socket is not None
        try:
            self._socket.settimeout(self.answer_s)
            self._socket.sendall(data)
        except TimeoutError:
            raise LinkError(f"{self.name} takes no bytes any more") from None
        except OSError as error:
            raise LinkError(f"{self.name} has gone: {self.said() or error}") from None

    def receive(self, timeout_s: float) -> bytes:
        """What has arrived; nothing after `timeout_s`."""
        assert self._socket is not None
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return b""
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise LinkError(f"{self.name} has gone: {self.said()}")
        return data

    def said(self) -> str:
        """The last line that the process has written for people."""
        lines = self.said_all().strip().splitlines()
        return lines[-1] if lines else "it does not say why"

    def said_all(self) -> str:
        """All that it has written for people."""
        with contextlib.suppress(OSError):
            return (self._folder / "said").read_text(errors="replace")
        return ""

    def close(self) -> None:
        """End the process; may be called more than once."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
