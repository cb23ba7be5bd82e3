"""The header says what numpy says: sizes, places and numbers, whatever the size of the rack."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bms.core.faults import Fault
from bms.core.layout import CONFIG, STATE
from bms.firmware.build import HEADER, rackbms_header
from bms.firmware.header import header
from hal.codec.jit import PROGRAM as CODEC
from hal.contract import COMMAND, MEASUREMENT, TRUTH, Command, Layout

LAYOUTS = (CONFIG, STATE, MEASUREMENT, COMMAND)
SIZES = ((1, 1), (15, 2), (16, 3), (17, 17), (416, 52), (1000, 65535))


def test_places_and_sizes_are_those_of_numpy(compiled: Callable[..., Path]) -> None:
    lines, expected = [], []
    for layout in LAYOUTS:
        name = f"rackbms_{layout.name.lower()}"
        lines.append(f'printf("%s\\n", {name.upper()}_LAYOUT);')
        expected.append(layout.digest())
        for size in SIZES:
            dtype = layout.dtype(*size)
            assert dtype.fields is not None
            lines.append(f'printf("%zu\\n", {name}_size({size[0]}, {size[1]}));')
            expected.append(str(dtype.itemsize))
            for field in layout.arrays:
                lines.append(f'printf("%td\\n", (char *){name}_{field.name}(base, {size[0]}, {size[1]}) - base);')
                expected.append(str(dtype.fields[field.name][1]))
    source = '#include <stdio.h>\n#include "rackbms.h"\nint main(void) {\nchar base[1];\n' + "\n".join(lines) + "\n}\n"
    done = subprocess.run([compiled(source, "-std=c11")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_scalars_lie_where_numpy_has_them(built: Path) -> None:
    text = (built / HEADER).read_text()
    for layout in LAYOUTS:
        head = layout.head_dtype
        assert head.fields is not None
        for name, (_, offset, *_) in head.fields.items():
            assert f"offsetof(rackbms_{layout.name.lower()}_head, {name}) == {offset})" in text
        assert f"sizeof(rackbms_{layout.name.lower()}_head) == {head.itemsize})" in text


def test_a_header_that_lies_does_not_compile(compiled: Callable[..., Path], built: Path, tmp_path: Path) -> None:
    text = (built / HEADER).read_text()
    found = re.search(r"offsetof\(rackbms_measurement_head, sequence\) == (\d+)", text)
    assert found is not None
    for wrong in (
        text.replace(found[0], found[0].replace(found[1], "12")),
        text.replace("double time_s;", "float time_s;"),
        text.replace("    float capacity_ah;", "    float one_more; float capacity_ah;"),
    ):
        assert wrong != text
        (tmp_path / "rackbms.h").write_text(wrong)
        with pytest.raises(subprocess.CalledProcessError):
            compiled('#include "rackbms.h"\nint main(void) { return 0; }\n', f"-I{tmp_path}", "-iquote", str(tmp_path))


def test_it_serves_c_plus_plus_too(compiled: Callable[..., Path]) -> None:
    size = Command(3, 1).bytes.size
    source = f'#include "rackbms.h"\nint main() {{ return static_cast<int>(rackbms_command_size(3, 1) - {size}); }}\n'
    try:
        program = compiled(source, "-std=c++14", language="cpp")
    except subprocess.CalledProcessError:
        if subprocess.run(["cc", "-x", "c++", "-fsyntax-only", "-"], input="int x;", text=True, check=False).returncode:
            pytest.skip("the compiler knows no C++")
        raise
    assert subprocess.run([program], check=False).returncode == 0


def test_numbers_and_functions_are_named() -> None:
    text = rackbms_header()
    assert f"RACKBMS_FAULT_INTERLOCK_OPEN = {int(Fault.INTERLOCK_OPEN)}," in text
    assert "RACKBMS_RACK_STATE_FAULT = 5," in text
    assert "RACKBMS_STATUS_FAULT = 256," in text
    assert re.search(r"int32_t rackbms_step\(\s+uint8_t \*config,\s+int64_t config_size,", text)
    assert re.search(r"void rackbms_init\(", text)
    assert "size0,\n    int64_t states_size1," in text


def test_a_record_without_arrays_and_one_for_another_program() -> None:
    head_only = Layout("HeadOnly", TRUTH.scalars)
    text = header(CODEC, (head_only, TRUTH), (), "Title")
    assert "rackbms_codec_head_only_head" in text
    assert "double *rackbms_codec_truth_soc(" in text
    assert "int64_t rackbms_codec_unpack(" in text
    assert "#ifndef RACKBMS_CODEC_H" in text
