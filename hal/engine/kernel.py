"""Kernels that cost nothing until they run, and the programs that they are compiled into.

    PROGRAM = Program("core", ...)
    kernel = PROGRAM.kernel

    @kernel                                # a helper: called by other kernels, and inlined
    def doubled(x): ...

    @kernel("i4(f4[::1], u1[::1], f4)")    # an entry: called from Python and from C
    def step(values, flags, dt_s): ...

An entry takes C-contiguous arrays, then scalars; it returns one scalar or nothing, allocates nothing and raises
nothing. No byte that a call, of an entry or of a helper, writes through one of its arrays is touched through another:
the compiler relies on that. All entries of a program are compiled together, once, ahead of their first call
(`hal.engine.compile`), or come out of a library; they are called through their C interface, which lets go of Python's
global lock. A helper that Python calls is compiled in memory.

Floating-point rules, the same on every target, so that decisions are bit-identical:

- strict IEEE arithmetic: no fast-math, hence no contraction into FMA and no reassociation, and `isnan` works;
- error model `numpy`: a division by zero gives inf or NaN and never raises.

`RACKBMS_JIT=0` in the environment runs every kernel as plain Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hal.engine.program import Program

PLAIN = os.environ.get("RACKBMS_JIT", "") == "0"
"""Kernels run as plain Python."""


class Kernel:
    """A function that is compiled when it must be: a helper, or an entry of `program` if it has a `signature`."""

    building: Callable[[Any], Any] | None = None
    """While a program is compiled: gives the dispatcher of numba to use for a kernel."""

    def __init__(self, py_func: Callable[..., Any], signature: str | None, program: Program) -> None:
        self.py_func = py_func
        self.signature = signature
        self.program = program
        self.__name__ = py_func.__name__
        self.__doc__ = py_func.__doc__
        self.__module__ = py_func.__module__
        self.__wrapped__ = py_func
        self._in_memory: Any = None
        self._implementation: Any = None

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

    @property
    def implementation(self) -> Any:
        """What a call from Python runs. Raises `ConfigError` where it can neither be found nor compiled."""
        if self._implementation is None:
            if PLAIN:
                self._implementation = self.py_func
            else:
                self._implementation = self.dispatcher if self.signature is None else self.program.native(self)
        return self._implementation

    def forget(self) -> None:
        """Look for the implementation anew at the next call."""
        self._implementation = None

    def __call__(self, *args: Any) -> Any:
        """Call it. Raises `TypeError` for arguments that do not fit the signature."""
        return self.implementation(*args)

    def bind(self, *arrays: Any) -> Callable[..., Any]:
        """A function of the scalars alone (Python numbers); it keeps `arrays` and has looked at them once."""
        implementation = self.implementation
        bound = getattr(implementation, "bind", None)
        result: Callable[..., Any] = partial(implementation, *arrays) if bound is None else bound(*arrays)
        return result

    def __repr__(self) -> str:
        return f"<kernel {self.__module__}.{self.__name__}>"
