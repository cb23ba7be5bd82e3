"""The twin's own gate to numba: the physics kernels are decorated here.

`@kernel` makes a helper, which other kernels call and which is inlined. `@kernel("f8(f8[:,::1], i8, f8)")` makes an
entry: C-contiguous arrays that do not overlap, then scalars; one scalar or nothing as the result, no allocation, no
exception. Whoever runs the twin may compile the entries ahead and set `Kernel.provider`; otherwise numba compiles in
memory, when a kernel is first called.

Strict IEEE arithmetic and error model `numpy`, as everywhere in the product. `RACKBMS_JIT=0` in the environment runs
every kernel as plain Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

PLAIN = os.environ.get("RACKBMS_JIT", "") == "0"
"""Kernels run as plain Python."""


class Kernel:
    """A function that is compiled when it must be; an entry, if it has a `signature`."""

    building: Callable[[Any], Any] | None = None
    """While entries are compiled ahead: gives the dispatcher of numba to use for a kernel."""

    provider: Callable[[Any], Any] | None = None
    """Gives for an entry something to call instead, and to `bind`."""

    def __init__(self, py_func: Callable[..., Any], signature: str | None = None) -> None:
        self.py_func = py_func
        self.signature = signature
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
        """What a call from Python runs."""
        if self._implementation is None:
            if PLAIN:
                self._implementation = self.py_func
            elif self.signature is not None and Kernel.provider is not None:
                self._implementation = Kernel.provider(self)
            else:
                self._implementation = self.dispatcher
        return self._implementation

    def forget(self) -> None:
        """Look for the implementation anew at the next call."""
        self._implementation = None

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self.implementation(*args)

    def bind(self, *arrays: Any) -> Callable[..., Any]:
        """A function of the scalars alone (Python numbers); it keeps `arrays` and has looked at them once."""
        implementation = self.implementation
        bound = getattr(implementation, "bind", None)
        return partial(implementation, *arrays) if bound is None else bound(*arrays)


ENTRIES: list[Kernel] = []
"""Every entry, in the order of definition."""


def kernel(function: Callable[..., Any] | str) -> Any:
    """The decorator: `@kernel` for a helper, `@kernel("signature")` for an entry."""
    if not isinstance(function, str):
        return Kernel(function)

    def entry(py_func: Callable[..., Any]) -> Kernel:
        ENTRIES.append(Kernel(py_func, function))
        return ENTRIES[-1]

    return entry


class _Intrinsic:
    """Something that kernels call: how numba sees it is made when the first kernel that uses it is compiled."""

    def _make(self) -> Any:
        raise NotImplementedError

    @cached_property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        made = self._make()
        context = cpu_target.typing_context
        context.refresh()
        return context.resolve_value_type(made)


class _Prefetch(_Intrinsic):
    """`prefetch(array, at)`: the cache line of `array[at]` will be read and written soon. It changes no value."""

    def __call__(self, array: Any, at: Any) -> None:
        pass

    def _make(self) -> Any:
        from llvmlite import ir
        from numba import types
        from numba.extending import intrinsic
        from numba.np.arrayobj import make_array

        @intrinsic
        def prefetched(typing: Any, array: Any, at: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                word = ir.IntType(32)
                pointer = builder.gep(make_array(array)(context, builder, values[0]).data, [values[1]])
                address = builder.bitcast(pointer, ir.IntType(8).as_pointer())
                kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
                function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
                for_reading, second_level, data = (ir.Constant(word, k) for k in (0, 2, 1))
                builder.call(function, [address, for_reading, second_level, data])
                return context.get_dummy_value()

            return types.void(array, types.int64), generate

        return prefetched


_EIGHT = 8


class _Interpolate(_Intrinsic):
    """`interpolate(table, t, place, share, to, stride)`: eight look-ups of eight quantities each, turned around.

    `table` f8[points, 16]: values at each point, then differences to the next. For k and c in 0..7, with the row i =
    t[place + k], t[to + stride c + k] = table[i, c] + t[share + k] table[i, 8 + c]. Rows are fetched as vectors and
    transposed in registers; the compiler would pick every number from memory on its own.
    """

    def __call__(self, table: Any, t: Any, place: int, share: int, to: int, stride: int) -> None:
        for k in range(_EIGHT):
            row = table[int(t[place + k])]
            for c in range(_EIGHT):
                t[to + stride * c + k] = row[c] + t[share + k] * row[_EIGHT + c]

    def _make(self) -> Any:
        from llvmlite import ir
        from numba import types
        from numba.extending import intrinsic
        from numba.np.arrayobj import make_array

        @intrinsic
        def interpolated(typing: Any, table: Any, t: Any, place: Any, share: Any, to: Any, stride: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                points, data = (make_array(kind)(context, builder, values[k]).data for k, kind in enumerate((table, t)))
                size, lane = ir.IntType(64), ir.IntType(32)
                number = ir.DoubleType()
                row, mask = ir.VectorType(number, _EIGHT), ir.VectorType(lane, _EIGHT)

                def vector(base: Any, index: Any) -> Any:
                    return builder.bitcast(builder.gep(base, [index]), row.as_pointer())

                def at(first: Any, k: int) -> Any:
                    return builder.add(first, ir.Constant(size, k))

                rows = []
                for k in range(_EIGHT):
                    point = builder.fptosi(builder.load(builder.gep(data, [at(values[2], k)])), size)
                    first = builder.mul(point, ir.Constant(size, 2 * _EIGHT))
                    part = builder.load(builder.gep(data, [at(values[3], k)]))
                    one = builder.insert_element(ir.Constant(row, ir.Undefined), part, ir.Constant(lane, 0))
                    all_ = builder.shuffle_vector(one, one, ir.Constant(mask, [0] * _EIGHT))
                    here = builder.load(vector(points, first), align=8)
                    ahead = builder.load(vector(points, at(first, _EIGHT)), align=8)
                    rows.append(builder.fadd(here, builder.fmul(all_, ahead)))
                for distance in (1, 2, 4):
                    low = [j if not j & distance else j - distance + _EIGHT for j in range(_EIGHT)]
                    high = [j + distance if not j & distance else j + _EIGHT for j in range(_EIGHT)]
                    turned = list(rows)
                    for k in (k for k in range(_EIGHT) if not k & distance):
                        pair = rows[k], rows[k + distance]
                        turned[k] = builder.shuffle_vector(*pair, ir.Constant(mask, low))
                        turned[k + distance] = builder.shuffle_vector(*pair, ir.Constant(mask, high))
                    rows = turned
                for c, value in enumerate(rows):
                    place_of = builder.add(values[4], builder.mul(values[5], ir.Constant(size, c)))
                    builder.store(value, vector(data, place_of), align=8)
                return context.get_dummy_value()

            return types.void(table, t, *[types.int64] * 4), generate

        return interpolated


interpolate = _Interpolate()
prefetch = _Prefetch()
