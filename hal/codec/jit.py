"""The gate to numba for codecs: integer kernels only, so that no floating-point rule is at stake.

Kernels call none of another module; numba's own cache, keyed by the source file, is therefore safe here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` in nopython mode, kept on disk where numba finds a folder that can be written."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # "no locator available": neither the package nor the user's cache can be written
        return numba.njit(function)
