"""QEMU as a controller's processor: the link is in its large memory, which can be seen from outside.

An emulated serial port takes a byte at a time, each through both of the emulator's threads. So bytes are left in the
memory, in two rings, and the port only rings: a byte after each frame, in either direction.

Time within is counted in instructions (`-icount`), so that a program takes the same time in every run, whatever this
computer has to do besides. An instruction takes two nanoseconds: a processor of 500 MHz that does one in each cycle.
A machine on a bus lives in this computer's time instead, and its second serial port is a pseudo-terminal.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from hal.engine.child import Child, installed
from hal.errors import LinkError

NS_A_INSTRUCTION = 2
_SECOND = ("-chardev", "pty,id=second,mux=on", "-serial", "chardev:second", "-echr", "256")
"""A port that may be shared has 32 bytes of room in the emulator, so that each takes a third of the time; no byte is
the 256 that would speak to the emulator itself."""
START_S = 30.0
STORE_BYTES = 16 << 20

MAIL_AT = STORE_BYTES - (513 << 10)
MAIL_BYTES = 1 << 18
_USED, _LEFT, _TAKEN, _SENT, _FETCHED = range(5)
_IN, _OUT = MAIL_AT + 64, MAIL_AT + 64 + MAIL_BYTES
"""The rings as mail.c of the firmware has them, where mps2.ld puts them: numbers, bytes to the program, and from it."""

USED = 0x4C49414D
"""Tells the program to look there."""

BELL = b"\0"


class Emulator(Child):
    """A machine `machine` of `command` that runs the program `elf`, the content of a file; used as a context manager.

    `store`: address of its large memory, which `memory` shows. `shift`: an instruction takes 2**shift nanoseconds;
    None: time is this computer's, and the second serial port is the pseudo-terminal `port`. `first`: the first serial
    port as `-serial` of QEMU has it, and no link; else the link is this object's. `kept`: a file of `STORE_BYTES` that
    holds the large memory, before and afterwards; the link then goes over the port alone. Raises `ConfigError` where
    the emulator is not installed, `LinkError` where it does not start.
    """

    def __init__(
        self,
        command: str,
        machine: str,
        elf: bytes,
        store: int,
        shift: int | None = 1,
        first: str = "",
        kept: Path | None = None,
    ) -> None:
        program = installed(command, command)
        super().__init__(f"{command} -M {machine}", elf, (store, STORE_BYTES), kept)
        self._mail_is_used = kept is None
        self._numbers = self.memory(store + MAIL_AT, 20).view("<u4")
        words: Sequence[str] = (
            program, "-M", f"{machine},memory-backend=store", "-nographic", "-monitor", "none",
            "-object", f"memory-backend-file,id=store,size={STORE_BYTES},mem-path={self.shared},share=on",
            "-kernel", str(self.program),
        )  # fmt: skip
        self._rest = _SECOND if shift is None else ("-icount", f"shift={shift}")
        try:
            if first:
                self.launch((*words, "-serial", first, *self._rest))
            else:
                if self._mail_is_used:
                    self._numbers[_USED] = USED
                self._connect(words)
        except BaseException:
            self.close()
            raise

    def _connect(self, words: Sequence[str]) -> None:
        link = self._folder / "link"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(link))
            listening.listen(1)
            process = self.launch((*words, "-serial", f"unix:{link}", *self._rest))
            deadline = time.monotonic() + START_S
            listening.settimeout(0.1)
            while self._socket is None:
                try:
                    self._socket, _ = listening.accept()
                except TimeoutError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise LinkError(f"{self.name} does not start: {self.said()}") from None

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        if not self._mail_is_used:
            super().send(data)
            return
        deadline = time.monotonic() + self.answer_s
        while data:
            left = int(self._numbers[_LEFT])
            room = MAIL_BYTES - (left - int(self._numbers[_TAKEN]) & 0xFFFFFFFF)
            if not room and time.monotonic() > deadline:
                raise LinkError(f"{self.name} takes no bytes any more")
            piece, data = data[:room], data[room:]
            at = left % MAIL_BYTES
            first, rest = piece[: MAIL_BYTES - at], piece[MAIL_BYTES - at :]
            self._memory[_IN + at : _IN + at + len(first)] = first
            self._memory[_IN : _IN + len(rest)] = rest
            self._numbers[_LEFT] = left + len(piece) & 0xFFFFFFFF
            super().send(BELL)
            if data:
                time.sleep(0.001)

    def receive(self, timeout_s: float) -> bytes:
        """What has arrived; nothing after `timeout_s`."""
        if not self._mail_is_used:
            return super().receive(timeout_s)
        deadline = time.monotonic() + timeout_s
        while not (data := self._mail()):
            if not super().receive(max(0.0, deadline - time.monotonic())):
                return self._mail()
        return data

    def _mail(self) -> bytes:
        """What lies in the memory."""
        fetched = int(self._numbers[_FETCHED])
        count = int(self._numbers[_SENT]) - fetched & 0xFFFFFFFF
        at = fetched % MAIL_BYTES
        data = self._memory[_OUT + at : _OUT + min(at + count, MAIL_BYTES)]
        data += self._memory[_OUT : _OUT + count - len(data)]
        self._numbers[_FETCHED] = fetched + count & 0xFFFFFFFF
        return data

    @property
    def port(self) -> str:
        """Name of the pseudo-terminal of the second serial port. Raises `LinkError` where there is none."""
        found = re.search(r"char device redirected to (\S+)", self.said_all())
        if found is None:
            raise LinkError(f"{self.name} has no second serial port: {self.said()}")
        return found[1]
