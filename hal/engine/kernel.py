"""Kernels that cost nothing until they run, and the programs that they are compiled into.

    PROGRAM = Program("core", modules=("bms.core.step",), sources=(FOLDER,))
    kernel = PROGRAM.kernel

    @kernel                                # a helper: called by other kernels, and inlined
    def doubled(x): ...

    @kernel("i4(f4[::1], u1[::1], f4)")    # an entry: called from Python and from C
    def step(values, flags, dt_s): ...

An entry takes C-contiguous arrays first and scalars last, returns one scalar or nothing, allocates nothing and raises
nothing. All entries of a program are compiled together, once, ahead of their first call (`hal.engine.compile`), and are
called through their C interface, which lets go of Python's global lock. A helper that Python calls is compiled in memory.

Floating-point rules, the same on every target, so that decisions are bit-identical:

- strict IEEE arithmetic: no fast-math, hence no contraction into FMA and no reassociation, and `isnan` works;
- error model `numpy`: a division by zero gives inf or NaN and never raises.

`RACKBMS_JIT=0` in the environment runs every kernel as plain Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, overload

from hal.engine.signature import Signature

PLAIN = os.environ.get("RACKBMS_JIT", "") == "0"
"""Kernels run as plain Python."""


class Kernel:
    """A function that is compiled when it must be: a helper, or an entry of `program` if it has a `signature`."""

    building: Callable[[Any], Any] | None = None
    """While a program is compiled: gives the dispatcher of numba to use for a kernel."""

    def __init__(self, py_func: Callable[..., Any], signature: str | None, program: Program) -> None:
        self.py_func = py_func
        self.signature = Signature(signature) if signature is not None else None
        self.program = program
        self.__name__ = py_func.__name__
        self.__doc__ = py_func.__doc__
        self.__module__ = py_func.__module__
        self.__wrapped__ = py_func
        self._in_memory: Any = None

    @property
    def dispatcher(self) -> Any:
        """The function as numba compiles it in memory, for every type that it is called with."""
        if self._in_memory is None:
            import numba

            self._in_memory = numba.njit(error_model="numpy", fastmath=False)(self.py_func)
        return self._in_memory

    @property
    def _numba_type_(self) -> Any:
        """How numba sees this kernel from within another."""
        from numba import types

        building = Kernel.building
        return types.Dispatcher(self.dispatcher if building is None else building(self))

    def __call__(self, *args: Any) -> Any:
        """Call it. Raises `TypeError` for arguments that do not fit the signature."""
        if PLAIN:
            return self.py_func(*args)
        return self.dispatcher(*args)

    def bind(self, *arrays: Any) -> Callable[..., Any]:
        """A function of the scalars alone, which keeps `arrays` and has looked at them once."""
        return partial(self, *arrays)

    def __repr__(self) -> str:
        return f"<kernel {self.__module__}.{self.__name__}{self.signature or ''}>"


class Program:
    """The kernels of a room. `modules` define its entries; `sources` are the files and folders that they are made of."""

    def __init__(self, name: str, modules: tuple[str, ...], sources: tuple[Path, ...]) -> None:
        self.name = name
        self.modules = modules
        self.sources = sources
        self.entries: dict[str, Kernel] = {}

    @overload
    def kernel(self, function: Callable[..., Any]) -> Kernel: ...

    @overload
    def kernel(self, function: str) -> Callable[[Callable[..., Any]], Kernel]: ...

    def kernel(self, function: Callable[..., Any] | str) -> Any:
        """The decorator: `@kernel` for a helper, `@kernel("signature")` for an entry."""
        if isinstance(function, str):
            return partial(self._entry, function)
        return Kernel(function, None, self)

    def _entry(self, signature: str, function: Callable[..., Any]) -> Kernel:
        made = Kernel(function, signature, self)
        if function.__module__ in self.modules:
            self.entries[function.__name__] = made
        return made
