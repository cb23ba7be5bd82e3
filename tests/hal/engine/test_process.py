"""A small program without a C library, run as a process whose memory is seen."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hal.engine.process import Process
from hal.errors import ConfigError

ECHO = """
#include <unistd.h>
char link_store[4096], link_store_end[1];
int main(int n, char **words) {
    char byte;
    if (n != 2 || words[1][0] != '/') return 1;
    while (read(0, &byte, 1) == 1) { byte++; if (write(1, &byte, 1) != 1) return 2; }
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) is installed")
    folder: Path = tmp_path_factory.mktemp("process")
    (folder / "echo.c").write_text(ECHO)
    subprocess.run([compiler, folder / "echo.c", "-o", folder / "echo"], check=True)
    return (folder / "echo").read_bytes()


def test_its_input_and_output_are_the_link(program: bytes) -> None:
    with Process("process:echo", program) as process:
        process.send(b"abc")
        said = b""
        while len(said) < 3:
            said += process.receive(10.0)
        assert said == b"bcd"
        assert process.store[1] >= 4096
        assert not process.memory(process.store[0], 16).any()


def test_a_missing_emulator_names_its_package(program: bytes) -> None:
    with pytest.raises(ConfigError, match="qemu-none is not installed: apt-get install qemu-user"):
        Process("qemu:none", program, ("qemu-none", "-cpu", "none"))
