"""`carve`: the typed arrays of a record, from its bytes, within kernels."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np


class _Carve:
    """`carve(raw, at, count, dtype)`: `count` items of `dtype` from byte `at` of the uint8 array `raw`, as a view.

    As `raw[at:at + size].view(dtype)`, but within kernels nothing is checked: the caller knows the layout of the
    record, and what cannot fail needs no way out.
    """

    def __call__(self, raw: Any, at: int, count: int, dtype: Any) -> Any:
        return raw[at : at + count * np.dtype(dtype).itemsize].view(dtype)

    @cached_property
    def _numba_type_(self) -> Any:
        """How numba sees it: an intrinsic, made when the first kernel that uses it is compiled."""
        from llvmlite import ir
        from numba import types
        from numba.core.registry import cpu_target
        from numba.core.typing.npydecl import parse_dtype
        from numba.extending import intrinsic
        from numba.np.arrayobj import make_array, populate_array

        @intrinsic  # type: ignore[untyped-decorator]
        def carved(typing: Any, raw: Any, at: Any, count: Any, dtype: Any) -> Any:
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

        context = cpu_target.typing_context
        context.refresh()
        return context.resolve_value_type(carved)


carve = _Carve()
