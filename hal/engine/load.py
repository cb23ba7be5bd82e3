"""From machine code to functions: an object through LLVM's loader, a shared library through the system's.

Neither needs numba; a shared library needs no LLVM either. What is loaded stays for the life of the process.
"""

from __future__ import annotations

import ctypes
import json
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hal.engine.signature import Signature
from hal.errors import ConfigError

_KEPT: list[Any] = []

REMEDY = "build it again: bms build --target host"


class Native:
    """An entry as machine code: call it with arrays and scalars, or `bind` the arrays first."""

    def __init__(self, name: str, signature: Signature, address: int) -> None:
        self.name = name
        self.signature = signature
        self.function = signature.prototype()(address)
        self._convert = [_CONVERT[scalar.kind[0]] for scalar in signature.scalars]

    def __call__(self, *args: Any) -> Any:
        """Call it. Raises `TypeError` for arguments that do not fit the signature."""
        split = self.signature.n_arrays
        pointers = self.signature.pointers(self.name, args[:split])
        scalars = args[split:]
        if len(scalars) != len(self._convert):
            raise TypeError(
                f"{self.name}: {len(scalars)} scalars, expected {len(self._convert)} as in {self.signature}"
            )
        return self.function(*pointers, *(convert(x) for convert, x in zip(self._convert, scalars, strict=True)))

    def bind(self, *arrays: Any) -> Callable[..., Any]:
        """A function of the scalars alone (Python numbers); it keeps `arrays` and has looked at them once."""
        bound: Any = partial(self.function, *self.signature.pointers(self.name, arrays))
        bound.arrays = arrays
        return bound  # type: ignore[no-any-return]


_CONVERT: dict[str, Callable[[Any], Any]] = {"f": float, "i": operator.index, "u": operator.index, "b": bool}


@dataclass(frozen=True)
class Table:
    """What a program says of itself, inside its machine code: its name, the digest of its sources, its entries.

    `needs` names what the processor must be able to do, as `/proc/cpuinfo` spells it.
    """

    program: str
    digest: str
    entries: dict[str, str]
    needs: tuple[str, ...] = field(default=(), compare=False)

    def to_bytes(self) -> bytes:
        """As text that ends with a zero byte."""
        content = {"program": self.program, "digest": self.digest, "entries": self.entries, "needs": self.needs}
        return json.dumps(content, sort_keys=True).encode() + b"\0"

    @classmethod
    def from_bytes(cls, text: bytes) -> Table:
        """Undo `to_bytes`, without the zero byte. Raises `ValueError`."""
        try:
            content = json.loads(text)
            return cls(content["program"], content["digest"], content["entries"], tuple(content["needs"]))
        except (KeyError, TypeError) as error:
            raise ValueError("not the table of a program") from error


def symbol(prefix: str, entry: str) -> str:
    """Name of the C function of an entry."""
    return f"{prefix}_{entry}"


def table_symbol(prefix: str) -> str:
    """Name of the program's `Table`."""
    return f"{prefix}_table"


def from_object(code: bytes) -> Callable[[str], int]:
    """Load an object of this computer's own kind; returns what gives the address of a symbol."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _KEPT.append(engine)
    return engine.get_function_address  # type: ignore[no-any-return]


class Library:
    """A shared library with programs in it. Raises `ConfigError` for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._library = ctypes.CDLL(str(path.resolve(strict=True)))
        except FileNotFoundError as error:
            raise ConfigError(f"{path}: there is no such library: make it with bms build --target host") from error
        except OSError as error:
            raise ConfigError(f"{path}: not a library of this computer's kind ({error}): {REMEDY}") from error
        _KEPT.append(self._library)

    def address(self, name: str) -> int:
        """Address of a symbol. Raises `ValueError` where there is none of this name."""
        return ctypes.addressof(ctypes.c_char.in_dll(self._library, name))

    def table(self, prefix: str) -> Table | None:
        """What the program with this prefix says of itself; None where the library does not hold it."""
        try:
            return Table.from_bytes(ctypes.string_at(self.address(table_symbol(prefix))))
        except ValueError:
            return None

    def check(self, prefix: str, expected: Table) -> None:
        """Raise `ConfigError` unless the library holds just this version of the program."""
        found = self.table(prefix)
        if found is None:
            raise ConfigError(f"{self.path}: holds no program '{expected.program}': {REMEDY}")
        if found != expected:
            raise ConfigError(f"{self.path}: was built from other sources of '{expected.program}' than these: {REMEDY}")
        able = abilities()
        if able and (lacking := [need for need in found.needs if need not in able]):
            what = ", ".join(lacking)
            raise ConfigError(f"{self.path}: was built for a processor with {what}, which this one has not: {REMEDY}")


def abilities() -> set[str]:
    """What this computer's processor can do, as `/proc/cpuinfo` spells it; nothing where that cannot be told."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return set(words.split())
    except OSError:
        pass
    return set()
