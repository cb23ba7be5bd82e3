"""QEMU as a controller's processor: the link is its serial port, and its large memory can be seen from outside.

Time within is counted in instructions (`-icount`), so that a program takes the same time in every run, whatever this
computer has to do besides. An instruction takes two nanoseconds: a processor of 500 MHz that does one in each cycle.
A machine on a bus lives in this computer's time instead, and its second serial port is a pseudo-terminal.
"""

from __future__ import annotations

import contextlib
import mmap
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from hal.contract import U1
from hal.errors import ConfigError, LinkError

NS_A_INSTRUCTION = 2
_TIED = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
"""What has the emulator end with this process, even where that is killed; on Linux."""
_SECOND = ("-chardev", "pty,id=second,mux=on", "-serial", "chardev:second", "-echr", "256")
"""A port that may be shared has 32 bytes of room in the emulator, so that each takes a third of the time; no byte is
the 256 that would speak to the emulator itself."""
START_S = 30.0
ANSWER_S = 30.0
STORE_BYTES = 16 << 20


class Emulator:
    """A machine `machine` of `command` that runs the program `elf`, the content of a file; used as a context manager.

    `store`: address of its large memory, which `memory` shows. `shift`: an instruction takes 2**shift nanoseconds;
    None: time is this computer's, and the second serial port is the pseudo-terminal `port`. `kept`: a file of
    `STORE_BYTES` that holds its large memory, before and afterwards. Raises `ConfigError` where the emulator is not
    installed, `LinkError` where it does not start.
    """

    answer_s = ANSWER_S

    def __init__(
        self, command: str, machine: str, elf: bytes, store: int, shift: int | None = 1, kept: Path | None = None
    ) -> None:
        program = shutil.which(command)
        if program is None:
            raise ConfigError(f"{command} is not installed: apt-get install {command} (.ci/toolchain does so)")
        self.name = f"{command} -M {machine}"
        self._store = store
        self._folder = Path(tempfile.mkdtemp(prefix="rackbms-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._memory: mmap.mmap | None = None
        try:
            (self._folder / "program").write_bytes(elf)
            self._start(program, machine, shift, kept)
        except BaseException:
            self.close()
            raise

    def _start(self, program: str, machine: str, shift: int | None, kept: Path | None) -> None:
        memory, port = kept or self._folder / "memory", self._folder / "link"
        if kept is None:
            with memory.open("wb") as file:
                file.truncate(STORE_BYTES)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(port))
            listening.listen(1)
            listening.settimeout(START_S)
            words: Sequence[str] = (
                *_TIED, program, "-M", f"{machine},memory-backend=store", "-nographic", "-monitor", "none",
                "-object", f"memory-backend-file,id=store,size={STORE_BYTES},mem-path={memory},share=on",
                "-serial", f"unix:{port}", "-kernel", str(self._folder / "program"),
                *(_SECOND if shift is None else ("-icount", f"shift={shift}")),
            )  # fmt: skip
            with (self._folder / "said").open("wb") as said:
                self._process = subprocess.Popen(  # of another session: Ctrl-C is for this process, which then ends it
                    words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
                )
            deadline = time.monotonic() + START_S
            listening.settimeout(0.1)
            while self._socket is None:
                try:
                    self._socket, _ = listening.accept()
                except TimeoutError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        raise LinkError(f"{self.name} does not start: {self._said()}") from None
        with memory.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), STORE_BYTES)

    def memory(self, address: int, size: int) -> U1:
        """Bytes of the large memory, (size,): a view that reads and writes what the program sees."""
        first = address - self._store
        if self._memory is None or not 0 <= first <= first + size <= STORE_BYTES:
            raise LinkError(f"{self.name}: {size} bytes at 0x{address:x} are not in the memory that can be seen")
        return np.frombuffer(self._memory, np.uint8, size, first)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        assert self._socket is not None
        try:
            self._socket.settimeout(self.answer_s)
            self._socket.sendall(data)
        except OSError as error:
            raise LinkError(f"{self.name} has gone: {self._said() or error}") from None

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
            raise LinkError(f"{self.name} has gone: {self._said()}")
        return data

    @property
    def port(self) -> str:
        """Name of the pseudo-terminal of the second serial port. Raises `LinkError` where there is none."""
        said = (self._folder / "said").read_text(errors="replace")
        found = re.search(r"char device redirected to (\S+)", said)
        if found is None:
            raise LinkError(f"{self.name} has no second serial port: {self._said()}")
        return found[1]

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._folder / "said").read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else "it does not say why"
        return "it does not say why"

    def close(self) -> None:
        """End the emulator; may be called more than once."""
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
