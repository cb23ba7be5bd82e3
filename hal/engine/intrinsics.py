"""What kernels need and numba has no word for: arrays of a record, a look ahead in memory, a transposition."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

_SIDE = 16


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


class _Carve(_Intrinsic):
    """`carve(raw, at, count, dtype)`: `count` items of `dtype` from byte `at` of the uint8 array `raw`, as a view.

    As `raw[at:at + size].view(dtype)`, but within kernels nothing is checked: the caller knows the layout of the
    record, and what cannot fail needs no way out.
    """

    def __call__(self, raw: Any, at: int, count: int, dtype: Any) -> Any:
        view = raw[at : at + count * np.dtype(dtype).itemsize].view(dtype)
        return view.view(np.recarray) if view.dtype.names else view  # a field is an attribute, as within kernels

    def _make(self) -> Any:
        from llvmlite import ir
        from numba import types
        from numba.core.typing.npydecl import parse_dtype
        from numba.extending import intrinsic
        from numba.np.arrayobj import make_array, populate_array

        @intrinsic  # type: ignore[untyped-decorator]
        def carved(typing: Any, raw: Any, at: Any, count: Any, dtype: Any) -> tuple[Any, Callable[..., Any]]:
            kind = types.Array(parse_dtype(dtype), 1, "C")

            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                size = ir.IntType(64)
                item = context.get_data_type(kind.dtype)
                bytes_ = make_array(raw)(context, builder, values[0])
                data = builder.bitcast(builder.gep(bytes_.data, [values[1]], inbounds=True), item.as_pointer())
                width = ir.Constant(size, context.get_abi_sizeof(item))
                array = make_array(kind)(context, builder)
                populate_array(array, data=data, shape=[values[2]], strides=[width], itemsize=width, meminfo=None)
                return array._getvalue()

            return kind(raw, types.int64, types.int64, dtype), generate

        return carved


class _Prefetch(_Intrinsic):
    """`prefetch(array, at)`: the cache line of `array[at]` will be read and written soon; it need not exist."""

    def __call__(self, array: Any, at: Any) -> None:
        pass

    def _make(self) -> Any:
        from llvmlite import ir
        from numba import types
        from numba.extending import intrinsic
        from numba.np.arrayobj import make_array

        @intrinsic  # type: ignore[untyped-decorator]
        def prefetched(typing: Any, array: Any, at: Any) -> tuple[Any, Callable[..., Any]]:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                word = ir.IntType(32)
                pointer = builder.gep(make_array(array)(context, builder, values[0]).data, [values[1]])
                address = builder.bitcast(pointer, ir.IntType(8).as_pointer())
                kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
                function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
                for_writing, keep, data = (ir.Constant(word, k) for k in (1, 3, 1))
                builder.call(function, [address, for_writing, keep, data])
                return context.get_dummy_value()

            return types.void(array, types.int64), generate

        return prefetched


class _Transpose(_Intrinsic):
    """`transpose(array, source, to)`: 16 x 16 numbers of an array from `source` to `to`, which do not overlap.

    Four times, first and second half of the rows interleaved: each turns the address (row, column) by one bit, and four
    exchange both. All 256 numbers stay in vector registers where there are enough of them.
    """

    def __call__(self, array: Any, source: Any, to: Any) -> None:
        n = _SIDE * _SIDE
        array[to : to + n] = array[source : source + n].reshape(_SIDE, _SIDE).T.ravel()

    def _make(self) -> Any:
        from llvmlite import ir
        from numba import types
        from numba.extending import intrinsic
        from numba.np.arrayobj import make_array

        @intrinsic  # type: ignore[untyped-decorator]
        def transposed(typing: Any, array: Any, source: Any, to: Any) -> tuple[Any, Callable[..., Any]]:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                data = make_array(array)(context, builder, values[0]).data
                item = context.get_data_type(array.dtype)
                row, align = ir.VectorType(item, _SIDE), context.get_abi_sizeof(item)
                mask = ir.VectorType(ir.IntType(32), _SIDE)
                half = _SIDE // 2
                low = ir.Constant(mask, [k // 2 + k % 2 * _SIDE for k in range(_SIDE)])
                high = ir.Constant(mask, [half + k // 2 + k % 2 * _SIDE for k in range(_SIDE)])

                def address(first: Any, k: int) -> Any:
                    place = builder.add(first, ir.Constant(first.type, k * _SIDE))
                    return builder.bitcast(builder.gep(data, [place]), row.as_pointer())

                rows = [builder.load(address(values[1], k), align=align) for k in range(_SIDE)]
                for _ in range(_SIDE.bit_length() - 1):
                    rows = [
                        builder.shuffle_vector(rows[k // 2], rows[k // 2 + half], high if k % 2 else low)
                        for k in range(_SIDE)
                    ]
                for k, value in enumerate(rows):
                    builder.store(value, address(values[2], k), align=align)
                return context.get_dummy_value()

            return types.void(array, types.int64, types.int64), generate

        return transposed


carve = _Carve()
prefetch = _Prefetch()
transpose = _Transpose()
