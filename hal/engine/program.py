"""A program: the entries of a room, compiled together, kept on disk, or taken from a library.

Compiled when an entry is called first, unless `prepare` has done so before. The machine code of a program depends on
its own sources, those of this package, the compilers' versions and the processor; the digest of all that is its key on
disk (`hal.engine.cache`).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, overload

from hal.engine import cache, load
from hal.engine import kernel as kernels
from hal.engine.kernel import Kernel
from hal.engine.load import Library, Native, Table, symbol
from hal.engine.signature import Signature
from hal.engine.targets import PROCESSORS, REFERENCE, Target
from hal.errors import ConfigError

if TYPE_CHECKING:
    import subprocess

MEMORY = frozenset({"memcpy", "memset", "memmove"})
"""What every target has, and LLVM calls for long runs of bytes."""

MATHEMATICS = frozenset(
    {"acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "exp", "exp2", "expm1", "fmod"}
    | {"hypot", "ldexp", "log", "log10", "log1p", "log2", "pow", "sin", "sincos", "sinh", "tan", "tanh"}
)
"""Functions of the C library that a program may be allowed to call; their last bit differs between systems."""

MEANING = ("compile.py", "intrinsics.py", "signature.py")
"""Files of this package that say what kernels mean."""

MAKING = ("compile.py", "intrinsics.py", "kernel.py", "load.py", "program.py", "signature.py", "targets.py")
"""Files of this package that machine code depends on."""

Report = Callable[[str], None]


class Program:
    """The kernels of a room.

    `place` is "module:NAME" of this object. `modules` define the entries; `sources` are the files and folders that the
    kernels are made of. `about` says in words what it does; `prefix` begins the names of its C functions. `entries`
    are all entries of kernels of another kind, `kind` (see `sim.jit`), that this program compiles. `mathematics`: may
    call the C library's elementary functions.
    """

    def __init__(
        self,
        name: str,
        *,
        place: str,
        about: str,
        modules: tuple[str, ...],
        sources: tuple[Path, ...],
        prefix: str = "",
        kind: Any = Kernel,
        entries: Sequence[Any] | None = None,
        mathematics: bool = False,
    ) -> None:
        self.name = name
        self.place = place
        self.about = about
        self.modules = modules
        self.sources = sources
        self.prefix = prefix or f"rackbms_{name}"
        self.kind = kind
        self.allowed = MEMORY | (MATHEMATICS if mathematics else frozenset())
        self._known: Any = entries if entries is not None else []
        self._address: Callable[[str], int] | None = None
        self._library: Library | None = None
        self._elsewhere: Mapping[str, Any] | None = None
        self._lock = RLock()

    # --- decorating -------------------------------------------------------------------------------------------------

    @overload
    def kernel(self, function: Callable[..., Any]) -> Kernel: ...

    @overload
    def kernel(self, function: str) -> Callable[[Callable[..., Any]], Kernel]: ...

    def kernel(self, function: Callable[..., Any] | str) -> Any:
        """The decorator: `@kernel` for a helper, `@kernel("signature")` for an entry. Raises `ValueError`."""
        if not isinstance(function, str):
            return Kernel(function, None, self)
        Signature(function)
        return partial(self._entry, function)

    def _entry(self, signature: str, function: Callable[..., Any]) -> Kernel:
        made = Kernel(function, signature, self)
        self._known.append(made)
        return made

    # --- what it consists of ----------------------------------------------------------------------------------------

    @cached_property
    def entries(self) -> dict[str, Any]:
        """All entries by name; imports the modules that define them."""
        for module in self.modules:
            import_module(module)
        found: dict[str, Any] = {}
        for kernel in self._known:
            if kernel.py_func.__module__ in self.modules:
                if kernel.__name__ in found:
                    raise ValueError(f"program '{self.name}' has two entries {kernel.__name__}")
                found[kernel.__name__] = kernel
        return found

    @cached_property
    def table(self) -> Table:
        """What the program says of itself; two sides with the same table agree on every byte."""
        digest = cache.digest_of([*self.sources, *_files(MEANING)]).hex()
        return Table(self.name, digest, {name: str(Signature(k.signature)) for name, k in self.entries.items()})

    def key(self, target: Target | None = None) -> bytes:
        """Digest of all that the machine code for `target`, or this computer, depends on. Raises `ConfigError`."""
        self._needed("llvmlite.binding")
        target = target if target is not None else Target.host()
        versions = " ".join(compiler_versions().values())
        words = (self.table.to_bytes().decode(), f"{versions} {target.triple}", target.cpu, target.features)
        return cache.digest_of(_files(MAKING), *words)

    # --- where it comes from ----------------------------------------------------------------------------------------

    def use(self, library: Library | None) -> None:
        """Take the machine code from `library`; None: find or compile it. Raises `ConfigError`."""
        if library is not None:
            library.check(self.prefix, self.table)
        with self._lock:
            if library is self._library and self._elsewhere is None:
                return
            self._library, self._elsewhere = library, None
            self._address = library.address if library is not None else None
            for kernel in self.entries.values():
                kernel.forget()

    def run_elsewhere(self, entries: Mapping[str, Any]) -> None:
        """Have `entries`, by name, run by what is given for them, until `use` is called; the others cannot run then.

        Each takes what the entry takes, and has a `bind` for arrays.
        """
        with self._lock:
            self._elsewhere = entries
            for kernel in self.entries.values():
                kernel.forget()

    def here(self, name: str) -> Native:
        """The machine code of an entry on this computer, whatever runs elsewhere. Raises `ConfigError`."""
        with self._lock:
            if self._address is None:
                self._address = load.from_object(self.code())
        return Native(name, Signature(self.entries[name].signature), self._address(symbol(self.prefix, name)))

    def ready(self) -> bool:
        """Whether nothing has to be compiled; loads what is there."""
        with self._lock:
            if not self.entries or self._elsewhere is not None:
                return True
            if self._address is None and (code := cache.load(self.name, self.key())) is not None:
                self._address = load.from_object(code)
            return self._address is not None

    def load(self) -> None:
        """Have all entries at hand: from disk or compiled, unless `use` has named a library. Raises `ConfigError`."""
        with self._lock:
            if not self.ready():
                self._address = load.from_object(self.code())

    def native(self, kernel: Any) -> Any:
        """What runs an entry: its machine code, or another processor. One that is defined elsewhere is compiled alone.

        Raises `ConfigError`.
        """
        signature = Signature(kernel.signature)
        name = kernel.__name__
        if self.entries.get(name) is kernel:
            if self._elsewhere is not None:
                if name not in self._elsewhere:
                    raise ConfigError(f"'{name}' cannot run on the controller that --engine names: only a single rack")
                return self._elsewhere[name]
            return self.here(name)
        code = self._object(Table(name, "", {name: str(signature)}), {name: kernel})
        return Native(name, signature, load.from_object(code)(symbol(self.prefix, name)))

    # --- compiling --------------------------------------------------------------------------------------------------

    def code(self) -> bytes:
        """The object for this computer, from disk or compiled and kept. Raises `ConfigError`."""
        return self._kept(self.name, self.key(), self.compile)

    def compile(self, target: Target | None = None) -> bytes:
        """The object of all entries, for `target` or this computer. Raises `ConfigError`."""
        return self._object(self.table, self.entries, target)

    def assembly(self, target: Target | None = None) -> str:
        """The same as text for a person, or for a test that looks at the instructions."""
        compiler = self._needed("hal.engine.compile")
        target = target if target is not None else Target.host()
        text: str = compiler.to_assembly(self._module(self.table, self.entries, target), target)
        return text

    def assemblies(self, targets: Sequence[Target]) -> list[str]:
        """`assembly` for each of `targets`, which have one triple: numba's part is done once. Raises `ConfigError`."""
        compiler = self._needed("hal.engine.compile")
        bitcode = compiler.lowered(*self._functions(self.table, self.entries), targets[0]).as_bitcode()
        exported = self._exported(self.entries)
        modules = [compiler.optimised(compiler.retargeted(bitcode, target), exported, target) for target in targets]
        return [compiler.to_assembly(module, target) for module, target in zip(modules, targets, strict=True)]

    def image(self, name: str) -> tuple[bytes, str]:
        """Object and assembly of all entries for the processor `name` of `hal.engine.targets`, kept as `code` is.

        Numba's part, by far the longest, is done once for all processors. Raises `ConfigError`.
        """
        target = PROCESSORS[name].target

        def bitcode() -> bytes:
            compiler = self._needed("hal.engine.compile")
            code: bytes = compiler.lowered(*self._functions(self.table, self.entries), REFERENCE).as_bitcode()
            return code

        def both() -> bytes:
            compiler = self._needed("hal.engine.compile")
            module = compiler.retargeted(self._kept(f"{self.name}.ir", self.key(REFERENCE), bitcode), target)
            compiler.optimised(module, self._exported(self.entries), target)
            text: bytes = compiler.to_assembly(module.clone(), target).encode()  # emitting changes a module
            code: bytes = compiler.to_object(module.clone(), target, self.allowed)
            return struct.pack("<Q", len(text)) + text + code

        content = self._kept(f"{self.name}.{name}", self.key(target), both)
        (length,) = struct.unpack_from("<Q", content)
        return content[8 + length :], content[8 : 8 + length].decode()

    def _kept(self, name: str, key: bytes, make: Callable[[], bytes]) -> bytes:
        content = cache.load(name, key)
        if content is None:
            content = make()
            cache.store(name, key, content)
        return content

    def _object(self, table: Table, entries: dict[str, Any], target: Target | None = None) -> bytes:
        compiler = self._needed("hal.engine.compile")
        target = target if target is not None else Target.host()
        table = replace(table, needs=target.needs())
        code: bytes = compiler.to_object(self._module(table, entries, target), target, self.allowed)
        return code

    def _module(self, table: Table, entries: dict[str, Any], target: Target) -> Any:
        compiler = self._needed("hal.engine.compile")
        module = compiler.lowered(*self._functions(table, entries), target)
        return compiler.optimised(module, self._exported(entries), target)

    def _functions(self, table: Table, entries: dict[str, Any]) -> tuple[Any, ...]:
        """What the compiler wants to know, but for the target."""
        functions = {name: (kernel, Signature(kernel.signature)) for name, kernel in entries.items()}
        return self.prefix, table, functions, (Kernel,) if self.kind is Kernel else (Kernel, self.kind)

    def _exported(self, entries: dict[str, Any]) -> set[str]:
        return {symbol(self.prefix, name) for name in entries} | {load.table_symbol(self.prefix)}

    def _needed(self, module: str) -> Any:
        """Import a module that needs the compiler. Raises `ConfigError` where it is not installed."""
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"program '{self.name}' has to be compiled, and {error.name} is not installed: "
                "pip install numba, or take a library with --engine lib:PATH"
            ) from error


def _files(names: Sequence[str]) -> list[Path]:
    return [Path(__file__).parent / name for name in names]


def compiler_versions() -> dict[str, str]:
    """Versions of the compilers that machine code depends on; numba's is `none` where only LLVM is installed."""
    from importlib import metadata

    import llvmlite.binding as llvm

    try:
        numba = metadata.version("numba")
    except metadata.PackageNotFoundError:
        numba = "none"
    return {"numba": numba, "LLVM": ".".join(map(str, llvm.llvm_version_info))}


def prepare(programs: Sequence[Program], report: Report | None = None) -> None:
    """Have all entries of `programs` at hand; `report` is told what is being compiled, one line at a time.

    Two missing programs are compiled side by side, each in a process of its own: numba holds a lock while it works.
    """
    missing = [program for program in programs if not program.ready()] if not kernels.PLAIN else []
    keeping = bool(missing) and cache.writable()
    kept = "; the result is kept for the next run" if keeping else ""
    children = [_compile_apart(program) for program in missing[1:]] if keeping else []
    try:
        for k, program in enumerate(missing):
            if report is not None:
                report(f"compiling {program.about} ({k + 1} of {len(missing)}){kept}")
            if 0 < k <= len(children) and (child := children[k - 1]) is not None:
                child.wait()
            program.load()
    finally:
        for child in filter(None, children):
            child.kill()  # nothing where it is done
            child.wait()


def _compile_apart(program: Program) -> subprocess.Popen[bytes] | None:
    """Compile a program into the cache in another process; None where none can be started."""
    import subprocess

    module, _, name = program.place.partition(":")
    code = f"import {module}; {module}.{name}.load()"
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
