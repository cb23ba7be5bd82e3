"""The twin's own gate to numba: the physics kernels are decorated here.

Strict IEEE arithmetic and error model `numpy`, as everywhere in the product. The code is kept on disk under a folder
whose name hashes every source of the twin, the versions of numba and llvmlite, and the processor, so that a change in
any module gives a new folder and a stale kernel cannot be loaded; a damaged file is compiled anew.
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
    return _cache_root() / "sim" / digest.hexdigest()[:16]


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
    """Compile `function` in nopython mode, kept on disk where the folder can be written."""
    if not _CACHE:
        return numba.njit(error_model="numpy", fastmath=False)(function)
    # numba reads the folder when the decorator runs; other packages in the process keep their own
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_FOLDER)
    try:
        return _forgiving(numba.njit(error_model="numpy", fastmath=False, cache=True)(function))
    finally:
        numba.config.CACHE_DIR = before
