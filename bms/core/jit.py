"""The one gate to numba: every controller kernel is decorated here, nothing else in `bms` imports it.

Floating-point rules (the same on every target, so that decisions are bit-identical):

- strict IEEE arithmetic: no fast-math, hence no contraction into FMA and no reassociation, and `isnan` works;
- error model `numpy`: a division by zero gives inf or NaN and never raises;
- integer and float literals in kernels are wrapped (`f4(0.5)`), so that float32 stays float32.

Compiled code is kept on disk under a folder whose name hashes every kernel source, the versions of numba and
llvmlite, and the processor: a change anywhere gives a new folder, so that a stale kernel cannot be loaded.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

f4 = np.float32
i4 = np.int32

EXPORTED: dict[str, Callable[..., Any]] = {}
"""Kernels that the firmware build compiles, by name."""


def _cache_root() -> Path:
    base = os.environ.get("RACKBMS_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "rackbms"
    try:
        return Path.home() / ".cache" / "rackbms"
    except RuntimeError:  # no HOME
        return Path(tempfile.gettempdir()) / f"rackbms-{os.getuid() if hasattr(os, 'getuid') else 0}"


def _cache_folder() -> Path:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    digest.update(f"{numba.__version__} {llvmlite.__version__} {platform.machine()}".encode())
    return _cache_root() / "core" / digest.hexdigest()[:16]


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


_FOLDER = _cache_folder()
_CACHE = _usable(_FOLDER)


def _forgiving(compiled: Any) -> Any:
    """Let a damaged file of the cache cost a compilation, no more: numba itself would raise."""
    cache = compiled._cache
    load = cache.load_overload

    def load_or_forget(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception:  # whatever unpickling or linking of a torn file makes of it
            cache.flush()
            return None

    cache.load_overload = load_or_forget
    return compiled


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` in nopython mode under the rules above.

    Private helpers (leading underscore) are inlined by LLVM where it pays. Public kernels are listed in `EXPORTED`.
    """
    if not function.__name__.startswith("_"):
        EXPORTED[function.__name__] = function
    compiled: Callable[..., Any]
    if not _CACHE:
        compiled = numba.njit(error_model="numpy", fastmath=False)(function)
        return compiled
    # numba reads the folder when the decorator runs; other packages in the process keep their own
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_FOLDER)
    try:
        compiled = _forgiving(numba.njit(error_model="numpy", fastmath=False, cache=True)(function))
        return compiled
    finally:
        numba.config.CACHE_DIR = before
