"""Compilers that are missing or complain: one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bms.firmware import toolchain
from hal.errors import ConfigError


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="arm-none-eabi-gcc is not installed: apt-get install gcc-arm-none-eabi"):
        toolchain.tool("arm-none-eabi-gcc")


def test_every_package_that_is_named_is_installed_by_the_script(repository: Path) -> None:
    script = (repository / ".ci" / "toolchain").read_text()
    for packages in toolchain.PACKAGES.values():
        assert all(f"{package} " in script.replace(")", " ") for package in packages.split())


def test_what_a_compiler_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "some-gcc"
    script.write_text(
        '#!/bin/sh\necho "some-gcc $1 1.2"\necho "x.c:1: error: no such thing" >&2\necho end >&2\n[ $1 = a ]\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert toolchain.run(["some-gcc", "a"], "compile") == "some-gcc a 1.2\n"
    with pytest.raises(ConfigError, match="some-gcc cannot compile x.c: x.c:1: error: no such thing"):
        toolchain.run(["some-gcc", "b"], "compile x.c")
