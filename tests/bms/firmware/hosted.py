"""C of the board, compiled for this computer as a library, beside a board in memory (host_board.c)."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BOARD = Path(__file__).parents[3] / "bms" / "firmware" / "board"
HOST = Path(__file__).parent / "host_board.c"
WORDS = (
    "-std=gnu11", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-ffp-contract=off",
    "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error",
)  # fmt: skip
MOST = 1 << 20


class Hosted:
    """The library at `path`, in a copy of its own: what is static in C begins anew."""

    def __init__(self, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()  # a second copy by another name is loaded a second time
        own = Path(self._folder.name) / path.name
        shutil.copyfile(path, own)
        self.c: Any = ctypes.CDLL(str(own))
        self.c.host_can_sent.restype = ctypes.c_size_t
        self._said = ctypes.create_string_buffer(MOST)

    def arrive(self, data: bytes) -> None:
        """Bytes come to the CAN port."""
        self.c.host_can_arrive(data, ctypes.c_size_t(len(data)))

    def said(self) -> bytes:
        """What has gone out on the CAN port since the last call."""
        size = self.c.host_can_sent(self._said)
        return ctypes.string_at(self._said, size)


def compiled(cc: str, folder: Path, sources: Sequence[str | Path], more: Sequence[str | Path] = ()) -> Path:
    """`sources` (of the board, by their name) as a library in `folder`; `more` are words for the compiler."""
    library = folder / "libboard.so"
    paths = [BOARD / source if isinstance(source, str) else source for source in sources]
    subprocess.run([cc, *WORDS, f"-I{folder}", f"-I{BOARD}", HOST, *paths, *more, "-o", library], check=True)
    return library
