"""What an ELF file says of itself: its sections, and the symbols that it defines or needs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF"
_SYMBOLS, _NOTHING_KEPT = 2, 8  # kinds of section: a table of symbols; room that takes no place in the file
_WRITTEN, _LOADED = 1, 2  # flags of a section


@dataclass(frozen=True)
class Section:
    """A section of an ELF file; `loaded`: it takes room in memory, `written`: programs may write it."""

    name: str
    kind: int
    loaded: bool
    written: bool
    address: int
    offset: int
    size: int
    link: int

    @property
    def kept(self) -> bool:
        """Whether it has content, unlike memory that starts as zeros."""
        return self.kind != _NOTHING_KEPT


@dataclass(frozen=True)
class Symbol:
    """A name in the table of symbols; `section` is 0 where it is not defined here."""

    name: str
    value: int
    section: int


class Elf:
    """A parsed file, an object or a linked program. Raises `ValueError` for a file of another kind."""

    def __init__(self, code: bytes) -> None:
        if code[:4] != MAGIC:
            raise ValueError("not an ELF file")
        self._code = code
        self._wide = code[4] == 2
        self._order = "<" if code[5] == 1 else ">"
        at, size = (0x28, 0x3A) if self._wide else (0x20, 0x2E)
        (first,) = self._unpack("Q" if self._wide else "I", at)
        entry, count, names = self._unpack("HHH", size)
        heads = [self._unpack("IIQQQQI" if self._wide else "IIIIIII", first + k * entry) for k in range(count)]
        start = heads[names][4]
        self.sections = [
            Section(self._text(start + name), kind, bool(flags & _LOADED), bool(flags & _WRITTEN), address, *rest)
            for name, kind, flags, address, *rest in heads
        ]

    def symbols(self) -> list[Symbol]:
        """All that have a name."""
        found = []
        for table in self.sections:
            if table.kind != _SYMBOLS:
                continue
            names, step = self.sections[table.link].offset, 24 if self._wide else 16
            for place in range(table.offset + step, table.offset + table.size, step):  # the first is always empty
                if self._wide:
                    name, _, _, section, value = self._unpack("IBBHQ", place)
                else:
                    name, value, _, _, _, section = self._unpack("IIIBBH", place)
                if name:
                    found.append(Symbol(self._text(names + name), value, section))
        return found

    def undefined(self) -> set[str]:
        """Names that the file refers to and does not define."""
        return {symbol.name for symbol in self.symbols() if symbol.section == 0}

    def content(self, section: Section) -> bytes:
        """Bytes of a section."""
        return self._code[section.offset : section.offset + section.size] if section.kept else bytes(section.size)

    def _unpack(self, kinds: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + kinds, self._code, at)

    def _text(self, at: int) -> str:
        return self._code[at : self._code.index(b"\0", at)].decode()


def undefined_symbols(code: bytes) -> set[str]:
    """Names that an ELF object refers to and does not define; nothing for other formats."""
    return Elf(code).undefined() if code[:4] == MAGIC else set()
