"""`bms build` for the processor of a controller: an object, a header that its compiler checks, and a report."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bms.cli import main
from bms.core.jit import PROGRAM
from bms.firmware import toolchain
from bms.firmware.build import HEADER, LAYOUTS, LIBRARY, OBJECT, REPORT, rackbms_header
from bms.firmware.header import layouts_digest
from bms.firmware.keys import public_key
from hal.engine.elf import Elf
from hal.engine.load import Table
from hal.errors import ConfigError


def test_the_object_needs_little_and_tells_its_sources(image: Path) -> None:
    code = (image / OBJECT).read_bytes()
    assert Elf(code).undefined() <= {"memcpy", "memset", "memmove"}
    assert PROGRAM.table.digest.encode() in code
    assert (image / OBJECT).read_bytes() == PROGRAM.image("cortex-a53")[0]


def test_the_library_for_linux_loads(image: Path, tmp_path: Path) -> None:
    """On the emulated processor: a program opens it, and finds the table of its sources."""
    emulator, compiler = shutil.which("qemu-aarch64"), shutil.which("aarch64-linux-gnu-gcc")
    if emulator is None or compiler is None:
        pytest.skip("qemu-aarch64 or aarch64-linux-gnu-gcc is not installed: .ci/toolchain")
    source, program = tmp_path / "load.c", tmp_path / "load"
    source.write_text(
        "#include <dlfcn.h>\n#include <stdio.h>\n"
        "int main(int n, char **words) {\n"
        "    void *library = dlopen(words[1], RTLD_NOW);\n"
        '    return !library || !dlsym(library, "rackbms_step") || puts(dlsym(library, "rackbms_table")) < 0;\n}\n'
    )
    subprocess.run([compiler, source, "-o", program, "-ldl"], check=True)
    words = [emulator, "-L", "/usr/aarch64-linux-gnu", program, image / LIBRARY]
    table = Table.from_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
    assert table == PROGRAM.table


def test_the_header_is_for_this_processor_alone(image: Path, arm: None, tmp_path: Path) -> None:
    text = (image / HEADER).read_text()
    assert f'#define RACKBMS_LAYOUTS "{layouts_digest(LAYOUTS)}"' in text
    assert f'#define RACKBMS_KERNELS "{PROGRAM.table.digest[:16]}"' in text
    (tmp_path / HEADER).write_text(rackbms_header("cortex-m7"))
    (tmp_path / "empty.c").write_text('#include "rackbms.h"\n')
    words = ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-ffreestanding", "-Wall", "-Wextra", "-Werror",
             f"-I{tmp_path}", "-c", tmp_path / "empty.c", "-o", tmp_path / "empty.o"]  # fmt: skip
    toolchain.run([*words, "-mfloat-abi=softfp"], "compile the header")
    with pytest.raises(ConfigError, match="compile with -mfloat-abi=softfp"):
        toolchain.run([*words, "-mfloat-abi=hard"], "compile the header")
    (tmp_path / HEADER).write_text(text)
    with pytest.raises(ConfigError, match="sizeof"):
        toolchain.run([*words, "-mfloat-abi=softfp"], "compile the header")


def test_the_report_tells_memory_and_stack(image: Path) -> None:
    text = (image / REPORT).read_text()
    told = {
        name: int(size.replace(",", "")) for name, size in re.findall(r"^    (.+?)\s{2,}([\d,]+)(?:  |$)", text, re.M)
    }
    elf = Elf((image / OBJECT).read_bytes())
    assert told["kernels, in flash"] == sum(section.size for section in elf.sections if section.loaded)
    assert told["kernels, in RAM"] == 0
    assert told["configuration, in flash"] == _config_size(image)
    assert 4096 < told["rackbms_step"] < 16384
    assert "forbidden symbols: none" in text
    assert "96 cells and 12 temperature sensors" in text


def _config_size(image: Path) -> int:
    found = re.search(r"#define RACKBMS_CONFIG_SIZE (\d+)", (image / "rackbms_config.h").read_text())
    assert found is not None
    return int(found[1])


def test_the_same_files_again(image: Path, tmp_path: Path) -> None:
    words = ["build", "--target", "cortex-a53", "--config", "nmc_ev", "--sensors", "12", "-o", str(tmp_path)]
    assert main(words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in image.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (image / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--target", "cortex-m7", "--twin"), "--twin is a library for this computer: use it with --target host"),
        (("--target", "cortex-m7", "--sensors", "3"), "--sensors belongs to a configuration: give --config, too"),
        (("--target", "cortex-m7", "--config", "no_such"), "unknown rack 'no_such'"),
        (("--target", "cortex-m7", "--access", "k.pub"), "--access belongs to a boot loader: give --boot, too"),
        (
            ("--target", "cortex-m33", "--boot", "k.pub"),
            "--boot: there is no board for cortex-m33 (there are: cortex-m7",
        ),
        (("--target", "cortex-m7", "--boot", "no.pub"), "no.pub: cannot be read"),
    ],
)
def test_options_that_do_not_fit(
    words: tuple[str, ...], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", *words, "-o", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error
    assert not (tmp_path / "none").exists()


def test_a_board_gets_a_program(arm: None, tmp_path: Path) -> None:
    assert main(["build", "--target", "cortex-m7", "--config", "nmc_ev", "-o", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"firmware.elf", "firmware.bin", "config.bin", OBJECT, HEADER, REPORT}
    text = (tmp_path / REPORT).read_text()
    assert "whole firmware, in RAM" in text
    assert "start > main > node_step > control_step > rackbms_step" in text
    names = {symbol.name for symbol in Elf((tmp_path / "firmware.elf").read_bytes()).symbols()}
    assert not names & {"__aeabi_fmul", "__aeabi_dmul"}, "the FPU multiplies"


def test_a_processor_with_linux_gets_a_program_where_its_compiler_is(image: Path) -> None:
    program = image / "firmware.elf"
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        assert not program.exists()
        pytest.skip("aarch64-linux-gnu-gcc is not installed: .ci/toolchain")
    names = {symbol.name for symbol in Elf(program.read_bytes()).symbols()}
    assert {"_start", "rackbms_step", "link_store"} <= names
    assert not Elf(program.read_bytes()).undefined()


def test_a_board_with_a_boot_loader_gets_that_and_a_program_for_each_slot(arm: None, tmp_path: Path) -> None:
    assert main(["keygen", str(tmp_path / "fleet.pem")]) == 0
    words = ["--target", "cortex-m4f", "--config", "nmc_ev", "--boot", str(tmp_path / "fleet.pub"), "-o"]
    assert main(["build", *words, str(tmp_path / "made")]) == 0
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names >= {"boot.elf", "slot-a.bin", "slot-b.bin", "firmware.bin"}
    assert public_key(tmp_path / "fleet.pub") in (tmp_path / "made" / "boot.elf").read_bytes()
