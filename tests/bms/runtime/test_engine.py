"""`--engine`: which library a program comes from, what is compiled, and what is refused."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bms.cli import main
from bms.core.jit import PROGRAM as CORE
from bms.runtime import engine
from hal.backends.replay import FILE_NAME
from hal.backends.twin import PROGRAM as TWIN
from hal.codec.jit import PROGRAM as CODEC
from hal.engine import Program, cache
from hal.errors import ConfigError

MODULE = "hal.engine"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Program]:
    """Makes a program with one entry that says the length of its name; the cache is empty."""
    monkeypatch.setenv("RACKBMS_CACHE_DIR", str(tmp_path / "cache"))

    def make(name: str) -> Program:
        def length(x: Any) -> Any:
            return x

        length.__module__ = MODULE
        made = Program(name, place="", about=f"program {name}", modules=(MODULE,), sources=(Path(__file__),))
        made.kernel("i8(i8)")(length)
        return made

    return make


@pytest.fixture
def library(tmp_path: Path) -> Callable[..., Path]:
    """Links programs into a library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) is installed")

    def link(name: str, *programs: Program) -> Path:
        objects = []
        for made in programs:
            objects.append(tmp_path / f"{name}-{made.name}.o")
            objects[-1].write_bytes(made.compile())
        target = tmp_path / f"{name}.so"
        subprocess.run([compiler, "-shared", "-o", target, *objects], check=True)
        return target

    return link


def test_what_is_compiled_is_told_on_the_terminal(
    program: Callable[[str], Program], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = program("first"), program("second")
    engine.ready("jit", (first, second))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "compiling program first (1 of 2); the result is kept for the next run",
        "compiling program second (2 of 2); the result is kept for the next run",
    ]
    engine.ready("jit", (program("first"), second, program("third")), quiet=True)
    assert first.entries["length"](5) == 5
    assert capsys.readouterr() == ("", "")


def test_libraries_bring_what_they_hold_and_the_rest_is_compiled(
    program: Callable[[str], Program], library: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = library("one", program("a"), program("b")), library("two", program("c"))
    programs = [program(name) for name in "abcd"]
    engine.ready(f"lib:{one},{two}", programs)
    assert [made.entries["length"](k) for k, made in enumerate(programs)] == [0, 1, 2, 3]
    assert capsys.readouterr().err == "compiling program d (1 of 1); the result is kept for the next run\n"
    engine.ready("jit", programs[:1])
    assert "compiling program a" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "lib", "lib:", "jti", "jit:x", "c:lib.so", "qemu:cortex-m7,jti"])
def test_another_engine_is_refused(program: Callable[[str], Program], text: str) -> None:
    with pytest.raises(ConfigError, match=f"--engine {text}: expected jit, lib:PATH, or qemu:BOARD, "):
        engine.ready(text, [program("a")])


def test_a_library_without_the_first_program_is_refused(
    program: Callable[[str], Program], library: Callable[..., Path]
) -> None:
    path = library("one", program("b"))
    with pytest.raises(ConfigError, match=r"one\.so: holds no program 'a'"):
        engine.ready(f"lib:{path}", [program("a"), program("b")])
    with pytest.raises(ConfigError, match="there is no such library"):
        engine.ready("lib:nothing.so", [program("a")])


def test_compiled_and_plain_kernels_leave_the_same_recording(tmp_path: Path) -> None:
    """What numba and LLVM make of the kernels is what Python reads in them, to the last bit of every number."""
    recorded = []
    for jit in ("1", "0"):
        words = ("run", "--rack", "sim:lfp_280?n_series=4&module_groups=4&duty.start_s=8", "--cell", "lfp_280",
                 "--duration", "30", "--quiet", "--no-report", "--out", str(tmp_path / jit))  # fmt: skip
        environment = {**os.environ, "RACKBMS_JIT": jit, "PYTHONWARNINGS": "ignore"}
        subprocess.run([sys.executable, "-m", "bms", *words], env=environment, check=True)
        recorded.append((tmp_path / jit / FILE_NAME).read_bytes())
    assert recorded[0] == recorded[1]


def test_what_is_kept_starts_without_a_compiler(tmp_path: Path) -> None:
    """Importing numba, scipy or matplotlib takes longer than all else that a run does before its first step."""
    words = ["run", "--rack", "sim:lfp_280?n_series=4&module_groups=4", "--cell", "lfp_280", "--duration", "3",
             "--quiet", "--no-report", "--out", str(tmp_path)]  # fmt: skip
    code = (
        "import sys; from bms.cli import main; code = main(sys.argv[1:])\n"
        "slow = {'numba', 'scipy', 'matplotlib', 'rich', 'hal.engine.compile'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else code)"
    )
    assert main(words) == 0  # now everything is kept
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_run_over_damaged_programs_is_the_same_run(tmp_path: Path) -> None:
    """Every file of the cache with one bit wrong: all is compiled anew, and no decision differs."""
    words = ["run", "--rack", "sim:lfp_280?n_series=4&module_groups=4&duty.start_s=8", "--cell", "lfp_280",
             "--duration", "20", "--quiet", "--no-report", "--out"]  # fmt: skip
    assert main([*words, str(tmp_path / "good")]) == 0
    folder, spoilt = tmp_path / "cache" / "rackbms", {}
    folder.mkdir(mode=0o700, parents=True)
    for program in (CORE, CODEC, TWIN):
        path = cache.path_in(folder, program.name, program.key())
        content = bytearray(next(p for f in cache.folders() if (p := f / path.name).exists()).read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
        spoilt[path] = bytes(content)
    environment = {**os.environ, "RACKBMS_CACHE_DIR": str(tmp_path / "cache")}
    healed = {}
    for name in ("again", "once more"):
        command = [sys.executable, "-m", "bms", *words, str(tmp_path / name)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        assert (tmp_path / name / FILE_NAME).read_bytes() == (tmp_path / "good" / FILE_NAME).read_bytes()
        for path, content in spoilt.items():
            assert path.read_bytes() != content
            assert path.stat().st_mtime_ns == healed.setdefault(path, path.stat().st_mtime_ns), (
                "healed once, then taken"
            )


def test_the_option_is_jit_unless_told_otherwise() -> None:
    parser = argparse.ArgumentParser()
    engine.add_argument(parser)
    assert parser.parse_args([]).engine == "jit"
    assert parser.parse_args(["--engine", "lib:x.so"]).engine == "lib:x.so"
