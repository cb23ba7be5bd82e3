"""The libraries of the controller and of the twin, built once, and a C compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bms.cli import main
from bms.firmware.build import HEADER, LIBRARY, TWIN


@pytest.fixture(scope="session")
def cc() -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) is installed")
    return compiler


@pytest.fixture(scope="session")
def built(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `bms build --target host --twin` fills."""
    folder = tmp_path_factory.mktemp("built") / "new"
    assert main(["build", "--target", "host", "--twin", "-o", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {LIBRARY, HEADER, TWIN}
    return folder


@pytest.fixture(scope="session")
def arm() -> None:
    """Skips where programs for boards cannot be made."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed: .ci/toolchain")


@pytest.fixture(scope="session")
def qemu() -> None:
    """Skips where boards cannot be emulated."""
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed: .ci/toolchain")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `bms build --target cortex-a53` fills for a small rack."""
    folder = tmp_path_factory.mktemp("image") / "new"
    assert main(["build", "--target", "cortex-a53", "--config", "nmc_ev", "--sensors", "12", "-o", str(folder)]) == 0
    return folder


@pytest.fixture
def compiled(cc: str, built: Path, tmp_path: Path) -> Callable[..., Path]:
    """Compiles a C program against the header and the library, with warnings as errors; gives the executable."""

    def compile_(source: str, *options: str, language: str = "c") -> Path:
        path, program = tmp_path / f"program.{language}", tmp_path / "program"
        path.write_text(source)
        subprocess.run(
            [cc, "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{built}", *options, path, built / LIBRARY,
             f"-Wl,-rpath,{built}", "-o", program],
            check=True,
        )  # fmt: skip
        return program

    return compile_
