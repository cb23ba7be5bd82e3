import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from sim import jit, kernels


def test_other_packages_keep_their_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "elsewhere")

    again = jit.kernel(kernels.gauss.py_func)
    assert numba.config.CACHE_DIR == "elsewhere"
    assert again(1, 2, 3) == kernels.gauss(1, 2, 3)
    assert str(again.stats.cache_path).startswith(str(jit._FOLDER))


def test_a_change_of_any_source_gives_a_new_folder(tmp_path: Path, repository: Path) -> None:
    shutil.copytree(repository / "sim", tmp_path / "sim")
    code = "from sim import jit; print(jit._FOLDER)"
    environment = {**os.environ, "RACKBMS_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}

    def folder() -> str:
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    before = folder()
    assert before.startswith(str(tmp_path / "cache" / "rackbms" / "sim"))
    assert folder() == before
    with (tmp_path / "sim" / "duty.py").open("a") as file:
        file.write("\n")
    assert folder() != before


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_torn_cache_file_only_costs_a_compilation(tmp_path: Path, suffix: str) -> None:
    code = "from sim import kernels; print(kernels.gauss(1, 2, 3).hex(), sum(kernels.gauss.stats.cache_hits.values()))"
    environment = {**os.environ, "RACKBMS_CACHE_DIR": str(tmp_path)}

    def run() -> list[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    value, hits = run()
    assert hits == "0"
    assert run() == [value, "1"]
    torn = [path for path in tmp_path.rglob(f"*.{suffix}") if "gauss" in path.name]
    assert torn
    for path in torn:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run() == [value, "0"]
    assert run() == [value, "1"]


def test_a_folder_that_cannot_be_written_only_costs_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path / "file"))
    try:
        module = importlib.reload(jit)
        assert not module._CACHE

        @module.kernel
        def thrice(x):  # type: ignore[no-untyped-def]
            return 3 * x

        assert thrice(2) == 6
    finally:
        monkeypatch.undo()
        importlib.reload(jit)
