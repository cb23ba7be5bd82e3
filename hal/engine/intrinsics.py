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
    """`prefetch(array, at)`: have the line of `array[at]` brought to the second-level cache; it need not exist."""

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
                for_reading, second_level, data = (ir.Constant(word, k) for k in (0, 2, 1))
                builder.call(function, [address, for_reading, second_level, data])
                return context.get_dummy_value()

            return types.void(array, types.int64), generate

        return prefetched


def _in_fours(*parts: int) -> list[int]:
    """A shuffle that does the same in each group of four numbers, of the first row and (from 16 on) the second."""
    return [group + part for group in range(0, _SIDE, 4) for part in parts]


_FOURS_LOW = [k for k in range(2 * _SIDE) if not k & 4]
_FOURS_HIGH = [k for k in range(2 * _SIDE) if k & 4]
_SHUFFLES = (
    (1, _in_fours(0, 16, 1, 17), _in_fours(2, 18, 3, 19)),
    (2, _in_fours(0, 1, 16, 17), _in_fours(2, 3, 18, 19)),
    (4, _FOURS_LOW, _FOURS_HIGH),
    (8, _FOURS_LOW, _FOURS_HIGH),
)
"""Steps of a transposition: how far apart the rows of a pair are, and the shuffles that make the two new ones."""

_ORDER = [k & ~3 | (k & 1) << 1 | (k & 2) >> 1 for k in range(_SIDE)]
"""The row of the result that each register holds after them."""


class _Transpose(_Intrinsic):
    """`transpose(array, source, to)`: 16 x 16 numbers of an array from `source` to `to`, which do not overlap.

    Pairs of rows are interleaved by single numbers, then by pairs, then by fours and eights: 64 shuffles, first the
    cheap ones within 128 bits. All 256 numbers stay in vector registers where there are enough of them.
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

                def address(first: Any, k: int) -> Any:
                    place = builder.add(first, ir.Constant(first.type, k * _SIDE))
                    return builder.bitcast(builder.gep(data, [place]), row.as_pointer())

                rows = [builder.load(address(values[1], k), align=align) for k in range(_SIDE)]
                for distance, low, high in _SHUFFLES:
                    turned = list(rows)
                    for k in (k for k in range(_SIDE) if not k & distance):
                        pair = rows[k], rows[k + distance]
                        turned[k] = builder.shuffle_vector(*pair, ir.Constant(mask, low))
                        turned[k + distance] = builder.shuffle_vector(*pair, ir.Constant(mask, high))
                    rows = turned
                for k, value in zip(_ORDER, rows, strict=True):
                    builder.store(value, address(values[2], k), align=align)
                return context.get_dummy_value()

            return types.void(array, types.int64, types.int64), generate

        return transposed


carve = _Carve()
prefetch = _Prefetch()
transpose = _Transpose()
