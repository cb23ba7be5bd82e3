"""Compilers for other processors, and what they say when something is wrong."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hal.errors import ConfigError

PACKAGES = {
    "aarch64-linux-gnu-": "gcc-aarch64-linux-gnu",
    "arm-none-eabi-": "gcc-arm-none-eabi",
    "riscv64-unknown-elf-": "gcc-riscv64-unknown-elf",
}
"""Debian packages that bring the tools whose names begin so."""

OWN = {"cc": "gcc"}
"""The package of this computer's own compiler, which most have."""


def tool(name: str) -> str:
    """Path of a command. Raises `ConfigError` with the package that brings it."""
    found = shutil.which(name)
    if found is None:
        packages = next((text for prefix, text in PACKAGES.items() if name.startswith(prefix)), OWN.get(name, name))
        raise ConfigError(f"{name} is not installed: apt-get install {packages} (.ci/toolchain installs all of them)")
    return found


def run(words: Sequence[str | Path], what: str) -> str:
    """Run a command and return what it prints; `what` says in words what it was for. Raises `ConfigError`."""
    done = subprocess.run(
        [tool(str(words[0])), *words[1:]], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line), lines[-1] if lines else "it does not say why")
        raise ConfigError(f"{words[0]} cannot {what}: {said}")
    return done.stdout
