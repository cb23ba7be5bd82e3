"""The gate to numba: its floating-point rules, the list of exported kernels, and a cache that cannot hurt."""

import importlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest

from bms.core import jit, mathf
from bms.core.jit import f4

USE_EXPF = (
    "import numpy as np; from bms.core.mathf import expf;"
    "print(float(expf(np.float32(1))).hex(), sum(expf.stats.cache_hits.values()))"
)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The module as if it were imported with an empty cache; put back afterwards."""
    exported = dict(jit.EXPORTED)
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path))
    yield importlib.reload(jit)
    monkeypatch.undo()
    importlib.reload(jit).EXPORTED.update(exported)


def test_a_division_by_zero_gives_infinity_or_nan(gate: ModuleType) -> None:
    @gate.kernel
    def _ratio(a, b):  # type: ignore[no-untyped-def]
        return a / b

    assert _ratio(f4(1), f4(0)) == math.inf
    assert math.isnan(_ratio(f4(0), f4(0)))


def test_arithmetic_is_strict(gate: ModuleType) -> None:
    @gate.kernel
    def _product_sum(a, b, c):  # type: ignore[no-untyped-def]
        return a * b + c

    @gate.kernel
    def _residue(a, b):  # type: ignore[no-untyped-def]
        return (a + b) - a

    @gate.kernel
    def _is_nan(a):  # type: ignore[no-untyped-def]
        return a != a

    # 1.0001^2 rounds to its float32 neighbour, which the sum leaves as 0; a fused operation would leave the rest
    a = f4(1.0001)
    assert float(_product_sum(a, a, -(a * a))) == 0.0
    # reassociated, the difference would be b itself; one by one, b vanishes beside 1e8
    assert float(_residue(f4(1e8), f4(1))) == 0.0
    assert _is_nan(f4(np.nan))
    for compiled in (_product_sum, _residue, _is_nan):
        (text,) = compiled.inspect_llvm().values()
        assert " fast " not in text
        assert "contract" not in text
        assert "llvm.fma" not in text


def test_single_precision_stays_single(gate: ModuleType) -> None:
    @gate.kernel
    def _half(a):  # type: ignore[no-untyped-def]
        return f4(0.5) * a

    _half(f4(3))
    (signature,) = _half.nopython_signatures
    assert signature.return_type == numba.float32


def test_public_kernels_are_exported_and_private_ones_are_not(gate: ModuleType) -> None:
    @gate.kernel
    def public_probe(a):  # type: ignore[no-untyped-def]
        return a

    @gate.kernel
    def _private_probe(a):  # type: ignore[no-untyped-def]
        return a

    assert gate.EXPORTED["public_probe"] is public_probe.py_func
    assert "_private_probe" not in gate.EXPORTED


def test_the_kernels_of_the_controller_are_exported() -> None:
    import bms.core.step  # noqa: F401

    assert {"expf", "estimator_step", "step"} <= set(jit.EXPORTED)


def test_other_packages_keep_their_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "elsewhere")
    again = jit.kernel(mathf.expf.py_func)
    assert numba.config.CACHE_DIR == "elsewhere"
    assert str(again.stats.cache_path).startswith(str(jit._FOLDER))


def test_a_change_of_any_source_gives_a_new_folder(tmp_path: Path, repository: Path) -> None:
    for name in ("bms", "hal"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from bms.core import jit; print(jit._FOLDER)"
    environment = {**os.environ, "RACKBMS_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}

    def folder() -> str:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    before = folder()
    assert before.startswith(str(tmp_path / "cache" / "rackbms" / "core"))
    assert folder() == before
    with (tmp_path / "bms" / "core" / "control.py").open("a") as file:
        file.write("\n")
    assert folder() != before


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_torn_cache_file_only_costs_a_compilation(tmp_path: Path, suffix: str) -> None:
    environment = {**os.environ, "RACKBMS_CACHE_DIR": str(tmp_path)}

    def run() -> list[str]:
        command = [sys.executable, "-c", USE_EXPF]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    value, hits = run()
    assert hits == "0"
    assert run() == [value, "1"]
    torn = [path for path in tmp_path.rglob(f"*.{suffix}") if "expf" in path.name]
    assert torn
    for path in torn:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run() == [value, "0"]
    assert run() == [value, "1"]


def test_a_folder_that_cannot_be_written_only_costs_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path / "file"))
    exported = dict(jit.EXPORTED)
    try:
        module = importlib.reload(jit)
        assert not module._CACHE

        @module.kernel
        def _thrice(x):  # type: ignore[no-untyped-def]
            return 3 * x

        assert _thrice(2) == 6
    finally:
        monkeypatch.undo()
        importlib.reload(jit).EXPORTED.update(exported)
