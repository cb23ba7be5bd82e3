"""`bms build`: a library that decides what the interpreter decides, from C and from Python without a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bms import cells, racks
from bms.cli import main
from bms.core.layout import Config
from bms.core.machine_table import Request
from bms.core.step import Controller, initial_state
from bms.firmware.build import HEADER, LIBRARY, TWIN, Status
from bms.racks.record import record
from hal.contract import Command, Measurement, RackInfo
from hal.engine import compile as compiler

N_CELLS, N_SENSORS, STEPS = 37, 5, 40

C_PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "rackbms.h"

static uint8_t *record(size_t size) { return aligned_alloc(64, (size + 63) / 64 * 64); }

static void load(const char *name, void *to, size_t size) {
    FILE *file = fopen(name, "rb");
    if (!file || fread(to, 1, size, file) != size) exit(1);
    fclose(file);
}

int main(void) {
    const size_t n = N_CELLS, m = N_SENSORS;
    const size_t sizes[4] = {rackbms_config_size(n, m), rackbms_state_size(n, m), rackbms_measurement_size(n, m),
                             rackbms_command_size(n, m)};
    uint8_t *config = record(sizes[0]), *state = record(sizes[1]), *command = record(sizes[3]);
    uint8_t *measurements = record(STEPS * sizes[2]), *measurement = record(sizes[2]);
    float soc[N_CELLS], std[N_CELLS];
    load("config", config, sizes[0]);
    load("measurements", measurements, STEPS * sizes[2]);
    for (size_t k = 0; k < n; k++) { soc[k] = 0.5f; std[k] = 0.25f; }
    for (size_t k = 0; k < sizes[1]; k++) state[k] = 0;
    for (size_t k = 0; k < sizes[3]; k++) command[k] = 0;
    rackbms_init(config, sizes[0], state, sizes[1], soc, n, std, n);
    FILE *out = fopen("decided", "wb");
    for (int step = 0; step < STEPS; step++) {
        for (size_t k = 0; k < sizes[2]; k++) measurement[k] = measurements[step * sizes[2] + k];
        int32_t status = rackbms_step(config, sizes[0], state, sizes[1], measurement, sizes[2], command, sizes[3],
                                      RACKBMS_REQUEST_CONNECT, 0.5f);
        fwrite(&status, sizeof status, 1, out);
        fwrite(command, 1, sizes[3], out);
    }
    fwrite(state, 1, sizes[1], out);
    return fclose(out);
}
"""


@pytest.fixture(scope="module")
def config() -> Config:
    cell = cells.load("lfp_280")
    sensor_of_cell = (np.arange(N_CELLS) * N_SENSORS // N_CELLS).astype(np.uint16)
    info = RackInfo("test", N_CELLS, N_SENSORS, 1, cell.capacity_ah, cell.name, sensor_of_cell)
    return record(racks.default(cell, info), info)


def measurements(measurement: Measurement) -> list[bytes]:
    """What a rack might say, with gaps."""
    rng = np.random.default_rng(2)
    said = []
    for k in range(STEPS):
        head = measurement.head
        head["time_s"], head["sequence"], head["interlock_closed"] = 0.5 * k, k + 1, 1
        for name, value in (("current_a", rng.normal(0, 90)), ("pack_v", 3.3 * N_CELLS), ("bus_v", 3.3 * N_CELLS)):
            head[name] = value
        for name in ("insulation_ohm", "coolant_in_degc", "coolant_out_degc"):
            head[name] = 25.0
        measurement.cell_v[:] = rng.normal(3.3, 0.05, N_CELLS)
        measurement.sensor_degc[:] = rng.normal(25, 3, N_SENSORS)
        measurement.cell_v[k % N_CELLS] = np.nan if k % 3 else 3.3
        said.append(measurement.bytes.tobytes())
    return said


def decided(config: Config, folder: Path) -> bytes:
    """What the controller in Python decides, and its memory in the end; leaves what a program needs in `folder`."""
    measurement, command = Measurement(N_CELLS, N_SENSORS), Command(N_CELLS, N_SENSORS)
    inputs = measurements(measurement)
    controller = Controller(config, initial_state(config, 0.5, 0.25), measurement, command)
    expected = b""
    seen = set()
    for given in inputs:
        measurement.bytes[:] = np.frombuffer(given, np.uint8)
        status = controller.step(Request.CONNECT, 0.5)
        seen.add(status)
        expected += np.int32(status).tobytes() + command.bytes.tobytes()
    expected += controller.state.bytes.tobytes()
    assert len(seen) > 1
    (folder / "config").write_bytes(config.bytes.tobytes())
    (folder / "measurements").write_bytes(b"".join(inputs))
    return expected


SIZES = (f"-DN_CELLS={N_CELLS}", f"-DN_SENSORS={N_SENSORS}", f"-DSTEPS={STEPS}")


def test_a_c_program_decides_the_same_bit_for_bit(
    compiled: Callable[..., Path], config: Config, tmp_path: Path
) -> None:
    expected = decided(config, tmp_path)
    subprocess.run([compiled(C_PROGRAM, "-std=c11", "-O1", *SIZES)], cwd=tmp_path, check=True)
    assert (tmp_path / "decided").read_bytes() == expected


def test_a_c_program_of_another_processor_decides_the_same(image: Path, config: Config, tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("aarch64-linux-gnu-gcc or qemu-aarch64 is not installed: .ci/toolchain")
    expected = decided(config, tmp_path)
    (tmp_path / "program.c").write_text(C_PROGRAM)
    words = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-static", f"-I{image}", *SIZES]
    sources = [tmp_path / "program.c", image / "rackbms.o"]
    subprocess.run([compiler, *words, *sources, "-o", tmp_path / "program"], check=True)
    subprocess.run([emulator, tmp_path / "program"], cwd=tmp_path, check=True)
    assert (tmp_path / "decided").read_bytes() == expected


def test_the_library_needs_nothing_but_memory_functions(built: Path) -> None:
    unknown = {
        name for name in compiler.undefined_symbols((built / LIBRARY).read_bytes()) if not name.startswith(("_", "mem"))
    }
    assert not unknown
    assert Status(0x103) == Status.CURRENT_BAD | Status.VOLTAGE_BAD | Status.FAULT


# ---------------------------------------------------------------------------------------- Python without a compiler

BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite", "scipy", "matplotlib"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Refuse())
from bms.cli import main
code = main(sys.argv[1:])
assert not {"numba", "llvmlite"} & set(sys.modules)
sys.exit(code)
"""

RUN = ("--rack", "sim:lfp_280?n_series=8&module_groups=4&seed=3&duty.start_s=8", "--cell", "lfp_280", "--duration", "20s",
       "--quiet", "--no-report")  # fmt: skip


def without_compiler(*words: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RACKBMS_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the twin, compiled here."""
    folder = tmp_path_factory.mktemp("recorded")
    assert main(["run", *RUN, "--out", str(folder)]) == 0
    return folder


def test_the_same_recording_from_the_library_without_a_compiler(built: Path, recorded: Path, tmp_path: Path) -> None:
    engine = f"lib:{built / LIBRARY},{built / TWIN}"
    done = without_compiler("run", *RUN, "--out", tmp_path / "run", "--engine", engine, cache=tmp_path / "cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "recording.bms").read_bytes() == (recorded / "recording.bms").read_bytes()
    assert not (tmp_path / "cache").exists()


def test_a_recording_is_replayed_without_a_compiler(built: Path, recorded: Path, tmp_path: Path) -> None:
    engine = ("--engine", f"lib:{built / LIBRARY}")
    done = without_compiler("replay", recorded, *engine, cache=tmp_path / "cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\d+ steps, 0 differences", done.stdout)
    words = ("run", "--rack", f"replay:{recorded}", "--quiet", "--no-report", "--out", tmp_path / "again", *engine)
    done = without_compiler(*words, cache=tmp_path / "cache")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_no_library_holds_needs_a_compiler(built: Path, tmp_path: Path) -> None:
    words = ("run", *RUN, "--out", tmp_path / "run", "--engine", f"lib:{built / LIBRARY}")
    done = without_compiler(*words, cache=tmp_path / "cache")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "program 'twin' has to be compiled" in done.stderr
    assert "--engine lib:PATH" in done.stderr


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_a_library_of_other_sources_is_one_clear_line(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (built / LIBRARY).read_bytes()
    other = re.sub(rb'("digest": ")([0-9a-f])', lambda m: m[1] + (b"0" if m[2] != b"0" else b"1"), content)
    assert other != content
    (tmp_path / "old.so").write_bytes(other)
    assert main(["run", *RUN, "--out", str(tmp_path / "o"), "--engine", f"lib:{tmp_path / 'old.so'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "old.so: was built from other sources of 'core' than these: build it again: bms build" in error


def test_without_a_c_compiler_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["build", "--target", "host", "-o", str(tmp_path)]) == 2
    assert "no C compiler found (no-such-compiler): install gcc or clang" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_the_linker_says_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\necho first >&2\necho ld: out of luck >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    assert main(["build", "--target", "host", "-o", str(tmp_path / "out")]) == 2
    assert "cannot link" in (error := capsys.readouterr().err)
    assert "ld: out of luck" in error
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_or_header_that_cannot_be_written(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["build", "--target", "host", "-o", str(tmp_path / "file")]) == 2
    assert "cannot be made" in capsys.readouterr().err
    (tmp_path / HEADER).mkdir()
    assert main(["build", "--target", "host", "-o", str(tmp_path)]) == 2
    assert f"{HEADER}: cannot be written" in capsys.readouterr().err
