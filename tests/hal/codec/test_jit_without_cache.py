"""The codecs' gate to numba works where nothing can be kept on disk."""

import numba
import pytest

from hal.codec import jit


def test_kernel_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, cache=False, **kwargs):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.jit(*args, nopython=True, **kwargs)

    monkeypatch.setattr(jit.numba, "njit", refuse)

    @jit.kernel
    def twice(x: int) -> int:
        return 2 * x

    assert twice(21) == 42
    assert twice.signatures  # compiled, not run as Python
