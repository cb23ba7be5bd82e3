"""A controller as a process of Linux, of this computer's processor or of another that QEMU translates for."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from hal.engine.child import Child, installed
from hal.engine.elf import Elf

PACKAGE = "qemu-user"


class Process(Child):
    """The program `elf`, the content of a file; `emulator`: the command that runs it, none for this computer.

    Its symbols `link_store` and `link_store_end` say which of its memory is seen. Raises `ConfigError` where the
    emulator is not installed.
    """

    def __init__(self, name: str, elf: bytes, emulator: Sequence[str] = ()) -> None:
        words = [installed(emulator[0], PACKAGE), *emulator[1:]] if emulator else []
        at = {symbol.name: symbol.value for symbol in Elf(elf).symbols()}
        super().__init__(name, elf, (at["link_store"], at["link_store_end"] - at["link_store"]))
        try:
            self._socket, theirs = socket.socketpair()
            with theirs:
                self.launch((*words, str(self.program), str(self.shared)), theirs.fileno())
        except BaseException:
            self.close()
            raise
